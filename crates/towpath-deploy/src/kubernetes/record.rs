//! What an environment itself says of its releases: the same for every laptop and server that deploys there.
//!
//! Two kinds of Secret in the environment's namespace, for a least-privileged account may write those anyway, and for
//! manifests may hold values:
//! - `towpath.<project>.<environment>`: what runs, what was applied, who is deploying;
//! - `towpath.<project>.<environment>.<number>`: one release: the last [`KEPT`] that succeeded, and the last [`KEPT`] that did not.

use super::{
    api::{Api, ApiError, escape},
    kinds::Kind,
    process::Process,
};
use crate::target::{Environment, Hold, ReleaseRecord};
use base64::Engine as _;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use towpath_manifest::{Object, ObjectId};
use towpath_types::{Digest, Outcome, ReleaseId};

/// What is to be said of a release that nobody carries out any more.
pub(super) const DIED: &str = "whoever carried it out died before its end";
/// After how long without a sign of life a deployment is no longer called one: many signs of life, and clocks that differ.
const SILENT: SignedDuration = SignedDuration::from_secs(120);
/// How many releases an environment remembers.
const KEPT: usize = 10;
/// The most base64 that a record's Secret takes: all of its data may have 1 MiB, after decoding.
///
/// Source: <https://kubernetes.io/docs/concepts/configuration/secret/#restriction-data-size>
const MOST_PACKED: usize = 1_300_000;
/// The most that a record may unpack to.
const MOST_BYTES: usize = 64 << 20;

/// An object that was applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Which.
    pub id: ObjectId,
    /// `apps/v1`.
    pub api_version: String,
    /// The object's own identity, by which one that somebody made anew is told apart.
    #[serde(default)]
    pub uid: String,
    /// The digest of what was applied.
    #[serde(default)]
    pub manifest: String,
    /// The digest of the fields that were ours afterwards.
    #[serde(default)]
    pub owned: String,
    /// Whether Towpath made it: only such an object is removed when it leaves the manifests.
    #[serde(default)]
    pub made: bool,
}

/// Who is deploying.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lock {
    /// One deployment of one process.
    pub holder: String,
    /// Who, for people.
    pub by: String,
    /// What, for people.
    pub what: String,
    pub since: Timestamp,
    /// When its holder said last that it is alive, by the holder's clock.
    pub renewed: Timestamp,
    /// How often it said so.
    pub renewals: u64,
    /// The release that it carries out.
    pub release: ReleaseId,
    /// The process that holds it.
    #[serde(default)]
    pub process: Option<Process>,
}

/// What an environment says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// The release that was carried out completely; `None` while one is under way or after one that failed.
    pub current: Option<ReleaseId>,
    /// The release that was begun last.
    pub attempted: Option<ReleaseId>,
    /// The release that succeeded last.
    #[serde(default)]
    pub succeeded: Option<ReleaseId>,
    /// Its number.
    #[serde(default)]
    pub succeeded_number: i64,
    /// What was applied.
    pub objects: Vec<Kept>,
    /// Who is deploying.
    pub lock: Option<Lock>,
    /// Who keeps others from deploying.
    #[serde(default)]
    pub hold: Option<Hold>,
}

impl State {
    /// The lock of whoever is deploying, unless that process is known to have died, or has been silent for so long that it
    /// must have.
    pub(super) fn alive(&self) -> Option<&Lock> {
        let is_gone = |lock: &Lock| lock.process.as_ref().is_some_and(Process::is_gone);
        let is_silent = |lock: &Lock| Timestamp::now().duration_since(lock.renewed) > SILENT;
        self.lock.as_ref().filter(|lock| !is_gone(lock) && !is_silent(lock))
    }
}

/// A state with the version of the Secret that it was read from.
#[derive(Debug, Clone, Default)]
pub(super) struct Loaded {
    pub state: State,
    /// `None` when there is no Secret yet.
    pub version: Option<String>,
    /// The key of this environment's fingerprints.
    pub key: Option<Vec<u8>>,
    /// Whether there is a Secret that does not hold what Towpath wrote.
    pub is_odd: bool,
}

pub(super) fn secrets() -> Kind {
    Kind::known("v1", "Secret", "secrets")
}

/// `towpath.claims.dev`. What no name of an object may hold is written otherwise.
pub(super) fn name(environment: &Environment) -> String {
    let part = |text: &str| text.replace('_', "--");
    format!(
        "towpath.{}.{}",
        part(environment.id.project()),
        part(environment.id.environment())
    )
}

/// The labels that tell whose an object is.
pub(super) fn labels(environment: &Environment) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("towpath.dev/project".to_string(), environment.id.project().to_string()),
        (
            "towpath.dev/environment".to_string(),
            environment.id.environment().to_string(),
        ),
    ])
}

fn pack(value: &impl Serialize) -> Result<(String, String), ApiError> {
    let text = serde_json::to_vec(value).map_err(unreadable)?;
    let packed = zstd::encode_all(text.as_slice(), 3).map_err(unreadable)?;
    let digest = Digest::of(&text).to_string();
    Ok((base64::engine::general_purpose::STANDARD.encode(packed), digest))
}

fn unreadable(error: impl std::fmt::Display) -> ApiError {
    ApiError::Malformed {
        server: "the cluster".into(),
        why: format!("a record of Towpath's cannot be read or written: {error}"),
    }
}

/// The bytes behind one key of a Secret.
fn data(secret: &Value, key: &str) -> Option<Vec<u8>> {
    let text = secret.get("data")?.get(key)?.as_str()?;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// What a Secret holds, when it is whole.
fn unpack<T: DeserializeOwned>(secret: &Value, key: &str) -> Option<T> {
    let packed = data(secret, key)?;
    let mut text = Vec::new();
    let reader = zstd::Decoder::new(packed.as_slice()).ok()?;
    std::io::Read::read_to_end(&mut std::io::Read::take(reader, MOST_BYTES as u64), &mut text).ok()?;
    let digest = data(secret, "digest")?;
    (Digest::of(&text).to_string().into_bytes() == digest).then_some(())?;
    serde_json::from_slice(&text).ok()
}

fn version(secret: &Value) -> Option<String> {
    let version = secret.pointer("/metadata/resourceVersion");
    version.and_then(Value::as_str).map(str::to_string)
}

fn secret(environment: &Environment, name: &str, record: &str, data: &Value) -> Value {
    let mut labels = labels(environment);
    labels.insert("towpath.dev/record".to_string(), record.to_string());
    labels.insert("app.kubernetes.io/managed-by".to_string(), "towpath".to_string());
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": format!("towpath.dev/{record}"),
        "metadata": {"name": name, "namespace": environment.namespace, "labels": labels},
        "data": data,
    })
}

impl Loaded {
    fn of(secret: &Value) -> Self {
        let state = unpack(secret, "state");
        Self {
            is_odd: state.is_none(),
            // One that somebody edited is worth nothing: what it knew is found out anew.
            state: state.unwrap_or_default(),
            version: version(secret),
            key: data(secret, "key"),
        }
    }
}

/// Reads an environment's state; an empty one where nothing was deployed.
pub(super) async fn load(api: &Api, environment: &Environment) -> Result<Loaded, ApiError> {
    let path = secrets().object(&environment.namespace, &name(environment));
    let secret = api.find(&path).await?;
    Ok(secret.as_ref().map(Loaded::of).unwrap_or_default())
}

/// Writes a state over the one that it was read from. Answers `false` when somebody else wrote first.
pub(super) async fn save(
    api: &Api,
    environment: &Environment,
    loaded: &mut Loaded,
    key: &[u8],
) -> Result<bool, ApiError> {
    let encoding = base64::engine::general_purpose::STANDARD;
    let (state, digest) = pack(&loaded.state)?;
    let name = name(environment);
    let data = json!({"state": state, "digest": encoding.encode(digest), "key": encoding.encode(key)});
    let object = secret(environment, &name, "state", &data);
    let written = match &loaded.version {
        None => api.create(&secrets().collection(&environment.namespace), &object).await,
        Some(version) => {
            let patch = json!({"metadata": {"resourceVersion": version}, "data": data});
            api.merge(&secrets().object(&environment.namespace, &name), &patch)
                .await
        }
    };
    let written = match written {
        Ok(written) => written,
        // Ours may have arrived, and its answer not.
        Err(error) if error.is_conflict() => {
            let there = load(api, environment).await?;
            let ours = there.state == loaded.state;
            loaded.version = if ours { there.version } else { loaded.version.take() };
            return Ok(ours);
        }
        // Deleted since it was read.
        Err(error) if error.is_missing() && loaded.version.is_some() => return Ok(false),
        Err(error) => return Err(error),
    };
    loaded.version = version(&written);
    loaded.key = Some(key.to_vec());
    Ok(true)
}

/// Everything that an environment says of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    pub loaded: Loaded,
    /// The releases that it remembers, newest first.
    pub releases: Vec<ReleaseRecord>,
    /// The names of the Secrets with releases that cannot be read.
    pub odd: Vec<String>,
}

/// Reads everything that an environment says of itself, with one request.
pub(super) async fn read(api: &Api, environment: &Environment) -> Result<Records, ApiError> {
    let mut selector = String::from("towpath.dev/record");
    for (label, value) in labels(environment) {
        selector = format!("{selector},{label}={value}");
    }
    let (secrets, _) = api
        .list(&secrets().collection(&environment.namespace), Some(&selector))
        .await?;
    let mut records = Records::default();
    let state_name = name(environment);
    for secret in secrets {
        let name = secret.pointer("/metadata/name").and_then(Value::as_str);
        let name = name.unwrap_or_default();
        if name == state_name {
            records.loaded = Loaded::of(&secret);
            continue;
        }
        match unpack::<ReleaseRecord>(&secret, "release") {
            Some(release) => records.releases.push(release),
            None => records.odd.push(name.to_string()),
        }
    }
    let newest_first = |release: &ReleaseRecord| std::cmp::Reverse(release.number);
    records.releases.sort_by_key(newest_first);
    Ok(records)
}

/// What became of writing a release down.
pub(super) enum Begun {
    /// It is written down.
    Written,
    /// There is this one of its number.
    Taken(Box<Option<ReleaseRecord>>),
}

/// Writes a new release down.
pub(super) async fn begin(api: &Api, environment: &Environment, release: &ReleaseRecord) -> Result<Begun, ApiError> {
    let name = release_name(environment, release.number);
    let object = release_secret(environment, &name, release)?;
    match api.create(&secrets().collection(&environment.namespace), &object).await {
        Ok(_) => Ok(Begun::Written),
        Err(error) if error.is_conflict() => {
            let there = api.find(&secrets().object(&environment.namespace, &name)).await?;
            let there = there.and_then(|secret| unpack::<ReleaseRecord>(&secret, "release"));
            if there.as_ref().is_some_and(|there| there.id == release.id) {
                return Ok(Begun::Written);
            }
            Ok(Begun::Taken(Box::new(there)))
        }
        Err(error) => Err(error),
    }
}

/// Writes down how a release ended.
pub(super) async fn end(api: &Api, environment: &Environment, release: &ReleaseRecord) -> Result<(), ApiError> {
    let name = release_name(environment, release.number);
    let object = release_secret(environment, &name, release)?;
    let patch = json!({"data": object["data"]});
    let path = secrets().object(&environment.namespace, &name);
    match api.merge(&path, &patch).await {
        // Somebody deleted it meanwhile.
        Err(error) if error.is_missing() => {
            api.create(&secrets().collection(&environment.namespace), &object)
                .await?;
        }
        other => drop(other?),
    }
    Ok(())
}

/// Forgets the oldest releases, when there are more than are kept after `newest`: as many that succeeded, so that there is
/// something to go back to however often it failed since, and as many that did not.
pub(super) async fn trim(api: &Api, environment: &Environment, newest: &ReleaseRecord) -> Result<(), ApiError> {
    // As many as there are numbers, at most.
    if usize::try_from(newest.number).is_ok_and(|most| most <= KEPT) {
        return Ok(());
    }
    let records = read(api, environment).await?;
    let is_good = |release: &&ReleaseRecord| release.state == Outcome::Succeeded.as_str();
    let (good, other): (Vec<_>, Vec<_>) = records.releases.iter().partition(is_good);
    for old in good.into_iter().skip(KEPT).chain(other.into_iter().skip(KEPT)) {
        let name = release_name(environment, old.number);
        api.delete(&secrets().object(&environment.namespace, &name), None)
            .await?;
    }
    Ok(())
}

fn release_name(environment: &Environment, number: i64) -> String {
    format!("{}.{number}", name(environment))
}

/// How many bytes `objects` take in a record, when that is more than a record may have.
pub(super) fn too_large(objects: &[Object]) -> Option<usize> {
    let values: Vec<&Value> = objects.iter().map(|object| &object.value).collect();
    let bytes = pack(&values).ok()?.0.len();
    // Base64 takes four for three.
    (bytes > MOST_PACKED).then_some(bytes / 4 * 3)
}

fn release_secret(environment: &Environment, name: &str, release: &ReleaseRecord) -> Result<Value, ApiError> {
    let (mut packed, mut digest) = pack(release)?;
    if packed.len() > MOST_PACKED {
        // What a plan shows is not needed to go back to it.
        let mut release = release.clone();
        if let Some(plan) = release.plan.as_object_mut() {
            plan.insert("changes".into(), json!([]));
        }
        (packed, digest) = pack(&release)?;
    }
    let encoding = base64::engine::general_purpose::STANDARD;
    let data = json!({"release": packed, "digest": encoding.encode(digest)});
    Ok(secret(environment, name, "release", &data))
}

/// Removes everything that the environment says of its releases.
pub(super) async fn forget(api: &Api, environment: &Environment) -> Result<(), ApiError> {
    let selector: Vec<String> = labels(environment)
        .into_iter()
        .map(|(label, value)| format!("{label}={value}"))
        .collect();
    let selector = format!("towpath.dev/record,{}", selector.join(","));
    let collection = secrets().collection(&environment.namespace);
    let (secrets, _) = api.list(&collection, Some(&selector)).await?;
    for secret in secrets {
        let name = secret
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        api.delete(&format!("{collection}/{}", escape(name)), None).await?;
    }
    Ok(())
}
