//! A live line per running stage, where stderr is a terminal: name, bar, how far, how fast, how long still.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::plain::finished_line;
use super::progress::Progress;
use super::style::Style;
use crate::events::{Event, Sink};

/// A narrow bar: percent, rate and time left must fit beside it in a terminal of 80 columns.
const WITH_BAR: &str = "{prefix}  [{bar:10}] {wide_msg}";

/// Draws below what was printed before, at most ten times per second.
pub struct LiveLines {
    lines: MultiProgress,
    running: BTreeMap<String, Line>,
    style: Style,
    width: usize,
    /// Once no stage is left, the summary follows at once and says every warning.
    n_unfinished: usize,
}

struct Line {
    bar: ProgressBar,
    progress: Option<Progress>,
}

impl LiveLines {
    /// Draws to stderr.
    pub fn new(style: Style) -> Self {
        let lines = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        LiveLines { lines, running: BTreeMap::new(), style, width: 0, n_unfinished: 0 }
    }

    fn print(&self, stage: &str, text: &str) {
        let name = self.style.bold(&format!("{stage:<width$}", width = self.width));
        let _ = self.lines.println(format!("{name}  {text}"));
    }

    fn start(&mut self, stage: &str) {
        let bar = self.lines.add(ProgressBar::new_spinner());
        bar.set_style(template("{prefix}  {spinner} {wide_msg}"));
        bar.set_prefix(self.style.bold(&format!("{stage:<width$}", width = self.width)));
        bar.set_message("running");
        self.running.insert(stage.to_string(), Line { bar, progress: None });
    }

    fn update(&mut self, at: Duration, stage: &str, progress: (u64, u64, pipe_contract::Unit)) {
        let Some(line) = self.running.get_mut(stage) else { return };
        let (done, total, unit) = progress;
        let had_bar = line.progress.is_some_and(|progress| progress.total() > 0);
        let progress = Progress::update(line.progress, at, done, total, unit);
        if total > 0 && !had_bar {
            line.bar.set_style(template(WITH_BAR).progress_chars("=> "));
        } else if total == 0 && had_bar {
            line.bar.set_style(template("{prefix}  {spinner} {wide_msg}"));
        }
        line.bar.set_length(total);
        line.bar.set_position(done);
        line.bar.set_message(progress.describe_live());
        line.progress = Some(progress);
    }
}

fn template(text: &str) -> ProgressStyle {
    ProgressStyle::with_template(text).expect("a literal template")
}

impl Sink for LiveLines {
    fn on(&mut self, at: Duration, event: &Event) {
        match event {
            Event::RunStarted { stages, .. } => {
                self.width = stages.iter().map(|name| name.len()).max().unwrap_or(0);
                self.n_unfinished = stages.len();
            }
            Event::StageStarted { stage, .. } => self.start(stage),
            Event::Progress { stage, done, total, unit } => self.update(at, stage, (*done, *total, *unit)),
            Event::Log { stage, line } => self.print(stage, line),
            Event::Warning { .. } if self.n_unfinished == 0 => {}
            Event::Warning { stage, line } => {
                self.print(stage.as_deref().unwrap_or(""), &format!("{}: {line}", self.style.yellow("warning")));
            }
            Event::StageFinished { stage, outcome, duration_ms, .. } => {
                self.n_unfinished = self.n_unfinished.saturating_sub(1);
                if let Some(line) = self.running.remove(stage) {
                    line.bar.finish_and_clear();
                    self.lines.remove(&line.bar);
                }
                if let Some(text) = finished_line(*outcome, *duration_ms, self.style) {
                    self.print(stage, &text);
                }
            }
            Event::RunFinished { .. } => drop(self.lines.clear()),
            Event::StagePlanned { .. } | Event::Fact { .. } | Event::Placed { .. } => {}
        }
    }

    fn tick(&mut self) {
        self.running.values().for_each(|line| line.bar.tick());
    }
}

#[cfg(test)]
mod tests {
    use pipe_contract::Unit;

    use super::*;

    #[test]
    fn percent_rate_and_time_left_fit_into_80_columns() {
        let n_beside = "  [".len() + 10 + "] ".len();
        assert!(WITH_BAR.contains("{prefix}  [{bar:10}] {wide_msg}"), "the width below is that of another line");
        for (unit, total, rate) in [
            (Unit::OptimizerSteps, 12_000, "0.20 optimizer steps/s"),
            (Unit::Tokens, 9_000_000_000, "100,000 tokens/s"),
            (Unit::Bytes, 900_000_000_000, "12.0 MB/s"),
        ] {
            let done = match unit {
                Unit::OptimizerSteps => 2_000,
                Unit::Tokens => 1_000_000_000,
                _ => 120_000_000_000,
            };
            let first = Progress::update(None, Duration::ZERO, 0, total, unit);
            let progress = Progress::update(Some(first), Duration::from_secs(10_000), done, total, unit);
            let message = progress.describe_live();
            let shown: String = message.chars().take(80 - "a_name_of_16_let".len() - n_beside).collect();
            for part in [" %, ", rate, " left"] {
                assert!(shown.contains(part), "`{part}` is cut off: {shown}");
            }
        }
    }
}
