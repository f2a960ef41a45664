//! Collecting garbage: blobs, training state and set-aside files that nobody has a reason to keep.
//!
//! ```text
//! begin_gc            one at a time; from here on, what anybody holds stays held
//! the caller reads its roots: lock files, runs
//! plan_gc(roots)      reads pins, holds, manifests -> what would be removed
//! Gc::remove(plan)    a few at a time, with the lock to itself: read the holds, remove what they do not name
//! ```
//!
//! Whoever is about to rely on files holds their manifest and then looks whether they are there (`hold`); whoever publishes
//! shares the lock from finding a blob to naming it in a held manifest (`publish`). So nothing that is found is removed.
//!
//! A kept fingerprint keeps the files of its manifest and of its divergences. Manifests are never removed: they
//! are enough to plan with, and a file that a stage needs is made again. It deliberately knows neither
//! lock files nor events: what is kept besides pins and holds, its caller says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::digest::is_digest;
use crate::hold::running_path;
use crate::inspect::{files_below, size_below};
use crate::layout::check_key;
use crate::lock::{FileLock, wait_for};
use crate::manifest::{Manifest, Unreadable};
use crate::store::entries;
use crate::{CacheError, SizeOf, Store};

/// Most removals while everybody else waits, and the longest they wait, but for one removal.
const BATCH_MAX: usize = 64;
const BATCH_DURATION_MAX: Duration = Duration::from_millis(20);

/// Between two batches those who wait get the lock: `flock` is not fair.
const PAUSE: Duration = Duration::from_millis(1);

/// What is kept besides pins and what is held.
#[derive(Clone, Debug, Default)]
pub struct GcRoots {
    /// The manifests whose files are kept.
    pub fingerprints: BTreeSet<String>,
    /// When the files of a fingerprint were last used, where that is known; else a blob's age counts.
    pub used: BTreeMap<String, SystemTime>,
    /// Training state that was written since then is kept; `None` keeps all.
    pub checkpoints_since: Option<SystemTime>,
}

/// What would be removed, in this order.
#[derive(Clone, Debug, Default)]
pub struct GcPlan {
    /// What nobody has a reason to keep, as far as there is need.
    pub removals: Vec<Removal>,
    /// Blobs that stay.
    pub kept: SizeOf,
    /// What the store holds in all when that is done, in bytes.
    pub held_bytes: u64,
    /// Pins that were read.
    pub n_pins: usize,
    /// Processes that hold something now.
    pub n_holds: usize,
}

/// One thing to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// What it is.
    pub kind: RemovalKind,
    /// Where it lies.
    pub path: PathBuf,
    /// What it takes.
    pub size: SizeOf,
    /// When it was last used or made.
    pub last_used: SystemTime,
    /// A manifest that names it: stage kind, port and file, as in `train: adapter/adapter.safetensors`.
    pub what: Option<String>,
}

/// What is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RemovalKind {
    /// What `verify` set aside.
    SetAside,
    /// Training state of a trajectory.
    Checkpoint,
    /// A file of an artifact.
    Blob,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// By kind.
    pub sizes: BTreeMap<RemovalKind, SizeOf>,
    /// What was in the plan and is kept: somebody relies on it by now.
    pub spared: SizeOf,
}

/// The right to remove: one per store, dies with its process.
#[derive(Debug)]
pub struct Gc {
    store: Store,
    _running: FileLock,
}

impl Store {
    /// Begins to collect garbage, once no other process does. Roots must be read after this.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn begin_gc(&self) -> Result<Gc, CacheError> {
        let running = wait_for(&running_path(&self.inner.layout))?;
        let _alone = self.exclude_all()?;
        self.remove_free_holds(&entries(&self.inner.layout.holds())?)?;
        Ok(Gc { store: self.clone(), _running: running })
    }

    /// What would be removed: all that is not kept, or, with `max_bytes`, the longest unused of it until the store holds no more.
    ///
    /// # Errors
    /// When the disk refuses, or it is not known what a pin keeps.
    pub fn plan_gc(&self, roots: &GcRoots, max_bytes: Option<u64>) -> Result<GcPlan, CacheError> {
        let pins = self.pins()?;
        let held = self.held()?;
        let pinned = pins.iter().flat_map(|pin| &pin.fingerprints);
        let fingerprints: BTreeSet<&String> =
            roots.fingerprints.iter().chain(&held.fingerprints).chain(pinned).collect();
        let mut plan = GcPlan { n_pins: pins.len(), n_holds: held.n_holds, ..GcPlan::default() };
        let mut garbage = self.set_aside_files()?;
        garbage.extend(self.unused_checkpoints(&fingerprints, &held.trajectories, roots.checkpoints_since)?);
        garbage.extend(self.unnamed_blobs(&fingerprints, &roots.used, &mut plan.kept)?);
        garbage.sort_by(|a, b| {
            let rank = |removal: &Removal| (removal.kind != RemovalKind::SetAside, removal.last_used);
            rank(a).cmp(&rank(b)).then_with(|| a.path.cmp(&b.path))
        });
        plan.held_bytes = self.size()?.held_bytes();
        for removal in garbage {
            if max_bytes.is_some_and(|max_bytes| plan.held_bytes <= max_bytes) {
                break;
            }
            plan.held_bytes = plan.held_bytes.saturating_sub(removal.size.size_bytes);
            plan.removals.push(removal);
        }
        Ok(plan)
    }

    fn set_aside_files(&self) -> Result<Vec<Removal>, CacheError> {
        let files = files_below(&self.inner.layout.corrupt())?;
        Ok(files.into_iter().filter_map(|path| removal_of(RemovalKind::SetAside, path)).collect())
    }

    fn unused_checkpoints(
        &self,
        fingerprints: &BTreeSet<&String>,
        held: &BTreeSet<String>,
        since: Option<SystemTime>,
    ) -> Result<Vec<Removal>, CacheError> {
        let Some(since) = since else { return Ok(Vec::new()) };
        let mut removals = Vec::new();
        for path in entries(&self.inner.layout.checkpoints())? {
            let trajectory = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let is_kept = held.contains(&trajectory)
                || self.results_of(&trajectory).iter().any(|result| fingerprints.contains(result));
            let modified = |path: &Path| fs::symlink_metadata(path).and_then(|metadata| metadata.modified()).ok();
            let files = files_below(&path)?;
            let newest = files.iter().chain([&path]).filter_map(|path| modified(path)).max();
            if let Some(last_used) = newest.filter(|newest| !is_kept && *newest < since) {
                let size = size_below(&path)?;
                removals.push(Removal { kind: RemovalKind::Checkpoint, path, size, last_used, what: None });
            }
        }
        Ok(removals)
    }

    fn unnamed_blobs(
        &self,
        fingerprints: &BTreeSet<&String>,
        used: &BTreeMap<String, SystemTime>,
        kept: &mut SizeOf,
    ) -> Result<Vec<Removal>, CacheError> {
        let mut named = BTreeSet::new();
        for fingerprint in fingerprints {
            named.extend(self.digests_of(fingerprint)?);
        }
        let names = self.names_of_blobs()?;
        let mut last_used: BTreeMap<String, SystemTime> = BTreeMap::new();
        for (fingerprint, at) in used {
            for digest in self.digests_of(fingerprint)? {
                last_used.entry(digest).and_modify(|latest| *latest = (*latest).max(*at)).or_insert(*at);
            }
        }
        let mut removals = Vec::new();
        for path in files_below(&self.inner.layout.blobs())? {
            let digest = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            // What is not named by a digest is not ours.
            let Some(mut removal) = removal_of(RemovalKind::Blob, path).filter(|_| is_digest(&digest)) else {
                continue;
            };
            if named.contains(&digest) {
                kept.add(removal.size);
                continue;
            }
            removal.last_used = last_used.get(&digest).copied().unwrap_or(removal.last_used);
            removal.what = names.get(&digest).cloned();
            removals.push(removal);
        }
        Ok(removals)
    }

    /// The blobs that a fingerprint names, by its manifest and by its divergences.
    fn digests_of(&self, fingerprint: &str) -> Result<BTreeSet<String>, CacheError> {
        let layout = &self.inner.layout;
        if check_key(fingerprint).is_err() {
            return Ok(BTreeSet::new());
        }
        let of_divergence = |path: &PathBuf| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            name.rsplit_once('-').is_some_and(|(stem, _)| stem == fingerprint)
        };
        let mut paths = entries(&layout.divergences().join(&fingerprint[..2]))?;
        paths.retain(of_divergence);
        paths.push(layout.manifest(fingerprint));
        let texts = paths.iter().filter_map(|path| fs::read(path).ok());
        Ok(texts.flat_map(|bytes| digests_in(&bytes)).collect())
    }

    /// By digest: what the manifests that name it call it.
    fn names_of_blobs(&self) -> Result<BTreeMap<String, String>, CacheError> {
        let mut names = BTreeMap::new();
        for path in files_below(&self.inner.layout.manifests())? {
            let Some(manifest) = fs::read(&path).ok().and_then(|bytes| Manifest::decode(&bytes).ok()) else { continue };
            for (port, artifact) in &manifest.outputs {
                for (name, file) in &artifact.files {
                    names.entry(file.digest.clone()).or_insert_with(|| format!("{}: {port}/{name}", manifest.kind));
                }
            }
        }
        Ok(names)
    }
}

impl Gc {
    /// Removes what the plan says and nobody holds by now.
    ///
    /// # Errors
    /// When the disk refuses; what was removed before is gone.
    pub fn remove(&self, plan: &GcPlan) -> Result<Removed, CacheError> {
        let mut removed = Removed::default();
        let mut pending = plan.removals.iter();
        while !pending.as_slice().is_empty() {
            let alone = self.store.exclude_all()?;
            let begin = Instant::now();
            let held = self.store.held()?;
            let mut named = BTreeSet::new();
            for fingerprint in &held.fingerprints {
                named.extend(self.store.digests_of(fingerprint)?);
            }
            for removal in pending.by_ref().take(BATCH_MAX) {
                let name = removal.path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
                let is_spared = match removal.kind {
                    RemovalKind::Blob => named.contains(name.as_ref()),
                    RemovalKind::Checkpoint => held.trajectories.contains(name.as_ref()),
                    RemovalKind::SetAside => false,
                };
                if is_spared {
                    removed.spared.add(removal.size);
                } else {
                    self.remove_one(removal)?;
                    removed.sizes.entry(removal.kind).or_default().add(removal.size);
                }
                if begin.elapsed() >= BATCH_DURATION_MAX {
                    break;
                }
            }
            drop(alone);
            thread::sleep(PAUSE);
        }
        Ok(removed)
    }

    /// Not synced: what comes back after a power cut is removed the next time.
    fn remove_one(&self, removal: &Removal) -> Result<(), CacheError> {
        let disk = &self.store.inner.disk;
        let path = &removal.path;
        match removal.kind {
            RemovalKind::Checkpoint => disk.remove_folder(path),
            RemovalKind::Blob | RemovalKind::SetAside => disk.remove_file(path),
        }
        .map_err(CacheError::io("remove", path))
    }
}

/// `None` for what goes away while it is looked at.
fn removal_of(kind: RemovalKind, path: PathBuf) -> Option<Removal> {
    let metadata = fs::symlink_metadata(&path).ok()?;
    let size = SizeOf { n_files: 1, size_bytes: metadata.len() };
    // Of a blob the modification time is fixed; its last change is its getting its name.
    let changed_s = u64::try_from(std::os::unix::fs::MetadataExt::ctime(&metadata)).unwrap_or(0);
    let last_used = SystemTime::UNIX_EPOCH + Duration::from_secs(changed_s);
    Some(Removal { kind, path, size, last_used, what: None })
}

/// The blobs that a manifest's text names. Of one that another version wrote, every word that could be a digest counts.
fn digests_in(bytes: &[u8]) -> Vec<String> {
    match Manifest::decode(bytes) {
        Ok(manifest) => {
            let files = manifest.outputs.values().flat_map(|artifact| artifact.files.values());
            files.filter(|file| file.external.is_none()).map(|file| file.digest.clone()).collect()
        }
        Err(Unreadable::Damaged) => Vec::new(),
        Err(Unreadable::Unknown) => {
            let text = String::from_utf8_lossy(bytes);
            let words = text.split(|c: char| !c.is_ascii_alphanumeric());
            words.filter(|word| is_digest(word)).map(str::to_owned).collect()
        }
    }
}
