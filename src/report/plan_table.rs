//! The screen of `pipe plan`: a line per stage with its verdict and why; with `--why` below each what changed.

use std::fmt::Write as _;

use super::numbers::plural;
use super::style::Style;
use super::why;
use crate::explain::Explanation;
use crate::plan::{Obstacle, Plan, Verdict};
use crate::spec::Pipeline;

/// The table and the totals, a line end after each line.
pub fn render(pipeline: &Pipeline, plan: &Plan, why: Option<&[Explanation]>, style: Style) -> String {
    let all: Vec<usize> = (0..plan.stages.len()).collect();
    format!("{}{}\n", render_stages(pipeline, plan, &all, why, style), totals(plan))
}

/// The lines of some stages.
pub fn render_stages(
    pipeline: &Pipeline,
    plan: &Plan,
    stages: &[usize],
    why: Option<&[Explanation]>,
    style: Style,
) -> String {
    let name_width = pipeline.stages.iter().map(|stage| stage.name.len()).max().unwrap_or(0);
    let kind_width = pipeline.stages.iter().map(|stage| stage.kind.name().len()).max().unwrap_or(0);
    let verdict_width = plan.stages.iter().map(|stage| stage.verdict.name().len()).max().unwrap_or(0);
    let mut text = String::new();
    for &stage_idx in stages {
        let (stage, planned) = (&pipeline.stages[stage_idx], &plan.stages[stage_idx]);
        let name = style.bold(&format!("{:<name_width$}", stage.name));
        let verdict = verdict(&planned.verdict, &format!("{:<verdict_width$}", planned.verdict.name()), style);
        let kind = stage.kind.name();
        let line = format!("{name}  {kind:<kind_width$}  {verdict}  {}", planned.verdict.explain(pipeline));
        writeln!(text, "{}", line.trim_end()).expect("to a String");
        if let Verdict::Blocked(Obstacle::Source { help: Some(help), .. }) = &planned.verdict {
            writeln!(text, "{:name_width$}  help: {help}", "").expect("to a String");
        }
        if let Some(why) = why {
            text.push_str(&why::render(&why[stage_idx], &planned.verdict, &" ".repeat(name_width + 2), style));
        }
    }
    text
}

/// `7 stages: 2 reuse, 1 run, 4 pending`.
fn totals(plan: &Plan) -> String {
    let counts = ["reuse", "run", "pending", "blocked"].map(|name| {
        let n = plan.stages.iter().filter(|stage| stage.verdict.name() == name).count();
        (n, name)
    });
    let parts: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, name)| format!("{n} {name}")).collect();
    format!("{}: {}", plural(plan.stages.len(), "stage"), parts.join(", "))
}

/// The word of a verdict, `text` being it with what pads it.
pub(super) fn verdict(verdict: &Verdict, text: &str, style: Style) -> String {
    match verdict {
        Verdict::Reuse { .. } => style.dim(text),
        Verdict::Run(_) => style.green(text),
        Verdict::Pending { .. } => style.yellow(text),
        Verdict::Blocked(_) => style.red(text),
    }
}
