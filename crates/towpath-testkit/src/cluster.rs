//! A real Kubernetes cluster with one node. All tests on a machine share it; each has a namespace of its own.

use crate::{Absent, Probe, until};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{io::AsyncWriteExt, process::Command, sync::OnceCell};
use towpath_types::Digest;

/// How long to wait for what the cluster normally does at once.
const BOUND: Duration = Duration::from_secs(60);

/// The test cluster of this machine.
#[derive(Debug, Clone)]
pub struct Cluster {
    kubeconfig: PathBuf,
    programs: PathBuf,
}

static SHARED: OnceCell<Result<Cluster, Absent>> = OnceCell::const_new();

impl Cluster {
    /// The cluster's kube context.
    pub const KUBE_CONTEXT: &str = "live";

    /// The test cluster, started if it is not running. It keeps running until `scripts/cluster down`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn get() -> Result<Self, Absent> {
        SHARED.get_or_init(Self::bring_up).await.clone()
    }

    async fn bring_up() -> Result<Self, Absent> {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts");
        let said = |name: &str, output: std::io::Result<std::process::Output>| match output {
            Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).trim().to_string()),
            Ok(output) => Err(Absent(format!(
                "scripts/{name} failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ))),
            Err(error) => Err(Absent(format!("failed to run scripts/{name}: {error}"))),
        };
        let kubeconfig = Command::new(scripts.join("cluster"))
            .arg("up")
            .stdin(Stdio::null())
            .output()
            .await;
        let programs = Command::new(scripts.join("ensure-cluster"))
            .stdin(Stdio::null())
            .output()
            .await;
        Ok(Self {
            kubeconfig: said("cluster", kubeconfig)?.into(),
            programs: PathBuf::from(said("ensure-cluster", programs)?).join("bin"),
        })
    }

    /// The kubeconfig. Its kube context [`Cluster::KUBE_CONTEXT`] may do everything.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The folder with the cluster's programs: `kubectl`, `helm`, `kustomize`.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// The API server's address.
    #[must_use]
    pub fn server(&self) -> String {
        self.kubeconfig_field("server: \"")
    }

    /// The certificate (PEM) of the authority that signed the API server's.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn certificate_authority(&self) -> Result<String> {
        let path = self.kubeconfig_field("certificate-authority: \"");
        std::fs::read_to_string(&path).with_context(|| format!("failed to read `{path}`"))
    }

    fn kubeconfig_field(&self, before: &str) -> String {
        let text = std::fs::read_to_string(&self.kubeconfig).unwrap_or_default();
        let rest = text.split_once(before).map(|(_, rest)| rest).unwrap_or_default();
        rest.split('"').next().unwrap_or_default().to_string()
    }

    /// Runs the cluster's own `kubectl` and answers its output.
    ///
    /// # Errors
    /// When it fails. The message contains its error.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with(arguments, "").await
    }

    /// Like [`Cluster::kubectl`], with `input` on standard input.
    ///
    /// # Errors
    /// Like [`Cluster::kubectl`].
    pub async fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut child = Command::new(self.programs.join("kubectl"))
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("failed to run kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(input.as_bytes())
                .await
                .context("failed to write to kubectl")?;
        }
        let output = child.wait_with_output().await.context("failed to wait for kubectl")?;
        ensure!(
            output.status.success(),
            "`kubectl {}` failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Makes the image `name`, `FROM scratch`, from the static program at `binary` and loads it into the node. Its entrypoint is
    /// `/program`.
    ///
    /// # Errors
    /// When the program cannot be read, or the node does not accept the image.
    pub async fn load_image(&self, name: &str, binary: &Path) -> Result<()> {
        let program = std::fs::read(binary).with_context(|| format!("failed to read `{}`", binary.display()))?;
        let archive = image_archive(name, "program", &program).context("failed to make an image")?;
        let socket = self.kubeconfig.with_file_name("containerd.sock");
        let mut child = Command::new("ctr")
            .arg("--address")
            .arg(socket)
            .args(["--namespace", "k8s.io", "images", "import", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("failed to run ctr")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&archive).await.context("failed to write to ctr")?;
        }
        let output = child.wait_with_output().await.context("failed to wait for ctr")?;
        ensure!(
            output.status.success(),
            "the node does not accept the image `{name}`: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// Makes the node pull images of `registry` (`registry.example.com`) from `address` (`http://127.0.0.1:41234`).
    ///
    /// # Errors
    /// When the node's configuration cannot be written.
    pub fn map_registry(&self, registry: &str, address: &str) -> Result<()> {
        let folder = self.kubeconfig.with_file_name("certs.d").join(registry);
        std::fs::create_dir_all(&folder).with_context(|| format!("failed to create `{}`", folder.display()))?;
        let text = format!("server = \"{address}\"\n[host.\"{address}\"]\n");
        std::fs::write(folder.join("hosts.toml"), text)
            .with_context(|| format!("failed to write in `{}`", folder.display()))
    }

    /// Creates a namespace whose name begins with `prefix`. Dropping the [`Namespace`] deletes it.
    ///
    /// # Errors
    /// When it cannot be created.
    pub async fn namespace(&self, prefix: &str) -> Result<Namespace> {
        let name = format!("{prefix}-{}", random_word());
        self.kubectl(&["create", "namespace", &name]).await?;
        let namespace = Namespace {
            cluster: self.clone(),
            name,
        };
        // No pod can be created before it exists.
        until("the namespace's service account", BOUND, async || {
            Ok(match namespace.get("serviceaccount", "default").await {
                Ok(_) => Probe::Found(()),
                Err(error) => Probe::NotYet(error.to_string()),
            })
        })
        .await?;
        Ok(namespace)
    }
}

/// Eight hex digits that no other test uses.
fn random_word() -> String {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(std::process::id());
    format!("{random:016x}")[..8].to_string()
}

/// A namespace for one test.
#[derive(Debug)]
pub struct Namespace {
    cluster: Cluster,
    name: String,
}

/// A service account of a namespace.
#[derive(Debug, Clone)]
pub struct Account {
    /// A bearer token.
    pub token: String,
}

impl Namespace {
    /// The whole name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace's cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Runs `kubectl` in this namespace.
    ///
    /// # Errors
    /// Like [`Cluster::kubectl`].
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["--namespace", &self.name];
        all.extend(arguments);
        self.cluster.kubectl(&all).await
    }

    /// Runs `kubectl apply` with `yaml`: client-side, as people use it.
    ///
    /// # Errors
    /// Like [`Cluster::kubectl`].
    pub async fn kubectl_apply(&self, yaml: &str) -> Result<String> {
        self.cluster
            .kubectl_with(&["--namespace", &self.name, "apply", "--filename", "-"], yaml)
            .await
    }

    /// An object as JSON.
    ///
    /// # Errors
    /// When it does not exist.
    pub async fn get(&self, kind: &str, name: &str) -> Result<Value> {
        let text = self
            .kubectl(&["get", kind, name, "--output", "json", "--show-managed-fields"])
            .await?;
        serde_json::from_str(&text).context("kubectl printed something other than JSON")
    }

    /// Whether an object exists.
    ///
    /// # Errors
    /// When kubectl fails.
    pub async fn has(&self, kind: &str, name: &str) -> Result<bool> {
        let found = self
            .kubectl(&["get", kind, name, "--ignore-not-found", "--output", "name"])
            .await?;
        Ok(!found.trim().is_empty())
    }

    /// Creates an account with the permissions `rules` (of a Role) in this namespace, and no others.
    ///
    /// # Errors
    /// When it cannot be created.
    pub async fn account(&self, rules: &Value) -> Result<Account> {
        let name = format!("account-{}", random_word());
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": rules},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
             "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
             "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": self.name}]},
        ]});
        self.kubectl_apply(&objects.to_string()).await?;
        let token = self.kubectl(&["create", "token", &name, "--duration", "2h"]).await?;
        let token = token.trim().to_string();
        if token.is_empty() {
            bail!("the cluster issued an empty token");
        }
        Ok(Account { token })
    }

    /// Creates an account that may do everything in this namespace.
    ///
    /// # Errors
    /// When it cannot be created.
    pub async fn owner(&self) -> Result<Account> {
        self.account(&json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]))
            .await
    }

    /// Metadata for cluster-wide objects that have this namespace's name and are deleted with it.
    ///
    /// # Errors
    /// When the namespace no longer exists.
    pub async fn metadata(&self) -> Result<Value> {
        let this = ["get", "namespace", &self.name, "--output", "json"];
        let this: Value = serde_json::from_str(&self.cluster.kubectl(&this).await?)
            .context("kubectl printed something other than JSON")?;
        Ok(json!({"name": self.name, "ownerReferences": [
            {"apiVersion": "v1", "kind": "Namespace", "name": self.name, "uid": this["metadata"]["uid"]}]}))
    }

    /// Creates an account that may do everything in this namespace and read everything else, like a member of a small team.
    ///
    /// # Errors
    /// When it cannot be created.
    pub async fn observer(&self) -> Result<Account> {
        let owner = self.owner().await?;
        let metadata = self.metadata().await?;
        let group = "rbac.authorization.k8s.io";
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": metadata,
             "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]},
            {"apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": metadata,
             "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": self.name},
             "subjects": [{"kind": "Group", "apiGroup": group, "name": format!("system:serviceaccounts:{}", self.name)}]},
        ]});
        self.kubectl_apply(&objects.to_string()).await?;
        Ok(owner)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let deleted = std::process::Command::new(self.cluster.programs.join("kubectl"))
            .args(["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"])
            .env("KUBECONFIG", &self.cluster.kubeconfig)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !deleted.is_ok_and(|status| status.success()) {
            eprintln!("failed to delete the namespace `{}`", self.name);
        }
    }
}

/// The image `name` with one static program, `/<program>`, in the format of `docker save`.
///
/// # Errors
/// Never: it writes to memory only.
///
/// Source: <https://github.com/moby/docker-image-spec/blob/main/spec.md#combined-image-json--filesystem-changeset-format>
pub fn image_archive(name: &str, program: &str, content: &[u8]) -> std::io::Result<Vec<u8>> {
    fn add(archive: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) -> std::io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content)
    }
    let mut layer = tar::Builder::new(Vec::new());
    add(&mut layer, program, 0o755, content)?;
    let layer = layer.into_inner()?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux", "config": {"Entrypoint": [format!("/{program}")]},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer).as_str()]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    add(&mut archive, "config.json", 0o644, config.to_string().as_bytes())?;
    add(&mut archive, "layer.tar", 0o644, &layer)?;
    add(&mut archive, "manifest.json", 0o644, manifest.to_string().as_bytes())?;
    archive.into_inner()
}
