//! An attempt: the private folder in which a stage runs, and what becomes of it when its process dies.
//!
//! ```text
//! tmp/<owner>.lock           of a store value: made and locked before its first attempt, removed after its last; the kernel lets
//!                            go of it when the process ends
//! tmp/<owner>-<n>-<key>/     scratch/, outputs/PORT/...; only the owner looks inside
//! ```
//!
//! Recovery is the mirror image: a folder whose owner's lock is free belongs to nobody and is removed.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use crate::layout::check_key;
use crate::listing::Listing;
use crate::lock::FileLock;
use crate::store::{entries, unique_word};
use crate::{CacheError, Store};

const LOCK_EXTENSION: &str = "lock";

/// Digits of a fingerprint in the name of an attempt: for people who look.
const KEY_SHOWN: usize = 16;

/// A private folder for one execution of one stage. Dropping it removes the folder.
#[derive(Debug)]
pub struct Attempt {
    store: Store,
    dir: PathBuf,
}

/// What all attempts of a store value have in common.
#[derive(Debug)]
pub(crate) struct Owner {
    /// `tmp/<owner>`, which is no file: the beginning of names.
    stem: PathBuf,
    n_begun: u64,
    /// Held until the store value is gone, and with it every attempt.
    _lock: FileLock,
}
impl Attempt {
    /// The folder: the `work_dir` of [`pipe_contract::Context::new`].
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the stage's files are looked for: one folder per output port.
    pub fn outputs_dir(&self) -> PathBuf {
        self.dir.join("outputs")
    }

    /// The files that the stage has written.
    ///
    /// # Errors
    /// When one of them is no regular file, or has a name that an artifact cannot have, or the disk refuses.
    pub fn list(&self) -> Result<Listing, CacheError> {
        Listing::of(&self.outputs_dir())
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // From the inside out: mostly each is empty then. What cannot be removed now is removed by the next recovery.
        for folder in [self.outputs_dir(), self.dir.join("scratch"), self.dir.clone()] {
            let _ = self.store.inner.disk.remove_folder(&folder);
        }
    }
}

impl Store {
    /// Makes a private folder for running the stage with this fingerprint.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn begin(&self, fingerprint: &str) -> Result<Attempt, CacheError> {
        check_key(fingerprint)?;
        let mut owner = self.inner.owner.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = match &mut *owner {
            Some(owner) => owner,
            none => none.insert(Owner::new(&self.inner.layout.tmp())?),
        };
        let key = &fingerprint[..fingerprint.len().min(KEY_SHOWN)];
        let mut dir = owner.stem.clone().into_os_string();
        dir.push(format!("-{}-{key}", owner.n_begun));
        owner.n_begun += 1;
        let dir = PathBuf::from(dir);
        self.inner.disk.create_folders(&dir).map_err(CacheError::io("create", &dir))?;
        Ok(Attempt { store: self.clone(), dir })
    }

    /// Removes attempts and lock files whose process is gone. What cannot be removed (another user's, say) stays for another time:
    /// nothing depends on it. Opening a store does it; a run does it again at its end, as a child of a killed process holds locks
    /// until it has become another program.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn recover(&self) -> Result<(), CacheError> {
        for path in entries(&self.inner.layout.locks())? {
            // A lock that is free is taken and let go: its file goes with it.
            drop(FileLock::try_existing(&path));
        }
        for path in entries(&self.inner.layout.tmp())? {
            let _ = self.recover_attempt(&path);
        }
        Ok(())
    }

    /// `path`: the folder of an attempt, or the lock of an owner.
    fn recover_attempt(&self, path: &Path) -> Result<(), CacheError> {
        let lock_path = lock_of_owner(path);
        let lock = FileLock::try_existing(&lock_path)?;
        // A folder without a lock file has no owner: the lock is made before the folder and removed after it.
        if lock.is_none() && lock_path.exists() || path == lock_path {
            return Ok(());
        }
        self.inner.disk.remove_folder(path).map_err(CacheError::io("remove", path))
    }
}

impl Owner {
    fn new(tmp: &Path) -> Result<Self, CacheError> {
        loop {
            let stem = tmp.join(unique_word());
            // `None` is a recovery that took the lock between its making and ours: another name, another try.
            if let Some(lock) = FileLock::try_new(&stem.with_extension(LOCK_EXTENSION))? {
                return Ok(Owner { stem, n_begun: 0, _lock: lock });
            }
        }
    }
}

/// The lock of whom an entry of `tmp/` belongs to: itself, where it is one.
fn lock_of_owner(entry: &Path) -> PathBuf {
    let name = entry.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split(['-', '.']).next().unwrap_or_default();
    entry.with_file_name(format!("{stem}.{LOCK_EXTENSION}"))
}
