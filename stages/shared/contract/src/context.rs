//! What a running stage is given, and all it may do to the world.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Artifact, Output, StageError};

/// Set once when the user interrupts; stages look at it between pieces of work.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Asks everything that holds a clone to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether the user asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// What a progress bar counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Unit {
    Bytes,
    Rows,
    Tokens,
    OptimizerSteps,
    Files,
}

/// One fact that a running stage tells the runner.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum StageEvent {
    /// `done` of `total` units are finished; `total` is 0 where it is not known.
    Progress { done: u64, total: u64, unit: Unit },
    /// A line for the log and the terminal, a sentence without period.
    Log { line: String },
    /// Something that may be wrong and that the user should see again in the summary, in one line.
    Warning { line: String },
    /// A fact about the result with a short name, shown in the summary: `loss` -> `2.31`, `rows` -> `2,000`.
    Fact { name: String, value: String },
}

/// A file that an output refers to instead of holding it: it stays where it is (a Hugging Face cache, a local folder, an input).
#[derive(Clone, Debug)]
pub struct ExternalFile {
    /// Output port.
    pub port: String,
    /// Name inside the artifact, `/` between folders.
    pub name: String,
    /// Absolute path on this machine.
    pub path: PathBuf,
    /// BLAKE3 of the bytes in hex if the stage computed it while streaming; else the runner reads the file.
    pub digest: Option<String>,
}

/// Everything a stage may use while it runs. Files are written below [`Context::output_dir`], nowhere else.
pub struct Context<'a> {
    /// Port to artifact.
    pub inputs: BTreeMap<String, Artifact>,
    /// What it must give.
    pub outputs: Vec<Output>,
    /// What the runner resolved the stage's [`crate::Source`] to: a commit for a remote one.
    pub resolved: Option<String>,
    /// The folder of the pipeline file: base of relative paths in settings.
    pub base_dir: PathBuf,
    /// A private folder for scratch files, removed after the run.
    pub scratch_dir: PathBuf,
    /// A folder that outlives a killed run of the same trajectory, for resumable training state; the stage makes it.
    pub checkpoint_dir: PathBuf,
    /// Size of the rayon pool the stage runs in. Bytes must not depend on it.
    pub n_threads: usize,
    /// The numbers of the GPUs it was granted: it uses no other. Empty where it wished for none, or there is none.
    pub gpus: Vec<usize>,
    /// Most memory the stage may take, where the user says.
    pub memory_bytes: Option<u64>,
    /// Set when the user interrupts.
    pub cancel: CancelToken,
    outputs_dir: PathBuf,
    external: Vec<ExternalFile>,
    emit: &'a (dyn Fn(StageEvent) + Sync),
}

impl<'a> Context<'a> {
    /// A context whose outputs go below `work_dir/outputs/PORT`. `emit` is called from any thread of the stage.
    pub fn new(work_dir: &Path, emit: &'a (dyn Fn(StageEvent) + Sync)) -> Self {
        Context {
            inputs: BTreeMap::new(),
            outputs: Vec::new(),
            resolved: None,
            base_dir: work_dir.to_path_buf(),
            scratch_dir: work_dir.join("scratch"),
            checkpoint_dir: work_dir.join("checkpoint"),
            n_threads: 1,
            gpus: Vec::new(),
            memory_bytes: None,
            cancel: CancelToken::default(),
            outputs_dir: work_dir.join("outputs"),
            external: Vec::new(),
            emit,
        }
    }

    /// The artifact on `port`, which the runner has checked to be connected.
    ///
    /// # Errors
    /// `missing-input` when an optional port is not connected.
    pub fn input(&self, port: &str) -> Result<&Artifact, StageError> {
        self.inputs
            .get(port)
            .ok_or_else(|| StageError::user("missing-input", format!("nothing is connected to port `{port}`")))
    }

    /// The folder to write the files of output `port` into; made on first use.
    ///
    /// # Errors
    /// `io` when it cannot be made.
    pub fn output_dir(&self, port: &str) -> Result<PathBuf, StageError> {
        let dir = self.outputs_dir.join(port);
        std::fs::create_dir_all(&dir).map_err(|e| StageError::io("create", &dir, e))?;
        Ok(dir)
    }

    /// The scratch folder, made on first use.
    ///
    /// # Errors
    /// `io` when it cannot be made.
    pub fn scratch(&self) -> Result<&Path, StageError> {
        std::fs::create_dir_all(&self.scratch_dir).map_err(|e| StageError::io("create", &self.scratch_dir, e))?;
        Ok(&self.scratch_dir)
    }

    /// Publishes a file by reference.
    pub fn publish_external(&mut self, file: ExternalFile) {
        self.external.push(file);
    }

    /// What was published by reference, for the runner to take.
    pub fn take_external(&mut self) -> Vec<ExternalFile> {
        std::mem::take(&mut self.external)
    }

    /// Tells the runner one fact.
    pub fn emit(&self, event: StageEvent) {
        (self.emit)(event);
    }

    /// Reports `done` of `total` (0 if unknown).
    pub fn progress(&self, done: u64, total: u64, unit: Unit) {
        self.emit(StageEvent::Progress { done, total, unit });
    }

    /// Writes a line to the log and the terminal.
    pub fn log(&self, line: impl Into<String>) {
        self.emit(StageEvent::Log { line: line.into() });
    }

    /// Warns: shown now and again in the summary.
    pub fn warn(&self, line: impl Into<String>) {
        self.emit(StageEvent::Warning { line: line.into() });
    }

    /// A fact for the summary.
    pub fn fact(&self, name: impl Into<String>, value: impl Into<String>) {
        self.emit(StageEvent::Fact { name: name.into(), value: value.into() });
    }

    /// Returns an error if the user interrupted: `ctx.check_cancelled()?` between pieces of work.
    ///
    /// # Errors
    /// [`StageError::cancelled`].
    pub fn check_cancelled(&self) -> Result<(), StageError> {
        if self.cancel.is_cancelled() { Err(StageError::cancelled()) } else { Ok(()) }
    }
}
