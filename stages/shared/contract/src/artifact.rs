//! Artifacts: immutable sets of named files with a kind and one digest.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::StageError;

/// Kinds and their words stand in one list, below.
macro_rules! artifact_kinds {
    ($($kind:ident $name:literal)*) => {
        /// The type of an artifact. A port takes exactly one kind; ports that a pipeline file declares take any.
        ///
        /// Layout inside the artifact, per kind (a JSON file carries `format_version`, unless its form is somebody else's):
        ///
        /// | kind | files |
        /// |---|---|
        /// | rows | data files as they came: `*.parquet`, `*.arrow`, `*.jsonl`, `*.json`, `*.csv`, `*.tsv`, `*.txt`, all but the first also `.gz` and `.zst` |
        /// | examples | `examples.parquet` |
        /// | lengths | `lengths.parquet`, `summary.json`, `histogram.png`, `histogram.svg` |
        /// | packed | `packed.parquet`, `packed.json`, `preview.json` |
        /// | model | a Hugging Face model folder: `config.json`, `*.safetensors` (or `pytorch_model*.bin`, or a `*.gguf`), `tokenizer.json`, ... |
        /// | adapter | a PEFT adapter folder: `adapter_config.json`, `adapter_model.safetensors` |
        /// | metrics | `metrics.jsonl` (a line per optimizer step), `trainer_state.json`, `checkpoints.jsonl`, `loss.svg` and more curves |
        /// | scores | `scores.json` (loss, perplexity, exact match), `examples.jsonl` (a line per example) |
        /// | samples | `samples.jsonl` (a line per prompt) |
        /// | file | one file of any name and content |
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "lowercase")]
        #[expect(missing_docs, reason = "the table above is their documentation")]
        pub enum ArtifactKind { $($kind),* }

        impl ArtifactKind {
            /// Every kind, in the order of the data path.
            pub const ALL: &[ArtifactKind] = &[$(ArtifactKind::$kind),*];

            /// The word used in pipeline files, tables and messages.
            pub fn name(self) -> &'static str {
                match self { $(ArtifactKind::$kind => $name),* }
            }
        }
    };
}

artifact_kinds! {
    Rows "rows" Examples "examples" Lengths "lengths" Packed "packed" Model "model" Adapter "adapter"
    Metrics "metrics" Scores "scores" Samples "samples" File "file"
}

impl fmt::Display for ArtifactKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One file of an artifact: where its bytes can be read on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactFile {
    /// An absolute path; read-only. Its name says nothing: use the key in [`Artifact::files`].
    pub path: PathBuf,
    /// In bytes.
    pub size_bytes: u64,
    /// BLAKE3 of the bytes, 64 lowercase hex digits.
    pub digest: String,
}

/// An input as a stage sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Its type.
    pub kind: ArtifactKind,
    /// Digest over the names and digests of its files, 64 lowercase hex digits.
    pub digest: String,
    /// Name inside the artifact (`/` between folders) to the file, sorted by name.
    pub files: BTreeMap<String, ArtifactFile>,
}

impl Artifact {
    /// The path of the file called `name`.
    ///
    /// # Errors
    /// `missing-file` when the artifact has no such file.
    pub fn file(&self, name: &str) -> Result<&Path, StageError> {
        self.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.files.keys().map(String::as_str).collect();
            StageError::user(
                "missing-file",
                format!("the {} artifact has no file `{name}`; it has {}", self.kind, names.join(", ")),
            )
        })
    }

    /// The path of the file called `name`, if there is one.
    pub fn get(&self, name: &str) -> Option<&Path> {
        self.files.get(name).map(|file| file.path.as_path())
    }

    /// Names and paths of the files whose name ends in `suffix`, sorted by name.
    pub fn with_suffix<'a>(&'a self, suffix: &'a str) -> impl Iterator<Item = (&'a str, &'a Path)> {
        self.files
            .iter()
            .filter(move |(name, _)| name.ends_with(suffix))
            .map(|(name, file)| (name.as_str(), file.path.as_path()))
    }

    /// An artifact of all files below `folder`, without digests: for tests and for tools outside a run.
    ///
    /// # Errors
    /// `io` when the folder cannot be read.
    pub fn from_folder(kind: ArtifactKind, folder: &Path) -> Result<Self, StageError> {
        let mut files = BTreeMap::new();
        let mut pending = vec![folder.to_path_buf()];
        while let Some(current) = pending.pop() {
            for entry in std::fs::read_dir(&current).map_err(|e| StageError::io("read the folder", &current, e))? {
                let path = entry.map_err(|e| StageError::io("read the folder", &current, e))?.path();
                if path.is_dir() {
                    pending.push(path);
                    continue;
                }
                let size_bytes = std::fs::metadata(&path).map_err(|e| StageError::io("read", &path, e))?.len();
                let relative = path.strip_prefix(folder).expect("found by walking down from it");
                let name = relative.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
                files.insert(name, ArtifactFile { path, size_bytes, digest: String::new() });
            }
        }
        Ok(Artifact { kind, digest: String::new(), files })
    }
}
