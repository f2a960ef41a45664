//! Gemma 2, and the text models of Gemma 3.

use super::fields::Fields;
use super::rope::{self, Partial};
use super::{Activation, Architecture, Layer, ModelConfig, Rope, Scores, Sizes, windowed_layers};
use crate::error::LlmError;

/// Both families' default, `head_dim` and `query_pre_attn_scalar`.
const HEAD_DIM: usize = 256;

/// Every layer with an even index has a window, if `layer_types` does not say otherwise.
pub(super) fn read_gemma2(fields: &mut Fields) -> Result<ModelConfig, LlmError> {
    let sizes = Sizes::read(fields, Some(HEAD_DIM))?;
    let is_windowed = windowed_layers(fields, sizes.n_layers, |layer_idx| layer_idx.is_multiple_of(2))?;
    let rope = rope::read(fields, sizes.head_dim, sizes.max_positions, Partial::Refused)?;
    let cap = fields.positive_or_null("attn_logit_softcapping", Some(50.0))?;
    let logit_cap = fields.positive_or_null("final_logit_softcapping", Some(30.0))?;
    let kind = Kind { architecture: Architecture::Gemma2, cap, logit_cap, ropes: vec![rope], window_rope: 0 };
    read(fields, &sizes, &is_windowed, kind)
}

/// Every layer but each sixth has a window, and another rope.
pub(super) fn read_gemma3(fields: &mut Fields) -> Result<ModelConfig, LlmError> {
    let sizes = Sizes::read(fields, Some(HEAD_DIM))?;
    let pattern = fields.size("sliding_window_pattern")?.unwrap_or(6);
    if pattern == 0 {
        return Err(LlmError::config("sliding_window_pattern", "is 0"));
    }
    // What transformers 5 keeps of `sliding_window_pattern`; it always writes `layer_types` too.
    if fields.has("layer_types") {
        fields.ignore(&["_sliding_window_pattern"]);
    }
    let default = |layer_idx: usize| !(layer_idx + 1).is_multiple_of(pattern);
    let is_windowed = windowed_layers(fields, sizes.n_layers, default)?;
    // transformers' Gemma3Attention has the field, and does not pass it on.
    if let Some(cap) = fields.number("attn_logit_softcapping")? {
        return Err(LlmError::config("attn_logit_softcapping", format!("is {cap}; only null is supported")));
    }
    let logit_cap = fields.positive_or_null("final_logit_softcapping", None)?;
    let [full, windowed] = rope::read_gemma3(fields, sizes.head_dim, sizes.max_positions)?;
    let ropes = vec![full, windowed];
    let kind = Kind { architecture: Architecture::Gemma3, cap: None, logit_cap, ropes, window_rope: 1 };
    read(fields, &sizes, &is_windowed, kind)
}

/// What the two differ in.
struct Kind {
    architecture: Architecture,
    cap: Option<f64>,
    logit_cap: Option<f64>,
    ropes: Vec<Rope>,
    /// The rope of layers with a window; the others have the first.
    window_rope: usize,
}

fn read(fields: &mut Fields, sizes: &Sizes, is_windowed: &[bool], kind: Kind) -> Result<ModelConfig, LlmError> {
    for name in ["hidden_activation", "hidden_act"] {
        fields.only(name, &["gelu_pytorch_tanh"])?;
    }
    fields.only("attention_dropout", &[0.0])?;
    fields.only("use_bidirectional_attention", &[false])?;
    let scalar = fields.number("query_pre_attn_scalar")?.unwrap_or(HEAD_DIM as f64);
    let window = if fields.has("sliding_window") { fields.size("sliding_window")? } else { Some(4096) };
    if window.is_none() && is_windowed.contains(&true) {
        return Err(LlmError::config("sliding_window", "is null, but some layers have a window"));
    }
    let scale = 1.0 / libm::sqrt(scalar);
    let layer = |&is_windowed: &bool| Layer {
        scores: Scores { scale, cap: kind.cap, window: window.filter(|_| is_windowed) },
        rope: Some(if is_windowed { kind.window_rope } else { 0 }),
    };
    let attention_bias = fields.flag("attention_bias", false)?;
    Ok(ModelConfig {
        layers: is_windowed.iter().map(layer).collect(),
        ropes: kind.ropes,
        norm_eps: fields.number("rms_norm_eps")?.unwrap_or(1e-6),
        activation: Activation::GeluTanh,
        logit_cap: kind.logit_cap,
        is_tied: fields.flag("tie_word_embeddings", true)?,
        has_qkv_bias: attention_bias,
        has_o_bias: attention_bias,
        ..sizes.plain(kind.architecture)
    })
}
