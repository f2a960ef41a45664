//! Rotary positions as configs write them.
//!
//! ```text
//! transformers 4   "rope_theta": 500000.0, "rope_scaling": {"type": "linear", "factor": 2.0}
//! transformers 5   "rope_parameters": {"rope_theta": 500000.0, "rope_type": "linear", "factor": 2.0}
//! ```
//!
//! After transformers' `modeling_rope_utils.py`: which field of which type means what, and what it means where it is absent. What is made of them
//! is in [`crate::ops::frequencies`].

use serde_json::{Map, Value};

use super::fields::Fields;
use crate::error::LlmError;

/// Rotary positions: pairs of channels that turn by `position x frequency`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Channels of a head that turn: the first ones, an even number.
    pub rotary_dim: usize,
    /// What becomes of the frequencies.
    pub scaling: RopeScaling,
}

/// Ways to stretch rotary positions beyond the length that a model was pretrained with.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// None. Also `dynamic` (NTK): it changes nothing up to `max_position_embeddings` tokens, and longer sequences are refused.
    None,
    /// Frequencies divided by a factor.
    Linear {
        /// Above 0.
        factor: f64,
    },
    /// Llama 3.1: long waves divided, short ones kept, those between interpolated.
    Llama3 {
        /// Of long waves.
        factor: f64,
        /// Waves longer than `original_positions / low` are long.
        low_freq_factor: f64,
        /// Waves shorter than `original_positions / high` are short.
        high_freq_factor: f64,
        /// Of pretraining.
        original_positions: usize,
    },
    /// YaRN (arXiv 2309.00071).
    Yarn {
        /// Of interpolated frequencies.
        factor: f64,
        /// Turns within `original_positions` from which on a frequency is kept.
        beta_fast: f64,
        /// Turns up to which it is divided by the factor.
        beta_slow: f64,
        /// Of pretraining.
        original_positions: usize,
        /// Whether the borders between are whole channels.
        truncate: bool,
        /// Factor of cosines and sines.
        attention_factor: f64,
    },
    /// LongRoPE (arXiv 2402.13753): a divisor for each frequency, and other ones for long documents.
    LongRope {
        /// (rotary_dim / 2): of documents up to `original_positions`.
        short_factor: Vec<f64>,
        /// (rotary_dim / 2): of longer ones.
        long_factor: Vec<f64>,
        /// Of pretraining.
        original_positions: usize,
        /// Factor of cosines and sines, at any length.
        attention_factor: f64,
    },
}

/// Whether a family's code honours `partial_rotary_factor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Partial {
    Allowed,
    Refused,
}

impl Rope {
    pub(super) fn check(&self, head_dim: usize) -> Result<(), LlmError> {
        let bad = |field: &str, why: String| Err(LlmError::config(field, why));
        if !(self.theta.is_finite() && self.theta > 0.0) {
            return bad("rope_theta", format!("is {}", self.theta));
        }
        let Rope { rotary_dim, .. } = *self;
        if rotary_dim == 0 || !rotary_dim.is_multiple_of(2) || rotary_dim > head_dim {
            let why = format!("leaves {rotary_dim} of {head_dim} channels to turn; it must be an even number");
            return bad("partial_rotary_factor", why);
        }
        if let RopeScaling::LongRope { short_factor, long_factor, .. } = &self.scaling {
            for (name, factors) in [("short_factor", short_factor), ("long_factor", long_factor)] {
                if factors.len() != rotary_dim / 2 {
                    return bad(name, format!("has {} numbers for {} frequencies", factors.len(), rotary_dim / 2));
                }
                if let Some(factor) = factors.iter().find(|factor| !(factor.is_finite() && **factor > 0.0)) {
                    return bad(name, format!("has {factor}, not a number above 0"));
                }
            }
        }
        Ok(())
    }
}

/// The rope of a model that has one. transformers takes theta 10,000 where the config does not say.
pub(super) fn read(
    fields: &mut Fields,
    head_dim: usize,
    max_positions: usize,
    partial: Partial,
) -> Result<Rope, LlmError> {
    let theta = fields.number("rope_theta")?;
    let entries = Entries::take(fields)?;
    let original_positions = fields.size("original_max_position_embeddings")?;
    let context = Context { head_dim, max_positions, original_positions, partial };
    let outer_partial = fields.number("partial_rotary_factor")?;
    context.rope(entries, theta, outer_partial, 10_000.0)
}

/// As [`read`]; `su` and `yarn` are old names of LongRoPE here, and the pretrained length is 4096 where nobody says (`Phi3Config`).
pub(super) fn read_phi3(
    fields: &mut Fields,
    head_dim: usize,
    max_positions: usize,
    partial: Partial,
) -> Result<Rope, LlmError> {
    let theta = fields.number("rope_theta")?;
    let mut entries = Entries::take(fields)?;
    for name in ["type", "rope_type"] {
        if let Some(value) = entries.map.get_mut(name)
            && (value == "su" || value == "yarn")
        {
            *value = "longrope".into();
        }
    }
    let kind = entries.kind()?;
    if !["default", "longrope"].contains(&kind.as_str()) {
        return Err(LlmError::config(
            entries.name,
            format!("has the type `{kind}`; a Phi-3 has `default` or `longrope`"),
        ));
    }
    let original_positions = Some(fields.size("original_max_position_embeddings")?.unwrap_or(4096));
    let context = Context { head_dim, max_positions, original_positions, partial };
    let outer_partial = fields.number("partial_rotary_factor")?;
    context.rope(entries, theta, outer_partial, 10_000.0)
}

/// The ropes of layers without and with a window: theta 1,000,000 and 10,000 where the config does not say. `rope_scaling` is that of the first
/// (`Gemma3TextConfig.convert_rope_params_to_dict`).
pub(super) fn read_gemma3(fields: &mut Fields, head_dim: usize, max_positions: usize) -> Result<[Rope; 2], LlmError> {
    let context = Context { head_dim, max_positions, original_positions: None, partial: Partial::Refused };
    let (theta, local_theta) = (fields.number("rope_theta")?, fields.number("rope_local_base_freq")?);
    let entries = Entries::take(fields)?;
    let (full, windowed) = if entries.name == "rope_parameters" {
        let nested = |layer_type: &str| match entries.map.get(layer_type) {
            None | Some(Value::Null) => Ok(Entries { name: entries.name, map: Map::new() }),
            Some(Value::Object(map)) => Ok(Entries { name: entries.name, map: map.clone() }),
            Some(value) => {
                Err(LlmError::config(entries.name, format!("has `{layer_type}: {value}`, which is not an object")))
            }
        };
        if let Some(key) =
            entries.map.keys().find(|key| !["full_attention", "sliding_attention"].contains(&key.as_str()))
        {
            let why = format!("has `{key}`; a Gemma 3 has `full_attention` and `sliding_attention` there");
            return Err(LlmError::config(entries.name, why));
        }
        (nested("full_attention")?, nested("sliding_attention")?)
    } else {
        (entries, Entries { name: "rope_parameters", map: Map::new() })
    };
    Ok([context.rope(full, theta, None, 1_000_000.0)?, context.rope(windowed, local_theta, None, 10_000.0)?])
}

/// The object under `rope_scaling` or `rope_parameters`; empty where there is none.
struct Entries {
    name: &'static str,
    map: Map<String, Value>,
}

impl Entries {
    fn take(fields: &mut Fields) -> Result<Self, LlmError> {
        let mut found: Option<Entries> = None;
        for name in ["rope_scaling", "rope_parameters"] {
            let Some(value) = fields.take(name) else { continue };
            let Value::Object(map) = value else {
                return Err(LlmError::config(name, format!("is `{value}`, not an object")));
            };
            if found.is_some() {
                return Err(LlmError::config(name, "is given beside `rope_scaling`, which says the same thing"));
            }
            found = Some(Entries { name, map });
        }
        Ok(found.unwrap_or(Entries { name: "rope_scaling", map: Map::new() }))
    }

    /// The value under `key`; `None` where it is absent or null.
    fn remove(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|value| !value.is_null())
    }

    fn number(&mut self, key: &str) -> Result<Option<f64>, LlmError> {
        let Some(value) = self.remove(key) else { return Ok(None) };
        match value.as_f64().filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(self.error(format!("has `{key}: {value}`, which is not a number"))),
        }
    }

    fn positive(&mut self, key: &str) -> Result<Option<f64>, LlmError> {
        match self.number(key)? {
            Some(number) if number <= 0.0 => Err(self.error(format!("has `{key}: {number}`, which is not above 0"))),
            number => Ok(number),
        }
    }

    fn required(&mut self, key: &str) -> Result<f64, LlmError> {
        self.positive(key)?.ok_or_else(|| self.error(format!("has no `{key}`")))
    }

    fn numbers(&mut self, key: &str) -> Result<Vec<f64>, LlmError> {
        let value = self.remove(key).ok_or_else(|| self.error(format!("has no `{key}`")))?;
        let numbers = value.as_array().and_then(|items| items.iter().map(Value::as_f64).collect());
        numbers.ok_or_else(|| self.error(format!("has a `{key}` that is not a list of numbers")))
    }

    /// `rope_type`, or its older name `type`.
    fn kind(&self) -> Result<String, LlmError> {
        let mut kinds = ["rope_type", "type"].into_iter().filter_map(|key| self.map.get(key)).filter(|v| !v.is_null());
        let kind = kinds.next();
        if let (Some(kind), Some(other)) = (kind, kinds.next())
            && kind != other
        {
            return Err(self.error(format!("has the types {kind} and {other}")));
        }
        match kind.map(|kind| (kind, kind.as_str())) {
            None => Ok("default".into()),
            Some((_, Some(kind))) => Ok(kind.into()),
            Some((kind, None)) => Err(self.error(format!("has the type {kind}, which is not a name"))),
        }
    }

    fn error(&self, why: impl Into<String>) -> LlmError {
        LlmError::config(self.name, why)
    }
}

/// What a rope's meaning depends on beside its own entries.
#[derive(Clone, Copy)]
struct Context {
    head_dim: usize,
    max_positions: usize,
    /// The field beside the rope's own entries, which goes before the one among them.
    original_positions: Option<usize>,
    partial: Partial,
}

impl Context {
    fn rope(
        self,
        mut entries: Entries,
        outer_theta: Option<f64>,
        outer_partial: Option<f64>,
        default_theta: f64,
    ) -> Result<Rope, LlmError> {
        let theta = entries.number("rope_theta")?;
        if let (Some(theta), Some(outer)) = (theta, outer_theta)
            && theta != outer
        {
            return Err(entries.error(format!("says rope_theta {theta}, but the field `rope_theta` says {outer}")));
        }
        let partial = entries.number("partial_rotary_factor")?.or(outer_partial).unwrap_or(1.0);
        if partial != 1.0 && self.partial == Partial::Refused {
            return Err(LlmError::config("partial_rotary_factor", format!("is {partial}; only 1 is supported")));
        }
        let kind = entries.kind()?;
        for key in ["rope_type", "type"] {
            entries.map.remove(key);
        }
        let scaling = self.scaling(&kind, &mut entries)?;
        if let Some((key, value)) = entries.map.iter().find(|(_, value)| !value.is_null()) {
            return Err(entries.error(format!("has `{key}: {value}`, which does not belong to the type `{kind}`")));
        }
        let rotary_dim = (self.head_dim as f64 * partial) as usize;
        Ok(Rope { theta: theta.or(outer_theta).unwrap_or(default_theta), rotary_dim, scaling })
    }

    fn scaling(self, kind: &str, entries: &mut Entries) -> Result<RopeScaling, LlmError> {
        let kinds = ["default", "linear", "dynamic", "llama3", "yarn", "longrope"];
        Ok(match kind {
            "default" => {
                entries.map.remove("original_max_position_embeddings");
                RopeScaling::None
            }
            "linear" => RopeScaling::Linear { factor: entries.required("factor")? },
            "dynamic" => {
                entries.required("factor")?;
                entries.map.remove("original_max_position_embeddings");
                RopeScaling::None
            }
            "llama3" => RopeScaling::Llama3 {
                factor: entries.required("factor")?,
                low_freq_factor: entries.required("low_freq_factor")?,
                high_freq_factor: entries.required("high_freq_factor")?,
                original_positions: self.original_positions(entries)?,
            },
            "yarn" => self.yarn(entries)?,
            "longrope" => self.longrope(entries)?,
            _ => return Err(entries.error(format!("has the type `{kind}`; supported are {}", kinds.join(", ")))),
        })
    }

    fn original_positions(self, entries: &mut Entries) -> Result<usize, LlmError> {
        let inner = entries.positive("original_max_position_embeddings")?.map(|n| n as usize);
        Ok(self.original_positions.or(inner).unwrap_or(self.max_positions))
    }

    fn yarn(self, entries: &mut Entries) -> Result<RopeScaling, LlmError> {
        let original_positions = self.original_positions(entries)?;
        let ratio = self.max_positions as f64 / original_positions as f64;
        let factor = entries.positive("factor")?.unwrap_or(ratio);
        let (mscale, mscale_all_dim) = (entries.number("mscale")?, entries.number("mscale_all_dim")?);
        let magnitude = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * libm::log(factor) + 1.0 };
        let inferred = match (mscale.filter(|m| *m != 0.0), mscale_all_dim.filter(|m| *m != 0.0)) {
            (Some(mscale), Some(all_dim)) => magnitude(mscale) / magnitude(all_dim),
            _ => magnitude(1.0),
        };
        let truncate = match entries.remove("truncate") {
            None => true,
            Some(Value::Bool(truncate)) => truncate,
            Some(value) => return Err(entries.error(format!("has `truncate: {value}`, not true or false"))),
        };
        Ok(RopeScaling::Yarn {
            factor,
            beta_fast: entries.positive("beta_fast")?.unwrap_or(32.0),
            beta_slow: entries.positive("beta_slow")?.unwrap_or(1.0),
            original_positions,
            truncate,
            attention_factor: entries.positive("attention_factor")?.unwrap_or(inferred),
        })
    }

    fn longrope(self, entries: &mut Entries) -> Result<RopeScaling, LlmError> {
        let original_positions = self.original_positions(entries)?;
        let ratio = self.max_positions as f64 / original_positions as f64;
        let factor = entries.positive("factor")?.unwrap_or(ratio);
        let inferred = if factor <= 1.0 {
            1.0
        } else {
            libm::sqrt(1.0 + libm::log(factor) / libm::log(original_positions as f64))
        };
        Ok(RopeScaling::LongRope {
            short_factor: entries.numbers("short_factor")?,
            long_factor: entries.numbers("long_factor")?,
            original_positions,
            attention_factor: entries.positive("attention_factor")?.unwrap_or(inferred),
        })
    }
}
