//! Causal attention inside documents: `o = softmax(scores(q k^T) + mask) v`.
//!
//! [`Scores`] scale a product, may cap it (`cap tanh(s / cap)`), and may have a window that hides all but the last tokens.
//!
//! ```text
//! two documents, 3 + 2 tokens      x . . . .
//! (x = attends)                    x x . . .
//!                                  x x x . .
//!                                  . . . x .
//!                                  . . . x x
//! ```
//!
//! Query head h uses key and value head `h / (H / H_kv)`. The forward keeps the log-sum-exp of each row, from which the
//! backward makes the probabilities again (FlashAttention-2, arXiv 2307.08691, algorithm 2).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{D, Device, Result, Tensor};
use pipe_kernels::attention as kernel;

use super::{cpu_slice, from_cpu, is_fast, softcap};
use crate::config::Scores;

/// Heads and their width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// H.
    pub n_heads: usize,
    /// H_kv, divides H.
    pub n_kv_heads: usize,
    /// D.
    pub head_dim: usize,
}

impl Heads {
    fn shape(self, n_tokens: usize) -> kernel::Shape {
        kernel::Shape { n_tokens, n_heads: self.n_heads, n_kv_heads: self.n_kv_heads, head_dim: self.head_dim }
    }
}

impl Scores {
    /// As the kernels take them.
    pub(crate) fn kernel(self) -> kernel::Scores {
        kernel::Scores { scale: self.scale as f32, cap: self.cap.map(|cap| cap as f32), window: self.window }
    }
}

/// The documents of a sequence. Where attention is done in tensor operations, their masks go to the device once.
pub struct Documents<'a> {
    ranges: &'a [Range<usize>],
    /// By window; the largest number stands for none.
    masks: RefCell<BTreeMap<usize, Tensor>>,
}

impl<'a> Documents<'a> {
    /// `ranges`: as in [`crate::Sequence`], in order, covering 0..T.
    pub fn new(ranges: &'a [Range<usize>]) -> Self {
        Documents { ranges, masks: RefCell::default() }
    }

    /// (T, T): 0 where a row attends, else minus infinity; in the dtype and on the device of the first scores it was for.
    fn mask(&self, window: Option<usize>, like: &Tensor) -> Result<Tensor> {
        let window = window.unwrap_or(usize::MAX);
        if let Some(mask) = self.masks.borrow().get(&window) {
            return Ok(mask.clone());
        }
        let n_tokens = self.ranges.last().map_or(0, |document| document.end);
        let mut mask = vec![f32::NEG_INFINITY; n_tokens * n_tokens];
        for document in self.ranges {
            for row in document.clone() {
                let first = document.start.max((row + 1).saturating_sub(window));
                mask[row * n_tokens + first..=row * n_tokens + row].fill(0.0);
            }
        }
        let mask = Tensor::from_vec(mask, (n_tokens, n_tokens), &Device::Cpu)?;
        let mask = mask.to_dtype(like.dtype())?.to_device(like.device())?;
        self.masks.borrow_mut().insert(window, mask.clone());
        Ok(mask)
    }
}

/// q: (T, H D), k, v: (T, H_kv D). Returns o (T, H D) and the log-sum-exp of each row, in the layout its backward takes.
pub fn forward(
    heads: Heads,
    scores: Scores,
    documents: &Documents<'_>,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
) -> Result<(Tensor, Tensor)> {
    if !is_fast(q) {
        return plain(heads, scores, documents, q, k, v);
    }
    let (n_tokens, width) = q.dims2()?;
    let (mut o, mut log_sum_exp) = (vec![0.0; n_tokens * width], vec![0.0; n_tokens * heads.n_heads]);
    let (q, k, v) = (cpu_slice(q)?, cpu_slice(k)?, cpu_slice(v)?);
    kernel::forward(heads.shape(n_tokens), documents.ranges, scores.kernel(), &q, &k, &v, &mut o, &mut log_sum_exp);
    Ok((from_cpu(o, &[n_tokens, width])?, from_cpu(log_sum_exp, &[n_tokens * heads.n_heads])?))
}

/// [`forward`] in tensor operations; (H, T, T) scores are made, and the log-sum-exp is (H, T, 1).
pub fn plain(
    heads: Heads,
    scores: Scores,
    documents: &Documents<'_>,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let scores = masked(scores, documents, &bent(scores, &products(heads, scores, q, k)?)?)?;
    let largest = scores.max_keepdim(D::Minus1)?.detach();
    let sum = scores.broadcast_sub(&largest)?.exp()?.sum_keepdim(D::Minus1)?;
    let log_sum_exp = (sum.log()? + largest)?;
    let p = scores.broadcast_sub(&log_sum_exp)?.exp()?;
    Ok((join(&p.matmul(&split(v, heads.n_kv_heads, heads)?)?)?, log_sum_exp))
}

/// The last tokens of a document against all of it: q: (N, H D); k, v: (T, H_kv D), T at least N. Returns o (N, H D). Whole blocks of
/// `pipe_kernels::attention::BLOCK_LEN` tokens that a window hides may be missing from the front of k and v.
pub fn extend(heads: Heads, scores: Scores, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    if !is_fast(q) {
        return plain_extend(heads, scores, q, k, v);
    }
    let (n_tokens, width) = q.dims2()?;
    let mut o = vec![0.0; n_tokens * width];
    let (q, k, v) = (cpu_slice(q)?, cpu_slice(k)?, cpu_slice(v)?);
    kernel::extend(heads.shape(n_tokens), scores.kernel(), &q, &k, &v, &mut o);
    from_cpu(o, &[n_tokens, width])
}

/// [`extend`] in tensor operations: the last rows of [`plain`].
pub fn plain_extend(heads: Heads, scores: Scores, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let (n_new, n_all) = (q.dims2()?.0, k.dims2()?.0);
    let q = q.pad_with_zeros(0, n_all - n_new, 0)?;
    let whole = 0..n_all;
    let documents = Documents::new(std::slice::from_ref(&whole));
    plain(heads, scores, &documents, &q, k, v)?.0.narrow(0, n_all - n_new, n_new)
}

/// Gradients of [`forward`].
pub struct Gradients {
    /// (T, H D).
    pub d_q: Tensor,
    /// (T, H_kv D).
    pub d_k: Tensor,
    /// (T, H_kv D).
    pub d_v: Tensor,
}

/// What [`forward`] took and made, with d_o: (T, H D).
pub struct Saved<'t> {
    /// As in [`forward`].
    pub q: &'t Tensor,
    /// As in [`forward`].
    pub k: &'t Tensor,
    /// As in [`forward`].
    pub v: &'t Tensor,
    /// As [`forward`] made it.
    pub o: &'t Tensor,
    /// As [`forward`] made it.
    pub log_sum_exp: &'t Tensor,
}

/// d_o: (T, H D) to the gradients of q, k and v.
pub fn backward(
    heads: Heads,
    scores: Scores,
    documents: &Documents<'_>,
    saved: &Saved<'_>,
    d_o: &Tensor,
) -> Result<Gradients> {
    if !is_fast(d_o) {
        return plain_backward(heads, scores, documents, saved, d_o);
    }
    let n_tokens = d_o.dims2()?.0;
    let mut d_q = vec![0.0; saved.q.elem_count()];
    let (mut d_k, mut d_v) = (vec![0.0; saved.k.elem_count()], vec![0.0; saved.v.elem_count()]);
    let (q, k, v) = (cpu_slice(saved.q)?, cpu_slice(saved.k)?, cpu_slice(saved.v)?);
    let (o, log_sum_exp, d_o) = (cpu_slice(saved.o)?, cpu_slice(saved.log_sum_exp)?, cpu_slice(d_o)?);
    let shape = heads.shape(n_tokens);
    let scores = scores.kernel();
    kernel::backward(shape, documents.ranges, scores, &q, &k, &v, &o, &log_sum_exp, &d_o, &mut d_q, &mut d_k, &mut d_v);
    Ok(Gradients {
        d_q: from_cpu(d_q, saved.q.dims())?,
        d_k: from_cpu(d_k, saved.k.dims())?,
        d_v: from_cpu(d_v, saved.v.dims())?,
    })
}

/// [`backward`] in tensor operations. With P the probabilities and `delta = rowsum(d_o o)`:
/// `d_v = P^T d_o`, `d_s = P (d_o v^T - delta)`, through the cap if there is one, then `d_q = scale d_s k`, `d_k = scale d_s^T q`.
pub fn plain_backward(
    heads: Heads,
    scores: Scores,
    documents: &Documents<'_>,
    saved: &Saved<'_>,
    d_o: &Tensor,
) -> Result<Gradients> {
    let bent = bent(scores, &products(heads, scores, saved.q, saved.k)?)?;
    let p = masked(scores, documents, &bent)?.broadcast_sub(saved.log_sum_exp)?.exp()?;
    let split_q = |x: &Tensor| split(x, heads.n_heads, heads);
    let split_kv = |x: &Tensor| split(x, heads.n_kv_heads, heads);
    let d_o_heads = split_q(d_o)?;
    let delta = (&d_o_heads * split_q(saved.o)?)?.sum_keepdim(D::Minus1)?;
    let d_p = d_o_heads.matmul(&split_kv(saved.v)?.t()?)?;
    let d_s = (&p * d_p.broadcast_sub(&delta)?)?;
    let d_s = match scores.cap {
        None => d_s,
        Some(cap) => softcap::plain_backward(cap, &d_s, &bent)?,
    };
    let d_s = (d_s * scores.scale)?;
    let d_q = d_s.matmul(&split_kv(saved.k)?)?;
    let d_k = d_s.t()?.matmul(&split_q(saved.q)?)?;
    let d_v = p.t()?.matmul(&d_o_heads)?;
    Ok(Gradients { d_q: join(&d_q)?, d_k: join(&sum_groups(&d_k, heads)?)?, d_v: join(&sum_groups(&d_v, heads)?)? })
}

/// (H, T, T), scaled.
fn products(heads: Heads, scores: Scores, q: &Tensor, k: &Tensor) -> Result<Tensor> {
    split(q, heads.n_heads, heads)?.matmul(&split(k, heads.n_kv_heads, heads)?.t()?)? * scores.scale
}

/// (H, T, T), capped where there is a cap.
fn bent(scores: Scores, products: &Tensor) -> Result<Tensor> {
    scores.cap.map_or_else(|| Ok(products.clone()), |cap| softcap::plain(cap, products))
}

/// (H, T, T), minus infinity where a row does not attend.
fn masked(scores: Scores, documents: &Documents<'_>, bent: &Tensor) -> Result<Tensor> {
    bent.broadcast_add(&documents.mask(scores.window, bent)?)
}

/// (T, n D) to (H, T, D); key and value heads repeated for their query heads.
fn split(x: &Tensor, n: usize, heads: Heads) -> Result<Tensor> {
    let n_tokens = x.dims2()?.0;
    let x = x.reshape((n_tokens, n, heads.head_dim))?.transpose(0, 1)?.contiguous()?;
    if n == heads.n_heads {
        return Ok(x);
    }
    let group = heads.n_heads / n;
    x.unsqueeze(1)?.expand((n, group, n_tokens, heads.head_dim))?.reshape((heads.n_heads, n_tokens, heads.head_dim))
}

/// (n, T, D) to (T, n D).
fn join(x: &Tensor) -> Result<Tensor> {
    let (n, n_tokens, head_dim) = x.dims3()?;
    x.transpose(0, 1)?.reshape((n_tokens, n * head_dim))
}

/// (H, T, D) to (H_kv, T, D): the gradients of the query heads that share a key head are added.
fn sum_groups(x: &Tensor, heads: Heads) -> Result<Tensor> {
    let (_, n_tokens, head_dim) = x.dims3()?;
    x.reshape((heads.n_kv_heads, heads.n_heads / heads.n_kv_heads, n_tokens, head_dim))?.sum(1)
}
