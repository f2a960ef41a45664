//! Placing: copies of a stage's outputs in the folder that `to:` names, one folder per output port.
//!
//! ```text
//! released: { uses: export, to: out/llama }    ->    out/llama/adapter/..., out/llama/merged/...
//! ```
//!
//! A file that is not there is copied, on a hit too; one from an earlier run is replaced; one that the user edited is named
//! and left alone. What an earlier run put there is remembered by the store; where that memory is lost, a differing file
//! counts as edited: nothing of the user's is ever overwritten on a guess.

use std::fs;
use std::path::{Path, PathBuf};

use pipe_cache::{CacheError, Manifest, Restored, Store};

/// What is in a `to:` folder after placing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// Files copied now.
    pub n_written: usize,
    /// Files with bytes of the user's: left alone.
    pub edited: Vec<PathBuf>,
    /// Files of an earlier run that are no longer part of the outputs: left alone.
    pub stale: Vec<PathBuf>,
}

/// Copies what is absent or of an earlier run.
///
/// # Errors
/// When the store lacks the bytes, or the disk refuses.
pub fn place(store: &Store, manifest: &Manifest, to: &Path) -> Result<Placed, CacheError> {
    let mut placed = Placed::default();
    for (port, artifact) in &manifest.outputs {
        let folder = to.join(port);
        let memo_name = memo_name(&folder);
        let recorded = store.memo_get(&memo_name);
        let previous = recorded.as_deref().map_or(Ok(None), |fingerprint| store.lookup(fingerprint))?;
        let previous = previous.as_ref().and_then(|manifest| manifest.outputs.get(port));
        let Restored { written, edited, stale, .. } = store.restore(artifact, &folder, previous)?;
        placed.n_written += written.len();
        placed.edited.extend(edited);
        placed.stale.extend(stale);
        if recorded.as_deref() != Some(manifest.fingerprint.as_str()) {
            store.memo_put(&memo_name, &manifest.fingerprint)?;
        }
    }
    Ok(placed)
}

/// Whether placing would copy something, and so needs the bytes.
///
/// # Errors
/// When the disk refuses.
pub fn needs_bytes(store: &Store, manifest: &Manifest, to: &Path) -> Result<bool, CacheError> {
    for (port, artifact) in &manifest.outputs {
        let folder = to.join(port);
        let recorded = store.memo_get(&memo_name(&folder));
        let previous = recorded.as_deref().map_or(Ok(None), |fingerprint| store.lookup(fingerprint))?;
        let before = previous.as_ref().and_then(|manifest| manifest.outputs.get(port));
        for (name, file) in &artifact.files {
            let target = folder.join(name);
            if fs::symlink_metadata(&target).is_err() {
                return Ok(true);
            }
            let before = before.and_then(|artifact| artifact.files.get(name)).map(|file| &file.digest);
            let is_outdated = before.is_some_and(|before| *before != file.digest) && target.is_file();
            if is_outdated && before == Some(&store.digest_file(&target)?.digest) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// A port's folder as it is meant, so that two ways of writing it are one, and two stages may share a `to:`.
fn memo_name(folder: &Path) -> String {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    format!("placed in {}", absolute.display())
}
