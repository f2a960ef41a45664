//! `${{ matrix.NAME }}` in what a stage says: which variables it uses, and their values instead of them.

use std::collections::BTreeMap;

use super::super::expression::{MATRIX, OPEN, Piece, split};
use super::super::findings::Findings;
use super::super::node::{Body, Node, Scalar, Span, Use};
use super::combination::Combination;

/// The places that use a variable, by its name: how the expression is written, and where. `matrix.lr.x` uses `lr.x`.
pub(super) type Uses = BTreeMap<String, Vec<(String, Span)>>;

/// All uses in `node` and below it.
pub(super) fn find(node: &Node, uses: &mut Uses) {
    match &node.body {
        Body::Sequence(items) => items.iter().for_each(|item| find(item, uses)),
        Body::Mapping(entries) => entries.iter().for_each(|entry| find(&entry.value, uses)),
        Body::Scalar(Scalar::String(text)) if text.contains(OPEN) => {
            for piece in split(text).unwrap_or_default() {
                if let Piece::Expression(written, inner) = piece
                    && let Some(name) = inner.strip_prefix(MATRIX)
                {
                    uses.entry(name.to_string()).or_default().push((written.to_string(), node.span));
                }
            }
        }
        Body::Scalar(_) | Body::Unknown => {}
    }
}

/// Reports every use in a block at the top of the file: `what` has one value, whatever the combination.
pub(in super::super) fn refuse(node: &Node, what: &str, findings: &mut Findings) {
    let mut uses = Uses::new();
    find(node, &mut uses);
    for (written, span) in uses.into_values().flatten() {
        let span = findings.narrow(span, &written);
        let message = format!("{what} cannot use a variable of a matrix: it has one value for all combinations");
        findings.error("bad-expression", span, message).help =
            Some("`${{ matrix.NAME }}` can stand in what a stage says".into());
    }
}

/// Replaces every use in `node` and below it. One whole expression keeps its type; anything else is text. What the combination
/// does not have is reported already, and becomes unknown.
pub(super) fn substitute(node: &mut Node, combination: &Combination) {
    match &mut node.body {
        Body::Sequence(items) => items.iter_mut().for_each(|item| substitute(item, combination)),
        Body::Mapping(entries) => entries.iter_mut().for_each(|entry| substitute(&mut entry.value, combination)),
        Body::Scalar(Scalar::String(text)) if text.contains(OPEN) => {
            let text = std::mem::take(text);
            *node = scalar(node, &text, combination);
        }
        Body::Scalar(_) | Body::Unknown => {}
    }
}

fn scalar(node: &Node, text: &str, combination: &Combination) -> Node {
    let unknown = Node::new(node.span, Body::Unknown);
    let Some(pieces) = split(text) else { return unknown };
    if let [Piece::Expression(written, inner)] = pieces.as_slice()
        && let Some(name) = inner.strip_prefix(MATRIX)
    {
        let used = Some(Box::new(Use { expression: (*written).to_string(), span: node.span }));
        return combination.get(name).map_or(unknown, |choice| Node { used, ..choice.value.clone() });
    }
    let mut replaced = String::new();
    for piece in &pieces {
        match piece {
            Piece::Text(text) => replaced.push_str(text),
            Piece::Expression(written, inner) => match inner.strip_prefix(MATRIX).map(|name| combination.get(name)) {
                Some(Some(choice)) if !choice.value.has_unknown() => replaced.push_str(&choice.text),
                Some(_) => return unknown,
                // The path of a port, which the stage puts there.
                None => replaced.push_str(written),
            },
        }
    }
    Node::new(node.span, Body::Scalar(Scalar::String(replaced)))
}
