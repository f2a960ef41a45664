//! The stage kind `tokenize`: examples become packs of token ids with labels.
//!
//! ```text
//! text      "Q: hi\nA: yo"       prompt 0..6, completion 7..12 (characters)
//! ids       <s> Q  :  hi \n A  :  yo </s>         the end is appended where it is absent
//! labels     -  -  -  -  -  A  :  yo </s>         completion_only_loss: true; else every token
//!
//! packs     |doc 0......|doc 7...|doc 3.|         best fit, at most max_length tokens, documents apart
//! ```
//!
//! Reading order: [`settings`], [`pipe_tokenizer::document`] (labels from spans), `split` (long
//! documents in pieces), [`pipe_records::packing`] (which documents share a pack), `spill` (documents on disk, so that memory does not grow
//! with the data set), `wrapped` (documents end to end), `pretokenized` (rows taken as they are), `overlap` (reading, encoding and writing
//! at the same time), `run`, `report`, `preview` (the text of the first packs), `show`, `figures`.
//!
//! It deliberately does not shuffle, pad or shift labels: order is the training stage's, shift is the loss's.

mod error;
mod figures;
mod overlap;
mod pretokenized;
mod preview;
mod report;
mod run;
pub mod settings;
mod show;
mod spill;
mod split;
mod wrapped;

pub use error::TokenizeError;
pub use run::{KIND, TokenizeKind};
