//! Copying an artifact to a folder of the user: what is not there is written, what the user edited is left alone.
//!
//! | at the target | then |
//! |---|---|
//! | nothing | written |
//! | the artifact's bytes | unchanged |
//! | the bytes that the previous artifact put there | written over |
//! | anything else | named as edited, left alone |
//!
//! Files are copies, sharing extents where the file system can, never hard links: a user may write to them. It
//! deliberately removes nothing: files of the previous artifact that the new one has not are named as stale.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::manifest::{ManifestArtifact, ManifestFile};
use crate::stat_memo::stat;
use crate::store::{entries, unique_word};
use crate::{CacheError, Store};

/// How far a written file's modification time is set back, so that its digest can be remembered at once: any later write
/// gives it another one, even where times count in steps of 2 s. Without this, the next run reads the file again.
const SET_BACK: Duration = Duration::from_secs(3);

/// How the name of a file begins that is not yet whole.
const TEMPORARY: &str = ".pipe-";

/// What happened to the files of a user's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Written: they were not there, or came from the previous artifact.
    pub written: Vec<PathBuf>,
    /// There already with the right bytes.
    pub unchanged: Vec<PathBuf>,
    /// There with bytes that neither artifact has; left alone.
    pub edited: Vec<PathBuf>,
    /// There from the previous artifact, and not part of this one; left alone.
    pub stale: Vec<PathBuf>,
}

/// What is at the place of a file.
enum AtTarget {
    Nothing,
    Digest(String),
    /// A folder, or something else that has no bytes.
    NoFile,
}

impl Store {
    /// Copies the files of `artifact` into the folder `to`. `previous` is what an earlier run put there, if one did:
    /// its bytes may be replaced.
    ///
    /// # Errors
    /// When a file of the artifact is gone from the store, or the disk refuses.
    pub fn restore(
        &self,
        artifact: &ManifestArtifact,
        to: &Path,
        previous: Option<&ManifestArtifact>,
    ) -> Result<Restored, CacheError> {
        self.restore_over(artifact, to, previous.as_slice())
    }

    /// The same over what any of several artifacts may have put there: after copying that was killed half way.
    ///
    /// # Errors
    /// As [`Store::restore`].
    pub fn restore_over(
        &self,
        artifact: &ManifestArtifact,
        to: &Path,
        previous: &[&ManifestArtifact],
    ) -> Result<Restored, CacheError> {
        let mut restored = Restored::default();
        let mut touched = BTreeSet::new();
        for (name, file) in &artifact.files {
            let target = to.join(name);
            let is_replaceable =
                |found: &str| previous.iter().any(|p| p.files.get(name).is_some_and(|file| file.digest == found));
            match self.look_at(&target)? {
                AtTarget::Digest(found) if found == file.digest => restored.unchanged.push(target),
                AtTarget::Nothing => {
                    touched.insert(self.write_copy(name, file, &target)?);
                    restored.written.push(target);
                }
                AtTarget::Digest(found) if is_replaceable(&found) => {
                    touched.insert(self.write_copy(name, file, &target)?);
                    restored.written.push(target);
                }
                AtTarget::Digest(_) | AtTarget::NoFile => restored.edited.push(target),
            }
        }
        for (name, file) in previous.iter().flat_map(|p| &p.files) {
            let target = to.join(name);
            if !artifact.files.contains_key(name)
                && !restored.stale.contains(&target)
                && matches!(self.look_at(&target)?, AtTarget::Digest(found) if found == file.digest)
            {
                restored.stale.push(target);
            }
        }
        for folder in touched {
            self.inner.disk.sync_folder(&folder).map_err(CacheError::io("sync", &folder))?;
        }
        Ok(restored)
    }

    fn look_at(&self, target: &Path) -> Result<AtTarget, CacheError> {
        // Of a link that leads nowhere, the link itself is what the user has there.
        let metadata = match fs::metadata(target) {
            Ok(metadata) => metadata,
            Err(_) if target.is_symlink() => return Ok(AtTarget::NoFile),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(AtTarget::Nothing),
            // A file where the artifact has a folder.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(AtTarget::NoFile),
            Err(source) => return Err(CacheError::Io { verb: "read", path: target.to_path_buf(), source }),
        };
        if !metadata.is_file() {
            return Ok(AtTarget::NoFile);
        }
        Ok(AtTarget::Digest(self.digest_file(target)?.digest))
    }

    /// What a process that died while it copied left in a folder of the user, whose lock is held.
    fn remove_half_copied(&self, folder: &Path) -> Result<(), CacheError> {
        for path in entries(folder)?.iter().filter(|path| is_temporary(path)) {
            self.inner.disk.remove_file(path).map_err(CacheError::io("remove", path))?;
        }
        Ok(())
    }

    /// Copies under another name, syncs and renames: a target is whole or untouched. Returns its folder.
    fn write_copy(&self, name: &str, file: &ManifestFile, target: &Path) -> Result<PathBuf, CacheError> {
        let source = self.path_of(file);
        if self.find_fault(file)?.is_some() {
            return Err(CacheError::Gone { name: name.to_owned(), path: source });
        }
        let disk = &self.inner.disk;
        let folder = target.parent().expect("a name below a folder").to_path_buf();
        disk.create_folders(&folder).map_err(CacheError::io("create", &folder))?;
        let _lock = self.folder_lock(&folder)?;
        self.remove_half_copied(&folder)?;
        let temporary = folder.join(format!("{TEMPORARY}{}", unique_word()));
        let written = disk
            .copy(&source, &temporary)
            .and_then(|()| set_back(&temporary))
            .and_then(|()| disk.sync_file(&temporary))
            .and_then(|()| disk.rename(&temporary, target));
        if let Err(error) = written {
            let _ = disk.remove_file(&temporary);
            return Err(CacheError::io("write", target)(error));
        }
        self.remember_settled(&stat(target)?, &file.digest);
        Ok(folder)
    }
}

/// Whether a file is one that [`Store::write_copy`] makes and renames.
fn is_temporary(path: &Path) -> bool {
    let word = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(TEMPORARY));
    word.is_some_and(|word| word.len() == unique_word().len() && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn set_back(path: &Path) -> io::Result<()> {
    let now = SystemTime::now();
    File::open(path)?.set_modified(now.checked_sub(SET_BACK).unwrap_or(now))
}
