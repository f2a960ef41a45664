//! Models as programs: a straight list of ops, run forward and backward without an autograd.
//!
//! ```text
//! config.json --ModelConfig--> Program (list of ops) --Engine--> loss, gradients --AdamW--> adapter
//! *.safetensors, pickles, GGUF --weights-------------^
//! ```
//!
//! Reading order is the data path: [`config`], [`program`], [`weights`], [`load`], [`sequence`], [`ops`] (one file each: forward,
//! backward, and the plain version both are checked against), [`adapter`], [`new_tokens`] (what their rows begin with), [`engine`],
//! [`schedule`], [`optimizer`], [`trainer`], [`generate`], [`rewrite`] (weights written once more: a merge, rows added), [`parity`] (a
//! device against the CPU).
//!
//! It deliberately has no settings, no files of a run and no progress: the stage kind `train` has those.

pub mod adapter;
mod claims;
pub mod config;
pub mod device;
pub mod engine;
pub mod error;
pub mod generate;
pub mod load;
pub mod map;
pub mod merge;
pub mod model_folder;
pub mod new_tokens;
pub mod ops;
pub mod optimizer;
pub mod parity;
pub mod pattern;
pub mod program;
pub mod rewrite;
pub mod schedule;
pub mod sequence;
pub mod trainer;
pub mod weights;
pub mod work;

pub use adapter::{Adapter, LoraConfig};
pub use config::{Architecture, ModelConfig};
pub use device::{DeviceChoice, TrainingDevice};
pub use engine::{CandleEngine, DropoutKey, Engine, GradientSum, NativeEngine};
pub use error::LlmError;
pub use program::{Program, tensor_shapes};
pub use sequence::Sequence;

/// The version of candle whose arithmetic this is, for compute classes.
pub const CANDLE_VERSION: &str = "0.11.1";
