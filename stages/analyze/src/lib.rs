//! The stage kind `analyze`: examples become statistics of their lengths, a histogram, and lists of rows to look at.
//!
//! ```text
//! examples --+-- characters, digests, oddities of each text --+--> lengths.parquet   a row per example
//! model? ----+-- tokens of each text, packs of all -----------+--> summary.json      statistics, packing, rows to look at
//! test? -----+-- digests -------------------------------------+--> histogram.png, histogram.svg
//! ```
//!
//! Reading order: [`settings`], `statistics`, `histogram` (both pure), `duplicates` (and what `test` has of the examples), `oddities` (the
//! longest and strangest rows), `packing` (what each strategy would waste), `summary` (the JSON file), `tables` (the same for people),
//! `chart` (the histogram for `pipe-plot` and reports), `measure` (one pass over the examples), `run`.
//!
//! It deliberately changes nothing: what is too long or there twice is reported, and left to `prepare` and `tokenize`.

mod chart;
mod duplicates;
mod error;
mod histogram;
mod measure;
mod oddities;
mod packing;
mod run;
pub mod settings;
mod statistics;
mod summary;
mod tables;

pub use error::AnalyzeError;
pub use run::{AnalyzeKind, KIND};
