//! The disposable index below `idx/`: manifests by semantic key, and answers about remote names.
//!
//! ```text
//! idx/semantic/ab/<semantic key>   fingerprints, one per line, in the order of their publishing; of manifests with a compute class
//! idx/semantic/complete            made once all manifests are listed; without it the lists are made again
//! idx/trajectory/<trajectory>      fingerprints whose executions left its training state
//! idx/memo/<digest of the name>    { "format_version": 1, "name": .., "value": .. }
//! ```
//!
//! Deleting any of it loses time, never truth. It deliberately decides nothing: what it lists is read and checked.

use std::fs;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::inspect::files_below;
use crate::layout::{check_key, fanned};
use crate::manifest::Manifest;
use crate::{CacheError, Store};

/// The version of the notes in `idx/memo/`.
const MEMO_VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    format_version: u32,
    name: String,
    value: String,
}

impl Store {
    /// The manifest with this semantic key and a compute class that was published first, whatever its class.
    ///
    /// # Errors
    /// When the disk refuses, or the key cannot be one.
    pub fn lookup_semantic(&self, semantic_key: &str) -> Result<Option<Manifest>, CacheError> {
        check_key(semantic_key)?;
        if !self.inner.layout.semantic().join("complete").exists() {
            let found = self.all_manifests()?;
            if self.list_manifests(&found).is_err() {
                // A folder that is read-only, say: found, if not listed.
                let of_key = found.into_iter().filter(|(_, _, key)| key == semantic_key);
                return self.first_readable(of_key.map(|(_, fingerprint, _)| fingerprint), semantic_key);
            }
        }
        self.first_readable(self.listed(semantic_key), semantic_key)
    }

    fn first_readable(
        &self,
        fingerprints: impl IntoIterator<Item = String>,
        semantic_key: &str,
    ) -> Result<Option<Manifest>, CacheError> {
        for fingerprint in fingerprints {
            let manifest = if check_key(&fingerprint).is_ok() { self.lookup(&fingerprint)? } else { None };
            if manifest.as_ref().is_some_and(|manifest| manifest.semantic_key == semantic_key) {
                return Ok(manifest);
            }
        }
        Ok(None)
    }

    /// The value noted for a name, such as the commit that `datasets/tatsu-lab/alpaca@main` was resolved to.
    pub fn memo_get(&self, name: &str) -> Option<String> {
        let bytes = fs::read(self.inner.layout.memo(name)).ok()?;
        let note: Note = serde_json::from_slice(&bytes).ok()?;
        (note.format_version == MEMO_VERSION && note.name == name).then_some(note.value)
    }

    /// Notes a value for a name, replacing an earlier one.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn memo_put(&self, name: &str, value: &str) -> Result<(), CacheError> {
        let note = Note { format_version: MEMO_VERSION, name: name.to_owned(), value: value.to_owned() };
        let text = serde_json::to_vec(&note).expect("three plain fields");
        self.write_index(&self.inner.layout.memo(name), &text)
    }

    /// Notes that an execution of `fingerprint` left the training state of `trajectory`, which is kept as long as its outputs are.
    ///
    /// # Errors
    /// When the disk refuses, or one of them cannot be a key.
    pub fn note_checkpoint(&self, trajectory: &str, fingerprint: &str) -> Result<(), CacheError> {
        check_key(trajectory)?;
        check_key(fingerprint)?;
        let mut results = self.results_of(trajectory);
        if results.iter().any(|known| known == fingerprint) {
            return Ok(());
        }
        results.push(fingerprint.to_owned());
        self.write_index(&self.inner.layout.results_of(trajectory), results.join("\n").as_bytes())
    }

    pub(crate) fn results_of(&self, trajectory: &str) -> Vec<String> {
        let text = fs::read_to_string(self.inner.layout.results_of(trajectory)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Lists a manifest under its semantic key unless it is listed, or has no compute class: then there is no other to find it in place of.
    /// Where that fails, the lists are no longer complete, and are made again by who asks next.
    pub(crate) fn add_to_semantic_index(&self, manifest: &Manifest) -> Result<(), CacheError> {
        match &manifest.compute_class {
            Some(_) => self.list_manifest(&manifest.semantic_key, &manifest.fingerprint),
            None => Ok(()),
        }
    }

    fn list_manifest(&self, semantic_key: &str, fingerprint: &str) -> Result<(), CacheError> {
        let path = fanned(self.inner.layout.semantic(), semantic_key);
        let text = fs::read_to_string(&path).unwrap_or_default();
        if text.lines().any(|listed| listed == fingerprint) {
            return Ok(());
        }
        let folder = path.parent().expect("a fanned path has a folder");
        let disk = &self.inner.disk;
        // A line that a power cut left half written ends here.
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        let listed = disk
            .create_folders(folder)
            .and_then(|()| disk.append(&path, format!("{end}{fingerprint}\n").as_bytes()))
            .map_err(CacheError::io("write", &path));
        listed.inspect_err(|_| drop(disk.remove_file(&self.inner.layout.semantic().join("complete"))))
    }

    /// When each manifest with a compute class was written, its fingerprint and its semantic key; oldest first.
    fn all_manifests(&self) -> Result<Vec<(SystemTime, String, String)>, CacheError> {
        let mut found = Vec::new();
        for path in files_below(&self.inner.layout.manifests())? {
            let written = fs::metadata(&path).and_then(|metadata| metadata.modified());
            if let (Ok(bytes), Ok(written)) = (fs::read(&path), written)
                && let Ok(manifest) = Manifest::decode(&bytes)
                && manifest.compute_class.is_some()
            {
                found.push((written, manifest.fingerprint, manifest.semantic_key));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Makes the lists. Another process may publish meanwhile: it adds its own.
    fn list_manifests(&self, found: &[(SystemTime, String, String)]) -> Result<(), CacheError> {
        for (_, fingerprint, semantic_key) in found {
            if check_key(semantic_key).is_ok() {
                self.list_manifest(semantic_key, fingerprint)?;
            }
        }
        self.write_index(&self.inner.layout.semantic().join("complete"), b"")
    }

    fn listed(&self, semantic_key: &str) -> Vec<String> {
        let text = fs::read_to_string(fanned(self.inner.layout.semantic(), semantic_key)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}
