//! Gemma 2 and Gemma 3 (`modeling_gemma2.py`, `modeling_gemma3.py`): norms around attention and MLP, all with 1 + weight, and a scaled embedding.

use super::builder::Builder;
use super::llama::{normed_heads, separate_heads};
use super::{Rows, ValueIdx};
use crate::config::{Architecture, Layer, ModelConfig};

pub(super) fn build(list: &mut Builder<'_>, config: &ModelConfig) {
    let scale = Some(libm::sqrt(config.hidden_size as f64));
    let (mut x, embedding) = list.embedding("model.embed_tokens.weight", config.vocab_size, Rows::Tokens, scale);
    for (layer_idx, layer) in config.layers.iter().enumerate() {
        x = self::layer(list, config, &format!("model.layers.{layer_idx}"), layer, x);
    }
    let normed = list.rms_norm("model.norm", x, config.hidden_size, true);
    list.head(normed, embedding);
}

fn layer(list: &mut Builder<'_>, config: &ModelConfig, prefix: &str, layer: &Layer, x: ValueIdx) -> ValueIdx {
    let (c, i) = (config.hidden_size, config.intermediate_size);
    let normed = list.rms_norm(&format!("{prefix}.input_layernorm"), x, c, true);
    let attention = format!("{prefix}.self_attn");
    let mut heads = separate_heads(list, config, &attention, normed);
    if config.architecture == Architecture::Gemma3 {
        heads = normed_heads(list, config, &attention, heads, true);
    }
    let attended = list.attention(layer, heads);
    let o = list.linear(format!("{attention}.o_proj"), attended, c, config.has_o_bias);
    let o = list.rms_norm(&format!("{prefix}.post_attention_layernorm"), o, c, true);
    let x = list.residual(x, o);
    let normed = list.rms_norm(&format!("{prefix}.pre_feedforward_layernorm"), x, c, true);
    let gate = list.linear(format!("{prefix}.mlp.gate_proj"), normed, i, false);
    let up = list.linear(format!("{prefix}.mlp.up_proj"), normed, i, false);
    let hidden = list.gated_mlp(gate, up);
    let down = list.linear(format!("{prefix}.mlp.down_proj"), hidden, c, false);
    let down = list.rms_norm(&format!("{prefix}.post_feedforward_layernorm"), down, c, true);
    list.residual(x, down)
}
