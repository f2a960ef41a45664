//! The tensors of a model's weight files, by name; data is read when asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use pipe_contract::Artifact;

use crate::entry::TensorEntry;
use crate::error::{Fault, WeightsError};
use crate::{gguf, safetensors, select, torch};

/// What a weight file states beside its tensors, under the name of the field of `config.json` that must agree with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Name of the file.
    pub file: String,
    /// `rope_theta`, ...; the file's own name for it where no field says it.
    pub field: &'static str,
    /// One number, or of the factors of a rope one for each frequency. Float32 in the file, so compare as float32.
    pub values: Vec<f64>,
}

/// The open weight files of a model.
#[derive(Debug)]
pub struct WeightFiles {
    files: Vec<(String, PathBuf)>,
    entries: BTreeMap<String, TensorEntry>,
    claims: Vec<Claim>,
}

/// The name of a GPT-2's tensor in a model that has a head.
fn below_the_head(name: &str) -> String {
    format!("transformer.{name}")
}

/// The GPT-2 of the Hub was stored without its head, and its tensors without the name of the model below the head; transformers adds it when it loads.
fn named_as_with_head(entries: BTreeMap<String, TensorEntry>) -> BTreeMap<String, TensorEntry> {
    if !entries.contains_key("wte.weight") {
        return entries;
    }
    let named = |(name, entry): (String, TensorEntry)| match name.as_str() {
        "lm_head.weight" => (name, entry),
        _ => (below_the_head(&name), entry),
    };
    entries.into_iter().map(named).collect()
}

/// What one file has.
pub(crate) struct Head {
    pub(crate) tensors: Vec<(String, TensorEntry)>,
    pub(crate) claims: Vec<(&'static str, Vec<f64>)>,
}

impl WeightFiles {
    /// Opens the weights of a `model` artifact: its safetensors, else its pickles, else its GGUF. See [`select`].
    ///
    /// # Errors
    /// No weights; a file that the index names and that is not there; as [`WeightFiles::open`].
    pub fn of_model(model: &Artifact) -> Result<Self, WeightsError> {
        let selected = select::weight_files(model)?;
        let files = WeightFiles::open(selected.files)?;
        let has = |name: &String| files.entries.contains_key(name) || files.entries.contains_key(&below_the_head(name));
        match selected.indexed.iter().find(|(name, _)| !has(name)) {
            None => Ok(files),
            Some((name, file)) => {
                let why = format!("the tensor `{name}` is missing, which the index places there");
                Err(WeightsError::broken(file, why))
            }
        }
    }

    /// Reads the heads of `files` (name and path of each). A name says the format: `.bin`, `.pt` and `.pth` are pickles, `.gguf` is GGUF,
    /// all else safetensors.
    ///
    /// # Errors
    /// No files; a file that cannot be read, is cut off, broken or not supported; a tensor in two files.
    pub fn open(files: Vec<(String, PathBuf)>) -> Result<Self, WeightsError> {
        if files.is_empty() {
            return Err(WeightsError::broken("*.safetensors", "the model has no such file"));
        }
        let (mut entries, mut claims) = (BTreeMap::new(), Vec::new());
        for (file_idx, (name, path)) in files.iter().enumerate() {
            let head = read_head(name, path, file_idx).map_err(|fault| fault.in_file(name, path))?;
            claims.extend(head.claims.into_iter().map(|(field, values)| Claim { file: name.clone(), field, values }));
            for (tensor, entry) in head.tensors {
                if let Some(other) = entries.insert(tensor.clone(), entry) {
                    let place = if other.file_idx == file_idx { "twice in it" } else { "in another file too" };
                    return Err(WeightsError::broken(name, format!("`{tensor}` is {place}")));
                }
            }
        }
        Ok(WeightFiles { files, entries: named_as_with_head(entries), claims })
    }

    /// Names and entries, sorted by name. Names are Hugging Face's, whatever the format calls them.
    pub fn entries(&self) -> &BTreeMap<String, TensorEntry> {
        &self.entries
    }

    /// Name and path of each file: [`TensorEntry::file_idx`] is a place in this list.
    pub fn files(&self) -> &[(String, PathBuf)] {
        &self.files
    }

    /// What the files say of the model beside its tensors: only a GGUF does.
    pub fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// Name of the file that a message about `tensor` should name: its own, or the first.
    pub fn file_of(&self, tensor: &str) -> &str {
        &self.files[self.entries.get(tensor).map_or(0, |entry| entry.file_idx)].0
    }

    /// The data of a tensor in the order of its shape, little-endian.
    ///
    /// # Errors
    /// When there is no such tensor; when its file cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, WeightsError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(WeightsError::broken(&self.files[0].0, format!("the tensor `{name}` is missing")));
        };
        let path = &self.files[entry.file_idx].1;
        let mut bytes = vec![0; entry.span_bytes()];
        let read = File::open(path).and_then(|file| file.read_exact_at(&mut bytes, entry.offset));
        read.map_err(|e| WeightsError::io(path, e))?;
        Ok(entry.decode(bytes))
    }
}

fn read_head(name: &str, path: &Path, file_idx: usize) -> Result<Head, Fault> {
    let file = File::open(path).map_err(Fault::Io)?;
    if select::is_pickle(name) {
        Ok(Head { tensors: torch::entries(&file, file_idx)?, claims: Vec::new() })
    } else if select::is_gguf(name) {
        gguf::head(&file, file_idx)
    } else {
        Ok(Head { tensors: safetensors::entries(file, file_idx)?, claims: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn safetensors_of(name: &str) -> Vec<u8> {
        let head = format!(r#"{{"{name}":{{"dtype":"F32","shape":[5],"data_offsets":[0,20]}}}}"#);
        [&(head.len() as u64).to_le_bytes()[..], head.as_bytes(), &[7; 20]].concat()
    }

    fn write(folder: &Path, name: &str, bytes: &[u8]) -> (String, PathBuf) {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        (name.to_string(), path)
    }

    #[test]
    fn a_file_that_is_cut_off_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = safetensors_of("x");
        for cut in [0, 7, 8, 9, bytes.len() - 1] {
            let name = format!("cut{cut}");
            let error = WeightFiles::open(vec![write(folder.path(), &name, &bytes[..cut])]).unwrap_err().to_string();
            assert!(error.contains(&name) && error.contains("cut off"), "{error}");
        }
    }

    #[test]
    fn a_tensor_in_two_files_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["one", "two"].map(|name| write(folder.path(), name, &safetensors_of("x")));
        let error = WeightFiles::open(files.to_vec()).unwrap_err().to_string();
        assert_eq!(error, "`two`: `x` is in another file too");
    }

    #[test]
    fn data_is_read_as_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let files = WeightFiles::open(vec![write(folder.path(), "one", &safetensors_of("x"))]).unwrap();
        assert_eq!(files.read("x").unwrap(), [7; 20]);
        assert_eq!(files.read("y").unwrap_err().to_string(), "`one`: the tensor `y` is missing");
    }
}
