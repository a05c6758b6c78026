//! The records that an environment keeps of itself in the cluster, so that every laptop and server agrees on what runs there.
//!
//! Two kinds of Secret in the environment's namespace. Secrets, because a least-privileged account can write them anyway, and
//! because manifests can contain values:
//! - `towpath.<project>.<environment>`: the state: what runs, what was applied, who is deploying;
//! - `towpath.<project>.<environment>.<number>`: one release. The last [`KEPT`] successful ones and the last [`KEPT`] others
//!   are kept.
//!
//! [`State`], [`Lock`] and [`ReleaseRecord`] are wire forms: JSON in an envelope with a version, compressed. What a newer Towpath
//! wrote is an error, so that this one neither deploys over it nor replaces it. Anything else that cannot be read, a record
//! without a version too, is not as Towpath wrote it: it is reported and written anew.

use super::{error::ClusterError, inventory::InventoryEntry, labels::owner_labels, process::Process};
use crate::{
    target::{Environment, Hold, ReleaseRecord},
    wire::{self, WireError},
};
use base64::Engine as _;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use towpath_kube::{Client, Resource, Select, text_at};
use towpath_manifest::{Kind, Object};
use towpath_types::{Digest, ReleaseId, percent_encoded};

/// The message of a release whose process died.
pub(super) const DIED: &str = "the process that carried it out died before it ended";
/// How long a deployment may give no sign of life before it no longer counts as running: several renewals, plus the difference
/// between clocks.
const SILENT: SignedDuration = SignedDuration::from_secs(120);
/// How many successful and how many other releases an environment keeps.
const KEPT: usize = 10;
/// The maximum size of a record in base64. All data of a Secret together may have 1 MiB, decoded.
///
/// Source: <https://kubernetes.io/docs/concepts/configuration/secret/#restriction-data-size>
const MAX_ENCODED: usize = 1_300_000;
/// The maximum size of an unpacked record.
const MAX_UNPACKED: usize = 64 << 20;

/// The lock of a running deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lock {
    /// Identifies one deployment of one process.
    pub holder: String,
    /// Who deploys.
    pub by: String,
    /// What is deployed, a sentence.
    pub what: String,
    pub since: Timestamp,
    /// When the holder last gave a sign of life, by its own clock.
    pub renewed: Timestamp,
    /// How many signs of life the holder has given.
    pub renewals: u64,
    /// The release that is carried out.
    pub release: ReleaseId,
    /// The process that holds the lock.
    #[serde(default)]
    pub process: Option<Process>,
}

/// The state of an environment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// The release that runs completely; `None` during a deployment and after one that failed.
    pub current: Option<ReleaseId>,
    /// The release that was started last.
    pub attempted: Option<ReleaseId>,
    /// The release that succeeded last.
    #[serde(default)]
    pub succeeded: Option<ReleaseId>,
    /// The number of that release.
    #[serde(default)]
    pub succeeded_number: i64,
    /// The inventory: every object that was applied and not pruned since.
    pub objects: Vec<InventoryEntry>,
    pub lock: Option<Lock>,
    /// The hold of a person who keeps others from deploying.
    #[serde(default)]
    pub hold: Option<Hold>,
}

impl State {
    /// The lock, unless its process has ended, or has been silent for so long that it must have ended.
    pub(super) fn live_lock(&self) -> Option<&Lock> {
        let is_gone = |lock: &Lock| lock.process.as_ref().is_some_and(Process::is_gone);
        let is_silent = |lock: &Lock| Timestamp::now().duration_since(lock.renewed) > SILENT;
        self.lock.as_ref().filter(|lock| !is_gone(lock) && !is_silent(lock))
    }
}

/// A state, and the Secret that it was read from.
#[derive(Debug, Clone, Default)]
pub(super) struct StoredState {
    pub state: State,
    /// The `resourceVersion` of the Secret; `None` if there is none yet.
    pub version: Option<String>,
    /// The key for the environment's fingerprints.
    pub key: Option<Vec<u8>>,
    /// Whether the Secret exists, but does not contain what Towpath wrote.
    pub is_corrupt: bool,
}

fn secrets() -> Resource {
    Resource::of(&Kind::SECRET)
}

/// The name of the Secret with the state: `towpath.claims.dev`. Names of objects have no `_`, so it becomes `--`.
pub(super) fn state_name(environment: &Environment) -> String {
    let part = |text: &str| text.replace('_', "--");
    format!(
        "towpath.{}.{}",
        part(environment.id.project()),
        part(environment.id.environment())
    )
}

/// A value as compressed JSON in base64, and the digest of the JSON.
fn pack(value: &impl Serialize) -> Result<(String, String), ClusterError> {
    let failed = |error: &dyn std::fmt::Display| ClusterError::Record(error.to_string());
    let text = serde_json::to_vec(value).map_err(|error| failed(&error))?;
    let packed = zstd::encode_all(text.as_slice(), 3).map_err(|error| failed(&error))?;
    let digest = Digest::of(&text).to_string();
    Ok((base64::engine::general_purpose::STANDARD.encode(packed), digest))
}

/// The decoded value of one key of a Secret.
fn data(secret: &Value, key: &str) -> Option<Vec<u8>> {
    let text = secret.get("data")?.get(key)?.as_str()?;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// The text that [`pack`] packed; `None` if the Secret does not contain it unchanged.
fn unpack(secret: &Value, key: &str) -> Option<Vec<u8>> {
    let packed = data(secret, key)?;
    let mut text = Vec::new();
    let reader = zstd::Decoder::new(packed.as_slice()).ok()?;
    std::io::Read::read_to_end(&mut std::io::Read::take(reader, MAX_UNPACKED as u64), &mut text).ok()?;
    let digest = data(secret, "digest")?;
    (Digest::of(&text).to_string().into_bytes() == digest).then_some(text)
}

/// The record in a Secret; `None` if it is not as Towpath wrote it.
///
/// # Errors
/// When a newer Towpath wrote it.
fn recorded<T: DeserializeOwned>(secret: &Value, key: &str) -> Result<Option<T>, ClusterError> {
    let Some(text) = unpack(secret, key) else {
        return Ok(None);
    };
    match wire::read(&text) {
        Ok(record) => Ok(Some(record)),
        Err(source @ WireError::Newer { .. }) => Err(ClusterError::Newer {
            secret: text_at(secret, "/metadata/name"),
            source,
        }),
        Err(WireError::Unversioned | WireError::Form(_)) => Ok(None),
    }
}

fn version(secret: &Value) -> Option<String> {
    Some(text_at(secret, "/metadata/resourceVersion")).filter(|version| !version.is_empty())
}

fn secret(environment: &Environment, name: &str, record: &str, data: &Value) -> Value {
    let mut labels = owner_labels(environment);
    labels.insert("towpath.dev/record".to_string(), record.to_string());
    labels.insert("app.kubernetes.io/managed-by".to_string(), "towpath".to_string());
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": format!("towpath.dev/{record}"),
        "metadata": {"name": name, "namespace": environment.namespace, "labels": labels},
        "data": data,
    })
}

impl StoredState {
    fn of(secret: &Value) -> Result<Self, ClusterError> {
        let state = recorded(secret, "state")?;
        Ok(Self {
            is_corrupt: state.is_none(),
            // Do not trust an edited state: the deployment finds out anew what it needs.
            state: state.unwrap_or_default(),
            version: version(secret),
            key: data(secret, "key"),
        })
    }
}

/// Reads the state of an environment; an empty one if nothing was ever deployed.
pub(super) async fn load(client: &Client, environment: &Environment) -> Result<StoredState, ClusterError> {
    let path = secrets().object(&environment.namespace, &state_name(environment));
    let secret = client.find(&path).await?;
    match &secret {
        Some(secret) => StoredState::of(secret),
        None => Ok(StoredState::default()),
    }
}

/// Replaces the state by one that was read from it and changed. Returns `false` if somebody else has written since then.
pub(super) async fn save(
    client: &Client,
    environment: &Environment,
    stored: &mut StoredState,
    key: &[u8],
) -> Result<bool, ClusterError> {
    let encoding = base64::engine::general_purpose::STANDARD;
    let (state, digest) = pack(&wire::versioned(&stored.state))?;
    let name = state_name(environment);
    let data = json!({"state": state, "digest": encoding.encode(digest), "key": encoding.encode(key)});
    let object = secret(environment, &name, "state", &data);
    let written = match &stored.version {
        None => {
            client
                .create(&secrets().collection(&environment.namespace), &object)
                .await
        }
        Some(version) => {
            let patch = json!({"metadata": {"resourceVersion": version}, "data": data});
            client
                .merge(&secrets().object(&environment.namespace, &name), &patch)
                .await
        }
    };
    let written = match written {
        Ok(written) => written,
        // An earlier attempt may have arrived although its answer was lost.
        Err(error) if error.is_conflict() => {
            let current = load(client, environment).await?;
            let is_ours = current.state == stored.state;
            if is_ours {
                stored.version = current.version;
            }
            return Ok(is_ours);
        }
        // Somebody has deleted it.
        Err(error) if error.is_missing() && stored.version.is_some() => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    stored.version = version(&written);
    stored.key = Some(key.to_vec());
    Ok(true)
}

/// All records of an environment.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    pub stored: StoredState,
    /// The readable releases, newest first.
    pub releases: Vec<ReleaseRecord>,
    /// The names of Secrets with a release that cannot be read.
    pub corrupt: Vec<String>,
}

/// The label selector for all records of an environment.
fn selector(environment: &Environment) -> Select {
    let owner = owner_labels(environment).into_iter();
    let owner: Vec<String> = owner.map(|(label, value)| format!("{label}={value}")).collect();
    Select::Labels(format!("towpath.dev/record,{}", owner.join(",")))
}

/// Reads all records of an environment, with one request.
pub(super) async fn read(client: &Client, environment: &Environment) -> Result<Records, ClusterError> {
    let (secrets, _) = client
        .list(&secrets().collection(&environment.namespace), &selector(environment))
        .await?;
    let mut records = Records::default();
    let state_name = state_name(environment);
    for secret in secrets {
        let name = text_at(&secret, "/metadata/name");
        if name == state_name {
            records.stored = StoredState::of(&secret)?;
            continue;
        }
        match recorded::<ReleaseRecord>(&secret, "release")? {
            Some(release) => records.releases.push(release),
            None => records.corrupt.push(name),
        }
    }
    let newest_first = |release: &ReleaseRecord| std::cmp::Reverse(release.number);
    records.releases.sort_by_key(newest_first);
    Ok(records)
}

/// Whether a new release could be recorded.
pub(super) enum Begun {
    Recorded,
    /// There is another release with this number; `None` if that one cannot be read.
    NumberTaken(Box<Option<ReleaseRecord>>),
}

/// Records a new release.
pub(super) async fn begin(
    client: &Client,
    environment: &Environment,
    release: &ReleaseRecord,
) -> Result<Begun, ClusterError> {
    let name = release_name(environment, release.number);
    let object = release_secret(environment, &name, release)?;
    match client
        .create(&secrets().collection(&environment.namespace), &object)
        .await
    {
        Ok(_) => Ok(Begun::Recorded),
        Err(error) if error.is_conflict() => {
            let other = client.find(&secrets().object(&environment.namespace, &name)).await?;
            let other: Option<ReleaseRecord> = match &other {
                Some(secret) => recorded(secret, "release")?,
                None => None,
            };
            // An earlier attempt may have arrived although its answer was lost.
            if other.as_ref().is_some_and(|other| other.id == release.id) {
                return Ok(Begun::Recorded);
            }
            Ok(Begun::NumberTaken(Box::new(other)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Records how a release ended.
pub(super) async fn end(
    client: &Client,
    environment: &Environment,
    release: &ReleaseRecord,
) -> Result<(), ClusterError> {
    let name = release_name(environment, release.number);
    let object = release_secret(environment, &name, release)?;
    let patch = json!({"data": object["data"]});
    let path = secrets().object(&environment.namespace, &name);
    match client.merge(&path, &patch).await {
        // Somebody has deleted it.
        Err(error) if error.is_missing() => {
            client
                .create(&secrets().collection(&environment.namespace), &object)
                .await?;
        }
        other => drop(other?),
    }
    Ok(())
}

/// Deletes the oldest releases beyond [`KEPT`]. Successful releases are counted separately, so that there is always one to go
/// back to, however many have failed since.
pub(super) async fn trim(
    client: &Client,
    environment: &Environment,
    newest: &ReleaseRecord,
) -> Result<(), ClusterError> {
    // There cannot be more releases than numbers.
    if usize::try_from(newest.number).is_ok_and(|most| most <= KEPT) {
        return Ok(());
    }
    let records = read(client, environment).await?;
    let (good, other): (Vec<_>, Vec<_>) = records.releases.iter().partition(|release| release.has_succeeded());
    for old in good.into_iter().skip(KEPT).chain(other.into_iter().skip(KEPT)) {
        let name = release_name(environment, old.number);
        client
            .delete(&secrets().object(&environment.namespace, &name), None)
            .await?;
    }
    Ok(())
}

/// The objects of the plan that a release carried out, without their places; `None` if its plan cannot be read.
pub(super) fn objects_of(release: &ReleaseRecord) -> Option<Vec<&Value>> {
    let objects = release.plan.get("objects")?.as_array()?;
    objects.iter().map(|object| object.get("value")).collect()
}

fn release_name(environment: &Environment, number: i64) -> String {
    format!("{}.{number}", state_name(environment))
}

/// The size in bytes of a record with `objects`, if that is more than a record may have.
pub(super) fn too_large(objects: &[Object]) -> Option<usize> {
    let values: Vec<&Value> = objects.iter().map(|object| &object.value).collect();
    let bytes = pack(&values).ok()?.0.len();
    // Base64 turns three bytes into four.
    (bytes > MAX_ENCODED).then_some(bytes / 4 * 3)
}

fn release_secret(environment: &Environment, name: &str, release: &ReleaseRecord) -> Result<Value, ClusterError> {
    let (mut packed, mut digest) = pack(&wire::versioned(release))?;
    if packed.len() > MAX_ENCODED {
        // Going back to a release does not need the changes that its plan showed.
        let mut release = release.clone();
        if let Some(plan) = release.plan.as_object_mut() {
            plan.insert("changes".into(), json!([]));
        }
        (packed, digest) = pack(&wire::versioned(&release))?;
    }
    let encoding = base64::engine::general_purpose::STANDARD;
    let data = json!({"release": packed, "digest": encoding.encode(digest)});
    Ok(secret(environment, name, "release", &data))
}

/// Deletes all records of an environment.
pub(super) async fn delete_all(client: &Client, environment: &Environment) -> Result<(), ClusterError> {
    let collection = secrets().collection(&environment.namespace);
    let (secrets, _) = client.list(&collection, &selector(environment)).await?;
    for secret in secrets {
        let name = text_at(&secret, "/metadata/name");
        client
            .delete(&format!("{collection}/{}", percent_encoded(&name)), None)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use towpath_types::{Outcome, RecordedState};

    /// A Secret with this text under this key, as Towpath packs it.
    fn holding(key: &str, text: &Value) -> Value {
        let (packed, digest) = pack(text).unwrap();
        let digest = base64::engine::general_purpose::STANDARD.encode(digest);
        json!({ "metadata": { "name": "towpath.claims.dev" }, "data": { key: packed, "digest": digest } })
    }

    fn state_v1() -> Value {
        json!({
            "version": 1,
            "towpath": "0.1.0",
            "record": {
                "current": null,
                "attempted": "00000000-0000-0000-0000-000000000003",
                "succeeded": "00000000-0000-0000-0000-000000000002",
                "succeeded_number": 2,
                "objects": [{
                    "id": { "group": "apps", "kind": "Deployment", "name": "web" }, "api_version": "apps/v1",
                    "uid": "u", "manifest": "sha256:1", "owned": "sha256:2", "made": true,
                }],
                "lock": {
                    "holder": "h", "by": "ann", "what": "release 3", "since": "2026-01-01T00:00:00Z",
                    "renewed": "2026-01-01T00:01:00Z", "renewals": 2, "release": "00000000-0000-0000-0000-000000000003",
                    "process": { "view": "boot pid:[1]", "pid": 7, "started": 99 },
                },
                "hold": {
                    "by": "bob", "reason": "an incident", "since": "2026-01-01T00:00:00Z", "until": "2026-01-01T01:00:00Z",
                },
            },
        })
    }

    fn release_v1() -> Value {
        json!({
            "version": 1,
            "towpath": "0.1.0",
            "record": {
                "id": "00000000-0000-0000-0000-000000000003",
                "number": 3,
                "state": "timed_out",
                "images": ["127.0.0.1:7070/claims@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"],
                "commit": "0123456789abcdef0123456789abcdef01234567",
                "by": "ann",
                "cause": "towpath deploy dev latest",
                "at": "2026-01-01T00:00:00Z",
                "stopped_at": "2026-01-01T00:05:00Z",
                "message": "a pod never became ready",
                "repeats": 1,
                "repeated_at": "2026-01-02T00:00:00Z",
                "plan": { "version": 1 },
            },
        })
    }

    #[test]
    fn version_1_is_read_for_ever() {
        let stored = StoredState::of(&holding("state", &state_v1())).unwrap();
        assert!(!stored.is_corrupt);
        let (state, lock) = (&stored.state, stored.state.lock.as_ref().unwrap());
        assert_eq!((state.current, state.succeeded_number), (None, 2));
        assert_eq!(state.objects[0].id.name, "web");
        assert_eq!((lock.by.as_str(), lock.renewals), ("ann", 2));
        assert!(lock.process.is_some());
        assert_eq!(state.hold.as_ref().map(|hold| hold.by.as_str()), Some("bob"));
        // What is written is what was read, field by field.
        let written = serde_json::to_value(wire::versioned(state)).unwrap();
        assert_eq!(written["record"], state_v1()["record"]);

        let release: ReleaseRecord = recorded(&holding("release", &release_v1()), "release")
            .unwrap()
            .unwrap();
        assert_eq!(release.state, RecordedState::Ended(Outcome::TimedOut));
        assert_eq!(release.images[0].repository, "claims");
        let written = serde_json::to_value(wire::versioned(&release)).unwrap();
        assert_eq!(written["record"], release_v1()["record"]);
    }

    #[test]
    fn what_a_newer_towpath_wrote_is_an_error_that_names_it() {
        let newer = json!({ "version": 2, "towpath": "7.1.0", "record": { "what": "is new" } });
        let said = |error: ClusterError| towpath_types::with_causes(&error);
        let state = said(StoredState::of(&holding("state", &newer)).unwrap_err());
        let release = said(recorded::<ReleaseRecord>(&holding("release", &newer), "release").unwrap_err());
        for said in [state, release] {
            assert!(
                said.contains("the Secret `towpath.claims.dev`") && said.contains("Towpath 7.1.0 wrote it"),
                "{said}"
            );
        }
    }

    #[test]
    fn a_record_that_is_not_as_towpath_wrote_it_is_reported_and_not_believed() {
        let mut unversioned = state_v1();
        unversioned.as_object_mut().unwrap().remove("version");
        let stored = StoredState::of(&holding("state", &unversioned)).unwrap();
        assert!(stored.is_corrupt && stored.state == State::default(), "{stored:?}");
        for (field, value) in [("state", "exploded"), ("images", "claims"), ("at", "yesterday")] {
            let mut wrong = release_v1();
            wrong["record"][field] = json!(value);
            let read = recorded::<ReleaseRecord>(&holding("release", &wrong), "release").unwrap();
            assert_eq!(read, None, "{field}");
        }
        let mut edited = holding("release", &release_v1());
        edited["data"]["digest"] = json!("bm90aGluZw==");
        assert_eq!(recorded::<ReleaseRecord>(&edited, "release").unwrap(), None);
    }
}
