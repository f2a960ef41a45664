//! What the hub says about a repository: the commit of a revision, and the files of a commit.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::client::{Client, Question};
use super::{Repository, is_commit};
use crate::error::DownloadError;
use crate::net::address::encode;
use crate::net::checksum::is_hex;
use crate::net::header;

/// A file of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RepoFile {
    /// Path in the repository, `/` between folders.
    pub(crate) path: String,
    pub(crate) size_bytes: u64,
    /// The name of its blob in the cache and its checksum: SHA-256 (64 hex digits) or git SHA-1 (40).
    pub(crate) etag: String,
    /// What git has for it: of a large file the SHA-1 of the pointer.
    pub(crate) git_oid: String,
    /// Not used here; kept for huggingface_hub, which reads our listings.
    pub(crate) xet_hash: Option<String>,
}

/// The commit that `revision` stands for now.
///
/// # Errors
/// When there is no such repository or revision, or the hub does not answer.
pub(crate) fn resolve_revision(
    client: &Client,
    repository: &Repository,
    revision: &str,
) -> Result<String, DownloadError> {
    #[derive(Deserialize)]
    struct Info {
        sha: String,
    }
    if is_commit(revision) {
        return Ok(revision.to_string());
    }
    let path = format!("/api/{}/{}/revision/{}", repository.plural(), repository.id, encode(revision, ""));
    let question = Question { repository, revision, path: &path, etag: None };
    client.get_json(&question, |Info { sha }, headers| {
        // Said twice, so that a bit that flipped on the way is noticed.
        match header(headers, "x-repo-commit") {
            Some(commit) if commit != sha => Err(format!("the commit is `{sha}` and also `{commit}`")),
            _ if !is_commit(&sha) => Err(format!("`{sha}` is no commit")),
            _ => Ok(sha),
        }
    })
}

/// Every file of `commit`, sorted by path.
///
/// # Errors
/// As for [`resolve_revision`]; `BadAnswer` for a path that would leave the cache.
pub(crate) fn list_files(
    client: &Client,
    repository: &Repository,
    commit: &str,
) -> Result<Vec<RepoFile>, DownloadError> {
    #[derive(Deserialize)]
    struct Entry {
        #[serde(rename = "type")]
        entry_type: String,
        path: String,
        #[serde(default)]
        size: u64,
        #[serde(default)]
        oid: String,
        lfs: Option<Lfs>,
        #[serde(rename = "xetHash")]
        xet_hash: Option<String>,
    }
    #[derive(Deserialize)]
    struct Lfs {
        #[serde(alias = "sha256")]
        oid: String,
        size: Option<u64>,
    }
    let first = format!("/api/{}/{}/tree/{commit}?recursive=true", repository.plural(), repository.id);
    let mut files = Vec::new();
    let mut seen = BTreeSet::from([first.clone()]);
    let mut next = Some(first);
    while let Some(path) = next {
        let question = Question { repository, revision: commit, path: &path, etag: None };
        let examine = |entries: Vec<Entry>, headers: &ureq::http::HeaderMap| {
            let files = entries.into_iter().filter(|entry| entry.entry_type == "file").map(|entry| {
                let size_bytes = entry.lfs.as_ref().and_then(|lfs| lfs.size).unwrap_or(entry.size);
                let etag = entry.lfs.map_or_else(|| entry.oid.clone(), |lfs| lfs.oid);
                let is_good = is_safe(&entry.path) && is_hex(&etag) && !etag.is_empty();
                let Entry { path, oid: git_oid, xet_hash, .. } = entry;
                let file = RepoFile { path, size_bytes, etag, git_oid, xet_hash };
                if is_good { Ok(file) } else { Err(format!("the entry `{}`", file.path)) }
            });
            Ok((files.collect::<Result<Vec<_>, String>>()?, header(headers, "link").and_then(next_page)))
        };
        let (page, following) = client.get_json(&question, examine)?;
        files.extend(page);
        // A mirror may name the hub that it mirrors: asked there without the credential, as that stays at home.
        if following.as_ref().is_some_and(|following| !seen.insert(following.clone())) {
            return Err(client.bad_answer(&path, "its pages go round in a circle"));
        }
        next = following;
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// The address of a file's bytes.
pub(crate) fn file_address(repository: &Repository, commit: &str, path: &str) -> String {
    let folder = if repository.is_data_set { "datasets/" } else { "" };
    format!("/{folder}{}/resolve/{commit}/{}", repository.id, encode(path, "/"))
}

/// Whether `path` stays below the folder it is joined to.
pub(crate) fn is_safe(path: &str) -> bool {
    !path.contains(['\\', '\0']) && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

/// The address marked `rel="next"` in a `Link` header.
fn next_page(link: &str) -> Option<String> {
    let part = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    let (_, rest) = part.split_once('<')?;
    Some(rest.split_once('>')?.0.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        for path in ["../x", "/x", "a/../b", "a//b", "", "a\\b", "."] {
            assert!(!is_safe(path), "{path}");
        }
        assert!(is_safe("a/b.c"));
    }

    #[test]
    fn the_next_page_is_in_the_link_header() {
        assert_eq!(next_page("<http://h/x?a=1&b>; rel=\"next\"").as_deref(), Some("http://h/x?a=1&b"));
        assert_eq!(next_page("<http://h/x>; rel=\"prev\""), None);
    }
}
