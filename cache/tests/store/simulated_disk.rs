//! A disk as a power cut sees it: it does what is asked in a real folder, keeps a record, and says which states of that
//! folder a power cut may have left.
//!
//! ```text
//! operations of a run --SimulatedDisk--> record --crash_states--> states --materialize--> real folders to look at
//! ```
//!
//! The model is the weakest that POSIX allows, apart from what each line says is certain:
//!
//! | what | after a power cut |
//! |---|---|
//! | bytes written since the file's last sync | none, all, any prefix of 512-byte sectors, such a prefix with zeros behind it |
//! | a name made, moved or removed since its folder's last sync | each on its own: as it was, or as any later operation left it |
//! | a rename | two such changes: the old name may stay beside the new one, or both may be lost |
//! | a folder whose own name is lost | gone with all that is in it, synced or not |
//! | mode and time of a sealed file | there or not: `fdatasync` promises neither |
//! | what was synced | there |
//!
//! What the store does beside its [`Disk`] (lock files) and what a stage writes is found by looking at the folder before
//! and after each operation, so nothing escapes. Syncs are recorded and not done: the folder does not outlive the test.
//!
//! It deliberately does not reproduce inode numbers and change times. So what a store believes by them (the stat memo,
//! external files) looks changed in every state and is read again; what must be synced for those is tested by the order of operations.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use pipe_cache::{Disk, RealDisk};

const SECTOR_BYTES: usize = 512;

/// A file or folder; number 0 is the folder that is watched.
type Node = usize;

/// One change that a power cut may undo, or a sync that makes changes certain.
#[derive(Clone, Debug)]
enum Effect {
    Name { folder: Node, name: String, node: Option<Node> },
    Bytes { file: Node, bytes: Arc<Vec<u8>> },
    Sealed { file: Node, is_sealed: bool },
    SyncFile(Node),
    SyncFolder(Node),
    SyncAll,
}

/// What the disk forgets to do: for tests that the search finds what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forgets {
    Nothing,
    FileSyncs,
    FolderSyncs,
}

/// A real folder and the record of what happened in it.
#[derive(Debug)]
pub(crate) struct SimulatedDisk {
    root: PathBuf,
    forgets: Forgets,
    world: Mutex<World>,
}

#[derive(Debug, Default)]
struct World {
    /// A folder's names; `None` for a file.
    nodes: Vec<Option<BTreeMap<String, Node>>>,
    contents: BTreeMap<Node, (Arc<Vec<u8>>, bool)>,
    by_inode: BTreeMap<u64, Node>,
    record: Vec<Effect>,
}

/// What a folder holds after a power cut: path to file or folder, sorted.
pub(crate) type State = BTreeMap<PathBuf, Kept>;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kept {
    Folder,
    File {
        bytes: Arc<Vec<u8>>,
        is_sealed: bool,
        /// Equal for two names of one file.
        node: Node,
    },
}

impl SimulatedDisk {
    /// Watches `root`. What is there now is certain.
    pub(crate) fn new(root: &Path, forgets: Forgets) -> Arc<Self> {
        let world = World { nodes: vec![Some(BTreeMap::new())], ..World::default() };
        let disk = SimulatedDisk { root: root.to_path_buf(), forgets, world: Mutex::new(world) };
        let mut world = disk.look();
        world.record.push(Effect::SyncAll);
        drop(world);
        Arc::new(disk)
    }

    /// How much has happened: a moment in the record.
    pub(crate) fn now(&self) -> usize {
        self.look().record.len()
    }

    /// Every moment at which a power cut leaves states that no other moment has: before each sync, and at the end.
    pub(crate) fn moments(&self) -> Vec<usize> {
        let world = self.look();
        let is_sync = |effect: &Effect| matches!(effect, Effect::SyncFile(_) | Effect::SyncFolder(_) | Effect::SyncAll);
        // What was there before is certain: nothing is cut before the first sync of all.
        let begin = world.record.iter().position(|effect| matches!(effect, Effect::SyncAll)).map_or(0, |at| at + 1);
        let mut moments: Vec<usize> = (begin..world.record.len()).filter(|&at| is_sync(&world.record[at])).collect();
        moments.push(world.record.len());
        moments
    }

    /// The states that a power cut at `moment` may leave, and whether these are all: of more than `n_max` a sample.
    pub(crate) fn crash_states(&self, moment: usize, n_max: usize) -> (HashSet<State>, bool) {
        let world = self.look();
        let folders = (0..world.nodes.len()).filter(|&node| world.nodes[node].is_some()).collect();
        let possible = Possible::of(&world.record[..moment], folders);
        drop(world);
        let mut choices = Choices::default();
        let mut states = HashSet::new();
        for _ in 0..n_max {
            states.insert(possible.state(&mut choices));
            if !choices.advance() {
                return (states, true);
            }
        }
        (possible.sample(moment as u64, n_max), false)
    }

    /// Brings the record up to what the folder holds.
    fn look(&self) -> MutexGuard<'_, World> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let mut inodes = BTreeSet::new();
        world.compare(&self.root, 0, &mut inodes);
        let gone = world.by_inode.extract_if(.., |inode, _| !inodes.contains(inode));
        let gone: Vec<Node> = gone.map(|(_, node)| node).collect();
        // Of a folder that was removed, some names may be gone and others not.
        for folder in gone {
            let names = world.nodes[folder].as_mut().map(std::mem::take).unwrap_or_default();
            world.record.extend(names.into_keys().map(|name| Effect::Name { folder, name, node: None }));
        }
        world
    }

    fn step(&self, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        drop(self.look());
        let result = work();
        drop(self.look());
        result
    }

    fn sync(&self, path: &Path, forgotten: Forgets, effect: fn(Node) -> Effect) -> io::Result<()> {
        let inode = fs::metadata(path)?.ino();
        let mut world = self.look();
        let node = if path == self.root { Some(0) } else { world.by_inode.get(&inode).copied() };
        // What lies outside of the watched folder is not modelled.
        if let Some(node) = node.filter(|_| self.forgets != forgotten) {
            world.record.push(effect(node));
        }
        Ok(())
    }
}

impl World {
    fn compare(&mut self, path: &Path, folder: Node, inodes: &mut BTreeSet<u64>) {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            // Other threads may remove what was listed.
            let Ok(metadata) = entry.path().symlink_metadata() else { continue };
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_new = inodes.insert(metadata.ino());
            let node = self.node_of(&metadata);
            found.insert(name, node);
            if metadata.is_dir() && is_new {
                self.compare(&entry.path(), node, inodes);
            } else if metadata.is_file() && is_new {
                self.compare_file(&entry.path(), node, &metadata);
            }
        }
        let before = self.nodes[folder].replace(found.clone()).expect("a folder stays one");
        let names: BTreeSet<&String> = before.keys().chain(found.keys()).collect();
        for name in names {
            let node = found.get(name).copied();
            if before.get(name).copied() != node {
                self.record.push(Effect::Name { folder, name: name.clone(), node });
            }
        }
    }

    fn node_of(&mut self, metadata: &fs::Metadata) -> Node {
        if let Some(&node) = self.by_inode.get(&metadata.ino())
            && self.nodes[node].is_some() == metadata.is_dir()
        {
            return node;
        }
        self.nodes.push(metadata.is_dir().then(BTreeMap::new));
        let node = self.nodes.len() - 1;
        self.by_inode.insert(metadata.ino(), node);
        node
    }

    fn compare_file(&mut self, path: &Path, file: Node, metadata: &fs::Metadata) {
        let is_sealed = metadata.permissions().mode() & 0o777 == 0o444 && metadata.mtime() == 1;
        let Ok(bytes) = fs::read(path) else { return };
        let (before, was_sealed) = self.contents.get(&file).cloned().unwrap_or_default();
        let bytes = if *before == bytes { before.clone() } else { Arc::new(bytes) };
        self.contents.insert(file, (bytes.clone(), is_sealed));
        if !Arc::ptr_eq(&before, &bytes) {
            self.record.push(Effect::Bytes { file, bytes });
        }
        if is_sealed != was_sealed {
            self.record.push(Effect::Sealed { file, is_sealed });
        }
    }
}

/// What may be at each place, the certain first, the newest last.
#[derive(Debug, Default)]
struct Possible {
    names: BTreeMap<Node, BTreeMap<String, Vec<Option<Node>>>>,
    bytes: BTreeMap<Node, Vec<Arc<Vec<u8>>>>,
    sealed: BTreeMap<Node, Vec<bool>>,
    folders: BTreeSet<Node>,
}

impl Possible {
    fn of(record: &[Effect], folders: BTreeSet<Node>) -> Self {
        let mut possible = Possible { folders, ..Possible::default() };
        for effect in record {
            possible.take(effect);
        }
        possible
    }

    fn take(&mut self, effect: &Effect) {
        match effect {
            Effect::Name { folder, name, node } => {
                let versions = self.names.entry(*folder).or_default().entry(name.clone()).or_insert_with(|| vec![None]);
                versions.retain(|version| version != node);
                versions.push(*node);
            }
            Effect::Bytes { file, bytes } => {
                let versions = self.bytes.entry(*file).or_insert_with(|| vec![Arc::default()]);
                let before = versions.last().expect("never empty").clone();
                versions.extend(torn(&before, bytes));
                versions.push(bytes.clone());
            }
            Effect::Sealed { file, is_sealed } => {
                self.sealed.entry(*file).or_insert_with(|| vec![false]).push(*is_sealed);
            }
            Effect::SyncFile(file) => keep_newest(self.bytes.entry(*file).or_insert_with(|| vec![Arc::default()])),
            Effect::SyncFolder(folder) => {
                self.names.entry(*folder).or_default().values_mut().for_each(keep_newest);
            }
            Effect::SyncAll => {
                self.names.values_mut().flat_map(BTreeMap::values_mut).for_each(keep_newest);
                self.bytes.values_mut().for_each(keep_newest);
                self.sealed.values_mut().for_each(keep_newest);
            }
        }
    }

    /// The state that a way of choosing gives. Only what can be reached is chosen.
    fn state(&self, choices: &mut Choices) -> State {
        let mut state = State::new();
        let mut chosen: BTreeMap<Node, Kept> = BTreeMap::new();
        let mut pending = vec![(PathBuf::new(), 0)];
        while let Some((path, folder)) = pending.pop() {
            let Some(names) = self.names.get(&folder) else { continue };
            for (name, versions) in names {
                let Some(node) = *choices.choose(versions) else { continue };
                let path = path.join(name);
                let is_known = chosen.contains_key(&node);
                let kept = chosen.entry(node).or_insert_with(|| self.keep(node, choices));
                if *kept != Kept::Folder {
                    state.insert(path, kept.clone());
                } else if !is_known {
                    state.insert(path.clone(), Kept::Folder);
                    pending.push((path, node));
                }
            }
        }
        state
    }

    fn keep(&self, node: Node, choices: &mut Choices) -> Kept {
        if self.folders.contains(&node) {
            return Kept::Folder;
        }
        let bytes = self.bytes.get(&node).map(|versions| choices.choose(versions).clone()).unwrap_or_default();
        let is_sealed = self.sealed.get(&node).is_some_and(|versions| *choices.choose(versions));
        Kept::File { bytes, is_sealed, node }
    }

    /// All old, all new, each single difference from these two, and states by chance.
    fn sample(&self, seed: u64, n_max: usize) -> HashSet<State> {
        let mut states = HashSet::new();
        for extreme in [Rest::Oldest, Rest::Newest] {
            let mut choices = Choices { rest: extreme, ..Choices::default() };
            states.insert(self.state(&mut choices));
            let base = choices.made;
            for (at, &(_, n)) in base.iter().enumerate() {
                for other in 0..n {
                    let mut made = base[..at].to_vec();
                    made.push((other, n));
                    if states.len() < n_max {
                        states.insert(self.state(&mut Choices { made, rest: extreme, at: 0 }));
                    }
                }
            }
        }
        let mut random = seed | 1;
        for _ in 0..n_max / 4 {
            random = next_random(random);
            states.insert(self.state(&mut Choices { rest: Rest::Random(random), ..Choices::default() }));
        }
        states
    }
}

fn keep_newest<T>(versions: &mut Vec<T>) {
    versions.drain(..versions.len() - 1);
}

/// What may be there while `new` is written over `old`.
fn torn(old: &[u8], new: &[u8]) -> Vec<Arc<Vec<u8>>> {
    let start = if new.starts_with(old) { old.len() } else { 0 };
    let sectors = (start / SECTOR_BYTES..=new.len() / SECTOR_BYTES).map(|sector| (sector * SECTOR_BYTES).max(start));
    let mut versions: Vec<Vec<u8>> = Vec::new();
    for end in sectors.filter(|&end| end < new.len()) {
        let mut zeros = new[..end].to_vec();
        versions.push(zeros.clone());
        zeros.resize(new.len(), 0);
        versions.push(zeros);
    }
    versions.retain(|version| version != old && version != new);
    versions.dedup();
    versions.into_iter().map(Arc::new).collect()
}

/// How choices are made beyond those that were made before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rest {
    #[default]
    Oldest,
    Newest,
    Random(u64),
}

/// A way of choosing; `advance` goes on to the next one, through all of them.
#[derive(Debug, Default)]
struct Choices {
    /// What was chosen, of how many.
    made: Vec<(usize, usize)>,
    at: usize,
    rest: Rest,
}

impl Choices {
    fn choose<'a, T>(&mut self, versions: &'a [T]) -> &'a T {
        if versions.len() == 1 {
            return &versions[0];
        }
        let n = versions.len();
        if self.at == self.made.len() {
            let choice = match &mut self.rest {
                Rest::Oldest => 0,
                Rest::Newest => n - 1,
                Rest::Random(random) => {
                    *random = next_random(*random);
                    usize::try_from(*random >> 33).expect("31 bits") % n
                }
            };
            self.made.push((choice, n));
        }
        let (choice, _) = self.made[self.at];
        self.at += 1;
        &versions[choice]
    }

    fn advance(&mut self) -> bool {
        self.made.truncate(self.at);
        self.at = 0;
        while let Some((choice, n)) = self.made.pop() {
            if choice + 1 < n {
                self.made.push((choice + 1, n));
                return true;
            }
        }
        false
    }
}

/// A linear congruential generator (Knuth's MMIX constants): the same states on every machine.
fn next_random(random: u64) -> u64 {
    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
}

/// Lays a state out in the folder `to`, which is empty.
pub(crate) fn materialize(state: &State, to: &Path) {
    let mut placed: BTreeMap<Node, PathBuf> = BTreeMap::new();
    for (path, kept) in state {
        let path = to.join(path);
        match kept {
            Kept::Folder => fs::create_dir(&path).expect("its parent comes before it"),
            Kept::File { node, .. } if placed.contains_key(node) => {
                fs::hard_link(&placed[node], &path).expect("in one folder");
            }
            Kept::File { bytes, is_sealed, node } => {
                fs::write(&path, bytes.as_slice()).expect("its parent comes before it");
                if *is_sealed {
                    let file = File::open(&path).expect("just written");
                    file.set_permissions(Permissions::from_mode(0o444)).expect("ours");
                    file.set_modified(UNIX_EPOCH + Duration::from_secs(1)).expect("ours");
                }
                placed.insert(*node, path);
            }
        }
    }
}

impl Disk for SimulatedDisk {
    fn create_folders(&self, path: &Path) -> io::Result<()> {
        self.step(|| RealDisk.create_folders(path))
    }
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step(|| RealDisk.write(path, bytes))
    }
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step(|| RealDisk.append(path, bytes))
    }
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(|| RealDisk.copy(from, to))
    }
    fn seal(&self, path: &Path) -> io::Result<()> {
        self.step(|| RealDisk.seal(path))
    }
    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.sync(path, Forgets::FileSyncs, Effect::SyncFile)
    }
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.sync(path, Forgets::FolderSyncs, Effect::SyncFolder)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(|| RealDisk.rename(from, to))
    }
    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.step(|| RealDisk.remove_folder(path))
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.step(|| RealDisk.remove_file(path))
    }
}
