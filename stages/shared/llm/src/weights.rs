//! Frozen weights: a model's weight files to the tensors of a program, in the dtype they have on disk.
//!
//! ```text
//! WeightFiles (pipe-weights: safetensors, pickles, GGUF)  --check--> those of the program, no more and no fewer
//!     --load-->  candle tensors       --map-->  where they lie in their files
//! ```
//!
//! One tensor is read at a time, so the peak is the model plus its largest tensor. Nothing is converted here: bf16 stays
//! bf16 until an op needs it (`ops::linear`), so there is never an f32 copy of the model.

use candle_core::{DType, Device, Tensor};
pub use pipe_weights::{TensorEntry, WeightFiles};
use safetensors::Dtype;

use crate::claims;
use crate::config::Architecture;
use crate::engine::native::Weight;
use crate::error::LlmError;
use crate::map::MappedFile;
use crate::program::{Program, WeightSpec};

/// Checks that the tensors of `files` are those of `program`: none missing, none of another shape or dtype, and none we would not
/// use, because then the model computes something we do not. What a file states beside its tensors must be what `config.json` says.
///
/// # Errors
/// The first tensor or statement that does not fit.
pub fn check(program: &Program, files: &WeightFiles) -> Result<(), LlmError> {
    files.claims().iter().try_for_each(|claim| claims::check(&program.config, claim))?;
    program.weights.iter().try_for_each(|spec| check_tensor(files, spec))?;
    let is_used = |name: &str| program.weights.iter().any(|w| w.name == name);
    // Old checkpoints carry the rotary frequencies or a GPT-2's masks, and some store a tied head a second time: all are derived.
    let is_gpt2 = program.config.architecture == Architecture::Gpt2;
    let is_derived = |name: &str| {
        name.ends_with("rotary_emb.inv_freq")
            || (program.config.is_tied && name == "lm_head.weight")
            || (is_gpt2 && (name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias")))
    };
    match files.entries().keys().find(|name| !is_used(name) && !is_derived(name)) {
        None => Ok(()),
        Some(name) => Err(weights_error(
            files.file_of(name),
            &format!("has the tensor `{name}`, which this architecture does not use; ignoring it could be wrong"),
        )),
    }
}

fn check_tensor(files: &WeightFiles, spec: &WeightSpec) -> Result<(), LlmError> {
    let file = files.file_of(&spec.name);
    let Some(entry) = files.entries().get(&spec.name) else {
        return Err(weights_error(file, &format!("the tensor `{}` is missing", spec.name)));
    };
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

/// Reads every weight of `program`, in the order of [`Program::weights`].
///
/// # Errors
/// As [`check`] and [`WeightFiles::read`].
pub fn load(program: &Program, files: &WeightFiles, device: &Device) -> Result<Vec<Tensor>, LlmError> {
    check(program, files)?;
    let tensor = |spec: &WeightSpec| -> Result<Tensor, LlmError> {
        let dtype = candle_dtype(files.entries()[&spec.name].dtype).expect("checked above");
        Ok(Tensor::from_raw_buffer(&files.read(&spec.name)?, dtype, &spec.shape, device)?)
    };
    program.weights.iter().map(tensor).collect()
}

/// Every weight of `program`, in the order of [`Program::weights`], where it lies in its file. A tensor that no processor could use in place is
/// read: safetensors does not promise an alignment, and a view of a pickle or the q and k of a GGUF lie in another order, and the norms of a Gemma in a GGUF are one more.
///
/// # Errors
/// As [`load`].
pub fn map(program: &Program, files: &WeightFiles) -> Result<Vec<Weight>, LlmError> {
    check(program, files)?;
    let mapped: Vec<MappedFile> =
        files.files().iter().map(|(_, path)| MappedFile::open(path)).collect::<Result<_, LlmError>>()?;
    let weight = |spec: &WeightSpec| -> Result<Weight, LlmError> {
        let entry = &files.entries()[&spec.name];
        let dtype = candle_dtype(entry.dtype).expect("checked above");
        let offset = usize::try_from(entry.offset).expect("the file is mapped");
        let in_place = mapped[entry.file_idx].tensor(offset, dtype, &spec.shape).filter(|_| entry.is_in_place());
        Ok(match in_place {
            Some(tensor) => Weight::Mapped(tensor),
            None => {
                Weight::Tensor(Tensor::from_raw_buffer(&files.read(&spec.name)?, dtype, &spec.shape, &Device::Cpu)?)
            }
        })
    };
    program.weights.iter().map(weight).collect()
}

fn candle_dtype(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}

pub(crate) fn weights_error(file: &str, why: &str) -> LlmError {
    LlmError::Weights { file: file.to_string(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let open = |name: &str, tensors: &[(String, Tensor)]| {
            let bytes = safetensors::serialize(tensors.iter().map(|(name, tensor)| (name, tensor)), None);
            let path = std::env::temp_dir().join(format!("pipe-llm-weights-{}-{name}", std::process::id()));
            std::fs::write(&path, bytes.expect("serializes")).expect("a temporary file");
            WeightFiles::open(vec![(name.to_string(), path)]).expect("readable")
        };
        let files = open("gpt2", &tensors);
        check(&program, &files).expect("every tensor has its name");
        assert_eq!(files.read("transformer.h.0.ln_1.bias").expect("there").len(), 16);
        tensors.push(("h.0.attn.rotary".into(), zeros(&[2])));
        let error = check(&program, &open("gpt2-more", &tensors)).expect_err("nobody uses it").to_string();
        assert!(error.contains("transformer.h.0.attn.rotary"), "{error}");
    }
}
