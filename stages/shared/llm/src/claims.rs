//! What a GGUF states beside its tensors, held against the model's config.
//!
//! ```text
//! gemma2.attn_logit_softcapping = 50   config.json "attn_logit_softcapping": 50.0   the same model
//! rope_factors_long = [1.1, 4.0]       config.json "long_factor": [1.1, 3.5]        refused: `long_factor[1]`
//! ```
//!
//! Shapes do not say how many heads there are, where a window ends, or how positions turn; a config beside a file that it was not made for
//! would compute something else. It deliberately asks nothing of a file that does not say it.

use pipe_kernels::rope::default_frequencies;
use pipe_weights::Claim;

use crate::config::{ModelConfig, Rope, RopeScaling};
use crate::error::LlmError;
use crate::ops::frequencies::frequencies;
use crate::weights::weights_error;

/// Numbers that two programs compute from the same settings, each in its own order: f32 sums and quotients.
const COMPUTED: [&str; 2] = ["rope_freqs", "attention_factor"];
/// Relative difference of a number of [`COMPUTED`].
const TOLERANCE: f64 = 1e-5;

/// Checks one statement of a weight file.
///
/// # Errors
/// The number that differs.
pub(crate) fn check(config: &ModelConfig, claim: &Claim) -> Result<(), LlmError> {
    let Some(ours) = ours(config, claim) else { return Ok(()) };
    let (n_theirs, n_ours) = (claim.values.len(), ours.len());
    if n_theirs != n_ours {
        let why = format!("has {n_theirs} numbers of `{}`, but config.json says {n_ours}", claim.field);
        return Err(weights_error(&claim.file, &why));
    }
    let is_same = |theirs: f64, ours: f64| match COMPUTED.contains(&claim.field) {
        true => (theirs - ours).abs() <= TOLERANCE * ours.abs(),
        false => theirs as f32 == ours as f32,
    };
    let differing = claim.values.iter().zip(&ours).position(|(theirs, ours)| !is_same(*theirs, *ours));
    let Some(idx) = differing else { return Ok(()) };
    let field = if n_ours == 1 { claim.field.to_string() } else { format!("{}[{idx}]", claim.field) };
    let why = format!("says that `{field}` is {}, but config.json says {}", claim.values[idx], ours[idx]);
    Err(weights_error(&claim.file, &why))
}

/// What `config` says of the field of `claim`; `None` where it is nothing that we know.
fn ours(config: &ModelConfig, claim: &Claim) -> Option<Vec<f64>> {
    let rope = config.ropes.first();
    let scores = config.layers.first().map(|layer| layer.scores);
    // 0 means none in a GGUF.
    let number = match claim.field {
        "num_hidden_layers" | "n_layer" => config.n_layers as f64,
        "hidden_size" | "n_embd" => config.hidden_size as f64,
        "num_attention_heads" | "n_head" => config.n_heads as f64,
        "num_key_value_heads" => config.n_kv_heads as f64,
        "head_dim" => config.head_dim as f64,
        "rms_norm_eps" | "layer_norm_epsilon" => config.norm_eps,
        "sliding_window" => config.layers.iter().find_map(|layer| layer.scores.window).unwrap_or(0) as f64,
        "attn_logit_softcapping" => scores?.cap.unwrap_or(0.0),
        "final_logit_softcapping" => config.logit_cap.unwrap_or(0.0),
        "rope_theta" => rope?.theta,
        // Of layers with a window, where they have another.
        "rope_local_base_freq" => config.ropes.get(1)?.theta,
        "rope.dimension_count" => rope?.rotary_dim as f64,
        "factor" => match &rope?.scaling {
            RopeScaling::Linear { factor } | RopeScaling::Yarn { factor, .. } => *factor,
            _ => 1.0,
        },
        "attention_factor" => match &rope?.scaling {
            RopeScaling::LongRope { attention_factor, .. } => *attention_factor,
            _ => 1.0,
        },
        _ => return factors(rope?, claim),
    };
    Some(vec![number])
}

/// Divisors of frequencies, one for each: 1 where the rope has none.
fn factors(rope: &Rope, claim: &Claim) -> Option<Vec<f64>> {
    Some(match (claim.field, &rope.scaling) {
        ("long_factor", RopeScaling::LongRope { long_factor, .. }) => long_factor.clone(),
        ("short_factor", RopeScaling::LongRope { short_factor, .. }) => short_factor.clone(),
        ("rope_freqs", RopeScaling::Llama3 { .. }) => {
            let unscaled = default_frequencies(rope.rotary_dim, rope.theta as f32);
            unscaled.iter().zip(frequencies(rope).usual).map(|(f, scaled)| f64::from(*f) / f64::from(scaled)).collect()
        }
        ("long_factor" | "short_factor" | "rope_freqs", _) => vec![1.0; rope.rotary_dim / 2],
        _ => return None,
    })
}
