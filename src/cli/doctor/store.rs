//! The store's folder: whether it can be written, and whether its file system does what a store relies on.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};

use super::Check;
use crate::cli::session::Session;
use crate::report::numbers::{bytes, plural};
use crate::room::free_bytes;

/// Less is soon full: some ten runs of the smallest models.
const ROOM_MIN_BYTES: u64 = 1_000_000_000;

/// How far the clock of a file server may be off before times of files mislead.
const SKEW_MAX: Duration = Duration::from_secs(5);

pub(super) fn checks(session: &Session<'_>) -> Vec<Check> {
    let root = session.store_dir();
    let shown = session.store_as_given.display();
    let is_there = root.is_dir();
    let Some(folder) = root.ancestors().find(|folder| fs::metadata(here(folder)).is_ok()).map(here) else {
        return vec![Check::problem(
            "store",
            format!("`{shown}` and nothing above it is there"),
            "`--store DIR` puts it elsewhere",
        )];
    };
    let probe = match Probe::new(folder) {
        Ok(probe) => probe,
        Err(error) => {
            let found = format!("`{shown}` cannot be written: {error}");
            return vec![Check::problem("store", found, "make it writable, or put it elsewhere with `--store DIR`")];
        }
    };
    let state = if is_there { "writable" } else { "not there yet, can be made" };
    let mut checks = vec![Check::ok("store", format!("{shown}, {state}")), file_system(folder)];
    checks.push(probe.locks());
    checks.push(probe.renames());
    checks.push(probe.copies());
    checks.push(probe.clock());
    checks.push(room(session, folder));
    checks.extend(leftovers(&root));
    checks
}

/// The current folder where a path is empty.
fn here(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

/// A folder to try things in, removed at the end.
struct Probe(PathBuf);

impl Probe {
    fn new(beside: &Path) -> std::io::Result<Self> {
        let folder = beside.join(format!(".pipe-doctor-{}", std::process::id()));
        fs::create_dir(&folder)?;
        let probe = Probe(folder);
        fs::write(probe.path("written"), "written")?;
        Ok(probe)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// As stage locks do: of two handles, one gets it.
    fn locks(&self) -> Check {
        let open = || OpenOptions::new().write(true).open(self.path("written"));
        let try_both = || -> std::io::Result<bool> {
            let (first, second) = (open()?, open()?);
            flock(&first, FlockOperation::NonBlockingLockExclusive)?;
            Ok(flock(&second, FlockOperation::NonBlockingLockExclusive).is_err())
        };
        let help = "two runs at a time would make the same stages, and could disturb each other: run one at a time, or put the store on a local disk with `--store DIR`";
        match try_both() {
            Ok(true) => Check::ok("locks", "flock keeps a second one out"),
            Ok(false) => Check::problem("locks", "flock lets two in at a time", help),
            Err(error) => Check::problem("locks", format!("flock does not work: {error}"), help),
        }
    }

    /// As publishing does: written, synced, renamed over what is there, the folder synced.
    fn renames(&self) -> Check {
        let publish = || -> std::io::Result<String> {
            fs::write(self.path("target"), "before")?;
            let mut file = File::create(self.path("beside"))?;
            file.write_all(b"after")?;
            file.sync_data()?;
            fs::rename(self.path("beside"), self.path("target"))?;
            File::open(&self.0)?.sync_all()?;
            fs::read_to_string(self.path("target"))
        };
        let help = "put the store on a local disk with `--store DIR`";
        match publish() {
            Ok(text) if text == "after" => Check::ok("writing", "files are synced and renamed"),
            Ok(_) => Check::problem("writing", "a renamed file has the bytes of the one it replaced", help),
            Err(error) => Check::problem("writing", format!("a file cannot be synced and renamed: {error}"), help),
        }
    }

    fn copies(&self) -> Check {
        match self.share() {
            true => Check::ok("copies", "share their bytes with the store: `to:` takes no room on this disk"),
            false => Check::ok("copies", "take room of their own: the file system shares no bytes"),
        }
    }

    #[cfg(target_os = "linux")]
    fn share(&self) -> bool {
        let Ok(from) = File::open(self.path("written")) else { return false };
        let Ok(to) = File::create(self.path("shared")) else { return false };
        rustix::fs::ioctl_ficlone(&to, &from).is_ok()
    }

    #[cfg(not(target_os = "linux"))]
    fn share(&self) -> bool {
        false
    }

    /// Files are told apart by their times, and runs are named after them.
    fn clock(&self) -> Check {
        let help = "set the clock (`timedatectl`): runs are named after it, and files told apart by it";
        let now = SystemTime::now();
        // 2026-01-01: this program is not older.
        if now < SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600) {
            return Check::problem("clock", "it is set to a time before this program was made", help);
        }
        let written = fs::write(self.path("now"), "now").and_then(|()| fs::metadata(self.path("now"))?.modified());
        let skew = written.ok().map(|at| at.duration_since(now).unwrap_or_else(|error| error.duration()));
        match skew {
            Some(skew) if skew > SKEW_MAX => {
                let found = format!("the disk's clock is {} s off the machine's", skew.as_secs());
                Check::warning("clock", found, "let both follow one time server")
            }
            _ => Check::ok("clock", "that of the disk is that of the machine"),
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // What cannot be removed is some bytes in a folder whose name says where they are from.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Magic numbers of statfs(2), and what they mean for a store.
#[cfg(target_os = "linux")]
fn file_system(folder: &Path) -> Check {
    let Ok(stat) = rustix::fs::statfs(folder) else { return Check::ok("file system", "the system does not tell") };
    let network = "locks and times of files may not work as on a local disk: see the lines below";
    match i128::from(stat.f_type) {
        0xEF53 => Check::ok("file system", "ext2 to ext4"),
        0x5846_5342 => Check::ok("file system", "xfs"),
        0x9123_683E => Check::ok("file system", "btrfs"),
        0x794C_7630 => Check::ok("file system", "overlay"),
        0x2FC1_2FC1 => Check::ok("file system", "zfs"),
        0x0102_1994 => Check::warning(
            "file system",
            "tmpfs: in memory",
            "what the store holds is gone after a restart of the machine",
        ),
        0x6969 => Check::warning("file system", "nfs", network),
        0xFF53_4D42 | 0xFE53_4D42 => Check::warning("file system", "smb", network),
        0x6573_5546 => Check::warning("file system", "fuse", network),
        other => Check::ok("file system", format!("of type {other:#x}")),
    }
}

#[cfg(not(target_os = "linux"))]
fn file_system(_: &Path) -> Check {
    Check::ok("file system", "the system does not tell")
}

fn room(session: &Session<'_>, folder: &Path) -> Check {
    let free = session.io.environment.pretended_free_bytes.or_else(|| free_bytes(folder));
    match free {
        None => Check::ok("room", "the system does not tell"),
        Some(free) if free < ROOM_MIN_BYTES => {
            let help = format!("`pipe cache gc{}` says what can be removed", session.store_option());
            Check::warning("room", format!("{} free", bytes(free)), help)
        }
        Some(free) => Check::ok("room", format!("{} free", bytes(free))),
    }
}

/// What earlier runs left and nobody needs.
fn leftovers(root: &Path) -> Option<Check> {
    let entries = |name: &str| fs::read_dir(root.join(name)).into_iter().flatten().flatten();
    let (n_corrupt, n_checkpoints) = (entries("corrupt").count(), entries("checkpoints").count());
    // The other entries are locks.
    let n_attempts = entries("tmp").filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).count();
    if !root.is_dir() {
        return None;
    }
    if n_corrupt > 0 {
        let found = format!("{} with wrong bytes, set aside", plural(n_corrupt, "file"));
        let help = "if you did not change them, test the disk and the memory; `pipe cache gc` removes them";
        return Some(Check::warning("leftovers", found, help));
    }
    let attempts = match n_attempts {
        0 => "none of killed runs".to_string(),
        n => format!("{} of runs that go on or were killed: the next run removes the latter", plural(n, "folder")),
    };
    Some(Check::ok("leftovers", format!("{attempts}; {} of training state", plural(n_checkpoints, "folder"))))
}
