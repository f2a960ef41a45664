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
//! step and only when it changes. A run may be long, and `pipe update` or a merge may change the file meanwhile: it is
//! read again before it is written, and what changed on disk stays. Resolutions of earlier settings stay, outputs are those of the last complete run.
//!
//! It deliberately knows no network: see `execute` for who asks.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pipe_cache::{Disk, NameMap, RealDisk};
use serde::{Deserialize, Serialize};

use crate::error::RunnerError;

const FORMAT_VERSION: u32 = 1;

/// By port: content digests.
pub type PortDigests = NameMap<String>;

/// BLAKE3 of a text.
type Digest = [u8; 32];

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
    content: Arc<Content>,
    /// As it was loaded or last saved: what differs from it is new.
    base: Arc<Content>,
    /// The digest of the text that gave `base`.
    base_digest: Option<Digest>,
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
        let text = read_text(path)?;
        let base_digest = text.as_deref().map(digest);
        let content = Arc::new(parse(path, text.as_deref())?);
        Ok(LockFile { path: path.into(), base: content.clone(), content, base_digest })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was written by another version of pipe: it is neither used nor replaced.
    pub fn is_foreign(&self) -> bool {
        self.base.format_version != FORMAT_VERSION
    }

    /// What `request` was resolved to.
    pub fn resolved(&self, request: &str) -> Option<&str> {
        self.content.resolved.get(request).map(String::as_str)
    }

    /// Records an answer; returns the one before it.
    pub fn resolve(&mut self, request: &str, id: &str) -> Option<String> {
        if self.resolved(request) == Some(id) {
            return Some(id.to_string());
        }
        Arc::make_mut(&mut self.content).resolved.insert(request.to_string(), id.to_string())
    }

    /// What a stage with this fingerprint gave when the pipeline last ran to its end.
    pub fn outputs(&self, fingerprint: &str) -> Option<&PortDigests> {
        self.content.outputs.get(fingerprint)
    }

    /// Whether it says what any stage gave.
    pub fn has_outputs(&self) -> bool {
        !self.content.outputs.is_empty()
    }

    /// The fingerprints of the last complete run, and of others that were merged in.
    pub fn fingerprints(&self) -> impl Iterator<Item = &str> {
        self.content.outputs.keys().map(String::as_str)
    }

    /// Replaces the outputs: fingerprint to digests by port.
    pub fn set_outputs(&mut self, outputs: BTreeMap<String, PortDigests>) {
        if self.content.outputs != outputs {
            Arc::make_mut(&mut self.content).outputs = outputs;
        }
    }

    /// Writes the file if it says something new. Returns whether it was written.
    ///
    /// # Errors
    /// When what is on disk now cannot be read, or it cannot be written: the folder may be read-only, which need not stop
    /// a run.
    pub fn save(&mut self) -> Result<bool, RunnerError> {
        self.save_on(&RealDisk)
    }

    /// The same through `disk`: for tests of crashes.
    ///
    /// # Errors
    /// As [`LockFile::save`].
    pub fn save_on(&mut self, disk: &dyn Disk) -> Result<bool, RunnerError> {
        let text_on_disk = read_text(&self.path)?;
        let is_changed_on_disk = text_on_disk.as_deref().map(digest) != self.base_digest;
        if !is_changed_on_disk && Arc::ptr_eq(&self.content, &self.base) {
            return Ok(false);
        }
        let on_disk = parse(&self.path, text_on_disk.as_deref())?;
        if self.is_foreign() || on_disk.format_version != FORMAT_VERSION {
            return Ok(false);
        }
        let merged = self.merge_into(on_disk);
        let is_empty = merged.outputs.is_empty() && merged.resolved.is_empty();
        let mut text = serde_json::to_string_pretty(&merged).expect("maps with text keys");
        text.push('\n');
        self.base = Arc::new(merged);
        self.content = self.base.clone();
        self.base_digest = Some(digest(&text));
        if text_on_disk.as_ref() == Some(&text) || (is_empty && text_on_disk.is_none()) {
            return Ok(false);
        }
        replace(disk, &self.path, &text).map_err(RunnerError::io("write", &self.path))?;
        Ok(true)
    }

    /// What is new here, laid over what is on disk now. An answer to a question that was open when this began gives way to
    /// an answer that is there by now; one that replaces another (`pipe update`) stands.
    fn merge_into(&self, mut on_disk: Content) -> Content {
        for (request, id) in &self.content.resolved {
            let before = self.base.resolved.get(request);
            if before != Some(id) && (before.is_some() || !on_disk.resolved.contains_key(request)) {
                on_disk.resolved.insert(request.clone(), id.clone());
            }
        }
        if self.content.outputs != self.base.outputs {
            if on_disk.outputs == self.base.outputs {
                on_disk.outputs.clone_from(&self.content.outputs);
            } else {
                on_disk.outputs.extend(self.content.outputs.clone());
            }
        }
        on_disk
    }
}

/// `None` where there is no file.
fn read_text(path: &Path) -> Result<Option<String>, RunnerError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(RunnerError::io("read", path)(error)),
    }
}

/// What the text of the file at `path` says; nothing where there is none. Of another version only the number is read.
fn parse(path: &Path, text: Option<&str>) -> Result<Content, RunnerError> {
    let empty = |format_version| Content { format_version, outputs: BTreeMap::new(), resolved: BTreeMap::new() };
    let Some(text) = text else { return Ok(empty(FORMAT_VERSION)) };
    let broken = |source| RunnerError::LockFile { path: path.to_path_buf(), source };
    let read = serde_json::from_str::<Content>(text);
    if read.as_ref().is_ok_and(|content| content.format_version == FORMAT_VERSION) {
        return read.map_err(broken);
    }
    let version: Version = serde_json::from_str(text).map_err(broken)?;
    if version.format_version == FORMAT_VERSION { read.map_err(broken) } else { Ok(empty(version.format_version)) }
}

fn digest(text: &str) -> Digest {
    *blake3::hash(text.as_bytes()).as_bytes()
}

/// Replaces a file in one step: after a power cut it is the old text or the new, and the new once this returned. Leaves
/// nothing else behind when it fails.
fn replace(disk: &dyn Disk, path: &Path, text: &str) -> io::Result<()> {
    static N_WRITTEN: AtomicU64 = AtomicU64::new(0);
    let number = N_WRITTEN.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("lock.{}-{number}", std::process::id()));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    disk.write(&temporary, text.as_bytes())
        .and_then(|()| disk.sync_file(&temporary))
        .and_then(|()| disk.rename(&temporary, path))
        .and_then(|()| disk.sync_folder(folder))
        .inspect_err(|_| drop(disk.remove_file(&temporary)))
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
        lock.set_outputs([("ff".to_string(), [("rows", "33".to_string())].into_iter().collect())].into());
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
    fn what_changed_on_disk_meanwhile_stays() {
        let (_dir, path) = folder();
        let outputs = |name: &str| [(name.to_string(), PortDigests::default())].into();
        let mut before = LockFile::load(&path).expect("a missing file is empty");
        before.resolve("a@main", "1");
        before.resolve("b@main", "1");
        before.set_outputs(outputs("old"));
        before.save().expect("it is written");
        let mut of_run = LockFile::load(&path).expect("it reads back");
        let mut of_update = LockFile::load(&path).expect("it reads back");

        of_update.resolve("a@main", "2");
        of_update.resolve("c@main", "2");
        of_update.save().expect("it is written");
        // A long run ends after the update.
        of_run.resolve("a@main", "1");
        of_run.resolve("c@main", "1");
        of_run.resolve("d@main", "1");
        of_run.set_outputs(outputs("new"));
        assert!(of_run.save().expect("it is written"));

        let now = LockFile::load(&path).expect("it reads back");
        let ids = ["a@main", "b@main", "c@main", "d@main"].map(|request| now.resolved(request).expect("resolved"));
        assert_eq!(ids, ["2", "1", "2", "1"]);
        assert!(now.outputs("new").is_some() && now.outputs("old").is_none());

        let mut late = now.clone();
        let mut pulled = now;
        pulled.set_outputs(outputs("pulled"));
        pulled.save().expect("it is written");
        late.set_outputs(outputs("late"));
        late.save().expect("it is written");
        let now = LockFile::load(&path).expect("it reads back");
        assert!(now.outputs("pulled").is_some() && now.outputs("late").is_some());
        fs::write(&path, "<<<<<<< HEAD").expect("writable");
        late.resolve("e@main", "1");
        late.save().expect_err("a merge is under way");
        assert_eq!(fs::read_to_string(&path).expect("there"), "<<<<<<< HEAD");
    }

    #[test]
    fn a_file_that_cannot_be_replaced_leaves_no_other() {
        let (dir, path) = folder();
        fs::create_dir(&path).expect("a folder in the way");
        replace(&RealDisk, &path, "{}").expect_err("a folder is no file");
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "a temporary file is left");
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
