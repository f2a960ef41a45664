//! What differs first between two files that should be the same, in one sentence.
//!
//! ```text
//! model.safetensors   tensor `wte` (F32, 16 x 576) at [3, 17]: 0.0123 -> 0.0124; 4,096 of its 9,216 elements differ, ...
//! rows.parquet        column `text`, row 12 (counted from 0): "a cat" -> "a dog"; 3 of 2,000 rows differ in it
//! config.json         `lora.r`: 16 -> 8
//! metrics.jsonl       line 7, `loss`: 1.5 -> 1.25
//! notes.txt           line 3: "one" -> "two"
//! other.bin           byte 17 (counted from 0): 0x3f -> 0x40
//! ```
//!
//! The name says which form a file has; a file that has not the form of its name is compared as bytes. Whether there is a
//! difference is decided by the bytes alone, so that a file is never called equal because a form overlooks something.
//!
//! It deliberately judges nothing: no tolerance, and a NaN with other bits is a difference.

mod bytes;
#[cfg(feature = "forms")]
mod columns;
#[cfg(feature = "forms")]
mod element;
#[cfg(feature = "forms")]
mod json;
#[cfg(feature = "forms")]
mod shown;
#[cfg(feature = "forms")]
mod text;
#[cfg(feature = "forms")]
mod weights;

use std::path::Path;

use pipe_contract::StageError;

/// What differs first between two files of one name; `None` if their bytes are equal.
///
/// # Errors
/// `io` when one of them cannot be read.
#[cfg(feature = "forms")]
pub fn first_difference(name: &str, before: &Path, now: &Path) -> Result<Option<String>, StageError> {
    let Some(place) = bytes::first_place(before, now)? else { return Ok(None) };
    let extension = Path::new(name).extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let found = match extension.as_str() {
        "safetensors" => weights::first_difference(&place, before, now)?,
        "parquet" => columns::first_difference(&place, before, now)?,
        "json" => Some(json::first_difference(&place, before, now)?),
        "jsonl" => Some(json::first_difference_of_lines(&place, before, now)?),
        "txt" | "md" | "svg" | "yaml" | "yml" | "csv" | "tsv" => Some(text::first_difference(&place, before, now)?),
        _ => None,
    };
    Ok(Some(found.unwrap_or_else(|| place.to_string())))
}

/// The first byte in which two files differ, whatever their form; `None` if their bytes are equal.
///
/// # Errors
/// `io` when one of them cannot be read.
pub fn first_differing_byte(before: &Path, now: &Path) -> Result<Option<String>, StageError> {
    Ok(bytes::first_place(before, now)?.map(|place| place.to_string()))
}
