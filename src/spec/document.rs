//! The layers of a document become one: file, then profile, then `--set`; and `${{ }}` is replaced.
//!
//! Vars are merged first, so that an expression anywhere sees their final values; each layer of `stages` is substituted
//! before it is laid over the one below, so that `lora: ${{ vars.lora }}` can be refined key by key.

use super::findings::{Findings, nearest_or_list};
use super::keys::{self, Keys};
use super::matrix::{self, Matrix};
use super::node::{Body, Entry, Node, Scalar, Span};
use super::pools::DeclaredPools;
use super::set::{self, SetArgument};
use super::{LoadOptions, Numerics, vars};

/// The only version of the file format there is.
const VERSION: u64 = 1;

pub(crate) const TOP_KEYS: &[&str] = &["version", "name", "numerics", "pools", "vars", "matrix", "profiles", "stages"];
pub(crate) const PROFILE_KEYS: &[&str] = &["vars", "matrix", "stages"];

/// A document with its layers merged.
pub(super) struct Document {
    pub(super) name: Option<String>,
    pub(super) numerics: Option<Numerics>,
    pub(super) pools: DeclaredPools,
    /// In file order; those that a profile adds come last.
    pub(super) stages: Vec<Entry>,
}

/// Reads a parsed file. `None` where nothing can be said about its stages.
pub(super) fn read(file: Node, options: &LoadOptions, findings: &mut Findings) -> Option<Document> {
    let start = Span { line: 1, column: 1, length: 0, ..file.span };
    if file.is_null() {
        findings.error("missing-key", start, "the file is empty").help = Some(SKELETON.into());
        return None;
    }
    let mut top = Keys::new(file, "the pipeline file".into(), TOP_KEYS, findings)?;
    if !version(top.take("version"), start, findings) {
        return None;
    }
    let name = top.take_text("name", findings).map(|(name, _)| name);
    let numerics = top.take("numerics").and_then(|entry| numerics(&entry.value, findings));
    let pools = top.take("pools");
    let file_vars = top.take("vars");
    let matrix = top.take("matrix");
    let profiles = top.take("profiles");
    let stages = top.take("stages");
    top.finish(findings);

    let overlay = profile(profiles, options.profile.as_deref(), findings);
    let sets: Vec<SetArgument> = options.sets.iter().filter_map(|argument| set::read(argument, findings)).collect();
    let (sets_of_vars, sets): (Vec<_>, Vec<_>) = sets.into_iter().partition(|set| set.path[0].0 == "vars");
    let (sets_of_matrix, sets_of_stages): (Vec<_>, Vec<_>) =
        sets.into_iter().partition(|set| set.path[0].0 == "matrix");

    let mut vars = block(file_vars, "vars", findings);
    overlay_with(&mut vars, overlay.vars);
    vars.entries().iter().for_each(|entry| keys::name(&entry.key, "var", entry.key_span, findings));
    sets_of_vars.into_iter().for_each(|set| set.apply(&mut vars, "var", findings));
    vars::refuse_in_vars(&vars, findings);
    let mut pools = block(pools, "pools", findings);
    vars::substitute(&mut pools, &vars, findings);
    vars::refuse_ports(&mut pools, findings);
    matrix::refuse(&pools, "a pool", findings);
    let pools = DeclaredPools::read(pools, findings);
    let matrix = read_matrix(matrix, overlay.matrix, sets_of_matrix, &vars, findings);

    let Some(stages) = stages else {
        findings.error("missing-key", start, "the pipeline file has no `stages`").help = Some(SKELETON.into());
        return None;
    };
    let stages_span = stages.key_span;
    let mut stages = block(Some(stages), "stages", findings);
    vars::substitute(&mut stages, &vars, findings);
    if let Some(mut over) = overlay.stages {
        vars::substitute(&mut over, &vars, findings);
        overlay_with(&mut stages, Some(over));
    }
    for mut set in sets_of_stages {
        vars::substitute(&mut set.value, &vars, findings);
        set.apply(&mut stages, "stage", findings);
    }
    let Body::Mapping(stages) = stages.body else { return None };
    if stages.is_empty() {
        findings.error("missing-key", stages_span, "`stages` is empty").help =
            Some("a pipeline has at least one stage".into());
    }
    let stages = matrix::expand(stages, matrix, findings);
    Some(Document { name, numerics, pools, stages })
}

/// The matrix at the top of the file, with what is laid over it.
fn read_matrix(
    entry: Option<Entry>,
    over: Option<Node>,
    sets: Vec<SetArgument>,
    vars: &Node,
    findings: &mut Findings,
) -> Matrix {
    let key_span = entry.as_ref().map(|entry| entry.key_span);
    let is_there = entry.is_some() || over.is_some();
    let mut node = block(entry, "matrix", findings);
    overlay_with(&mut node, over);
    sets.into_iter().for_each(|set| set.apply(&mut node, "matrix variable", findings));
    if !is_there {
        return Matrix::default();
    }
    vars::substitute(&mut node, vars, findings);
    let key_span = key_span.unwrap_or(node.span);
    matrix::read(Entry { key: "matrix".into(), key_span, value: node }, "the pipeline file", findings)
}

const SKELETON: &str = "a pipeline file begins with `version: 1` and has `stages: { NAME: { uses: KIND } }`";

fn version(entry: Option<Entry>, start: Span, findings: &mut Findings) -> bool {
    let Some(entry) = entry else {
        findings.error("missing-key", start, "the pipeline file has no `version`").help =
            Some(format!("add `version: {VERSION}`"));
        return true;
    };
    match &entry.value.body {
        Body::Scalar(Scalar::Number(number)) if number.as_u64() == Some(VERSION) => true,
        Body::Scalar(Scalar::Number(number)) => {
            let message = format!("the pipeline file has version {number}, but this `pipe` reads version {VERSION}");
            findings.error_at_value("unsupported-version", &entry.value, message);
            false
        }
        _ => {
            keys::wrong_type(&entry.value, "`version`", &format!("the number `{VERSION}`"), findings);
            true
        }
    }
}

fn numerics(node: &Node, findings: &mut Findings) -> Option<Numerics> {
    let Body::Scalar(Scalar::String(text)) = &node.body else {
        keys::wrong_type(node, "`numerics`", "`exact` or `any`", findings);
        return None;
    };
    match text.as_str() {
        "exact" => Some(Numerics::Exact),
        "any" => Some(Numerics::Any),
        other => {
            let help = nearest_or_list(other, &["exact", "any"], "choices");
            let message = format!("`numerics` is `{other}`, but must be `exact` or `any`");
            findings.error_at_value("out-of-range", node, message).help = Some(help);
            None
        }
    }
}

/// What the chosen profile lays over the file.
#[derive(Default)]
struct Overlay {
    vars: Option<Node>,
    matrix: Option<Node>,
    stages: Option<Node>,
}

/// Checks the form of all profiles and takes the chosen one.
fn profile(profiles: Option<Entry>, chosen: Option<&str>, findings: &mut Findings) -> Overlay {
    let mut found = None;
    let mut names = Vec::new();
    if let Some(entries) = profiles.and_then(|entry| keys::mapping(entry.value, "`profiles`", findings)) {
        for entry in entries {
            keys::name(&entry.key, "profile", entry.key_span, findings);
            let overlay = read_profile(&entry.key, entry.value, findings);
            if Some(entry.key.as_str()) == chosen {
                found = Some(overlay);
            }
            names.push(entry.key);
        }
    }
    match (found, chosen) {
        (Some(overlay), _) => overlay,
        (None, None) => Overlay::default(),
        (None, Some(chosen)) => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let shown = format!("--profile {chosen}");
            let help = nearest_or_list(chosen, &names, "profiles");
            findings.push(
                crate::diagnostic::Diagnostic::new("unknown-profile", format!("`{shown}`: there is no such profile"))
                    .help(help),
            );
            Overlay::default()
        }
    }
}

fn read_profile(name: &str, node: Node, findings: &mut Findings) -> Overlay {
    let owner = format!("profile `{name}`");
    let Some(mut keys) = Keys::new(node, owner.clone(), PROFILE_KEYS, findings) else { return Overlay::default() };
    let mut part = |key: &str, findings: &mut Findings| {
        let entry = keys.take(key)?;
        let span = entry.value.span;
        let entries = keys::mapping(entry.value, &format!("`{key}` of {owner}"), findings)?;
        Some(Node::new(span, Body::Mapping(entries)))
    };
    let overlay =
        Overlay { vars: part("vars", findings), matrix: part("matrix", findings), stages: part("stages", findings) };
    keys.finish(findings);
    overlay
}

/// A top-level block as a mapping, empty where it is absent or wrong.
fn block(entry: Option<Entry>, key: &str, findings: &mut Findings) -> Node {
    let span = entry.as_ref().map_or(Span::default(), |entry| entry.value.span);
    let entries = entry.and_then(|entry| keys::mapping(entry.value, &format!("`{key}`"), findings));
    Node::new(span, Body::Mapping(entries.unwrap_or_default()))
}

fn overlay_with(node: &mut Node, over: Option<Node>) {
    if let Some(over) = over {
        node.overlay(over);
    }
}
