//! JSON Lines for programs: every event as it is recorded, one per line on standard output.

use std::io::Write;
use std::time::Duration;

use crate::events::{Event, Sink, to_json_line};

/// Writes events until the reader goes away.
pub struct JsonLines<'a> {
    out: &'a mut dyn Write,
    is_open: bool,
}

impl<'a> JsonLines<'a> {
    /// Writes to `out`.
    pub fn new(out: &'a mut dyn Write) -> Self {
        JsonLines { out, is_open: true }
    }
}

impl Sink for JsonLines<'_> {
    fn on(&mut self, at: Duration, event: &Event) {
        if self.is_open {
            self.is_open = writeln!(self.out, "{}", to_json_line(at, event)).and_then(|()| self.out.flush()).is_ok();
        }
    }
}
