//! Model and adapter folders: what their small files and the heads of their weight files say.
//!
//! ```text
//! config.json            architecture, layers, vocabulary      -> facts for `pipe show` and reports; a GGUF may stand for it
//! *.safetensors          names, shapes and dtypes of tensors   -> how many parameters, in which dtype
//! pytorch_model*.bin, *.gguf   likewise, where there is no safetensors
//! adapter_config.json    r, alpha, target modules
//! ```
//!
//! It deliberately reads no weight: a folder of 16 GB is described in milliseconds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use pipe_contract::figures::Facts;
use pipe_contract::{Artifact, ArtifactKind, Figure, StageError};
use pipe_weights::WeightFiles;
use serde_json::{Map, Value};

use crate::numbers::{bytes, thousands};

/// The largest head of a weight file: the limit of the safetensors library.
const HEAD_BYTES_MAX: u64 = 100_000_000;

/// Fields of `config.json` and what a report calls them, in this order.
const MODEL_FACTS: [(&str, &str); 9] = [
    ("model_type", "model type"),
    ("vocab_size", "vocabulary (tokens)"),
    ("num_hidden_layers", "layers"),
    ("hidden_size", "channels"),
    ("intermediate_size", "channels of the MLP"),
    ("num_attention_heads", "attention heads"),
    ("num_key_value_heads", "key and value heads"),
    ("max_position_embeddings", "positions"),
    ("tie_word_embeddings", "tied embeddings"),
];

/// Likewise of `adapter_config.json`.
const ADAPTER_FACTS: [(&str, &str); 7] = [
    ("peft_type", "type"),
    ("r", "r"),
    ("lora_alpha", "alpha"),
    ("lora_dropout", "dropout"),
    ("use_rslora", "rank-stabilized"),
    ("target_modules", "target modules"),
    ("base_model_name_or_path", "base model"),
];

/// What the heads of a folder's weight files add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tensors {
    /// How many there are.
    pub n_tensors: u64,
    /// Numbers in all of them.
    pub n_parameters: u64,
    /// Numbers of each dtype, by the name that safetensors has for it: `BF16`.
    pub by_dtype: BTreeMap<String, u64>,
}

/// The tensors of the `*.safetensors` files, or else of the pickles or the GGUF; `None` where there are none, or one has no valid head.
pub fn tensors(artifact: &Artifact) -> Option<Tensors> {
    let mut files = artifact.with_suffix(".safetensors").peekable();
    if files.peek().is_some() {
        return files.try_fold(Tensors::default(), |all, (_, path)| add_head(all, path));
    }
    let files = WeightFiles::of_model(artifact).ok()?;
    files.entries().values().try_fold(Tensors::default(), |mut all, entry| {
        let n_parameters = entry.shape.iter().product::<usize>() as u64;
        all.add(&format!("{:?}", entry.dtype), n_parameters)?;
        Some(all)
    })
}

impl Tensors {
    /// Counts a tensor; `None` where the sum is beyond all numbers.
    fn add(&mut self, dtype: &str, n_parameters: u64) -> Option<()> {
        self.n_tensors += 1;
        self.n_parameters = self.n_parameters.checked_add(n_parameters)?;
        *self.by_dtype.entry(dtype.to_string()).or_default() += n_parameters;
        Some(())
    }
}

/// The head of a safetensors file, and where its data begins; `None` if it has no valid one.
///
/// The file begins with the length of its head (8 bytes, little endian) and the head, a JSON object.
pub fn weight_head(path: &Path) -> Option<(Map<String, Value>, u64)> {
    let mut file = File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    if length > HEAD_BYTES_MAX {
        return None;
    }
    let mut head = Vec::new();
    file.take(length).read_to_end(&mut head).ok()?;
    Some((serde_json::from_slice(&head).ok()?, length + 8))
}

/// A JSON file of the folder, if it is there and valid.
pub fn read_json(artifact: &Artifact, name: &str) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(artifact.get(name)?).ok()?).ok()
}

/// The config of a model folder: of its `config.json`, or of its GGUF. `None` where there is none, or not a valid one.
pub fn read_config(model: &Artifact) -> Option<Value> {
    serde_json::from_str(&pipe_weights::config_json(model).ok()??).ok()
}

/// A JSON value without quotes and brackets around it.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// What a report shows of a model or an adapter.
///
/// # Errors
/// `missing-file` or `bad-folder` when the folder has no valid config.
pub fn figures(artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
    let (title, file, names) = match artifact.kind {
        ArtifactKind::Adapter => ("Adapter", "adapter_config.json", &ADAPTER_FACTS[..]),
        _ => ("Model", "config.json", &MODEL_FACTS[..]),
    };
    let config = match artifact.kind {
        ArtifactKind::Adapter => read_json(artifact, file),
        _ => read_config(artifact),
    };
    if config.is_none() {
        artifact.file(file)?;
    }
    let config = config
        .ok_or_else(|| StageError::user("bad-folder", format!("`{file}` of the {} is not valid", artifact.kind)))?;
    let mut facts = Vec::new();
    let mut fact = |name: &str, value: String| facts.push((name.to_string(), value));
    if let Some(architecture) = config["architectures"][0].as_str() {
        fact("architecture", architecture.to_string());
    }
    if let Some(tensors) = tensors(artifact) {
        fact("parameters", thousands(tensors.n_parameters));
        fact("tensors", thousands(tensors.n_tensors));
        fact("stored as", dtypes(&tensors));
    }
    for (field, name) in names.iter().filter(|(field, _)| !config[*field].is_null()) {
        let value = &config[*field];
        fact(name, value.as_u64().map_or_else(|| plain(value), thousands));
    }
    fact("size", bytes(artifact.files.values().map(|file| file.size_bytes).sum()));
    Ok(vec![Figure::Facts(Facts { title: title.to_string(), facts })])
}

/// `bfloat16`, or `F32 (90.0 %), F16 (10.0 %)`.
fn dtypes(tensors: &Tensors) -> String {
    let name = |dtype: &str| match dtype {
        "F32" => "float32".to_string(),
        "F16" => "float16".to_string(),
        "BF16" => "bfloat16".to_string(),
        other => other.to_lowercase(),
    };
    if let [(dtype, _)] = tensors.by_dtype.iter().collect::<Vec<_>>().as_slice() {
        return name(dtype);
    }
    let share = |n: u64| 100.0 * n as f64 / tensors.n_parameters.max(1) as f64;
    let parts = tensors.by_dtype.iter().map(|(dtype, n)| format!("{} ({:.1} %)", name(dtype), share(*n)));
    parts.collect::<Vec<_>>().join(", ")
}

fn add_head(mut all: Tensors, path: &Path) -> Option<Tensors> {
    let (head, _) = weight_head(path)?;
    for (_, tensor) in head.iter().filter(|(name, _)| *name != "__metadata__") {
        let sizes = tensor["shape"].as_array()?.iter().map(Value::as_u64);
        let n_parameters = sizes.into_iter().try_fold(1_u64, |product, size| product.checked_mul(size?))?;
        all.add(tensor["dtype"].as_str()?, n_parameters)?;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_weights(folder: &Path, name: &str, head: &str) {
        let mut bytes = (head.len() as u64).to_le_bytes().to_vec();
        bytes.extend(head.as_bytes());
        std::fs::write(folder.join(name), bytes).unwrap();
    }

    fn facts(kind: ArtifactKind, folder: &Path) -> Vec<(String, String)> {
        let figures = figures(&Artifact::from_folder(kind, folder).unwrap()).unwrap();
        let [Figure::Facts(facts)] = figures.as_slice() else { panic!("{figures:?}") };
        facts.facts.clone()
    }

    #[test]
    fn a_model_is_described_by_its_config_and_the_heads_of_its_shards() {
        let folder = tempfile::tempdir().unwrap();
        let config = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 32000, "num_hidden_layers": 2,
            "tie_word_embeddings": true, "rope_scaling": null}"#;
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        let head = |dtype: &str| {
            format!(
                r#"{{"__metadata__": {{"format": "pt"}}, "a.{dtype}": {{"dtype": "{dtype}", "shape": [10, 9], "data_offsets": [0, 0]}}}}"#
            )
        };
        write_weights(folder.path(), "model-1.safetensors", &head("BF16"));
        let text = |facts: Vec<(String, String)>| {
            facts.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("; ")
        };
        let shown = text(facts(ArtifactKind::Model, folder.path()));
        assert!(
            shown.starts_with(
                "architecture: LlamaForCausalLM; parameters: 90; tensors: 1; stored as: bfloat16; \
                 vocabulary (tokens): 32,000; layers: 2; tied embeddings: true; size: "
            ),
            "{shown}"
        );
        write_weights(folder.path(), "model-2.safetensors", &head("F32"));
        let shown = text(facts(ArtifactKind::Model, folder.path()));
        assert!(
            shown.contains("parameters: 180; tensors: 2; stored as: bfloat16 (50.0 %), float32 (50.0 %)"),
            "{shown}"
        );
    }

    #[test]
    fn an_adapter_is_described_and_broken_folders_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let artifact = || Artifact::from_folder(ArtifactKind::Adapter, folder.path()).unwrap();
        assert_eq!(figures(&artifact()).unwrap_err().slug, "missing-file");
        std::fs::write(folder.path().join("adapter_config.json"), "{").unwrap();
        assert_eq!(figures(&artifact()).unwrap_err().slug, "bad-folder");
        let config = r#"{"peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"]}"#;
        std::fs::write(folder.path().join("adapter_config.json"), config).unwrap();
        // A head that is longer than the file is no head.
        std::fs::write(folder.path().join("adapter_model.safetensors"), [255; 20]).unwrap();
        let names: Vec<String> = facts(ArtifactKind::Adapter, folder.path()).into_iter().map(|fact| fact.0).collect();
        assert_eq!(names, ["type", "r", "alpha", "target modules", "size"]);
    }

    #[test]
    fn shapes_that_overflow_are_no_head() {
        let folder = tempfile::tempdir().unwrap();
        let head = format!(r#"{{"a": {{"dtype": "F32", "shape": [{0}, {0}]}}}}"#, u64::MAX);
        write_weights(folder.path(), "model.safetensors", &head);
        assert_eq!(tensors(&Artifact::from_folder(ArtifactKind::Model, folder.path()).unwrap()), None);
    }

    #[test]
    fn a_model_of_pickles_or_a_gguf_is_described_by_their_heads() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/fixtures");
        for (file, name) in [("llama.bin", "pytorch_model.bin"), ("llama.gguf", "model.gguf")] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::copy(fixtures.join("parity/llama/config.json"), folder.path().join("config.json")).unwrap();
            std::fs::copy(fixtures.join("weights").join(file), folder.path().join(name)).unwrap();
            let facts = facts(ArtifactKind::Model, folder.path());
            let value = |name: &str| facts.iter().find(|(fact, _)| fact == name).map(|(_, value)| value.as_str());
            assert_eq!((value("parameters"), value("tensors")), (Some("31,392"), Some("21")), "{file}");
            assert_eq!(value("stored as"), Some("float32"), "{file}");
        }
    }

    #[test]
    fn a_gguf_alone_is_described_by_what_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/fixtures/weights/llama.gguf");
        std::fs::copy(fixture, folder.path().join("model.gguf")).unwrap();
        let facts = facts(ArtifactKind::Model, folder.path());
        let value = |name: &str| facts.iter().find(|(fact, _)| fact == name).map(|(_, value)| value.as_str());
        assert_eq!((value("architecture"), value("layers")), (Some("LlamaForCausalLM"), Some("2")));
        assert_eq!((value("vocabulary (tokens)"), value("tied embeddings")), (Some("128"), Some("false")));
    }
}
