//! Each op alone: kernels on the CPU against tensor operations on the device, at sizes that are no multiple of anything.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::{Comparison, TOLERANCE, random, relative_difference};
use crate::config::{Activation, Rope, RopeScaling, Scores};
use crate::error::LlmError;
use crate::ops::attention::{self, Documents, Heads};
use crate::ops::dropout::{Dropout, Mask};
use crate::ops::linear::{self, LowRank};
use crate::ops::rope::{self, Direction, Positions, RopeTable};
use crate::ops::tokens::TokenRows;
use crate::ops::{embedding, gated_mlp, gelu, head, layer_norm, rms_norm, slice};
use crate::sequence::Sequence;

/// T, in three documents, one of a single token.
const N_TOKENS: usize = 67;
const DOCUMENTS: [Range<usize>; 3] = [0..31, 31..32, 32..67];
const HEADS: Heads = Heads { n_heads: 6, n_kv_heads: 2, head_dim: 10 };
const SCORES: Scores = Scores { scale: 0.316_227_766, cap: None, window: None };
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
    results.push(("embedding", embedding::scaled(embedding::forward(&table, &ids, DType::F32)?, Some(1.5))?));
    results.push(("embedding d_weight", embedding::weight_gradient(&d_y, &ids, Some(1.5), VOCAB_SIZE)?));

    let (y, inv_rms) = rms_norm::forward(&x, &bias, 1e-5)?;
    results.push(("rms_norm d_x", rms_norm::backward(&d_y, &x, &bias, &inv_rms)?));
    results.push(("rms_norm d_weight", rms_norm::weight_gradient(&d_y, &x, &inv_rms)?));
    results.push(("rms_norm", y));
    let (y, moments) = layer_norm::forward(&x, &bias, &bias, 1e-5)?;
    let (d_weight, d_bias) = layer_norm::parameter_gradients(&d_y, &x, &moments)?;
    results.push(("layer_norm", y));
    results.push(("layer_norm d_x", layer_norm::backward(&d_y, &x, &bias, &moments)?));
    results.push(("layer_norm d_weight", d_weight));
    results.push(("layer_norm d_bias", d_bias));

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

    let rope = Rope { theta: 10_000.0, rotary_dim: HEADS.head_dim - 2, scaling: RopeScaling::None };
    let table = RopeTable::new(&rope, HEADS.head_dim, N_TOKENS);
    let positions = Positions::new(&table, &sequence.position_ids, &DOCUMENTS);
    results.push(("rope", rope::rotate(&x, HEADS.n_heads, &positions, Direction::Forward)?));
    results.push(("rope backward", rope::rotate(&x, HEADS.n_heads, &positions, Direction::Backward)?));

    let (k, v) = (tensor("k", &[N_TOKENS, KV_WIDTH])?, tensor("v", &[N_TOKENS, KV_WIDTH])?);
    for (names, scores) in [
        (["attention", "attention d_q", "attention d_k", "attention d_v", "attention, one token more"], SCORES),
        (
            [
                "window and cap",
                "window and cap d_q",
                "window and cap d_k",
                "window and cap d_v",
                "window and cap, one more",
            ],
            Scores { window: Some(11), cap: Some(1.5), ..SCORES },
        ),
    ] {
        let (o, log_sum_exp) = attention::forward(HEADS, scores, &documents, &x, &k, &v)?;
        let saved = attention::Saved { q: &x, k: &k, v: &v, o: &o, log_sum_exp: &log_sum_exp };
        let gradients = attention::backward(HEADS, scores, &documents, &saved, &d_y)?;
        let more = attention::extend(HEADS, scores, &x.narrow(0, 66, 1)?.contiguous()?, &k, &v)?;
        results.extend(names.into_iter().zip([o, gradients.d_q, gradients.d_k, gradients.d_v, more]));
    }
    results.push(("slice", slice::forward(&x, 7, 20)?));
    results.push(("slice backward", slice::backward(&k, 7, WIDTH)?));

    let up = tensor("up", &[N_TOKENS, WIDTH])?;
    for (names, activation) in [
        (["gated_mlp", "gated_mlp d_gate", "gated_mlp d_up"], Activation::Silu),
        (["gated_mlp, gelu", "gated_mlp, gelu d_gate", "gated_mlp, gelu d_up"], Activation::GeluTanh),
    ] {
        let (d_gate, d_up) = gated_mlp::backward(activation, &d_y, &x, &up)?;
        results.extend(names.into_iter().zip([gated_mlp::forward(activation, &x, &up)?, d_gate, d_up]));
    }
    results.push(("gelu", gelu::forward(&x)?));
    results.push(("gelu d_x", gelu::backward(&d_y, &x)?));

    let head_weight = tensor("head", &[VOCAB_SIZE, WIDTH])?;
    let tokens = TokenRows::new(&[4, 1], &tensor("tokens", &[2, WIDTH])?, DType::F32)?;
    let wanted = head::Wanted { input: true, weight: true };
    for (names, tokens, cap) in [
        (["head", "head d_x", "head d_weight", ""], None, None),
        (["capped head", "capped head d_x", "capped head d_weight", ""], None, Some(8.0)),
        (["head with tokens", "its d_x", "its d_weight", "its d_rows"], Some(&tokens), None),
    ] {
        let head = head::Head { weight: &head_weight, tokens, cap };
        let output = head::loss(&x, head, &sequence.supervised, &sequence.targets, wanted)?;
        let loss = Tensor::new(&[output.loss_sum], &Device::Cpu)?;
        let gradients = [Some(loss), output.d_input, output.d_weight, output.d_rows];
        results.extend(names.into_iter().zip(gradients).filter_map(|(name, made)| Some((name, made?))));
    }
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
