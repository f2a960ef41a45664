//! The bits of every kernel, as literals.
//!
//! Artifacts are compared by digest, so a kernel's bits are part of the product: they must be these on every host, compiler and
//! instruction set. A change here changes what training writes and needs a new version of the stages that train.

use pipe_kernels::gated_mlp::Activation;
use pipe_kernels::random::Stream;
use pipe_kernels::{
    adamw, attention, cross_entropy, dropout, gated_mlp, gelu, layer_norm, reduce, rms_norm, rope, softcap,
};

/// Uniform in [-2, 2): made without ln and cos, so that a failure points at the kernel.
fn noise(name: &str, len: usize) -> Vec<f32> {
    let stream = Stream::named(1, name);
    (0..len as u64).map(|i| stream.uniform(i) * 4.0 - 2.0).collect()
}

/// FNV-1a over the bits.
fn digest(tensors: &[&[f32]]) -> u64 {
    let bytes = tensors.iter().flat_map(|x| x.iter()).flat_map(|x| x.to_bits().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[track_caller]
fn check(tensors: &[&[f32]], expected: u64) {
    let got = digest(tensors);
    assert_eq!(got, expected, "the bits are {got:#018x}");
}

#[test]
fn random_numbers() {
    let stream = Stream::named(42, "model.layers.0.self_attn.q_proj");
    assert_eq!(stream.bits(0), 0xaf82_cd31_7767_fcd7);
    assert_eq!(stream.bits(1_000_000_007), 0x3632_fc91_e68c_90e8);
    let normal: Vec<f32> = (0..1000).map(|i| stream.normal(i)).collect();
    check(&[&normal], 0x2d0f_8f21_1c6c_285d);
}

#[test]
fn dropout_mask() {
    let mask = dropout::Mask { seed: 42, optimizer_step: 7, module: 3, probability: 0.5 };
    let mut y = [0.0; 64];
    dropout::apply(mask, &[1.0; 64], &[12], &[34], &mut y);
    let kept = y.iter().enumerate().map(|(i, y)| u64::from(*y != 0.0) << i).sum::<u64>();
    assert_eq!(kept, 0x4aae_2967_6e01_0460, "the mask is {kept:#018x}");
}

#[test]
fn norm_and_rope() {
    let (n, d) = (5, 72);
    let (x, dy, weight) = (noise("x", n * d), noise("dy", n * d), noise("weight", d));
    let (mut y, mut inv_rms, mut dx) = (vec![0.0; n * d], vec![0.0; n], vec![0.0; n * d]);
    rms_norm::forward(&x, &weight, 1e-5, &mut y, &mut inv_rms);
    rms_norm::backward(&dy, &x, &weight, &inv_rms, &mut dx);
    check(&[&y, &inv_rms, &dx], 0x0aa3_a794_0392_8d9a);
    let mut d_weight = vec![0.0; d];
    rms_norm::weight_gradient(&dy, &x, &inv_rms, &mut d_weight);
    check(&[&d_weight], 0x08ed_6de3_bbf0_f4a5);
    rope::rotate(&mut y, 3, 24, &rope::Table::new(2048, 24, 10_000.0), &[0, 1, 77, 1023, 2047]);
    check(&[&y], 0x7e7d_b6fb_fb8a_ab02);
}

#[test]
fn layer_norm_both_ways() {
    let (n, d) = (5, 72);
    let (x, dy, weight, bias) = (noise("x", n * d), noise("dy", n * d), noise("weight", d), noise("bias", d));
    let (mut y, mut mean, mut inv_std, mut dx) = (vec![0.0; n * d], vec![0.0; n], vec![0.0; n], vec![0.0; n * d]);
    let (mut d_weight, mut d_bias) = (vec![0.0; d], vec![0.0; d]);
    layer_norm::forward(&x, &weight, &bias, 1e-5, &mut y, &mut mean, &mut inv_std);
    layer_norm::backward(&dy, &x, &weight, &mean, &inv_std, &mut dx);
    layer_norm::parameter_gradients(&dy, &x, &mean, &inv_std, &mut d_weight, &mut d_bias);
    check(&[&y, &mean, &inv_std, &dx, &d_weight, &d_bias], 0x9f8f_9768_41ca_8685);
}

#[test]
fn gated_mlp_both_ways() {
    let len = 1000;
    let (gate, up, dy) = (noise("gate", len), noise("up", len), noise("dy", len));
    let (mut y, mut dgate, mut dup) = (vec![0.0; len], vec![0.0; len], vec![0.0; len]);
    gated_mlp::forward(Activation::Silu, &gate, &up, &mut y);
    gated_mlp::backward(Activation::Silu, &dy, &gate, &up, &mut dgate, &mut dup);
    check(&[&y, &dgate, &dup], 0x85fd_fe90_1eb2_048f);
}

/// `forward`: of o and log-sum-exp; `backward`: of dq, dk and dv.
fn check_attention(scores: attention::Scores, forward: u64, backward: u64) {
    let shape = attention::Shape { n_tokens: 230, n_heads: 4, n_kv_heads: 2, head_dim: 24 };
    let documents = [0..1, 1..210, 210..230];
    let (n_queries, n_keys) = (shape.n_query_elements(), shape.n_key_elements());
    let (q, k, v, d_o) = (noise("q", n_queries), noise("k", n_keys), noise("v", n_keys), noise("d_o", n_queries));
    let (mut o, mut log_sum_exp) = (vec![0.0; n_queries], vec![0.0; 230 * 4]);
    let (mut dq, mut dk, mut dv) = (vec![0.0; n_queries], vec![0.0; n_keys], vec![0.0; n_keys]);
    attention::forward(shape, &documents, scores, &q, &k, &v, &mut o, &mut log_sum_exp);
    attention::backward(shape, &documents, scores, &q, &k, &v, &o, &log_sum_exp, &d_o, &mut dq, &mut dk, &mut dv);
    check(&[&o, &log_sum_exp], forward);
    check(&[&dq, &dk, &dv], backward);
}

#[test]
fn attention_both_ways() {
    check_attention(attention::Scores::scaled(0.2), 0xbe12_1f0b_5998_4038, 0x197d_53c2_2d44_fb17);
}

#[test]
fn losses_and_optimizer_steps() {
    let (n, v) = (3, 2500);
    let (mut logits, mut losses) = (noise("logits", n * v), vec![0.0; n]);
    cross_entropy::forward_backward(&mut logits, v, &[0, 1234, 2499], 0.125, &mut losses);
    check(&[&logits, &losses], 0x3ba2_c906_3608_1d9d);
    let (mut param, mut m, mut second) = (noise("param", n * v), vec![0.0; n * v], vec![0.0; n * v]);
    for t in 1..=3 {
        let step = adamw::Step { learning_rate: 2e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, t };
        adamw::update(step, &mut param, &logits, &mut m, &mut second);
    }
    check(&[&param, &m, &second], 0x9ec6_b773_afe5_96bf);
    assert_eq!(reduce::sum_of_squares(&logits).to_bits(), 0x3fa7_fda5_7b6c_f254);
}

#[test]
fn attention_with_window_and_cap() {
    let scores = attention::Scores { scale: 0.2, cap: Some(1.5), window: Some(50) };
    check_attention(scores, 0x27a9_a31c_0a02_2765, 0x1f02_f545_1fb1_d072);
}

#[test]
fn gelu_and_softcap_both_ways() {
    let len = 1000;
    let (gate, up, dy) = (noise("gate", len), noise("up", len), noise("dy", len));
    let (mut y, mut dgate, mut dup) = (vec![0.0; len], vec![0.0; len], vec![0.0; len]);
    gated_mlp::forward(Activation::GeluTanh, &gate, &up, &mut y);
    gated_mlp::backward(Activation::GeluTanh, &dy, &gate, &up, &mut dgate, &mut dup);
    check(&[&y, &dgate, &dup], 0x26ee_7ed8_e72a_c7b7);
    gelu::forward(&gate, &mut y);
    gelu::backward(&dy, &gate, &mut dgate);
    check(&[&y, &dgate], 0xd350_9448_a16e_b800);
    softcap::forward(1.5, &mut y);
    softcap::backward(1.5, &y, &mut dup);
    check(&[&y, &dup], 0x50e3_4de7_182f_e180);
}
