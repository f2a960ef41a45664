//! `${{ vars.NAME }}` in the scalars of stages.
//!
//! ```text
//! vars: { model: karpathy/stories260K, max_length: 512 }
//! "${{ vars.max_length }}"  ->  512                        (one whole expression keeps its type)
//! "out/${{ vars.model }}"   ->  "out/karpathy/stories260K" (anything else is text)
//! ```
//!
//! `vars.lora.r` goes into a mapping. Keys are not substituted, and a var cannot use another one. `${{ matrix.NAME }}` is left as it
//! is, for `matrix`, and so are `${{ inputs.PORT }}` and `${{ outputs.PORT }}`, in one way of writing: where they may stand is for
//! [`super::ports`] to say.

use super::expression::{CLOSE, MATRIX, OPEN, Piece, split};
use super::findings::{Findings, listed, nearest_or_list};
use super::node::{Body, Node, Scalar, Use};

/// Replaces every expression in `node` and below it.
pub(super) fn substitute(node: &mut Node, vars: &Node, findings: &mut Findings) {
    match &mut node.body {
        Body::Sequence(items) => items.iter_mut().for_each(|item| substitute(item, vars, findings)),
        Body::Mapping(entries) => entries.iter_mut().for_each(|entry| substitute(&mut entry.value, vars, findings)),
        Body::Scalar(Scalar::String(text)) if text.contains(OPEN) => {
            let text = std::mem::take(text);
            *node = scalar(node, &text, vars, findings);
        }
        Body::Scalar(_) | Body::Unknown => {}
    }
}

/// Which ports of a stage an expression means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Inputs,
    Outputs,
}

/// `inputs.PORT` or `outputs.PORT` between brackets.
pub(super) struct PortUse<'t> {
    pub(super) side: Side,
    pub(super) port: &'t str,
}

impl<'t> PortUse<'t> {
    fn read(inner: &'t str) -> Option<Self> {
        let (side, port) = match inner.split_once('.')? {
            ("inputs", port) => (Side::Inputs, port),
            ("outputs", port) => (Side::Outputs, port),
            _ => return None,
        };
        Some(PortUse { side, port })
    }
}

/// The ports that expressions in a substituted text mean.
pub(super) fn port_uses(text: &str) -> Vec<PortUse<'_>> {
    let expression = |piece| if let Piece::Expression(_, inner) = piece { PortUse::read(inner) } else { None };
    split(text).unwrap_or_default().into_iter().filter_map(expression).collect()
}

/// Reports expressions for ports where they have no meaning, in `node` and below it.
pub(super) fn refuse_ports(node: &mut Node, findings: &mut Findings) {
    match &mut node.body {
        Body::Sequence(items) => items.iter_mut().for_each(|item| refuse_ports(item, findings)),
        Body::Mapping(entries) => entries.iter_mut().for_each(|entry| refuse_ports(&mut entry.value, findings)),
        Body::Scalar(Scalar::String(text)) if text.contains(OPEN) => {
            let pieces = split(text).unwrap_or_default();
            let Some((written, inner)) = pieces.iter().find_map(|piece| match piece {
                Piece::Expression(written, inner) if PortUse::read(inner).is_some() => Some((written, inner)),
                _ => None,
            }) else {
                return;
            };
            let span = findings.narrow(node.span, written);
            findings
                .error("bad-expression", span, format!("`{inner}` cannot be used here, only `vars.NAME` can"))
                .help =
                Some("paths of ports stand in `with:` of a stage kind whose ports the file declares, `command`".into());
            node.body = Body::Unknown;
        }
        Body::Scalar(_) | Body::Unknown => {}
    }
}

/// Reports expressions in the values of `vars`.
pub(super) fn refuse_in_vars(vars: &Node, findings: &mut Findings) {
    match &vars.body {
        Body::Sequence(items) => items.iter().for_each(|item| refuse_in_vars(item, findings)),
        Body::Mapping(entries) => entries.iter().for_each(|entry| refuse_in_vars(&entry.value, findings)),
        Body::Scalar(Scalar::String(text)) if text.contains(OPEN) => {
            findings.error("bad-expression", vars.span, "a var cannot use another var").help =
                Some("write the value out, or use both vars in the stage".into());
        }
        Body::Scalar(_) | Body::Unknown => {}
    }
}

fn scalar(node: &Node, text: &str, vars: &Node, findings: &mut Findings) -> Node {
    let Some(pieces) = split(text) else {
        findings.error_at_value("bad-expression", node, format!("`{OPEN}` is not closed by `{CLOSE}`"));
        return Node::new(node.span, Body::Unknown);
    };
    if let [Piece::Expression(written, inner)] = pieces.as_slice()
        && PortUse::read(inner).is_none()
    {
        if inner.starts_with(MATRIX) {
            return Node { body: Body::Scalar(Scalar::String(text.into())), ..node.clone() };
        }
        return match look_up(node, written, inner, vars, findings) {
            Some(value) => {
                let used = Some(Box::new(Use { expression: (*written).to_string(), span: node.span }));
                Node { used, ..value.clone() }
            }
            None => Node::new(node.span, Body::Unknown),
        };
    }
    let parts: Vec<Option<String>> = pieces.iter().map(|piece| piece_text(node, piece, vars, findings)).collect();
    let body = match parts.into_iter().collect::<Option<String>>() {
        Some(text) => Body::Scalar(Scalar::String(text)),
        None => Body::Unknown,
    };
    Node::new(node.span, body)
}

fn piece_text(node: &Node, piece: &Piece<'_>, vars: &Node, findings: &mut Findings) -> Option<String> {
    let (written, inner) = match piece {
        Piece::Text(text) => return Some((*text).to_string()),
        Piece::Expression(_, inner) if PortUse::read(inner).is_some() => {
            return Some(format!("{OPEN} {inner} {CLOSE}"));
        }
        Piece::Expression(written, inner) if inner.starts_with(MATRIX) => return Some((*written).to_string()),
        Piece::Expression(written, inner) => (written, inner),
    };
    let value = look_up(node, written, inner, vars, findings)?;
    match &value.body {
        Body::Scalar(Scalar::String(text)) => Some(text.clone()),
        Body::Scalar(Scalar::Number(number)) => Some(number.to_string()),
        Body::Scalar(Scalar::Bool(value)) => Some(value.to_string()),
        _ => {
            let span = findings.narrow(node.span, written);
            let message = format!("`{inner}` stands inside text, but is {}", value.describe());
            let place = findings.place(value.span);
            findings.error("wrong-type", span, message).notes.push(format!("`{inner}` is given at {place}"));
            None
        }
    }
}

fn look_up<'v>(node: &Node, written: &str, inner: &str, vars: &'v Node, findings: &mut Findings) -> Option<&'v Node> {
    let Some(path) = inner.strip_prefix("vars.") else {
        let names = expressions(vars);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let help = if names.is_empty() {
            "there are no vars in this file".to_string()
        } else {
            format!("there is {}", listed(&names))
        };
        let span = findings.narrow(node.span, written);
        findings
            .error(
                "bad-expression",
                span,
                format!("`{inner}` cannot be used here, only `vars.NAME` and `matrix.NAME` can"),
            )
            .help = Some(help);
        return None;
    };
    let mut value = vars;
    for name in path.split('.') {
        let Some(entry) = value.get(name) else {
            let names: Vec<&str> = value.entries().iter().map(|entry| entry.key.as_str()).collect();
            let help = nearest_or_list(name, &names, "vars");
            let span = findings.narrow(node.span, written);
            findings.error("unknown-var", span, format!("there is no var `{path}`")).help = Some(help);
            return None;
        };
        value = &entry.value;
    }
    Some(value)
}

fn expressions(vars: &Node) -> Vec<String> {
    vars.entries().iter().map(|entry| format!("vars.{}", entry.key)).collect()
}

#[cfg(test)]
mod tests {
    use serde_yaml::Value;

    use super::*;
    use crate::spec::node::Span;

    fn substituted(text: &str) -> (Value, Vec<&'static str>) {
        let node = |yaml: &str, source| {
            let span = Span { source, line: 1, column: 1, length: 1 };
            Node::from_value(span, serde_yaml::from_str(yaml).expect("the test's YAML parses"))
        };
        let mut findings = Findings::default();
        findings.add_source("p.yaml", text);
        let vars = node("{ n: 512, half: 0.5, on: true, name: a/b, list: [1, x], lora: { r: 8 }, none: }", 0);
        let mut node = node("text", 0);
        node.body = Body::Scalar(Scalar::String(text.into()));
        substitute(&mut node, &vars, &mut findings);
        let slugs = findings.into_diagnostics().iter().map(|diagnostic| diagnostic.slug).collect();
        (node.to_value(), slugs)
    }

    #[test]
    fn a_whole_expression_keeps_its_type() {
        for (text, yaml) in [
            ("${{ vars.n }}", "512"),
            ("${{vars.half}}", "0.5"),
            ("${{ vars.on }}", "true"),
            ("${{ vars.name }}", "a/b"),
            ("${{ vars.list }}", "[1, x]"),
            ("${{ vars.lora }}", "{ r: 8 }"),
            ("${{ vars.lora.r }}", "8"),
            ("${{ vars.none }}", "~"),
        ] {
            let expected: Value = serde_yaml::from_str(yaml).expect("the test's YAML parses");
            assert_eq!(substituted(text), (expected, vec![]), "{text}");
        }
    }

    #[test]
    fn anything_else_is_text() {
        for (text, expected) in [
            ("out/${{ vars.name }}", "out/a/b"),
            ("${{ vars.n }}${{ vars.n }}", "512512"),
            ("${{ vars.n }} ", "512 "),
            ("a }} $ {{ b", "a }} $ {{ b"),
            ("lr-${{ vars.half }}-${{ vars.on }}", "lr-0.5-true"),
            ("${{inputs.data}}", "${{ inputs.data }}"),
            ("--n=${{ vars.n }} ${{  outputs.report }}", "--n=512 ${{ outputs.report }}"),
            ("${{ matrix.lr }}", "${{ matrix.lr }}"),
            ("${{ vars.name }}/${{matrix.lr}}", "a/b/${{matrix.lr}}"),
        ] {
            assert_eq!(substituted(text), (Value::String(expected.into()), vec![]), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_substituted_is_reported_once_and_unknown() {
        for (text, slug) in [
            ("${{ vars.m }}", "unknown-var"),
            ("${{ vars.lora.x }}", "unknown-var"),
            ("${{ vars.n.x }}", "unknown-var"),
            ("${{ stages.a }}", "bad-expression"),
            ("${{ }}", "bad-expression"),
            ("x ${{ vars.n", "bad-expression"),
            ("x ${{ vars.list }}", "wrong-type"),
            ("x ${{ vars.none }}", "wrong-type"),
        ] {
            assert_eq!(substituted(text), (Value::Null, vec![slug]), "{text}");
        }
    }
}
