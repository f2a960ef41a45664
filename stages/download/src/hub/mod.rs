//! The Hugging Face Hub: names in, checked files in its shared cache out.
//!
//! ```text
//! Client        questions to the hub: redirects, credential, what its answers mean
//! listing       revision -> commit; commit -> files with size and checksum
//! Cache         models--owner--name/{blobs, snapshots, refs}, as huggingface_hub lays it out
//! transfer      files: lock, checked in the cache or fetched, rename, link
//! source        what `dataset: owner/name` stands for, and its files
//! ```

mod cache;
mod client;
mod listing;
mod source;
mod transfer;

pub(crate) use source::Hub;

pub(crate) use cache::write_atomically;
pub(crate) use listing::is_safe;

use crate::net::checksum::is_hex;

/// The branch of a data set that the hub fills with Parquet files of its own making: `CONFIG/SPLIT/0000.parquet`.
pub(crate) const CONVERTED: &str = "refs/convert/parquet";

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
