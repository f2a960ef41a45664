//! Plain lines where stderr is not a terminal: what starts, what is said, how far it is now and then, what ends.
//!
//! How far it is, is said every ten seconds at first, and less often the longer it takes: a day has some 200 such lines.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use unicode_width::UnicodeWidthStr as _;

use super::numbers::{self, plural};
use super::progress::Progress;
use super::style::Style;
use super::summary::pad;
use crate::events::{Event, Failure, Sink};
use crate::schedule::Outcome;

/// A log file should not consist of progress: a line after a tenth of the time it already takes, within these bounds.
const PROGRESS_INTERVAL_MIN: Duration = Duration::from_secs(10);
const PROGRESS_INTERVAL_MAX: Duration = Duration::from_secs(600);

/// Writes a line per fact.
pub struct PlainLines<'a> {
    err: &'a mut dyn Write,
    style: Style,
    width: usize,
    /// Once no stage is left, the summary follows at once and says every warning.
    n_unfinished: usize,
    progress: BTreeMap<String, (Progress, Duration)>,
    /// The newest fact of each stage that runs.
    facts: BTreeMap<String, String>,
}

impl<'a> PlainLines<'a> {
    /// Writes to `err`. Lines that cannot be written are dropped: the run goes on.
    pub fn new(err: &'a mut dyn Write, style: Style) -> Self {
        PlainLines { err, style, width: 0, n_unfinished: 0, progress: BTreeMap::new(), facts: BTreeMap::new() }
    }

    fn line(&mut self, stage: &str, text: &str) {
        let name = self.style.bold(&pad(stage, self.width));
        // In one write: lines of other processes do not come between.
        let _ = self.err.write_all(format!("{name}  {text}\n").as_bytes());
    }

    fn on_progress(&mut self, at: Duration, stage: &str, progress: (u64, u64, pipe_contract::Unit)) {
        let (done, total, unit) = progress;
        let before = self.progress.get(stage).copied();
        let now = Progress::update(before.map(|(progress, _)| progress), at, done, total, unit);
        let shown_at = before.map_or(at, |(_, shown_at)| shown_at);
        let takes = at.saturating_sub(now.began_at());
        let interval = (takes / 10).clamp(PROGRESS_INTERVAL_MIN, PROGRESS_INTERVAL_MAX);
        let is_due = at.saturating_sub(shown_at) >= interval;
        self.progress.insert(stage.to_string(), (now, if is_due { at } else { shown_at }));
        if is_due {
            let fact = self.facts.get(stage).map(|fact| format!(", {fact}")).unwrap_or_default();
            self.line(stage, &format!("{}{fact}", now.describe()));
        }
    }
}

/// The line about a stage that has an outcome; none for those that were reused or never started.
pub(super) fn finished_line(outcome: Outcome, duration_ms: u64, style: Style) -> Option<String> {
    let duration = numbers::duration(Duration::from_millis(duration_ms));
    match outcome {
        Outcome::Ran => Some(format!("{} in {duration}", style.outcome(outcome, "ran"))),
        Outcome::Failed => Some(format!("{} after {duration}", style.outcome(outcome, "failed"))),
        Outcome::Cancelled if duration_ms > 0 => {
            Some(format!("{} after {duration}", style.outcome(outcome, "cancelled")))
        }
        Outcome::Reused | Outcome::Skipped | Outcome::Cancelled => None,
    }
}

/// The line about a stage that failed and is tried again.
pub(super) fn retried_line(n_failures: usize, n_tries_max: usize, delay_ms: u64, failure: &Failure) -> String {
    let delay = numbers::duration(Duration::from_millis(delay_ms));
    format!("try {n_failures} of {n_tries_max} failed: {}; again in {delay}", failure.message)
}

impl Sink for PlainLines<'_> {
    fn on(&mut self, at: Duration, event: &Event) {
        match event {
            Event::RunStarted { stages, .. } => {
                self.width = stages.iter().map(|name| name.width()).max().unwrap_or(0);
                self.n_unfinished = stages.len();
            }
            Event::StageStarted { stage, n_threads, .. } => {
                self.line(stage, &format!("started, {}", plural(*n_threads, "thread")));
            }
            Event::Progress { stage, done, total, unit } => self.on_progress(at, stage, (*done, *total, *unit)),
            Event::Log { stage, line } => self.line(stage, &format!("| {line}")),
            Event::Warning { .. } if self.n_unfinished == 0 => {}
            Event::Warning { stage, line } => {
                let text = format!("{}: {line}", self.style.yellow("warning"));
                self.line(stage.as_deref().unwrap_or(""), &text);
            }
            Event::StageRetried { stage, n_failures, n_tries_max, delay_ms, failure } => {
                self.line(stage, &retried_line(*n_failures, *n_tries_max, *delay_ms, failure));
            }
            Event::StageFinished { stage, outcome, duration_ms, .. } => {
                self.n_unfinished = self.n_unfinished.saturating_sub(1);
                if let Some(text) = finished_line(*outcome, *duration_ms, self.style) {
                    self.line(stage, &text);
                }
            }
            Event::Fact { stage, name, value } => drop(self.facts.insert(stage.clone(), format!("{name} {value}"))),
            Event::StagePlanned { .. }
            | Event::Usage { .. }
            | Event::Diverged { .. }
            | Event::Placed { .. }
            | Event::RunFinished { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use pipe_contract::Unit;

    use super::*;

    #[test]
    fn progress_is_shown_every_ten_seconds_with_the_newest_fact() {
        let mut err = Vec::new();
        let mut lines = PlainLines::new(&mut err, Style::PLAIN);
        lines.on(Duration::ZERO, &Event::Fact { stage: "text".into(), name: "loss".into(), value: "2.3131".into() });
        for second in 0..=25 {
            let event = Event::Progress { stage: "text".into(), done: second * 100, total: 5_000, unit: Unit::Rows };
            lines.on(Duration::from_secs(second), &event);
        }
        insta::assert_snapshot!(String::from_utf8(err).expect("UTF-8"), @r"
        text  1,000 of 5,000 rows, 20 %, 100 rows/s, 40.0 s left, loss 2.3131
        text  2,000 of 5,000 rows, 40 %, 100 rows/s, 30.0 s left, loss 2.3131
        ");
    }

    #[test]
    fn a_day_of_progress_is_a_page_or_two() {
        let mut err = Vec::new();
        let mut lines = PlainLines::new(&mut err, Style::PLAIN);
        for second in 0..=86_400 {
            let event = Event::Progress { stage: "text".into(), done: second, total: 86_400, unit: Unit::Tokens };
            lines.on(Duration::from_secs(second), &event);
        }
        let n_lines = String::from_utf8(err).expect("UTF-8").lines().count();
        assert!((150..250).contains(&n_lines), "{n_lines} lines");
    }
}
