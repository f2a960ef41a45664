//! Keys with their rows, brought together by key: in memory while there are few, else in files by the first bits of the key.
//!
//! ```text
//! (key, row), (key, row), ...  ->  64 files  ->  one file at a time, sorted: all rows of a key, in their order
//! ```
//!
//! Keys must be spread evenly, as digests are: a file then holds a 64th of all. Memory is that of one file (0.4 MB for each
//! million rows) or of what waits to be written, whichever is more.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::PrepareError;

/// Bits of the key that choose the file.
const PARTITION_BITS: u32 = 6;
/// Entries that may wait in memory: 32 MB.
const PENDING_MAX: usize = 1 << 20;
/// Of an entry on the disk.
const ENTRY_BYTES: usize = 24;

/// A key and a row that has it.
pub type Entry = (u128, u64);

/// Entries on their way together.
pub struct Partitions {
    folder: PathBuf,
    name: String,
    pending: Vec<Vec<Entry>>,
    n_pending: usize,
    pending_max: usize,
    is_spilled: bool,
}

impl Partitions {
    /// Files are written below `folder`, called after `name`, when there is too much for memory.
    pub fn new(folder: &Path, name: &str) -> Self {
        Partitions::with_room_for(folder, name, PENDING_MAX)
    }

    pub(crate) fn with_room_for(folder: &Path, name: &str, pending_max: usize) -> Self {
        let pending = vec![Vec::new(); 1 << PARTITION_BITS];
        let (folder, name) = (folder.to_path_buf(), name.to_string());
        Partitions { folder, name, pending, n_pending: 0, pending_max, is_spilled: false }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// `Io` when the disk refuses.
    pub fn push(&mut self, key: u128, row: u64) -> Result<(), PrepareError> {
        self.pending[(key >> (128 - PARTITION_BITS)) as usize].push((key, row));
        self.n_pending += 1;
        if self.n_pending < self.pending_max { Ok(()) } else { self.spill() }
    }

    /// Gives each part once, sorted by key and then by row; all entries of a key are in one part. The files are removed.
    ///
    /// # Errors
    /// `Io`, and those of `visit`.
    pub fn visit(mut self, mut visit: impl FnMut(&[Entry]) -> Result<(), PrepareError>) -> Result<(), PrepareError> {
        for partition in 0..self.pending.len() {
            let mut entries = std::mem::take(&mut self.pending[partition]);
            if self.is_spilled {
                self.read_back(partition, &mut entries)?;
            }
            entries.sort_unstable();
            visit(&entries)?;
        }
        Ok(())
    }

    fn path(&self, partition: usize) -> PathBuf {
        self.folder.join(format!("{}-{partition:02}", self.name))
    }

    fn spill(&mut self) -> Result<(), PrepareError> {
        for partition in 0..self.pending.len() {
            let path = self.path(partition);
            let io = |source| PrepareError::Io { verb: "write", file: path.clone(), source };
            let mut bytes = Vec::with_capacity(self.pending[partition].len() * ENTRY_BYTES);
            for (key, row) in self.pending[partition].drain(..) {
                bytes.extend_from_slice(&key.to_le_bytes());
                bytes.extend_from_slice(&row.to_le_bytes());
            }
            let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(io)?;
            file.write_all(&bytes).map_err(io)?;
        }
        (self.n_pending, self.is_spilled) = (0, true);
        Ok(())
    }

    fn read_back(&self, partition: usize, entries: &mut Vec<Entry>) -> Result<(), PrepareError> {
        let path = self.path(partition);
        let io = |source| PrepareError::Io { verb: "read", file: path.clone(), source };
        let bytes = std::fs::read(&path).map_err(io)?;
        std::fs::remove_file(&path).map_err(io)?;
        entries.extend(bytes.chunks_exact(ENTRY_BYTES).map(|entry| {
            let (key, row) = entry.split_at(16);
            let key = u128::from_le_bytes(key.try_into().expect("16 bytes"));
            (key, u64::from_le_bytes(row.try_into().expect("8 bytes")))
        }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn spilled_or_not_the_rows_of_a_key_come_together() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let collect = |pending_max: usize| {
            let mut partitions = Partitions::with_room_for(folder.path(), "p", pending_max);
            for row in 0..1000 {
                let key = u128::from(Random::new(0, "keys").word(row % 300)) << 64;
                partitions.push(key, row).expect("the disk has room");
            }
            let mut all = Vec::new();
            partitions
                .visit(|entries| {
                    all.extend_from_slice(entries);
                    Ok(())
                })
                .expect("they can be read");
            all
        };
        let in_memory = collect(usize::MAX);
        assert_eq!(in_memory.len(), 1000);
        assert!(in_memory.is_sorted());
        assert_eq!(collect(7), in_memory);
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
    }
}
