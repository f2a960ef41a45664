//! The native engine: kernels on slices, for training and evaluation on the CPU.
//!
//! ```text
//! list --WalkPlan--> what is kept, what is made again --dry walk--> size of the arena --walk--> losses, gradients
//! ```
//!
//! It runs the same list as the candle engine. What it adds: frozen weights stay in their files, all values of a pass lie in one arena, and every result
//! has the same bits on any number of threads, any CPU, and any split of the packs into passes. It does not decode: generation runs on the
//! candle engine.

mod arena;
mod backward;
mod batch;
mod forecast;
mod forward;
mod gradients;
mod head;
mod pass;
mod schedule;
mod weight;

use std::sync::Mutex;

use candle_core::Tensor;
use rayon::prelude::*;

pub use forecast::{Forecast, PackShape};
pub use weight::Weight;

use super::parts::{self, Clock, Parts};
use super::{DropoutKey, LossSum, Sums};
use crate::adapter::Adapter;
use crate::error::LlmError;
use crate::ops::rope::RopeTable;
use crate::program::{Liveness, Op, Program};
use crate::sequence::Sequence;
use batch::Batch;
use gradients::{Gradients, Order, Tree};
use pass::{Leaves, LowRankView, Pass, Shared, TokenRowsView, Workspace};
use schedule::WalkPlan;
use weight::View;

/// Rows of logits at a time: 48 MiB at a vocabulary of 49,152.
const HEAD_ROWS: usize = 256;

/// How a pass trades time for memory. Never changes a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execution {
    /// Packs of one pass, at least 1.
    pub n_packs_per_pass: usize,
    /// Segments whose values are made again in the backward: MLPs from the first layer on, then attentions.
    pub n_recomputed: usize,
    /// Rows of logits at a time, at least 1, where the head is frozen.
    pub head_rows_max: usize,
}

impl Default for Execution {
    fn default() -> Self {
        Execution { n_packs_per_pass: 1, n_recomputed: 0, head_rows_max: HEAD_ROWS }
    }
}

/// A model ready to be trained or evaluated.
pub struct NativeEngine {
    program: Program,
    liveness: Liveness,
    plan: WalkPlan,
    execution: Execution,
    weights: Vec<Weight>,
    /// One per rope of the config.
    tables: Vec<RopeTable>,
    n_positions: usize,
    workspaces: Mutex<Vec<Workspace>>,
    clock: Clock,
}

impl NativeEngine {
    /// `weights`: of [`Program::weights`], in their order, on the CPU; `n_positions`: the longest document there will be, in tokens.
    ///
    /// # Errors
    /// When a weight cannot be widened.
    pub fn new(mut program: Program, weights: Vec<Weight>, n_positions: usize) -> Result<Self, LlmError> {
        program.round_scales(|weight| weights[weight].dtype());
        let liveness = program.liveness();
        let prepare =
            |(weight_idx, weight): (usize, Weight)| weight.prepare(program.parameter_of(weight_idx).is_some());
        let weights = weights.into_iter().enumerate().map(prepare).collect::<Result<_, _>>()?;
        let ropes = program.config.ropes.iter();
        let tables = ropes.map(|rope| RopeTable::new(rope, program.config.head_dim, n_positions)).collect();
        let plan = WalkPlan::new(&program, &liveness, 0);
        Ok(NativeEngine {
            program,
            liveness,
            plan,
            execution: Execution::default(),
            weights,
            tables,
            n_positions,
            workspaces: Mutex::default(),
            clock: Clock::default(),
        })
    }

    /// The list it runs.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Chooses how to trade time for memory.
    pub fn set_execution(&mut self, execution: Execution) {
        self.plan = WalkPlan::new(&self.program, &self.liveness, execution.n_recomputed);
        self.execution = execution;
        self.workspaces = Mutex::default();
    }

    /// The weights that are trained, in the order of [`Program::trained`].
    pub fn trained(&self) -> Vec<&Tensor> {
        let tensor = |&weight_idx: &usize| match &self.weights[weight_idx] {
            Weight::Tensor(tensor) => tensor,
            Weight::Mapped(_) => unreachable!("what is trained is in memory"),
        };
        self.program.trained.iter().map(tensor).collect()
    }

    /// As [`NativeEngine::trained`], to be written.
    pub fn trained_mut(&mut self) -> Vec<&mut Tensor> {
        let program = &self.program;
        let trained = self.weights.iter_mut().enumerate().filter(|(idx, _)| program.parameter_of(*idx).is_some());
        let tensors = trained.filter_map(|(_, weight)| match weight {
            Weight::Tensor(tensor) => Some(tensor),
            Weight::Mapped(_) => None,
        });
        tensors.collect()
    }

    /// Every weight as a tensor, in the order of [`Program::weights`].
    ///
    /// # Errors
    /// When a weight cannot be read from its file.
    pub fn tensors(&self) -> Result<Vec<Tensor>, LlmError> {
        self.weights.iter().map(Weight::to_tensor).collect()
    }

    /// The longest document it can take, in tokens.
    pub fn n_positions(&self) -> usize {
        self.n_positions
    }

    /// As [`super::Engine::take_parts`].
    pub fn take_parts(&self) -> Parts {
        self.clock.take()
    }

    /// The loss of the supervised tokens, without dropout.
    ///
    /// # Errors
    /// A document longer than the engine was made for; memory.
    pub fn loss(&self, adapter: Option<&Adapter>, sequence: &Sequence) -> Result<LossSum, LlmError> {
        Ok(sum(&self.losses(adapter, sequence)?))
    }

    /// The loss of each supervised token in nats, without dropout: (N) for the N [`Sequence::supervised`].
    ///
    /// # Errors
    /// As [`NativeEngine::loss`].
    pub fn losses(&self, adapter: Option<&Adapter>, sequence: &Sequence) -> Result<Vec<f32>, LlmError> {
        self.check([sequence].into_iter())?;
        let shared = self.shared(adapter, None);
        let batch = Batch::new(&[sequence]);
        self.with_workspace(|work, parts| {
            work.arena.reserve(Pass::n_elements(&shared, &batch, false))?;
            let mut pass = Pass::new(&shared, &batch, work, parts);
            pass.forward(false);
            Ok(pass.head(None).concat())
        })
    }

    /// Losses and gradients of all supervised tokens of `sequences`, a sequence being a pack. `check` is called between passes with the number
    /// of sequences done.
    ///
    /// # Errors
    /// As [`NativeEngine::loss`]; what `check` returns.
    pub fn sums<E: From<LlmError>>(
        &self,
        adapter: Option<&Adapter>,
        sequences: &[Sequence],
        dropout: Option<DropoutKey>,
        check: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Sums, E> {
        self.clock.around(|| self.sums_of_passes(adapter, sequences, dropout, check))
    }

    fn sums_of_passes<E: From<LlmError>>(
        &self,
        adapter: Option<&Adapter>,
        sequences: &[Sequence],
        dropout: Option<DropoutKey>,
        mut check: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Sums, E> {
        self.check(sequences.iter())?;
        let shared = self.shared(adapter, dropout);
        let n_parameters = self.program.n_parameters();
        let with_loss: Vec<&Sequence> = sequences.iter().filter(|s| !s.targets.is_empty()).collect();
        let mut loss_sum = 0.0;
        let (mut tree, mut chain) = (Tree::default(), Gradients::new(n_parameters));
        let order = Order::of(&self.program);
        let n_packs = self.execution.n_packs_per_pass;
        let n_passes = self.n_passes_at_once(with_loss.len());
        let mut n_done = 0;
        for group in with_loss.chunks(n_packs * n_passes) {
            check(n_done)?;
            n_done += group.len();
            match order {
                Order::Chain => {
                    let losses = self.pass(&shared, group, std::slice::from_mut(&mut chain))?;
                    losses.iter().for_each(|loss| loss_sum += loss);
                }
                Order::Tree => {
                    let pass = |sequences: &[&Sequence]| {
                        let mut leaves: Vec<Gradients> =
                            sequences.iter().map(|_| Gradients::new(n_parameters)).collect();
                        let losses = self.pass(&shared, sequences, &mut leaves)?;
                        Ok((losses, leaves))
                    };
                    let results: Vec<Result<_, LlmError>> = group.par_chunks(n_packs).map(pass).collect();
                    for result in results {
                        let (losses, leaves) = result?;
                        losses.iter().for_each(|loss| loss_sum += loss);
                        leaves.into_iter().for_each(|leaf| tree.push(leaf));
                    }
                }
            }
        }
        let gradients = match order {
            Order::Chain => chain,
            Order::Tree => tree.sum().unwrap_or_else(|| Gradients::new(n_parameters)),
        };
        Ok(Sums { loss: loss_sum, gradients: gradients.into_tensors() })
    }

    /// Whether products are too short tasks to be worth splitting: fewer than 2^22 weights in all.
    fn runs_side_by_side(&self) -> bool {
        self.program.n_elements() < 1 << 22 && Order::of(&self.program) == Order::Tree
    }

    /// Passes that run at once while there are `n_packs` to do. Those of a model too small to fill the cores with one of them run side by side.
    fn n_passes_at_once(&self, n_packs: usize) -> usize {
        if self.runs_side_by_side() {
            rayon::current_num_threads().min(n_packs.div_ceil(self.execution.n_packs_per_pass)).max(1)
        } else {
            1
        }
    }

    /// Where the head is trained, or rows of it, its gradient is a sum over such chunks of rows, so their length is part of the result.
    fn head_rows_max(&self) -> usize {
        let is_trained =
            |weight: &usize| self.program.parameter_of(*weight).is_some() || self.program.tokens_of(*weight).is_some();
        match self.program.ops.last() {
            Some(Op::Head { weight, .. }) if is_trained(weight) => HEAD_ROWS,
            _ => self.execution.head_rows_max,
        }
    }

    fn pass(
        &self,
        shared: &Shared<'_>,
        sequences: &[&Sequence],
        leaves: &mut [Gradients],
    ) -> Result<Vec<LossSum>, LlmError> {
        let batch = Batch::new(sequences);
        self.with_workspace(|work, parts| {
            work.arena.reserve(Pass::n_elements(shared, &batch, true))?;
            let mut pass = Pass::new(shared, &batch, work, parts);
            let mut leaves = Leaves { of_packs: leaves };
            pass.forward(true);
            let losses = pass.head(Some(&mut leaves));
            pass.backward(&mut leaves);
            Ok(losses.iter().map(|losses| sum(losses)).collect())
        })
    }

    fn with_workspace<R>(
        &self,
        pass: impl FnOnce(&mut Workspace, &mut Parts) -> Result<R, LlmError>,
    ) -> Result<R, LlmError> {
        let lock = || self.workspaces.lock().expect("no pass panics while it holds the lock");
        let mut work = lock().pop().unwrap_or_default();
        let mut parts = Parts::default();
        let result = pass(&mut work, &mut parts);
        lock().push(work);
        self.clock.took_parts(parts);
        result
    }

    fn check<'s>(&self, mut sequences: impl Iterator<Item = &'s Sequence>) -> Result<(), LlmError> {
        let mut positions = sequences.by_ref().flat_map(|sequence| &sequence.position_ids);
        match positions.find(|&&position| position as usize >= self.n_positions) {
            None => Ok(()),
            Some(position) => Err(LlmError::beyond_positions(*position, self.n_positions)),
        }
    }

    fn shared<'t>(&'t self, adapter: Option<&'t Adapter>, dropout: Option<DropoutKey>) -> Shared<'t> {
        let adapters = adapter.map(|adapter| &adapter.modules[..]).unwrap_or_default();
        let tokens = adapter.map(|adapter| &adapter.tokens[..]).unwrap_or_default();
        let mask = |module_idx| dropout.and_then(|key| key.mask(module_idx));
        Shared {
            program: &self.program,
            liveness: &self.liveness,
            plan: &self.plan,
            tables: &self.tables,
            weights: self.weights.iter().map(Weight::view).collect(),
            adapters: adapters.iter().map(|m| LowRankView { a: View::of(&m.a), b: View::of(&m.b) }).collect(),
            tokens: self
                .program
                .tokens
                .iter()
                .zip(tokens)
                .map(|(t, own)| TokenRowsView::new(&t.ids, &own.rows))
                .collect(),
            lora_rank: adapter.map_or(0, |adapter| adapter.config.lora_rank),
            lora_scale: adapter.map_or(0.0, |adapter| adapter.config.scale() as f32),
            masks: (0..self.program.adapted.len()).map(mask).collect(),
            head_rows_max: self.head_rows_max(),
        }
    }
}

/// In f64, one after another.
fn sum(losses: &[f32]) -> LossSum {
    losses.iter().copied().map(f64::from).sum()
}
