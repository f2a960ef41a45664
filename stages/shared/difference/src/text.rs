//! Text: the first line that differs. Memory is bounded also where a line is the whole file.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use pipe_contract::StageError;
use pipe_records::thousands;

use crate::bytes::{Place, open};
use crate::shown::{change, quoted};

/// Bytes read before and behind the first byte that differs: characters have at most four, and some 60 are shown.
const AROUND_BYTES: u64 = 1024;

/// The line of the first differing byte.
pub(crate) struct Line {
    /// Counted from 1.
    pub(crate) number: u64,
    /// Of its first byte.
    begin: u64,
}

/// `line 3: "one" -> "two"`.
pub(crate) fn first_difference(place: &Place, before: &Path, now: &Path) -> Result<String, StageError> {
    let line = line_of(place, before)?;
    let texts = [window(place, &line, before)?, window(place, &line, now)?];
    let number = thousands(line.number);
    let [Some(left), Some(right)] = &texts else {
        // One file ends where the other has a further line.
        let shown = texts.iter().map(|text| text.as_ref().map_or("(end)".to_string(), |text| quoted(text)));
        return Ok(format!("line {number}: {}", shown.collect::<Vec<_>>().join(" -> ")));
    };
    let shown = change(&quoted(left), &quoted(right));
    // Bytes that are no text, or a line break at the end of only one of them.
    Ok(shown.map_or_else(|| format!("line {number}; {place}"), |shown| format!("line {number}: {shown}")))
}

/// The line of `place`, up to which both files are equal.
pub(crate) fn line_of(place: &Place, file: &Path) -> Result<Line, StageError> {
    let mut rest = open(file)?.take(place.offset);
    let mut block = vec![0; 1 << 16];
    let (mut line, mut offset) = (Line { number: 1, begin: 0 }, 0);
    loop {
        let n_read = rest.read(&mut block).map_err(|error| StageError::io("read", file, error))?;
        if n_read == 0 {
            return Ok(line);
        }
        for (index, _) in block[..n_read].iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            line = Line { number: line.number + 1, begin: offset + index as u64 + 1 };
        }
        offset += n_read as u64;
    }
}

/// All of the line in `file`, if it is at most `n_bytes_max` long.
pub(crate) fn whole_line(line: &Line, file: &Path, n_bytes_max: u64) -> Result<Option<Vec<u8>>, StageError> {
    let mut bytes = read_at(file, line.begin, n_bytes_max + 1)?;
    if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        bytes.truncate(end);
    }
    Ok((bytes.len() as u64 <= n_bytes_max).then_some(bytes))
}

/// The line's text around the first differing byte; `None` where the file ends before the line begins.
fn window(place: &Place, line: &Line, file: &Path) -> Result<Option<String>, StageError> {
    let begin = line.begin.max(place.offset.saturating_sub(AROUND_BYTES));
    let mut bytes = read_at(file, begin, place.offset - begin + AROUND_BYTES)?;
    if bytes.is_empty() && begin == line.begin {
        return Ok(None);
    }
    if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        bytes.truncate(end);
    }
    // The window may begin inside a character.
    let n_cut = if begin > line.begin { bytes.iter().take_while(|byte| **byte & 0xc0 == 0x80).count() } else { 0 };
    Ok(Some(String::from_utf8_lossy(&bytes[n_cut..]).into_owned()))
}

fn read_at(file: &Path, offset: u64, n_bytes: u64) -> Result<Vec<u8>, StageError> {
    let mut opened = open(file)?;
    let mut bytes = Vec::new();
    opened
        .seek(SeekFrom::Start(offset))
        .and_then(|_| opened.take(n_bytes).read_to_end(&mut bytes))
        .map_err(|error| StageError::io("read", file, error))?;
    Ok(bytes)
}
