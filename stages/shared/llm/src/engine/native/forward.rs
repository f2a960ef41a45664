//! The ops, forward. Shapes are those of `ops/`: T rows, one after another.

use std::time::Instant;

use pipe_kernels::gemm::{Matrix, Start, multiply};
use pipe_kernels::{attention, dropout, gated_mlp, gelu, layer_norm, reduce, rms_norm, rope};
use rayon::prelude::*;

use super::arena::Block;
use super::parts::part_of;
use super::pass::Pass;
use crate::config::Scores;
use crate::program::{AdaptedIdx, Layout, Op, Rows, ValueIdx, WeightIdx};

/// Rows of a copy that are worth a task. Never changes a result.
pub(super) const ROWS_OF_TASK: usize = 32;

impl Pass<'_, '_> {
    /// Runs one op. `keeps_extra`: its backward follows; `wants_output`: or only the extra is wanted.
    pub(super) fn forward_op(&mut self, op_idx: usize, keeps_extra: bool, wants_output: bool) {
        let started = Instant::now();
        let op = self.op(op_idx);
        let extra = match *op {
            Op::Embedding { weight, rows, scale, output } => self.embed(weight, rows, scale, output),
            Op::RmsNorm { output, .. } | Op::LayerNorm { output, .. } => Some(self.norm(op, output)),
            Op::Linear { output, .. } => return self.linear(op_idx, output, keeps_extra, wants_output, started),
            Op::Slice { input, start, output } => self.slice(input, start, output),
            Op::Rope { input, n_heads, rope, output } => self.rotate(op_idx, input, n_heads, rope, output),
            Op::Attention { q, k, v, scores, output } => Some(self.attend(q, k, v, scores, output)),
            Op::GatedMlp { output, .. } | Op::Gelu { output, .. } => {
                self.values[output] = Some(self.activated(op));
                None
            }
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

    fn embed(&mut self, weight: WeightIdx, rows: Rows, scale: Option<f64>, output: ValueIdx) -> Option<Block> {
        let (width, len) = (self.shared.program.widths[output], self.len(output));
        let y = self.work.arena.take(len);
        self.values[output] = Some(y);
        if !self.is_dry {
            let view = &self.shared.weights[weight];
            let [y] = self.work.arena.slices([(y, len)]);
            let tokens = self.shared.tokens_of(weight).map(|(_, tokens)| tokens);
            for (y, id) in y.chunks_exact_mut(width).zip(self.batch.ids(rows)) {
                match tokens.and_then(|tokens| Some((tokens, tokens.row_of(*id)?))) {
                    Some((tokens, row)) => tokens.rows.copy_row(row, y),
                    None => view.copy_row(*id as usize, y),
                }
            }
            if let Some(scale) = scale {
                reduce::scale(y, scale as f32);
            }
        }
        None
    }

    /// Runs a norm; returns what its backward needs.
    fn norm(&mut self, op: &Op, output: ValueIdx) -> Block {
        let moments = self.work.arena.take(self.n_moments(op));
        let y = self.normed(op, moments);
        self.values[output] = Some(y);
        moments
    }

    /// Elements of the moments of a norm: `r` of each row, or its mean too. Where the weight is that of a head, each head is a row.
    pub(super) fn n_moments(&self, op: &Op) -> usize {
        match *op {
            Op::RmsNorm { weight, output, .. } => self.len(output) / self.shared.program.weights[weight].n_elements(),
            Op::LayerNorm { .. } => 2 * self.n_tokens(),
            _ => unreachable!("called for norms"),
        }
    }

    /// The output of a norm; `moments` is overwritten.
    pub(super) fn normed(&mut self, op: &Op, moments: Block) -> Block {
        let (Op::RmsNorm { input, output, .. } | Op::LayerNorm { input, output, .. }) = *op else {
            unreachable!("called for norms")
        };
        let (len, n_moments) = (self.len(output), self.n_moments(op));
        let (x, y) = (self.value(input), self.work.arena.take(len));
        if self.is_dry {
            return y;
        }
        let (shared, eps) = (self.shared, self.shared.program.config.norm_eps as f32);
        let [x, y_slice, moments] = self.work.arena.slices([(x, len), (y, len), (moments, n_moments)]);
        match *op {
            Op::RmsNorm { weight, adds_one, .. } => {
                rms_norm::forward(x, &shared.norm_weight(weight, adds_one), eps, y_slice, moments);
            }
            Op::LayerNorm { weight, bias, .. } => {
                let (weight, bias) = (shared.weights[weight].f32(), shared.weights[bias].f32());
                let (mean, inv_std) = moments.split_at_mut(n_moments / 2);
                layer_norm::forward(x, weight, bias, eps, y_slice, mean, inv_std);
            }
            _ => unreachable!("called for norms"),
        }
        y
    }

    /// Columns of a value, copied.
    fn slice(&mut self, input: ValueIdx, start: usize, output: ValueIdx) -> Option<Block> {
        let widths = [input, output].map(|value| self.shared.program.widths[value]);
        let [x_len, y_len] = [input, output].map(|value| self.len(value));
        let (x, y) = (self.value(input), self.work.arena.take(y_len));
        self.values[output] = Some(y);
        if !self.is_dry {
            let [x, y] = self.work.arena.slices([(x, x_len), (y, y_len)]);
            let rows = (y.par_chunks_exact_mut(widths[1]), x.par_chunks_exact(widths[0])).into_par_iter();
            rows.with_min_len(ROWS_OF_TASK).for_each(|(y, x)| y.copy_from_slice(&x[start..start + y.len()]));
        }
        None
    }

    fn linear(&mut self, op_idx: usize, output: ValueIdx, keeps_extra: bool, wants_output: bool, started: Instant) {
        let Op::Linear { input, weight, layout, bias, adapted, .. } = *self.op(op_idx) else {
            unreachable!("called for linear ops")
        };
        let (n_tokens, [n_in, n_out]) = (self.n_tokens(), self.shared.program.linear_shape(weight, layout));
        let x = self.value(input);
        let y = wants_output.then(|| self.work.arena.take(n_tokens * n_out));
        self.values[output] = y;
        if !self.is_dry
            && let Some(y) = y
        {
            let work = &mut *self.work;
            let [x, y] = work.arena.slices([(x, n_tokens * n_in), (y, n_tokens * n_out)]);
            let stored = self.shared.weights[weight].matrix();
            let right = match layout {
                Layout::OutIn => stored.transposed(),
                Layout::InOut => stored,
            };
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

    fn rotate(
        &mut self,
        op_idx: usize,
        input: ValueIdx,
        n_heads: usize,
        rope: usize,
        output: ValueIdx,
    ) -> Option<Block> {
        let (head_dim, len) = (self.shared.program.config.head_dim, self.len(output));
        let y = self.moved_or_copied(op_idx, input, len);
        self.values[output] = Some(y);
        if !self.is_dry {
            let [y] = self.work.arena.slices([(y, len)]);
            rope::rotate(y, n_heads, head_dim, self.shared.tables[rope].kernel(), &self.rope_rows[rope]);
        }
        None
    }

    fn attend(&mut self, q: ValueIdx, k: ValueIdx, v: ValueIdx, scores: Scores, output: ValueIdx) -> Block {
        let shape = self.attention_shape();
        let (n_queries, n_keys) = (shape.n_query_elements(), shape.n_key_elements());
        let n_rows = shape.n_tokens * shape.n_heads;
        let [q, k, v] = [q, k, v].map(|value| self.value(value));
        let (o, log_sum_exp) = (self.work.arena.take(n_queries), self.work.arena.take(n_rows));
        self.values[output] = Some(o);
        if !self.is_dry {
            let blocks = [(q, n_queries), (k, n_keys), (v, n_keys), (o, n_queries), (log_sum_exp, n_rows)];
            let [q, k, v, o, log_sum_exp] = self.work.arena.slices(blocks);
            attention::forward(shape, &self.batch.documents, scores.kernel(), q, k, v, o, log_sum_exp);
        }
        log_sum_exp
    }

    /// What lies between the matrices of an MLP.
    pub(super) fn activated(&mut self, op: &Op) -> Block {
        match *op {
            Op::GatedMlp { gate, up, activation, output } => {
                let len = self.len(output);
                let (gate, up, y) = (self.value(gate), self.value(up), self.work.arena.take(len));
                if !self.is_dry {
                    let [gate, up, y] = self.work.arena.slices([(gate, len), (up, len), (y, len)]);
                    gated_mlp::forward(activation, gate, up, y);
                }
                y
            }
            Op::Gelu { input, output } => {
                let len = self.len(output);
                let (x, y) = (self.value(input), self.work.arena.take(len));
                if !self.is_dry {
                    let [x, y] = self.work.arena.slices([(x, len), (y, len)]);
                    gelu::forward(x, y);
                }
                y
            }
            _ => unreachable!("called for what lies between the matrices of an MLP"),
        }
    }

    fn residual(&mut self, op_idx: usize, left: ValueIdx, right: ValueIdx, output: ValueIdx) -> Option<Block> {
        let len = self.len(output);
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
