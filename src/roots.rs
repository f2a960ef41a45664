//! Roots: why an artifact is kept when `pipe cache gc` removes the others.
//!
//! ```text
//! runs/<id>/events.jsonl   the newest N: fingerprints of all their stages
//!                          every run: its pipeline file -> the lock file beside it -> fingerprints
//! ```
//!
//! Pins and what running pipelines use are added by the store itself. A lock file that cannot be read is an error: nothing is
//! removed on a guess. One that is not there keeps nothing. It deliberately removes nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use pipe_cache::{GcRoots, Store};

use crate::error::RunnerError;
use crate::events::{Event, read_events};
use crate::lockfile::LockFile;
use crate::record::RunRecord;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct FoundRoots {
    /// For the store.
    pub roots: GcRoots,
    /// Runs whose artifacts are kept.
    pub n_runs: usize,
    /// Lock files that were read.
    pub lock_files: BTreeSet<PathBuf>,
}

/// Reads the newest `n_runs_kept` runs and all lock files. With `needs_use`, also when each fingerprint was last used, from all runs.
///
/// # Errors
/// When the store or a lock file cannot be read.
pub fn find_roots(store: &Store, n_runs_kept: usize, needs_use: bool) -> Result<FoundRoots, RunnerError> {
    let mut found = FoundRoots::default();
    for (position, run_id) in store.list_runs()?.iter().rev().enumerate() {
        let is_kept = position < n_runs_kept;
        let run_dir = store.run_dir(run_id);
        let ended = fs::metadata(run_dir.join("events.jsonl")).and_then(|metadata| metadata.modified()).ok();
        if position == n_runs_kept {
            // What was written after this run ended is of a run that is kept.
            found.roots.checkpoints_since = Some(ended.unwrap_or(SystemTime::UNIX_EPOCH));
        }
        found.n_runs += usize::from(is_kept);
        if is_kept || needs_use {
            let Some(record) = RunRecord::read(store, run_id) else { continue };
            for fingerprint in record.stages.iter().filter_map(|stage| stage.fingerprint.clone()) {
                if let Some(ended) = ended {
                    let last = found.roots.used.entry(fingerprint.clone()).or_insert(ended);
                    *last = ended.max(*last);
                }
                if is_kept {
                    found.roots.fingerprints.insert(fingerprint);
                }
            }
            found.take_lock_file(LockFile::path_beside(&record.request.file))?;
        } else if let Some((_, Event::RunStarted { request, .. })) = read_events(&run_dir).next() {
            found.take_lock_file(LockFile::path_beside(&request.file))?;
        }
    }
    Ok(found)
}

impl FoundRoots {
    fn take_lock_file(&mut self, path: PathBuf) -> Result<(), RunnerError> {
        if self.lock_files.contains(&path) || !path.exists() {
            return Ok(());
        }
        let lock = LockFile::load(&path)?;
        if lock.is_foreign() {
            return Err(RunnerError::ForeignLock { path });
        }
        self.roots.fingerprints.extend(lock.fingerprints().map(str::to_string));
        self.lock_files.insert(path);
        Ok(())
    }
}
