//! Publishing: the files of an attempt become blobs, and a manifest makes them count.
//!
//! ```text
//! tmp/<attempt>/outputs/PORT/FILE   1 digest   2 fdatasync, read-only   3 rename to blobs/ab/<digest>
//!                                   4 fsync the blob folders
//! tmp/<attempt>/manifest            5 write, fdatasync   6 rename to manifests/ab/<fingerprint>, fsync the folder
//! ```
//!
//! Killed before 6, the store holds some blobs that nothing names, and no lie. From 6 on, everything the manifest names
//! survives a power cut. A blob that is there already is not written again, but its folder is synced all the same:
//! the process that wrote it may not have come that far. (The folders above it: see `certain`.) The same holds for a manifest that stays, and for external
//! files: whoever wrote them need not have synced them.
//!
//! The first manifest of a fingerprint stays. One with other digests is a divergence: recorded in `divergences/`, its
//! blobs kept. It deliberately does not judge why.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pipe_contract::{ArtifactKind, ExternalFile, NameMap};
use serde_json::Value;

use crate::digest::is_digest;
use crate::layout::{check_key, fanned, is_safe_name};
use crate::listing::{ListedFile, Listing};
use crate::lock::StageLock;
use crate::manifest::{ExternalRef, Manifest, ManifestArtifact, ManifestFile};
use crate::stat_memo::stat;
use crate::store::unique_word;
use crate::{Attempt, CacheError, Store, artifact_digest};

/// What the runner knows of a finished stage; the store adds the files. Fields as in [`Manifest`].
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "as in the manifest")]
pub struct ManifestDraft {
    pub fingerprint: String,
    pub semantic_key: String,
    pub compute_class: Option<String>,
    pub kind: String,
    pub kind_version: u32,
    pub preimage: Value,
    pub resolved: Option<String>,
    /// Every output port of the stage; each must have at least one file.
    pub outputs: BTreeMap<String, ArtifactKind>,
    /// What the stage published by reference: [`pipe_contract::Context::take_external`].
    pub external: Vec<ExternalFile>,
    pub facts: Vec<(String, String)>,
}

/// What came of publishing.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The manifest that now stands under the fingerprint: what later stages and later runs see.
    pub manifest: Manifest,
    /// If the fingerprint had other digests before. Both manifests are kept.
    pub divergence: Option<Box<Divergence>>,
}

/// One fingerprint that gave two results. The earlier one stands, unless its files are gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Divergence {
    /// What was made first.
    pub before: Manifest,
    /// What was made now.
    pub now: Manifest,
}

/// A file on its way into the store.
struct Found {
    path: PathBuf,
    digest: String,
    size_bytes: u64,
}

type Outputs = BTreeMap<String, NameMap<ManifestFile>>;

impl Store {
    /// Makes the outputs of an attempt part of the store and removes the attempt, once nobody else runs the stage.
    ///
    /// # Errors
    /// When an output is empty, undeclared, or holds something else than regular files, or the disk refuses. The store
    /// then answers as if the attempt had never been.
    pub fn publish(&self, attempt: Attempt, draft: ManifestDraft) -> Result<Publication, CacheError> {
        let listing = attempt.list()?;
        let lock = self.stage_lock(&draft.fingerprint, &mut |_| {})?;
        self.publish_listed(attempt, listing, draft, &lock)
    }

    /// The same for who holds the stage, and files that were listed already: nothing has written to the attempt since.
    ///
    /// # Errors
    /// As [`Store::publish`].
    ///
    /// # Panics
    /// When it is another stage that is held.
    pub fn publish_listed(
        &self,
        mut attempt: Attempt,
        listing: Listing,
        mut draft: ManifestDraft,
        lock: &StageLock,
    ) -> Result<Publication, CacheError> {
        assert_eq!(
            lock.fingerprint, draft.fingerprint,
            "a manifest is compared with the one that is there and put in its place"
        );
        check_key(&draft.fingerprint)?;
        check_key(&draft.semantic_key)?;
        let (n_files, has_folders) = (listing.n_files(), listing.has_folders);
        let found = self.collect(listing, &draft)?;
        let files: BTreeMap<&str, &Found> =
            found.values().flat_map(BTreeMap::values).map(|file| (file.digest.as_str(), file)).collect();
        let mut settled = BTreeSet::new();
        for file in files.values() {
            self.settle_unless_there(file, &mut settled)?;
        }
        let mut outputs = to_manifest_files(&found);
        self.add_external(&mut outputs, draft.external.iter())?;
        let preimage = std::mem::take(&mut draft.preimage);
        let manifest = to_manifest(draft, outputs)?;
        // From finding a blob to naming it in a manifest that is held, nobody removes blobs.
        let _shared = self.share_gc_lock()?;
        self.hold_while_shared(&[&manifest.fingerprint], &[])?;
        let n_moved = self.store_blobs(&files, &mut settled)?;
        let publication = self.commit(&attempt, manifest, &preimage)?;
        attempt.is_taken_from = n_moved == n_files && !has_folders;
        Ok(publication)
    }

    /// Port to name to file, for what the stage wrote.
    fn collect(
        &self,
        mut listing: Listing,
        draft: &ManifestDraft,
    ) -> Result<BTreeMap<String, BTreeMap<String, Found>>, CacheError> {
        let undeclared = listing.ports.keys().find(|port| !draft.outputs.contains_key(*port));
        if let Some(port) = listing.stray.as_ref().or(undeclared) {
            return Err(CacheError::UndeclaredOutput { port: port.clone() });
        }
        let mut found = BTreeMap::new();
        for port in draft.outputs.keys() {
            let mut files = BTreeMap::new();
            for (name, ListedFile { path, size_bytes, n_names }) in listing.ports.remove(port).unwrap_or_default() {
                if n_names > 1 {
                    self.unshare(&path)?;
                }
                let digest = self.hash_now(&path, size_bytes)?;
                files.insert(name, Found { path, digest, size_bytes });
            }
            found.insert(port.clone(), files);
        }
        Ok(found)
    }

    /// Gives a file that has a second name elsewhere (a hard link) an inode of its own: a blob has one name.
    fn unshare(&self, path: &Path) -> Result<(), CacheError> {
        let mut copy = path.as_os_str().to_owned();
        copy.push(unique_word());
        let copy = PathBuf::from(copy);
        self.inner.disk.copy(path, &copy).map_err(CacheError::io("copy", path))?;
        self.inner.disk.rename(&copy, path).map_err(CacheError::io("rename", path))
    }

    /// Step 2 of the drawing for a file that the store has not. Returns whether it has not.
    fn settle_unless_there<'a>(&self, file: &'a Found, settled: &mut BTreeSet<&'a str>) -> Result<bool, CacheError> {
        if self.has_blob(&file.digest, file.size_bytes)? {
            return Ok(false);
        }
        let disk = &self.inner.disk;
        if settled.insert(&file.digest) {
            disk.settle(&file.path).map_err(CacheError::io("sync and seal", &file.path))?;
        }
        Ok(true)
    }

    /// Steps 3 and 4, by digest. A blob that was there when step 2 began may have been removed since. Returns how many files became blobs.
    fn store_blobs<'a>(
        &self,
        files: &BTreeMap<&'a str, &'a Found>,
        settled: &mut BTreeSet<&'a str>,
    ) -> Result<usize, CacheError> {
        let disk = &self.inner.disk;
        let mut to_move = Vec::new();
        for (digest, file) in files {
            if self.settle_unless_there(file, settled)? {
                to_move.push((&file.path, self.inner.layout.blob(digest)));
            }
        }
        let folders: BTreeSet<PathBuf> =
            files.keys().map(|digest| folder_of(&self.inner.layout.blob(digest))).collect();
        for folder in &folders {
            self.make_folder(folder)?;
        }
        let n_moved = to_move.len();
        for (from, to) in to_move {
            disk.rename(from, &to).map_err(CacheError::io("rename", &to))?;
        }
        self.sync_folders(&folders)?;
        Ok(n_moved)
    }

    /// Adds what the stage published by reference.
    fn add_external<'a>(
        &self,
        outputs: &mut Outputs,
        external: impl Iterator<Item = &'a ExternalFile>,
    ) -> Result<(), CacheError> {
        for file in external {
            let Some(files) = outputs.get_mut(&file.port) else {
                return Err(CacheError::UndeclaredOutput { port: file.port.clone() });
            };
            if !is_safe_name(&file.name) {
                return Err(CacheError::BadName { port: file.port.clone(), name: file.name.clone() });
            }
            let entry = self.refer(file)?;
            if files.insert(file.name.clone(), entry).is_some() {
                return Err(CacheError::DuplicateName { port: file.port.clone(), name: file.name.clone() });
            }
        }
        Ok(())
    }

    /// Digests an external file unless the stage did, and notes how it looks. One of an input that lies in this store is a blob here too.
    fn refer(&self, file: &ExternalFile) -> Result<ManifestFile, CacheError> {
        let path = std::path::absolute(&file.path).map_err(CacheError::io("find", &file.path))?;
        if let Some(digest) =
            file.digest.as_ref().filter(|digest| is_digest(digest) && self.inner.layout.blob(digest) == path)
        {
            // Whoever runs a stage holds its inputs, so the blob stays until this manifest holds it too.
            let size_bytes = stat(&path)?.size_bytes;
            return Ok(ManifestFile { digest: digest.clone(), size_bytes, external: None });
        }
        let Some(path_text) = path.to_str() else {
            return Err(CacheError::BadName { port: file.port.clone(), name: path.to_string_lossy().into_owned() });
        };
        let before = stat(&path)?;
        let digest = match &file.digest {
            Some(digest) if is_digest(digest) => digest.clone(),
            Some(digest) => {
                return Err(CacheError::BadDigest { name: file.name.clone(), digest: digest.clone() });
            }
            None => self.digest_file(&path)?.digest,
        };
        // A manifest is believed where the file looks as it did: after a power cut its bytes must be what was read.
        self.inner.disk.sync_file(&path).map_err(CacheError::io("sync", &path))?;
        let seen = stat(&path)?;
        if seen != before {
            return Err(CacheError::ChangedWhileReading { path });
        }
        self.remember_settled(&seen, &digest);
        Ok(ManifestFile {
            digest,
            size_bytes: seen.size_bytes,
            external: Some(Box::new(ExternalRef {
                path: path_text.to_owned(),
                dev: seen.dev,
                ino: seen.ino,
                mtime_ns: seen.mtime_ns,
                ctime_ns: seen.ctime_ns,
            })),
        })
    }

    /// Puts `new` under its fingerprint unless an earlier manifest stays. Who holds the stage lock is alone in that.
    fn commit(&self, attempt: &Attempt, new: Manifest, preimage: &Value) -> Result<Publication, CacheError> {
        let Some(first) = self.lookup(&new.fingerprint)? else {
            self.write_standing(attempt, &new, preimage)?;
            return Ok(Publication { manifest: new, divergence: None });
        };
        // Who wrote it may have been killed before its name was synced.
        self.sync_folders(&BTreeSet::from([folder_of(&self.inner.layout.manifest(&new.fingerprint))]))?;
        if first.has_outputs_of(&new) {
            // The same bytes; if they lie elsewhere now (a file downloaded again), the new manifest says where.
            if first.outputs == new.outputs {
                let _ = self.add_to_semantic_index(&first);
                return Ok(Publication { manifest: first, divergence: None });
            }
            self.write_standing(attempt, &new, preimage)?;
            return Ok(Publication { manifest: new, divergence: None });
        }
        // An earlier manifest whose files are gone would be made again and diverge again, for ever.
        if self.missing(&first)?.is_empty() {
            self.write_divergence(attempt, &new, preimage)?;
            let manifest = first.clone();
            return Ok(Publication { manifest, divergence: Some(Box::new(Divergence { before: first, now: new })) });
        }
        self.write_divergence(attempt, &first, preimage)?;
        self.write_standing(attempt, &new, preimage)?;
        let manifest = new.clone();
        Ok(Publication { manifest, divergence: Some(Box::new(Divergence { before: first, now: new })) })
    }

    /// Steps 5 and 6. The index comes first: an entry without a manifest is skipped, the other way round is a lost reuse.
    pub(crate) fn write_standing(
        &self,
        attempt: &Attempt,
        manifest: &Manifest,
        preimage: &Value,
    ) -> Result<(), CacheError> {
        let _ = self.add_to_semantic_index(manifest);
        self.write_manifest(attempt, &manifest.encode(preimage), &self.inner.layout.manifest(&manifest.fingerprint))
    }

    fn write_divergence(&self, attempt: &Attempt, manifest: &Manifest, preimage: &Value) -> Result<(), CacheError> {
        let text = manifest.encode(preimage);
        let content = blake3::hash(text.as_bytes()).to_hex();
        let name = format!("{}-{}", manifest.fingerprint, &content[..16]);
        self.write_manifest(attempt, &text, &fanned(self.inner.layout.divergences(), &name))
    }

    pub(crate) fn write_manifest(&self, attempt: &Attempt, text: &str, to: &Path) -> Result<(), CacheError> {
        let disk = &self.inner.disk;
        let folder = folder_of(to);
        self.make_folder(&folder)?;
        let temporary = attempt.dir().join("manifest");
        disk.write_and_sync(&temporary, text.as_bytes()).map_err(CacheError::io("write", &temporary))?;
        disk.rename(&temporary, to).map_err(CacheError::io("rename", to))?;
        self.sync_folders(&BTreeSet::from([folder]))
    }
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().expect("every file and folder of the store lies below its root").to_path_buf()
}

fn to_manifest_files(found: &BTreeMap<String, BTreeMap<String, Found>>) -> Outputs {
    let to_file =
        |file: &Found| ManifestFile { digest: file.digest.clone(), size_bytes: file.size_bytes, external: None };
    found
        .iter()
        .map(|(port, files)| (port.clone(), files.iter().map(|(name, file)| (name.clone(), to_file(file))).collect()))
        .collect()
}

fn to_manifest(draft: ManifestDraft, outputs: Outputs) -> Result<Manifest, CacheError> {
    let mut artifacts = NameMap::default();
    for (port, files) in outputs {
        if files.is_empty() {
            return Err(CacheError::EmptyOutput { port });
        }
        let kind = draft.outputs[&port];
        let digest = artifact_digest(kind, files.iter().map(|(name, file)| (name.as_str(), file.digest.as_str())));
        artifacts.insert(port, ManifestArtifact { kind, digest, files });
    }
    Ok(Manifest {
        fingerprint: draft.fingerprint,
        semantic_key: draft.semantic_key,
        compute_class: draft.compute_class,
        kind: draft.kind,
        kind_version: draft.kind_version,
        resolved: draft.resolved,
        outputs: artifacts,
        facts: draft.facts,
    })
}
