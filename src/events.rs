//! Events: everything that happens in a run, as one typed stream.
//!
//! ```text
//! execute --Event--> EventBus --> Recorder   runs/<id>/events.jsonl and runs/<id>/<stage>.log
//!                            \--> sinks      terminal, summary, JSON Lines: see `report`
//! ```
//!
//! Whatever shows a run is a fold over this stream and sees nothing else, so a screen can be made again from the file.
//! A line of `events.jsonl` is an [`Event`] with the milliseconds since the run began: `{"at_ms":12,"event":"log",...}`.
//!
//! Times, hosts and rates live here, never in an artifact.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pipe_contract::Unit;
use serde::{Deserialize, Serialize};

use crate::error::RunnerError;
use crate::key::readable;
use crate::schedule::Outcome;
use crate::spec::Pipeline;

/// Version of the lines in `events.jsonl`.
pub const FORMAT_VERSION: u32 = 1;

/// Progress is recorded at most this often per stage: a file of a long run stays small.
const RECORDED_PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// One fact of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// First of all.
    RunStarted {
        /// [`FORMAT_VERSION`].
        format_version: u32,
        /// Sortable by time.
        run_id: String,
        /// The pipeline's name.
        pipeline: String,
        /// What it was started with: enough to look at the same stages again.
        request: RunRequest,
        /// Threads granted to the run.
        n_threads: usize,
        /// Names of all stages, in file order.
        stages: Vec<String>,
    },
    /// What was to happen with a stage, before anything ran.
    StagePlanned {
        /// The stage.
        stage: String,
        /// What `uses:` selects.
        kind: String,
        /// `reuse`, `run`, `pending`, `blocked`.
        verdict: String,
        /// Why, in words.
        reason: String,
        /// How it is written in the pipeline file; absent in runs of early versions.
        #[serde(default)]
        spec: Option<StageRecord>,
    },
    /// A stage was given its slots.
    StageStarted {
        /// The stage.
        stage: String,
        /// Threads of its pool.
        n_threads: usize,
        /// GPUs it may use.
        n_gpus: usize,
        /// Their numbers on this machine.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        gpus: Vec<usize>,
    },
    /// How far a stage is.
    Progress {
        /// The stage.
        stage: String,
        /// Units finished.
        done: u64,
        /// Units in all, 0 if unknown.
        total: u64,
        /// What is counted.
        unit: Unit,
    },
    /// A line of a stage's log.
    Log {
        /// The stage.
        stage: String,
        /// One line.
        line: String,
    },
    /// Something the user should see again in the summary.
    Warning {
        /// The stage; none where it is about the run.
        stage: Option<String>,
        /// One line.
        line: String,
    },
    /// A fact about a stage's result, of this run or of the one that made it.
    Fact {
        /// The stage.
        stage: String,
        /// A short name.
        name: String,
        /// As shown.
        value: String,
    },
    /// What the process uses: once a second while stages run, where the system tells.
    Usage {
        /// Resident memory, in bytes.
        memory_bytes: u64,
        /// Time on all processors since the process began, in milliseconds.
        cpu_ms: u64,
    },
    /// A stage failed, and is tried again: it has no outcome yet.
    StageRetried {
        /// The stage.
        stage: String,
        /// How often it has failed in this run.
        n_failures: usize,
        /// How often it is tried at most.
        n_tries_max: usize,
        /// After how long, in milliseconds.
        delay_ms: u64,
        /// Why it failed.
        failure: Failure,
    },
    /// A stage has an outcome.
    StageFinished {
        /// The stage.
        stage: String,
        /// The outcome.
        outcome: Outcome,
        /// From its start, in milliseconds; 0 where it did not start.
        duration_ms: u64,
        /// Why it failed or was skipped.
        failure: Option<Failure>,
        /// The folder of the training state that is kept, where it failed or was cancelled and left some.
        checkpoint: Option<PathBuf>,
        /// What its manifest is stored under, where it has outputs.
        #[serde(default)]
        fingerprint: Option<String>,
    },
    /// A stage gave other bytes than an earlier execution with the same fingerprint. Both results are kept.
    Diverged {
        /// The stage.
        stage: String,
        /// What both are stored under.
        fingerprint: String,
    },
    /// A stage's files are in the folder that `to:` names.
    Placed {
        /// The stage.
        stage: String,
        /// The folder, as the user wrote it.
        to: PathBuf,
        /// Files copied now.
        n_written: usize,
        /// Files there that have other bytes than the outputs and were left alone.
        #[serde(default)]
        n_left: usize,
    },
    /// Last of all.
    RunFinished {
        /// In milliseconds.
        duration_ms: u64,
        /// Whether the user stopped it.
        is_interrupted: bool,
        /// The largest resident memory of the process, in bytes, where the system tells.
        #[serde(default)]
        peak_memory_bytes: Option<u64>,
        /// Time on all processors, in milliseconds.
        #[serde(default)]
        cpu_ms: Option<u64>,
    },
}

/// A stage as it is written in the pipeline file, every name resolved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Port to `STAGE.OUTPUT`.
    pub inputs: BTreeMap<String, String>,
    /// Stages that it waits for without taking anything from them.
    pub needs: Vec<String>,
    /// Every setting, defaults too.
    pub settings: Vec<SettingRecord>,
}

/// A setting in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SettingRecord {
    /// Its keys below `with:`, dots between them.
    pub name: String,
    /// Null where nothing is set and the stage decides.
    pub value: serde_json::Value,
    /// Whether the user wrote it.
    pub is_given: bool,
}

impl StageRecord {
    /// Of stage number `stage`.
    pub fn new(pipeline: &Pipeline, stage: usize) -> Self {
        let spec = &pipeline.stages[stage];
        let name = |stage: usize| pipeline.stages[stage].name.clone();
        let setting = |setting: &pipe_contract::ReadSetting| SettingRecord {
            name: setting.name.clone(),
            value: setting.value.as_ref().map_or(serde_json::Value::Null, readable),
            is_given: setting.is_given,
        };
        StageRecord {
            inputs: spec
                .inputs
                .iter()
                .map(|(port, from)| (port.clone(), format!("{}.{}", name(from.stage), from.port)))
                .collect(),
            needs: spec.needs.iter().map(|&need| name(need)).collect(),
            settings: spec.settings.iter().map(setting).collect(),
        }
    }
}

/// What a run was started with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// The pipeline file, absolute.
    pub file: PathBuf,
    /// As the user wrote it.
    pub file_as_given: PathBuf,
    /// `--profile`.
    pub profile: Option<String>,
    /// `--set`, in order.
    pub sets: Vec<String>,
}

/// Why a stage did not give its outputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// A stable word: `out-of-memory`, `bug`, ...
    pub slug: String,
    /// What went wrong, with its causes.
    pub message: String,
    /// How to fix it.
    pub help: Option<String>,
    /// Whether it is a mistake in pipe, not in what the user did.
    pub is_bug: bool,
}

/// Something that folds over the events of a run.
pub trait Sink {
    /// Takes one event. `at`: time since the run began.
    fn on(&mut self, at: Duration, event: &Event);

    /// Called a few times per second, for what moves by itself.
    fn tick(&mut self) {}
}

/// Hands every event to every sink, in one order.
pub struct EventBus<'a> {
    begin: Instant,
    sinks: Vec<&'a mut dyn Sink>,
}

impl<'a> EventBus<'a> {
    /// A bus of a run that began at `begin`.
    pub fn new(begin: Instant, sinks: Vec<&'a mut dyn Sink>) -> Self {
        EventBus { begin, sinks }
    }

    /// Tells every sink.
    pub fn emit(&mut self, event: &Event) {
        let at = self.begin.elapsed();
        self.sinks.iter_mut().for_each(|sink| sink.on(at, event));
    }

    /// Lets what moves move.
    pub fn tick(&mut self) {
        self.sinks.iter_mut().for_each(|sink| sink.tick());
    }

    /// Since the run began.
    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }
}

/// The line of an event in `events.jsonl` and in the output of `--json`, without line end.
pub fn to_json_line(at: Duration, event: &Event) -> String {
    let body = serde_json::to_string(event).expect("plain data with text keys");
    let fields = body.strip_prefix('{').expect("an event is an object with a tag");
    format!("{{\"at_ms\":{},{fields}", at.as_millis())
}

/// Reads a line back; `None` for a line of another version.
pub fn from_json_line(line: &str) -> Option<(Duration, Event)> {
    let mut value: serde_json::Value = serde_json::from_str(line).ok()?;
    let at_ms = value.as_object_mut()?.remove("at_ms")?.as_u64()?;
    Some((Duration::from_millis(at_ms), serde_json::from_value(value).ok()?))
}

/// The events of a run, from its folder; none where there are none. A line of another version is left out, and so is one that is cut
/// short: the run goes on, or was killed.
pub fn read_events(run_dir: &Path) -> impl Iterator<Item = (Duration, Event)> + use<> {
    let file = File::open(run_dir.join("events.jsonl")).ok();
    let lines = file.into_iter().flat_map(|file| BufReader::new(file).lines().map_while(Result::ok));
    lines.filter_map(|line| from_json_line(&line))
}

/// Writes `events.jsonl` and one log per stage that says something. A full disk must not stop a run that may still succeed:
/// the first failure to write is kept, and nothing more is written.
pub struct Recorder {
    dir: PathBuf,
    events: Option<File>,
    logs: BTreeMap<String, File>,
    progress_at: BTreeMap<String, Duration>,
    error: Option<RunnerError>,
    pending: Vec<u8>,
}

impl Recorder {
    /// Records into the folder `dir`, made with the first write.
    pub fn new(dir: PathBuf) -> Self {
        Recorder {
            dir,
            events: None,
            logs: Default::default(),
            progress_at: Default::default(),
            error: None,
            pending: Vec::new(),
        }
    }

    /// Why recording stopped, if it did.
    pub fn into_error(self) -> Option<RunnerError> {
        self.error
    }

    fn flush(&mut self) -> Result<(), RunnerError> {
        let path = self.dir.join("events.jsonl");
        if self.events.is_none() {
            fs::create_dir_all(&self.dir).map_err(RunnerError::io("create", &self.dir))?;
            let file =
                File::options().create(true).append(true).open(&path).map_err(RunnerError::io("create", &path))?;
            self.events = Some(file);
        }
        let file = self.events.as_mut().expect("opened above");
        file.write_all(&self.pending).map_err(RunnerError::io("write", &path))?;
        self.pending.clear();
        Ok(())
    }

    fn log(&mut self, stage: &str, line: &str) -> Result<(), RunnerError> {
        let path = log_path(&self.dir, stage);
        if !self.logs.contains_key(stage) {
            fs::create_dir_all(&self.dir).map_err(RunnerError::io("create", &self.dir))?;
            let file =
                File::options().create(true).append(true).open(&path).map_err(RunnerError::io("create", &path))?;
            self.logs.insert(stage.to_string(), file);
        }
        let file = self.logs.get_mut(stage).expect("opened above");
        writeln!(file, "{line}").map_err(RunnerError::io("write", &path))
    }

    fn record(&mut self, at: Duration, event: &Event) -> Result<(), RunnerError> {
        if let Event::Progress { stage, done, total, .. } = event {
            let is_early = self.progress_at.get(stage).is_some_and(|last| at - *last < RECORDED_PROGRESS_INTERVAL);
            if is_early && done != total {
                return Ok(());
            }
            self.progress_at.insert(stage.clone(), at);
        }
        self.pending.extend_from_slice(to_json_line(at, event).as_bytes());
        self.pending.push(b'\n');
        match event {
            Event::Log { stage, line } => self.log(stage, line)?,
            Event::Warning { stage: Some(stage), line } => self.log(stage, &format!("warning: {line}"))?,
            Event::Fact { stage, name, value } if self.logs.contains_key(stage) => {
                self.log(stage, &format!("{name}: {value}"))?
            }
            Event::StageFinished { stage, failure: Some(failure), outcome: Outcome::Failed, .. } => {
                self.log(stage, &format!("error[{}]: {}", failure.slug, failure.message))?;
            }
            Event::StageRetried { stage, n_failures, n_tries_max, failure, .. } => {
                self.log(stage, &format!("error[{}]: {}", failure.slug, failure.message))?;
                self.log(stage, &format!("try {} of {n_tries_max}", n_failures + 1))?;
            }
            _ => {}
        }
        // What is planned and reused is written in one piece; as soon as something runs, each event is written as it comes.
        let is_running = matches!(
            event,
            Event::StageStarted { .. }
                | Event::StageRetried { .. }
                | Event::Log { .. }
                | Event::Progress { .. }
                | Event::Warning { .. }
                | Event::Usage { .. }
                | Event::RunFinished { .. }
        );
        if is_running || self.events.is_some() { self.flush() } else { Ok(()) }
    }
}

impl Sink for Recorder {
    fn on(&mut self, at: Duration, event: &Event) {
        if self.error.is_none() {
            self.error = self.record(at, event).err();
        }
    }
}

/// The log of a stage within a run's folder.
pub fn log_path(run_dir: &Path, stage: &str) -> PathBuf {
    run_dir.join(format!("{stage}.log"))
}

/// A new run id: the time in UTC to the second, and four hex digits for the part of the second, so that ids sort by time.
/// `20260131-235959-07af`.
pub fn new_run_id() -> String {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let part = u64::from(since_epoch.subsec_nanos()) * 0x1_0000 / 1_000_000_000;
    format!("{}-{part:04x}", format_utc(since_epoch.as_secs()))
}

/// `YYYYMMDD-HHMMSS`. The day is found with Howard Hinnant's `civil_from_days`, for days since 1970.
fn format_utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468; // days since 0000-03-01
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153; // 0 is March
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}-{:02}{:02}{:02}", second / 3_600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_known_seconds() {
        let known = [(0, "19700101-000000"), (951_782_400, "20000229-000000"), (1_798_761_599, "20261231-235959")];
        for (seconds, date) in known {
            assert_eq!(format_utc(seconds), date);
        }
    }

    #[test]
    fn a_line_reads_back() {
        let event = Event::Fact { stage: "text".into(), name: "rows".into(), value: "2,000".into() };
        let line = to_json_line(Duration::from_millis(12), &event);
        insta::assert_snapshot!(line, @r#"{"at_ms":12,"event":"fact","stage":"text","name":"rows","value":"2,000"}"#);
        assert_eq!(from_json_line(&line), Some((Duration::from_millis(12), event)));
        assert_eq!(from_json_line(r#"{"at_ms":1,"event":"invented_later"}"#), None);
    }

    #[test]
    fn the_recorder_thins_progress_and_keeps_logs_apart() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let run_dir = dir.path().join("run");
        let mut recorder = Recorder::new(run_dir.clone());
        for done in 1..=100 {
            let event = Event::Progress { stage: "text".into(), done, total: 100, unit: Unit::Rows };
            recorder.on(Duration::from_millis(done), &event);
        }
        recorder.on(Duration::ZERO, &Event::Log { stage: "text".into(), line: "hello".into() });
        assert!(recorder.into_error().is_none());
        let events = fs::read_to_string(run_dir.join("events.jsonl")).expect("recorded");
        assert_eq!(events.lines().count(), 3, "the first and the last progress, and the log:\n{events}");
        assert_eq!(fs::read_to_string(log_path(&run_dir, "text")).expect("recorded"), "hello\n");
    }
}
