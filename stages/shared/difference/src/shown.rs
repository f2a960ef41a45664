//! Two values beside each other: one line, no control characters, cut around where they part.

use pipe_records::show::{cut, escape_controls};
use serde_json::Value;

/// Characters of a value in a sentence.
const LENGTH: usize = 60;

/// Of them, at most so many before the first that differs.
const LEAD: usize = 20;

/// `text` in quotes, on one line.
pub(crate) fn quoted(text: &str) -> String {
    escape_controls(&Value::from(text).to_string())
}

/// `before -> now`; `None` if that would show the same twice.
pub(crate) fn change(before: &str, now: &str) -> Option<String> {
    let (before, now) = (one_line(before), one_line(now));
    let n_equal = before.chars().zip(now.chars()).take_while(|(a, b)| a == b).count();
    let is_long = [&before, &now].iter().any(|text| text.chars().nth(LENGTH).is_some());
    let start = if is_long { n_equal.saturating_sub(LEAD) } else { 0 };
    (before != now).then(|| format!("{} -> {}", part(&before, start), part(&now, start)))
}

/// One value alone, cut.
pub(crate) fn shortened(text: &str) -> String {
    cut(&one_line(text), LENGTH)
}

fn one_line(text: &str) -> String {
    escape_controls(text).replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t")
}

fn part(text: &str, start: usize) -> String {
    let rest: String = text.chars().skip(start).collect();
    let mark = if start > 0 { "\u{2026}" } else { "" };
    format!("{mark}{}", cut(&rest, LENGTH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut_around_where_they_part() {
        assert_eq!(change("a", "b").unwrap(), "a -> b");
        let (a, b) = (format!("{}cat{}", "x".repeat(100), "y".repeat(100)), format!("{}dog", "x".repeat(100)));
        let lead = "x".repeat(LEAD);
        assert_eq!(change(&a, &b).unwrap(), format!("…{lead}cat{}… -> …{lead}dog", "y".repeat(37)));
        assert_eq!(change("x", "x"), None);
    }

    #[test]
    fn a_value_stays_on_its_line_and_obeys_nothing() {
        assert_eq!(change("a\nb\u{1b}[0m", "a\r\n").unwrap(), "a\\nb\\u{1b}[0m -> a\\r\\n");
        assert_eq!(quoted("tab\t\u{202e}\""), "\"tab\\t\\u{202e}\\\"\"");
    }
}
