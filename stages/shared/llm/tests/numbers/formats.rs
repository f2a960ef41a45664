//! One model from three formats of weight files, on both engines: the same bits. The files are made by scripts/make_weights_fixtures.py.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use pipe_contract::{Artifact, ArtifactKind};
use pipe_llm::engine::native::Weight;
use pipe_llm::weights::{self, WeightFiles};
use pipe_llm::{CandleEngine, NativeEngine, Program, load};

use crate::common::{Parity, fixtures};

/// A family, the name of its weights, and how many of its tensors cannot be used where they lie in the file.
const FILES: [(&str, &str, usize); 10] = [
    ("llama", "llama.bin", 0),
    ("llama", "llama.gguf", 4),
    ("llama3", "llama3.gguf", 4),
    ("mistral", "mistral.gguf", 4),
    ("qwen2", "qwen2.gguf", 0),
    ("qwen3", "qwen3.gguf", 0),
    ("phi3", "phi3.gguf", 0),
    // Norms: one more in the file.
    ("gemma2", "gemma2.gguf", 9),
    ("gemma3", "gemma3.gguf", 13),
    ("gpt2", "gpt2.gguf", 8),
];

fn path_of(file: &str) -> PathBuf {
    fixtures().join("../weights").join(file)
}

fn open(path: &Path) -> WeightFiles {
    WeightFiles::open(vec![(path.file_name().expect("a file").to_string_lossy().into_owned(), path.to_path_buf())])
        .expect("readable")
}

fn bits(logits: &Tensor) -> Vec<u32> {
    let values: Vec<f32> = logits.flatten_all().and_then(|t| t.to_vec1()).expect("on the CPU");
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn a_model_computes_the_same_bits_from_each_format() {
    for (family, file, n_views) in FILES {
        let parity = Parity::open(fixtures().join(family));
        let program = Program::new(&parity.config, &[]).expect("no targets");
        let (sequence, files) = (parity.batch(0, false).remove(0), open(&path_of(file)));

        let tensors = weights::load(&program, &files, &Device::Cpu).expect("weights");
        let candle = CandleEngine::new(program.clone(), tensors, parity.config.max_positions, Device::Cpu, DType::F32);
        let logits = candle.expect("an engine").logits(None, &sequence).expect("logits");
        let expected = parity.engine_for(program.clone(), DType::F32).logits(None, &sequence).expect("logits");
        assert_eq!(bits(&logits), bits(&expected), "{file}");

        let mapped = weights::map(&program, &files).expect("weights");
        let n_read = mapped.iter().filter(|weight| matches!(weight, Weight::Tensor(_))).count();
        assert_eq!(n_read, n_views, "{file}: all else is used where it lies in its file");
        let native = NativeEngine::new(program.clone(), mapped, parity.config.max_positions).expect("an engine");
        let losses = |engine: &NativeEngine| -> Vec<u32> {
            engine.losses(None, &sequence).expect("losses").into_iter().map(f32::to_bits).collect()
        };
        assert_eq!(losses(&native), losses(&parity.native_for(program)), "{file}");
    }
}

/// A model folder with the config of `family`'s fixture, changed by `edit`, and one weight file under `name`.
fn folder(family: &str, file: &str, name: &str, edit: impl Fn(String) -> String) -> (tempfile::TempDir, Artifact) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = std::fs::read_to_string(fixtures().join(family).join("config.json")).expect("a config");
    std::fs::write(folder.path().join("config.json"), edit(config)).expect("written");
    std::fs::copy(path_of(file), folder.path().join(name)).expect("a copy");
    let artifact = Artifact::from_folder(ArtifactKind::Model, folder.path()).expect("a folder");
    (folder, artifact)
}

#[test]
fn a_model_folder_of_pickles_or_a_gguf_is_an_engine() {
    for (file, name) in [("llama.bin", "pytorch_model.bin"), ("llama.gguf", "tiny-f32.gguf")] {
        let (_folder, model) = folder("llama", file, name, |config| config);
        let (engine, _) = load::engine_and_adapter(&model, None, &Device::Cpu).expect("an engine");
        assert_eq!(engine.program().config.n_layers, 2, "{file}");
    }
}

/// What a config says otherwise than the file beside it.
const CONTRADICTIONS: [(&str, &str, &str, &str); 13] = [
    (
        "llama",
        "\"rope_theta\": 50000.0",
        "\"rope_theta\": 10000.0",
        "`rope_theta` is 50000, but config.json says 10000",
    ),
    ("llama3", "\"factor\": 8.0", "\"factor\": 4.0", "`rope_freqs[1]` is 6.781182, but"),
    (
        "llama3",
        "\"rope_type\": \"llama3\"",
        "\"rope_type\": \"dynamic\", \"low_freq_factor\": null, \"high_freq_factor\": null",
        "`rope_freqs[1]` is 6.781182, but config.json says 1",
    ),
    ("mistral", "\"head_dim\": 6", "\"head_dim\": 12", "`head_dim` is 6, but config.json says 12"),
    ("phi3", "4.0", "3.5", "`long_factor[1]` is 4, but config.json says 3.5"),
    ("phi3", "1.1", "1.2", "`short_factor[1]` is 1.1, but config.json says 1.2"),
    ("phi3", "\"sliding_window\": 11", "\"sliding_window\": null", "`sliding_window` is 11, but config.json says 0"),
    ("phi3", "\"max_position_embeddings\": 64", "\"max_position_embeddings\": 32", "`attention_factor` is"),
    (
        "gemma2",
        "\"attn_logit_softcapping\": 2.0",
        "\"attn_logit_softcapping\": 50.0",
        "`attn_logit_softcapping` is 2, but config.json says 50",
    ),
    (
        "gemma2",
        "\"final_logit_softcapping\": 3.0",
        "\"final_logit_softcapping\": null",
        "`final_logit_softcapping` is 3, but config.json says 0",
    ),
    (
        "gemma3",
        "\"rope_theta\": 10000.0",
        "\"rope_theta\": 20000.0",
        "`rope_local_base_freq` is 10000, but config.json says 20000",
    ),
    ("gemma3", "\"factor\": 8.0", "\"factor\": 4.0", "`factor` is 8, but config.json says 4"),
    (
        "gpt2",
        "\"layer_norm_epsilon\": 1e-05",
        "\"layer_norm_epsilon\": 1e-06",
        "`layer_norm_epsilon` is 0.00001, but config.json says 0.000001",
    ),
];

#[test]
fn a_gguf_that_says_another_thing_than_its_config_is_refused() {
    for (family, from, to, why) in CONTRADICTIONS {
        let (_folder, model) = folder(family, &format!("{family}.gguf"), "a.gguf", |config| {
            assert!(config.contains(from), "{family}: {from}");
            config.replace(from, to)
        });
        let error = load::engine_and_adapter(&model, None, &Device::Cpu).err().expect("a contradiction");
        assert!(error.message.contains(why), "{family}: {}", error.message);
    }
    // Four heads of 8 channels or two of 16: the shapes are the same, the model is not.
    let (_folder, model) = folder("llama", "llama.gguf", "a.gguf", |config| {
        let config = config.replace("\"head_dim\": 8,", "\"head_dim\": 16,");
        let config = config.replace("\"num_attention_heads\": 4", "\"num_attention_heads\": 2");
        config.replace("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 1")
    });
    let error = load::engine_and_adapter(&model, None, &Device::Cpu).err().expect("a contradiction");
    let why = "`a.gguf`: says that `num_attention_heads` is 4, but config.json says 2";
    assert_eq!((error.slug, error.message.as_str()), ("weights", why));
}
