#![allow(clippy::unwrap_used)]
use crate::disk::{fault, lock};
use crate::{Scope, SealedStore, SealedStoreError};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use towpath_types::SecretBytes;

const VALUE: &str = "hunter2-correct-horse";

fn secret(text: &str) -> SecretBytes {
    SecretBytes::new(text.as_bytes().to_vec())
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn app() -> Scope {
    Scope::secret("team/claims", "dev", "app-secrets")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn sealed_file(store: &TempDir) -> PathBuf {
    store.path().join("environments/team%2Fclaims/dev/app-secrets")
}

fn values(store: &SealedStore, scope: &Scope) -> Vec<String> {
    let values = store.reveal(scope).unwrap_or_else(|error| panic!("{error}"));
    values
        .iter()
        .map(|(key, value)| format!("{key}={}", value.expose().escape_ascii()))
        .collect()
}

#[test]
fn what_is_set_is_listed_revealed_and_unset() {
    let dir = folder();
    let store = SealedStore::open(dir.path()).unwrap();
    let ci = Scope::context("Team A / production");
    store.set(&app(), "TOKEN", &secret(VALUE), "ada").unwrap();
    store.set(&app(), "URL", &secret("x"), "ada").unwrap();
    store.set(&app(), "URL", &secret(VALUE), "grace").unwrap();
    store.set(&ci, "AWS_KEY", &secret(""), "ada").unwrap();

    let listing = store.list(&app()).unwrap();
    let lines: Vec<String> = listing
        .entries
        .iter()
        .map(|entry| format!("{} by {}", entry.key, entry.set_by))
        .collect();
    assert_eq!(lines, ["TOKEN by ada", "URL by grace"]);
    assert_eq!(listing.entries[0].fingerprint, listing.entries[1].fingerprint);
    assert_eq!(listing.entries[0].fingerprint, store.fingerprint(&secret(VALUE)));
    assert_ne!(listing.entries[0].fingerprint, store.fingerprint(&secret("x")));
    assert_eq!(store.secrets("team/claims", "dev").unwrap(), ["app-secrets"]);
    assert_eq!(store.secrets("team/claims", "none").unwrap(), [""; 0]);
    assert_eq!(store.contexts().unwrap(), ["Team A / production"]);

    // Reads it later, as another process would.
    let store = SealedStore::open(dir.path()).unwrap();
    assert_eq!(
        values(&store, &app()),
        [format!("TOKEN={VALUE}"), format!("URL={VALUE}")]
    );
    assert_eq!(values(&store, &ci), ["AWS_KEY="]);
    assert!(store.unset(&app(), "TOKEN").unwrap());
    assert!(!store.unset(&app(), "TOKEN").unwrap());
    assert!(store.unset(&app(), "URL").unwrap());
    assert_eq!(values(&store, &app()), [""; 0]);
    assert_eq!(store.secrets("team/claims", "dev").unwrap(), [""; 0]);

    // Another store has other fingerprints.
    let other = folder();
    assert_ne!(
        SealedStore::open(other.path()).unwrap().fingerprint(&secret(VALUE)),
        store.fingerprint(&secret(VALUE))
    );
}

#[test]
fn no_value_is_in_a_file_in_debug_or_in_a_listing() {
    let dir = folder();
    let store = SealedStore::open(dir.path()).unwrap();
    store.set(&app(), "TOKEN", &secret(VALUE), "ada").unwrap();
    store.set(&Scope::context("c"), "TOKEN", &secret(VALUE), "ada").unwrap();
    let hex = hex::encode(VALUE);
    let key = fs::read_to_string(dir.path().join("key")).unwrap();
    let found = files(dir.path());
    assert_eq!(found.len(), 4, "{found:?}"); // key, lock, and the two
    for file in &found {
        let text = fs::read_to_string(file).unwrap();
        assert!(!text.contains(VALUE) && !text.contains(&hex), "{}", file.display());
        assert_eq!(
            fs::metadata(file).unwrap().permissions().mode() & 0o777,
            0o600,
            "{}",
            file.display()
        );
    }
    let shown = format!(
        "{store:?} {:?} {:?}",
        store.list(&app()).unwrap(),
        store.reveal(&app()).unwrap()
    );
    assert!(
        !shown.contains(VALUE) && !shown.contains(&hex) && !shown.contains(key.trim()),
        "{shown}"
    );
    assert_eq!(
        fs::metadata(sealed_file(&dir).parent().unwrap())
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o700
    );
}

/// Sets values, applies `damage` to the folder, and compares the errors of listing and revealing.
fn check(damage: impl Fn(&TempDir), expect: &str) {
    let dir = folder();
    let store = SealedStore::open(dir.path()).unwrap();
    store.set(&app(), "TOKEN", &secret(VALUE), "ada").unwrap();
    store.set(&app(), "URL", &secret("u"), "ada").unwrap();
    let other = Scope::secret("team/claims", "dev", "other");
    store.set(&other, "A", &secret("kept"), "ada").unwrap();
    damage(&dir);
    let outcome = SealedStore::open(dir.path()).and_then(|store| {
        // Damage to one file does not affect the other.
        if let Ok(values) = store.reveal(&other) {
            assert_eq!(values["A"].expose(), b"kept");
        }
        store.reveal(&app())
    });
    let message = match outcome {
        Ok(values) => format!("{values:?}"),
        Err(error) => error.to_string().replace(&dir.path().display().to_string(), "DIR"),
    };
    assert_eq!(message, expect);
    assert!(!message.contains(VALUE));
}

fn edit(dir: &TempDir, from: &str, to: &str) {
    let path = sealed_file(dir);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

const SEALED: &str = "DIR/environments/team%2Fclaims/dev/app-secrets";
const ANEW: &str = "restore it from a backup, or delete it and set the values of the Secret `app-secrets` of `dev` in `team/claims` again; nothing else is affected";

#[test]
fn a_value_is_kept_byte_for_byte() {
    let dir = folder();
    let store = SealedStore::open(dir.path()).unwrap();
    let values = [
        b"".to_vec(),
        b"\n".to_vec(),
        b"line\n".to_vec(),
        b"0\x82\x05\n".to_vec(),
        (0..=u8::MAX).rev().collect(),
    ];
    for (index, value) in values.iter().enumerate() {
        store
            .set(&app(), &format!("K{index}"), &SecretBytes::new(value.clone()), "ada")
            .unwrap();
    }
    let opened = SealedStore::open(dir.path()).unwrap().reveal(&app()).unwrap();
    for (value, opened) in values.iter().zip(opened.values()) {
        assert_eq!(opened.expose(), value);
    }
    assert!(!fs::read_to_string(sealed_file(&dir)).unwrap().contains("line"));
    let binary = SecretBytes::new(b"0\x82\x05\n".to_vec());
    let refused = store.set(&Scope::context("c"), "A", &binary, "ada").unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the value of `A` in the context `c` is not text (UTF-8), so no environment variable can have it"
    );
}

#[test]
fn damage_says_which_file_and_what_to_do() {
    check(|_| {}, "{\"TOKEN\": ****, \"URL\": ****}");
    check(
        |dir| fs::write(sealed_file(dir), "").unwrap(),
        &format!("`{SEALED}` is damaged (it is empty): {ANEW}"),
    );
    check(
        |dir| {
            let text = fs::read(sealed_file(dir)).unwrap();
            fs::write(sealed_file(dir), &text[..40]).unwrap();
        },
        &format!("`{SEALED}` is damaged (line 4, column 9): {ANEW}"),
    );
    check(
        |dir| edit(dir, "\"version\": 1", "\"version\": 9"),
        &format!("`{SEALED}` is damaged (its format is 9, and this version reads 1): {ANEW}"),
    );
    check(
        |dir| {
            fs::copy(
                dir.path().join("environments/team%2Fclaims/dev/other"),
                sealed_file(dir),
            )
            .unwrap();
        },
        &format!("`{SEALED}` is damaged (it is the file of the Secret `other` of `dev` in `team/claims`): {ANEW}"),
    );
    let closed = |key: &str| {
        format!(
            "the value of `{key}` in `{SEALED}` does not open: the file was edited, or parts of it come from another file; restore it from a backup, or set `{key}` of the Secret `app-secrets` of `dev` in `team/claims` again"
        )
    };
    check(|dir| edit(dir, "\"sealed\": \"", "\"sealed\": \"00"), &closed("TOKEN"));
    check(
        |dir| edit(dir, "\"sealed\": \"", &format!("\"sealed\": \"{VALUE}")),
        &closed("TOKEN"),
    );
    check(
        |dir| edit(dir, "\"set_by\": \"ada\"", "\"set_by\": \"eve\""),
        &closed("TOKEN"),
    );
    check(|dir| edit(dir, "\"URL\"", "\"LRU\""), &closed("LRU"));
}

#[test]
fn a_wrong_lost_or_exposed_key_file_is_an_error() {
    check(
        |dir| fs::remove_file(dir.path().join("key")).unwrap(),
        "the key file of the sealed store `DIR/key` is missing, and `DIR/environments/team%2Fclaims/dev/app-secrets` was sealed with its key: restore the key file from a backup, or move the folder away to start without the values",
    );
    check(
        |dir| fs::write(dir.path().join("key"), "00".repeat(32)).unwrap(),
        "`DIR/environments/team%2Fclaims/dev/app-secrets` was sealed with another key than the one in `DIR/key`: restore the right key file, or delete the file and set the values of the Secret `app-secrets` of `dev` in `team/claims` again",
    );
    for content in ["", "0011", &"zz".repeat(32), &"00".repeat(33)] {
        check(
            |dir| fs::write(dir.path().join("key"), content).unwrap(),
            "the key file of the sealed store `DIR/key` does not contain a key (one line of 64 hex digits): restore it from a backup",
        );
    }
    check(
        |dir| fs::set_permissions(dir.path().join("key"), fs::Permissions::from_mode(0o640)).unwrap(),
        "the key file of the sealed store `DIR/key` is open to others (mode 0640): run `chmod 600` on it, and if somebody may have read it, set every secret again",
    );
}

#[test]
fn a_sealed_value_opens_only_where_it_belongs() {
    let dir = folder();
    let store = SealedStore::open(dir.path()).unwrap();
    let here = app();
    let there = Scope::secret("team/claims", "production", "app-secrets");
    store.set(&here, "A", &secret(VALUE), "ada").unwrap();
    store.set(&here, "B", &secret("b"), "ada").unwrap();
    store.set(&there, "A", &secret("p"), "ada").unwrap();
    let read = |scope: &Scope| -> serde_json::Value {
        serde_json::from_slice(&fs::read(dir.path().join(scope.path().unwrap())).unwrap()).unwrap()
    };
    let write = |scope: &Scope, file: &serde_json::Value| {
        fs::write(dir.path().join(scope.path().unwrap()), file.to_string()).unwrap();
    };
    // Move a value from one environment to another, with author and time.
    let mut file = read(&there);
    file["values"]["A"] = read(&here)["values"]["A"].clone();
    write(&there, &file);
    assert!(matches!(store.reveal(&there), Err(SealedStoreError::DoesNotOpen { key, .. }) if key == "A"));
    // Move a value from one key to another. The other key is still listed.
    let mut file = read(&here);
    file["values"]["B"] = file["values"]["A"].clone();
    write(&here, &file);
    let listing = store.list(&here).unwrap();
    assert_eq!(
        listing
            .entries
            .iter()
            .map(|entry| entry.key.as_str())
            .collect::<Vec<_>>(),
        ["A"]
    );
    assert!(matches!(&listing.broken[..], [SealedStoreError::DoesNotOpen { key, .. }] if key == "B"));
    // Setting the value again repairs it, as the error says.
    store.set(&here, "B", &secret("b"), "ada").unwrap();
    assert_eq!(values(&store, &here), [format!("A={VALUE}"), "B=b".to_string()]);
}

#[test]
fn what_kubernetes_or_circleci_would_refuse_is_refused() {
    let dir = folder();
    let store = SealedStore::open(dir.path()).unwrap();
    let refused = |scope: &Scope, key: &str, value: &str| {
        store
            .set(scope, key, &secret(value), "ada")
            .map_err(|error| error.to_string())
            .unwrap_err()
    };
    assert_eq!(
        refused(&app(), "A B", "x"),
        "\"A B\" cannot be a Secret's key: letters, digits, `-`, `_` and `.`, at most 253 characters, neither `.` nor beginning with `..`"
    );
    assert!(refused(&Scope::context("c"), "a.b", "x").contains("cannot be an environment variable"));
    assert!(refused(&Scope::secret("p", "e", "App"), "A", "x").contains("cannot be a Secret's name"));
    assert!(refused(&Scope::secret("p", "", "app"), "A", "x").contains("cannot be an environment"));
    assert!(refused(&Scope::context(&"\u{e4}".repeat(100)), "A", "x").contains("at most 255 bytes"));
    assert_eq!(
        refused(&Scope::context("c"), "A", "a\0b"),
        "the value of `A` in the context `c` has a zero byte, so no environment variable can have it"
    );
    let most = "x".repeat((128 << 10) - 3);
    store.set(&Scope::context("c"), "A", &secret(&most), "ada").unwrap();
    assert!(
        refused(&Scope::context("c"), "AB", &most)
            .ends_with("Linux accepts only 131072 for a variable, including its name")
    );

    let half = "x".repeat(1 << 19);
    store.set(&app(), "A", &secret(&half), "ada").unwrap();
    store.set(&app(), "B", &secret(&half), "ada").unwrap();
    store.set(&app(), "B", &secret(&half), "ada").unwrap();
    assert_eq!(
        refused(&app(), "C", "x"),
        "the value of `C` in the Secret `app-secrets` of `dev` in `team/claims` has 1 bytes and the Secret's other values have 1048576, but Kubernetes accepts only 1048576 for all of them"
    );
}

#[test]
fn writers_do_not_lose_each_others_values() {
    let dir = folder();
    std::thread::scope(|threads| {
        for writer in 0..4 {
            let path = dir.path();
            threads.spawn(move || {
                // Each thread opens the sealed store itself, as processes do, so that they also compete to create the key.
                let store = SealedStore::open(path).unwrap();
                for round in 0..10 {
                    let key = format!("K{writer}_{round}");
                    store.set(&app(), &key, &secret(&key), "ada").unwrap();
                    let seen = store.reveal(&app()).unwrap();
                    assert_eq!(seen[&key].expose(), key.as_bytes());
                }
            });
        }
    });
    let store = SealedStore::open(dir.path()).unwrap();
    let all = store.reveal(&app()).unwrap();
    assert_eq!(all.len(), 40);
    assert!(all.iter().all(|(key, value)| key.as_bytes() == value.expose()));
}

#[test]
fn a_lock_that_is_never_let_go_is_named() {
    let dir = folder();
    let store = SealedStore::open_with_patience(dir.path(), Duration::from_millis(20)).unwrap();
    let held = lock(dir.path(), Duration::ZERO).unwrap();
    let error = store.set(&app(), "A", &secret("x"), "ada").unwrap_err();
    assert!(
        matches!(&error, SealedStoreError::Locked { lock_file, .. } if *lock_file == dir.path().join("lock")),
        "{error}"
    );
    assert_eq!(values(&store, &app()), [""; 0]); // readers need no lock
    drop(held);
    store.set(&app(), "A", &secret("x"), "ada").unwrap();
}

/// Runs `act` once for each of its steps, stopped at that step, in a folder that `prepare` fills. `verify` checks what is left.
/// Answers the number of steps.
fn stopped_everywhere(
    prepare: impl Fn(&Path),
    act: impl Fn(&Path) -> Result<(), SealedStoreError>,
    verify: impl Fn(&Path, usize),
) -> usize {
    for step in 0..100 {
        let dir = folder();
        let path = dir.path().join("sealed");
        prepare(&path);
        fault::LEFT.set(Some(step));
        let outcome = act(&path);
        fault::LEFT.set(None);
        match outcome {
            Ok(()) => return step,
            Err(error) => assert!(matches!(error, SealedStoreError::Io { .. }), "{error}"),
        }
        verify(&path, step);
        // A leftover does not get in the way.
        act(&path).unwrap_or_else(|error| panic!("after step {step}: {error}"));
    }
    panic!("never finished");
}

#[test]
fn a_write_that_is_stopped_anywhere_leaves_the_old_or_the_new() {
    let set = |path: &Path, key: &str, value: &str| {
        SealedStore::open(path).and_then(|store| store.set(&app(), key, &secret(value), "ada"))
    };
    // The first value: folder, key and value are created.
    let steps = stopped_everywhere(
        |_| {},
        |path| set(path, "A", "1"),
        |path, step| {
            let left = values(&SealedStore::open(path).unwrap(), &app());
            assert!(left.is_empty() || left == ["A=1"], "step {step}: {left:?}");
        },
    );
    assert!(steps > 15, "only {steps} steps");
    // A changed value.
    let steps = stopped_everywhere(
        |path| {
            set(path, "A", "1").unwrap();
            set(path, "B", "1").unwrap();
        },
        |path| set(path, "A", "2"),
        |path, step| {
            let left = values(&SealedStore::open(path).unwrap(), &app());
            assert!(
                left == ["A=1", "B=1"] || left == ["A=2", "B=1"],
                "step {step}: {left:?}"
            );
        },
    );
    assert_eq!(steps, 6); // open, write, write, sync, rename, sync folder
    // The removal of the last key.
    let steps = stopped_everywhere(
        |path| set(path, "A", "1").unwrap(),
        |path| SealedStore::open(path)?.unset(&app(), "A").map(|_| ()),
        |path, step| {
            let left = values(&SealedStore::open(path).unwrap(), &app());
            assert!(left.is_empty() || left == ["A=1"], "step {step}: {left:?}");
        },
    );
    assert_eq!(steps, 2);
}
