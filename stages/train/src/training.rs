//! The optimizer steps of a run, and what is due between them.
//!
//! ```text
//! restore --> due? --> optimizer step --> due? --> ... --> the last one --> due? --> last evaluation
//!               |
//!               link of the chain every 10 optimizer steps, then evaluation, then checkpoint
//! ```
//!
//! What is due after an optimizer step is done before the next one, and whether it is done already is read from the
//! [`Progress`]. So a run that was stopped in an evaluation goes on with that evaluation, and nothing is done twice. Nothing
//! that depends on the number of optimizer steps in all gets into a checkpoint: the last evaluation, and the last link, come
//! after it.
//!
//! An interruption is seen between sequences. The optimizer step it falls into is abandoned, the state of the one before is saved.

use std::time::Instant;

use pipe_contract::{Context, StageError, Unit};
use pipe_llm::Sequence;
use pipe_llm::trainer::Trainer;
use pipe_records::packed::PackedReader;

use crate::batches::{Batches, EpochOrder};
use crate::chain::{self, Link};
use crate::checkpoint::Checkpoints;
use crate::evaluation::{EvalPacks, sequence};
use crate::memory::Memory;
use crate::metrics::{EvalLine, MetricsLine};
use crate::points::Every;
use crate::settings::Settings;
use crate::state::{Best, Progress, values};

/// A run from its first optimizer step, or from a checkpoint, to its last.
pub struct Run<'r, 'c> {
    pub(crate) settings: &'r Settings,
    pub(crate) ctx: &'r Context<'c>,
    pub(crate) trainer: Trainer,
    pub(crate) batches: Batches,
    pub(crate) progress: Progress,
    pub(crate) memory: Memory,
    packs: &'r PackedReader,
    eval_packs: Option<EvalPacks>,
    pub(crate) checkpoints: Checkpoints,
    /// Whether a checkpoint has all of the state.
    is_saved: bool,
    started: Instant,
    n_tokens_here: u64,
}

impl<'r, 'c> Run<'r, 'c> {
    /// Before its first optimizer step. The schedule of `trainer` knows their number.
    pub(crate) fn new(
        settings: &'r Settings,
        ctx: &'r Context<'c>,
        packs: &'r PackedReader,
        eval_packs: Option<EvalPacks>,
        trainer: Trainer,
        batches: Batches,
        memory: Memory,
    ) -> Self {
        let (folder, scratch) = (ctx.checkpoint_dir.clone(), ctx.scratch_dir.clone());
        let checkpoints = Checkpoints::new(folder, scratch, trainer.schedule, settings.saving.n_kept);
        Run {
            settings,
            ctx,
            trainer,
            batches,
            progress: Progress::default(),
            memory,
            packs,
            eval_packs,
            checkpoints,
            is_saved: true,
            started: Instant::now(),
            n_tokens_here: 0,
        }
    }

    /// Goes on from the newest checkpoint that fits, if there is one.
    pub fn restore(&mut self) {
        let found = self.checkpoints.restore(&mut self.trainer);
        let is_empty = found.warnings.is_empty() && found.notes.is_empty();
        found.warnings.into_iter().for_each(|why| self.ctx.warn(why));
        found.notes.into_iter().for_each(|why| self.ctx.log(why));
        if let Some(progress) = found.progress {
            self.progress = progress;
            let n_done = self.trainer.optimizer.n_done;
            self.ctx.log(format!("goes on from the checkpoint of optimizer step {n_done}"));
        } else if !is_empty {
            self.ctx.log("training starts anew");
        }
    }

    /// Takes all optimizer steps that are left. The state is saved when the user interrupts.
    ///
    /// # Errors
    /// Whatever stops it, an interruption too.
    pub fn optimizer_steps(&mut self) -> Result<(), StageError> {
        let result = self.until_the_end();
        let n_done = self.trainer.optimizer.n_done;
        if result.as_ref().is_err_and(|error| error.is_cancelled) && n_done > 0 {
            self.save()?;
            self.ctx.log(format!("interrupted; the state of optimizer step {n_done} is saved"));
        }
        result
    }

    /// Takes optimizer steps until `step` are taken, and does nothing that is due between them.
    ///
    /// # Errors
    /// Whatever stops it, an interruption too.
    pub(crate) fn run_to(&mut self, step: u64) -> Result<(), StageError> {
        let mut order = EpochOrder::default();
        while self.trainer.optimizer.n_done < step {
            let packs = self.batches.packs(self.trainer.optimizer.n_done, &mut order);
            self.optimizer_step(&packs)?;
            self.log();
        }
        Ok(())
    }

    /// The chain with its end, which is the state that was reached.
    ///
    /// # Errors
    /// When a tensor cannot be moved from its device.
    pub fn links(&self) -> Result<Vec<Link>, StageError> {
        let mut links = self.progress.links.clone();
        if links.last().is_none_or(|link| link.step != self.trainer.optimizer.n_done) {
            links.push(chain::link(&links, &self.trainer)?);
        }
        Ok(links)
    }

    fn until_the_end(&mut self) -> Result<(), StageError> {
        let mut order = EpochOrder::default();
        self.do_what_is_due()?;
        while self.trainer.optimizer.n_done < self.batches.n_steps {
            let packs = self.batches.packs(self.trainer.optimizer.n_done, &mut order);
            self.optimizer_step(&packs)?;
            self.log();
            self.do_what_is_due()?;
        }
        if self.settings.evaluating.every != Every::No { self.evaluate() } else { Ok(()) }
    }

    fn do_what_is_due(&mut self) -> Result<(), StageError> {
        let (n_done, steps_per_epoch) = (self.trainer.optimizer.n_done, self.batches.steps_per_epoch());
        if chain::is_due(n_done) && self.progress.links.last().is_none_or(|link| link.step != n_done) {
            self.progress.links.push(chain::link(&self.progress.links, &self.trainer)?);
        }
        if self.settings.evaluating.every.is_due(n_done, steps_per_epoch) {
            self.evaluate()?;
        }
        let every = self.settings.saving.every;
        let is_last = n_done == self.batches.n_steps && every != Every::No;
        if every.is_due(n_done, steps_per_epoch) || is_last {
            self.save()?;
        }
        Ok(())
    }

    fn optimizer_step(&mut self, pack_indices: &[usize]) -> Result<(), StageError> {
        let config = &self.trainer.engine.program().config;
        let sequences = pack_indices.iter().map(|&index| sequence(self.packs, index, config));
        let sequences: Vec<Sequence> = sequences.collect::<Result<_, _>>()?;
        let n_before = self.progress.history.steps.last().map_or(0, |line| line.num_tokens);
        let n_planned = n_tokens_planned(&self.batches, self.packs);
        let ctx = self.ctx;
        let check = |n_done: usize| {
            let n_tokens: usize = sequences[..n_done].iter().map(Sequence::len).sum();
            ctx.progress(n_before + n_tokens as u64, n_planned, Unit::Tokens);
            ctx.check_cancelled()
        };
        let report = self.trainer.step::<StageError>(&sequences, check)?;
        self.memory.look();
        self.is_saved = false;
        let step = self.trainer.optimizer.n_done;
        let num_tokens = n_before + report.n_tokens as u64;
        self.n_tokens_here += report.n_tokens as u64;
        self.progress.history.steps.push(MetricsLine {
            step,
            epoch: self.epoch(),
            loss: report.loss,
            grad_norm: report.grad_norm,
            learning_rate: report.learning_rate,
            num_tokens,
            num_supervised_tokens: report.n_supervised as u64,
        });
        self.ctx.progress(num_tokens, n_planned.max(num_tokens), Unit::Tokens);
        Ok(())
    }

    /// The loss on port `eval` after the optimizer steps taken, unless it is known.
    fn evaluate(&mut self) -> Result<(), StageError> {
        let Some(packs) = &self.eval_packs else { return Ok(()) };
        let step = self.trainer.optimizer.n_done;
        if self.progress.history.evals.last().is_some_and(|line| line.step == step) {
            return Ok(());
        }
        let eval_loss = packs.loss(&self.trainer, || self.ctx.check_cancelled())?;
        let is_best = self.progress.best.as_ref().is_none_or(|best| eval_loss < best.eval_loss);
        if is_best {
            self.progress.best = Some(Best { step, eval_loss, values: values(&self.trainer)? });
        }
        self.progress.history.evals.push(EvalLine { step, epoch: self.epoch(), eval_loss });
        self.is_saved = false;
        self.ctx.fact("evaluation loss", format!("{eval_loss:.3}"));
        let best = if is_best { ", the best so far" } else { "" };
        self.ctx.log(format!("evaluation after optimizer step {step}: loss {eval_loss:.4}{best}"));
        Ok(())
    }

    fn save(&mut self) -> Result<(), StageError> {
        if !self.is_saved {
            self.checkpoints.save(&self.trainer, &self.progress)?;
            self.is_saved = true;
        }
        Ok(())
    }

    /// Epochs done, as a fraction.
    fn epoch(&self) -> f64 {
        self.trainer.optimizer.n_done as f64 / self.batches.steps_per_epoch() as f64
    }

    /// A line at every `logging_steps`, at the first optimizer step and at the last: the mean loss since the line before.
    fn log(&self) {
        let metrics = &self.progress.history.steps;
        let Some(line) = metrics.last() else { return };
        let every = self.settings.logging_steps;
        if !(line.step.is_multiple_of(every) || line.step == 1 || line.step == self.batches.n_steps) {
            return;
        }
        let since = metrics.len() - ((line.step - 1) % every + 1) as usize;
        let window = &metrics[since..];
        let loss = window.iter().map(|l| l.loss).sum::<f64>() / window.len() as f64;
        // The live line shows it; the summary's fact replaces it at the end.
        self.ctx.fact("loss", format!("{loss:.3}"));
        let rate = self.n_tokens_here as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        self.ctx.log(format!(
            "step {}/{}  loss {loss:.4}  grad_norm {:.4}  learning_rate {:.3e}  epoch {:.2}  {rate:.0} tokens/s",
            line.step, self.batches.n_steps, line.grad_norm, line.learning_rate, line.epoch
        ));
    }
}

/// Tokens of the whole run, taking packs as equally long.
pub(crate) fn n_tokens_planned(batches: &Batches, packs: &PackedReader) -> u64 {
    let share = batches.n_steps as f64 / batches.steps_per_epoch() as f64;
    (packs.info().n_tokens as f64 * share) as u64
}
