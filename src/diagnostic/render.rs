//! One diagnostic as a screen: header, arrow, source line, caret, help, notes.
//!
//! A `--set` argument is its own source line, so the caret stands right below the arrow:
//!
//! ```text
//! error[unknown-setting]: stage `adapter`: unknown setting `rr`
//!   --> --set stages.adapter.with.lora.rr=8
//!                                      ^^
//! help: did you mean `r`?
//! ```

use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{Colour, Diagnostic, Location, SourceText};

/// Longer source lines are shown as a window around the caret, in columns of the terminal.
const LINE_WIDTH_MAX: usize = 160;
/// What is left of the caret in such a window.
const WINDOW_LEAD: usize = 60;
/// A tab in a source line is shown as this many spaces (as rustc does).
const TAB: &str = "    ";

pub(super) fn render(diagnostic: &Diagnostic, sources: &[SourceText], colour: Colour) -> String {
    let paint = Paint(colour);
    let mut screen = String::new();
    let header = format!("error[{}]", diagnostic.slug);
    let message = printable(&diagnostic.message);
    line(&mut screen, &format!("{}{}", paint.red(&header), paint.bold(&format!(": {message}"))));
    if let Some(location) = &diagnostic.location {
        match sources.iter().find(|source| source.name == location.file) {
            Some(_) if location.is_argument() => argument(&mut screen, location, paint),
            Some(source) if location.length > 0 => file(&mut screen, location, &source.text, paint),
            _ => line(&mut screen, &format!("  {} {}", paint.blue("-->"), printable(&location.to_string()))),
        }
    }
    for (word, text) in
        diagnostic.help.iter().map(|text| ("help", text)).chain(diagnostic.notes.iter().map(|text| ("note", text)))
    {
        line(&mut screen, &format!("{}: {}", paint.bold(word), printable(text)));
    }
    screen
}

fn line(screen: &mut String, text: &str) {
    writeln!(screen, "{}", text.trim_end()).expect("writing to a String cannot fail");
}

fn argument(screen: &mut String, location: &Location, paint: Paint) {
    let shown = Shown::new(&location.file, location);
    line(screen, &format!("  {} {}", paint.blue("-->"), shown.text));
    line(screen, &format!("      {}{}", " ".repeat(shown.caret_at), paint.red(&"^".repeat(shown.caret_width))));
}

fn file(screen: &mut String, location: &Location, text: &str, paint: Paint) {
    let number = location.line.to_string();
    let gutter = " ".repeat(number.len());
    let shown = Shown::new(text.lines().nth(location.line - 1).unwrap_or(""), location);
    let bar = paint.blue("|");
    line(screen, &format!("{gutter}{} {}", paint.blue("-->"), printable(&location.to_string())));
    line(screen, &format!("{gutter} {bar}"));
    line(screen, &format!("{} {bar} {}", paint.blue(&number), shown.text));
    line(
        screen,
        &format!("{gutter} {bar} {}{}", " ".repeat(shown.caret_at), paint.red(&"^".repeat(shown.caret_width))),
    );
}

/// A source line as the terminal shows it, with the caret in columns of the terminal.
struct Shown {
    text: String,
    caret_at: usize,
    caret_width: usize,
}

impl Shown {
    fn new(source_line: &str, location: &Location) -> Self {
        let (start, end) = (location.column - 1, location.column - 1 + location.length);
        let part = |from: usize, to: usize| -> String {
            printable(&source_line.chars().skip(from).take(to - from).collect::<String>())
        };
        let (before, marked, after) = (part(0, start), part(start, end), part(end, usize::MAX));
        let (caret_at, caret_width) = (before.width(), marked.width().max(1));
        let text = format!("{before}{marked}{after}");
        if text.width() <= LINE_WIDTH_MAX {
            return Shown { text, caret_at, caret_width };
        }
        let skipped = caret_at.saturating_sub(WINDOW_LEAD);
        let (window, cut_width) = window(&text, skipped);
        let lead = usize::from(skipped > 0);
        let caret_at = caret_at - cut_width + lead;
        Shown { text: window, caret_at, caret_width: caret_width.min(LINE_WIDTH_MAX.saturating_sub(caret_at).max(1)) }
    }
}

/// `text` from column `skipped` on, at most `LINE_WIDTH_MAX` wide, with `…` where something is cut, and the width
/// that was cut in front.
fn window(text: &str, skipped: usize) -> (String, usize) {
    let mut shown = String::new();
    let (mut column, mut cut_width) = (0, 0);
    for c in text.chars() {
        let width = c.width().unwrap_or(0);
        if column < skipped {
            cut_width += width;
        } else if column - cut_width + width > LINE_WIDTH_MAX {
            shown.push('…');
            break;
        } else {
            shown.push(c);
        }
        column += width;
    }
    if skipped > 0 {
        shown.insert(0, '…');
    }
    (shown, cut_width)
}

/// Without characters that move the cursor or colour the terminal: a file must not be able to write over its own error.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => shown.push_str(TAB),
            '\n' => shown.push(' '),
            c if c.is_control() => shown.push(char::REPLACEMENT_CHARACTER),
            c => shown.push(c),
        }
    }
    shown
}

#[derive(Clone, Copy)]
struct Paint(Colour);

impl Paint {
    fn wrap(self, code: &str, text: &str) -> String {
        match self.0 {
            Colour::On => format!("\x1b[{code}m{text}\x1b[0m"),
            Colour::Off => text.to_string(),
        }
    }
    fn red(self, text: &str) -> String {
        self.wrap("1;31", text)
    }
    fn blue(self, text: &str) -> String {
        self.wrap("1;34", text)
    }
    fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(text: &str, column: usize, length: usize, colour: Colour) -> String {
        let source = SourceText { name: "a.yaml".into(), text: text.into() };
        let location = Location { file: "a.yaml".into(), line: 1, column, length };
        render(&Diagnostic::new("slug", "what").at(location).help("how").note("also"), &[source], colour)
    }

    #[test]
    fn the_form_of_a_screen() {
        insta::assert_snapshot!(screen("key: value", 6, 5, Colour::Off), @r"
        error[slug]: what
         --> a.yaml:1:6
          |
        1 | key: value
          |      ^^^^^
        help: how
        note: also
        ");
    }

    #[test]
    fn the_caret_stands_below_wide_characters_and_tabs() {
        insta::assert_snapshot!(screen("日本:\tvalue", 5, 5, Colour::Off), @r"
        error[slug]: what
         --> a.yaml:1:5
          |
        1 | 日本:    value
          |          ^^^^^
        help: how
        note: also
        ");
    }

    #[test]
    fn a_long_line_is_shown_around_the_caret() {
        let text = format!("{}value{}", "x".repeat(1000), "y".repeat(1000));
        let screen = screen(&text, 1001, 5, Colour::Off);
        let lines: Vec<&str> = screen.lines().collect();
        assert!(lines[3].width() < LINE_WIDTH_MAX + 10, "{}", lines[3]);
        let caret = lines[4].chars().position(|c| c == '^').expect("there is a caret");
        assert_eq!(lines[3].chars().skip(caret).take(5).collect::<String>(), "value");
    }

    #[test]
    fn a_file_cannot_send_escape_codes_to_the_terminal() {
        assert!(!screen("a: \x1b[2J", 4, 3, Colour::Off).contains('\x1b'));
    }

    #[test]
    fn colour_adds_codes_and_changes_no_text() {
        let coloured = screen("key: value", 6, 5, Colour::On);
        let mut plain = String::new();
        let mut rest = coloured.as_str();
        while let Some(at) = rest.find('\x1b') {
            plain.push_str(&rest[..at]);
            rest = &rest[at + rest[at..].find('m').expect("a code ends") + 1..];
        }
        plain.push_str(rest);
        assert_ne!(coloured, plain);
        assert_eq!(plain, screen("key: value", 6, 5, Colour::Off));
    }
}
