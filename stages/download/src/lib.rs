//! The stage kind `download`: a data set, a model or an adapter, from the Hugging Face Hub, an address, S3 or a local path.
//!
//! ```text
//! dataset: tatsu-lab/alpaca   request `datasets/tatsu-lab/alpaca@main` --resolve--> commit (kept in the lock file)
//!                             listing of the commit --select--> files --transfer--> Hugging Face cache, by reference
//! dataset: https://host/x     resolved to the SHA-256 of its bytes
//! dataset: s3://bucket/x/     resolved to a checksum of the listing: keys, sizes, etags
//! model: ./my-model           names below that folder, by reference; their content is the key
//! ```
//!
//! Reading order: [`settings`], [`local`] (what a value means), [`select`] (which files), [`configs`] (what a README says of them), [`environment`], `net` (one GET,
//! one file), `hub`, `web`, `s3`, [`run`], [`summary`] (what it says about what it got).
//!
//! Files are never copied: the artifact refers to the cache that other Hugging Face tools share. It deliberately loads no
//! pickle, uploads nothing and asks nothing of the hub that the cache can answer.

pub mod configs;
pub mod environment;
pub mod error;
pub mod glob;
pub(crate) mod hub;
pub mod local;
pub(crate) mod net;
pub mod run;
pub(crate) mod s3;
pub mod select;
pub mod settings;
pub mod summary;
pub(crate) mod web;

use pipe_contract::{Artifact, ArtifactKind, Figure, InputPort, OutputPort, Reader, Stage, StageError, StageKind};

/// The kind as the runner's registry lists it.
pub static KIND: DownloadKind = DownloadKind;

/// `uses: download`.
pub struct DownloadKind;

impl StageKind for DownloadKind {
    fn name(&self) -> &'static str {
        "download"
    }

    fn summary(&self) -> &'static str {
        "-> rows, model or adapter: by hub id, address or local path, checked and published by reference"
    }

    fn version(&self) -> u32 {
        2 // The README of a data set may say which files are meant.
    }

    fn inputs(&self) -> &'static [InputPort] {
        &[]
    }

    fn outputs(&self) -> &'static [OutputPort] {
        &[
            OutputPort { name: "rows", kind: ArtifactKind::Rows },
            OutputPort { name: "model", kind: ArtifactKind::Model },
            OutputPort { name: "adapter", kind: ArtifactKind::Adapter },
        ]
    }

    fn read(&self, reader: &mut Reader) -> Box<dyn Stage> {
        Box::new(run::Download {
            settings: settings::read(reader),
            environment: environment::Environment::of_process(),
        })
    }

    fn show(&self, _port: &str, artifact: &Artifact, n_rows: usize) -> Result<String, StageError> {
        summary::show(artifact, n_rows)
    }

    fn figures(&self, _port: &str, artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
        summary::figures(artifact)
    }
}
