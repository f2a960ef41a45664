//! One stage as it was written: keys and types checked, names not yet looked up.

use std::path::PathBuf;

use super::findings::Findings;
use super::keys::{self, Keys};
use super::node::{Body, Entry, Node, Span};
use super::pools::DeclaredPools;
use super::ports::{self, OutputText};
use super::{Resources, Tries, resources, tries, vars};

/// `matrix` is taken before a stage is read.
pub(crate) const STAGE_KEYS: &[&str] =
    &["uses", "with", "inputs", "outputs", "needs", "resources", "timeout", "retries", "matrix", "to"];

/// A stage as written.
pub(super) struct StageText {
    pub(super) name: String,
    pub(super) name_span: Span,
    pub(super) uses: Option<(String, Node)>,
    /// In a box, as it is taken out long before the rest.
    pub(super) with: Option<Box<Entry>>,
    /// The key `inputs`, if there is one.
    pub(super) inputs_span: Option<Span>,
    pub(super) inputs: Vec<InputText>,
    /// Where the key `outputs` is, if it is there, and the ports that it declares.
    pub(super) outputs: Option<(Span, Vec<OutputText>)>,
    pub(super) needs: Vec<(String, Node)>,
    pub(super) resources: Resources,
    pub(super) tries: Tries,
    /// In a box, as most stages have none.
    pub(super) to: Option<Box<(PathBuf, Node)>>,
}

impl StageText {
    /// A stage of which only the name is known: what others take from it is not checked.
    fn without_kind(name: String, name_span: Span) -> Self {
        StageText {
            name,
            name_span,
            uses: None,
            with: None,
            inputs_span: None,
            inputs: Vec::new(),
            outputs: None,
            needs: Vec::new(),
            resources: Resources::default(),
            tries: Tries::default(),
            to: None,
        }
    }
}

/// `PORT: STAGE` or `PORT: STAGE.OUTPUT`.
pub(super) struct InputText {
    pub(super) port: String,
    pub(super) port_span: Span,
    /// `None` where it cannot be found out, which is reported.
    pub(super) reference: Option<(String, Node)>,
}

/// Reads one entry of `stages`, whose name is checked.
pub(super) fn read(entry: Entry, pools: &DeclaredPools, findings: &mut Findings) -> StageText {
    let Entry { key: name, key_span: name_span, mut value } = entry;
    refuse_ports_outside_with(&mut value, findings);
    let Some(mut keys) = Keys::new(value, format!("stage `{name}`"), STAGE_KEYS, findings) else {
        return StageText::without_kind(name, name_span);
    };
    let is_missing = !keys.has("uses");
    let uses = keys.take_text("uses", findings);
    if is_missing {
        findings.error("missing-key", name_span, format!("stage `{name}` has no `uses`")).help =
            Some("`uses` names the stage kind, `uses: train`".into());
    }
    let with = keys.take("with").map(Box::new);
    let inputs = keys.take("inputs");
    let inputs_span = inputs.as_ref().map(|entry| entry.key_span);
    let inputs = inputs.map_or_else(Vec::new, |entry| read_inputs(entry.value, &name, findings));
    let outputs = keys.take("outputs");
    let outputs = outputs.map(|entry| (entry.key_span, ports::read_outputs(entry.value, &name, findings)));
    let needs = keys.take("needs").map_or_else(Vec::new, |entry| read_needs(entry.value, &name, findings));
    let resources = keys
        .take("resources")
        .map_or_else(Resources::default, |entry| resources::read(entry.value, &name, pools, findings));
    let tries = tries::read(keys.take("timeout"), keys.take("retries"), &name, findings);
    let to = keys.take("to").filter(|entry| !entry.value.is_null());
    let to = to
        .and_then(|entry| keys::text(entry.value, &format!("`to` of stage `{name}`"), findings))
        .map(|(to, node)| Box::new((to.into(), node)));
    keys.finish(findings);
    StageText { name, name_span, uses, with, inputs_span, inputs, outputs, needs, resources, tries, to }
}

/// Whether `with:` may name the paths of ports is known once its kind is.
fn refuse_ports_outside_with(stage: &mut Node, findings: &mut Findings) {
    match &mut stage.body {
        Body::Mapping(entries) => {
            let others = entries.iter_mut().filter(|entry| entry.key != "with");
            others.for_each(|entry| vars::refuse_ports(&mut entry.value, findings));
        }
        _ => vars::refuse_ports(stage, findings),
    }
}

fn read_inputs(node: Node, stage: &str, findings: &mut Findings) -> Vec<InputText> {
    let entries = keys::mapping(node, &format!("`inputs` of stage `{stage}`"), findings).unwrap_or_default();
    let read = |entry: Entry| {
        let reference = keys::text(entry.value, &format!("input `{}` of stage `{stage}`", entry.key), findings);
        InputText { port: entry.key, port_span: entry.key_span, reference }
    };
    entries.into_iter().map(read).collect()
}

/// A list of names; one name alone is a list of one.
fn read_needs(node: Node, stage: &str, findings: &mut Findings) -> Vec<(String, Node)> {
    let what = format!("`needs` of stage `{stage}`");
    match node.body {
        Body::Sequence(items) => items.into_iter().filter_map(|item| keys::text(item, &what, findings)).collect(),
        Body::Mapping(_) => {
            keys::wrong_type(&node, &what, "a list of stages", findings);
            Vec::new()
        }
        _ if node.is_null() => Vec::new(),
        _ => keys::text(node, &what, findings).into_iter().collect(),
    }
}
