//! A model folder becomes a tokenizer, a text becomes ids with the characters they cover; texts become a new tokenizer.
//!
//! ```text
//! model artifact --ModelTokenizer::load--> encode("Hi there") -> ids   [  1, 9906,  1070]
//!                                                                spans [0..0, 0..2, 2..8]   characters of the text
//! ids and spans --Document--> ids with labels;  --Prompt--> the ids before the completion
//! texts --BpeTrainer--> tokenizer.json
//! ```
//!
//! Reading order: [`special`] (which ids mean beginning and end), [`model_tokenizer`] (encoding), [`generated`] (what is made where there is no
//! `tokenizer.json`: [`xgen`], which is built in, and `gguf`),
//! `pieces` (of byte-level tokenizers, fast), `control` (texts with special tokens of a template), [`document`] (what is learned of
//! an example), [`prompt`] (what a model goes on from), [`bpe`] (training), [`extend`] (new tokens).
//!
//! Two rules hold for every text: it can never create a special id (`</s>` in a text is four ordinary characters; a template's
//! special tokens are named by their place), and the beginning-of-sequence id is at the front at most once.
//!
//! It deliberately has no chat templates (`pipe-template`) and no padding.

pub mod bpe;
mod control;
pub mod document;
mod error;
pub mod extend;
pub mod generated;
mod gguf;
pub mod model_tokenizer;
mod pieces;
pub mod prompt;
pub mod special;
pub mod xgen;

pub use bpe::{BpeTrainer, Trained, train_bpe};
pub use document::{Document, Rules, Supervised};
pub use error::TokenizerError;
pub use extend::Extension;
pub use model_tokenizer::{Encoded, ModelTokenizer};
pub use prompt::Prompt;
