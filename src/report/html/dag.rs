//! The stages and what flows between them, as SVG: a box per stage with its ports, linked to its section.
//!
//! ```text
//! +---------------------+
//! | v packed            |   symbol of the outcome, name
//! |   tokenize, 0.4 s   |   kind, duration
//! o examples     packed o   ports: inputs left, outputs right
//! o model               |
//! +---------------------+
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr as _;

use super::data::{ReportData, StageData};
use super::layers::{BoxSize, Link, lay_out};
use super::markup::{anchor, escape, word};
use crate::report::numbers;

const HEAD: f64 = 46.0;
const PORT: f64 = 19.0;
const FOOT: f64 = 7.0;
const GAP_X: f64 = 52.0;
const GAP_Y: f64 = 20.0;
const MARGIN: f64 = 6.0;
/// A fair guess of what a character takes: the font is the reader's.
const NAME_CHARACTER: f64 = 9.6;
const SMALL_CHARACTER: f64 = 7.0;

/// A box on its way to the drawing.
struct Node<'a> {
    stage: &'a StageData,
    inputs: Vec<&'a str>,
    outputs: Vec<String>,
    subtitle: String,
    size: BoxSize,
    width: f64,
}

/// An `svg` element; empty text where the run does not say how its stages are connected.
pub(super) fn render(data: &ReportData) -> String {
    if data.stages.iter().any(|stage| stage.spec.is_none()) {
        return String::new();
    }
    let nodes = nodes(data);
    let links = links(data, &nodes);
    let sizes: Vec<BoxSize> = nodes.iter().map(|node| node.size.clone()).collect();
    let only_links: Vec<Link> = links.iter().map(|(link, _)| *link).collect();
    let layout = lay_out(&sizes, &only_links, GAP_Y);
    let n_layers = layout.layers.iter().max().map_or(0, |last| last + 1);
    let mut lefts = Vec::new();
    let mut left = MARGIN;
    for layer in 0..n_layers {
        let widths = nodes.iter().zip(&layout.layers).filter(|(_, own)| **own == layer).map(|(node, _)| node.width);
        let width = widths.fold(40.0, f64::max);
        lefts.push((left, width));
        left += width + GAP_X;
    }
    let (width, height) = (left - GAP_X + MARGIN, layout.height + 2.0 * MARGIN);
    let mut svg = format!(
        "<svg class=\"dag\" viewBox=\"0 0 {width:.0} {height:.0}\" style=\"--w:{width:.0}px\" role=\"group\" \
         aria-label=\"The stages of {} and what flows between them\">",
        escape(&data.pipeline)
    );
    for ((link, title), bends) in links.iter().zip(&layout.bends) {
        svg.push_str(&draw_link(*link, title, bends, &nodes, &layout.layers, &layout.tops, &lefts));
    }
    for (position, node) in nodes.iter().enumerate() {
        let (left, column) = lefts[layout.layers[position]];
        svg.push_str(&draw_node(node, left, column, layout.tops[position] + MARGIN));
    }
    svg.push_str("</svg>");
    svg
}

fn nodes(data: &ReportData) -> Vec<Node<'_>> {
    let mut outputs: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for stage in &data.stages {
        let made = stage.made.iter().flat_map(|made| made.manifest.outputs.keys().cloned());
        outputs.insert(&stage.name, made.collect());
    }
    for (from, port) in data.stages.iter().flat_map(sources) {
        let known = outputs.entry(from).or_default();
        if !known.iter().any(|name| name == port) {
            known.push(port.to_string());
        }
    }
    data.stages.iter().map(|stage| node(stage, outputs.remove(stage.name.as_str()).unwrap_or_default())).collect()
}

/// Stage and output of each input.
fn sources(stage: &StageData) -> impl Iterator<Item = (&str, &str)> {
    stage.spec.iter().flat_map(|spec| spec.inputs.values().filter_map(|from| from.rsplit_once('.')))
}

fn node(stage: &StageData, outputs: Vec<String>) -> Node<'_> {
    let inputs: Vec<&str> = stage.spec.iter().flat_map(|spec| spec.inputs.keys().map(String::as_str)).collect();
    let duration = stage.duration().map(|duration| format!(", {}", numbers::duration(duration))).unwrap_or_default();
    let subtitle = format!("{}{duration}", stage.kind);
    let n_rows = inputs.len().max(outputs.len());
    let row = |number: usize| HEAD + PORT * (number as f64 + 0.5);
    // `needs:` has no port: its line ends on the head, behind all inputs.
    let ends: Vec<f64> = (0..inputs.len()).map(row).chain([HEAD / 2.0]).collect();
    let starts: Vec<f64> = (0..outputs.len()).map(row).chain([HEAD / 2.0]).collect();
    let ports = (0..n_rows).map(|number| {
        let width = |name: Option<&str>| name.map_or(0, |name| name.width());
        width(inputs.get(number).copied()) + width(outputs.get(number).map(String::as_str)) + 3
    });
    let ports_width = ports.max().unwrap_or(0) as f64 * SMALL_CHARACTER + 16.0;
    let name_width = stage.name.width() as f64 * NAME_CHARACTER + 44.0;
    let subtitle_width = subtitle.width() as f64 * SMALL_CHARACTER + 44.0;
    Node {
        width: ports_width.max(name_width).max(subtitle_width),
        size: BoxSize { height: HEAD + n_rows as f64 * PORT + FOOT, inputs: ends, outputs: starts },
        stage,
        inputs,
        outputs,
        subtitle,
    }
}

/// Every line with what it means.
fn links(data: &ReportData, nodes: &[Node<'_>]) -> Vec<(Link, String)> {
    let mut links = Vec::new();
    for (to, node) in nodes.iter().enumerate() {
        let Some(spec) = &node.stage.spec else { continue };
        for (input, (port, from)) in spec.inputs.iter().enumerate() {
            let Some((stage, output)) = from.rsplit_once('.') else { continue };
            let Some(from_idx) = data.position(stage) else { continue };
            let Some(output) = nodes[from_idx].outputs.iter().position(|name| name == output) else { continue };
            let title = format!("{from} \u{2192} {}.{port}", node.stage.name);
            links.push((Link { from: from_idx, output, to, input }, title));
        }
        for need in &spec.needs {
            let Some(from) = data.position(need) else { continue };
            let title = format!("{} waits for {need}", node.stage.name);
            links.push((Link { from, output: nodes[from].outputs.len(), to, input: node.inputs.len() }, title));
        }
    }
    links
}

fn draw_link(
    link: Link,
    title: &str,
    bends: &[f64],
    nodes: &[Node<'_>],
    layers: &[usize],
    tops: &[f64],
    lefts: &[(f64, f64)],
) -> String {
    let (from, to) = (&nodes[link.from], &nodes[link.to]);
    let (left, width) = lefts[layers[link.from]];
    let mut x = left + width;
    let mut y = tops[link.from] + from.size.outputs[link.output] + MARGIN;
    let mut path = format!("M{x:.1} {y:.1}");
    let mut curve_to = |end_x: f64, end_y: f64, through: f64| {
        let middle = f64::midpoint(x, end_x);
        write!(path, "C{middle:.1} {y:.1} {middle:.1} {end_y:.1} {end_x:.1} {end_y:.1}").expect("to a String");
        if through > 0.0 {
            write!(path, "h{through:.1}").expect("to a String");
        }
        (x, y) = (end_x + through, end_y);
    };
    for (bend, &(left, width)) in bends.iter().zip(&lefts[layers[link.from] + 1..]) {
        curve_to(left, bend + MARGIN, width);
    }
    curve_to(lefts[layers[link.to]].0, tops[link.to] + to.size.inputs[link.input] + MARGIN, 0.0);
    let class = if link.input == to.inputs.len() { "link needs" } else { "link" };
    format!("<path class=\"{class}\" d=\"{path}\"><title>{}</title></path>", escape(title))
}

fn draw_node(node: &Node<'_>, left: f64, width: f64, top: f64) -> String {
    let outcome = word(node.stage.outcome);
    let height = node.size.height;
    let (name, id) = (escape(&node.stage.name), anchor(&node.stage.name));
    let mut svg = format!(
        "<a href=\"#{id}\" class=\"node {outcome}\" aria-label=\"{name}, {}, {outcome}\"><title>{name}: {outcome}</title>\
         <rect class=\"box\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"7\"/>\
         <svg class=\"symbol\" x=\"{:.1}\" y=\"{:.1}\" width=\"16\" height=\"16\"><use href=\"#i-{outcome}\"/></svg>\
         <text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{name}</text><text class=\"kind\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        escape(&node.subtitle),
        left + 10.0,
        top + 8.0,
        left + 32.0,
        top + 21.0,
        left + 32.0,
        top + 37.0,
        escape(&node.subtitle)
    );
    for (number, port) in node.inputs.iter().enumerate() {
        let y = top + node.size.inputs[number];
        write!(
            svg,
            "<circle cx=\"{left:.1}\" cy=\"{y:.1}\" r=\"3\"/><text class=\"port\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            left + 10.0,
            y + 4.0,
            escape(port)
        )
        .expect("to a String");
    }
    for (number, port) in node.outputs.iter().enumerate() {
        let (x, y) = (left + width, top + node.size.outputs[number]);
        write!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/><text class=\"port end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x - 10.0,
            y + 4.0,
            escape(port)
        )
        .expect("to a String");
    }
    svg.push_str("</a>");
    svg
}
