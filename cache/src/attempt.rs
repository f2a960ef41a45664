//! An attempt: the private folder in which a stage runs, and what becomes of it when its process dies.
//!
//! ```text
//! tmp/<attempt>.lock   made and locked first, removed last; the kernel lets go of it when the process ends
//! tmp/<attempt>/       scratch/, outputs/PORT/...; only the holder of the lock looks inside
//! ```
//!
//! Recovery is the mirror image: a folder whose lock is free belongs to nobody and is removed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::digest::MAP_SIZE_BYTES_MIN;
use crate::layout::check_key;
use crate::lock::FileLock;
use crate::store::{entries, unique_word};
use crate::{CacheError, Store};

const LOCK_SUFFIX: &str = ".lock";

/// A private folder for one execution of one stage. Dropping it removes the folder.
#[derive(Debug)]
pub struct Attempt {
    store: Store,
    dir: PathBuf,
    // Declared last: fields are dropped in order, and the lock must outlive the folder.
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

    /// Whether one of its files is so large that it is digested in parallel.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn has_large_file(&self) -> Result<bool, CacheError> {
        let mut folders = vec![self.outputs_dir()];
        while let Some(folder) = folders.pop() {
            for path in entries(&folder)? {
                let metadata = fs::symlink_metadata(&path).map_err(CacheError::io("read", &path))?;
                if metadata.is_dir() {
                    folders.push(path);
                } else if metadata.len() >= MAP_SIZE_BYTES_MIN {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
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
        let disk = &self.inner.disk;
        let tmp = self.inner.layout.tmp();
        disk.create_folders(&tmp).map_err(CacheError::io("create", &tmp))?;
        loop {
            let stem: String = fingerprint.chars().take(16).collect();
            let dir = tmp.join(format!("{stem}-{}", unique_word()));
            // `None` is a recovery that took the lock between its making and ours: another name, another try.
            if let Some(lock) = FileLock::try_new(&lock_path(&dir))? {
                disk.create_folders(&dir).map_err(CacheError::io("create", &dir))?;
                return Ok(Attempt { store: self.clone(), dir, _lock: lock });
            }
        }
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
            let _ = self.recover_attempt(&attempt_dir(&path));
        }
        Ok(())
    }

    fn recover_attempt(&self, dir: &Path) -> Result<(), CacheError> {
        let lock_path = lock_path(dir);
        let lock = FileLock::try_existing(&lock_path)?;
        // A folder without a lock file has no owner: the lock is made before the folder and removed after it.
        if lock.is_none() && lock_path.exists() {
            return Ok(());
        }
        self.inner.disk.remove_folder(dir).map_err(CacheError::io("remove", dir))
    }
}

fn lock_path(dir: &Path) -> PathBuf {
    let mut path = dir.as_os_str().to_owned();
    path.push(LOCK_SUFFIX);
    PathBuf::from(path)
}

/// The attempt that an entry of `tmp/` belongs to: the folder itself or its lock.
fn attempt_dir(entry: &Path) -> PathBuf {
    let name = entry.to_string_lossy();
    name.strip_suffix(LOCK_SUFFIX).map_or_else(|| entry.to_path_buf(), PathBuf::from)
}
