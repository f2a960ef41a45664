//! New tokens of one document against all of its keys: what decoding with a cache needs. Forward only.

use super::{BLOCK_LEN, Scores, Shape, check_len};
use crate::dispatch::{self, Body};
use crate::lanes::{self, LANES};
use crate::math::exp_of_nonpositive;
use rayon::prelude::*;

/// `o = softmax(scale q k^T) v` for the last tokens of a document, causal.
///
/// - shape: `n_tokens` counts the new tokens; scores: as in the forward
/// - q, o: (N, H, D) of the N new tokens; k, v: (T, H_kv, D) of all T tokens of the document, the new ones last; finite. Whole blocks of
///   [`BLOCK_LEN`] tokens that no new token sees may be missing from the front
///
/// A row has the same bits as [`super::forward`] gives it when it sees the whole document.
pub fn extend(shape: Shape, scores: Scores, q: &[f32], k: &[f32], v: &[f32], o: &mut [f32]) {
    let Shape { n_tokens, n_heads, n_kv_heads, head_dim } = shape;
    shape.check(std::slice::from_ref(&(0..n_tokens)), &scores);
    check_len("q", q, shape.n_query_elements());
    check_len("o", o, shape.n_query_elements());
    let width = n_kv_heads * head_dim;
    assert!(k.len().is_multiple_of(width) && k.len() / width >= n_tokens, "attention: k is not (T, H_kv, D)");
    check_len("v", v, k.len());
    let n_past = k.len() / width - n_tokens;
    let rows = q.par_chunks(head_dim).zip(o.par_chunks_mut(head_dim)).enumerate();
    rows.for_each(|(row, (q, o))| {
        let (token, head) = (row / n_heads, row % n_heads);
        let kv_head = head / shape.n_group_heads();
        let query = n_past + token;
        dispatch::run(Row { scores, q, k, v, width, first: kv_head * head_dim, query, o });
    });
}

/// One query row of one head.
struct Row<'a> {
    scores: Scores,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    /// Elements from a token's key to the next.
    width: usize,
    /// Where the head's channels begin.
    first: usize,
    /// The token, counted from the first key.
    query: usize,
    o: &'a mut [f32],
}

impl Body for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (d, scale) = (self.q.len(), self.scores.softmax_scale());
        let (first_key, n_keys) = (self.scores.first_key(self.query), self.query + 1);
        let (mut max, mut total) = (f32::NEG_INFINITY, 0.0_f32);
        let mut p = [0.0_f32; BLOCK_LEN];
        self.o.fill(0.0);
        for block in (first_key / BLOCK_LEN * BLOCK_LEN..n_keys).step_by(BLOCK_LEN) {
            let n_block = BLOCK_LEN.min(n_keys - block);
            let p = &mut p[..n_block];
            for (panel, p) in p.chunks_mut(LANES).enumerate() {
                products(self.q, &self.k[(block + panel * LANES) * self.width + self.first..], self.width, p);
            }
            if self.scores.cap.is_some() {
                p.iter_mut().for_each(|p| *p = self.scores.capped(*p));
            }
            p[..first_key.saturating_sub(block)].fill(f32::NEG_INFINITY);
            let new_max = p.iter().copied().fold(max, f32::max);
            let keep = exp_of_nonpositive((max - new_max) * scale);
            max = new_max;
            p.iter_mut().for_each(|p| *p = exp_of_nonpositive(p.mul_add(scale, -(max * scale))));
            total = total.mul_add(keep, lanes::sum(p));
            self.o.iter_mut().for_each(|o| *o *= keep);
            for (key, p) in p.iter().enumerate() {
                let v = &self.v[(block + key) * self.width + self.first..][..d];
                self.o.iter_mut().zip(v).for_each(|(o, v)| *o = p.mul_add(*v, *o));
            }
        }
        self.o.iter_mut().for_each(|o| *o *= 1.0 / total);
    }
}

/// Products of q with up to 16 keys: each a chain of fused multiply-adds of its own, side by side.
#[inline(always)]
fn products(q: &[f32], k: &[f32], width: usize, products: &mut [f32]) {
    let mut sums = [0.0_f32; LANES];
    for (channel, q) in q.iter().enumerate() {
        for (key, sum) in sums[..products.len()].iter_mut().enumerate() {
            *sum = q.mul_add(k[key * width + channel], *sum);
        }
    }
    products.copy_from_slice(&sums[..products.len()]);
}
