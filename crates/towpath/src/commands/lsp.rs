//! `towpath lsp`: serves the language's knowledge about a configuration to any editor.
//!
//! Source: <https://microsoft.github.io/language-server-protocol/specifications/lsp/3.17/specification/>

use super::config::{Inputs, contexts};
use crate::cli::{Compile, Lsp};
use anyhow::{Context, Result, anyhow};
use lsp_server::{Connection, ErrorCode, Message, Notification, Request, Response};
use lsp_types::{
    CompletionItem, CompletionItemKind, CompletionOptions, CompletionParams, CompletionTextEdit,
    DiagnosticRelatedInformation, DiagnosticSeverity, DiagnosticTag, DidChangeTextDocumentParams,
    DidCloseTextDocumentParams, DidOpenTextDocumentParams, DidSaveTextDocumentParams, GotoDefinitionParams,
    HoverContents, HoverParams, HoverProviderCapability, Location, MarkupContent, MarkupKind, NumberOrString, OneOf,
    Position, PublishDiagnosticsParams, Range, ServerCapabilities, TextDocumentPositionParams,
    TextDocumentSyncCapability, TextDocumentSyncKind, TextEdit, Uri,
    notification::{
        DidChangeTextDocument, DidCloseTextDocument, DidOpenTextDocument, DidSaveTextDocument, Notification as _,
        PublishDiagnostics,
    },
    request::{Completion, GotoDefinition, HoverRequest, Request as _},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    cell::RefCell,
    collections::HashMap,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::runtime::Handle;
use towpath_config::{Capabilities, CompileOptions, CompletionKind, Document, Orbs};
use towpath_control::supply_orbs;
use towpath_yaml::{Severity, SourceFile, Span};

/// How long to wait before asking again for an orb that was not available.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves the editor on standard input and output until it disconnects.
pub async fn lsp(options: Lsp) -> Result<ExitCode> {
    let runtime = Handle::current();
    let serve = move || {
        let (connection, threads) = Connection::stdio();
        let served = Server::new(&connection, options, runtime).serve();
        drop(connection);
        match served {
            Ok(()) => threads.join().context("failed to speak with the editor"),
            Err(error) => Err(error),
        }
    };
    tokio::task::spawn_blocking(serve)
        .await
        .context("the editor's server ended early")??;
    Ok(ExitCode::SUCCESS)
}

/// A text that is open in the editor.
struct OpenText {
    document: Document,
    inputs: Inputs,
    contexts: Option<Vec<String>>,
}

impl OpenText {
    fn source(&self) -> &Arc<SourceFile> {
        self.document.source()
    }
}

struct Server<'c> {
    connection: &'c Connection,
    options: Lsp,
    runtime: Handle,
    documents: HashMap<Uri, OpenText>,
    /// The fetched orbs, so that a keystroke asks no registry.
    orbs: RefCell<Orbs>,
    /// When the server last failed to get each orb.
    failed: RefCell<HashMap<String, Instant>>,
    /// Texts that changed since their diagnostics were sent.
    dirty: Vec<Uri>,
}

impl<'c> Server<'c> {
    fn new(connection: &'c Connection, options: Lsp, runtime: Handle) -> Self {
        Self {
            connection,
            options,
            runtime,
            documents: HashMap::new(),
            orbs: RefCell::default(),
            failed: RefCell::default(),
            dirty: Vec::new(),
        }
    }

    fn serve(&mut self) -> Result<()> {
        let capabilities = ServerCapabilities {
            text_document_sync: Some(TextDocumentSyncCapability::Kind(TextDocumentSyncKind::FULL)),
            hover_provider: Some(HoverProviderCapability::Simple(true)),
            definition_provider: Some(OneOf::Left(true)),
            completion_provider: Some(CompletionOptions {
                trigger_characters: Some([" ", "<", ".", "/", "-", "["].map(String::from).to_vec()),
                ..CompletionOptions::default()
            }),
            ..ServerCapabilities::default()
        };
        self.connection.initialize(serde_json::to_value(capabilities)?)?;
        loop {
            // While the user is typing, nobody needs the errors of half a word.
            let message = match self.connection.receiver.try_recv() {
                Ok(message) => message,
                Err(_) => {
                    for uri in std::mem::take(&mut self.dirty) {
                        self.publish(&uri)?;
                    }
                    match self.connection.receiver.recv() {
                        Ok(message) => message,
                        Err(_) => return Ok(()),
                    }
                }
            };
            match message {
                Message::Request(request) => {
                    if self.connection.handle_shutdown(&request)? {
                        return Ok(());
                    }
                    let response = self.answer(request);
                    self.connection.sender.send(response.into())?;
                }
                Message::Notification(notification) => self.note(notification)?,
                Message::Response(_) => {}
            }
        }
    }

    fn answer(&mut self, request: Request) -> Response {
        let id = request.id.clone();
        let answered = match request.method.as_str() {
            HoverRequest::METHOD => self.hover(request),
            GotoDefinition::METHOD => self.definition(request),
            Completion::METHOD => self.complete(request),
            other => {
                let message = format!("towpath does not answer `{other}`");
                return Response::new_err(id, ErrorCode::MethodNotFound as i32, message);
            }
        };
        match answered {
            Ok(value) => Response::new_ok(id, value),
            Err(error) => Response::new_err(id, ErrorCode::RequestFailed as i32, format!("{error:#}")),
        }
    }

    fn note(&mut self, notification: Notification) -> Result<()> {
        match notification.method.as_str() {
            DidOpenTextDocument::METHOD => {
                let DidOpenTextDocumentParams { text_document } = parameters(notification.params)?;
                self.open(text_document.uri, text_document.text)?;
            }
            DidChangeTextDocument::METHOD => {
                let change: DidChangeTextDocumentParams = parameters(notification.params)?;
                let uri = change.text_document.uri;
                if let (Some(document), Some(last)) =
                    (self.documents.get_mut(&uri), change.content_changes.into_iter().last())
                {
                    document.document = Document::parse(document.source().name(), last.text);
                    self.dirty.retain(|dirty| *dirty != uri);
                    self.dirty.push(uri);
                }
            }
            DidSaveTextDocument::METHOD => {
                // The orbs and the contexts may have changed meanwhile.
                let DidSaveTextDocumentParams { text_document, .. } = parameters(notification.params)?;
                let text = self
                    .documents
                    .get(&text_document.uri)
                    .map(|document| document.source().text().to_owned());
                if let Some(text) = text {
                    self.open(text_document.uri, text)?;
                }
            }
            DidCloseTextDocument::METHOD => {
                let DidCloseTextDocumentParams { text_document } = parameters(notification.params)?;
                self.documents.remove(&text_document.uri);
                self.dirty.retain(|dirty| *dirty != text_document.uri);
                self.send(PublishDiagnosticsParams::new(text_document.uri, Vec::new(), None))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, uri: Uri, text: String) -> Result<()> {
        let file = path_of(&uri).unwrap_or_else(|| PathBuf::from("config.yml"));
        let compile = Compile {
            file,
            parameters: Vec::new(),
            branch: None,
            tag: None,
            orbs: self.options.orbs.clone(),
            at: self.options.at.clone(),
        };
        let read = async {
            anyhow::Ok((
                Inputs::with_text(&compile, true, String::new()).await?,
                contexts(&compile).await,
            ))
        };
        let (inputs, contexts) = self.runtime.block_on(read)?;
        let document = OpenText {
            document: Document::parse(compile.file.to_string_lossy().into_owned(), text),
            inputs,
            contexts,
        };
        self.documents.insert(uri.clone(), document);
        self.dirty.retain(|dirty| *dirty != uri);
        self.dirty.push(uri);
        Ok(())
    }

    /// Runs `work` on a text, with its orbs.
    fn with<T>(&self, text: &OpenText, work: impl FnOnce(&CompileOptions) -> T) -> T {
        let (mut orbs, mut failed) = (self.orbs.borrow_mut(), self.failed.borrow_mut());
        failed.retain(|reference, asked| {
            let is_fresh = asked.elapsed() < PATIENCE;
            if !is_fresh {
                orbs.remove(reference);
            }
            is_fresh
        });
        let mut options = text.inputs.options(orbs.clone());
        let sources = text.inputs.sources();
        let missing = self
            .runtime
            .block_on(supply_orbs(&sources, &text.document, &mut options));
        failed.extend(missing.into_iter().map(|reference| (reference, Instant::now())));
        orbs.clone_from(&options.orbs);
        work(&options)
    }

    fn publish(&self, uri: &Uri) -> Result<()> {
        let Some(document) = self.documents.get(uri) else {
            return Ok(());
        };
        let found = self.with(document, |options| match sort_of(document.source()) {
            Sort::Configuration => {
                let host = Capabilities::default();
                towpath_config::lint(&document.document, options, &host, document.contexts.as_deref())
            }
            Sort::Orb => towpath_config::check_orb(&document.document, options),
            Sort::Other => Vec::new(),
        });
        let here = |span: &Span| span.source().name() == document.source().name();
        let diagnostics = found
            .iter()
            .map(|found| {
                let primary = found.primary.as_ref().filter(|label| here(&label.span));
                let mut message = found.full_message();
                if let Some(hint) = &found.hint {
                    message.push_str("\nhint: ");
                    message.push_str(hint);
                }
                let elsewhere = found.primary.iter().filter(|label| !here(&label.span));
                if let Some(label) = elsewhere.into_iter().next() {
                    message.push_str(&format!("\nat {}", label.span.place()));
                }
                let related = found.secondary.iter().filter(|label| here(&label.span)).map(|label| {
                    DiagnosticRelatedInformation {
                        location: Location::new(uri.clone(), range(&label.span)),
                        message: label.message.to_string(),
                    }
                });
                lsp_types::Diagnostic {
                    range: primary.map_or_else(Range::default, |label| range(&label.span)),
                    severity: Some(match found.severity {
                        Severity::Error => DiagnosticSeverity::ERROR,
                        Severity::Warning => DiagnosticSeverity::WARNING,
                    }),
                    code: Some(NumberOrString::String(found.code.to_owned())),
                    source: Some("towpath".to_owned()),
                    message,
                    related_information: Some(related.collect()),
                    tags: found
                        .code
                        .starts_with("lint::unused")
                        .then(|| vec![DiagnosticTag::UNNECESSARY]),
                    ..lsp_types::Diagnostic::default()
                }
            })
            .collect();
        self.send(PublishDiagnosticsParams::new(uri.clone(), diagnostics, None))
    }

    fn send(&self, parameters: PublishDiagnosticsParams) -> Result<()> {
        let notification = Notification::new(PublishDiagnostics::METHOD.to_owned(), parameters);
        self.connection.sender.send(notification.into())?;
        Ok(())
    }

    fn place(&self, at: &TextDocumentPositionParams) -> Option<(&OpenText, usize)> {
        let document = self.documents.get(&at.text_document.uri)?;
        Some((document, offset(document.source().text(), at.position)))
    }

    fn hover(&self, request: Request) -> Result<serde_json::Value> {
        let HoverParams {
            text_document_position_params: at,
            ..
        } = parameters(request.params)?;
        let Some((document, offset)) = self.place(&at) else {
            return nothing();
        };
        let hover = self.with(document, |options| {
            towpath_config::hover(&document.document, options, offset)
        });
        answer(&hover.map(|hover| lsp_types::Hover {
            contents: HoverContents::Markup(MarkupContent {
                kind: MarkupKind::Markdown,
                value: hover.text,
            }),
            range: Some(range(&hover.span)),
        }))
    }

    fn definition(&self, request: Request) -> Result<serde_json::Value> {
        let GotoDefinitionParams {
            text_document_position_params: at,
            ..
        } = parameters(request.params)?;
        let Some((document, offset)) = self.place(&at) else {
            return nothing();
        };
        let found = self.with(document, |options| {
            towpath_config::definition(&document.document, options, offset)
        });
        let Some(span) = found else { return nothing() };
        let uri = match span.source().name() == document.source().name() {
            true => at.text_document.uri,
            false => orb_file(span.source())?,
        };
        answer(&Location::new(uri, range(&span)))
    }

    fn complete(&self, request: Request) -> Result<serde_json::Value> {
        let CompletionParams {
            text_document_position: at,
            ..
        } = parameters(request.params)?;
        let Some((document, offset)) = self.place(&at) else {
            return nothing();
        };
        let found = self.with(document, |options| {
            towpath_config::completions(&document.document, options, offset)
        });
        let text = &document.source().text()[..offset];
        let items: Vec<CompletionItem> = found
            .into_iter()
            .map(|found| {
                // Replace the part of the word that is already there, whatever the editor considers a word.
                let there = (0..=found.label.len())
                    .rev()
                    .find(|length| found.label.get(..*length).is_some_and(|start| text.ends_with(start)));
                let start = offset - there.unwrap_or_default();
                let new_text = match found.kind {
                    CompletionKind::Key => format!("{}: ", found.label),
                    _ => found.label.clone(),
                };
                let place = Span::new(document.source(), start..offset);
                CompletionItem {
                    kind: Some(match found.kind {
                        CompletionKind::Key => CompletionItemKind::PROPERTY,
                        CompletionKind::Value => CompletionItemKind::ENUM_MEMBER,
                        CompletionKind::Name => CompletionItemKind::FUNCTION,
                        CompletionKind::Reference => CompletionItemKind::VARIABLE,
                    }),
                    filter_text: Some(found.label.clone()),
                    label: found.label,
                    detail: Some(found.detail),
                    text_edit: Some(CompletionTextEdit::Edit(TextEdit::new(range(&place), new_text))),
                    ..CompletionItem::default()
                }
            })
            .collect();
        answer(&items)
    }
}

fn parameters<T: DeserializeOwned>(value: serde_json::Value) -> Result<T> {
    serde_json::from_value(value).context("the editor's message has another form than the protocol's")
}

fn answer(value: &impl Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value).context("failed to write an answer")
}

fn nothing() -> Result<serde_json::Value> {
    Ok(serde_json::Value::Null)
}

/// Bytes from lines and UTF-16 units.
fn offset(text: &str, position: Position) -> usize {
    let line: usize = text
        .split_inclusive('\n')
        .take(position.line as usize)
        .map(str::len)
        .sum();
    let mut units = 0;
    for (at, character) in text[line..].char_indices() {
        if units >= position.character as usize || character == '\n' {
            return line + at;
        }
        units += character.len_utf16();
    }
    text.len()
}

/// Lines and UTF-16 units from bytes.
fn range(span: &Span) -> Range {
    let text = span.source().text();
    let position = |offset: usize| {
        let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
        let line = text[..offset].matches('\n').count();
        let units: usize = text[start..offset].chars().map(char::len_utf16).sum();
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Position::new(narrow(line), narrow(units))
    };
    Range::new(position(span.range().start), position(span.range().end))
}

fn path_of(uri: &Uri) -> Option<PathBuf> {
    url::Url::parse(uri.as_str()).ok()?.to_file_path().ok()
}

/// The source of an orb as a file that an editor can open.
fn orb_file(source: &SourceFile) -> Result<Uri> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set, so there is no folder for the sources of orbs")?;
    let name = source.name().trim_start_matches("orb ");
    let name: String = name
        .chars()
        .map(
            |character| match character.is_ascii_alphanumeric() || ".@-_".contains(character) {
                true => character,
                false => '_',
            },
        )
        .collect();
    let folder = cache.join("towpath/orbs");
    std::fs::create_dir_all(&folder).with_context(|| format!("failed to make `{}`", folder.display()))?;
    let path = folder.join(format!("{name}.yml"));
    std::fs::write(&path, source.text()).with_context(|| format!("failed to write `{}`", path.display()))?;
    let url = url::Url::from_file_path(&path).map_err(|()| anyhow!("`{}` is no absolute path", path.display()))?;
    Ok(url.as_str().parse()?)
}

/// The role of a YAML file for CircleCI.
enum Sort {
    Configuration,
    Orb,
    /// A part that `pack` inlines, or a file that is not CircleCI's.
    Other,
}

/// Decides by the file's path, otherwise by its content: an editor opens every YAML file of a repository.
fn sort_of(source: &Arc<SourceFile>) -> Sort {
    let folder = Path::new(source.name()).parent();
    let folders: Vec<&OsStr> = folder.into_iter().flat_map(Path::iter).collect();
    match folders.iter().rposition(|name| *name == ".circleci") {
        Some(at) if at + 1 == folders.len() => return Sort::Configuration,
        Some(at) if folders[at + 1] == "orbs" => return Sort::Orb,
        _ => {}
    }
    let (documents, _) = towpath_yaml::parse(source, &towpath_yaml::ParseOptions::default());
    let Some(root) = documents.first().filter(|root| root.get("version").is_some()) else {
        return Sort::Other;
    };
    let runs = root.get("workflows").is_some() || root.get("jobs").is_some_and(|jobs| jobs.get("build").is_some());
    let defines = ["commands", "executors", "jobs", "orbs"];
    match (runs, defines.iter().any(|key| root.get(key).is_some())) {
        (true, _) => Sort::Configuration,
        (false, true) => Sort::Orb,
        (false, false) => Sort::Other,
    }
}
