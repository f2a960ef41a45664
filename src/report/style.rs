//! Colours and weights of text, or none.

use crate::schedule::Outcome;

/// Whether ANSI sequences are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    is_colour: bool,
}

impl Style {
    /// With ANSI sequences.
    pub const COLOUR: Style = Style { is_colour: true };
    /// Plain text.
    pub const PLAIN: Style = Style { is_colour: false };

    /// The same choice for diagnostics.
    pub fn colour(self) -> crate::diagnostic::Colour {
        if self.is_colour { crate::diagnostic::Colour::On } else { crate::diagnostic::Colour::Off }
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.is_colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// What matters.
    pub fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// What matters less.
    pub fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// An error.
    pub fn red(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    /// A warning.
    pub fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// Something done.
    pub fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// The word of an outcome, `text` being it with what pads it.
    pub fn outcome(self, outcome: Outcome, text: &str) -> String {
        match outcome {
            Outcome::Reused => self.dim(text),
            Outcome::Ran => self.green(text),
            Outcome::Failed => self.red(text),
            Outcome::Skipped | Outcome::Cancelled => self.yellow(text),
        }
    }
}
