//! Cuts a file into the bytes of its objects, each with the line it begins at (counted from 1).
//!
//! By line for `.jsonl`. Else by counting brackets outside of strings: `[{...}, {...}]`, or `{...} {...}`, both also over
//! many lines. The bytes of an object are not checked here: the parser does that.

use std::io::BufRead as _;

use crate::source::Bytes;

pub(crate) enum SplitError {
    Io(std::io::Error),
    Malformed { line: u64, problem: &'static str },
}

/// Iterator over `(line, bytes)`.
pub(crate) struct Objects {
    reader: Bytes,
    is_by_line: bool,
    line: u64,
    state: State,
}

/// Where between two objects the reader stands (for files that are not read by line).
#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Nothing but white space was seen.
    Start,
    /// In the outer list, where an object must follow.
    NeedsObject,
    /// In the outer list, after an object: `,` or `]`.
    AfterObject,
    /// In a file without an outer list.
    Sequence,
    /// The outer list is closed, or an error was given.
    End,
}

impl Objects {
    /// `reader`: text without a byte order mark.
    pub(crate) fn new(reader: Bytes, is_by_line: bool) -> Self {
        Objects { reader, is_by_line, line: 1, state: State::Start }
    }

    /// The next line that is not blank.
    fn next_line(&mut self) -> Result<Option<(u64, Vec<u8>)>, SplitError> {
        loop {
            let mut bytes = Vec::new();
            if self.reader.read_until(b'\n', &mut bytes).map_err(SplitError::Io)? == 0 {
                return Ok(None);
            }
            let line = self.line;
            self.line += 1;
            if !bytes.trim_ascii().is_empty() {
                return Ok(Some((line, bytes)));
            }
        }
    }

    /// The next object of a list or a sequence.
    fn next_object(&mut self) -> Result<Option<(u64, Vec<u8>)>, SplitError> {
        loop {
            let Some(byte) = self.peek()? else {
                return match self.state {
                    State::NeedsObject | State::AfterObject => Err(self.malformed("the list is not closed by `]`")),
                    _ => Ok(None),
                };
            };
            self.state = match (self.state, byte) {
                (_, b' ' | b'\t' | b'\r' | b'\n') => self.state,
                (State::Start, b'[') => State::NeedsObject,
                (State::Start | State::Sequence, b'{') => return self.take_value(State::Sequence).map(Some),
                (State::NeedsObject, b']') | (State::AfterObject, b']') => State::End,
                (State::NeedsObject, b'{') => return self.take_value(State::AfterObject).map(Some),
                (State::AfterObject, b',') => State::NeedsObject,
                (State::AfterObject, _) => return Err(self.malformed("expected `,` or `]` after an object")),
                (State::End, _) => return Err(self.malformed("there is more text after the end of the list")),
                _ => return Err(self.malformed("expected `{`")),
            };
            self.line += u64::from(byte == b'\n');
            self.reader.consume(1);
        }
    }

    /// The bytes from `{` to its `}`, and the state after it.
    fn take_value(&mut self, next: State) -> Result<(u64, Vec<u8>), SplitError> {
        let line = self.line;
        let mut bytes = Vec::new();
        let (mut depth, mut is_in_text, mut is_escaped) = (0_usize, false, false);
        while let Some(byte) = self.peek()? {
            self.reader.consume(1);
            bytes.push(byte);
            self.line += u64::from(byte == b'\n');
            if is_in_text {
                is_in_text = is_escaped || byte != b'"';
                is_escaped = !is_escaped && byte == b'\\';
                continue;
            }
            match byte {
                b'"' => is_in_text = true,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                self.state = next;
                return Ok((line, bytes));
            }
        }
        Err(SplitError::Malformed { line, problem: "the object that begins here is not closed" })
    }

    fn peek(&mut self) -> Result<Option<u8>, SplitError> {
        self.reader.fill_buf().map(|buffer| buffer.first().copied()).map_err(SplitError::Io)
    }

    fn malformed(&self, problem: &'static str) -> SplitError {
        SplitError::Malformed { line: self.line, problem }
    }
}

impl Iterator for Objects {
    type Item = Result<(u64, Vec<u8>), SplitError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = if self.is_by_line { self.next_line() } else { self.next_object() };
        next.transpose()
    }
}
