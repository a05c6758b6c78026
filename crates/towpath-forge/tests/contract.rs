//! What every forge has to do, on the fake and on git.
#![allow(clippy::unwrap_used)]

mod subject;

use futures::TryStreamExt;
use std::{collections::BTreeMap, io::Read};
use subject::{Change, Fake, Git, Subject};
use towpath_forge::{ForgeError, LARGEST_FILE_BYTES, MOST_FILES};
use towpath_types::{CommitId, ProjectName};

/// Runs each part of the contract on a fresh fake and on a fresh folder of git repositories.
macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod fake {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&super::Fake::default()).await;
            })*
        }
        mod git {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&super::Git::new().await).await;
            })*
        }
    };
}

contract! {
    projects_are_created_once_and_listed_by_name,
    an_unknown_project_is_an_error_everywhere,
    refs_lead_to_commits,
    a_word_means_a_tag_a_branch_or_the_beginning_of_an_id,
    a_whole_name_means_that_ref_and_no_other,
    the_log_is_the_history_of_one_commit_without_that_of_another,
    a_file_is_what_a_checkout_has_there,
    files_come_sorted_and_with_what_links_lead_to,
    a_folder_of_too_many_files_is_not_read,
    a_commit_outlives_its_branch,
    a_source_is_an_archive_of_the_working_tree,
    many_tasks_may_read_at_once,
}

fn claims() -> ProjectName {
    "claims".parse().unwrap()
}

fn nobody() -> CommitId {
    "0123456789012345678901234567890123456789".parse().unwrap()
}

fn is_not_found<T>(answer: Result<T, ForgeError>) -> bool {
    matches!(answer, Err(ForgeError::NotFound { .. }))
}

async fn projects_are_created_once_and_listed_by_name(subject: &dyn Subject) {
    let forge = subject.forge();
    let (claims, billing) = (claims(), "billing".parse().unwrap());
    assert_eq!(forge.projects().await.unwrap(), []);
    assert!(!forge.exists(&claims).await.unwrap());
    forge.create(&claims, "main").await.unwrap();
    forge.create(&billing, "trunk").await.unwrap();
    assert!(forge.exists(&claims).await.unwrap());
    assert_eq!(forge.projects().await.unwrap(), [billing.clone(), claims.clone()]);
    assert_eq!(forge.default_branch(&billing).await.unwrap(), "trunk");
    assert_eq!(forge.refs(&claims).await.unwrap(), []);
    assert!(is_not_found(forge.find(&claims, "main").await));

    let commit = subject.commit(&claims, "main", "Add claims", &[Change::File("a", b"1")]);
    forge.create(&claims, "other").await.unwrap();
    assert_eq!(forge.default_branch(&claims).await.unwrap(), "main");
    assert_eq!(forge.find(&claims, "main").await.unwrap(), commit);
    for branch in ["release/2", "not-there"] {
        forge.set_default_branch(&claims, branch).await.unwrap();
        forge.set_default_branch(&claims, branch).await.unwrap();
        assert_eq!(forge.default_branch(&claims).await.unwrap(), branch);
    }
}

async fn an_unknown_project_is_an_error_everywhere(subject: &dyn Subject) {
    let (forge, claims, id) = (subject.forge(), claims(), nobody());
    let errors = [
        forge.default_branch(&claims).await.map(drop),
        forge.set_default_branch(&claims, "main").await,
        forge.refs(&claims).await.map(drop),
        forge.find(&claims, "main").await.map(drop),
        forge.find(&claims, "").await.map(drop),
        forge.commit(&claims, &id).await.map(drop),
        forge.log(&claims, None, &id, 1).await.map(drop),
        forge.file(&claims, &id, "a").await.map(drop),
        forge.files(&claims, &id, "a").await.map(drop),
        forge.source(&claims, &id, None, "origin").await.map(drop),
    ];
    for error in errors {
        assert!(matches!(&error, Err(ForgeError::UnknownProject(name)) if *name == claims));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("`claims`") && text.contains("`towpath init`"), "{text}");
    }
}

async fn refs_lead_to_commits(subject: &dyn Subject) {
    let (forge, claims) = (subject.forge(), claims());
    let first = subject.commit(&claims, "main", "First", &[Change::File("a", b"1")]);
    let second = subject.commit(&claims, "feature/x", "Second", &[Change::File("a", b"2")]);
    subject.set_ref(&claims, "refs/tags/v1", Some(&first));
    subject.annotated_tag(&claims, "v2", &second);
    subject.set_ref(&claims, "refs/replace/x", Some(&first));
    let named = |name: &str, id: &CommitId| (name.to_string(), id.clone());
    let refs = forge.refs(&claims).await.unwrap();
    assert_eq!(
        refs[..3],
        [
            named("refs/heads/feature/x", &second),
            named("refs/heads/main", &first),
            named("refs/tags/v1", &first),
        ]
    );
    // A push names the tag object.
    let (name, object) = &refs[3];
    assert_eq!(name, "refs/tags/v2");
    assert_ne!(*object, second);
    assert_eq!(forge.commit(&claims, object).await.unwrap().id, second);
    for (name, object) in &refs {
        let commit = forge.commit(&claims, object).await.unwrap().id;
        assert_eq!(forge.find(&claims, name).await.unwrap(), commit, "{name}");
    }
    subject.set_ref(&claims, "refs/heads/feature/x", None);
    assert_eq!(forge.refs(&claims).await.unwrap().len(), 3);
}

async fn a_word_means_a_tag_a_branch_or_the_beginning_of_an_id(subject: &dyn Subject) {
    let (forge, claims) = (subject.forge(), claims());
    let first = subject.commit(&claims, "main", "First", &[Change::File("a", b"1")]);
    let second = subject.commit(&claims, "main", "Second", &[Change::File("a", b"2")]);
    subject.set_ref(&claims, "refs/heads/release/1", Some(&first));
    subject.set_ref(&claims, "refs/heads/both", Some(&second));
    subject.set_ref(&claims, "refs/tags/both", Some(&first));
    for (word, expected) in [
        ("main", &second),
        ("release/1", &first),
        ("both", &first),
        (first.as_str(), &first),
        (first.short(), &first),
        (&second.as_str()[..4], &second),
    ] {
        assert_eq!(forge.find(&claims, word).await.unwrap(), *expected, "{word}");
    }
    for word in [
        "nosuch",
        "",
        "--all",
        "release",
        "0000000",
        nobody().as_str(),
        "a b",
        &first.as_str()[..3],
    ] {
        let error = forge.find(&claims, word).await.unwrap_err();
        assert!(matches!(error, ForgeError::NotFound { .. }), "{word}: {error}");
        assert!(error.to_string().contains(&format!("`{word}`")), "{error}");
    }
}

/// A tag may be called like a branch, and like the whole name of one.
async fn a_whole_name_means_that_ref_and_no_other(subject: &dyn Subject) {
    let (forge, claims) = (subject.forge(), claims());
    let good = subject.commit(&claims, "main", "Good", &[Change::File("a", b"good")]);
    let bad = subject.commit(&claims, "evil", "Bad", &[Change::File("a", b"bad")]);
    for name in [
        "refs/tags/main",
        "refs/tags/refs/heads/main",
        "refs/tags/refs/heads/gone",
    ] {
        subject.set_ref(&claims, name, Some(&bad));
    }
    assert_eq!(forge.find(&claims, "main").await.unwrap(), bad, "a tag wins");
    assert_eq!(forge.find(&claims, "refs/heads/main").await.unwrap(), good);
    assert_eq!(forge.find(&claims, "refs/tags/main").await.unwrap(), bad);
    for word in ["refs/heads/gone", "refs/heads/ma*", "refs/heads", "refs/"] {
        assert!(is_not_found(forge.find(&claims, word).await), "{word}");
    }
}

async fn the_log_is_the_history_of_one_commit_without_that_of_another(subject: &dyn Subject) {
    let (forge, claims) = (subject.forge(), claims());
    let commit =
        |message: &str, text: &'static [u8]| subject.commit(&claims, "main", message, &[Change::File("a", text)]);
    let first = commit("First\n\nWhy:\nbecause.\n", b"1");
    let second = commit("Second", b"2");
    let third = commit("Third: «ä»", b"3");
    subject.set_ref(&claims, "refs/heads/side", Some(&first));
    let side = subject.commit(&claims, "side", "Side", &[Change::File("b", b"1")]);

    let shown = forge.commit(&claims, &first).await.unwrap();
    assert_eq!(
        (
            shown.id.clone(),
            shown.subject.as_str(),
            shown.body.as_str(),
            shown.author.as_str()
        ),
        (first.clone(), "First", "Why:\nbecause.", "Ada Lovelace")
    );
    let log = async |from: Option<&CommitId>, to: &CommitId, limit| {
        let commits = forge.log(&claims, from, to, limit).await.unwrap();
        commits.into_iter().map(|commit| commit.id).collect::<Vec<_>>()
    };
    let ids = |ids: &[&CommitId]| ids.iter().map(|id| (*id).clone()).collect::<Vec<_>>();
    assert_eq!(log(None, &third, 10).await, ids(&[&third, &second, &first]));
    assert_eq!(log(None, &third, 2).await, ids(&[&third, &second]));
    assert_eq!(log(Some(&first), &third, 10).await, ids(&[&third, &second]));
    assert_eq!(log(Some(&side), &third, 10).await, ids(&[&third, &second]));
    assert_eq!(log(Some(&third), &first, 10).await, []);
    assert_eq!(log(Some(&third), &third, 10).await, []);
    assert!(is_not_found(forge.commit(&claims, &nobody()).await));
    assert!(is_not_found(forge.log(&claims, None, &nobody(), 10).await));
    assert!(is_not_found(forge.log(&claims, Some(&nobody()), &third, 10).await));
}

async fn a_file_is_what_a_checkout_has_there(subject: &dyn Subject) {
    let (forge, claims) = (subject.forge(), claims());
    let binary = [0, 159, 146, 150, b'\n', b'\n'];
    let commit = subject.commit(
        &claims,
        "main",
        "Files",
        &[
            Change::File(".circleci/config.yml", b"version: 2.1\n"),
            Change::File("bin", &binary),
            Change::File("empty", b""),
            Change::File("a b/ä", b"1"),
            Change::Link(".circleci/link", "../bin"),
            Change::Link("twice", ".circleci/link"),
            Change::Link("out", "../../etc/passwd"),
            Change::Link("absolute", "/etc/passwd"),
            Change::Link("nowhere", "nosuch"),
            Change::Link("loop", "loop"),
        ],
    );
    for (path, expected) in [
        (".circleci/config.yml", b"version: 2.1\n".as_slice()),
        ("bin", &binary),
        ("empty", b""),
        ("a b/ä", b"1"),
        (".circleci/link", &binary),
        ("twice", &binary),
    ] {
        assert_eq!(forge.file(&claims, &commit, path).await.unwrap(), expected, "{path}");
    }
    for path in ["nosuch", ".circleci", "out", "absolute", "nowhere", "loop", "a\nb"] {
        let error = forge.file(&claims, &commit, path).await.unwrap_err();
        assert!(matches!(error, ForgeError::NotFound { .. }), "{path}: {error}");
        let expected = format!("there is no file `{path}` at {} in project `claims`", commit.short());
        assert_eq!(error.to_string(), expected);
    }
    assert!(is_not_found(forge.file(&claims, &nobody(), "bin").await));
    let large = vec![b'x'; usize::try_from(LARGEST_FILE_BYTES).unwrap() + 1];
    let changes = [Change::File("large", &large), Change::File("fits", &large[1..])];
    let commit_of_large = subject.commit(&claims, "main", "Large", &changes);
    let fits = forge.file(&claims, &commit_of_large, "fits").await.unwrap();
    assert_eq!(fits.len(), large.len() - 1);
    let error = forge.file(&claims, &commit_of_large, "large").await.unwrap_err();
    let expected = format!(
        "file `large` at {} is larger than the 4194304 bytes that Towpath reads",
        commit_of_large.short()
    );
    assert_eq!(error.to_string(), expected);
    let later = subject.commit(&claims, "main", "Fewer", &[Change::Removed("bin")]);
    assert!(is_not_found(forge.file(&claims, &later, "bin").await));
    assert_eq!(forge.file(&claims, &commit, "bin").await.unwrap(), binary);
}

async fn files_come_sorted_and_with_what_links_lead_to(subject: &dyn Subject) {
    let (forge, claims) = (subject.forge(), claims());
    let large = vec![b'x'; usize::try_from(LARGEST_FILE_BYTES).unwrap() + 1];
    let commit = subject.commit(
        &claims,
        "main",
        "Manifests",
        &[
            Change::File(".k8s/live/dev/b.yaml", b"b"),
            Change::File(".k8s/live/dev/a.yaml", b"a\n\n"),
            Change::File(".k8s/live/base.yaml", b"base"),
            Change::File(".k8s/large.yaml", &large),
            Change::File(".k8s/fits.yaml", &large[1..]),
            Change::File("shared.yaml", b"shared"),
            Change::File(".k8ss/other.yaml", b"other"),
            Change::Link(".k8s/live/dev/shared.yaml", "../../../shared.yaml"),
            Change::Link(".k8s/live/dev/twice.yaml", "shared.yaml"),
            Change::Link(".k8s/out.yaml", "../../out.yaml"),
            Change::Link(".k8s/folder", "live"),
            Change::Link(".k8s/large-link", "large.yaml"),
        ],
    );
    let files = forge.files(&claims, &commit, ".k8s").await.unwrap();
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|file| (file.path.as_str(), file.bytes.as_slice()))
        .collect();
    let expected: [(&str, &[u8]); 6] = [
        (".k8s/fits.yaml", &large[1..]),
        (".k8s/live/base.yaml", b"base"),
        (".k8s/live/dev/a.yaml", b"a\n\n"),
        (".k8s/live/dev/b.yaml", b"b"),
        (".k8s/live/dev/shared.yaml", b"shared"),
        (".k8s/live/dev/twice.yaml", b"shared"),
    ];
    assert_eq!(files.len(), expected.len());
    for (file, expected) in files.iter().zip(expected) {
        assert!(*file == expected, "{} is not as expected", file.0);
    }
    assert_eq!(forge.files(&claims, &commit, ".k8s/live/dev").await.unwrap().len(), 4);
    assert_eq!(forge.files(&claims, &commit, "nosuch").await.unwrap(), []);
    assert!(is_not_found(forge.files(&claims, &nobody(), ".k8s").await));
}

async fn a_folder_of_too_many_files_is_not_read(subject: &dyn Subject) {
    let (forge, claims) = (subject.forge(), claims());
    let paths: Vec<String> = (0..=MOST_FILES).map(|number| format!("many/{number}")).collect();
    let changes: Vec<Change<'_>> = paths.iter().map(|path| Change::File(path, b"")).collect();
    let commit = subject.commit(&claims, "main", "Many", &changes);
    let error = forge.files(&claims, &commit, "many").await.unwrap_err();
    let expected = format!(
        "folder `many` at {} is larger than the {MOST_FILES} files that Towpath reads",
        commit.short()
    );
    assert_eq!(error.to_string(), expected);
    let fewer = subject.commit(&claims, "main", "Fewer", &[Change::Removed("many/0")]);
    assert_eq!(forge.files(&claims, &fewer, "many").await.unwrap().len(), MOST_FILES);
}

async fn a_commit_outlives_its_branch(subject: &dyn Subject) {
    let (forge, claims) = (subject.forge(), claims());
    subject.commit(&claims, "main", "First", &[Change::File("a", b"1")]);
    let gone = subject.commit(&claims, "feature", "Gone", &[Change::File("a", b"2")]);
    subject.set_ref(&claims, "refs/heads/feature", None);
    assert!(is_not_found(forge.find(&claims, "feature").await));
    assert_eq!(forge.find(&claims, gone.as_str()).await.unwrap(), gone);
    assert_eq!(forge.commit(&claims, &gone).await.unwrap().subject, "Gone");
    assert_eq!(forge.file(&claims, &gone, "a").await.unwrap(), b"2");
    assert_eq!(unpacked(subject, &gone, Some("feature")).await["a"], b"2");
}

async fn a_source_is_an_archive_of_the_working_tree(subject: &dyn Subject) {
    let (forge, claims) = (subject.forge(), claims());
    let commit = subject.commit(
        &claims,
        "main",
        "Files",
        &[
            Change::File("README", b"claims\n"),
            Change::File("src/main.rs", b""),
            Change::Link("link", "README"),
        ],
    );
    for branch in [Some("main"), None, Some("--orphan"), Some("not/there")] {
        let files = unpacked(subject, &commit, branch).await;
        assert_eq!(files["README"], b"claims\n", "{branch:?}");
        assert!(files.contains_key("src/main.rs") && files.contains_key("link"));
    }
    assert!(is_not_found(
        forge.source(&claims, &nobody(), Some("main"), "origin").await
    ));
}

async fn many_tasks_may_read_at_once(subject: &dyn Subject) {
    let (forge, claims) = (subject.forge(), claims());
    let commit = subject.commit(&claims, "main", "Files", &[Change::File("a/b", b"1")]);
    let reads = (0..20).map(|_| async {
        assert_eq!(forge.find(&claims, "main").await.unwrap(), commit);
        assert_eq!(forge.file(&claims, &commit, "a/b").await.unwrap(), b"1");
        assert_eq!(forge.files(&claims, &commit, "a").await.unwrap().len(), 1);
    });
    futures::future::join_all(reads).await;
}

/// The files in the archive of a commit, without `.git`. Symbolic links are there with their targets as content.
async fn unpacked(subject: &dyn Subject, commit: &CommitId, branch: Option<&str>) -> BTreeMap<String, Vec<u8>> {
    let claims = claims();
    let stream = subject
        .forge()
        .source(&claims, commit, branch, "http://127.0.0.1:7070/git/claims.git");
    let pieces: Vec<_> = stream.await.unwrap().try_collect().await.unwrap();
    let bytes = pieces.concat();
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        if !name.starts_with(".git/") && !entry.header().entry_type().is_dir() {
            files.insert(name, content);
        }
    }
    files
}
