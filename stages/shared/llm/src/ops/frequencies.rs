//! The frequencies of rotary positions, after transformers' `modeling_rope_utils.py`, in f32 where it computes in f32.
//!
//! ```text
//! default  f_i = theta^(-2i/d)         d: channels that turn; i in 0..d/2; radians per position
//! linear   f_i / factor
//! llama3   waves shorter than a border keep f_i, those longer than another get f_i / factor, between them a mixture
//! yarn     the same with borders in channels, and cosines and sines stretched by an attention factor
//! longrope f_i / short_factor_i, or f_i / long_factor_i in documents longer than those of the pretraining; stretched likewise
//! ```

use pipe_kernels::rope::default_frequencies;

use crate::config::{Rope, RopeScaling};

/// Frequencies, radians per position, (rotary_dim / 2).
#[derive(Clone, Debug, PartialEq)]
pub struct Frequencies {
    /// Of all documents, or of those that are not long.
    pub usual: Vec<f32>,
    /// The longest document that is not long, in tokens, and the frequencies of those that are.
    pub of_long_documents: Option<(usize, Vec<f32>)>,
    /// Factor of cosines and sines.
    pub attention_factor: f64,
}

/// What a rope's config means.
pub fn frequencies(rope: &Rope) -> Frequencies {
    let base = default_frequencies(rope.rotary_dim, rope.theta as f32);
    let alone = |usual| Frequencies { usual, of_long_documents: None, attention_factor: 1.0 };
    match &rope.scaling {
        RopeScaling::None => alone(base),
        RopeScaling::Linear { factor } => alone(base.iter().map(|f| f / *factor as f32).collect()),
        &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions } => {
            let scaled = |f: &f32| llama3(*f, factor, [low_freq_factor, high_freq_factor], original_positions as f64);
            alone(base.iter().map(scaled).collect())
        }
        &RopeScaling::Yarn { factor, attention_factor, .. } => {
            let [low, high] = yarn_borders(rope);
            let scaled = |(i, f): (usize, &f32)| {
                let ramp = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
                let kept = 1.0 - ramp;
                // 1 / (factor / f), as transformers rounds it.
                let interpolated = 1.0 / (factor as f32 * (1.0 / f));
                interpolated * (1.0 - kept) + f * kept
            };
            let usual = base.iter().enumerate().map(scaled).collect();
            Frequencies { usual, of_long_documents: None, attention_factor }
        }
        RopeScaling::LongRope { short_factor, long_factor, original_positions, attention_factor } => {
            let divided = |factors: &[f64]| -> Vec<f32> {
                base.iter().zip(factors).map(|(f, factor)| 1.0 / (*factor as f32 * (1.0 / f))).collect()
            };
            Frequencies {
                usual: divided(short_factor),
                of_long_documents: Some((*original_positions, divided(long_factor))),
                attention_factor: *attention_factor,
            }
        }
    }
}

/// `_compute_llama3_parameters` for one frequency.
fn llama3(f: f32, factor: f64, [low, high]: [f64; 2], original: f64) -> f32 {
    let wave = std::f32::consts::TAU / f;
    let divided = f / factor as f32;
    if wave > (original / low) as f32 {
        divided
    } else if wave < (original / high) as f32 {
        f
    } else {
        let smooth = (original as f32 / wave - low as f32) / (high - low) as f32;
        (1.0 - smooth) * f / factor as f32 + smooth * f
    }
}

/// The channels between which frequencies are mixed (`find_correction_range`): those that turn `beta_fast` and `beta_slow` times within the
/// pretrained length.
fn yarn_borders(rope: &Rope) -> [f64; 2] {
    let RopeScaling::Yarn { beta_fast, beta_slow, original_positions, truncate, .. } = rope.scaling else {
        unreachable!("called for yarn")
    };
    let dim = rope.rotary_dim as f64;
    let channel = |n_turns: f64| {
        dim * libm::log(original_positions as f64 / (n_turns * 2.0 * std::f64::consts::PI))
            / (2.0 * libm::log(rope.theta))
    };
    let (mut low, mut high) = (channel(beta_fast), channel(beta_slow));
    if truncate {
        (low, high) = (libm::floor(low), libm::ceil(high));
    }
    let (low, high) = (low.max(0.0), high.min(dim - 1.0));
    [low, if low == high { high + 0.001 } else { high }]
}
