//! What the runner and the stages agree on, and nothing else.
//!
//! The runner turns a pipeline file into `Stage` values and calls them; a stage turns input files into output files.
//! Neither knows the other: the runner never sees tensors or record batches, a stage never sees the store.
//!
//! ```text
//! with: {...}  --StageKind::read-->  Box<dyn Stage>  --key_settings-->  fingerprint
//!                                         |
//!              Artifact (files) --------> run(&mut Context) --> files below Context::output_dir(port)
//! ```
//!
//! Reading order: [`artifact`] (what flows), `pipe_settings` (how `with:` is read), [`stage`] (the two traits),
//! [`context`] (what a running stage may do), [`error`].
//!
//! It deliberately has no scheduling, no store, no terminal and no file formats.

pub mod artifact;
pub mod context;
pub mod error;
pub mod stage;

pub use artifact::{Artifact, ArtifactFile, ArtifactKind};
pub use context::{CancelToken, Context, ExternalFile, StageEvent, Unit};
pub use error::StageError;
pub use pipe_figures as figures;
pub use pipe_figures::Figure;
pub use pipe_settings::{KeySettings, KeyValue, NameMap, Problem, ProblemKind, ReadSetting, Reader, read_yaml};
pub use stage::{Cpu, InputPort, Output, OutputPort, Resolved, Source, SpotCheck, Stage, StageKind};
