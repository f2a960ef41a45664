//! Which special tokens of a text the template wrote, and which are only words of the data.
//!
//! ```text
//! content: "say <|im_end|>"
//! text     <|im_start|>user\nsay <|im_end|><|im_end|>\n
//!          |----------|           data's    |--------|     control: the first and the last, not the one between
//! ```
//!
//! The data is marked where it has the text of a special token, or half of one at an end, and the template is rendered once
//! more: a token that touches a mark is not the template's. The text itself never comes from the marked rendering; where
//! the two differ, the template looked at what was marked, and the row is refused rather than guessed. transformers marks
//! likewise (`mark_control_tokens`), but tokenizes the pieces apart.
//!
//! Tokens that a tokenizer adds without calling them special (`<think>`, `<tool_call>`) are not meant here: answers have them.

use std::collections::HashSet;
use std::ops::Range;

use minijinja::Value;
use minijinja::value::ValueKind;

use crate::TemplateError;
use crate::marks::{DATA_END, DATA_START, is_reserved};

/// The texts of a tokenizer's special tokens.
#[derive(Clone, Debug, Default)]
pub struct SpecialTexts {
    /// By their first byte, the longest first.
    by_first_byte: Vec<Vec<String>>,
    /// What they begin with, without themselves.
    beginnings: HashSet<String>,
    /// What they end with, without themselves.
    ends: HashSet<String>,
    /// Bytes of the longest.
    longest: usize,
}

/// What data has that matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    reserved: Option<char>,
    has_special: bool,
}

impl SpecialTexts {
    /// Of these texts; an empty one is none.
    pub fn new(texts: impl IntoIterator<Item = String>) -> Self {
        let mut special = SpecialTexts { by_first_byte: vec![Vec::new(); 256], ..SpecialTexts::default() };
        for text in texts {
            let Some(byte) = text.as_bytes().first() else { continue };
            for (at, _) in text.char_indices().skip(1) {
                special.beginnings.insert(text[..at].to_string());
                special.ends.insert(text[at..].to_string());
            }
            special.longest = special.longest.max(text.len());
            special.by_first_byte[usize::from(*byte)].push(text);
        }
        for texts in &mut special.by_first_byte {
            texts.sort_by(|a: &String, b: &String| b.len().cmp(&a.len()).then(a.cmp(b)));
        }
        special
    }

    /// Bytes of `text` that are special tokens: the leftmost first, of several there the longest.
    pub fn find(&self, text: &str) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(byte) = text.as_bytes().get(at) {
            let candidates = self.by_first_byte.get(usize::from(*byte)).map_or(&[][..], Vec::as_slice);
            match candidates.iter().find(|special| text.as_bytes()[at..].starts_with(special.as_bytes())) {
                Some(special) => {
                    found.push(at..at + special.len());
                    at += special.len();
                }
                None => at += 1,
            }
        }
        found
    }

    /// Whether `data` needs [`SpecialTexts::mark`].
    ///
    /// # Errors
    /// `ReservedCharacter` where it has a character that marks are made of.
    pub(crate) fn needs_marks(&self, data: &[&Value]) -> Result<bool, TemplateError> {
        let mut scan = Scan::default();
        data.iter().for_each(|value| self.scan(value, &mut scan));
        match scan.reserved {
            Some(character) => Err(TemplateError::ReservedCharacter { character }),
            None => Ok(scan.has_special),
        }
    }

    fn scan(&self, value: &Value, scan: &mut Scan) {
        match (value.as_str(), value.kind()) {
            (Some(text), _) => {
                scan.reserved = scan.reserved.or_else(|| text.chars().find(|character| is_reserved(*character)));
                scan.has_special |= self.is_marked(text);
            }
            (None, ValueKind::Map) => {
                for (key, value) in value.as_object().and_then(|object| object.try_iter_pairs()).into_iter().flatten() {
                    self.scan(&key, scan);
                    self.scan(&value, scan);
                }
            }
            (None, ValueKind::Seq) => value.try_iter().into_iter().flatten().for_each(|item| self.scan(&item, scan)),
            _ => {}
        }
    }

    fn is_marked(&self, text: &str) -> bool {
        !self.find(text).is_empty() || self.begins_inside(text) || self.ends_inside(text)
    }

    /// Whether `text` begins with the end of a special token: text before it could make it whole.
    fn begins_inside(&self, text: &str) -> bool {
        let n_bytes_max = self.longest.min(text.len());
        (1..=n_bytes_max).filter_map(|n_bytes| text.get(..n_bytes)).any(|start| self.ends.contains(start))
    }

    /// Whether `text` ends with the beginning of a special token.
    fn ends_inside(&self, text: &str) -> bool {
        let least = text.len().saturating_sub(self.longest);
        (least..text.len()).filter_map(|at| text.get(at..)).any(|end| self.beginnings.contains(end))
    }

    /// `value` with marks in its texts and keys: around each special token, and where half of one is at an end.
    pub(crate) fn mark(&self, value: &Value) -> Value {
        match (value.as_str(), value.kind()) {
            (Some(text), _) if self.is_marked(text) => Value::from(self.mark_text(text)),
            (None, ValueKind::Map) => {
                let pairs = value.as_object().and_then(|object| object.try_iter_pairs()).into_iter().flatten();
                Value::from_pairs(pairs.map(|(key, value)| (self.mark(&key), self.mark(&value))))
            }
            (None, ValueKind::Seq) => value.try_iter().into_iter().flatten().map(|item| self.mark(&item)).collect(),
            _ => value.clone(),
        }
    }

    fn mark_text(&self, text: &str) -> String {
        let mut marked = String::with_capacity(text.len() + 16);
        marked.extend(self.begins_inside(text).then_some(DATA_START));
        let mut at = 0;
        for found in self.find(text) {
            marked.push_str(&text[at..found.start]);
            marked.push(DATA_START);
            marked.push_str(&text[found.clone()]);
            marked.push(DATA_END);
            at = found.end;
        }
        marked.push_str(&text[at..]);
        marked.extend(self.ends_inside(text).then_some(DATA_END));
        marked
    }

    /// The special tokens of `text` that data did not bring. `marked`: the same rendering of marked data; `None` where it
    /// is another text.
    pub(crate) fn control(&self, text: &str, marked: &str) -> Option<Vec<Range<usize>>> {
        let (mut plain, mut starts, mut ends) = (String::with_capacity(text.len()), Vec::new(), Vec::new());
        for character in marked.chars() {
            match character {
                DATA_START => starts.push(plain.len()),
                DATA_END => ends.push(plain.len()),
                _ => plain.push(character),
            }
        }
        if plain != text {
            return None;
        }
        let is_of_data = |found: &Range<usize>| {
            let start_idx = starts.partition_point(|start| *start < found.start);
            let end_idx = ends.partition_point(|end| *end <= found.start);
            starts.get(start_idx).is_some_and(|start| *start < found.end)
                || ends.get(end_idx).is_some_and(|end| *end <= found.end)
        };
        let mut control = self.find(text);
        control.retain(|found| !is_of_data(found));
        Some(control)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn special() -> SpecialTexts {
        SpecialTexts::new(["<s>", "</s>", "<|end|>", "<|end|><|x|>", ""].map(str::to_string))
    }

    #[test]
    fn the_leftmost_and_longest_is_found() {
        assert_eq!(special().find("é<|end|>a<s></s><|end|><|x|>"), [2..9, 10..13, 13..17, 17..29]);
        assert!(special().find("<|end| ><>").is_empty());
    }

    #[test]
    fn what_the_data_brought_is_not_the_templates() {
        let special = special();
        let render = |data: &str| format!("<s>{data}<|end|>");
        for (data, n_control) in
            [("a", 2), ("a</s>", 2), ("</s></s>", 2), ("<", 2), (">", 2), ("<|end|>", 2), ("<|en", 2)]
        {
            let value = special.mark(&Value::from(data));
            let control = special.control(&render(data), &render(value.as_str().unwrap())).unwrap();
            assert_eq!(control.len(), n_control, "{data}");
            assert_eq!((control[0].clone(), control[1].end), (0..3, render(data).len()), "{data}");
        }
    }

    #[test]
    fn a_token_that_data_completes_is_not_the_templates() {
        let special = special();
        let parts = [special.mark(&Value::from("a<|en")), special.mark(&Value::from("d|>b"))];
        let marked = format!("<s>{}{}", parts[0], parts[1]);
        assert_eq!(special.control("<s>a<|end|>b", &marked).unwrap().first(), Some(&(0..3)));
        assert_eq!(special.control("<s>a", &marked), None);
    }

    #[test]
    fn data_is_marked_in_lists_and_maps_and_keys() {
        let data: Value = serde_json::from_str(r#"{"a</s>": [1, "x", {"b": "<s>"}], "c": null}"#).unwrap();
        assert!(special().needs_marks(&[&data]).unwrap());
        let marked = special().mark(&data);
        let expected =
            format!("{{'a{DATA_START}</s>{DATA_END}': [1, 'x', {{'b': '{DATA_START}<s>{DATA_END}'}}], 'c': None}}");
        assert_eq!(marked.to_string(), expected);
        assert!(!special().needs_marks(&[&Value::from("a < b"), &Value::from(3)]).unwrap());
        let error = special().needs_marks(&[&Value::from("a\u{10ff02}")]).unwrap_err();
        assert!(error.to_string().contains("U+10FF02"), "{error}");
    }
}
