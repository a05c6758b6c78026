//! What every forge has to do, on the fake and on git.
#![allow(clippy::unwrap_used)]

mod subject;

use futures::TryStreamExt;
use std::{collections::BTreeMap, io::Read};
use subject::{Change, Fake, Git, Subject};
use towpath_forge::{EVERYTHING, ForgeError, LARGEST_FILE_BYTES, LARGEST_TREE_BYTES, TreeEntry, Unread};
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
    what_cannot_be_read_has_its_place_in_the_answer,
    of_files_that_are_too_much_together_the_largest_are_not_read,
    links_do_not_make_a_tree_endless,
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
    // Neither a tag of its name nor a branch of half its whole name stands in for it.
    subject.set_ref(&claims, "refs/tags/main", Some(&commit));
    subject.set_ref(&claims, "refs/heads/heads/main", Some(&commit));
    assert_eq!(forge.default_branch(&claims).await.unwrap(), "main");
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
        forge.files(&claims, &id, "a", EVERYTHING).await.map(drop),
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

/// A tag may have the name of a branch, even the branch's whole name.
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
    for path in ["nosuch", "nosuch/deep", "bin/deep", "a\nb"] {
        let error = forge.file(&claims, &commit, path).await.unwrap_err();
        assert!(matches!(error, ForgeError::NotFound { .. }), "{path}: {error}");
        let expected = format!("there is no file `{path}` at {} in project `claims`", commit.short());
        assert_eq!(error.to_string(), expected);
    }
    for (path, says) in [
        (".circleci", "is a folder, and a file is needed"),
        (
            "out",
            "is a link to `../../etc/passwd`, which is outside of this repository",
        ),
        (
            "absolute",
            "is a link to `/etc/passwd`, which is outside of this repository",
        ),
        ("nowhere", "is a link to `nosuch`, and there is nothing"),
        ("loop", "is a link to `loop`, which leads back"),
    ] {
        let error = forge.file(&claims, &commit, path).await.unwrap_err();
        assert!(matches!(error, ForgeError::Unread { .. }), "{path}: {error}");
        let expected = format!("`{path}` at {} {says}", commit.short());
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
    assert!(is_not_found(forge.file(&claims, &nobody(), "bin").await));
    let later = subject.commit(&claims, "main", "Fewer", &[Change::Removed("bin")]);
    assert!(is_not_found(forge.file(&claims, &later, "bin").await));
    assert_eq!(forge.file(&claims, &commit, "bin").await.unwrap(), binary);
}

/// The answer for a folder: each path with its content, or why there is none.
async fn listed(subject: &dyn Subject, commit: &CommitId, folder: &str) -> Vec<(String, Result<Vec<u8>, Unread>)> {
    let files = subject.forge().files(&claims(), commit, folder, EVERYTHING).await;
    files
        .unwrap()
        .into_iter()
        .map(|file| (file.path, file.content))
        .collect()
}

async fn files_come_sorted_and_with_what_links_lead_to(subject: &dyn Subject) {
    let (forge, claims) = (subject.forge(), claims());
    let commit = subject.commit(
        &claims,
        "main",
        "Manifests",
        &[
            Change::File(".k8s/live/dev/b.yaml", b"b"),
            Change::File(".k8s/live/dev/a.yaml", b"a\n\n"),
            Change::File(".k8s/live/base.yaml", b"base"),
            Change::File("shared.yaml", b"shared"),
            Change::File("common/one.yaml", b"one"),
            Change::File("common/deep/two.yaml", b"two"),
            Change::File(".k8ss/other.yaml", b"other"),
            Change::Link(".k8s/live/dev/shared.yaml", "../../../shared.yaml"),
            Change::Link(".k8s/live/dev/twice.yaml", "shared.yaml"),
            Change::Link(".k8s/live/dev/common", "../../../common"),
            Change::Link(".k8s/live/qa", "dev"),
            Change::Link("ci", ".k8s/live"),
        ],
    );
    let files = listed(subject, &commit, ".k8s").await;
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(path, content)| (path.as_str(), content.as_deref().unwrap()))
        .collect();
    let of = |environment: &str| {
        [
            ("a.yaml", b"a\n\n".as_slice()),
            ("b.yaml", b"b"),
            ("common/deep/two.yaml", b"two"),
            ("common/one.yaml", b"one"),
            ("shared.yaml", b"shared"),
            ("twice.yaml", b"shared"),
        ]
        .map(|(name, content)| (format!(".k8s/live/{environment}/{name}"), content))
    };
    let mut expected = vec![(".k8s/live/base.yaml".to_string(), b"base".as_slice())];
    expected.extend(of("dev"));
    expected.extend(of("qa"));
    let expected: Vec<(&str, &[u8])> = expected
        .iter()
        .map(|(path, content)| (path.as_str(), *content))
        .collect();
    assert_eq!(files, expected);
    assert_eq!(listed(subject, &commit, ".k8s/live/dev").await.len(), 6);
    let through_links = listed(subject, &commit, "ci/qa").await;
    assert_eq!(through_links[0], ("ci/qa/a.yaml".into(), Ok(b"a\n\n".to_vec())));
    assert_eq!(listed(subject, &commit, "nosuch").await, []);
    assert_eq!(listed(subject, &commit, "nosuch/deep").await, []);
    assert!(is_not_found(forge.files(&claims, &nobody(), ".k8s", EVERYTHING).await));
    let only_b = |entries: &mut Vec<TreeEntry>| entries.retain(|entry| entry.path.ends_with("b.yaml"));
    let files = forge.files(&claims, &commit, ".k8s", &only_b).await.unwrap();
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, [".k8s/live/dev/b.yaml", ".k8s/live/qa/b.yaml"]);
}

async fn what_cannot_be_read_has_its_place_in_the_answer(subject: &dyn Subject) {
    let claims = claims();
    let large = vec![b'x'; usize::try_from(LARGEST_FILE_BYTES).unwrap() + 1];
    let commit = subject.commit(
        &claims,
        "main",
        "Manifests",
        &[
            Change::File("m/fits.yaml", &large[1..]),
            Change::File("m/large.yaml", &large),
            Change::File("m/dev/a.yaml", b"a"),
            Change::File("m/dev/forged\n  0 unchanged.yaml", b"f"),
            Change::File("m/\u{1b}[2J/b.yaml", b"b"),
            Change::Link("m/large-link", "large.yaml"),
            Change::Link("m/out.yaml", "../../out.yaml"),
            Change::Link("m/absolute", "/etc"),
            Change::Link("m/gone", "../gone"),
            Change::Link("m/behind-a-file", "dev/a.yaml/deep"),
            Change::Link("m/dev/around", ".."),
            Change::Link("m/one", "two"),
            Change::Link("m/two", "one"),
            Change::Submodule("m/vendor"),
            Change::Link("m/into", "vendor/deploy"),
        ],
    );
    let too_large = LARGEST_FILE_BYTES + 1;
    let expected: [(&str, Result<Vec<u8>, Unread>); 15] = [
        ("m/\\u001b[2J", Err(Unread::ControlCharacter)),
        ("m/absolute", Err(Unread::LeadsOut("/etc".into()))),
        ("m/behind-a-file", Err(Unread::LeadsNowhere("dev/a.yaml/deep".into()))),
        ("m/dev/a.yaml", Ok(b"a".to_vec())),
        ("m/dev/around", Err(Unread::LeadsBack("..".into()))),
        ("m/dev/forged\\u000a  0 unchanged.yaml", Err(Unread::ControlCharacter)),
        ("m/fits.yaml", Ok(large[1..].to_vec())),
        ("m/gone", Err(Unread::LeadsNowhere("../gone".into()))),
        ("m/into", Err(Unread::Submodule)),
        ("m/large-link", Err(Unread::TooLarge(too_large))),
        ("m/large.yaml", Err(Unread::TooLarge(too_large))),
        ("m/one", Err(Unread::LeadsBack("two".into()))),
        ("m/out.yaml", Err(Unread::LeadsOut("../../out.yaml".into()))),
        ("m/two", Err(Unread::LeadsBack("one".into()))),
        ("m/vendor", Err(Unread::Submodule)),
    ];
    let found = listed(subject, &commit, "m").await;
    let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, expected.each_ref().map(|(path, _)| *path));
    for ((path, content), (_, expected)) in found.iter().zip(&expected) {
        assert!(content == expected, "{path}: {:?}", content.as_ref().err());
    }
    let said = |path: &str| {
        let (_, content) = found.iter().find(|(found, _)| found == path).unwrap();
        content.clone().unwrap_err().to_string()
    };
    assert_eq!(said("m/large.yaml"), "has 8.1 MiB, and a file may have 8 MiB: split it");
    assert!(said("m/vendor").contains("git submodule"));
    // The folder itself, when it cannot be read.
    for (folder, why) in [
        ("m/gone", Unread::LeadsNowhere("../gone".into())),
        ("m/vendor", Unread::Submodule),
        ("m/dev/a.yaml", Unread::NoFile("a file, where a folder is needed")),
    ] {
        assert_eq!(listed(subject, &commit, folder).await, [(folder.to_string(), Err(why))]);
    }
}

async fn of_files_that_are_too_much_together_the_largest_are_not_read(subject: &dyn Subject) {
    let large = vec![b'x'; usize::try_from(LARGEST_FILE_BYTES).unwrap()];
    let count = LARGEST_TREE_BYTES / LARGEST_FILE_BYTES;
    let names: Vec<String> = (0..count).map(|at| format!("m/{at}.yaml")).collect();
    let mut changes: Vec<Change> = names.iter().map(|name| Change::File(name, &large)).collect();
    changes.push(Change::File("m/small.yaml", b"s"));
    let commit = subject.commit(&claims(), "main", "Much", &changes);
    let found = listed(subject, &commit, "m").await;
    let bytes = LARGEST_FILE_BYTES;
    let together = LARGEST_TREE_BYTES + 1;
    assert_eq!(found[0], ("m/0.yaml".into(), Err(Unread::TooMuch { bytes, together })));
    assert!(found[1..].iter().all(|(_, content)| content.is_ok()));
}

async fn links_do_not_make_a_tree_endless(subject: &dyn Subject) {
    // Each folder has two links to the next: two to the power of 30 files.
    let names: Vec<[String; 3]> = (0..30)
        .map(|at| [format!("m/{at}/a"), format!("m/{at}/b"), format!("../{}", at + 1)])
        .collect();
    let mut changes: Vec<Change> = Vec::new();
    for [one, other, next] in &names {
        changes.extend([Change::Link(one, next), Change::Link(other, next)]);
    }
    changes.push(Change::File("m/30/c.yaml", b"c"));
    let deep = format!("d/{}x", "f/".repeat(2_000));
    changes.push(Change::File(&deep, b"x"));
    let commit = subject.commit(&claims(), "main", "Endless", &changes);
    assert_eq!(
        listed(subject, &commit, "m").await,
        [("m".to_string(), Err(Unread::TooMany))]
    );
    let found = listed(subject, &commit, "d").await;
    assert!(matches!(found.as_slice(), [(_, Err(Unread::TooDeep))]), "{found:?}");
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
        assert_eq!(forge.files(&claims, &commit, "a", EVERYTHING).await.unwrap().len(), 1);
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
