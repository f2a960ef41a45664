//! Locks that die with their process: `flock` on a file that is there only while it is held or waited for.
//!
//! ```text
//! tmp/<owner>.lock        locked while the store value lives; its text is the process id
//!    ^-- locks/<key>      another name of the same file, there while the key is held: one link to take it, one unlink to let go
//! ```
//!
//! Who finds the name taken tries the lock of the file behind it. A live holder has it. That of a killed holder is free: whoever gets it removes
//! the name and starts over, and so does the next opening of the store; so `locks/` stays empty and no lock is ever stale. Making and
//! removing a file for each lock would be the same on any file system without links (it is done there), and on ext4 many times slower: it searches long for an inode
//! where many were freed lately.
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
use crate::store::unique_word;
use crate::{CacheError, Store};

/// How long a waiter sleeps between tries: short for people, long enough to cost nothing.
const POLL_PERIOD: Duration = Duration::from_millis(20);

/// The right to run a stage and to publish what it gave: held by one thread of one process per fingerprint and store, until dropped.
#[derive(Debug)]
pub struct StageLock {
    pub(crate) fingerprint: String,
    _held: Held,
}

/// A key that is held.
#[derive(Debug)]
enum Held {
    Name(#[expect(dead_code, reason = "the key is let go when it is dropped")] HeldName),
    /// Where a file can have one name only.
    File(#[expect(dead_code, reason = "likewise")] FileLock),
}

/// A name of the file that the store value has locked.
#[derive(Debug)]
struct HeldName {
    path: PathBuf,
    identity: Identity,
    /// It holds the lock as long as it lives.
    _store: Store,
}

impl Drop for HeldName {
    fn drop(&mut self) {
        // Only our own: if someone cleared the folder, the name may already be another's.
        if is_at(self.identity, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
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
            if let Some(held) = self.try_hold(&path)? {
                return Ok(Some(StageLock { fingerprint: fingerprint.to_owned(), _held: held }));
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

    /// Takes the key whose name is `path`; `None` if another holds it.
    fn try_hold(&self, path: &Path) -> Result<Option<Held>, CacheError> {
        let (of_owner, identity) = self.owner_lock()?;
        loop {
            match link(&of_owner, path) {
                Ok(()) => return Ok(Some(Held::Name(HeldName { path: path.into(), identity, _store: self.clone() }))),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    // Where its holder is gone, the name goes with the lock that is taken here for a moment.
                    if FileLock::try_existing(path)?.is_none() && path.exists() {
                        return Ok(None);
                    }
                }
                Err(_) => return Ok(FileLock::try_new(path)?.map(Held::File)),
            }
        }
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

/// Another name for a file; the folder of the name is made if it is not there.
fn link(file: &Path, name: &Path) -> io::Result<()> {
    match (fs::hard_link(file, name), name.parent()) {
        (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder)?;
            fs::hard_link(file, name)
        }
        (linked, _) => linked,
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
pub(crate) type Identity = (u64, u64);

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

    /// Makes a file that nobody else has and takes its lock. `path`: its name, given a word that is new.
    ///
    /// # Errors
    /// When the file cannot be made or written.
    pub(crate) fn with_new_name(path: impl Fn(&str) -> PathBuf) -> Result<FileLock, CacheError> {
        loop {
            // `None` is an opening of the store that took the lock between its making and ours: another name, another try.
            if let Some(lock) = Self::try_new(&path(&unique_word()))? {
                return Ok(lock);
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
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

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
