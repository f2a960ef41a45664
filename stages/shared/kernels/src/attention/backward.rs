//! The backward: a block of queries against a block of keys, for one head, over and over.
//!
//! Such a pair adds to the gradients of its queries and of its keys. Those sums are added up in one order: for a query, its own block of keys
//! first and then the earlier ones; for a key, its own block of queries first and then the later ones. Query heads that share a key head have
//! their own sums for dk and dv, which are joined at the end in the order of the heads. Two ways keep that order:
//!
//! - [`documents`]: a task is a document and a key head, all pairs one after another, while they are in the cache. For many documents.
//! - [`waves`]: a task is a pair. For few documents and many threads.
//!
//! Scores and probabilities are computed once per pair, which is in [`pair`].

use super::pack::{Head, Rows, n_channel_panels, n_token_chunks};
use super::room::Rest;
use super::{Scores, Shape, check_len};
use crate::dispatch::{self, Body};
use crate::lanes;
use crate::tile::{Chunk, N_COLUMNS, N_ROWS, Tile};
use rayon::prelude::*;
use std::ops::Range;

mod documents;
mod pair;
mod waves;

/// Tasks of a thread that are enough for a balance. Never changes a result.
const N_TASKS_PER_THREAD: usize = 4;

/// The gradients of q, k and v; `dq`, `dk`, `dv` are overwritten.
///
/// - documents, scores, q, k, v: as in the forward; o, log_sum_exp: as the forward left them
/// - d_o, dq: (T, H, D); dk, dv: (T, H_kv, D)
///
/// With `s = q k^T`, `p = exp_of_nonpositive(score - log_sum_exp)` and `delta` = the sum of `d_o * o` over a row:
///
/// ```text
/// dv = p^T d_o
/// ds = slope p (d_o v^T - delta)      delta is what the softmax's denominator contributes; slope is d score / d s, the scale where nothing is capped
/// dq = ds k
/// dk = ds^T q
/// ```
///
/// The same bits as [`super::reference::backward`].
#[expect(clippy::too_many_arguments, reason = "an attention has this many tensors")]
pub fn backward(
    shape: Shape,
    documents: &[Range<usize>],
    scores: Scores,
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
    shape.check(documents, &scores);
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
    let inputs = Inputs { shape, documents, scores, q, k, v, d_o, log_sum_exp, delta: &delta };
    let outputs = Outputs::new(&inputs, dq, dk, dv);
    if has_many_documents(shape, documents) {
        documents::run(&inputs, outputs);
    } else {
        waves::run(&inputs, outputs);
    }
}

/// Whether a document and key head is a task.
fn has_many_documents(shape: Shape, documents: &[Range<usize>]) -> bool {
    documents.len() * shape.n_kv_heads >= N_TASKS_PER_THREAD * rayon::current_num_threads()
}

/// Chunks that a call needs room for, in each of so many pieces.
pub(super) fn n_chunks(shape: Shape, documents: &[Range<usize>]) -> (usize, usize) {
    if has_many_documents(shape, documents) {
        let n_tasks = documents.len() * shape.n_kv_heads;
        (documents::n_chunks(shape, documents), rayon::current_num_threads().min(n_tasks))
    } else {
        (waves::n_chunks(shape, documents), 1)
    }
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
#[derive(Clone, Copy)]
struct Inputs<'a> {
    shape: Shape,
    documents: &'a [Range<usize>],
    scores: Scores,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    d_o: &'a [f32],
    log_sum_exp: &'a [f32],
    /// (T, H): sums of `d_o * o`.
    delta: &'a [f32],
}

/// Rows of the gradients. Those of a head in a document are at `document_idx * heads + head`.
struct Outputs<'a> {
    dq: Vec<Rows<'a>>,
    dk: Vec<Rows<'a>>,
    dv: Vec<Rows<'a>>,
}

impl<'a> Outputs<'a> {
    fn new(inputs: &Inputs<'_>, dq: &'a mut [f32], dk: &'a mut [f32], dv: &'a mut [f32]) -> Self {
        let Inputs { shape: Shape { n_heads, n_kv_heads, head_dim, .. }, documents, .. } = *inputs;
        let rows = |x, n_heads| super::pack::rows_by_head(x, documents, n_heads, head_dim);
        Self { dq: rows(dq, n_heads), dk: rows(dk, n_kv_heads), dv: rows(dv, n_kv_heads) }
    }
}

/// Keys and values of one head and document, laid out for the tiles.
struct Keys<'a> {
    k_by_token: &'a mut [Chunk],
    v_by_token: &'a mut [Chunk],
    k_by_channel: &'a mut [Chunk],
}

impl<'a> Keys<'a> {
    fn n_chunks(n_tokens: usize, head_dim: usize) -> usize {
        2 * n_token_chunks(n_tokens, head_dim) + n_tokens * n_channel_panels(head_dim)
    }

    fn new(rest: &mut Rest<'a>, n_tokens: usize, head_dim: usize) -> Self {
        Self {
            k_by_token: rest.chunks(n_token_chunks(n_tokens, head_dim)),
            v_by_token: rest.chunks(n_token_chunks(n_tokens, head_dim)),
            k_by_channel: rest.chunks(n_tokens * n_channel_panels(head_dim)),
        }
    }

    /// Takes in a key head of a document.
    fn fill(&mut self, inputs: &Inputs<'_>, head: usize, tokens: &Range<usize>) {
        dispatch::run(FillKeys(inputs, head, tokens, self));
    }
}

struct FillKeys<'a, 'b>(&'a Inputs<'a>, usize, &'a Range<usize>, &'a mut Keys<'b>);

impl Body for FillKeys<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self(inputs, head, tokens, keys) = self;
        let Shape { n_kv_heads, head_dim, .. } = inputs.shape;
        let (k, v) = (
            Head { x: inputs.k, n_heads: n_kv_heads, head, head_dim },
            Head { x: inputs.v, n_heads: n_kv_heads, head, head_dim },
        );
        k.fill_token_panels(tokens.clone(), keys.k_by_token);
        v.fill_token_panels(tokens.clone(), keys.v_by_token);
        k.fill_channel_panels(tokens.clone(), tokens.len(), keys.k_by_channel);
    }
}

/// One query head in one document: its channel panels, with rows up to a multiple of six, and its sums. For each six tokens, the sums have
/// a tile per 16 channels.
struct QueryHead<'a> {
    q: &'a mut [Chunk],
    d_o: &'a mut [Chunk],
    dq: &'a mut [Tile],
    dk: &'a mut [Tile],
    dv: &'a mut [Tile],
}

impl<'a> QueryHead<'a> {
    fn n_chunks(n_tokens: usize, head_dim: usize) -> usize {
        5 * n_tokens.next_multiple_of(N_ROWS) * n_channel_panels(head_dim)
    }

    fn new(rest: &mut Rest<'a>, n_tokens: usize, head_dim: usize) -> Self {
        let n_tiles = n_tokens.div_ceil(N_ROWS) * n_channel_panels(head_dim);
        let mut panels = || rest.chunks(n_tiles * N_ROWS);
        let (q, d_o) = (panels(), panels());
        let mut sums = || rest.tiles(n_tiles);
        Self { q, d_o, dq: sums(), dk: sums(), dv: sums() }
    }

    /// Takes in a query head of a document.
    fn fill(&mut self, inputs: &Inputs<'_>, head: usize, tokens: &Range<usize>) {
        dispatch::run(FillQueries(inputs, head, tokens, self));
    }
}

struct FillQueries<'a, 'b>(&'a Inputs<'a>, usize, &'a Range<usize>, &'a mut QueryHead<'b>);

impl Body for FillQueries<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self(inputs, head, tokens, panels) = self;
        let Shape { n_heads, head_dim, .. } = inputs.shape;
        let n_rows = tokens.len().next_multiple_of(N_ROWS);
        let (q, d_o) = (Head { x: inputs.q, n_heads, head, head_dim }, Head { x: inputs.d_o, n_heads, head, head_dim });
        q.fill_channel_panels(tokens.clone(), n_rows, panels.q);
        d_o.fill_channel_panels(tokens.clone(), n_rows, panels.d_o);
    }
}

/// Writes the sums of a head into its rows.
fn write(sums: &[Tile], rows: &mut Rows<'_>) {
    dispatch::run(Write::<false>(sums, rows));
}

/// Adds the sums of a head to those of the heads before it.
fn add(sums: &[Tile], rows: &mut Rows<'_>) {
    dispatch::run(Write::<true>(sums, rows));
}

struct Write<'a, 'b, const ADD: bool>(&'a [Tile], &'a mut Rows<'b>);

impl<const ADD: bool> Body for Write<'_, '_, ADD> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self(sums, rows) = self;
        let n_panels = n_channel_panels(rows[0].len());
        for (tiles, rows) in sums.chunks_exact(n_panels).zip(rows.chunks_mut(N_ROWS)) {
            for (row, out) in rows.iter_mut().enumerate() {
                let (chunks, tail) = out.as_chunks_mut::<N_COLUMNS>();
                for (tile, out) in tiles.iter().zip(chunks) {
                    *out = if ADD { sum(out, &tile[row]) } else { tile[row] };
                }
                for (out, sum) in tail.iter_mut().zip(&tiles[n_panels - 1][row]) {
                    *out = if ADD { *out + sum } else { *sum };
                }
            }
        }
    }
}

/// The sums of two chunks, as a value: written in place, they would be added one by one.
#[inline(always)]
fn sum(a: &Chunk, b: &Chunk) -> Chunk {
    let mut sum = *a;
    for column in 0..N_COLUMNS {
        sum[column] += b[column];
    }
    sum
}
