//! What changed since the last run, as lines below a stage.

use std::fmt::Write as _;

use super::style::Style;
use crate::explain::Explanation;
use crate::plan::Verdict;

/// The lines, each with `indent` before it and a line end after it.
pub(super) fn render(explanation: &Explanation, verdict: &Verdict, indent: &str, style: Style) -> String {
    let mut text = String::new();
    let mut line = |line: &str| writeln!(text, "{indent}{line}").expect("to a String");
    match &explanation.before {
        None => line(&style.dim("no earlier run of this file has this stage")),
        Some((run_id, _)) if explanation.changes.is_empty() => {
            line(&style.dim(&format!("nothing in its key changed since run {run_id}")));
        }
        Some((run_id, _)) => {
            line(&style.dim(&format!("since run {run_id}:")));
            for change in &explanation.changes {
                line(&format!("  {}", change.text()));
            }
        }
    }
    if !explanation.is_complete(verdict) {
        line(&style.red("no reason found: a mistake in pipe"));
    }
    text
}
