//! A YAML value in which every key and every value knows where it was written.
//!
//! Values of several sources (the file, a profile in it, `--set` arguments) are merged into one tree and each part
//! keeps its own place, so that a problem found after merging still points at the text that caused it.

use serde_yaml::{Mapping, Number, Value};

/// A stretch of one line of a source, by the source's number. Lines and columns (in characters) from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) source: u32,
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) length: u32,
}

/// Where a `${{ }}` stood that was replaced by a var's value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Use {
    pub(super) expression: String,
    pub(super) span: Span,
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) span: Span,
    /// Set where the value was written in `vars` and used somewhere else.
    pub(super) used: Option<Box<Use>>,
    pub(super) body: Body,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Body {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
    /// A value that could not be found out; its problem is reported, so nothing more is said about it.
    Unknown,
}

/// Anything that is not a sequence or mapping: a third of the size of a [`Value`], of which 10,000 stages have a quarter of a million.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    /// A tagged value, or a mapping with keys that are no text.
    Other(Box<Value>),
}

impl From<Value> for Scalar {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Scalar::Null,
            Value::Bool(value) => Scalar::Bool(value),
            Value::Number(number) => Scalar::Number(number),
            Value::String(text) => Scalar::String(text),
            other => Scalar::Other(Box::new(other)),
        }
    }
}

impl From<&Scalar> for Value {
    fn from(scalar: &Scalar) -> Self {
        match scalar {
            Scalar::Null => Value::Null,
            Scalar::Bool(value) => Value::Bool(*value),
            Scalar::Number(number) => Value::Number(number.clone()),
            Scalar::String(text) => Value::String(text.clone()),
            Scalar::Other(value) => (**value).clone(),
        }
    }
}

/// A key of a mapping and its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) value: Node,
}

impl Node {
    pub(super) fn new(span: Span, body: Body) -> Self {
        Node { span, used: None, body }
    }

    /// `value` with every part at the same place: what an alias stands for.
    pub(super) fn from_value(span: Span, value: Value) -> Self {
        let body = match value {
            Value::Sequence(items) => {
                Body::Sequence(items.into_iter().map(|item| Node::from_value(span, item)).collect())
            }
            Value::Mapping(map) if map.keys().all(Value::is_string) => Body::Mapping(
                map.into_iter()
                    .map(|(key, value)| {
                        let Value::String(key) = key else { unreachable!("all keys are text") };
                        Entry { key, key_span: span, value: Node::from_value(span, value) }
                    })
                    .collect(),
            ),
            scalar => Body::Scalar(scalar.into()),
        };
        Node::new(span, body)
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.body, Body::Scalar(Scalar::Null))
    }

    /// The entries of a mapping; none for anything else.
    pub(super) fn entries(&self) -> &[Entry] {
        if let Body::Mapping(entries) = &self.body { entries } else { &[] }
    }

    /// The entry of a mapping called `key`.
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The plain value. Unknown parts are null, which every setting takes as absent.
    pub(super) fn to_value(&self) -> Value {
        match &self.body {
            Body::Scalar(scalar) => scalar.into(),
            Body::Sequence(items) => Value::Sequence(items.iter().map(Node::to_value).collect()),
            Body::Mapping(entries) => {
                let pairs = entries.iter().map(|entry| (Value::String(entry.key.clone()), entry.value.to_value()));
                Value::Mapping(pairs.collect::<Mapping>())
            }
            Body::Unknown => Value::Null,
        }
    }

    /// Whether any part of it is unknown.
    pub(super) fn has_unknown(&self) -> bool {
        match &self.body {
            Body::Scalar(_) => false,
            Body::Sequence(items) => items.iter().any(Node::has_unknown),
            Body::Mapping(entries) => entries.iter().any(|entry| entry.value.has_unknown()),
            Body::Unknown => true,
        }
    }

    /// Lays `over` on top: mappings are merged key by key, everything else is replaced.
    pub(super) fn overlay(&mut self, over: Node) {
        match (&mut self.body, over) {
            (Body::Mapping(entries), Node { body: Body::Mapping(overlays), .. }) => {
                for overlay in overlays {
                    match entries.iter_mut().find(|entry| entry.key == overlay.key) {
                        Some(entry) => entry.value.overlay(overlay.value),
                        None => entries.push(overlay),
                    }
                }
            }
            (_, over) => *self = over,
        }
    }

    /// What it is, for `expected a mapping, found ...`.
    pub(super) fn describe(&self) -> String {
        match &self.body {
            Body::Scalar(Scalar::Null) => "nothing".into(),
            Body::Scalar(Scalar::Bool(value)) => format!("`{value}`"),
            Body::Scalar(Scalar::Number(number)) => format!("the number `{number}`"),
            Body::Scalar(Scalar::String(text)) => format!("the text `{text}`"),
            Body::Scalar(_) => "a tagged value".into(),
            Body::Sequence(_) => "a list".into(),
            Body::Mapping(_) => "a mapping".into(),
            Body::Unknown => "an unknown value".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(yaml: &str) -> Node {
        Node::from_value(Span::default(), serde_yaml::from_str(yaml).expect("the test's YAML parses"))
    }

    fn merged(base: &str, over: &str) -> Value {
        let mut base = node(base);
        base.overlay(node(over));
        base.to_value()
    }

    #[test]
    fn mappings_merge_and_everything_else_is_replaced() {
        let expect = |yaml: &str| serde_yaml::from_str::<Value>(yaml).expect("the test's YAML parses");
        assert_eq!(
            merged("{ a: { x: 1, y: 2 }, b: 3 }", "{ a: { y: 5, z: 6 } }"),
            expect("{ a: { x: 1, y: 5, z: 6 }, b: 3 }")
        );
        assert_eq!(merged("{ a: [1, 2, 3] }", "{ a: [4] }"), expect("{ a: [4] }"));
        assert_eq!(merged("{ a: { x: 1 } }", "{ a: 7 }"), expect("{ a: 7 }"));
        assert_eq!(merged("{ a: { x: 1 } }", "{ a: }"), expect("{ a: }"));
        assert_eq!(merged("{ a: }", "{ a: { x: 1 } }"), expect("{ a: { x: 1 } }"));
    }

    #[test]
    fn a_merged_part_keeps_its_place() {
        let at = |line| Span { line, ..Span::default() };
        let mut base = Node::from_value(at(1), serde_yaml::from_str("{ a: { x: 1, y: 2 } }").expect("it parses"));
        base.overlay(Node::from_value(at(9), serde_yaml::from_str("{ a: { y: 5, z: 6 } }").expect("it parses")));
        let a = &base.get("a").expect("it is there").value;
        let lines: Vec<u32> = a.entries().iter().map(|entry| entry.value.span.line).collect();
        assert_eq!(lines, [1, 9, 9]);
    }
}
