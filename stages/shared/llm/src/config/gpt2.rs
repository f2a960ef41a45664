//! GPT-2, with names of its own.

use super::fields::Fields;
use super::{Activation, Architecture, Layer, ModelConfig, Scores, channels_of_a_head, dropouts};
use crate::error::LlmError;

pub(super) fn read(fields: &mut Fields) -> Result<ModelConfig, LlmError> {
    // One function under two names.
    fields.only("activation_function", &["gelu_new", "gelu_pytorch_tanh"])?;
    fields.only("add_cross_attention", &[false])?;
    // The order of two products in f32, a length nobody reads, and a head for classification.
    fields.ignore(&["reorder_and_upcast_attn", "n_ctx"]);
    fields.ignore(&[
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
    ]);
    let (hidden_size, n_heads) = (fields.required_size("n_embd")?, fields.required_size("n_head")?);
    let head_dim = channels_of_a_head(("n_head", n_heads), ("n_embd", hidden_size))?;
    let n_layers = fields.required_size("n_layer")?;
    let is_scaled = fields.flag("scale_attn_weights", true)?;
    let is_scaled_by_layer = fields.flag("scale_attn_by_inverse_layer_idx", false)?;
    let layer = |layer_idx: usize| {
        let scale = if is_scaled { 1.0 / libm::sqrt(head_dim as f64) } else { 1.0 };
        let scale = if is_scaled_by_layer { scale / (layer_idx + 1) as f64 } else { scale };
        Layer { scores: Scores { scale, cap: None, window: None }, rope: None }
    };
    Ok(ModelConfig {
        architecture: Architecture::Gpt2,
        vocab_size: fields.required_size("vocab_size")?,
        hidden_size,
        intermediate_size: fields.size("n_inner")?.unwrap_or(4 * hidden_size),
        n_layers,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        max_positions: fields.required_size("n_positions")?,
        ropes: vec![],
        layers: (0..n_layers).map(layer).collect(),
        norm_eps: fields.number("layer_norm_epsilon")?.unwrap_or(1e-5),
        activation: Activation::GeluTanh,
        logit_cap: None,
        is_tied: fields.flag("tie_word_embeddings", true)?,
        has_qkv_bias: true,
        has_o_bias: true,
        has_mlp_bias: true,
        dropouts: dropouts(fields, &["attn_pdrop", "embd_pdrop", "resid_pdrop"])?,
    })
}
