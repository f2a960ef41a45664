//! The Hugging Face Hub: names in, checked files in its shared cache out.
//!
//! ```text
//! Environment   HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE
//! Client        one GET: redirects, credential, waiting and trying again
//! listing       revision -> commit; commit -> files with size and checksum
//! Cache         models--owner--name/{blobs, snapshots, refs}, as huggingface_hub lays it out
//! transfer      one file: lock, resume, SHA-256 or git SHA-1 and BLAKE3 in one pass, rename, link
//! ```

mod cache;
mod checksum;
mod client;
mod environment;
mod listing;
mod transfer;

pub(crate) use cache::Cache;
pub(crate) use client::Client;
pub use environment::Environment;
pub(crate) use listing::{RepoFile, list_files, resolve_revision};
pub(crate) use transfer::{Fetched, fetch, offline};

/// A repository: which, and of what type on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repository {
    pub(crate) is_data_set: bool,
    /// `owner/name`, or a legacy id without owner.
    pub(crate) id: String,
}

impl Repository {
    /// `models` or `datasets`, as in `/api/models/...` and in the cache.
    pub(crate) fn plural(&self) -> &'static str {
        if self.is_data_set { "datasets" } else { "models" }
    }

    /// For messages.
    pub(crate) fn describe(&self) -> String {
        format!("{} `{}`", if self.is_data_set { "data set" } else { "model" }, self.id)
    }
}

/// Whether `text` is a full commit: 40 lowercase hex digits.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}
