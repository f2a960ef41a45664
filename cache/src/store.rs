//! A store: its folder opened, its format checked, what a killed process left behind removed.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use crate::attempt::Owner;
use crate::hold::Hold;
use crate::layout::Layout;
use crate::{CacheError, Disk, RealDisk};

/// What `FORMAT` says.
const FORMAT: &str = "pipe-store 1";

/// A content-addressed store in a folder. Clones share one store; all of it works from any thread, and next to other
/// processes that use the same folder.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) layout: Layout,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) n_files_read: AtomicU64,
    /// Folders whose names this process made certain.
    pub(crate) certain: Mutex<HashSet<PathBuf>>,
    /// What is relied on through this value: not removed by `gc` while it lives.
    pub(crate) hold: Mutex<Option<Hold>>,
    /// Of the attempts that were begun through this value.
    pub(crate) owner: Mutex<Option<Owner>>,
    /// Opened to look into it: nothing is held.
    pub(crate) is_to_read: bool,
    /// Whether the folder was not there: nothing is written then, not even the index.
    pub(crate) is_absent: bool,
}

/// What a store value is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Write,
    Read,
    /// Read, where there is no store.
    ReadNothing,
}

impl Store {
    /// Opens the store at `root`, makes it if the folder is empty or not there, and removes what killed processes left
    /// in `tmp/`. Opening an existing store reads `FORMAT`, lists `tmp/` and changes nothing.
    ///
    /// # Errors
    /// When the folder holds something else, or a store of another version, or cannot be written.
    pub fn open(root: &Path) -> Result<Store, CacheError> {
        Store::open_on(root, Arc::new(RealDisk))
    }

    /// The same with every change to the store going through `disk`: for tests of crashes.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(root: &Path, disk: Arc<dyn Disk>) -> Result<Store, CacheError> {
        let root = std::path::absolute(root).map_err(CacheError::io("find", root))?;
        let store = Store::at(root, disk, Purpose::Write);
        store.check_format()?;
        store.recover()?;
        store.remove_dead_holds()?;
        Ok(store)
    }

    /// Opens the store at `root` to look into it: makes nothing and removes nothing. A folder that is absent or empty is a
    /// store that holds nothing, and stays as it is.
    ///
    /// # Errors
    /// When the folder holds something else, or a store of another version, or cannot be read.
    pub fn open_to_read(root: &Path) -> Result<Store, CacheError> {
        let root = std::path::absolute(root).map_err(CacheError::io("find", root))?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let store = Store::at(root.clone(), disk.clone(), Purpose::Read);
        if store.has_format()? {
            return Ok(store);
        }
        if !only_beginnings(&root)? && !store.has_format()? {
            return Err(CacheError::NotAStore { root });
        }
        Ok(Store::at(root, disk, Purpose::ReadNothing))
    }

    fn at(root: PathBuf, disk: Arc<dyn Disk>, purpose: Purpose) -> Store {
        let (is_to_read, is_absent) = (purpose != Purpose::Write, purpose == Purpose::ReadNothing);
        let inner = Inner {
            layout: Layout::new(root),
            disk,
            n_files_read: AtomicU64::new(0),
            certain: Mutex::default(),
            hold: Mutex::default(),
            owner: Mutex::default(),
            is_to_read,
            is_absent,
        };
        Store { inner: Arc::new(inner) }
    }

    /// Whether there was no store when this was opened: only [`Store::open_to_read`] leaves it so.
    pub fn is_absent(&self) -> bool {
        self.inner.is_absent
    }

    /// The store's folder, absolute.
    pub fn root(&self) -> &Path {
        self.inner.layout.root()
    }

    /// The folder for resumable training state of a trajectory (a digest); not made here.
    pub fn checkpoint_dir(&self, trajectory: &str) -> PathBuf {
        self.inner.layout.checkpoints().join(trajectory)
    }

    /// Removes the training state of a trajectory, once its result is published and nothing can go on from it that a manifest
    /// does not give. What cannot be removed stays; it is scratch.
    pub fn remove_checkpoint(&self, trajectory: &str) {
        let _ = std::fs::remove_dir_all(self.checkpoint_dir(trajectory));
    }

    /// The folder for the events and logs of a run; not made here.
    pub fn run_dir(&self, run_id: &str) -> PathBuf {
        self.inner.layout.runs().join(run_id)
    }

    /// The ids of all runs, sorted; oldest first, as ids begin with their time.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list_runs(&self) -> Result<Vec<String>, CacheError> {
        let mut ids: Vec<String> = entries(&self.inner.layout.runs())?
            .into_iter()
            .filter(|path| path.is_dir())
            .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
            .collect();
        ids.sort();
        Ok(ids)
    }

    /// The id of the run that started last.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn latest_run(&self) -> Result<Option<String>, CacheError> {
        Ok(self.list_runs()?.pop())
    }

    fn check_format(&self) -> Result<(), CacheError> {
        let root = self.root();
        if self.has_format()? {
            return Ok(());
        }
        // The second look: another process may have made the store between our looking for `FORMAT` and listing.
        if !only_beginnings(root)? && !self.has_format()? {
            return Err(CacheError::NotAStore { root: root.to_path_buf() });
        }
        let disk = &self.inner.disk;
        self.make_root()?;
        // The store lies in the user's project, and nothing of it belongs into their repository.
        let ignore = root.join(".gitignore");
        disk.write_and_sync(&ignore, b"*\n").map_err(CacheError::io("write", &ignore))?;
        let format = self.inner.layout.format();
        let temporary = root.join(format!("FORMAT-{}", unique_word()));
        let text = format!("{FORMAT}\n");
        disk.write_and_sync(&temporary, text.as_bytes()).map_err(CacheError::io("write", &temporary))?;
        disk.rename(&temporary, &format).map_err(CacheError::io("rename", &format))?;
        disk.sync_folder(root).map_err(CacheError::io("sync", root))
    }

    /// Makes the store's folder, so that it survives a power cut: whatever is synced inside is lost with its name.
    fn make_root(&self) -> Result<(), CacheError> {
        let (root, disk) = (self.root(), &self.inner.disk);
        let n_new = root.ancestors().take_while(|folder| !folder.exists()).count();
        disk.create_folders(root).map_err(CacheError::io("create", root))?;
        for folder in root.ancestors().skip(1).take(n_new.max(1)) {
            disk.sync_folder(folder).map_err(CacheError::io("sync", folder))?;
        }
        Ok(())
    }

    fn has_format(&self) -> Result<bool, CacheError> {
        let path = self.inner.layout.format();
        let found = match fs::read_to_string(&path) {
            Ok(text) => text.trim_end().to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(CacheError::Io { verb: "read", path, source }),
        };
        if found == FORMAT {
            return Ok(true);
        }
        Err(CacheError::UnknownFormat { root: self.root().to_path_buf(), found, expected: FORMAT })
    }

    /// Replaces a file below `idx/` in one step. Not synced: the index may be lost at any time.
    pub(crate) fn write_index(&self, path: &Path, bytes: &[u8]) -> Result<(), CacheError> {
        if self.inner.is_absent {
            return Ok(());
        }
        let disk = &self.inner.disk;
        let folder = path.parent().expect("every file of the index lies in a folder");
        let temporary = folder.join(format!(".{}", unique_word()));
        let write = || {
            if disk.write(&temporary, bytes).is_err() {
                disk.create_folders(folder).map_err(CacheError::io("create", folder))?;
                disk.write(&temporary, bytes).map_err(CacheError::io("write", &temporary))?;
            }
            disk.rename(&temporary, path).map_err(CacheError::io("rename", path))
        };
        write().inspect_err(|_| drop(disk.remove_file(&temporary)))
    }
}

/// The paths in a folder in no order; none if it is not there.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(CacheError::Io { verb: "read", path: folder.to_path_buf(), source }),
    };
    let paths: io::Result<Vec<PathBuf>> = listing.map(|entry| Ok(entry?.path())).collect();
    paths.map_err(CacheError::io("read", folder))
}

/// 16 hex digits that no other process or thread comes up with: for names that do not last.
pub(crate) fn unique_word() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

/// Whether the folder is absent, empty, or holds only what a killed first opening leaves.
fn only_beginnings(root: &Path) -> Result<bool, CacheError> {
    let is_beginning = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name == ".gitignore" || name.starts_with("FORMAT-")
    };
    Ok(entries(root)?.iter().all(is_beginning))
}
