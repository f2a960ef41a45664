//! YAML text to a [`Node`]: values from `serde_yaml`, places from the events of `saphyr-parser`.
//!
//! ```text
//! a: [1, x]    events: mapping@1:1 ( scalar@1:1, sequence@1:4 ( scalar@1:5, scalar@1:8 ) )
//!              values: Mapping { "a": Sequence [ Number 1, String "x" ] }
//! ```
//!
//! Both walk the same text, so their trees have the same form and are zipped. An alias has a place but no form of its
//! own: all of its value is at the alias. Duplicate keys are found in the events, because `serde_yaml` stops at the
//! first one.
//!
//! YAML 1.2: `no` and `on` are text, and so is `1_000`. Merge keys (`<<`) are YAML 1.1 and refused.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span as Range, StrInput};
use serde_yaml::Value;

use super::findings::Findings;
use super::node::{Body, Entry, Node, Span};

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
    let (shape, duplicates) = match Shapes::read(text, place) {
        Ok(read) => read,
        Err(Refused { span, message }) => {
            findings.error("yaml-syntax", span, message);
            return None;
        }
    };
    for duplicate in &duplicates {
        let first = findings.place(duplicate.first);
        findings
            .error("duplicate-key", duplicate.second, format!("the key `{}` is given twice", duplicate.key))
            .notes
            .push(format!("first given at {first}"));
    }
    if !duplicates.is_empty() {
        return None;
    }
    let value = match serde_yaml::from_str::<Value>(text) {
        Ok(value) => value,
        Err(error) => {
            let span = error.location().map_or(place.start(), |at| place.point(at.index(), at.line(), at.column()));
            findings.error("yaml-syntax", span, error.to_string());
            return None;
        }
    };
    let n_before = findings.len();
    let node = match shape {
        Some(shape) => zip(shape, value, findings),
        None => Node::new(place.start(), Body::Scalar(value)),
    };
    (findings.len() == n_before).then_some(node)
}

/// The form of a value, with places.
struct Shape {
    span: Span,
    form: Form,
}

enum Form {
    /// A scalar or an alias.
    Leaf,
    Sequence(Vec<Shape>),
    Mapping(Vec<(Span, Shape)>),
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

/// Reads shapes from the events of a parser.
struct Shapes<'t> {
    parser: Parser<'t, StrInput<'t>>,
    place: Place,
    depth: usize,
    duplicates: Vec<Duplicate>,
}

type Step<T> = Result<T, Refused>;

impl<'t> Shapes<'t> {
    /// The shape of the only document, `None` for an empty text, and its duplicate keys.
    fn read(text: &'t str, place: Place) -> Step<(Option<Shape>, Vec<Duplicate>)> {
        let mut shapes = Shapes { parser: Parser::new_from_str(text), place, depth: 0, duplicates: Vec::new() };
        let mut document = None;
        while let Some((event, range)) = shapes.next()? {
            match event {
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                Event::StreamEnd => break,
                _ if document.is_some() => {
                    let message = "there is a second document, but a pipeline file is one document".to_string();
                    return Err(Refused { span: place.span(range), message });
                }
                event => document = Some(shapes.shape(&event, range)?),
            }
        }
        Ok((document, shapes.duplicates))
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

    fn shape(&mut self, event: &Event<'t>, range: Range) -> Step<Shape> {
        let span = self.place.span(range);
        match event {
            Event::SequenceStart(..) | Event::MappingStart(..) if self.depth == DEPTH_MAX => {
                Err(Refused { span, message: format!("the nesting is deeper than {DEPTH_MAX}") })
            }
            Event::SequenceStart(..) => self.nested(|shapes| shapes.sequence(range)),
            Event::MappingStart(..) => self.nested(|shapes| shapes.mapping(range)),
            _ => Ok(Shape { span, form: Form::Leaf }),
        }
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Step<Shape>) -> Step<Shape> {
        self.depth += 1;
        let shape = read(self);
        self.depth -= 1;
        shape
    }

    fn sequence(&mut self, start: Range) -> Step<Shape> {
        let mut items = Vec::new();
        while let Some((event, range)) = self.next()? {
            if event == Event::SequenceEnd {
                return Ok(Shape { span: self.place.between(start, range), form: Form::Sequence(items) });
            }
            items.push(self.shape(&event, range)?);
        }
        Err(self.ended_early(start))
    }

    fn mapping(&mut self, start: Range) -> Step<Shape> {
        let mut entries: Vec<(Span, Shape)> = Vec::new();
        let mut seen: HashMap<String, Span> = HashMap::new();
        while let Some((event, range)) = self.next()? {
            if event == Event::MappingEnd {
                let span = match entries.first() {
                    // A block mapping has no bracket to point at: its first key stands for it.
                    Some((first_key, _)) if start.start.index() == start.end.index() => *first_key,
                    _ => self.place.between(start, range),
                };
                return Ok(Shape { span, form: Form::Mapping(entries) });
            }
            let key = self.shape(&event, range)?.span;
            if let Event::Scalar(name, ..) = &event {
                match seen.get(name.as_ref()) {
                    Some(&first) => self.duplicates.push(Duplicate { key: name.to_string(), first, second: key }),
                    None => drop(seen.insert(name.to_string(), key)),
                }
            }
            let Some((event, range)) = self.next()? else { break };
            let is_empty =
                matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text.is_empty() || range.is_empty());
            let mut value = self.shape(&event, range)?;
            if is_empty {
                value.span = key;
            }
            entries.push((key, value));
        }
        Err(self.ended_early(start))
    }

    fn ended_early(&self, start: Range) -> Refused {
        Refused { span: self.place.span(start), message: "the text ends before this does".into() }
    }
}

fn zip(shape: Shape, value: Value, findings: &mut Findings) -> Node {
    let body = match (shape.form, value) {
        (Form::Sequence(shapes), Value::Sequence(items)) if shapes.len() == items.len() => {
            Body::Sequence(shapes.into_iter().zip(items).map(|(shape, item)| zip(shape, item, findings)).collect())
        }
        (Form::Mapping(shapes), Value::Mapping(map)) if shapes.len() == map.len() => {
            let pairs = shapes.into_iter().zip(map);
            Body::Mapping(
                pairs
                    .filter_map(|((key_span, shape), (key, value))| entry(key_span, shape, key, value, findings))
                    .collect(),
            )
        }
        (_, value) => return Node::from_value(shape.span, value),
    };
    Node::new(shape.span, body)
}

fn entry(key_span: Span, shape: Shape, key: Value, value: Value, findings: &mut Findings) -> Option<Entry> {
    let value = zip(shape, value, findings);
    match key {
        Value::String(key) if key == "<<" => {
            findings.error("unsupported-key", key_span, "merge keys (`<<`) are not part of YAML 1.2").help =
                Some("an alias can stand for a whole value: `with: *common`".into());
            None
        }
        Value::String(key) => Some(Entry { key, key_span, value }),
        other => {
            let found = Node::from_value(key_span, other).describe();
            findings.error("wrong-type", key_span, format!("a key must be text, found {found}")).help =
                Some("put it in quotes".into());
            None
        }
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
