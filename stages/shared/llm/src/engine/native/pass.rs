//! The walk over the list: where values lie, and which op runs when. The ops themselves are in `forward.rs` and `backward.rs`.
//!
//! A *dry* pass takes and gives the same blocks in the same order and computes nothing: its highest mark is the memory that the real one needs.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Instant;

use candle_core::Tensor;
use pipe_kernels::dropout::Mask;
use pipe_kernels::{attention, gemm};

use super::arena::{Arena, Block};
use super::batch::Batch;
use super::gradients::Gradients;
use super::parts::Parts;
use super::schedule::{Segment, WalkPlan};
use super::weight::View;
use crate::config::ModelConfig;
use crate::ops::rope::RopeTable;
use crate::program::{AdaptedIdx, Liveness, Op, ParameterIdx, Program, ValueIdx, WeightIdx};

/// What a pass may keep from the one before it: memory, nothing else.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    pub(super) arena: Arena,
    pub(super) scratch: gemm::Scratch,
}

/// A and B of a module.
pub(super) struct LowRankView<'t> {
    pub(super) a: View<'t>,
    pub(super) b: View<'t>,
}

/// An adapter's rows of tokens in one matrix.
pub(super) struct TokenRowsView<'t> {
    pub(super) ids: &'t [u32],
    /// Of each id, its row.
    row_of: HashMap<u32, usize>,
    /// (n, C).
    pub(super) rows: View<'t>,
}

impl<'t> TokenRowsView<'t> {
    pub(super) fn new(ids: &'t [u32], rows: &'t Tensor) -> Self {
        TokenRowsView { ids, row_of: ids.iter().copied().zip(0..).collect(), rows: View::of(rows) }
    }

    /// The row of a token, if it has one here.
    pub(super) fn row_of(&self, id: u32) -> Option<usize> {
        self.row_of.get(&id).copied()
    }
}

/// What all passes of a call read.
pub(super) struct Shared<'t> {
    pub(super) program: &'t Program,
    pub(super) liveness: &'t Liveness,
    pub(super) plan: &'t WalkPlan,
    /// One per rope of the config.
    pub(super) tables: &'t [RopeTable],
    pub(super) weights: Vec<View<'t>>,
    /// Per adapted module; empty without an adapter.
    pub(super) adapters: Vec<LowRankView<'t>>,
    /// As in [`Program::tokens`]; empty without an adapter.
    pub(super) tokens: Vec<TokenRowsView<'t>>,
    /// r, and what B A is multiplied by.
    pub(super) lora_rank: usize,
    pub(super) lora_scale: f32,
    /// Per adapted module.
    pub(super) masks: Vec<Option<Mask>>,
    /// Rows of logits at a time.
    pub(super) head_rows_max: usize,
}

impl<'t> Shared<'t> {
    /// The adapter's rows of tokens in a matrix, if it has some, and the parameter that they are.
    pub(super) fn tokens_of(&self, weight: WeightIdx) -> Option<(ParameterIdx, &TokenRowsView<'t>)> {
        let tokens_idx = self.program.tokens_of(weight)?;
        Some((self.program.parameter_of_tokens(tokens_idx), self.tokens.get(tokens_idx)?))
    }

    /// The weight of a norm, or 1 + weight.
    pub(super) fn norm_weight(&self, weight: WeightIdx, adds_one: bool) -> Cow<'_, [f32]> {
        let weight = self.weights[weight].f32();
        if adds_one { weight.iter().map(|w| 1.0 + w).collect() } else { Cow::Borrowed(weight) }
    }
}

/// Where gradients go: one of them for all packs (a chain), or one per pack.
pub(super) struct Leaves<'g> {
    pub(super) of_packs: &'g mut [Gradients],
}

impl Leaves<'_> {
    pub(super) fn tensor(&mut self, pack_idx: usize, parameter: ParameterIdx, len: usize) -> &mut [f32] {
        let leaf_idx = pack_idx.min(self.of_packs.len() - 1);
        self.of_packs[leaf_idx].tensor(parameter, len)
    }
}

/// The attention of every layer over `n_tokens` tokens.
pub(super) fn attention_shape(config: &ModelConfig, n_tokens: usize) -> attention::Shape {
    attention::Shape { n_tokens, n_heads: config.n_heads, n_kv_heads: config.n_kv_heads, head_dim: config.head_dim }
}

/// One walk over the list, forward and maybe backward.
pub(super) struct Pass<'p, 't> {
    pub(super) shared: &'p Shared<'t>,
    pub(super) batch: &'p Batch,
    pub(super) work: &'p mut Workspace,
    pub(super) parts: &'p mut Parts,
    /// Per rope of the config: the row of its table for each token, (T).
    pub(super) rope_rows: Vec<Cow<'p, [u32]>>,
    /// Per value; (T, width).
    pub(super) values: Vec<Option<Block>>,
    /// Per op: `r` of an RMSNorm (T, or T H), mean and `r` of a LayerNorm (2, T), log-sum-exp (T, H), `scale x A^T` of an adapter (T, r).
    pub(super) extras: Vec<Option<Block>>,
    /// Per value: its gradient.
    pub(super) d_values: Vec<Option<Block>>,
    pub(super) is_dry: bool,
}

impl<'p, 't> Pass<'p, 't> {
    pub(super) fn new(shared: &'p Shared<'t>, batch: &'p Batch, work: &'p mut Workspace, parts: &'p mut Parts) -> Self {
        work.arena.clear();
        let (n_values, n_ops) = (shared.program.n_values(), shared.program.ops.len());
        let rows = |table: &'t RopeTable| table.rows(&batch.position_ids, &batch.documents);
        Pass {
            shared,
            batch,
            work,
            parts,
            rope_rows: shared.tables.iter().map(rows).collect(),
            values: vec![None; n_values],
            extras: vec![None; n_ops],
            d_values: vec![None; n_values],
            is_dry: false,
        }
    }

    /// Elements that a pass of `batch` needs, with or without its backward.
    pub(super) fn n_elements(shared: &'p Shared<'t>, batch: &'p Batch, trains: bool) -> usize {
        let (mut work, mut parts) = (Workspace::default(), Parts::default());
        let mut pass = Pass { is_dry: true, ..Pass::new(shared, batch, &mut work, &mut parts) };
        pass.forward(trains);
        let mut leaves = [Gradients::new(shared.program.n_parameters())];
        pass.head(trains.then_some(&mut Leaves { of_packs: &mut leaves }));
        if trains {
            pass.backward(&mut Leaves { of_packs: &mut leaves });
        }
        work.arena.highest()
    }

    pub(super) fn n_tokens(&self) -> usize {
        self.batch.n_tokens()
    }

    /// Elements of a value: (T, width).
    pub(super) fn len(&self, value: ValueIdx) -> usize {
        self.n_tokens() * self.shared.program.widths[value]
    }

    pub(super) fn attention_shape(&self) -> attention::Shape {
        attention_shape(&self.shared.program.config, self.n_tokens())
    }

    /// A value that the list says is alive.
    pub(super) fn value(&self, idx: ValueIdx) -> Block {
        self.values[idx].expect("liveness keeps every value until its last use")
    }

    pub(super) fn wants(&self, value: ValueIdx) -> bool {
        self.shared.liveness.needs_gradient[value]
    }

    /// The adapter of an op's module, where there is one.
    pub(super) fn adapter(&self, adapted: Option<AdaptedIdx>) -> Option<(AdaptedIdx, &'p LowRankView<'t>)> {
        adapted.and_then(|module_idx| Some((module_idx, self.shared.adapters.get(module_idx)?)))
    }

    pub(super) fn give_value(&mut self, value: ValueIdx) {
        if let Some(block) = self.values[value].take() {
            self.work.arena.give(block);
        }
    }

    /// Runs every op but the head. `keeps`: whether a backward follows.
    pub(super) fn forward(&mut self, keeps: bool) {
        let shared = self.shared;
        for segment in &shared.plan.segments {
            for op_idx in segment.ops.clone() {
                let wants_gradient = self.op(op_idx).output().is_some_and(|output| self.wants(output));
                self.forward_op(op_idx, keeps && wants_gradient && !segment.is_recomputed, true);
                for &dead in &shared.liveness.dies_after[op_idx] {
                    if !(keeps && shared.plan.kept_forward[dead]) {
                        self.give_value(dead);
                    }
                }
            }
        }
    }

    fn run_again(&mut self, segment: &Segment) {
        let shared = self.shared;
        let again = shared.plan.again(shared.program, shared.liveness, segment);
        for (op_idx, (runs, wants_output)) in segment.ops.clone().zip(again) {
            if !runs {
                continue;
            }
            self.forward_op(op_idx, true, wants_output);
            for &dead in &shared.liveness.dies_after[op_idx] {
                if !shared.plan.is_needed(dead) {
                    self.give_value(dead);
                }
            }
        }
    }

    /// Walks the list in reverse from the gradient of the head's input.
    pub(super) fn backward(&mut self, leaves: &mut Leaves<'_>) {
        let shared = self.shared;
        for segment in shared.plan.segments.iter().rev() {
            if segment.is_recomputed {
                self.run_again(segment);
            }
            for op_idx in segment.ops.clone().rev() {
                let op = &shared.program.ops[op_idx];
                let Some(output) = op.output().filter(|&output| self.wants(output)) else { continue };
                self.backward_op(op_idx, leaves);
                // The list is walked backward, so nothing above reads what this op made.
                self.give_value(output);
                if let Some(extra) = self.extras[op_idx].take() {
                    self.work.arena.give(extra);
                }
                if let Some(d_output) = self.d_values[output].take() {
                    self.work.arena.give(d_output);
                }
            }
        }
    }

    /// The losses of the supervised rows, pack by pack; with `leaves` the gradients of the head too.
    pub(super) fn head(&mut self, leaves: Option<&mut Leaves<'_>>) -> Vec<Vec<f32>> {
        let started = Instant::now();
        let losses = self.head_losses(leaves);
        self.parts.add("head", started);
        losses
    }

    pub(super) fn op(&self, op_idx: usize) -> &'p Op {
        &self.shared.program.ops[op_idx]
    }
}
