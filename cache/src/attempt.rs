//! An attempt: the private folder in which a stage runs, and what becomes of it when its process dies.
//!
//! ```text
//! tmp/<owner>.lock     of a store value: made and locked before its first attempt, removed after its last; the kernel lets go of it
//!                      when the process ends
//! tmp/<owner>-<n>/     scratch/, outputs/PORT/...; only the owner looks inside
//! ```
//!
//! A folder in which nothing but empty folders is left is the next attempt's: on ext4, to make and remove them takes as long as all
//! else that a small stage costs. Recovery is the mirror image: a folder whose owner's lock is free belongs to nobody and is removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use crate::layout::check_key;
use crate::listing::Listing;
use crate::lock::{FileLock, Identity};
use crate::store::entries;
use crate::{CacheError, Disk, Store};

const LOCK_EXTENSION: &str = "lock";

/// A private folder for one execution of one stage. Dropping it removes the folder.
#[derive(Debug)]
pub struct Attempt {
    store: Store,
    dir: PathBuf,
    /// Whether below `outputs/` only the folders of ports are left.
    pub(crate) is_taken_from: bool,
}

/// What all attempts of a store value have in common.
#[derive(Debug)]
pub(crate) struct Owner {
    n_made: u64,
    /// Folders for the next attempts.
    free: Vec<PathBuf>,
    disk: Arc<dyn Disk>,
    /// Held until the store value is gone, and with it every attempt.
    lock: FileLock,
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

    /// Whether only empty folders are left: those of ports, and `scratch/`. Training state of a forced stage would lie beside them.
    fn is_reusable(&self) -> bool {
        let is_expected = |entry: io::Result<fs::DirEntry>| {
            let Ok(entry) = entry else { return false };
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            match entry.file_name().to_str() {
                Some("outputs") => is_folder,
                Some("scratch") => is_folder && fs::read_dir(entry.path()).is_ok_and(|mut left| left.next().is_none()),
                _ => false,
            }
        };
        self.is_taken_from && fs::read_dir(&self.dir).is_ok_and(|mut entries| entries.all(is_expected))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.is_reusable()
            && let Some(owner) = &mut *self.store.inner.owner.lock().unwrap_or_else(PoisonError::into_inner)
        {
            return owner.free.push(std::mem::take(&mut self.dir));
        }
        // What cannot be removed now is removed by the next recovery.
        let _ = self.store.inner.disk.remove_folder(&self.dir);
    }
}

impl Store {
    /// Makes a private folder for running the stage with this fingerprint.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn begin(&self, fingerprint: &str) -> Result<Attempt, CacheError> {
        check_key(fingerprint)?;
        let dir = self.with_owner(|owner| match owner.free.pop().filter(|dir| dir.is_dir()) {
            Some(dir) => Ok(dir),
            None => owner.make_folder(),
        })?;
        Ok(Attempt { store: self.clone(), dir, is_taken_from: false })
    }

    /// The file that this store value has locked, which says that its process is alive.
    pub(crate) fn owner_lock(&self) -> Result<(PathBuf, Identity), CacheError> {
        self.with_owner(|owner| Ok((owner.lock.path().to_path_buf(), owner.lock.identity())))
    }

    fn with_owner<T>(&self, use_it: impl FnOnce(&mut Owner) -> Result<T, CacheError>) -> Result<T, CacheError> {
        let mut owner = self.inner.owner.lock().unwrap_or_else(PoisonError::into_inner);
        use_it(match &mut *owner {
            Some(owner) => owner,
            none => none.insert(Owner::new(&self.inner.layout.tmp(), self.inner.disk.clone())?),
        })
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
    fn new(tmp: &Path, disk: Arc<dyn Disk>) -> Result<Self, CacheError> {
        let lock = FileLock::with_new_name(|word| tmp.join(word).with_extension(LOCK_EXTENSION))?;
        Ok(Owner { n_made: 0, free: Vec::new(), disk, lock })
    }

    fn make_folder(&mut self) -> Result<PathBuf, CacheError> {
        let mut dir = self.lock.path().with_extension("").into_os_string();
        dir.push(format!("-{}", self.n_made));
        self.n_made += 1;
        let dir = PathBuf::from(dir);
        self.disk.create_folders(&dir).map_err(CacheError::io("create", &dir))?;
        Ok(dir)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        for dir in &self.free {
            let _ = self.disk.remove_folder(dir);
        }
    }
}

/// The lock of whom an entry of `tmp/` belongs to: itself, where it is one.
fn lock_of_owner(entry: &Path) -> PathBuf {
    let name = entry.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split(['-', '.']).next().unwrap_or_default();
    entry.with_file_name(format!("{stem}.{LOCK_EXTENSION}"))
}
