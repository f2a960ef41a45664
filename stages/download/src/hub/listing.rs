//! What the hub says about a repository: the commit of a revision, and the files of a commit.

use serde::{Deserialize, Serialize};

use super::client::{Client, header};
use super::{Repository, is_commit, is_hex};
use crate::error::DownloadError;

/// A file of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RepoFile {
    /// Path in the repository, `/` between folders.
    pub(crate) path: String,
    pub(crate) size_bytes: u64,
    /// The name of its blob in the cache and its checksum: SHA-256 (64 hex digits) or git SHA-1 (40).
    pub(crate) etag: String,
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
    let (Info { sha }, _) = client.get_json(&path, repository, revision)?;
    if is_commit(&sha) { Ok(sha) } else { Err(bad_listing(client, &path, format!("`{sha}` is no commit"))) }
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
    }
    #[derive(Deserialize)]
    struct Lfs {
        #[serde(alias = "sha256")]
        oid: String,
        size: Option<u64>,
    }
    let first = format!("/api/{}/{}/tree/{commit}?recursive=true", repository.plural(), repository.id);
    let mut files = Vec::new();
    let mut next = Some(first);
    while let Some(path) = next {
        let (entries, headers): (Vec<Entry>, _) = client.get_json(&path, repository, commit)?;
        for entry in entries.into_iter().filter(|entry| entry.entry_type == "file") {
            let size_bytes = entry.lfs.as_ref().and_then(|lfs| lfs.size).unwrap_or(entry.size);
            let etag = entry.lfs.map_or(entry.oid, |lfs| lfs.oid);
            let file = RepoFile { path: entry.path, size_bytes, etag };
            if !is_safe(&file.path) || !is_hex(&file.etag) || file.etag.is_empty() {
                return Err(bad_listing(client, &path, format!("the entry `{}`", file.path)));
            }
            files.push(file);
        }
        next = header(&headers, "link").and_then(next_page);
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

fn bad_listing(client: &Client, path: &str, problem: String) -> DownloadError {
    DownloadError::BadAnswer { endpoint: client.environment().endpoint.clone(), path: path.to_string(), problem }
}

/// The address marked `rel="next"` in a `Link` header.
fn next_page(link: &str) -> Option<String> {
    let part = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    let (_, rest) = part.split_once('<')?;
    Some(rest.split_once('>')?.0.to_string())
}

/// Percent-encodes all but letters, digits, `-._~` and the characters in `kept`.
fn encode(text: &str, kept: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        let character = char::from(byte);
        if character.is_ascii_alphanumeric() || "-._~".contains(character) || kept.contains(character) {
            encoded.push(character);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_encoded() {
        assert_eq!(encode("refs/pr/31", ""), "refs%2Fpr%2F31");
        assert_eq!(encode("a b/ü.json", "/"), "a%20b/%C3%BC.json");
    }

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
