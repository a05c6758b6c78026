//! The Secrets that pods read, set by people.

use crate::world::{World, environment};
use towpath_delivery::ErrorKind;
use towpath_types::SecretBytes;

#[tokio::test]
async fn a_secret_is_set_where_the_pushed_manifests_put_the_environment() {
    let world = World::new().await;
    let (dev, secrets) = (environment("dev"), &world.delivery.secrets);
    let value = || SecretBytes::new(b"\xff\n".to_vec());
    let unknown = secrets.set(&dev, "keys", "store", value(), "ada").await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    assert!(unknown.to_string().contains("push its manifests first"), "{unknown}");
    assert_eq!(world.secrets.value(&dev, "keys", "store"), None);

    // Nobody has looked for environments since the push.
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app}\n";
    world.push_commit(&[(".k8s/live/dev/all.yaml", map)]).await;
    secrets.set(&dev, "keys", "store", value(), "ada").await.unwrap();
    assert_eq!(world.secrets.value(&dev, "keys", "store"), Some(value()));
    let listed = secrets.list(&dev).await.unwrap();
    let shown = serde_json::to_string(&listed).unwrap();
    assert!(
        shown.contains("\"bytes\":2") && shown.contains("\"by\":\"ada\""),
        "{shown}"
    );

    secrets.unset(&dev, "keys", "store", "ada").await.unwrap();
    let gone = secrets.unset(&dev, "keys", "store", "ada").await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}
