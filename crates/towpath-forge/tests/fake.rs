//! What the fake offers tests beyond the contract.
#![allow(clippy::unwrap_used)]

use towpath_forge::{Forge, ForgeError, fake::FakeForge};

#[tokio::test]
async fn calls_are_counted_by_method() {
    let forge = FakeForge::default();
    let project = "claims".parse().unwrap();
    let commit = forge.commit_to(&project, "main").file("a", "1").push();
    assert_eq!(forge.all_calls(), 0, "making commits is not a call");
    assert_eq!(forge.default_branch(&project).await.unwrap(), "main");
    for _ in 0..2 {
        forge.file(&project, &commit, "a").await.unwrap();
    }
    assert!(forge.find(&project, "nosuch").await.is_err());
    assert_eq!(
        (
            forge.calls("file"),
            forge.calls("find"),
            forge.calls("log"),
            forge.all_calls()
        ),
        (2, 1, 0, 4)
    );
}

#[tokio::test]
async fn a_forge_that_does_not_work_says_so_until_it_does() {
    let forge = FakeForge::default();
    let project = "claims".parse().unwrap();
    forge.commit_to(&project, "main").push();
    forge.fail(Some("the disk is gone"));
    let error = forge.refs(&project).await.unwrap_err();
    assert!(matches!(error, ForgeError::Git { .. }), "{error}");
    assert_eq!(error.to_string(), "`git refs` failed: the disk is gone");
    assert!(forge.projects().await.is_err());
    forge.fail(None);
    assert_eq!(forge.refs(&project).await.unwrap().len(), 1);
    forge.remove(&project);
    assert!(matches!(forge.refs(&project).await, Err(ForgeError::UnknownProject(_))));
}
