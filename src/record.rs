//! A run as its events tell it: what `pipe runs` lists and `pipe diff` compares.
//!
//! ```text
//! runs/<id>/events.jsonl --fold--> RunRecord
//! ```
//!
//! It deliberately keeps no log, no progress and no memory over time: see `report::html` for those.

use std::collections::BTreeMap;
use std::time::Duration;

use pipe_cache::Store;

use crate::events::{Event, Failure, RunRequest, Sink, StageRecord, read_events};
use crate::schedule::Outcome;

/// One run.
#[derive(Clone, Debug, Default)]
pub struct RunRecord {
    /// Begins with the time it started at, in UTC.
    pub run_id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// What it was started with.
    pub request: RunRequest,
    /// In file order.
    pub stages: Vec<RecordedStage>,
    /// How it ended; `None` where it goes on or was killed.
    pub end: Option<RecordedEnd>,
    positions: BTreeMap<String, usize>,
}

/// The end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedEnd {
    /// From its start.
    pub duration: Duration,
    /// Whether the user stopped it.
    pub is_interrupted: bool,
}

/// One stage of it.
#[derive(Clone, Debug, Default)]
pub struct RecordedStage {
    /// Its name.
    pub name: String,
    /// What `uses:` selects.
    pub kind: String,
    /// How it was written; `None` in runs of early versions.
    pub spec: Option<StageRecord>,
    /// `None` where the run did not come so far.
    pub outcome: Option<Outcome>,
    /// From its start to its end; 0 where it did not start.
    pub duration: Duration,
    /// Name and value, the latest of each.
    pub facts: Vec<(String, String)>,
    /// What its outputs are stored under.
    pub fingerprint: Option<String>,
    /// Why it failed or was skipped.
    pub failure: Option<Failure>,
    /// Whether it gave other bytes than an earlier execution with the same fingerprint.
    pub is_divergent: bool,
}

impl RunRecord {
    /// Reads the events of a run; `None` where there are none.
    pub fn read(store: &Store, run_id: &str) -> Option<RunRecord> {
        let mut record = RunRecord::default();
        read_events(&store.run_dir(run_id)).for_each(|(at, event)| record.on(at, &event));
        (!record.run_id.is_empty()).then_some(record)
    }

    /// How many stages ended so.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.stages.iter().filter(|stage| stage.outcome == Some(outcome)).count()
    }

    /// The stage called `name`.
    pub fn stage(&self, name: &str) -> Option<&RecordedStage> {
        self.positions.get(name).map(|&position| &self.stages[position])
    }

    fn stage_mut(&mut self, name: &str) -> Option<&mut RecordedStage> {
        self.positions.get(name).map(|&position| &mut self.stages[position])
    }
}

impl Sink for RunRecord {
    fn on(&mut self, _: Duration, event: &Event) {
        match event {
            Event::RunStarted { run_id, pipeline, request, stages, .. } => {
                self.run_id.clone_from(run_id);
                self.pipeline.clone_from(pipeline);
                self.request.clone_from(request);
                self.positions = stages.iter().cloned().zip(0..).collect();
                self.stages =
                    stages.iter().map(|name| RecordedStage { name: name.clone(), ..Default::default() }).collect();
            }
            Event::StagePlanned { stage, kind, spec, .. } => {
                if let Some(stage) = self.stage_mut(stage) {
                    stage.kind.clone_from(kind);
                    stage.spec.clone_from(spec);
                }
            }
            Event::StageStarted { stage, .. } => {
                if let Some(stage) = self.stage_mut(stage) {
                    stage.facts.clear();
                }
            }
            Event::Fact { stage, name, value } => {
                if let Some(stage) = self.stage_mut(stage) {
                    stage.facts.retain(|(known, _)| known != name);
                    stage.facts.push((name.clone(), value.clone()));
                }
            }
            Event::StageFinished { stage, outcome, duration_ms, failure, fingerprint, .. } => {
                if let Some(stage) = self.stage_mut(stage) {
                    stage.outcome = Some(*outcome);
                    stage.duration = Duration::from_millis(*duration_ms);
                    stage.failure.clone_from(failure);
                    stage.fingerprint.clone_from(fingerprint);
                }
            }
            Event::Diverged { stage, .. } => {
                if let Some(stage) = self.stage_mut(stage) {
                    stage.is_divergent = true;
                }
            }
            Event::RunFinished { duration_ms, is_interrupted, .. } => {
                let (duration, is_interrupted) = (Duration::from_millis(*duration_ms), *is_interrupted);
                self.end = Some(RecordedEnd { duration, is_interrupted });
            }
            Event::Progress { .. }
            | Event::Log { .. }
            | Event::StageRetried { .. }
            | Event::Warning { .. }
            | Event::Usage { .. }
            | Event::Placed { .. } => {}
        }
    }
}
