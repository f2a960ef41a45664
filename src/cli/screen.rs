//! How a run looks while it goes: live lines where stderr is a terminal, a line per fact where it is not.

use std::io::Write;
use std::time::Duration;

use crate::events::{Event, Sink};
use crate::report::live::LiveLines;
use crate::report::plain::PlainLines;
use crate::report::style::Style;

/// The screen of a run that goes on.
pub(super) enum Screen<'a> {
    Live(Box<LiveLines>),
    Plain(PlainLines<'a>),
    /// Nothing is shown.
    Dark,
}

impl<'a> Screen<'a> {
    /// `is_live`: stderr is a terminal of so many `columns`.
    pub(super) fn new(err: &'a mut dyn Write, style: Style, is_live: bool, columns: Option<usize>) -> Self {
        if is_live {
            Screen::Live(Box::new(LiveLines::new(style, columns)))
        } else {
            Screen::Plain(PlainLines::new(err, style))
        }
    }
}

impl Sink for Screen<'_> {
    fn on(&mut self, at: Duration, event: &Event) {
        match self {
            Screen::Live(lines) => lines.on(at, event),
            Screen::Plain(lines) => lines.on(at, event),
            Screen::Dark => {}
        }
    }

    fn tick(&mut self) {
        match self {
            Screen::Live(lines) => lines.tick(),
            Screen::Plain(lines) => lines.tick(),
            Screen::Dark => {}
        }
    }
}
