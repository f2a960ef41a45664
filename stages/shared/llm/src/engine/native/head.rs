//! The head: logits, maybe capped, and cross-entropy of the supervised rows, a chunk at a time, as in `ops/head.rs`. Rows of tokens that
//! an adapter has make columns of their own, (N, n), as in `ops/tokens.rs`.

use pipe_kernels::gemm::{Matrix, Start, even_chunk_len, multiply, multiply_into_rows_of};
use pipe_kernels::{cross_entropy, softcap};

use super::pass::{Leaves, Pass};
use crate::program::Op;

/// Numbers from one row of logits to the next: an odd number of cache lines. With 49,152 logits of 4 bytes, a power of two times 3, the same column of
/// all rows would lie in one set of the caches, and products with the logits took a fifth longer.
fn logits_row_len(vocab_size: usize) -> usize {
    const LINE_LEN: usize = 16;
    LINE_LEN * (vocab_size.div_ceil(LINE_LEN) | 1)
}

/// Visits the logits of tokens with rows of their own, whose rows are `row_len` apart, beside their places in `columns`, (N, n).
fn visit_columns(
    ids: &[u32],
    row_len: usize,
    logits: &mut [f32],
    columns: &mut [f32],
    mut visit: impl FnMut(&mut f32, &mut f32),
) {
    for (logits, columns) in logits.chunks_exact_mut(row_len).zip(columns.chunks_exact_mut(ids.len())) {
        ids.iter().zip(columns).for_each(|(id, column)| visit(&mut logits[*id as usize], column));
    }
}

impl Pass<'_, '_> {
    /// The losses of the supervised rows, pack by pack. With `leaves`, the gradient of the head's input is left for the backward.
    pub(super) fn head_losses(&mut self, mut leaves: Option<&mut Leaves<'_>>) -> Vec<Vec<f32>> {
        let Some(Op::Head { input, weight, cap }) = self.shared.program.ops.last() else {
            unreachable!("every program ends in its head")
        };
        let trains = leaves.is_some();
        let cap = cap.map(|cap| cap as f32);
        let config = &self.shared.program.config;
        let (width, vocab_size) = (config.hidden_size, config.vocab_size);
        let row_len = logits_row_len(vocab_size);
        let len = self.n_tokens() * width;
        let tokens = self.shared.tokens_of(*weight);
        let x = self.value(*input);
        let d_x = (trains && self.wants(*input)).then(|| self.work.arena.take(len));
        if let Some(d_x) = d_x.filter(|_| !self.is_dry) {
            self.work.arena.slices([(d_x, len)])[0].fill(0.0);
        }
        let mut all = Vec::with_capacity(self.batch.packs.len());
        for pack_idx in 0..self.batch.packs.len() {
            let supervised = self.batch.supervised_of[pack_idx].clone();
            let mut losses = vec![0.0; supervised.len()];
            let chunk_len = even_chunk_len(supervised.len(), self.shared.head_rows_max);
            for start in supervised.clone().step_by(chunk_len) {
                let chunk = start..supervised.end.min(start + chunk_len);
                let n = chunk.len();
                let rows_block = self.work.arena.take(n * width);
                let logits_block = self.work.arena.take(n * row_len);
                let own_block = tokens.as_ref().map(|(_, tokens)| self.work.arena.take(n * tokens.ids.len()));
                // The backward of the cap reads what it made, where the losses' gradients will be.
                let capped_block = cap.filter(|_| trains).map(|cap| (cap, self.work.arena.take(n * row_len)));
                if !self.is_dry {
                    let work = &mut *self.work;
                    let (ids, targets) = (&self.batch.supervised[chunk.clone()], &self.batch.targets[chunk]);
                    let right = self.shared.weights[*weight].matrix();
                    let losses = &mut losses[start - supervised.start..][..n];
                    let (rows_len, logits_len) = (n * width, n * row_len);
                    let [x, rows, logits] =
                        work.arena.slices([(x, len), (rows_block, rows_len), (logits_block, logits_len)]);
                    for (row, id) in rows.chunks_exact_mut(width).zip(ids) {
                        row.copy_from_slice(&x[*id as usize * width..][..width]);
                    }
                    let (left, turned) = (Matrix::new(&*rows, n, width), right.transposed());
                    multiply_into_rows_of(row_len, left, turned, logits, Start::Zero, &mut work.scratch);
                    let own = tokens
                        .as_ref()
                        .zip(own_block)
                        .map(|((parameter, tokens), block)| (*parameter, *tokens, (block, n * tokens.ids.len())));
                    if let Some((_, tokens, columns)) = own {
                        let [rows, logits, columns] =
                            work.arena.slices([(rows_block, rows_len), (logits_block, logits_len), columns]);
                        let (left, right) = (Matrix::new(&*rows, n, width), tokens.rows.matrix().transposed());
                        multiply(left, right, columns, Start::Zero, &mut work.scratch);
                        visit_columns(tokens.ids, row_len, logits, columns, |logit, own| *logit = *own);
                    }
                    let [logits] = work.arena.slices([(logits_block, logits_len)]);
                    if let Some(cap) = cap {
                        softcap::forward(cap, logits);
                    }
                    if let Some((_, block)) = capped_block {
                        let [logits, capped] = work.arena.slices([(logits_block, logits_len), (block, logits_len)]);
                        capped.copy_from_slice(logits);
                    }
                    let [logits] = work.arena.slices([(logits_block, logits_len)]);
                    if trains {
                        cross_entropy::forward_backward(logits, vocab_size, targets, 1.0, losses);
                    } else {
                        cross_entropy::forward(logits, vocab_size, targets, losses);
                    }
                    if let Some((cap, block)) = capped_block {
                        let [logits, capped] = work.arena.slices([(logits_block, logits_len), (block, logits_len)]);
                        softcap::backward(cap, capped, logits);
                    }
                    if let (Some(leaves), Some((parameter, tokens, columns))) = (leaves.as_deref_mut(), own) {
                        let [rows, logits, columns] =
                            work.arena.slices([(rows_block, rows_len), (logits_block, logits_len), columns]);
                        // What the matrix's own rows there would get is nobody's.
                        visit_columns(tokens.ids, row_len, logits, columns, |logit, own| *own = std::mem::take(logit));
                        multiply(
                            Matrix::new(&*columns, n, tokens.ids.len()).transposed(),
                            Matrix::new(&*rows, n, width),
                            leaves.tensor(pack_idx, parameter, tokens.ids.len() * width),
                            Start::Output,
                            &mut work.scratch,
                        );
                    }
                    let [rows, logits] = work.arena.slices([(rows_block, rows_len), (logits_block, logits_len)]);
                    let d_logits = Matrix::in_rows_of(row_len, &*logits, n, vocab_size);
                    let parameter = self.shared.program.parameter_of(*weight);
                    if let (Some(leaves), Some(parameter)) = (leaves.as_deref_mut(), parameter) {
                        let d_weight = leaves.tensor(pack_idx, parameter, vocab_size * width);
                        multiply(
                            d_logits.transposed(),
                            Matrix::new(&*rows, n, width),
                            d_weight,
                            Start::Output,
                            &mut work.scratch,
                        );
                    }
                    if let Some(d_x) = d_x {
                        multiply(d_logits, right, rows, Start::Zero, &mut work.scratch);
                        if let Some((_, tokens, columns)) = own {
                            let [rows, columns] = work.arena.slices([(rows_block, rows_len), columns]);
                            let left = Matrix::new(&*columns, n, tokens.ids.len());
                            multiply(left, tokens.rows.matrix(), rows, Start::Output, &mut work.scratch);
                        }
                        let [d_x, rows] = work.arena.slices([(d_x, len), (rows_block, rows_len)]);
                        for (row, id) in rows.chunks_exact(width).zip(ids) {
                            d_x[*id as usize * width..][..width].copy_from_slice(row);
                        }
                    }
                }
                capped_block.into_iter().for_each(|(_, block)| self.work.arena.give(block));
                own_block.into_iter().for_each(|block| self.work.arena.give(block));
                self.work.arena.give(logits_block);
                self.work.arena.give(rows_block);
            }
            all.push(losses);
        }
        if trains {
            self.give_value(*input);
            self.d_values[*input] = d_x;
        }
        all
    }
}
