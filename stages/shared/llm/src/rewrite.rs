//! A model's weights written once more, some of them changed: an adapter added, rows put in the place of others or behind them.
//!
//! A tensor is read, widened to f32, changed, cast once and written before the next is read: memory holds one at a time. Tensors without
//! a change, and without a change of dtype, are copied byte for byte. What can be derived (rotary frequencies, a tied head) is left out.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use pipe_contract::{Context, StageError, Unit};
use safetensors::{Dtype, View};

use crate::adapter::Adapter;
use crate::error::LlmError;
use crate::merge::{self, Update};
use crate::model_folder;
use crate::program::Program;
use crate::weights::{TensorEntry, WeightFiles};

/// What becomes of a tensor, f32.
pub enum Change {
    /// A low-rank update is added.
    Add(Update),
    /// Rows, (n, C), stand in the place of those with these indices.
    Replace {
        /// Each once, below the number of rows.
        ids: Vec<u32>,
        /// Row-major.
        rows: Vec<f32>,
    },
    /// Rows, (n, C), stand behind the others.
    Append {
        /// How many.
        n_rows: usize,
        /// Row-major.
        rows: Vec<f32>,
    },
}

impl Change {
    fn apply(&self, values: &mut Vec<f32>) {
        match self {
            Change::Add(update) => update.add_to(values),
            Change::Replace { ids, rows } => {
                let width = rows.len() / ids.len();
                for (id, row) in ids.iter().zip(rows.chunks_exact(width)) {
                    values[*id as usize * width..][..width].copy_from_slice(row);
                }
            }
            Change::Append { rows, .. } => values.extend_from_slice(rows),
        }
    }
}

/// Changes by the name of the tensor.
pub type Changes = HashMap<String, Change>;

/// The changes that merge `adapter`, which is for `program`.
///
/// # Errors
/// When a tensor cannot be read back from its device.
pub fn merging(adapter: &Adapter, program: &Program) -> Result<Changes, LlmError> {
    let mut changes = Changes::new();
    for (module, adapted) in adapter.modules.iter().zip(&program.adapted) {
        let update = Update::new(adapter, module, adapted.layout)?;
        changes.insert(format!("{}.weight", module.path), Change::Add(update));
    }
    for (own, tokens) in adapter.tokens.iter().zip(&program.tokens) {
        let change = Change::Replace { ids: tokens.ids.clone(), rows: own.rows.flatten_all()?.to_vec1()? };
        changes.insert(program.weights[tokens.weight].name.clone(), change);
    }
    Ok(changes)
}

/// Writes the tensors of `files` that `program` uses, which were checked against it, into `folder`. `dtype`: of all tensors; each keeps its own where
/// there is none.
///
/// # Errors
/// A file that cannot be read or written, a number that does not fit into the dtype, cancellation.
pub fn write(
    ctx: &Context<'_>,
    files: &WeightFiles,
    program: &Program,
    changes: &Changes,
    dtype: Option<Dtype>,
    max_shard_size_bytes: u64,
    folder: &Path,
) -> Result<(), StageError> {
    let names: BTreeSet<&str> = program.weights.iter().map(|spec| spec.name.as_str()).collect();
    let used: Vec<&String> = files.entries().keys().filter(|name| names.contains(name.as_str())).collect();
    let progress = Progress { ctx, n_done: RefCell::new(0), n_all: used.len() as u64 };
    let failure = RefCell::new(None);
    let source = Source { files, changes, dtype, progress: &progress, failure: &failure };
    let tensors: Vec<_> = used.into_iter().map(|name| (name.clone(), source.tensor(name))).collect();
    let result = model_folder::write_weights(folder, &tensors, max_shard_size_bytes);
    if let Some(error) = failure.take() {
        return Err(error);
    }
    Ok(result?)
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
    changes: &'s Changes,
    dtype: Option<Dtype>,
    progress: &'s Progress<'s, 'c>,
    /// The writer cannot fail in the middle of a tensor, so the first failure is kept here.
    failure: &'s RefCell<Option<StageError>>,
}

impl<'s, 'c> Source<'s, 'c> {
    fn tensor(&self, name: &str) -> Written<'s, 'c> {
        let entry = &self.files.entries()[name];
        let mut shape = entry.shape.clone();
        if let Some(Change::Append { n_rows, .. }) = self.changes.get(name) {
            shape[0] += n_rows;
        }
        Written { source: *self, name: name.to_string(), entry, shape }
    }

    fn bytes(&self, name: &str, entry: &TensorEntry, dtype: Dtype) -> Result<Vec<u8>, StageError> {
        self.progress.tick()?;
        let bytes = self.files.read(name)?;
        let change = self.changes.get(name);
        if change.is_none() && dtype == entry.dtype {
            return Ok(bytes);
        }
        let mut values = merge::to_f32(&bytes, entry.dtype)?;
        if let Some(change) = change {
            change.apply(&mut values);
        }
        Ok(merge::from_f32(&values, dtype)?)
    }
}

#[derive(Clone)]
struct Written<'s, 'c> {
    source: Source<'s, 'c>,
    name: String,
    entry: &'s TensorEntry,
    shape: Vec<usize>,
}

impl View for Written<'_, '_> {
    fn dtype(&self) -> Dtype {
        self.source.dtype.unwrap_or(self.entry.dtype)
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        if self.source.failure.borrow().is_none() {
            match self.source.bytes(&self.name, self.entry, self.dtype()) {
                Ok(bytes) => return Cow::Owned(bytes),
                Err(error) => *self.source.failure.borrow_mut() = Some(error),
            }
        }
        Cow::Owned(Vec::new())
    }

    fn data_len(&self) -> usize {
        let width = if self.dtype() == Dtype::F32 { 4 } else { 2 };
        self.shape.iter().product::<usize>() * width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_place_of_others_or_behind_them() {
        let mut values = vec![1.0, 1.5, 2.0, 2.5, 3.0, 3.5];
        Change::Replace { ids: vec![2, 0], rows: vec![7.0, 8.0, 9.0, 10.0] }.apply(&mut values);
        assert_eq!(values, [9.0, 10.0, 2.0, 2.5, 7.0, 8.0]);
        Change::Append { n_rows: 1, rows: vec![5.0, 6.0] }.apply(&mut values);
        assert_eq!(values[6..], [5.0, 6.0]);
    }
}
