//! Near duplicates: rows whose texts share most of their word sequences. The first of them stays.
//!
//! ```text
//! rows  --bands-->  rows that share a band  --exact Jaccard similarity-->  later ones are dropped, band by band
//! ```
//!
//! Rows that share a band are compared in their order: with the first, and with each that was like none before it. One that
//! reaches the threshold is dropped, and takes no part in the bands that follow. So each dropped row is near an earlier one, which
//! stays or was itself dropped for a still earlier one. The similarity is that of the sets themselves; they are kept on the
//! disk as hashes of 64 bits, and so are the bands. A band that very many unlike rows share would take the square of
//! their number: there, only the first [`COMPARED_MAX`] unlike ones are compared with.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use pipe_contract::Context;
use rayon::prelude::*;

use crate::error::PrepareError;
use crate::minhash::jaccard;
use crate::partitions::{Entry, Partitions};
use crate::row_set::RowSet;

/// Rows of one band that a row is compared with.
pub const COMPARED_MAX: usize = 64;
/// Rows whose bands are written together, so that one band of them is read in one piece: 512 KiB.
const BLOCK_ROWS: usize = 1 << 16;
const WORD_BYTES: usize = 8;

/// Sets and bands of rows on the disk, in the order of the rows.
pub struct NearWriter {
    folder: PathBuf,
    n_bands: usize,
    sets: ScratchFile,
    /// Where the set of each row ends, in words.
    ends: ScratchFile,
    rows: ScratchFile,
    bands: ScratchFile,
    end: u64,
    block: Vec<Vec<u64>>,
    n_rows: usize,
}

impl NearWriter {
    /// Creates its files below `folder`.
    ///
    /// # Errors
    /// `Io` when they cannot be made.
    pub fn create(folder: &Path, n_bands: usize) -> Result<Self, PrepareError> {
        let file = |name: &str| ScratchFile::create(&folder.join(name));
        Ok(NearWriter {
            folder: folder.to_path_buf(),
            n_bands,
            sets: file("near-sets")?,
            ends: file("near-ends")?,
            rows: file("near-rows")?,
            bands: file("near-bands")?,
            end: 0,
            block: vec![Vec::new(); n_bands],
            n_rows: 0,
        })
    }

    /// Adds a row, which comes behind those before it.
    ///
    /// # Errors
    /// `Io` when the disk refuses.
    pub fn push(&mut self, row: u64, set: &[u64], bands: &[u64]) -> Result<(), PrepareError> {
        self.sets.write(set)?;
        self.end += set.len() as u64;
        self.ends.write(&[self.end])?;
        self.rows.write(&[row])?;
        self.block.iter_mut().zip(bands).for_each(|(column, band)| column.push(*band));
        self.n_rows += 1;
        if self.n_rows.is_multiple_of(BLOCK_ROWS) { self.write_block() } else { Ok(()) }
    }

    fn write_block(&mut self) -> Result<(), PrepareError> {
        for column in &mut self.block {
            self.bands.write(column)?;
            column.clear();
        }
        Ok(())
    }

    /// Takes near duplicates out of `kept`. Returns how many.
    ///
    /// # Errors
    /// `Io` when the scratch folder cannot be read, and `cancelled`.
    pub fn drop_duplicates(
        mut self,
        threshold: f64,
        kept: &mut RowSet,
        ctx: &Context<'_>,
    ) -> Result<u64, PrepareError> {
        self.write_block()?;
        let n_before = kept.len();
        let sets = Sets { sets: self.sets.finish()?, ends: self.ends.finish()?, rows: self.rows.finish()? };
        let bands = self.bands.finish()?;
        for band in 0..self.n_bands {
            let mut partitions = Partitions::new(&self.folder, "near-band");
            for first in (0..self.n_rows).step_by(BLOCK_ROWS) {
                ctx.check_cancelled()?;
                let n_rows = BLOCK_ROWS.min(self.n_rows - first);
                let hashes = bands.words((first * self.n_bands + band * n_rows) as u64, n_rows)?;
                let rows = sets.rows.words(first as u64, n_rows)?;
                for (index, (hash, row)) in hashes.into_iter().zip(rows).enumerate() {
                    if kept.contains(row) {
                        partitions.push(u128::from(hash) << 64, (first + index) as u64)?;
                    }
                }
            }
            partitions.visit(|entries| {
                ctx.check_cancelled()?;
                let groups: Vec<&[Entry]> =
                    entries.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1).collect();
                // Each row is in one group of a band, so groups have nothing to do with each other.
                let dropped: Result<Vec<Vec<u64>>, PrepareError> =
                    groups.par_iter().map(|group| near_earlier(group, &sets, threshold)).collect();
                for index in dropped?.into_iter().flatten() {
                    kept.remove(sets.rows.words(index, 1)?[0]);
                }
                Ok(())
            })?;
        }
        Ok(n_before - kept.len())
    }
}

/// The places of those of `group` that are near an earlier one of it.
fn near_earlier(group: &[Entry], sets: &Sets, threshold: f64) -> Result<Vec<u64>, PrepareError> {
    let (mut unlike, mut dropped): (Vec<Vec<u64>>, Vec<u64>) = (Vec::new(), Vec::new());
    for (_, index) in group {
        let set = sets.set(*index)?;
        if unlike.iter().any(|earlier| jaccard(earlier, &set) >= threshold) {
            dropped.push(*index);
        } else if unlike.len() < COMPARED_MAX {
            unlike.push(set);
        }
    }
    Ok(dropped)
}

struct Sets {
    sets: ReadFile,
    ends: ReadFile,
    rows: ReadFile,
}

impl Sets {
    fn set(&self, index: u64) -> Result<Vec<u64>, PrepareError> {
        let (start, end) = match index {
            0 => (0, self.ends.words(0, 1)?[0]),
            _ => {
                let ends = self.ends.words(index - 1, 2)?;
                (ends[0], ends[1])
            }
        };
        self.sets.words(start, usize::try_from(end - start).expect("a set fitted into memory before"))
    }
}

/// Numbers of 64 bits that are written one after another.
struct ScratchFile {
    path: PathBuf,
    writer: BufWriter<File>,
}

impl ScratchFile {
    fn create(path: &Path) -> Result<Self, PrepareError> {
        let open = File::options().create(true).truncate(true).read(true).write(true).open(path);
        let file = open.map_err(|source| PrepareError::Io { verb: "create", file: path.to_path_buf(), source })?;
        Ok(ScratchFile { path: path.to_path_buf(), writer: BufWriter::with_capacity(1 << 18, file) })
    }

    fn write(&mut self, words: &[u64]) -> Result<(), PrepareError> {
        let written = words.iter().try_for_each(|word| self.writer.write_all(&word.to_le_bytes()));
        written.map_err(|source| PrepareError::Io { verb: "write", file: self.path.clone(), source })
    }

    fn finish(self) -> Result<ReadFile, PrepareError> {
        let path = self.path;
        match self.writer.into_inner() {
            Ok(file) => Ok(ReadFile { path, file }),
            Err(error) => Err(PrepareError::Io { verb: "write", file: path, source: error.into_error() }),
        }
    }
}

/// The same, read at any place and by any thread.
struct ReadFile {
    path: PathBuf,
    file: File,
}

impl ReadFile {
    fn words(&self, first: u64, n_words: usize) -> Result<Vec<u64>, PrepareError> {
        let mut bytes = vec![0; n_words * WORD_BYTES];
        let read = self.file.read_exact_at(&mut bytes, first * WORD_BYTES as u64);
        read.map_err(|source| PrepareError::Io { verb: "read", file: self.path.clone(), source })?;
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
        Ok(bytes.chunks_exact(WORD_BYTES).map(word).collect())
    }
}
