//! `towpath build`: builds the working tree's image on the machine's engine.

use crate::{cli::Build, client::Client, repository::Repository};
use anyhow::{Context, Result, anyhow, bail};
use std::process::Command;
use towpath_container::ContainerClient;
use towpath_delivery::with_found_image;
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
    let dockerfile = match (settings.dockerfile, repository.dockerfiles().as_slice()) {
        (Some(said), _) => said,
        (None, []) => "Dockerfile".to_string(),
        (None, [only]) => only.clone(),
        (None, [first, ..]) if !first.contains('/') => first.clone(),
        (None, several) => bail!(
            "there are several Dockerfiles ({}): say in towpath.toml which, such as `[build]` and `dockerfile = \"{}\"`",
            several.join(", "),
            several.first().map(String::as_str).unwrap_or_default()
        ),
    };
    let engine = ContainerClient::connect().await?;
    let request = BuildRequest {
        context_dir: repository.root.clone(),
        dockerfile: dockerfile.into(),
        build_args: [("COMMIT".to_string(), commit.to_string())].into(),
        ..BuildRequest::default()
    };
    let mut print = |line: &str| outln!("{line}");
    let image = towpath_images::build(&engine, &request, &mut print).await?;
    outln!("built {}", image.id);
    if options.no_push {
        return Ok(());
    }
    let client = Client::new(&options.at)?;
    let project = options.at.project.clone().unwrap_or_else(|| repository.project());
    let own = client.base().trim_start_matches("http://").to_string();
    let file = with_found_image(repository.file.clone(), &project, &repository.manifests()?);
    let name = file.image.unwrap_or(project);
    let mut name: ImageReference = name.parse()?;
    let registry = name.registry.get_or_insert_with(|| own.clone()).clone();
    let credentials = if registry == own {
        Some(RegistryCredentials {
            username: "towpath".into(),
            password: client.token().clone(),
        })
    } else {
        docker_credentials(&registry).await?
    };
    let tags = ImageTags::new(&branch, &default_branch(&repository), &commit, jiff::Timestamp::now());
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
    Ok(())
}

fn default_branch(repository: &Repository) -> String {
    let head = repository
        .git(&["symbolic-ref", "--quiet", "--short", "refs/remotes/towpath/HEAD"])
        .ok();
    head.and_then(|head| head.split_once('/').map(|(_, branch)| branch.to_string()))
        .unwrap_or_else(|| "main".into())
}
