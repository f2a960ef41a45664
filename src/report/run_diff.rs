//! The screen of `pipe diff`: below each stage what is not the same in the second run.

use std::fmt::Write as _;

use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use super::numbers::plural;
use super::style::Style;
use super::summary::pad;
use crate::diff::{Place, StageDiff, ValueDiff};
use crate::record::RunRecord;

/// The lines, a line end after each.
pub fn render(first: &RunRecord, second: &RunRecord, stages: &[StageDiff], style: Style) -> String {
    let mut text = format!("{} -> {}\n", style.bold(&first.run_id), style.bold(&second.run_id));
    let width = stages.iter().filter(|stage| !stage.is_same()).map(|stage| stage.stage.width()).max().unwrap_or(0);
    for stage in stages.iter().filter(|stage| !stage.is_same()) {
        let mut lines: Vec<String> = stage.settings.iter().map(value_line).collect();
        lines.extend(stage.facts.iter().map(value_line));
        lines.extend(stage.outputs.iter().map(|difference| difference.text()));
        match stage.place {
            Place::Both => {}
            Place::First => lines.push("only in the first".into()),
            Place::Second => lines.push("only in the second".into()),
        }
        for (idx, line) in lines.iter().enumerate() {
            let name = if idx == 0 { style.bold(&pad(&stage.stage, width)) } else { " ".repeat(width) };
            writeln!(text, "{name}  {line}").expect("to a String");
        }
    }
    let n_same = stages.iter().filter(|stage| stage.is_same()).count();
    writeln!(text, "{}: {n_same} the same", plural(stages.len(), "stage")).expect("to a String");
    text
}

/// `with.lora.r: 16 -> 8`; text without quotes.
fn value_line(value: &ValueDiff) -> String {
    let shown = |value: &Value| match value {
        Value::Null => "(none)".to_string(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    format!("{}: {} -> {}", value.name, shown(&value.old), shown(&value.new))
}
