//! A GGUF file of llama.cpp to entries under Hugging Face's names.
//!
//! ```text
//! "GGUF" version n_tensors n_metadata | key type value ... | name n_dims dims type offset ... | padding | data
//! blk.3.attn_q.weight  ->  model.layers.3.self_attn.q_proj.weight
//! ```
//!
//! The form: ggml's docs/gguf.md, version 3 (2 is read alike). The names and the order of rows: gguf-py's constants.py and
//! convert_hf_to_gguf.py. Sizes are stored innermost first.
//!
//! llama.cpp rotates neighbouring channels where Hugging Face rotates a channel with the one half a head away, so for the architecture
//! `llama` the converter orders the rows of q and k anew (`LlamaModel.permute`): row (head, j, p) of the file is row (head, p, j) of the
//! model, p being 0 or 1. Such a tensor is a view and is gathered when it is read; all others are used where they lie.
//!
//! It deliberately unpacks no quantized blocks: what was rounded away is not in them, and training on it would not be training of the
//! model that was meant. Configuration and tokenizer are those of `config.json` and `tokenizer.json` beside the file; the numbers that the
//! file states are claims that `config.json` must agree with.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read as _};

use ::safetensors::Dtype;

use crate::entry::{TensorEntry, View, width};
use crate::error::{Fault, shown};
use crate::files::Head;

/// Sizes of a tensor: ggml's GGML_MAX_DIMS.
const N_DIMS_MAX: u32 = 4;
/// Of a key: the form's own limit.
const KEY_BYTES_MAX: u64 = 65_535;
/// Of a string that is kept: a chat template has some thousands.
const STRING_BYTES_MAX: u64 = 1 << 20;
/// Of all strings that are kept.
const METADATA_BYTES_MAX: u64 = 16 << 20;
/// Of tensors and of keys: a model of 405 billion parameters has some 1,100 tensors, and no model has 100 keys.
const N_ITEMS_MAX: u64 = 1 << 16;
/// Lists in lists: no key has any, and each is a call.
const LIST_DEPTH_MAX: usize = 4;

/// A value of the metadata. Lists (the tokenizer's, mostly) are passed over.
#[derive(Clone, Debug, PartialEq)]
enum Metadata {
    Number(f64),
    Text(String),
    List,
}

/// A tensor as the head lists it.
struct Listed {
    name: String,
    /// Outermost first.
    shape: Vec<usize>,
    type_id: u32,
    /// From the beginning of the data.
    offset: u64,
}

/// Entries and claims of a file. `file_idx`: for the entries.
pub(crate) fn head(file: &File, file_idx: usize) -> Result<Head, Fault> {
    let mut reader = Reader { size: file.metadata()?.len(), at: 0, kept: 0, file: BufReader::new(file) };
    if reader.bytes::<4>()? != *b"GGUF" {
        return Err(Fault::broken("it does not begin with `GGUF`"));
    }
    match reader.u32()? {
        2 | 3 => {}
        version => {
            let why = format!("it has version {version} of GGUF; 2 and 3 are supported");
            return Err(Fault::unsupported(why, "convert the model again with a llama.cpp of today"));
        }
    }
    let (n_tensors, n_metadata) = (reader.u64()?, reader.u64()?);
    if n_tensors > N_ITEMS_MAX || n_metadata > N_ITEMS_MAX {
        return Err(Fault::broken(format!("it claims {n_tensors} tensors and {n_metadata} keys")));
    }
    let mut metadata = BTreeMap::new();
    for _ in 0..n_metadata {
        let key = reader.text(KEY_BYTES_MAX)?;
        let type_id = reader.u32()?;
        let value = reader.value(type_id, 0)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(Fault::broken(format!("it has the key `{}` twice", shown(&key))));
        }
    }
    let mut listed = Vec::new();
    for _ in 0..n_tensors {
        listed.push(reader.tensor()?);
    }
    let model = Model::new(&metadata)?;
    let begin = reader.at.next_multiple_of(model.alignment);
    let space = Space { begin, end: reader.size, alignment: model.alignment, file_idx };
    let mut tensors = Vec::new();
    for tensor in &listed {
        if let Some(name) = model.name(&tensor.name)? {
            tensors.push((name, model.entry(tensor, &space)?));
        }
    }
    Ok(Head { tensors, claims: model.claims })
}

/// Where the data lies.
struct Space {
    begin: u64,
    end: u64,
    alignment: u64,
    file_idx: usize,
}

/// What the metadata says of the model.
struct Model {
    alignment: u64,
    /// Query heads, and key and value heads, where the rows of q and k are in another order.
    permuted_heads: Option<(usize, usize)>,
    claims: Vec<(&'static str, f64)>,
}

impl Model {
    fn new(metadata: &BTreeMap<String, Metadata>) -> Result<Self, Fault> {
        let number = |key: &str| match metadata.get(key) {
            Some(Metadata::Number(number)) => Some(*number),
            _ => None,
        };
        let alignment = match number("general.alignment").unwrap_or(32.0) as u64 {
            alignment if alignment.is_power_of_two() && alignment <= 1 << 20 => alignment,
            other => return Err(Fault::broken(format!("its alignment is {other}"))),
        };
        let architecture = match metadata.get("general.architecture") {
            Some(Metadata::Text(name)) => name.as_str(),
            _ => return Err(Fault::broken("it does not say its `general.architecture`")),
        };
        let of_model = |field: &str| number(&format!("{architecture}.{field}"));
        let permuted_heads = match architecture {
            "llama" => {
                let heads = of_model("attention.head_count").filter(|n| (1.0..=65_536.0).contains(n));
                let Some(n_heads) = heads else {
                    return Err(Fault::broken("it does not say its `llama.attention.head_count`"));
                };
                let n_kv_heads = of_model("attention.head_count_kv").unwrap_or(n_heads);
                Some((n_heads as usize, n_kv_heads as usize))
            }
            "qwen2" | "qwen3" => None,
            other => {
                let why =
                    format!("its architecture is `{}`; of GGUF `llama`, `qwen2` and `qwen3` are read", shown(other));
                return Err(Fault::unsupported(why, "use the model's safetensors"));
            }
        };
        let fields = [
            ("num_hidden_layers", "block_count"),
            ("hidden_size", "embedding_length"),
            ("num_attention_heads", "attention.head_count"),
            ("num_key_value_heads", "attention.head_count_kv"),
            ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
            ("rope_theta", "rope.freq_base"),
        ];
        let claims = fields.into_iter().filter_map(|(field, key)| Some((field, of_model(key)?))).collect();
        Ok(Model { alignment, permuted_heads, claims })
    }

    /// Hugging Face's name; `None` for what follows from the configuration.
    fn name(&self, name: &str) -> Result<Option<String>, Fault> {
        // The factors of rope scaling, which `config.json` says too.
        if name == "rope_freqs.weight" {
            return Ok(None);
        }
        let renamed = match name {
            "token_embd.weight" => Some("model.embed_tokens.weight".to_string()),
            "output_norm.weight" => Some("model.norm.weight".to_string()),
            "output.weight" => Some("lm_head.weight".to_string()),
            _ => layer_name(name),
        };
        match renamed {
            Some(name) => Ok(Some(name)),
            None => Err(Fault::unsupported(
                format!("it has the tensor `{}`, which has no name in Hugging Face's models", shown(name)),
                "use the model's safetensors",
            )),
        }
    }

    fn entry(&self, tensor: &Listed, space: &Space) -> Result<TensorEntry, Fault> {
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
        let offset = space.begin.checked_add(tensor.offset);
        let end = offset.zip(size_bytes).and_then(|(offset, size)| offset.checked_add(size as u64));
        let (Some(size_bytes), Some(offset), Some(true)) = (size_bytes, offset, end.map(|end| end <= space.end)) else {
            return Err(Fault::broken(format!("it is cut off: `{name}` ends beyond its {} bytes", space.end)));
        };
        if !tensor.offset.is_multiple_of(space.alignment) {
            return Err(Fault::broken(format!("`{name}` does not lie at a multiple of {} bytes", space.alignment)));
        }
        let (shape, file_idx) = (tensor.shape.clone(), space.file_idx);
        let view = self.view(&tensor.name, &shape)?;
        Ok(TensorEntry { dtype, shape, size_bytes, file_idx, offset, view })
    }

    /// How the rows of q and k are put back into the order of the model.
    fn view(&self, name: &str, shape: &[usize]) -> Result<Option<View>, Fault> {
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

/// `blk.3.attn_q.weight` to `model.layers.3.self_attn.q_proj.weight`.
fn layer_name(name: &str) -> Option<String> {
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (module, kind) = rest.rsplit_once('.')?;
    let layer: u32 = layer.parse().ok()?;
    let module = match module {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    ["weight", "bias"].contains(&kind).then(|| format!("model.layers.{layer}.{module}.{kind}"))
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

/// The head, front to back.
struct Reader<'f> {
    file: BufReader<&'f File>,
    size: u64,
    at: u64,
    /// Bytes of strings so far.
    kept: u64,
}

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn skip(&mut self, n_bytes: u64) -> Result<(), Fault> {
        if n_bytes > self.size.saturating_sub(self.at) {
            return Err(Fault::broken("it is cut off"));
        }
        self.file.seek_relative(i64::try_from(n_bytes).expect("no file is that large"))?;
        self.at += n_bytes;
        Ok(())
    }

    fn text(&mut self, n_bytes_max: u64) -> Result<String, Fault> {
        let n_bytes = self.u64()?;
        self.kept = self.kept.saturating_add(n_bytes);
        if n_bytes > n_bytes_max || self.kept > METADATA_BYTES_MAX || n_bytes > self.size.saturating_sub(self.at) {
            return Err(Fault::broken(format!("it has a string of {n_bytes} bytes, or is cut off")));
        }
        let mut bytes = vec![0; usize::try_from(n_bytes).expect("bounded")];
        self.file.read_exact(&mut bytes)?;
        self.at += n_bytes;
        String::from_utf8(bytes).map_err(|_| Fault::broken("it has a string that is not UTF-8"))
    }

    fn value(&mut self, type_id: u32, depth: usize) -> Result<Metadata, Fault> {
        let number = match type_id {
            0 => f64::from(self.bytes::<1>()?[0]),
            1 => f64::from(i8::from_le_bytes(self.bytes()?)),
            2 => f64::from(u16::from_le_bytes(self.bytes()?)),
            3 => f64::from(i16::from_le_bytes(self.bytes()?)),
            4 => f64::from(self.u32()?),
            5 => f64::from(i32::from_le_bytes(self.bytes()?)),
            6 => f64::from(f32::from_le_bytes(self.bytes()?)),
            7 => f64::from(self.bytes::<1>()?[0]),
            8 => return Ok(Metadata::Text(self.text(STRING_BYTES_MAX)?)),
            9 => return self.skip_list(depth),
            10 => self.u64()? as f64,
            11 => i64::from_le_bytes(self.bytes()?) as f64,
            12 => f64::from_le_bytes(self.bytes()?),
            other => return Err(Fault::broken(format!("it has metadata of the type {other}, which there is not"))),
        };
        Ok(Metadata::Number(number))
    }

    fn skip_list(&mut self, depth: usize) -> Result<Metadata, Fault> {
        let (type_id, n_items) = (self.u32()?, self.u64()?);
        let item_bytes = match type_id {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            _ if depth == LIST_DEPTH_MAX => return Err(Fault::broken("it has lists in lists in lists")),
            _ => 0,
        };
        if item_bytes > 0 {
            self.skip(n_items.saturating_mul(item_bytes))?;
            return Ok(Metadata::List);
        }
        for _ in 0..n_items {
            match type_id {
                8 => {
                    let n_bytes = self.u64()?;
                    self.skip(n_bytes)?;
                }
                _ => {
                    self.value(type_id, depth + 1)?;
                }
            }
        }
        Ok(Metadata::List)
    }

    fn tensor(&mut self) -> Result<Listed, Fault> {
        let name = self.text(KEY_BYTES_MAX)?;
        let n_dims = self.u32()?;
        if n_dims > N_DIMS_MAX {
            return Err(Fault::broken(format!("`{}` has {n_dims} sizes", shown(&name))));
        }
        let mut shape = Vec::new();
        for _ in 0..n_dims {
            let size = self.u64()?;
            shape.push(usize::try_from(size).map_err(|_| Fault::broken("it has a size beyond all memory"))?);
        }
        shape.reverse();
        Ok(Listed { name, shape, type_id: self.u32()?, offset: self.u64()? })
    }
}
