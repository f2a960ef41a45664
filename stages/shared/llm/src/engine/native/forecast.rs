//! How much memory training will take, known before the first optimizer step, and the way to run that fits.
//!
//! ```text
//! mapped weights + trained weights + moments + gradients + arena + copies of products + attention's panels + rotary table
//! ```
//!
//! The arena's size is exact, from a dry walk. The rest are sizes of known buffers; what the process has already is not counted here.

use pipe_kernels::{attention, gemm};

use super::batch::Batch;
use super::gradients::Order;
use super::pass::{Pass, attention_shape};
use super::{Execution, HEAD_ROWS, NativeEngine};
use crate::adapter::Adapter;
use crate::error::LlmError;
use crate::ops::rope::RopeTable;
use crate::program::Op;

/// Rows that fill the products of a pass: more packs than this takes gain nothing measurable.
const ROWS_WANTED: usize = 1024;
/// Rows of logits where memory is short; fewer would cost more time than memory.
const HEAD_ROWS_MIN: usize = 48;

/// The packs that will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackShape {
    /// Tokens of the longest pack.
    pub n_tokens: usize,
    /// Supervised tokens of a pack, at most.
    pub n_supervised: usize,
    /// Packs of an optimizer step.
    pub n_packs: usize,
}

/// Memory by what it is for, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Frozen weights, mapped from their files: the system may drop and fetch them again.
    pub mapped: u64,
    /// Trained weights or adapters, their moments and gradients.
    pub trained: u64,
    /// Values of a pass.
    pub values: u64,
    /// Copies of products, panels of attention, tables.
    pub buffers: u64,
}

impl Forecast {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.mapped + self.trained + self.values + self.buffers
    }
}

impl NativeEngine {
    /// Chooses how to run so that everything fits into `budget` bytes, fastest first: packs of a pass, then what is recomputed, then rows of
    /// logits. Without a budget, the fastest. Returns the forecast of what was chosen.
    ///
    /// # Errors
    /// When the smallest way needs more than `budget`.
    pub fn plan(
        &mut self,
        adapter: Option<&Adapter>,
        shape: PackShape,
        budget: Option<u64>,
    ) -> Result<Forecast, LlmError> {
        let mut n_packs = (ROWS_WANTED / shape.n_tokens.max(1)).clamp(1, shape.n_packs.max(1));
        if self.runs_side_by_side() {
            n_packs = n_packs.min(shape.n_packs.div_ceil(rayon::current_num_threads()).max(1));
        }
        let n_segments = self.plan.segments.len();
        let fastest = Execution { n_packs_per_pass: n_packs, n_recomputed: 0, head_rows_max: HEAD_ROWS };
        let one_pack = (1..=n_segments).map(|n_recomputed| Execution { n_packs_per_pass: 1, n_recomputed, ..fastest });
        let fewer_packs = (1..n_packs).rev().map(|n| Execution { n_packs_per_pass: n, ..fastest });
        let smallest = Execution { n_packs_per_pass: 1, n_recomputed: n_segments, head_rows_max: HEAD_ROWS_MIN };
        let mut needed = 0;
        for execution in std::iter::once(fastest).chain(fewer_packs).chain(one_pack).chain([smallest]) {
            self.set_execution(execution);
            let forecast = self.forecast(adapter, shape);
            needed = forecast.total();
            if budget.is_none_or(|budget| needed <= budget) {
                return Ok(forecast);
            }
        }
        Err(LlmError::Budget { needed, budget: budget.unwrap_or(u64::MAX), n_tokens: shape.n_tokens })
    }

    /// Parts that can be recomputed: two per layer, and what is around the layers.
    pub fn n_segments(&self) -> usize {
        self.plan.segments.len()
    }

    /// How it runs.
    pub fn execution(&self) -> Execution {
        self.execution
    }

    /// The memory of training with packs of `shape`, run as it is now.
    pub fn forecast(&self, adapter: Option<&Adapter>, shape: PackShape) -> Forecast {
        let program = &self.program;
        let n_packs = self.execution.n_packs_per_pass;
        let n_side_by_side = self.n_passes_at_once(shape.n_packs);
        let batch = Batch::of_shape(n_packs, shape.n_tokens, shape.n_supervised);
        let shared = self.shared(adapter, Some(super::DropoutKey { seed: 0, optimizer_step: 0, probability: 0.5 }));
        let values = 4 * (Pass::n_elements(&shared, &batch, true) * n_side_by_side) as u64;

        let lora_rank = adapter.map_or(0, |adapter| adapter.config.lora_rank);
        let n_low_rank: usize = program.adapted.iter().map(|m| lora_rank * (m.n_in + m.n_out)).sum();
        let n_tokens: usize = program.tokens.iter().map(|tokens| tokens.ids.len()).sum();
        let n_adapter = n_low_rank + n_tokens * program.config.hidden_size;
        // A chain has one buffer; a tree one sum per level, and the leaves of a pass.
        let n_gradients = match Order::of(program) {
            Order::Chain => 1,
            Order::Tree => shape.n_packs.max(1).ilog2() as usize + 1 + n_packs * n_side_by_side,
        };
        let trained = 4 * ((program.n_trained_elements() + n_adapter) * (1 + 2 + n_gradients)) as u64;
        let mapped = self.weights.iter().map(super::Weight::mapped_bytes).sum();
        let buffers = 4 * (self.n_buffer_elements(n_packs, shape.n_tokens) * n_side_by_side) as u64;
        Forecast { mapped, trained, values, buffers }
    }

    /// Elements of both copies of a product's sides, of what attention keeps, and of the rotary table, for a pass of so many packs.
    fn n_buffer_elements(&self, n_packs: usize, pack_len: usize) -> usize {
        let config = &self.program.config;
        let n_tokens = n_packs * pack_len;
        let (mut left, mut right) = (0, 0);
        for op in &self.program.ops {
            let (weight, n_rows) = match op {
                Op::Linear { weight, .. } => (*weight, pack_len),
                Op::Head { weight, .. } => (*weight, self.head_rows_max()),
                _ => continue,
            };
            let shape = &self.program.weights[weight].shape;
            right = right.max(shape.iter().product());
            if self.program.parameter_of(weight).is_some() {
                // Its gradient turns the left side, a slab of rows at a time.
                left = left.max(shape[0] * n_rows.min(gemm::SLAB_INNER_MAX));
            }
        }
        let documents: Vec<_> = (0..n_packs).map(|pack| pack * pack_len..(pack + 1) * pack_len).collect();
        left + right.min(gemm::SLAB_LEN_MAX)
            + attention::n_kept_elements(attention_shape(config, n_tokens), &documents)
            + self.tables.iter().map(RopeTable::n_elements).sum::<usize>()
    }
}
