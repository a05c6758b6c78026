//! `towpath build`: builds the working tree's images on the machine's engine.

use crate::{cli::Build, client::Client, repository::Repository};
use anyhow::{Context, Result, anyhow, bail};
use std::process::Command;
use towpath_container::ContainerClient;
use towpath_delivery::{project_images, with_found_image};
use towpath_images::{BuildRequest, ImageTags, RegistryClient, docker_credentials};
use towpath_types::{ImageReference, RegistryCredentials};

/// `towpath build`.
pub async fn build(options: Build) -> Result<()> {
    let repository = Repository::find()?;
    let commit = repository
        .commit()
        .ok_or_else(|| anyhow!("there is no commit yet: an image is named by its commit"))?;
    let branch = repository
        .branch()
        .ok_or_else(|| anyhow!("no branch is checked out: an image is named by its branch"))?;
    if !repository
        .git(&["status", "--porcelain", "--untracked-files=no"])?
        .is_empty()
    {
        eprintln!(
            "note: there are changes that commit {} does not have; the image will",
            commit.short()
        );
    }
    let settings = repository.file.build.clone().unwrap_or_default();
    if let Some(prepare) = &settings.prepare {
        outln!("$ {prepare}");
        let status = Command::new("sh")
            .args(["-c", prepare])
            .current_dir(&repository.root)
            .status();
        let status = status.context("failed to run sh")?;
        if !status.success() {
            bail!("`{prepare}` failed ({status})");
        }
    }
    let builds = what_to_build(&repository, &options.images)?;
    let engine = ContainerClient::connect().await?;
    let mut print = |line: &str| outln!("{line}");
    let mut built = Vec::new();
    for build in builds {
        if let Some(name) = &build.name {
            outln!("building {name} from {}", build.dockerfile);
        }
        let request = BuildRequest {
            context_dir: repository.root.join(&build.context),
            dockerfile: repository.root.join(&build.dockerfile),
            target: build.target.clone(),
            build_args: [("COMMIT".to_string(), commit.to_string())].into(),
            ..BuildRequest::default()
        };
        let image = towpath_images::build(&engine, &request, &mut print).await?;
        outln!("built {}", image.id);
        built.push((build, image));
    }
    if options.no_push {
        return Ok(());
    }
    let client = Client::new(&options.at)?;
    let project = options.at.project.clone().unwrap_or_else(|| repository.project());
    let own = client.base().trim_start_matches("http://").to_string();
    let tags = ImageTags::new(&branch, &default_branch(&repository), &commit, jiff::Timestamp::now());
    let repositories = project_images(&project, &repository.file, &repository.manifests()?, &own)?;
    // Nothing is pushed unless everything was built.
    for (build, image) in built {
        let mut name = match build.name.as_ref().and_then(|name| repositories.get(name)) {
            Some(repository) => repository.clone(),
            None => with_found_image(repository.file.clone(), &project, &repository.manifests()?)
                .image
                .unwrap_or_else(|| project.clone())
                .parse()?,
        };
        let registry = name.registry.get_or_insert_with(|| own.clone()).clone();
        let credentials = if registry == own {
            Some(RegistryCredentials {
                username: "towpath".into(),
                password: client.token().clone(),
            })
        } else {
            docker_credentials(&registry).await?
        };
        let first = ImageReference {
            tag: Some(tags.commit.clone()),
            ..name.clone()
        };
        let digest = towpath_images::push(&engine, &image, &first, credentials.as_ref(), &mut print).await?;
        let registry = RegistryClient::new(&registry, credentials)?;
        for tag in [&tags.latest, &tags.dated] {
            // The registry already has the layers: tagging moves only a manifest.
            registry.tag(&name.at(digest.clone()), &tag.parse()?).await?;
        }
        for tag in tags.iter() {
            outln!("pushed {}:{tag}", name.name());
        }
        outln!("{}", name.at(digest));
    }
    Ok(())
}

/// One image to build. Paths are from the repository's root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ToBuild {
    /// Its name in the project file; `None` for the project's own image.
    name: Option<String>,
    dockerfile: String,
    context: String,
    target: Option<String>,
}

/// The images to build: the `wanted` ones, or all that the project file has a Dockerfile of.
fn what_to_build(repository: &Repository, wanted: &[String]) -> Result<Vec<ToBuild>> {
    let (file, project) = (&repository.file, repository.project());
    let own = |dockerfile: String| ToBuild {
        dockerfile,
        ..ToBuild::default()
    };
    let said = file.build.as_ref().and_then(|build| build.dockerfile.clone());
    let is_project = |name: &String| *name == project && !file.images.contains_key(name);
    if file.images.is_empty() && wanted.iter().all(is_project) {
        return Ok(vec![own(said.map_or_else(|| only_dockerfile(repository), Ok)?)]);
    }
    let declared = |name: &String| {
        let table = file.images.get(name)?;
        let build = table.dockerfile.as_ref().map(|dockerfile| ToBuild {
            name: Some(name.clone()),
            dockerfile: dockerfile.clone(),
            context: table.context_dir().to_string(),
            target: table.target.clone(),
        });
        Some(build)
    };
    if wanted.is_empty() {
        let declared = file.images.keys().filter_map(|name| declared(name)?);
        let all: Vec<ToBuild> = declared.chain(said.map(own)).collect();
        if all.is_empty() {
            bail!("no image in towpath.toml has a `dockerfile`, so only pipelines build them");
        }
        return Ok(all);
    }
    let mut builds = Vec::new();
    for name in wanted {
        match (declared(name), &said) {
            (Some(Some(build)), _) => builds.push(build),
            (Some(None), _) => {
                bail!("`[images.{name}]` in towpath.toml has no `dockerfile`, so only pipelines build it")
            }
            (None, Some(dockerfile)) if is_project(name) => builds.push(own(dockerfile.clone())),
            (None, _) if file.images.is_empty() => {
                bail!("towpath.toml has no `[images.{name}]`: `towpath build` builds the project's only image")
            }
            (None, _) => {
                let known: Vec<&str> = file.images.keys().map(String::as_str).collect();
                bail!("towpath.toml has no image `{name}`: there are {}", known.join(", "));
            }
        }
    }
    Ok(builds)
}

/// The Dockerfile of a repository whose project file names none.
fn only_dockerfile(repository: &Repository) -> Result<String> {
    match repository.dockerfiles().as_slice() {
        [] => Ok("Dockerfile".to_string()),
        [only] => Ok(only.clone()),
        [first, ..] if !first.contains('/') => Ok(first.clone()),
        several => bail!(
            "there are several Dockerfiles ({}): say in towpath.toml which is the project's, such as `[build]` and `dockerfile = \
             \"{}\"`, or give each an image of its own, such as `[images.NAME]` and `dockerfile = …`",
            several.join(", "),
            several.first().map(String::as_str).unwrap_or_default()
        ),
    }
}

fn default_branch(repository: &Repository) -> String {
    let head = repository
        .git(&["symbolic-ref", "--quiet", "--short", "refs/remotes/towpath/HEAD"])
        .ok();
    head.and_then(|head| head.split_once('/').map(|(_, branch)| branch.to_string()))
        .unwrap_or_else(|| "main".into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn builds(toml: &str, dockerfiles: &[&str], wanted: &[&str]) -> Result<Vec<(Option<String>, String, String)>> {
        let dir = tempfile::tempdir().unwrap();
        for path in dockerfiles {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "FROM scratch\n").unwrap();
        }
        std::fs::write(dir.path().join("towpath.toml"), format!("project = \"shop\"\n{toml}")).unwrap();
        let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        let builds = what_to_build(&Repository::at(dir.path()).unwrap(), &wanted)?;
        Ok(builds
            .into_iter()
            .map(|one| (one.name, one.dockerfile, one.context))
            .collect())
    }

    fn image(name: Option<&str>, dockerfile: &str, context: &str) -> (Option<String>, String, String) {
        (name.map(str::to_string), dockerfile.to_string(), context.to_string())
    }

    const SHOP: &str = "[images.vote]\ndockerfile = \"vote/Dockerfile\"\n\
                        [images.result]\ndockerfile = \"result/Dockerfile\"\ncontext = \"\"\n[images.base]\n";

    #[test]
    fn all_images_are_built_or_those_that_are_named() {
        let (vote, result) = (
            image(Some("vote"), "vote/Dockerfile", "vote"),
            image(Some("result"), "result/Dockerfile", ""),
        );
        let all = [result.clone(), vote.clone()];
        assert_eq!(builds(SHOP, &[], &[]).unwrap(), all);
        assert_eq!(builds(SHOP, &[], &["vote"]).unwrap(), std::slice::from_ref(&vote));
        assert_eq!(builds(SHOP, &[], &["vote", "result"]).unwrap(), [vote, result]);
        let with_own = format!("{SHOP}[build]\ndockerfile = \"Dockerfile\"\n");
        let own = image(None, "Dockerfile", "");
        assert_eq!(builds(&with_own, &[], &[]).unwrap().last(), Some(&own));
        assert_eq!(builds(&with_own, &[], &["shop"]).unwrap(), std::slice::from_ref(&own));
        assert_eq!(builds("", &["Dockerfile", "x/Dockerfile"], &["shop"]).unwrap(), [own]);
        assert_eq!(
            builds("", &["x/Dockerfile"], &[]).unwrap(),
            [image(None, "x/Dockerfile", "")]
        );
    }

    #[test]
    fn an_image_that_cannot_be_built_is_named() {
        for (toml, dockerfiles, wanted, says) in [
            (
                SHOP,
                [].as_slice(),
                ["voet"].as_slice(),
                "no image `voet`: there are base, result, vote",
            ),
            (
                SHOP,
                &[],
                &["base"],
                "`[images.base]` in towpath.toml has no `dockerfile`",
            ),
            (
                "[images.base]\n",
                &[],
                &[],
                "no image in towpath.toml has a `dockerfile`",
            ),
            (
                "",
                &["Dockerfile"],
                &["vote"],
                "no `[images.vote]`: `towpath build` builds the project's only image",
            ),
            (
                "",
                &["a/Dockerfile", "b/Dockerfile"],
                &[],
                "several Dockerfiles (a/Dockerfile, b/Dockerfile)",
            ),
        ] {
            let error = builds(toml, dockerfiles, wanted).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
