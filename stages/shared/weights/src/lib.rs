//! The weight files of a model folder, in any of three formats, behind one face: names, shapes, dtypes, and where the bytes lie.
//!
//! ```text
//! *.safetensors        --safetensors------------------\
//! pytorch_model*.bin   --zip--> data.pkl --pickle--torch--> WeightFiles   name -> TensorEntry: dtype, shape, file, offset
//! *.gguf               --gguf-------------------------/                   read(name) -> bytes, as Hugging Face orders them
//! ```
//!
//! Reading order: [`files`] (the face), [`select`] (which files of a model folder), [`entry`] (a tensor and how it lies), then a module
//! per format: [`safetensors`], [`zip`], [`pickle`] and [`torch`], [`gguf`]; [`config`] (what a model is, which a GGUF says itself).
//!
//! Opening reads the heads only: a model of 27 GB takes milliseconds. What a head claims is checked against the file before anything
//! is taken for it, so memory is bounded by the file and no input can make it panic. A pickle is data here: nothing in it is executed.
//!
//! It deliberately knows no model: which tensors there should be is the program's to say (pipe-llm). It converts no dtype,
//! unpacks no quantized block, and reads no file that it would have to unpack first.

pub mod config;
pub mod entry;
mod error;
pub mod files;
pub mod gguf;
pub mod pickle;
pub mod safetensors;
pub mod select;
pub mod torch;
pub mod zip;

pub use config::{config_json, gguf_vocabulary};
pub use entry::TensorEntry;
pub use error::WeightsError;
pub use files::{Claim, WeightFiles};
pub use gguf::{TokenType, Vocabulary};
