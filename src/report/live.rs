//! A live line per running stage, where stderr is a terminal, and one for the run below them.
//!
//! ```text
//! adapter  [=====>    ] 52 %, 1,204 tokens/s, 1 min 03 s left, loss 2.3131, 74,240 of 142,000 tokens
//! samples  - 4.1 s
//! 5 of 9 stages done, 2 running, 2 waiting; 2 min 10 s; 812.3 MB
//! ```
//!
//! What matters most comes first: a line that does not fit is cut.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use unicode_width::UnicodeWidthStr as _;

use super::numbers::{self, plural};
use super::plain::{finished_line, retried_line};
use super::progress::Progress;
use super::style::Style;
use super::summary::pad;
use crate::events::{Event, Sink};

/// A narrow bar: percent, rate and time left must fit beside it in a terminal of 80 columns.
const WITH_BAR: &str = "{prefix}  [{bar:10}] {wide_msg}";
/// Where there is room for more.
const WITH_WIDE_BAR: &str = "{prefix}  [{bar:24}] {wide_msg}";
/// From this width on there is.
const WIDE: usize = 120;
const WITHOUT_BAR: &str = "{prefix}  {spinner} {wide_msg}";

/// Draws below what was printed before, at most ten times per second.
pub struct LiveLines {
    lines: MultiProgress,
    running: BTreeMap<String, Line>,
    status: Option<ProgressBar>,
    style: Style,
    with_bar: &'static str,
    width: usize,
    n_stages: usize,
    /// Once no stage is left, the summary follows at once and says every warning.
    n_unfinished: usize,
    memory_bytes: Option<u64>,
    /// The time of the run at an instant of the clock: time goes on without events.
    clock: (Duration, Instant),
}

struct Line {
    bar: ProgressBar,
    progress: Option<Progress>,
    started_at: Duration,
    fact: Option<String>,
}

impl Line {
    fn message(&self, now: Duration) -> String {
        let fact = self.fact.as_deref();
        match self.progress {
            Some(progress) => progress.describe_live(fact),
            None => {
                let took = numbers::duration(now.saturating_sub(self.started_at));
                fact.map_or(took.clone(), |fact| format!("{took}, {fact}"))
            }
        }
    }
}

impl LiveLines {
    /// Draws to stderr, a terminal of `columns`.
    pub fn new(style: Style, columns: Option<usize>) -> Self {
        let lines = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        LiveLines {
            lines,
            running: BTreeMap::new(),
            status: None,
            style,
            with_bar: if columns.is_some_and(|columns| columns >= WIDE) { WITH_WIDE_BAR } else { WITH_BAR },
            width: 0,
            n_stages: 0,
            n_unfinished: 0,
            memory_bytes: None,
            clock: (Duration::ZERO, Instant::now()),
        }
    }

    fn print(&self, stage: &str, text: &str) {
        let name = self.style.bold(&pad(stage, self.width));
        let _ = self.lines.println(format!("{name}  {text}"));
    }

    fn now(&self) -> Duration {
        self.clock.0 + self.clock.1.elapsed()
    }

    fn start(&mut self, at: Duration, stage: &str) {
        let status = self.status.get_or_insert_with(|| {
            let status = self.lines.add(ProgressBar::new_spinner());
            status.set_style(template("{wide_msg}"));
            status
        });
        let bar = self.lines.insert_before(status, ProgressBar::new_spinner());
        bar.set_style(template(WITHOUT_BAR));
        bar.set_prefix(self.style.bold(&pad(stage, self.width)));
        bar.set_message("running");
        self.running.insert(stage.to_string(), Line { bar, progress: None, started_at: at, fact: None });
    }

    fn update(&mut self, at: Duration, stage: &str, progress: (u64, u64, pipe_contract::Unit)) {
        let Some(line) = self.running.get_mut(stage) else { return };
        let (done, total, unit) = progress;
        let had_bar = line.progress.is_some_and(|progress| progress.total() > 0);
        let progress = Progress::update(line.progress, at, done, total, unit);
        if total > 0 && !had_bar {
            line.bar.set_style(template(self.with_bar).progress_chars("=> "));
        } else if total == 0 && had_bar {
            line.bar.set_style(template(WITHOUT_BAR));
        }
        line.bar.set_length(total);
        line.bar.set_position(done);
        line.progress = Some(progress);
        line.bar.set_message(line.message(at));
    }

    fn remove_line(&mut self, stage: &str) {
        if let Some(line) = self.running.remove(stage) {
            line.bar.finish_and_clear();
            self.lines.remove(&line.bar);
        }
    }

    fn finish(&mut self, stage: &str) {
        self.n_unfinished = self.n_unfinished.saturating_sub(1);
        self.remove_line(stage);
        if self.n_unfinished == 0
            && let Some(status) = self.status.take()
        {
            status.finish_and_clear();
            self.lines.remove(&status);
        }
    }

    fn show_status(&self) {
        let Some(status) = &self.status else { return };
        let counts = Counts { n_stages: self.n_stages, n_unfinished: self.n_unfinished, n_running: self.running.len() };
        status.set_message(self.style.dim(&counts.describe(self.now(), self.memory_bytes)));
    }
}

/// Where the run is.
struct Counts {
    n_stages: usize,
    n_unfinished: usize,
    n_running: usize,
}

impl Counts {
    /// `5 of 9 stages done, 2 running, 2 waiting; 2 min 10 s; 812.3 MB`.
    fn describe(&self, elapsed: Duration, memory_bytes: Option<u64>) -> String {
        let n_done = self.n_stages - self.n_unfinished;
        let n_waiting = self.n_unfinished.saturating_sub(self.n_running);
        let mut text = format!("{n_done} of {} done", plural(self.n_stages, "stage"));
        for (n, word) in [(self.n_running, "running"), (n_waiting, "waiting")] {
            if n > 0 {
                text.push_str(&format!(", {n} {word}"));
            }
        }
        text.push_str(&format!("; {}", numbers::duration(elapsed)));
        if let Some(memory_bytes) = memory_bytes {
            text.push_str(&format!("; {}", numbers::bytes(memory_bytes)));
        }
        text
    }
}

fn template(text: &str) -> ProgressStyle {
    ProgressStyle::with_template(text).expect("a literal template")
}

impl Sink for LiveLines {
    fn on(&mut self, at: Duration, event: &Event) {
        self.clock = (at, Instant::now());
        match event {
            Event::RunStarted { stages, .. } => {
                self.width = stages.iter().map(|name| name.width()).max().unwrap_or(0);
                (self.n_stages, self.n_unfinished) = (stages.len(), stages.len());
            }
            Event::StageStarted { stage, .. } => self.start(at, stage),
            Event::Progress { stage, done, total, unit } => self.update(at, stage, (*done, *total, *unit)),
            Event::Log { stage, line } => self.print(stage, line),
            Event::Warning { .. } if self.n_unfinished == 0 => {}
            Event::Warning { stage, line } => {
                self.print(stage.as_deref().unwrap_or(""), &format!("{}: {line}", self.style.yellow("warning")));
            }
            Event::Fact { stage, name, value } => {
                if let Some(line) = self.running.get_mut(stage) {
                    line.fact = Some(format!("{name} {value}"));
                }
            }
            Event::StageRetried { stage, n_failures, n_tries_max, delay_ms, failure } => {
                self.remove_line(stage);
                self.print(stage, &retried_line(*n_failures, *n_tries_max, *delay_ms, failure));
            }
            Event::StageFinished { stage, outcome, duration_ms, .. } => {
                self.finish(stage);
                if let Some(text) = finished_line(*outcome, *duration_ms, self.style) {
                    self.print(stage, &text);
                }
            }
            Event::Usage { memory_bytes, .. } => self.memory_bytes = Some(*memory_bytes),
            Event::RunFinished { .. } => drop(self.lines.clear()),
            Event::StagePlanned { .. } | Event::Diverged { .. } | Event::Placed { .. } => {}
        }
        if !matches!(event, Event::Progress { .. }) {
            self.show_status();
        }
    }

    fn tick(&mut self) {
        let now = self.now();
        for line in self.running.values() {
            if line.progress.is_none() {
                line.bar.set_message(line.message(now));
            }
            line.bar.tick();
        }
        self.show_status();
    }
}

#[cfg(test)]
mod tests {
    use pipe_contract::Unit;

    use super::*;

    #[test]
    fn percent_rate_time_left_and_the_newest_fact_fit_into_80_columns() {
        let n_beside = "  [".len() + 10 + "] ".len();
        assert!(WITH_BAR.contains("{prefix}  [{bar:10}] {wide_msg}"), "the width below is that of another line");
        for (unit, total, rate, fact) in [
            (Unit::OptimizerSteps, 12_000, "0.20 optimizer steps/s", ""),
            (Unit::Tokens, 9_000_000_000, "100,000 tokens/s", ""),
            (Unit::Rows, 24_080_000, "1,204 rows/s", "loss 2.313"),
            (Unit::Bytes, 900_000_000_000, "12.0 MB/s", ""),
        ] {
            let done = match unit {
                Unit::OptimizerSteps => 2_000,
                Unit::Tokens => 1_000_000_000,
                Unit::Rows => 12_040_000,
                _ => 120_000_000_000,
            };
            let first = Progress::update(None, Duration::ZERO, 0, total, unit);
            let progress = Progress::update(Some(first), Duration::from_secs(10_000), done, total, unit);
            let message = progress.describe_live(Some(fact).filter(|fact| !fact.is_empty()));
            let shown: String = message.chars().take(80 - "a_name_of_16_let".len() - n_beside).collect();
            for part in [" %, ", rate, " left", fact] {
                assert!(shown.contains(part), "`{part}` is cut off: {shown}");
            }
        }
    }

    #[test]
    fn the_line_of_the_run() {
        let counts = |n_unfinished, n_running| Counts { n_stages: 9, n_unfinished, n_running };
        let shown = [
            counts(9, 1).describe(Duration::from_secs(2), None),
            counts(4, 2).describe(Duration::from_secs(130), Some(812_300_000)),
            counts(1, 1).describe(Duration::from_secs(3_720), Some(5_000)),
        ];
        insta::assert_snapshot!(shown.join("\n"), @r"
        0 of 9 stages done, 1 running, 8 waiting; 2.0 s
        5 of 9 stages done, 2 running, 2 waiting; 2 min 10 s; 812.3 MB
        8 of 9 stages done, 1 running; 1 h 02 min; 5.0 kB
        ");
    }
}
