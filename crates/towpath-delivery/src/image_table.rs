//! `[images.NAME]` in `towpath.toml`: one of several images of a project.

use crate::{environment_tables::Text, project_schema::Step};
use serde::Deserialize;
use std::{collections::BTreeMap, fmt::Write as _};
use towpath_types::ImageReference;

/// One of several images of a project. Every line is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageTable {
    /// The Dockerfile's path. Without it, only pipelines build the image.
    pub dockerfile: Option<String>,
    /// The folder that the Dockerfile copies from. The default is the Dockerfile's.
    pub context: Option<String>,
    /// The stage of the Dockerfile to stop at. The default is the last.
    pub target: Option<String>,
    /// The image's repository: `shop/vote` in Towpath's own registry, or `registry.example.org/team/vote` in another.
    /// The default is the only one in an external registry that the manifests name and that ends with the image's
    /// name, or else `<repository of the project's image>/<name>`.
    pub repository: Option<String>,
    /// The names of containers that run the image, whatever their manifests say. The default is the containers whose
    /// image has its repository.
    #[serde(default)]
    pub containers: Vec<String>,
}

impl ImageTable {
    /// The folder that the Dockerfile copies from, from the repository's root; empty for the root.
    #[must_use]
    pub fn context_dir(&self) -> &str {
        let of_dockerfile = || self.dockerfile.as_deref()?.rsplit_once('/').map(|(folder, _)| folder);
        self.context.as_deref().or_else(of_dockerfile).unwrap_or_default()
    }
}

/// Whether a path leads to something in the repository, from its root.
fn is_inside(path: &str) -> bool {
    !path.starts_with('/') && !path.split('/').any(|part| part == "..")
}

/// What is wrong with the image `name`: the key, and a sentence.
fn wrong_in(name: &str, table: &ImageTable) -> Option<(Option<&'static str>, String)> {
    // A name is part of the image's default repository.
    let plain = ImageReference {
        registry: None,
        repository: format!("x/{name}"),
        tag: None,
        digest: None,
    };
    if plain.to_string().parse::<ImageReference>() != Ok(plain) {
        let why = "an image's name has lower-case letters, digits, and `.`, `_`, `-` or `/` between them";
        return Some((None, format!("`{}` cannot name an image: {why}", name.escape_debug())));
    }
    if let Some(repository) = &table.repository {
        let why = match repository.parse::<ImageReference>() {
            Err(error) => Some(error.to_string()),
            Ok(image) if image.tag.is_some() || image.digest.is_some() => {
                Some("leave the tag and the digest out: a release finds its own".to_string())
            }
            Ok(_) => None,
        };
        if let Some(why) = why {
            let repository = repository.escape_debug();
            return Some((
                Some("repository"),
                format!("`{repository}` cannot be a repository: {why}"),
            ));
        }
    }
    for (key, path) in [("dockerfile", &table.dockerfile), ("context", &table.context)] {
        if let Some(path) = path.as_deref().filter(|path| !is_inside(path)) {
            let path = path.escape_debug();
            return Some((
                Some(key),
                format!("`{path}` leads out of the repository: write it from the repository's root"),
            ));
        }
    }
    let needs_dockerfile = [("context", &table.context), ("target", &table.target)];
    let without = needs_dockerfile.into_iter().find(|(_, value)| value.is_some());
    if let (None, Some((key, _))) = (&table.dockerfile, without) {
        return Some((Some(key), format!("`{key}` needs a `dockerfile` beside it")));
    }
    None
}

/// The first thing that is wrong with `images`: its offset in the project file, and a sentence.
pub(crate) fn wrong(images: &BTreeMap<String, ImageTable>, places: &Text<'_>) -> Option<(usize, String)> {
    let offset_of = |name: &str, key: Option<&str>| {
        let table = [Step::Key("images"), Step::Key(name)];
        places.key(&table.into_iter().chain(key.map(Step::Key)).collect::<Vec<_>>())
    };
    let mut repositories: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, table) in images {
        if let Some((key, message)) = wrong_in(name, table) {
            return Some((offset_of(name, key), message));
        }
        let Some(repository) = table.repository.as_deref() else {
            continue;
        };
        if let Some(other) = repositories.insert(repository, name) {
            let message = format!("`{other}` and `{name}` have the same repository: each image needs one of its own");
            return Some((offset_of(name, Some("repository")), message));
        }
    }
    None
}

/// Writes the tables; parsing the result gives the same value.
pub(crate) fn render(images: &BTreeMap<String, ImageTable>, text: &mut String) {
    let quoted = |value: &str| toml::Value::String(value.to_string());
    for (name, table) in images {
        let _ = writeln!(text, "\n[images.{}]", quoted(name));
        for (key, value) in [
            ("dockerfile", &table.dockerfile),
            ("context", &table.context),
            ("target", &table.target),
            ("repository", &table.repository),
        ] {
            if let Some(value) = value {
                let _ = writeln!(text, "{key} = {}", quoted(value));
            }
        }
        if !table.containers.is_empty() {
            let names = table.containers.iter().map(|name| quoted(name)).collect();
            let _ = writeln!(text, "containers = {}", toml::Value::Array(names));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::project_file::ProjectFile;

    #[test]
    fn an_image_is_built_in_its_dockerfiles_folder_unless_it_says_otherwise() {
        let context = |text: &str| {
            let file = ProjectFile::parse(&format!("[images.vote]\n{text}")).unwrap();
            file.images["vote"].context_dir().to_string()
        };
        assert_eq!(context("dockerfile = \"services/vote/Dockerfile\"\n"), "services/vote");
        assert_eq!(context("dockerfile = \"Dockerfile.vote\"\n"), "");
        assert_eq!(context("dockerfile = \"vote/Dockerfile\"\ncontext = \".\"\n"), ".");
        assert_eq!(context(""), "");
    }

    #[test]
    fn what_is_rendered_parses_to_the_same() {
        let text = "[images.vote]\ndockerfile = \"vote/Dockerfile\"\ncontext = \".\"\ntarget = \"app\"\n\
                    repository = \"r.io/team/vote\"\ncontainers = [\"web\"]\n[images.\"back/end\"]\n";
        let file = ProjectFile::parse(text).unwrap();
        assert_eq!(file.images.len(), 2);
        assert_eq!(ProjectFile::parse(&file.render()).unwrap(), file);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, says) in [
            (
                "[images.Vote]\n",
                "towpath.toml:1:9: `Vote` cannot name an image: an image's name has lower-case letters",
            ),
            (
                "project = \"a\"\n\n[images.vote]\ndockerfile = \"Dockerfile\"\n  repository = \"Bad Name\"\n",
                "towpath.toml:5:3: `Bad Name` cannot be a repository",
            ),
            (
                "[images.vote]\nrepository = \"r.io/vote:1\"\n",
                "towpath.toml:2:1: `r.io/vote:1` cannot be a repository: leave the tag and the digest out",
            ),
            (
                "[images.vote]\ndockerfile = \"../Dockerfile\"\n",
                "towpath.toml:2:1: `../Dockerfile` leads out of the repository",
            ),
            (
                "[images.vote]\ndockerfile = \"Dockerfile\"\ncontext = \"/srv\"\n",
                "towpath.toml:3:1: `/srv` leads out of the repository",
            ),
            (
                "[images.vote]\ntarget = \"app\"\n",
                "towpath.toml:2:1: `target` needs a `dockerfile`",
            ),
            (
                "[images.a]\nrepository = \"r.io/x\"\n[images.b]\nrepository = \"r.io/x\"\n",
                "towpath.toml:4:1: `a` and `b` have the same repository",
            ),
            (
                "[images.vote]\ndockerfil = \"x\"\n",
                "towpath.toml:2:1: unknown key `dockerfil` in `images.vote`",
            ),
        ] {
            let error = ProjectFile::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
