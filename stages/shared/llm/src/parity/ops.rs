//! Each op alone: kernels on the CPU against tensor operations on the device, at sizes that are no multiple of anything.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::{Comparison, TOLERANCE, random, relative_difference};
use crate::error::LlmError;
use crate::ops::attention::{self, Documents, Heads};
use crate::ops::dropout::{Dropout, Mask};
use crate::ops::linear::{self, LowRank};
use crate::ops::rope::{self, Direction, Positions, RopeTable};
use crate::ops::{embedding, gated_mlp, head, rms_norm};
use crate::sequence::Sequence;

/// T, in three documents, one of a single token.
const N_TOKENS: usize = 67;
const DOCUMENTS: [Range<usize>; 3] = [0..31, 31..32, 32..67];
const HEADS: Heads = Heads { n_heads: 6, n_kv_heads: 2, head_dim: 10 };
/// C.
const WIDTH: usize = 60;
const KV_WIDTH: usize = 20;
/// V.
const VOCAB_SIZE: usize = 131;

pub(super) fn compare(device: &Device) -> Result<Vec<Comparison>, LlmError> {
    let (ours, theirs) = (run(device)?, run(&Device::Cpu)?);
    let each = ours.into_iter().zip(theirs).map(|((name, ours), (_, theirs))| {
        let difference = relative_difference(&ours, &theirs)?;
        Ok(Comparison { name: name.to_string(), difference, tolerance: TOLERANCE })
    });
    each.collect()
}

/// The results of every op on `device`, in one order.
fn run(device: &Device) -> Result<Vec<(&'static str, Tensor)>, LlmError> {
    let tensor =
        |name: &str, shape: &[usize]| -> Result<Tensor, LlmError> { Ok(random(name, shape, 1.0)?.to_device(device)?) };
    let sequence = sequence();
    let documents = Documents::new(&sequence.documents);
    let (x, d_y) = (tensor("x", &[N_TOKENS, WIDTH])?, tensor("d_y", &[N_TOKENS, WIDTH])?);
    let (weight, bias) = (tensor("weight", &[WIDTH, WIDTH])?, tensor("bias", &[WIDTH])?);
    let mut results = Vec::new();

    let ids = Tensor::new(sequence.input_ids.as_slice(), device)?;
    let table = tensor("embedding", &[VOCAB_SIZE, WIDTH])?;
    results.push(("embedding", embedding::forward(&table, &ids, DType::F32)?));
    results.push(("embedding d_weight", embedding::weight_gradient(&d_y, &ids, VOCAB_SIZE)?));

    let (y, inv_rms) = rms_norm::forward(&x, &bias, 1e-5)?;
    results.push(("rms_norm d_x", rms_norm::backward(&d_y, &x, &bias, &inv_rms)?));
    results.push(("rms_norm d_weight", rms_norm::weight_gradient(&d_y, &x, &inv_rms)?));
    results.push(("rms_norm", y));

    results.push(("linear", linear::forward(&x, &weight, Some(&bias))?));
    for (name, dtype) in [("linear, bf16 weight", DType::BF16), ("linear, f16 weight", DType::F16)] {
        results.push((name, linear::forward(&x, &weight.to_dtype(dtype)?, None)?));
    }
    results.push(("linear d_x", linear::backward(&d_y, &weight)?));
    results.push(("linear d_weight", linear::weight_gradient(&d_y, &x)?));
    results.push(("linear d_bias", linear::bias_gradient(&d_y)?));

    let (a, b) = (tensor("a", &[5, WIDTH])?, tensor("b", &[WIDTH, 5])?);
    let low_rank = LowRank { a: &a, b: &b, scale: 0.5 };
    let (y, h) = linear::low_rank_forward(&x, low_rank)?;
    let gradients = linear::low_rank_backward(&d_y, &x, &h, low_rank, true)?;
    results.push(("lora", y));
    results.push(("lora d_a", gradients.d_a));
    results.push(("lora d_b", gradients.d_b));
    results.extend(gradients.d_x.map(|d_x| ("lora d_x", d_x)));
    let mask = Mask { seed: 1, optimizer_step: 2, module: 3, probability: 0.3 };
    results.push(("dropout", Dropout::new(mask, &sequence).apply(&x)?));

    let table = RopeTable::new(10_000.0, HEADS.head_dim, N_TOKENS);
    let positions = Positions::new(&table, &sequence.position_ids);
    results.push(("rope", rope::rotate(&x, HEADS.n_heads, &positions, Direction::Forward)?));
    results.push(("rope backward", rope::rotate(&x, HEADS.n_heads, &positions, Direction::Backward)?));

    let (k, v) = (tensor("k", &[N_TOKENS, KV_WIDTH])?, tensor("v", &[N_TOKENS, KV_WIDTH])?);
    let (o, log_sum_exp) = attention::forward(HEADS, &documents, &x, &k, &v)?;
    let saved = attention::Saved { q: &x, k: &k, v: &v, o: &o, log_sum_exp: &log_sum_exp };
    let gradients = attention::backward(HEADS, &documents, &saved, &d_y)?;
    results.push(("attention d_q", gradients.d_q));
    results.push(("attention d_k", gradients.d_k));
    results.push(("attention d_v", gradients.d_v));
    results.push(("attention", o));
    results.push(("attention, one token more", attention::extend(HEADS, &x.narrow(0, 66, 1)?.contiguous()?, &k, &v)?));

    let up = tensor("up", &[N_TOKENS, WIDTH])?;
    let (d_gate, d_up) = gated_mlp::backward(&d_y, &x, &up)?;
    results.push(("gated_mlp", gated_mlp::forward(&x, &up)?));
    results.push(("gated_mlp d_gate", d_gate));
    results.push(("gated_mlp d_up", d_up));

    let head_weight = tensor("head", &[VOCAB_SIZE, WIDTH])?;
    let wanted = head::Wanted { input: true, weight: true };
    let output = head::loss(&x, &head_weight, &sequence.supervised, &sequence.targets, wanted)?;
    results.push(("head", Tensor::new(&[output.loss_sum], &Device::Cpu)?));
    results.extend(output.d_input.map(|d_input| ("head d_x", d_input)));
    results.extend(output.d_weight.map(|d_weight| ("head d_weight", d_weight)));
    Ok(results)
}

/// All rows but the first are supervised.
fn sequence() -> Sequence {
    let ids = |factor: usize| (0..N_TOKENS).map(move |i| (i * i * factor % VOCAB_SIZE) as u32);
    Sequence {
        input_ids: ids(1).collect(),
        position_ids: DOCUMENTS.iter().flat_map(|document| 0..document.len() as u32).collect(),
        example_ids: vec![7; N_TOKENS],
        documents: DOCUMENTS.to_vec(),
        supervised: (1..N_TOKENS as u32).collect(),
        targets: ids(5).skip(1).collect(),
    }
}
