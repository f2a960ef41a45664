//! Which files of a model folder are its weights.
//!
//! ```text
//! 1  *.safetensors                                     safe by their form, so they win where a model has several formats
//! 2  those that pytorch_model.bin.index.json names, or pytorch_model*.bin at the top
//! 3  *.gguf at the top: one, since each is a whole model
//! ```
//!
//! Where there is an index (`model.safetensors.index.json`, `pytorch_model.bin.index.json`), every file that it names must be there, and
//! every tensor in one of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pipe_contract::Artifact;
use serde_json::Value;

use crate::error::WeightsError;

/// The index of sharded pickles.
const PICKLE_INDEX: &str = "pytorch_model.bin.index.json";
/// The index of sharded safetensors.
const SAFETENSORS_INDEX: &str = "model.safetensors.index.json";

/// What was selected.
#[derive(Debug)]
pub(crate) struct Selected {
    /// Name and path of each file.
    pub(crate) files: Vec<(String, PathBuf)>,
    /// Tensor to the name of the file that it should be in, where there is an index.
    pub(crate) indexed: BTreeMap<String, String>,
}

/// Whether a file of this name is a pickle of PyTorch's.
pub fn is_pickle(name: &str) -> bool {
    [".bin", ".pt", ".pth"].iter().any(|suffix| name.ends_with(suffix))
}

/// Whether a file of this name is a GGUF.
pub fn is_gguf(name: &str) -> bool {
    name.ends_with(".gguf")
}

/// Whether a file of this name may be a model's weights, in any of the formats.
pub fn is_weights(name: &str) -> bool {
    let is_top = !name.contains('/');
    name.ends_with(".safetensors")
        || is_top && (is_gguf(name) || name.starts_with("pytorch_model") && name.ends_with(".bin"))
}

/// Name and path of the files that a model's weights are read from; none where it has none, or where they cannot be told.
pub fn names(model: &Artifact) -> Vec<String> {
    weight_files(model).map_or(Vec::new(), |selected| selected.files.into_iter().map(|(name, _)| name).collect())
}

pub(crate) fn weight_files(model: &Artifact) -> Result<Selected, WeightsError> {
    let of_format = |is_it: &dyn Fn(&str) -> bool| -> Vec<(String, PathBuf)> {
        let files = model.files.iter().filter(|(name, _)| is_weights(name) && is_it(name));
        files.map(|(name, file)| (name.clone(), file.path.clone())).collect()
    };
    let safetensors = of_format(&|name| name.ends_with(".safetensors"));
    if !safetensors.is_empty() {
        return with_index(model, safetensors, SAFETENSORS_INDEX);
    }
    let pickles = of_format(&is_pickle);
    if !pickles.is_empty() || model.files.contains_key(PICKLE_INDEX) {
        return with_index(model, pickles, PICKLE_INDEX);
    }
    let files = of_format(&is_gguf);
    if let [first, .., last] = files.as_slice() {
        return Err(WeightsError::Unsupported {
            file: last.0.clone(),
            why: format!(
                "the model has {} GGUF files (`{}` is another), each a model of its own",
                files.len(),
                first.0
            ),
            help: "keep one of them; join a GGUF that is split with `llama-gguf-split --merge`".to_string(),
        });
    }
    if files.is_empty() {
        let why = "the model has no such file, nor `pytorch_model*.bin`, nor `*.gguf`";
        return Err(WeightsError::broken("*.safetensors", why));
    }
    Ok(Selected { files, indexed: BTreeMap::new() })
}

/// Leaves those of `files` that the index names; all of them where the model has no index.
fn with_index(
    model: &Artifact,
    mut files: Vec<(String, PathBuf)>,
    index: &'static str,
) -> Result<Selected, WeightsError> {
    let Some(path) = model.get(index) else { return Ok(Selected { files, indexed: BTreeMap::new() }) };
    let bytes = std::fs::read(path).map_err(|e| WeightsError::io(path, e))?;
    let json: Value =
        serde_json::from_slice(&bytes).map_err(|e| WeightsError::broken(index, format!("is not valid JSON: {e}")))?;
    let Some(map) = json["weight_map"].as_object() else {
        return Err(WeightsError::broken(index, "has no `weight_map`"));
    };
    let mut indexed = BTreeMap::new();
    for (tensor, file) in map {
        let Some(file) = file.as_str() else {
            return Err(WeightsError::broken(index, format!("`{tensor}` is placed in {file}, which is no file name")));
        };
        if !files.iter().any(|(name, _)| name == file) {
            return Err(WeightsError::broken(index, format!("names the file `{file}`, which the model does not have")));
        }
        indexed.insert(tensor.clone(), file.to_string());
    }
    files.retain(|(name, _)| indexed.values().any(|file| file == name));
    Ok(Selected { files, indexed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipe_contract::ArtifactKind;

    fn select(files: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let model = Artifact::from_folder(ArtifactKind::Model, folder.path()).unwrap();
        let selected = weight_files(&model).map_err(|e| e.to_string())?;
        Ok(selected.files.into_iter().map(|(name, _)| name).collect())
    }

    #[test]
    fn safetensors_win_over_pickles_and_pickles_over_gguf() {
        let all = [("a.gguf", ""), ("model.safetensors", ""), ("pytorch_model.bin", ""), ("training_args.bin", "")];
        assert_eq!(select(&all).unwrap(), ["model.safetensors"]);
        assert_eq!(select(&[all[0], all[2], all[3]]).unwrap(), ["pytorch_model.bin"]);
        assert_eq!(select(&[all[0], all[3]]).unwrap(), ["a.gguf"]);
        assert!(select(&[all[3]]).unwrap_err().contains("has no such file, nor `pytorch_model*.bin`, nor `*.gguf`"));
        assert!(select(&[("a.gguf", ""), ("b.gguf", "")]).unwrap_err().contains("2 GGUF files (`a.gguf` is another)"));
    }

    #[test]
    fn what_the_index_names_must_be_there_and_nothing_else_is_read() {
        let index = |map: &str| format!(r#"{{"metadata": {{}}, "weight_map": {map}}}"#);
        let two = index(r#"{"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}"#);
        let files = [("pytorch_model-1.bin", ""), ("pytorch_model-2.bin", ""), ("pytorch_model-old.bin", "")];
        let with = |index| [files[0], files[1], files[2], (PICKLE_INDEX, index)];
        assert_eq!(select(&with(&two)).unwrap(), ["pytorch_model-1.bin", "pytorch_model-2.bin"]);
        let missing = select(&[files[0], (PICKLE_INDEX, &two)]).unwrap_err();
        assert!(missing.contains("names the file `pytorch_model-2.bin`, which the model does not have"), "{missing}");
        assert!(select(&[(PICKLE_INDEX, &two)]).unwrap_err().contains("which the model does not have"));
        for (bad, why) in [("{", "not valid JSON"), ("{}", "no `weight_map`"), (&index(r#"{"a": 1}"#), "no file name")]
        {
            let error = select(&with(bad)).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
