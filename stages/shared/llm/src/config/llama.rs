//! Llama and its nearest relatives: Mistral, Qwen2, Qwen3.

use super::fields::Fields;
use super::rope::{self, Partial};
use super::{Architecture, Layer, ModelConfig, Scores, Sizes, windowed_layers};
use crate::error::LlmError;

pub(super) fn read(architecture: Architecture, fields: &mut Fields) -> Result<ModelConfig, LlmError> {
    fields.only("hidden_act", &["silu"])?;
    fields.only("attention_dropout", &[0.0])?;
    fields.only("add_cross_attention", &[false])?;
    // Qwen3 has a head_dim of its own (`Qwen3Config`).
    let default_head_dim = (architecture == Architecture::Qwen3).then_some(128);
    let sizes = Sizes::read(fields, default_head_dim)?;
    let is_windowed = match architecture {
        Architecture::Mistral => {
            // transformers' Mistral does not read it; Ministral does, which is another model.
            if fields.take("layer_types").is_some() {
                return Err(LlmError::config("layer_types", "is given; a Mistral has one kind of layer"));
            }
            vec![true; sizes.n_layers]
        }
        Architecture::Qwen2 | Architecture::Qwen3 => qwen_windows(fields, sizes.n_layers)?,
        _ => {
            fields.only("pretraining_tp", &[1])?;
            fields.only("rope_interleaved", &[false])?;
            fields.ignore(&["sliding_window", "max_window_layers"]);
            vec![false; sizes.n_layers]
        }
    };
    let window = if is_windowed.contains(&true) { window(architecture, fields)? } else { None };
    fields.ignore(&["sliding_window"]);
    let rope = rope::read(fields, sizes.head_dim, sizes.max_positions, Partial::Refused)?;
    let attention_bias = match architecture {
        Architecture::Llama | Architecture::Qwen3 => fields.flag("attention_bias", false)?,
        _ => false,
    };
    let layer = |is_windowed: &bool| Layer {
        scores: Scores { window: window.filter(|_| *is_windowed), ..sizes.scores() },
        rope: Some(0),
    };
    Ok(ModelConfig {
        ropes: vec![rope],
        layers: is_windowed.iter().map(layer).collect(),
        norm_eps: fields.number("rms_norm_eps")?.unwrap_or(1e-6),
        is_tied: fields.flag("tie_word_embeddings", false)?,
        has_qkv_bias: architecture == Architecture::Qwen2 || attention_bias,
        has_o_bias: attention_bias,
        has_mlp_bias: architecture == Architecture::Llama && fields.flag("mlp_bias", false)?,
        ..sizes.plain(architecture)
    })
}

/// The layers from `max_window_layers` on have a window if `use_sliding_window` says so (`Qwen2Config`, `Qwen3Config`).
fn qwen_windows(fields: &mut Fields, n_layers: usize) -> Result<Vec<bool>, LlmError> {
    fields.only("use_mrope", &[false])?;
    let uses_window = fields.flag("use_sliding_window", false)?;
    let n_without = fields.size("max_window_layers")?.unwrap_or(28);
    let is_windowed = windowed_layers(fields, n_layers, |layer_idx| uses_window && layer_idx >= n_without)?;
    if is_windowed.contains(&true) && !uses_window {
        return Err(LlmError::config("layer_types", "has `sliding_attention`, but `use_sliding_window` is false"));
    }
    Ok(is_windowed)
}

/// The window of a model that has one somewhere: absent means 4096; null means none to a Mistral.
fn window(architecture: Architecture, fields: &mut Fields) -> Result<Option<usize>, LlmError> {
    let name = "sliding_window";
    let window = if fields.has(name) { fields.size(name)? } else { Some(4096) };
    match window {
        None if architecture != Architecture::Mistral => {
            Err(LlmError::config(name, "is null, but some layers have a window"))
        }
        window => Ok(window),
    }
}
