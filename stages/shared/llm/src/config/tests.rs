//! What is read, and what is refused.

use super::*;
use crate::program::tensor_shapes;

const LLAMA: &str = r#"{"architectures":["LlamaForCausalLM"],"hidden_size":64,"intermediate_size":172,"num_hidden_layers":5,
    "num_attention_heads":8,"num_key_value_heads":4,"vocab_size":512,"max_position_embeddings":256,"rms_norm_eps":1e-5"#;

fn llama(rest: &str) -> Result<ModelConfig, LlmError> {
    ModelConfig::from_json(&format!("{LLAMA}{rest}}}"))
}

/// A config of `class` with sizes that every family but GPT-2 names alike.
fn of_class(class: &str, rest: &str) -> Result<ModelConfig, LlmError> {
    ModelConfig::from_json(&format!("{}{rest}}}", LLAMA.replace("LlamaForCausalLM", class)))
}

#[test]
fn both_ways_to_write_rope_theta_are_read() {
    let classic = llama(r#","rope_theta":50000.0,"rope_scaling":null"#).expect("classic");
    let new = llama(r#","rope_parameters":{"rope_theta":50000.0,"rope_type":"default"}"#).expect("new");
    assert_eq!(classic, new);
    assert_eq!(new.ropes[0].theta, 50_000.0);
    assert_eq!(llama("").expect("absent").ropes[0].theta, 10_000.0);
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    for (rest, field) in [
        (r#","rope_scaling":{"rope_type":"proportional","factor":8.0}"#, "proportional"),
        (r#","rope_scaling":{"rope_type":"llama3","factor":8.0}"#, "low_freq_factor"),
        (r#","rope_scaling":{"rope_type":"linear"}"#, "factor"),
        (r#","rope_scaling":{"rope_type":"linear","factor":0}"#, "factor"),
        (r#","rope_scaling":{"rope_type":"linear","type":"yarn","factor":2}"#, "yarn"),
        (r#","rope_scaling":{"rope_type":"default","factor":2}"#, "factor"),
        (r#","rope_scaling":{"rope_type":"default","mrope_section":[1]}"#, "mrope_section"),
        (r#","rope_scaling":{"type":"longrope","short_factor":[1.0],"long_factor":[1.0]}"#, "short_factor"),
        (r#","rope_scaling":{"type":"linear","factor":2},"rope_parameters":{"rope_theta":2}"#, "rope_parameters"),
        (r#","rope_theta":1.0,"rope_parameters":{"rope_theta":2.0}"#, "rope_parameters"),
        (r#","partial_rotary_factor":0.5"#, "partial_rotary_factor"),
        (r#","hidden_act":"gelu""#, "hidden_act"),
        (r#","quantization_config":{"bits":4}"#, "quantization_config"),
        (r#","some_new_field":true"#, "some_new_field"),
        (r#","pretraining_tp":2"#, "pretraining_tp"),
        (r#","attention_dropout":0.1"#, "attention_dropout"),
        (r#","head_dim":7"#, "head_dim"),
        (r#","attn_logit_softcapping":50.0"#, "attn_logit_softcapping"),
    ] {
        let error = llama(rest).expect_err(rest).to_string();
        assert!(error.contains(field), "{rest}: {error}");
    }
    for (class, rest, field) in [
        ("MistralForCausalLM", r#","layer_types":["full_attention"]"#, "layer_types"),
        ("MistralForCausalLM", r#","sliding_window":0"#, "sliding_window"),
        ("MistralForCausalLM", r#","attention_bias":true"#, "attention_bias"),
        (
            "Qwen2ForCausalLM",
            r#","use_sliding_window":true,"max_window_layers":2,"sliding_window":null"#,
            "sliding_window",
        ),
        ("Qwen2ForCausalLM", r#","layer_types":["full_attention"]"#, "layer_types"),
        ("Qwen3ForCausalLM", r#","layer_types":["chunked_attention","a","b","c","d"]"#, "chunked_attention"),
        (
            "Qwen3ForCausalLM",
            r#","layer_types":["sliding_attention","full_attention","full_attention","full_attention","full_attention"]"#,
            "use_sliding_window",
        ),
        ("Phi3ForCausalLM", r#","rope_scaling":{"type":"linear","factor":2}"#, "linear"),
        ("Phi3ForCausalLM", r#","attention_bias":true"#, "attention_bias"),
        ("Phi3ForCausalLM", r#","partial_rotary_factor":0.1"#, "partial_rotary_factor"),
        ("Phi3ForCausalLM", r#","resid_pdrop":1.5"#, "resid_pdrop"),
        ("Gemma2ForCausalLM", r#","hidden_activation":"gelu""#, "hidden_activation"),
        ("Gemma2ForCausalLM", r#","use_bidirectional_attention":true"#, "use_bidirectional_attention"),
        ("Gemma2ForCausalLM", r#","query_pre_attn_scalar":0"#, "query_pre_attn_scalar"),
        ("Gemma2ForCausalLM", r#","final_logit_softcapping":-1"#, "final_logit_softcapping"),
        ("Gemma2ForCausalLM", r#","sliding_window":null"#, "sliding_window"),
        ("Gemma3ForCausalLM", r#","attn_logit_softcapping":50.0"#, "attn_logit_softcapping"),
        ("Gemma3ForCausalLM", r#","sliding_window_pattern":0"#, "sliding_window_pattern"),
        ("Gemma3ForCausalLM", r#","rope_parameters":{"rope_theta":1}"#, "rope_theta"),
    ] {
        let error = of_class(class, rest).expect_err(rest).to_string();
        assert!(error.contains(field), "{class} {rest}: {error}");
    }
    for (rest, field) in [
        (r#","activation_function":"gelu""#, "activation_function"),
        (r#","add_cross_attention":true"#, "add_cross_attention"),
        (r#","n_head":5"#, "n_head"),
        (r#","attn_pdrop":-0.1"#, "attn_pdrop"),
        (r#","hidden_size":24"#, "hidden_size"),
    ] {
        let text = r#"{"model_type":"gpt2","n_embd":24,"n_layer":1,"n_head":4,"n_positions":8,"vocab_size":8"#;
        let text = if rest.contains("n_head") { text.replace(r#","n_head":4"#, "") } else { text.to_string() };
        let error = ModelConfig::from_json(&format!("{text}{rest}}}")).expect_err(rest).to_string();
        assert!(error.contains(field), "{rest}: {error}");
    }
}

#[test]
fn an_unknown_architecture_is_an_error() {
    let error = ModelConfig::from_json(r#"{"architectures":["MambaForCausalLM"]}"#).expect_err("has no program");
    let error = error.to_string();
    assert!(error.contains("MambaForCausalLM") && error.contains("`Gemma2ForCausalLM`"), "{error}");
    assert!(llama(r#","model_type":"olmo""#).expect_err("not Llama").to_string().contains("olmo"));
    assert!(llama(r#","model_type":"qwen2""#).expect_err("both").to_string().contains("model_type"));
}

#[test]
fn tensor_shapes_count_the_parameters() {
    let config = llama(r#","tie_word_embeddings":true"#).expect("valid");
    assert_eq!(n_parameters(&config), 260_032); // stories260K has these sizes
}

fn n_parameters(config: &ModelConfig) -> usize {
    tensor_shapes(config).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
}

/// Layers with a window, each with its window.
fn windows(config: &ModelConfig) -> Vec<(usize, usize)> {
    config.layers.iter().enumerate().filter_map(|(idx, layer)| Some((idx, layer.scores.window?))).collect()
}

/// The configs of released models, and the parameters that their cards name (of what lies on disk).
#[test]
fn released_models_are_read() {
    for (name, n, text) in [
        (
            "Llama-2-7b",
            6_738_415_616,
            r#"{"architectures":["LlamaForCausalLM"],"bos_token_id":1,"eos_token_id":2,"hidden_act":"silu","hidden_size":4096,
            "initializer_range":0.02,"intermediate_size":11008,"max_position_embeddings":4096,"model_type":"llama","num_attention_heads":32,
            "num_hidden_layers":32,"num_key_value_heads":32,"pretraining_tp":1,"rms_norm_eps":1e-05,"rope_scaling":null,
            "tie_word_embeddings":false,"torch_dtype":"float16","transformers_version":"4.31.0.dev0","use_cache":true,"vocab_size":32000}"#,
        ),
        (
            "Meta-Llama-3.1-8B",
            8_030_261_248,
            r#"{"architectures":["LlamaForCausalLM"],"attention_bias":false,"attention_dropout":0.0,"bos_token_id":128000,"eos_token_id":128001,
            "hidden_act":"silu","hidden_size":4096,"initializer_range":0.02,"intermediate_size":14336,"max_position_embeddings":131072,
            "mlp_bias":false,"model_type":"llama","num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":8,"pretraining_tp":1,
            "rms_norm_eps":1e-05,"rope_scaling":{"factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
            "original_max_position_embeddings":8192,"rope_type":"llama3"},"rope_theta":500000.0,"tie_word_embeddings":false,
            "torch_dtype":"bfloat16","transformers_version":"4.43.0.dev0","use_cache":true,"vocab_size":128256}"#,
        ),
        (
            "SmolLM2-135M",
            134_515_008,
            r#"{"architectures":["LlamaForCausalLM"],"attention_bias":false,"attention_dropout":0.0,"bos_token_id":0,"eos_token_id":0,
            "hidden_act":"silu","hidden_size":576,"initializer_range":0.041666666666666664,"intermediate_size":1536,"is_llama_config":true,
            "max_position_embeddings":8192,"model_type":"llama","num_attention_heads":9,"num_hidden_layers":30,"num_key_value_heads":3,
            "pretraining_tp":1,"rms_norm_eps":1e-05,"rope_interleaved":false,"rope_scaling":null,"rope_theta":100000,
            "tie_word_embeddings":true,"torch_dtype":"bfloat16","transformers_version":"4.40.1","use_cache":true,"vocab_size":49152}"#,
        ),
        (
            "SmolLM-135M",
            134_515_008,
            r#"{"architectures":["LlamaForCausalLM"],"attention_bias":false,"attention_dropout":0.0,"bos_token_id":0,"eos_token_id":0,
            "hidden_act":"silu","hidden_size":576,"initializer_range":0.02,"intermediate_size":1536,"max_position_embeddings":2048,
            "model_type":"llama","num_attention_heads":9,"num_hidden_layers":30,"num_key_value_heads":3,"pretraining_tp":1,"rms_norm_eps":1e-05,
            "rope_scaling":null,"rope_theta":10000.0,"tie_word_embeddings":true,"torch_dtype":"bfloat16","transformers_version":"4.40.1",
            "use_cache":true,"vocab_size":49152}"#,
        ),
        (
            "TinyLlama-1.1B-Chat-v1.0",
            1_100_048_384,
            r#"{"architectures":["LlamaForCausalLM"],"attention_bias":false,"bos_token_id":1,"eos_token_id":2,"hidden_act":"silu",
            "hidden_size":2048,"initializer_range":0.02,"intermediate_size":5632,"max_position_embeddings":2048,"model_type":"llama",
            "num_attention_heads":32,"num_hidden_layers":22,"num_key_value_heads":4,"pretraining_tp":1,"rms_norm_eps":1e-05,
            "rope_scaling":null,"rope_theta":10000.0,"tie_word_embeddings":false,"torch_dtype":"bfloat16","transformers_version":"4.35.0",
            "use_cache":true,"vocab_size":32000}"#,
        ),
        (
            "xgen-7b-8k-base",
            6_895_702_016,
            r#"{"architectures":["LlamaForCausalLM"],"bos_token_id":50256,"eos_token_id":50256,"hidden_act":"silu","hidden_size":4096,
            "initializer_range":0.02,"intermediate_size":11008,"max_position_embeddings":8192,"model_type":"llama","num_attention_heads":32,
            "num_hidden_layers":32,"pad_token_id":0,"rms_norm_eps":1e-06,"tie_word_embeddings":false,"torch_dtype":"float32",
            "transformers_version":"4.29.2","use_cache":true,"vocab_size":51200}"#,
        ),
        (
            "Mistral-7B-v0.1",
            7_241_732_096,
            r#"{"architectures":["MistralForCausalLM"],"bos_token_id":1,"eos_token_id":2,"hidden_act":"silu","hidden_size":4096,
            "initializer_range":0.02,"intermediate_size":14336,"max_position_embeddings":32768,"model_type":"mistral","num_attention_heads":32,
            "num_hidden_layers":32,"num_key_value_heads":8,"rms_norm_eps":1e-05,"rope_theta":10000.0,"sliding_window":4096,
            "tie_word_embeddings":false,"torch_dtype":"bfloat16","transformers_version":"4.34.0.dev0","use_cache":true,"vocab_size":32000}"#,
        ),
        (
            "Qwen2.5-0.5B",
            494_032_768,
            r#"{"architectures":["Qwen2ForCausalLM"],"attention_dropout":0.0,"bos_token_id":151643,"eos_token_id":151643,"hidden_act":"silu",
            "hidden_size":896,"initializer_range":0.02,"intermediate_size":4864,"max_position_embeddings":32768,"max_window_layers":24,
            "model_type":"qwen2","num_attention_heads":14,"num_hidden_layers":24,"num_key_value_heads":2,"rms_norm_eps":1e-06,
            "rope_theta":1000000.0,"sliding_window":32768,"tie_word_embeddings":true,"torch_dtype":"bfloat16","transformers_version":"4.40.1",
            "use_cache":true,"use_mrope":false,"use_sliding_window":false,"vocab_size":151936}"#,
        ),
        (
            "Qwen3-0.6B",
            596_049_920,
            r#"{"architectures":["Qwen3ForCausalLM"],"attention_bias":false,"attention_dropout":0.0,"bos_token_id":151643,"eos_token_id":151645,
            "head_dim":128,"hidden_act":"silu","hidden_size":1024,"initializer_range":0.02,"intermediate_size":3072,
            "max_position_embeddings":40960,"max_window_layers":28,"model_type":"qwen3","num_attention_heads":16,"num_hidden_layers":28,
            "num_key_value_heads":8,"rms_norm_eps":1e-06,"rope_scaling":null,"rope_theta":1000000,"sliding_window":null,
            "tie_word_embeddings":true,"torch_dtype":"bfloat16","transformers_version":"4.51.0","use_cache":true,"use_sliding_window":false,
            "vocab_size":151936}"#,
        ),
        (
            "Phi-3-mini-4k-instruct",
            3_821_079_552,
            r#"{"_name_or_path":"Phi-3-mini-4k-instruct","architectures":["Phi3ForCausalLM"],"attention_dropout":0.0,
            "auto_map":{"AutoConfig":"configuration_phi3.Phi3Config","AutoModelForCausalLM":"modeling_phi3.Phi3ForCausalLM"},"bos_token_id":1,
            "embd_pdrop":0.0,"eos_token_id":32000,"hidden_act":"silu","hidden_size":3072,"initializer_range":0.02,"intermediate_size":8192,
            "max_position_embeddings":4096,"model_type":"phi3","num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":32,
            "original_max_position_embeddings":4096,"pad_token_id":32000,"resid_pdrop":0.0,"rms_norm_eps":1e-05,"rope_scaling":null,
            "rope_theta":10000.0,"sliding_window":2047,"tie_word_embeddings":false,"torch_dtype":"bfloat16","transformers_version":"4.40.2",
            "use_cache":true,"attention_bias":false,"vocab_size":32064}"#,
        ),
        (
            "gemma-2-2b",
            2_614_341_888,
            r#"{"architectures":["Gemma2ForCausalLM"],"attention_bias":false,"attention_dropout":0.0,"attn_logit_softcapping":50.0,
            "bos_token_id":2,"cache_implementation":"hybrid","eos_token_id":1,"final_logit_softcapping":30.0,"head_dim":256,
            "hidden_act":"gelu_pytorch_tanh","hidden_activation":"gelu_pytorch_tanh","hidden_size":2304,"initializer_range":0.02,
            "intermediate_size":9216,"max_position_embeddings":8192,"model_type":"gemma2","num_attention_heads":8,"num_hidden_layers":26,
            "num_key_value_heads":4,"pad_token_id":0,"query_pre_attn_scalar":256,"rms_norm_eps":1e-06,"rope_theta":10000.0,
            "sliding_window":4096,"torch_dtype":"float32","transformers_version":"4.42.4","use_cache":true,"vocab_size":256000}"#,
        ),
        (
            "gemma-3-1b-it",
            999_885_952,
            r#"{"architectures":["Gemma3ForCausalLM"],"attention_bias":false,"attention_dropout":0.0,"attn_logit_softcapping":null,
            "bos_token_id":2,"cache_implementation":"hybrid","eos_token_id":[1,106],"final_logit_softcapping":null,"head_dim":256,
            "hidden_activation":"gelu_pytorch_tanh","hidden_size":1152,"initializer_range":0.02,"intermediate_size":6912,
            "max_position_embeddings":32768,"model_type":"gemma3_text","num_attention_heads":4,"num_hidden_layers":26,"num_key_value_heads":1,
            "pad_token_id":0,"query_pre_attn_scalar":256,"rms_norm_eps":1e-06,"rope_local_base_freq":10000,"rope_scaling":null,
            "rope_theta":1000000,"sliding_window":512,"sliding_window_pattern":6,"torch_dtype":"bfloat16",
            "transformers_version":"4.50.0.dev0","use_cache":true,"vocab_size":262144}"#,
        ),
        (
            "gpt2",
            124_439_808,
            r#"{"activation_function":"gelu_new","architectures":["GPT2LMHeadModel"],"attn_pdrop":0.1,"bos_token_id":50256,"embd_pdrop":0.1,
            "eos_token_id":50256,"initializer_range":0.02,"layer_norm_epsilon":1e-05,"model_type":"gpt2","n_ctx":1024,"n_embd":768,"n_head":12,
            "n_layer":12,"n_positions":1024,"resid_pdrop":0.1,"summary_activation":null,"summary_first_dropout":0.1,
            "summary_proj_to_labels":true,"summary_type":"cls_index","summary_use_proj":true,
            "task_specific_params":{"text-generation":{"do_sample":true,"max_length":50}},"vocab_size":50257}"#,
        ),
    ] {
        let config = ModelConfig::from_json(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(n_parameters(&config), n, "{name}");
        let windowed = windows(&config);
        match name {
            "Mistral-7B-v0.1" => assert_eq!(windowed, (0..32).map(|idx| (idx, 4096)).collect::<Vec<_>>()),
            "Phi-3-mini-4k-instruct" => assert_eq!(windowed, (0..32).map(|idx| (idx, 2047)).collect::<Vec<_>>()),
            "gemma-2-2b" => assert_eq!(windowed, (0..13).map(|idx| (2 * idx, 4096)).collect::<Vec<_>>()),
            "gemma-3-1b-it" => {
                assert_eq!(windowed.len(), 22, "all but 5, 11, 17 and 23");
                assert!(windowed.iter().all(|(idx, window)| idx % 6 != 5 && *window == 512));
                let thetas = |idx: usize| config.ropes[config.layers[idx].rope.expect("rotary")].theta;
                assert_eq!((thetas(4), thetas(5)), (10_000.0, 1_000_000.0));
            }
            _ => assert_eq!(windowed, []),
        }
        let dropouts: &[_] =
            if name == "gpt2" { &[("attn_pdrop", 0.1), ("embd_pdrop", 0.1), ("resid_pdrop", 0.1)] } else { &[] };
        assert_eq!(config.dropouts, dropouts, "{name}");
    }
}

#[test]
fn a_window_is_on_the_layers_that_the_config_says() {
    let qwen = |rest: &str| windows(&of_class("Qwen2ForCausalLM", rest).expect(rest));
    assert_eq!(qwen(r#","use_sliding_window":true,"sliding_window":9,"max_window_layers":3"#), [(3, 9), (4, 9)]);
    assert_eq!(qwen(r#","use_sliding_window":false,"sliding_window":9,"max_window_layers":3"#), []);
    let types = r#","use_sliding_window":true,"sliding_window":9,"max_window_layers":3,
        "layer_types":["sliding_attention","full_attention","full_attention","full_attention","full_attention"]"#;
    assert_eq!(qwen(types), [(0, 9)]);
    let mistral = |rest: &str| windows(&of_class("MistralForCausalLM", rest).expect(rest)).len();
    assert_eq!([mistral(r#","sliding_window":null"#), mistral(r#","sliding_window":7"#), mistral("")], [0, 5, 5]);
    assert_eq!(windows(&llama(r#","sliding_window":4"#).expect("a Llama has none")), []);
}

#[test]
fn the_names_of_adapted_modules_are_pefts() {
    for architecture in Architecture::ALL {
        let is_known = Architecture::ALL.iter().filter(|a| a.model_type() == architecture.model_type()).count() == 1;
        assert!(is_known, "{architecture:?}");
    }
    assert_eq!(Architecture::Gpt2.default_targets(), Some(&["c_attn"][..]));
    assert_eq!(Architecture::Gemma3.default_targets(), Some(&["q_proj", "v_proj"][..]));
    assert_eq!(Architecture::Phi3.default_targets(), None);
}
