//! Frozen weights: `*.safetensors` files to tensors in the dtype they have on disk.
//!
//! One tensor is read at a time, so the peak is the model plus its largest tensor. Nothing is converted here: bf16 stays
//! bf16 until an op needs it (`ops::linear`), so there is never an f32 copy of the model.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::config::Architecture;
use crate::engine::native::Weight;
use crate::error::LlmError;
use crate::map::MappedFile;
use crate::program::{Program, WeightSpec};

/// Where a tensor lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// As stored.
    pub dtype: Dtype,
    /// As stored.
    pub shape: Vec<usize>,
    /// Size of its data, in bytes.
    pub size_bytes: usize,
    file_idx: usize,
    offset: u64,
}

/// The tensors of a model's safetensors files, by name; data is read when asked for.
pub struct WeightFiles {
    files: Vec<(String, PathBuf)>,
    entries: BTreeMap<String, TensorEntry>,
}

impl WeightFiles {
    /// Reads the headers of `files` (name and path of each).
    ///
    /// # Errors
    /// No files; a file that cannot be read, is cut off or broken; a tensor in two files.
    pub fn open(files: Vec<(String, PathBuf)>) -> Result<Self, LlmError> {
        if files.is_empty() {
            return Err(weights_error("*.safetensors", "the model has no such file"));
        }
        let mut entries = BTreeMap::new();
        for (file_idx, (name, path)) in files.iter().enumerate() {
            read_header(file_idx, name, path, &mut entries)?;
        }
        Ok(WeightFiles { files, entries: named_as_with_head(entries) })
    }

    /// Names and entries, sorted by name.
    pub fn entries(&self) -> &BTreeMap<String, TensorEntry> {
        &self.entries
    }

    /// The data of a tensor as stored, little-endian.
    ///
    /// # Errors
    /// `missing` when there is no such tensor; when its file cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, LlmError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(weights_error(&self.files[0].0, &format!("the tensor `{name}` is missing")));
        };
        let path = &self.files[entry.file_idx].1;
        let read = || -> std::io::Result<Vec<u8>> {
            let mut bytes = vec![0; entry.size_bytes];
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(entry.offset))?;
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|e| LlmError::io("read", path, e))
    }

    /// Checks that the tensors are those of `program`: none missing, none of another shape or dtype, and none we would not
    /// use, because then the model computes something we do not.
    ///
    /// # Errors
    /// The first tensor that does not fit.
    pub fn check(&self, program: &Program) -> Result<(), LlmError> {
        for spec in &program.weights {
            self.check_tensor(spec)?;
        }
        let is_used = |name: &str| program.weights.iter().any(|w| w.name == name);
        // Old checkpoints carry the rotary frequencies or a GPT-2's masks, and some store a tied head a second time: all are derived.
        let is_gpt2 = program.config.architecture == Architecture::Gpt2;
        let is_derived = |name: &str| {
            name.ends_with("rotary_emb.inv_freq")
                || (program.config.is_tied && name == "lm_head.weight")
                || (is_gpt2 && (name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias")))
        };
        match self.entries.iter().find(|(name, _)| !is_used(name) && !is_derived(name)) {
            None => Ok(()),
            Some((name, entry)) => Err(weights_error(
                &self.files[entry.file_idx].0,
                &format!("has the tensor `{name}`, which this architecture does not use; ignoring it could be wrong"),
            )),
        }
    }

    fn check_tensor(&self, spec: &WeightSpec) -> Result<(), LlmError> {
        let Some(entry) = self.entries.get(&spec.name) else {
            return Err(weights_error(&self.files[0].0, &format!("the tensor `{}` is missing", spec.name)));
        };
        let file = &self.files[entry.file_idx].0;
        if entry.shape != spec.shape {
            let why = format!("`{}` has shape {:?}, but config.json asks for {:?}", spec.name, entry.shape, spec.shape);
            return Err(weights_error(file, &why));
        }
        match candle_dtype(entry.dtype) {
            Some(_) => Ok(()),
            None => {
                let why = format!("`{}` is stored as {:?}; F32, F16 and BF16 are supported", spec.name, entry.dtype);
                Err(weights_error(file, &why))
            }
        }
    }
}

/// Reads every weight of `program`, in the order of [`Program::weights`].
///
/// # Errors
/// As [`WeightFiles::check`] and [`WeightFiles::read`].
pub fn load(program: &Program, files: &WeightFiles, device: &Device) -> Result<Vec<Tensor>, LlmError> {
    files.check(program)?;
    let tensor = |spec: &WeightSpec| -> Result<Tensor, LlmError> {
        let dtype = candle_dtype(files.entries[&spec.name].dtype).expect("checked above");
        Ok(Tensor::from_raw_buffer(&files.read(&spec.name)?, dtype, &spec.shape, device)?)
    };
    program.weights.iter().map(tensor).collect()
}

/// Every weight of `program`, in the order of [`Program::weights`], where it lies in its file. A tensor that lies where no processor could
/// read it in place (safetensors does not promise an alignment) is read.
///
/// # Errors
/// As [`load`].
pub fn map(program: &Program, files: &WeightFiles) -> Result<Vec<Weight>, LlmError> {
    files.check(program)?;
    let mapped: Vec<MappedFile> =
        files.files.iter().map(|(_, path)| MappedFile::open(path)).collect::<Result<_, LlmError>>()?;
    let weight = |spec: &WeightSpec| -> Result<Weight, LlmError> {
        let entry = &files.entries[&spec.name];
        let dtype = candle_dtype(entry.dtype).expect("checked above");
        let offset = usize::try_from(entry.offset).expect("the file is mapped");
        Ok(match mapped[entry.file_idx].tensor(offset, dtype, &spec.shape) {
            Some(tensor) => Weight::Mapped(tensor),
            None => {
                Weight::Tensor(Tensor::from_raw_buffer(&files.read(&spec.name)?, dtype, &spec.shape, &Device::Cpu)?)
            }
        })
    };
    program.weights.iter().map(weight).collect()
}

/// The GPT-2 of the Hub was stored without its head, and its tensors without the name of the model below the head; transformers adds it when it loads.
fn named_as_with_head(entries: BTreeMap<String, TensorEntry>) -> BTreeMap<String, TensorEntry> {
    if !entries.contains_key("wte.weight") {
        return entries;
    }
    let named = |(name, entry)| (if name == "lm_head.weight" { name } else { format!("transformer.{name}") }, entry);
    entries.into_iter().map(named).collect()
}

fn candle_dtype(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}

fn weights_error(file: &str, why: &str) -> LlmError {
    LlmError::Weights { file: file.to_string(), why: why.to_string() }
}

fn read_header(
    file_idx: usize,
    name: &str,
    path: &Path,
    entries: &mut BTreeMap<String, TensorEntry>,
) -> Result<(), LlmError> {
    let io = |e| LlmError::io("read", path, e);
    let mut file = File::open(path).map_err(io)?;
    let file_size = file.metadata().map_err(io)?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(io)?;
    let header_size = u64::from_le_bytes(length);
    if header_size > file_size - 8 {
        let why = format!("its header claims {header_size} bytes of {file_size}: it is cut off, or not safetensors");
        return Err(weights_error(name, &why));
    }
    let mut header = vec![0; usize::try_from(header_size).expect("no larger than a file that was opened")];
    file.read_exact(&mut header).map_err(io)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|e| weights_error(name, &format!("its header is broken: {e}")))?;
    for (tensor, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        let offset = 8 + header_size + start as u64;
        if 8 + header_size + end as u64 > file_size {
            return Err(weights_error(name, &format!("it is cut off: `{tensor}` ends beyond its {file_size} bytes")));
        }
        let (dtype, shape) = (info.dtype, info.shape.clone());
        let entry = TensorEntry { dtype, shape, size_bytes: end - start, file_idx, offset };
        if entries.insert(tensor.clone(), entry).is_some() {
            return Err(weights_error(name, &format!("`{tensor}` is in another file too")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, bytes: &[u8]) -> (String, PathBuf) {
        let path = std::env::temp_dir().join(format!("pipe-llm-weights-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).expect("a temporary file");
        (name.to_string(), path)
    }

    fn safetensors_of(name: &str, n_values: usize) -> Vec<u8> {
        let tensor = Tensor::zeros(n_values, DType::F32, &Device::Cpu).expect("zeros");
        safetensors::serialize([(name, &tensor)], None).expect("serializes")
    }

    #[test]
    fn a_file_that_is_cut_off_is_named() {
        let bytes = safetensors_of("x", 100);
        for cut in [9, bytes.len() - 1] {
            let error =
                WeightFiles::open(vec![file(&format!("cut{cut}"), &bytes[..cut])]).err().expect("cut off").to_string();
            assert!(error.contains(&format!("cut{cut}")) && error.contains("cut off"), "{error}");
        }
    }

    #[test]
    fn a_gpt2_without_its_head_has_the_names_of_one_with_it() {
        let config = crate::ModelConfig::from_json(
            r#"{"model_type":"gpt2","n_embd":4,"n_layer":1,"n_head":2,"n_positions":8,"vocab_size":6}"#,
        )
        .expect("a GPT-2");
        let program = Program::new(&config, &[]).expect("no targets");
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).expect("zeros");
        let bare = |spec: &WeightSpec| (spec.name.replacen("transformer.", "", 1), zeros(&spec.shape));
        let mut tensors: Vec<(String, Tensor)> = program.weights.iter().map(bare).collect();
        tensors.push(("h.0.attn.bias".into(), zeros(&[1, 1, 8, 8])));
        let bytes = |tensors: &[(String, Tensor)]| {
            safetensors::serialize(tensors.iter().map(|(name, tensor)| (name, tensor)), None).expect("serializes")
        };
        let files = WeightFiles::open(vec![file("gpt2", &bytes(&tensors))]).expect("readable");
        files.check(&program).expect("every tensor has its name");
        assert_eq!(files.read("transformer.h.0.ln_1.bias").expect("there").len(), 16);
        tensors.push(("h.0.attn.rotary".into(), zeros(&[2])));
        let files = WeightFiles::open(vec![file("gpt2-more", &bytes(&tensors))]).expect("readable");
        let error = files.check(&program).expect_err("nobody uses it").to_string();
        assert!(error.contains("transformer.h.0.attn.rotary"), "{error}");
    }

    #[test]
    fn a_tensor_in_two_files_is_an_error() {
        let files = vec![file("one", &safetensors_of("x", 2)), file("two", &safetensors_of("x", 2))];
        let error = WeightFiles::open(files).err().expect("twice").to_string();
        assert!(error.contains("`x`") && error.contains("`two`"), "{error}");
    }
}
