//! `--set` arguments: `stages.adapter.with.lora.r=8` puts the YAML value `8` where that path leads in the layers below,
//! making the mappings on the way that are not there. Every part points into the argument.
//!
//! What is set replaces what was there: `stages.adapter.with.lora={ r: 8 }` leaves no other setting in `lora`.
//! A path cannot lead into a list.

use super::findings::{Findings, listed, nearest_or_list};
use super::node::{Body, Entry, Node, Scalar, Span};
use super::parse::{Place, parse};

/// What the argument is shown with; locations count from its first dash.
const PREFIX: &str = "--set ";

/// A `--set` argument that could be read.
pub(super) struct SetArgument {
    /// The keys before `=`, the first one being `vars`, `matrix` or `stages`.
    pub(super) path: Vec<(String, Span)>,
    pub(super) value: Node,
}

/// Reads an argument; a problem goes to `findings`.
pub(super) fn read(argument: &str, findings: &mut Findings) -> Option<SetArgument> {
    let shown = format!("{PREFIX}{argument}");
    let source = findings.add_source(&shown, shown.as_str());
    let whole = span(source, PREFIX.len(), argument.chars().count().max(1));
    let Some((keys, text)) = argument.split_once('=') else {
        findings.error("bad-set-argument", whole, "there is no `=` in it").help = Some(FORM.into());
        return None;
    };
    let mut path = Vec::new();
    let mut column = PREFIX.len();
    for key in keys.split('.') {
        let length = key.chars().count();
        path.push((key.to_string(), span(source, column, length.max(1))));
        column += length + 1;
    }
    if let Some((_, empty)) = path.iter().find(|(key, _)| key.trim().is_empty()) {
        findings.error("bad-set-argument", *empty, "there is an empty name in its path").help = Some(FORM.into());
        return None;
    }
    let (root, root_span) = &path[0];
    let n_keys_min = match root.as_str() {
        "vars" | "matrix" => 2,
        "stages" => 3,
        _ => {
            let help = nearest_or_list(root, &["vars", "matrix", "stages"], "names it can begin with");
            findings.error("bad-set-argument", *root_span, format!("a path cannot begin with `{root}`")).help =
                Some(help);
            return None;
        }
    };
    if path.len() < n_keys_min {
        findings.error("bad-set-argument", whole, "its path is too short").help = Some(FORM.into());
        return None;
    }
    let offset = u32::try_from(column).unwrap_or(u32::MAX);
    let value = parse(text, Place::Argument(source, offset), findings)?;
    Some(SetArgument { path, value })
}

const FORM: &str = "the form is `vars.NAME=VALUE`, `matrix.NAME=[VALUE, ..]` or `stages.STAGE.with.SETTING=VALUE`";

fn span(source: u32, column_idx: usize, length: usize) -> Span {
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Span { source, line: 1, column: small(column_idx + 1), length: small(length) }
}

impl SetArgument {
    /// Sets the value below `root`, the mapping that the first key of the path names.
    pub(super) fn apply(self, root: &mut Node, what: &'static str, findings: &mut Findings) {
        let SetArgument { path, value } = self;
        let (name, name_span) = &path[1];
        if root.get(name).is_none() {
            let names: Vec<&str> = root.entries().iter().map(|entry| entry.key.as_str()).collect();
            let help = match pipe_settings::nearest(name, &names) {
                Some(near) => format!("did you mean `{near}`?"),
                None if names.is_empty() => format!("the file has no {what}s"),
                None => format!("the {what}s are {}", listed(&names)),
            };
            let slug = match what {
                "var" => "unknown-var",
                "stage" => "unknown-stage",
                _ => "unknown-matrix-variable",
            };
            findings.error(slug, *name_span, format!("there is no {what} `{name}`")).help = Some(help);
            return;
        }
        let mut at = &*root;
        for (depth, (key, key_span)) in path.iter().enumerate().skip(1) {
            match &at.body {
                Body::Mapping(_) => {}
                _ if at.is_null() => break,
                Body::Unknown => return,
                _ => {
                    let above: Vec<&str> = path[..depth].iter().map(|(key, _)| key.as_str()).collect();
                    let above = above.join(".");
                    let message = format!("`{above}` is {}, so `{key}` in it cannot be set", at.describe());
                    let help = format!("set all of it: `--set {above}=VALUE`");
                    findings.error("bad-set-argument", *key_span, message).help = Some(help);
                    return;
                }
            }
            let Some(entry) = at.get(key) else { break };
            at = &entry.value;
        }
        assign(root, path.into_iter().skip(1), value);
    }
}

/// Puts `value` where `path` leads, making the mappings on the way that are not there.
fn assign(node: &mut Node, mut path: impl Iterator<Item = (String, Span)>, value: Node) {
    let Some((key, key_span)) = path.next() else {
        *node = value;
        return;
    };
    if !matches!(node.body, Body::Mapping(_)) {
        *node = Node::new(key_span, Body::Mapping(Vec::new()));
    }
    let Body::Mapping(entries) = &mut node.body else { unreachable!("just made one") };
    let position = entries.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
        entries.push(Entry { key, key_span, value: Node::new(key_span, Body::Scalar(Scalar::Null)) });
        entries.len() - 1
    });
    assign(&mut entries[position].value, path, value);
}
