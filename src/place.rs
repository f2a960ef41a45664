//! Placing: copies of a stage's outputs in the folder that `to:` names, one folder per output port.
//!
//! ```text
//! released: { uses: export, to: out/llama }    ->    out/llama/adapter/..., out/llama/merged/...
//! ```
//!
//! A file that is not there is copied, on a hit too; one from an earlier run is replaced; one that the user edited is named
//! and left alone. What an earlier run put there is remembered by the store; where that memory is lost, a differing file
//! is of an unknown origin: nothing of the user's is ever overwritten on a guess.
//!
//! Copying may be killed half way, and then both the old and the new files are there. So the memory names both before the
//! first file is copied, and the new one alone after the last.

use std::fs;
use std::path::{Path, PathBuf};

use pipe_cache::{CacheError, Manifest, ManifestArtifact, Restored, Store};
use pipe_contract::Output;

use crate::spec::normalize;

/// What is in a `to:` folder after placing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// Files copied now.
    pub n_written: usize,
    /// Files with bytes of the user's, where an earlier run had put its own: left alone.
    pub edited: Vec<PathBuf>,
    /// Files of which nothing is remembered: left alone.
    pub unknown: Vec<PathBuf>,
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
        let recorded = store.memo_get(&memo_name).unwrap_or_default();
        let earlier = earlier_artifacts(store, &recorded, port)?;
        let is_settled = recorded == manifest.fingerprint;
        if !is_settled {
            let others = recorded.lines().filter(|fingerprint| *fingerprint != manifest.fingerprint);
            let both: Vec<&str> = others.chain([manifest.fingerprint.as_str()]).collect();
            store.memo_put(&memo_name, &both.join("\n"))?;
        }
        let previous: Vec<&ManifestArtifact> = earlier.iter().collect();
        let Restored { written, edited, stale, .. } = store.restore_over(artifact, &folder, &previous)?;
        placed.n_written += written.len();
        for path in edited {
            let name = path.strip_prefix(&folder).ok().and_then(Path::to_str).unwrap_or_default();
            let is_remembered = earlier.iter().any(|artifact| artifact.files.contains_key(name));
            if is_remembered { &mut placed.edited } else { &mut placed.unknown }.push(path);
        }
        placed.stale.extend(stale);
        if !is_settled {
            store.memo_put(&memo_name, &manifest.fingerprint)?;
        }
    }
    Ok(placed)
}

/// Why the outputs of a stage cannot be copied to `to` at all, found before anything runs; `None` if they can.
///
/// ```text
/// to: .pipe/blobs      the store would hold what it did not make
/// to: notes.txt        a file, or below one, or a file in the place of a port's folder
/// ```
pub fn find_obstacle(store: &Store, outputs: &[Output], to: &Path) -> Option<String> {
    for output in outputs {
        let folder = normalize(&to.join(&output.name));
        if folder.starts_with(normalize(store.root())) {
            return Some("it lies in the store, which holds nothing but what pipe keeps there".into());
        }
        let existing = folder.ancestors().find_map(|path| fs::metadata(path).ok().map(|metadata| (path, metadata)));
        if let Some((path, metadata)) = existing
            && !metadata.is_dir()
        {
            return Some(format!("`{}` is not a folder", path.display()));
        }
    }
    None
}

/// Whether placing would copy something, and so needs the bytes.
///
/// # Errors
/// When the disk refuses.
pub fn needs_bytes(store: &Store, manifest: &Manifest, to: &Path) -> Result<bool, CacheError> {
    for (port, artifact) in &manifest.outputs {
        let folder = to.join(port);
        let recorded = store.memo_get(&memo_name(&folder)).unwrap_or_default();
        let earlier = earlier_artifacts(store, &recorded, port)?;
        for (name, file) in &artifact.files {
            let target = folder.join(name);
            if fs::symlink_metadata(&target).is_err() {
                return Ok(true);
            }
            let before = earlier.iter().filter_map(|artifact| artifact.files.get(name)).map(|file| &file.digest);
            let before: Vec<&String> = before.filter(|before| **before != file.digest).collect();
            if !before.is_empty() && target.is_file() && before.contains(&&store.digest_file(&target)?.digest) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// What earlier runs put into a folder: the artifacts of the fingerprints, one per line, that are still known.
fn earlier_artifacts(store: &Store, recorded: &str, port: &str) -> Result<Vec<ManifestArtifact>, CacheError> {
    let mut artifacts = Vec::new();
    for fingerprint in recorded.lines() {
        artifacts.extend(store.lookup(fingerprint)?.and_then(|manifest| manifest.outputs.get(port).cloned()));
    }
    Ok(artifacts)
}

/// A port's folder as it is meant, so that two ways of writing it are one, and two stages may share a `to:`.
fn memo_name(folder: &Path) -> String {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    format!("placed in {}", absolute.display())
}

#[cfg(test)]
mod tests {
    use pipe_cache::ManifestDraft;
    use pipe_contract::ArtifactKind;

    use super::*;

    fn publish(store: &Store, letter: &str) -> Manifest {
        let key = letter.repeat(64);
        let attempt = store.begin(&key).expect("begun");
        let folder = attempt.outputs_dir().join("rows");
        fs::create_dir_all(&folder).expect("made");
        for name in ["first", "second"] {
            fs::write(folder.join(name), format!("{name} of {letter}")).expect("written");
        }
        let draft = ManifestDraft {
            fingerprint: key.clone(),
            semantic_key: key,
            outputs: [("rows".to_string(), ArtifactKind::Rows)].into(),
            ..ManifestDraft::default()
        };
        store.publish(attempt, draft).expect("published").manifest
    }

    #[test]
    fn what_copying_that_stopped_half_way_left_is_not_the_users() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(&folder.path().join("store")).expect("opened");
        let to = folder.path().join("out");
        let manifests = ["a", "b", "c"].map(|letter| publish(&store, letter));
        place(&store, &manifests[0], &to).expect("placed");
        // The second file cannot be copied, as after a kill.
        let gone = store.artifact(&manifests[1], "rows").expect("an output").files["second"].path.clone();
        fs::remove_file(gone).expect("there");
        place(&store, &manifests[1], &to).expect_err("the bytes are gone");
        assert_eq!(fs::read_to_string(to.join("rows/first")).expect("there"), "first of b");
        let placed = place(&store, &manifests[2], &to).expect("placed");
        assert_eq!(placed, Placed { n_written: 2, ..Placed::default() });
        fs::write(to.join("rows/first"), "mine").expect("ours");
        let placed = place(&store, &manifests[2], &to).expect("placed");
        assert_eq!(placed.edited, [to.join("rows/first")]);
    }
}
