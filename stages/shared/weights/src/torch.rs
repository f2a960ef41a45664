//! A file of `torch.save` to the entries of the tensors in its state dict.
//!
//! ```text
//! pytorch_model.bin (zip)   NAME/data.pkl     {"a.weight": _rebuild_tensor_v2(storage "0" of float32, offset, size, stride, ...)}
//!                           NAME/byteorder    little
//!                           NAME/data/0       the elements of storage "0", stored as they are, at a multiple of 64 bytes
//! ```
//!
//! The format of torch >= 1.6 (torch/serialization.py, `_save`). A tensor is a view of a storage (torch/_utils.py,
//! `_rebuild_tensor_v2`); most lie in it in the order of their shape and are used where they are, as in safetensors. Others (transposed,
//! every second column) are gathered when they are read. A view of more elements than its storage has repeats some, and is refused.

use std::collections::BTreeMap;
use std::fs::File;

use ::safetensors::Dtype;

use crate::entry::{TensorEntry, View, width};
use crate::error::{Fault, shown};
use crate::pickle::{Import, Pickle, Value, ValueId};
use crate::zip::{self, Member};

/// Of `data.pkl`: some 250 bytes a tensor, so 30,000 tensors. Its values take up to 32 times as much memory.
const PICKLE_BYTES_MAX: u64 = 8 << 20;

/// `torch.serialization.MAGIC_NUMBER` as the first pickle of a file from before 1.6.
const LEGACY_BEGINNING: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// Names and entries. `file_idx`: for the entries.
pub(crate) fn entries(file: &File, file_idx: usize) -> Result<Vec<(String, TensorEntry)>, Fault> {
    check_beginning(file)?;
    let members = zip::members(file)?;
    let is_pickle = |name: &&String| name.split_once('/').is_some_and(|(_, rest)| rest == "data.pkl");
    let mut pickles = members.keys().filter(is_pickle);
    let (Some(name), None) = (pickles.next(), pickles.next()) else {
        return Err(Fault::broken("the archive has no `data.pkl`, or several: it is not a file of `torch.save`"));
    };
    let folder = name.strip_suffix("data.pkl").expect("found by its end");
    check_byte_order(file, members.get(&format!("{folder}byteorder")))?;
    let member = members[name];
    if member.size > PICKLE_BYTES_MAX {
        return Err(Fault::broken(format!("its pickle has {} bytes: that is not a state dict", member.size)));
    }
    let bytes = zip::read(file, member.offset, member.size)?;
    StateDict { pickle: &Pickle::read(&bytes)?, members: &members, folder, file_idx }.entries()
}

fn check_beginning(file: &File) -> Result<(), Fault> {
    let size = file.metadata()?.len().min(16);
    let beginning = zip::read(file, 0, size)?;
    if zip::is_archive(&beginning) {
        return Ok(());
    }
    if beginning.get(2..).is_some_and(|rest| rest.starts_with(LEGACY_BEGINNING)) {
        return Err(Fault::unsupported(
            "it has the format of torch before 1.6, which cannot be mapped",
            "write it anew: `torch.save(torch.load(file, weights_only=True), file)`",
        ));
    }
    Err(Fault::broken("it is not a file of `torch.save`, or cut off: it does not begin as a zip archive"))
}

/// Files from before torch 2.1 do not say it; they are from machines with little-endian numbers as good as always.
fn check_byte_order(file: &File, member: Option<&Member>) -> Result<(), Fault> {
    let Some(member) = member else { return Ok(()) };
    match zip::read(file, member.offset, member.size.min(16))?.as_slice() {
        b"little" => Ok(()),
        other => {
            let why = format!("its byte order is `{}`", shown(&String::from_utf8_lossy(other)));
            Err(Fault::unsupported(why, "write it on a machine with little-endian numbers, or as safetensors"))
        }
    }
}

/// A storage: a run of elements in the file.
struct Storage {
    dtype: Dtype,
    n_elements: usize,
    offset: u64,
}

struct StateDict<'a> {
    pickle: &'a Pickle<'a>,
    members: &'a BTreeMap<String, Member>,
    folder: &'a str,
    file_idx: usize,
}

impl StateDict<'_> {
    fn entries(&self) -> Result<Vec<(String, TensorEntry)>, Fault> {
        let Value::Dict(items) = self.pickle.value(self.pickle.root()) else {
            return Err(not_tensors(&format!(
                "its pickle is {}, not a dict of tensors",
                self.pickle.kind(self.pickle.root())
            )));
        };
        let entry = |(key, value): &(ValueId, ValueId)| {
            let Value::Text(name) = *self.pickle.value(*key) else {
                return Err(not_tensors(&format!(
                    "a key of its dict is {}, not the name of a tensor",
                    self.pickle.kind(*key)
                )));
            };
            if let Value::Call(..) = self.pickle.value(*value) {
                return Ok((name.to_string(), self.tensor(name, *value)?));
            }
            let what = self.pickle.kind(*value);
            Err(not_tensors(&format!("`{}` is {what}, not a tensor", shown(name))))
        };
        items.iter().map(entry).collect()
    }

    fn tensor(&self, name: &str, id: ValueId) -> Result<TensorEntry, Fault> {
        let tensor = self.parameter(id).unwrap_or(id);
        self.rebuild(tensor).map_err(|why| Fault::broken(format!("the tensor `{}` {why}", shown(name))))
    }

    /// The tensor of `_rebuild_parameter(data, requires_grad, backward_hooks)`.
    fn parameter(&self, id: ValueId) -> Option<ValueId> {
        match self.arguments(id, Import::RebuildParameter)? {
            [data, _, hooks] if self.is_empty_dict(*hooks) => Some(*data),
            _ => None,
        }
    }

    /// The view that `_rebuild_tensor_v2(storage, storage_offset, size, stride, requires_grad, backward_hooks, metadata=None)` makes.
    fn rebuild(&self, id: ValueId) -> Result<TensorEntry, String> {
        let arguments = self.arguments(id, Import::RebuildTensor).unwrap_or_default();
        let [storage, offset, sizes, strides, _, hooks, metadata @ ..] = arguments else {
            return Err("is not made as `_rebuild_tensor_v2` makes one".to_string());
        };
        let is_plain = |metadata: &[ValueId]| match metadata {
            [] => true,
            [only] => *self.pickle.value(*only) == Value::None || self.is_empty_dict(*only),
            _ => false,
        };
        if !self.is_empty_dict(*hooks) || !is_plain(metadata) {
            return Err("has hooks or metadata, which say that it is more than its numbers".to_string());
        }
        let storage = self.storage(*storage)?;
        let no_sizes = || "has a size, stride or offset that is no number of elements".to_string();
        let offset = self.count(*offset).ok_or_else(no_sizes)?;
        let shape = self.counts(*sizes).ok_or_else(no_sizes)?;
        let view = View { sizes: shape.clone(), strides: self.counts(*strides).ok_or_else(no_sizes)? };
        let fits = view.sizes.len() == view.strides.len()
            && view.span().and_then(|span| span.checked_add(offset)).is_some_and(|end| end <= storage.n_elements);
        if !fits {
            let n_elements = storage.n_elements;
            return Err(format!("lies outside its storage of {n_elements} elements: {shape:?} from {offset}"));
        }
        let n_elements = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        let Some(n_elements) = n_elements.filter(|n| *n <= storage.n_elements) else {
            return Err(format!("has a shape {shape:?} that repeats elements of its storage (an expanded view)"));
        };
        Ok(TensorEntry {
            dtype: storage.dtype,
            size_bytes: n_elements * width(storage.dtype),
            shape,
            file_idx: self.file_idx,
            offset: storage.offset + (offset * width(storage.dtype)) as u64,
            view: (n_elements > 0 && !view.is_contiguous()).then_some(view),
            is_one_more: false,
        })
    }

    /// What `("storage", type, key, location, number of elements)` stands for.
    fn storage(&self, id: ValueId) -> Result<Storage, String> {
        let form = || "has a storage of another form than `torch.save` writes".to_string();
        let Value::Persistent(parts) = self.pickle.value(id) else { return Err(form()) };
        let parts: Vec<&Value<'_>> =
            self.tuple(*parts).ok_or_else(form)?.iter().map(|part| self.pickle.value(*part)).collect();
        let [
            Value::Text("storage"),
            Value::Global(Import::Storage(dtype)),
            Value::Text(key),
            Value::Text(_),
            Value::Int(n),
        ] = parts[..]
        else {
            return Err(form());
        };
        let Some(member) = self.members.get(&format!("{}data/{key}", self.folder)) else {
            return Err(format!("has its elements in `data/{}`, which the archive does not have", shown(key)));
        };
        let n_elements = usize::try_from(*n).ok();
        let size_bytes = n_elements.and_then(|n| n.checked_mul(width(*dtype)));
        if size_bytes.is_none_or(|size| size as u64 != member.size) {
            let found = member.size;
            return Err(format!("has {n} elements of {dtype:?} in `data/{}`, which has {found} bytes", shown(key)));
        }
        Ok(Storage { dtype: *dtype, n_elements: n_elements.expect("checked above"), offset: member.offset })
    }

    /// The arguments of a call of `function`.
    fn arguments(&self, id: ValueId, function: Import) -> Option<&[ValueId]> {
        match self.pickle.value(id) {
            Value::Call(called, arguments) if *called == function => self.tuple(*arguments),
            _ => None,
        }
    }

    fn tuple(&self, id: ValueId) -> Option<&[ValueId]> {
        match self.pickle.value(id) {
            Value::Tuple(items) => Some(items),
            _ => None,
        }
    }

    fn is_empty_dict(&self, id: ValueId) -> bool {
        matches!(self.pickle.value(id), Value::Dict(items) if items.is_empty())
    }

    fn count(&self, id: ValueId) -> Option<usize> {
        match self.pickle.value(id) {
            Value::Int(number) => usize::try_from(*number).ok(),
            _ => None,
        }
    }

    fn counts(&self, id: ValueId) -> Option<Vec<usize>> {
        self.tuple(id)?.iter().map(|item| self.count(*item)).collect()
    }
}

fn not_tensors(why: &str) -> Fault {
    Fault::unsupported(why, "only the state dict of a model is read: `torch.save(model.state_dict(), file)`")
}
