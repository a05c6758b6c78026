//! Towpath's orb registry, and the places that a configuration's orbs are looked for.
//!
//! A release never changes once it is published; a development version may be published again, and is forgotten
//! [`DEVELOPMENT_DAYS`] days after. What an orb itself imports is resolved when it is published, and stays so.
//!
//! Source: <https://circleci.com/docs/orbs/author/orb-concepts/#orb-versions-development-vs-production-vs-inline>

use crate::{
    Control, ControlError,
    conductor::{store_error, to_json},
    records::collection,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tokio::runtime::Handle;
use towpath_config::{CompileOptions, OrbError, OrbSource, PipelineValues};
use towpath_orbs::{
    Found, Lock, Lookup, LookupError, OrbName, OrbReference, OrbVersion, Origin, PublicRegistry, Selector, Sources,
    UrlOrbs, Vendored,
};
use towpath_store::{Batch, Store};
use towpath_yaml::{Diagnostic, SourceFile};
use uuid::Uuid;

/// How long a development version is found.
const DEVELOPMENT_DAYS: i64 = 90;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Somebody who showed no token: private orbs are not there.
    Anyone,
    /// Somebody who may sign in.
    Owner,
}

/// What a text compiles to.
#[derive(Debug, Clone, Default)]
pub struct CheckedText {
    /// The compiled text; `None` when it does not compile.
    pub output: Option<String>,
    /// What is wrong, one line each with its place.
    pub errors: Vec<String>,
}

/// A namespace of orbs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NamespaceView {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
}

/// An orb with its versions.
#[derive(Debug, Clone)]
pub struct OrbView {
    /// Its id.
    pub id: Uuid,
    /// The id of its namespace.
    pub namespace: Uuid,
    /// Its name.
    pub name: OrbName,
    /// Whether only its own organisation is meant to see it. Here everybody who may sign in is one organisation.
    pub is_private: bool,
    /// Whether lists show it.
    pub is_listed: bool,
    /// Since when it exists.
    pub created_at: Timestamp,
    /// Its versions, the newest release first, development versions last.
    pub versions: Vec<OrbVersionView>,
}

/// A version of an orb.
#[derive(Debug, Clone)]
pub struct OrbVersionView {
    /// Its id.
    pub id: Uuid,
    /// The orb's id.
    pub orb: Uuid,
    /// The orb's name.
    pub name: OrbName,
    /// Which version.
    pub version: OrbVersion,
    /// The source as it was published.
    pub source: String,
    /// When it was published.
    pub created_at: Timestamp,
}

/// Which number of a version is counted up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// The first.
    Major,
    /// The second.
    Minor,
    /// The third.
    Patch,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct OrbRecord {
    id: Uuid,
    is_private: bool,
    is_listed: bool,
    created_at: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct VersionRecord {
    id: Uuid,
    source: String,
    /// The source with exact versions in its own imports.
    frozen: String,
    created_at: Timestamp,
}

impl VersionRecord {
    fn is_gone(&self, version: &OrbVersion) -> bool {
        let age = Timestamp::now().duration_since(self.created_at);
        version.is_development() && age > SignedDuration::from_hours(24 * DEVELOPMENT_DAYS)
    }
}

/// Towpath's registry, as a place to look in. Blocks: only for threads that may.
struct OwnRegistry {
    store: Store,
    audience: Audience,
    runtime: Handle,
}

impl Lookup for OwnRegistry {
    fn find(&self, reference: &OrbReference) -> Result<Option<Found>, String> {
        let versions = async {
            let orb: Option<OrbRecord> = self
                .store
                .document(collection::ORBS, &reference.name.to_string())
                .await
                .map_err(store_error)?;
            match orb.filter(|orb| !orb.is_private || self.audience == Audience::Owner) {
                Some(_) => versions_of(&self.store, &reference.name).await,
                None => Ok(BTreeMap::new()),
            }
        };
        let versions = self.runtime.block_on(versions).map_err(|error| error.chain())?;
        let picked = reference.selector.pick(versions.keys());
        Ok(picked.map(|version| Found {
            version: version.clone(),
            text: versions[version].frozen.clone(),
        }))
    }
}

/// CircleCI's registry, with the releases that it gave once: those never change. Blocks, too.
struct OthersRegistry {
    store: Store,
    runtime: Handle,
    client: PublicRegistry,
}

impl Lookup for OthersRegistry {
    fn find(&self, reference: &OrbReference) -> Result<Option<Found>, String> {
        self.runtime.block_on(async {
            if let Selector::Exactly(version @ OrbVersion::Release(..)) = &reference.selector {
                let key = reference.to_string();
                let kept: Option<String> = self
                    .store
                    .document(collection::FETCHED_ORBS, &key)
                    .await
                    .map_err(|error| store_error(error).chain())?;
                if let Some(text) = kept {
                    return Ok(Some(Found {
                        version: version.clone(),
                        text,
                    }));
                }
            }
            let found = self.client.find(reference).await?;
            if let Some(found) = found.as_ref().filter(|found| !found.version.is_development()) {
                let mut batch = Batch::default();
                let key = format!("{}@{}", reference.name, found.version);
                batch.document(collection::FETCHED_ORBS, key, Some(found.text.clone().into()));
                self.store
                    .commit(batch)
                    .await
                    .map_err(|error| store_error(error).chain())?;
            }
            Ok(found)
        })
    }
}

/// Everything that a configuration's orbs may come from.
pub(crate) struct OrbPlaces {
    vendored: Vendored,
    own: OwnRegistry,
    others: Option<OthersRegistry>,
    urls: UrlOrbs,
    lock: Lock,
}

impl OrbPlaces {
    /// The places in their order.
    pub(crate) fn sources(&self) -> Sources<'_> {
        let sources = Sources::new(self.lock.clone())
            .with(Origin::Vendored, &self.vendored)
            .with(Origin::Towpath, &self.own)
            .with_urls(&self.urls);
        match &self.others {
            Some(others) => sources.with(Origin::Circleci, others),
            None => sources,
        }
    }
}

/// The same for the compiler.
pub(crate) fn resolver(sources: &Sources<'_>) -> impl Fn(&str) -> Result<OrbSource, OrbError> {
    |reference| match sources.resolve(reference) {
        Ok((resolved, text)) => Ok(OrbSource {
            resolved,
            text: text.into(),
        }),
        Err(LookupError::Unknown { reference, .. }) => Err(OrbError::Unknown(reference)),
        Err(LookupError::Unavailable(reason) | LookupError::Refused(reason)) => Err(OrbError::Unavailable {
            reference: reference.to_string(),
            reason,
        }),
    }
}

fn key(name: &OrbName, version: &OrbVersion) -> String {
    format!("{name}@{version}")
}

async fn versions_of(store: &Store, name: &OrbName) -> Result<BTreeMap<OrbVersion, VersionRecord>, ControlError> {
    let prefix = format!("{name}@");
    let all: Vec<(String, VersionRecord)> = store
        .documents(collection::ORB_VERSIONS, &prefix)
        .await
        .map_err(store_error)?;
    let read = |(key, record): (String, VersionRecord)| {
        let version: OrbVersion = key.strip_prefix(&prefix)?.parse().ok()?;
        (!record.is_gone(&version)).then_some((version, record))
    };
    Ok(all.into_iter().filter_map(read).collect())
}

fn lines(diagnostics: &[Diagnostic]) -> Vec<String> {
    diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.is_error())
        .map(|diagnostic| match &diagnostic.primary {
            Some(label) => format!("{} ({})", diagnostic.full_message(), label.span.place()),
            None => diagnostic.full_message(),
        })
        .collect()
}

async fn checked(
    text: String,
    parameters: serde_json::Map<String, serde_json::Value>,
    given: serde_json::Map<String, serde_json::Value>,
    places: OrbPlaces,
) -> Result<CheckedText, ControlError> {
    let compile = move || {
        let sources = places.sources();
        let orbs = resolver(&sources);
        let mut values = PipelineValues::local();
        let mut parameters: indexmap::IndexMap<String, serde_json::Value> = parameters.into_iter().collect();
        for (name, value) in given {
            let name = name.strip_prefix("pipeline.").unwrap_or(&name);
            match name.strip_prefix("parameters.") {
                Some(parameter) => drop(parameters.entry(parameter.to_string()).or_insert(value)),
                None => values.set(name, value),
            }
        }
        let options = CompileOptions {
            values,
            parameters,
            orbs: &orbs,
            ..CompileOptions::default()
        };
        let (processed, diagnostics) = towpath_config::process(&SourceFile::new("config.yml", text), &options);
        let errors = lines(&diagnostics);
        CheckedText {
            output: processed.filter(|_| errors.is_empty()).map(|(_, text)| text),
            errors,
        }
    };
    tokio::task::spawn_blocking(compile)
        .await
        .map_err(|error| ControlError::internal("compiling a configuration ended early").caused_by(error))
}

impl Control {
    fn orb_places(&self, vendored: Vendored, lock: Lock, audience: Audience) -> Result<OrbPlaces, ControlError> {
        let others = match &self.settings.orb_registry {
            None => None,
            Some(base) => Some(OthersRegistry {
                store: self.store.clone(),
                runtime: Handle::current(),
                client: PublicRegistry::new(base)
                    .map_err(|error| ControlError::internal("failed to set up TLS").caused_by(error))?,
            }),
        };
        let urls = UrlOrbs::new(self.settings.orb_url_prefixes.clone(), Handle::current());
        Ok(OrbPlaces {
            vendored,
            own: OwnRegistry {
                store: self.store.clone(),
                audience,
                runtime: Handle::current(),
            },
            others,
            urls,
            lock,
        })
    }

    /// Compiles a configuration's text for somebody who asks what it comes to.
    ///
    /// `values` are pipeline values by name, with or without `pipeline.` in front; those that are missing are the
    /// stand-ins of CircleCI's command line.
    ///
    /// # Errors
    /// When it could not be tried. A text that does not compile is an answer.
    pub async fn check_config(
        &self,
        text: String,
        parameters: serde_json::Map<String, serde_json::Value>,
        values: serde_json::Map<String, serde_json::Value>,
        audience: Audience,
    ) -> Result<CheckedText, ControlError> {
        let places = self.orb_places(Vendored::default(), Lock::default(), audience)?;
        checked(text, parameters, values, places).await
    }

    /// Checks the source of an orb.
    ///
    /// # Errors
    /// When it could not be tried. A source that is wrong is an answer.
    pub async fn check_orb(&self, source: String, audience: Audience) -> Result<CheckedText, ControlError> {
        let frozen = match self.freeze(source.clone(), audience).await {
            Ok(frozen) => frozen,
            Err(error) => {
                return Ok(CheckedText {
                    output: None,
                    errors: vec![error.to_string()],
                });
            }
        };
        let places = self.orb_places(Vendored::default(), Lock::default(), audience)?;
        let check = move || {
            let sources = places.sources();
            let orbs = resolver(&sources);
            let options = CompileOptions {
                orbs: &orbs,
                ..CompileOptions::default()
            };
            let errors = lines(&towpath_config::check_orb(
                &SourceFile::new("orb.yml", source),
                &options,
            ));
            CheckedText {
                output: errors.is_empty().then_some(frozen),
                errors,
            }
        };
        tokio::task::spawn_blocking(check)
            .await
            .map_err(|error| ControlError::internal("checking an orb ended early").caused_by(error))
    }

    /// An orb's source with exact versions in its own imports.
    async fn freeze(&self, source: String, audience: Audience) -> Result<String, ControlError> {
        let places = self.orb_places(Vendored::default(), Lock::default(), audience)?;
        let freeze = move || {
            let sources = places.sources();
            let file = SourceFile::new("orb.yml", source.as_str());
            let (documents, diagnostics) = towpath_yaml::parse(&file, &towpath_yaml::ParseOptions::default());
            if let Some(first) = lines(&diagnostics).first() {
                return Err(ControlError::invalid(first));
            }
            let imports = documents
                .first()
                .and_then(|node| node.get("orbs"))
                .and_then(|node| node.as_mapping());
            let mut frozen = source.clone();
            // From the end, so that the places before stay where they are.
            let mut scalars: Vec<_> = imports
                .into_iter()
                .flat_map(|imports| imports.iter())
                .filter_map(|entry| Some((entry.value.span().range(), entry.value.as_scalar()?.text.to_string())))
                .collect();
            scalars.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
            for (range, reference) in scalars {
                let (resolved, _) = sources
                    .resolve(&reference)
                    .map_err(|error| ControlError::invalid(error.to_string()))?;
                frozen.replace_range(range, &resolved);
            }
            Ok(frozen)
        };
        tokio::task::spawn_blocking(freeze)
            .await
            .map_err(|error| ControlError::internal("reading an orb ended early").caused_by(error))?
    }

    /// All namespaces, by name.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn orb_namespaces(&self) -> Result<Vec<NamespaceView>, ControlError> {
        let all = self.store.documents(collection::ORB_NAMESPACES, "").await;
        Ok(all.map_err(store_error)?.into_iter().map(|(_, view)| view).collect())
    }

    /// Makes a namespace; one that is there already stays as it is.
    ///
    /// # Errors
    /// `Invalid` for a name that is none.
    pub async fn create_orb_namespace(&self, name: &str) -> Result<NamespaceView, ControlError> {
        // A namespace is named as the first half of an orb's name.
        format!("{name}/orb").parse::<OrbName>().map_err(|_| {
            ControlError::invalid(format!(
                "`{name}` is not a namespace's name: use letters, digits, `-` and `_`"
            ))
        })?;
        if let Some(view) = self.document(collection::ORB_NAMESPACES, name).await? {
            return Ok(view);
        }
        let view = NamespaceView {
            id: Uuid::now_v7(),
            name: name.to_string(),
        };
        let mut batch = Batch::default();
        batch.document(collection::ORB_NAMESPACES, name, Some(to_json(&view)?));
        self.store.commit(batch).await.map_err(store_error)?;
        Ok(view)
    }

    /// Makes an orb without versions, in a namespace that is there.
    ///
    /// # Errors
    /// `NotFound` without the namespace, `Conflict` when the orb is there already.
    pub async fn create_orb(&self, name: &OrbName, is_private: bool) -> Result<OrbView, ControlError> {
        self.namespace_of(name).await?;
        if self.orb(name).await?.is_some() {
            return Err(ControlError::conflict(format!("orb `{name}` is there already")));
        }
        let record = OrbRecord {
            id: Uuid::now_v7(),
            is_private,
            is_listed: true,
            created_at: Timestamp::now(),
        };
        self.put_orb(name, &record).await?;
        self.need_orb(name).await
    }

    async fn namespace_of(&self, name: &OrbName) -> Result<NamespaceView, ControlError> {
        let view = self.document(collection::ORB_NAMESPACES, &name.namespace).await?;
        view.ok_or_else(|| ControlError::not_found(format!("there is no namespace `{}`", name.namespace)))
    }

    async fn put_orb(&self, name: &OrbName, record: &OrbRecord) -> Result<(), ControlError> {
        let mut batch = Batch::default();
        batch.document(collection::ORBS, name.to_string(), Some(to_json(record)?));
        self.store.commit(batch).await.map_err(store_error)
    }

    /// The orbs, by name: of one namespace, or all.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn orbs(&self, namespace: Option<&str>) -> Result<Vec<OrbView>, ControlError> {
        let prefix = namespace.map(|name| format!("{name}/")).unwrap_or_default();
        let records: Vec<(String, OrbRecord)> = self
            .store
            .documents(collection::ORBS, &prefix)
            .await
            .map_err(store_error)?;
        let mut orbs = Vec::new();
        for (name, record) in records {
            if let Ok(name) = name.parse::<OrbName>() {
                orbs.push(self.orb_view(name, record).await?);
            }
        }
        Ok(orbs)
    }

    async fn orb_view(&self, name: OrbName, record: OrbRecord) -> Result<OrbView, ControlError> {
        let versions = versions_of(&self.store, &name).await?;
        Ok(OrbView {
            id: record.id,
            namespace: self.namespace_of(&name).await?.id,
            is_private: record.is_private,
            is_listed: record.is_listed,
            created_at: record.created_at,
            versions: versions
                .into_iter()
                .rev()
                .map(|(version, version_record)| OrbVersionView {
                    id: version_record.id,
                    orb: record.id,
                    name: name.clone(),
                    version,
                    source: version_record.source,
                    created_at: version_record.created_at,
                })
                .collect(),
            name,
        })
    }

    /// An orb.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn orb(&self, name: &OrbName) -> Result<Option<OrbView>, ControlError> {
        match self.document(collection::ORBS, &name.to_string()).await? {
            Some(record) => Ok(Some(self.orb_view(name.clone(), record).await?)),
            None => Ok(None),
        }
    }

    async fn need_orb(&self, name: &OrbName) -> Result<OrbView, ControlError> {
        let orb = self.orb(name).await?;
        orb.ok_or_else(|| ControlError::not_found(format!("there is no orb `{name}`: make it first")))
    }

    /// Shows an orb in lists, or does not.
    ///
    /// # Errors
    /// `NotFound` without the orb.
    pub async fn list_orb(&self, name: &OrbName, is_listed: bool) -> Result<(), ControlError> {
        let record: Option<OrbRecord> = self.document(collection::ORBS, &name.to_string()).await?;
        let mut record = record.ok_or_else(|| ControlError::not_found(format!("there is no orb `{name}`")))?;
        record.is_listed = is_listed;
        self.put_orb(name, &record).await
    }

    /// The version that a reference selects.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn orb_version(&self, reference: &OrbReference) -> Result<Option<OrbVersionView>, ControlError> {
        let Some(orb) = self.orb(&reference.name).await? else {
            return Ok(None);
        };
        let picked = reference
            .selector
            .pick(orb.versions.iter().map(|view| &view.version))
            .cloned();
        Ok(orb
            .versions
            .into_iter()
            .find(|view| Some(&view.version) == picked.as_ref()))
    }

    /// Publishes a version of an orb that is there.
    ///
    /// # Errors
    /// `NotFound` without the orb, `Invalid` when the source is wrong, `Conflict` for a release that was published already.
    pub async fn publish_orb(
        &self,
        name: &OrbName,
        version: OrbVersion,
        source: String,
    ) -> Result<OrbVersionView, ControlError> {
        let orb = self.need_orb(name).await?;
        let checked = self.check_orb(source.clone(), Audience::Owner).await?;
        if !checked.errors.is_empty() {
            return Err(ControlError::invalid(checked.errors.join("\n")));
        }
        let frozen = checked.output.unwrap_or_else(|| source.clone());
        let record = VersionRecord {
            id: Uuid::now_v7(),
            source,
            frozen,
            created_at: Timestamp::now(),
        };
        // Two publishers of one release at once: one of them is told.
        let _one = self.publishing.lock().await;
        if !version.is_development() && versions_of(&self.store, name).await?.contains_key(&version) {
            return Err(ControlError::conflict(format!(
                "orb `{name}` has a version {version} already, and a release never changes: publish the next one"
            )));
        }
        let mut batch = Batch::default();
        batch.document(collection::ORB_VERSIONS, key(name, &version), Some(to_json(&record)?));
        self.store.commit(batch).await.map_err(store_error)?;
        Ok(OrbVersionView {
            id: record.id,
            orb: orb.id,
            name: name.clone(),
            version,
            source: record.source,
            created_at: record.created_at,
        })
    }

    /// The release that comes after the newest one.
    ///
    /// # Errors
    /// `NotFound` without the orb.
    pub async fn next_orb_version(&self, name: &OrbName, segment: Segment) -> Result<OrbVersion, ControlError> {
        let orb = self.need_orb(name).await?;
        let newest = Selector::Volatile
            .pick(orb.versions.iter().map(|view| &view.version))
            .cloned();
        let (major, minor, patch) = match newest {
            Some(OrbVersion::Release(major, minor, patch)) => (major, minor, patch),
            _ => (0, 0, 0),
        };
        Ok(match segment {
            Segment::Major => OrbVersion::Release(major + 1, 0, 0),
            Segment::Minor => OrbVersion::Release(major, minor + 1, 0),
            Segment::Patch => OrbVersion::Release(major, minor, patch + 1),
        })
    }

    /// Publishes a development version's source as the next release.
    ///
    /// # Errors
    /// As [`Control::publish_orb`].
    pub async fn promote_orb(&self, from: &OrbVersionView, segment: Segment) -> Result<OrbVersionView, ControlError> {
        if !from.version.is_development() {
            return Err(ControlError::invalid(format!("{} is a release already", from.version)));
        }
        let next = self.next_orb_version(&from.name, segment).await?;
        self.publish_orb(&from.name, next, from.source.clone()).await
    }

    /// The files of a commit that say where its orbs come from.
    pub(crate) async fn orb_places_of(
        &self,
        project: &towpath_forge::ProjectName,
        commit: &towpath_types::CommitId,
    ) -> Result<OrbPlaces, ControlError> {
        let files = self
            .forge
            .files(project, commit, towpath_orbs::VENDORED_FOLDER)
            .await
            .map_err(crate::push::forge_error)?;
        let files: Vec<(String, String)> = files
            .into_iter()
            .map(|file| (file.path, String::from_utf8_lossy(&file.bytes).into_owned()))
            .collect();
        let vendored = Vendored::of_files(files.iter().map(|(path, text)| {
            let below = path.strip_prefix(towpath_orbs::VENDORED_FOLDER).unwrap_or(path);
            (below.trim_start_matches('/'), text.clone())
        }));
        let lock = match self.optional_file(project, commit, towpath_orbs::LOCK_FILE).await? {
            Some(text) => {
                Lock::parse(&text).map_err(|error| ControlError::invalid(error.to_string()).caused_by(error))?
            }
            None => Lock::default(),
        };
        self.orb_places(vendored, lock, Audience::Owner)
    }
}
