//! The ops, backward, in the reverse order of the list. Formulas stand at the ops in `ops/` and at the kernels.

use std::time::Instant;

use pipe_kernels::gemm::{Matrix, Start, multiply};
use pipe_kernels::{attention, dropout, gated_mlp, gelu, layer_norm, reduce, rms_norm, rope};
use rayon::prelude::*;

use super::arena::Block;
use super::forward::ROWS_OF_TASK;
use super::parts::part_of;
use super::pass::{Leaves, Pass};
use crate::program::{AdaptedIdx, Layout, Op, Rows, ValueIdx, WeightIdx};

impl Pass<'_, '_> {
    /// Turns the gradient of an op's output into those of its inputs, of its weights and of its adapter.
    pub(super) fn backward_op(&mut self, op_idx: usize, leaves: &mut Leaves<'_>) {
        let started = Instant::now();
        let op = self.op(op_idx);
        match *op {
            Op::Embedding { weight, rows, scale, output } => self.embed_back(weight, rows, scale, output, leaves),
            Op::RmsNorm { .. } => self.rms_norm_back(op_idx, leaves),
            Op::LayerNorm { .. } => self.layer_norm_back(op_idx, leaves),
            Op::Linear { .. } => return self.linear_back(op_idx, started, leaves),
            Op::Slice { input, start, output } => self.slice_back(input, start, output),
            Op::Rope { input, n_heads, rope, output } => self.rotate_back(input, n_heads, rope, output),
            Op::Attention { .. } => self.attend_back(op_idx),
            Op::GatedMlp { .. } => self.gate_back(op),
            Op::Gelu { input, output } => self.gelu_back(input, output),
            Op::Residual { left, right, output } => self.residual_back(left, right, output),
            Op::Head { .. } => unreachable!("it is where the backward begins"),
        }
        self.parts.add(part_of(op), started);
    }

    fn d_output(&self, output: ValueIdx) -> Block {
        self.d_values[output].expect("every value with a gradient reaches the head")
    }

    /// The gradient of a value to add to, and whether it is there already. A block that others share is copied first.
    fn sum_of(&mut self, value: ValueIdx, len: usize) -> (Block, Start) {
        match self.d_values[value] {
            None => {
                let block = self.work.arena.take(len);
                self.d_values[value] = Some(block);
                (block, Start::Zero)
            }
            Some(block) if self.work.arena.is_shared(block) => {
                let copy = self.copied(block, len);
                self.work.arena.give(block);
                self.d_values[value] = Some(copy);
                (copy, Start::Output)
            }
            Some(block) => (block, Start::Output),
        }
    }

    /// Adds the gradient in `block` to that of `value`; the block is given away.
    fn add_to(&mut self, value: ValueIdx, block: Block, len: usize) {
        if self.d_values[value].is_none() {
            self.d_values[value] = Some(block);
            return;
        }
        let (sum, _) = self.sum_of(value, len);
        if !self.is_dry {
            let [sum, block] = self.work.arena.slices([(sum, len), (block, len)]);
            reduce::add_assign(sum, block);
        }
        self.work.arena.give(block);
    }

    fn embed_back(
        &mut self,
        weight: WeightIdx,
        rows: Rows,
        scale: Option<f64>,
        output: ValueIdx,
        leaves: &mut Leaves<'_>,
    ) {
        if self.is_dry {
            return;
        }
        let shared = self.shared;
        let (width, len) = (shared.program.widths[output], self.len(output));
        let tokens = shared.tokens_of(weight);
        // All rows of the matrix, or those that the adapter has.
        let trained = match (shared.program.parameter_of(weight), &tokens) {
            (Some(parameter), _) => Some((parameter, shared.program.weights[weight].shape[0])),
            (None, Some((parameter, tokens))) => Some((*parameter, tokens.ids.len())),
            (None, None) => None,
        };
        let Some((parameter, n_rows)) = trained else { return };
        let d_y = self.d_output(output);
        let [d_y] = self.work.arena.slices([(d_y, len)]);
        let (ids, scale) = (self.batch.ids(rows), scale.map_or(1.0, |scale| scale as f32));
        for (pack_idx, rows) in self.batch.packs.iter().enumerate() {
            let d_weight = leaves.tensor(pack_idx, parameter, n_rows * width);
            for (id, d_y) in ids[rows.clone()].iter().zip(d_y[rows.start * width..].chunks_exact(width)) {
                let row = match &tokens {
                    Some((_, tokens)) => tokens.row_of(*id),
                    None => Some(*id as usize),
                };
                let Some(row) = row else { continue };
                let d_row = &mut d_weight[row * width..][..width];
                d_row.iter_mut().zip(d_y).for_each(|(sum, d_y)| *sum += scale * d_y);
            }
        }
    }

    fn rms_norm_back(&mut self, op_idx: usize, leaves: &mut Leaves<'_>) {
        let op = self.op(op_idx);
        let Op::RmsNorm { input, weight, adds_one, output } = *op else { unreachable!("called for RMSNorm") };
        let (shared, len, n_rows) = (self.shared, self.len(output), self.n_moments(op));
        // Where each head is normed, a token has as many rows as heads.
        let (width, rows_of_token) = (shared.program.weights[weight].n_elements(), n_rows / self.n_tokens());
        let d_y = self.d_output(output);
        let (x, inv_rms) = (self.value(input), self.extras[op_idx].expect("the forward kept r"));
        if let Some(parameter) = shared.program.parameter_of(weight).filter(|_| !self.is_dry) {
            let [x, d_y, inv_rms] = self.work.arena.slices([(x, len), (d_y, len), (inv_rms, n_rows)]);
            for (pack_idx, tokens) in self.batch.packs.iter().enumerate() {
                let rows = tokens.start * rows_of_token..tokens.end * rows_of_token;
                let at = rows.start * width..rows.end * width;
                let d_weight = leaves.tensor(pack_idx, parameter, width);
                rms_norm::weight_gradient(&d_y[at.clone()], &x[at], &inv_rms[rows], d_weight);
            }
        }
        if !self.wants(input) {
            return;
        }
        let d_x = self.work.arena.take(len);
        if !self.is_dry {
            let blocks = [(x, len), (d_y, len), (inv_rms, n_rows), (d_x, len)];
            let [x, d_y, inv_rms, d_x] = self.work.arena.slices(blocks);
            rms_norm::backward(d_y, x, &shared.norm_weight(weight, adds_one), inv_rms, d_x);
        }
        self.add_to(input, d_x, len);
    }

    fn layer_norm_back(&mut self, op_idx: usize, leaves: &mut Leaves<'_>) {
        let op = self.op(op_idx);
        let Op::LayerNorm { input, weight, bias, output } = *op else { unreachable!("called for LayerNorm") };
        let (shared, len, n_tokens, n_moments) = (self.shared, self.len(output), self.n_tokens(), self.n_moments(op));
        let width = shared.program.widths[output];
        let d_y = self.d_output(output);
        let (x, moments) = (self.value(input), self.extras[op_idx].expect("the forward kept mean and r"));
        let parameters = [weight, bias].map(|weight| shared.program.parameter_of(weight));
        if !self.is_dry && parameters.iter().any(Option::is_some) {
            let [x, d_y, moments] = self.work.arena.slices([(x, len), (d_y, len), (moments, n_moments)]);
            let (mean, inv_std) = moments.split_at(n_tokens);
            for (pack_idx, rows) in self.batch.packs.iter().enumerate() {
                let at = rows.start * width..rows.end * width;
                let [mut d_weight, mut d_bias] = [vec![0.0; width], vec![0.0; width]];
                let (mean, inv_std) = (&mean[rows.clone()], &inv_std[rows.clone()]);
                layer_norm::parameter_gradients(&d_y[at.clone()], &x[at], mean, inv_std, &mut d_weight, &mut d_bias);
                for (parameter, gradient) in parameters.into_iter().zip([d_weight, d_bias]) {
                    if let Some(parameter) = parameter {
                        reduce::add_assign(leaves.tensor(pack_idx, parameter, width), &gradient);
                    }
                }
            }
        }
        if !self.wants(input) {
            return;
        }
        let d_x = self.work.arena.take(len);
        if !self.is_dry {
            let blocks = [(x, len), (d_y, len), (moments, n_moments), (d_x, len)];
            let [x, d_y, moments, d_x] = self.work.arena.slices(blocks);
            let (mean, inv_std) = moments.split_at(n_tokens);
            layer_norm::backward(d_y, x, shared.weights[weight].f32(), mean, inv_std, d_x);
        }
        self.add_to(input, d_x, len);
    }

    /// A value that the forward did not keep, since it is cheap to make again.
    fn remade(&mut self, value: ValueIdx) -> Block {
        if let Some(block) = self.values[value] {
            return block;
        }
        let started = Instant::now();
        let op = self.op(self.shared.plan.producer[value]);
        let block = match *op {
            Op::RmsNorm { .. } | Op::LayerNorm { .. } => {
                let moments = self.work.arena.take(self.n_moments(op));
                let y = self.normed(op, moments);
                self.work.arena.give(moments);
                y
            }
            Op::GatedMlp { .. } | Op::Gelu { .. } => self.activated(op),
            _ => unreachable!("all other values are kept"),
        };
        self.values[value] = Some(block);
        self.parts.add(part_of(op), started);
        block
    }

    fn linear_back(&mut self, op_idx: usize, started: Instant, leaves: &mut Leaves<'_>) {
        let Op::Linear { input, weight, layout, bias, adapted, output } = *self.op(op_idx) else {
            unreachable!("called for linear ops")
        };
        let (n_tokens, [n_in, n_out]) = (self.n_tokens(), self.shared.program.linear_shape(weight, layout));
        let d_y = self.d_output(output);
        let adapter = self.adapter(adapted);
        if self.wants(input) {
            let (d_x, start) = self.sum_of(input, n_tokens * n_in);
            if !self.is_dry {
                let work = &mut *self.work;
                let [d_y, d_x] = work.arena.slices([(d_y, n_tokens * n_out), (d_x, n_tokens * n_in)]);
                let stored = self.shared.weights[weight].matrix();
                let right = match layout {
                    Layout::OutIn => stored,
                    Layout::InOut => stored.transposed(),
                };
                multiply(Matrix::new(&*d_y, n_tokens, n_out), right, d_x, start, &mut work.scratch);
            }
        }
        self.weight_back((weight, layout), bias, input, d_y, leaves);
        let started = self.parts.add("linear", started);
        if let Some((module_idx, _)) = adapter {
            let h = self.extras[op_idx].expect("the forward kept scale x A^T");
            self.low_rank_back(module_idx, input, h, d_y, [n_in, n_out], leaves);
            self.parts.add("adapter", started);
        }
    }

    /// `d_W += d_y^T x`, or its transpose, and `d_b += sum of d_y`, where they are trained.
    fn weight_back(
        &mut self,
        (weight, layout): (WeightIdx, Layout),
        bias: Option<WeightIdx>,
        input: ValueIdx,
        d_y: Block,
        leaves: &mut Leaves<'_>,
    ) {
        let program = self.shared.program;
        let (n_tokens, [n_in, n_out]) = (self.n_tokens(), program.linear_shape(weight, layout));
        if let Some(parameter) = bias.and_then(|bias| program.parameter_of(bias)).filter(|_| !self.is_dry) {
            let [d_y] = self.work.arena.slices([(d_y, n_tokens * n_out)]);
            for (pack_idx, rows) in self.batch.packs.iter().enumerate() {
                let d_bias = leaves.tensor(pack_idx, parameter, n_out);
                reduce::add_column_sums(&d_y[rows.start * n_out..rows.end * n_out], d_bias);
            }
        }
        let Some(parameter) = program.parameter_of(weight) else { return };
        let x = self.remade(input);
        if self.is_dry {
            return;
        }
        let work = &mut *self.work;
        let [d_y, x] = work.arena.slices([(d_y, n_tokens * n_out), (x, n_tokens * n_in)]);
        for (pack_idx, rows) in self.batch.packs.iter().enumerate() {
            let d_weight = leaves.tensor(pack_idx, parameter, n_out * n_in);
            let d_y = Matrix::new(&d_y[rows.start * n_out..rows.end * n_out], rows.len(), n_out);
            let x = Matrix::new(&x[rows.start * n_in..rows.end * n_in], rows.len(), n_in);
            let (left, right) = match layout {
                Layout::OutIn => (d_y, x),
                Layout::InOut => (x, d_y),
            };
            multiply(left.transposed(), right, d_weight, Start::Output, &mut work.scratch);
        }
    }

    /// With `d_h = scale d_y B`: `d_B = d_y^T h`, `d_A = d_h^T drop(x)`, `d_x += drop(d_h A)`; h has the scale in it.
    fn low_rank_back(
        &mut self,
        module_idx: AdaptedIdx,
        input: ValueIdx,
        h: Block,
        d_y: Block,
        [n_in, n_out]: [usize; 2],
        leaves: &mut Leaves<'_>,
    ) {
        let (n_tokens, rank) = (self.n_tokens(), self.shared.lora_rank);
        let d_h = self.work.arena.take(n_tokens * rank);
        if !self.is_dry {
            let work = &mut *self.work;
            let [d_y, d_h] = work.arena.slices([(d_y, n_tokens * n_out), (d_h, n_tokens * rank)]);
            let b = self.shared.adapters[module_idx].b.matrix();
            multiply(Matrix::new(&*d_y, n_tokens, n_out), b, d_h, Start::Zero, &mut work.scratch);
            reduce::scale(d_h, self.shared.lora_scale);
        }
        let x = self.remade(input);
        let dropped = if self.wants(input) {
            self.low_rank_input(module_idx, input, d_h, x, n_in)
        } else {
            self.dropped(module_idx, x, n_in)
        };
        if !self.is_dry {
            self.adapter_gradients(module_idx, [h, d_h, dropped.unwrap_or(x), d_y], [n_in, n_out], leaves);
        }
        dropped.into_iter().for_each(|dropped| self.work.arena.give(dropped));
        self.work.arena.give(d_h);
    }

    /// Gradients of A and B, pack by pack.
    fn adapter_gradients(
        &mut self,
        module_idx: AdaptedIdx,
        [h, d_h, x, d_y]: [Block; 4],
        [n_in, n_out]: [usize; 2],
        leaves: &mut Leaves<'_>,
    ) {
        let (n_tokens, rank) = (self.n_tokens(), self.shared.lora_rank);
        let work = &mut *self.work;
        let blocks = [(h, n_tokens * rank), (d_h, n_tokens * rank), (x, n_tokens * n_in), (d_y, n_tokens * n_out)];
        let [h, d_h, x, d_y] = work.arena.slices(blocks);
        // (r, out): a product of few rows is made column by column, and its long side is then read in the order it lies in.
        let mut d_b_turned = vec![0.0; rank * n_out];
        for (pack_idx, rows) in self.batch.packs.iter().enumerate() {
            let at = |width: usize| rows.start * width..rows.end * width;
            let (h, d_h, x, d_y) = (&h[at(rank)], &d_h[at(rank)], &x[at(n_in)], &d_y[at(n_out)]);
            let (n, d_a) = (rows.len(), leaves.tensor(pack_idx, 2 * module_idx, rank * n_in));
            let d_h = Matrix::new(d_h, n, rank).transposed();
            multiply(d_h, Matrix::new(x, n, n_in), d_a, Start::Output, &mut work.scratch);
            let h = Matrix::new(h, n, rank).transposed();
            multiply(h, Matrix::new(d_y, n, n_out), &mut d_b_turned, Start::Zero, &mut work.scratch);
            let d_b = leaves.tensor(pack_idx, 2 * module_idx + 1, n_out * rank);
            for (out, d_b) in d_b.chunks_exact_mut(rank).enumerate() {
                d_b.iter_mut().enumerate().for_each(|(r, d_b)| *d_b += d_b_turned[r * n_out + out]);
            }
        }
    }

    /// `d_x += drop(d_h A)`. Returns `drop(x)`, which has the same mask; `None` without dropout.
    fn low_rank_input(
        &mut self,
        module_idx: AdaptedIdx,
        input: ValueIdx,
        d_h: Block,
        x: Block,
        n_in: usize,
    ) -> Option<Block> {
        let (n_tokens, rank) = (self.n_tokens(), self.shared.lora_rank);
        let len = n_tokens * n_in;
        let (d_x, start) = self.sum_of(input, len);
        assert_eq!(start, Start::Output, "the frozen weight's part comes first");
        let Some(mask) = self.shared.masks[module_idx] else {
            if !self.is_dry {
                let work = &mut *self.work;
                let [d_h, d_x] = work.arena.slices([(d_h, n_tokens * rank), (d_x, len)]);
                let a = self.shared.adapters[module_idx].a.matrix();
                multiply(Matrix::new(&*d_h, n_tokens, rank), a, d_x, Start::Output, &mut work.scratch);
            }
            return None;
        };
        let [whole, dropped] = [len; 2].map(|len| self.work.arena.take(len));
        if !self.is_dry {
            let work = &mut *self.work;
            let blocks = [(d_h, n_tokens * rank), (d_x, len), (whole, len), (dropped, len), (x, len)];
            let [d_h, d_x, whole, dropped, x] = work.arena.slices(blocks);
            let a = self.shared.adapters[module_idx].a.matrix();
            multiply(Matrix::new(&*d_h, n_tokens, rank), a, whole, Start::Zero, &mut work.scratch);
            let (example_ids, positions) = (&self.batch.example_ids, &self.batch.position_ids);
            dropout::apply_and_add(mask, [x, whole], example_ids, positions, [dropped, d_x]);
        }
        self.work.arena.give(whole);
        Some(dropped)
    }

    /// The columns of the gradient that the slice was taken from; the other slices have the others.
    fn slice_back(&mut self, input: ValueIdx, start: usize, output: ValueIdx) {
        let widths = [input, output].map(|value| self.shared.program.widths[value]);
        let ([len, y_len], d_y) = ([input, output].map(|value| self.len(value)), self.d_output(output));
        let (d_x, was) = self.sum_of(input, len);
        if !self.is_dry {
            let [d_x, d_y] = self.work.arena.slices([(d_x, len), (d_y, y_len)]);
            let rows = (d_x.par_chunks_exact_mut(widths[0]), d_y.par_chunks_exact(widths[1])).into_par_iter();
            rows.with_min_len(ROWS_OF_TASK).for_each(|(d_x, d_y)| {
                if was == Start::Zero {
                    d_x.fill(0.0);
                }
                d_x[start..start + d_y.len()].iter_mut().zip(d_y).for_each(|(sum, d_y)| *sum += d_y);
            });
        }
    }

    fn rotate_back(&mut self, input: ValueIdx, n_heads: usize, rope: usize, output: ValueIdx) {
        let (head_dim, len) = (self.shared.program.config.head_dim, self.len(output));
        let (d_y, _) = self.sum_of(output, len);
        self.d_values[output] = None;
        if !self.is_dry {
            let [d_y] = self.work.arena.slices([(d_y, len)]);
            rope::rotate_back(d_y, n_heads, head_dim, self.shared.tables[rope].kernel(), &self.rope_rows[rope]);
        }
        self.add_to(input, d_y, len);
    }

    fn attend_back(&mut self, op_idx: usize) {
        let Op::Attention { q, k, v, scores, output } = *self.op(op_idx) else { unreachable!("called for attention") };
        let shape = self.attention_shape();
        let (n_queries, n_keys) = (shape.n_query_elements(), shape.n_key_elements());
        let n_rows = shape.n_tokens * shape.n_heads;
        let [d_q, d_k, d_v] = [n_queries, n_keys, n_keys].map(|len| self.work.arena.take(len));
        if !self.is_dry {
            let blocks = [
                (self.value(q), n_queries),
                (self.value(k), n_keys),
                (self.value(v), n_keys),
                (self.value(output), n_queries),
                (self.extras[op_idx].expect("the forward kept the log-sum-exp"), n_rows),
                (self.d_output(output), n_queries),
                (d_q, n_queries),
                (d_k, n_keys),
                (d_v, n_keys),
            ];
            let [q, k, v, o, log_sum_exp, d_o, d_q, d_k, d_v] = self.work.arena.slices(blocks);
            let scores = scores.kernel();
            attention::backward(shape, &self.batch.documents, scores, q, k, v, o, log_sum_exp, d_o, d_q, d_k, d_v);
        }
        for (value, block, len) in [(q, d_q, n_queries), (k, d_k, n_keys), (v, d_v, n_keys)] {
            if self.wants(value) {
                self.add_to(value, block, len);
            } else {
                self.work.arena.give(block);
            }
        }
    }

    fn gelu_back(&mut self, input: ValueIdx, output: ValueIdx) {
        let (len, x, d_y) = (self.len(output), self.value(input), self.d_output(output));
        let d_x = self.work.arena.take(len);
        if !self.is_dry {
            let [x, d_y, d_x] = self.work.arena.slices([(x, len), (d_y, len), (d_x, len)]);
            gelu::backward(d_y, x, d_x);
        }
        self.add_to(input, d_x, len);
    }

    fn gate_back(&mut self, op: &Op) {
        let Op::GatedMlp { gate, up, activation, output } = *op else { unreachable!("called for gated MLPs") };
        let len = self.len(output);
        let d_y = self.d_output(output);
        let [d_gate, d_up] = [len; 2].map(|len| self.work.arena.take(len));
        if !self.is_dry {
            let blocks = [(d_y, len), (self.value(gate), len), (self.value(up), len), (d_gate, len), (d_up, len)];
            let [d_y, gate, up, d_gate, d_up] = self.work.arena.slices(blocks);
            gated_mlp::backward(activation, d_y, gate, up, d_gate, d_up);
        }
        for (value, block) in [(gate, d_gate), (up, d_up)] {
            if self.wants(value) {
                self.add_to(value, block, len);
            } else {
                self.work.arena.give(block);
            }
        }
    }

    fn residual_back(&mut self, left: ValueIdx, right: ValueIdx, output: ValueIdx) {
        let len = self.len(output);
        let d_y = self.d_values[output].take().expect("every value with a gradient reaches the head");
        let wanted: Vec<ValueIdx> = [left, right].into_iter().filter(|value| self.wants(*value)).collect();
        for _ in 1..wanted.len() {
            self.work.arena.share(d_y);
        }
        for value in wanted {
            self.add_to(value, d_y, len);
        }
    }
}
