//! The content-addressed store of `pipe`: finished artifacts in, the same artifacts out, or a plain "not there".
//!
//! A stage that ran leaves files in a private folder; [`Store::publish`] turns them into blobs named by their digest and
//! one [`Manifest`] named by the stage's fingerprint. The next run asks [`Store::lookup`] and gets the manifest back.
//!
//! ```text
//! begin(fingerprint) -> tmp/<attempt>/outputs/PORT/...   the stage writes here
//! publish(attempt)   -> blobs/ab/<digest>                each file, synced, then read-only for ever
//!                    -> manifests/ab/<fingerprint>       last of all: the single commit point
//! lookup(fingerprint), missing(manifest), artifact(manifest, port)
//! ```
//!
//! Reading order: [`manifest`] (what is recorded), `layout` (where), [`disk`] (the operations that change a store),
//! `store` (opening, recovery), `attempt`, `publish`, `lookup`, and then the parts that stand alone: `stat_memo`,
//! `lock`, `restore`, `watch`, `index`, `inspect`, `adopt`.
//!
//! It deliberately knows no pipelines, no stage kinds and no network, and removes nothing by itself: what `gc` may remove,
//! its caller says. A remote tier is a separate part that builds on this one.

pub mod disk;
pub mod error;
pub mod manifest;

mod adopt;
mod attempt;
mod certain;
mod digest;
mod gc;
mod hold;
mod index;
mod inspect;
mod layout;
mod listing;
mod lock;
mod lookup;
mod pin;
mod publish;
mod restore;
mod stat_memo;
mod store;
mod watch;

pub use attempt::Attempt;
pub use digest::{FileDigest, artifact_digest};
pub use disk::{Disk, RealDisk};
pub use error::CacheError;
pub use gc::{Gc, GcPlan, GcRoots, Removal, RemovalKind, Removed};
pub use inspect::{Corruption, CorruptionKind, SizeOf, StoreSize};
pub use listing::Listing;
pub use lock::{FileLock, StageLock};
pub use lookup::{MissingFile, MissingReason};
pub use manifest::{ExternalRef, FORMAT_VERSION, Manifest, ManifestArtifact, ManifestFile};
pub use pin::Pin;
pub use pipe_contract::NameMap;
pub use publish::{Divergence, ManifestDraft, Publication};
pub use restore::Restored;
pub use store::Store;
pub use watch::Watch;
