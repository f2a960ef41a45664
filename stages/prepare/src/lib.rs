//! The stage kind `prepare`: rows of one or several data sets in, the rows to train on and to test with out.
//!
//! ```text
//! alpaca --columns--filter--.
//!                            '--deduplicate--mix--shuffle--skip, limit--split--+--> train
//! code ----columns--filter--'                                                   '--> test
//!          '------- first pass: which rows stay -----'  '-- second pass: rows in their new order --'
//! ```
//!
//! The steps have this order whatever the order of the settings. Duplicates are found among all inputs, so that a row is not
//! in the mix twice by way of two data sets, and before the split, so that no row of `test` has a twin in `train`. A limit is
//! of the mixed and shuffled rows, so that it is a sample of all, and what is split is what the limit left.
//!
//! Both passes read the inputs from front to end; between them there is a bit per row. What must be brought together from
//! far apart (equal digests, rows that come next in a shuffle) lies in the scratch folder, so memory does not grow with the
//! number of rows but for those bits.
//!
//! Reading order: [`settings`], [`inputs`] and [`columns`], [`conditions`] (filters), [`row_set`] and [`partitions`] (bits, and
//! keys on the disk), [`exact`], [`minhash`] and [`near`] (duplicates), [`random`], [`mix`], [`shuffle`], [`split`], [`assertions`], [`first_pass`],
//! [`second_pass`], [`run`].
//!
//! It deliberately computes no new text (that is `format`'s) and has no expression language: a condition is a mapping.

pub mod assertions;
pub mod columns;
pub mod conditions;
pub mod error;
pub mod exact;
pub mod first_pass;
pub mod inputs;
pub mod minhash;
pub mod mix;
pub mod near;
pub mod partitions;
pub mod random;
pub mod row_set;
pub mod run;
pub mod second_pass;
pub mod settings;
pub mod shuffle;
pub mod split;

use pipe_contract::figures::Facts;
use pipe_contract::stage::ANY_NAME;
use pipe_contract::{Artifact, ArtifactKind, Figure, InputPort, OutputPort, Reader, Stage, StageError, StageKind};
use pipe_records::show::{show_rows, table_of_rows};
use pipe_records::{open_rows, thousands};

/// Rows in a report.
const ROWS_IN_REPORT: usize = 3;

/// The kind as the runner's registry lists it.
pub static KIND: PrepareKind = PrepareKind;

/// `uses: prepare`.
pub struct PrepareKind;

impl StageKind for PrepareKind {
    fn name(&self) -> &'static str {
        "prepare"
    }

    fn summary(&self) -> &'static str {
        "rows of any inputs -> train and test: filtered, without duplicates, mixed, shuffled, split, checked"
    }

    fn version(&self) -> u32 {
        1 // The first.
    }

    fn inputs(&self) -> &'static [InputPort] {
        &[InputPort { name: ANY_NAME, kind: ArtifactKind::Rows, is_required: true }]
    }

    fn outputs(&self) -> &'static [OutputPort] {
        &[run::TRAIN, run::TEST]
    }

    fn read(&self, reader: &mut Reader) -> Box<dyn Stage> {
        Box::new(run::Prepare { settings: settings::read(reader) })
    }

    fn show(&self, _port: &str, artifact: &Artifact, n_rows: usize) -> Result<String, StageError> {
        Ok(show_rows(open_rows(artifact)?, n_rows)?)
    }

    fn figures(&self, _port: &str, artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
        let rows = open_rows(artifact)?;
        let facts = [("rows", thousands(rows.num_rows())), ("columns", rows.features())];
        let facts = facts.map(|(name, value)| (name.to_string(), value)).to_vec();
        let shown = table_of_rows(rows, "The first rows", ROWS_IN_REPORT)?;
        Ok(vec![Figure::Facts(Facts { title: "Rows".to_string(), facts }), Figure::Table(shown)])
    }
}
