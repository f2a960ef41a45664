//! GPT-2 (`modeling_gpt2.py`): learned positions, LayerNorm, one matrix for q, k and v, an MLP without a gate.

use super::builder::{Builder, Heads};
use super::{Rows, ValueIdx};
use crate::config::{Layer, ModelConfig};

pub(super) fn build(list: &mut Builder<'_>, config: &ModelConfig) {
    let (tokens, embedding) = list.embedding("transformer.wte.weight", config.vocab_size, Rows::Tokens, None);
    let (positions, _) = list.embedding("transformer.wpe.weight", config.max_positions, Rows::Positions, None);
    let mut x = list.residual(tokens, positions);
    for (layer_idx, layer) in config.layers.iter().enumerate() {
        x = self::layer(list, config, &format!("transformer.h.{layer_idx}"), layer, x);
    }
    let normed = list.layer_norm("transformer.ln_f", x);
    list.head(normed, embedding);
}

fn layer(list: &mut Builder<'_>, config: &ModelConfig, prefix: &str, layer: &Layer, x: ValueIdx) -> ValueIdx {
    let (c, i) = (config.hidden_size, config.intermediate_size);
    let normed = list.layer_norm(&format!("{prefix}.ln_1"), x);
    let fused = list.linear(format!("{prefix}.attn.c_attn"), normed, 3 * c, config.has_qkv_bias);
    let [q, k, v] = list.split(fused, [c, c, c]);
    let attended = list.attention(layer, Heads { q, k, v });
    let o = list.linear(format!("{prefix}.attn.c_proj"), attended, c, config.has_o_bias);
    let x = list.residual(x, o);
    let normed = list.layer_norm(&format!("{prefix}.ln_2"), x);
    let hidden = list.linear(format!("{prefix}.mlp.c_fc"), normed, i, config.has_mlp_bias);
    let hidden = list.gelu(hidden);
    let down = list.linear(format!("{prefix}.mlp.c_proj"), hidden, c, config.has_mlp_bias);
    list.residual(x, down)
}
