//! Collecting garbage removes what nobody has a reason to keep, and never what somebody has found.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use pipe_cache::{Disk, GcPlan, GcRoots, Manifest, RealDisk, RemovalKind, Removed, SizeOf, Store};

use crate::crash::DyingDisk;
use crate::power_cut::{Recording, UnsyncedDisk, fast_folder, find_false_file, find_lie, reopen, results};
use crate::sandbox::*;
use crate::simulated_disk::Forgets;

pub(crate) fn roots(fingerprints: &[&str]) -> GcRoots {
    GcRoots { fingerprints: fingerprints.iter().map(|&f| f.to_owned()).collect(), ..GcRoots::default() }
}

pub(crate) fn collect(store: &Store, roots: &GcRoots, max_bytes: Option<u64>) -> (GcPlan, Removed) {
    let gc = store.begin_gc().expect("begun");
    let plan = store.plan_gc(roots, max_bytes).expect("planned");
    let removed = gc.remove(&plan).expect("removed");
    (plan, removed)
}

/// Publishes as a process of its own does that ends at once.
fn publish_and_end(sandbox: &Sandbox, fingerprint: &str, files: &[(&str, &str)]) -> Manifest {
    publish(&sandbox.reopen(), fingerprint, files).expect("published").manifest
}

fn is_whole(store: &Store, manifest: &Manifest) -> bool {
    find_false_file(store, manifest).is_none()
}

#[test]
fn what_no_root_names_is_removed_and_its_manifest_stays() {
    let sandbox = Sandbox::new();
    let kept = publish_and_end(&sandbox, FINGERPRINT, &[("a", "shared"), ("b", "mine")]);
    let other = publish_and_end(&sandbox, FINGERPRINT_2, &[("a", "shared"), ("c", "theirs")]);
    let plan = sandbox.store.plan_gc(&roots(&[FINGERPRINT]), None).expect("planned");
    assert_eq!(plan.kept, SizeOf { n_files: 2, size_bytes: 10 });
    let named: Vec<_> = plan.removals.iter().map(|removal| (removal.kind, removal.what.as_deref())).collect();
    assert_eq!(named, [(RemovalKind::Blob, Some("prepare: rows/c"))]);
    assert!(is_whole(&sandbox.store, &other), "a plan removes nothing");

    let (_, removed) = collect(&sandbox.store, &roots(&[FINGERPRINT]), None);
    assert_eq!(removed.sizes[&RemovalKind::Blob], SizeOf { n_files: 1, size_bytes: 6 });
    assert!(is_whole(&sandbox.store, &kept));
    assert_eq!(sandbox.store.missing(&other).expect("looked at").len(), 1);
    assert_eq!(sandbox.store.lookup(FINGERPRINT_2).expect("looked up"), Some(other.clone()));
    assert_eq!(publish_and_end(&sandbox, FINGERPRINT_2, &[("a", "shared"), ("c", "theirs")]), other);
    assert!(is_whole(&sandbox.store, &other));
}

#[test]
fn a_pin_keeps_until_it_is_removed() {
    let sandbox = Sandbox::new();
    let manifest = publish_and_end(&sandbox, FINGERPRINT, &[("a", "1")]);
    sandbox.reopen().pin("20250101-120000-ab12", &[FINGERPRINT]).expect("pinned");
    let pins = sandbox.store.pins().expect("read");
    assert_eq!(
        (pins[0].name.as_str(), pins[0].fingerprints.as_slice()),
        ("20250101-120000-ab12", &[FINGERPRINT.into()][..])
    );
    collect(&sandbox.store, &roots(&[]), None);
    assert!(is_whole(&sandbox.store, &manifest));
    assert!(sandbox.store.unpin("20250101-120000-ab12").expect("removed"));
    assert!(!sandbox.store.unpin("20250101-120000-ab12").expect("not there"));
    collect(&sandbox.store, &roots(&[]), None);
    assert!(!is_whole(&sandbox.store, &manifest));
    write(&sandbox.in_store("pins/torn"), "pipe-pin 1\naa11");
    sandbox.store.plan_gc(&roots(&[]), None).expect_err("it is not known what it keeps");
}

#[test]
fn both_results_of_a_divergence_are_kept() {
    let sandbox = Sandbox::new();
    publish_and_end(&sandbox, FINGERPRINT, &[("a", "one")]);
    publish_and_end(&sandbox, FINGERPRINT, &[("a", "two")]);
    let (_, removed) = collect(&sandbox.store, &roots(&[FINGERPRINT]), None);
    assert_eq!(removed, Removed::default());
    assert!(blob(&sandbox.store, "one").exists() && blob(&sandbox.store, "two").exists());
}

#[test]
fn what_another_version_names_is_kept() {
    let sandbox = Sandbox::new();
    publish_and_end(&sandbox, FINGERPRINT, &[("a", "1")]);
    let path = sandbox.in_store("manifests/aa").join(FINGERPRINT);
    let text = read(&path).replace("\"format_version\": 1", "\"format_version\": 2");
    let (body, _) = text.trim_end().rsplit_once('\n').expect("a last line");
    write(&path, &format!("{body}\nblake3 {}\n", blake3::hash(format!("{body}\n").as_bytes()).to_hex()));
    assert_eq!(sandbox.store.lookup(FINGERPRINT).expect("a miss"), None);
    collect(&sandbox.store, &roots(&[FINGERPRINT]), None);
    assert!(blob(&sandbox.store, "1").exists());
}

#[test]
fn the_longest_unused_go_first_until_the_store_is_small_enough() {
    let sandbox = Sandbox::new();
    let texts = ["first of three", "second of three", "third of three"];
    let mut all = GcRoots::default();
    for (number, text) in texts.iter().enumerate() {
        let fingerprint = format!("dd{number}");
        publish_and_end(&sandbox, &fingerprint, &[("a", text)]);
        // The second was used last, the third first.
        let used_s = [200, 300, 100][number];
        all.used.insert(fingerprint, SystemTime::UNIX_EPOCH + Duration::from_secs(used_s));
    }
    let held_bytes = sandbox.store.size().expect("sizes").held_bytes();
    let left = |max_bytes: u64| {
        let plan = sandbox.store.plan_gc(&all, Some(max_bytes)).expect("planned");
        let gone: BTreeSet<_> = plan.removals.iter().map(|removal| removal.path.clone()).collect();
        texts.iter().filter(|text| !gone.contains(&blob(&sandbox.store, text))).copied().collect::<Vec<_>>()
    };
    assert_eq!(left(held_bytes), texts);
    assert_eq!(left(held_bytes - 1), [texts[0], texts[1]]);
    assert_eq!(left(held_bytes - 15), [texts[1]]);
    assert_eq!(left(0), Vec::<&str>::new());
}

#[test]
fn old_training_state_and_set_aside_files_go() {
    let sandbox = Sandbox::new();
    let store = &sandbox.store;
    publish_and_end(&sandbox, FINGERPRINT, &[("a", "1")]);
    for trajectory in ["old", "of-root", "new", "in-use"] {
        write(&store.checkpoint_dir(trajectory).join("state"), "1234");
        let ago = if trajectory == "new" { 60 } else { 9000 };
        age(&store.checkpoint_dir(trajectory).join("state"), Duration::from_secs(ago));
        age(&store.checkpoint_dir(trajectory), Duration::from_secs(ago));
    }
    store.note_checkpoint("of-root", FINGERPRINT).expect("noted");
    let running = sandbox.reopen();
    running.hold(&[], &["in-use"]).expect("held");
    write(&sandbox.in_store("corrupt/x"), "damaged");
    let since = SystemTime::now() - Duration::from_secs(3600);
    let keep_all = roots(&[FINGERPRINT]);
    let some = GcRoots { checkpoints_since: Some(since), ..keep_all.clone() };
    assert_eq!(store.plan_gc(&keep_all, None).expect("planned").removals.len(), 1, "the set-aside file");
    let (_, removed) = collect(store, &some, None);
    assert_eq!(removed.sizes[&RemovalKind::Checkpoint], SizeOf { n_files: 1, size_bytes: 4 });
    assert_eq!(removed.sizes[&RemovalKind::SetAside], SizeOf { n_files: 1, size_bytes: 7 });
    assert_eq!(names(&sandbox.in_store("checkpoints")), ["in-use", "new", "of-root"]);
}

#[test]
fn what_is_published_or_found_after_it_began_is_kept_though_its_process_has_ended() {
    let sandbox = Sandbox::new();
    publish_and_end(&sandbox, FINGERPRINT, &[("a", "found"), ("b", "lost")]);
    publish_and_end(&sandbox, FINGERPRINT_2, &[("c", "looked up")]);
    let gc = sandbox.store.begin_gc().expect("begun");
    let plan = sandbox.store.plan_gc(&roots(&[]), None).expect("planned");
    assert_eq!(plan.removals.len(), 3);
    // The first blob is there already, so publishing does not write it.
    let published = publish_and_end(&sandbox, "dd01", &[("a", "found")]);
    let reader = sandbox.reopen();
    reader.hold(&[FINGERPRINT_2], &[]).expect("held");
    let found = reader.lookup(FINGERPRINT_2).expect("looked up").expect("there");
    assert!(is_whole(&reader, &found));
    drop(reader);
    sandbox.reopen();
    let removed = gc.remove(&plan).expect("removed");
    assert_eq!(removed.spared, SizeOf { n_files: 2, size_bytes: 14 });
    assert_eq!(removed.sizes[&RemovalKind::Blob], SizeOf { n_files: 1, size_bytes: 4 });
    assert!(is_whole(&sandbox.store, &published) && is_whole(&sandbox.store, &found));
    drop(gc);
    sandbox.reopen();
    assert_eq!(names(&sandbox.in_store("gc/holds")), Vec::<String>::new());
    collect(&sandbox.store, &roots(&[]), None);
    assert!(!is_whole(&sandbox.store, &published), "nobody holds it any more");
}

#[test]
fn a_killed_gc_holds_nobody_up() {
    let sandbox = Sandbox::new();
    // What a killed one leaves: its file, and the lock is free.
    write(&sandbox.in_store("gc/running"), "4000000");
    write(&sandbox.in_store("gc/holds/dead"), "4000000\nmanifest aa11");
    publish_and_end(&sandbox, FINGERPRINT, &[("a", "1")]);
    assert_eq!(names(&sandbox.in_store("gc/holds")), Vec::<String>::new());
    collect(&sandbox.store, &roots(&[]), None);
    assert!(!blob(&sandbox.store, "1").exists());
    assert_eq!(names(&sandbox.in_store("gc")), ["holds", "lock", "turn"]);
}

/// Rounds of each thread that publishes. Blobs are shared by most of them, so what is published is often there already.
const N_ROUNDS: usize = 120;

/// Few enough that each is published, removed and published again.
const N_FINGERPRINTS: usize = 40;

#[test]
fn beside_pipelines_under_load_nothing_that_was_found_is_lost() {
    let folder = fast_folder();
    let open = || Store::open_on(&folder.path().join(".pipe"), Arc::new(UnsyncedDisk)).expect("a store");
    let rooted = publish(&open(), FINGERPRINT, &[("a", "rooted"), ("b", "text 1")]).expect("published").manifest;
    let (is_done, n_removed, n_collected) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let (n_found, n_gone) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let store = open();
            while !is_done.load(Ordering::SeqCst) {
                let (_, removed) = collect(&store, &roots(&[FINGERPRINT]), None);
                let n: u64 = removed.sizes.values().map(|size| size.n_files).sum();
                n_removed.fetch_add(usize::try_from(n).expect("few"), Ordering::SeqCst);
                n_collected.fetch_add(1, Ordering::SeqCst);
                assert!(is_whole(&store, &rooted), "a blob of a root is gone");
            }
        });
        let publishers: Vec<_> = (0..3)
            .map(|number| {
                scope.spawn(move || {
                    for round in 0..N_ROUNDS {
                        let store = open();
                        let n = (number * 17 + round) % N_FINGERPRINTS;
                        let texts = [format!("text {}", n % 7), format!("text {}", n % 11)];
                        let fingerprint = format!("ee{n}");
                        let files = [("a", texts[0].as_str()), ("b", texts[1].as_str())];
                        let published = publish(&store, &fingerprint, &files).expect("published").manifest;
                        assert_eq!(find_false_file(&store, &published), None, "what was published is gone");
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            for round in 0..N_ROUNDS * 4 {
                let store = open();
                let fingerprint = format!("ee{}", round % N_FINGERPRINTS);
                store.hold(&[&fingerprint], &[]).expect("held");
                let Some(manifest) = store.lookup(&fingerprint).expect("looked up") else { continue };
                if store.missing(&manifest).expect("looked at").is_empty() {
                    n_found.fetch_add(1, Ordering::SeqCst);
                    thread::yield_now();
                    assert_eq!(find_false_file(&store, &manifest), None, "what was found is gone");
                } else {
                    n_gone.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        let ended: Vec<_> = publishers.into_iter().chain([reader]).map(|thread| thread.join()).collect();
        is_done.store(true, Ordering::SeqCst);
        assert!(ended.iter().all(Result::is_ok));
        collector.join().expect("no panic");
    });
    let count = |number: &AtomicUsize| number.load(Ordering::SeqCst);
    let [collected, removed, found, gone] = [&n_collected, &n_removed, &n_found, &n_gone].map(count);
    eprintln!("{collected} times gc removed {removed} files; {found} manifests were found whole, {gone} not");
    assert!(collected > 2 && removed > 20 && found > 5, "too little happened: {collected}, {removed}, {found}");
    assert_eq!(open().verify().expect("verified"), []);
}

/// A disk that, before it removes a file, lets another thread go and gives it time to come between.
#[derive(Debug)]
struct LettingDisk {
    go: Mutex<Sender<()>>,
    is_through: Mutex<Receiver<()>>,
}

impl Disk for LettingDisk {
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.go.lock().expect("one thread").send(()).expect("it listens");
        // Only a store without the lock depends on this time: there the other thread is through at once.
        let _ = self.is_through.lock().expect("one thread").recv_timeout(Duration::from_millis(300));
        RealDisk.remove_file(path)
    }
    fn create_folders(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_folders(path)
    }
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        RealDisk.write(path, bytes)
    }
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        RealDisk.append(path, bytes)
    }
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.copy(from, to)
    }
    fn seal(&self, path: &Path) -> io::Result<()> {
        RealDisk.seal(path)
    }
    fn sync_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_file(path)
    }
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_folder(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_folder(path)
    }
}

/// `relies`: finds the only blob and relies on it; gives a manifest that must be whole from then on, if it found it so.
fn come_between(relies: fn(&Store) -> Option<Manifest>) {
    let sandbox = Sandbox::new();
    publish_and_end(&sandbox, FINGERPRINT, &[("a", "found")]);
    let (go, may_go) = channel();
    let (through, is_through) = channel();
    let disk = LettingDisk { go: Mutex::new(go), is_through: Mutex::new(is_through) };
    let other = sandbox.reopen();
    let relying = thread::spawn(move || {
        may_go.recv().expect("gc comes to a removal");
        let manifest = relies(&other);
        // Nobody listens any more where it had to wait.
        let _ = through.send(());
        (manifest, other)
    });
    let store = sandbox.reopen_on(Arc::new(disk)).expect("opened");
    let (plan, _) = collect(&store, &roots(&[]), None);
    assert_eq!(plan.removals.len(), 1);
    let (manifest, other) = relying.join().expect("no panic");
    if let Some(manifest) = manifest {
        assert_eq!(find_false_file(&other, &manifest), None, "what was found is gone");
    }
}

#[test]
fn nobody_comes_between_looking_at_holds_and_removing() {
    come_between(|store| {
        store.hold(&[FINGERPRINT], &[]).expect("held");
        let manifest = store.lookup(FINGERPRINT).expect("looked up")?;
        store.missing(&manifest).expect("looked at").is_empty().then_some(manifest)
    });
    come_between(|store| Some(publish(store, FINGERPRINT_2, &[("a", "found")]).expect("published").manifest));
}

pub(crate) fn three_manifests(root: &Path) {
    let store = Store::open(root).expect("a new store");
    publish(&store, FINGERPRINT, &[("a", "shared"), ("b", "rooted")]).expect("published");
    publish(&store, FINGERPRINT_2, &[("a", "shared"), ("c", "garbage"), ("d", "more")]).expect("published");
    publish(&store, "dd01", &[("a", "pinned")]).expect("published");
    store.pin("dd01", &["dd01"]).expect("pinned");
    write(&store.checkpoint_dir("old").join("a"), "state");
    write(&store.checkpoint_dir("old").join("b"), "state");
    write(&root.join("corrupt/x"), "damaged");
}

/// Roots of [`three_manifests`]; all training state is old.
pub(crate) fn its_roots() -> GcRoots {
    let since = SystemTime::now() + Duration::from_secs(3600);
    GcRoots { checkpoints_since: Some(since), ..roots(&[FINGERPRINT]) }
}

/// Whatever was removed when it ended: roots are whole, every manifest is there, and all can be made again.
pub(crate) fn assert_sound(store: &Store, clean: &[(std::path::PathBuf, Vec<u8>)], when: &str) {
    assert_eq!(find_lie(store, &[FINGERPRINT, "dd01"]), None, "{when}");
    let other = store.lookup(FINGERPRINT_2).expect("looked up");
    assert!(other.is_some() && store.lookup(FINGERPRINT).expect("looked up").is_some(), "{when}: a manifest is gone");
    let (_, removed) = collect(store, &its_roots(), None);
    assert!(
        !blob(store, "garbage").exists() && removed.spared == SizeOf::default(),
        "{when}: the next one removes the rest"
    );
    assert_eq!(find_lie(store, &[FINGERPRINT, "dd01"]), None, "{when}");
    publish(store, FINGERPRINT_2, &[("a", "shared"), ("c", "garbage"), ("d", "more")]).expect("published");
    assert_eq!(results(store.root()), clean, "{when}");
}

#[test]
fn a_power_cut_at_any_moment_of_it_leaves_a_sound_store() {
    let recording = Recording::after(three_manifests, Forgets::Nothing);
    let clean = results(&recording.folder.path().join(".pipe"));
    let store = recording.store();
    let (plan, _) = collect(&store, &its_roots(), None);
    assert_eq!(plan.removals.len(), 4);
    let states = recording.states("gc", recording.disk.now(), 3000);
    assert!(states.len() > 30, "{} states", states.len());
    for (state, _) in states {
        let (_folder, store) = reopen(&state);
        assert_sound(&store, &clean, &format!("{state:#?}"));
    }
}

#[test]
fn killed_after_any_operation_of_it_the_store_is_sound() {
    let mut n_operations = 0;
    loop {
        let folder = fast_folder();
        let root = folder.path().join(".pipe");
        three_manifests(&root);
        let clean = results(&root);
        let disk = DyingDisk::new(n_operations);
        let store = Store::open_on(&root, disk.clone()).expect("opened");
        let gc = store.begin_gc().expect("begun");
        let plan = store.plan_gc(&its_roots(), None).expect("planned");
        let survived = gc.remove(&plan).is_ok();
        drop((gc, store));
        assert_sound(&Store::open(&root).expect("opened"), &clean, &format!("killed after {n_operations}"));
        if survived {
            break;
        }
        n_operations += 1;
    }
    assert_eq!(n_operations, 4);
}

#[test]
fn training_state_of_a_removed_pin_or_an_unreadable_index_is_scratch() {
    let sandbox = Sandbox::new();
    write(&sandbox.store.checkpoint_dir("old").join("state"), "1");
    sandbox.store.note_checkpoint("old", FINGERPRINT).expect("noted");
    let since = Some(SystemTime::now() + Duration::from_secs(60));
    let with = GcRoots { checkpoints_since: since, ..roots(&[FINGERPRINT]) };
    assert_eq!(sandbox.store.plan_gc(&with, None).expect("planned").removals, []);
    fs::remove_dir_all(sandbox.in_store("idx")).expect("an index");
    assert_eq!(sandbox.store.plan_gc(&with, None).expect("planned").removals.len(), 1);
}
