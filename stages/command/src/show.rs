//! `pipe show` of what a command made: the first lines of a text file, the names and sizes of anything else.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use pipe_contract::{Artifact, ArtifactKind};

use crate::error::CommandError;

/// A text is shown as far as this, however long its lines are.
const SHOWN_BYTES_MAX: u64 = 64 * 1024;

pub(crate) fn show(artifact: &Artifact, n_rows: usize) -> Result<String, CommandError> {
    let mut text = String::new();
    for (name, file) in &artifact.files {
        writeln!(text, "{:>12}  {name}", file.size_bytes).expect("writing to a String cannot fail");
    }
    let only = artifact.files.values().next().filter(|_| artifact.kind == ArtifactKind::File);
    if let Some(lines) = only.map(|file| first_lines(&file.path, n_rows)).transpose()?.flatten() {
        text.push_str(&lines);
    }
    Ok(text)
}

/// The first `n_lines` lines; `None` where they are not text.
fn first_lines(path: &Path, n_lines: usize) -> Result<Option<String>, CommandError> {
    let file = File::open(path).map_err(CommandError::io("read", path))?;
    let mut reader = BufReader::new(file.take(SHOWN_BYTES_MAX));
    let mut bytes = Vec::new();
    for _ in 0..n_lines {
        if reader.read_until(b'\n', &mut bytes).map_err(CommandError::io("read", path))? == 0 {
            break;
        }
    }
    let is_cut = bytes.len() as u64 == SHOWN_BYTES_MAX;
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text,
        // Cut inside a character.
        Err(error) if is_cut && error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).expect("valid up to there")
        }
        Err(_) => return Ok(None),
    };
    let is_text = text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'));
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    Ok(is_text.then(|| format!("{text}{end}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_by_lines_and_other_bytes_are_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("f");
        let shown = |bytes: &[u8], n_rows: usize| {
            std::fs::write(&path, bytes).expect("written");
            let artifact = Artifact::from_folder(ArtifactKind::File, folder.path()).expect("a folder");
            show(&artifact, n_rows).expect("it can be read")
        };
        assert_eq!(shown(b"a\nb\nc\n", 2), "           6  f\na\nb\n");
        assert_eq!(shown(b"a", 2), "           1  f\na\n");
        assert_eq!(shown(b"a\0\n", 2), "           3  f\n");
        assert_eq!(shown(b"\xff\n", 2), "           2  f\n");
        let long = "\u{e9}".repeat(40_000);
        assert_eq!(shown(format!("x{long}").as_bytes(), 2).chars().count(), 16 + 1 + 32_767 + 1);
    }
}
