//! Manifests that are read while the pipeline file is: those that the lock file names, which mostly are all that a plan asks for.
//!
//! ```text
//! this thread     pipeline file --spec--> Pipeline --\
//! another thread  lock file --> its manifests --------> plan
//! ```
//!
//! Of 10,000 stages the manifests take a fifth of a run that has nothing to do. A small lock file is read on the spot: a thread would take
//! longer. It deliberately decides nothing: what is not here is looked up, and what the lock file should not name is not asked for.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use pipe_cache::{Manifest, Store};

use crate::error::RunnerError;
use crate::lockfile::LockFile;

/// Of a lock file: some 300 stages, whose manifests take as long as five threads to start.
const LOCK_BYTES_MIN: u64 = 32 << 10;

/// By fingerprint.
#[derive(Default)]
pub struct Ahead {
    manifests: HashMap<String, Arc<Manifest>>,
}

impl Ahead {
    /// The manifest under a fingerprint, as far as it was read.
    pub fn get(&self, fingerprint: &str) -> Option<Arc<Manifest>> {
        self.manifests.get(fingerprint).cloned()
    }

    /// Does `work`, reads the lock file at `lock_path` and, meanwhile if that pays, the manifests in the store at `store_dir` that it names.
    ///
    /// # Errors
    /// As [`LockFile::load`], beside what came of `work`. What else cannot be read is left to who looks it up.
    pub fn beside<T>(
        lock_path: &Path,
        store_dir: &Path,
        work: impl FnOnce() -> T,
    ) -> (T, Result<(LockFile, Ahead), RunnerError>) {
        let is_large = fs::metadata(lock_path).is_ok_and(|lock| lock.len() >= LOCK_BYTES_MIN);
        let has_another_processor = thread::available_parallelism().is_ok_and(|n| n.get() > 1);
        let alone = || LockFile::load(lock_path).map(|lock| (lock, Ahead::default()));
        if !(is_large && has_another_processor) {
            let done = work();
            return (done, alone());
        }
        thread::scope(|scope| {
            let reader = thread::Builder::new().name("ahead".into());
            let reader = reader.spawn_scoped(scope, || {
                let lock = LockFile::load(lock_path)?;
                let ahead = Ahead::read(&lock, store_dir);
                Ok((lock, ahead))
            });
            let done = work();
            let read = match reader.map(thread::ScopedJoinHandle::join) {
                Ok(Ok(read)) => read,
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                Err(_) => alone(),
            };
            (done, read)
        })
    }

    fn read(lock: &LockFile, store_dir: &Path) -> Ahead {
        let Ok(store) = Store::open_to_read(store_dir) else { return Ahead::default() };
        let manifest = |fingerprint: &str| {
            let manifest = store.lookup(fingerprint).ok()??;
            Some((fingerprint.to_string(), Arc::new(manifest)))
        };
        Ahead { manifests: lock.fingerprints().filter_map(manifest).collect() }
    }
}
