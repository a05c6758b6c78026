//! The contract of `Target`, kept by the local target on a real container engine.
#![allow(clippy::unwrap_used, clippy::panic)]

mod world;

use bollard::{models::NetworkCreateRequest, query_parameters::ListNetworksOptions};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, watch};
use towpath_deploy::{JobHandle, JobLine, Severity, Target, TargetError, Volumes};
use towpath_manifest::{Object, ObjectId};
use towpath_testkit::{Probe, Traffic, until};
use towpath_types::Outcome;
use world::*;

fn web_objects(web: Object) -> Vec<Object> {
    vec![web, service("web"), ingress()]
}

fn traffic(address: &str) -> Traffic {
    Traffic::start(address, Duration::from_millis(20), |body| body.trim().to_string()).unwrap()
}

// Applying objects.

#[tokio::test(flavor = "multi_thread")]
async fn applied_twice_is_applied_once_and_a_restart_takes_over_what_runs() {
    in_world("applied_twice", async |world| {
        let objects = web_objects(world.web("1", |_| {}));
        assert!(world.target().current(&world.id).await.unwrap().is_none());
        assert!(world.status().await.is_empty());
        let first = world.request(objects.clone(), vec![]);
        let release = first.record.id;
        let said = world.carry_out(first).await.unwrap();
        assert!(said.iter().any(|line| line.message == "created"), "{said:?}");
        assert_eq!(world.ask("/").await, (200, "1".into()));
        let status = world.status_of("Deployment", "web").await;
        assert_eq!((status.ready, status.desired, status.restarts), (2, 2, 0));
        let applied = world.target().current(&world.id).await.unwrap().unwrap();
        assert_eq!((applied.release, applied.attempted), (Some(release), Some(release)));
        assert_eq!(applied.objects.len(), 3);

        let before = world.starts().await;
        assert_eq!(
            before.len(),
            4,
            "two pods, a proxy for the Service, one for the Ingress: {before:?}"
        );
        let said = world.apply(&objects).await.unwrap();
        let news: Vec<_> = said.iter().filter(|line| line.message != "rolled out").collect();
        assert!(news.is_empty(), "{news:?}");
        assert_eq!(world.starts().await, before);

        // The server dies and comes back. Clients notice nothing, and no container starts or stops.
        let traffic = traffic(&world.address().await);
        world.close();
        let alone = traffic.so_far().sent;
        until("requests to be answered without a server", BOUND, async || {
            let sent = traffic.so_far().sent;
            Ok(if sent > alone + 50 {
                Probe::Found(())
            } else {
                Probe::NotYet(format!("{sent} requests"))
            })
        })
        .await
        .unwrap();
        world.open().await;
        let status = world.status_of("Deployment", "web").await;
        assert_eq!((status.ready, status.desired, status.restarts), (2, 2, 0), "{status:?}");
        world.apply(&objects).await.unwrap();
        assert_eq!(world.starts().await, before);
        let report = traffic.stop().await;
        assert!(report.failures.is_empty(), "{}", report.summary());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_before_a_restart_is_finished_after_it() {
    in_world("what_was_begun", async |world| {
        world.apply(&web_objects(world.web("1", |_| {}))).await.unwrap();
        let traffic = traffic(&world.address().await);
        let next = web_objects(world.web("2", |value| env(value, "START_MS", "400")));
        // Kill it at different moments of the rollout: once for each pod that was created.
        let target = world.shared_target();
        let request = world.request(next.clone(), vec![]);
        let (progress, _kept) = mpsc::unbounded_channel();
        let applying = tokio::spawn(async move { target.apply(request, progress).await.map(|()| drop(target)) });
        for made in 1..=2 {
            until(format!("new pod {made} to be made"), BOUND, async || {
                let pods = revisions(world).await;
                let newest = pods.values().filter(|version| *version == "2").count();
                Ok(if newest >= made {
                    Probe::Found(())
                } else {
                    Probe::NotYet(format!("{pods:?}"))
                })
            })
            .await
            .unwrap();
            applying.abort();
            // The task keeps the target alive until it has ended.
            until("the application to have been dropped", BOUND, async || {
                Ok(if applying.is_finished() {
                    Probe::Found(())
                } else {
                    Probe::NotYet("it goes on".into())
                })
            })
            .await
            .unwrap();
            world.reopen().await;
        }
        // Nobody applies anything: the document holds the wanted state.
        until("the rollout to be finished", BOUND, async || {
            let pods = revisions(world).await;
            let status = world.status_of("Deployment", "web").await;
            let done = pods.len() == 2 && pods.values().all(|version| version == "2") && status.ready == 2;
            Ok(if done {
                Probe::Found(())
            } else {
                Probe::NotYet(format!("{pods:?} {status:?}"))
            })
        })
        .await
        .unwrap();
        let before = world.starts().await;
        world.apply(&next).await.unwrap();
        assert_eq!(world.starts().await, before);
        let report = traffic.stop().await;
        assert!(report.failures.is_empty(), "{}", report.summary());
        assert!(report.answers.contains_key("1"), "{report:?}");
    })
    .await;
}

/// The pods' containers, with the `VERSION` that each was created with.
async fn revisions(world: &World) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for container in world.containers("dev.towpath.deployment", "web").await {
        let id = container.id.unwrap();
        // The container may be gone by now.
        let Ok(seen) = world.docker.inspect_container(&id, None).await else {
            continue;
        };
        let variables = seen.config.and_then(|config| config.env).unwrap_or_default();
        let version = variables.iter().find_map(|variable| variable.strip_prefix("VERSION="));
        found.insert(seen.name.unwrap(), version.unwrap_or_default().to_string());
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn one_application_at_a_time() {
    in_world("one_application_at_a_time", async |world| {
        let objects = web_objects(world.web("1", |value| env(value, "START_MS", "1500")));
        let target = world.shared_target();
        let request = world.request(objects.clone(), vec![]);
        let (progress, mut said) = mpsc::unbounded_channel();
        let applying = tokio::spawn(async move { target.apply(request, progress).await });
        said.recv().await.unwrap();
        let refused = world.apply(&objects).await.unwrap_err();
        assert_eq!(refused.outcome, Outcome::Rejected);
        assert!(
            refused
                .message
                .contains("another application to claims/dev is under way"),
            "{refused}"
        );
        applying.await.unwrap().unwrap();
        world.apply(&objects).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pruned_goes_and_what_is_not_named_stays() {
    in_world("what_is_pruned_goes", async |world| {
        let mut objects = web_objects(world.web("1", |_| {}));
        objects.push(world.deployment("worker", "1", |value| value["spec"]["replicas"] = json!(1)));
        objects.push(service("worker"));
        world.apply(&objects).await.unwrap();
        let web_before = revisions(world).await;
        let id = |object: &Object| object.id();
        let gone: Vec<ObjectId> = objects[3..].iter().map(id).collect();
        let nobody = ObjectId {
            group: "apps".into(),
            kind: "Deployment".into(),
            name: "never-was".into(),
        };
        let prune = [gone.clone(), vec![nobody]].concat();
        world.apply_and_prune(&objects[..3], &prune).await.unwrap();
        assert_eq!(world.containers("dev.towpath.deployment", "worker").await, []);
        assert_eq!(revisions(world).await, web_before);
        until("the pruned Service's proxy to be gone", BOUND, async || {
            let proxies = world.containers("dev.towpath.proxy", "").await.len();
            Ok(if proxies == 2 {
                Probe::Found(())
            } else {
                Probe::NotYet(format!("{proxies} proxies"))
            })
        })
        .await
        .unwrap();
        let applied = world.target().current(&world.id).await.unwrap().unwrap();
        let left: BTreeSet<String> = applied.objects.iter().map(ToString::to_string).collect();
        assert_eq!(
            left,
            BTreeSet::from(["Deployment/web", "Ingress/web", "Service/web"].map(String::from))
        );
        // The object is neither applied nor pruned, so it stays.
        world.apply(&objects[..1]).await.unwrap();
        assert_eq!(world.ask("/").await, (200, "1".into()));
        // Pruning twice is no error.
        world.apply_and_prune(&objects[..3], &prune).await.unwrap();
    })
    .await;
}

// Rollouts.

/// Observations during a rollout.
#[derive(Debug, Default)]
struct Watched {
    looks: usize,
    /// The fewest pods that received requests at any time.
    fewest: usize,
    /// The most pods that were not stopping at any time.
    most: usize,
    /// The pods at that time.
    at_most: String,
}

/// Observes the routes and the engine until it is told to stop.
async fn watch_pods(world: &World, mut stop: watch::Receiver<bool>) -> Watched {
    let mut seen = Watched {
        fewest: usize::MAX,
        ..Watched::default()
    };
    let look = || {
        let routes = world.routes("service-web").unwrap();
        let of = |draining: bool| -> BTreeSet<IpAddr> {
            let all = routes.pools.values().flatten();
            all.filter(|backend| backend.draining == draining)
                .map(|backend| backend.address.ip())
                .collect()
        };
        (of(false).len(), of(true))
    };
    while !*stop.borrow_and_update() {
        let (serving, mut leaving) = look();
        let containers = world.containers("dev.towpath.deployment", "web").await;
        let (serving_after, left) = look();
        leaving.extend(left);
        let staying: Vec<String> = containers
            .iter()
            .filter_map(|container| {
                let networks = container.network_settings.as_ref().and_then(|s| s.networks.as_ref());
                let address =
                    networks.and_then(|all| all.values().find_map(|one| one.ip_address.as_ref()?.parse().ok()));
                let state = container.state.map(|state| state.to_string()).unwrap_or_default();
                // An exited container has no address any more, and is being removed.
                let there = matches!(state.as_str(), "created" | "running");
                let stays = there && address.is_none_or(|address: IpAddr| !leaving.contains(&address));
                stays.then(|| format!("{:?} {state} {address:?}", container.names))
            })
            .collect();
        if staying.len() > seen.most {
            seen.most = staying.len();
            seen.at_most = format!("{staying:?} with {leaving:?} on their way out");
        }
        seen.fewest = seen.fewest.min(serving).min(serving_after);
        seen.looks += 1;
        tokio::task::yield_now().await;
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_keeps_to_max_surge_and_max_unavailable_at_all_moments() {
    in_world("a_rollout_keeps_to", async |world| {
        let with = |world: &World, version: &str, replicas: u32, surge: &str, unavailable: &str| {
            let share = |text: &str| text.parse::<u32>().map_or_else(|_| json!(text), |count| json!(count));
            web_objects(world.web(version, |value| {
                value["spec"]["replicas"] = json!(replicas);
                value["spec"]["strategy"]["rollingUpdate"] =
                    json!({"maxSurge": share(surge), "maxUnavailable": share(unavailable)});
                env(value, "START_MS", "300");
            }))
        };
        world.apply(&with(world, "0", 4, "1", "0")).await.unwrap();
        let traffic = traffic(&world.address().await);
        // Percentages round up for the surge and down for the unavailable pods.
        for (version, surge, unavailable, fewest, most) in
            [("1", "1", "0", 4, 5), ("2", "0", "1", 3, 4), ("3", "30%", "30%", 3, 6)]
        {
            let objects = with(world, version, 4, surge, unavailable);
            let (stop, stopped) = watch::channel(false);
            let (applied, watched) = tokio::join!(
                async {
                    let applied = world.apply(&objects).await;
                    stop.send(true).unwrap();
                    applied
                },
                watch_pods(world, stopped)
            );
            applied.unwrap();
            let rule = format!("maxSurge {surge}, maxUnavailable {unavailable}: {watched:?}");
            assert!(watched.looks > 50, "{rule}");
            assert!(watched.fewest >= fewest && watched.most <= most, "{rule}");
            // The rollout also uses the whole surge.
            assert!(watched.most == most || surge == "0", "{rule}");
            assert!(watched.fewest == fewest || unavailable == "0", "{rule}");
        }
        let report = traffic.stop().await;
        assert!(report.failures.is_empty(), "{}", report.summary());
        // Scaling down with the same template starts nothing.
        let before = revisions(world).await;
        world.apply(&with(world, "3", 1, "1", "0")).await.unwrap();
        let after = revisions(world).await;
        assert!(
            after.len() == 1 && after.keys().all(|pod| before.contains_key(pod)),
            "{before:?} {after:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recreate_lets_the_old_go_before_the_new_come() {
    in_world("recreate", async |world| {
        let recreate = |value: &mut serde_json::Value| value["spec"]["strategy"] = json!({"type": "Recreate"});
        world.apply(&web_objects(world.web("1", recreate))).await.unwrap();
        let next = web_objects(world.web("2", recreate));
        let (stop, mut stopped) = watch::channel(false);
        let (applied, ()) = tokio::join!(
            async {
                let applied = world.apply(&next).await;
                stop.send(true).unwrap();
                applied
            },
            async {
                while !*stopped.borrow_and_update() {
                    let versions: BTreeSet<String> = revisions(world).await.into_values().collect();
                    assert!(versions.len() <= 1, "both at once: {versions:?}");
                }
            }
        );
        applied.unwrap();
        assert_eq!(world.ask("/").await, (200, "2".into()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_under_way_are_answered_before_a_pod_is_stopped() {
    in_world("requests_under_way", async |world| {
        world.apply(&web_objects(world.web("1", |_| {}))).await.unwrap();
        let address = world.address().await.trim_start_matches("http://").to_string();
        // The application drops all connections at SIGTERM, so every answered request was waited for.
        let slow: Vec<_> = (0..8)
            .map(|_| {
                let address = address.clone();
                tokio::spawn(async move { http(&address, "/slow?3000").await.unwrap() })
            })
            .collect();
        until("all of them to be under way", BOUND, async || {
            let under_way: usize = world
                .proxy_state("ingress")
                .map_or(0, |state| state.requests.values().sum());
            Ok(if under_way == 8 {
                Probe::Found(())
            } else {
                Probe::NotYet(format!("{under_way} requests"))
            })
        })
        .await
        .unwrap();
        world.apply(&web_objects(world.web("2", |_| {}))).await.unwrap();
        for answer in slow {
            assert_eq!(answer.await.unwrap(), (200, "1".into()));
        }
        assert_eq!(world.ask("/").await, (200, "2".into()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_never_passes_ends_the_rollout_at_its_deadline_and_the_old_version_serves() {
    in_world("a_probe_that_never_passes", async |world| {
        world.secrets.set("login", "PASSWORD", "hunter2hunter2");
        let old = web_objects(world.web("1", |_| {}));
        world.apply(&old).await.unwrap();
        let traffic = traffic(&world.address().await);
        let never = web_objects(world.web("2", |value| {
            value["spec"]["progressDeadlineSeconds"] = json!(3);
            container(value)["env"] = json!([
                {"name": "VERSION", "value": "2"},
                {"name": "NOT_READY", "value": "1"},
                {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "login", "key": "PASSWORD"}}},
                {"name": "SAY", "value": "cannot reach the database as hunter2hunter2"},
            ]);
        }));
        let began = Instant::now();
        let failed = world.apply(&never).await.unwrap_err();
        assert!(
            began.elapsed() >= Duration::from_secs(3),
            "it gave up too early: {failed}"
        );
        assert_eq!(failed.outcome, Outcome::TimedOut);
        assert_eq!(failed.object.as_ref().unwrap().to_string(), "Deployment/web");
        assert!(failed.message.contains("no progress within 3 s"), "{failed}");
        assert!(failed.message.contains("/ready answered 503"), "{failed}");
        assert!(
            failed.message.contains("2 of the pods before it still serve"),
            "{failed}"
        );
        assert_eq!(failed.log, ["cannot reach the database as ****", "listening on 8080"]);
        let running = failed
            .running
            .iter()
            .find(|status| status.kind == "Deployment")
            .unwrap();
        assert_eq!((running.ready, running.desired), (2, 2), "{running:?}");
        let applied = world.target().current(&world.id).await.unwrap().unwrap();
        assert!(applied.release.is_none() && applied.attempted.is_some());

        // Nothing changes until the next application, not even after a restart.
        let before = world.starts().await;
        world.reopen().await;
        assert_eq!(world.starts().await, before);
        assert_eq!(world.ask("/").await, (200, "1".into()));
        // The same call rolls back.
        world.apply(&old).await.unwrap();
        let left: Vec<String> = revisions(world).await.into_values().collect();
        assert_eq!(left, ["1", "1"]);
        let report = traffic.stop().await;
        assert!(report.failures.is_empty(), "{}", report.summary());
        assert_eq!(report.answers.keys().collect::<Vec<_>>(), ["1"], "{report:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_crashes_is_said_with_its_last_words() {
    in_world("an_application_that_crashes", async |world| {
        let crashing = world.web("1", |value| {
            value["spec"]["replicas"] = json!(1);
            value["spec"]["progressDeadlineSeconds"] = json!(4);
            container(value)["args"] = json!(["exit", "3", "no such table: claims"]);
        });
        let failed = world.apply(&[crashing]).await.unwrap_err();
        assert_eq!(failed.outcome, Outcome::TimedOut);
        assert!(
            failed.message.contains("CrashLoopBackOff: `app` exited with code 3"),
            "{failed}"
        );
        assert_eq!(failed.log, ["no such table: claims"]);
        assert!(world.status_of("Deployment", "web").await.restarts >= 2);

        let no_program = world.web("1", |value| {
            container(value)["command"] = json!(["/bin/no-such-program"])
        });
        let began = Instant::now();
        let failed = world.apply(&[no_program]).await.unwrap_err();
        assert_eq!(failed.outcome, Outcome::Failed, "{failed}");
        assert!(failed.message.contains("/bin/no-such-program"), "{failed}");
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "what can never come off is not waited for"
        );
    })
    .await;
}

// Stopping a pod.

#[tokio::test(flavor = "multi_thread")]
async fn pre_stop_comes_before_the_signal_and_the_grace_period_ends_it() {
    in_world("pre_stop", async |world| {
        let app = |version: &str, grace: u32, deaf: bool| {
            web_objects(world.web(version, |value| {
                value["spec"]["replicas"] = json!(1);
                value["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(grace);
                mount_claim(value, "data");
                let hook = json!(["/bin/towpath", "append", "/data/log", format!("preStop of {version}")]);
                container(value)["lifecycle"] = json!({"preStop": {"exec": {"command": hook}}});
                env(value, "ON_TERM", "/data/log");
                if deaf {
                    env(value, "DEAF", "1");
                }
            }))
        };
        let with_claim = |mut objects: Vec<Object>| {
            objects.push(claim("data"));
            objects
        };
        world.apply(&with_claim(app("1", 20, false))).await.unwrap();
        // A pod that handles SIGTERM ends at once, without its grace period.
        let began = Instant::now();
        world.apply(&app("2", 3, true)).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        world.ask_until("/file?/data/log", "preStop of 1\nterminated\n").await;
        // A pod that ignores SIGTERM is killed after its grace period.
        let began = Instant::now();
        world.apply(&app("3", 3, false)).await.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        world
            .ask_until(
                "/file?/data/log",
                "preStop of 1\nterminated\npreStop of 2\nterminated\n",
            )
            .await;
    })
    .await;
}

// Probes.

#[tokio::test(flavor = "multi_thread")]
async fn readiness_gates_traffic_and_liveness_starts_again() {
    in_world("readiness_gates_traffic", async |world| {
        let objects = web_objects(world.web("1", |value| {
            container(value)["readinessProbe"]["failureThreshold"] = json!(1);
            container(value)["livenessProbe"] =
                json!({"httpGet": {"path": "/live", "port": 8080}, "periodSeconds": 1, "failureThreshold": 2});
        }));
        world.apply(&objects).await.unwrap();
        let backends = |world: &World| {
            let routes = world.routes("ingress").unwrap();
            routes
                .pools
                .values()
                .flatten()
                .filter(|backend| !backend.draining)
                .count()
        };
        assert_eq!(backends(world), 2);
        let traffic = traffic(&world.address().await);
        assert_eq!(world.ask("/unready").await.0, 200);
        until("the pod that is not ready to be left out", BOUND, async || {
            let (count, status) = (backends(world), world.status_of("Deployment", "web").await);
            let done = count == 1 && status.ready == 1 && status.message.contains("is no longer ready");
            Ok(if done {
                Probe::Found(())
            } else {
                Probe::NotYet(format!("{count} {status:?}"))
            })
        })
        .await
        .unwrap();
        assert_eq!(
            world.status_of("Deployment", "web").await.restarts,
            0,
            "readiness starts nothing again"
        );
        // The pod that still serves fails its liveness probe: it restarts, and no other does.
        assert_eq!(world.ask("/sicken").await.0, 200);
        let waiting = until("the sick pod to be started again", BOUND, async || {
            let status = world.status_of("Deployment", "web").await;
            Ok(if status.restarts == 1 && status.ready == 1 {
                Probe::Found(())
            } else {
                Probe::NotYet(format!("{status:?}"))
            })
        });
        waiting.await.unwrap();
        assert_eq!(world.ask("/").await, (200, "1".into()));
        // Requests waited while no pod was ready. The application's own errors are passed on.
        let report = traffic.stop().await;
        let lost = report
            .failures
            .iter()
            .filter(|failure| !failure.what.starts_with("50"))
            .count();
        assert_eq!(lost, 0, "{}", report.summary());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_exec_and_startup_probes() {
    in_world("tcp_exec_and_startup_probes", async |world| {
        // TCP: ready when it listens, and not before.
        let tcp = web_objects(world.web("tcp", |value| {
            value["spec"]["replicas"] = json!(1);
            env(value, "START_MS", "1500");
            container(value)["readinessProbe"] = json!({"tcpSocket": {"port": "http"}, "periodSeconds": 1});
        }));
        let began = Instant::now();
        world.apply(&tcp).await.unwrap();
        assert!(
            began.elapsed() >= Duration::from_millis(1500),
            "ready before it listened"
        );
        assert_eq!(world.ask("/").await, (200, "tcp".into()));

        // A command in the container.
        let exec = web_objects(world.web("exec", |value| {
            value["spec"]["replicas"] = json!(1);
            value["spec"]["progressDeadlineSeconds"] = json!(3);
            container(value)["readinessProbe"] = json!({
                "exec": {"command": ["/bin/towpath", "there", "/tmp/ready"]}, "periodSeconds": 1});
        }));
        let failed = world.apply(&exec).await.unwrap_err();
        assert!(
            failed.message.contains("`/bin/towpath there /tmp/ready` exited with 1"),
            "{failed}"
        );
        let ready = web_objects(world.web("exec", |value| {
            value["spec"]["replicas"] = json!(1);
            value["spec"]["template"]["spec"]["initContainers"] = json!([
                {"name": "first", "image": world.image, "args": ["append", "/work/ready", "yes"],
                 "volumeMounts": [{"name": "work", "mountPath": "/work"}]}]);
            value["spec"]["template"]["spec"]["volumes"] = json!([{"name": "work", "emptyDir": {}}]);
            container(value)["volumeMounts"] = json!([{"name": "work", "mountPath": "/work", "readOnly": true}]);
            container(value)["readinessProbe"] = json!({
                "exec": {"command": ["/bin/towpath", "there", "/work/ready"]}, "periodSeconds": 1});
        }));
        world.apply(&ready).await.unwrap();
        assert_eq!(world.ask("/file?/work/ready").await, (200, "yes\n".into()));

        // With a startup probe, the liveness probe does not end a slow start.
        let startup = web_objects(world.web("startup", |value| {
            value["spec"]["replicas"] = json!(1);
            env(value, "START_MS", "3000");
            let ask = json!({"httpGet": {"path": "/live", "port": "http"}, "periodSeconds": 1, "failureThreshold": 1});
            container(value)["livenessProbe"] = ask.clone();
            container(value)["startupProbe"] = ask;
            container(value)["startupProbe"]["failureThreshold"] = json!(20);
        }));
        world.apply(&startup).await.unwrap();
        assert_eq!(world.status_of("Deployment", "web").await.restarts, 0);
        let hurried = web_objects(world.web("hurried", |value| {
            value["spec"]["replicas"] = json!(1);
            value["spec"]["progressDeadlineSeconds"] = json!(6);
            env(value, "START_MS", "60000");
            container(value)["startupProbe"] =
                json!({"tcpSocket": {"port": "http"}, "periodSeconds": 1, "failureThreshold": 2});
        }));
        let failed = world.apply(&hurried).await.unwrap_err();
        let said = format!("{failed} {:?}", world.status_of("Deployment", "web").await);
        assert!(
            said.contains("has not started") || said.contains("the startup probe of `app` failed 2 times"),
            "{said}"
        );
        assert!(world.status_of("Deployment", "web").await.restarts >= 1, "{said}");
        assert_eq!(world.ask("/").await, (200, "startup".into()));
    })
    .await;
}

// Names, volumes, configuration.

#[tokio::test(flavor = "multi_thread")]
async fn a_services_name_leads_through_its_proxy_to_its_pods() {
    in_world("a_services_name", async |world| {
        let mut objects = web_objects(world.web("web", |value| value["spec"]["replicas"] = json!(1)));
        objects.push(world.deployment("api", "api 1", |value| value["spec"]["replicas"] = json!(1)));
        objects.push(service("api"));
        world.apply(&objects).await.unwrap();
        for name in [
            "api",
            "api.claims-dev",
            "api.claims-dev.svc",
            "api.claims-dev.svc.cluster.local",
        ] {
            assert_eq!(
                world.ask(&format!("/get?{name}:80")).await,
                (200, "api 1".into()),
                "{name}"
            );
        }
        // The name resolves to the proxy, not to a pod: after a rollout, the address is the same and the pod is another one.
        let next = world.deployment("api", "api 2", |value| value["spec"]["replicas"] = json!(1));
        world.apply(&[next]).await.unwrap();
        assert_eq!(world.ask("/get?api:80").await, (200, "api 2".into()));
        let (status, said) = world.ask("/get?nobody:80").await;
        assert_eq!(status, 502, "{said}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_claim_holds_outlives_pods_and_the_environment_unless_it_is_deleted() {
    in_world("what_a_claim_holds", async |world| {
        let with = |world: &World, version: &str| {
            let mut objects = web_objects(world.web(version, |value| {
                value["spec"]["replicas"] = json!(1);
                // Any user may write to a new claim, as on a cluster.
                container(value)["securityContext"] = json!({"runAsUser": 10001, "runAsNonRoot": true});
                mount_claim(value, "data");
            }));
            objects.push(claim("data"));
            objects
        };
        world.apply(&with(world, "1")).await.unwrap();
        assert_eq!(
            world.ask("/write?/data/kept=through%20it%20all").await,
            (200, "written".into())
        );
        world.apply(&with(world, "2")).await.unwrap();
        assert_eq!(world.ask("/file?/data/kept").await, (200, "through%20it%20all".into()));
        world
            .target()
            .delete_environment(&world.id, Volumes::Keep)
            .await
            .unwrap();
        assert_eq!(world.containers("dev.towpath.environment", "").await, []);
        assert!(world.status().await.is_empty());
        assert!(world.target().current(&world.id).await.unwrap().is_none());
        world.apply(&with(world, "3")).await.unwrap();
        assert_eq!(world.ask("/file?/data/kept").await, (200, "through%20it%20all".into()));
        world
            .target()
            .delete_environment(&world.id, Volumes::Delete)
            .await
            .unwrap();
        // Setting it twice is no error.
        world
            .target()
            .delete_environment(&world.id, Volumes::Delete)
            .await
            .unwrap();
        world.apply(&with(world, "4")).await.unwrap();
        assert_eq!(world.ask("/file?/data/kept").await.0, 404);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn config_maps_and_secrets_arrive_and_no_value_is_left_behind() {
    in_world("config_maps_and_secrets", async |world| {
        world.secrets.set("login", "PASSWORD", "hunter2hunter2");
        world.secrets.set("login", "USER", "claims");
        let config = object(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"},
            "data": {"GREETING": "hello", "page.html": "<p>"},
        }));
        let mut objects = web_objects(world.web("1", |value| {
            value["spec"]["replicas"] = json!(1);
            container(value)["envFrom"] = json!([
                {"configMapRef": {"name": "settings"}},
                {"secretRef": {"name": "login"}, "prefix": "DB_"},
                {"secretRef": {"name": "nobody", "optional": true}},
            ]);
            env(value, "URL", "https://$(DB_USER)@db");
            container(value)["volumeMounts"] = json!([
                {"name": "pages", "mountPath": "/pages"}, {"name": "keys", "mountPath": "/keys"}]);
            value["spec"]["template"]["spec"]["volumes"] = json!([
                {"name": "pages", "configMap": {"name": "settings", "items": [{"key": "page.html", "path": "a/b.html"}]}},
                {"name": "keys", "secret": {"secretName": "login"}},
            ]);
        }));
        objects.push(config);
        world.apply(&objects).await.unwrap();
        for (path, expected) in [
            ("/env?GREETING", "hello"),
            ("/env?DB_PASSWORD", "hunter2hunter2"),
            ("/env?URL", "https://claims@db"),
            ("/file?/pages/a/b.html", "<p>"),
            ("/file?/keys/PASSWORD", "hunter2hunter2"),
        ] {
            assert_eq!(world.ask(path).await, (200, expected.into()), "{path}");
        }
        // The disk contains no value: mounted Secrets are in memory.
        for entry in walk(world.folder.path()) {
            let text = std::fs::read(&entry).unwrap();
            let found = String::from_utf8_lossy(&text).contains("hunter2hunter2");
            assert!(!found, "a secret's value is in {}", entry.display());
        }
        let memory = format!("/dev/shm/towpath-{}", world.instance);
        assert!(!walk(memory.as_ref()).is_empty());
        world.target().delete_environment(&world.id, Volumes::Delete).await.unwrap();
        assert_eq!(walk(memory.as_ref()), Vec::<std::path::PathBuf>::new());
    })
    .await;
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_lost_its_first_container_while_nobody_looked_is_made_whole() {
    in_world("a_pod_that_lost", async |world| {
        let objects = web_objects(world.web("1", |value| {
            value["spec"]["replicas"] = json!(1);
            let sidecar = json!({
                "name": "side", "image": world.image, "env": [
                    {"name": "VERSION", "value": "beside"}, {"name": "PORT", "value": "9090"}]});
            value["spec"]["template"]["spec"]["containers"]
                .as_array_mut()
                .unwrap()
                .push(sidecar);
        }));
        world.apply(&objects).await.unwrap();
        assert_eq!(
            world.ask("/get?localhost:9090").await,
            (200, "beside".into()),
            "containers share a network"
        );
        for remove in [false, true] {
            world.close();
            let containers = world.containers("dev.towpath.deployment", "web").await;
            let is_first = |name: &String| name.ends_with(".app");
            let first = containers
                .iter()
                .find(|c| c.names.iter().flatten().any(is_first))
                .unwrap();
            let id = first.id.clone().unwrap();
            world.docker.kill_container(&id, None).await.unwrap();
            if remove {
                world.docker.remove_container(&id, None).await.unwrap();
            }
            world.open().await;
            world.ask_until("/", "1").await;
            world.ask_until("/get?localhost:9090", "beside").await;
        }
        // Only the sidecar restarts. The first container is not touched.
        let id_of = async |suffix: &str| {
            let containers = world.containers("dev.towpath.deployment", "web").await;
            let found = containers
                .into_iter()
                .find(|c| c.names.iter().flatten().any(|name| name.ends_with(suffix)));
            found.and_then(|container| container.id)
        };
        let (first, side) = (id_of(".app").await, id_of(".side").await.unwrap());
        world.docker.kill_container(&side, None).await.unwrap();
        until("another sidecar to run", BOUND, async || {
            let now = id_of(".side").await;
            Ok(match now {
                Some(now) if now != side => Probe::Found(()),
                other => Probe::NotYet(format!("{other:?}")),
            })
        })
        .await
        .unwrap();
        world.ask_until("/get?localhost:9090", "beside").await;
        assert_eq!(id_of(".app").await, first);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_was_made_twice_is_made_one_again() {
    in_world("a_network_that_was_made_twice", async |world| {
        let (instance, docker) = (world.instance.clone(), world.docker.clone());
        let name = format!("towpath-{instance}-claims.dev");
        let labels = [
            ("dev.towpath.instance", instance.as_str()),
            ("dev.towpath.environment", "claims.dev"),
        ];
        let twin = || NetworkCreateRequest {
            name: name.clone(),
            labels: Some(labels.map(|(key, value)| (key.to_string(), value.to_string())).into()),
            ..NetworkCreateRequest::default()
        };
        let count = async || {
            let all = docker.list_networks(None::<ListNetworksOptions>).await.unwrap();
            all.iter()
                .filter(|network| network.name.as_ref() == Some(&name))
                .count()
        };
        // Before anything runs: as if a server had died between its request and the engine's answer.
        for made in [1, 2] {
            if let Err(error) = docker.create_network(twin()).await {
                // Current engines keep names unique by themselves.
                assert!(made == 2 && error.to_string().contains("already exists"), "{error}");
            }
        }
        world.apply(&web_objects(world.web("1", |_| {}))).await.unwrap();
        assert_eq!(count().await, 1);
        let before = world.starts().await;
        // While pods run in one of the networks, that one stays.
        let _ = docker.create_network(twin()).await;
        world.reopen().await;
        until("one network to be left", BOUND, async || {
            let count = count().await;
            Ok(if count == 1 {
                Probe::Found(())
            } else {
                Probe::NotYet(format!("{count} networks"))
            })
        })
        .await
        .unwrap();
        world.apply(&web_objects(world.web("1", |_| {}))).await.unwrap();
        assert_eq!(world.starts().await, before);
        let _ = docker.create_network(twin()).await;
        world
            .target()
            .delete_environment(&world.id, Volumes::Delete)
            .await
            .unwrap();
        assert_eq!(count().await, 0);
    })
    .await;
}

// Refusals.

#[path = "local/jobs.rs"]
mod jobs;
#[path = "local/refusals.rs"]
mod refusals;

mod contract;

#[tokio::test(flavor = "multi_thread")]
async fn the_local_target_keeps_the_contract() {
    in_world("contract", async |world| {
        let capabilities = towpath_deploy::contract::Capabilities::LOCAL;
        let nobody_tampers = |_: &ObjectId| Box::pin(async {}) as futures::future::BoxFuture<'_, ()>;
        let target = contract::OnTarget::new(world.target(), &world.id, &world.image, capabilities, nobody_tampers);
        towpath_deploy::contract::check(&target).await;
    })
    .await;
}
