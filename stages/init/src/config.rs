//! The JSON files of a model folder, with their fields in a fixed order.
//!
//! `rope_theta` and `torch_dtype` stand where transformers 4 has them; transformers 5 and others read that too.

use serde::Serialize;

use crate::settings::Settings;

/// The token that ends a text. It gets id 0.
pub(crate) const END_TOKEN: &str = "<|endoftext|>";
/// Its id.
pub(crate) const END_ID: u32 = 0;

/// Name and text of each JSON file but `tokenizer.json`. `vocab_size`: of the tokenizer.
pub(crate) fn json_files(settings: &Settings, vocab_size: usize) -> [(&'static str, String); 4] {
    let shape = &settings.shape;
    let config = ModelConfig {
        architectures: ["LlamaForCausalLM"],
        attention_bias: false,
        attention_dropout: 0.0,
        bos_token_id: None,
        eos_token_id: END_ID,
        head_dim: shape.hidden_size / shape.num_attention_heads,
        hidden_act: "silu",
        hidden_size: shape.hidden_size,
        initializer_range: shape.initializer_range,
        intermediate_size: shape.intermediate_size,
        max_position_embeddings: shape.max_position_embeddings,
        mlp_bias: false,
        model_type: "llama",
        num_attention_heads: shape.num_attention_heads,
        num_hidden_layers: shape.num_hidden_layers,
        num_key_value_heads: shape.num_key_value_heads,
        pretraining_tp: 1,
        rms_norm_eps: shape.rms_norm_eps,
        rope_scaling: None,
        rope_theta: shape.rope_theta,
        tie_word_embeddings: shape.tie_word_embeddings,
        torch_dtype: settings.dtype.name(),
        use_cache: true,
        vocab_size,
    };
    let tokenizer_config = TokenizerConfig {
        add_prefix_space: false,
        bos_token: None,
        clean_up_tokenization_spaces: false,
        eos_token: END_TOKEN,
        model_max_length: shape.max_position_embeddings,
        pad_token: None,
        tokenizer_class: "PreTrainedTokenizerFast",
        unk_token: None,
    };
    [
        ("config.json", pretty(&config)),
        ("generation_config.json", pretty(&GenerationConfig { _from_model_config: true, eos_token_id: END_ID })),
        ("tokenizer_config.json", pretty(&tokenizer_config)),
        ("special_tokens_map.json", pretty(&SpecialTokensMap { eos_token: END_TOKEN })),
    ]
}

#[derive(Serialize)]
struct ModelConfig {
    architectures: [&'static str; 1],
    attention_bias: bool,
    attention_dropout: f64,
    bos_token_id: Option<u32>,
    eos_token_id: u32,
    head_dim: u64,
    hidden_act: &'static str,
    hidden_size: u64,
    initializer_range: f64,
    intermediate_size: u64,
    max_position_embeddings: u64,
    mlp_bias: bool,
    model_type: &'static str,
    num_attention_heads: u64,
    num_hidden_layers: u64,
    num_key_value_heads: u64,
    pretraining_tp: u32,
    rms_norm_eps: f64,
    rope_scaling: Option<()>,
    rope_theta: f64,
    tie_word_embeddings: bool,
    torch_dtype: &'static str,
    use_cache: bool,
    vocab_size: usize,
}

#[derive(Serialize)]
struct GenerationConfig {
    _from_model_config: bool,
    eos_token_id: u32,
}

#[derive(Serialize)]
struct TokenizerConfig {
    add_prefix_space: bool,
    bos_token: Option<&'static str>,
    clean_up_tokenization_spaces: bool,
    eos_token: &'static str,
    model_max_length: u64,
    pad_token: Option<&'static str>,
    tokenizer_class: &'static str,
    unk_token: Option<&'static str>,
}

#[derive(Serialize)]
struct SpecialTokensMap {
    eos_token: &'static str,
}

fn pretty(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("numbers and strings always serialize");
    text.push('\n');
    text
}
