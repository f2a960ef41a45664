//! The stage as the runner calls it: spare rows, rows that are added, and one `extend` behind another.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use pipe_contract::{Artifact, ArtifactKind, Context, StageError, StageEvent, StageKind, read_yaml};
use pipe_llm::merge::{from_f32, to_f32};
use pipe_llm::new_tokens::NewTokens;
use pipe_llm::weights::WeightFiles;
use pipe_llm::{ModelConfig, tensor_shapes};
use pipe_stage_extend::KIND;
use pipe_tokenizer::train_bpe;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

const N_TOKENS: usize = 260;
const WIDTH: usize = 4;

/// A Llama of one layer in bf16 with `vocab_size` rows, and a tokenizer of 260 tokens. Row i of a matrix over the vocabulary is i / 4, in each channel.
fn model(folder: &Path, vocab_size: usize, is_tied: bool) -> Artifact {
    let config = format!(
        r#"{{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": {vocab_size}, "hidden_size": {WIDTH},
            "intermediate_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
            "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": {is_tied},
            "torch_dtype": "bfloat16"}}"#
    );
    let shapes = tensor_shapes(&ModelConfig::from_json(&config).expect("a config"));
    let bytes: Vec<Vec<u8>> = shapes
        .iter()
        .map(|(_, shape)| {
            let n: usize = shape.iter().product();
            let value = |i: usize| if shape[0] == vocab_size { (i / WIDTH) as f32 / 4.0 } else { i as f32 };
            from_f32(&(0..n).map(value).collect::<Vec<_>>(), Dtype::BF16).expect("small")
        })
        .collect();
    let views = shapes.iter().zip(&bytes).map(|((name, shape), bytes)| {
        (name.as_str(), TensorView::new(Dtype::BF16, shape.clone(), bytes).expect("the bytes of the shape"))
    });
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).expect("written");
    let tokenizer = train_bpe(&["a b"], N_TOKENS, &["</s>", "<a>", "<b>", "<c>"]).expect("a tokenizer");
    for (name, content) in [("config.json", config.into_bytes()), ("tokenizer.json", tokenizer)] {
        std::fs::write(folder.join(name), content).expect("written");
    }
    Artifact::from_folder(ArtifactKind::Model, folder).expect("a folder")
}

struct Ran {
    /// What was written, and what was passed on.
    model: Artifact,
    passed_on: Vec<String>,
    facts: BTreeMap<String, String>,
}

fn extend(folder: &Path, with: &str, model: &Artifact) -> Result<Ran, StageError> {
    let (stage, _, problems) = read_yaml(with, |reader| KIND.read(reader));
    assert_eq!(problems, []);
    let facts = Mutex::new(BTreeMap::new());
    let emit = |event: StageEvent| {
        if let StageEvent::Fact { name, value } = event {
            facts.lock().expect("not poisoned").insert(name, value);
        }
    };
    let mut ctx = Context::new(folder, &emit);
    ctx.inputs.insert("model".into(), model.clone());
    stage.run(&mut ctx)?;
    let mut written = Artifact::from_folder(ArtifactKind::Model, &folder.join("outputs/model"))?;
    let external = ctx.take_external();
    let passed_on = external.iter().map(|file| file.name.clone()).collect();
    for file in external {
        let same = model.files[&file.name].clone();
        assert_eq!(same.path, file.path);
        assert!(written.files.insert(file.name, same).is_none(), "a file is written or passed on");
    }
    Ok(Ran { model: written, passed_on, facts: facts.into_inner().expect("not poisoned") })
}

fn values(model: &Artifact, name: &str) -> Vec<f32> {
    let files = WeightFiles::of_model(model).expect("weights");
    to_f32(&files.read(name).expect("there"), files.entries()[name].dtype).expect("a dtype")
}

fn config(model: &Artifact) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(model.file("config.json").expect("a config")).expect("read")).expect("JSON")
}

#[test]
fn spare_rows_are_taken_first_and_nothing_else_is_written() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let base = tempfile::tempdir().expect("a temporary folder");
    let model = model(base.path(), 264, false);
    let with = "{ new_tokens: [zebra], additional_special_tokens: ['<|x|>'], embedding_init: pieces }";
    let ran = extend(work.path(), with, &model).expect("a model");
    assert_eq!(ran.passed_on, ["config.json", "model.safetensors"]);
    assert_eq!(ran.facts["new tokens"], "2 in spare rows");
    let new = NewTokens::of(&ran.model).expect("readable").expect("some");
    assert_eq!((new.n_before, new.ids()), (260, vec![260, 261]));
    assert_eq!(new.tokens[0].from.len(), 5, "z e b r a: {new:?}");
    let shown = KIND.show("model", &ran.model, 10).expect("text");
    assert!(shown.contains("261  special   \"<|x|>\"  begins with the mean of ["), "{shown}");

    // A second one goes on behind the first: two rows are left.
    let more = tempfile::tempdir().expect("a temporary folder");
    let ran = extend(more.path(), "{ new_tokens: [yak, emu] }", &ran.model).expect("a model");
    assert_eq!(ran.facts["new tokens"], "2 in spare rows");
    let new = NewTokens::of(&ran.model).expect("readable").expect("some");
    assert_eq!((new.n_before, new.ids()), (260, vec![260, 261, 262, 263]));
}

#[test]
fn rows_are_added_where_none_is_spare() {
    for is_tied in [false, true] {
        let work = tempfile::tempdir().expect("a temporary folder");
        let base = tempfile::tempdir().expect("a temporary folder");
        let model = model(base.path(), 261, is_tied);
        let ran = extend(work.path(), "{ new_tokens: [zebra, yak, emu] }", &model).expect("a model");
        assert_eq!(ran.passed_on, [""; 0]);
        assert_eq!(ran.facts["new tokens"], "1 in spare rows, 2 in rows that were added");
        assert_eq!(ran.facts["vocabulary"], "261 -> 263");
        let mut expected = config(&model);
        expected["vocab_size"] = 263.into();
        assert_eq!(config(&ran.model), expected);
        // The mean of 0 .. 259, in quarters; the spare row stays as it is until it is trained.
        let mean = to_f32(&from_f32(&[259.0 / 8.0], Dtype::BF16).expect("fits"), Dtype::BF16).expect("bf16")[0];
        for name in ["model.embed_tokens.weight", "lm_head.weight"].into_iter().take(if is_tied { 1 } else { 2 }) {
            let (before, after) = (values(&model, name), values(&ran.model, name));
            assert_eq!(after[..before.len()], before, "{name}");
            assert_eq!(after[before.len()..], [mean; 2 * WIDTH], "{name}");
        }
        for (name, _) in tensor_shapes(&ModelConfig::from_json(&config(&model).to_string()).expect("a config")) {
            if !name.contains("embed") && !name.contains("lm_head") {
                assert_eq!(values(&ran.model, &name), values(&model, &name), "{name}");
            }
        }
    }
}

#[test]
fn a_tokenizer_that_is_too_large_for_its_model_is_an_error() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let base = tempfile::tempdir().expect("a temporary folder");
    let model = model(base.path(), 259, true);
    let error = extend(work.path(), "{ new_tokens: [zebra] }", &model).err().expect("no rows for what there is");
    assert_eq!(error.slug, "model-input");
    assert!(error.message.contains("260 tokens"), "{error}");
    let error = extend(work.path(), "{ new_tokens: ['<a>'] }", &model).err().expect("it is there");
    assert_eq!(error.slug, "new-token");
}
