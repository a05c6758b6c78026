//! The contract of a target, on a real cluster.

#[path = "../contract/mod.rs"]
mod application;

use crate::cluster::in_cluster;
use application::OnTarget;
use std::time::Duration;
use towpath_deploy::{
    Identity, KubernetesOptions, KubernetesTarget,
    contract::{Capabilities, check},
};
use towpath_manifest::ObjectId;

#[tokio::test]
async fn the_kubernetes_target_keeps_the_contract() {
    in_cluster("contract", async |world| {
        let namespace = &world.namespace;
        let kubeconfig = namespace.cluster().kubeconfig().to_path_buf();
        let mut options = KubernetesOptions::new(Identity::Kubeconfig(Some(kubeconfig)), world.secrets.clone());
        // The lock of a dropped deployment expires soon.
        options.lock_expiry = Duration::from_secs(3);
        let target = KubernetesTarget::new(options);
        let tamper = |id: &ObjectId| {
            let name = id.name.clone();
            let tampered = async move {
                let patch = r#"{"data":{"VERSION_OF_CONFIG":"tampered"}}"#;
                namespace
                    .kubectl(&["patch", "configmap", &name, "--patch", patch])
                    .await
                    .unwrap();
            };
            Box::pin(tampered) as futures::future::BoxFuture<'_, ()>
        };
        let capabilities = Capabilities::KUBERNETES;
        check(&OnTarget::new(
            &target,
            &world.environment,
            &world.image,
            capabilities,
            tamper,
        ))
        .await;
    })
    .await;
}
