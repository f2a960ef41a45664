//! What a report shows, as plain data: a fold over the events of a run.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use pipe_cache::Manifest;
use pipe_contract::{Figure, Unit};

use crate::events::{Event, Failure, RunRequest, Sink, StageRecord};
use crate::schedule::Outcome;

/// Lines of a stage's log that a report keeps: the last ones.
const N_LOG_LINES_MAX: usize = 200;

/// One run.
#[derive(Clone, Debug, Default)]
pub struct ReportData {
    /// Begins with the time it started at.
    pub run_id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// What it was started with.
    pub request: RunRequest,
    /// Threads granted to it.
    pub n_threads: usize,
    /// In file order.
    pub stages: Vec<StageData>,
    /// About the run as a whole.
    pub warnings: Vec<String>,
    /// What the process used, over time.
    pub usage: Vec<UsagePoint>,
    /// How it ended; `None` where it goes on or was killed.
    pub end: Option<RunEndData>,
    /// The time of the last event.
    pub last_at: Duration,
    positions: BTreeMap<String, usize>,
}

/// What the process used at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsagePoint {
    /// Since the run began.
    pub at: Duration,
    /// Resident, in bytes.
    pub memory_bytes: u64,
    /// Time on all processors so far, in milliseconds.
    pub cpu_ms: u64,
}

/// The end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunEndData {
    /// From its start.
    pub duration: Duration,
    /// Whether the user stopped it.
    pub is_interrupted: bool,
    /// In bytes.
    pub peak_memory_bytes: Option<u64>,
    /// In milliseconds.
    pub cpu_ms: Option<u64>,
}

/// One stage of it.
#[derive(Clone, Debug, Default)]
pub struct StageData {
    /// Its name.
    pub name: String,
    /// What `uses:` selects.
    pub kind: String,
    /// Why it was to run, or not.
    pub reason: String,
    /// How it is written; `None` in runs of early versions.
    pub spec: Option<StageRecord>,
    /// `None` where the run did not come so far.
    pub outcome: Option<Outcome>,
    /// `None` where it did not start.
    pub started_at: Option<Duration>,
    /// `None` where it has no outcome.
    pub finished_at: Option<Duration>,
    /// Threads of its pool.
    pub n_threads: usize,
    /// GPUs it could use.
    pub n_gpus: usize,
    /// Name and value, the latest of each.
    pub facts: Vec<(String, String)>,
    /// One line each.
    pub warnings: Vec<String>,
    /// Why it was tried again, a sentence for each time.
    pub failed_tries: Vec<String>,
    /// Its last lines.
    pub log: VecDeque<String>,
    /// Lines of the log that came before those.
    pub n_log_lines_left_out: usize,
    /// Why it failed or was skipped.
    pub failure: Option<Failure>,
    /// Training state that was kept.
    pub checkpoint: Option<PathBuf>,
    /// Folders with copies of its outputs, and how many files there were left alone.
    pub placed: Vec<(PathBuf, usize)>,
    /// How far it was, over time.
    pub progress: Vec<ProgressPoint>,
    /// What its manifest is stored under.
    pub fingerprint: Option<String>,
    /// What is known of its outputs; `None` before [`super::gather`], and where it has none.
    pub made: Option<MadeData>,
    /// Why less is shown than could be, a sentence each.
    pub notes: Vec<String>,
}

/// How far a stage was at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgressPoint {
    /// Since the run began.
    pub at: Duration,
    /// Units finished.
    pub done: u64,
    /// Units in all, 0 if unknown.
    pub total: u64,
    /// What is counted.
    pub unit: Unit,
}

/// What the store has of a stage.
#[derive(Clone, Debug)]
pub struct MadeData {
    /// Of the outputs this run made or reused.
    pub manifest: Manifest,
    /// The readable form of what went into its key.
    pub preimage: serde_json::Value,
    /// Output port to what its kind shows of it.
    pub figures: Vec<(String, Vec<Figure>)>,
    /// The run that made them and how long that took, where this one reused them.
    pub made_in: Option<(String, Duration)>,
}

impl StageData {
    /// From its start to its end, as far as both are known.
    pub fn duration(&self) -> Option<Duration> {
        self.finished_at?.checked_sub(self.started_at?)
    }
}

impl ReportData {
    /// From its start to its end, or to the last that is known.
    pub fn duration(&self) -> Duration {
        self.end.map_or(self.last_at, |end| end.duration)
    }

    /// How many stages ended so.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.stages.iter().filter(|stage| stage.outcome == Some(outcome)).count()
    }

    /// The position of a stage.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.positions.get(name).copied()
    }

    fn stage(&mut self, name: &str) -> Option<&mut StageData> {
        let position = self.position(name)?;
        Some(&mut self.stages[position])
    }

    fn on_stage(&mut self, at: Duration, event: &Event, name: &str) {
        let Some(stage) = self.stage(name) else { return };
        match event {
            Event::StagePlanned { kind, reason, spec, .. } => {
                stage.kind.clone_from(kind);
                stage.reason.clone_from(reason);
                stage.spec.clone_from(spec);
            }
            Event::StageStarted { n_threads, n_gpus, .. } => {
                // A stage whose files another one misses starts after it was reused.
                let fresh = StageData { name: stage.name.clone(), kind: stage.kind.clone(), ..StageData::default() };
                let before = std::mem::replace(stage, fresh);
                (stage.reason, stage.spec) = (before.reason, before.spec);
                stage.failed_tries = before.failed_tries;
                (stage.started_at, stage.n_threads, stage.n_gpus) = (Some(at), *n_threads, *n_gpus);
            }
            Event::Progress { done, total, unit, .. } => {
                stage.progress.push(ProgressPoint { at, done: *done, total: *total, unit: *unit });
            }
            Event::StageRetried { n_failures, n_tries_max, failure, .. } => {
                let line = format!("try {n_failures} of {n_tries_max} failed: {}", failure.message);
                stage.failed_tries.push(line);
            }
            Event::Log { line, .. } => {
                if stage.log.len() == N_LOG_LINES_MAX {
                    stage.log.pop_front();
                    stage.n_log_lines_left_out += 1;
                }
                stage.log.push_back(line.clone());
            }
            Event::Warning { line, .. } => stage.warnings.push(line.clone()),
            Event::Fact { name, value, .. } => {
                stage.facts.retain(|(known, _)| known != name);
                stage.facts.push((name.clone(), value.clone()));
            }
            Event::StageFinished { outcome, failure, checkpoint, fingerprint, .. } => {
                stage.outcome = Some(*outcome);
                stage.finished_at = Some(at);
                stage.failure.clone_from(failure);
                stage.checkpoint.clone_from(checkpoint);
                stage.fingerprint.clone_from(fingerprint);
            }
            Event::Placed { to, n_left, .. } => stage.placed.push((to.clone(), *n_left)),
            Event::RunStarted { .. } | Event::Usage { .. } | Event::Diverged { .. } | Event::RunFinished { .. } => {}
        }
    }
}

impl Sink for ReportData {
    fn on(&mut self, at: Duration, event: &Event) {
        self.last_at = self.last_at.max(at);
        match event {
            Event::RunStarted { run_id, pipeline, request, n_threads, stages, .. } => {
                self.run_id.clone_from(run_id);
                self.pipeline.clone_from(pipeline);
                self.request.clone_from(request);
                self.n_threads = *n_threads;
                self.positions = stages.iter().cloned().zip(0..).collect();
                self.stages =
                    stages.iter().map(|name| StageData { name: name.clone(), ..StageData::default() }).collect();
            }
            Event::Warning { stage: None, line } => self.warnings.push(line.clone()),
            Event::Usage { memory_bytes, cpu_ms } => {
                self.usage.push(UsagePoint { at, memory_bytes: *memory_bytes, cpu_ms: *cpu_ms });
            }
            Event::RunFinished { duration_ms, is_interrupted, peak_memory_bytes, cpu_ms } => {
                self.end = Some(RunEndData {
                    duration: Duration::from_millis(*duration_ms),
                    is_interrupted: *is_interrupted,
                    peak_memory_bytes: *peak_memory_bytes,
                    cpu_ms: *cpu_ms,
                });
            }
            Event::StagePlanned { stage, .. }
            | Event::StageStarted { stage, .. }
            | Event::Progress { stage, .. }
            | Event::Log { stage, .. }
            | Event::Warning { stage: Some(stage), .. }
            | Event::Fact { stage, .. }
            | Event::StageRetried { stage, .. }
            | Event::StageFinished { stage, .. }
            | Event::Diverged { stage, .. }
            | Event::Placed { stage, .. } => self.on_stage(at, event, stage),
        }
    }
}
