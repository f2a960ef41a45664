//! Whether the disks hold what a run will write, before it begins.
//!
//! ```text
//! sizes by stage --by file system--> store: 14.2 GB, disk of `out`: 13.4 GB --compare with what is free--> Shortage
//! ```
//!
//! Only what is known counts: a stage that never ran takes nothing here, and a run is never refused for what nobody knows. A copy in
//! a `to:` folder on the disk of the store counts only where the file system cannot share the bytes.
//!
//! It deliberately looks once, before the first stage: a disk that fills up meanwhile is a failure of the stage that finds it full.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::plan::Planner;
use crate::predict::Size;

/// Asked of a folder: bytes that are free on its disk; `None` where the system does not tell.
pub type FreeBytes<'a> = &'a dyn Fn(&Path) -> Option<u64>;

/// Kept free besides: events, manifests and the index of the run, and what a stage writes more than the last time.
const RESERVE_BYTES: u64 = 16 << 20;

/// Stages that are named.
const N_NAMED: usize = 3;

/// A disk that does not hold what a run will write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// A folder on it: the store's, or that of a `to:`, as the user wrote it.
    pub folder: PathBuf,
    /// Bytes that the run will write, at least.
    pub needed_bytes: u64,
    /// Kept free besides.
    pub reserve_bytes: u64,
    /// Bytes that are free.
    pub free_bytes: u64,
    /// Which stages write most, largest first: at most three.
    pub largest: Vec<(String, u64)>,
}

/// One disk, and what will be written to it.
struct Disk {
    device: u64,
    /// As it is shown, and as it is found.
    folder: (PathBuf, PathBuf),
    needs: Vec<(usize, u64)>,
}

/// The disks that are too small. `sizes`: by stage, as predicted. `store_as_given`: as the user wrote it.
pub fn find_shortages(
    planner: &Planner<'_>,
    sizes: &[Option<Size>],
    store_as_given: &Path,
    free_bytes: FreeBytes<'_>,
) -> Vec<Shortage> {
    let root = planner.store.root();
    let mut disks = Vec::new();
    let store_device = device_of(root);
    for (stage, size) in sizes.iter().enumerate().filter_map(|(stage, size)| Some((stage, size.as_ref()?))) {
        add(&mut disks, store_device, (store_as_given.to_path_buf(), root.to_path_buf()), (stage, size.stored.value));
        let (Some(to), Some(shown)) = (planner.to(stage), planner.pipeline.stages[stage].to.clone()) else { continue };
        let device = device_of(&to);
        if device != store_device || copies_take_room(root) {
            add(&mut disks, device, (shown, to.clone()), (stage, size.total.saturating_sub(bytes_below(&to))));
        }
    }
    let shortage = |disk: &Disk| find_shortage(planner, disk, free_bytes);
    disks.iter().filter_map(shortage).collect()
}

fn add(disks: &mut Vec<Disk>, device: Option<u64>, folder: (PathBuf, PathBuf), need: (usize, u64)) {
    let (Some(device), 1..) = (device, need.1) else { return };
    match disks.iter_mut().find(|disk| disk.device == device) {
        Some(disk) => disk.needs.push(need),
        None => disks.push(Disk { device, folder, needs: vec![need] }),
    }
}

fn find_shortage(planner: &Planner<'_>, disk: &Disk, free_bytes: FreeBytes<'_>) -> Option<Shortage> {
    let needed_bytes: u64 = disk.needs.iter().map(|(_, bytes)| bytes).sum();
    let (shown, folder) = &disk.folder;
    let free_bytes = free_bytes(existing(folder)?)?;
    if needed_bytes + RESERVE_BYTES <= free_bytes {
        return None;
    }
    let mut by_stage: Vec<(usize, u64)> = Vec::new();
    for &(stage, bytes) in &disk.needs {
        match by_stage.iter_mut().find(|(other, _)| *other == stage) {
            Some((_, sum)) => *sum += bytes,
            None => by_stage.push((stage, bytes)),
        }
    }
    by_stage.sort_by_key(|&(stage, bytes)| (std::cmp::Reverse(bytes), stage));
    let name = |&(stage, bytes): &(usize, u64)| (planner.pipeline.stages[stage].name.clone(), bytes);
    let largest = by_stage.iter().take(N_NAMED).map(name).collect();
    Some(Shortage { folder: shown.clone(), needed_bytes, reserve_bytes: RESERVE_BYTES, free_bytes, largest })
}

/// The folder itself, or the nearest above it that is there.
fn existing(folder: &Path) -> Option<&Path> {
    let here = |path: &&Path| fs::metadata(if path.as_os_str().is_empty() { Path::new(".") } else { path }).is_ok();
    let found = folder.ancestors().find(here)?;
    Some(if found.as_os_str().is_empty() { Path::new(".") } else { found })
}

fn device_of(folder: &Path) -> Option<u64> {
    Some(fs::metadata(existing(folder)?).ok()?.dev())
}

/// Whether a copy of a file certainly takes its bytes again: on file systems that share none.
#[cfg(target_os = "linux")]
fn copies_take_room(folder: &Path) -> bool {
    /// ext2 to ext4, and tmpfs: statfs(2).
    const WITHOUT_SHARING: [i128; 2] = [0xEF53, 0x0102_1994];
    existing(folder)
        .and_then(|folder| rustix::fs::statfs(folder).ok())
        .is_some_and(|stat| WITHOUT_SHARING.contains(&i128::from(stat.f_type)))
}

#[cfg(not(target_os = "linux"))]
fn copies_take_room(_: &Path) -> bool {
    false
}

/// Bytes of the files below a folder, which a new copy replaces.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => 0,
    };
    entries.flatten().map(bytes).sum()
}

/// Bytes that this user may still write to the disk of a folder.
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}
