//! Folders whose names are certain to survive a power cut: this process saw to it, so publishing need not wait for the disk again.
//!
//! ```text
//! blobs/ab    first use: sync blobs/, and the root for the name `blobs`; all folders that were in blobs/ before are certain then
//!             later:     nothing
//! ```
//!
//! With that, a small stage costs four syncs: its file, the folder of its blob, its manifest, the folder of its manifest. A new folder
//! costs one more, once. It deliberately believes no other process: whoever made a folder may have been killed before
//! the sync.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use crate::store::entries;
use crate::{CacheError, Store};

impl Store {
    /// Makes a folder of the store that is not there.
    pub(crate) fn make_folder(&self, folder: &Path) -> Result<(), CacheError> {
        if folder.is_dir() {
            return Ok(());
        }
        let mut certain = self.inner.certain.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in folder.ancestors().take_while(|folder| !folder.exists()) {
            certain.remove(gone);
        }
        drop(certain);
        self.inner.disk.create_folders(folder).map_err(CacheError::io("create", folder))
    }

    /// Returns when the names in these folders of the store survive a power cut, and their own names too.
    pub(crate) fn sync_folders(&self, folders: &BTreeSet<PathBuf>) -> Result<(), CacheError> {
        for folder in folders {
            self.inner.disk.sync_folder(folder).map_err(CacheError::io("sync", folder))?;
        }
        folders.iter().try_for_each(|folder| self.make_certain(folder))
    }

    fn make_certain(&self, folder: &Path) -> Result<(), CacheError> {
        let certain = || self.inner.certain.lock().unwrap_or_else(PoisonError::into_inner);
        // The root's name is synced when a store is made.
        if folder == self.root() || certain().contains(folder) {
            return Ok(());
        }
        let parent = folder.parent().expect("every folder of the store lies below its root");
        let names = entries(parent)?;
        self.inner.disk.sync_folder(parent).map_err(CacheError::io("sync", parent))?;
        self.make_certain(parent)?;
        certain().extend(names);
        Ok(())
    }
}
