//! Optimizer steps with a clock beside them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pipe_contract::{Artifact, ArtifactKind, CancelToken, Context, Stage as _, StageError, StageEvent, read_yaml};
use pipe_llm::Sequence;
use pipe_llm::engine::native::PackShape;
use pipe_llm::trainer::{StepReport, Trainer};
use pipe_llm::work::Work;
use serde_json::{Map, Value, json};

use super::packs::{Packs, Source};
use super::peak::Peak;
use super::report::{Measured, TrainReport};
use crate::error::TrainError;
use crate::memory::{Memory, status_bytes};
use crate::run::Train;
use crate::settings;

/// What `pipe bench train` is asked for. What is `None` is left to the stage's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainRequest {
    /// A folder with `config.json` and `*.safetensors`.
    pub model: PathBuf,
    /// What is trained.
    pub method: Method,
    /// Where packs come from.
    pub source: Source,
    /// Packs of an optimizer step.
    pub global_batch: u64,
    /// Optimizer steps that count, at least 1; one before them does not.
    pub n_steps: usize,
    /// Seed of random ids, of a fresh adapter and of dropout.
    pub seed: u64,
    /// `engine:` of the stage.
    pub engine: Option<String>,
    /// Most memory to take, in bytes.
    pub memory_bytes: Option<u64>,
}

/// What is trained.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// An adapter.
    Lora(Lora),
    /// All weights.
    Full,
}

/// An adapter to train. Without a folder it is fresh, with `r: 16` and alpha twice that.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lora {
    /// A folder with an adapter to start from: rank, alpha and targets are its own.
    pub adapter: Option<PathBuf>,
    /// r.
    pub lora_rank: Option<u64>,
    /// Dropout on the adapter's input.
    pub lora_dropout: Option<f64>,
    /// Modules that get an adapter.
    pub target_modules: Option<Vec<String>>,
}

/// The rank of a fresh adapter whose rank nobody said: that of the usual Alpaca run.
const LORA_RANK: u64 = 16;
/// Its speed does not depend on it, but a rate of 0 would hide an optimizer that does not work.
const LEARNING_RATE: f64 = 2e-4;

/// The parts of every engine; one that an engine does together with another stays 0.
const PARTS: [&str; 10] =
    ["embedding", "norm", "linear", "adapter", "rope", "attention", "mlp", "residual", "head", "other"];

/// A model in memory and packs to train on, before the first optimizer step.
pub struct PreparedTrain {
    trainer: Trainer,
    packs: Packs,
    request: TrainRequest,
    compute_class: String,
    global_batch: usize,
}

impl PreparedTrain {
    /// Checks the request and loads the model. `tell` is given the forecast of memory.
    ///
    /// # Errors
    /// Settings out of range, a model, adapter or file of ids that cannot be read or does not fit.
    pub fn new(request: TrainRequest, tell: &mut dyn FnMut(&str)) -> Result<Self, StageError> {
        let train = Train { settings: read_settings(&request)? };
        let packs = Packs::open(&request.source, request.seed)?;
        let nothing = |_: StageEvent| {};
        // Only a run writes below the context's folder.
        let mut ctx = Context::new(Path::new(""), &nothing);
        ctx.inputs.insert("model".into(), model(&request.model)?);
        if let Method::Lora(Lora { adapter: Some(adapter), .. }) = &request.method {
            ctx.inputs.insert("adapter".into(), Artifact::from_folder(ArtifactKind::Adapter, adapter)?);
        }
        let mut trainer = train.trainer(&ctx)?;
        trainer.schedule.n_steps = 1 + request.n_steps as u64;
        let mut prepared = PreparedTrain {
            trainer,
            packs,
            compute_class: train.compute_class().unwrap_or_default(),
            global_batch: train.settings.global_batch,
            request,
        };
        let sequences = prepared.sequences(0)?;
        let shape = PackShape {
            n_tokens: sequences.iter().map(Sequence::len).max().unwrap_or(0),
            n_supervised: sequences.iter().map(|s| s.targets.len()).max().unwrap_or(0),
            n_packs: sequences.len(),
        };
        let limit = prepared.request.memory_bytes;
        Memory::plan(&mut prepared.trainer, shape, limit, &mut |line| tell(&line))?;
        Ok(prepared)
    }

    /// Takes the optimizer steps and measures. `tell` is given a line after each.
    ///
    /// # Errors
    /// An optimizer step that fails; an interruption.
    pub fn run(mut self, cancel: &CancelToken, tell: &mut dyn FnMut(&str)) -> Result<TrainReport, StageError> {
        let mut first = None;
        let mut measured = Vec::new();
        for step_idx in 0..=self.request.n_steps {
            let sequences = self.sequences(step_idx)?;
            let begin = Instant::now();
            let done = self.trainer.step::<StageError>(&sequences, |_| {
                if cancel.is_cancelled() { Err(StageError::cancelled()) } else { Ok(()) }
            })?;
            let seconds = begin.elapsed().as_secs_f64();
            let parts_seconds = self.take_parts(seconds);
            let name =
                if step_idx == 0 { "warm-up".to_string() } else { format!("{step_idx}/{}", self.request.n_steps) };
            tell(&format!(
                "{name}  loss {:.4}  grad_norm {:.4}  {seconds:.3} s  {:.0} tokens/s",
                done.loss,
                done.grad_norm,
                done.n_tokens as f64 / seconds
            ));
            if step_idx > 0 {
                measured.push(self.measured(&done, &sequences, seconds, parts_seconds));
            }
            first.get_or_insert(done);
        }
        let first = first.expect("the first optimizer step always runs");
        // Before the peak is measured: what that needs is not training's.
        let peak_rss_mib = status_bytes("VmHWM:").map(|size_bytes| size_bytes as f64 / (1u64 << 20) as f64);
        Ok(TrainReport::new(&first, &measured, peak_rss_mib, Peak::measure(), self.compute_class))
    }

    fn sequences(&self, step_idx: usize) -> Result<Vec<Sequence>, StageError> {
        let config = &self.trainer.engine.program().config;
        let first = step_idx * self.global_batch;
        (first..first + self.global_batch).map(|pack_idx| self.packs.sequence(config, pack_idx)).collect()
    }

    /// The engine's parts, and as `optimizer` what an optimizer step does outside of it: means, gates, clipping, AdamW.
    fn take_parts(&self, seconds: f64) -> BTreeMap<&'static str, f64> {
        let taken = self.trainer.engine.take_parts().seconds;
        let in_engine: f64 = taken.values().sum();
        let mut parts: BTreeMap<&'static str, f64> = PARTS.map(|name| (name, 0.0)).into();
        parts.extend(taken);
        parts.insert("optimizer", (seconds - in_engine).max(0.0));
        parts
    }

    fn measured(
        &self,
        done: &StepReport,
        sequences: &[Sequence],
        seconds: f64,
        parts_seconds: BTreeMap<&'static str, f64>,
    ) -> Measured {
        let lora_rank = self.trainer.adapter().map(|adapter| adapter.config.lora_rank);
        Measured {
            seconds,
            parts_seconds,
            n_tokens: done.n_tokens,
            n_supervised: done.n_supervised,
            work: Work::new(self.trainer.engine.program(), lora_rank, sequences),
        }
    }
}

/// `config.json` and the weights at the top of a model folder: what else lies there is not looked at.
pub(super) fn model(folder: &Path) -> Result<Artifact, StageError> {
    let mut artifact = Artifact::from_folder(ArtifactKind::Model, folder)?;
    let is_index = |name: &str| name.ends_with(".index.json");
    let is_used = |name: &str| name == "config.json" || is_index(name) || pipe_weights::select::is_weights(name);
    artifact.files.retain(|name, _| !name.contains('/') && is_used(name));
    Ok(artifact)
}

/// The stage's own settings, from the `with:` block that the request stands for.
fn read_settings(request: &TrainRequest) -> Result<settings::Settings, TrainError> {
    let mut with = json!({
        "per_device_train_batch_size": request.global_batch,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "max_steps": 1 + request.n_steps,
        "seed": request.seed,
    });
    match &request.method {
        Method::Full => with["method"] = json!("full"),
        Method::Lora(lora) => with["lora"] = lora_settings(lora),
    }
    if let Some(engine) = &request.engine {
        with["engine"] = json!(engine);
    }
    let (settings, _, problems) = read_yaml(&with.to_string(), settings::read);
    match problems.is_empty() {
        true => Ok(settings),
        false => {
            let whys: Vec<String> = problems.into_iter().map(|problem| problem.message).collect();
            Err(TrainError::BenchSettings { why: whys.join("; ") })
        }
    }
}

fn lora_settings(lora: &Lora) -> Value {
    let mut with = Map::new();
    let rank = lora.lora_rank.or(lora.adapter.is_none().then_some(LORA_RANK));
    if let Some(rank) = rank {
        with.insert("r".into(), json!(rank));
    }
    if let (Some(rank), None) = (rank, &lora.adapter) {
        with.insert("lora_alpha".into(), json!(2 * rank.max(1)));
    }
    if let Some(dropout) = lora.lora_dropout {
        with.insert("lora_dropout".into(), json!(dropout));
    }
    if let Some(targets) = &lora.target_modules {
        with.insert("target_modules".into(), json!(targets));
    }
    Value::Object(with)
}
