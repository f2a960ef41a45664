//! The end of a run: what became of each stage, what went wrong and what to do about it, where the results lie.
//!
//! ```text
//! dataset  reused         rows 2,000
//! text     ran     0.4 s  rows 2,000, differences 0
//! adapter  failed  1.2 s
//!
//! error[out-of-memory]: stage `adapter` failed: ...
//! help: ...
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use unicode_width::UnicodeWidthStr as _;

use super::numbers::{self, plural};
use super::style::Style;
use crate::events::{Event, Failure, Sink};
use crate::schedule::Outcome;

/// A terminal narrower than that is not wrapped for.
const FACTS_WIDTH_MIN: usize = 24;
/// Of a stage that failed.
const N_LOG_LINES: usize = 8;

/// What the summary says besides the events.
#[derive(Clone, Debug, Default)]
pub struct SummaryContext {
    /// The store's folder as the user would write it.
    pub store: PathBuf,
    /// The folder of this run's logs, likewise.
    pub run_dir: PathBuf,
    /// What to type to go on after a failure.
    pub resume_command: String,
    /// What to type for a page with all of it.
    pub report_command: String,
    /// Columns of the terminal; `None` where there is none, and lines are as long as they are.
    pub columns: Option<usize>,
}

/// A fold over the events of a run.
#[derive(Debug, Default)]
pub struct Summary {
    stages: Vec<StageSummary>,
    /// Name to position in `stages`.
    positions: BTreeMap<String, usize>,
    warnings: Vec<(Option<String>, String)>,
    /// The stage, its folder, and how many files there were left alone.
    placed: Vec<(String, PathBuf, usize)>,
    duration: Duration,
    is_interrupted: bool,
}

#[derive(Debug, Default)]
struct StageSummary {
    name: String,
    outcome: Option<Outcome>,
    duration: Duration,
    /// Before the last try.
    n_failed_tries: usize,
    facts: Vec<(String, String)>,
    log: VecDeque<String>,
    failure: Option<Failure>,
    checkpoint: Option<PathBuf>,
}

impl Summary {
    fn stage(&mut self, name: &str) -> Option<&mut StageSummary> {
        self.positions.get(name).map(|&position| &mut self.stages[position])
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.stages.iter().filter(|stage| stage.outcome == Some(outcome)).count()
    }

    /// The whole screen.
    pub fn render(&self, context: &SummaryContext, style: Style) -> String {
        let mut text = String::new();
        if self.count(Outcome::Reused) == self.stages.len() {
            let n_stages = plural(self.stages.len(), "stage");
            let all = if self.stages.len() == 1 { "" } else { "all " };
            writeln!(text, "{n_stages}, {all}reused in {}", numbers::duration(self.duration)).expect("to a String");
        } else {
            text.push('\n');
            text.push_str(&self.table(context, style));
            text.push_str(&self.failures(context, style));
            text.push('\n');
            writeln!(text, "{}", style.bold(&self.totals())).expect("to a String");
        }
        text.push_str(&self.places(context, style));
        text.push_str(&self.warning_lines(style));
        if self.is_interrupted {
            let kept = self.kept().map(|kept| format!("; kept: {kept}")).unwrap_or_default();
            writeln!(text, "interrupted{kept}; go on with: {}", context.resume_command).expect("to a String");
        }
        text
    }

    /// What went wrong, without the rest: for runs whose events go to a program.
    pub fn render_failures(&self, context: &SummaryContext, style: Style) -> String {
        self.failures(context, style).trim_start_matches('\n').to_string()
    }

    fn table(&self, context: &SummaryContext, style: Style) -> String {
        let name_width = self.stages.iter().map(|stage| stage.name.width()).max().unwrap_or(0);
        let words: Vec<String> = self.stages.iter().map(|stage| word(stage.outcome)).collect();
        let word_width = words.iter().map(String::len).max().unwrap_or(0);
        let durations: Vec<String> = self.stages.iter().map(StageSummary::shown_duration).collect();
        let duration_width = durations.iter().map(String::len).max().unwrap_or(0);
        let facts_at = name_width + word_width + duration_width + 6;
        let facts_width =
            context.columns.map_or(usize::MAX, |columns| columns.saturating_sub(facts_at).max(FACTS_WIDTH_MIN));
        let mut text = String::new();
        for ((stage, word), duration) in self.stages.iter().zip(&words).zip(&durations) {
            let word = format!("{word:<word_width$}");
            let word = stage.outcome.map_or(word.clone(), |outcome| style.outcome(outcome, &word));
            let name = style.bold(&pad(&stage.name, name_width));
            let facts = wrap(&stage.shown_facts(), facts_width);
            let first = facts.first().map_or("", String::as_str);
            let line = format!("{name}  {word}  {duration:>duration_width$}  {first}");
            writeln!(text, "{}", line.trim_end()).expect("to a String");
            for more in facts.iter().skip(1) {
                writeln!(text, "{:facts_at$}{more}", "").expect("to a String");
            }
        }
        text
    }

    fn totals(&self) -> String {
        let outcomes = [Outcome::Reused, Outcome::Ran, Outcome::Failed, Outcome::Skipped, Outcome::Cancelled];
        let counted = outcomes.map(|outcome| (self.count(outcome), word(Some(outcome))));
        let parts: Vec<String> =
            counted.into_iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
        format!("{} in {}", parts.join(", "), numbers::duration(self.duration))
    }

    fn places(&self, context: &SummaryContext, style: Style) -> String {
        let mut text = String::new();
        for (stage, to, n_left) in &self.placed {
            let (stage, to) = (style.bold(stage), to.display());
            match n_left {
                0 => writeln!(text, "results of {stage} in {to}"),
                1 => writeln!(
                    text,
                    "NOT all results of {stage} in {to}: 1 file there is not from this store and was left alone"
                ),
                n => writeln!(
                    text,
                    "NOT all results of {stage} in {to}: {n} files there are not from this store and were left alone"
                ),
            }
            .expect("to a String");
        }
        writeln!(text, "everything in {}", context.store.display()).expect("to a String");
        writeln!(text, "as a page with charts: {}", context.report_command).expect("to a String");
        text
    }

    fn warning_lines(&self, style: Style) -> String {
        let mut text = String::new();
        for (stage, line) in &self.warnings {
            let stage = stage.as_ref().map(|stage| format!("{stage}: ")).unwrap_or_default();
            writeln!(text, "{}: {stage}{line}", style.yellow("warning")).expect("to a String");
        }
        text
    }

    fn failures(&self, context: &SummaryContext, style: Style) -> String {
        let mut text = String::new();
        for stage in &self.stages {
            match &stage.failure {
                Some(failure) if stage.outcome == Some(Outcome::Failed) => {
                    text.push('\n');
                    text.push_str(&self.failure(stage, failure, context, style));
                }
                _ => {}
            }
        }
        text
    }

    /// What the next run does not have to do again.
    fn kept(&self) -> Option<String> {
        let n_finished = self.count(Outcome::Ran) + self.count(Outcome::Reused);
        let finished = (n_finished > 0).then(|| plural(n_finished, "finished stage"));
        let with_state = self.stages.iter().filter(|stage| stage.checkpoint.is_some());
        let states = with_state.map(|stage| format!("the state of `{}` at its last checkpoint", stage.name));
        let kept: Vec<String> = finished.into_iter().chain(states).collect();
        (!kept.is_empty()).then(|| kept.join(", "))
    }

    fn failure(&self, stage: &StageSummary, failure: &Failure, context: &SummaryContext, style: Style) -> String {
        let mut text = String::new();
        let mut line = |line: String| writeln!(text, "{line}").expect("to a String");
        let error = style.red(&format!("error[{}]", failure.slug));
        line(format!("{error}: stage `{}` failed: {}", stage.name, failure.message));
        if let Some(help) = &failure.help {
            line(format!("{}: {help}", style.bold("help")));
        }
        if !stage.log.is_empty() {
            line("its last lines:".to_string());
            stage.log.iter().for_each(|logged| line(format!("  | {logged}")));
        }
        line(format!("log: {}", crate::events::log_path(&context.run_dir, &stage.name).display()));
        if let Some(kept) = self.kept() {
            line(format!("kept: {kept}"));
        }
        line(format!("go on with: {}", context.resume_command));
        text
    }
}

impl StageSummary {
    fn shown_duration(&self) -> String {
        match self.outcome {
            Some(Outcome::Ran | Outcome::Failed) => numbers::duration(self.duration),
            Some(Outcome::Cancelled) if !self.duration.is_zero() => numbers::duration(self.duration),
            _ => String::new(),
        }
    }

    fn shown_facts(&self) -> Vec<String> {
        match (&self.failure, self.outcome) {
            (Some(failure), Some(Outcome::Skipped)) => vec![failure.message.clone()],
            _ => {
                let tries = (self.n_failed_tries > 0).then(|| format!("{} tries", self.n_failed_tries + 1));
                tries.into_iter().chain(self.facts.iter().map(|(name, value)| format!("{name} {value}"))).collect()
            }
        }
    }
}

/// Text with blanks behind it, up to `width` columns.
pub(super) fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

/// Parts with commas between them, on lines of at most `width` columns; a part is not divided.
fn wrap(parts: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (position, part) in parts.iter().enumerate() {
        let comma = if position + 1 < parts.len() { "," } else { "" };
        match lines.last_mut() {
            Some(line) if line.width() + 1 + part.width() + comma.len() <= width => {
                line.push_str(&format!(" {part}{comma}"));
            }
            _ => lines.push(format!("{part}{comma}")),
        }
    }
    lines
}

fn word(outcome: Option<Outcome>) -> String {
    match outcome {
        Some(Outcome::Reused) => "reused",
        Some(Outcome::Ran) => "ran",
        Some(Outcome::Failed) => "failed",
        Some(Outcome::Skipped) => "skipped",
        Some(Outcome::Cancelled) => "cancelled",
        None => "",
    }
    .to_string()
}

impl Sink for Summary {
    fn on(&mut self, _at: Duration, event: &Event) {
        match event {
            Event::RunStarted { stages, .. } => {
                self.positions = stages.iter().cloned().zip(0..).collect();
                self.stages =
                    stages.iter().map(|name| StageSummary { name: name.clone(), ..StageSummary::default() }).collect();
            }
            Event::StageStarted { stage, .. } => {
                if let Some(stage) = self.stage(stage) {
                    stage.facts.clear();
                }
            }
            Event::StageRetried { stage, n_failures, .. } => {
                if let Some(stage) = self.stage(stage) {
                    stage.n_failed_tries = *n_failures;
                }
            }
            Event::Log { stage, line } => {
                if let Some(stage) = self.stage(stage) {
                    if stage.log.len() == N_LOG_LINES {
                        stage.log.pop_front();
                    }
                    stage.log.push_back(line.clone());
                }
            }
            Event::Warning { stage, line } => self.warnings.push((stage.clone(), line.clone())),
            Event::Fact { stage, name, value } => {
                if let Some(stage) = self.stage(stage) {
                    stage.facts.retain(|(known, _)| known != name);
                    stage.facts.push((name.clone(), value.clone()));
                }
            }
            Event::StageFinished { stage, outcome, duration_ms, failure, checkpoint, .. } => {
                if let Some(stage) = self.stage(stage) {
                    stage.outcome = Some(*outcome);
                    stage.duration = Duration::from_millis(*duration_ms);
                    stage.failure.clone_from(failure);
                    stage.checkpoint.clone_from(checkpoint);
                }
            }
            Event::Placed { stage, to, n_left, .. } => self.placed.push((stage.clone(), to.clone(), *n_left)),
            Event::RunFinished { duration_ms, is_interrupted, .. } => {
                self.duration = Duration::from_millis(*duration_ms);
                self.is_interrupted = *is_interrupted;
            }
            Event::StagePlanned { .. } | Event::Progress { .. } | Event::Usage { .. } | Event::Diverged { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_wrapped_to_the_terminal_and_none_is_cut() {
        let mut summary = Summary::default();
        let request = crate::events::RunRequest::default();
        let stages = vec!["rows".to_string(), "数据".to_string()];
        let finished = |stage: &str| Event::StageFinished {
            stage: stage.into(),
            outcome: Outcome::Ran,
            duration_ms: 1_500,
            failure: None,
            checkpoint: None,
            fingerprint: None,
        };
        let fact = |stage: &str, name: &str, value: &str| Event::Fact {
            stage: stage.into(),
            name: name.into(),
            value: value.into(),
        };
        let (run_id, pipeline) = (String::new(), String::new());
        for event in [
            Event::RunStarted { format_version: 1, run_id, pipeline, request, n_threads: 2, stages },
            fact("rows", "rows", "2,000"),
            fact("数据", "packs", "145"),
            fact("数据", "documents", "600"),
            fact("数据", "supervised tokens", "35,063"),
            fact("数据", "fill", "96.1 %"),
            finished("rows"),
            finished("数据"),
        ] {
            summary.on(Duration::ZERO, &event);
        }
        let at = |columns| summary.table(&SummaryContext { columns, ..SummaryContext::default() }, Style::PLAIN);
        insta::assert_snapshot!(at(Some(50)), @r"
        rows  ran  1.5 s  rows 2,000
        数据  ran  1.5 s  packs 145, documents 600,
                          supervised tokens 35,063,
                          fill 96.1 %
        ");
        insta::assert_snapshot!(at(None), @r"
        rows  ran  1.5 s  rows 2,000
        数据  ran  1.5 s  packs 145, documents 600, supervised tokens 35,063, fill 96.1 %
        ");
    }
}
