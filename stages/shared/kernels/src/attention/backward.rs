//! The backward.

use super::{Shape, check_len, reference};
use std::ops::Range;

/// The gradients of q, k and v; `dq`, `dk`, `dv` are overwritten.
///
/// - documents, scale, q, k, v: as in the forward; o, log_sum_exp: as the forward left them
/// - d_o, dq: (T, H, D); dk, dv: (T, H_kv, D)
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
    reference::backward(shape, documents, scale, q, k, v, o, log_sum_exp, d_o, dq, dk, dv);
}
