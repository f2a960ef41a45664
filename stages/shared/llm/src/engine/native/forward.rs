//! The ops, forward. Shapes are those of `ops/`: T rows, one after another.

use std::time::Instant;

use pipe_kernels::gated_mlp::Activation;
use pipe_kernels::gemm::{Matrix, Start, multiply};
use pipe_kernels::{attention, dropout, gated_mlp, reduce, rms_norm, rope};
use rayon::prelude::*;

use super::arena::Block;
use super::parts::part_of;
use super::pass::Pass;
use crate::program::{AdaptedIdx, Op, ValueIdx, WeightIdx};

impl Pass<'_, '_> {
    /// Runs one op. `keeps_extra`: its backward follows; `wants_output`: or only the extra is wanted.
    pub(super) fn forward_op(&mut self, op_idx: usize, keeps_extra: bool, wants_output: bool) {
        let started = Instant::now();
        let op = self.op(op_idx);
        let extra = match *op {
            Op::Embedding { weight, output } => self.embed(weight, output),
            Op::RmsNorm { input, weight, output } => Some(self.norm(input, weight, output)),
            Op::Linear { output, .. } => return self.linear(op_idx, output, keeps_extra, wants_output, started),
            Op::Rope { input, n_heads, output } => self.rotate(op_idx, input, n_heads, output),
            Op::Attention { q, k, v, output } => Some(self.attend(q, k, v, output)),
            Op::GatedMlp { gate, up, output } => self.gate(gate, up, output),
            Op::Residual { left, right, output } => self.residual(op_idx, left, right, output),
            Op::Head { .. } => unreachable!("the head makes no value"),
        };
        self.keep_extra(op_idx, extra, keeps_extra);
        self.parts.add(part_of(op), started);
    }

    fn keep_extra(&mut self, op_idx: usize, extra: Option<Block>, keeps: bool) {
        match extra {
            Some(extra) if !keeps => self.work.arena.give(extra),
            extra => self.extras[op_idx] = extra,
        }
    }

    fn embed(&mut self, weight: WeightIdx, output: ValueIdx) -> Option<Block> {
        let width = self.shared.program.config.hidden_size;
        let len = self.n_tokens() * width;
        let y = self.work.arena.take(len);
        self.values[output] = Some(y);
        if !self.is_dry {
            let view = &self.shared.weights[weight];
            let [y] = self.work.arena.slices([(y, len)]);
            for (y, id) in y.chunks_exact_mut(width).zip(&self.batch.input_ids) {
                view.copy_row(*id as usize, y);
            }
        }
        None
    }

    fn norm(&mut self, input: ValueIdx, weight: WeightIdx, output: ValueIdx) -> Block {
        let inv_rms = self.work.arena.take(self.n_tokens());
        let y = self.normed(input, weight, inv_rms);
        self.values[output] = Some(y);
        inv_rms
    }

    /// The output of a norm; `inv_rms` is overwritten.
    pub(super) fn normed(&mut self, input: ValueIdx, weight: WeightIdx, inv_rms: Block) -> Block {
        let (n_tokens, config) = (self.n_tokens(), &self.shared.program.config);
        let len = n_tokens * config.hidden_size;
        let (x, y) = (self.value(input), self.work.arena.take(len));
        if !self.is_dry {
            let weight = self.shared.weights[weight].f32();
            let [x, y, inv_rms] = self.work.arena.slices([(x, len), (y, len), (inv_rms, n_tokens)]);
            rms_norm::forward(x, weight, config.rms_norm_eps as f32, y, inv_rms);
        }
        y
    }

    fn linear(&mut self, op_idx: usize, output: ValueIdx, keeps_extra: bool, wants_output: bool, started: Instant) {
        let Op::Linear { input, weight, bias, adapted, .. } = *self.op(op_idx) else {
            unreachable!("called for linear ops")
        };
        let shape = &self.shared.program.weights[weight].shape;
        let (n_tokens, n_out, n_in) = (self.n_tokens(), shape[0], shape[1]);
        let x = self.value(input);
        let y = wants_output.then(|| self.work.arena.take(n_tokens * n_out));
        self.values[output] = y;
        if !self.is_dry
            && let Some(y) = y
        {
            let work = &mut *self.work;
            let [x, y] = work.arena.slices([(x, n_tokens * n_in), (y, n_tokens * n_out)]);
            let right = self.shared.weights[weight].matrix().transposed();
            multiply(Matrix::new(&*x, n_tokens, n_in), right, y, Start::Zero, &mut work.scratch);
            if let Some(bias) = bias {
                reduce::add_row(y, self.shared.weights[bias].f32());
            }
        }
        let started = self.parts.add("linear", started);
        if let Some((module_idx, _)) = self.adapter(adapted) {
            let h = self.low_rank(module_idx, x, n_in, y.map(|y| (y, n_out)));
            self.keep_extra(op_idx, Some(h), keeps_extra);
            self.parts.add("adapter", started);
        }
    }

    /// `h = scale drop(x) A^T`, (T, r), which is returned; `y += h B^T` where y is given with its width.
    fn low_rank(&mut self, module_idx: AdaptedIdx, x: Block, n_in: usize, y: Option<(Block, usize)>) -> Block {
        let (n_tokens, rank) = (self.n_tokens(), self.shared.lora_rank);
        let h = self.work.arena.take(n_tokens * rank);
        let dropped = self.dropped(module_idx, x, n_in);
        if !self.is_dry {
            let adapter = &self.shared.adapters[module_idx];
            let work = &mut *self.work;
            let [h_slice, x] = work.arena.slices([(h, n_tokens * rank), (dropped.unwrap_or(x), n_tokens * n_in)]);
            let a = adapter.a.matrix().transposed();
            multiply(Matrix::new(&*x, n_tokens, n_in), a, h_slice, Start::Zero, &mut work.scratch);
            reduce::scale(h_slice, self.shared.lora_scale);
            if let Some((y, n_out)) = y {
                let [h, y] = work.arena.slices([(h, n_tokens * rank), (y, n_tokens * n_out)]);
                let b = adapter.b.matrix().transposed();
                multiply(Matrix::new(&*h, n_tokens, rank), b, y, Start::Output, &mut work.scratch);
            }
        }
        dropped.into_iter().for_each(|dropped| self.work.arena.give(dropped));
        h
    }

    /// `x`, (T, width), after dropout, in a new block; `None` without dropout.
    pub(super) fn dropped(&mut self, module_idx: AdaptedIdx, x: Block, width: usize) -> Option<Block> {
        let mask = self.shared.masks[module_idx]?;
        let len = self.n_tokens() * width;
        let y = self.work.arena.take(len);
        if !self.is_dry {
            let [x, y] = self.work.arena.slices([(x, len), (y, len)]);
            dropout::apply(mask, x, &self.batch.example_ids, &self.batch.position_ids, y);
        }
        Some(y)
    }

    /// Moves a value into a new index where this op is its last reader, else copies it.
    fn moved_or_copied(&mut self, op_idx: usize, input: ValueIdx, len: usize) -> Block {
        let dies = self.shared.liveness.dies_after[op_idx].contains(&input);
        let x = self.value(input);
        if dies && !self.shared.plan.is_needed(input) {
            self.values[input] = None;
            return x;
        }
        self.copied(x, len)
    }

    pub(super) fn copied(&mut self, x: Block, len: usize) -> Block {
        let y = self.work.arena.take(len);
        if !self.is_dry {
            let [x, y] = self.work.arena.slices([(x, len), (y, len)]);
            (y.par_chunks_mut(1 << 15), x.par_chunks(1 << 15)).into_par_iter().for_each(|(y, x)| y.copy_from_slice(x));
        }
        y
    }

    fn rotate(&mut self, op_idx: usize, input: ValueIdx, n_heads: usize, output: ValueIdx) -> Option<Block> {
        let head_dim = self.shared.program.config.head_dim;
        let len = self.n_tokens() * n_heads * head_dim;
        let y = self.moved_or_copied(op_idx, input, len);
        self.values[output] = Some(y);
        if !self.is_dry {
            let [y] = self.work.arena.slices([(y, len)]);
            rope::rotate(y, n_heads, head_dim, self.shared.table, &self.batch.position_ids);
        }
        None
    }

    fn attend(&mut self, q: ValueIdx, k: ValueIdx, v: ValueIdx, output: ValueIdx) -> Block {
        let shape = self.attention_shape();
        let (n_queries, n_keys) = (shape.n_query_elements(), shape.n_key_elements());
        let n_rows = shape.n_tokens * shape.n_heads;
        let [q, k, v] = [q, k, v].map(|value| self.value(value));
        let (o, log_sum_exp) = (self.work.arena.take(n_queries), self.work.arena.take(n_rows));
        self.values[output] = Some(o);
        if !self.is_dry {
            let blocks = [(q, n_queries), (k, n_keys), (v, n_keys), (o, n_queries), (log_sum_exp, n_rows)];
            let [q, k, v, o, log_sum_exp] = self.work.arena.slices(blocks);
            attention::forward(shape, &self.batch.documents, attention_scores(&shape), q, k, v, o, log_sum_exp);
        }
        log_sum_exp
    }

    fn gate(&mut self, gate: ValueIdx, up: ValueIdx, output: ValueIdx) -> Option<Block> {
        self.values[output] = Some(self.gated(gate, up));
        None
    }

    /// The output of a gated MLP.
    pub(super) fn gated(&mut self, gate: ValueIdx, up: ValueIdx) -> Block {
        let len = self.n_tokens() * self.shared.program.config.intermediate_size;
        let (gate, up, y) = (self.value(gate), self.value(up), self.work.arena.take(len));
        if !self.is_dry {
            let [gate, up, y] = self.work.arena.slices([(gate, len), (up, len), (y, len)]);
            gated_mlp::forward(Activation::Silu, gate, up, y);
        }
        y
    }

    fn residual(&mut self, op_idx: usize, left: ValueIdx, right: ValueIdx, output: ValueIdx) -> Option<Block> {
        let len = self.n_tokens() * self.shared.program.config.hidden_size;
        let left = self.value(left);
        let y = self.moved_or_copied(op_idx, right, len);
        self.values[output] = Some(y);
        if !self.is_dry {
            let [left, y] = self.work.arena.slices([(left, len), (y, len)]);
            reduce::add_assign(y, left);
        }
        None
    }
}

/// Scaled by `1 / sqrt(D)`.
pub(super) fn attention_scores(shape: &attention::Shape) -> attention::Scores {
    attention::Scores::scaled((1.0 / libm::sqrt(shape.head_dim as f64)) as f32)
}
