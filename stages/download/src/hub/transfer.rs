//! Files of a commit, from the hub or the cache: checked against their etags, each with its BLAKE3 from the same pass.
//!
//! ```text
//! small files   up to eight at once
//! large files   one after another, each in ranges over up to eight connections
//! each          lock <etag> -> blob there? read and check it -> else <etag>.incomplete -> rename to <etag> -> link
//! ```
//!
//! A blob that is in the cache already is read once and checked, too: other tools do not check what they download.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::Repository;
use super::cache::Cache;
use super::client::{Client, HubFile};
use super::listing::RepoFile;
use crate::error::DownloadError;
use crate::net::checksum::{Checksums, Promise};
use crate::net::lock;
use crate::net::transfer::{CONNECTIONS_MAX, PARALLEL_BYTES_MIN, Transfer, hash_file};

/// A file in the cache.
pub(crate) struct Fetched {
    /// The blob itself, absolute.
    pub(crate) path: PathBuf,
    /// BLAKE3 in hex.
    pub(crate) blake3: String,
    /// Bytes that came over the network.
    pub(crate) n_received_bytes: u64,
}

/// Brings all of `files` of `commit` into the cache, in their order. `on_bytes` is told how many bytes of all files together
/// are done.
///
/// # Errors
/// As [`fetch`]: of the first file in order that has one; the others stop.
pub(crate) fn fetch_all(
    client: &Client,
    repository: &Repository,
    commit: &str,
    files: &[RepoFile],
    on_bytes: &(dyn Fn(u64) + Sync),
) -> Result<Vec<Fetched>, DownloadError> {
    let done = Mutex::new((vec![0; files.len()], 0));
    let fetch_one = |idx: usize| {
        let mut on_file_bytes = |n_bytes: u64| {
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.1 = done.1 + n_bytes - std::mem::replace(&mut done.0[idx], n_bytes);
            on_bytes(done.1);
        };
        let fetched = fetch(client, repository, commit, &files[idx], &mut on_file_bytes);
        if fetched.is_err() {
            client.net.stop();
        }
        (idx, fetched)
    };
    let (large, small): (Vec<usize>, Vec<usize>) =
        (0..files.len()).partition(|idx| files[*idx].size_bytes >= PARALLEL_BYTES_MIN);
    let n_threads = CONNECTIONS_MAX.min(small.len());
    let queue = Mutex::new(VecDeque::from(small));
    let take = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let mut all: Vec<(usize, Result<Fetched, DownloadError>)> = thread::scope(|scope| {
        let work = || std::iter::from_fn(take).map(&fetch_one).collect::<Vec<_>>();
        let workers: Vec<_> = (0..n_threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("fetching does not panic")).collect()
    });
    if all.iter().all(|(_, fetched)| fetched.is_ok()) {
        all.extend(large.into_iter().map(fetch_one));
    }
    // An interruption is the answer only where nothing else went wrong: who fails stops the others by one.
    all.sort_by_key(|(idx, fetched)| (matches!(fetched, Err(DownloadError::Cancelled)), *idx));
    let mut fetched = Vec::new();
    for (idx, one) in all {
        fetched.push((idx, one?));
    }
    fetched.sort_by_key(|(idx, _)| *idx);
    Ok(fetched.into_iter().map(|(_, fetched)| fetched).collect())
}

/// Brings `file` of `commit` into the cache if it is not there, and checks it. `on_bytes` is told how many bytes of the
/// file are done each time some are (fewer than before where it begins anew).
///
/// # Errors
/// `Corrupt` when it arrives damaged twice; `Offline` when it is not there or damaged and the network may not be used.
fn fetch(
    client: &Client,
    repository: &Repository,
    commit: &str,
    file: &RepoFile,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<Fetched, DownloadError> {
    let environment = client.net.environment;
    let cache = Cache::new(environment, repository);
    let blob = cache.blob(&file.etag);
    if environment.is_offline {
        let there = cache.snapshot_file(commit, &file.path);
        let there = if blob.exists() { blob } else { there };
        return match check(client, &there, file, on_bytes)? {
            Some(blake3) => Ok(Fetched { path: canonical(&there)?, blake3, n_received_bytes: 0 }),
            None => Err(offline(&cache, repository, commit, &format!("an undamaged `{}`", file.path))),
        };
    }
    cache.prepare()?;
    let _lock = lock(client.net, &cache.lock(&file.etag))?;
    let mut n_received_bytes = 0;
    let blake3 = match check(client, &blob, file, on_bytes)? {
        Some(blake3) => blake3,
        None => {
            let remote = HubFile::new(client, repository, commit, file);
            let incomplete = cache.incomplete(&file.etag);
            let transfer = Transfer {
                net: client.net,
                remote: &remote,
                name: &file.path,
                size_bytes: Some(file.size_bytes),
                promises: &Promise::of_hub(&file.etag),
                incomplete: &incomplete,
            };
            let arrived = transfer.run(on_bytes)?;
            fs::rename(&incomplete, &blob).map_err(DownloadError::io("write", &blob))?;
            n_received_bytes = arrived.n_received_bytes;
            arrived.found.blake3
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
    let mut checksums = Checksums::new(&Promise::of_hub(&file.etag), size_bytes);
    hash_file(client.net, &mut opened, path, &mut checksums, on_bytes)?;
    let found = checksums.finish();
    let Some(broken) = found.broken else { return Ok(Some(found.blake3)) };
    client.net.warn(format!(
        "`{}` is damaged in the cache: its {} is {}, not {}",
        file.path, broken.algorithm, broken.found, broken.expected
    ));
    Ok(None)
}

fn canonical(path: &Path) -> Result<PathBuf, DownloadError> {
    fs::canonicalize(path).map_err(DownloadError::io("read", path))
}
