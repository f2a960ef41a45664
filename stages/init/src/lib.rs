//! The stage kind `init`: examples become a fresh Llama, with random weights and a tokenizer of its own.
//!
//! ```text
//! texts ----> BPE tokenizer ----> tokenizer.json, tokenizer_config.json, special_tokens_map.json
//! settings -> config.json ------> names and shapes -> N(0, initializer_range) from named streams -> model.safetensors
//! ```
//!
//! Reading order: [`settings`], `config` (the JSON files), `weights`, `run`.
//!
//! It deliberately knows one architecture, and no way to start from another model: that is `download`.

mod config;
mod error;
mod run;
pub mod settings;
mod weights;

pub use error::InitError;
pub use run::{InitKind, KIND};
