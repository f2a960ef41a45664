//! Weight files through the public interface: those that PyTorch and llama.cpp's writer made, and hostile ones.

mod archive;
mod gguf;
mod hostile;
mod torch;

use std::path::{Path, PathBuf};

use pipe_weights::{WeightFiles, WeightsError};

/// Files made by scripts/make_weights_fixtures.py.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/fixtures").join(name)
}

fn open_path(path: &Path) -> Result<WeightFiles, WeightsError> {
    let name = path.file_name().expect("a file").to_string_lossy().into_owned();
    WeightFiles::open(vec![(name, path.to_path_buf())])
}

/// Opens `bytes` as a file called `name`, reads every tensor, and gives back what was wrong.
fn open_bytes(name: &str, bytes: &[u8]) -> Result<WeightFiles, WeightsError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("written");
    let files = open_path(&path)?;
    for (tensor, entry) in files.entries() {
        assert_eq!(files.read(tensor)?.len(), entry.size_bytes, "{tensor}");
    }
    Ok(files)
}

/// What was wrong with a file, and that the message names the file.
fn refusal(name: &str, bytes: &[u8]) -> String {
    let error = open_bytes(name, bytes).expect_err("it should be refused");
    let message = error.to_string();
    assert!(message.starts_with(&format!("`{name}`: ")), "{message}");
    assert!(error.help().is_some(), "{message}");
    message
}

/// Every tensor of `files` is in `expected`, a safetensors file, with the same dtype, shape and bytes; and the other way round.
fn assert_same(files: &WeightFiles, expected: &WeightFiles) {
    let names = |files: &WeightFiles| files.entries().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(files), names(expected));
    assert!(!files.entries().is_empty());
    for (name, entry) in files.entries() {
        let other = &expected.entries()[name];
        assert_eq!((entry.dtype, &entry.shape), (other.dtype, &other.shape), "{name}");
        assert_eq!(files.read(name).expect("readable"), expected.read(name).expect("readable"), "{name}");
    }
}
