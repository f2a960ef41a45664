//! Ports that a pipeline file declares: `outputs:`, and the expressions that stand for their paths.
//!
//! ```text
//! inputs:  { data: text }
//! outputs: { report: { file: report.html } }                       -> port, artifact kind, name of the file
//! with:    { run: [wc, "${{ inputs.data }}"] }                     -> kept as text: the stage puts the path there
//! ```
//!
//! Only a stage kind that says so has such ports. Everywhere else `outputs:` and these expressions are refused.

use pipe_contract::{ArtifactKind, Output, StageKind};

use super::findings::{Findings, nearest_or_list};
use super::keys::{self, Keys};
use super::node::{Body, Entry, Node, Scalar, Span};
use super::stage_text::StageText;
use super::vars::{self, PortUse, Side};

/// `PORT: KIND` or `PORT: { file: NAME }`.
pub(super) struct OutputText {
    pub(super) port: String,
    pub(super) port_span: Span,
    /// The artifact kind and the name of its only file; `None` where it cannot be found out, which is reported.
    pub(super) declared: Option<(ArtifactKind, Option<String>)>,
}

/// Reads `outputs:`.
pub(super) fn read_outputs(node: Node, stage: &str, findings: &mut Findings) -> Vec<OutputText> {
    let entries = keys::mapping(node, &format!("`outputs` of stage `{stage}`"), findings).unwrap_or_default();
    let read = |Entry { key: port, key_span: port_span, value }| {
        keys::name(&port, "port", port_span, findings);
        let what = format!("output `{port}` of stage `{stage}`");
        let declared = match &value.body {
            Body::Mapping(_) => named_file(value, what, findings),
            _ => artifact_kind(value, &what, findings).map(|kind| (kind, None)),
        };
        OutputText { port, port_span, declared }
    };
    entries.into_iter().map(read).collect()
}

fn artifact_kind(node: Node, what: &str, findings: &mut Findings) -> Option<ArtifactKind> {
    let (word, node) = keys::text(node, what, findings)?;
    let found = ArtifactKind::ALL.iter().copied().find(|kind| kind.name() == word);
    if found.is_none() {
        let names: Vec<&str> = ArtifactKind::ALL.iter().map(|kind| kind.name()).collect();
        let message = format!("{what} is `{word}`, but there is no such artifact kind");
        findings.error_at_value("unknown-artifact-kind", &node, message).help =
            Some(nearest_or_list(&word, &names, "artifact kinds"));
    }
    found
}

/// `{ file: NAME }`: one file of that name.
fn named_file(node: Node, what: String, findings: &mut Findings) -> Option<(ArtifactKind, Option<String>)> {
    let span = node.span;
    let mut keys = Keys::new(node, what.clone(), &["file"], findings)?;
    if !keys.has("file") {
        findings.error("missing-key", span, format!("{what} has no `file`")).help =
            Some("name its artifact kind, `file`, or its file, `{ file: report.html }`".into());
    }
    let name = keys.take_text("file", findings);
    keys.finish(findings);
    let (name, node) = name?;
    if name.contains(['/', '\0']) || name == "." || name == ".." {
        findings.error_at_value("bad-name", &node, format!("`{name}` cannot be the name of the file of {what}")).help =
            Some("it is a name without folders, `report.html`".into());
        return None;
    }
    Some((ArtifactKind::File, Some(name)))
}

/// The outputs of a stage of a kind whose ports are fixed, where the file must not declare any.
pub(super) fn refuse_outputs(written: &StageText, kind: &dyn StageKind, findings: &mut Findings) {
    let Some((span, _)) = &written.outputs else { return };
    let names: Vec<String> = kind.outputs().iter().map(|port| format!("`{}`", port.name)).collect();
    let message =
        format!("stage `{}`: `{}` has outputs of its own, so `outputs` cannot be given", written.name, kind.name());
    findings.error("unsupported-key", *span, message).help =
        Some(format!("remove `outputs`; this kind gives {}", names.join(", ")));
}

impl StageText {
    /// Whether it declares an output that cannot be read.
    pub(super) fn has_unreadable_output(&self) -> bool {
        self.outputs.iter().flat_map(|(_, outputs)| outputs).any(|output| output.declared.is_none())
    }
}

/// The outputs that the file declares for a stage, and whether `with:` uses its ports as they are declared. Where
/// `with:` is in doubt, nothing is said about an output that it does not mention.
pub(super) fn declared(
    written: &StageText,
    kind: &dyn StageKind,
    is_in_doubt: bool,
    findings: &mut Findings,
) -> Vec<Output> {
    let (span, outputs) = match &written.outputs {
        Some((span, outputs)) => (*span, outputs.as_slice()),
        None => (written.name_span, &[][..]),
    };
    if outputs.is_empty() {
        let message = format!("stage `{}` (`{}`) declares no output", written.name, kind.name());
        findings.error("missing-output", span, message).help =
            Some("`outputs: { report: file }` declares a port and its artifact kind".into());
    }
    let mut mentioned = Vec::new();
    if let Some(with) = &written.with {
        mentions(&with.value, written, &mut mentioned, findings);
    }
    let is_unused = |output: &&OutputText| output.declared.is_some() && !mentioned.contains(&output.port);
    for output in outputs.iter().filter(is_unused).filter(|_| !is_in_doubt) {
        let message = format!("stage `{}`: nothing in `with` mentions its output `{}`", written.name, output.port);
        findings.error("unused-output", output.port_span, message).help =
            Some(format!("write \"${{{{ outputs.{} }}}}\" where its path belongs", output.port));
    }
    let output = |output: &OutputText| {
        let (kind, file) = output.declared.clone()?;
        let file = file.or_else(|| (kind == ArtifactKind::File).then(|| output.port.clone()));
        Some(Output { name: output.port.clone(), kind, file })
    };
    let mut declared: Vec<Output> = outputs.iter().filter_map(output).collect();
    declared.shrink_to_fit();
    declared
}

/// Adds the outputs that expressions below `node` name, and reports ports that are not there.
fn mentions(node: &Node, written: &StageText, mentioned: &mut Vec<String>, findings: &mut Findings) {
    match &node.body {
        Body::Sequence(items) => items.iter().for_each(|item| mentions(item, written, mentioned, findings)),
        Body::Mapping(entries) => {
            entries.iter().for_each(|entry| mentions(&entry.value, written, mentioned, findings));
        }
        Body::Scalar(Scalar::String(text)) => {
            let uses = vars::port_uses(text);
            mentioned.extend(uses.iter().filter_map(|used| check_use(node, used, written, findings)));
        }
        Body::Scalar(_) | Body::Unknown => {}
    }
}

/// The output that an expression means; a misspelled one counts, as that is reported.
fn check_use(node: &Node, used: &PortUse<'_>, written: &StageText, findings: &mut Findings) -> Option<String> {
    let outputs = written.outputs.iter().flat_map(|(_, outputs)| outputs).map(|output| output.port.as_str());
    let (names, word): (Vec<&str>, _) = match used.side {
        Side::Inputs => (written.inputs.iter().map(|input| input.port.as_str()).collect(), "input"),
        Side::Outputs => (outputs.collect(), "output"),
    };
    if !names.contains(&used.port) {
        let span = findings.narrow(node.span, &format!("{word}s.{}", used.port));
        let message = format!("stage `{}` has no {word} `{}`", written.name, used.port);
        let help = nearest_or_list(used.port, &names, &format!("{word}s of `{}`", written.name));
        findings.error_at_use("unknown-port", span, node.used.as_deref(), message).help = Some(help);
    }
    let meant = pipe_settings::nearest(used.port, &names).filter(|_| used.side == Side::Outputs);
    meant.map(str::to_string)
}
