//! What runs on this machine hold of its GPUs and its memory: two of them never take the same.
//!
//! ```text
//! FOLDER/ledger                 locked while somebody looks and takes
//! FOLDER/gpu-0                  locked by the process that has GPU 0
//! FOLDER/memory-2f9c-4294967296 locked by a process that has 4 GiB
//! ```
//!
//! A grant is a lock on a file: it dies with its process, and what a killed one leaves is removed by whoever looks next. All that a
//! stage asks for is taken at once or not at all, so two runs never wait for each other.
//!
//! Only what a stage asks for in its `resources:` is in the ledger. Threads are not: each run has its `--threads`, and the
//! system divides the processors. The folder is of one user; whoever else computes on the machine is not seen.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use pipe_cache::{CacheError, FileLock};

use crate::schedule::Grant;

/// Others hold the lock of the ledger for a few file operations.
const POLL_PERIOD: Duration = Duration::from_millis(2);
/// Who holds it longer is stopped; the next try is a moment later.
const N_POLLS: usize = 50;

/// Prefix of the files of memory grants.
const MEMORY: &str = "memory-";

/// The ledger as one run sees it.
#[derive(Debug)]
pub struct Ledger {
    /// `None`: this run is the only one.
    folder: Option<PathBuf>,
    n_gpus: usize,
    memory_bytes: u64,
    /// By stage.
    holds: BTreeMap<usize, Hold>,
}

#[derive(Debug, Default)]
struct Hold {
    gpus: Vec<usize>,
    locks: Vec<FileLock>,
}

/// What comes of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The numbers of the GPUs.
    Granted(Vec<usize>),
    /// These processes hold too much of it, sorted.
    HeldBy(Vec<u32>),
}

impl Ledger {
    /// The ledger in `folder`, which is made with the first grant, for a machine with so many GPUs and bytes of memory. Without a
    /// folder it knows only of this run.
    pub fn new(folder: Option<PathBuf>, n_gpus: usize, memory_bytes: u64) -> Self {
        Ledger { folder, n_gpus, memory_bytes, holds: BTreeMap::new() }
    }

    /// Asks for what a stage is to have until [`Ledger::give_back`]; nothing is asked of nobody.
    pub(super) fn ask(&mut self, stage: usize, n_gpus: usize, memory_bytes: u64) -> Result<Answer, CacheError> {
        if n_gpus == 0 && memory_bytes == 0 {
            return Ok(Answer::Granted(Vec::new()));
        }
        let memory_bytes = memory_bytes.min(self.memory_bytes);
        let hold = match &self.folder {
            Some(folder) => match self.take(folder, n_gpus.min(self.n_gpus), memory_bytes)? {
                Ok(hold) => hold,
                Err(holders) => return Ok(Answer::HeldBy(holders)),
            },
            None => {
                let is_free = |gpu: &usize| self.holds.values().all(|hold| !hold.gpus.contains(gpu));
                Hold { gpus: (0..self.n_gpus).filter(is_free).take(n_gpus).collect(), locks: Vec::new() }
            }
        };
        let gpus = hold.gpus.clone();
        self.holds.insert(stage, hold);
        Ok(Answer::Granted(gpus))
    }

    /// The stage has ended.
    pub(super) fn give_back(&mut self, stage: usize) {
        self.holds.remove(&stage);
    }

    /// From now on this run is the only one it knows.
    pub(super) fn forget_others(&mut self) {
        self.folder = None;
    }

    /// All of it, or the processes that hold too much.
    fn take(&self, folder: &Path, n_gpus: usize, memory_bytes: u64) -> Result<Result<Hold, Vec<u32>>, CacheError> {
        make_private(folder)?;
        let Some(_ledger) = lock(&folder.join("ledger"))? else {
            return Ok(Err(vec![FileLock::holder(&folder.join("ledger"))]));
        };
        let (mut hold, mut holders) = (Hold::default(), Vec::new());
        for gpu in 0..self.n_gpus {
            if hold.gpus.len() == n_gpus {
                break;
            }
            let path = folder.join(format!("gpu-{gpu}"));
            match FileLock::try_new(&path)? {
                Some(lock) => {
                    hold.gpus.push(gpu);
                    hold.locks.push(lock);
                }
                None => holders.push(FileLock::holder(&path)),
            }
        }
        if hold.gpus.len() == n_gpus {
            holders.clear();
        }
        if memory_bytes > 0 {
            let (held_bytes, who) = memory_held(folder)?;
            if held_bytes.saturating_add(memory_bytes) > self.memory_bytes {
                holders.extend(who);
            } else if holders.is_empty() {
                hold.locks.push(new_memory_grant(folder, memory_bytes)?);
            }
        }
        holders.sort_unstable();
        holders.dedup();
        Ok(if holders.is_empty() { Ok(hold) } else { Err(holders) })
    }
}

/// `None` where another process has it for long.
fn lock(path: &Path) -> Result<Option<FileLock>, CacheError> {
    for _ in 0..N_POLLS {
        if let Some(lock) = FileLock::try_new(path)? {
            return Ok(Some(lock));
        }
        thread::sleep(POLL_PERIOD);
    }
    Ok(None)
}

/// The sum of all grants of memory, and whose they are. What dead processes left is removed.
fn memory_held(folder: &Path) -> Result<(u64, Vec<u32>), CacheError> {
    let (mut held_bytes, mut holders) = (0u64, Vec::new());
    let unreadable = |source| CacheError::Io { verb: "read", path: folder.to_path_buf(), source };
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(bytes) = name.strip_prefix(MEMORY).and_then(|rest| rest.rsplit_once('-')?.1.parse::<u64>().ok())
        else {
            continue;
        };
        // A lock that can be had is one of a dead process; letting it go removes the file.
        if FileLock::try_existing(&entry.path())?.is_none() && entry.path().exists() {
            held_bytes = held_bytes.saturating_add(bytes);
            holders.push(FileLock::holder(&entry.path()));
        }
    }
    Ok((held_bytes, holders))
}

/// The first free name; the ledger is locked, so nobody takes it in between.
fn new_memory_grant(folder: &Path, memory_bytes: u64) -> Result<FileLock, CacheError> {
    let mut number = 0;
    loop {
        if let Some(lock) = FileLock::try_new(&folder.join(format!("{MEMORY}{number}-{memory_bytes}")))? {
            return Ok(lock);
        }
        number += 1;
    }
}

/// Makes the folder, for this user alone. One that another user made could lead our writes elsewhere.
fn make_private(folder: &Path) -> Result<(), CacheError> {
    let failed = |verb, source| CacheError::Io { verb, path: folder.to_path_buf(), source };
    match DirBuilder::new().recursive(true).mode(0o700).create(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed("create", error)),
    }
    let found = fs::symlink_metadata(folder).map_err(|error| failed("read", error))?;
    let is_ours = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0;
    if is_ours { Ok(()) } else { Err(failed("use", io::Error::other("it is not a folder of this user alone"))) }
}

/// `process 4711 holds the GPU it asks for: waiting for it`.
pub(super) fn waits_for(holders: &[u32], grant: &Grant) -> String {
    let what = match (grant.gpus, grant.memory_bytes) {
        (0, _) => "the memory",
        (1, 0) => "the GPU",
        (_, 0) => "the GPUs",
        _ => "the GPU or the memory",
    };
    let pids = holders.iter().map(u32::to_string).collect::<Vec<_>>();
    match pids.as_slice() {
        [pid] => format!("process {pid} holds {what} it asks for: waiting for it"),
        [before @ .., last] => {
            format!("processes {} and {last} hold {what} it asks for: waiting for them", before.join(", "))
        }
        [] => format!("another process holds {what} it asks for: waiting for it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn ledger(folder: &tempfile::TempDir) -> Ledger {
        Ledger::new(Some(folder.path().join("ledger")), 2, 10 * GIB)
    }

    fn granted(gpus: &[usize]) -> Answer {
        Answer::Granted(gpus.to_vec())
    }

    fn held_by_us() -> Answer {
        Answer::HeldBy(vec![std::process::id()])
    }

    #[test]
    fn a_gpu_is_of_one_run_at_a_time() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mut one, mut other) = (ledger(&folder), ledger(&folder));
        assert_eq!(one.ask(0, 1, 0).expect("asked"), granted(&[0]));
        assert_eq!(other.ask(0, 2, 0).expect("asked"), held_by_us());
        assert_eq!(other.ask(0, 1, 0).expect("asked"), granted(&[1]), "it kept none of those it could not use");
        assert_eq!(one.ask(1, 1, 0).expect("asked"), held_by_us());
        one.give_back(0);
        assert_eq!(one.ask(1, 1, 0).expect("asked"), granted(&[0]));
        drop(other);
        assert_eq!(one.ask(2, 1, 0).expect("asked"), granted(&[1]));
    }

    #[test]
    fn memory_is_never_granted_twice() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mut one, mut other) = (ledger(&folder), ledger(&folder));
        assert_eq!(one.ask(0, 0, 4 * GIB).expect("asked"), granted(&[]));
        assert_eq!(other.ask(0, 0, 4 * GIB).expect("asked"), granted(&[]));
        assert_eq!(other.ask(1, 0, 3 * GIB).expect("asked"), held_by_us());
        assert_eq!(other.ask(1, 0, 2 * GIB).expect("asked"), granted(&[]));
        one.give_back(0);
        assert_eq!(one.ask(1, 0, 4 * GIB).expect("asked"), granted(&[]));
        assert_eq!(one.ask(2, 0, 1).expect("asked"), held_by_us());
    }

    #[test]
    fn a_gpu_is_not_kept_by_who_lacks_the_memory() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mut one, mut other) = (ledger(&folder), ledger(&folder));
        assert_eq!(one.ask(0, 0, 9 * GIB).expect("asked"), granted(&[]));
        assert_eq!(other.ask(0, 2, 2 * GIB).expect("asked"), held_by_us());
        assert_eq!(one.ask(1, 2, 0).expect("asked"), granted(&[0, 1]));
    }

    #[test]
    fn runs_side_by_side_never_have_the_same() {
        use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (gpus, bytes) = ([AtomicBool::new(false), AtomicBool::new(false)], AtomicU64::new(0));
        let run = |number: usize| {
            let mut ledger = ledger(&folder);
            let mut n_granted = 0;
            for turn in 0.. {
                let (n_gpus, memory_bytes) = ((turn + number) % 3, (turn * number % 5) as u64 * 2 * GIB);
                match ledger.ask(0, n_gpus, memory_bytes).expect("asked") {
                    Answer::HeldBy(_) => thread::yield_now(),
                    Answer::Granted(granted) => {
                        assert_eq!(granted.len(), n_gpus);
                        granted.iter().for_each(|&gpu| assert!(!gpus[gpu].swap(true, SeqCst), "GPU {gpu} twice"));
                        assert!(bytes.fetch_add(memory_bytes, SeqCst) + memory_bytes <= 10 * GIB);
                        thread::yield_now();
                        bytes.fetch_sub(memory_bytes, SeqCst);
                        granted.iter().for_each(|&gpu| gpus[gpu].store(false, SeqCst));
                        ledger.give_back(0);
                        n_granted += 1;
                    }
                }
                if n_granted == 40 {
                    break;
                }
            }
        };
        thread::scope(|scope| (1..5).for_each(|number| drop(scope.spawn(move || run(number)))));
    }

    #[test]
    fn more_than_the_machine_has_is_all_of_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(ledger(&folder).ask(0, 7, 99 * GIB).expect("asked"), granted(&[0, 1]));
    }

    #[test]
    fn what_a_dead_process_left_is_free() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut ledger = ledger(&folder);
        assert_eq!(ledger.ask(0, 1, GIB).expect("asked"), granted(&[0]));
        for name in ["gpu-1", "memory-7-9663676416"] {
            fs::write(folder.path().join("ledger").join(name), "1").expect("a file can be written");
        }
        assert_eq!(ledger.ask(1, 1, 9 * GIB).expect("asked"), granted(&[1]));
    }

    #[test]
    fn without_a_folder_it_numbers_the_gpus_of_one_run() {
        let mut ledger = Ledger::new(None, 2, GIB);
        assert_eq!(ledger.ask(0, 1, 0).expect("asked"), granted(&[0]));
        assert_eq!(ledger.ask(1, 1, GIB).expect("asked"), granted(&[1]));
        ledger.give_back(0);
        assert_eq!(ledger.ask(2, 1, 0).expect("asked"), granted(&[0]));
    }

    #[test]
    fn a_folder_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let shared = folder.path().join("ledger");
        fs::create_dir(&shared).expect("a folder can be made");
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).expect("it is ours");
        let error = ledger(&folder).ask(0, 1, 0).expect_err("anyone could put a link there");
        assert_eq!(crate::error::chain(&error).matches("not a folder of this user alone").count(), 1);
    }
}
