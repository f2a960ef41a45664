//! What a command prints, as it comes, to lines of the log.
//!
//! ```text
//! "load\n 10%\r 20%\r100%\nTOKEN=hush\n"   ->   "load", "100%", "TOKEN=***"
//! ```
//!
//! As on a terminal, what follows a `\r` replaces what stood there; of progress that goes on for long a line is told now and
//! then. Codes for colours and cursors are left out. A line ends before it fills the memory.

use std::time::{Duration, Instant};

use crate::secrets::Secrets;

/// Longer lines are cut: the log is for eyes, and a line may be all of a file.
const LINE_BYTES_MAX: usize = 8192;

/// How often progress that only replaces itself is told.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

const ESCAPE: u8 = 0x1b;
const BELL: u8 = 0x07;

/// The lines of one command.
pub(crate) struct Lines<'s> {
    secrets: &'s Secrets,
    line: Line,
    /// What stood in this line before a `\r`.
    replaced: Option<Line>,
    told_at: Instant,
}

#[derive(Default)]
struct Line {
    /// As many as are shown, and a secret that begins there.
    bytes: Vec<u8>,
    n_more: usize,
}

impl<'s> Lines<'s> {
    /// Of a command that begins at `now`.
    pub(crate) fn new(secrets: &'s Secrets, now: Instant) -> Self {
        Lines { secrets, line: Line::default(), replaced: None, told_at: now }
    }

    /// Takes what was read at `now`, and tells the lines that end in it.
    pub(crate) fn take(&mut self, bytes: &[u8], now: Instant, tell: &mut dyn FnMut(String)) {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.add(&rest[..at]);
            if rest[at] == b'\n' {
                self.end_line(now, tell);
            } else {
                self.replace_line(now, tell);
            }
            rest = &rest[at + 1..];
        }
        self.add(rest);
    }

    /// Tells what stands in a line that never ended.
    pub(crate) fn finish(mut self, now: Instant, tell: &mut dyn FnMut(String)) {
        if !self.line.bytes.is_empty() || self.replaced.is_some() {
            self.end_line(now, tell);
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        let room = (LINE_BYTES_MAX + self.secrets.longest_bytes()).saturating_sub(self.line.bytes.len());
        let taken = bytes.len().min(room);
        self.line.bytes.extend_from_slice(&bytes[..taken]);
        self.line.n_more += bytes.len() - taken;
    }

    fn end_line(&mut self, now: Instant, tell: &mut dyn FnMut(String)) {
        let mut line = std::mem::take(&mut self.line);
        let replaced = self.replaced.take();
        // `\r\n` ends a line too.
        if line.bytes.is_empty() {
            line = replaced.unwrap_or(line);
        }
        self.told_at = now;
        tell(self.shown(&line));
    }

    fn replace_line(&mut self, now: Instant, tell: &mut dyn FnMut(String)) {
        if self.line.bytes.is_empty() {
            return;
        }
        let line = std::mem::take(&mut self.line);
        if now.saturating_duration_since(self.told_at) >= PROGRESS_INTERVAL {
            self.told_at = now;
            self.replaced = None;
            tell(self.shown(&line));
        } else {
            self.replaced = Some(line);
        }
    }

    /// Codes are taken out first: they could stand inside a secret.
    fn shown(&self, line: &Line) -> String {
        let bytes = without_codes(&line.bytes);
        let (mut shown, mut at) = (Vec::with_capacity(bytes.len()), 0);
        for (start, end) in self.secrets.spans(&bytes) {
            if start >= LINE_BYTES_MAX {
                break;
            }
            shown.extend_from_slice(&bytes[at..start]);
            shown.extend_from_slice(b"***");
            at = end;
        }
        let end = bytes.len().min(LINE_BYTES_MAX).max(at);
        shown.extend_from_slice(&bytes[at..end]);
        let mut shown = String::from_utf8_lossy(&shown).into_owned();
        let n_more = bytes.len() - end + line.n_more;
        if n_more > 0 {
            shown.push_str(&format!(" ... ({n_more} bytes more)"));
        }
        shown
    }
}

/// Without escape sequences and control characters but the tab.
fn without_codes(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            ESCAPE => match rest.next() {
                // Parameters, then a letter.
                Some(b'[') => drop(rest.find(|byte| (0x40..=0x7e).contains(byte))),
                // A title or a link, up to its end.
                Some(b']') => {
                    while let Some(byte) = rest.next() {
                        if byte == BELL || (byte == ESCAPE && rest.next_if_eq(&b'\\').is_some()) {
                            break;
                        }
                    }
                }
                _ => {}
            },
            b'\t' => plain.push(byte),
            0..0x20 | 0x7f => {}
            _ => plain.push(byte),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(chunks: &[&[u8]], secrets: &Secrets) -> Vec<String> {
        let (mut told, now) = (Vec::new(), Instant::now());
        let mut tell = |line| told.push(line);
        let mut lines = Lines::new(secrets, now);
        chunks.iter().for_each(|chunk| lines.take(chunk, now, &mut tell));
        lines.finish(now, &mut tell);
        told
    }

    fn lines(text: &str) -> Vec<String> {
        lines_of(&[text.as_bytes()], &Secrets::of([("TOKEN", "hush")]))
    }

    #[test]
    fn a_line_is_what_a_terminal_would_show() {
        assert_eq!(lines("a\n\nb"), ["a", "", "b"]);
        assert_eq!(lines("a\r\nb\r\n"), ["a", "b"]);
        assert_eq!(lines(" 10%\r 20%\r100%\nend\n"), ["100%", "end"]);
        assert_eq!(lines(" 10%\r 20%\r"), [" 20%"]);
        assert_eq!(lines("\x1b[31mred\x1b[0m\tand \x1b]0;title\x07plain\x08\n"), ["red\tand plain"]);
        assert_eq!(lines(""), Vec::<String>::new());
        assert_eq!(lines_of(&[b"a\xff", b"b\n"], &Secrets::of([("X", "y")])), ["a\u{fffd}b"]);
    }

    #[test]
    fn a_secret_is_masked_wherever_it_is_split() {
        let secrets = Secrets::of([("TOKEN", "canary-value")]);
        let text = b"say canary-value twice: canary-value\n";
        for at in 0..text.len() {
            let told = lines_of(&[&text[..at], &text[at..]], &secrets);
            assert_eq!(told, ["say *** twice: ***"], "split at {at}");
        }
        assert_eq!(lines_of(&[b"can\x1b[1mary-\x1b[0mvalue\n"], &secrets), ["***"]);
        assert_eq!(lines_of(&[b"canary-value\rnext\n"], &secrets), ["next"]);
        assert_eq!(lines_of(&[b"canary-value\r\n"], &secrets), ["***"]);
    }

    #[test]
    fn a_long_line_is_cut_and_no_part_of_a_secret_is_left_at_its_end() {
        let secrets = Secrets::of([("TOKEN", "canary-value")]);
        for n_before in LINE_BYTES_MAX - 13..=LINE_BYTES_MAX {
            let mut text = vec![b'x'; n_before];
            text.extend(b"canary-value");
            text.extend([b'y'; 100_000]);
            let told = lines_of(&[&text], &secrets);
            assert!(!told[0].contains("can"), "{n_before} before");
            assert!(told[0].ends_with(" bytes more)"), "{n_before} before");
            assert!(told[0].len() < LINE_BYTES_MAX + 40, "{n_before} before");
        }
    }

    #[test]
    fn long_progress_is_told_now_and_then() {
        let secrets = Secrets::of([("TOKEN", "hush")]);
        let begin = Instant::now();
        let mut lines = Lines::new(&secrets, begin);
        let mut told = Vec::new();
        for second in 1..=11 {
            let now = begin + Duration::from_secs(second);
            lines.take(format!("{second}\r").as_bytes(), now, &mut |line| told.push(line));
        }
        lines.finish(begin + Duration::from_secs(12), &mut |line| told.push(line));
        assert_eq!(told, ["5", "10", "11"]);
    }
}
