//! The lock file: what mutable names stood for, and what the last run made of the pipeline; `alpaca.lock` beside `alpaca.yaml`.
//!
//! ```json
//! {
//!   "format_version": 1,
//!   "outputs": { "<fingerprint>": { "examples": "<digest>" } },
//!   "resolved": { "datasets/tatsu-lab/alpaca@main": "dce01c9b08f87459cf36a430d809084718273017" }
//! }
//! ```
//!
//! It belongs into version control: whoever runs the pipeline next gets the same revisions, and can see whether they got
//! the same bytes. Names are asked for once; `pipe update` asks again. Keys are sorted, and the file is written in one
//! step and only when it changes. Resolutions of earlier settings stay, outputs are those of the last complete run.
//!
//! It deliberately knows no network: see `execute` for who asks.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::error::RunnerError;

const FORMAT_VERSION: u32 = 1;

/// By port: content digests.
pub type PortDigests = BTreeMap<String, String>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format_version: u32,
    #[serde(default)]
    outputs: BTreeMap<String, PortDigests>,
    #[serde(default)]
    resolved: BTreeMap<String, String>,
}

/// Reads the version alone, so that a newer file is told apart from a broken one.
#[derive(Deserialize)]
struct Version {
    format_version: u32,
}

/// A lock file in memory.
#[derive(Clone, Debug)]
pub struct LockFile {
    path: PathBuf,
    content: Content,
    text_on_disk: Option<String>,
    is_foreign: bool,
}

impl LockFile {
    /// Where the lock file of a pipeline file lies: `<stem>.lock` in the same folder.
    pub fn path_beside(pipeline: &Path) -> PathBuf {
        pipeline.with_extension("lock")
    }

    /// Reads the lock file at `path`; a missing one is empty, and so is one of another version, which is then left alone.
    ///
    /// # Errors
    /// When it cannot be read or is not a lock file.
    pub fn load(path: &Path) -> Result<LockFile, RunnerError> {
        let empty = Content { format_version: FORMAT_VERSION, outputs: BTreeMap::new(), resolved: BTreeMap::new() };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(LockFile { path: path.into(), content: empty, text_on_disk: None, is_foreign: false });
            }
            Err(error) => return Err(RunnerError::io("read", path)(error)),
        };
        let broken = |source| RunnerError::LockFile { path: path.to_path_buf(), source };
        let version: Version = serde_json::from_str(&text).map_err(broken)?;
        let is_foreign = version.format_version != FORMAT_VERSION;
        let content = if is_foreign { empty } else { serde_json::from_str(&text).map_err(broken)? };
        Ok(LockFile { path: path.into(), content, text_on_disk: Some(text), is_foreign })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was written by another version of pipe: it is neither used nor replaced.
    pub fn is_foreign(&self) -> bool {
        self.is_foreign
    }

    /// What `request` was resolved to.
    pub fn resolved(&self, request: &str) -> Option<&str> {
        self.content.resolved.get(request).map(String::as_str)
    }

    /// Records an answer; returns the one before it.
    pub fn resolve(&mut self, request: &str, id: &str) -> Option<String> {
        self.content.resolved.insert(request.to_string(), id.to_string())
    }

    /// What a stage with this fingerprint gave when the pipeline last ran to its end.
    pub fn outputs(&self, fingerprint: &str) -> Option<&PortDigests> {
        self.content.outputs.get(fingerprint)
    }

    /// Replaces the outputs: fingerprint to digests by port.
    pub fn set_outputs(&mut self, outputs: BTreeMap<String, PortDigests>) {
        self.content.outputs = outputs;
    }

    /// Writes the file if it says something new. Returns whether it was written.
    ///
    /// # Errors
    /// When it cannot be written: the folder may be read-only, which need not stop a run.
    pub fn save(&mut self) -> Result<bool, RunnerError> {
        let is_empty = self.content.outputs.is_empty() && self.content.resolved.is_empty();
        if self.is_foreign || (is_empty && self.text_on_disk.is_none()) {
            return Ok(false);
        }
        let mut text = serde_json::to_string_pretty(&self.content).expect("maps with text keys");
        text.push('\n');
        if self.text_on_disk.as_ref() == Some(&text) {
            return Ok(false);
        }
        static N_WRITTEN: AtomicU64 = AtomicU64::new(0);
        let number = N_WRITTEN.fetch_add(1, Ordering::Relaxed);
        let temporary = self.path.with_extension(format!("lock.{}-{number}", std::process::id()));
        fs::write(&temporary, &text).map_err(RunnerError::io("write", &self.path))?;
        if let Err(error) = fs::rename(&temporary, &self.path) {
            let _ = fs::remove_file(&temporary);
            return Err(RunnerError::io("write", &self.path)(error));
        }
        self.text_on_disk = Some(text);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("alpaca.lock");
        (dir, path)
    }

    #[test]
    fn it_is_sorted_and_written_only_when_it_changes() {
        let (_dir, path) = folder();
        let mut lock = LockFile::load(&path).expect("a missing file is empty");
        assert!(!lock.save().expect("nothing to write"));
        lock.resolve("models/b@main", "22");
        lock.resolve("datasets/a@main", "11");
        lock.set_outputs([("ff".to_string(), [("rows".to_string(), "33".to_string())].into())].into());
        assert!(lock.save().expect("it is written"));
        assert!(!lock.save().expect("it is up to date"));
        let text = fs::read_to_string(&path).expect("it was written");
        insta::assert_snapshot!(text, @r#"
        {
          "format_version": 1,
          "outputs": {
            "ff": {
              "rows": "33"
            }
          },
          "resolved": {
            "datasets/a@main": "11",
            "models/b@main": "22"
          }
        }
        "#);
        let mut again = LockFile::load(&path).expect("it reads back");
        assert_eq!(again.resolved("models/b@main"), Some("22"));
        assert!(!again.save().expect("nothing changed"));
        assert_eq!(
            fs::read_dir(path.parent().expect("a folder")).expect("readable").count(),
            1,
            "a temporary file is left"
        );
    }

    #[test]
    fn another_version_is_left_alone() {
        let (_dir, path) = folder();
        let text = r#"{ "format_version": 2, "something": "new" }"#;
        fs::write(&path, text).expect("writable");
        let mut lock = LockFile::load(&path).expect("a miss, not an error");
        lock.resolve("models/b@main", "22");
        assert!(lock.is_foreign() && !lock.save().expect("left alone"));
        assert_eq!(fs::read_to_string(&path).expect("still there"), text);
    }

    #[test]
    fn a_broken_file_is_named() {
        let (_dir, path) = folder();
        fs::write(&path, "<<<<<<< HEAD").expect("writable");
        let error = LockFile::load(&path).expect_err("not JSON");
        assert!(error.to_string().contains("alpaca.lock"));
        assert!(error.help().is_some());
    }
}
