//! YAML text to a [`Node`], from the events of `saphyr-parser`, which know where everything stands.
//!
//! ```text
//! a: [1, x]    events: mapping@1:1 ( scalar@1:1, sequence@1:4 ( scalar@1:5, scalar@1:8 ) )
//!              node:   { a@1:1: [1@1:5, "x"@1:8] }
//! ```
//!
//! What a plain scalar means is the rule of `serde_yaml`. Where a text has aliases, tags or a number that is out of range,
//! `serde_yaml` reads all of it and the values are its own: both walk the same text, so their trees have the same form and are zipped. An alias
//! has a place but no form of its own: all of its value is at the alias.
//!
//! YAML 1.2: `no` and `on` are text, and so is `1_000`. Merge keys (`<<`) are YAML 1.1 and refused.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span as Range, StrInput};
use serde_yaml::Value;

use super::findings::Findings;
use super::node::{Body, Entry, Node, Scalar, Span};

/// Deeper nesting is refused, so that no file can exhaust the stack.
const DEPTH_MAX: usize = 64;

/// Where the text of a parse lies in its source.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// It is the source.
    File(u32),
    /// It is the rest of an argument, which is one line, after so many characters.
    Argument(u32, u32),
}

/// Reads one document. Problems go to `findings`, and then there is no result.
pub(super) fn parse(text: &str, place: Place, findings: &mut Findings) -> Option<Node> {
    let mut events = Events::new(text, place);
    let node = match events.document() {
        Ok(node) => node,
        Err(Refused { span, message }) => {
            findings.error("yaml-syntax", span, message);
            return None;
        }
    };
    for duplicate in &events.duplicates {
        let first = findings.place(duplicate.first);
        findings
            .error("duplicate-key", duplicate.second, format!("the key `{}` is given twice", duplicate.key))
            .notes
            .push(format!("first given at {first}"));
    }
    if !events.duplicates.is_empty() {
        return None;
    }
    let n_before = findings.len();
    let node = if events.needs_values {
        zip(node, values(text, place, findings)?, findings)
    } else {
        events.bad_keys.into_iter().for_each(|(span, key)| refuse_key(span, key, findings));
        node
    };
    (findings.len() == n_before).then_some(node)
}

/// The values of a text as `serde_yaml` reads it.
fn values(text: &str, place: Place, findings: &mut Findings) -> Option<Value> {
    match serde_yaml::from_str::<Value>(text) {
        Ok(value) => Some(value),
        Err(error) => {
            let span = error.location().map_or(place.start(), |at| place.point(at.index(), at.line(), at.column()));
            findings.error("yaml-syntax", span, error.to_string());
            None
        }
    }
}

struct Duplicate {
    key: String,
    first: Span,
    second: Span,
}

struct Refused {
    span: Span,
    message: String,
}

/// Reads nodes from the events of a parser.
struct Events<'t> {
    parser: Parser<'t, StrInput<'t>>,
    place: Place,
    depth: usize,
    duplicates: Vec<Duplicate>,
    /// Keys that are no text.
    bad_keys: Vec<(Span, Value)>,
    /// Whether there is something whose value the events do not tell.
    needs_values: bool,
}

type Step<T> = Result<T, Refused>;

impl<'t> Events<'t> {
    fn new(text: &'t str, place: Place) -> Self {
        let parser = Parser::new_from_str(text);
        Events { parser, place, depth: 0, duplicates: Vec::new(), bad_keys: Vec::new(), needs_values: false }
    }

    /// The only document; nothing for an empty text.
    fn document(&mut self) -> Step<Node> {
        let mut document = None;
        while let Some((event, range)) = self.next()? {
            match event {
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                Event::StreamEnd => break,
                _ if document.is_some() => {
                    let message = "there is a second document, but a pipeline file is one document".to_string();
                    return Err(Refused { span: self.place.span(range), message });
                }
                event => document = Some(self.node(event, range)?),
            }
        }
        Ok(document.unwrap_or_else(|| Node::new(self.place.start(), Body::Scalar(Scalar::Null))))
    }

    fn next(&mut self) -> Step<Option<(Event<'t>, Range)>> {
        self.parser.next_event().transpose().map_err(|error: ScanError| {
            let mark = error.marker();
            Refused {
                span: self.place.point(mark.index(), mark.line(), mark.col() + 1),
                message: error.info().to_string(),
            }
        })
    }

    fn node(&mut self, event: Event<'t>, range: Range) -> Step<Node> {
        let span = self.place.span(range);
        self.needs_values |= match &event {
            Event::Scalar(.., tag) | Event::SequenceStart(_, tag) | Event::MappingStart(_, tag) => tag.is_some(),
            _ => true,
        };
        match event {
            Event::SequenceStart(..) | Event::MappingStart(..) if self.depth == DEPTH_MAX => {
                Err(Refused { span, message: format!("the nesting is deeper than {DEPTH_MAX}") })
            }
            Event::SequenceStart(..) => self.nested(|events| events.sequence(range)),
            Event::MappingStart(..) => self.nested(|events| events.mapping(range)),
            Event::Scalar(text, style, ..) => Ok(Node::new(span, Body::Scalar(self.scalar(text, style)))),
            _ => Ok(Node::new(span, Body::Scalar(Scalar::Null))),
        }
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Step<Node>) -> Step<Node> {
        self.depth += 1;
        let node = read(self);
        self.depth -= 1;
        node
    }

    /// What a scalar without a tag stands for.
    fn scalar(&mut self, text: Cow<'t, str>, style: ScalarStyle) -> Scalar {
        if style == ScalarStyle::Plain {
            match text.as_ref() {
                "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
                "true" | "True" | "TRUE" => return Scalar::Bool(true),
                "false" | "False" | "FALSE" => return Scalar::Bool(false),
                number if number.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) => {
                    match number.parse() {
                        Ok(number) => return Scalar::Number(number),
                        // It may be an integer that is out of range.
                        Err(_) => self.needs_values |= may_be_integer(number),
                    }
                }
                _ => {}
            }
        }
        let mut text = text.into_owned();
        // The parser collects characters in a piece of memory with room for many more.
        text.shrink_to_fit();
        Scalar::String(text)
    }

    fn sequence(&mut self, start: Range) -> Step<Node> {
        let mut items = Vec::new();
        while let Some((event, range)) = self.next()? {
            if event == Event::SequenceEnd {
                items.shrink_to_fit();
                return Ok(Node::new(self.place.between(start, range), Body::Sequence(items)));
            }
            items.push(self.node(event, range)?);
        }
        Err(self.ended_early(start))
    }

    fn mapping(&mut self, start: Range) -> Step<Node> {
        let mut entries: Vec<Entry> = Vec::new();
        while let Some((event, range)) = self.next()? {
            if event == Event::MappingEnd {
                let span = match entries.first() {
                    // A block mapping has no bracket to point at: its first key stands for it.
                    Some(first) if start.start.index() == start.end.index() => first.key_span,
                    _ => self.place.between(start, range),
                };
                self.find_duplicates(&entries);
                entries.shrink_to_fit();
                return Ok(Node::new(span, Body::Mapping(entries)));
            }
            let (key, key_span) = self.key(event, range, entries.len())?;
            let Some((event, range)) = self.next()? else { break };
            let is_empty =
                matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text.is_empty() || range.is_empty());
            let mut value = self.node(event, range)?;
            if is_empty {
                value.span = key_span;
            }
            entries.push(Entry { key, key_span, value });
        }
        Err(self.ended_early(start))
    }

    /// The text of key number `key_idx`. One that is no text is as it was written until it is refused.
    fn key(&mut self, event: Event<'t>, range: Range, key_idx: usize) -> Step<(String, Span)> {
        let written = if let Event::Scalar(text, ..) = &event { text.to_string() } else { format!("key {key_idx}") };
        let node = self.node(event, range)?;
        match node.body {
            Body::Scalar(Scalar::String(key)) if key != MERGE_KEY => Ok((key, node.span)),
            _ => {
                self.bad_keys.push((node.span, node.to_value()));
                Ok((written, node.span))
            }
        }
    }

    fn find_duplicates(&mut self, entries: &[Entry]) {
        let mut seen: HashMap<&str, Span> = HashMap::new();
        for (position, Entry { key, key_span, .. }) in entries.iter().enumerate() {
            let before = match entries.len() <= N_SEARCHED {
                true => entries[..position].iter().find(|before| before.key == *key).map(|before| before.key_span),
                false => seen.get(key.as_str()).copied(),
            };
            match before {
                Some(first) => self.duplicates.push(Duplicate { key: key.clone(), first, second: *key_span }),
                None if entries.len() > N_SEARCHED => drop(seen.insert(key, *key_span)),
                None => {}
            }
        }
    }

    fn ended_early(&self, start: Range) -> Refused {
        Refused { span: self.place.span(start), message: "the text ends before this does".into() }
    }
}

/// Mappings up to this size are searched faster than they are put into a table.
const N_SEARCHED: usize = 16;

const MERGE_KEY: &str = "<<";

/// Whether a text is made as integers are, in base 2, 8, 10 or 16. The option `-c` is not, though c is a digit in base 16.
fn may_be_integer(text: &str) -> bool {
    let unsigned = text.trim_start_matches(['+', '-']);
    unsigned.starts_with(|c: char| c.is_ascii_digit())
        && unsigned.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'+' | b'-' | b'x' | b'o'))
}

/// The places of `node` and the values of `value`.
fn zip(node: Node, value: Value, findings: &mut Findings) -> Node {
    let body = match (node.body, value) {
        (Body::Sequence(nodes), Value::Sequence(items)) if nodes.len() == items.len() => {
            Body::Sequence(nodes.into_iter().zip(items).map(|(node, item)| zip(node, item, findings)).collect())
        }
        (Body::Mapping(entries), Value::Mapping(map)) if entries.len() == map.len() => {
            let pairs = entries.into_iter().zip(map);
            Body::Mapping(pairs.filter_map(|(entry, (key, value))| zip_entry(entry, key, value, findings)).collect())
        }
        (_, value) => return Node::from_value(node.span, value),
    };
    Node::new(node.span, body)
}

fn zip_entry(entry: Entry, key: Value, value: Value, findings: &mut Findings) -> Option<Entry> {
    let value = zip(entry.value, value, findings);
    match key {
        Value::String(key) if key != MERGE_KEY => Some(Entry { key, key_span: entry.key_span, value }),
        other => {
            refuse_key(entry.key_span, other, findings);
            None
        }
    }
}

fn refuse_key(span: Span, key: Value, findings: &mut Findings) {
    if key.as_str() == Some(MERGE_KEY) {
        findings.error("unsupported-key", span, "merge keys (`<<`) are not part of YAML 1.2").help =
            Some("an alias can stand for a whole value: `with: *common`".into());
    } else {
        let found = Node::from_value(span, key).describe();
        findings.error("wrong-type", span, format!("a key must be text, found {found}")).help =
            Some("put it in quotes".into());
    }
}

impl Place {
    fn start(self) -> Span {
        self.point(0, 1, 1).with_length(0)
    }

    /// One character. `column` from 1, `index` from 0 and in characters.
    fn point(self, index: usize, line: usize, column: usize) -> Span {
        match self {
            Place::File(source) => Span { source, line: small(line), column: small(column), length: 1 },
            Place::Argument(source, offset) => Span { source, line: 1, column: offset + small(index) + 1, length: 1 },
        }
    }

    fn at(self, mark: Marker) -> Span {
        self.point(mark.index(), mark.line(), mark.col() + 1)
    }

    fn span(self, range: Range) -> Span {
        self.between(range, range)
    }

    /// From the start of `first` to the end of `last`, or to the end of the line.
    fn between(self, first: Range, last: Range) -> Span {
        let is_one_line = first.start.line() == last.end.line() || matches!(self, Place::Argument(..));
        let end = if is_one_line { last.end } else { first.end };
        self.at(first.start).with_length(small(end.index().saturating_sub(first.start.index())).max(1))
    }
}

impl Span {
    fn with_length(self, length: u32) -> Span {
        Span { length, ..self }
    }
}

/// Texts of four billion characters are refused by memory long before.
fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the events alone give; `None` where they do not tell all, or refuse the text.
    fn from_events(text: &str) -> Option<Value> {
        let mut events = Events::new(text, Place::File(0));
        let node = events.document().ok()?;
        (!events.needs_values && events.bad_keys.is_empty()).then(|| node.to_value())
    }

    #[test]
    fn scalars_stand_for_what_serde_yaml_says() {
        let plain = "~ null Null NULL nUll true True TRUE tRue yes no on off 0 00 007 -0 +1 -1 - 1_000 0x1F 0o17 0b11 0x 1e3 1e-3 1.5 .5 5. \
                     1e400 -1e400 .inf -.inf +.inf .Inf .nan -.nan inf nan infinity 18446744073709551615 -9223372036854775808 1.2.3 1-2 --1 +-1 \
                     2024-01-01 12:30 a.b a-b <<< / ./a ..";
        for scalar in plain.split_whitespace() {
            for text in
                [format!("a: {scalar}"), format!("[{scalar}]"), format!("a: '{scalar}'"), format!("a: \"{scalar}\"")]
            {
                let Ok(expected) = serde_yaml::from_str::<Value>(&text) else { continue };
                if let Some(found) = from_events(&text) {
                    assert_eq!(found, expected, "{text}");
                }
            }
        }
    }

    #[test]
    fn texts_stand_for_what_serde_yaml_says() {
        let texts = [
            "a:\nb: ''\nc: { d: , e: [] }\n",
            "a: |\n  one\n   two\n\n  three\nb: >-\n  one\n  two\n\n  three\nc: |+\n  x\n\n",
            "a: one\n  two\n  three\nb: \"one\\n\\u00e9 \\\n  two\"\nc: 'it''s\n  two'\n",
            "- [a, {b: c}, \"d, e\"]\n- - x\n  - y: z # comment\n",
            "\"a b\": 1\n? c\n: d\n",
            "# nothing but a comment\n",
            "run: [sh, -c, -e, --x, .]\n",
            "--- b",
            "a: --- b\n",
        ];
        for text in texts {
            let expected: Value = serde_yaml::from_str(text).expect("the test's YAML parses");
            assert_eq!(from_events(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_the_events_do_not_tell_is_left_to_serde_yaml() {
        for text in ["a: &x 1\nb: *x\n", "a: !!str 1\n", "a: 18446744073709551616\n", "1: a\n", "<<: { a: 1 }\n"] {
            assert_eq!(from_events(text), None, "{text}");
        }
    }
}
