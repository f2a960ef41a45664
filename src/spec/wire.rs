//! `inputs:` and `needs:`: names become positions, ports are connected, and the stages are put in order.
//!
//! `PORT: STAGE.OUTPUT` takes that output; `PORT: STAGE` takes the only output whose artifact kind fits the port. A port that
//! the file declares takes any kind.

use std::collections::HashMap;

use pipe_cache::NameMap;
use pipe_contract::stage::ANY_NAME;
use pipe_contract::{ArtifactKind, InputPort, Output};

use super::findings::{Findings, listed, nearest_or_list};
use super::kind::Built;
use super::node::{Node, Span};
use super::order::sort_stages;
use super::reference::split_reference;
use super::stage_text::{InputText, StageText};
use super::{InputRef, StageSpec, keys, places};

/// A stage as written, and what its kind made of it.
pub(super) struct Part {
    pub(super) written: StageText,
    /// `None` where the kind is not known.
    pub(super) built: Option<Built>,
}

/// An input of a stage, by its kind or as the file declares.
#[derive(Clone, Copy)]
struct Wanted<'p> {
    port: &'p str,
    /// What it takes; `None` takes any.
    kind: Option<ArtifactKind>,
}

/// All stages, while their names are looked up.
struct Wiring<'p> {
    parts: &'p [Part],
    positions: HashMap<&'p str, usize>,
    names: Vec<&'p str>,
    edges: Vec<Edge<'p>>,
}

/// A stage that waits for another one.
struct Edge<'p> {
    from: usize,
    to: usize,
    /// The port that connects them; `None` for `needs:`.
    port: Option<&'p str>,
    /// Where `from` was written.
    span: Span,
}

/// Connects the stages. `None` when a problem was reported, here or before.
pub(super) fn wire(parts: Vec<Part>, findings: &mut Findings) -> Option<(Vec<StageSpec>, Vec<usize>)> {
    let names: Vec<&str> = parts.iter().map(|part| part.written.name.as_str()).collect();
    let positions = names.iter().enumerate().map(|(position, name)| (*name, position)).collect();
    let mut wiring = Wiring { parts: &parts, positions, names, edges: Vec::new() };
    let mut connected = Vec::with_capacity(parts.len());
    for stage in 0..parts.len() {
        let inputs = wiring.inputs(stage, findings);
        connected.push((inputs, wiring.needs(stage, findings)));
    }
    let order = wiring.order(findings);
    places::check(&parts, findings);
    if !findings.is_empty() {
        return None;
    }
    let specs = parts.into_iter().zip(connected).map(|(part, (inputs, needs))| spec(part, inputs, needs, findings));
    let mut specs: Vec<StageSpec> = specs.collect::<Option<_>>()?;
    // It has the memory of the parts, which are twice as large.
    specs.shrink_to_fit();
    Some((specs, order?))
}

fn spec(part: Part, inputs: NameMap<InputRef>, needs: Vec<usize>, findings: &Findings) -> Option<StageSpec> {
    let Part { written, built } = part;
    let built = built?;
    Some(StageSpec {
        location: findings.location(written.name_span),
        setting_locations: built.locations,
        name: written.name,
        kind: built.kind,
        stage: built.stage,
        key_settings: built.key_settings,
        settings: built.settings,
        inputs,
        outputs: built.outputs,
        needs,
        resources: written.resources,
        tries: written.tries,
        to: written.to.map(|to| to.0),
    })
}

impl<'p> Wiring<'p> {
    fn inputs(&mut self, stage: usize, findings: &mut Findings) -> NameMap<InputRef> {
        let part = &self.parts[stage];
        let mut inputs = NameMap::default();
        for input in &part.written.inputs {
            let port = part.built.as_ref().map(|built| port(&part.written, built, input, findings));
            let producer = self.producer(stage, input, findings);
            if let (Some(Some(port)), Some((producer, output, node))) = (port, producer)
                && let Some(output) = self.output(stage, port, producer, output, node, findings)
            {
                inputs.insert(
                    input.port.clone(),
                    InputRef { stage: producer, port: output.name.clone(), kind: output.kind },
                );
            }
        }
        if let Some(built) = &part.built {
            self.missing_inputs(stage, built, findings);
        }
        inputs
    }

    fn needs(&mut self, stage: usize, findings: &mut Findings) -> Vec<usize> {
        let written = &self.parts[stage].written;
        let mut needs = Vec::new();
        for (name, node) in &written.needs {
            let what = format!("stage `{}` needs `{name}`", written.name);
            if let Some(from) = self.look_up(stage, name, node, &what, findings) {
                self.edges.push(Edge { from, to: stage, port: None, span: node.span });
                if !needs.contains(&from) {
                    needs.push(from);
                }
            }
        }
        needs
    }

    /// The stage that `input` names, the output that it names, if any, and where.
    fn producer(
        &mut self,
        stage: usize,
        input: &'p InputText,
        findings: &mut Findings,
    ) -> Option<(usize, Option<&'p str>, &'p Node)> {
        let (reference, node) = input.reference.as_ref()?;
        let (name, output) = split_reference(reference, |name| self.positions.contains_key(name));
        let what = format!("stage `{}` takes `{}` from `{name}`", self.names[stage], input.port);
        let from = self.look_up(stage, name, node, &what, findings)?;
        self.edges.push(Edge { from, to: stage, port: Some(&input.port), span: node.span });
        Some((from, output, node))
    }

    /// The position of the stage called `name`, which is not `stage` itself.
    fn look_up(&self, stage: usize, name: &str, node: &Node, what: &str, findings: &mut Findings) -> Option<usize> {
        match self.positions.get(name) {
            Some(&position) if position == stage => {
                let span = findings.narrow(node.span, name);
                findings.error_at_use(
                    "self-dependency",
                    span,
                    node.used.as_deref(),
                    format!("{what}, which is itself"),
                );
                None
            }
            Some(&position) => Some(position),
            None => {
                let span = findings.narrow(node.span, name);
                // Who names no instance means a stage as declared.
                let as_meant = |other: &'p str| if name.contains('@') { other } else { declared(other) };
                let mut others: Vec<&str> = self.names.iter().map(|other| as_meant(other)).collect();
                others.dedup();
                others.retain(|other| *other != as_meant(self.names[stage]));
                let mut help = nearest_or_list(name, &others, "other stages");
                if let Some(near) = pipe_settings::nearest(name, &others) {
                    let part = self.parts.iter().find(|part| as_meant(&part.written.name) == near);
                    let span = part.expect("it is the name of one").written.name_span;
                    help.push_str(&format!(" (declared at {})", findings.place(span)));
                }
                let message = format!("{what}, but no stage has that name");
                findings.error_at_use("unknown-stage", span, node.used.as_deref(), message).help = Some(help);
                None
            }
        }
    }

    /// The output of `producer` that a port takes. `None` where it has none that fits, or none is known.
    fn output(
        &self,
        stage: usize,
        wanted: Wanted<'_>,
        producer: usize,
        named: Option<&str>,
        node: &Node,
        findings: &mut Findings,
    ) -> Option<&'p Output> {
        if self.parts[producer].written.has_unreadable_output() {
            return None;
        }
        match named {
            None => self.only_output(stage, wanted, producer, node, findings),
            Some(name) => self.named_output(stage, wanted, producer, name, node, findings),
        }
    }

    /// The only output that fits.
    fn only_output(
        &self,
        stage: usize,
        wanted: Wanted<'_>,
        producer: usize,
        node: &Node,
        findings: &mut Findings,
    ) -> Option<&'p Output> {
        let built = self.parts[producer].built.as_ref()?;
        let (to, from) = (self.names[stage], self.names[producer]);
        let fitting: Vec<&Output> = built.outputs.iter().filter(|output| wanted.takes(output.kind)).collect();
        match (fitting.as_slice(), wanted.kind) {
            ([only], _) => return Some(only),
            ([], Some(kind)) => {
                let given: Vec<String> =
                    built.outputs.iter().map(|output| format!("`{}` ({})", output.name, output.kind)).collect();
                let given =
                    if given.is_empty() { "has no output".into() } else { format!("gives {}", given.join(", ")) };
                let message = format!("stage `{to}` takes {} from `{from}`, which {given}", wanted.shown());
                self.wrong_kind(stage, kind, message, node, findings);
            }
            // A stage that declares nothing, which is reported.
            ([], None) => {}
            (several, kind) => {
                let names: Vec<String> = several.iter().map(|output| format!("`{from}.{}`", output.name)).collect();
                let of_kind = kind.map_or("", |_| " of that kind");
                let message = format!(
                    "stage `{to}` takes {} from `{from}`, which has {} outputs{of_kind}",
                    wanted.shown(),
                    several.len()
                );
                findings.error_at_value("ambiguous-output", node, message).help =
                    Some(format!("write {}", names.join(" or ")));
            }
        }
        None
    }

    /// The output called `name`, if it fits.
    fn named_output(
        &self,
        stage: usize,
        wanted: Wanted<'_>,
        producer: usize,
        name: &str,
        node: &Node,
        findings: &mut Findings,
    ) -> Option<&'p Output> {
        let built = self.parts[producer].built.as_ref()?;
        let (to, from) = (self.names[stage], self.names[producer]);
        match (built.outputs.iter().find(|output| output.name == name), wanted.kind) {
            (Some(output), _) if wanted.takes(output.kind) => return Some(output),
            (Some(output), Some(kind)) => {
                let message =
                    format!("stage `{to}` takes {} from `{from}.{name}`, which is {}", wanted.shown(), output.kind);
                self.wrong_kind(stage, kind, message, node, findings);
            }
            _ => {
                let span = findings.narrow_after(node.span, ".", name);
                let names: Vec<&str> = built.outputs.iter().map(|output| output.name.as_str()).collect();
                let port = wanted.port;
                let message =
                    format!("stage `{to}` takes `{port}` from `{from}.{name}`, but `{from}` has no such output");
                let help = if built.kind.outputs().iter().any(|output| output.name == name) {
                    format!("the settings of `{from}` leave it out; its outputs are {}", listed(&names))
                } else {
                    nearest_or_list(name, &names, &format!("outputs of `{from}`"))
                };
                findings.error_at_use("unknown-output", span, node.used.as_deref(), message).help = Some(help);
            }
        }
        None
    }

    fn wrong_kind(&self, stage: usize, kind: ArtifactKind, message: String, node: &Node, findings: &mut Findings) {
        findings.error_at_value("wrong-artifact-kind", node, message).help = Some(self.candidates(stage, kind));
    }

    /// Reports required ports with nothing on them, except one whose name was misspelled: that is reported already.
    fn missing_inputs(&self, stage: usize, built: &Built, findings: &mut Findings) {
        let ports = built.kind.inputs();
        let names: Vec<&str> = ports.iter().map(|port| port.name).collect();
        let meant: Vec<&str> = self.parts[stage]
            .written
            .inputs
            .iter()
            .filter_map(|input| pipe_settings::nearest(&input.port, &names))
            .collect();
        let is_there = |name: &str| match name {
            ANY_NAME => !self.parts[stage].written.inputs.is_empty(),
            _ => meant.contains(&name),
        };
        let missing = ports.iter().filter(|port| port.is_required && !is_there(port.name));
        missing.for_each(|port| self.missing(stage, built, port, findings));
    }

    fn missing(&self, stage: usize, built: &Built, port: &InputPort, findings: &mut Findings) {
        let written = &self.parts[stage].written;
        let span = written.inputs_span.unwrap_or(written.name_span);
        let what = match port.name {
            ANY_NAME => format!("has no input ({})", port.kind),
            name => format!("has nothing connected to its input `{name}` ({})", port.kind),
        };
        let message = format!("stage `{}` (`{}`) {what}", written.name, built.kind.name());
        findings.error("missing-input", span, message).help = Some(self.candidates(stage, port.kind));
    }

    /// Which outputs of other stages have this kind.
    fn candidates(&self, stage: usize, kind: ArtifactKind) -> String {
        let mut found = Vec::new();
        for (position, part) in self.parts.iter().enumerate() {
            let name = declared(self.names[position]);
            if name == declared(self.names[stage]) {
                continue;
            }
            let outputs = part.built.iter().flat_map(|built| &built.outputs);
            let fitting: Vec<&Output> = outputs.filter(|output| output.kind == kind).collect();
            match fitting.as_slice() {
                [_] => found.push(name.to_string()),
                several => found.extend(several.iter().map(|output| format!("{name}.{}", output.name))),
            }
        }
        found.dedup();
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        if found.is_empty() {
            format!("no other stage gives {kind}")
        } else {
            format!("{kind} comes from {}", listed(&found))
        }
    }

    /// A topological order; cycles are reported.
    fn order(&self, findings: &mut Findings) -> Option<Vec<usize>> {
        let mut waits_for = vec![Vec::new(); self.parts.len()];
        self.edges.iter().for_each(|edge| waits_for[edge.to].push(edge.from));
        match sort_stages(&waits_for) {
            Ok(order) => Some(order),
            Err(cycles) => {
                cycles.iter().for_each(|cycle| self.cycle(cycle, findings));
                None
            }
        }
    }

    fn cycle(&self, cycle: &[usize], findings: &mut Findings) {
        let closed = || cycle.iter().chain(&cycle[..1]);
        let path: Vec<String> = closed().map(|&stage| format!("`{}`", self.names[stage])).collect();
        let edge = |from: usize, to: usize| {
            let found = self.edges.iter().find(|edge| (edge.from, edge.to) == (from, to));
            found.expect("a cycle is made of edges")
        };
        let edges: Vec<&Edge> = cycle.iter().zip(closed().skip(1)).map(|(&from, &to)| edge(from, to)).collect();
        let last = edges[edges.len() - 1];
        let notes: Vec<String> = edges.iter().map(|edge| self.edge_note(edge, findings)).collect();
        let span = findings.narrow(last.span, self.names[last.from]);
        let message = format!("these stages wait for each other: {}", path.join(" -> "));
        findings.error("cycle", span, message).notes = notes;
    }

    fn edge_note(&self, edge: &Edge, findings: &Findings) -> String {
        let (from, to, place) = (self.names[edge.from], self.names[edge.to], findings.place(edge.span));
        match edge.port {
            Some(port) => format!("`{to}` takes `{port}` from `{from}` at {place}"),
            None => format!("`{to}` needs `{from}` at {place}"),
        }
    }
}

impl Wanted<'_> {
    fn takes(self, kind: ArtifactKind) -> bool {
        self.kind.is_none_or(|wanted| wanted == kind)
    }

    /// "`rows` (rows)"; without the kind where it takes any.
    fn shown(self) -> String {
        self.kind.map_or(format!("`{}`", self.port), |kind| format!("`{}` ({kind})", self.port))
    }
}

/// The name of a stage in the file, without the combination of an instance.
fn declared(name: &str) -> &str {
    name.split_once('@').map_or(name, |(declared, _)| declared)
}

/// The port that `input` names: one of the kind's, or any where the file names or declares them.
fn port<'p>(written: &StageText, built: &Built, input: &'p InputText, findings: &mut Findings) -> Option<Wanted<'p>> {
    if built.kind.has_declared_ports() {
        keys::name(&input.port, "port", input.port_span, findings);
        return Some(Wanted { port: &input.port, kind: None });
    }
    let ports = built.kind.inputs();
    if let Some(any) = ports.iter().find(|port| port.name == ANY_NAME) {
        keys::name(&input.port, "port", input.port_span, findings);
        return Some(Wanted { port: &input.port, kind: Some(any.kind) });
    }
    let found = ports.iter().find(|port| port.name == input.port);
    if found.is_none() {
        let names: Vec<&str> = ports.iter().map(|port| port.name).collect();
        let help = nearest_or_list(&input.port, &names, &format!("inputs of `{}`", built.kind.name()));
        let message = format!("stage `{}` (`{}`) has no input `{}`", written.name, built.kind.name(), input.port);
        findings.error("unknown-port", input.port_span, message).help = Some(help);
    }
    found.map(|port| Wanted { port: &input.port, kind: Some(port.kind) })
}
