//! The two traits: a [`StageKind`] reads settings, a [`Stage`] runs with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::{Artifact, ArtifactKind, Context, Figure, KeySettings, Problem, Reader, StageError};

/// A part of an earlier execution that was looked at again.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SpotCheck {
    /// In words: `optimizer steps 11 to 20, run again`.
    pub what: String,
    /// What differs first; `None` where nothing does.
    pub difference: Option<String>,
}

/// The [`InputPort::name`] of a kind whose inputs are named by the pipeline file: any number of them, one at least where it is required.
pub const ANY_NAME: &str = "*";

/// An input of a stage kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputPort {
    /// As in `inputs: { PORT: ... }`.
    pub name: &'static str,
    /// What it takes.
    pub kind: ArtifactKind,
    /// Whether it must be connected.
    pub is_required: bool,
}

/// An output of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputPort {
    /// As in `STAGE.PORT`.
    pub name: &'static str,
    /// What it gives.
    pub kind: ArtifactKind,
}

/// An output of a stage as it is in one pipeline: of its kind, or declared in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// As in `STAGE.PORT`.
    pub name: String,
    /// What it gives.
    pub kind: ArtifactKind,
    /// The name of its only file, for a declared output of kind `file`.
    pub file: Option<String>,
}

/// How many threads a stage is best run with, where `resources.cpu` does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cpu {
    /// One thread: it waits for the network or the disk.
    One,
    /// Its share of what is free: it uses what it gets.
    Share,
    /// All of the run's threads: it is worth waiting for.
    All,
}

/// What fixes a stage's bytes besides its settings and inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nothing: an ordinary stage.
    Computed,
    /// The content of files on this machine, `root` left out of the key: the runner digests them.
    Files {
        /// Absolute folder.
        root: PathBuf,
        /// Names below `root`, `/` between folders, sorted.
        names: Vec<String>,
    },
    /// What a mutable name stands for, such as a branch on a hub: resolved once, then kept in the lock file.
    Remote {
        /// One line that identifies the question: `datasets/tatsu-lab/alpaca@main`.
        request: String,
    },
}

/// The answer to a [`Source::Remote`] request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// An immutable id: a commit of 40 hex digits.
    pub id: String,
}

/// A kind of stage: what `uses:` selects. Stateless; one static value per kind, listed in the runner's registry.
pub trait StageKind: Send + Sync {
    /// The word after `uses:`.
    fn name(&self) -> &'static str;

    /// One line for `pipe stages`: what it turns into what.
    fn summary(&self) -> &'static str;

    /// The implementation version: bumped, with one line of reason beside it, when the same key would give other bytes.
    fn version(&self) -> u32;

    /// Whether the pipeline file declares its ports: any inputs, and the outputs under `outputs:`.
    fn has_declared_ports(&self) -> bool {
        false
    }

    /// The inputs it can take.
    fn inputs(&self) -> &'static [InputPort];

    /// Every output it can have; [`Stage::outputs`] says which ones it has with its settings.
    fn outputs(&self) -> &'static [OutputPort];

    /// Reads `with:`. Never fails: problems go to the reader, a value that cannot be read is replaced by its default.
    fn read(&self, reader: &mut Reader) -> Box<dyn Stage>;

    /// Text for `pipe show`: the first `n_rows` rows, or what else is worth looking at, wrapped. What stands in `\u{27e6} \u{27e7}` is learned, and coloured.
    ///
    /// # Errors
    /// When the artifact cannot be read.
    fn show(&self, port: &str, artifact: &Artifact, n_rows: usize) -> Result<String, StageError> {
        let _ = (port, n_rows);
        let line = |(name, file): (&String, &crate::ArtifactFile)| format!("{:>12}  {name}\n", file.size_bytes);
        Ok(artifact.files.iter().map(line).collect())
    }

    /// What a report shows of the artifact on `port`, most telling first.
    ///
    /// # Errors
    /// When the artifact cannot be read.
    fn figures(&self, _port: &str, _artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
        Ok(Vec::new())
    }
}

/// A stage with its settings read.
pub trait Stage: Send + Sync {
    /// The outputs it has with these settings; none where the pipeline file declares them.
    fn outputs(&self) -> Vec<OutputPort>;

    /// The class of hardware and library its bytes depend on, `candle-0.11.1/cpu-avx2`; `None` if they do not.
    fn compute_class(&self) -> Option<String> {
        None
    }

    /// How many threads it is best run with.
    fn cpu(&self) -> Cpu {
        Cpu::Share
    }

    /// Whether it computes with rayon. One that does not runs on a single thread, whatever it was granted.
    fn is_parallel(&self) -> bool {
        true
    }

    /// `key` without the settings that only extend a run: it names checkpoints that outlive the outputs. `None`: nothing does.
    fn trajectory(&self, _key: &KeySettings) -> Option<KeySettings> {
        None
    }

    /// Bytes of its outputs, from those of the artifacts on its ports as far as they are known; `None` where they do not say.
    fn predict_bytes(&self, _inputs: &BTreeMap<String, u64>) -> Option<u64> {
        None
    }

    /// What is wrong with its settings where only the input ports of `connected` have something on them.
    fn check_inputs(&self, _connected: &[&str]) -> Vec<Problem> {
        Vec::new()
    }

    /// What fixes its bytes besides settings and inputs. `base_dir`: the pipeline file's folder.
    ///
    /// # Errors
    /// When a local source does not exist.
    fn source(&self, _base_dir: &Path) -> Result<Source, StageError> {
        Ok(Source::Computed)
    }

    /// Answers a [`Source::Remote`] request over the network.
    ///
    /// # Errors
    /// When the name is unknown or the network does not answer.
    fn resolve(&self) -> Result<Resolved, StageError> {
        Err(StageError::user("nothing-to-resolve", "this stage has no remote source"))
    }

    /// Does the work, inside a rayon pool of `ctx.n_threads` where it [is parallel](Stage::is_parallel).
    ///
    /// # Errors
    /// Whatever stops it, with what to do about it.
    fn run(&self, ctx: &mut Context<'_>) -> Result<(), StageError>;

    /// Looks at an earlier execution again: at the `outputs` that it left, by port, and the state in `ctx.checkpoint_dir`, which stays as
    /// it is. Runs up to `n_parts` of it again, chosen by `seed`. Nothing that it writes is published. `None`: it must run in full.
    ///
    /// # Errors
    /// As [`Stage::run`]; what differs is no error.
    fn spot_check(
        &self,
        _ctx: &Context<'_>,
        _outputs: &BTreeMap<String, Artifact>,
        _n_parts: usize,
        _seed: u64,
    ) -> Result<Option<Vec<SpotCheck>>, StageError> {
        Ok(None)
    }
}
