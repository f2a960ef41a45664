//! The screens of `pipe graph`: a tree for people, dot and Mermaid for programs.
//!
//! ```text
//! dataset         download  reuse
//! └─ text         format    run      never made with these settings and inputs
//!    └─ packed    tokenize  pending  + base
//! base            download  reuse
//! ```
//!
//! Every stage is there once, below the input that is furthest from the start; its other inputs stand behind the `+`.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr as _;

use super::plan_table::verdict;
use super::style::Style;
use crate::graph::StageGraph;
use crate::plan::Plan;
use crate::spec::Pipeline;

/// A line of the tree.
struct Row {
    tree: String,
    stage: usize,
    others: Vec<usize>,
}

/// The tree, a line end after each line.
pub fn render_tree(pipeline: &Pipeline, plan: &Plan, style: Style) -> String {
    let rows = rows(pipeline);
    let tree_width =
        rows.iter().map(|row| row.tree.width() + pipeline.stages[row.stage].name.width()).max().unwrap_or(0);
    let kind_width = pipeline.stages.iter().map(|stage| stage.kind.name().len()).max().unwrap_or(0);
    let verdict_width = plan.stages.iter().map(|stage| stage.verdict.name().len()).max().unwrap_or(0);
    let mut text = String::new();
    for Row { tree, stage, others } in rows {
        let spec = &pipeline.stages[stage];
        let padding = " ".repeat(tree_width - tree.width() - spec.name.width());
        let word = plan.stages[stage].verdict.name();
        let word = verdict(&plan.stages[stage].verdict, &format!("{word:<verdict_width$}"), style);
        let others: Vec<String> = others.iter().map(|&other| format!("+ {}", pipeline.stages[other].name)).collect();
        let (name, kind) = (style.bold(&spec.name), spec.kind.name());
        let line = format!("{tree}{name}{padding}  {kind:<kind_width$}  {word}  {}", others.join(" "));
        writeln!(text, "{}", line.trim_end()).expect("to a String");
    }
    text
}

fn rows(pipeline: &Pipeline) -> Vec<Row> {
    let graph = StageGraph::new(pipeline);
    let layers = graph.layers();
    let parent = |stage: usize| graph.predecessors(stage).max_by_key(|&p| (layers[p], std::cmp::Reverse(p)));
    let mut children = vec![Vec::new(); graph.n_stages()];
    let mut roots = Vec::new();
    for stage in 0..graph.n_stages() {
        match parent(stage) {
            Some(parent) => children[parent].push(stage),
            None => roots.push(stage),
        }
    }
    let mut rows = Vec::with_capacity(graph.n_stages());
    // A stack of (stage, what precedes its name, what precedes the names below it): long chains must not overflow ours.
    let mut pending: Vec<(usize, String, String)> =
        roots.into_iter().rev().map(|stage| (stage, String::new(), String::new())).collect();
    while let Some((stage, tree, below)) = pending.pop() {
        let others = graph.predecessors(stage).filter(|&p| Some(p) != parent(stage)).collect();
        rows.push(Row { tree, stage, others });
        for (position, &child) in children[stage].iter().enumerate().rev() {
            let is_last = position + 1 == children[stage].len();
            let (branch, line) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            pending.push((child, format!("{below}{branch}"), format!("{below}{line}")));
        }
    }
    rows
}

/// Graphviz: `pipe graph --format dot | dot -Tsvg`.
pub fn render_dot(pipeline: &Pipeline) -> String {
    let mut text = format!("digraph \"{}\" {{\n  rankdir=LR;\n  node [shape=box];\n", pipeline.name.replace('"', "'"));
    let name = |stage: usize| &pipeline.stages[stage].name;
    for stage in &pipeline.stages {
        writeln!(text, "  \"{}\" [label=\"{}\\n{}\"];", stage.name, stage.name, stage.kind.name())
            .expect("to a String");
    }
    for (from, to, port) in connections(pipeline) {
        let look = port.map_or("style=dashed".to_string(), |port| format!("label=\"{port}\""));
        writeln!(text, "  \"{}\" -> \"{}\" [{look}];", name(from), name(to)).expect("to a String");
    }
    text.push_str("}\n");
    text
}

/// Mermaid, as it is drawn in Markdown on many hosts. Boxes are numbered, as names such as `end` are words of Mermaid.
pub fn render_mermaid(pipeline: &Pipeline) -> String {
    let mut text = "flowchart LR\n".to_string();
    for (number, stage) in pipeline.stages.iter().enumerate() {
        writeln!(text, "  s{number}[\"{}<br/>{}\"]", stage.name, stage.kind.name()).expect("to a String");
    }
    for (from, to, port) in connections(pipeline) {
        let arrow = port.map_or("-.->".to_string(), |port| format!("-->|{port}|"));
        writeln!(text, "  s{from} {arrow} s{to}").expect("to a String");
    }
    text
}

/// (from, to, port that takes it); no port for `needs:`.
fn connections(pipeline: &Pipeline) -> Vec<(usize, usize, Option<&str>)> {
    let mut connections = Vec::new();
    for (to, stage) in pipeline.stages.iter().enumerate() {
        connections.extend(stage.inputs.iter().map(|(port, from)| (from.stage, to, Some(port.as_str()))));
        connections.extend(stage.needs.iter().map(|&need| (need, to, None)));
    }
    connections
}
