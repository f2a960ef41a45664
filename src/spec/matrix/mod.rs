//! `matrix:` at the top of a file or in a stage: one stage as written becomes one for each combination that it depends on.
//!
//! ```text
//! matrix: { lr: [1e-4, 2e-4] }
//! packed  ----> adapter   uses ${{ matrix.lr }}        packed --> adapter@lr=0.0001 --> released@lr=0.0001
//!               released  takes from adapter      =>          \-> adapter@lr=0.0002 --> released@lr=0.0002
//! ```
//!
//! It works on what is written, before any stage kind reads its settings; instances are ordinary stages afterwards. Keys hold no
//! names, so an instance is reused whatever else the matrix lists.
//!
//! Combinations are made as GitHub Actions makes them: all of the lists, less `exclude`, then `include`.

mod combination;
mod expand;
mod read;
mod uses;

pub(super) use expand::expand;
pub(super) use read::{Matrix, read};
pub(super) use uses::refuse;

/// More instances than that are a typing error, or not what one machine runs.
const INSTANCES_MAX: usize = 4_096;
