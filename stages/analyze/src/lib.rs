//! The stage kind `analyze`: examples become statistics of their lengths, a histogram and a list of duplicates.
//!
//! ```text
//! examples --+-- characters of each text --+--> lengths.parquet   a row per example
//! model? ----+-- tokens of each text ------+--> summary.json      mean, percentiles, share above the threshold
//!            +-- digest of each text ------+--> histogram.png, histogram.svg
//! ```
//!
//! Reading order: [`settings`], `statistics`, `histogram` (both pure), `duplicates`, `summary` (the JSON file and the
//! table), `chart` (the histogram for `pipe-plot` and reports), `run`.
//!
//! It deliberately changes nothing: what is too long or there twice is reported, and left to `prepare` and `tokenize`.

mod chart;
mod duplicates;
mod error;
mod histogram;
mod run;
pub mod settings;
mod statistics;
mod summary;

pub use error::AnalyzeError;
pub use run::{AnalyzeKind, KIND};
