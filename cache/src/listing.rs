//! What a stage has written, looked at once: every check of an attempt's files reads this and not the disk again.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::CacheError;
use crate::digest::MAP_SIZE_BYTES_MIN;
use crate::layout::is_safe_name;
use crate::store::entries;

/// Port to name to file. Folders without files leave nothing.
#[derive(Debug, Default)]
pub struct Listing {
    pub(crate) ports: BTreeMap<String, BTreeMap<String, ListedFile>>,
    /// What lies where the folders of ports should.
    pub(crate) stray: Option<String>,
    /// Whether a port has a folder in its own.
    pub(crate) has_folders: bool,
}

/// A regular file below the folder of a port.
#[derive(Debug)]
pub(crate) struct ListedFile {
    pub(crate) path: PathBuf,
    pub(crate) size_bytes: u64,
    /// Names of its inode: more than one are hard links.
    pub(crate) n_names: u64,
}

impl Listing {
    pub(crate) fn of(outputs_dir: &Path) -> Result<Self, CacheError> {
        let mut listing = Listing::default();
        for path in entries(outputs_dir)? {
            let port = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
                listing.walk(port, path)?;
            } else {
                listing.stray = Some(port);
            }
        }
        Ok(listing)
    }

    /// Adds every file below the folder of a port.
    fn walk(&mut self, port: String, folder: PathBuf) -> Result<(), CacheError> {
        let mut files = BTreeMap::new();
        let mut pending = vec![(String::new(), folder)];
        while let Some((prefix, current)) = pending.pop() {
            for path in entries(&current)? {
                let part = path.file_name().expect("an entry of a folder has a name");
                let name = format!("{prefix}{}", part.to_string_lossy());
                if part.to_str().is_none() || !is_safe_name(&name) {
                    return Err(CacheError::BadName { port, name });
                }
                let found = fs::symlink_metadata(&path).map_err(CacheError::io("read", &path))?;
                if found.is_dir() {
                    self.has_folders = true;
                    pending.push((format!("{name}/"), path));
                } else if found.is_file() {
                    files.insert(name, ListedFile { path, size_bytes: found.len(), n_names: found.nlink() });
                } else {
                    let what = if found.is_symlink() { "symlink" } else { "special file" };
                    return Err(CacheError::NotAFile { port, name, what });
                }
            }
        }
        if !files.is_empty() {
            self.ports.insert(port, files);
        }
        Ok(())
    }

    pub(crate) fn n_files(&self) -> usize {
        self.ports.values().map(BTreeMap::len).sum()
    }

    /// Whether one of its files is so large that it is digested in parallel.
    pub fn has_large_file(&self) -> bool {
        self.ports.values().flat_map(BTreeMap::values).any(|file| file.size_bytes >= MAP_SIZE_BYTES_MIN)
    }
}
