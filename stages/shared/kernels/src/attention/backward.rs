//! The backward: a task is a block of queries against a block of keys, for one head.
//!
//! Such a task adds to the gradients of its queries and of its keys, so tasks that share a block must not run at once, and must add in a
//! fixed order. They run in waves; wave `w` pairs every key block with the query block `w` further on:
//!
//! ```text
//!           key block
//!           0 1 2 3
//!         0 0 . . .      the number is the wave: in one wave,
//! query   1 1 0 . .      no row and no column appears twice,
//! block   2 2 1 0 .      and all heads and documents run side by side
//!         3 3 2 1 0
//! ```
//!
//! Scores and probabilities are computed once per pair. Query heads that share a key head have their own sums for dk and dv, which
//! are joined at the end in the order of the heads.

use super::pack::{Head, cut_blocks, n_channel_panels};
use super::tile::{Chunk, N_COLUMNS, N_ROWS, Tile, add_columns, add_rows};
use super::{BLOCK_LEN, Shape, check_len};
use crate::dispatch::{self, Body};
use crate::lanes;
use crate::math::exp_of_nonpositive;
use rayon::prelude::*;
use std::ops::Range;

/// The gradients of q, k and v; `dq`, `dk`, `dv` are overwritten.
///
/// - documents, scale, q, k, v: as in the forward; o, log_sum_exp: as the forward left them
/// - d_o, dq: (T, H, D); dk, dv: (T, H_kv, D)
///
/// With `p = exp_of_nonpositive(scale s - log_sum_exp)`, `s = q k^T`, and `delta` = the sum of `d_o * o` over a row:
///
/// ```text
/// dv = p^T d_o
/// ds = scale p (d_o v^T - delta)      delta is what the softmax's denominator contributes
/// dq = ds k
/// dk = ds^T q
/// ```
///
/// The same bits as [`super::reference::backward`].
#[expect(clippy::too_many_arguments, reason = "an attention has this many tensors")]
pub fn backward(
    shape: Shape,
    documents: &[Range<usize>],
    scale: f32,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    o: &[f32],
    log_sum_exp: &[f32],
    d_o: &[f32],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    shape.check(documents, scale);
    for (name, x) in [("q", q), ("o", o), ("d_o", d_o), ("dq", &*dq)] {
        check_len(name, x, shape.n_query_elements());
    }
    for (name, x) in [("k", k), ("v", v), ("dk", &*dk), ("dv", &*dv)] {
        check_len(name, x, shape.n_key_elements());
    }
    check_len("log_sum_exp", log_sum_exp, shape.n_tokens * shape.n_heads);
    let delta: Vec<f32> = (d_o.par_chunks(shape.head_dim), o.par_chunks(shape.head_dim))
        .into_par_iter()
        .with_min_len(dispatch::rows_per_task(shape.head_dim))
        .map(|(d_o, o)| dispatch::run(Dot(d_o, o)))
        .collect();
    let keys: Vec<Keys> = (0..documents.len() * shape.n_kv_heads)
        .into_par_iter()
        .map(|i| Keys::new(shape, &documents[i / shape.n_kv_heads], k, v, i % shape.n_kv_heads))
        .collect();
    let inputs = Inputs { shape, scale, q, d_o, log_sum_exp, delta: &delta };
    let gradients = gradients(&inputs, documents, &keys);
    write_queries(shape, documents, &gradients, dq);
    write_keys(shape, documents, &gradients, |head| &head.dk, dk);
    write_keys(shape, documents, &gradients, |head| &head.dv, dv);
}

struct Dot<'a>(&'a [f32], &'a [f32]);

impl Body for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        lanes::dot(self.0, self.1)
    }
}

/// What all tasks read.
struct Inputs<'a> {
    shape: Shape,
    scale: f32,
    q: &'a [f32],
    d_o: &'a [f32],
    log_sum_exp: &'a [f32],
    /// (T, H): sums of `d_o * o`.
    delta: &'a [f32],
}

/// Keys and values of one head and document.
struct Keys {
    n_tokens: usize,
    k_by_token: Vec<Chunk>,
    v_by_token: Vec<Chunk>,
    k_by_channel: Vec<Chunk>,
}

impl Keys {
    fn new(shape: Shape, document: &Range<usize>, k: &[f32], v: &[f32], head: usize) -> Self {
        let head_of = |x| Head { x, n_heads: shape.n_kv_heads, head, head_dim: shape.head_dim };
        Self {
            n_tokens: document.len(),
            k_by_token: head_of(k).token_panels(document.clone()),
            v_by_token: head_of(v).token_panels(document.clone()),
            k_by_channel: head_of(k).channel_panels(document.clone()),
        }
    }
}

/// Sums of one block: for each 6 tokens, a tile per 16 channels.
type BlockSums = Vec<Tile>;

/// The gradients of one query head in one document, by block.
struct HeadSums {
    dq: Vec<BlockSums>,
    dk: Vec<BlockSums>,
    dv: Vec<BlockSums>,
}

impl HeadSums {
    fn zeros(n_tokens: usize, head_dim: usize) -> Self {
        let zeros = || {
            let block = |start| {
                let n_tokens = BLOCK_LEN.min(n_tokens - start);
                vec![[[0.0; N_COLUMNS]; N_ROWS]; n_tokens.div_ceil(N_ROWS) * n_channel_panels(head_dim)]
            };
            (0..n_tokens).step_by(BLOCK_LEN).map(block).collect()
        };
        Self { dq: zeros(), dk: zeros(), dv: zeros() }
    }
}

/// Runs the waves. The sums of document `i` and head `h` are at `i * H + h`.
fn gradients(inputs: &Inputs<'_>, documents: &[Range<usize>], keys: &[Keys]) -> Vec<HeadSums> {
    let Shape { n_heads, n_kv_heads, head_dim, .. } = inputs.shape;
    let mut sums: Vec<HeadSums> = (0..documents.len() * n_heads)
        .into_par_iter()
        .map(|i| HeadSums::zeros(documents[i / n_heads].len(), head_dim))
        .collect();
    let n_waves = documents.iter().map(|document| document.len().div_ceil(BLOCK_LEN)).max().unwrap_or(0);
    for wave in 0..n_waves {
        let mut tasks = Vec::new();
        for (i, sums) in sums.iter_mut().enumerate() {
            let (document_idx, head) = (i / n_heads, i % n_heads);
            let keys = &keys[document_idx * n_kv_heads + head / inputs.shape.n_group_heads()];
            let first_token = documents[document_idx].start;
            let pairs = sums.dq.iter_mut().skip(wave).zip(sums.dk.iter_mut().zip(&mut sums.dv));
            for (key_block, (dq, (dk, dv))) in pairs.enumerate() {
                tasks.push(Task { inputs, keys, head, first_token, wave, key_block, dq, dk, dv });
            }
        }
        let new_scratch = || Scratch::new(head_dim);
        tasks.into_par_iter().for_each_init(new_scratch, |scratch, task| dispatch::run((task, scratch)));
    }
    sums
}

/// A block of queries against a block of keys, for one query head.
struct Task<'a> {
    inputs: &'a Inputs<'a>,
    keys: &'a Keys,
    head: usize,
    /// Where the document starts in the pack.
    first_token: usize,
    /// How many blocks the queries are behind the keys; 0 on the diagonal.
    wave: usize,
    key_block: usize,
    dq: &'a mut BlockSums,
    dk: &'a mut BlockSums,
    dv: &'a mut BlockSums,
}

/// What a task computes on the way.
struct Scratch {
    /// (queries, keys): probabilities, and the gradient of the scores.
    p: Vec<[f32; BLOCK_LEN]>,
    ds: Vec<[f32; BLOCK_LEN]>,
    /// Channel panels of the block's queries.
    q: Vec<Chunk>,
    d_o: Vec<Chunk>,
    zeros: Vec<f32>,
}

impl Scratch {
    fn new(head_dim: usize) -> Self {
        let n_chunks = n_channel_panels(head_dim) * BLOCK_LEN;
        Self {
            p: vec![[0.0; BLOCK_LEN]; BLOCK_LEN],
            ds: vec![[0.0; BLOCK_LEN]; BLOCK_LEN],
            q: vec![[0.0; N_COLUMNS]; n_chunks],
            d_o: vec![[0.0; N_COLUMNS]; n_chunks],
            zeros: vec![0.0; head_dim],
        }
    }
}

impl Body for (Task<'_>, &mut Scratch) {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (task, scratch) = self;
        let n_panels = n_channel_panels(task.inputs.shape.head_dim);
        let (queries, keys) = (task.queries(), task.keys());
        let (q, d_o) = (task.head_of(task.inputs.q), task.head_of(task.inputs.d_o));
        let in_pack = task.first_token + queries.start..task.first_token + queries.end;
        q.fill_channel_panels(in_pack.clone(), &mut scratch.q);
        d_o.fill_channel_panels(in_pack, &mut scratch.d_o);
        for group in 0..queries.len().div_ceil(N_ROWS) {
            let first = group * N_ROWS;
            let n_keys = if task.wave == 0 { keys.len().min(first + N_ROWS) } else { keys.len() };
            task.score_gradients(scratch, first, n_keys);
            let rows: [&[f32]; N_ROWS] = std::array::from_fn(|row| &scratch.ds[first + row][..n_keys]);
            for (panel, dq) in task.dq[group * n_panels..][..n_panels].iter_mut().enumerate() {
                add_rows(dq, rows, &task.keys.k_by_channel[panel * task.keys.n_tokens + keys.start..][..n_keys]);
            }
        }
        for group in 0..keys.len().div_ceil(N_ROWS) {
            let first = group * N_ROWS;
            // On the diagonal, earlier queries do not see these keys.
            let seen_by = if task.wave == 0 { first..queries.len() } else { 0..queries.len() };
            let (p, ds) = (&scratch.p[seen_by.clone()], &scratch.ds[seen_by.clone()]);
            for panel in 0..n_panels {
                let rows = panel * queries.len() + seen_by.start..panel * queries.len() + seen_by.end;
                add_columns(&mut task.dv[group * n_panels + panel], p, first, &scratch.d_o[rows.clone()]);
                add_columns(&mut task.dk[group * n_panels + panel], ds, first, &scratch.q[rows]);
            }
        }
    }
}

impl<'a> Task<'a> {
    /// The block's keys, counted from the document's start.
    #[inline(always)]
    fn keys(&self) -> Range<usize> {
        let start = self.key_block * BLOCK_LEN;
        start..self.keys.n_tokens.min(start + BLOCK_LEN)
    }

    /// The block's queries, counted from the document's start.
    #[inline(always)]
    fn queries(&self) -> Range<usize> {
        let start = (self.key_block + self.wave) * BLOCK_LEN;
        start..self.keys.n_tokens.min(start + BLOCK_LEN)
    }

    #[inline(always)]
    fn head_of(&self, x: &'a [f32]) -> Head<'a> {
        let Shape { n_heads, head_dim, .. } = self.inputs.shape;
        Head { x, n_heads, head: self.head, head_dim }
    }

    /// Fills p and ds for six queries, from row `first` of the block on, and the block's first `n_keys` keys.
    #[inline(always)]
    fn score_gradients(&self, scratch: &mut Scratch, first: usize, n_keys: usize) {
        let Shape { n_heads, head_dim, .. } = self.inputs.shape;
        let queries = self.queries();
        let n_rows = N_ROWS.min(queries.len() - first);
        let first_in_pack = self.first_token + queries.start + first;
        let q = self.head_of(self.inputs.q).six_rows(first_in_pack, n_rows, &scratch.zeros);
        let d_o = self.head_of(self.inputs.d_o).six_rows(first_in_pack, n_rows, &scratch.zeros);
        let (mut log_sum_exp, mut delta) = ([0.0; N_ROWS], [0.0; N_ROWS]);
        for row in 0..n_rows {
            let place = (first_in_pack + row) * n_heads + self.head;
            (log_sum_exp[row], delta[row]) = (self.inputs.log_sum_exp[place], self.inputs.delta[place]);
        }
        let first_panel = self.keys().start / N_COLUMNS;
        for panel in 0..n_keys.div_ceil(N_COLUMNS) {
            let chunks = (first_panel + panel) * head_dim..(first_panel + panel + 1) * head_dim;
            let (mut p, mut ds) = ([[0.0; N_COLUMNS]; N_ROWS], [[0.0; N_COLUMNS]; N_ROWS]);
            add_rows(&mut p, q, &self.keys.k_by_token[chunks.clone()]);
            add_rows(&mut ds, d_o, &self.keys.v_by_token[chunks]);
            for row in 0..N_ROWS {
                for column in 0..N_COLUMNS {
                    p[row][column] = exp_of_nonpositive(p[row][column].mul_add(self.inputs.scale, -log_sum_exp[row]));
                    ds[row][column] = p[row][column] * (ds[row][column] - delta[row]) * self.inputs.scale;
                }
                if self.wave == 0 {
                    // Key `panel * 16 + column` is hidden from row `first + row` where it is larger.
                    let n_seen = (first + row + 1).saturating_sub(panel * N_COLUMNS).min(N_COLUMNS);
                    p[row][n_seen..].fill(0.0);
                    ds[row][n_seen..].fill(0.0);
                }
                let columns = panel * N_COLUMNS..(panel + 1) * N_COLUMNS;
                scratch.p[first + row][columns.clone()].copy_from_slice(&p[row]);
                scratch.ds[first + row][columns].copy_from_slice(&ds[row]);
            }
        }
    }
}

/// Writes the sums of dq into (T, H, D).
fn write_queries(shape: Shape, documents: &[Range<usize>], sums: &[HeadSums], dq: &mut [f32]) {
    let Shape { n_heads, head_dim, .. } = shape;
    let blocks = cut_blocks(dq, documents, BLOCK_LEN, n_heads * head_dim);
    blocks.into_par_iter().for_each(|(document_idx, tokens, dq)| {
        for (i, dq) in dq.chunks_exact_mut(head_dim).enumerate() {
            let (row, head) = (i / n_heads, i % n_heads);
            let block = &sums[document_idx * n_heads + head].dq[tokens.start / BLOCK_LEN];
            for (dq, sums) in dq.chunks_mut(N_COLUMNS).zip(row_sums(block, row, head_dim)) {
                dq.copy_from_slice(&sums[..dq.len()]);
            }
        }
    });
}

/// Joins the sums of the query heads of each key head and writes them into (T, H_kv, D).
fn write_keys(
    shape: Shape,
    documents: &[Range<usize>],
    sums: &[HeadSums],
    blocks_of: impl Fn(&HeadSums) -> &Vec<BlockSums> + Sync,
    gradient: &mut [f32],
) {
    let Shape { n_heads, n_kv_heads, head_dim, .. } = shape;
    let blocks = cut_blocks(gradient, documents, BLOCK_LEN, n_kv_heads * head_dim);
    blocks.into_par_iter().for_each(|(document_idx, tokens, gradient)| {
        for (i, gradient) in gradient.chunks_exact_mut(head_dim).enumerate() {
            let (row, kv_head) = (i / n_kv_heads, i % n_kv_heads);
            gradient.fill(0.0);
            for head in (0..shape.n_group_heads()).map(|i| kv_head * shape.n_group_heads() + i) {
                let block = &blocks_of(&sums[document_idx * n_heads + head])[tokens.start / BLOCK_LEN];
                for (gradient, sums) in gradient.chunks_mut(N_COLUMNS).zip(row_sums(block, row, head_dim)) {
                    gradient.iter_mut().zip(sums).for_each(|(gradient, sum)| *gradient += sum);
                }
            }
        }
    });
}

/// The chunks of one token of a block.
fn row_sums(block: &BlockSums, row: usize, head_dim: usize) -> impl Iterator<Item = &Chunk> {
    let n_panels = n_channel_panels(head_dim);
    block[row / N_ROWS * n_panels..][..n_panels].iter().map(move |tile| &tile[row % N_ROWS])
}
