//! Phi-3 (`modeling_phi3.py`): a Llama with one matrix for q, k and v, and one for gate and up.

use super::ValueIdx;
use super::builder::{Builder, Heads};
use crate::config::{Layer, ModelConfig};

pub(super) fn build(list: &mut Builder<'_>, config: &ModelConfig) {
    super::llama::stack(list, config, layer);
}

fn layer(list: &mut Builder<'_>, config: &ModelConfig, prefix: &str, layer: &Layer, x: ValueIdx) -> ValueIdx {
    let (c, i) = (config.hidden_size, config.intermediate_size);
    let (q_width, kv_width) = (config.q_width(), config.kv_width());
    let normed = list.rms_norm(&format!("{prefix}.input_layernorm"), x, c, false);
    let fused = list.linear(format!("{prefix}.self_attn.qkv_proj"), normed, q_width + 2 * kv_width, false);
    let [q, k, v] = list.split(fused, [q_width, kv_width, kv_width]);
    let attended = list.attention(layer, Heads { q, k, v });
    let o = list.linear(format!("{prefix}.self_attn.o_proj"), attended, c, false);
    let x = list.residual(x, o);
    let normed = list.rms_norm(&format!("{prefix}.post_attention_layernorm"), x, c, false);
    let fused = list.linear(format!("{prefix}.mlp.gate_up_proj"), normed, 2 * i, false);
    let [gate, up] = list.split(fused, [i, i]);
    let hidden = list.gated_mlp(gate, up);
    let down = list.linear(format!("{prefix}.mlp.down_proj"), hidden, c, false);
    list.residual(x, down)
}
