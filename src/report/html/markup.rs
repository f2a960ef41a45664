//! Text on its way into HTML, and the few pieces that every part of the page uses.

use std::fmt::Write as _;
use std::time::Duration;

pub(super) use crate::report::escape::escape;
use crate::report::numbers;
use crate::schedule::Outcome;

/// A value as facts have it, with a real arrow.
pub(super) fn value(text: &str) -> String {
    escape(&text.replace(" -> ", " \u{2192} "))
}

/// An `id` for a name; every byte that is neither a letter nor a digit is written out, so that two names never meet.
pub(super) fn anchor(stage: &str) -> String {
    let mut id = "stage-".to_string();
    for byte in stage.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => id.push(char::from(byte)),
            _ => write!(id, "-{byte:02x}").expect("to a String"),
        }
    }
    id
}

/// The word of an outcome, which is also the name of its class and of its symbol.
pub(super) fn word(outcome: Option<Outcome>) -> &'static str {
    match outcome {
        Some(Outcome::Reused) => "reused",
        Some(Outcome::Ran) => "ran",
        Some(Outcome::Failed) => "failed",
        Some(Outcome::Skipped) => "skipped",
        Some(Outcome::Cancelled) => "cancelled",
        None => "unfinished",
    }
}

/// Symbol and word: `ran`.
pub(super) fn badge(outcome: Option<Outcome>) -> String {
    let word = word(outcome);
    format!("<span class=\"badge {word}\"><svg aria-hidden=\"true\"><use href=\"#i-{word}\"/></svg>{word}</span>")
}

/// `2 min 03 s`.
pub(super) fn time(duration: Duration) -> String {
    escape(&numbers::duration(duration))
}

/// The symbols of outcomes: a shape for each, so that none is told by colour alone.
pub(super) const SYMBOLS: &str = "<svg class=\"symbols\" aria-hidden=\"true\">\
<symbol id=\"i-ran\" viewBox=\"0 0 16 16\"><path d=\"M2.5 8.5l3.5 3.5 7.5-8\"/></symbol>\
<symbol id=\"i-reused\" viewBox=\"0 0 16 16\"><path d=\"M13 8a5 5 0 1 1-1.6-3.7M13 2v3.2H9.8\"/></symbol>\
<symbol id=\"i-failed\" viewBox=\"0 0 16 16\"><path d=\"M3.5 3.5l9 9M12.5 3.5l-9 9\"/></symbol>\
<symbol id=\"i-skipped\" viewBox=\"0 0 16 16\"><path d=\"M3 8h10\"/></symbol>\
<symbol id=\"i-cancelled\" viewBox=\"0 0 16 16\"><path d=\"M4 4h8v8H4z\"/></symbol>\
<symbol id=\"i-unfinished\" viewBox=\"0 0 16 16\"><path d=\"M3 8h.1M8 8h.1M13 8h.1\"/></symbol>\
</svg>\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_becomes_markup() {
        let text = "<script>alert('1')</script> & \"x\"\u{1b}[31m\r\n";
        let escaped = "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; &quot;x&quot;[31m\n";
        assert_eq!(escape(text), escaped);
        assert_eq!(value("2.3 -> 2.1"), "2.3 \u{2192} 2.1");
    }

    #[test]
    fn anchors_of_different_names_differ() {
        let anchors = ["a b", "a-b", "a_b", "a.b", "ä"].map(anchor);
        assert_eq!(anchors, ["stage-a-20b", "stage-a-2db", "stage-a_b", "stage-a-2eb", "stage--c3-a4"]);
    }
}
