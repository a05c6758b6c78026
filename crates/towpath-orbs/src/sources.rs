//! The places that Towpath asks for an orb, in order.

use crate::lookup::{Found, Lookup, LookupError, Origin};
use crate::{LOCK_FILE, Lock, Locked, OrbName, OrbReference, OrbVersion, UrlOrbs, is_url};
use futures::future::BoxFuture;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};
use towpath_types::Digest;

/// Where a repository keeps orbs of its own: `<folder>/<namespace>/<orb>@<version>.yml`.
pub const VENDORED_FOLDER: &str = ".circleci/orbs";

/// The orbs of a repository's own folder.
#[derive(Debug, Default, Clone)]
pub struct Vendored(BTreeMap<OrbName, BTreeMap<OrbVersion, String>>);

impl Vendored {
    /// Whether a file below [`VENDORED_FOLDER`] can be an orb, judged by its name.
    #[must_use]
    pub fn may_be(path: &str) -> bool {
        path.ends_with(".yml") || path.ends_with(".yaml")
    }

    /// Takes the orbs from files, whose paths are relative to [`VENDORED_FOLDER`]. Ignores a file whose path names no orb and
    /// version.
    #[must_use]
    pub fn of_files<'a>(files: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let mut all = Self::default();
        for (path, text) in files {
            let stem = path.strip_suffix(".yml").or_else(|| path.strip_suffix(".yaml"));
            let named = stem.and_then(|stem| {
                let (name, version) = stem.split_once('@')?;
                Some((name.parse::<OrbName>().ok()?, version.parse::<OrbVersion>().ok()?))
            });
            if let Some((name, version)) = named {
                all.0.entry(name).or_default().insert(version, text);
            }
        }
        all
    }
}

impl Lookup for Vendored {
    fn find<'a>(&'a self, reference: &'a OrbReference) -> BoxFuture<'a, Result<Option<Found>, String>> {
        let found = self.0.get(&reference.name).and_then(|versions| {
            let version = reference.selector.pick(versions.keys())?;
            Some(Found {
                version: version.clone(),
                text: versions[version].clone(),
            })
        });
        Box::pin(std::future::ready(Ok(found)))
    }
}

/// All the places, in their order, with a lock file.
#[derive(Default)]
pub struct Sources<'a> {
    places: Vec<(Origin, &'a dyn Lookup)>,
    urls: Option<&'a UrlOrbs>,
    lock: Lock,
    used: Mutex<BTreeMap<String, Locked>>,
}

impl<'a> Sources<'a> {
    /// Starts with no places and the lock file `lock`.
    #[must_use]
    pub fn new(lock: Lock) -> Self {
        Self {
            lock,
            ..Self::default()
        }
    }

    /// Adds a place, which is asked after the places before it.
    #[must_use]
    pub fn with(mut self, origin: Origin, place: &'a dyn Lookup) -> Self {
        self.places.push((origin, place));
        self
    }

    /// Allows orbs from URLs.
    #[must_use]
    pub fn with_urls(mut self, urls: &'a UrlOrbs) -> Self {
        self.urls = Some(urls);
        self
    }

    /// Resolves a reference to `(exact reference, source)`.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub async fn resolve(&self, text: &str) -> Result<(String, String), LookupError> {
        let locked = self.lock.get(text);
        let wanted = locked.map_or(text, |locked| &locked.resolved);
        let (from, resolved, source) = match is_url(wanted) {
            true => {
                let urls = self.urls.ok_or_else(|| self.unknown(wanted))?;
                (Origin::Url, wanted.to_string(), urls.find(wanted).await?)
            }
            false => self.find(wanted, locked.map(|locked| locked.from)).await?,
        };
        let used = Locked {
            reference: text.to_string(),
            resolved,
            from,
            digest: Digest::of(source.as_bytes()),
        };
        if let Some(locked) = locked.filter(|locked| locked.digest != used.digest) {
            return Err(LookupError::Refused(format!(
                "orb `{}` is not what `{LOCK_FILE}` says: its digest is {}, not {}; when that is meant, run `towpath orb lock`",
                locked.resolved, used.digest, locked.digest
            )));
        }
        let resolved = used.resolved.clone();
        self.used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(text.to_string(), used);
        Ok((resolved, source))
    }

    /// Asks each place in order and returns the first answer. Asks only the place that the lock file names for a locked orb,
    /// because another place may have the same name.
    async fn find(&self, wanted: &str, locked: Option<Origin>) -> Result<(Origin, String, String), LookupError> {
        let reference: OrbReference = wanted
            .parse()
            .map_err(|error: crate::ReferenceError| LookupError::Refused(error.to_string()))?;
        for (origin, place) in &self.places {
            if locked.is_some_and(|locked| locked != *origin) {
                continue;
            }
            if let Some(found) = place.find(&reference).await.map_err(LookupError::Unavailable)? {
                let resolved = format!("{}@{}", reference.name, found.version);
                return Ok((*origin, resolved, found.text));
            }
        }
        Err(self.unknown(wanted))
    }

    fn unknown(&self, wanted: &str) -> LookupError {
        LookupError::Unknown {
            reference: wanted.to_string(),
            places: self.places_in_words(),
        }
    }

    /// The references that were resolved so far.
    #[must_use]
    pub fn used(&self) -> Lock {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.values().cloned().collect()
    }

    fn places_in_words(&self) -> String {
        let words: Vec<&str> = self
            .places
            .iter()
            .map(|(origin, _)| match origin {
                Origin::Vendored => "`.circleci/orbs`",
                Origin::Towpath => "Towpath's registry",
                Origin::Circleci => "CircleCI's registry",
                Origin::Url => "a URL",
            })
            .collect();
        match words.split_last() {
            None => "any place: there is none to look in".into(),
            Some((last, [])) => (*last).to_string(),
            Some((last, before)) => format!("{} or {last}", before.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Broken;
    impl Lookup for Broken {
        fn find<'a>(&'a self, _: &'a OrbReference) -> BoxFuture<'a, Result<Option<Found>, String>> {
            Box::pin(std::future::ready(Err("nobody answers".into())))
        }
    }

    fn vendored(files: &[(&'static str, &str)]) -> Vendored {
        Vendored::of_files(files.iter().map(|(path, text)| (*path, (*text).to_string())))
    }

    #[tokio::test]
    async fn the_first_place_that_knows_answers() {
        let near = vendored(&[
            ("acme/tools@1.0.0.yml", "near"),
            ("README.md", "no orb"),
            ("acme/tools@x.yml", "no"),
        ]);
        let far = vendored(&[("acme/tools@1.5.0.yml", "far"), ("acme/other@2.0.0.yaml", "other")]);
        let sources = Sources::default()
            .with(Origin::Vendored, &near)
            .with(Origin::Towpath, &far);
        for (reference, resolved, text) in [
            ("acme/tools@1", "acme/tools@1.0.0", "near"),
            ("acme/tools@1.5", "acme/tools@1.5.0", "far"),
            ("acme/other@volatile", "acme/other@2.0.0", "other"),
        ] {
            let found = sources.resolve(reference).await.unwrap();
            assert_eq!(found, (resolved.to_string(), text.to_string()));
        }
        let error = sources.resolve("acme/none@1").await.unwrap_err().to_string();
        assert_eq!(error, "no orb `acme/none@1` in `.circleci/orbs` or Towpath's registry");
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_asked_is_an_error_and_not_a_no() {
        let last = vendored(&[("acme/tools@1.0.0.yml", "last")]);
        let sources = Sources::default()
            .with(Origin::Towpath, &Broken)
            .with(Origin::Circleci, &last);
        assert!(
            matches!(sources.resolve("acme/tools@1").await, Err(LookupError::Unavailable(why)) if why == "nobody answers")
        );
    }

    #[tokio::test]
    async fn the_lock_decides_version_place_and_bytes() {
        let old = vendored(&[("acme/tools@1.0.0.yml", "old")]);
        let sources = Sources::default().with(Origin::Towpath, &old);
        sources.resolve("acme/tools@1").await.unwrap();
        let text = sources.used().to_string();
        let lock = Lock::parse(&text).unwrap();
        assert_eq!(lock, sources.used());

        let newer = vendored(&[("acme/tools@1.0.0.yml", "old"), ("acme/tools@1.1.0.yml", "new")]);
        let sources = Sources::new(lock.clone())
            .with(Origin::Vendored, &newer)
            .with(Origin::Towpath, &newer);
        assert_eq!(sources.resolve("acme/tools@1").await.unwrap().0, "acme/tools@1.0.0");
        let changed = vendored(&[("acme/tools@1.0.0.yml", "changed")]);
        let sources = Sources::new(lock).with(Origin::Towpath, &changed);
        let error = sources.resolve("acme/tools@1").await.unwrap_err().to_string();
        assert!(error.contains("is not what `.circleci/orbs.lock` says"), "{error}");
    }

    #[test]
    fn what_is_no_lock_file_is_an_error() {
        for bad in ["x", "[[orb]]\nreference = 'a/b@1'", "orb = 1"] {
            assert!(Lock::parse(bad).is_err(), "{bad}");
        }
        assert!(Lock::parse("").unwrap().is_empty());
    }
}
