//! A disk that refuses any one operation of publishing, or all that need space: a clear error, a sound store, nothing
//! left behind, and the next run succeeds.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pipe_cache::{CacheError, Disk, RealDisk};

use crate::power_cut::{find_lie, tree};
use crate::sandbox::*;

const FILES: [(&str, &str); 3] = [("a", "first file"), ("b", "second file"), ("more/c", "third file")];

/// `ENOSPC`: the disk is full.
pub(crate) const FULL: i32 = 28;
/// `EIO`: the disk is broken.
pub(crate) const BROKEN: i32 = 5;

/// What the disk refuses, counted from the first operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refuses {
    /// This operation alone.
    Only(usize),
    /// From this operation on, all that need space.
    SpaceFrom(usize),
}

/// A disk that refuses; a refused write has written half.
#[derive(Debug)]
pub(crate) struct FaultyDisk {
    refuses: Refuses,
    errno: i32,
    n_done: AtomicUsize,
    n_refused: AtomicUsize,
}

impl FaultyDisk {
    pub(crate) fn new(refuses: Refuses, errno: i32) -> Arc<Self> {
        Arc::new(FaultyDisk { refuses, errno, n_done: AtomicUsize::new(0), n_refused: AtomicUsize::new(0) })
    }

    /// Whether it has refused anything.
    pub(crate) fn has_refused(&self) -> bool {
        self.n_refused.load(Ordering::SeqCst) > 0
    }

    fn ask(&self, needs_space: bool) -> io::Result<()> {
        let number = self.n_done.fetch_add(1, Ordering::SeqCst);
        let is_refused = match self.refuses {
            Refuses::Only(wanted) => number == wanted,
            Refuses::SpaceFrom(first) => needs_space && number >= first,
        };
        self.n_refused.fetch_add(usize::from(is_refused), Ordering::SeqCst);
        if is_refused { Err(io::Error::from_raw_os_error(self.errno)) } else { Ok(()) }
    }
}

impl Disk for FaultyDisk {
    fn create_folders(&self, path: &Path) -> io::Result<()> {
        self.ask(!path.exists())?;
        RealDisk.create_folders(path)
    }
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.ask(true).inspect_err(|_| RealDisk.write(path, &bytes[..bytes.len() / 2]).unwrap_or_default())?;
        RealDisk.write(path, bytes)
    }
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.ask(true).inspect_err(|_| RealDisk.append(path, &bytes[..bytes.len() / 2]).unwrap_or_default())?;
        RealDisk.append(path, bytes)
    }
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask(true)?;
        RealDisk.copy(from, to)
    }
    fn seal(&self, path: &Path) -> io::Result<()> {
        self.ask(false)?;
        RealDisk.seal(path)
    }
    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.ask(true)?;
        RealDisk.sync_file(path)
    }
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.ask(true)?;
        RealDisk.sync_folder(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask(true)?;
        RealDisk.rename(from, to)
    }
    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.ask(false)?;
        RealDisk.remove_folder(path)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.ask(false)?;
        RealDisk.remove_file(path)
    }
}

/// Everything in the store but the stat memo, which is by inode numbers, and what is held now.
fn all(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    tree(root).into_iter().filter(|(path, _)| !path.starts_with("idx/stat") && !path.starts_with("gc")).collect()
}

/// Publishes on a disk that refuses; gives whether it refused anything, and whether publishing failed.
fn publish_refused(refuses: Refuses, errno: i32, clean: &[(PathBuf, Vec<u8>)]) -> (bool, bool) {
    let sandbox = Sandbox::new();
    let disk = FaultyDisk::new(refuses, errno);
    let published = sandbox.reopen_on(disk.clone()).and_then(|store| publish(&store, FINGERPRINT, &FILES));
    let (Refuses::Only(first) | Refuses::SpaceFrom(first)) = refuses;
    let is_refused = disk.n_done.load(Ordering::SeqCst) > first;
    if let Err(error) = &published {
        let CacheError::Io { verb, path, source } = error else { panic!("{refuses:?}: {error}") };
        assert_eq!(source.raw_os_error(), Some(errno), "{refuses:?}");
        assert!(path.starts_with(sandbox.store.root()) && !verb.is_empty(), "{error}");
    }
    // The same store, then as the next run opens it.
    assert_eq!(find_lie(&sandbox.store, &[FINGERPRINT]), None, "{refuses:?}");
    let store = sandbox.reopen();
    for folder in ["tmp", "locks"] {
        assert_eq!(names(&sandbox.in_store(folder)), Vec::<String>::new(), "{refuses:?}");
    }
    if published.is_ok() {
        assert!(store.lookup(FINGERPRINT).expect("looked up").is_some(), "{refuses:?}");
    }
    publish(&store, FINGERPRINT, &FILES).expect("the next run succeeds");
    assert_eq!(find_lie(&store, &[FINGERPRINT]), None, "{refuses:?}");
    // Its lock in `tmp/` is there as long as it is.
    drop(store);
    let (left, right) = (all(sandbox.store.root()), clean);
    let paths = |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(paths(&left), paths(right), "{refuses:?}: something is left behind");
    let is_index = |path: &Path| path.starts_with("idx");
    assert!(left.iter().zip(right).all(|(left, right)| is_index(&left.0) || left == right), "{refuses:?}");
    (is_refused, published.is_err())
}

#[test]
fn any_operation_may_be_refused() {
    let clean = Sandbox::new();
    publish(&clean.reopen(), FINGERPRINT, &FILES).expect("published");
    let clean = all(clean.store.root());
    for errno in [FULL, BROKEN] {
        let kinds: [fn(usize) -> Refuses; 2] = [Refuses::Only, Refuses::SpaceFrom];
        for refuses in kinds {
            let (mut n_operations, mut n_failed) = (0, 0);
            while let (true, is_failed) = publish_refused(refuses(n_operations), errno, &clean) {
                n_operations += 1;
                n_failed += usize::from(is_failed);
            }
            eprintln!("errno {errno}, {:?}: {n_failed} of {n_operations} refusals fail the run", refuses(0));
            assert!(n_operations > 20 && n_failed + 6 > n_operations, "{n_failed} of {n_operations}");
        }
    }
}
