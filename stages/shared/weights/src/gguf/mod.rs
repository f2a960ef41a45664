//! A GGUF file of llama.cpp to entries under Hugging Face's names.
//!
//! ```text
//! blk.3.attn_q.weight                           ->  model.layers.3.self_attn.q_proj.weight
//! llama.rope.freq_base, rope_factors_long.weight  ->  claims, which `config.json` must agree with
//! ```
//!
//! The form: ggml's docs/gguf.md, version 3 (2 is read alike). The names and what becomes of a tensor: gguf-py's constants.py and
//! convert_hf_to_gguf.py. What the converter does to a tensor is undone when the tensor is read:
//!
//! | family | converter | here |
//! |---|---|---|
//! | Llama, Mistral | rotates neighbouring channels where Hugging Face rotates a channel with the one half a head away, so row (head, p, j) of q and k, p being 0 or 1, becomes row (head, j, p) | a view |
//! | GPT-2 | transposes the matrices of Conv1D, `[in, out]` | a view |
//! | Gemma 2 and 3 | adds 1 to the weights of norms, which it stores as F32 | 1 is subtracted in f32 |
//!
//! All other tensors are used where they lie.
//!
//! For a norm w of a Gemma the file has s = w + 1, rounded to f32, and what is read is s - 1. That difference is exact for every s that a sum
//! with 1 can round to: below 2^24 it is a multiple of the spacing of s and no larger than it, and for s under 1/2 the sum was exact. So it differs
//! from w by what the converter rounded away, at most 2^-24 = 6e-8 where |w| < 1 (nothing where w was a bfloat16 of 2^-16 or more), and 1 + (s - 1), which
//! is what the model multiplies by, is s to the bit: the logits are those of the original weights, bit for bit.
//!
//! The numbers that the file states are claims that the `config.json` beside it must agree with. Where there is none, the metadata makes
//! one ([`config_json`]), and the vocabulary, for whoever makes a tokenizer of it ([`Vocabulary`]).
//!
//! It deliberately unpacks no quantized blocks: what was rounded away is not in them, and training on it would not be training of the
//! model that was meant.

mod config;
mod names;
mod reader;
mod vocabulary;

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use ::safetensors::Dtype;

use crate::entry::{TensorEntry, View, width};
use crate::error::{Fault, shown};
use crate::files::Head;
use reader::{Listed, Lists, Raw, shortest};
pub use vocabulary::{TokenType, Vocabulary};

/// Frequencies of a rope: half the channels of a head, some tens.
const N_FACTORS_MAX: usize = 1 << 16;

/// Tensors that are statements about the rope, and the names of their claims.
const FACTORS: [(&str, &str); 3] = [
    ("rope_freqs.weight", "rope_freqs"),
    ("rope_factors_long.weight", "long_factor"),
    ("rope_factors_short.weight", "short_factor"),
];

/// What llama.cpp calls an architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Llama 1 to 3 and all that computes like it; a Mistral too.
    Llama,
    Qwen2,
    Qwen3,
    Phi3,
    Gemma2,
    Gemma3,
    Gpt2,
}

impl Family {
    const ALL: [(&'static str, Family); 7] = [
        ("llama", Family::Llama),
        ("qwen2", Family::Qwen2),
        ("qwen3", Family::Qwen3),
        ("phi3", Family::Phi3),
        ("gemma2", Family::Gemma2),
        ("gemma3", Family::Gemma3),
        ("gpt2", Family::Gpt2),
    ];

    fn of(architecture: &str) -> Result<Self, Fault> {
        Family::ALL.into_iter().find(|(name, _)| *name == architecture).map(|(_, family)| family).ok_or_else(|| {
            let names = Family::ALL.map(|(name, _)| format!("`{name}`")).join(", ");
            let why = format!("its architecture is `{}`; of GGUF {names} are read", shown(architecture));
            Fault::unsupported(why, "use the model's safetensors")
        })
    }

    /// Fields of `config.json`, or llama.cpp's own names where there is no such field, and the keys that state them.
    fn claimed(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Family::Gpt2 => &[
                ("n_layer", "block_count"),
                ("n_embd", "embedding_length"),
                ("n_head", "attention.head_count"),
                ("layer_norm_epsilon", "attention.layer_norm_epsilon"),
            ],
            _ => &[
                ("num_hidden_layers", "block_count"),
                ("hidden_size", "embedding_length"),
                ("num_attention_heads", "attention.head_count"),
                ("num_key_value_heads", "attention.head_count_kv"),
                ("head_dim", "attention.key_length"),
                ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
                ("sliding_window", "attention.sliding_window"),
                ("attn_logit_softcapping", "attn_logit_softcapping"),
                ("final_logit_softcapping", "final_logit_softcapping"),
                ("rope_theta", "rope.freq_base"),
                ("rope_local_base_freq", "rope.freq_base_swa"),
                ("rope.dimension_count", "rope.dimension_count"),
                ("factor", "rope.scaling.factor"),
                ("attention_factor", "rope.scaling.attn_factor"),
            ],
        }
    }
}

/// Entries and claims of a file. `file_idx`: for the entries.
pub(crate) fn head(file: &File, file_idx: usize) -> Result<Head, Fault> {
    let raw = Raw::read(file, Lists::PassedOver)?;
    let model = Model::new(&raw)?;
    let space = model.space(&raw, file_idx);
    let (mut tensors, mut claims) = (Vec::new(), model.claims(&raw));
    for tensor in &raw.listed {
        match FACTORS.iter().find(|(name, _)| *name == tensor.name) {
            Some((_, field)) => claims.push((*field, factors(file, tensor, &space)?)),
            None => tensors.push((model.family.hugging_face_name(&tensor.name)?, model.entry(tensor, &space)?)),
        }
    }
    Ok(Head { tensors, claims })
}

/// The text of a `config.json` that says what the metadata and the list of tensors say.
pub(crate) fn config_json(file: &File) -> Result<String, Fault> {
    let raw = Raw::read(file, Lists::PassedOver)?;
    let model = Model::new(&raw)?;
    let space = model.space(&raw, 0);
    let listed = |name: &str| raw.listed.iter().find(|tensor| tensor.name == name);
    let numbers = |name: &str| listed(name).map(|tensor| factors(file, tensor, &space)).transpose();
    let [freqs, long, short] = FACTORS.map(|(name, _)| numbers(name));
    let factors = config::Factors { freqs: freqs?, long: long?, short: short? };
    let is_tied = match (listed("output.weight"), listed("token_embd.weight")) {
        (None, _) => true,
        // The converter of a GPT-2 may write the embedding twice.
        (Some(head), Some(embedding)) if model.family == Family::Gpt2 => {
            (head.type_id, &head.shape) == (embedding.type_id, &embedding.shape)
                && same_bytes(file, &space.place(head)?, &space.place(embedding)?)?
        }
        _ => false,
    };
    let config = config::config(&raw, (&model.architecture, model.family), is_tied, &factors)?;
    Ok(serde_json::to_string_pretty(&config).expect("a JSON value can be written") + "\n")
}

/// The vocabulary in the metadata; `None` where there is none.
pub(crate) fn vocabulary(file: &File) -> Result<Option<Vocabulary>, Fault> {
    vocabulary::read(&Raw::read(file, Lists::Kept)?)
}

/// Whether two tensors of one size have the same bytes.
fn same_bytes(file: &File, one: &TensorEntry, other: &TensorEntry) -> Result<bool, Fault> {
    const PIECE_BYTES: usize = 1 << 20;
    let (mut ours, mut theirs) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    for at in (0..one.size_bytes).step_by(PIECE_BYTES) {
        let n_bytes = PIECE_BYTES.min(one.size_bytes - at);
        file.read_exact_at(&mut ours[..n_bytes], one.offset + at as u64)?;
        file.read_exact_at(&mut theirs[..n_bytes], other.offset + at as u64)?;
        if ours[..n_bytes] != theirs[..n_bytes] {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where the data lies.
struct Space {
    begin: u64,
    end: u64,
    alignment: u64,
    file_idx: usize,
}

impl Space {
    /// Where a tensor lies, whatever its elements mean.
    fn place(&self, tensor: &Listed) -> Result<TensorEntry, Fault> {
        let name = shown(&tensor.name);
        let dtype = match tensor.type_id {
            0 => Dtype::F32,
            1 => Dtype::F16,
            30 => Dtype::BF16,
            other => {
                let why = format!("`{name}` is stored as {}; F32, F16 and BF16 are supported", type_name(other));
                let help = "use a GGUF of type F32, F16 or BF16, or the model's safetensors: quantized weights are not trained on";
                return Err(Fault::unsupported(why, help));
            }
        };
        let n_elements = tensor.shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        let size_bytes = n_elements.and_then(|n| n.checked_mul(width(dtype)));
        let offset = self.begin.checked_add(tensor.offset);
        let end = offset.zip(size_bytes).and_then(|(offset, size)| offset.checked_add(size as u64));
        let (Some(size_bytes), Some(offset), Some(true)) = (size_bytes, offset, end.map(|end| end <= self.end)) else {
            return Err(Fault::broken(format!("it is cut off: `{name}` ends beyond its {} bytes", self.end)));
        };
        if !tensor.offset.is_multiple_of(self.alignment) {
            return Err(Fault::broken(format!("`{name}` does not lie at a multiple of {} bytes", self.alignment)));
        }
        let (shape, file_idx) = (tensor.shape.clone(), self.file_idx);
        Ok(TensorEntry { dtype, shape, size_bytes, file_idx, offset, view: None, is_one_more: false })
    }
}

/// The numbers of one of [`FACTORS`].
fn factors(file: &File, tensor: &Listed, space: &Space) -> Result<Vec<f64>, Fault> {
    let entry = space.place(tensor)?;
    if entry.dtype != Dtype::F32 || entry.shape.len() != 1 || entry.shape[0] > N_FACTORS_MAX {
        let why = format!("`{}` has the shape {:?} and the dtype {:?}", tensor.name, entry.shape, entry.dtype);
        return Err(Fault::broken(why + ", which are not a rope's"));
    }
    let mut bytes = vec![0; entry.size_bytes];
    file.read_exact_at(&mut bytes, entry.offset)?;
    let numbers = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four of them")));
    Ok(numbers.map(shortest).collect())
}

/// What the metadata says of the model.
struct Model {
    family: Family,
    architecture: String,
    alignment: u64,
    /// Query heads, and key and value heads, where the rows of q and k are in another order.
    permuted_heads: Option<(usize, usize)>,
}

impl Model {
    fn new(raw: &Raw) -> Result<Self, Fault> {
        let alignment = match raw.number("general.alignment").unwrap_or(32.0) as u64 {
            alignment if alignment.is_power_of_two() && alignment <= 1 << 20 => alignment,
            other => return Err(Fault::broken(format!("its alignment is {other}"))),
        };
        let Some(architecture) = raw.text("general.architecture") else {
            return Err(Fault::broken("it does not say its `general.architecture`"));
        };
        let family = Family::of(architecture)?;
        let of_model = |field: &str| raw.number(&format!("{architecture}.{field}"));
        let permuted_heads = match family {
            Family::Llama => {
                let heads = of_model("attention.head_count").filter(|n| (1.0..=65_536.0).contains(n));
                let Some(n_heads) = heads else {
                    return Err(Fault::broken("it does not say its `llama.attention.head_count`"));
                };
                let n_kv_heads = of_model("attention.head_count_kv").unwrap_or(n_heads);
                Some((n_heads as usize, n_kv_heads as usize))
            }
            _ => None,
        };
        Ok(Model { family, architecture: architecture.to_string(), alignment, permuted_heads })
    }

    fn space(&self, raw: &Raw, file_idx: usize) -> Space {
        let begin = raw.size_bytes.next_multiple_of(self.alignment);
        Space { begin, end: raw.file_bytes, alignment: self.alignment, file_idx }
    }

    fn claims(&self, raw: &Raw) -> Vec<(&'static str, Vec<f64>)> {
        let value = |key: &str| raw.number(&format!("{}.{key}", self.architecture));
        let claimed = self.family.claimed().iter();
        claimed.filter_map(|(field, key)| Some((*field, vec![value(key)?]))).collect()
    }

    /// Where a tensor lies, and what undoes that which the converter did to it.
    fn entry(&self, tensor: &Listed, space: &Space) -> Result<TensorEntry, Fault> {
        let mut entry = space.place(tensor)?;
        match self.family {
            Family::Llama => entry.view = self.permuted(&tensor.name, &entry.shape)?,
            Family::Gemma2 | Family::Gemma3 if tensor.name.ends_with("norm.weight") => {
                if entry.dtype != Dtype::F32 {
                    let why = format!("`{}` is stored as {:?}; norms are F32", shown(&tensor.name), entry.dtype);
                    return Err(Fault::unsupported(why, "convert the model again, or use its safetensors"));
                }
                entry.is_one_more = true;
            }
            Family::Gpt2 if tensor.name.starts_with("blk.") && entry.shape.len() == 2 => {
                let n_columns = entry.shape[1];
                entry.shape.reverse();
                let view = View { sizes: entry.shape.clone(), strides: vec![1, n_columns] };
                entry.view = Some(view).filter(|view| !view.is_contiguous());
            }
            _ => {}
        }
        Ok(entry)
    }

    /// How the rows of q and k are put back into the order of the model.
    fn permuted(&self, name: &str, shape: &[usize]) -> Result<Option<View>, Fault> {
        let module = name.rsplit('.').nth(1).unwrap_or_default();
        let n_heads = match (self.permuted_heads, module) {
            (Some((n_heads, _)), "attn_q") => n_heads,
            (Some((_, n_kv_heads)), "attn_k") => n_kv_heads,
            _ => return Ok(None),
        };
        let (n_rows, n_columns) = match shape {
            [n_rows] => (*n_rows, 1),
            [n_rows, n_columns] => (*n_rows, *n_columns),
            _ => return Err(Fault::broken(format!("`{}` has the shape {shape:?}", shown(name)))),
        };
        if n_heads == 0 || !n_rows.is_multiple_of(2 * n_heads) {
            return Err(Fault::broken(format!("`{}` has {n_rows} rows for {n_heads} heads", shown(name))));
        }
        let n_pairs = n_rows / n_heads / 2;
        // Row (head, p, j) of the model is row (head, j, p) of the file.
        let sizes = vec![n_heads, 2, n_pairs, n_columns];
        let strides = vec![2 * n_pairs * n_columns, n_columns, 2 * n_columns, 1];
        Ok(Some(View { sizes, strides }).filter(|view| !view.is_contiguous()))
    }
}

/// Names of ggml's types (ggml.h, `enum ggml_type`).
fn type_name(type_id: u32) -> String {
    let name = match type_id {
        2 => "Q4_0",
        3 => "Q4_1",
        6 => "Q5_0",
        7 => "Q5_1",
        8 => "Q8_0",
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        12 => "Q4_K",
        13 => "Q5_K",
        14 => "Q6_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        other => return format!("type {other}"),
    };
    name.to_string()
}
