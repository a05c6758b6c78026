//! The modules of a crate with everything that names something: items, `use` declarations and paths.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use syn::{
    Attribute, Expr, Item, Lit, LitStr, Meta, UseTree, Visibility,
    visit::{self, Visit},
};

/// Index of a module in [`Modules`].
pub type ModuleId = usize;

/// A path as written, without what stands between `<` and `>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    pub segments: Vec<String>,
    pub line: usize,
}

/// One name that a `use` declaration brings into its module.
#[derive(Debug)]
pub struct Use {
    /// `None` for `*`.
    pub name: Option<String>,
    pub path: Path,
    /// Whether it is visible outside its module: a re-export.
    pub public: bool,
}

/// A module, inline or a file of its own.
#[derive(Debug, Default)]
pub struct Module {
    pub parent: Option<ModuleId>,
    /// Index of its file in [`Modules::files`].
    pub file: usize,
    pub children: BTreeMap<String, ModuleId>,
    /// Names that it defines itself; modules and `use` declarations are not among them.
    pub items: BTreeSet<String>,
    pub uses: Vec<Use>,
    /// Paths of two segments or more outside `use` declarations.
    pub paths: Vec<Path>,
}

/// All modules of a crate; the first is its root.
#[derive(Debug, Default)]
pub struct Modules {
    pub modules: Vec<Module>,
    /// Paths of the files, as `read` got them.
    pub files: Vec<String>,
}

impl Modules {
    /// Reads the crate whose root module is in the file `root`; `read` answers `None` where there is no file.
    ///
    /// # Errors
    /// When a file is missing or is not Rust.
    pub fn read(root: &str, read: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let mut modules = Self::default();
        let (folder, _) = root.rsplit_once('/').unwrap_or(("", root));
        modules.read_file(None, root, folder, read)?;
        Ok(modules)
    }

    /// Reads one file and the files of its child modules, which lie in `folder`.
    fn read_file(
        &mut self,
        parent: Option<ModuleId>,
        path: &str,
        folder: &str,
        read: &dyn Fn(&str) -> Option<String>,
    ) -> Result<ModuleId, String> {
        let text = read(path).ok_or_else(|| format!("{path}: there is no such file"))?;
        let syntax =
            syn::parse_file(&text).map_err(|error| format!("{path}:{}: {error}", error.span().start().line))?;
        self.files.push(path.to_string());
        let file = self.files.len() - 1;
        let id = self.add(parent, file);
        let mut reader = Reader {
            modules: self,
            current: id,
            declared: Vec::new(),
        };
        for item in &syntax.items {
            reader.visit_item(item);
        }
        for (parent, name, inline) in reader.declared {
            let folder = [folder].into_iter().chain(inline.iter().map(String::as_str));
            let folder = folder.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
            let own = format!("{folder}/{name}");
            let (path, children) = if read(&format!("{own}.rs")).is_some() {
                (format!("{own}.rs"), own)
            } else {
                (format!("{own}/mod.rs"), own)
            };
            let child = self.read_file(Some(parent), &path, &children, read)?;
            self.modules[parent].children.insert(name, child);
        }
        Ok(id)
    }

    fn add(&mut self, parent: Option<ModuleId>, file: usize) -> ModuleId {
        self.modules.push(Module {
            parent,
            file,
            ..Module::default()
        });
        self.modules.len() - 1
    }

    /// Whether `module` lies in `ancestor`, at whatever depth.
    pub fn is_inside(&self, module: ModuleId, ancestor: ModuleId) -> bool {
        let mut above = self.modules[module].parent;
        while let Some(id) = above {
            if id == ancestor {
                return true;
            }
            above = self.modules[id].parent;
        }
        false
    }
}

/// Fills the modules of one file.
struct Reader<'a> {
    modules: &'a mut Modules,
    current: ModuleId,
    /// Modules that are files of their own: where they are declared, their names, and the inline modules around them.
    declared: Vec<(ModuleId, String, Vec<String>)>,
}

impl Reader<'_> {
    fn module(&mut self) -> &mut Module {
        &mut self.modules.modules[self.current]
    }

    fn define(&mut self, name: &syn::Ident) {
        self.module().items.insert(plain(name));
    }

    /// The names of the inline modules around the current one, outermost first.
    fn inline_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut at = self.current;
        while let Some(parent) = self.modules.modules[at].parent {
            let parent_module = &self.modules.modules[parent];
            if parent_module.file != self.modules.modules[at].file {
                break;
            }
            let name = parent_module.children.iter().find(|(_, child)| **child == at);
            names.extend(name.map(|(name, _)| name.clone()));
            at = parent;
        }
        names.reverse();
        names
    }

    fn add_use(&mut self, tree: &UseTree, before: &[String], public: bool) {
        let mut segments = before.to_vec();
        let (name, last, span) = match tree {
            UseTree::Path(path) => {
                segments.push(plain(&path.ident));
                return self.add_use(&path.tree, &segments, public);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_use(tree, before, public);
                }
                return;
            }
            UseTree::Glob(glob) => (None, None, glob.star_token.spans[0]),
            UseTree::Name(name) => (Some(plain(&name.ident)), Some(plain(&name.ident)), name.ident.span()),
            UseTree::Rename(rename) => (
                Some(plain(&rename.rename)),
                Some(plain(&rename.ident)),
                rename.ident.span(),
            ),
        };
        // `use foo::{self}` names `foo` itself.
        let (name, last) = match last.as_deref() {
            Some("self") if !segments.is_empty() => {
                let own = segments.last().cloned();
                (name.filter(|name| name != "self").or(own), None)
            }
            _ => (name, last),
        };
        segments.extend(last);
        self.module().uses.push(Use {
            name,
            path: Path {
                segments,
                line: span.start().line,
            },
            public,
        });
    }

    fn add_path(&mut self, segments: Vec<String>, line: usize) {
        if segments.len() > 1 {
            self.module().paths.push(Path { segments, line });
        }
    }

    /// Takes a text that is a path: `#[serde(with = "crate::bytes")]`.
    fn add_text(&mut self, text: &str, span: Span) {
        if let Ok(path) = syn::parse_str::<syn::Path>(text) {
            self.add_path(segments(&path), span.start().line);
        }
    }

    /// Finds paths in tokens that have no syntax of their own: arguments of macros and of attributes.
    fn scan(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Ident(_) => at = self.scan_path(&tokens, at, Vec::new()),
                TokenTree::Group(group) => {
                    self.scan(group.stream());
                    at += 1;
                }
                TokenTree::Literal(literal) => {
                    if let Ok(text) = syn::parse_str::<LitStr>(&literal.to_string()) {
                        self.add_text(&text.value(), literal.span());
                    }
                    at += 1;
                }
                TokenTree::Punct(_) => at += 1,
            }
        }
    }

    /// Takes the path that begins at `at`; answers where it ends.
    fn scan_path(&mut self, tokens: &[TokenTree], mut at: usize, mut segments: Vec<String>) -> usize {
        let line = tokens[at].span().start().line;
        let is_colon = |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
        while let Some(TokenTree::Ident(ident)) = tokens.get(at) {
            segments.push(plain(ident));
            at += 1;
            if !(is_colon(at) && is_colon(at + 1)) {
                break;
            }
            match tokens.get(at + 2) {
                // A `use` of several names in a macro's body.
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    let inside: Vec<TokenTree> = group.stream().into_iter().collect();
                    for (start, token) in inside.iter().enumerate() {
                        let begins = start == 0
                            || matches!(&inside[start - 1], TokenTree::Punct(punct) if punct.as_char() == ',');
                        if begins && matches!(token, TokenTree::Ident(_)) {
                            self.scan_path(&inside, start, segments.clone());
                        }
                    }
                    return at + 3;
                }
                Some(TokenTree::Ident(_)) => at += 2,
                _ => break,
            }
        }
        self.add_path(segments, line);
        at
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_test(attributes(item)) {
            return;
        }
        match item {
            Item::Const(item) => self.define(&item.ident),
            Item::Enum(item) => self.define(&item.ident),
            Item::Fn(item) => self.define(&item.sig.ident),
            Item::Static(item) => self.define(&item.ident),
            Item::Struct(item) => self.define(&item.ident),
            Item::Trait(item) => self.define(&item.ident),
            Item::TraitAlias(item) => self.define(&item.ident),
            Item::Type(item) => self.define(&item.ident),
            Item::Union(item) => self.define(&item.ident),
            Item::Macro(item) => {
                if let Some(name) = &item.ident {
                    self.define(name);
                }
            }
            Item::Use(item) => {
                let public = !matches!(item.vis, Visibility::Inherited);
                if item.leading_colon.is_none() {
                    self.add_use(&item.tree, &[], public);
                }
                return;
            }
            Item::Mod(item) => {
                let name = plain(&item.ident);
                match &item.content {
                    None => {
                        let inline = self.inline_names();
                        self.declared.push((self.current, name, inline));
                    }
                    Some((_, items)) => {
                        let file = self.module().file;
                        let child = self.modules.add(Some(self.current), file);
                        self.module().children.insert(name, child);
                        let outer = std::mem::replace(&mut self.current, child);
                        for item in items {
                            self.visit_item(item);
                        }
                        self.current = outer;
                    }
                }
                return;
            }
            // `impl` blocks, `extern` blocks and the like define no name that a path could lead to.
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        let attributes = match item {
            syn::ImplItem::Const(item) => &item.attrs,
            syn::ImplItem::Fn(item) => &item.attrs,
            syn::ImplItem::Type(item) => &item.attrs,
            syn::ImplItem::Macro(item) => &item.attrs,
            _ => return visit::visit_impl_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &'ast syn::TraitItem) {
        let attributes = match item {
            syn::TraitItem::Const(item) => &item.attrs,
            syn::TraitItem::Fn(item) => &item.attrs,
            syn::TraitItem::Type(item) => &item.attrs,
            syn::TraitItem::Macro(item) => &item.attrs,
            _ => return visit::visit_trait_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_trait_item(self, item);
        }
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if !is_test(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !is_test(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        if !is_test(&variant.attrs) {
            visit::visit_variant(self, variant);
        }
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        if !is_test(&arm.attrs) {
            visit::visit_arm(self, arm);
        }
    }

    /// `pub(in crate::foo)` imports nothing.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if !attribute.path().is_ident("doc") {
            visit::visit_attribute(self, attribute);
        }
    }

    /// `#[name = "…"]`
    fn visit_meta_name_value(&mut self, pair: &'ast syn::MetaNameValue) {
        match &pair.value {
            Expr::Lit(literal) if let Lit::Str(text) = &literal.lit => self.add_text(&text.value(), text.span()),
            _ => visit::visit_meta_name_value(self, pair),
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none()
            && let Some(first) = path.segments.first()
        {
            self.add_path(segments(path), first.ident.span().start().line);
        }
        visit::visit_path(self, path);
    }

    fn visit_token_stream(&mut self, tokens: &'ast TokenStream) {
        self.scan(tokens.clone());
    }
}

/// `r#type` and `type` are one name.
fn plain(ident: &syn::Ident) -> String {
    let text = ident.to_string();
    text.strip_prefix("r#").map(str::to_string).unwrap_or(text)
}

fn segments(path: &syn::Path) -> Vec<String> {
    path.segments.iter().map(|segment| plain(&segment.ident)).collect()
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// `#[test]`, `#[cfg(test)]` and `#[cfg(all(test, …))]`.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) => list.path.is_ident("cfg") && needs_test(list.tokens.clone()),
        Meta::NameValue(_) => false,
    })
}

fn needs_test(condition: TokenStream) -> bool {
    let tokens: Vec<TokenTree> = condition.into_iter().collect();
    tokens
        .iter()
        .enumerate()
        .any(|(at, token)| match (token, tokens.get(at + 1)) {
            (TokenTree::Ident(name), Some(TokenTree::Group(all))) if name == "all" => needs_test(all.stream()),
            (TokenTree::Ident(name), None) => name == "test",
            (TokenTree::Ident(name), Some(TokenTree::Punct(next))) => name == "test" && next.as_char() == ',',
            _ => false,
        })
}
