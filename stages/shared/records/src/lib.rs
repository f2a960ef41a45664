//! Data between stages: Arrow record batches in memory, deterministic Parquet on disk.
//!
//! ```text
//! rows      *.parquet, *.jsonl, *.csv, ... --open_rows--> RecordBatch of 1,024 rows, whatever columns there are
//! examples  examples.parquet           --read_examples--> Example { text, prompt, completion, marks }
//! packed    packed.parquet             --PackedReader---> Pack { input_ids, labels, position_ids, doc_ids }
//! ```
//!
//! Reading order: [`files`] (Parquet with pinned properties), [`source`] (forms of data files), [`rows`], [`bad_rows`], `json`,
//! `delimited`, `text`, [`ipc`] (Arrow's own files, and batches that wait on the disk), `messages`, `normal` (types), [`examples`], [`marks`] (what templates know), [`unseen`] (what training did not have),
//! [`packed`], [`packing`] (which documents share a pack), [`show`], [`numbers`], [`lines`] (JSON Lines), [`folders`] (what model and adapter folders say about themselves).
//! The same rows give the same bytes, however they were cut into batches and on any number of threads.
//!
//! It deliberately knows no templates, no tokenizer and no network.

pub mod bad_rows;
mod columns;
mod delimited;
pub mod error;
pub mod examples;
pub mod files;
pub mod folders;
mod groups;
pub mod ipc;
mod json;
pub mod lines;
pub mod marks;
mod messages;
mod normal;
pub mod numbers;
pub mod packed;
pub mod packing;
pub mod rows;
pub mod show;
pub mod source;
mod text;
pub mod unseen;

pub use bad_rows::{BadRows, OnBadRow, ReadOptions};
pub use error::RecordsError;
pub use examples::{Example, ExamplesForm, ExamplesReader, ExamplesWriter, PretokenizedReader, PretokenizedRow};
pub use files::{RecordWriter, parquet_writer, read_parquet};
pub use marks::{Marks, SpecialTokens};
pub use numbers::{bytes, thousands};
pub use packed::{Pack, PackedCounts, PackedInfo, PackedReader, PackedWriter, Packing};
pub use rows::{RowReader, open_rows, open_rows_with};
pub use source::{DataFormat, data_format};
pub use unseen::{Compared, Unseen, unseen};
