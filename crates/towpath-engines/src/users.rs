//! The users that jobs of this machine run as.
//!
//! A job with a user of its own can neither read nor signal what belongs to the server or to other jobs. The kernel counts the
//! processes of each user, so a fork bomb stops at its own job's limit. And all processes of a user can be found and ended,
//! however well they hide.

use crate::process;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::{Signal, kill},
        stat::{Mode, umask},
    },
    unistd::{AccessFlags, Gid, Pid, Uid, access, setgroups, setresgid, setresuid, setsid},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    collections::BTreeSet,
    ffi::{CStr, CString},
    fs::{self, File, OpenOptions},
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::Path,
    process::Command,
};

/// The name of a job's user, as on CircleCI's machines.
pub(crate) const USER_NAME: &str = "circleci";
/// Where everybody may write. What a job leaves there goes with the job.
const SHARED_DIRECTORIES: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// The user ids that Towpath reserves for jobs on this machine. Groups of the same ids are reserved as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct HostUsers {
    pub first: u32,
    pub count: u32,
}

impl HostUsers {
    /// Whether this process may run jobs as others.
    #[must_use]
    pub fn are_possible() -> bool {
        Uid::effective().is_root()
    }

    fn ids(self) -> std::ops::Range<u32> {
        self.first..self.first.saturating_add(self.count)
    }

    /// An id that no process has and that is not in `taken`. Begins to look at a place that depends on `job`, so that an id
    /// that has just become free is not used again at once.
    pub(crate) fn choose(self, job: &str, taken: &BTreeSet<u32>) -> io::Result<u32> {
        let busy = process::users();
        let is_free = |id: &u32| !taken.contains(id) && !busy.contains(id);
        first_free(self, job, is_free).ok_or_else(|| {
            let (first, last) = (self.first, self.ids().end - 1);
            io::Error::other(format!("the user ids {first} to {last} are all in use"))
        })
    }
}

fn first_free(users: HostUsers, job: &str, is_free: impl Fn(&u32) -> bool) -> Option<u32> {
    let mut hasher = DefaultHasher::new();
    job.hash(&mut hasher);
    let begin = u32::try_from(hasher.finish() % u64::from(users.count.max(1))).unwrap_or_default();
    let ids = users.ids();
    ids.clone()
        .skip(begin as usize)
        .chain(ids.take(begin as usize))
        .find(is_free)
}

/// Locks the choice of users for every engine whose directory is in `parent`.
pub(crate) fn lock_choice(parent: &Path) -> io::Result<Flock<File>> {
    let mut options = OpenOptions::new();
    let file = options
        .create(true)
        .write(true)
        .truncate(false)
        .open(parent.join(".lock"))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| io::Error::from(errno))
}

/// What a new process gives up before it runs its program.
///
/// It is computed before the fork: in between, a process may not allocate memory.
#[derive(Debug)]
pub(crate) struct Confinement {
    most_processes: u64,
    user: Option<Identity>,
}

#[derive(Debug)]
struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    /// Files that the process sees in place of others. `None` if this server may not make namespaces.
    overlays: Option<Vec<(CString, CString)>>,
}

impl Confinement {
    /// At most `most_processes` processes and threads of the process's user.
    pub(crate) fn new(most_processes: u64) -> Self {
        Self {
            most_processes,
            user: None,
        }
    }

    /// Also the user `id`, who is in no groups but `groups`.
    pub(crate) fn user(mut self, id: u32, groups: Vec<u32>) -> Self {
        self.user = Some(Identity {
            uid: Uid::from_raw(id),
            gid: Gid::from_raw(id),
            groups: groups.into_iter().map(Gid::from_raw).collect(),
            overlays: None,
        });
        self
    }

    /// Also namespaces of its own for mounts and shared memory, in which it sees `overlays`: a file, and where it is seen.
    pub(crate) fn namespaces(mut self, overlays: &[(&Path, &Path)]) -> io::Result<Self> {
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes());
        let overlays = overlays.iter().map(|(from, to)| Ok((text(from)?, text(to)?)));
        let overlays = overlays.collect::<io::Result<Vec<_>>>()?;
        if let Some(user) = &mut self.user {
            user.overlays = Some(overlays);
        }
        Ok(self)
    }

    /// Lets the program of `command` start in a session of its own, confined.
    #[allow(unsafe_code)]
    pub(crate) fn apply(self, command: &mut Command) {
        // SAFETY: `enter` only makes system calls, and allocates no memory.
        unsafe {
            command.pre_exec(move || self.enter());
        }
    }

    fn enter(&self) -> io::Result<()> {
        setsid()?;
        let limit = getrlimit(Resource::Nproc);
        let most = limit
            .maximum
            .map_or(self.most_processes, |most| most.min(self.most_processes));
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(Resource::Nproc, limit)?;
        let Some(user) = &self.user else { return Ok(()) };
        if let Some(overlays) = &user.overlays {
            separate(overlays)?;
        }
        become_user(user.uid, user.gid, &user.groups)?;
        // A program that would make its caller root (`sudo`, `su`) keeps its caller's rights.
        prctl::set_no_new_privs()?;
        umask(Mode::S_IWGRP | Mode::S_IWOTH);
        Ok(())
    }
}

/// Gives this process its own view of mounts and its own shared memory. Mounts of the machine that come later are seen.
fn separate(overlays: &[(CString, CString)]) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC)?;
    let none = None::<&CStr>;
    mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    for (from, to) in overlays {
        mount(Some(from.as_c_str()), to.as_c_str(), none, MsFlags::MS_BIND, none)?;
    }
    Ok(())
}

/// Groups first: without root's rights they could not be changed any more.
fn become_user(uid: Uid, gid: Gid, groups: &[Gid]) -> io::Result<()> {
    setgroups(groups)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    Ok(())
}

/// The errno with which a process says that it has done what it was forked for.
const DONE: i32 = Errno::ECANCELED as i32;

/// Calls `work`, which may only make system calls, in a process that does nothing else.
#[allow(unsafe_code)]
fn in_a_process(work: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> io::Result<()> {
    // It never gets so far as to run this.
    let mut command = Command::new("/proc/self/exe");
    // SAFETY: `work` only makes system calls, and allocates no memory.
    unsafe {
        command.pre_exec(move || Err(work().err().unwrap_or_else(|| io::Error::from_raw_os_error(DONE))));
    }
    match command.spawn() {
        Err(error) if error.raw_os_error() == Some(DONE) => Ok(()),
        Err(error) => Err(error),
        // Somebody killed it.
        Ok(mut child) => child.wait().map(drop),
    }
}

/// Whether this server may give a process namespaces of its own.
pub(crate) fn can_separate() -> io::Result<()> {
    in_a_process(|| separate(&[]))
}

/// Whether this server may start a process of the user `id`.
pub(crate) fn can_be(id: u32) -> io::Result<()> {
    in_a_process(move || become_user(Uid::from_raw(id), Gid::from_raw(id), &[]))
}

/// Whether the user `id` may enter `directory` and run `program`.
pub(crate) fn can_reach(id: u32, directory: &Path, program: &Path) -> io::Result<()> {
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes());
    let (directory, program) = (text(directory)?, text(program)?);
    in_a_process(move || {
        become_user(Uid::from_raw(id), Gid::from_raw(id), &[])?;
        access(directory.as_c_str(), AccessFlags::X_OK)?;
        access(program.as_c_str(), AccessFlags::R_OK | AccessFlags::X_OK)?;
        Ok(())
    })
}

/// Kills every process of a user in one step, in which none of them can start another.
pub(crate) fn kill_all(id: u32) -> io::Result<()> {
    in_a_process(move || {
        become_user(Uid::from_raw(id), Gid::from_raw(id), &[])?;
        // "To every process that it may signal", except itself. An error means that there is none.
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
        Ok(())
    })
}

/// The group of a container engine's socket, if that is who may use it.
pub(crate) fn group_of_socket(socket: &Path) -> Option<u32> {
    let metadata = fs::metadata(socket).ok()?;
    let may_write = metadata.mode() & 0o060 == 0o060;
    (metadata.file_type().is_socket() && may_write).then(|| metadata.gid())
}

/// The accounts that the job of the user `id` sees: its own, and then the machine's. Programs such as `ssh` refuse to work for
/// a user without one.
pub(crate) fn accounts(id: u32, home: &Path, of_machine: &[u8]) -> Vec<u8> {
    let shell = ["/bin/bash", "/bin/sh"]
        .into_iter()
        .find(|shell| Path::new(shell).exists());
    let mut text = format!("{USER_NAME}:x:{id}:{id}:{USER_NAME}:").into_bytes();
    text.extend_from_slice(home.as_os_str().as_bytes());
    text.extend_from_slice(format!(":{}\n", shell.unwrap_or("/bin/sh")).as_bytes());
    text.extend_from_slice(of_machine);
    text
}

/// The groups that the job of the user `id` sees.
pub(crate) fn groups(id: u32, of_machine: &[u8]) -> Vec<u8> {
    let mut text = format!("{USER_NAME}:x:{id}:\n").into_bytes();
    text.extend_from_slice(of_machine);
    text
}

/// Removes what a user without processes left in the directories that everybody may write to.
pub(crate) fn remove_leftovers(id: u32) {
    for directory in SHARED_DIRECTORIES {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        for entry in entries.filter_map(Result::ok) {
            let Ok(metadata) = entry.path().symlink_metadata() else {
                continue;
            };
            if metadata.uid() != id {
                continue;
            }
            let removed = match metadata.is_dir() {
                true => fs::remove_dir_all(entry.path()),
                false => fs::remove_file(entry.path()),
            };
            if let Err(error) = removed {
                tracing::warn!(path = %entry.path().display(), %error, "failed to remove what a job left; remove it by hand");
            }
        }
    }
}

/// Whether every user may run the program, as far as modes say.
pub(crate) fn everybody_may_run(program: &Path) -> bool {
    let may_run = |found: fs::Metadata| found.mode() & 0o005 == 0o005;
    fs::metadata(program).is_ok_and(may_run) && program.parent().is_none_or(everybody_may_pass)
}

/// Whether every user may pass through the folder and those around it, as far as modes say.
pub(crate) fn everybody_may_pass(folder: &Path) -> bool {
    let may_pass = |folder: &Path| fs::metadata(folder).is_ok_and(|found| found.mode() & 0o001 == 0o001);
    folder.ancestors().all(may_pass)
}

/// Lets every user pass through the folder, but not look at what is in it.
pub(crate) fn let_everybody_pass(folder: &Path) -> io::Result<()> {
    let mode = fs::metadata(folder)?.mode();
    match mode & 0o011 {
        0o011 => Ok(()),
        _ => fs::set_permissions(folder, fs::Permissions::from_mode(mode & 0o7777 | 0o011)),
    }
}

/// Copies `program` to `copy`, for everybody to run, unless that is done already.
pub(crate) fn copy_program(program: &Path, copy: &Path) -> io::Result<()> {
    let from = fs::metadata(program)?;
    let is_same = |to: &fs::Metadata| to.len() == from.len() && to.modified().ok() == from.modified().ok();
    if fs::metadata(copy).is_ok_and(|to| is_same(&to)) {
        return Ok(());
    }
    let mut new = copy.as_os_str().to_os_string();
    new.push(".new");
    fs::copy(program, &new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    OpenOptions::new()
        .write(true)
        .open(&new)?
        .set_modified(from.modified()?)?;
    fs::rename(new, copy)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_free_or_there_is_none() {
        let users = HostUsers { first: 70, count: 4 };
        let chosen = |taken: &[u32]| first_free(users, "a job", |id| !taken.contains(id));
        let first = chosen(&[]).unwrap();
        assert!((70..74).contains(&first));
        let mut taken = Vec::new();
        while let Some(id) = chosen(&taken) {
            assert!((70..74).contains(&id) && !taken.contains(&id));
            taken.push(id);
        }
        assert_eq!(taken.len(), 4);
        let begins: BTreeSet<_> = (0..50)
            .map(|job| first_free(users, &job.to_string(), |_| true))
            .collect();
        assert_eq!(begins.len(), 4, "jobs do not all begin with the same user");
        assert_eq!(first_free(HostUsers { first: 70, count: 0 }, "a job", |_| true), None);
    }

    #[test]
    fn a_job_has_an_account_before_those_of_the_machine() {
        let text = accounts(70, Path::new("/jobs/1/home"), b"root:x:0:0::/root:/bin/sh\n");
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("circleci:x:70:70:circleci:/jobs/1/home:/bin/"),
            "{text}"
        );
        assert_eq!(lines[1..], ["root:x:0:0::/root:/bin/sh"]);
        assert_eq!(groups(70, b"root:x:0:\n"), b"circleci:x:70:\nroot:x:0:\n");
    }

    #[test]
    fn a_program_below_a_private_folder_is_copied_for_everybody() {
        let root = tempfile::tempdir().unwrap();
        let (private, copy) = (root.path().join("program"), root.path().join("copy"));
        fs::write(&private, "one").unwrap();
        fs::set_permissions(&private, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!everybody_may_run(&private));
        assert!(everybody_may_run(&fs::canonicalize("/bin/sh").unwrap()));
        copy_program(&private, &copy).unwrap();
        assert_eq!(fs::metadata(&copy).unwrap().mode() & 0o777, 0o755);
        let before = fs::metadata(&copy).unwrap().ino();
        copy_program(&private, &copy).unwrap();
        assert_eq!(fs::metadata(&copy).unwrap().ino(), before, "it is the same program");
        fs::write(&private, "another").unwrap();
        copy_program(&private, &copy).unwrap();
        assert_eq!(fs::read_to_string(&copy).unwrap(), "another");
    }
}
