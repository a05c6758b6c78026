//! The application with which the contract of a target is checked on real targets.

use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::time::Duration;
use towpath_deploy::{
    Environment, JOB_LABEL, Target,
    contract::{Capabilities, Harness},
};
use towpath_manifest::{Object, ObjectId};

type Tamper<'a> = Box<dyn Fn(&ObjectId) -> BoxFuture<'a, ()> + Send + Sync + 'a>;

/// A real target and the image of the test application.
pub struct OnTarget<'a> {
    target: &'a dyn Target,
    environment: &'a Environment,
    image: &'a str,
    capabilities: Capabilities,
    tamper: Tamper<'a>,
}

impl<'a> OnTarget<'a> {
    pub fn new(
        target: &'a dyn Target,
        environment: &'a Environment,
        image: &'a str,
        capabilities: Capabilities,
        tamper: impl Fn(&ObjectId) -> BoxFuture<'a, ()> + Send + Sync + 'a,
    ) -> Self {
        Self {
            target,
            environment,
            image,
            capabilities,
            tamper: Box::new(tamper),
        }
    }

    fn object(&self, api_version: &str, kind: &str, name: &str, rest: &Value) -> Object {
        let mut value = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}});
        for (field, rest) in rest.as_object().into_iter().flatten() {
            value[field] = rest.clone();
        }
        let object = Object::from_value(value, "contract.yaml").unwrap();
        object.in_namespace(&self.environment.namespace)
    }

    /// The application, with this container in the pods of its Deployment.
    fn with_container(&self, version: &str, change: impl FnOnce(&mut Value)) -> Vec<Object> {
        let mut container = json!({
            "name": "app", "image": self.image,
            "env": [{"name": "VERSION", "value": version}],
            "envFrom": [{"configMapRef": {"name": "contract"}}],
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1},
        });
        change(&mut container);
        let deployment = json!({"spec": {
            "replicas": 2,
            "progressDeadlineSeconds": 30,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
            },
        }});
        let sweep = json!({"spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": self.job_spec(0, "swept", "1")}}});
        vec![
            self.object(
                "v1",
                "ConfigMap",
                "contract",
                &json!({"data": {"VERSION_OF_CONFIG": version}}),
            ),
            self.object("apps/v1", "Deployment", "web", &deployment),
            self.object("batch/v1", "CronJob", "sweep", &sweep),
        ]
    }

    fn job_spec(&self, exit_code: i64, text: &str, after_ms: &str) -> Value {
        json!({"backoffLimit": 0, "template": {"spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "job", "image": self.image, "args": ["exit", exit_code.to_string(), text],
                "env": [{"name": "EXIT_AFTER_MS", "value": after_ms}],
            }],
        }}})
    }

    fn labelled_job(&self, name: &str, label: &str, spec: &Value) -> Object {
        let mut job = self.object("batch/v1", "Job", name, &json!({"spec": spec}));
        job.value["metadata"]["labels"] = json!({JOB_LABEL: label});
        job
    }
}

impl Harness for OnTarget<'_> {
    fn target(&self) -> &dyn Target {
        self.target
    }

    fn environment(&self) -> &Environment {
        self.environment
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(90)
    }

    fn application(&self, version: &str) -> Vec<Object> {
        self.with_container(version, |_| {})
    }

    fn slow_application(&self, version: &str) -> Vec<Object> {
        self.with_container(version, |container| {
            let env = container["env"].as_array_mut().unwrap();
            env.push(json!({"name": "START_MS", "value": "3000"}));
        })
    }

    fn broken_application(&self, version: &str) -> Vec<Object> {
        self.with_container(version, |container| {
            container["args"] = json!(["exit", "3", "no database"]);
        })
    }

    fn refused_application(&self) -> Vec<Object> {
        self.with_container("refused", |container| {
            container["envFrom"] = json!([{"configMapRef": {"name": "nosuch"}}]);
        })
    }

    fn job(&self, name: &str, label: &str, exit_code: i64, text: &str) -> Object {
        self.labelled_job(name, label, &self.job_spec(exit_code, text, "300"))
    }

    fn endless_job(&self, name: &str, label: &str) -> Object {
        self.labelled_job(name, label, &self.job_spec(0, "it runs", "600000"))
    }

    fn tamper<'a>(&'a self, id: &'a ObjectId) -> BoxFuture<'a, ()> {
        (self.tamper)(id)
    }
}
