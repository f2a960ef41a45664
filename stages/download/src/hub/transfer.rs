//! One file, from the hub or the cache: checked against its etag, with its BLAKE3 from the same pass.
//!
//! ```text
//! lock <etag> -> blob there? read and check it -> else <etag>.incomplete: what is there, then `Range: bytes=N-`
//!             -> checksum right? rename to <etag>, link the snapshot -> wrong? once more from the first byte
//! ```
//!
//! A blob that is in the cache already is read once and checked, too: other tools do not check what they download.

use std::fs::{self, File, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checksum::Checksums;
use super::client::{Client, Failure, header};
use super::listing::{RepoFile, file_address};
use super::{Cache, Repository};
use crate::error::DownloadError;

/// A file in the cache.
pub(crate) struct Fetched {
    /// The blob itself, absolute.
    pub(crate) path: PathBuf,
    /// BLAKE3 in hex.
    pub(crate) blake3: String,
    /// Bytes that came over the network.
    pub(crate) n_received_bytes: u64,
}

/// Brings `file` of `commit` into the cache if it is not there, and checks it. `on_bytes` is told how many bytes of the
/// file are done each time some are (fewer than before where it begins anew).
///
/// # Errors
/// `Corrupt` when it arrives damaged twice; `Offline` when it is not there or damaged and the network may not be used.
pub(crate) fn fetch(
    client: &Client,
    repository: &Repository,
    commit: &str,
    file: &RepoFile,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<Fetched, DownloadError> {
    let cache = Cache::new(client.environment(), repository);
    let blob = cache.blob(&file.etag);
    if client.environment().is_offline {
        let there = cache.snapshot_file(commit, &file.path);
        let there = if blob.exists() { blob } else { there };
        return match check(client, &there, file, on_bytes)? {
            Some(blake3) => Ok(Fetched { path: canonical(&there)?, blake3, n_received_bytes: 0 }),
            None => Err(offline(&cache, repository, commit, &format!("an undamaged `{}`", file.path))),
        };
    }
    cache.prepare()?;
    let _lock = lock(client, &cache.lock(&file.etag))?;
    let mut n_received_bytes = 0;
    let blake3 = match check(client, &blob, file, on_bytes)? {
        Some(blake3) => blake3,
        None => {
            let mut download = Download { client, repository, commit, file, n_received_bytes: 0 };
            let blake3 = download.download_to(&blob, on_bytes)?;
            n_received_bytes = download.n_received_bytes;
            blake3
        }
    };
    cache.link(commit, &file.path, &file.etag)?;
    Ok(Fetched { path: canonical(&blob)?, blake3, n_received_bytes })
}

/// The error of something that the cache lacks.
pub(crate) fn offline(cache: &Cache, repository: &Repository, commit: &str, missing: &str) -> DownloadError {
    let missing = format!("{missing} of {} at {commit}", repository.describe());
    DownloadError::Offline { cache: cache.root().to_path_buf(), missing }
}

/// The BLAKE3 of the file at `path` if it is there and is what `file` says.
fn check(
    client: &Client,
    path: &Path,
    file: &RepoFile,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<Option<String>, DownloadError> {
    let Ok(mut opened) = File::open(path) else { return Ok(None) };
    let size_bytes = opened.metadata().map_err(DownloadError::io("read", path))?.len();
    if size_bytes != file.size_bytes {
        return Ok(None);
    }
    let mut checksums = Checksums::new(&file.etag, size_bytes);
    hash(client, &mut opened, path, &mut checksums, on_bytes)?;
    let (algorithm, found, blake3) = checksums.finish();
    if algorithm.is_empty() || found == file.etag {
        return Ok(Some(blake3));
    }
    client.warn(format!("`{}` is damaged in the cache: its {algorithm} is {found}, not {}", file.path, file.etag));
    Ok(None)
}

/// Takes all bytes of `opened` into `checksums`. Returns how many.
fn hash(
    client: &Client,
    opened: &mut File,
    path: &Path,
    checksums: &mut Checksums,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<u64, DownloadError> {
    let mut n_done = 0;
    checksums
        .update_from(opened, |n| {
            n_done += n as u64;
            on_bytes(n_done);
            client.check_cancelled().map_err(Stop::Download)
        })
        .map_err(|stop| match stop {
            Stop::Io(error) => DownloadError::io("read", path)(error),
            Stop::Download(error) => error,
        })
}

enum Stop {
    Io(std::io::Error),
    Download(DownloadError),
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Stop::Io(error)
    }
}

struct Download<'a> {
    client: &'a Client<'a>,
    repository: &'a Repository,
    commit: &'a str,
    file: &'a RepoFile,
    n_received_bytes: u64,
}

/// What has arrived so far.
struct Partial {
    file: File,
    path: PathBuf,
    n_bytes: u64,
    checksums: Checksums,
}

impl Download<'_> {
    /// Downloads into `blob`. Returns the BLAKE3.
    fn download_to(&mut self, blob: &Path, on_bytes: &mut dyn FnMut(u64)) -> Result<String, DownloadError> {
        let path = blob.with_extension("incomplete");
        let mut is_second = false;
        loop {
            let mut partial = self.open_partial(&path, on_bytes)?;
            let client = self.client;
            client.retrying(|| self.receive(&mut partial, on_bytes))?;
            let (algorithm, found, blake3) = partial.checksums.finish();
            if algorithm.is_empty() || found == self.file.etag {
                partial.file.sync_data().map_err(DownloadError::io("write", &path))?;
                fs::rename(&path, blob).map_err(DownloadError::io("write", blob))?;
                return Ok(blake3);
            }
            fs::remove_file(&path).map_err(DownloadError::io("remove", &path))?;
            let expected = self.file.etag.clone();
            if is_second {
                return Err(DownloadError::Corrupt { file: self.file.path.clone(), algorithm, expected, found });
            }
            is_second = true;
            client.warn(format!(
                "`{}` arrived damaged: its {algorithm} is {found}, not {expected}; downloading it again",
                self.file.path
            ));
        }
    }

    /// Opens what an earlier attempt, perhaps of another process, has left.
    fn open_partial(&self, path: &Path, on_bytes: &mut dyn FnMut(u64)) -> Result<Partial, DownloadError> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(DownloadError::io("create", path))?;
        let checksums = Checksums::new(&self.file.etag, self.file.size_bytes);
        let mut partial = Partial { file, path: path.to_path_buf(), n_bytes: 0, checksums };
        let there = partial.file.metadata().map_err(DownloadError::io("read", path))?.len();
        if there > self.file.size_bytes {
            partial.begin_anew(self.file)?;
        } else if there > 0 {
            partial.n_bytes = hash(self.client, &mut partial.file, path, &mut partial.checksums, on_bytes)?;
        }
        Ok(partial)
    }

    /// One attempt to receive what is missing.
    fn receive(&mut self, partial: &mut Partial, on_bytes: &mut dyn FnMut(u64)) -> Result<(), Failure> {
        let size_bytes = self.file.size_bytes;
        if partial.n_bytes == size_bytes {
            return Ok(());
        }
        let address = file_address(self.repository, self.commit, &self.file.path);
        let from = (partial.n_bytes > 0).then_some(partial.n_bytes);
        let answer = self.client.get(&address, from, self.repository, self.commit)?;
        let begins_at = match answer.status {
            206 => header(&answer.headers, "content-range").and_then(first_byte),
            _ => Some(0),
        };
        if begins_at != Some(partial.n_bytes) {
            partial.begin_anew(self.file)?;
            if begins_at != Some(0) {
                return Err(Failure::passing(self.client.network(&"the rest of the file begins elsewhere")));
            }
        }
        let before = partial.n_bytes;
        let mut body = answer.body.into_with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; 1 << 17];
        let problem = loop {
            self.client.check_cancelled()?;
            match body.read(&mut buffer) {
                Ok(0) if partial.n_bytes == size_bytes => return Ok(()),
                Ok(0) => break format!("the connection ended after {} of {size_bytes} bytes", partial.n_bytes),
                Ok(n) if partial.n_bytes + n as u64 > size_bytes => {
                    partial.begin_anew(self.file)?;
                    break format!("more than the {size_bytes} bytes of the file arrived");
                }
                Ok(n) => {
                    partial.file.write_all(&buffer[..n]).map_err(DownloadError::io("write", &partial.path))?;
                    partial.checksums.update(&buffer[..n]);
                    partial.n_bytes += n as u64;
                    self.n_received_bytes += n as u64;
                    on_bytes(partial.n_bytes);
                }
                Err(error) => break format!("{error} after {} of {size_bytes} bytes", partial.n_bytes),
            }
        };
        let error = self.client.network(&format!("`{}`: {problem}", self.file.path));
        Err(Failure::Passing { error, wait: None, made_progress: partial.n_bytes > before })
    }
}

impl Partial {
    fn begin_anew(&mut self, file: &RepoFile) -> Result<(), DownloadError> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .map_err(DownloadError::io("write", &self.path))?;
        self.n_bytes = 0;
        self.checksums = Checksums::new(&file.etag, file.size_bytes);
        Ok(())
    }
}

/// The first byte in `bytes 100-199/200`.
fn first_byte(content_range: &str) -> Option<u64> {
    content_range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// Waits for the lock of a blob; huggingface_hub takes the same one (`flock`).
fn lock(client: &Client, path: &Path) -> Result<File, DownloadError> {
    const PIECE: Duration = Duration::from_millis(100);
    let file = File::options().write(true).create(true).truncate(false).open(path);
    let file = file.map_err(DownloadError::io("lock", path))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => client.pause(PIECE)?,
            // Some network file systems have no locks; a rename is atomic there too.
            Err(TryLockError::Error(_)) => return Ok(file),
        }
    }
}

fn canonical(path: &Path) -> Result<PathBuf, DownloadError> {
    fs::canonicalize(path).map_err(DownloadError::io("read", path))
}
