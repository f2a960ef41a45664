//! JSON and JSON Lines: the first key, in the order of names, whose value differs.

use std::collections::BTreeSet;
use std::path::Path;

use pipe_contract::StageError;
use pipe_records::thousands;
use serde_json::Value;

use crate::bytes::Place;
use crate::shown::{change, quoted, shortened};
use crate::text::{self, line_of, whole_line};

/// The largest file, or line, that is held as values: a tokenizer has some 30 MB, rows may have any number.
const BYTES_MAX: u64 = 256_000_000;

/// `lora.r`: 16 -> 8. What is not JSON is compared as text.
pub(crate) fn first_difference(place: &Place, before: &Path, now: &Path) -> Result<String, StageError> {
    let as_text = text::first_difference(place, before, now)?;
    if place.sizes.iter().any(|size| *size > BYTES_MAX) {
        return Ok(as_text);
    }
    let read = |path: &Path| std::fs::read(path).map_err(|error| StageError::io("read", path, error));
    Ok(of_bytes(&read(before)?, &read(now)?, "", as_text))
}

/// `line 7, `loss`: 1.5 -> 1.25`. A line that is not JSON is compared as text.
pub(crate) fn first_difference_of_lines(place: &Place, before: &Path, now: &Path) -> Result<String, StageError> {
    let line = line_of(place, before)?;
    let as_text = text::first_difference(place, before, now)?;
    let lines = (whole_line(&line, before, BYTES_MAX)?, whole_line(&line, now, BYTES_MAX)?);
    let (Some(before), Some(now)) = lines else { return Ok(as_text) };
    Ok(of_bytes(&before, &now, &format!("line {}, ", thousands(line.number)), as_text))
}

/// What differs between two texts of JSON, with `prefix`; `as_text` if one of them is none, or their values are equal.
fn of_bytes(before: &[u8], now: &[u8], prefix: &str, as_text: String) -> String {
    let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    let (Some(before), Some(now)) = (parse(before), parse(now)) else { return as_text };
    match value_difference(&before, &now, "") {
        Some(difference) => format!("{prefix}{difference}"),
        None => format!("all values are equal, but not how they are written: {as_text}"),
    }
}

/// What differs first between two values; `None` if nothing does. `path` is where they are: `lora.target_modules[2]`.
pub(crate) fn value_difference(before: &Value, now: &Value, path: &str) -> Option<String> {
    match (before, now) {
        (Value::Object(left), Value::Object(right)) => {
            let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            let mut names = names.into_iter();
            names.find_map(|name| member_difference(left.get(name), right.get(name), &below(path, name)))
        }
        (Value::Array(left), Value::Array(right)) => {
            let mut indices = 0..left.len().max(right.len());
            indices.find_map(|i| member_difference(left.get(i), right.get(i), &format!("{path}[{i}]")))
        }
        _ if before == now => None,
        _ => {
            let shown = change(&before.to_string(), &now.to_string())?;
            Some(if path.is_empty() { shown } else { format!("`{path}`: {shown}") })
        }
    }
}

fn member_difference(before: Option<&Value>, now: Option<&Value>, path: &str) -> Option<String> {
    match (before, now) {
        (Some(before), Some(now)) => value_difference(before, now, path),
        (Some(before), None) => Some(format!("`{path}` is gone: {}", shortened(&before.to_string()))),
        (None, Some(now)) => Some(format!("`{path}` is new: {}", shortened(&now.to_string()))),
        (None, None) => None,
    }
}

/// `lora.r`; a name that is not a word is quoted: `weight_map["model.norm.weight"]`.
fn below(path: &str, name: &str) -> String {
    let is_word = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    match (is_word, path.is_empty()) {
        (true, true) => name.to_string(),
        (true, false) => format!("{path}.{name}"),
        (false, _) => format!("{path}[{}]", shortened(&quoted(name))),
    }
}
