//! Takes a mapping of known keys apart: what is left over is an unknown key.

use super::findings::{Findings, listed};
use super::node::{Body, Entry, Node, Scalar, Span};

/// A mapping whose keys are taken one by one.
pub(super) struct Keys {
    entries: Vec<Entry>,
    known: &'static [&'static str],
    /// Whose keys they are, for messages: "stage `text`".
    owner: String,
}

impl Keys {
    /// `None`, and a problem, where `node` is not a mapping; nothing (`with:` and no more) is an empty one.
    pub(super) fn new(
        node: Node,
        owner: String,
        known: &'static [&'static str],
        findings: &mut Findings,
    ) -> Option<Self> {
        let entries = mapping(node, &owner, findings)?;
        Some(Keys { entries, known, owner })
    }

    /// Whether `key` is there and was not taken.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// The entry called `key`, once.
    pub(super) fn take(&mut self, key: &str) -> Option<Entry> {
        debug_assert!(self.known.contains(&key), "`{key}` is missing in the list of known keys");
        self.entries.iter().position(|entry| entry.key == key).map(|position| self.entries.remove(position))
    }

    /// The text called `key`; anything else is a problem.
    pub(super) fn take_text(&mut self, key: &str, findings: &mut Findings) -> Option<(String, Node)> {
        let entry = self.take(key)?;
        text(entry.value, &format!("`{key}` of {}", self.owner), findings)
    }

    /// Reports what nobody took.
    pub(super) fn finish(self, findings: &mut Findings) {
        for entry in self.entries {
            let help = match pipe_settings::nearest(&entry.key, self.known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the keys here are {}", listed(self.known)),
            };
            findings
                .error("unknown-key", entry.key_span, format!("unknown key `{}` in {}", entry.key, self.owner))
                .help = Some(help);
        }
    }
}

/// The entries of a mapping; nothing is an empty one.
pub(super) fn mapping(node: Node, what: &str, findings: &mut Findings) -> Option<Vec<Entry>> {
    match node.body {
        Body::Mapping(entries) => Some(entries),
        Body::Scalar(Scalar::Null) => Some(Vec::new()),
        Body::Unknown => None,
        _ => {
            wrong_type(&node, what, "a mapping", findings);
            None
        }
    }
}

/// A text that is not empty, with its node.
pub(super) fn text(node: Node, what: &str, findings: &mut Findings) -> Option<(String, Node)> {
    match &node.body {
        Body::Scalar(Scalar::String(text)) if !text.is_empty() => Some((text.clone(), node)),
        Body::Scalar(Scalar::String(_)) => {
            findings.error_at_value("wrong-type", &node, format!("{what} is empty"));
            None
        }
        Body::Unknown => None,
        _ => {
            wrong_type(&node, what, "text", findings);
            None
        }
    }
}

pub(super) fn wrong_type(node: &Node, what: &str, expected: &str, findings: &mut Findings) {
    let message = format!("{what} must be {expected}, found {}", node.describe());
    findings.error_at_value("wrong-type", node, message);
}

/// Checks the form `[A-Za-z_][A-Za-z0-9_-]*` of a name of a stage, var or profile.
pub(super) fn name(name: &str, what: &str, span: Span, findings: &mut Findings) {
    let mut characters = name.chars();
    let is_good = characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if !is_good {
        findings.error("bad-name", span, format!("`{name}` cannot be the name of a {what}")).help =
            Some("a name is a letter or `_`, and then letters, digits, `_` and `-`".into());
    }
}
