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

use super::numbers::{self, plural};
use super::style::Style;
use crate::events::{Event, Failure, Sink};
use crate::schedule::Outcome;

/// On a line of the summary.
const N_FACTS_MAX: usize = 4;
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
            text.push_str(&self.table(style));
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

    fn table(&self, style: Style) -> String {
        let name_width = self.stages.iter().map(|stage| stage.name.len()).max().unwrap_or(0);
        let words: Vec<String> = self.stages.iter().map(|stage| word(stage.outcome)).collect();
        let word_width = words.iter().map(String::len).max().unwrap_or(0);
        let durations: Vec<String> = self.stages.iter().map(StageSummary::shown_duration).collect();
        let duration_width = durations.iter().map(String::len).max().unwrap_or(0);
        let mut text = String::new();
        for ((stage, word), duration) in self.stages.iter().zip(&words).zip(&durations) {
            let word = format!("{word:<word_width$}");
            let word = stage.outcome.map_or(word.clone(), |outcome| style.outcome(outcome, &word));
            let name = style.bold(&format!("{:<name_width$}", stage.name));
            let line = format!("{name}  {word}  {duration:>duration_width$}  {}", stage.shown_facts());
            writeln!(text, "{}", line.trim_end()).expect("to a String");
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

    fn shown_facts(&self) -> String {
        match (&self.failure, self.outcome) {
            (Some(failure), Some(Outcome::Skipped)) => failure.message.clone(),
            _ => {
                let facts = self.facts.iter().take(N_FACTS_MAX).map(|(name, value)| format!("{name} {value}"));
                facts.collect::<Vec<_>>().join(", ")
            }
        }
    }
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
            Event::StageFinished { stage, outcome, duration_ms, failure, checkpoint } => {
                if let Some(stage) = self.stage(stage) {
                    stage.outcome = Some(*outcome);
                    stage.duration = Duration::from_millis(*duration_ms);
                    stage.failure.clone_from(failure);
                    stage.checkpoint.clone_from(checkpoint);
                }
            }
            Event::Placed { stage, to, n_left, .. } => self.placed.push((stage.clone(), to.clone(), *n_left)),
            Event::RunFinished { duration_ms, is_interrupted } => {
                self.duration = Duration::from_millis(*duration_ms);
                self.is_interrupted = *is_interrupted;
            }
            Event::StagePlanned { .. } | Event::Progress { .. } => {}
        }
    }
}
