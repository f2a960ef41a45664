//! The plain versions: row by row, head by head, in the order of operations that defines the result's bits.

use super::{BLOCK_LEN, Scores, Shape};
use crate::lanes::reference::{dot, sum};
use crate::math::{exp_of_nonpositive, ln};
use std::ops::Range;

/// Sum of `a[i] * b[i]` as one chain of fused multiply-adds: what an element of a matrix product is.
fn chain(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0.0, |acc, (a, b)| a.mul_add(*b, acc))
}

/// `acc += factor * x`, by fused multiply-adds.
fn accumulate(acc: &mut [f32], factor: f32, x: &[f32]) {
    for (acc, x) in acc.iter_mut().zip(x) {
        *acc = factor.mul_add(*x, *acc);
    }
}

/// The channels of `head` at `token` in a (T, heads, D) slice.
fn at(token: usize, head: usize, n_heads: usize, d: usize) -> Range<usize> {
    let start = (token * n_heads + head) * d;
    start..start + d
}

/// The blocks of a document's tokens.
fn blocks(document: &Range<usize>) -> impl DoubleEndedIterator<Item = Range<usize>> + use<> {
    let document = document.clone();
    (0..document.len().div_ceil(BLOCK_LEN)).map(move |i| {
        let start = document.start + i * BLOCK_LEN;
        start..document.end.min(start + BLOCK_LEN)
    })
}

/// As [`super::forward`].
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
    let Shape { n_heads, n_kv_heads, head_dim: d, .. } = shape;
    let scale = scores.softmax_scale();
    for document in documents {
        for (query, head) in document.clone().flat_map(|query| (0..n_heads).map(move |head| (query, head))) {
            let kv_head = head / shape.n_group_heads();
            let q = &q[at(query, head, n_heads, d)];
            let o = &mut o[at(query, head, n_heads, d)];
            let (mut max, mut total) = (f32::NEG_INFINITY, 0.0_f32);
            o.fill(0.0);
            let first_key = document.start + scores.first_key(query - document.start);
            let seen = blocks(document).take_while(|block| block.start <= query).filter(|block| block.end > first_key);
            for block in seen {
                let keys = block.start..block.end.min(query + 1);
                let product = |key| chain(q, &k[at(key, kv_head, n_kv_heads, d)]);
                // What is hidden keeps its place: sums go by places.
                let score = |key| if key < first_key { f32::NEG_INFINITY } else { scores.capped(product(key)) };
                let mut p: Vec<f32> = keys.clone().map(score).collect();
                let new_max = p.iter().copied().fold(max, f32::max);
                let keep = exp_of_nonpositive((max - new_max) * scale);
                max = new_max;
                p.iter_mut().for_each(|p| *p = exp_of_nonpositive(p.mul_add(scale, -(max * scale))));
                total = total.mul_add(keep, sum(&p));
                o.iter_mut().for_each(|o| *o *= keep);
                for (key, p) in keys.zip(p) {
                    accumulate(o, p, &v[at(key, kv_head, n_kv_heads, d)]);
                }
            }
            o.iter_mut().for_each(|o| *o *= 1.0 / total);
            log_sum_exp[query * n_heads + head] = max.mul_add(scale, ln(total));
        }
    }
}

/// As [`super::backward`].
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
    let Shape { n_heads, n_kv_heads, head_dim: d, .. } = shape;
    dq.fill(0.0);
    for (document, head) in documents.iter().flat_map(|document| (0..n_heads).map(move |head| (document, head))) {
        let kv_head = head / shape.n_group_heads();
        // This head's share of dk and dv, from the document's start.
        let (mut dk_head, mut dv_head) = (vec![0.0; document.len() * d], vec![0.0; document.len() * d]);
        for query_block in blocks(document) {
            // The diagonal block first, then away from it.
            for key_block in blocks(document).rev().skip_while(|block| block.start > query_block.start) {
                for query in query_block.clone() {
                    let row = at(query, head, n_heads, d);
                    let delta = dot(&d_o[row.clone()], &o[row.clone()]);
                    let first_key = document.start + scores.first_key(query - document.start);
                    for key in key_block.start.max(first_key)..key_block.end.min(query + 1) {
                        let column = at(key, kv_head, n_kv_heads, d);
                        let product = chain(&q[row.clone()], &k[column.clone()]);
                        let (p, slope) = scores.probability_and_slope(product, log_sum_exp[query * n_heads + head]);
                        let dp = chain(&d_o[row.clone()], &v[column.clone()]);
                        let ds = p * (dp - delta) * slope;
                        let share = at(key - document.start, 0, 1, d);
                        accumulate(&mut dq[row.clone()], ds, &k[column]);
                        accumulate(&mut dk_head[share.clone()], ds, &q[row.clone()]);
                        accumulate(&mut dv_head[share], p, &d_o[row.clone()]);
                    }
                }
            }
        }
        for key in document.clone() {
            let (column, share) = (at(key, kv_head, n_kv_heads, d), at(key - document.start, 0, 1, d));
            if head % shape.n_group_heads() == 0 {
                dk[column.clone()].copy_from_slice(&dk_head[share.clone()]);
                dv[column].copy_from_slice(&dv_head[share]);
            } else {
                dk[column.clone()].iter_mut().zip(&dk_head[share.clone()]).for_each(|(dk, share)| *dk += share);
                dv[column].iter_mut().zip(&dv_head[share]).for_each(|(dv, share)| *dv += share);
            }
        }
    }
}
