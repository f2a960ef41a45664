//! The forward: a task is a few query tokens of a document with all their heads.
//!
//! A task walks over the key blocks up to its own tokens. Keys and values of a block stay in the cache for all rows and all query heads that
//! share them; each row carries the maximum, the total and the weighted sum of values so far.

use super::pack::{Head, cut_blocks, n_channel_panels, n_token_chunks};
use super::room::{Rest, Room};
use super::{BLOCK_LEN, Scores, Shape, check_len};
use crate::dispatch::{self, Body};
use crate::lanes::{self, larger, tree_sum};
use crate::math::{exp_of_nonpositive, ln};
use crate::tile::{Chunk, N_COLUMNS, N_HALF, N_ROWS, Tile, add_half_rows, add_rows, first_of};
use rayon::prelude::*;
use std::ops::Range;

/// Query tokens of one task, a multiple of [`N_ROWS`]. Never changes a result.
const TASK_LEN: usize = 24;

/// `o = softmax(scale q k^T) v` for every query head, causal inside documents.
///
/// - documents: ranges that follow each other and cover `0..T`
/// - scores: scale, cap and window
/// - q, o: (T, H, D); k, v: (T, H_kv, D); finite
/// - log_sum_exp: (T, H), `ln(sum(exp(score)))` over the keys of a row, for the backward
///
/// The same bits as [`super::reference::forward`].
#[expect(clippy::too_many_arguments, reason = "an attention has this many tensors")]
pub fn forward(
    shape: Shape,
    documents: &[Range<usize>],
    scores: Scores,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    o: &mut [f32],
    log_sum_exp: &mut [f32],
) {
    shape.check(documents, &scores);
    check_len("q", q, shape.n_query_elements());
    check_len("k", k, shape.n_key_elements());
    check_len("v", v, shape.n_key_elements());
    check_len("o", o, shape.n_query_elements());
    check_len("log_sum_exp", log_sum_exp, shape.n_tokens * shape.n_heads);
    let mut room = Room::new(n_chunks(shape, documents));
    let mut rest = room.rest();
    let document_of = |i: usize| &documents[i / shape.n_kv_heads];
    let new_keys = |i| Keys::new(&mut rest, document_of(i).len(), shape.head_dim);
    let mut keys: Vec<Keys> = (0..documents.len() * shape.n_kv_heads).map(new_keys).collect();
    keys.par_iter_mut().enumerate().for_each(|(i, keys)| {
        let head = |x| Head { x, n_heads: shape.n_kv_heads, head: i % shape.n_kv_heads, head_dim: shape.head_dim };
        dispatch::run(PackKeys { k: head(k), v: head(v), tokens: document_of(i).clone(), keys });
    });
    let o = cut_blocks(o, documents, TASK_LEN, shape.n_heads * shape.head_dim);
    let log_sum_exp = cut_blocks(log_sum_exp, documents, TASK_LEN, shape.n_heads);
    o.into_par_iter().zip(log_sum_exp).for_each(|((document_idx, tokens, o), (_, _, log_sum_exp))| {
        let first_token = documents[document_idx].start;
        for (kv_head, keys) in keys[document_idx * shape.n_kv_heads..][..shape.n_kv_heads].iter().enumerate() {
            let tokens = tokens.clone();
            dispatch::run(Task { shape, scores, q, keys, kv_head, first_token, tokens, o, log_sum_exp });
        }
    });
}

/// Chunks that a call needs room for.
pub(super) fn n_chunks(shape: Shape, documents: &[Range<usize>]) -> usize {
    let keys: usize = documents.iter().map(|document| Keys::n_chunks(document.len(), shape.head_dim)).sum();
    shape.n_kv_heads * keys
}

/// Keys and values of one head and document.
struct Keys<'a> {
    n_tokens: usize,
    /// Token panels of k.
    k: &'a mut [Chunk],
    /// Channel panels of v.
    v: &'a mut [Chunk],
}

impl<'a> Keys<'a> {
    fn n_chunks(n_tokens: usize, head_dim: usize) -> usize {
        n_token_chunks(n_tokens, head_dim) + n_tokens * n_channel_panels(head_dim)
    }

    fn new(rest: &mut Rest<'a>, n_tokens: usize, head_dim: usize) -> Self {
        let k = rest.chunks(n_token_chunks(n_tokens, head_dim));
        Self { n_tokens, k, v: rest.chunks(n_tokens * n_channel_panels(head_dim)) }
    }
}

/// Fills the [`Keys`] of a head in a document.
struct PackKeys<'a, 'b> {
    k: Head<'a>,
    v: Head<'a>,
    tokens: Range<usize>,
    keys: &'a mut Keys<'b>,
}

impl Body for PackKeys<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.k.fill_token_panels(self.tokens.clone(), self.keys.k);
        self.v.fill_channel_panels(self.tokens.clone(), self.tokens.len(), self.keys.v);
    }
}

/// Some query tokens of a document, with the query heads of one key head.
struct Task<'a> {
    shape: Shape,
    scores: Scores,
    q: &'a [f32],
    keys: &'a Keys<'a>,
    kv_head: usize,
    /// Where the document starts in the pack.
    first_token: usize,
    /// The query tokens, counted from the document's start.
    tokens: Range<usize>,
    /// Rows of the outputs that belong to the tokens: (tokens, H, D) and (tokens, H).
    o: &'a mut [f32],
    log_sum_exp: &'a mut [f32],
}

/// What six rows carry from one key block to the next.
#[derive(Clone, Copy)]
struct Running {
    max: PerRow,
    total: PerRow,
}

/// A number per row; the two places behind the six rows make it one AVX2 register.
type PerRow = [f32; 8];

impl Body for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let n_panels = n_channel_panels(self.shape.head_dim);
        let n_group_rows = self.tokens.len().div_ceil(N_ROWS);
        let n_groups = self.shape.n_group_heads() * n_group_rows;
        let mut running = vec![Running { max: [f32::NEG_INFINITY; 8], total: [0.0; 8] }; n_groups];
        let mut sums = vec![[[0.0; N_COLUMNS]; N_ROWS]; n_groups * n_panels];
        let zeros = vec![0.0; self.shape.head_dim];
        let mut p = [[0.0; BLOCK_LEN]; N_ROWS];
        let first_block = self.scores.first_key(self.tokens.start) / BLOCK_LEN * BLOCK_LEN;
        for block in (first_block..self.tokens.end).step_by(BLOCK_LEN) {
            for (group, (running, sums)) in running.iter_mut().zip(sums.chunks_exact_mut(n_panels)).enumerate() {
                let head = self.kv_head * self.shape.n_group_heads() + group / n_group_rows;
                let first = self.tokens.start + group % n_group_rows * N_ROWS;
                if block < first + N_ROWS && block + BLOCK_LEN > self.scores.first_key(first) {
                    let q = Head { x: self.q, n_heads: self.shape.n_heads, head, head_dim: self.shape.head_dim };
                    let n_rows = N_ROWS.min(self.tokens.end - first);
                    let rows = q.six_rows(self.first_token + first, n_rows, &zeros);
                    add_block(&self.scores, self.keys, block, first, rows, &mut p, running, sums);
                }
            }
        }
        for (group, (running, sums)) in running.iter().zip(sums.chunks_exact(n_panels)).enumerate() {
            let head = self.kv_head * self.shape.n_group_heads() + group / n_group_rows;
            self.write(head, group % n_group_rows * N_ROWS, running, sums);
        }
    }
}

/// Six rows of scores, then of probabilities: (rows, keys of a block).
type Block = [[f32; BLOCK_LEN]; N_ROWS];

/// Lets six rows see the keys of one block: those from `block` on, at most [`BLOCK_LEN`], and for row `r` none behind token `first + r` nor before its
/// window.
///
/// `p` is room for their probabilities.
#[expect(clippy::too_many_arguments, reason = "what six rows carry, what they read, and room")]
#[inline(always)]
fn add_block(
    scores: &Scores,
    keys: &Keys<'_>,
    block: usize,
    first: usize,
    q: [&[f32]; N_ROWS],
    p: &mut Block,
    running: &mut Running,
    sums: &mut [Tile],
) {
    let n_keys = (first + N_ROWS).min(keys.n_tokens).min(block + BLOCK_LEN) - block;
    fill_products(p, q, &keys.k[block / N_COLUMNS * q[0].len()..], n_keys);
    if scores.cap.is_some() {
        for p in p.iter_mut() {
            for p in &mut p[..n_keys] {
                *p = scores.capped(*p);
            }
        }
    }
    if first < block + n_keys.next_multiple_of(N_COLUMNS) {
        for (row, p) in p.iter_mut().enumerate() {
            p[(first + row + 1).saturating_sub(block).min(n_keys)..].fill(f32::NEG_INFINITY);
        }
    }
    if scores.first_key(first + N_ROWS - 1) > block {
        for (row, p) in p.iter_mut().enumerate() {
            p[..scores.first_key(first + row).saturating_sub(block).min(n_keys)].fill(f32::NEG_INFINITY);
        }
    }
    let keep = fill_probabilities(p, scores.softmax_scale(), n_keys.div_ceil(N_COLUMNS), running);
    for (panel, sums) in sums.iter_mut().enumerate() {
        for (sums, keep) in sums.iter_mut().zip(keep) {
            sums.iter_mut().for_each(|sum| *sum *= keep);
        }
        let [r0, r1, r2, r3, r4, r5]: [&[f32]; N_ROWS] = [&p[0], &p[1], &p[2], &p[3], &p[4], &p[5]];
        let (p, v) = (first_of([r0, r1, r2, r3, r4, r5], n_keys), &keys.v[panel * keys.n_tokens + block..][..n_keys]);
        if q[0].len() <= N_HALF {
            add_half_rows(sums, p, v);
        } else {
            add_rows(sums, p, v);
        }
    }
}

/// Products of six rows, 16 keys at a time; `k` are the token panels from the block's first key on.
#[inline(always)]
fn fill_products(products: &mut Block, q: [&[f32]; N_ROWS], k: &[Chunk], n_keys: usize) {
    for (panel, k) in k.chunks_exact(q[0].len()).take(n_keys.div_ceil(N_COLUMNS)).enumerate() {
        let mut tile = [[0.0; N_COLUMNS]; N_ROWS];
        add_rows(&mut tile, q, k);
        for (products, tile) in products.iter_mut().zip(tile) {
            products.as_chunks_mut().0[panel] = tile;
        }
    }
}

/// Turns scores into probabilities relative to the new maxima. Returns by how much what was summed before shrinks.
///
/// In passes over all rows, so that the rows' chains of dependent instructions overlap.
#[inline(always)]
fn fill_probabilities(p: &mut Block, scale: f32, n_panels: usize, running: &mut Running) -> PerRow {
    let mut max = running.max;
    for (p, max) in p.iter().zip(&mut max) {
        *max = larger(lanes::max(&p[..n_panels * N_COLUMNS]), *max);
    }
    let (mut keep, mut shift) = ([0.0; 8], [0.0; 8]);
    for row in 0..8 {
        // A row that has seen no key yet has nothing to keep, and its maximum of -infinity is no number to compute with.
        let finite = if max[row] == f32::NEG_INFINITY { 0.0 } else { max[row] };
        keep[row] = exp_of_nonpositive((running.max[row] - finite) * scale);
        shift[row] = -(finite * scale);
    }
    running.max = max;
    for (row, p) in p.iter_mut().enumerate() {
        let mut acc = [0.0; N_COLUMNS];
        for chunk in p.as_chunks_mut::<N_COLUMNS>().0.iter_mut().take(n_panels) {
            for lane in 0..N_COLUMNS {
                chunk[lane] = exp_of_nonpositive(chunk[lane].mul_add(scale, shift[row]));
                acc[lane] += chunk[lane];
            }
        }
        running.total[row] = running.total[row].mul_add(keep[row], tree_sum(acc));
    }
    keep
}

impl Task<'_> {
    /// Writes up to six rows of a head, from `first_row` of this task on.
    #[inline(always)]
    fn write(&mut self, head: usize, first_row: usize, running: &Running, sums: &[Tile]) {
        let Shape { n_heads, head_dim, .. } = self.shape;
        let n_rows = N_ROWS.min(self.tokens.len() - first_row);
        for row in 0..n_rows {
            let place = (first_row + row) * n_heads + head;
            let (max, total) = (running.max[row], running.total[row]);
            self.log_sum_exp[place] = max.mul_add(self.scores.softmax_scale(), ln(total));
            let factor = 1.0 / total;
            let (chunks, tail) = self.o[place * head_dim..][..head_dim].as_chunks_mut::<N_COLUMNS>();
            for (o, sums) in chunks.iter_mut().zip(sums) {
                // As a value: in place, it would be done number by number.
                let mut chunk = sums[row];
                chunk.iter_mut().for_each(|sum| *sum *= factor);
                *o = chunk;
            }
            for (o, sum) in tail.iter_mut().zip(&sums[sums.len() - 1][row]) {
                *o = sum * factor;
            }
        }
    }
}
