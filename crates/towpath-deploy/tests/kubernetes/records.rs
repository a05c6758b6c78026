//! The lock and the records of an environment.

use crate::cluster::{APPLICATION, World, carry_out, in_cluster};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::time::Duration;
use towpath_deploy::{ApplyRequest, Hold, Identity, KubernetesOptions, KubernetesTarget, Severity, Target};
use towpath_types::Outcome;

#[tokio::test]
async fn a_second_deployment_waits_and_a_dead_one_does_not_block() {
    in_cluster("lock", async |world| {
        let slow = APPLICATION.replace("value: one", "value: one}, {name: START_MS, value: '4000'");
        let first = world.request(world.objects(&slow));
        let second = {
            let mut request = world.request(world.objects(APPLICATION));
            request.record.by = "bob".into();
            request
        };
        let one = carry_out(&world.target, first);
        let two = async {
            world.until_begun().await;
            carry_out(&world.target, second).await
        };
        let (one, two) = tokio::join!(one, two);
        one.unwrap();
        let said = two.unwrap();
        assert!(said[0].starts_with("ann has been deploying here since"), "{said:?}");

        // A deployment that dies in the middle gives no sign of life.
        let options = KubernetesOptions {
            lock_expiry: Duration::from_secs(3),
            ..KubernetesOptions::new(
                Identity::Kubeconfig(Some(world.namespace.cluster().kubeconfig().to_path_buf())),
                world.secrets.clone(),
            )
        };
        let target = KubernetesTarget::new(options);
        let never = APPLICATION.replace("value: one", "value: x}, {name: NOT_READY, value: 'yes'");
        let request = world.request(world.objects(&never));
        let dying = tokio::time::timeout(Duration::from_secs(3), carry_out(&target, request)).await;
        assert!(dying.is_err(), "{dying:?}");
        let said = carry_out(&target, world.request(world.objects(APPLICATION)))
            .await
            .unwrap();
        assert!(
            said.iter().any(|line| line.contains("gave no sign of life")),
            "{said:?}"
        );

        // A person's hold keeps others out, but not its owner.
        let hold = Hold {
            by: "bob".into(),
            reason: "an incident".into(),
            since: Timestamp::now(),
            until: Timestamp::now() + SignedDuration::from_mins(5),
        };
        world.target.set_hold(&world.environment, Some(hold)).await.unwrap();
        let refused = world.apply(world.objects(APPLICATION)).await.unwrap_err();
        assert_eq!(refused.outcome, Outcome::Rejected);
        assert!(
            refused.to_string().contains("locked by bob until") && refused.to_string().contains("an incident"),
            "{refused}"
        );
        let mut bobs = world.request(world.objects(APPLICATION));
        bobs.record.by = "bob".into();
        carry_out(&world.target, bobs).await.unwrap();
        world.target.set_hold(&world.environment, None).await.unwrap();
        world.apply(world.objects(APPLICATION)).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_hold_does_not_end_a_running_deployment() {
    in_cluster("hold", async |world| {
        let slow = APPLICATION.replace("value: one", "value: one}, {name: START_MS, value: '3000'");
        let request = world.request(world.objects(&slow));
        let deploying = carry_out(&world.target, request);
        let locking = async {
            world.until_begun().await;
            let hold = Hold {
                by: "bob".into(),
                reason: "an incident".into(),
                since: Timestamp::now(),
                until: Timestamp::now() + SignedDuration::from_mins(5),
            };
            world.target.set_hold(&world.environment, Some(hold)).await.unwrap();
        };
        let (deployed, ()) = tokio::join!(deploying, locking);
        deployed.unwrap();
        let current = world.target.current(&world.environment).await.unwrap().unwrap();
        assert_eq!(current.hold.map(|hold| hold.by).as_deref(), Some("bob"));
        assert!(current.release.is_some() && current.deploying.is_none());
        let refused = world.apply(world.objects(APPLICATION)).await.unwrap_err();
        assert!(refused.to_string().contains("locked by bob"), "{refused}");
    })
    .await;
}

#[tokio::test]
async fn edited_and_deleted_records_are_reported_and_survived() {
    in_cluster("history", async |world| {
        world.apply(world.objects(APPLICATION)).await.unwrap();
        world
            .apply(world.objects(&APPLICATION.replace("one", "two")))
            .await
            .unwrap();
        let edit = r#"{"data":{"release":"bm90aGluZw=="}}"#;
        world
            .namespace
            .kubectl(&["patch", "secret", "towpath.claims.dev.1", "--patch", edit])
            .await
            .unwrap();
        world
            .namespace
            .kubectl(&["delete", "secret", "towpath.claims.dev.2"])
            .await
            .unwrap();
        let objects = world.objects(APPLICATION);
        let said: Vec<String> = world.findings(&objects).await.iter().map(ToString::to_string).collect();
        assert!(
            said.iter()
                .any(|line| line.contains("`towpath.claims.dev.1` is not as Towpath wrote it")),
            "{said:?}"
        );
        assert!(
            said.iter()
                .any(|line| line.contains("deleted the record of release 2, the last successful one")),
            "{said:?}"
        );
        world.apply(objects.clone()).await.unwrap();

        let edit = r#"{"data":{"state":"bm90aGluZw=="}}"#;
        world
            .namespace
            .kubectl(&["patch", "secret", "towpath.claims.dev", "--patch", edit])
            .await
            .unwrap();
        let findings = world.findings(&objects).await;
        assert!(
            findings.iter().all(|finding| finding.severity == Severity::Note),
            "{findings:?}"
        );
        assert!(
            findings
                .iter()
                .any(|finding| finding.message.contains("writes a new one")),
            "{findings:?}"
        );
        world.apply(objects.clone()).await.unwrap();
        world
            .namespace
            .kubectl(&["delete", "secret", "towpath.claims.dev"])
            .await
            .unwrap();
        world.apply(objects).await.unwrap();
        assert_eq!(
            world
                .target
                .current(&world.environment)
                .await
                .unwrap()
                .unwrap()
                .objects
                .len(),
            4
        );
    })
    .await;
}

#[tokio::test]
async fn failed_releases_do_not_displace_successful_ones() {
    in_cluster("kept", async |world| {
        let config = |value: &str| {
            world.objects(&format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: config}}\ndata: {{A: {value}}}\n"
            ))
        };
        world.apply(config("one")).await.unwrap();
        world.apply(config("two")).await.unwrap();
        for _ in 0..11 {
            // An invalid image name never heals.
            let nameless = world.objects(&APPLICATION.replace("image: IMAGE", "image: 'INVALID:::x'"));
            let error = world.apply(nameless).await.unwrap_err();
            assert_eq!(error.outcome, Outcome::Failed, "{error}");
        }
        world.apply(config("three")).await.unwrap();
        let releases = world.target.releases(&world.environment).await.unwrap();
        let good: Vec<i64> = releases
            .iter()
            .filter(|release| release.has_succeeded())
            .map(|release| release.number)
            .collect();
        assert_eq!(good, [14, 2, 1]);
        assert_eq!(releases.len() - good.len(), 10);
    })
    .await;
}

/// A request for the release `number` whose record has its objects, as a plan has.
fn numbered(world: &World, number: i64, greeting: &str) -> ApplyRequest {
    let text =
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: app-config}}\ndata: {{GREETING: {greeting}}}\n");
    let mut request = world.request(world.objects(&text));
    request.record.number = number;
    request.record.plan = json!({"objects": request.objects});
    request
}

/// Two plans that were made at the same moment have the same number.
#[tokio::test]
async fn a_release_that_others_began_and_that_changed_nothing_keeps_nobody_out() {
    in_cluster("numbers", async |world| {
        let releases = async |world: &World| {
            let releases = world.target.releases(&world.environment).await.unwrap();
            releases
                .iter()
                .map(|release| (release.number, release.state.to_string()))
                .collect::<Vec<_>>()
        };
        let succeeded = |number: i64| (number, "succeeded".to_string());
        carry_out(&world.target, numbered(world, 1, "hello")).await.unwrap();
        // The first of two deploys what runs already, the second something new.
        carry_out(&world.target, numbered(world, 2, "hello")).await.unwrap();
        carry_out(&world.target, numbered(world, 2, "good-day")).await.unwrap();
        assert_eq!(releases(world).await, [succeeded(3), succeeded(2), succeeded(1)]);
        // Both deploy the same.
        carry_out(&world.target, numbered(world, 3, "good-day")).await.unwrap();
        // Somebody has changed the object since, so the plan no longer describes what would happen.
        let refused = carry_out(&world.target, numbered(world, 3, "good-evening"))
            .await
            .unwrap_err();
        assert_eq!(refused.outcome, Outcome::Rejected);
        assert!(refused.message.contains("there is already a release 3"), "{refused}");
        // A failed release leaves what was there before.
        let mut broken = numbered(world, 5, "good-evening");
        broken.objects = world.objects(&APPLICATION.replace("GREETING: hello", "GREETING: good-evening"));
        broken.deadline = Duration::from_millis(1);
        let failed = carry_out(&world.target, broken).await.unwrap_err();
        assert_eq!(failed.outcome, Outcome::TimedOut, "{failed}");
        carry_out(&world.target, numbered(world, 5, "good-night"))
            .await
            .unwrap();
        let now = releases(world).await;
        assert_eq!(now[..2], [succeeded(6), (5, "timed_out".to_string())]);
    })
    .await;
}

#[tokio::test]
async fn a_repeat_is_counted_on_the_record_of_its_release() {
    in_cluster("repeats", async |world| {
        let request = numbered(world, 1, "hello");
        let id = request.record.id;
        carry_out(&world.target, request).await.unwrap();
        let at = Timestamp::now();
        for _ in 0..2 {
            world.target.count_repeat(&world.environment, id, at).await.unwrap();
        }
        // Somebody else's release, or one that was trimmed.
        let other = towpath_types::ReleaseId::from_u128(7);
        world.target.count_repeat(&world.environment, other, at).await.unwrap();
        let [record] = world
            .target
            .releases(&world.environment)
            .await
            .unwrap()
            .try_into()
            .unwrap();
        assert_eq!((record.id, record.repeats, record.repeated_at), (id, 2, Some(at)));
        assert!(record.has_succeeded(), "{record:?}");
    })
    .await;
}
