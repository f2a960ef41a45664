//! The merged model folder: every tensor of the base with its update added, in files of bounded size.
//!
//! A tensor is read, widened to f32, updated, cast once and written before the next is read: memory holds one at a time.
//! Tensors without an update and without a change of dtype are copied byte for byte.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use pipe_contract::{Artifact, Context, StageError, Unit};
use pipe_llm::merge::{self, Update};
use pipe_llm::weights::{TensorEntry, WeightFiles};
use pipe_llm::{Adapter, Program};
use safetensors::{Dtype, View};
use serde_json::{Value, json};

use crate::error::ExportError;
use crate::settings::Settings;

/// Files that are copied as they are.
const COPIED: &[&str] = &[
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
];

/// The tensors of a model that its program uses. What can be derived (rotary frequencies, a tied head) is left out.
#[derive(Clone, Copy)]
pub struct Weights<'w> {
    /// Checked against `program`.
    pub files: &'w WeightFiles,
    /// Names them.
    pub program: &'w Program,
}

impl<'w> Weights<'w> {
    /// In name order.
    fn entries(self) -> impl Iterator<Item = (&'w String, &'w TensorEntry)> {
        let names: BTreeSet<&str> = self.program.weights.iter().map(|spec| spec.name.as_str()).collect();
        self.files.entries().iter().filter(move |(name, _)| names.contains(name.as_str()))
    }
}

/// Writes the merged model into `folder`.
///
/// # Errors
/// A file that cannot be read or written, a number that does not fit into the dtype, cancellation.
pub fn write(
    ctx: &Context<'_>,
    settings: &Settings,
    model: &Artifact,
    weights: Weights<'_>,
    adapter: Option<&Adapter>,
    folder: &Path,
) -> Result<(), StageError> {
    write_config(settings, model, folder)?;
    for name in COPIED {
        if let Some(path) = model.get(name) {
            let to = folder.join(name);
            std::fs::copy(path, &to).map_err(|source| ExportError::Io { verb: "copy", path: to, source })?;
        }
    }
    let mut updates = HashMap::new();
    for (adapter, module) in adapter.into_iter().flat_map(|a| a.modules.iter().map(move |m| (a, m))) {
        updates.insert(format!("{}.weight", module.path), Update::new(adapter, module)?);
    }
    let files = weights.files;
    let progress = Progress { ctx, n_done: RefCell::new(0), n_all: weights.entries().count() as u64 };
    let failure = RefCell::new(None);
    let source = Source { files, updates: &updates, dtype: settings.dtype, progress: &progress, failure: &failure };
    let shards = shards(weights, settings);
    let mut weight_map = BTreeMap::new();
    for (shard_idx, names) in shards.iter().enumerate() {
        let file_name = shard_name(shard_idx, shards.len());
        let tensors = names.iter().map(|name| (name.as_str(), source.tensor(name)));
        let path = folder.join(&file_name);
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        let result = safetensors::serialize_to_file(tensors, Some(metadata), &path);
        if let Some(error) = failure.take() {
            return Err(error);
        }
        result.map_err(|e| ExportError::Io { verb: "write", path: path.clone(), source: std::io::Error::other(e) })?;
        weight_map.extend(names.iter().map(|name| (name.clone(), file_name.clone())));
    }
    if shards.len() > 1 {
        let total: usize = weights.entries().map(|(_, entry)| written_size(entry, settings.dtype)).sum();
        let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        write_json(&folder.join("model.safetensors.index.json"), &index)?;
    }
    Ok(())
}

/// The base's config, with the dtype that was asked for.
fn write_config(settings: &Settings, model: &Artifact, folder: &Path) -> Result<(), StageError> {
    let path = model.file("config.json")?;
    let text = std::fs::read_to_string(path).map_err(|e| StageError::io("read", path, e))?;
    let Ok(Value::Object(mut config)) = serde_json::from_str::<Value>(&text) else {
        return Err(ExportError::BadJson { name: "config.json".into() }.into());
    };
    if let Some(dtype) = settings.dtype {
        let name = match dtype {
            Dtype::F16 => "float16",
            Dtype::BF16 => "bfloat16",
            _ => "float32",
        };
        // transformers 4 reads `torch_dtype`, transformers 5 `dtype`.
        let key = if config.contains_key("dtype") { "dtype" } else { "torch_dtype" };
        config.insert(key.into(), name.into());
    }
    write_json(&folder.join("config.json"), &Value::Object(config))
}

fn write_json(path: &Path, value: &Value) -> Result<(), StageError> {
    let text = serde_json::to_string_pretty(value).expect("a JSON value can be written") + "\n";
    let io = |source| ExportError::Io { verb: "write", path: path.to_path_buf(), source };
    Ok(std::fs::write(path, text).map_err(io)?)
}

/// Names of tensors per file, in name order, each file at most as large as asked (or one tensor).
fn shards(weights: Weights<'_>, settings: &Settings) -> Vec<Vec<String>> {
    let mut shards: Vec<Vec<String>> = Vec::new();
    let mut room = 0;
    for (name, entry) in weights.entries() {
        let size = written_size(entry, settings.dtype) as u64;
        match shards.last_mut() {
            Some(shard) if size <= room => {
                shard.push(name.clone());
                room -= size;
            }
            _ => {
                shards.push(vec![name.clone()]);
                room = settings.max_shard_size_bytes.saturating_sub(size);
            }
        }
    }
    shards
}

fn shard_name(shard_idx: usize, n_shards: usize) -> String {
    match n_shards {
        1 => "model.safetensors".to_string(),
        _ => format!("model-{:05}-of-{n_shards:05}.safetensors", shard_idx + 1),
    }
}

fn written_dtype(entry: &TensorEntry, dtype: Option<Dtype>) -> Dtype {
    dtype.unwrap_or(entry.dtype)
}

fn written_size(entry: &TensorEntry, dtype: Option<Dtype>) -> usize {
    let width = if written_dtype(entry, dtype) == Dtype::F32 { 4 } else { 2 };
    entry.shape.iter().product::<usize>() * width
}

struct Progress<'p, 'c> {
    ctx: &'p Context<'c>,
    n_done: RefCell<u64>,
    n_all: u64,
}

impl Progress<'_, '_> {
    fn tick(&self) -> Result<(), StageError> {
        *self.n_done.borrow_mut() += 1;
        self.ctx.progress(*self.n_done.borrow(), self.n_all, Unit::Files);
        self.ctx.check_cancelled()
    }
}

/// Where the writer gets its tensors: made when it asks for them.
#[derive(Clone, Copy)]
struct Source<'s, 'c> {
    files: &'s WeightFiles,
    updates: &'s HashMap<String, Update>,
    dtype: Option<Dtype>,
    progress: &'s Progress<'s, 'c>,
    /// The writer cannot fail in the middle of a tensor, so the first failure is kept here.
    failure: &'s RefCell<Option<StageError>>,
}

impl<'s, 'c> Source<'s, 'c> {
    fn tensor(&self, name: &str) -> MergedTensor<'s, 'c> {
        let entry = &self.files.entries()[name];
        MergedTensor { source: *self, name: name.to_string(), entry }
    }

    fn bytes(&self, name: &str, entry: &TensorEntry) -> Result<Vec<u8>, StageError> {
        self.progress.tick()?;
        let bytes = self.files.read(name)?;
        let dtype = written_dtype(entry, self.dtype);
        let update = self.updates.get(name);
        if update.is_none() && dtype == entry.dtype {
            return Ok(bytes);
        }
        let mut values = merge::to_f32(&bytes, entry.dtype)?;
        if let Some(update) = update {
            update.add_to(&mut values);
        }
        Ok(merge::from_f32(&values, dtype)?)
    }
}

struct MergedTensor<'s, 'c> {
    source: Source<'s, 'c>,
    name: String,
    entry: &'s TensorEntry,
}

impl View for MergedTensor<'_, '_> {
    fn dtype(&self) -> Dtype {
        written_dtype(self.entry, self.source.dtype)
    }

    fn shape(&self) -> &[usize] {
        &self.entry.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        if self.source.failure.borrow().is_none() {
            match self.source.bytes(&self.name, self.entry) {
                Ok(bytes) => return Cow::Owned(bytes),
                Err(error) => *self.source.failure.borrow_mut() = Some(error),
            }
        }
        Cow::Owned(Vec::new())
    }

    fn data_len(&self) -> usize {
        written_size(self.entry, self.source.dtype)
    }
}
