//! JSON Lines: a value a line, as artifacts have them that people and other programs read.

use std::fs::File;
use std::io::{BufWriter, Result, Write as _};
use std::path::Path;

use serde::Serialize;

/// Writes each of `values` as a line of the new file `path`.
///
/// # Errors
/// When it cannot be written.
pub fn write_lines<T: Serialize>(path: &Path, values: &[T]) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for value in values {
        serde_json::to_writer(&mut file, value)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}
