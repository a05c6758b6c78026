//! The build context, as an archive.

use super::dockerignore::{BadPattern, Dockerignore};
use std::{
    fs, io,
    io::Write,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};
use towpath_container::archive::Exactly;
use towpath_types::Digest;

/// A build context that is ready to be sent.
#[derive(Debug)]
pub(super) struct BuildContext {
    dir: PathBuf,
    ignore: Dockerignore,
    /// The Dockerfile's name in the archive.
    pub dockerfile: String,
    /// The Dockerfile's bytes if it is outside the context.
    outside: Option<Vec<u8>>,
}

#[derive(Debug)]
pub(super) enum ContextError {
    NotAFolder(PathBuf),
    DockerfileMissing(PathBuf),
    Unreadable { path: PathBuf, source: io::Error },
    Pattern { path: PathBuf, line: String, why: String },
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> ContextError {
    let path = path.to_path_buf();
    move |source| ContextError::Unreadable { path, source }
}

impl BuildContext {
    /// Finds the Dockerfile and the ignore patterns.
    ///
    /// Like BuildKit, it prefers `<Dockerfile>.dockerignore` beside the Dockerfile to the context's `.dockerignore`.
    pub fn open(dir: &Path, dockerfile: &Path) -> Result<Self, ContextError> {
        if !dir.is_dir() {
            return Err(ContextError::NotAFolder(dir.to_path_buf()));
        }
        let dir = dir.canonicalize().map_err(unreadable(dir))?;
        let path = dir.join(dockerfile);
        if !path.is_file() {
            return Err(ContextError::DockerfileMissing(path));
        }
        let parent = path.parent().unwrap_or(&dir);
        let parent = parent.canonicalize().map_err(unreadable(parent))?;
        let path = parent.join(path.file_name().unwrap_or_default());
        let own_patterns = {
            let mut name = path.clone().into_os_string();
            name.push(".dockerignore");
            PathBuf::from(name)
        };
        let patterns = if own_patterns.is_file() {
            own_patterns
        } else {
            dir.join(".dockerignore")
        };
        let ignore = match fs::read_to_string(&patterns) {
            Ok(text) => Dockerignore::parse(&text).map_err(|BadPattern { line, why }| ContextError::Pattern {
                path: patterns,
                line,
                why,
            })?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Dockerignore::default(),
            Err(e) => return Err(unreadable(&patterns)(e)),
        };
        let inside = path.strip_prefix(&dir).ok().and_then(Path::to_str);
        let (dockerfile, outside) = match inside {
            Some(name) => (name.to_string(), None),
            None => {
                let bytes = fs::read(&path).map_err(unreadable(&path))?;
                (format!(".dockerfile.{}", Digest::of(&bytes).hex()), Some(bytes))
            }
        };
        Ok(Self {
            dir,
            ignore,
            dockerfile,
            outside,
        })
    }

    /// The Dockerfile's text. Invalid UTF-8 is shown as replacement characters: the engine decides about it.
    pub fn dockerfile_text(&self) -> Result<String, ContextError> {
        let bytes = match &self.outside {
            Some(bytes) => bytes.clone(),
            None => {
                let path = self.dir.join(&self.dockerfile);
                fs::read(&path).map_err(unreadable(&path))?
            }
        };
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Writes the archive. All files belong to root, as if the `docker` command had sent them.
    pub fn write(&self, archive: &mut tar::Builder<&mut dyn Write>) -> Result<(), ContextError> {
        if let Some(bytes) = &self.outside {
            let mut header = header(0o644, bytes.len() as u64, tar::EntryType::Regular);
            archive
                .append_data(&mut header, &self.dockerfile, bytes.as_slice())
                .map_err(unreadable(Path::new(&self.dockerfile)))?;
        }
        self.write_folder(archive, "")
    }

    fn write_folder(&self, archive: &mut tar::Builder<&mut dyn Write>, folder: &str) -> Result<(), ContextError> {
        let dir = self.dir.join(folder);
        let mut names = Vec::new();
        for entry in fs::read_dir(&dir).map_err(unreadable(&dir))? {
            names.push(entry.map_err(unreadable(&dir))?.file_name());
        }
        names.sort();
        for name in names {
            let path = dir.join(&name);
            let Some(name) = name.to_str() else {
                let source = io::Error::new(io::ErrorKind::InvalidData, "its name is not UTF-8");
                return Err(ContextError::Unreadable { path, source });
            };
            let inside = if folder.is_empty() {
                name.to_string()
            } else {
                format!("{folder}/{name}")
            };
            self.write_entry(archive, &path, &inside)?;
        }
        Ok(())
    }

    fn write_entry(
        &self,
        archive: &mut tar::Builder<&mut dyn Write>,
        path: &Path,
        inside: &str,
    ) -> Result<(), ContextError> {
        // The engine needs these two even if they are excluded; it hides them from `COPY` itself.
        let excluded = self.ignore.excludes(inside) && inside != self.dockerfile && inside != ".dockerignore";
        let metadata = fs::symlink_metadata(path).map_err(unreadable(path))?;
        let kind = metadata.file_type();
        let mode = metadata.mode() & 0o7777;
        if kind.is_dir() {
            if !excluded {
                let mut header = header(mode, 0, tar::EntryType::Directory);
                archive
                    .append_data(&mut header, format!("{inside}/"), io::empty())
                    .map_err(unreadable(path))?;
            }
            let holds_dockerfile = self
                .dockerfile
                .strip_prefix(inside)
                .is_some_and(|rest| rest.starts_with('/'));
            if !excluded || self.ignore.has_inclusions() || holds_dockerfile {
                self.write_folder(archive, inside)?;
            }
        } else if excluded || kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device() {
            // A build cannot copy these.
        } else if kind.is_symlink() {
            let target = fs::read_link(path).map_err(unreadable(path))?;
            let mut header = header(0o777, 0, tar::EntryType::Symlink);
            archive
                .append_link(&mut header, inside, target)
                .map_err(unreadable(path))?;
        } else {
            let file = fs::File::open(path).map_err(unreadable(path))?;
            let mut header = header(mode, metadata.len(), tar::EntryType::Regular);
            header.set_mtime(metadata.mtime().try_into().unwrap_or_default());
            archive
                .append_data(&mut header, inside, Exactly::new(file, metadata.len()))
                .map_err(unreadable(path))?;
        }
        Ok(())
    }
}

fn header(mode: u32, size: u64, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Read;

    /// Creates the files and returns the names in the archive.
    fn archived(files: &[(&str, &str)], dockerfile: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        std::os::unix::fs::symlink("/nowhere", dir.path().join("link")).unwrap();
        let context = BuildContext::open(dir.path(), Path::new(dockerfile)).unwrap();
        let mut bytes = Vec::new();
        {
            let mut archive = tar::Builder::new(&mut bytes as &mut dyn Write);
            context.write(&mut archive).unwrap();
            archive.finish().unwrap();
        }
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (0, 0));
            names.push(entry.path().unwrap().to_string_lossy().into_owned());
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
        }
        names
    }

    #[test]
    fn the_context_has_what_is_not_ignored() {
        let files = [
            ("Dockerfile", "FROM scratch"),
            (".dockerignore", "*\n!src\nsrc/*.tmp\n"),
            ("src/main.rs", ""),
            ("src/x.tmp", ""),
            ("target/big", ""),
        ];
        let names = archived(&files, "Dockerfile");
        assert_eq!(names, [".dockerignore", "Dockerfile", "src/", "src/main.rs"]);
    }

    #[test]
    fn the_dockerfile_may_have_patterns_of_its_own_and_lie_in_an_excluded_folder() {
        let files = [
            ("docker/app.Dockerfile", "FROM scratch"),
            ("docker/app.Dockerfile.dockerignore", "docker\nlink"),
            (".dockerignore", "*"),
            ("a", ""),
        ];
        let names = archived(&files, "docker/app.Dockerfile");
        assert_eq!(names, [".dockerignore", "a", "docker/app.Dockerfile"]);
    }

    #[test]
    fn a_dockerfile_outside_the_context_is_added_to_it() {
        let elsewhere = tempfile::tempdir().unwrap();
        let dockerfile = elsewhere.path().join("Dockerfile");
        fs::write(&dockerfile, "FROM scratch").unwrap();
        let names = archived(&[("a", "")], dockerfile.to_str().unwrap());
        let whole = Digest::of(b"FROM scratch").hex().to_string();
        assert_eq!(names, [format!(".dockerfile.{whole}"), "a".into(), "link".into()]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = BuildContext::open(dir.path(), Path::new("Dockerfile"));
        assert!(matches!(missing, Err(ContextError::DockerfileMissing(path)) if path.ends_with("Dockerfile")));
        let missing = BuildContext::open(&dir.path().join("x"), Path::new("Dockerfile"));
        assert!(matches!(missing, Err(ContextError::NotAFolder(_))));
    }
}
