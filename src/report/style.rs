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

    /// Text of a stage: what is learned, between U+27E6 and U+27E7, in colour. A line starts and ends plain, so that it can be cut.
    pub fn learned(self, text: &str) -> String {
        if !self.is_colour {
            return text.to_string();
        }
        let (mut styled, mut is_learned) = (String::with_capacity(text.len()), false);
        for line in text.split_inclusive('\n') {
            let indent = line.len() - line.trim_start_matches(' ').len();
            styled.push_str(&line[..indent]);
            // A piece is plain or learned; the brackets are learned.
            for piece in line[indent..].split_inclusive(['\u{27e7}', '\n']).flat_map(|piece| {
                let opened = piece.find('\u{27e6}').unwrap_or(piece.len());
                [&piece[..opened], &piece[opened..]]
            }) {
                is_learned |= piece.starts_with('\u{27e6}');
                let (words, end) = piece.split_at(piece.trim_end_matches('\n').len());
                styled.push_str(&if is_learned && !words.is_empty() {
                    self.wrap("32", words)
                } else {
                    words.to_string()
                });
                styled.push_str(end);
                is_learned &= !words.ends_with('\u{27e7}');
            }
        }
        styled
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_learned_is_green_line_by_line() {
        let text = "row 0\n  a ⟦b⟧ c⟦d\n  e⟧ f\n⟦⟧";
        let expected = "row 0\n  a \x1b[32m⟦b⟧\x1b[0m c\x1b[32m⟦d\x1b[0m\n  \x1b[32me⟧\x1b[0m f\n\x1b[32m⟦⟧\x1b[0m";
        assert_eq!(Style::COLOUR.learned(text), expected);
        assert_eq!(Style::PLAIN.learned(text), text);
    }
}
