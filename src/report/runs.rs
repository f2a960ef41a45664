//! The list of `pipe runs`: a line per run, newest first; and a run as JSON.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr;

use super::numbers::{duration, plural};
use super::shell::run_command;
use super::style::Style;
use super::summary::pad;
use crate::record::RunRecord;
use crate::schedule::Outcome;

/// `ok`, `failed`, `interrupted`, or `no end`: it goes on, or was killed.
fn word(record: &RunRecord) -> &'static str {
    match record.end {
        None => "no end",
        Some(end) if end.is_interrupted => "interrupted",
        Some(_) if record.count(Outcome::Failed) > 0 => "failed",
        Some(_) => "ok",
    }
}

/// The lines, a line end after each.
pub fn list(records: &[RunRecord], style: Style) -> String {
    let words = records.iter().map(|record| word(record).len()).max().unwrap_or(0);
    let counted: Vec<String> = records.iter().map(counts).collect();
    let counts_width = counted.iter().map(|text| text.width()).max().unwrap_or(0);
    let mut text = String::new();
    for (record, counts) in records.iter().zip(&counted) {
        let word = colour(record, &pad(word(record), words), style);
        let counts = pad(counts, counts_width);
        let took = record.end.map(|end| duration(end.duration)).unwrap_or_default();
        let line =
            format!("{}  {word}  {counts}  {took:>11}  {}", style.bold(&record.run_id), run_command(&record.request));
        writeln!(text, "{}", line.trim_end()).expect("to a String");
    }
    text
}

/// One run in a line, without line end.
pub fn line(record: &RunRecord, style: Style) -> String {
    let word = colour(record, word(record), style);
    format!("{}  {word}  {}", style.bold(&record.run_id), run_command(&record.request))
}

fn colour(record: &RunRecord, text: &str, style: Style) -> String {
    match word(record) {
        "ok" => style.green(text),
        "failed" => style.red(text),
        _ => style.yellow(text),
    }
}

/// `2 ran, 5 reused, 1 diverged`.
fn counts(record: &RunRecord) -> String {
    let n_diverged = record.stages.iter().filter(|stage| stage.is_divergent).count();
    let counted = [
        (record.count(Outcome::Ran), "ran"),
        (record.count(Outcome::Reused), "reused"),
        (record.count(Outcome::Failed), "failed"),
        (record.count(Outcome::Skipped), "skipped"),
        (record.count(Outcome::Cancelled), "cancelled"),
        (n_diverged, "diverged"),
    ];
    let parts: Vec<String> = counted.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    if parts.is_empty() { plural(record.stages.len(), "stage") } else { parts.join(", ") }
}

/// `{ "run_id", "pipeline", "request", "result", "duration_ms", "stages": [...] }`.
pub fn to_json(record: &RunRecord) -> serde_json::Value {
    let stage = |stage: &crate::record::RecordedStage| {
        let facts: serde_json::Map<String, serde_json::Value> =
            stage.facts.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        serde_json::json!({
            "stage": stage.name,
            "kind": stage.kind,
            "outcome": stage.outcome,
            "duration_ms": stage.duration.as_millis() as u64,
            "fingerprint": stage.fingerprint,
            "is_divergent": stage.is_divergent,
            "failure": stage.failure,
            "facts": facts,
        })
    };
    serde_json::json!({
        "format_version": 1,
        "run_id": record.run_id,
        "pipeline": record.pipeline,
        "request": record.request,
        "result": word(record),
        "duration_ms": record.end.map(|end| end.duration.as_millis() as u64),
        "stages": record.stages.iter().map(stage).collect::<Vec<_>>(),
    })
}
