//! Characters that mark places in a text while a template makes it, and are taken out of what it gave.
//!
//! They are the last of Unicode's private plane 16, which no text uses; data that has one is refused, not changed.

use std::ops::Range;

use crate::engine::Rendered;

/// Around the text of a `{% generation %}` block.
pub(crate) const GENERATION_START: char = '\u{10ff00}';
/// See [`GENERATION_START`].
pub(crate) const GENERATION_END: char = '\u{10ff01}';
/// Around the text of a special token that stands in data; alone, where data could be half of one.
pub(crate) const DATA_START: char = '\u{10ff02}';
/// See [`DATA_START`].
pub(crate) const DATA_END: char = '\u{10ff03}';
/// Around what the assistant says in one turn.
pub(crate) const TURN_START: char = '\u{10ff04}';
/// See [`TURN_START`].
pub(crate) const TURN_END: char = '\u{10ff05}';

/// Whether `character` is one of those that only this crate writes.
pub(crate) fn is_reserved(character: char) -> bool {
    ('\u{10ff00}'..='\u{10ff0f}').contains(&character)
}

/// The filter that a `generation` block goes through.
pub(crate) const GENERATION_FILTER: &str = "__generation";

/// `source` with each `{% generation %}` block as a block with a scope of its own, as transformers' extension makes it, that
/// goes through [`GENERATION_FILTER`]; and whether there is one. White-space control stays; comments and `raw` blocks are
/// left alone.
pub(crate) fn with_generation_filters(source: &str) -> (String, bool) {
    let (mut rewritten, mut rest, mut is_found) = (String::with_capacity(source.len()), source, false);
    let mut is_raw = false;
    while let Some(at) = rest.find("{%").into_iter().chain((!is_raw).then(|| rest.find("{#")).flatten()).min() {
        let (before, tag) = rest.split_at(at);
        rewritten.push_str(before);
        let close = if tag.starts_with("{#") { "#}" } else { "%}" };
        let Some(end) = tag.find(close).map(|end| end + close.len()) else { break };
        let tag = &tag[..end];
        let word = tag[2..end - 2].trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        let replacement = match word {
            _ if close == "#}" => None,
            "endraw" => {
                is_raw = false;
                None
            }
            _ if is_raw => None,
            "raw" => {
                is_raw = true;
                None
            }
            "generation" => Some(format!("with %}}{{% filter {GENERATION_FILTER}")),
            "endgeneration" => Some("endfilter %}{% endwith".to_string()),
            _ => None,
        };
        match replacement {
            Some(blocks) => {
                is_found = true;
                rewritten.push_str(&tag.replacen(word, &blocks, 1));
            }
            None => rewritten.push_str(tag),
        }
        rest = &rest[at + end..];
    }
    rewritten.push_str(rest);
    (rewritten, is_found)
}

/// Takes the marks of `{% generation %}` blocks out of what a template gave.
pub(crate) fn take_generation(marked: String) -> Rendered {
    if !marked.contains(GENERATION_START) {
        return Rendered { text: marked, generation: Vec::new() };
    }
    let (mut text, mut generation, mut open) = (String::with_capacity(marked.len()), Vec::new(), Vec::new());
    for character in marked.chars() {
        match character {
            GENERATION_START => open.push(text.len()),
            // An end without a start: the template cut the text of a block, which then has no place.
            GENERATION_END => generation.extend(open.pop().map(|start: usize| start..text.len())),
            _ => text.push(character),
        }
    }
    Rendered { text, generation }
}

/// `marked` without `start` and `end`, and the ranges between them, in bytes of the text that is left. `None` where they do
/// not come in pairs: then the template has cut what they stood around.
pub(crate) fn take_pairs(marked: &str, start: char, end: char) -> (String, Option<Vec<Range<usize>>>) {
    let (mut text, mut ranges, mut open) = (String::with_capacity(marked.len()), Vec::new(), None);
    let mut is_paired = true;
    for character in marked.chars() {
        if character == start {
            is_paired &= open.replace(text.len()).is_none();
        } else if character == end {
            match open.take() {
                Some(from) => ranges.push(from..text.len()),
                None => is_paired = false,
            }
        } else {
            text.push(character);
        }
    }
    (text, (is_paired && open.is_none()).then_some(ranges))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_blocks_become_filters_and_nothing_else_does() {
        let source = "a{%- generation -%}b{% endgeneration %}{# {% generation %} #}{% raw %}{% generation %}{# {% endraw %}{%generation%}{{ 'x' }}{%-endgeneration+%}";
        let expected = "a{%- with %}{% filter __generation -%}b{% endfilter %}{% endwith %}{# {% generation %} #}{% raw %}{% generation %}{# {% endraw %}{%with %}{% filter __generation%}{{ 'x' }}{%-endfilter %}{% endwith+%}";
        assert_eq!(with_generation_filters(source), (expected.to_string(), true));
        assert_eq!(
            with_generation_filters("{% if generation %}{% endif"),
            ("{% if generation %}{% endif".to_string(), false)
        );
    }

    #[test]
    fn marks_are_taken_out_and_counted_in_bytes() {
        let marked = format!("é{GENERATION_START}ab{GENERATION_END}c{GENERATION_START}{GENERATION_END}");
        let rendered = take_generation(marked);
        assert_eq!((rendered.text.as_str(), rendered.generation), ("éabc", vec![2..4, 5..5]));
        assert_eq!(take_pairs("a<b>c<d>", '<', '>'), ("abcd".to_string(), Some(vec![1..2, 3..4])));
        for broken in ["a>b", "<a", "<a<b>>", "<a>>"] {
            assert_eq!(take_pairs(broken, '<', '>').1, None, "{broken}");
        }
    }
}
