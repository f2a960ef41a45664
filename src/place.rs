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
    let memo_name = memo_name(to);
    let recorded = store.memo_get(&memo_name);
    let previous = previous(store, recorded.as_deref())?;
    let mut placed = Placed::default();
    for (port, artifact) in &manifest.outputs {
        let previous = previous.as_ref().and_then(|manifest| manifest.outputs.get(port));
        let Restored { written, edited, stale, .. } = store.restore(artifact, &to.join(port), previous)?;
        placed.n_written += written.len();
        placed.edited.extend(edited);
        placed.stale.extend(stale);
    }
    if recorded.as_deref() != Some(manifest.fingerprint.as_str()) {
        store.memo_put(&memo_name, &manifest.fingerprint)?;
    }
    Ok(placed)
}

/// Whether placing would copy something, and so needs the bytes.
///
/// # Errors
/// When the disk refuses.
pub fn needs_bytes(store: &Store, manifest: &Manifest, to: &Path) -> Result<bool, CacheError> {
    let previous = previous(store, store.memo_get(&memo_name(to)).as_deref())?;
    for (port, artifact) in &manifest.outputs {
        for (name, file) in &artifact.files {
            let target = to.join(port).join(name);
            if fs::symlink_metadata(&target).is_err() {
                return Ok(true);
            }
            let before = previous.as_ref().and_then(|manifest| manifest.outputs.get(port)?.files.get(name));
            let is_outdated = before.is_some_and(|before| before.digest != file.digest);
            if is_outdated && target.is_file() && before.map(|b| &b.digest) == Some(&store.digest_file(&target)?.digest)
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// What an earlier run put there.
fn previous(store: &Store, recorded: Option<&str>) -> Result<Option<Manifest>, CacheError> {
    recorded.map_or(Ok(None), |fingerprint| store.lookup(fingerprint))
}

/// The folder as it is meant, so that two ways of writing it are one.
fn memo_name(to: &Path) -> String {
    let absolute = std::path::absolute(to).unwrap_or_else(|_| to.to_path_buf());
    format!("placed in {}", absolute.display())
}
