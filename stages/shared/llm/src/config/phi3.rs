//! Phi-3, Phi-3.5 and Phi-4 mini: fused matrices, partial rotary positions, LongRoPE.

use super::fields::Fields;
use super::rope::{self, Partial};
use super::{Architecture, Layer, ModelConfig, Scores, Sizes, dropouts};
use crate::error::LlmError;

pub(super) fn read(fields: &mut Fields) -> Result<ModelConfig, LlmError> {
    fields.only("hidden_act", &["silu"])?;
    fields.only("attention_dropout", &[0.0])?;
    fields.only("attention_bias", &[false])?;
    fields.only("mlp_bias", &[false])?;
    fields.only("lm_head_bias", &[false])?;
    // Phi3Model has no dropout on the embedding.
    fields.ignore(&["embd_pdrop"]);
    let sizes = Sizes::read(fields, None)?;
    let scores = Scores { window: fields.size("sliding_window")?, ..sizes.scores() };
    let rope = rope::read_phi3(fields, sizes.head_dim, sizes.max_positions, Partial::Allowed)?;
    Ok(ModelConfig {
        ropes: vec![rope],
        layers: vec![Layer { scores, rope: Some(0) }; sizes.n_layers],
        norm_eps: fields.number("rms_norm_eps")?.unwrap_or(1e-5),
        is_tied: fields.flag("tie_word_embeddings", false)?,
        dropouts: dropouts(fields, &["resid_pdrop"])?,
        ..sizes.plain(Architecture::Phi3)
    })
}
