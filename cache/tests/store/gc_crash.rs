//! Collecting garbage, and what comes before and after it: cut off at any moment, or refused by the disk, nothing that
//! was promised is lost, no manifest lies, and the next run ends byte for byte as a clean one.
//!
//! ```text
//! gc removes (not synced) --> the same blobs are made again --> a power cut: each removal and each name lost or not, in any order
//! unpin --> gc            --> a power cut: a pin that is still there keeps its files
//! ```
//!
//! `gc` alone is tried in `gc.rs`, publishing alone in `power_cut.rs`.

use std::path::{Path, PathBuf};

use pipe_cache::{CacheError, Disk as _, GcRoots, Store};

use crate::crash::DyingDisk;
use crate::faults::{BROKEN, FULL, FaultyDisk, Refuses};
use crate::gc::{assert_sound, collect, its_roots, roots, three_manifests};
use crate::power_cut::{Recording, fast_folder, find_false_file, find_lie, reopen, results, tree};
use crate::sandbox::*;
use crate::simulated_disk::Forgets;

/// As in [`three_manifests`]: shares a blob with what is rooted.
const REMOVED: [(&str, &str); 3] = [("a", "shared"), ("c", "garbage"), ("d", "more")];

/// Of another stage: of its blobs one was removed, and one is new.
const OTHER: [(&str, &str); 2] = [("c", "garbage"), ("e", "new")];

const OTHER_FINGERPRINT: &str = "ee01";

/// Of the states after a power cut at one moment, all are looked at up to this number; of more, a sample.
const STATES_MAX: usize = 300;

fn publish_removed(store: &Store) {
    publish(store, FINGERPRINT_2, &REMOVED).expect("published");
}

fn publish_other(store: &Store) {
    publish(store, OTHER_FINGERPRINT, &OTHER).expect("published");
}

fn is_whole(store: &Store, fingerprint: &str) -> bool {
    let manifest = store.lookup(fingerprint).expect("looked up");
    manifest.is_some_and(|manifest| find_false_file(store, &manifest).is_none())
}

/// What is wrong with any state after `gc` and then `after`, each with whether `promised` must be whole in it. States of
/// before `gc` are left out: a power cut keeps what is certain.
fn faults_after_gc(name: &str, after: fn(&Recording), promised: &[&str], forgets: Forgets) -> Vec<String> {
    let recording = Recording::after(three_manifests, forgets);
    let store = recording.store();
    let (plan, _) = collect(&store, &its_roots(), None);
    assert_eq!(plan.removals.len(), 4);
    drop(store);
    after(&recording);
    let store = recording.store();
    let is_promised_from = recording.disk.now();
    publish_removed(&store);
    publish_other(&store);
    let clean = results(store.root());
    let states = recording.states(name, is_promised_from, STATES_MAX);
    assert!(states.len() > 100, "{name}: {} states are too few", states.len());
    let fault = |store: &Store, is_promised: bool| {
        let mut roots_and_new = vec![FINGERPRINT, "dd01", OTHER_FINGERPRINT];
        roots_and_new.extend(promised.iter().filter(|_| is_promised));
        if let Some(lie) = find_lie(store, &roots_and_new) {
            return Some(lie);
        }
        if store.lookup(FINGERPRINT_2).expect("looked up").is_none() {
            return Some("a manifest is gone".into());
        }
        if let Some(lost) = promised.iter().find(|fingerprint| is_promised && !is_whole(store, fingerprint)) {
            return Some(format!("`{lost}` was published and is lost"));
        }
        publish_removed(store);
        publish_other(store);
        if let Some(lie) = find_lie(store, &[FINGERPRINT_2, OTHER_FINGERPRINT]) {
            return Some(format!("after the next run: {lie}"));
        }
        (results(store.root()) != clean).then(|| "the next run ends otherwise than a clean one".into())
    };
    let tried = states.iter().filter_map(|(state, is_promised)| {
        let (_folder, store) = reopen(state);
        fault(&store, *is_promised).map(|fault| format!("{fault}\n{state:#?}"))
    });
    tried.collect()
}

#[test]
fn a_power_cut_after_what_was_removed_was_published_again() {
    let again = |recording: &Recording| publish_removed(&recording.store());
    let faults = faults_after_gc("gc, the same again", again, &[FINGERPRINT_2], Forgets::Nothing);
    assert_eq!(faults.first(), None);
}

fn another_manifest(recording: &Recording) {
    publish_other(&recording.store());
}

#[test]
fn a_power_cut_after_another_manifest_names_what_was_removed() {
    let faults = faults_after_gc("gc, another manifest", another_manifest, &[OTHER_FINGERPRINT], Forgets::Nothing);
    assert_eq!(faults.first(), None);
}

#[test]
fn a_power_cut_after_a_second_gc_removed_what_was_published_in_between() {
    let twice = |recording: &Recording| {
        publish_removed(&recording.store());
        let (_, removed) = collect(&recording.store(), &its_roots(), None);
        assert_eq!(removed.sizes.values().map(|size| size.n_files).sum::<u64>(), 2);
        publish_other(&recording.store());
    };
    let faults = faults_after_gc("gc, the same again, gc, another", twice, &[OTHER_FINGERPRINT], Forgets::Nothing);
    assert_eq!(faults.first(), None);
}

#[test]
fn a_disk_that_forgets_to_sync_is_found_out_after_gc_too() {
    for (forgets, said) in [(Forgets::FileSyncs, "other bytes"), (Forgets::FolderSyncs, "missing")] {
        let faults =
            faults_after_gc(&format!("gc, {forgets:?} forgotten"), another_manifest, &[OTHER_FINGERPRINT], forgets);
        assert!(faults.iter().any(|fault| fault.contains(said)), "{forgets:?}: {} faults", faults.len());
    }
}

/// The pins of a store by name, with what each keeps; all of it is whole.
fn sound_pins(store: &Store, when: &str) -> Vec<(String, Vec<String>)> {
    let pins = store.pins().unwrap_or_else(|error| panic!("{when}: {error}"));
    for fingerprint in pins.iter().flat_map(|pin| &pin.fingerprints) {
        assert!(is_whole(store, fingerprint), "{when}: a pin keeps `{fingerprint}`, which is not whole");
    }
    pins.into_iter().map(|pin| (pin.name, pin.fingerprints)).collect()
}

fn pin(name: &str, fingerprint: &str) -> (String, Vec<String>) {
    (name.to_owned(), vec![fingerprint.to_owned()])
}

/// What happens to pins, and what they must be afterwards.
type PinCase = (&'static str, fn(&Store) -> Result<(), CacheError>, Vec<(String, Vec<String>)>);

fn pin_cases() -> [PinCase; 3] {
    [
        ("pin", |store| store.pin("run-1", &[FINGERPRINT_2]), vec![pin("dd01", "dd01"), pin("run-1", FINGERPRINT_2)]),
        ("pin again", |store| store.pin("dd01", &[FINGERPRINT_2]), vec![pin("dd01", FINGERPRINT_2)]),
        ("unpin", |store| store.unpin("dd01").map(drop), vec![]),
    ]
}

#[test]
fn a_power_cut_while_pins_change_and_then_gc_runs() {
    for (name, change, after) in pin_cases() {
        let recording = Recording::after(three_manifests, Forgets::Nothing);
        let store = recording.store();
        change(&store).expect("changed");
        let promised = recording.disk.now();
        drop(store);
        drop(collect(&recording.store(), &roots(&[FINGERPRINT]), None));
        let before = vec![pin("dd01", "dd01")];
        let (mut n_before, mut n_after) = (0, 0);
        for (state, is_promised) in recording.states(name, promised, STATES_MAX) {
            let (_folder, store) = reopen(&state);
            let found = sound_pins(&store, name);
            assert!(found == after || (found == before && !is_promised), "{name}: {found:?}\n{state:#?}");
            n_before += usize::from(found == before);
            n_after += usize::from(found == after);
            change(&store).expect("changed now");
            assert_eq!(sound_pins(&store, name), after);
            assert_eq!(find_lie(&store, &[FINGERPRINT]), None, "{name}\n{state:#?}");
        }
        assert!(
            n_before > 0 && n_after > 0,
            "{name}: {n_before} states with the pins of before, {n_after} with those after"
        );
    }
}

#[test]
fn killed_after_any_operation_on_pins_they_are_those_of_before_or_after() {
    for (name, change, after) in pin_cases() {
        let mut n_operations = 0;
        loop {
            let folder = fast_folder();
            let root = folder.path().join(".pipe");
            three_manifests(&root);
            let disk = DyingDisk::new(n_operations);
            let survived = Store::open_on(&root, disk).and_then(|store| change(&store)).is_ok();
            let store = Store::open(&root).expect("opened");
            let found = sound_pins(&store, name);
            let is_before = found == [pin("dd01", "dd01")];
            assert!(found == after || (is_before && !survived), "{name}, killed after {n_operations}: {found:?}");
            assert_eq!(names(&root.join("tmp")), Vec::<String>::new(), "{name}, killed after {n_operations}");
            change(&store).expect("changed now");
            assert_eq!(sound_pins(&store, name), after, "{name}, killed after {n_operations}");
            if survived {
                break;
            }
            n_operations += 1;
        }
        assert!(n_operations > 1, "{name}");
    }
}

/// What a disk refused, or `None` where it had nothing to refuse.
fn refused(path: &Path, error: &CacheError, errno: i32) -> PathBuf {
    let CacheError::Io { path: at, source, .. } = error else { panic!("{error}") };
    assert_eq!(source.raw_os_error(), Some(errno), "{error}");
    assert!(at.starts_with(path), "{error}");
    at.clone()
}

#[test]
fn a_disk_may_refuse_any_removal() {
    let mut n_refusals = 0;
    for errno in [FULL, BROKEN] {
        for first in 0.. {
            let folder = fast_folder();
            let root = folder.path().join(".pipe");
            three_manifests(&root);
            let clean = results(&root);
            let disk = FaultyDisk::new(Refuses::Only(first), errno);
            let store = Store::open_on(&root, disk.clone()).expect("opening changes nothing");
            let gc = store.begin_gc().expect("begun");
            let plan = store.plan_gc(&its_roots(), None).expect("planned");
            let removed = gc.remove(&plan);
            drop((gc, store));
            let when = format!("errno {errno}, operation {first}");
            assert_eq!(removed.is_err(), disk.has_refused(), "{when}");
            if let Err(error) = &removed {
                let at = refused(&root, error, errno);
                assert!(plan.removals.iter().any(|removal| removal.path == at), "{when}: {error}");
            }
            assert_sound(&Store::open(&root).expect("opened"), &clean, &when);
            if !disk.has_refused() {
                break;
            }
            n_refusals += 1;
        }
    }
    assert_eq!(n_refusals, 8, "four removals, each refused in two ways");
}

#[test]
fn a_full_disk_is_emptied_by_gc() {
    let folder = fast_folder();
    let root = folder.path().join(".pipe");
    three_manifests(&root);
    let disk = FaultyDisk::new(Refuses::SpaceFrom(0), FULL);
    let store = Store::open_on(&root, disk.clone()).expect("opening needs no space");
    let (plan, removed) = collect(&store, &its_roots(), None);
    assert!(!disk.has_refused());
    assert_eq!((plan.removals.len(), removed.sizes.len()), (4, 3), "{removed:?}");
}

#[test]
fn a_disk_may_refuse_any_operation_on_pins() {
    for (name, change, after) in pin_cases() {
        for errno in [FULL, BROKEN] {
            let mut n_failed = 0;
            for first in 0.. {
                let folder = fast_folder();
                let root = folder.path().join(".pipe");
                three_manifests(&root);
                let disk = FaultyDisk::new(Refuses::Only(first), errno);
                let changed = Store::open_on(&root, disk.clone()).and_then(|store| change(&store));
                let when = format!("{name}, errno {errno}, operation {first}");
                if let Err(error) = &changed {
                    refused(&root, error, errno);
                    n_failed += 1;
                }
                let store = Store::open(&root).expect("opened");
                let found = sound_pins(&store, &when);
                let is_before = found == [pin("dd01", "dd01")];
                assert!(found == after || (is_before && changed.is_err()), "{when}: {found:?}");
                assert_eq!(names(&root.join("tmp")), Vec::<String>::new(), "{when}");
                change(&store).expect("changed now");
                assert_eq!(sound_pins(&store, &when), after, "{when}");
                if !disk.has_refused() {
                    break;
                }
            }
            assert!(n_failed > 0, "{name}");
        }
    }
}

/// Training state that belongs to a root, noted in the index, and old training state that is not.
fn noted_state(store: &Store) {
    write(&store.checkpoint_dir("of-root").join("state"), "1234");
    store.note_checkpoint("of-root", FINGERPRINT_2).expect("noted");
    store.note_checkpoint("of-root", FINGERPRINT).expect("noted");
}

#[test]
fn a_power_cut_while_training_state_is_noted_costs_at_most_the_state() {
    let before = |root: &Path| {
        three_manifests(root);
        write(&root.join("checkpoints/of-root/state"), "1234");
    };
    let recording = Recording::after(before, Forgets::Nothing);
    noted_state(&recording.store());
    let keep = |checkpoints_since| GcRoots { checkpoints_since, ..roots(&[FINGERPRINT]) };
    let (mut n_kept, mut n_lost) = (0, 0);
    for (state, _) in recording.states("training state noted", recording.disk.now(), STATES_MAX) {
        let (_folder, store) = reopen(&state);
        let roots = keep(its_roots().checkpoints_since);
        let removals = store.plan_gc(&roots, None).expect("planned").removals;
        let is_lost = removals.iter().any(|removal| removal.path.ends_with("of-root"));
        *(if is_lost { &mut n_lost } else { &mut n_kept }) += 1;
        // Whatever is left of the note, a new one counts.
        store.note_checkpoint("of-root", FINGERPRINT).expect("noted again");
        drop(collect(&store, &roots, None));
        assert_eq!(names(&store.root().join("checkpoints")), ["of-root"], "{state:#?}");
        assert_eq!(find_lie(&store, &[FINGERPRINT, "dd01"]), None, "{state:#?}");
    }
    assert!(n_kept > 0 && n_lost > 0, "{n_kept} kept, {n_lost} lost");
}

#[test]
fn training_state_that_is_written_after_gc_survives_a_power_cut() {
    let recording = Recording::after(three_manifests, Forgets::Nothing);
    let store = recording.store();
    drop(collect(&store, &its_roots(), None));
    // As `train` saves: the same trajectory again, synced up to the store's own folder.
    let (folder, disk) = (store.checkpoint_dir("old"), &recording.disk);
    disk.create_folders(&folder).expect("made");
    disk.write(&store.root().join("tmp/state"), b"new state").expect("written");
    disk.sync_file(&store.root().join("tmp/state")).expect("synced");
    disk.rename(&store.root().join("tmp/state"), &folder.join("c")).expect("renamed");
    folder.ancestors().take(3).for_each(|folder| disk.sync_folder(folder).expect("synced"));
    let promised = disk.now();
    for (state, is_promised) in recording.states("training state after gc", promised, STATES_MAX) {
        let (_folder, store) = reopen(&state);
        let files = tree(&store.checkpoint_dir("old"));
        let saved = files.iter().find(|(path, _)| path.ends_with("c"));
        assert!(saved.is_none_or(|(_, bytes)| bytes == b"new state"), "{state:#?}");
        assert!(!is_promised || saved.is_some(), "{state:#?}");
        assert!(files.iter().all(|(path, bytes)| path.ends_with("c") || bytes == b"state"), "{state:#?}");
    }
}
