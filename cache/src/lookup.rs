//! Asking the store: the manifest of a fingerprint, what of it is not there any more, and the files as a stage sees them.
//!
//! ```text
//! lookup(fingerprint) -> Manifest      enough to plan everything downstream
//! missing(&manifest)  -> [MissingFile] asked only before a stage runs on these files
//! artifact(&manifest, "rows")          absolute paths
//! ```
//!
//! A blob is looked at, not read: its size and its fixed modification time must be what publishing left. Anything else
//! was written to, and is read again. An external file must look as it did when it was digested, or is read again.
//! Silent corruption below the file system is deliberately not found here; [`Store::verify`] reads everything.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use pipe_contract::{Artifact, ArtifactFile};

use crate::disk::SEALED_MTIME_S;
use crate::layout::check_key;
use crate::manifest::{ExternalRef, Manifest, ManifestFile, Unreadable};
use crate::stat_memo::stat_if_there;
use crate::{CacheError, Store};

/// A file that a manifest names and that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingFile {
    /// Output port.
    pub port: String,
    /// Name inside the artifact.
    pub name: String,
    /// Where it should be.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: MissingReason,
}

/// Why a file does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingReason {
    /// Nothing is at its path.
    Absent,
    /// Other bytes are at its path.
    Changed,
}

/// Manifests of stages with a few files are shorter.
const READ_ONCE_BYTES: usize = 8192;

impl Store {
    /// The manifest under a fingerprint. One of another version, or damaged, is `None` like one that was never written.
    ///
    /// # Errors
    /// When the disk refuses, or the fingerprint cannot be a key.
    pub fn lookup(&self, fingerprint: &str) -> Result<Option<Manifest>, CacheError> {
        let manifest = match self.read_manifest(fingerprint, |path| read_once(path, Manifest::decode))? {
            // It may be longer than what was read.
            Some(Err(Unreadable::Damaged)) => {
                self.read_manifest(fingerprint, |path| read_all(path, Manifest::decode))?
            }
            decoded => decoded,
        };
        Ok(manifest.and_then(Result::ok).filter(|manifest| manifest.fingerprint == fingerprint))
    }

    /// The readable form of what went into the key of the manifest under a fingerprint; `None` where [`Store::lookup`] gives `None`.
    ///
    /// # Errors
    /// As [`Store::lookup`].
    pub fn preimage(&self, fingerprint: &str) -> Result<Option<serde_json::Value>, CacheError> {
        let preimage = self.read_manifest(fingerprint, |path| read_all(path, Manifest::decode_preimage))?;
        Ok(preimage.and_then(Result::ok))
    }

    /// What `read` makes of the file under a fingerprint; `None` where there is none.
    fn read_manifest<T>(
        &self,
        fingerprint: &str,
        read: impl FnOnce(&Path) -> io::Result<T>,
    ) -> Result<Option<T>, CacheError> {
        check_key(fingerprint)?;
        let path = self.inner.layout.manifest(fingerprint);
        match read(&path) {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CacheError::Io { verb: "read", path, source }),
        }
    }

    /// The files of a manifest that are gone or changed; empty if all are there.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn missing(&self, manifest: &Manifest) -> Result<Vec<MissingFile>, CacheError> {
        let mut missing = Vec::new();
        for (port, artifact) in &manifest.outputs {
            for (name, file) in &artifact.files {
                if let Some(reason) = self.find_fault(file)? {
                    missing.push(MissingFile {
                        port: port.clone(),
                        name: name.clone(),
                        path: self.path_of(file),
                        reason,
                    });
                }
            }
        }
        Ok(missing)
    }

    /// An output as a stage takes it as an input. Does not look whether the files are there: see [`Store::missing`].
    ///
    /// # Errors
    /// When the manifest has no such port.
    pub fn artifact(&self, manifest: &Manifest, port: &str) -> Result<Artifact, CacheError> {
        let artifact = manifest.outputs.get(port).ok_or_else(|| CacheError::UnknownPort {
            fingerprint: manifest.fingerprint.clone(),
            port: port.to_owned(),
        })?;
        let to_file = |file: &ManifestFile| ArtifactFile {
            path: self.path_of(file),
            size_bytes: file.size_bytes,
            digest: file.digest.clone(),
        };
        let files = artifact.files.iter().map(|(name, file)| (name.clone(), to_file(file))).collect();
        Ok(Artifact { kind: artifact.kind, digest: artifact.digest.clone(), files })
    }

    /// Where the bytes of a file lie.
    pub(crate) fn path_of(&self, file: &ManifestFile) -> PathBuf {
        match &file.external {
            Some(external) => PathBuf::from(&external.path),
            None => self.inner.layout.blob(&file.digest),
        }
    }

    /// What is wrong with a file; `None` if it can be used.
    pub(crate) fn find_fault(&self, file: &ManifestFile) -> Result<Option<MissingReason>, CacheError> {
        match &file.external {
            Some(external) => self.find_external_fault(file, external),
            None => self.find_blob_fault(&file.digest, file.size_bytes),
        }
    }

    /// Whether the blob with these bytes can be used.
    pub(crate) fn has_blob(&self, digest: &str, size_bytes: u64) -> Result<bool, CacheError> {
        Ok(self.find_blob_fault(digest, size_bytes)?.is_none())
    }

    fn find_blob_fault(&self, digest: &str, size_bytes: u64) -> Result<Option<MissingReason>, CacheError> {
        let path = self.inner.layout.blob(digest);
        let Some(seen) = stat_if_there(&path)? else {
            return Ok(Some(MissingReason::Absent));
        };
        if seen.size_bytes != size_bytes {
            return Ok(Some(MissingReason::Changed));
        }
        if seen.mtime_ns == SEALED_MTIME_S * 1_000_000_000 {
            return Ok(None);
        }
        self.compare(&path, digest)
    }

    fn find_external_fault(
        &self,
        file: &ManifestFile,
        external: &ExternalRef,
    ) -> Result<Option<MissingReason>, CacheError> {
        let path = Path::new(&external.path);
        let Some(seen) = stat_if_there(path)? else {
            return Ok(Some(MissingReason::Absent));
        };
        if seen.matches(file.size_bytes, external) {
            return Ok(None);
        }
        if seen.size_bytes != file.size_bytes {
            return Ok(Some(MissingReason::Changed));
        }
        self.compare(path, &file.digest)
    }

    fn compare(&self, path: &Path, digest: &str) -> Result<Option<MissingReason>, CacheError> {
        let is_same = self.digest_file(path)?.digest == digest;
        Ok((!is_same).then_some(MissingReason::Changed))
    }
}

fn read_all<T>(path: &Path, decode: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    fs::read(path).map(|bytes| decode(&bytes))
}

/// The beginning of a file, which mostly is all of it: three system calls instead of the five of `fs::read`, and no buffer to allocate, for
/// each stage of a plan.
fn read_once<T>(path: &Path, decode: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    let mut bytes = [0; READ_ONCE_BYTES];
    let n_read = File::open(path)?.read(&mut bytes)?;
    Ok(decode(&bytes[..n_read]))
}
