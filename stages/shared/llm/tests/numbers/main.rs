//! The numbers of the engine against other ways to get them; one test binary.

/// Parity folders as engines, adapters and sequences.
mod common;
/// Pickles and GGUF against safetensors.
mod formats;
/// The cache against whole passes; greedy ids against transformers'.
mod generation;
/// The config that a GGUF alone says.
mod gguf;
/// Backward against central differences and autograd; fast ops against plain ones; documents apart.
mod gradients;
/// 500 optimizer steps against f64.
mod long;
/// The native engine against the candle engine, and against itself.
mod native;
/// Logits, gradients and training curves against PyTorch + PEFT.
mod parity;
/// Frequencies of rotary positions against transformers'.
mod rope;
/// Rows of tokens in embedding and head against PEFT's `trainable_token_indices`.
mod tokens;
