//! A process that dies between any two operations leaves no lie, and the operations come in the order that also
//! survives a power cut.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pipe_cache::{Disk, RealDisk, Store};

use crate::sandbox::*;

/// One call of [`Disk`] that changed something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    CreateFolders(PathBuf),
    Write(PathBuf),
    Append(PathBuf),
    Copy(PathBuf, PathBuf),
    Seal(PathBuf),
    SyncFile(PathBuf),
    SyncFolder(PathBuf),
    Rename(PathBuf, PathBuf),
    RemoveFolder(PathBuf),
    RemoveFile(PathBuf),
}

/// The real disk, writing down what it does.
#[derive(Debug)]
pub(crate) struct Recorder(pub(crate) Arc<Mutex<Vec<Operation>>>);

impl Recorder {
    fn note(&self, operation: Operation) {
        self.0.lock().expect("no test thread panics while it notes").push(operation);
    }
}

impl Disk for Recorder {
    fn create_folders(&self, path: &Path) -> io::Result<()> {
        self.note(Operation::CreateFolders(path.into()));
        RealDisk.create_folders(path)
    }
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.note(Operation::Write(path.into()));
        RealDisk.write(path, bytes)
    }
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.note(Operation::Append(path.into()));
        RealDisk.append(path, bytes)
    }
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(Operation::Copy(from.into(), to.into()));
        RealDisk.copy(from, to)
    }
    fn seal(&self, path: &Path) -> io::Result<()> {
        self.note(Operation::Seal(path.into()));
        RealDisk.seal(path)
    }
    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.note(Operation::SyncFile(path.into()));
        RealDisk.sync_file(path)
    }
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.note(Operation::SyncFolder(path.into()));
        RealDisk.sync_folder(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(Operation::Rename(from.into(), to.into()));
        RealDisk.rename(from, to)
    }
    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.note(Operation::RemoveFolder(path.into()));
        RealDisk.remove_folder(path)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.note(Operation::RemoveFile(path.into()));
        RealDisk.remove_file(path)
    }
}

/// A disk for `n_left` operations; the next one is torn where it can be, and from then on nothing happens, as
/// for a process that was killed.
#[derive(Debug)]
pub(crate) struct DyingDisk {
    n_left: AtomicUsize,
    disk: Arc<dyn Disk>,
}

impl DyingDisk {
    pub(crate) fn new(n_left: usize) -> Arc<Self> {
        DyingDisk::on(n_left, Arc::new(RealDisk))
    }

    /// The same over another disk.
    pub(crate) fn on(n_left: usize, disk: Arc<dyn Disk>) -> Arc<Self> {
        Arc::new(DyingDisk { n_left: AtomicUsize::new(n_left), disk })
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.n_left.load(Ordering::SeqCst) == 0
    }

    fn live(&self) -> io::Result<()> {
        let left = self.n_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        left.map(drop).map_err(|_| io::Error::other("killed"))
    }
}

impl Disk for DyingDisk {
    fn create_folders(&self, path: &Path) -> io::Result<()> {
        self.live()?;
        self.disk.create_folders(path)
    }
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if self.n_left.load(Ordering::SeqCst) == 1 {
            self.live()?;
            self.disk.write(path, &bytes[..bytes.len() / 2])?;
            return Err(io::Error::other("killed"));
        }
        self.live()?;
        self.disk.write(path, bytes)
    }
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.live()?;
        self.disk.append(path, bytes)
    }
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.live()?;
        self.disk.copy(from, to)
    }
    fn seal(&self, path: &Path) -> io::Result<()> {
        self.live()?;
        self.disk.seal(path)
    }
    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.live()?;
        self.disk.sync_file(path)
    }
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.live()?;
        self.disk.sync_folder(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.live()?;
        self.disk.rename(from, to)
    }
    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.live()?;
        self.disk.remove_folder(path)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.live()?;
        self.disk.remove_file(path)
    }
}

const FILES: [(&str, &str); 3] = [("a", "first file"), ("b", "second file"), ("more/c", "third file")];

/// What a store may claim: if there is a manifest, all of it is there, byte for byte.
fn assert_no_lie(store: &Store, n_operations: usize) {
    if let Some(manifest) = store.lookup(FINGERPRINT).expect("looked up") {
        assert_eq!(store.missing(&manifest).expect("looked at"), [], "killed after {n_operations}");
        let artifact = store.artifact(&manifest, "rows").expect("the port");
        for (name, text) in FILES {
            assert_eq!(read(artifact.file(name).expect("the file")), text, "killed after {n_operations}");
        }
    }
    assert_eq!(store.verify().expect("verified"), [], "killed after {n_operations}");
}

#[test]
fn killed_after_any_operation_the_store_is_sound_and_the_next_run_succeeds() {
    let mut n_operations = 0;
    loop {
        let sandbox = Sandbox::new();
        let disk = DyingDisk::new(n_operations);
        let survived = sandbox
            .reopen_on(disk.clone())
            .and_then(|store| publish(&store, FINGERPRINT, &FILES))
            .is_ok_and(|_| !disk.is_dead());
        let store = sandbox.reopen();
        assert_eq!(names(&sandbox.in_store("tmp")), Vec::<String>::new(), "killed after {n_operations}");
        assert_no_lie(&store, n_operations);
        let manifest = publish(&store, FINGERPRINT, &FILES).expect("the next run").manifest;
        assert_eq!(store.lookup(FINGERPRINT).expect("looked up"), Some(manifest));
        assert_no_lie(&store, n_operations);
        if survived {
            break;
        }
        n_operations += 1;
    }
    assert!(n_operations > 20, "{n_operations} operations are too few to have published anything");
}

#[test]
fn killed_while_a_store_is_made_the_next_opening_makes_it() {
    let mut n_operations = 0;
    loop {
        let sandbox = Sandbox::new();
        let root = sandbox.path("other");
        let disk = DyingDisk::new(n_operations);
        let survived = Store::open_on(&root, disk).is_ok();
        let store = Store::open(&root).unwrap_or_else(|error| panic!("killed after {n_operations}: {error}"));
        publish(&store, FINGERPRINT, &FILES).expect("published");
        if survived {
            break;
        }
        n_operations += 1;
    }
    assert!(n_operations > 3);
}

#[test]
fn the_order_of_operations_survives_a_power_cut() {
    let sandbox = Sandbox::new();
    let operations: Arc<Mutex<Vec<Operation>>> = Arc::default();
    let store = sandbox.reopen_on(Arc::new(Recorder(operations.clone()))).expect("opened");
    publish(&store, FINGERPRINT, &FILES).expect("published");
    let done = operations.lock().expect("one thread").clone();
    let position = |wanted: &Operation| done.iter().position(|operation| operation == wanted);
    let last_position = |wanted: &Operation| done.iter().rposition(|operation| operation == wanted);

    let manifest = sandbox.in_store("manifests/aa").join(FINGERPRINT);
    let commits: Vec<usize> =
        (0..done.len()).filter(|&index| matches!(&done[index], Operation::Rename(_, to) if *to == manifest)).collect();
    let [commit] = commits[..] else { panic!("one commit point, found {commits:?}") };
    let Operation::Rename(temporary, _) = &done[commit] else { unreachable!("found as a rename") };
    let written = position(&Operation::Write(temporary.clone())).expect("the manifest is written");
    let synced = position(&Operation::SyncFile(temporary.clone())).expect("the manifest is synced");
    assert!(written < synced && synced < commit, "a manifest is whole before it has its name");
    for folder in ["manifests/aa", "manifests"] {
        let after = last_position(&Operation::SyncFolder(sandbox.in_store(folder))).expect("the folder is synced");
        assert!(after > commit, "{folder} is synced after the commit");
    }
    for (_, text) in FILES {
        let blob = blob(&store, text);
        let (renamed, from) = (0..done.len())
            .find_map(|index| match &done[index] {
                Operation::Rename(from, to) if *to == blob => Some((index, from.clone())),
                _ => None,
            })
            .expect("the blob gets its name");
        assert!(position(&Operation::SyncFile(from)).expect("its bytes are synced") < renamed);
        for folder in [blob.parent().expect("a folder").to_path_buf(), sandbox.in_store("blobs")] {
            let named = position(&Operation::SyncFolder(folder)).expect("its folder is synced");
            assert!(renamed < named && named < commit, "names of blobs survive before the manifest names them");
        }
    }
}

#[test]
fn a_blob_that_is_there_already_is_synced_into_its_folder_again() {
    let sandbox = Sandbox::new();
    sandbox.publish(FINGERPRINT, &FILES);
    let operations: Arc<Mutex<Vec<Operation>>> = Arc::default();
    let store = sandbox.reopen_on(Arc::new(Recorder(operations.clone()))).expect("opened");
    publish(&store, FINGERPRINT_2, &FILES).expect("published");
    let done = operations.lock().expect("one thread").clone();
    for (_, text) in FILES {
        let blob = blob(&store, text);
        let folder = blob.parent().expect("a folder").to_path_buf();
        assert!(done.contains(&Operation::SyncFolder(folder)), "its writer may not have come that far");
        assert!(!done.iter().any(|operation| matches!(operation, Operation::Rename(_, to) if *to == blob)));
    }
}

#[test]
fn a_small_stage_costs_four_syncs() {
    let sandbox = Sandbox::new();
    let operations: Arc<Mutex<Vec<Operation>>> = Arc::default();
    let store = sandbox.reopen_on(Arc::new(Recorder(operations.clone()))).expect("opened");
    publish(&store, FINGERPRINT, &[("a", "first")]).expect("published");
    let text = text_beside(&store, "first");
    operations.lock().expect("one thread").clear();
    publish(&store, FINGERPRINT_BESIDE, &[("a", &text)]).expect("published");
    let done = operations.lock().expect("one thread").clone();
    let is_sync = |operation: &&Operation| matches!(operation, Operation::SyncFile(_) | Operation::SyncFolder(_));
    assert_eq!(done.iter().filter(is_sync).count(), 4, "{done:#?}");

    // Folders that somebody removed are made again, and their names are synced again.
    fs::remove_dir_all(sandbox.in_store("manifests")).expect("removed");
    operations.lock().expect("one thread").clear();
    publish(&store, FINGERPRINT, &[("a", "first")]).expect("published");
    let done = operations.lock().expect("one thread").clone();
    for folder in [sandbox.in_store("manifests"), sandbox.in_store("")] {
        assert!(
            done.contains(&Operation::SyncFolder(folder.components().collect())),
            "{}: {done:#?}",
            folder.display()
        );
    }
}

#[test]
fn an_external_file_is_synced_before_a_manifest_refers_to_it() {
    let sandbox = Sandbox::new();
    let path = sandbox.file("rows", "bytes");
    let operations: Arc<Mutex<Vec<Operation>>> = Arc::default();
    let store = sandbox.reopen_on(Arc::new(Recorder(operations.clone()))).expect("opened");
    let attempt = store.begin(FINGERPRINT).expect("an attempt");
    let external = vec![external("rows.jsonl", &path)];
    store.publish(attempt, pipe_cache::ManifestDraft { external, ..draft(FINGERPRINT) }).expect("published");
    let done = operations.lock().expect("one thread").clone();
    let synced = done.iter().position(|operation| *operation == Operation::SyncFile(path.clone())).expect("synced");
    let is_commit = |operation: &Operation| matches!(operation, Operation::Rename(_, to) if to.ends_with(FINGERPRINT));
    assert!(synced < done.iter().position(is_commit).expect("committed"));
}

#[test]
fn an_attempt_whose_lock_is_free_is_removed_and_a_held_one_is_not() {
    let sandbox = Sandbox::new();
    let held = attempt(&sandbox.store, FINGERPRINT, &[("a", "1")]).expect("an attempt");
    write(&sandbox.in_store("tmp/dead-0/outputs/rows/a"), "half");
    write(&sandbox.in_store("tmp/dead-1/outputs/rows/a"), "half");
    write(&sandbox.in_store("tmp/dead.lock"), "4000000");
    write(&sandbox.in_store("tmp/orphan-2/outputs/rows/a"), "half");
    write(&sandbox.in_store("tmp/folderless.lock"), "");
    sandbox.reopen();
    let held_name = held.dir().file_name().expect("a name").to_string_lossy().into_owned();
    let (owner, _) = held_name.split_once('-').expect("its owner, and a number");
    assert_eq!(names(&sandbox.in_store("tmp")), [held_name.clone(), format!("{owner}.lock")]);
    sandbox.store.publish(held, draft(FINGERPRINT)).expect("still whole");
    assert!(fs::exists(blob(&sandbox.store, "1")).expect("looked at"));
}
