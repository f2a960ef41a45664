//! `*.safetensors`: the first tensor, in the order of names, that differs, and how much of the file does.
//!
//! The heads say what is where; tensors are then compared a block at a time, so memory does not grow with the model.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use pipe_contract::StageError;
use pipe_records::folders::weight_head;
use pipe_records::thousands;
use serde_json::Value;

use crate::bytes::{Place, open};
use crate::element::{Dtype, Element};
use crate::json::value_difference;

/// Bytes of each tensor in memory at a time, at most: a multiple of every dtype's width.
const BLOCK_BYTES: usize = 1 << 20;

/// An open file of weights.
struct Weights {
    file: File,
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
    metadata: Value,
}

/// What the head says of a tensor.
struct Tensor {
    dtype: String,
    shape: Vec<u64>,
    /// Of its first byte in the file.
    offset: u64,
    n_bytes: u64,
}

/// What of two tensors of one dtype and shape differs.
struct Differing {
    /// Index of the first, and both values.
    first: (u64, Element, Element),
    n_elements: u64,
    /// The largest difference of two numbers, if there are any.
    largest: Option<f64>,
    /// Pairs of which one is not a number, or both.
    n_not_numbers: u64,
}

/// `None` if one of the files is not of this form.
pub(crate) fn first_difference(place: &Place, before: &Path, now: &Path) -> Result<Option<String>, StageError> {
    let (Some(before), Some(now)) = (Weights::open(before)?, Weights::open(now)?) else { return Ok(None) };
    let names: BTreeSet<&String> = before.tensors.keys().chain(now.tensors.keys()).collect();
    let (mut first, mut n_differing) = (None, 0);
    for name in &names {
        let pair = (before.tensors.get(*name), now.tensors.get(*name));
        let Some(difference) = tensor_difference(&before, &now, pair, first.is_none())? else { continue };
        n_differing += 1;
        first.get_or_insert_with(|| format!("tensor `{name}` {difference}"));
    }
    let n_tensors = thousands(names.len() as u64);
    Ok(Some(match first {
        Some(first) => format!("{first}; {} of {n_tensors} tensors differ", thousands(n_differing)),
        None => match value_difference(&before.metadata, &now.metadata, "__metadata__") {
            Some(difference) => format!("the {n_tensors} tensors are equal, but not {difference}"),
            None => format!("the {n_tensors} tensors are equal, but not how they are written: {place}"),
        },
    }))
}

impl Weights {
    /// `None` without a valid head, or if it does not fit the file.
    fn open(path: &Path) -> Result<Option<Self>, StageError> {
        let file = open(path)?;
        let size = file.metadata().map_err(|error| StageError::io("read", path, error))?.len();
        let Some((mut head, data_begin)) = weight_head(path) else { return Ok(None) };
        let metadata = head.remove("__metadata__").unwrap_or(Value::Null);
        let entries = head.iter().map(|(name, entry)| Some((name.clone(), Tensor::read(entry, data_begin, size)?)));
        let tensors = entries.collect::<Option<BTreeMap<_, _>>>();
        Ok(tensors.map(|tensors| Weights { file, path: path.to_path_buf(), tensors, metadata }))
    }

    fn read(&self, offset: u64, block: &mut [u8]) -> Result<(), StageError> {
        self.file.read_exact_at(block, offset).map_err(|error| StageError::io("read", &self.path, error))
    }
}

impl Tensor {
    fn read(entry: &Value, data_begin: u64, file_size: u64) -> Option<Self> {
        let shape: Option<Vec<u64>> = entry["shape"].as_array()?.iter().map(Value::as_u64).collect();
        let [begin, end] = [0, 1].map(|i| entry["data_offsets"][i].as_u64()?.checked_add(data_begin));
        let (begin, end) = (begin?, end?);
        let tensor = Tensor {
            dtype: entry["dtype"].as_str()?.to_string(),
            shape: shape?,
            offset: begin,
            n_bytes: end.checked_sub(begin)?,
        };
        let n_elements = tensor.shape.iter().try_fold(1_u64, |product, size| product.checked_mul(*size))?;
        let is_whole = match Dtype::of(&tensor.dtype).width() {
            Some(width) => n_elements.checked_mul(width as u64)? == tensor.n_bytes,
            None => true,
        };
        (is_whole && end <= file_size).then_some(tensor)
    }

    fn n_elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Bytes of an element: of a dtype that is unknown here, what its size comes to; `None` if that is no whole number.
    fn width(&self) -> Option<usize> {
        let known = Dtype::of(&self.dtype).width();
        let divided = || {
            let is_whole = self.n_elements() > 0 && self.n_bytes.is_multiple_of(self.n_elements());
            let width = is_whole.then(|| self.n_bytes / self.n_elements())?;
            usize::try_from(width).ok().filter(|width| (1..=16).contains(width))
        };
        known.or_else(divided)
    }

    /// `F32, 16 x 576`.
    fn form(&self) -> String {
        let sizes: Vec<String> = self.shape.iter().map(u64::to_string).collect();
        if sizes.is_empty() {
            format!("{}, one number", self.dtype)
        } else {
            format!("{}, {}", self.dtype, sizes.join(" x "))
        }
    }

    /// `at [3, 17]`, of the element with this index in the row-major order of the file.
    fn position(&self, mut index: u64) -> String {
        let mut indices: Vec<String> = Vec::new();
        for size in self.shape.iter().rev() {
            indices.push((index % size).to_string());
            index /= size;
        }
        indices.reverse();
        if indices.is_empty() { String::new() } else { format!(" at [{}]", indices.join(", ")) }
    }
}

/// What differs, to stand behind the tensor's name; `None` if nothing does. Without `is_told` only whether something does.
fn tensor_difference(
    before: &Weights,
    now: &Weights,
    pair: (Option<&Tensor>, Option<&Tensor>),
    is_told: bool,
) -> Result<Option<String>, StageError> {
    let (left, right) = match pair {
        (Some(left), Some(right)) => (left, right),
        (Some(left), None) => return Ok(Some(format!("({}) is gone", left.form()))),
        (None, Some(right)) => return Ok(Some(format!("({}) is new", right.form()))),
        (None, None) => return Ok(None),
    };
    if left.form() != right.form() || left.n_bytes != right.n_bytes {
        return Ok(Some(format!("({}) -> ({})", left.form(), right.form())));
    }
    let Some(differing) = compare(before, now, left, right, is_told)? else { return Ok(None) };
    Ok(Some(differing.text(left)))
}

impl Differing {
    /// `(F32, 16 x 576) at [3, 17]: 0.0123 -> 0.0124; 4,096 of its 9,216 elements differ, by 1.2e-3 at most`.
    fn text(&self, tensor: &Tensor) -> String {
        let (index, before, now) = &self.first;
        // A dtype with several elements in a byte is compared in bytes.
        let (position, n_all, unit) = match tensor.width() {
            Some(_) => (tensor.position(*index), tensor.n_elements(), "elements"),
            None => (format!(" at byte {index} of its data"), tensor.n_bytes, "bytes"),
        };
        let (n_differing, n_all) = (thousands(self.n_elements), thousands(n_all));
        let mut text = format!("({}){position}: {before} -> {now}", tensor.form());
        if tensor.n_elements() <= 1 {
            return text;
        }
        text += &format!("; {n_differing} of its {n_all} {unit} differ");
        match self.largest {
            Some(largest) if before.is_integer() => text += &format!(", by {largest} at most"),
            Some(largest) => text += &format!(", by {largest:.1e} at most"),
            None => {}
        }
        if self.n_not_numbers > 0 {
            text += &format!(", {} of them NaN", thousands(self.n_not_numbers));
        }
        text
    }

    fn add(&mut self, before: &Element, now: &Element) {
        self.n_elements += 1;
        match before.gap(now) {
            Some(gap) if gap.is_nan() => self.n_not_numbers += 1,
            Some(gap) => self.largest = Some(self.largest.unwrap_or(0.0).max(gap)),
            None => {}
        }
    }
}

/// Compares the data of two tensors of one form: all of it, or up to the first difference.
fn compare(
    before: &Weights,
    now: &Weights,
    left: &Tensor,
    right: &Tensor,
    is_all: bool,
) -> Result<Option<Differing>, StageError> {
    let (dtype, width) = (Dtype::of(&left.dtype), left.width().unwrap_or(1));
    let block_bytes = BLOCK_BYTES - BLOCK_BYTES % width;
    let mut blocks = [vec![0; block_bytes], vec![0; block_bytes]];
    let mut found: Option<Differing> = None;
    let mut n_done = 0;
    while n_done < left.n_bytes {
        let length = usize::try_from(left.n_bytes - n_done).map_or(block_bytes, |rest| rest.min(block_bytes));
        let [a, b] = &mut blocks;
        let (a, b) = (&mut a[..length], &mut b[..length]);
        before.read(left.offset + n_done, a)?;
        now.read(right.offset + n_done, b)?;
        if a != b {
            let pairs = a.chunks(width).zip(b.chunks(width)).enumerate();
            for (i, (x, y)) in pairs.filter(|(_, (x, y))| x != y) {
                let (x, y) = (dtype.read(x), dtype.read(y));
                let differing = found.get_or_insert_with(|| Differing {
                    first: (n_done / width as u64 + i as u64, x.clone(), y.clone()),
                    n_elements: 0,
                    largest: None,
                    n_not_numbers: 0,
                });
                differing.add(&x, &y);
                if !is_all {
                    return Ok(found);
                }
            }
        }
        n_done += length as u64;
    }
    Ok(found)
}
