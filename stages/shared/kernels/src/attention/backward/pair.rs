//! A block of queries against a block of keys, for one query head: five products of matrices, and the softmax between.

use super::{Inputs, Keys};
use crate::attention::BLOCK_LEN;
use crate::attention::pack::n_channel_panels;
use crate::attention::tile::{add_columns, add_half_columns, add_panels};
use crate::attention::{Scores, Shape};
use crate::dispatch::Body;
use crate::math::exp_of_nonpositive;
use crate::tile::{Chunk, N_COLUMNS, N_HALF, N_ROWS, Tile, ZEROS, add_half_rows, add_rows, first_of};
use std::ops::Range;

/// A block of queries against a block of keys, for one query head.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) inputs: &'a Inputs<'a>,
    pub(super) keys: &'a Keys<'a>,
    /// Channel panels of the head's queries in the document.
    pub(super) q: &'a [Chunk],
    pub(super) d_o: &'a [Chunk],
    pub(super) head: usize,
    pub(super) document: &'a Range<usize>,
    /// How many blocks the queries are behind the keys; 0 on the diagonal.
    pub(super) wave: usize,
    pub(super) key_block: usize,
}

/// A pair of blocks, and the sums of these queries and of these keys.
pub(super) struct Task<'a> {
    pub(super) pair: Pair<'a>,
    pub(super) dq: &'a mut [Tile],
    pub(super) dk: &'a mut [Tile],
    pub(super) dv: &'a mut [Tile],
}

/// What a task computes on the way.
pub(super) struct Scratch {
    /// (queries, keys): probabilities, and the gradient of the scores.
    p: Vec<[f32; BLOCK_LEN]>,
    ds: Vec<[f32; BLOCK_LEN]>,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self { p: vec![[0.0; BLOCK_LEN]; BLOCK_LEN], ds: vec![[0.0; BLOCK_LEN]; BLOCK_LEN] }
    }
}

impl Body for (Task<'_>, &mut Scratch) {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (Task { pair, dq, dk, dv }, scratch) = self;
        let n_panels = n_channel_panels(pair.inputs.shape.head_dim);
        let (n_tokens, queries, keys) = (pair.document.len(), pair.query_tokens(), pair.key_tokens());
        let n_rows = n_tokens.next_multiple_of(N_ROWS);
        let is_narrow = pair.inputs.shape.head_dim <= N_HALF;
        let on_diagonal = pair.wave == 0;
        if on_diagonal {
            // The first pair of these queries, and of these keys.
            [&mut *dq, dk, dv].into_iter().for_each(|sums| sums.fill(ZEROS));
        }
        for (group, dq) in dq.chunks_exact_mut(n_panels).enumerate() {
            let first = group * N_ROWS;
            let n_keys = if on_diagonal { keys.len().min(first + N_ROWS) } else { keys.len() };
            pair.score_gradients(scratch, first, n_keys);
            let ds = six_rows(&scratch.ds, first, n_keys);
            for (panel, dq) in dq.iter_mut().enumerate() {
                let k = &pair.keys.k_by_channel[panel * n_tokens + keys.start..][..n_keys];
                if is_narrow {
                    add_half_rows(dq, ds, k);
                } else {
                    add_rows(dq, ds, k);
                }
            }
        }
        for (group, (dk, dv)) in dk.chunks_exact_mut(n_panels).zip(dv.chunks_exact_mut(n_panels)).enumerate() {
            let first = group * N_ROWS;
            // On the diagonal, earlier queries do not see these keys.
            let seen_by = if on_diagonal { first..queries.len() } else { 0..queries.len() };
            let (p, ds) = (&scratch.p[seen_by.clone()], &scratch.ds[seen_by.clone()]);
            for (panel, (dk, dv)) in dk.iter_mut().zip(dv).enumerate() {
                let rows = panel * n_rows + queries.start + seen_by.start..panel * n_rows + queries.end;
                let (d_o, q) = (&pair.d_o[rows.clone()], &pair.q[rows]);
                if is_narrow {
                    add_half_columns([dv, dk], [p, ds], first, [d_o, q]);
                } else {
                    add_columns(dv, p, first, d_o);
                    add_columns(dk, ds, first, q);
                }
            }
        }
    }
}

/// Six rows of a block from row `first` on, of `n_keys` columns.
#[inline(always)]
fn six_rows(block: &[[f32; BLOCK_LEN]], first: usize, n_keys: usize) -> [&[f32]; N_ROWS] {
    let [r0, r1, r2, r3, r4, r5]: &[_; N_ROWS] =
        block[first..].first_chunk().expect("a block is a multiple of six rows");
    first_of([r0, r1, r2, r3, r4, r5], n_keys)
}

/// Turns products into probabilities, and gradients in probabilities into those in products, where scores are capped.
#[inline(always)]
fn fill_capped(scores: &Scores, p: &mut Tile, ds: &mut Tile, log_sum_exp: [f32; N_ROWS], delta: [f32; N_ROWS]) {
    for row in 0..N_ROWS {
        for column in 0..N_COLUMNS {
            let (probability, slope) = scores.probability_and_slope(p[row][column], log_sum_exp[row]);
            ds[row][column] = probability * (ds[row][column] - delta[row]) * slope;
            p[row][column] = probability;
        }
    }
}

impl Pair<'_> {
    /// The block's keys, counted from the document's start.
    #[inline(always)]
    fn key_tokens(&self) -> Range<usize> {
        let start = self.key_block * BLOCK_LEN;
        start..self.document.len().min(start + BLOCK_LEN)
    }

    /// The block's queries, counted from the document's start.
    #[inline(always)]
    fn query_tokens(&self) -> Range<usize> {
        let start = (self.key_block + self.wave) * BLOCK_LEN;
        start..self.document.len().min(start + BLOCK_LEN)
    }

    /// Fills p and ds for six queries, from row `first` of the block on, and the block's first `n_keys` keys.
    #[inline(always)]
    fn score_gradients(&self, scratch: &mut Scratch, first: usize, n_keys: usize) {
        let Inputs { shape: Shape { n_heads, head_dim, .. }, scores, .. } = *self.inputs;
        let queries = self.query_tokens();
        let n_seen = N_ROWS.min(queries.len() - first);
        let first_in_pack = self.document.start + queries.start + first;
        let (mut log_sum_exp, mut delta) = ([0.0; N_ROWS], [0.0; N_ROWS]);
        for row in 0..n_seen {
            let place = (first_in_pack + row) * n_heads + self.head;
            (log_sum_exp[row], delta[row]) = (self.inputs.log_sum_exp[place], self.inputs.delta[place]);
        }
        let p_rows: &mut [_; N_ROWS] = scratch.p[first..].first_chunk_mut().expect("a block is a multiple of six rows");
        let ds_rows: &mut [_; N_ROWS] = scratch.ds[first..].first_chunk_mut().expect("as above");
        // In the document, with rows up to a multiple of six.
        let (first_row, n_rows) = (queries.start + first, self.document.len().next_multiple_of(N_ROWS));
        let first_panel = self.key_tokens().start / N_COLUMNS;
        for panel in 0..n_keys.div_ceil(N_COLUMNS) {
            let chunks = (first_panel + panel) * head_dim..(first_panel + panel + 1) * head_dim;
            let (mut p, mut ds) = (ZEROS, ZEROS);
            add_panels(&mut p, &self.q[first_row..], n_rows, &self.keys.k_by_token[chunks.clone()]);
            add_panels(&mut ds, &self.d_o[first_row..], n_rows, &self.keys.v_by_token[chunks]);
            if scores.cap.is_some() {
                fill_capped(&scores, &mut p, &mut ds, log_sum_exp, delta);
            } else {
                for row in 0..N_ROWS {
                    for column in 0..N_COLUMNS {
                        p[row][column] = exp_of_nonpositive(p[row][column].mul_add(scores.scale, -log_sum_exp[row]));
                        ds[row][column] = p[row][column] * (ds[row][column] - delta[row]) * scores.scale;
                    }
                }
            }
            for row in 0..N_ROWS {
                p_rows[row].as_chunks_mut().0[panel] = p[row];
                ds_rows[row].as_chunks_mut().0[panel] = ds[row];
            }
        }
        // Counted from the block's first key.
        let first_query = self.wave * BLOCK_LEN + first;
        if scores.first_key(first_query + N_ROWS - 1) > 0 {
            for (row, (p, ds)) in p_rows.iter_mut().zip(&mut *ds_rows).enumerate() {
                let n_hidden = scores.first_key(first_query + row).min(n_keys);
                p[..n_hidden].fill(0.0);
                ds[..n_hidden].fill(0.0);
            }
        }
        if self.wave == 0 {
            // Key `c` is hidden from row `first + row` where it is larger.
            for (row, (p, ds)) in p_rows.iter_mut().zip(ds_rows).enumerate() {
                p[n_keys.min(first + row + 1)..].fill(0.0);
                ds[n_keys.min(first + row + 1)..].fill(0.0);
            }
        }
    }
}
