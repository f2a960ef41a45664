//! A training run: plan, load, go on from a checkpoint, optimizer steps, write. The optimizer steps are in [`crate::training`].

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Device, Tensor};
use pipe_contract::{
    Artifact, ArtifactKind, Context, Cpu, KeySettings, OutputPort, Problem, SpotCheck, Stage, StageError,
};
use pipe_llm::adapter::TokenIndices;
use pipe_llm::device;
use pipe_llm::engine::native::PackShape;
use pipe_llm::new_tokens::{self, NewTokens};
use pipe_llm::optimizer::AdamWSettings;
use pipe_llm::program::WeightSpec;
use pipe_llm::schedule::Schedule;
use pipe_llm::trainer::{Trained, Trainer};
use pipe_llm::{Adapter, Engine, LlmError, LoraConfig, ModelConfig, Program, load, model_folder};
use pipe_records::packed::PackedReader;
use pipe_records::thousands;
use safetensors::Dtype;

use crate::batches::Batches;
use crate::error::TrainError;
use crate::evaluation::EvalPacks;
use crate::memory;
use crate::metrics;
use crate::settings::{self, LoraSettings, Method, Settings, Targets};
use crate::spot;
use crate::state::set_values;
use crate::tokens;
use crate::training::{Run, n_tokens_planned};

/// `uses: train` with its settings.
pub struct Train {
    /// As resolved.
    pub settings: Settings,
}

impl Stage for Train {
    fn outputs(&self) -> Vec<OutputPort> {
        let trained = match self.settings.method {
            Method::Lora(_) => OutputPort { name: "adapter", kind: ArtifactKind::Adapter },
            Method::Full { .. } => OutputPort { name: "model", kind: ArtifactKind::Model },
        };
        vec![trained, OutputPort { name: "metrics", kind: ArtifactKind::Metrics }]
    }

    fn compute_class(&self) -> Option<String> {
        Some(self.settings.device.compute_class())
    }

    fn cpu(&self) -> Cpu {
        Cpu::All
    }

    fn trajectory(&self, key: &KeySettings) -> Option<KeySettings> {
        Some(settings::trajectory(key))
    }

    fn check_inputs(&self, connected: &[&str]) -> Vec<Problem> {
        self.settings.evaluating.check(connected.contains(&"eval")).into_iter().collect()
    }

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), StageError> {
        let packs = PackedReader::open(ctx.input("data")?)?;
        let mut run = self.prepare(ctx, &packs)?;
        run.restore();
        run.optimizer_steps()?;
        write(run)
    }

    fn spot_check(
        &self,
        ctx: &Context<'_>,
        outputs: &BTreeMap<String, Artifact>,
        n_parts: usize,
        seed: u64,
    ) -> Result<Option<Vec<SpotCheck>>, StageError> {
        let packs = PackedReader::open(ctx.input("data")?)?;
        spot::check(self.prepare(ctx, &packs)?, outputs, n_parts, seed).map(Some)
    }
}

/// The longest pack there may be, all of it supervised.
fn pack_shape(packs: &PackedReader, n_packs: usize) -> PackShape {
    let n_tokens = usize::try_from(packs.info().max_length).unwrap_or(usize::MAX);
    PackShape { n_tokens, n_supervised: n_tokens, n_packs }
}

/// Whether there is something to learn, and the model has the ids.
fn check_packs(ctx: &Context<'_>, packs: &PackedReader) -> Result<(), StageError> {
    let config = load::model_config(ctx.input("model")?)?;
    let info = packs.info();
    if info.n_supervised_tokens == 0 {
        return Err(TrainError::NothingToLearn { n_packs: info.n_packs }.into());
    }
    if info.vocab_size > config.vocab_size as u64 {
        return Err(TrainError::VocabularyTooSmall { packs: info.vocab_size, model: config.vocab_size }.into());
    }
    Ok(())
}

impl Train {
    /// A run before its first optimizer step.
    fn prepare<'r, 'c>(&'r self, ctx: &'r Context<'c>, packs: &'r PackedReader) -> Result<Run<'r, 'c>, StageError> {
        check_packs(ctx, packs)?;
        let mut trainer = self.trainer(ctx)?;
        warn_of_dropouts(ctx, &trainer.engine.program().config);
        tokens::tell(ctx, &trainer, packs)?;
        let shuffle_seed = self.settings.is_shuffled.then_some(self.settings.seed);
        let batches = Batches::new(
            packs.n_packs(),
            self.settings.global_batch,
            self.settings.num_train_epochs,
            self.settings.max_steps,
            shuffle_seed,
        );
        trainer.schedule.n_steps = batches.n_steps;
        trainer.schedule.n_warmup_steps = self.settings.warmup.n_steps(batches.n_steps);
        describe(ctx, &trainer, &batches, packs);
        let eval_packs = self.eval_packs(ctx, &trainer)?;
        let memory = memory::plan(ctx, &mut trainer, pack_shape(packs, self.settings.global_batch))?;
        Ok(Run::new(&self.settings, ctx, packs, eval_packs, trainer, batches, memory))
    }

    /// What trains the model and, if there is one, the adapter of `ctx`. Its schedule has no optimizer steps yet.
    pub(crate) fn trainer(&self, ctx: &Context<'_>) -> Result<Trainer, StageError> {
        let model = ctx.input("model")?;
        let config = load::model_config(model)?;
        let device = device::open(self.settings.device.device, &ctx.gpus)?;
        let (engine, trained) = match &self.settings.method {
            Method::Lora(lora) => self.lora(ctx, lora, &config, &device)?,
            Method::Full { .. } if ctx.inputs.contains_key("adapter") => return Err(TrainError::AdapterWithFull.into()),
            Method::Full { freeze } => {
                let mut engine = self.engine(model, Program::full(&config, freeze)?, &device)?;
                new_tokens::begin_rows(model, &mut engine)?;
                (engine, Trained::Weights)
            }
        };
        let settings = &self.settings;
        let optimizer_settings = AdamWSettings {
            beta1: settings.adam_beta1,
            beta2: settings.adam_beta2,
            epsilon: settings.adam_epsilon,
            weight_decay: settings.weight_decay,
            max_grad_norm: settings.max_grad_norm,
        };
        let schedule = Schedule {
            schedule_type: settings.schedule_type,
            peak: settings.learning_rate,
            n_warmup_steps: 0,
            n_steps: 0,
        };
        Ok(Trainer::new(engine, trained, optimizer_settings, schedule, settings.seed))
    }

    fn engine(&self, model: &Artifact, program: Program, device: &Device) -> Result<Engine, StageError> {
        load::training_engine(model, program, self.settings.device, device)
    }

    /// The packs on port `eval`, if there are some.
    fn eval_packs(&self, ctx: &Context<'_>, trainer: &Trainer) -> Result<Option<EvalPacks>, StageError> {
        let Some(artifact) = ctx.inputs.get("eval") else { return Ok(None) };
        let packs = EvalPacks::open(artifact, &trainer.engine.program().config)?;
        ctx.log(format!(
            "evaluates on {} packs with {} supervised tokens",
            thousands(packs.n_packs() as u64),
            thousands(packs.n_supervised as u64)
        ));
        Ok(Some(packs))
    }

    /// A fresh adapter, or the one that is connected.
    fn lora(
        &self,
        ctx: &Context<'_>,
        settings: &LoraSettings,
        config: &ModelConfig,
        device: &Device,
    ) -> Result<(Engine, Trained), StageError> {
        let start = ctx.inputs.get("adapter");
        let targets = targets(&settings.target_modules, config, start.is_some())?;
        let tokens = new_tokens::indices(config, &token_ids(ctx, settings)?);
        let lora = match start {
            None => fresh_config(settings, targets, tokens),
            Some(adapter) => start_config(settings, &targets, &tokens, adapter)?,
        };
        let program = Program::for_adapter(config, Some(&lora))?;
        let model = ctx.input("model")?;
        let rows = if start.is_none() { new_tokens::adapter_rows(model, &program)? } else { vec![] };
        let engine = self.engine(model, program, device)?;
        let adapter = match start {
            None => Adapter::fresh(lora, engine.program(), rows, self.settings.seed, device)?,
            Some(artifact) => load::adapter_with(lora, artifact, engine.program(), device)?,
        };
        Ok((engine, Trained::Adapter(adapter)))
    }
}

/// The modules that `target_modules` means in this model. `has_start`: those of an adapter to start from count where it means none.
fn targets(targets: &Targets, config: &ModelConfig, has_start: bool) -> Result<Vec<String>, StageError> {
    match targets {
        Targets::Named(names) => Ok(names.clone()),
        Targets::AllLinear => Ok(Program::all_linear(config)),
        Targets::Default => match config.architecture.default_targets() {
            Some(names) => Ok(names.iter().map(|name| (*name).to_string()).collect()),
            None if has_start => Ok(vec![]),
            None => Err(TrainError::NoDefaultTargets {
                family: config.architecture.class_name(),
                modules: Program::all_linear(config),
            }
            .into()),
        },
    }
}

/// The tokens that get rows: those of the settings, or the new ones of the model.
fn token_ids(ctx: &Context<'_>, settings: &LoraSettings) -> Result<Vec<u32>, StageError> {
    match &settings.trainable_token_indices {
        Some(ids) => Ok(ids.clone()),
        None => Ok(NewTokens::of(ctx.input("model")?)?.map_or_else(Vec::new, |new| new.ids())),
    }
}

fn fresh_config(lora: &LoraSettings, target_modules: Vec<String>, trainable_token_indices: TokenIndices) -> LoraConfig {
    LoraConfig {
        lora_rank: lora.lora_rank,
        lora_alpha: lora.lora_alpha,
        lora_dropout: lora.lora_dropout,
        use_rslora: lora.use_rslora,
        target_modules,
        trainable_token_indices,
        // Set for the model's matrices with the adapter's own.
        fan_in_fan_out: false,
        // The model's name is not part of its content, and no path of this machine belongs into an artifact.
        base_model: None,
        revision: None,
    }
}

/// The config of the adapter to start from, with our dropout; what `lora:` says must agree with it.
fn start_config(
    lora: &LoraSettings,
    targets: &[String],
    tokens: &TokenIndices,
    adapter: &Artifact,
) -> Result<LoraConfig, StageError> {
    let start = load::lora_config(adapter)?;
    let facts = [
        ("r", lora.lora_rank.to_string(), start.lora_rank.to_string()),
        ("lora_alpha", lora.lora_alpha.to_string(), start.lora_alpha.to_string()),
        ("use_rslora", lora.use_rslora.to_string(), start.use_rslora.to_string()),
        ("target_modules", format!("{targets:?}"), format!("{:?}", start.target_modules)),
        ("trainable_token_indices", format!("{tokens:?}"), format!("{:?}", start.trainable_token_indices)),
    ];
    for (field, ours, theirs) in facts {
        if lora.given.contains(&field) && ours != theirs {
            return Err(TrainError::StartDisagrees { field, ours, theirs }.into());
        }
    }
    Ok(LoraConfig { lora_dropout: lora.lora_dropout, base_model: None, revision: None, ..start })
}

/// transformers drops activations of such a model in training, whatever `lora_dropout` says.
fn warn_of_dropouts(ctx: &Context<'_>, config: &ModelConfig) {
    if config.dropouts.is_empty() {
        return;
    }
    let fields: Vec<String> = config.dropouts.iter().map(|(name, p)| format!("`{name}` {p}")).collect();
    ctx.warn(format!(
        "the model's config.json asks for dropout inside the model ({}), which is not applied: only `lora_dropout` is",
        fields.join(", ")
    ));
}

fn describe(ctx: &Context<'_>, trainer: &Trainer, batches: &Batches, packs: &PackedReader) {
    let program = trainer.engine.program();
    let n_all = program.n_elements();
    let n_trainable: usize = trainer.parameters().iter().map(|p| p.tensor.elem_count()).sum();
    // An adapter comes on top of the model's own.
    let (n_all, place) = match trainer.adapter() {
        Some(adapter) => {
            let tokens = match adapter.config.n_tokens() {
                0 => String::new(),
                n_tokens => format!(" and {n_tokens} tokens"),
            };
            (n_all + n_trainable, format!("{} modules{tokens}", adapter.modules.len()))
        }
        None => (n_all, format!("{} of {} tensors", program.trained.len(), program.weights.len())),
    };
    ctx.log(format!(
        "trainable parameters: {} of {} ({:.2} %), in {place}",
        thousands(n_trainable as u64),
        thousands(n_all as u64),
        100.0 * n_trainable as f64 / n_all as f64,
    ));
    let info = packs.info();
    ctx.log(format!(
        "{} packs, {} tokens, {} supervised; {} optimizer steps, {} per epoch, warmup of {}",
        thousands(info.n_packs),
        thousands(info.n_tokens),
        thousands(info.n_supervised_tokens),
        thousands(batches.n_steps),
        thousands(batches.steps_per_epoch()),
        trainer.schedule.n_warmup_steps
    ));
    let tera = program.flops_per_token() * n_tokens_planned(batches, packs) as f64 / 1e12;
    ctx.log(format!(
        "about {tera:.1} TFLOP in matrix products, on {}",
        if trainer.engine.device().is_cpu() { "the CPU" } else { "a GPU" }
    ));
    let shown = BTreeSet::from([0, 1, 2, batches.n_steps.saturating_sub(1)]);
    let rates: Vec<String> = shown
        .into_iter()
        .filter(|&n| n < batches.n_steps)
        .map(|n| format!("{}: {:.2e}", n + 1, trainer.schedule.learning_rate(n)))
        .collect();
    ctx.log(format!("learning rate at optimizer steps {}", rates.join(", ")));
}

/// Writes what was trained, the last of it or the best, and the metrics.
fn write(mut run: Run<'_, '_>) -> Result<(), StageError> {
    let links = run.links()?;
    let best = run.progress.best.take().filter(|best| best.step != run.trainer.optimizer.n_done);
    let best = best.filter(|_| run.settings.evaluating.takes_best);
    if let Some(best) = best {
        let line =
            format!("the best by the loss on port `eval` is that of optimizer step {}: it is written", best.step);
        run.ctx.log(line);
        set_values(&mut run.trainer, best.values)?;
    }
    write_trained(&run)?;
    let history = &run.progress.history;
    let folder = run.ctx.output_dir("metrics")?;
    metrics::write(&folder, history, &links, run.batches.n_steps, run.settings.num_train_epochs)?;
    if let (Some(first), Some(last)) = (history.steps.first(), history.steps.last()) {
        run.ctx.fact("optimizer steps", thousands(last.step));
        run.ctx.fact("loss", format!("{:.3} -> {:.3}", first.loss, last.loss));
        run.ctx.fact("tokens", thousands(last.num_tokens));
    }
    if let (Some(first), Some(last), Some(best)) = (history.evals.first(), history.evals.last(), history.best()) {
        run.ctx.fact("evaluation loss", format!("{:.3} -> {:.3}", first.eval_loss, last.eval_loss));
        let is_written = run.settings.evaluating.takes_best || best.step == last.step;
        let what = if is_written { ", which is written" } else { "" };
        let step = thousands(best.step);
        run.ctx.fact("best evaluation", format!("{:.3} after optimizer step {step}{what}", best.eval_loss));
    }
    run.memory.tell(run.ctx);
    Ok(())
}

/// The port of what was trained, and its files written there.
pub(crate) fn write_trained(run: &Run<'_, '_>) -> Result<&'static str, StageError> {
    match &run.trainer.trained {
        Trained::Adapter(adapter) => {
            adapter.save(&run.ctx.output_dir("adapter")?)?;
            Ok("adapter")
        }
        Trained::Weights => {
            write_model(run.ctx, &run.trainer)?;
            Ok("model")
        }
    }
}

/// The model with its trained weights in f32, as they were computed, and its frozen ones as they came.
fn write_model(ctx: &Context<'_>, trainer: &Trainer) -> Result<(), StageError> {
    let (model, folder) = (ctx.input("model")?, ctx.output_dir("model")?);
    model_folder::write_config(model, &folder, Some(Dtype::F32))?;
    model_folder::copy_companions(model, &folder)?;
    let engine = &trainer.engine;
    let on_host = |(spec, tensor): (&WeightSpec, Tensor)| -> Result<(String, Tensor), LlmError> {
        Ok((spec.name.clone(), tensor.to_device(&Device::Cpu)?.contiguous()?))
    };
    let pairs = engine.program().weights.iter().zip(engine.tensors()?);
    let mut tensors: Vec<(String, Tensor)> = pairs.map(on_host).collect::<Result<_, _>>()?;
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(model_folder::write_weights(&folder, &tensors, model_folder::MAX_SHARD_SIZE_BYTES)?)
}
