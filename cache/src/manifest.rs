//! The record of one finished stage: what is stored under its fingerprint, and its text on disk.
//!
//! ```text
//! {                                  pretty JSON, object keys sorted
//!   "format_version": 1, "fingerprint": "3f..", "semantic_key": "a0..", "kind": "format", ...
//!   "outputs": { "examples": { "kind": "examples", "digest": "77..", "files": { "examples.parquet": {..} } } }
//! }
//! blake3 5d41..                      over all bytes above this line
//! ```
//!
//! The checksum finds a file that a power cut left half written. A manifest that cannot be read, for whatever reason,
//! is a miss: the stage runs again. It deliberately holds no time, host or duration; those live in `runs/`.
//!
//! The preimage is on disk only: a plan holds the manifests of all stages, and has no use for it. [`crate::Store::preimage`] reads it.

use pipe_contract::{ArtifactKind, NameMap};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::is_digest;
use crate::layout::is_safe_name;

/// The version this crate writes and reads. Raised when a field changes; older manifests are then misses.
pub const FORMAT_VERSION: u32 = 1;

/// The word before the checksum.
const CHECKSUM_WORD: &str = "blake3 ";

/// What a finished stage left: one file below `manifests/`, without the preimage of its key.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// What it is stored under: the semantic key and the compute class.
    pub fingerprint: String,
    /// Digest of all that determines the outputs, without the compute class.
    pub semantic_key: String,
    /// What computed it, `cpu-f32/1`; `None` where the bytes do not depend on it.
    pub compute_class: Option<String>,
    /// The stage kind.
    pub kind: String,
    /// Implementation version of the stage kind.
    pub kind_version: u32,
    /// What a remote name stood for: a commit.
    pub resolved: Option<String>,
    /// Output port to artifact.
    pub outputs: NameMap<ManifestArtifact>,
    /// Facts for the summary in the order the stage gave them: name and value as shown.
    pub facts: Vec<(String, String)>,
}

/// The file: a manifest and the readable form of what went into its key, which `pipe explain` compares.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record<P> {
    format_version: u32,
    fingerprint: String,
    semantic_key: String,
    compute_class: Option<String>,
    kind: String,
    kind_version: u32,
    preimage: P,
    resolved: Option<String>,
    outputs: NameMap<ManifestArtifact>,
    facts: Vec<(String, String)>,
}

/// An artifact in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestArtifact {
    /// Its type.
    pub kind: ArtifactKind,
    /// [`crate::artifact_digest`] of its kind and files.
    pub digest: String,
    /// Name inside the artifact (`/` between folders) to the file.
    pub files: NameMap<ManifestFile>,
}

/// A file of an artifact in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// BLAKE3 of the bytes, 64 lowercase hex digits.
    pub digest: String,
    /// In bytes.
    pub size_bytes: u64,
    /// Where it lies if it is not a blob of the store.
    pub external: Option<Box<ExternalRef>>,
}

/// A file outside the store, and how it looked when it was digested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalRef {
    /// Absolute path on this machine.
    pub path: String,
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Time of the last change of its bytes, in nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Time of the last change of its inode, in nanoseconds since the epoch.
    pub ctime_ns: i64,
}

/// Why a manifest's text gives no manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// The checksum is absent or wrong: the bytes are not what was written.
    Damaged,
    /// Written by another version of pipe, or not fit for use.
    Unknown,
}

impl Manifest {
    /// The text on disk.
    pub(crate) fn encode(&self, preimage: &Value) -> String {
        let mut preimage = preimage.clone();
        preimage.sort_all_objects();
        let record = self.clone().into_record(preimage);
        let mut text = serde_json::to_string_pretty(&record).expect("plain data with text keys");
        text.push('\n');
        let checksum = blake3::hash(text.as_bytes());
        text.push_str(CHECKSUM_WORD);
        text.push_str(checksum.to_hex().as_str());
        text.push('\n');
        text
    }

    /// Reads the text on disk.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Manifest, Unreadable> {
        let record: Record<IgnoredAny> = Record::read(bytes)?;
        Ok(Manifest {
            fingerprint: record.fingerprint,
            semantic_key: record.semantic_key,
            compute_class: record.compute_class,
            kind: record.kind,
            kind_version: record.kind_version,
            resolved: record.resolved,
            outputs: record.outputs,
            facts: record.facts,
        })
    }

    /// What the text on disk has besides the manifest.
    pub(crate) fn decode_preimage(bytes: &[u8]) -> Result<Value, Unreadable> {
        Record::read(bytes).map(|record: Record<Value>| record.preimage)
    }

    fn into_record<P>(self, preimage: P) -> Record<P> {
        Record {
            format_version: FORMAT_VERSION,
            fingerprint: self.fingerprint,
            semantic_key: self.semantic_key,
            compute_class: self.compute_class,
            kind: self.kind,
            kind_version: self.kind_version,
            preimage,
            resolved: self.resolved,
            outputs: self.outputs,
            facts: self.facts,
        }
    }

    /// Whether every output has the digest it has in `other`.
    pub(crate) fn has_outputs_of(&self, other: &Manifest) -> bool {
        let digests = |manifest: &Manifest| -> Vec<(String, String)> {
            manifest.outputs.iter().map(|(port, artifact)| (port.clone(), artifact.digest.clone())).collect()
        };
        digests(self) == digests(other)
    }
}

impl<P: DeserializeOwned> Record<P> {
    fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let body = checked_body(bytes).ok_or(Unreadable::Damaged)?;
        let record: Self = serde_json::from_slice(body).map_err(|_| Unreadable::Unknown)?;
        let is_fit = record.format_version == FORMAT_VERSION
            && record.outputs.values().all(|artifact| {
                artifact.files.iter().all(|(name, file)| is_safe_name(name) && is_digest(&file.digest))
            });
        if is_fit { Ok(record) } else { Err(Unreadable::Unknown) }
    }
}

/// The bytes above the checksum line, if the checksum holds.
fn checked_body(bytes: &[u8]) -> Option<&[u8]> {
    let checksum_length = CHECKSUM_WORD.len() + 64 + 1;
    let (body, last_line) = bytes.split_at_checked(bytes.len().checked_sub(checksum_length)?)?;
    let checksum = last_line.strip_prefix(CHECKSUM_WORD.as_bytes())?.strip_suffix(b"\n")?;
    (blake3::hash(body).to_hex().as_bytes() == checksum).then_some(body)
}
