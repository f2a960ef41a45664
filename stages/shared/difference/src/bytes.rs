//! Files as bytes: where they differ first.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use pipe_contract::StageError;

/// Bytes of each file in memory at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// Where two files differ first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Bytes before it, equal in both.
    pub(crate) offset: u64,
    /// Both bytes at the offset; `None` where the file has ended.
    pub(crate) bytes: [Option<u8>; 2],
    /// Sizes of both files.
    pub(crate) sizes: [u64; 2],
}

/// Where two files differ first; `None` if they are equal.
pub(crate) fn first_place(before: &Path, now: &Path) -> Result<Option<Place>, StageError> {
    let (mut left, mut right) = (open(before)?, open(now)?);
    let (mut left_block, mut right_block) = (Vec::new(), Vec::new());
    let mut offset = 0;
    loop {
        fill(&mut left, before, &mut left_block)?;
        fill(&mut right, now, &mut right_block)?;
        if left_block == right_block {
            if left_block.is_empty() {
                return Ok(None);
            }
            offset += left_block.len() as u64;
            continue;
        }
        let n_equal = left_block.iter().zip(&right_block).take_while(|(a, b)| a == b).count();
        let bytes = [left_block.get(n_equal).copied(), right_block.get(n_equal).copied()];
        return Ok(Some(Place { offset: offset + n_equal as u64, bytes, sizes: [size(before)?, size(now)?] }));
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, now] = self.sizes;
        if before != now {
            write!(f, "{before} bytes -> {now} bytes; ")?;
        }
        match self.bytes {
            [Some(before), Some(now)] => {
                write!(f, "byte {} (counted from 0): 0x{before:02x} -> 0x{now:02x}", self.offset)
            }
            _ => write!(f, "equal up to the end of the shorter one"),
        }
    }
}

pub(crate) fn open(path: &Path) -> Result<File, StageError> {
    File::open(path).map_err(|error| StageError::io("read", path, error))
}

fn size(path: &Path) -> Result<u64, StageError> {
    Ok(std::fs::metadata(path).map_err(|error| StageError::io("read", path, error))?.len())
}

/// The next block, shorter only at the end of the file.
fn fill(file: &mut File, path: &Path, block: &mut Vec<u8>) -> Result<(), StageError> {
    block.clear();
    let read = file.by_ref().take(BLOCK_BYTES as u64).read_to_end(block);
    read.map(drop).map_err(|error| StageError::io("read", path, error))
}
