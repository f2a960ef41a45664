//! The head: logits and cross-entropy, of the supervised rows only, a chunk of rows at a time.
//!
//! `loss = sum over supervised rows of log(sum(exp(logits))) - logits[target]`; its gradient in the logits is
//! `softmax(logits) - onehot(target)`. Logits of one chunk live at a time: (N, V) with N at most [`CHUNK_ROWS`]. They may be capped before
//! ([`super::softcap`]: Gemma 2). Some rows of the matrix may be an adapter's ([`super::tokens`]).

use std::sync::Mutex;

use candle_core::{CpuStorage, D, InplaceOp1, Layout, Result, Tensor};
use pipe_kernels::cross_entropy as kernel;

use super::tokens::TokenRows;
use super::{is_fast, linear, softcap};

/// Rows of a chunk: at a vocabulary of 49,152 its logits take 48 MiB, and the product is wide enough to run at full speed.
pub const CHUNK_ROWS: usize = 256;

/// The loss of a sequence.
#[derive(Clone, Debug)]
pub struct HeadOutput {
    /// Sum of the losses of the supervised rows, in nats.
    pub loss_sum: f64,
    /// Gradient of `loss_sum` in the input: (T, C), if it was asked for.
    pub d_input: Option<Tensor>,
    /// Its gradient in the weight: (V, C), likewise.
    pub d_weight: Option<Tensor>,
    /// Its gradient in the rows of tokens: (n, C), with that in the input, where there are some.
    pub d_rows: Option<Tensor>,
}

/// Which gradients to compute with the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// In the input, and in rows of tokens.
    pub input: bool,
    /// In the weight.
    pub weight: bool,
}

/// What makes logits of the last hidden states.
#[derive(Clone, Copy, Debug)]
pub struct Head<'t> {
    /// (V, C) in any dtype.
    pub weight: &'t Tensor,
    /// Rows in the place of some of the weight's.
    pub tokens: Option<&'t TokenRows>,
    /// Of the logits.
    pub cap: Option<f64>,
}

/// x: (T, C). Returns (T, V).
pub fn logits(x: &Tensor, Head { weight, tokens, cap }: Head<'_>) -> Result<Tensor> {
    let mut logits = linear::forward(x, weight, None)?;
    if let Some(tokens) = tokens {
        logits = tokens.logits(x, &logits)?;
    }
    cap.map_or_else(|| Ok(logits.clone()), |cap| softcap::forward(cap, &logits))
}

/// x: (T, C), rows and targets: (N) as in [`crate::Sequence`].
pub fn loss(
    x: &Tensor,
    Head { weight, tokens, cap }: Head<'_>,
    rows: &[u32],
    targets: &[u32],
    wanted: Wanted,
) -> Result<HeadOutput> {
    let weight = linear::widen(weight, x.dtype())?;
    let mut loss_sum = 0.0;
    let mut d_input = if wanted.input { Some(x.zeros_like()?) } else { None };
    let mut d_weight = if wanted.weight { Some(weight.zeros_like()?) } else { None };
    let mut d_rows: Option<Tensor> = None;
    for (rows, targets) in rows.chunks(CHUNK_ROWS).zip(targets.chunks(CHUNK_ROWS)) {
        let rows = Tensor::new(rows, x.device())?;
        let x_rows = x.index_select(&rows, 0)?;
        let mut logits = x_rows.matmul(&weight.t()?)?;
        if let Some(tokens) = tokens {
            logits = tokens.logits(&x_rows, &logits)?;
        }
        let (losses, mut d_logits) = match cap {
            None => cross_entropy(&logits, targets)?,
            Some(cap) => {
                let capped = softcap::forward(cap, &logits)?;
                // A copy, because the kernel turns logits into gradients where they are.
                let (losses, d_capped) = cross_entropy(&capped.copy()?, targets)?;
                (losses, softcap::backward(cap, &d_capped, &capped)?)
            }
        };
        loss_sum += losses.iter().sum::<f64>();
        let mut d_x_rows = None;
        if let Some(tokens) = tokens.filter(|_| wanted.input) {
            let (rest, own) = tokens.split(&d_logits)?;
            d_logits = rest;
            d_x_rows = Some(tokens.d_x(&own)?);
            let gradient = TokenRows::head_gradient(&own, &x_rows)?;
            d_rows = Some(match d_rows {
                None => gradient,
                Some(sum) => (sum + gradient)?,
            });
        }
        if let Some(sum) = &mut d_input {
            let mut part = d_logits.matmul(&weight)?;
            if let Some(own) = d_x_rows {
                part = (part + own)?;
            }
            *sum = sum.index_add(&rows, &part, 0)?;
        }
        if let Some(sum) = &mut d_weight {
            *sum = (&*sum + linear::weight_gradient(&d_logits, &x_rows)?)?;
        }
    }
    Ok(HeadOutput { loss_sum, d_input, d_weight, d_rows })
}

/// logits: (N, V), overwritten where it can be. Returns the N losses and their gradient (N, V).
fn cross_entropy(logits: &Tensor, targets: &[u32]) -> Result<(Vec<f64>, Tensor)> {
    if !is_fast(logits) {
        return plain_cross_entropy(logits, targets);
    }
    let op = CrossEntropy { targets, losses: Mutex::new(vec![0.0; targets.len()]) };
    logits.inplace_op1(&op)?;
    let losses = op.losses.into_inner().expect("the kernel does not panic while it holds the lock");
    Ok((losses.into_iter().map(f64::from).collect(), logits.clone()))
}

/// [`cross_entropy`] in tensor operations.
pub fn plain_cross_entropy(logits: &Tensor, targets: &[u32]) -> Result<(Vec<f64>, Tensor)> {
    let largest = logits.max_keepdim(D::Minus1)?;
    let exponentials = logits.broadcast_sub(&largest)?.exp()?;
    let sum = exponentials.sum_keepdim(D::Minus1)?;
    let index = Tensor::new(targets, logits.device())?.unsqueeze(1)?;
    let log_sum_exp = (sum.log()? + largest)?;
    let losses = (log_sum_exp - logits.gather(&index, 1)?)?.squeeze(1)?.to_dtype(candle_core::DType::F64)?.to_vec1()?;
    let minus_one = Tensor::full(-1.0f32, (targets.len(), 1), logits.device())?.to_dtype(logits.dtype())?;
    let d_logits = exponentials.broadcast_div(&sum)?.scatter_add(&index, &minus_one, 1)?;
    Ok((losses, d_logits))
}

struct CrossEntropy<'t> {
    targets: &'t [u32],
    losses: Mutex<Vec<f32>>,
}

impl InplaceOp1 for CrossEntropy<'_> {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(data), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            candle_core::bail!("cross_entropy needs contiguous f32 logits")
        };
        let mut losses = self.losses.lock().expect("nobody else holds it");
        let vocab_size = layout.dims()[1];
        kernel::forward_backward(&mut data[start..end], vocab_size, self.targets, 1.0, &mut losses);
        Ok(())
    }
}
