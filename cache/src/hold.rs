//! Holds: what a process relies on, told to whoever collects garbage.
//!
//! ```text
//! gc/lock           shared by who looks whether files are there and then relies on them; exclusive by `gc`, for a few removals
//! gc/turn           taken on the way to gc/lock, so that many who share cannot keep `gc` waiting
//! gc/running        locked while a `gc` runs
//! gc/holds/<word>   process id, then `manifest <fingerprint>` and `checkpoint <trajectory>` lines; locked while its process lives
//! ```
//!
//! First hold, then look: a fingerprint is held before its files are looked at. So either `gc` sees the hold and keeps them,
//! or the look comes after the removal and finds them gone. A hold ends with its store value, but not while a `gc` runs, which
//! decided before what nobody holds: then its file stays, and the next opening removes it.
//!
//! It deliberately holds no single blobs: what has no manifest is protected by the shared lock until it has one.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::layout::{Layout, check_key};
use crate::lock::FileLock;
use crate::store::entries;
use crate::{CacheError, Store};

/// What one store value holds, until it is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    layout: Layout,
    file: FileLock,
    lines: HashSet<String>,
}

/// What is held by all processes together.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) fingerprints: BTreeSet<String>,
    pub(crate) trajectories: BTreeSet<String>,
    /// Files of holds; of processes that ended, too, while a `gc` runs.
    pub(crate) n_holds: usize,
}

/// The lock of `gc`, shared or exclusive, until dropped.
#[derive(Debug)]
pub(crate) struct GcLock(#[expect(dead_code, reason = "the lock is released when the file is closed")] File);

impl Store {
    /// Keeps the files of the manifests with these fingerprints, and the training state of these trajectories, from being
    /// removed by `gc` for as long as this value or a clone of it lives. What is gone already stays gone: look
    /// afterwards ([`Store::missing`]). A store that was opened to read holds nothing.
    ///
    /// # Errors
    /// When the disk refuses, or one of them cannot be a key.
    pub fn hold(&self, fingerprints: &[&str], trajectories: &[&str]) -> Result<(), CacheError> {
        if self.inner.is_to_read || self.new_lines(fingerprints, trajectories)?.is_empty() {
            return Ok(());
        }
        let _shared = self.share_gc_lock()?;
        self.hold_while_shared(fingerprints, trajectories)
    }

    /// The same for who shares the lock already.
    pub(crate) fn hold_while_shared(&self, fingerprints: &[&str], trajectories: &[&str]) -> Result<(), CacheError> {
        let lines = self.new_lines(fingerprints, trajectories)?;
        if lines.is_empty() {
            return Ok(());
        }
        let mut hold = self.inner.hold.lock().unwrap_or_else(PoisonError::into_inner);
        let hold = match &mut *hold {
            Some(hold) => hold,
            none => none.insert(Hold::new(&self.inner.layout)?),
        };
        // In one write, each line begun by a line break: the file begins with the process id.
        hold.file.append(&lines.iter().map(|line| format!("\n{line}")).collect::<String>())?;
        hold.lines.extend(lines);
        Ok(())
    }

    fn new_lines(&self, fingerprints: &[&str], trajectories: &[&str]) -> Result<Vec<String>, CacheError> {
        fingerprints.iter().chain(trajectories).try_for_each(|key| check_key(key))?;
        let manifests = fingerprints.iter().map(|fingerprint| format!("manifest {fingerprint}"));
        let all = manifests.chain(trajectories.iter().map(|trajectory| format!("checkpoint {trajectory}")));
        let hold = self.inner.hold.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |line: &String| hold.as_ref().is_none_or(|hold| !hold.lines.contains(line));
        Ok(all.filter(is_new).collect())
    }

    pub(crate) fn share_gc_lock(&self) -> Result<GcLock, CacheError> {
        GcLock::take(&self.inner.layout, FlockOperation::LockShared)
    }

    pub(crate) fn exclude_all(&self) -> Result<GcLock, CacheError> {
        GcLock::take(&self.inner.layout, FlockOperation::LockExclusive)
    }

    /// What is held now. Only who has the lock exclusively may act on it.
    pub(crate) fn held(&self) -> Result<Held, CacheError> {
        let mut held = Held::default();
        for path in entries(&self.inner.layout.holds())? {
            // One that goes away while it is read was let go.
            let Ok(text) = fs::read_to_string(&path) else { continue };
            held.n_holds += 1;
            for line in text.lines() {
                match line.split_once(' ') {
                    Some(("manifest", fingerprint)) => drop(held.fingerprints.insert(fingerprint.to_owned())),
                    Some(("checkpoint", trajectory)) => drop(held.trajectories.insert(trajectory.to_owned())),
                    _ => {}
                }
            }
        }
        Ok(held)
    }

    /// Removes the holds of processes that are gone, unless a `gc` runs: it has decided by them.
    pub(crate) fn remove_dead_holds(&self) -> Result<(), CacheError> {
        let holds = entries(&self.inner.layout.holds())?;
        if holds.is_empty() {
            return Ok(());
        }
        let _shared = self.share_gc_lock()?;
        if !is_gc_running(&self.inner.layout)? {
            self.remove_free_holds(&holds)?;
        }
        Ok(())
    }

    pub(crate) fn remove_free_holds(&self, holds: &[PathBuf]) -> Result<(), CacheError> {
        for path in holds {
            // Letting go of the lock removes the file.
            drop(FileLock::try_existing(path)?);
        }
        Ok(())
    }
}

impl Hold {
    fn new(layout: &Layout) -> Result<Self, CacheError> {
        let folder = layout.holds();
        let file = FileLock::with_new_name(|word| folder.join(word))?;
        Ok(Hold { layout: layout.clone(), file, lines: HashSet::new() })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // What cannot be decided stays: too much is kept then, never too little.
        let Ok(shared) = GcLock::take(&self.layout, FlockOperation::LockShared) else { return self.file.keep() };
        match is_gc_running(&self.layout) {
            Ok(false) => drop(fs::remove_file(self.file.path())),
            _ => self.file.keep(),
        }
        drop(shared);
    }
}

impl GcLock {
    /// Waits without looking at the clock: whoever has it excludes others for a few removals only.
    fn take(layout: &Layout, how: FlockOperation) -> Result<Self, CacheError> {
        let folder = layout.gc();
        let open = |name: &str| -> Result<(File, PathBuf), CacheError> {
            let path = folder.join(name);
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            let file = match options.open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    fs::create_dir_all(&folder).map_err(CacheError::io("create", &folder))?;
                    options.open(&path)
                }
                opened => opened,
            };
            Ok((file.map_err(CacheError::io("open", &path))?, path))
        };
        let ((turn, turn_path), (lock, lock_path)) = (open("turn")?, open("lock")?);
        wait(&turn, &turn_path, FlockOperation::LockExclusive)?;
        wait(&lock, &lock_path, how)?;
        drop(turn);
        Ok(GcLock(lock))
    }
}

fn wait(file: &File, path: &Path, how: FlockOperation) -> Result<(), CacheError> {
    loop {
        match rustix::fs::flock(file, how) {
            Err(Errno::INTR) => {}
            other => return other.map_err(|error| CacheError::io("lock", path)(error.into())),
        }
    }
}

pub(crate) fn running_path(layout: &Layout) -> PathBuf {
    layout.gc().join("running")
}

/// Asked by who shares the lock: a `gc` is running before it has the lock to itself for the first time.
fn is_gc_running(layout: &Layout) -> Result<bool, CacheError> {
    let path = running_path(layout);
    // One that was killed left its file, and the lock is free.
    Ok(path.exists() && FileLock::try_existing(&path)?.is_none() && path.exists())
}
