//! Clusters that cannot be reached, and faults at every call of a deployment.

use crate::cluster::{APPLICATION, World, carry_out, in_cluster};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use towpath_deploy::{Identity, KubernetesOptions, KubernetesTarget, Target};
use towpath_testkit::Verdict;
use towpath_types::SecretString;

#[tokio::test]
async fn an_unreachable_cluster_and_wrong_credentials_are_reported() {
    in_cluster("identity", async |world| {
        let objects = world.objects(APPLICATION);
        let ask = async |world: &World, identity: Identity, kube_context: &str| {
            let mut options = KubernetesOptions::new(identity, world.secrets.clone());
            options.patience.retries = Duration::from_secs(1);
            let mut environment = world.environment.clone();
            environment.kube_context = kube_context.into();
            KubernetesTarget::new(options)
                .preflight(&environment, &objects, &[])
                .await
                .unwrap_err()
                .chain()
        };
        let kubeconfig = Identity::Kubeconfig(Some(world.namespace.cluster().kubeconfig().to_path_buf()));
        let said = ask(world, kubeconfig, "nowhere").await;
        assert!(said.contains("no kube context `nowhere`: it has `live`"), "{said}");
        let token = |server: &str, token: &str| Identity::Token {
            server: server.into(),
            certificate_authority: world.namespace.cluster().certificate_authority().ok(),
            token: SecretString::new(token.into()),
        };
        let said = ask(world, token("https://127.0.0.1:9", "x"), "live").await;
        assert!(
            said.contains("https://127.0.0.1:9") && said.contains("cannot reach"),
            "{said}"
        );
        let said = ask(
            world,
            token(&world.namespace.cluster().server(), "expired-token"),
            "live",
        )
        .await;
        assert!(
            said.contains("does not accept the credentials") && !said.contains("expired-token"),
            "{said}"
        );
    })
    .await;
}

/// The application without pods: a deployment consists only of requests.
fn podless(value: &str) -> String {
    APPLICATION
        .replace("replicas: 2", "replicas: 0")
        .replace("value: one", &format!("value: {value}"))
}

/// The application with a pod on a simulated node, which starts and stops at once.
fn weightless(value: &str) -> String {
    let pod = "      nodeSelector: {type: kwok}\n      tolerations: [{key: kwok.x-k8s.io/node, operator: Exists}]\n      containers:";
    let text = APPLICATION
        .replace("replicas: 2", "replicas: 1")
        .replacen("      containers:", pod, 1)
        .replace("value: one", &format!("value: {value}"));
    assert!(text.contains("type: kwok"));
    text
}

/// Deploys with a fault at one call, for each call of a deployment, and then once more without. The first deployment succeeds
/// or ends in an error with a message; the second converges.
async fn at_each_call(name: &str, application: fn(&str) -> String, fault: Verdict) {
    in_cluster(name, async |world| {
        let proxy = world.proxy().await;
        let mut options = world.target_through(&proxy).await;
        options.patience.request = Duration::from_millis(900);
        options.patience.retries = Duration::from_secs(4);
        options.lock_expiry = Duration::from_millis(900);
        let (identity, patience) = (options.identity.clone(), options.patience);
        let target = || {
            let mut options = KubernetesOptions::new(identity.clone(), world.secrets.clone());
            options.patience = patience;
            options.lock_expiry = Duration::from_millis(900);
            KubernetesTarget::new(options)
        };
        let transient = !matches!(fault, Verdict::Answer(400..=428 | 430..=499, _));
        let (mut call, mut failures) = (0, 0);
        loop {
            let objects = world.objects(&application(&format!("at-{call}")));
            let fault_now = fault.clone();
            proxy.script(move |asked| {
                if asked.number == call {
                    fault_now.clone()
                } else {
                    Verdict::Pass
                }
            });
            let first = target();
            let outcome = async {
                let preflight = first
                    .preflight(&world.environment, &objects, &[])
                    .await
                    .map_err(|error| error.chain())?;
                let refused: Vec<String> = preflight.refused().map(ToString::to_string).collect();
                if !refused.is_empty() {
                    return Err(refused.join("\n"));
                }
                carry_out(&first, world.request(objects.clone()))
                    .await
                    .map_err(|error| error.to_string())
            };
            let outcome = outcome.await;
            let asked = proxy.asked();
            if call >= asked.len() {
                assert!(outcome.is_ok(), "without a fault: {outcome:?}");
                break;
            }
            let at = &asked[call];
            match outcome {
                Ok(_) => {}
                Err(error) => {
                    assert!(
                        !transient,
                        "{fault:?} at {at:?}, which passes, was not survived: {error}"
                    );
                    assert!(error.len() > 10, "{fault:?} at {at:?}: {error:?}");
                    failures += 1;
                }
            }
            proxy.script(|_| Verdict::Pass);
            let second = target();
            carry_out(&second, world.request(objects.clone()))
                .await
                .unwrap_or_else(|error| panic!("after {fault:?} at {at:?}: {error}"));
            let value = world
                .get("deployment", "web")
                .await
                .pointer("/spec/template/spec/containers/0/env/0/value")
                .cloned();
            assert_eq!(value, Some(json!(format!("at-{call}"))), "after {fault:?} at {at:?}");
            assert_eq!(
                world.changes(&objects).await,
                Vec::<String>::new(),
                "after {fault:?} at {at:?}"
            );
            call += 1;
        }
        println!(
            "{fault:?} at each of {call} calls: {failures} clean errors, the rest survived; each second run converged"
        );
        assert!(call > 20, "{call}");
    })
    .await;
}

fn status(code: u16, reason: &str) -> Verdict {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
                      "message": format!("injected: {reason}")});
    Verdict::Answer(code, body.to_string())
}

#[tokio::test]
async fn broken_connections_at_any_call_are_survived() {
    at_each_call("reset", podless, Verdict::Reset).await;
    at_each_call("lost", podless, Verdict::LoseAnswer).await;
    at_each_call("cut", podless, Verdict::Cut(20)).await;
}

#[tokio::test]
async fn a_slow_or_busy_server_at_any_call_is_survived() {
    at_each_call("busy", podless, status(429, "TooManyRequests")).await;
    at_each_call("internal", podless, status(500, "InternalError")).await;
    at_each_call("unavailable", podless, status(503, "ServiceUnavailable")).await;
    at_each_call("timeout", podless, status(504, "Timeout")).await;
    at_each_call("slow", podless, Verdict::Delay(Duration::from_millis(1100))).await;
}

#[tokio::test]
async fn final_answers_at_any_call_end_cleanly() {
    at_each_call("conflict", podless, status(409, "Conflict")).await;
    at_each_call("expired", podless, status(410, "Expired")).await;
    at_each_call("forbidden", podless, status(403, "Forbidden")).await;
}

/// The deployments replace pods, and watch them.
#[tokio::test]
async fn rollouts_survive_faults_at_any_call() {
    at_each_call("rolling-cut", weightless, Verdict::Cut(20)).await;
    at_each_call("rolling-unavailable", weightless, status(503, "ServiceUnavailable")).await;
    at_each_call("rolling-expired", weightless, status(410, "Expired")).await;
}

#[tokio::test]
async fn a_server_that_goes_away_at_any_call_is_reported_and_a_second_run_converges() {
    in_cluster("away", async |world| {
        let proxy = world.proxy().await;
        let options = world.target_through(&proxy).await;
        let target = |retries: u64| {
            let mut options = KubernetesOptions::new(options.identity.clone(), world.secrets.clone());
            options.patience.retries = Duration::from_millis(retries);
            options.lock_expiry = Duration::from_millis(600);
            KubernetesTarget::new(options)
        };
        let mut call = 0;
        loop {
            let objects = world.objects(&podless(&format!("at-{call}")));
            proxy.script(move |asked| {
                if asked.number >= call {
                    Verdict::Reset
                } else {
                    Verdict::Pass
                }
            });
            let mut request = world.request(objects.clone());
            request.deadline = Duration::from_secs(3);
            let outcome = carry_out(&target(150), request).await;
            let Err(error) = outcome else { break };
            assert!(
                error.to_string().contains("cannot reach") || error.to_string().contains("deadline"),
                "at call {call}: {error}"
            );
            proxy.script(|_| Verdict::Pass);
            carry_out(&target(4000), world.request(objects.clone()))
                .await
                .unwrap_or_else(|error| panic!("after call {call}: {error}"));
            assert_eq!(world.changes(&objects).await, Vec::<String>::new(), "after call {call}");
            call += 1;
        }
        assert!(call > 15, "{call}");
    })
    .await;
}

#[tokio::test]
async fn an_expired_watch_is_started_again() {
    in_cluster("watch", async |world| {
        let proxy = world.proxy().await;
        let target = KubernetesTarget::new(world.target_through(&proxy).await);
        let watches = Arc::new(AtomicUsize::new(0));
        let seen = watches.clone();
        let gone =
            json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}).to_string() + "\n";
        proxy.script(move |asked| {
            if !asked.path.contains("watch=1") {
                return Verdict::Pass;
            }
            match seen.fetch_add(1, Ordering::SeqCst) {
                0..=2 => Verdict::Answer(200, gone.clone()),
                3..=4 => Verdict::Answer(410, "{}".into()),
                5..=6 => Verdict::Cut(300),
                _ => Verdict::Pass,
            }
        });
        carry_out(&target, world.request(world.objects(APPLICATION)))
            .await
            .unwrap();
        assert!(watches.load(Ordering::SeqCst) > 3, "nothing was watched");
    })
    .await;
}
