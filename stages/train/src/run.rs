//! A training run: plan, load, go on from a checkpoint, optimizer steps, write.

use std::collections::BTreeSet;
use std::time::Instant;

use candle_core::{Device, Tensor};
use pipe_contract::{Artifact, ArtifactKind, Context, Cpu, OutputPort, Stage, StageError, Unit};
use pipe_llm::device;
use pipe_llm::optimizer::AdamWSettings;
use pipe_llm::program::WeightSpec;
use pipe_llm::schedule::Schedule;
use pipe_llm::trainer::{Trained, Trainer};
use pipe_llm::{Adapter, Engine, LlmError, LoraConfig, ModelConfig, Program, Sequence, load, model_folder};
use pipe_records::packed::PackedReader;
use pipe_records::thousands;
use safetensors::Dtype;

use crate::batches::{Batches, EpochOrder};
use crate::checkpoint;
use crate::error::TrainError;
use crate::metrics::{self, MetricsLine};
use crate::settings::{LoraSettings, Method, Save, Settings};

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

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), StageError> {
        let packs = PackedReader::open(ctx.input("data")?)?;
        check_packs(ctx, &packs)?;
        let mut trainer = self.trainer(ctx)?;
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
        describe(ctx, &trainer, &batches, &packs);
        let mut run = Run {
            settings: &self.settings,
            ctx,
            packs: &packs,
            trainer,
            batches,
            metrics: Vec::new(),
            started: Instant::now(),
            n_tokens_here: 0,
        };
        run.restore();
        run.optimizer_steps()?;
        run.write()
    }
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
    /// What trains the model and, if there is one, the adapter of `ctx`. Its schedule has no optimizer steps yet.
    pub(crate) fn trainer(&self, ctx: &Context<'_>) -> Result<Trainer, StageError> {
        let model = ctx.input("model")?;
        let config = load::model_config(model)?;
        let device = device::open(self.settings.device.device)?;
        let (engine, trained) = match &self.settings.method {
            Method::Lora(lora) => self.lora(ctx, lora, &config, &device)?,
            Method::Full { .. } if ctx.inputs.contains_key("adapter") => return Err(TrainError::AdapterWithFull.into()),
            Method::Full { freeze } => {
                (self.engine(model, Program::full(&config, freeze)?, &device)?, Trained::Weights)
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

    /// A fresh adapter, or the one that is connected.
    fn lora(
        &self,
        ctx: &Context<'_>,
        settings: &LoraSettings,
        config: &ModelConfig,
        device: &Device,
    ) -> Result<(Engine, Trained), StageError> {
        let start = ctx.inputs.get("adapter");
        let lora = match start {
            None => fresh_config(settings),
            Some(adapter) => start_config(settings, adapter)?,
        };
        let program = Program::new(config, &lora.target_modules)?;
        let engine = self.engine(ctx.input("model")?, program, device)?;
        let adapter = match start {
            None => Adapter::fresh(lora, engine.program(), self.settings.seed, device)?,
            Some(artifact) => load::adapter_with(lora, artifact, engine.program(), device)?,
        };
        Ok((engine, Trained::Adapter(adapter)))
    }
}

fn fresh_config(lora: &LoraSettings) -> LoraConfig {
    LoraConfig {
        lora_rank: lora.lora_rank,
        lora_alpha: lora.lora_alpha,
        lora_dropout: lora.lora_dropout,
        use_rslora: lora.use_rslora,
        target_modules: lora.target_modules.clone(),
        // The model's name is not part of its content, and no path of this machine belongs into an artifact.
        base_model: None,
        revision: None,
    }
}

/// The config of the adapter to start from, with our dropout; what `lora:` says must agree with it.
fn start_config(lora: &LoraSettings, adapter: &Artifact) -> Result<LoraConfig, StageError> {
    let start = load::lora_config(adapter)?;
    let facts = [
        ("r", lora.lora_rank.to_string(), start.lora_rank.to_string()),
        ("lora_alpha", lora.lora_alpha.to_string(), start.lora_alpha.to_string()),
        ("use_rslora", lora.use_rslora.to_string(), start.use_rslora.to_string()),
        ("target_modules", format!("{:?}", lora.target_modules), format!("{:?}", start.target_modules)),
    ];
    for (field, ours, theirs) in facts {
        if lora.given.contains(&field) && ours != theirs {
            return Err(TrainError::StartDisagrees { field, ours, theirs }.into());
        }
    }
    Ok(LoraConfig { lora_dropout: lora.lora_dropout, base_model: None, revision: None, ..start })
}

fn describe(ctx: &Context<'_>, trainer: &Trainer, batches: &Batches, packs: &PackedReader) {
    let program = trainer.engine.program();
    let n_all: usize = program.weights.iter().map(|w| w.shape.iter().product::<usize>()).sum();
    let n_trainable: usize = trainer.parameters().iter().map(|p| p.tensor.elem_count()).sum();
    // An adapter comes on top of the model's own.
    let (n_all, place) = match trainer.adapter() {
        Some(adapter) => (n_all + n_trainable, format!("{} modules", adapter.modules.len())),
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

/// Tokens of the whole run, taking packs as equally long.
fn n_tokens_planned(batches: &Batches, packs: &PackedReader) -> u64 {
    let share = batches.n_steps as f64 / batches.steps_per_epoch() as f64;
    (packs.info().n_tokens as f64 * share) as u64
}

struct Run<'r, 'c> {
    settings: &'r Settings,
    ctx: &'r Context<'c>,
    packs: &'r PackedReader,
    trainer: Trainer,
    batches: Batches,
    metrics: Vec<MetricsLine>,
    started: Instant,
    n_tokens_here: u64,
}

impl Run<'_, '_> {
    fn restore(&mut self) {
        match checkpoint::restore(&self.ctx.checkpoint_dir, &mut self.trainer) {
            Ok(None) => {}
            Ok(Some(metrics)) => {
                self.metrics = metrics;
                self.ctx
                    .log(format!("goes on from the checkpoint of optimizer step {}", self.trainer.optimizer.n_done));
            }
            Err(why) => self.ctx.warn(format!("the checkpoint cannot be used, training starts anew: {why}")),
        }
    }

    fn optimizer_steps(&mut self) -> Result<(), StageError> {
        let mut order = EpochOrder::default();
        while self.trainer.optimizer.n_done < self.batches.n_steps {
            let step_idx = self.trainer.optimizer.n_done;
            let sequences = self.sequences(&self.batches.packs(step_idx, &mut order))?;
            if let Err(error) = self.optimizer_step(&sequences) {
                if error.is_cancelled && step_idx > 0 {
                    checkpoint::save(&self.ctx.checkpoint_dir, &self.trainer, &self.metrics)?;
                    self.ctx.log(format!("interrupted; the state of optimizer step {step_idx} is saved"));
                }
                return Err(error);
            }
            self.log();
            if self.saves_after(step_idx) {
                checkpoint::save(&self.ctx.checkpoint_dir, &self.trainer, &self.metrics)?;
            }
        }
        Ok(())
    }

    fn sequences(&self, pack_indices: &[usize]) -> Result<Vec<Sequence>, StageError> {
        let config = &self.trainer.engine.program().config;
        let sequence = |&index: &usize| -> Result<Sequence, StageError> {
            let pack = self.packs.pack(index)?;
            Ok(Sequence::new(config, &pack.input_ids, &pack.labels, &pack.position_ids, &pack.doc_ids)?)
        };
        pack_indices.iter().map(sequence).collect()
    }

    fn optimizer_step(&mut self, sequences: &[Sequence]) -> Result<(), StageError> {
        let n_before = self.metrics.last().map_or(0, |line| line.num_tokens);
        let n_planned = n_tokens_planned(&self.batches, self.packs);
        let ctx = self.ctx;
        let check = |n_done: usize| {
            let n_tokens: usize = sequences[..n_done].iter().map(Sequence::len).sum();
            ctx.progress(n_before + n_tokens as u64, n_planned, Unit::Tokens);
            ctx.check_cancelled()
        };
        let report = self.trainer.step::<StageError>(sequences, check)?;
        let step = self.trainer.optimizer.n_done;
        let num_tokens = n_before + report.n_tokens as u64;
        self.n_tokens_here += report.n_tokens as u64;
        self.metrics.push(MetricsLine {
            step,
            epoch: step as f64 / self.batches.steps_per_epoch() as f64,
            loss: report.loss,
            grad_norm: report.grad_norm,
            learning_rate: report.learning_rate,
            num_tokens,
            num_supervised_tokens: report.n_supervised as u64,
        });
        self.ctx.progress(num_tokens, n_planned.max(num_tokens), Unit::Tokens);
        Ok(())
    }

    /// A line at every `logging_steps`, at the first optimizer step and at the last: the mean loss since the line before.
    fn log(&self) {
        let Some(line) = self.metrics.last() else { return };
        let every = self.settings.logging_steps;
        if !(line.step.is_multiple_of(every) || line.step == 1 || line.step == self.batches.n_steps) {
            return;
        }
        let since = self.metrics.len() - ((line.step - 1) % every + 1) as usize;
        let window = &self.metrics[since..];
        let loss = window.iter().map(|l| l.loss).sum::<f64>() / window.len() as f64;
        // The live line shows it; the summary's fact replaces it at the end.
        self.ctx.fact("loss", format!("{loss:.3}"));
        let rate = self.n_tokens_here as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        self.ctx.log(format!(
            "step {}/{}  loss {loss:.4}  grad_norm {:.4}  learning_rate {:.3e}  epoch {:.2}  {rate:.0} tokens/s",
            line.step, self.batches.n_steps, line.grad_norm, line.learning_rate, line.epoch
        ));
    }

    fn saves_after(&self, step_idx: u64) -> bool {
        match self.settings.save {
            Save::No => false,
            Save::Epoch => self.batches.ends_epoch(step_idx),
            Save::Steps(every) => (step_idx + 1).is_multiple_of(every),
        }
    }

    fn write(&self) -> Result<(), StageError> {
        match &self.trainer.trained {
            Trained::Adapter(adapter) => adapter.save(&self.ctx.output_dir("adapter")?)?,
            Trained::Weights => self.write_model()?,
        }
        let folder = self.ctx.output_dir("metrics")?;
        metrics::write(&folder, &self.metrics, self.batches.n_steps, self.settings.num_train_epochs)?;
        if let (Some(first), Some(last)) = (self.metrics.first(), self.metrics.last()) {
            self.ctx.fact("optimizer steps", thousands(last.step));
            self.ctx.fact("loss", format!("{:.3} -> {:.3}", first.loss, last.loss));
            self.ctx.fact("tokens", thousands(last.num_tokens));
        }
        if let Some(peak_kib) = peak_memory_kib() {
            self.ctx.log(format!("peak memory of the process: {:.2} GiB", peak_kib as f64 / (1024.0 * 1024.0)));
        }
        Ok(())
    }
}

impl Run<'_, '_> {
    /// The model with its trained weights in f32, as they were computed, and its frozen ones as they came.
    fn write_model(&self) -> Result<(), StageError> {
        let (model, folder) = (self.ctx.input("model")?, self.ctx.output_dir("model")?);
        model_folder::write_config(model, &folder, Some(Dtype::F32))?;
        model_folder::copy_companions(model, &folder)?;
        let engine = &self.trainer.engine;
        let on_host = |(spec, tensor): (&WeightSpec, Tensor)| -> Result<(String, Tensor), LlmError> {
            Ok((spec.name.clone(), tensor.to_device(&Device::Cpu)?.contiguous()?))
        };
        let pairs = engine.program().weights.iter().zip(engine.tensors()?);
        let mut tensors: Vec<(String, Tensor)> = pairs.map(on_host).collect::<Result<_, _>>()?;
        tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(model_folder::write_weights(&folder, &tensors, model_folder::MAX_SHARD_SIZE_BYTES)?)
    }
}

/// The process's largest resident set (VmHWM), where the system tells.
pub(crate) fn peak_memory_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
