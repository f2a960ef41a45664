//! Models as programs: a straight list of ops, run forward and backward without an autograd.
//!
//! ```text
//! config.json --ModelConfig--> Program (list of ops) --Engine--> loss, gradients --AdamW--> adapter
//! *.safetensors --Weights-----------------------------^
//! ```
//!
//! Reading order is the data path: [`config`], [`weights`], [`program`], `ops` (one file each: forward, backward, and
//! the plain version both are checked against), [`engine`], [`adapter`], [`schedule`], [`optimizer`].
//!
//! It deliberately has no settings, no files of a run and no progress: the stage kind `train` has those.

pub mod config;
pub mod error;

pub use config::{Architecture, ModelConfig, tensor_shapes};
pub use error::LlmError;
