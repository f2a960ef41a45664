//! Secrets: looked up when the command starts, given to it, and kept out of everything that stays.
//!
//! ```text
//! secrets: [TOKEN]    the name is in the key; the value is in the command's environment and nowhere else
//! what it prints      the value becomes ***, at any length
//! what it writes      an output with the value in it fails the stage
//! ```
//!
//! It deliberately knows the value as it is: one that the command encodes or cuts is not recognized.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use memchr::memmem;

use crate::Variable;
use crate::error::CommandError;

/// Shorter values are not looked for in outputs: they would be found in files that say nothing of them.
const SEARCHED_BYTES_MIN: usize = 6;

/// Bytes of a file that are looked at together.
const CHUNK_BYTES: usize = 1 << 20;

/// Names and values.
pub(crate) struct Secrets {
    list: Vec<Secret>,
}

struct Secret {
    name: String,
    value: OsString,
    /// What stands for the value in a line: all of it, or the lines it has.
    patterns: Vec<Vec<u8>>,
}

impl Secrets {
    /// Looks the values up.
    pub(crate) fn look_up(names: &[String], variable: Variable) -> Result<Self, CommandError> {
        let mut values = Vec::with_capacity(names.len());
        for name in names {
            let value = variable(name).filter(|value| !value.is_empty());
            values.push((name.as_str(), value.ok_or_else(|| CommandError::NoSecret { name: name.clone() })?));
        }
        Ok(Secrets::of(values))
    }

    /// With these names and values.
    pub(crate) fn of<'n>(values: impl IntoIterator<Item = (&'n str, impl Into<OsString>)>) -> Self {
        let secret = |(name, value): (&str, _)| {
            let value: OsString = Into::into(value);
            let bytes = value.as_encoded_bytes();
            let lines: Vec<&[u8]> = bytes.split(|byte| matches!(byte, b'\n' | b'\r')).collect();
            let is_one_line = lines.len() == 1;
            let lines = lines.into_iter().filter(|line| is_one_line || line.len() >= SEARCHED_BYTES_MIN);
            Secret { name: name.into(), patterns: lines.map(<[u8]>::to_vec).collect(), value }
        };
        Secrets { list: values.into_iter().map(secret).collect() }
    }

    /// Names and values, for the environment.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&str, &OsString)> {
        self.list.iter().map(|secret| (secret.name.as_str(), &secret.value))
    }

    /// The longest value, in bytes.
    pub(crate) fn longest_bytes(&self) -> usize {
        self.list.iter().map(|secret| secret.value.len()).max().unwrap_or(0)
    }

    /// The stretches of `line` that secrets take, from start to end, in order and apart.
    pub(crate) fn spans(&self, line: &[u8]) -> Vec<(usize, usize)> {
        let mut found: Vec<(usize, usize)> = Vec::new();
        for pattern in self.list.iter().flat_map(|secret| &secret.patterns) {
            found.extend(memmem::find_iter(line, pattern).map(|start| (start, start + pattern.len())));
        }
        found.sort_unstable();
        let mut spans: Vec<(usize, usize)> = Vec::with_capacity(found.len());
        for (start, end) in found {
            match spans.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => spans.push((start, end)),
            }
        }
        spans
    }

    /// The name of a secret whose value is in `bytes`.
    pub(crate) fn find_in_bytes(&self, bytes: &[u8]) -> Option<&str> {
        let searched = self.list.iter().filter(|secret| secret.value.len() >= SEARCHED_BYTES_MIN);
        let mut found = searched.filter(|secret| memmem::find(bytes, secret.value.as_encoded_bytes()).is_some());
        found.next().map(|secret| secret.name.as_str())
    }

    /// The name of a secret whose value is in the file.
    pub(crate) fn find_in_file(&self, path: &Path) -> Result<Option<&str>, CommandError> {
        if self.list.is_empty() {
            return Ok(None);
        }
        let mut file = File::open(path).map_err(CommandError::io("read", path))?;
        let mut bytes = Vec::new();
        loop {
            let n_read = file
                .by_ref()
                .take(CHUNK_BYTES as u64)
                .read_to_end(&mut bytes)
                .map_err(CommandError::io("read", path))?;
            if let Some(name) = self.find_in_bytes(&bytes) {
                return Ok(Some(name));
            }
            if n_read == 0 {
                return Ok(None);
            }
            // What a value may begin in.
            let kept = self.longest_bytes().saturating_sub(1).min(bytes.len());
            bytes.drain(..bytes.len() - kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_across_a_border_of_chunks_is_found() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("f");
        let secrets = Secrets::of([("SHORT", "abc"), ("LONG", "canary-value")]);
        for n_before in [0, 1, CHUNK_BYTES - 12, CHUNK_BYTES - 11, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES - 5] {
            let mut bytes = vec![b'x'; n_before];
            bytes.extend(b"canary-value");
            std::fs::write(&path, &bytes).expect("written");
            assert_eq!(secrets.find_in_file(&path).expect("it is there"), Some("LONG"), "{n_before} bytes before");
            bytes.pop();
            std::fs::write(&path, &bytes).expect("written");
            assert_eq!(secrets.find_in_file(&path).expect("it is there"), None, "{n_before} bytes before");
        }
        assert_eq!(secrets.find_in_bytes(b"abc"), None, "too short to be looked for");
    }

    #[test]
    fn a_missing_or_empty_one_is_named() {
        let names = ["A".to_string(), "B".to_string()];
        let error = |variable: Variable| Secrets::look_up(&names, variable).err().map(|error| error.to_string());
        assert_eq!(error(|_| Some("x".into())), None);
        let why = "the secret `B` is not set in the environment of pipe";
        assert_eq!(error(|name| (name == "A").then(|| "x".into())).as_deref(), Some(why));
        assert_eq!(error(|name| Some(if name == "A" { "x" } else { "" }.into())).as_deref(), Some(why));
    }

    #[test]
    fn overlapping_values_are_one_stretch() {
        let secrets = Secrets::of([("A", "bc"), ("B", "cde"), ("C", "first line\nsecond line\nx")]);
        assert_eq!(secrets.spans(b"abcdefbc"), [(1, 5), (6, 8)]);
        assert_eq!(secrets.spans(b"the second line"), [(4, 15)]);
        assert_eq!(secrets.spans(b"x"), [], "a short line of a long value is not one");
    }
}
