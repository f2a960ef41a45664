//! The screen of `pipe plan`: a line per stage with its verdict, what it will cost and why; with `--why` below each what changed.
//!
//! ```text
//! text     format  reuse
//! adapter  train   run      ~ 21.4 s, 14.0 MB        never made with these settings and inputs
//! scores   evaluate  pending  ~ time and size unknown  depends on what `adapter` gives
//! 3 stages: 1 reuse, 1 run, 1 pending
//! what runs takes at least 21.4 s and adds at least 14.0 MB to the store
//! ```

use std::fmt::Write as _;
use std::time::Duration;

use super::numbers::{self, plural};
use super::style::Style;
use super::why;
use crate::explain::Explanation;
use crate::plan::{Obstacle, Plan, Verdict};
use crate::predict::{Amount, Prediction, StagePrediction};
use crate::spec::Pipeline;

/// The table, the totals and what they cost, a line end after each line.
pub fn render(
    pipeline: &Pipeline,
    plan: &Plan,
    prediction: &Prediction,
    why: Option<&[Explanation]>,
    style: Style,
) -> String {
    let all: Vec<usize> = (0..plan.stages.len()).collect();
    let mut text = render_rows(pipeline, plan, &all, costs(prediction).as_deref(), why, style);
    text.extend([totals(plan).as_str(), "\n", total_cost(prediction).as_str()]);
    text
}

/// The lines of some stages, without what they cost.
pub fn render_stages(
    pipeline: &Pipeline,
    plan: &Plan,
    stages: &[usize],
    why: Option<&[Explanation]>,
    style: Style,
) -> String {
    render_rows(pipeline, plan, stages, None, why, style)
}

fn render_rows(
    pipeline: &Pipeline,
    plan: &Plan,
    stages: &[usize],
    costs: Option<&[String]>,
    why: Option<&[Explanation]>,
    style: Style,
) -> String {
    let name_width = pipeline.stages.iter().map(|stage| stage.name.len()).max().unwrap_or(0);
    let kind_width = pipeline.stages.iter().map(|stage| stage.kind.name().len()).max().unwrap_or(0);
    let verdict_width = plan.stages.iter().map(|stage| stage.verdict.name().len()).max().unwrap_or(0);
    let cost_width = costs.map_or(0, |costs| costs.iter().map(String::len).max().unwrap_or(0));
    let mut text = String::new();
    for &stage_idx in stages {
        let (stage, planned) = (&pipeline.stages[stage_idx], &plan.stages[stage_idx]);
        let name = style.bold(&format!("{:<name_width$}", stage.name));
        let verdict = verdict(&planned.verdict, &format!("{:<verdict_width$}", planned.verdict.name()), style);
        let kind = stage.kind.name();
        let cost = match costs {
            Some(costs) if cost_width > 0 => format!("{:<cost_width$}  ", costs[stage_idx]),
            _ => String::new(),
        };
        let line = format!("{name}  {kind:<kind_width$}  {verdict}  {cost}{}", planned.verdict.explain(pipeline));
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

/// By stage; `None` where nothing is known of any, which the last line says.
fn costs(prediction: &Prediction) -> Option<Vec<String>> {
    let is_known = prediction.makespan_ms.is_some() || prediction.bytes.is_some();
    let cost = |stage: &Option<Box<StagePrediction>>| stage.as_deref().map(cost).unwrap_or_default();
    is_known.then(|| prediction.stages.iter().map(cost).collect())
}

/// `~ 21.4 s, 14.0 MB`.
fn cost(stage: &StagePrediction) -> String {
    let size = stage.size.as_ref().map(|size| size.stored);
    match (stage.duration.map(numbers::duration), size.map(bytes)) {
        (Some(duration), Some(size)) => format!("~ {duration}, {size}"),
        (Some(duration), None) => format!("~ {duration}, size unknown"),
        (None, Some(size)) => format!("~ time unknown, {size}"),
        (None, None) => "~ time and size unknown".into(),
    }
}

/// `14.0 MB`, `at least 14.0 MB`.
fn bytes(amount: Amount) -> String {
    or_more(amount, numbers::bytes(amount.value))
}

fn or_more(amount: Amount, text: String) -> String {
    if amount.is_at_least { format!("at least {text}") } else { text }
}

/// The line below the totals; none where nothing runs.
fn total_cost(prediction: &Prediction) -> String {
    if prediction.stages.iter().all(Option::is_none) {
        return String::new();
    }
    let time =
        |amount: Amount| format!("takes {}", or_more(amount, numbers::duration(Duration::from_millis(amount.value))));
    let size = |amount: Amount| format!("adds {} to the store", bytes(amount));
    match (prediction.makespan_ms.map(time), prediction.bytes.map(size)) {
        (Some(time), Some(size)) => format!("what runs {time} and {size}\n"),
        (Some(known), None) => format!("what runs {known}; how much it adds to the store is not known\n"),
        (None, Some(known)) => format!("what runs {known}; how long it takes is not known\n"),
        (None, None) => {
            "how long this takes and how much it adds to the store is not known: none of it ran here before\n".into()
        }
    }
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
