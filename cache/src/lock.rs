//! Locks that die with their process: `flock` on a file that is there only while it is held or waited for.
//!
//! The holder removes the file before it lets go. Whoever then gets the lock on the removed file notices that the name
//! leads elsewhere, and starts over; so `locks/` stays empty and no lock is ever stale. The file of a killed holder is free, and
//! goes away with the next who takes it, or with the next opening of the store.
//!
//! It deliberately has no `unlock` command and no time-out: the kernel releases a lock when its process ends.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::layout::check_key;
use crate::{CacheError, Store};

/// How long a waiter sleeps between tries: short for people, long enough to cost nothing.
const POLL_PERIOD: Duration = Duration::from_millis(20);

/// The right to run a stage: held by one thread of one process per fingerprint and store, until dropped.
#[derive(Debug)]
pub struct StageLock {
    _file: FileLock,
}

impl Store {
    /// Waits until nobody else runs the stage with this fingerprint. `on_wait` gets the holder's process id, once per
    /// holder seen; 0 where it is not known.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub fn stage_lock(&self, fingerprint: &str, on_wait: &mut dyn FnMut(u32)) -> Result<StageLock, CacheError> {
        let lock = self.stage_lock_unless(fingerprint, on_wait, &|| false)?;
        Ok(lock.expect("waiting ends with the lock where nothing else can end it"))
    }

    /// The same; gives up with `None` once `is_cancelled` says so, within 20 ms.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub fn stage_lock_unless(
        &self,
        fingerprint: &str,
        on_wait: &mut dyn FnMut(u32),
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<StageLock>, CacheError> {
        check_key(fingerprint)?;
        let path = self.lock_path(fingerprint);
        let mut holder_seen = None;
        loop {
            if let Some(file) = FileLock::try_new(&path)? {
                return Ok(Some(StageLock { _file: file }));
            }
            let holder = read_holder(&path);
            if holder_seen != Some(holder) {
                on_wait(holder);
                holder_seen = Some(holder);
            }
            if is_cancelled() {
                return Ok(None);
            }
            thread::sleep(POLL_PERIOD);
        }
    }

    /// Held while a manifest is compared with the one that is there and put in its place.
    pub(crate) fn commit_lock(&self, fingerprint: &str) -> Result<FileLock, CacheError> {
        wait_for(&self.lock_path(&format!("{fingerprint}.commit")))
    }

    /// Held while a file is copied into a folder of the user: what lies there half copied is then of a process that died.
    pub(crate) fn folder_lock(&self, folder: &Path) -> Result<FileLock, CacheError> {
        let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
        let digest = blake3::hash(absolute.as_os_str().as_encoded_bytes());
        wait_for(&self.lock_path(&format!("{}.folder", digest.to_hex())))
    }

    fn lock_path(&self, name: &str) -> PathBuf {
        self.inner.layout.locks().join(name)
    }
}

pub(crate) fn wait_for(path: &Path) -> Result<FileLock, CacheError> {
    loop {
        if let Some(lock) = FileLock::try_new(path)? {
            return Ok(lock);
        }
        thread::sleep(POLL_PERIOD);
    }
}

/// A held lock on a file of its own, which goes away with it, and with the process.
pub struct FileLock {
    path: PathBuf,
    file: File,
    identity: Identity,
    is_kept: bool,
}

/// Device and inode: what makes an open file and a name the same.
type Identity = (u64, u64);

impl FileLock {
    /// Makes the file, and its folder, if needed and takes its lock; `None` if another holds it.
    ///
    /// # Errors
    /// When the file cannot be made or written.
    pub fn try_new(path: &Path) -> Result<Option<FileLock>, CacheError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        loop {
            let file = match (options.open(path), path.parent()) {
                (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir_all(folder).map_err(CacheError::io("create", folder))?;
                    options.open(path)
                }
                (opened, _) => opened,
            };
            let file = file.map_err(CacheError::io("open", path))?;
            match Self::take(file, path)? {
                Taken::Held(lock) => return Ok(Some(lock)),
                Taken::ByOther => return Ok(None),
                Taken::Removed => {}
            }
        }
    }

    /// Takes the lock of a file that is there; `None` if another holds it or nothing is there.
    ///
    /// # Errors
    /// When the file is there and cannot be opened.
    pub fn try_existing(path: &Path) -> Result<Option<FileLock>, CacheError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CacheError::Io { verb: "open", path: path.to_path_buf(), source }),
        };
        match Self::take(file, path)? {
            Taken::Held(lock) => Ok(Some(lock)),
            Taken::ByOther | Taken::Removed => Ok(None),
        }
    }

    /// The process id of who holds the lock of a file; 0 where that is not known.
    pub fn holder(path: &Path) -> u32 {
        read_holder(path)
    }

    fn take(mut file: File, path: &Path) -> Result<Taken, CacheError> {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(Taken::ByOther),
            Err(error) => return Err(CacheError::io("lock", path)(error.into())),
        }
        let opened = file.metadata().map_err(CacheError::io("read", path))?;
        let identity = (opened.dev(), opened.ino());
        if !is_at(identity, path) {
            return Ok(Taken::Removed);
        }
        // Only for those who wait to say for whom; on a full disk it is not known.
        let _ = write_holder(&mut file, opened.len());
        Ok(Taken::Held(FileLock { path: path.to_path_buf(), file, identity, is_kept: false }))
    }
}

impl FileLock {
    /// Adds to the file behind the holder's process id.
    pub(crate) fn append(&mut self, text: &str) -> Result<(), CacheError> {
        self.file.write_all(text.as_bytes()).map_err(CacheError::io("write", &self.path))
    }

    /// Leaves the file there when the lock is let go.
    pub(crate) fn keep(&mut self) {
        self.is_kept = true;
    }
}

enum Taken {
    Held(FileLock),
    ByOther,
    /// The last holder removed the file between our opening and locking it.
    Removed,
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Only our own file: if someone cleared the folder, the name may already be another's.
        if !self.is_kept && is_at(self.identity, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl fmt::Debug for FileLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileLock").field(&self.path).finish()
    }
}

/// Whether `path` still leads to the open file.
fn is_at(file: Identity, path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|named| (named.dev(), named.ino()) == file)
}

fn write_holder(file: &mut File, size_bytes: u64) -> io::Result<()> {
    // Not of a new file: ext4 starts to write a truncated file when it is closed, which takes milliseconds.
    if size_bytes > 0 {
        file.rewind()?;
        file.set_len(0)?;
    }
    file.write_all(std::process::id().to_string().as_bytes())
}

fn read_holder(path: &Path) -> u32 {
    let mut text = String::new();
    let read = File::open(path).and_then(|mut file| file.read_to_string(&mut text));
    read.ok().and_then(|_| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_of_a_removed_file_is_no_lock() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("lock");
        let first = FileLock::try_new(&path).expect("made").expect("free");
        // A waiter has the file open when the holder removes it and lets go.
        let opened = OpenOptions::new().read(true).write(true).open(&path).expect("there");
        drop(first);
        assert!(matches!(FileLock::take(opened, &path).expect("no error"), Taken::Removed));
        assert!(FileLock::try_existing(&path).expect("no error").is_none());
        assert!(FileLock::try_new(&path).expect("made").is_some());
    }
}
