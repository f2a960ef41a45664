//! The settings of `init`.

use pipe_contract::{ProblemKind, Reader};

/// How the weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 4 bytes.
    Float32,
    /// 2 bytes; drawn as f32, then rounded to the nearest.
    Bfloat16,
}

impl Dtype {
    /// Hugging Face's word.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::Float32 => "float32",
            Dtype::Bfloat16 => "bfloat16",
        }
    }
}

/// The shape of the model: keys of a Hugging Face Llama `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Width of the residual stream, in channels.
    pub hidden_size: u64,
    /// Width of the gated MLP, in channels.
    pub intermediate_size: u64,
    /// Layers.
    pub num_hidden_layers: u64,
    /// Query heads; they divide `hidden_size` into an even number of channels each.
    pub num_attention_heads: u64,
    /// Key and value heads; they divide the query heads.
    pub num_key_value_heads: u64,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: u64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// Whether the head multiplies by the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Standard deviation of the weights.
    pub initializer_range: f64,
}

/// `with:` of an `init` stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The model's shape.
    pub shape: Shape,
    /// Most tokens of the vocabulary, the end of text and 256 bytes included.
    pub vocab_size: usize,
    /// Of the weights.
    pub seed: u64,
    /// How the weights are stored.
    pub dtype: Dtype,
}

impl Settings {
    /// Reads `with:`.
    pub fn read(reader: &mut Reader) -> Self {
        let shape = reader.section("config", Shape::read);
        let vocab_size = reader.integer("vocab_size", 1024, 257..=1_000_000) as usize;
        let seed = reader.integer("seed", 42, 0..=i64::MAX as u64);
        let dtype = match reader.choice("dtype", "float32", &["float32", "bfloat16"]) {
            "bfloat16" => Dtype::Bfloat16,
            _ => Dtype::Float32,
        };
        Settings { shape, vocab_size, seed, dtype }
    }
}

impl Shape {
    /// The defaults make about a million parameters.
    fn read(reader: &mut Reader) -> Self {
        let hidden_size = reader.integer("hidden_size", 128, 2..=65_536);
        let intermediate_size = reader.integer("intermediate_size", 352, 1..=1_048_576);
        let num_hidden_layers = reader.integer("num_hidden_layers", 4, 1..=1000);
        let num_attention_heads = reader.integer("num_attention_heads", 4, 1..=4096);
        let num_key_value_heads = read_key_value_heads(reader, num_attention_heads);
        let shape = Shape {
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            max_position_embeddings: reader.integer("max_position_embeddings", 512, 1..=1_048_576),
            rope_theta: reader.float("rope_theta", 10_000.0, 1.0..=1e12),
            rms_norm_eps: reader.float("rms_norm_eps", 1e-5, 1e-12..=0.1),
            tie_word_embeddings: reader.bool("tie_word_embeddings", true),
            initializer_range: reader.float("initializer_range", 0.02, 0.0..=10.0),
        };
        shape.check(reader);
        shape
    }

    fn check(&self, reader: &mut Reader) {
        let Shape { hidden_size, num_attention_heads: heads, num_key_value_heads: kv_heads, .. } = *self;
        if !hidden_size.is_multiple_of(heads * 2) {
            let message =
                format!("`hidden_size` is {hidden_size}, but must be an even multiple of the {heads} attention heads");
            let fitting = hidden_size.div_ceil(heads * 2) * heads * 2;
            reader.problem("hidden_size", ProblemKind::OutOfRange, message, Some(format!("{fitting} would fit")));
        }
        if !heads.is_multiple_of(kv_heads) {
            let message = format!("`num_key_value_heads` is {kv_heads}, but must divide the {heads} attention heads");
            reader.problem("num_key_value_heads", ProblemKind::OutOfRange, message, None);
        }
    }
}

/// As many as the query heads where it is absent; written out, that is the same setting.
fn read_key_value_heads(reader: &mut Reader, num_attention_heads: u64) -> u64 {
    let given = reader.optional_integer("num_key_value_heads", 1..=4096);
    let value = given.unwrap_or(num_attention_heads);
    if value == num_attention_heads {
        reader.not_in_key("num_key_value_heads");
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> (Settings, Vec<String>, Vec<String>) {
        let (settings, key, problems) = pipe_contract::read_yaml(yaml, Settings::read);
        (settings, key.keys().cloned().collect(), problems.into_iter().map(|p| p.message).collect())
    }

    #[test]
    fn defaults_fit_together_and_are_not_in_the_key() {
        let (settings, key, problems) = read("{}");
        assert!(key.is_empty() && problems.is_empty());
        assert_eq!(
            read("{ config: { num_key_value_heads: 4, rope_theta: 1e4 }, dtype: float32 }"),
            (settings, key, problems)
        );
    }

    #[test]
    fn sizes_that_do_not_fit_are_all_reported() {
        let (_, _, problems) =
            read("{ config: { hidden_size: 100, num_attention_heads: 6, num_key_value_heads: 4 }, vocab_size: 256 }");
        assert_eq!(
            problems,
            [
                "`hidden_size` is 100, but must be an even multiple of the 6 attention heads",
                "`num_key_value_heads` is 4, but must divide the 6 attention heads",
                "`vocab_size` is `256`, but must be a whole number from 257 to 1000000",
            ]
        );
    }
}
