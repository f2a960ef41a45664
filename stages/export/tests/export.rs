//! What is exported computes what was trained.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};
use pipe_contract::{Artifact, ArtifactKind, Context, Figure, StageError, StageEvent, StageKind, read_yaml};
use pipe_llm::weights::{self, WeightFiles};
use pipe_llm::{Adapter, CandleEngine, LoraConfig, ModelConfig, Program, Sequence};
use pipe_stage_export::KIND;

/// f32 rounding of logits of unit scale, as PEFT's own merged and unmerged models differ (meta.json).
const LOGITS_TOLERANCE: f64 = 3e-5;

fn fixture_of(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity").join(family)
}

fn fixture() -> PathBuf {
    fixture_of("llama")
}

fn model_of(family: &str) -> Artifact {
    let mut artifact = Artifact::from_folder(ArtifactKind::Model, &fixture_of(family)).expect("the fixture");
    artifact.files.retain(|name, _| name == "config.json" || name == "model.safetensors");
    artifact
}

fn model() -> Artifact {
    model_of("llama")
}

fn adapter_of(family: &str) -> Artifact {
    Artifact::from_folder(ArtifactKind::Adapter, &fixture_of(family).join("adapter")).expect("the fixture")
}

fn adapter() -> Artifact {
    adapter_of("llama")
}

/// Runs the stage; returns its facts.
fn export(folder: &Path, with: &str, inputs: &[(&str, Artifact)]) -> Result<BTreeMap<String, String>, StageError> {
    let (stage, _, problems) = read_yaml(with, |reader| KIND.read(reader));
    assert_eq!(problems, []);
    let facts = Mutex::new(BTreeMap::new());
    let emit = |event: StageEvent| {
        if let StageEvent::Fact { name, value } = event {
            facts.lock().expect("not poisoned").insert(name, value);
        }
    };
    let mut ctx = Context::new(folder, &emit);
    ctx.inputs = inputs.iter().map(|(port, artifact)| (port.to_string(), artifact.clone())).collect::<BTreeMap<_, _>>();
    stage.run(&mut ctx)?;
    Ok(facts.into_inner().expect("not poisoned"))
}

/// The fact that a merge reports.
fn reported_difference(facts: &BTreeMap<String, String>) -> f64 {
    facts["largest logit difference"].parse().expect("a number")
}

/// Logits of a model folder, with an adapter folder if one is given.
fn logits(model: &Path, adapter: Option<&Path>) -> Tensor {
    let text = |path: PathBuf| std::fs::read_to_string(path).expect("a JSON file");
    let config = ModelConfig::from_json(&text(model.join("config.json"))).expect("a config");
    let lora =
        adapter.map(|folder| LoraConfig::from_json(&text(folder.join("adapter_config.json"))).expect("an adapter"));
    let program = Program::for_adapter(&config, lora.as_ref()).expect("targets");
    let artifact = Artifact::from_folder(ArtifactKind::Model, model).expect("a folder");
    let files = artifact
        .files
        .iter()
        .filter(|(name, _)| name.ends_with(".safetensors") && !name.contains('/') && name.starts_with("model"));
    let files =
        WeightFiles::open(files.map(|(name, file)| (name.clone(), file.path.clone())).collect()).expect("weights");
    let weights = weights::load(&program, &files, &Device::Cpu).expect("weights");
    let engine = CandleEngine::new(program, weights, config.max_positions, Device::Cpu, DType::F32).expect("an engine");
    let adapter = adapter.zip(lora).map(|(folder, lora)| {
        Adapter::load(lora, &folder.join("adapter_model.safetensors"), engine.program(), &Device::Cpu).expect("fits")
    });
    let ids: Vec<u32> = (0..32).map(|t| t * 11 % 64).collect();
    engine.logits(adapter.as_ref(), &Sequence::plain(&config, &ids).expect("a sequence")).expect("logits")
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).and_then(|d| d.abs()?.max_all()?.to_dtype(DType::F64)?.to_scalar()).expect("a number")
}

#[test]
fn the_exported_adapter_and_the_merged_model_compute_the_same() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let inputs = [("model", model()), ("adapter", adapter())];
    let facts = export(work.path(), "{ base_model_name_or_path: owner/name }", &inputs).expect("an export");
    let (adapter, merged) = (work.path().join("outputs/adapter"), work.path().join("outputs/merged"));
    let trained = logits(&fixture(), Some(&fixture().join("adapter")));
    assert_eq!(largest_difference(&logits(&fixture(), Some(&adapter)), &trained), 0.0);
    let difference = largest_difference(&logits(&merged, None), &trained);
    assert!(difference < LOGITS_TOLERANCE, "merged logits differ by {difference:e}");
    let reported = reported_difference(&facts);
    assert!(reported > 0.0 && reported < LOGITS_TOLERANCE, "the merge reports {reported:e}");
    assert!(largest_difference(&logits(&fixture(), None), &trained) > 1e-3, "the adapter changes nothing");
    let config = std::fs::read_to_string(adapter.join("adapter_config.json")).expect("a config");
    assert!(config.contains("\"base_model_name_or_path\": \"owner/name\""), "{config}");
    for (port, folder, kind, fact) in [
        ("adapter", adapter, ArtifactKind::Adapter, ("base model", "owner/name")),
        ("merged", merged, ArtifactKind::Model, ("architecture", "LlamaForCausalLM")),
    ] {
        let figures = KIND.figures(port, &Artifact::from_folder(kind, &folder).expect("a folder")).expect("figures");
        let [Figure::Facts(facts)] = figures.as_slice() else { panic!("{figures:?}") };
        assert!(facts.facts.contains(&(fact.0.to_string(), fact.1.to_string())), "{facts:?}");
    }
}

/// Rows of tokens in embedding and head, tied and not, under the names of each family.
#[test]
fn rows_of_tokens_are_exported_and_merged() {
    for family in ["llama", "phi3", "gemma2", "gpt2"] {
        let work = tempfile::tempdir().expect("a temporary folder");
        let theirs = fixture_of(family).join("tokens");
        let adapter = Artifact::from_folder(ArtifactKind::Adapter, &theirs).expect("the fixture");
        let facts = export(work.path(), "{}", &[("model", model_of(family)), ("adapter", adapter)]).expect("an export");
        assert!(facts["adapter"].ends_with(", 3 tokens"), "{facts:?}");
        let (adapter, merged) = (work.path().join("outputs/adapter"), work.path().join("outputs/merged"));
        let trained = logits(&fixture_of(family), Some(&theirs));
        assert_eq!(largest_difference(&logits(&fixture_of(family), Some(&adapter)), &trained), 0.0, "{family}");
        let difference = largest_difference(&logits(&merged, None), &trained);
        assert!(difference < LOGITS_TOLERANCE, "{family}: merged logits differ by {difference:e}");
    }
}

/// Fused matrices, norms with 1 + w, matrices that are stored as `[in, out]`: a merge of each, and PEFT's names.
#[test]
fn every_family_is_exported() {
    for family in ["mistral", "qwen2_window", "qwen3", "phi3", "gemma2", "gemma3", "gpt2"] {
        let work = tempfile::tempdir().expect("a temporary folder");
        let inputs = [("model", model_of(family)), ("adapter", adapter_of(family))];
        export(work.path(), "{ formats: [adapter, merged] }", &inputs).expect("an export");
        let (adapter, merged) = (work.path().join("outputs/adapter"), work.path().join("outputs/merged"));
        let (base, theirs) = (fixture_of(family), fixture_of(family).join("adapter"));
        let trained = logits(&base, Some(&theirs));
        let difference = largest_difference(&logits(&merged, None), &trained);
        assert!(difference < LOGITS_TOLERANCE, "{family}: merged logits differ by {difference:e}");
        assert!(largest_difference(&logits(&base, None), &trained) > 1e-3, "{family}: the adapter changes nothing");
        let tensors = |folder: &Path| {
            let tensors = candle_core::safetensors::load(folder.join("adapter_model.safetensors"), &Device::Cpu);
            let named = tensors.expect("an adapter").into_iter();
            let values = |t: Tensor| t.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("f32");
            named.map(|(name, tensor)| (name, values(tensor))).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(tensors(&adapter), tensors(&theirs), "{family}");
        let config = |folder: &Path| -> serde_json::Value {
            let text = std::fs::read_to_string(folder.join("adapter_config.json")).expect("a config");
            serde_json::from_str(&text).expect("JSON")
        };
        for field in ["r", "lora_alpha", "target_modules", "fan_in_fan_out", "peft_type", "task_type", "bias"] {
            assert_eq!(config(&adapter)[field], config(&theirs)[field], "{family}: {field}");
        }
    }
}

#[test]
fn shards_hold_what_one_file_does() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let inputs = [("model", model()), ("adapter", adapter())];
    export(&work.path().join("one"), "{ formats: [merged] }", &inputs).expect("an export");
    export(&work.path().join("many"), "{ formats: [merged], max_shard_size: 40KB }", &inputs).expect("an export");
    let (one, many) = (work.path().join("one/outputs/merged"), work.path().join("many/outputs/merged"));
    let index = std::fs::read_to_string(many.join("model.safetensors.index.json")).expect("an index");
    let index: serde_json::Value = serde_json::from_str(&index).expect("JSON");
    let map = index["weight_map"].as_object().expect("a map");
    let (mut names, mut size_bytes) = (Vec::new(), 0);
    for shard in ["model-00001-of-00004", "model-00002-of-00004", "model-00003-of-00004", "model-00004-of-00004"] {
        let file = format!("{shard}.safetensors");
        let tensors = candle_core::safetensors::load(many.join(&file), &Device::Cpu).expect("a shard");
        let size = tensors.values().map(|t| t.elem_count() * t.dtype().size_in_bytes()).sum::<usize>();
        assert!(size <= 40_000 || tensors.len() == 1, "{file} has {size} bytes");
        assert!(tensors.keys().all(|name| map[name] == file.as_str()), "the index disagrees with {file}");
        names.extend(tensors.into_keys());
        size_bytes += size;
    }
    names.sort();
    let whole = candle_core::safetensors::load(one.join("model.safetensors"), &Device::Cpu).expect("one file");
    let mut expected: Vec<String> = whole.into_keys().collect();
    expected.sort();
    assert_eq!((&names, names.len(), &index["metadata"]["total_size"]), (&expected, map.len(), &size_bytes.into()));
    assert_eq!(largest_difference(&logits(&one, None), &logits(&many, None)), 0.0);
}

#[test]
fn a_dtype_is_cast_once_and_written_into_the_config() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let facts =
        export(work.path(), "{ formats: [merged], dtype: bfloat16 }", &[("model", model())]).expect("an export");
    let merged = work.path().join("outputs/merged");
    let config = std::fs::read_to_string(merged.join("config.json")).expect("a config");
    assert!(config.contains("\"dtype\": \"bfloat16\""), "{config}");
    let size = |path: PathBuf| std::fs::metadata(path).expect("a file").len();
    assert!(size(merged.join("model.safetensors")) < size(fixture().join("model.safetensors")) * 6 / 10);
    let difference = largest_difference(&logits(&merged, None), &logits(&fixture(), None));
    assert!(difference > 0.0 && difference < 0.3, "bfloat16 changes logits by {difference}");
    let reported = reported_difference(&facts);
    assert!(reported > difference / 10.0 && reported < difference * 10.0, "{reported} and {difference}: other tokens");
}

#[test]
fn what_does_not_fit_is_refused() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let error =
        export(&work.path().join("a"), "{ formats: [adapter] }", &[("model", model())]).expect_err("no adapter");
    assert_eq!(error.slug, "missing-input");
    let mut other = adapter();
    let qwen2 = fixture().join("../qwen2/model.safetensors");
    other.files.get_mut("adapter_model.safetensors").expect("a file").path = qwen2;
    let error =
        export(&work.path().join("b"), "{}", &[("model", model()), ("adapter", other)]).expect_err("not an adapter");
    assert_eq!(error.slug, "adapter");
}

#[test]
fn a_gguf_alone_gives_the_same_model() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let base = work.path().join("base");
    std::fs::create_dir(&base).expect("a folder");
    std::fs::copy(fixture().join("../../weights/llama.gguf"), base.join("a.gguf")).expect("a copy");
    let alone = Artifact::from_folder(ArtifactKind::Model, &base).expect("a folder");
    let (ours, plain) = (work.path().join("alone"), work.path().join("plain"));
    export(&ours, "{}", &[("model", alone), ("adapter", adapter())]).expect("an export");
    export(&plain, "{}", &[("model", model()), ("adapter", adapter())]).expect("an export");
    let read = |folder: &Path, name: &str| std::fs::read(folder.join("outputs/merged").join(name)).expect("a file");
    assert!(read(&ours, "model.safetensors") == read(&plain, "model.safetensors"), "the weights differ");
    let config = |folder: &Path| {
        let text = String::from_utf8(read(folder, "config.json")).expect("text");
        ModelConfig::from_json(&text).expect("a config")
    };
    assert_eq!(config(&ours), config(&plain));
    // Its tokens have no merges, and no expression that cuts texts: there is a warning, and no tokenizer.
    assert!(!ours.join("outputs/merged/tokenizer.json").exists());
}

#[test]
fn a_base_of_pickles_gives_the_same_files_and_a_tokenizer_that_is_built_in_is_written_out() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let base = work.path().join("base");
    std::fs::create_dir(&base).expect("a folder");
    std::fs::copy(fixture().join("config.json"), base.join("config.json")).expect("a copy");
    std::fs::copy(fixture().join("../../weights/llama.bin"), base.join("pytorch_model.bin")).expect("a copy");
    std::fs::write(base.join("tokenizer_config.json"), r#"{"tokenizer_class": "XgenTokenizer"}"#).expect("written");
    let pickled = Artifact::from_folder(ArtifactKind::Model, &base).expect("a folder");
    let (ours, plain) = (work.path().join("pickled"), work.path().join("plain"));
    export(&ours, "{}", &[("model", pickled), ("adapter", adapter())]).expect("an export");
    export(&plain, "{}", &[("model", model()), ("adapter", adapter())]).expect("an export");
    let read = |folder: &Path, name: &str| std::fs::read(folder.join("outputs").join(name)).expect("a file");
    for name in ["merged/model.safetensors", "merged/config.json", "adapter/adapter_model.safetensors"] {
        assert!(read(&ours, name) == read(&plain, name), "{name} differs");
    }
    for folder in ["merged", "adapter"] {
        let json = |name: &str| -> serde_json::Value {
            serde_json::from_slice(&read(&ours, &format!("{folder}/{name}"))).expect("JSON")
        };
        assert_eq!(json("tokenizer.json")["added_tokens"][0]["content"], "<|endoftext|>", "{folder}");
        assert_eq!(json("tokenizer_config.json")["tokenizer_class"], "PreTrainedTokenizerFast", "{folder}");
        // A model with a tokenizer of its own has it copied with the model, and nothing beside the adapter.
        assert!(!plain.join("outputs").join(folder).join("tokenizer.json").exists(), "{folder}");
    }
}
