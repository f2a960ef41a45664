//! A store in a temporary folder, and stages that write what they are told.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pipe_cache::{Attempt, CacheError, Disk, Manifest, ManifestDraft, Publication, Store};
use pipe_contract::{ArtifactKind, ExternalFile};
use tempfile::TempDir;

/// A fingerprint of the right form.
pub(crate) const FINGERPRINT: &str = "aa11111111111111111111111111111111111111111111111111111111111111";
/// Another one, in the same folder.
pub(crate) const FINGERPRINT_BESIDE: &str = "aa44444444444444444444444444444444444444444444444444444444444444";
/// One in another folder.
pub(crate) const FINGERPRINT_2: &str = "bb22222222222222222222222222222222222222222222222222222222222222";
/// A semantic key of the right form.
pub(crate) const SEMANTIC_KEY: &str = "cc33333333333333333333333333333333333333333333333333333333333333";

/// A folder with a store in `.pipe`, removed when dropped.
pub(crate) struct Sandbox {
    folder: TempDir,
    pub(crate) store: Store,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(&folder.path().join(".pipe")).expect("a new store");
        Sandbox { folder, store }
    }

    /// A path beside the store.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path in the store.
    pub(crate) fn in_store(&self, name: &str) -> PathBuf {
        self.store.root().join(name)
    }

    /// Writes a file beside the store, last modified an hour ago.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        write(&path, text);
        age(&path, Duration::from_secs(3600));
        path
    }

    /// The attempts in `tmp/`; the locks of their owners stay as long as a store value lives.
    pub(crate) fn attempts(&self) -> Vec<String> {
        names(&self.in_store("tmp")).into_iter().filter(|name| !name.ends_with(".lock")).collect()
    }

    /// The same store as another process would open it.
    pub(crate) fn reopen(&self) -> Store {
        Store::open(self.store.root()).expect("the store opens again")
    }

    /// The same store with its changes going through `disk`.
    pub(crate) fn reopen_on(&self, disk: Arc<dyn Disk>) -> Result<Store, CacheError> {
        Store::open_on(self.store.root(), disk)
    }

    /// Publishes one `rows` output with these files and takes the manifest that stands.
    pub(crate) fn publish(&self, fingerprint: &str, files: &[(&str, &str)]) -> Manifest {
        publish(&self.store, fingerprint, files).expect("published").manifest
    }

    /// Publishes one `rows` output that refers to `path` as `rows.jsonl`.
    pub(crate) fn publish_external(&self, path: &Path) -> Manifest {
        let attempt = self.store.begin(FINGERPRINT).expect("an attempt");
        let draft = ManifestDraft { external: vec![external("rows.jsonl", path)], ..draft(FINGERPRINT) };
        self.store.publish(attempt, draft).expect("published").manifest
    }
}

/// What a finished stage with one output `rows` says of itself.
pub(crate) fn draft(fingerprint: &str) -> ManifestDraft {
    ManifestDraft {
        fingerprint: fingerprint.to_owned(),
        semantic_key: SEMANTIC_KEY.to_owned(),
        compute_class: Some("cpu-f32/1".to_owned()),
        kind: "prepare".to_owned(),
        kind_version: 3,
        outputs: [("rows".to_owned(), ArtifactKind::Rows)].into(),
        ..ManifestDraft::default()
    }
}

/// A reference from output `rows`.
pub(crate) fn external(name: &str, path: &Path) -> ExternalFile {
    ExternalFile { port: "rows".to_owned(), name: name.to_owned(), path: path.to_path_buf(), digest: None }
}

/// Runs a stage that writes these files to output `rows`.
pub(crate) fn attempt(store: &Store, fingerprint: &str, files: &[(&str, &str)]) -> Result<Attempt, CacheError> {
    let attempt = store.begin(fingerprint)?;
    for (name, text) in files {
        write(&attempt.outputs_dir().join("rows").join(name), text);
    }
    Ok(attempt)
}

pub(crate) fn publish(store: &Store, fingerprint: &str, files: &[(&str, &str)]) -> Result<Publication, CacheError> {
    store.publish(attempt(store, fingerprint, files)?, draft(fingerprint))
}

/// Writes a file, its folders too, whatever was there.
pub(crate) fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a file in a folder")).expect("folders");
    let _ = fs::remove_file(path);
    fs::write(path, text).expect("a file");
}

/// Writes to the inode that is there, as a program that edits in place does, though it may be read-only.
pub(crate) fn write_in_place(path: &Path, text: &str) {
    let was = fs::metadata(path).expect("a file to write to").permissions();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("our own file");
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, was).expect("our own file");
}

/// Sets the modification time to `age` ago.
pub(crate) fn age(path: &Path, age: Duration) {
    File::open(path).and_then(|file| file.set_modified(SystemTime::now() - age)).expect("our own file");
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("a readable file")
}

/// Names in a folder, sorted; none if it is not there.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let Ok(listing) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        listing.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The path of the only blob, or of the one with these bytes.
pub(crate) fn blob(store: &Store, text: &str) -> PathBuf {
    let digest = blake3::hash(text.as_bytes()).to_hex().to_string();
    store.root().join("blobs").join(&digest[..2]).join(digest)
}

/// Another text whose blob lies in the folder of the blob of `text`.
pub(crate) fn text_beside(store: &Store, text: &str) -> String {
    let folder = |text: &str| blob(store, text).parent().map(Path::to_path_buf);
    (0..).map(|number| format!("text {number}")).find(|other| folder(other) == folder(text)).expect("one of 256")
}
