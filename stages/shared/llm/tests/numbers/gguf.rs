//! The config that a GGUF alone says: that of the model it was made of, or a refusal.

use std::path::PathBuf;

use candle_core::Device;
use pipe_contract::{Artifact, ArtifactKind};
use pipe_llm::{Architecture, ModelConfig, load, model_folder};
use serde_json::{Value, json};

use crate::common::{Parity, fixtures};

/// A model folder with nothing but a GGUF in it.
fn alone(bytes: &[u8]) -> (tempfile::TempDir, Artifact) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("a.gguf"), bytes).expect("written");
    let artifact = Artifact::from_folder(ArtifactKind::Model, folder.path()).expect("a folder");
    (folder, artifact)
}

fn fixture(family: &str) -> Vec<u8> {
    let path: PathBuf = fixtures().join("../weights").join(format!("{family}.gguf"));
    std::fs::read(path).expect("a fixture")
}

/// The bytes of a GGUF with these keys and these tensors of float32, each element the number given.
fn gguf(keys: &[(&str, Value)], tensors: &[(&str, &[u64], f32)]) -> Vec<u8> {
    gguf_of(
        keys,
        &tensors
            .iter()
            .map(|(name, shape, number)| {
                let n_elements = shape.iter().product::<u64>() as usize;
                (*name, *shape, vec![*number; n_elements])
            })
            .collect::<Vec<_>>(),
    )
}

fn gguf_of(keys: &[(&str, Value)], tensors: &[(&str, &[u64], Vec<f32>)]) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3_u32.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((keys.len() as u64).to_le_bytes());
    for (key, value) in keys {
        bytes.extend(text(key));
        match value {
            Value::String(value) => bytes.extend([&8_u32.to_le_bytes()[..], &text(value)].concat()),
            value => match value.as_u64() {
                Some(value) => bytes.extend([4_u32, value as u32].map(u32::to_le_bytes).concat()),
                None => {
                    let value = value.as_f64().expect("a number") as f32;
                    bytes.extend([6_u32.to_le_bytes(), value.to_le_bytes()].concat());
                }
            },
        }
    }
    let mut data: Vec<u8> = Vec::new();
    for (name, shape, numbers) in tensors {
        bytes.extend(text(name));
        bytes.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|size| bytes.extend(size.to_le_bytes()));
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend((data.len() as u64).to_le_bytes());
        data.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        data.resize(data.len().next_multiple_of(32), 0);
    }
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    [bytes, data].concat()
}

/// Keys that every model has: layers, channels, width of the MLP, heads, key and value heads, positions.
fn keys(
    architecture: &str,
    [n_layers, hidden, mlp, heads, kv_heads, positions]: [u64; 6],
    more: &Value,
) -> Vec<(String, Value)> {
    let mut keys = vec![("general.architecture".to_string(), json!(architecture))];
    let mut key = |name: &str, value: Value| keys.push((format!("{architecture}.{name}"), value));
    key("block_count", n_layers.into());
    key("embedding_length", hidden.into());
    key("feed_forward_length", mlp.into());
    key("attention.head_count", heads.into());
    key("attention.head_count_kv", kv_heads.into());
    key("context_length", positions.into());
    for (name, value) in more.as_object().expect("an object") {
        key(name, value.clone());
    }
    keys
}

fn borrowed(keys: &[(String, Value)]) -> Vec<(&str, Value)> {
    keys.iter().map(|(key, value)| (key.as_str(), value.clone())).collect()
}

#[test]
fn a_gguf_alone_is_the_model_that_it_was_made_of() {
    for family in ["llama", "mistral", "qwen2", "qwen3", "phi3", "gpt2"] {
        let (_folder, model) = alone(&fixture(family));
        let mut expected = Parity::open(fixtures().join(family)).config;
        if family == "mistral" {
            // Neither llama.cpp nor its file knows of the window.
            expected.architecture = Architecture::Llama;
            expected.layers.iter_mut().for_each(|layer| layer.scores.window = None);
        }
        assert_eq!(load::model_config(&model).expect(family), expected, "{family}");
        let (engine, _) = load::engine_and_adapter(&model, None, &Device::Cpu).expect("an engine");
        assert_eq!(engine.program().config, expected, "{family}");
    }
}

#[test]
fn a_config_made_from_a_gguf_can_be_written() {
    let (_folder, model) = alone(&fixture("qwen2"));
    let to = tempfile::tempdir().expect("a temporary folder");
    model_folder::write_config(&model, to.path(), None).expect("written");
    let text = std::fs::read_to_string(to.path().join("config.json")).expect("it was written");
    assert_eq!(ModelConfig::from_json(&text).expect("valid"), load::model_config(&model).expect("valid"));
    let written: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&written["eos_token_id"], &written["torch_dtype"]), (&json!(2), &json!("float32")));
}

/// Heads of GGUFs as llama.cpp's converter makes them of released models, with a vocabulary of 8, and the configs of those models.
#[test]
fn released_models_are_told_by_their_metadata() {
    let freqs: Vec<f32> = llama31_factors();
    let ones = |n: usize, number: f32| vec![number; n];
    let released = [
        (
            keys(
                "llama",
                [32, 4096, 14336, 32, 8, 131072],
                &json!({"attention.layer_norm_rms_epsilon": 1e-5,
                "rope.freq_base": 500000.0, "rope.dimension_count": 128, "vocab_size": 8}),
            ),
            vec![("output.weight", &[8_u64, 4096][..], ones(8 * 4096, 1.0)), ("rope_freqs.weight", &[64][..], freqs)],
            json!({"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 131072,
                "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
                "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192, "rope_type": "llama3"}, "rope_theta": 500000.0}),
        ),
        (
            // XGen has no theta in its config, so the converter writes none.
            keys(
                "llama",
                [32, 4096, 11008, 32, 32, 8192],
                &json!({"attention.layer_norm_rms_epsilon": 1e-6,
                "rope.dimension_count": 128, "vocab_size": 8}),
            ),
            vec![("output.weight", &[8, 4096][..], ones(8 * 4096, 1.0))],
            json!({"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "max_position_embeddings": 8192,
                "num_attention_heads": 32, "num_hidden_layers": 32, "rms_norm_eps": 1e-6}),
        ),
        (
            keys(
                "qwen2",
                [28, 3584, 18944, 28, 4, 131072],
                &json!({"attention.layer_norm_rms_epsilon": 1e-6,
                "rope.freq_base": 1000000.0, "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
                "rope.scaling.original_context_length": 32768}),
            ),
            vec![("output.weight", &[8, 3584][..], ones(8 * 3584, 1.0))],
            json!({"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "max_position_embeddings": 131072,
                "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-6,
                "rope_theta": 1000000.0, "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}}),
        ),
        (
            // Phi-4 mini: three quarters of the channels turn, and no window (it is as long as the positions).
            keys(
                "phi3",
                [32, 3072, 8192, 24, 8, 131072],
                &json!({"attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 10000.0,
                "rope.dimension_count": 96, "rope.scaling.original_context_length": 4096, "rope.scaling.attn_factor": 1.190_238_1,
                "attention.sliding_window": 0}),
            ),
            vec![
                ("rope_factors_long.weight", &[48][..], ones(48, 1.5)),
                ("rope_factors_short.weight", &[48][..], ones(48, 1.1)),
            ],
            json!({"model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "max_position_embeddings": 131072,
                "num_attention_heads": 24, "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
                "rope_theta": 10000.0, "partial_rotary_factor": 0.75, "original_max_position_embeddings": 4096, "sliding_window": null,
                "rope_scaling": {"type": "longrope", "long_factor": vec![1.5; 48], "short_factor": vec![1.1; 48]},
                "tie_word_embeddings": true}),
        ),
        (
            keys(
                "gemma2",
                [26, 2304, 9216, 8, 4, 8192],
                &json!({"attention.layer_norm_rms_epsilon": 1e-6,
                "attention.key_length": 256, "attention.value_length": 256, "attention.sliding_window": 4096,
                "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}),
            ),
            vec![],
            json!({"model_type": "gemma2", "hidden_size": 2304, "intermediate_size": 9216, "max_position_embeddings": 8192,
                "num_attention_heads": 8, "num_hidden_layers": 26, "num_key_value_heads": 4, "head_dim": 256,
                "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "sliding_window": 4096}),
        ),
        (
            keys(
                "gemma2",
                [46, 4608, 36864, 32, 16, 8192],
                &json!({"attention.layer_norm_rms_epsilon": 1e-6,
                "attention.key_length": 128, "attention.value_length": 128, "attention.sliding_window": 4096,
                "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}),
            ),
            vec![],
            json!({"model_type": "gemma2", "hidden_size": 4608, "intermediate_size": 36864, "max_position_embeddings": 8192,
                "num_attention_heads": 32, "num_hidden_layers": 46, "num_key_value_heads": 16, "head_dim": 128,
                "query_pre_attn_scalar": 144, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "sliding_window": 4096}),
        ),
        (
            keys(
                "gemma3",
                [26, 1152, 6912, 4, 1, 32768],
                &json!({"attention.layer_norm_rms_epsilon": 1e-6,
                "attention.key_length": 256, "attention.value_length": 256, "attention.sliding_window": 512,
                "rope.freq_base": 1000000.0}),
            ),
            vec![],
            json!({"model_type": "gemma3_text", "hidden_size": 1152, "intermediate_size": 6912, "max_position_embeddings": 32768,
                "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1, "head_dim": 256,
                "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "rope_local_base_freq": 10000,
                "sliding_window": 512, "sliding_window_pattern": 6}),
        ),
        (
            keys(
                "gemma3",
                [62, 5376, 21504, 32, 16, 131072],
                &json!({"attention.layer_norm_rms_epsilon": 1e-6,
                "attention.key_length": 128, "attention.value_length": 128, "attention.sliding_window": 1024,
                "rope.freq_base": 1000000.0, "rope.freq_base_swa": 10000.0, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0}),
            ),
            vec![],
            json!({"model_type": "gemma3_text", "hidden_size": 5376, "intermediate_size": 21504, "max_position_embeddings": 131072,
                "num_attention_heads": 32, "num_hidden_layers": 62, "num_key_value_heads": 16, "head_dim": 128,
                "query_pre_attn_scalar": 168, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "rope_local_base_freq": 10000,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "sliding_window": 1024, "sliding_window_pattern": 6}),
        ),
    ];
    for (keys, mut tensors, mut config) in released {
        let hidden = config["hidden_size"].as_u64().expect("a size");
        let embedding = [8, hidden];
        tensors.push(("token_embd.weight", &embedding, ones(8 * hidden as usize, 0.0)));
        config["vocab_size"] = 8.into();
        let (_folder, model) = alone(&gguf_of(&borrowed(&keys), &tensors));
        let made = load::model_config(&model).unwrap_or_else(|error| panic!("{config}: {}", error.message));
        assert_eq!(made, ModelConfig::from_json(&config.to_string()).expect("a released config"), "{config}");
    }
}

/// `rope_freqs.weight` of Llama 3.1 (generate_extra_tensors of LlamaModel in convert_hf_to_gguf.py).
fn llama31_factors() -> Vec<f32> {
    let factor_of = |i: usize| {
        let wavelength = std::f64::consts::TAU * libm::pow(500_000.0, i as f64 / 64.0);
        let smooth = (8192.0 / wavelength - 1.0) / 3.0;
        match wavelength {
            short if short < 2048.0 => 1.0,
            long if long > 8192.0 => 8.0,
            _ => 1.0 / ((1.0 - smooth) / 8.0 + smooth),
        }
    };
    (0..64).map(|i| factor_of(i) as f32).collect()
}

#[test]
fn the_head_of_a_gpt2_is_tied_where_it_is_the_embedding_once_more() {
    let keys = [
        ("general.architecture", json!("gpt2")),
        ("gpt2.block_count", json!(1)),
        ("gpt2.embedding_length", json!(4)),
        ("gpt2.attention.head_count", json!(2)),
        ("gpt2.context_length", json!(16)),
        ("gpt2.feed_forward_length", json!(16)),
        ("gpt2.attention.layer_norm_epsilon", json!(1e-5)),
    ];
    for (number, is_tied) in [(0.5, true), (0.25, false)] {
        let tensors: [(&str, &[u64], f32); 3] = [
            ("token_embd.weight", &[8, 4], 0.5),
            ("output.weight", &[8, 4], number),
            ("blk.0.ffn_up.weight", &[12, 4], 1.0),
        ];
        let (_folder, model) = alone(&gguf(&keys, &tensors));
        let config = load::model_config(&model).expect("a config");
        assert_eq!((config.is_tied, config.intermediate_size, config.max_positions), (is_tied, 12, 16));
    }
}

#[test]
fn what_a_gguf_does_not_say_is_refused() {
    let tiny = json!({"attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 10000.0});
    let sizes = [2, 8, 16, 2, 2, 32];
    let refusal = |architecture: &str, more: &Value, extra: &[(&str, Value)]| {
        let keys = keys(architecture, sizes, more);
        let keys: Vec<(&str, Value)> = borrowed(&keys).into_iter().chain(extra.iter().cloned()).collect();
        let (_folder, model) = alone(&gguf(&keys, &[("token_embd.weight", &[8, 8], 1.0)]));
        let error = load::model_config(&model).expect_err("not all is said");
        assert_eq!(error.slug, "weights");
        assert!(error.help.is_some_and(|help| help.contains("`config.json`")), "{}", error.message);
        error.message
    };
    let with = |key: &str, value: Value| {
        let mut more = tiny.clone();
        more[key] = value;
        more
    };
    for (architecture, more, extra, why) in [
        ("llama", json!({}), vec![], "`llama.attention.layer_norm_rms_epsilon` is missing"),
        ("qwen2", json!({"attention.layer_norm_rms_epsilon": 1e-5}), vec![], "`qwen2.rope.freq_base` is missing"),
        ("qwen3", tiny.clone(), vec![], "`qwen3.attention.key_length` is missing"),
        ("phi3", tiny.clone(), vec![], "`phi3.attention.sliding_window` is missing"),
        ("gemma2", with("attention.key_length", json!(4)), vec![], "`gemma2.attention.value_length` is not"),
        ("llama", with("attention.scale", json!(0.5)), vec![], "`llama.attention.scale` is not known here"),
        ("llama", with("rope.dimension_count", json!(2)), vec![], "`llama.rope.dimension_count` is 2 of 4 channels"),
        ("llama", with("rope.scaling.type", json!("longrope")), vec![], "`llama.rope.scaling.type` is `longrope`"),
        ("llama", tiny.clone(), vec![("general.name", json!("Mistral 7B v0.1"))], "it may have a window"),
    ] {
        let message = refusal(architecture, &more, &extra);
        assert!(message.contains(why), "{message}");
    }
    // The fixtures: factors of a rope that are not Llama 3.1's, and scales of scores that are in no file.
    for (family, why) in [
        ("llama3", "`rope_freqs[1]` is 6.781182"),
        ("gemma2", "its `query_pre_attn_scalar` is not in the file"),
        ("gemma3", "its `query_pre_attn_scalar` is not in the file"),
    ] {
        let (_folder, model) = alone(&fixture(family));
        let error = load::model_config(&model).expect_err("not all is said");
        assert!(error.message.contains(why), "{family}: {}", error.message);
        assert!(error.help.is_some_and(|help| help.contains("`config.json`")), "{family}");
    }
}
