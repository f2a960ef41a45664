//! Looking over a whole store: how large it is, and whether every blob still has its bytes.
//!
//! It deliberately removes nothing: see `gc`. What is corrupt is moved to `corrupt/`, so that the next run makes it again and the
//! damaged bytes can still be looked at.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::digest::{hash_file, is_digest};
use crate::manifest::{Manifest, Unreadable};
use crate::store::{entries, unique_word};
use crate::{CacheError, Store};

/// A number of files and what they hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SizeOf {
    /// Files.
    pub n_files: u64,
    /// In bytes, as the files say; not blocks on disk.
    pub size_bytes: u64,
}

/// How large a store is, by what is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// Files of artifacts.
    pub blobs: SizeOf,
    /// Manifests.
    pub manifests: SizeOf,
    /// Resumable training state.
    pub checkpoints: SizeOf,
    /// Events and logs of runs.
    pub runs: SizeOf,
    /// Files that manifests refer to and the store does not hold, such as the Hugging Face cache; each once.
    pub external: SizeOf,
    /// All else below the store's folder: attempts, the index, what was set aside.
    pub other: SizeOf,
}

impl StoreSize {
    /// What the store itself takes, without what it only refers to. In bytes.
    pub fn held_bytes(&self) -> u64 {
        [self.blobs, self.manifests, self.checkpoints, self.runs, self.other].iter().map(|part| part.size_bytes).sum()
    }
}

/// A file of the store that does not have the bytes it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// What it was.
    pub kind: CorruptionKind,
    /// Where it lay.
    pub path: PathBuf,
    /// Where it lies now.
    pub set_aside: PathBuf,
}

/// What is corrupt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorruptionKind {
    /// A blob whose bytes do not give its name.
    Blob {
        /// The digest it should have.
        expected: String,
        /// The digest it has.
        found: String,
    },
    /// A manifest whose checksum does not hold.
    Manifest,
}

impl Store {
    /// Counts what is in the store.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn size(&self) -> Result<StoreSize, CacheError> {
        let layout = &self.inner.layout;
        let mut size = StoreSize {
            blobs: size_below(&layout.blobs())?,
            manifests: size_below(&layout.manifests())?,
            checkpoints: size_below(&layout.checkpoints())?,
            runs: size_below(&layout.runs())?,
            ..StoreSize::default()
        };
        let others = [layout.tmp(), layout.index(), layout.divergences(), layout.corrupt(), layout.locks()];
        for folder in others.into_iter().chain([layout.pins(), layout.gc()]) {
            size.other.add(size_below(&folder)?);
        }
        let mut external: BTreeMap<String, u64> = BTreeMap::new();
        for path in files_below(&layout.manifests())? {
            let Some(manifest) = fs::read(&path).ok().and_then(|bytes| Manifest::decode(&bytes).ok()) else { continue };
            for file in manifest.outputs.values().flat_map(|artifact| artifact.files.values()) {
                if let Some(reference) = &file.external {
                    external.insert(reference.path.clone(), file.size_bytes);
                }
            }
        }
        size.external = SizeOf { n_files: external.len() as u64, size_bytes: external.values().sum() };
        Ok(size)
    }

    /// Every fingerprint that has a manifest, sorted.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn fingerprints(&self) -> Result<Vec<String>, CacheError> {
        let files = files_below(&self.inner.layout.manifests())?;
        Ok(files.iter().filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    /// Reads every blob and manifest and sets aside those that are not what was published. The stages that made them
    /// run again when they are next needed.
    ///
    /// # Errors
    /// When a file cannot be read or moved.
    pub fn verify(&self) -> Result<Vec<Corruption>, CacheError> {
        let mut corruptions = Vec::new();
        for path in files_below(&self.inner.layout.blobs())? {
            if let Some(kind) = self.find_corruption(&path)? {
                corruptions.push(self.set_aside(kind, path)?);
            }
        }
        for path in files_below(&self.inner.layout.manifests())? {
            let Some(bytes) = if_there(fs::read(&path)).map_err(CacheError::io("read", &path))? else { continue };
            // What another version of pipe wrote is not damaged.
            if Manifest::decode(&bytes).err() == Some(Unreadable::Damaged) {
                corruptions.push(self.set_aside(CorruptionKind::Manifest, path)?);
            }
        }
        Ok(corruptions)
    }

    fn find_corruption(&self, path: &Path) -> Result<Option<CorruptionKind>, CacheError> {
        let expected = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let found = if_there(fs::metadata(path))
            .and_then(|metadata| if_there(metadata.map(|metadata| hash_file(path, metadata.len())).transpose()))
            .map_err(CacheError::io("read", path))?;
        self.inner.n_files_read.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let Some(found) = found.flatten() else { return Ok(None) };
        let is_sound = is_digest(&expected) && found == expected;
        Ok((!is_sound).then_some(CorruptionKind::Blob { expected, found }))
    }

    fn set_aside(&self, kind: CorruptionKind, path: PathBuf) -> Result<Corruption, CacheError> {
        let folder = self.inner.layout.corrupt();
        self.inner.disk.create_folders(&folder).map_err(CacheError::io("create", &folder))?;
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        let set_aside = folder.join(format!("{name}-{}", unique_word()));
        self.inner.disk.rename(&path, &set_aside).map_err(CacheError::io("rename", &path))?;
        Ok(Corruption { kind, path, set_aside })
    }
}

impl SizeOf {
    pub(crate) fn add(&mut self, other: SizeOf) {
        self.n_files += other.n_files;
        self.size_bytes += other.size_bytes;
    }
}

/// `None` for what was removed meanwhile: by `gc`, or by another who verifies.
fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Every file below a folder, sorted; none if it is not there.
pub(crate) fn files_below(folder: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let mut files = Vec::new();
    let mut pending = vec![folder.to_path_buf()];
    while let Some(current) = pending.pop() {
        for path in entries(&current)? {
            if path.is_dir() && !path.is_symlink() { pending.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    Ok(files)
}

/// A file that goes away while it is counted counts nothing.
pub(crate) fn size_below(folder: &Path) -> Result<SizeOf, CacheError> {
    let mut size = SizeOf::default();
    for path in files_below(folder)? {
        if let Ok(metadata) = fs::symlink_metadata(&path) {
            size.add(SizeOf { n_files: 1, size_bytes: metadata.len() });
        }
    }
    Ok(size)
}
