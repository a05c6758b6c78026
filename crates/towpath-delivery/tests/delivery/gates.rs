//! Gates: what they show, and when they open.

use crate::world::*;
use jiff::SignedDuration;
use towpath_delivery::{ChangeAction, ErrorKind, PlanView};
use towpath_deploy::{Hold, Target as _};
use towpath_store::{Commit, Expect, GateRow, Store as _, Write};
use towpath_types::{Clock as _, Digest, JobId};

/// A waiting gate of `dev`.
async fn waiting(world: &World) -> Flow {
    let commit = world
        .push_commit(&[(".k8s/live/dev/web.yaml", WEB), (".k8s/live/qa/web.yaml", WEB)])
        .await;
    world.workflow(&commit).await
}

async fn refused(world: &World, gate: JobId, shown: Option<&Digest>) -> (ErrorKind, String) {
    let decided = world.delivery.gates.decide_approval(gate, shown, &bob()).await;
    let error = decided.unwrap_err();
    (error.kind(), error.to_string())
}

#[tokio::test]
async fn a_gate_shows_the_plan_that_it_would_set_free() {
    let world = World::new().await;
    let flow = waiting(&world).await;
    let gate = world.delivery.gates.refresh(flow.hold.id).await.unwrap();
    assert_eq!(
        (gate.plan_error.as_deref(), gate.as_of),
        (None, Some(world.clock.now()))
    );
    assert_eq!(gate, world.gate(flow.hold.id).await);
    let view = PlanView::from_row(&world.plan(gate.plan.as_ref().unwrap()).await).unwrap();
    assert_eq!((view.environment.as_str(), view.changes.len()), ("dev", 2));
    assert_eq!(Some(view.id), gate.plan);
}

#[tokio::test]
async fn looking_again_says_when_and_changes_nothing_else() {
    let world = World::new().await;
    let flow = waiting(&world).await;
    let before = world.delivery.gates.refresh(flow.hold.id).await.unwrap();
    world.clock.advance(SignedDuration::from_secs(30));
    let after = world.delivery.gates.refresh(flow.hold.id).await.unwrap();
    assert_eq!(
        after,
        GateRow {
            as_of: Some(world.clock.now()),
            version: before.version + 1,
            ..before
        }
    );
}

#[tokio::test]
async fn a_gate_whose_plan_cannot_be_made_says_why() {
    let world = World::new().await;
    let commit = world.push_commit(&[(".k8s/live/dev/web.yaml", WEB)]).await;
    let flow = world.workflow_without_image(&commit, 1).await;
    let gate = world.delivery.gates.refresh(flow.hold.id).await.unwrap();
    assert_eq!(gate.plan, None);
    assert!(gate.plan_error.unwrap().contains("pushed no image of `claims`"));
    world.target.set_unreachable(Some("connection refused"));
    let flow = {
        let other = world.push_commit(&[("README", "2\n")]).await;
        let flow = world.workflow_without_image(&other, 2).await;
        let image = world.push_image("tried");
        world
            .change_job(flow.build.id, |job| job.image = Some(repository().at(image)))
            .await;
        flow
    };
    let gate = world.delivery.gates.refresh(flow.hold.id).await.unwrap();
    assert!(gate.plan_error.unwrap().contains("connection refused"));
    world.target.set_unreachable(None);
    let gate = world.delivery.gates.refresh(flow.hold.id).await.unwrap();
    assert_eq!((gate.plan.is_some(), gate.plan_error), (true, None));
}

#[tokio::test]
async fn a_gate_names_what_it_cannot_read_and_shows_no_deletion_of_it() {
    let world = World::new().await;
    let first = world.push_commit(&[(".k8s/live/dev/web.yaml", WEB)]).await;
    world.push_image(&format!("app-{first}"));
    world.deploy("dev", first.as_str()).await;
    let large = format!("{WEB}# {}\n", "x".repeat(8 << 20));
    let project = claims();
    let draft = || world.forge.commit_to(&project, "main");
    let bad = [
        (
            draft().file(".k8s/live/dev/web.yaml", &large),
            "`.k8s/live/dev/web.yaml` has 8.1 MiB",
        ),
        (
            draft().link(".k8s/live/dev/web.yaml", "../../gone.yaml"),
            "is a link to `../../gone.yaml`",
        ),
        (
            draft().file(".k8s/live/dev/web.yaml", b"a: \xfc\n"),
            "is not UTF-8: line 1, column 4",
        ),
        (
            draft().file(".k8s/live/dev/web.yaml", b"\0GITCRYPT\0abc"),
            "is encrypted by git-crypt",
        ),
        (
            draft().without(".k8s/live/dev/web.yaml").submodule(".k8s/live/dev/app"),
            "`.k8s/live/dev/app` is a git submodule",
        ),
        (
            draft()
                .without(".k8s/live/dev/web.yaml")
                .without(".k8s/live/dev/app")
                .link(".k8s/live/dev", "../gone"),
            "`.k8s/live/dev` is a link to `../gone`",
        ),
    ];
    for (number, (draft, says)) in (1..).zip(bad) {
        let commit = draft.push();
        let image = world.push_image(&format!("app-{commit}"));
        let flow = world.workflow_without_image(&commit, number).await;
        world
            .change_job(flow.build.id, |job| job.image = Some(repository().at(image)))
            .await;
        let gate = world.delivery.gates.refresh(flow.hold.id).await.unwrap();
        let Some(plan) = &gate.plan else {
            let error = gate.plan_error.unwrap();
            assert!(error.contains(says), "{error}");
            continue;
        };
        let view = PlanView::from_row(&world.plan(plan).await).unwrap();
        assert!(view.blockers[0].contains(says), "{:?}", view.blockers);
        let deleted = view
            .changes
            .iter()
            .filter(|change| change.action == ChangeAction::Deleted);
        assert_eq!(deleted.count(), 0, "{says}");
        let (kind, _) = refused(&world, flow.hold.id, Some(plan)).await;
        assert_eq!(kind, ErrorKind::Conflict);
    }
}

#[tokio::test]
async fn naming_the_shown_plan_opens_the_gate() {
    let world = World::new().await;
    let flow = waiting(&world).await;
    let shown = world.delivery.gates.refresh(flow.hold.id).await.unwrap().plan.unwrap();
    let approval = world
        .delivery
        .gates
        .decide_approval(flow.hold.id, Some(&shown), &bob())
        .await
        .unwrap();
    assert_eq!(approval.plan.as_ref(), Some(&shown));
    // Nothing is stored until the conductor commits it with its event.
    assert!(world.gate(flow.hold.id).await.waiting);
    let mut commit = Commit::new();
    approval.writes.into_iter().for_each(|write| commit.write(write));
    world.store.commit(commit).await.unwrap();
    let gate = world.gate(flow.hold.id).await;
    assert_eq!(
        (gate.waiting, gate.plan, gate.approved_by.as_deref()),
        (false, Some(shown.clone()), Some("bob"))
    );
    let late = refused(&world, flow.hold.id, Some(&shown)).await;
    assert_eq!(late, (ErrorKind::Conflict, "`hold` was already approved by bob".into()));
}

#[tokio::test]
async fn an_approval_that_came_too_late_is_not_stored() {
    let world = World::new().await;
    let flow = waiting(&world).await;
    let shown = world.delivery.gates.refresh(flow.hold.id).await.unwrap().plan.unwrap();
    let gates = &world.delivery.gates;
    let first = gates.decide_approval(flow.hold.id, Some(&shown), &bob()).await.unwrap();
    let second = gates.decide_approval(flow.hold.id, Some(&shown), &ann()).await.unwrap();
    let commit = |writes: Vec<Write>| {
        let mut commit = Commit::new();
        writes.into_iter().for_each(|write| commit.write(write));
        commit
    };
    world.store.commit(commit(first.writes)).await.unwrap();
    let conflict = world.store.commit(commit(second.writes)).await.unwrap_err();
    assert!(
        matches!(conflict, towpath_store::StoreError::Conflict { .. }),
        "{conflict}"
    );
    assert_eq!(world.gate(flow.hold.id).await.approved_by.as_deref(), Some("bob"));
}

#[tokio::test]
async fn a_gate_of_an_environment_does_not_open_without_a_plan() {
    let world = World::new().await;
    let flow = waiting(&world).await;
    let (kind, said) = refused(&world, flow.hold.id, None).await;
    assert_eq!(kind, ErrorKind::Conflict);
    let now = world.gate(flow.hold.id).await.plan.unwrap();
    assert_eq!(
        said,
        format!(
            "approving `hold` deploys to dev, so name the plan that you were shown by its whole digest. It is now `{now}`"
        )
    );
    assert!(world.gate(flow.hold.id).await.waiting);
}

#[tokio::test]
async fn a_gate_that_leads_nowhere_opens_without_a_plan() {
    let world = World::new().await;
    let flow = waiting(&world).await;
    let mut gate = world.gate(flow.hold.id).await;
    gate.environment = None;
    let write = Write::Gate(gate.clone(), Expect::Version(gate.version));
    world.store.commit(Commit::new().with(write)).await.unwrap();
    let before = world.target.called();
    let gates = &world.delivery.gates;
    let approval = gates.decide_approval(flow.hold.id, None, &bob()).await.unwrap();
    assert_eq!((approval.plan, approval.writes.len()), (None, 1));
    assert_eq!(gates.refresh(flow.hold.id).await.unwrap().as_of, None);
    assert_eq!(world.target.called(), before);
}

#[tokio::test]
async fn a_release_in_between_voids_what_was_shown() {
    let world = World::new().await;
    let flow = waiting(&world).await;
    let shown = world.delivery.gates.refresh(flow.hold.id).await.unwrap().plan.unwrap();
    world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    let (kind, said) = refused(&world, flow.hold.id, Some(&shown)).await;
    assert_eq!(kind, ErrorKind::Conflict);
    let now = world.gate(flow.hold.id).await.plan.unwrap();
    assert_ne!(now, shown);
    assert_eq!(
        said,
        format!(
            "the plan for dev is now `{}`, not `{}` that you were shown: another release runs there now. Look at the new plan, and \
             approve that one",
            now, shown
        )
    );
    // The gate shows the new plan, which can be approved.
    world.plan(&now).await;
    let gates = &world.delivery.gates;
    assert!(gates.decide_approval(flow.hold.id, Some(&now), &bob()).await.is_ok());
}

#[tokio::test]
async fn a_change_of_what_is_only_shown_voids_nothing() {
    let world = World::new().await;
    let flow = waiting(&world).await;
    let shown = world.delivery.gates.refresh(flow.hold.id).await.unwrap().plan.unwrap();
    world.note("the cluster is old");
    let gates = &world.delivery.gates;
    let approval = gates.decide_approval(flow.hold.id, Some(&shown), &bob()).await.unwrap();
    assert_eq!(approval.plan, Some(shown));
}

#[tokio::test]
async fn a_plan_that_nobody_was_shown_here_opens_nothing() {
    let world = World::new().await;
    let flow = waiting(&world).await;
    let (kind, said) = refused(&world, flow.hold.id, Some(&Digest::of(b"made up"))).await;
    assert_eq!(kind, ErrorKind::Conflict);
    assert!(said.contains("the one that you were shown is not known here"), "{said}");
}

#[tokio::test]
async fn the_plan_of_another_environment_opens_nothing() {
    let world = World::new().await;
    let flow = waiting(&world).await;
    let mut gate = world.gate(flow.hold.id).await;
    gate.environment = Some(environment("qa"));
    let write = Write::Gate(gate.clone(), Expect::Version(gate.version));
    let shown = world.delivery.gates.refresh(flow.hold.id).await.unwrap().plan.unwrap();
    let mut moved = write;
    if let Write::Gate(_, expect) = &mut moved {
        *expect = Expect::Version(world.gate(flow.hold.id).await.version);
    }
    world.store.commit(Commit::new().with(moved)).await.unwrap();
    let (kind, said) = refused(&world, flow.hold.id, Some(&shown)).await;
    assert_eq!(kind, ErrorKind::Conflict);
    assert!(said.contains("the plan for qa is now"), "{said}");
}

#[tokio::test]
async fn what_stands_in_the_way_keeps_the_gate_shut() {
    let world = World::new().await;
    let flow = waiting(&world).await;
    let shown = world.delivery.gates.refresh(flow.hold.id).await.unwrap().plan.unwrap();
    world.refuse("the quota is used up");
    let (kind, said) = refused(&world, flow.hold.id, Some(&shown)).await;
    assert_eq!(kind, ErrorKind::Conflict);
    assert!(
        said.starts_with("this cannot be deployed to dev:\n") && said.ends_with("the quota is used up"),
        "{said}"
    );
    let gate = world.gate(flow.hold.id).await;
    let view = PlanView::from_row(&world.plan(gate.plan.as_ref().unwrap()).await).unwrap();
    assert_eq!(view.blockers.len(), 1, "the page says why");
}

#[tokio::test]
async fn a_frozen_environment_keeps_the_gate_shut() {
    let world = World::new().await;
    let flow = waiting(&world).await;
    let shown = world.delivery.gates.refresh(flow.hold.id).await.unwrap().plan.unwrap();
    world
        .push_commit(&[(
            "towpath.toml",
            "[[freeze]]\nenvironments = [\"dev\"]\nstarts = \"0 0 * * *\"\nlasts = \"2h\"\n",
        )])
        .await;
    let (_, said) = refused(&world, flow.hold.id, Some(&shown)).await;
    assert!(said.contains("dev is frozen until 2026-01-01T02:00:00Z"), "{said}");
    world.clock.advance(SignedDuration::from_hours(2));
    let gates = &world.delivery.gates;
    assert!(gates.decide_approval(flow.hold.id, Some(&shown), &bob()).await.is_ok());
}

#[tokio::test]
async fn while_somebody_deploys_the_gate_stays_shut() {
    let world = World::on_cluster().await;
    let flow = waiting(&world).await;
    let shown = world.delivery.gates.refresh(flow.hold.id).await.unwrap().plan.unwrap();
    world.push_image("app-latest");
    let begun = world
        .delivery
        .releases
        .deploy(&environment("dev"), request("latest"), &ann())
        .await
        .unwrap();
    let (kind, said) = refused(&world, flow.hold.id, Some(&shown)).await;
    assert_eq!(kind, ErrorKind::Conflict);
    assert!(said.contains("ann is deploying release 1 to dev"), "{said}");
    world.carry_out(begun.id).await;
    // Another program deploys to the environment.
    let pause = world.target.pause(&place("dev"));
    let laptop = world.laptop().await;
    let theirs = tokio::spawn(async move { laptop.apply(foreign_request("dev", 2)).await });
    while world.applied("dev").len() < 2 {
        tokio::task::yield_now().await;
    }
    let (_, said) = refused(&world, flow.hold.id, Some(&shown)).await;
    assert!(said.contains("eve is deploying to dev since"), "{said}");
    drop(pause);
    theirs.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_lock_of_somebody_else_keeps_the_gate_shut() {
    let world = World::new().await;
    let flow = waiting(&world).await;
    let shown = world.delivery.gates.refresh(flow.hold.id).await.unwrap().plan.unwrap();
    let hold = Hold {
        by: "ann".into(),
        reason: "looking".into(),
        since: at("2026-01-01T00:00:00Z"),
        until: at("2026-01-01T01:00:00Z"),
    };
    world.target.set_hold(&place("dev"), Some(hold)).await.unwrap();
    let (_, said) = refused(&world, flow.hold.id, Some(&shown)).await;
    assert!(said.contains("dev is locked by ann"), "{said}");
    let gates = &world.delivery.gates;
    assert!(gates.decide_approval(flow.hold.id, Some(&shown), &ann()).await.is_ok());
}

#[tokio::test]
async fn there_is_no_gate_of_another_job() {
    let world = World::new().await;
    let flow = waiting(&world).await;
    let (kind, said) = refused(&world, flow.build.id, None).await;
    assert_eq!(
        (kind, said),
        (ErrorKind::NotFound, format!("there is no gate {}", flow.build.id))
    );
}
