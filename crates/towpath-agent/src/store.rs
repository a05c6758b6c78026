//! `store_artifacts` and `store_test_results`.

use crate::{
    client::{query_value, streamed},
    spool::Spool,
    step::{RunningJob, StepError},
};
use futures::TryStreamExt;
use std::{
    io,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};
use tokio_util::io::ReaderStream;
use towpath_protocol::{LARGEST_BODY_BYTES, route};
use walkdir::WalkDir;

const LARGEST_TEST_RESULTS: u64 = LARGEST_BODY_BYTES as u64;

/// Uploads a file, or all files of a directory, as artifacts.
pub(crate) async fn artifacts(
    job: &RunningJob,
    written: &str,
    destination: Option<&str>,
    spool: &mut Spool,
) -> Result<(), StepError> {
    let path = job.surroundings.path(written);
    let base = plain(Path::new(destination.unwrap_or(written)));
    let files = files(&path);
    if files.is_empty() {
        spool.line(format!("Warning: there is nothing at `{}`", path.display()));
    }
    for (file, inside) in files {
        let name = match (inside.as_os_str().is_empty(), base.as_os_str().is_empty()) {
            (true, true) => PathBuf::from(file.file_name().unwrap_or_default()),
            (true, false) => base.clone(),
            (false, _) => base.join(&inside),
        };
        upload(job, route::ARTIFACTS, &file, &name)
            .await
            .map_err(|error| error.about(&file))?;
        spool.line(format!("Uploaded {}", readable(&name)));
    }
    Ok(())
}

/// Uploads a JUnit XML file, or all such files below a directory.
pub(crate) async fn test_results(job: &RunningJob, written: &str, spool: &mut Spool) -> Result<(), StepError> {
    let path = job.surroundings.path(written);
    let is_xml = |file: &Path| {
        file.extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("xml"))
    };
    let (mut sent, mut too_large) = (0, 0);
    for (file, inside) in files(&path) {
        if !inside.as_os_str().is_empty() && !is_xml(&file) {
            continue;
        }
        let name = if inside.as_os_str().is_empty() {
            PathBuf::from(file.file_name().unwrap_or_default())
        } else {
            inside
        };
        let length = std::fs::metadata(&file).map(|metadata| metadata.len());
        if let Ok(length @ LARGEST_TEST_RESULTS..) = length {
            spool.line(format!(
                "Warning: {} has {} MiB, and the server takes no file of test results of {} MiB or more: let the tests write several files",
                file.display(),
                length >> 20,
                LARGEST_TEST_RESULTS >> 20,
            ));
            too_large += 1;
            continue;
        }
        match upload(job, route::TEST_RESULTS, &file, &name).await {
            Ok(notes) => {
                sent += 1;
                notes.iter().for_each(|note| spool.line(format!("Warning: {note}")));
            }
            // A file that is not JUnit must not hide the results of the other files.
            Err(StepError::Errored(message)) => spool.line(format!("Warning: {}: {message}", file.display())),
            Err(other) => return Err(other),
        }
    }
    spool.line(match sent {
        0 if too_large == 0 => format!("Warning: there are no test results at `{}`", path.display()),
        count => format!("Uploaded {count} files of test results"),
    });
    Ok(())
}

/// Returns the server's answer about the file.
async fn upload(job: &RunningJob, route: &str, file: &Path, name: &Path) -> Result<Vec<String>, StepError> {
    let route = format!("{route}?path={}", query_value(&readable(name)));
    let said = job
        .client
        .persist(|| async {
            let opened = tokio::fs::File::open(file).await;
            let body = match opened {
                Ok(opened) => streamed(ReaderStream::with_capacity(opened, 128 << 10)),
                Err(error) => streamed(futures::stream::once(async { Err(error) }).map_err(|error: io::Error| error)),
            };
            job.client.put_and_hear_once(&route, body).await
        })
        .await?;
    Ok(said)
}

/// The files at `path`, each with its path relative to `path` (empty if `path` is itself a file). Follows links to files, so
/// that people find their content, but not links to directories.
fn files(path: &Path) -> Vec<(PathBuf, PathBuf)> {
    if path.is_file() {
        return vec![(path.to_path_buf(), PathBuf::new())];
    }
    let entries = WalkDir::new(path)
        .sort_by_file_name()
        .into_iter()
        .filter_map(Result::ok);
    entries
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| {
            let inside = entry.path().strip_prefix(path).ok()?.to_path_buf();
            Some((entry.into_path(), inside))
        })
        .collect()
}

/// `path` as text, so that different files keep different names: a byte that is not UTF-8 is written as a number (`\xe9`), and so
/// is the backslash of a name that is spelled like that.
fn readable(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(at) = rest.find("\\x") {
            let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            text.push_str(&rest[..at]);
            text.push_str(match rest.get(at + 2..at + 4) {
                Some(digits) if is_number(digits) => "\\x5c",
                _ => "\\",
            });
            rest = &rest[at + 1..];
        }
        text.push_str(rest);
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

/// A path as the name of an artifact: relative, without `.`, `..` and `~`.
fn plain(path: &Path) -> PathBuf {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) if name != "~" => Some(name),
        _ => None,
    });
    parts.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        let check = |path: &str, expected: &str| assert_eq!(plain(Path::new(path)), PathBuf::from(expected), "{path}");
        check("/tmp/out", "tmp/out");
        check("~/out/./x", "out/x");
        check("../../etc", "etc");
        check(".", "");
    }

    #[test]
    fn two_files_have_two_names() {
        let name = |bytes: &[u8]| readable(Path::new(std::ffi::OsStr::from_bytes(bytes)));
        assert_eq!(name("größe 100%.txt".as_bytes()), "größe 100%.txt");
        assert_eq!(name(b"latin\xe9.txt"), "latin\\xe9.txt");
        assert_eq!(name(br"C:\temp\x.txt"), r"C:\temp\x.txt");
        assert_eq!(name(br"latin\xe9.txt"), r"latin\x5cxe9.txt");
        let names: std::collections::BTreeSet<String> = [
            b"latin\xe9.txt".as_slice(),
            b"latin\xe8.txt",
            br"latin\xe9.txt",
            br"latin\x5cxe9.txt",
            b"latin\\x5c\xe9.txt",
        ]
        .map(name)
        .into();
        assert_eq!(names.len(), 5, "{names:?}");
    }

    #[test]
    fn a_directory_is_all_its_files() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a/b")).unwrap();
        std::fs::write(root.path().join("a/b/x.xml"), "x").unwrap();
        std::fs::write(root.path().join("y"), "y").unwrap();
        let found: Vec<_> = files(root.path()).into_iter().map(|(_, inside)| inside).collect();
        assert_eq!(found, [PathBuf::from("a/b/x.xml"), PathBuf::from("y")]);
        assert_eq!(files(&root.path().join("y"))[0].1, PathBuf::new());
        assert!(files(&root.path().join("nosuch")).is_empty());
    }
}
