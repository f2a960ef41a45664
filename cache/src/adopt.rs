//! Between two stores: what stands in one is made known to another, and what one made becomes part of another.
//!
//! ```text
//! adopt        manifest of A -> the same in B; its files stay in A, and B refers to them
//! take_over    manifest of A -> published in B with copies of the files: it stands there, or is a divergence
//! ```
//!
//! `pipe verify` runs stages in a store of its own this way, on the inputs that stand, without copying a model.

use std::fs;

use pipe_contract::ExternalFile;

use crate::layout::check_key;
use crate::manifest::{ExternalRef, Manifest};
use crate::publish::ManifestDraft;
use crate::stat_memo::stat_if_there;
use crate::{CacheError, Publication, Store};

impl Store {
    /// Makes a manifest of the store `from` stand here. Its files are referred to where they lie; one that is gone there is
    /// gone here.
    ///
    /// # Errors
    /// When the disk refuses, or a path of `from` is not UTF-8.
    pub fn adopt(&self, manifest: &Manifest, from: &Store) -> Result<(), CacheError> {
        check_key(&manifest.fingerprint)?;
        let mut adopted = manifest.clone();
        for (port, artifact) in adopted.outputs.iter_mut() {
            for (name, file) in artifact.files.iter_mut() {
                let path = from.path_of(file);
                let seen = stat_if_there(&path)?;
                let Some(path) = path.to_str() else {
                    return Err(CacheError::BadName { port: port.clone(), name: name.clone() });
                };
                // Of a file that is not there nothing is known, and nothing will ever match.
                file.external = Some(Box::new(ExternalRef {
                    path: path.to_owned(),
                    dev: seen.map_or(0, |seen| seen.dev),
                    ino: seen.map_or(0, |seen| seen.ino),
                    mtime_ns: seen.map_or(0, |seen| seen.mtime_ns),
                    ctime_ns: seen.map_or(0, |seen| seen.ctime_ns),
                }));
            }
        }
        let attempt = self.begin(&adopted.fingerprint)?;
        self.write_standing(&attempt, &adopted, &from.preimage_of(manifest)?)
    }

    /// Publishes here what the store `from` has under `manifest`: the first of a fingerprint stands, another is a divergence.
    ///
    /// # Errors
    /// When a file is gone from `from`, or the disk refuses.
    pub fn take_over(&self, manifest: &Manifest, from: &Store) -> Result<Publication, CacheError> {
        let attempt = self.begin(&manifest.fingerprint)?;
        let disk = &self.inner.disk;
        let mut external = Vec::new();
        for (port, artifact) in &manifest.outputs {
            for (name, file) in &artifact.files {
                let path = from.path_of(file);
                if file.external.is_some() {
                    let (port, name, digest) = (port.clone(), name.clone(), Some(file.digest.clone()));
                    external.push(ExternalFile { port, name, path, digest });
                    continue;
                }
                let to = attempt.outputs_dir().join(port).join(name);
                let folder = to.parent().expect("a file of an output lies in its folder");
                disk.create_folders(folder).map_err(CacheError::io("create", folder))?;
                disk.copy(&path, &to).map_err(CacheError::io("copy", &path))?;
            }
        }
        let draft = ManifestDraft {
            fingerprint: manifest.fingerprint.clone(),
            semantic_key: manifest.semantic_key.clone(),
            compute_class: manifest.compute_class.clone(),
            kind: manifest.kind.clone(),
            kind_version: manifest.kind_version,
            preimage: from.preimage_of(manifest)?,
            resolved: manifest.resolved.clone(),
            outputs: manifest.outputs.iter().map(|(port, artifact)| (port.clone(), artifact.kind)).collect(),
            external,
            facts: manifest.facts.clone(),
        };
        self.publish(attempt, draft)
    }

    /// All results of one fingerprint have one preimage, so that of the one that stands is that of `manifest`.
    fn preimage_of(&self, manifest: &Manifest) -> Result<serde_json::Value, CacheError> {
        let path = self.inner.layout.manifest(&manifest.fingerprint);
        let gone = || CacheError::io("read", &path)(std::io::ErrorKind::NotFound.into());
        self.preimage(&manifest.fingerprint)?.ok_or_else(gone)
    }

    /// The results under a fingerprint that do not stand, because another was there first; by content digest.
    ///
    /// # Errors
    /// When the disk refuses, or the fingerprint cannot be a key.
    pub fn divergences(&self, fingerprint: &str) -> Result<Vec<Manifest>, CacheError> {
        check_key(fingerprint)?;
        let folder = self.inner.layout.divergences().join(&fingerprint[..2]);
        let mut paths = crate::store::entries(&folder)?;
        paths.sort();
        let manifest = |path: &std::path::PathBuf| Manifest::decode(&fs::read(path).ok()?).ok();
        Ok(paths.iter().filter_map(manifest).filter(|manifest| manifest.fingerprint == fingerprint).collect())
    }
}
