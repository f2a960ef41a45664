//! The cache that all Hugging Face tools share.
//!
//! ```text
//! HF_HUB_CACHE/
//!   .locks/models--owner--name/<etag>.lock
//!   models--owner--name/
//!     blobs/<etag>                   bytes; <etag>.incomplete while they arrive
//!     refs/main                      a commit
//!     snapshots/<commit>/<path>      relative link to ../../blobs/<etag>
//!     .no_exist/<commit>/<path>      empty: the commit has no such file, which other tools ask for
//!     trees/<commit>.json            the listing of a commit, which never changes (huggingface_hub since 2.0)
//! ```
//!
//! The listing lets a commit that is here be published again without the network. It deliberately deletes nothing: the
//! cache is not ours.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::listing::{RepoFile, is_safe};
use super::{Repository, is_commit};
use crate::environment::Environment;
use crate::error::DownloadError;
use crate::net::checksum::is_hex;

const LISTING_FORMAT_VERSION: u32 = 1;

/// A listing as huggingface_hub 2.4 writes it (`_tree_cache.py`). Fields that are new there are passed over.
#[derive(Serialize, Deserialize)]
struct Listing {
    format_version: u32,
    files: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    size: u64,
    /// What git has for it.
    blob_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    lfs_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lfs_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    xet_hash: Option<String>,
}

impl Entry {
    fn of(file: &RepoFile) -> Self {
        let is_large = file.etag != file.git_oid;
        Entry {
            size: file.size_bytes,
            blob_id: file.git_oid.clone(),
            lfs_sha256: is_large.then(|| file.etag.clone()),
            lfs_size: is_large.then_some(file.size_bytes),
            xet_hash: file.xet_hash.clone(),
        }
    }

    fn into_file(self, path: String) -> RepoFile {
        let size_bytes = self.lfs_size.unwrap_or(self.size);
        let etag = self.lfs_sha256.unwrap_or_else(|| self.blob_id.clone());
        RepoFile { path, size_bytes, etag, git_oid: self.blob_id, xet_hash: self.xet_hash }
    }
}

/// The part of the cache that belongs to one repository.
pub(crate) struct Cache {
    root: PathBuf,
    folder_name: String,
    has_no_links: bool,
}

impl Cache {
    pub(crate) fn new(environment: &Environment, repository: &Repository) -> Self {
        let folder_name = format!("{}--{}", repository.plural(), repository.id.replace('/', "--"));
        Cache { root: environment.cache.clone(), folder_name, has_no_links: environment.has_no_links }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.folder().join("blobs").join(etag)
    }

    /// Where a blob grows: the name that huggingface_hub before 1.0 has for it, too.
    pub(crate) fn incomplete(&self, etag: &str) -> PathBuf {
        self.folder().join("blobs").join(format!("{etag}.incomplete"))
    }

    pub(crate) fn lock(&self, etag: &str) -> PathBuf {
        self.root.join(".locks").join(&self.folder_name).join(format!("{etag}.lock"))
    }

    pub(crate) fn snapshot_file(&self, commit: &str, path: &str) -> PathBuf {
        self.snapshot(commit).join(path)
    }

    /// The commit that `revision` stood for when a tool last asked.
    pub(crate) fn read_ref(&self, revision: &str) -> Option<String> {
        let text = fs::read_to_string(self.folder().join("refs").join(revision)).ok()?;
        let commit = text.trim();
        is_commit(commit).then(|| commit.to_string())
    }

    /// Notes that `revision` stands for `commit` now.
    pub(crate) fn write_ref(&self, revision: &str, commit: &str) -> Result<(), DownloadError> {
        if revision == commit || !is_safe(revision) || self.read_ref(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        self.prepare()?;
        write_atomically(&self.folder().join("refs").join(revision), commit.as_bytes())
    }

    /// The files of `commit` as noted by [`Cache::write_listing`] or huggingface_hub; `None` where there is no such note, or it
    /// is not one that we know.
    pub(crate) fn read_listing(&self, commit: &str) -> Option<Vec<RepoFile>> {
        let listing: Listing = serde_json::from_slice(&fs::read(self.listing(commit)).ok()?).ok()?;
        let files: Vec<RepoFile> = listing.files.into_iter().map(|(path, entry)| entry.into_file(path)).collect();
        let is_good = |file: &RepoFile| is_safe(&file.path) && !file.etag.is_empty() && is_hex(&file.etag);
        (listing.format_version == LISTING_FORMAT_VERSION && files.iter().all(is_good)).then_some(files)
    }

    pub(crate) fn write_listing(&self, commit: &str, files: &[RepoFile]) -> Result<(), DownloadError> {
        let files = files.iter().map(|file| (file.path.clone(), Entry::of(file))).collect();
        let listing = Listing { format_version: LISTING_FORMAT_VERSION, files };
        self.prepare()?;
        let text = serde_json::to_vec_pretty(&listing).expect("names and numbers serialize");
        write_atomically(&self.listing(commit), &text)
    }

    /// Forgets the listing of `commit`: what it says is not so.
    pub(crate) fn forget_listing(&self, commit: &str) {
        let _ = fs::remove_file(self.listing(commit));
    }

    /// Notes that `commit` has no file `path`, as huggingface_hub does when it has asked for one in vain.
    pub(crate) fn note_missing(&self, commit: &str, path: &str) -> Result<(), DownloadError> {
        let note = self.folder().join(".no_exist").join(commit).join(path);
        if note.exists() || !is_safe(path) {
            return Ok(());
        }
        write_atomically(&note, b"")
    }

    /// What another tool has left of `commit`: its snapshot folder, the etag being the name of the blob it links to.
    pub(crate) fn read_snapshot(&self, commit: &str) -> Option<Vec<RepoFile>> {
        let snapshot = self.snapshot(commit);
        let (_, names) = crate::local::list(&snapshot).ok().filter(|_| snapshot.is_dir())?;
        let describe = |path: String| {
            let blob = fs::canonicalize(snapshot.join(&path)).ok()?;
            let size_bytes = fs::metadata(&blob).ok()?.len();
            let etag = blob.file_name()?.to_str()?.to_string();
            Some(RepoFile { path, size_bytes, git_oid: etag.clone(), etag, xet_hash: None })
        };
        Some(names.into_iter().filter_map(describe).collect())
    }

    /// Makes the repository's folders and marks the cache as one that backups may skip.
    pub(crate) fn prepare(&self) -> Result<(), DownloadError> {
        for folder in [
            self.folder().join("blobs"),
            self.folder().join("snapshots"),
            self.root.join(".locks").join(&self.folder_name),
        ] {
            fs::create_dir_all(&folder).map_err(DownloadError::io("create", &folder))?;
        }
        let tag = self.root.join("CACHEDIR.TAG");
        if !tag.exists() {
            let text = "Signature: 8a477f597d28d172789f06886806bc55\n# A cache of the Hugging Face Hub: https://bford.info/cachedir/\n";
            // Several files begin at once, and each finds the tag missing.
            write_atomically(&tag, text.as_bytes())?;
        }
        Ok(())
    }

    /// Links `path` of `commit` to its blob, by a relative link, as huggingface_hub does.
    pub(crate) fn link(&self, commit: &str, path: &str, etag: &str) -> Result<(), DownloadError> {
        let link = self.snapshot_file(commit, path);
        let target: PathBuf =
            std::iter::repeat_n("..", path.split('/').count() + 1).collect::<PathBuf>().join("blobs").join(etag);
        let is_copy = |link: &Path| link.is_file() && !link.is_symlink() && self.has_no_links;
        if fs::read_link(&link).is_ok_and(|found| found == target) || is_copy(&link) {
            return Ok(());
        }
        let folder = link.parent().expect("a file of a snapshot is in its folder");
        fs::create_dir_all(folder).map_err(DownloadError::io("create", folder))?;
        let temporary = link.with_file_name(format!(".{}.link", unique(etag)));
        if self.has_no_links {
            fs::copy(self.blob(etag), &temporary).map(|_| ()).map_err(DownloadError::io("copy", &temporary))?;
        } else {
            make_link(&target, &self.blob(etag), &temporary).map_err(DownloadError::io("link", &temporary))?;
        }
        fs::rename(&temporary, &link).map_err(DownloadError::io("link", &link))
    }

    fn folder(&self) -> PathBuf {
        self.root.join(&self.folder_name)
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder().join("snapshots").join(commit)
    }

    fn listing(&self, commit: &str) -> PathBuf {
        self.folder().join("trees").join(format!("{commit}.json"))
    }
}

#[cfg(unix)]
fn make_link(target: &Path, _blob: &Path, link: &Path) -> std::io::Result<()> {
    let _ = fs::remove_file(link);
    std::os::unix::fs::symlink(target, link)
}

/// Links need a privilege on Windows; huggingface_hub copies there too.
#[cfg(not(unix))]
fn make_link(_target: &Path, blob: &Path, link: &Path) -> std::io::Result<()> {
    fs::copy(blob, link).map(|_| ())
}

/// A name that no other thread or process makes at the same time.
fn unique(name: &str) -> String {
    static N_MADE: AtomicU64 = AtomicU64::new(0);
    format!("{name}.{}.{}", std::process::id(), N_MADE.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), DownloadError> {
    let folder = path.parent().expect("a file of the cache is in a folder");
    fs::create_dir_all(folder).map_err(DownloadError::io("create", folder))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{}.tmp", unique(&name)));
    fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(DownloadError::io("write", path))
}
