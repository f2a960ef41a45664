//! `uses:` and `with:` of a stage: the stage kind is looked up and reads its settings.

use std::sync::Arc;

use pipe_cache::NameMap;
use pipe_contract::stage::ANY_NAME;
use pipe_contract::{KeySettings, Output, OutputPort, Problem, ProblemKind, ReadSetting, Reader, Stage, StageKind};
use serde_yaml::Value;

use super::findings::{Findings, nearest_or_list};
use super::node::{Body, Entry, Node, Span, Use};
use super::stage_text::StageText;
use super::{ports, vars};
use crate::diagnostic::Location;
use crate::registry::Registry;

/// A stage kind with the settings of one stage.
pub(super) struct Built {
    pub(super) kind: &'static dyn StageKind,
    pub(super) stage: Arc<dyn Stage>,
    pub(super) key_settings: KeySettings,
    pub(super) settings: Vec<ReadSetting>,
    /// Where each of them was written.
    pub(super) locations: NameMap<Location>,
    /// The outputs it has; all that its kind can have where its settings are in doubt.
    pub(super) outputs: Vec<Output>,
}

/// Reads the settings of a stage, and forgets how they were written. `None` where its kind is not known.
pub(super) fn build(written: &mut StageText, registry: &Registry, findings: &mut Findings) -> Option<Built> {
    let (name, node) = written.uses.as_ref()?;
    let Some(kind) = registry.get(name) else {
        let help = nearest_or_list(name, &registry.names(), "stage kinds");
        let message = format!("stage `{}` uses `{name}`, but there is no such stage kind", written.name);
        findings.error_at_value("unknown-kind", node, message).help = Some(help);
        return None;
    };
    if !kind.has_declared_ports()
        && let Some(with) = &mut written.with
    {
        vars::refuse_ports(&mut with.value, findings);
    }
    let with = written.with.as_deref();
    let value = with.map_or(Value::Null, |entry| entry.value.to_value());
    let mut reader = Reader::new(&value);
    let stage: Arc<dyn Stage> = Arc::from(kind.read(&mut reader));
    let settings = reader.take_settings();
    let (key_settings, mut problems) = reader.finish();
    let has_unknown = with.is_some_and(|entry| entry.value.has_unknown());
    let has_problems = has_unknown || !problems.is_empty();
    if !has_problems {
        problems = stage.check_inputs(&connected(written, kind));
    }
    if has_unknown {
        problems.retain(|problem| problem.kind != ProblemKind::MissingSetting);
    }
    problems.into_iter().for_each(|problem| report(written, problem, findings));
    let outputs = if kind.has_declared_ports() {
        ports::declared(written, kind, has_unknown, findings)
    } else {
        ports::refuse_outputs(written, kind, findings);
        fixed(if has_problems { kind.outputs().to_vec() } else { stage.outputs() })
    };
    // Of 10,000 stages that is as much memory as all that is read from it.
    let locations = written.with.take().map(|with| locations(&with, findings)).unwrap_or_default();
    Some(Built { kind, stage, key_settings, settings, locations, outputs })
}

fn fixed(ports: Vec<OutputPort>) -> Vec<Output> {
    let output = |port: OutputPort| Output { name: port.name.into(), kind: port.kind, file: None };
    ports.into_iter().map(output).collect()
}

/// The input ports that have something on them; a misspelled one counts, as that is reported already.
fn connected<'w>(written: &'w StageText, kind: &dyn StageKind) -> Vec<&'w str> {
    if kind.has_declared_ports() || kind.inputs().iter().any(|port| port.name == ANY_NAME) {
        return written.inputs.iter().map(|input| input.port.as_str()).collect();
    }
    let names: Vec<&'static str> = kind.inputs().iter().map(|port| port.name).collect();
    written.inputs.iter().filter_map(|input| pipe_settings::nearest(&input.port, &names)).collect()
}

fn report(written: &StageText, problem: Problem, findings: &mut Findings) {
    let (span, used) = match &written.with {
        Some(with) => locate(with, &problem.path, problem.at_key),
        None => (written.uses.as_ref().map_or(written.name_span, |(_, node)| node.span), None),
    };
    let message = format!("stage `{}`: {}", written.name, problem.message);
    findings.error_at_use(problem.kind.slug(), span, used, message).help = problem.help;
}

/// Where each setting below `with:` was written: the value, or the key of a mapping.
fn locations(with: &Entry, findings: &Findings) -> NameMap<Location> {
    fn add(prefix: &str, node: &Node, findings: &Findings, locations: &mut NameMap<Location>) {
        for Entry { key, key_span, value } in node.entries() {
            let name = format!("{prefix}{key}");
            add(&format!("{name}."), value, findings, locations);
            let span = if value.entries().is_empty() { value.span } else { *key_span };
            locations.insert(name, findings.location(span));
        }
    }
    let mut locations = NameMap::default();
    add("", &with.value, findings, &mut locations);
    locations
}

/// Where the value (or key) at `path` below `with:` was written, and the `${{ }}` that took it from there. Where it is
/// not there: the key of what it should be in.
fn locate<'w>(with: &'w Entry, path: &[String], at_key: bool) -> (Span, Option<&'w Use>) {
    let (mut key_span, mut node) = (with.key_span, &with.value);
    let mut used = node.used.as_deref();
    for part in path {
        let found = match &node.body {
            Body::Mapping(_) => node.get(part).map(|entry| (entry.key_span, &entry.value)),
            Body::Sequence(items) => {
                part.parse().ok().and_then(|idx: usize| items.get(idx)).map(|item| (item.span, item))
            }
            Body::Scalar(_) | Body::Unknown => None,
        };
        let Some(found) = found else { return (key_span, used) };
        (key_span, node) = found;
        used = node.used.as_deref().or(used);
    }
    if at_key { (key_span, used) } else { (node.span, used) }
}
