//! The merged model folder: every tensor of the base with its update added, in files of bounded size.
//!
//! A tensor is read, widened to f32, updated, cast once and written before the next is read: memory holds one at a time.
//! Tensors without an update and without a change of dtype are copied byte for byte.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use pipe_contract::{Artifact, Context, StageError, Unit};
use pipe_llm::merge::{self, Update};
use pipe_llm::model_folder;
use pipe_llm::weights::{TensorEntry, WeightFiles};
use pipe_llm::{Adapter, Program};
use safetensors::{Dtype, View};

use crate::settings::Settings;

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
    model_folder::write_config(model, folder, settings.dtype)?;
    model_folder::copy_companions(model, folder)?;
    let mut updates = HashMap::new();
    if let Some(adapter) = adapter {
        for (module, adapted) in adapter.modules.iter().zip(&weights.program.adapted) {
            updates.insert(format!("{}.weight", module.path), Update::new(adapter, module, adapted.layout)?);
        }
    }
    let files = weights.files;
    let progress = Progress { ctx, n_done: RefCell::new(0), n_all: weights.entries().count() as u64 };
    let failure = RefCell::new(None);
    let source = Source { files, updates: &updates, dtype: settings.dtype, progress: &progress, failure: &failure };
    let tensors: Vec<_> = weights.entries().map(|(name, _)| (name.clone(), source.tensor(name))).collect();
    let result = model_folder::write_weights(folder, &tensors, settings.max_shard_size_bytes);
    if let Some(error) = failure.take() {
        return Err(error);
    }
    Ok(result?)
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

#[derive(Clone)]
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
