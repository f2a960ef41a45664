//! A power cut at any moment of publishing leaves no lie, loses nothing that was promised, and the next run ends byte for
//! byte as a clean one.
//!
//! The states are enumerated by `simulated_disk`; each is laid out in a real folder and opened as the next run would.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipe_cache::{Disk, Manifest, RealDisk, Store};

use crate::crash::DyingDisk;
use crate::sandbox::*;
use crate::simulated_disk::{Forgets, SimulatedDisk, State, materialize};

const FILES: [(&str, &str); 2] = [("a", "first file"), ("more/b", "second file")];

/// Of the states after a power cut at one moment, all are looked at up to this number; of more, a sample.
const STATES_MAX: usize = 800;

/// More than one sector, so that it can be torn.
const LONG: [u8; 700] = [b'x'; 700];

/// The real disk without waiting for it: what is done on it does not outlive the test.
#[derive(Debug)]
pub(crate) struct UnsyncedDisk;

impl Disk for UnsyncedDisk {
    fn create_folders(&self, path: &Path) -> std::io::Result<()> {
        RealDisk.create_folders(path)
    }
    fn write(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        RealDisk.write(path, bytes)
    }
    fn append(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        RealDisk.append(path, bytes)
    }
    fn copy(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        RealDisk.copy(from, to)
    }
    fn seal(&self, path: &Path) -> std::io::Result<()> {
        RealDisk.seal(path)
    }
    fn sync_file(&self, _: &Path) -> std::io::Result<()> {
        Ok(())
    }
    fn sync_folder(&self, _: &Path) -> std::io::Result<()> {
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove_folder(&self, path: &Path) -> std::io::Result<()> {
        RealDisk.remove_folder(path)
    }
    fn remove_file(&self, path: &Path) -> std::io::Result<()> {
        RealDisk.remove_file(path)
    }
}

/// A temporary folder in memory, where there is such a place: thousands of states are laid out.
pub(crate) fn fast_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary folder")
}

/// A folder in which something is recorded: the store is `.pipe` in it.
pub(crate) struct Recording {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) disk: Arc<SimulatedDisk>,
}

impl Recording {
    /// `before`: what is there and certain before the record begins.
    pub(crate) fn after(before: impl FnOnce(&Path), forgets: Forgets) -> Self {
        let folder = fast_folder();
        before(&folder.path().join(".pipe"));
        let disk = SimulatedDisk::new(folder.path(), forgets);
        Recording { folder, disk }
    }

    pub(crate) fn store(&self) -> Store {
        Store::open_on(&self.folder.path().join(".pipe"), self.disk.clone()).expect("a store")
    }

    /// Every state that a power cut may leave, with whether it can be one from `promised` on; the name is for the count.
    pub(crate) fn states(&self, name: &str, promised: usize, n_max: usize) -> Vec<(State, bool)> {
        let mut states: HashSet<State> = HashSet::new();
        let mut late = HashSet::new();
        let mut n_sampled = 0;
        let moments = self.disk.moments();
        for &moment in &moments {
            let (found, is_all) = self.disk.crash_states(moment, n_max);
            n_sampled += usize::from(!is_all);
            if moment >= promised { &mut late } else { &mut states }.extend(found);
        }
        let (n_early, n_late) = (states.len(), late.len());
        let n = moments.len();
        // As `libtest` shows it with --nocapture.
        eprintln!(
            "{name}: {n} moments ({n_sampled} of them sampled), {n_early} states before the promise, {n_late} after"
        );
        states.into_iter().map(|state| (state, false)).chain(late.into_iter().map(|state| (state, true))).collect()
    }
}

/// Every file below a folder with its bytes, sorted by path; without what may be deleted at any time.
pub(crate) fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut pending = vec![folder.to_path_buf()];
    while let Some(current) = pending.pop() {
        for entry in fs::read_dir(&current).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let bytes = fs::read(&path).expect("readable");
                files.push((path.strip_prefix(folder).expect("below it").to_path_buf(), bytes));
            }
        }
    }
    files.sort();
    files
}

/// Blobs and manifests: what must be the same whatever happened before.
pub(crate) fn results(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let is_result = |path: &Path| path.starts_with("blobs") || path.starts_with("manifests");
    tree(root).into_iter().filter(|(path, _)| is_result(path)).collect()
}

/// Why a store is not sound; every manifest that can be read has every file with its bytes.
pub(crate) fn find_lie(store: &Store, fingerprints: &[&str]) -> Option<String> {
    for fingerprint in fingerprints {
        let Some(manifest) = store.lookup(fingerprint).expect("looked up") else { continue };
        if let Some(lie) = find_false_file(store, &manifest) {
            return Some(lie);
        }
    }
    let corrupt = store.verify().expect("verified");
    (!corrupt.is_empty()).then(|| format!("{corrupt:?}"))
}

pub(crate) fn find_false_file(store: &Store, manifest: &Manifest) -> Option<String> {
    let missing = store.missing(manifest).expect("looked at");
    if !missing.is_empty() {
        return Some(format!("missing: {missing:?}"));
    }
    for port in manifest.outputs.keys() {
        for (name, file) in store.artifact(manifest, port).expect("its own port").files {
            let found = blake3::hash(&fs::read(&file.path).expect("it is there")).to_hex().to_string();
            if found != file.digest {
                return Some(format!("`{name}` has other bytes than the manifest says"));
            }
        }
    }
    None
}

/// The store of a state, as the next run finds it.
pub(crate) fn reopen(state: &State) -> (tempfile::TempDir, Store) {
    let folder = fast_folder();
    materialize(state, folder.path());
    let store = Store::open_on(&folder.path().join(".pipe"), Arc::new(UnsyncedDisk)).expect("it opens");
    (folder, store)
}

/// What is wrong with a state after `publish`ing to it; `clean`: what a run without a power cut leaves.
fn find_fault(state: &State, is_promised: bool, publish: Publish, clean: &[(PathBuf, Vec<u8>)]) -> Option<String> {
    let (_folder, store) = reopen(state);
    if !names(&store.root().join("tmp")).is_empty() {
        return Some("something is left in tmp".into());
    }
    let fingerprints = [FINGERPRINT, FINGERPRINT_2];
    if let Some(lie) = find_lie(&store, &fingerprints) {
        return Some(lie);
    }
    if is_promised && store.lookup(FINGERPRINT).expect("looked up").is_none() {
        return Some("what was published is lost".into());
    }
    publish(&store);
    if let Some(lie) = find_lie(&store, &fingerprints) {
        return Some(format!("after the next run: {lie}"));
    }
    (results(store.root()) != clean).then(|| "the next run ends otherwise than a clean one".into())
}

type Publish = fn(&Store);

fn publish_files(store: &Store) {
    publish(store, FINGERPRINT, &FILES).expect("published");
}

fn publish_long(store: &Store) {
    let text = String::from_utf8(LONG.to_vec()).expect("ASCII");
    publish(store, FINGERPRINT, &[("long", &text)]).expect("published");
}

/// What is wrong with any of the states, after what was recorded and then `publish`.
fn find_faults(name: &str, recording: &Recording, publish: Publish, n_max: usize) -> Vec<String> {
    publish(&recording.store());
    let promised = recording.disk.now();
    let clean = results(&recording.folder.path().join(".pipe"));
    let states = recording.states(name, promised, n_max);
    assert!(states.len() > 20, "{name}: {} states are too few", states.len());
    let fault = |(state, is_promised): &(State, bool)| {
        find_fault(state, *is_promised, publish, &clean).map(|fault| format!("{fault}\n{state:#?}"))
    };
    states.iter().filter_map(fault).collect()
}

fn an_empty_store(root: &Path) {
    Store::open(root).expect("a new store");
}

fn a_store_with_blobs(root: &Path) {
    let store = Store::open(root).expect("a new store");
    publish(&store, FINGERPRINT_2, &FILES).expect("published");
}

#[test]
fn a_power_cut_while_a_new_store_is_made_and_filled() {
    let recording = Recording::after(|_| {}, Forgets::Nothing);
    assert_eq!(find_faults("a new store", &recording, publish_files, STATES_MAX).first(), None);
}

#[test]
fn a_power_cut_while_several_sectors_are_published() {
    let recording = Recording::after(an_empty_store, Forgets::Nothing);
    assert_eq!(find_faults("several sectors", &recording, publish_long, STATES_MAX).first(), None);
}

#[test]
fn a_power_cut_while_what_is_there_already_is_published() {
    let recording = Recording::after(a_store_with_blobs, Forgets::Nothing);
    assert_eq!(find_faults("there already", &recording, publish_files, STATES_MAX).first(), None);
}

#[test]
fn a_power_cut_while_a_process_publishes_to_folders_it_knows() {
    let recording = Recording::after(an_empty_store, Forgets::Nothing);
    let store = recording.store();
    publish(&store, FINGERPRINT_BESIDE, &[("a", "first")]).expect("published");
    let text = text_beside(&store, "first");
    let files = [("a", "first"), ("b", text.as_str())];
    let before = recording.disk.now();
    publish(&store, FINGERPRINT, &files[1..]).expect("published");
    let promised = recording.disk.now();
    for (state, is_promised) in recording.states("known folders", promised, STATES_MAX) {
        let (_folder, store) = reopen(&state);
        assert_eq!(find_lie(&store, &[FINGERPRINT, FINGERPRINT_BESIDE]), None, "{state:#?}");
        assert!(!is_promised || store.lookup(FINGERPRINT).expect("looked up").is_some(), "{state:#?}");
    }
    assert!(before < promised);
}

#[test]
fn a_power_cut_while_lost_blobs_are_made_again() {
    let before = |root: &Path| {
        let store = Store::open(root).expect("a new store");
        publish_files(&store);
        fs::remove_file(blob(&store, FILES[0].1)).expect("a blob");
    };
    // The manifest is there and certain: only the blob that is made again may be lost, as it was.
    let recording = Recording::after(before, Forgets::Nothing);
    publish_files(&recording.store());
    let promised = recording.disk.now();
    for (state, is_promised) in recording.states("made again", promised, STATES_MAX) {
        let (_folder, store) = reopen(&state);
        let manifest = store.lookup(FINGERPRINT).expect("looked up").expect("it was certain");
        assert_eq!(store.verify().expect("verified"), [], "{state:#?}");
        assert!(!is_promised || store.missing(&manifest).expect("looked at").is_empty(), "{state:#?}");
        publish_files(&store);
        assert_eq!(find_lie(&store, &[FINGERPRINT]), None, "{state:#?}");
    }
}

#[test]
fn a_power_cut_after_a_process_was_killed_and_another_took_over() {
    let mut n_operations = 3;
    loop {
        let recording = Recording::after(an_empty_store, Forgets::Nothing);
        let disk = DyingDisk::on(n_operations, recording.disk.clone());
        let store = Store::open_on(&recording.folder.path().join(".pipe"), disk.clone()).expect("a store");
        drop(publish(&store, FINGERPRINT, &FILES[..1]));
        drop(store);
        let publish_one: Publish = |store| drop(publish(store, FINGERPRINT, &FILES[..1]).expect("published"));
        let name = format!("killed after {n_operations}");
        assert_eq!(find_faults(&name, &recording, publish_one, STATES_MAX / 8).first(), None, "{name}");
        if !disk.is_dead() {
            break;
        }
        n_operations += 3;
    }
    assert!(n_operations > 12);
}

#[test]
fn a_disk_that_forgets_to_sync_is_found_out() {
    for (forgets, said) in [(Forgets::FileSyncs, "other bytes"), (Forgets::FolderSyncs, "missing")] {
        let recording = Recording::after(an_empty_store, forgets);
        let faults = find_faults(&format!("{forgets:?} forgotten"), &recording, publish_files, STATES_MAX);
        assert!(faults.iter().any(|fault| fault.contains(said)), "{forgets:?}: {} faults", faults.len());
    }
}
