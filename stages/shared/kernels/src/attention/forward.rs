//! The forward.

use super::{Shape, check_len, reference};
use std::ops::Range;

/// `o = softmax(scale q k^T) v` for every query head, causal inside documents.
///
/// - documents: ranges that follow each other and cover `0..T`
/// - scale: positive, usually `1 / sqrt(D)`
/// - q, o: (T, H, D); k, v: (T, H_kv, D)
/// - log_sum_exp: (T, H), `ln(sum(exp(scale q k)))` over the keys of a row, for the backward
#[expect(clippy::too_many_arguments, reason = "an attention has this many tensors")]
pub fn forward(
    shape: Shape,
    documents: &[Range<usize>],
    scale: f32,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    o: &mut [f32],
    log_sum_exp: &mut [f32],
) {
    shape.check(documents, scale);
    check_len("q", q, shape.n_query_elements());
    check_len("k", k, shape.n_key_elements());
    check_len("v", v, shape.n_key_elements());
    check_len("o", o, shape.n_query_elements());
    check_len("log_sum_exp", log_sum_exp, shape.n_tokens * shape.n_heads);
    reference::forward(shape, documents, scale, q, k, v, o, log_sum_exp);
}
