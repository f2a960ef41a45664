//! Llama, Mistral, Qwen2 and Qwen3 (`modeling_llama.py` and its relatives).

use super::builder::{Builder, Heads};
use super::{Rows, ValueIdx};
use crate::config::{Architecture, Layer, ModelConfig};

pub(super) fn build(list: &mut Builder<'_>, config: &ModelConfig) {
    stack(list, config, layer);
}

/// Embedding, layers, norm and head of a Llama, whatever a layer is: `add(list, config, path, layer, x)` adds one.
pub(super) fn stack(
    list: &mut Builder<'_>,
    config: &ModelConfig,
    add: fn(&mut Builder<'_>, &ModelConfig, &str, &Layer, ValueIdx) -> ValueIdx,
) {
    let (mut x, embedding) = list.embedding("model.embed_tokens.weight", config.vocab_size, Rows::Tokens, None);
    for (layer_idx, layer) in config.layers.iter().enumerate() {
        x = add(list, config, &format!("model.layers.{layer_idx}"), layer, x);
    }
    let normed = list.rms_norm("model.norm", x, config.hidden_size, false);
    list.head(normed, embedding);
}

fn layer(list: &mut Builder<'_>, config: &ModelConfig, prefix: &str, layer: &Layer, x: ValueIdx) -> ValueIdx {
    let (c, i) = (config.hidden_size, config.intermediate_size);
    let normed = list.rms_norm(&format!("{prefix}.input_layernorm"), x, c, false);
    let attention = format!("{prefix}.self_attn");
    let mut heads = separate_heads(list, config, &attention, normed);
    if config.architecture == Architecture::Qwen3 {
        heads = normed_heads(list, config, &attention, heads, false);
    }
    let attended = list.attention(layer, heads);
    let o = list.linear(format!("{attention}.o_proj"), attended, c, config.has_o_bias);
    let x = list.residual(x, o);
    let normed = list.rms_norm(&format!("{prefix}.post_attention_layernorm"), x, c, false);
    let gate = list.linear(format!("{prefix}.mlp.gate_proj"), normed, i, config.has_mlp_bias);
    let up = list.linear(format!("{prefix}.mlp.up_proj"), normed, i, config.has_mlp_bias);
    let hidden = list.gated_mlp(gate, up);
    let down = list.linear(format!("{prefix}.mlp.down_proj"), hidden, c, config.has_mlp_bias);
    list.residual(x, down)
}

/// A matrix each for q, k and v.
pub(super) fn separate_heads(list: &mut Builder<'_>, config: &ModelConfig, attention: &str, normed: ValueIdx) -> Heads {
    let (q_width, kv_width) = (config.q_width(), config.kv_width());
    Heads {
        q: list.linear(format!("{attention}.q_proj"), normed, q_width, config.has_qkv_bias),
        k: list.linear(format!("{attention}.k_proj"), normed, kv_width, config.has_qkv_bias),
        v: list.linear(format!("{attention}.v_proj"), normed, kv_width, config.has_qkv_bias),
    }
}

/// q and k, each head with a norm of its own channels; the weights are those of all heads.
pub(super) fn normed_heads(
    list: &mut Builder<'_>,
    config: &ModelConfig,
    attention: &str,
    Heads { q, k, v }: Heads,
    adds_one: bool,
) -> Heads {
    Heads {
        q: list.rms_norm(&format!("{attention}.q_norm"), q, config.head_dim, adds_one),
        k: list.rms_norm(&format!("{attention}.k_norm"), k, config.head_dim, adds_one),
        v,
    }
}
