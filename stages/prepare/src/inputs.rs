//! The inputs of the stage as one sequence of rows: by the names of their ports, and in each by file and row.
//!
//! ```text
//! alpaca: 0 .. 52,001    code: 52,002 .. 72,023      a row's place among all, which says where it came from
//! ```

use arrow::datatypes::SchemaRef;
use pipe_contract::Context;
use pipe_records::{BadRows, OnBadRow, ReadOptions, RowReader, open_rows_with};

use crate::columns::Mapping;
use crate::error::PrepareError;
use crate::settings::Settings;

/// One port and what comes in there.
pub struct Input {
    /// The name of the port.
    pub port: String,
    /// Its rows, from the first on.
    pub rows: RowReader,
    /// What is taken of them.
    pub mapping: Mapping,
    /// The place of its first row among all.
    pub first_row: u64,
}

/// All of them, at least one.
pub struct Inputs {
    /// By port.
    pub inputs: Vec<Input>,
    /// Rows of all inputs that can be read.
    pub n_rows: u64,
    /// Rows of all inputs that cannot be read, and are left out.
    pub bad_rows: BadRows,
}

impl Inputs {
    /// Opens what is connected.
    ///
    /// # Errors
    /// Those of reading rows, and of [`Mapping`].
    pub fn open(ctx: &Context<'_>, settings: &Settings) -> Result<Self, PrepareError> {
        let on_bad_row = if settings.drops_bad_rows { OnBadRow::Drop } else { OnBadRow::Error };
        let options = ReadOptions { on_bad_row, n_named_max: settings.n_bad_rows_listed };
        let mut inputs: Vec<Input> = Vec::with_capacity(ctx.inputs.len());
        let (mut n_rows, mut bad_rows) = (0, BadRows::default());
        for (port, artifact) in &ctx.inputs {
            ctx.check_cancelled()?;
            let rows = open_rows_with(artifact, options)?;
            let mut mapping = Mapping::new(&settings.columns, &rows.schema(), port)?;
            if let Some(first) = inputs.first() {
                mapping.align(port, first.mapping.schema(), &first.port)?;
            }
            let first_row = n_rows;
            n_rows += rows.num_rows();
            bad_rows.n_rows += rows.bad_rows().n_rows;
            bad_rows.first.extend(rows.bad_rows().first.iter().cloned());
            inputs.push(Input { port: port.clone(), rows, mapping, first_row });
        }
        bad_rows.first.truncate(settings.n_bad_rows_listed);
        Ok(Inputs { inputs, n_rows, bad_rows })
    }

    /// The columns of all rows.
    pub fn schema(&self) -> &SchemaRef {
        self.inputs[0].mapping.schema()
    }

    /// The port that errors about columns name: they are the same at all.
    pub fn first_port(&self) -> &str {
        &self.inputs[0].port
    }

    /// Where the row at `place` among all came from: `` `train.jsonl` row 5 ``, with its input where there are several.
    pub fn whence(&self, place: u64) -> String {
        let input = self.inputs.iter().rev().find(|input| input.first_row <= place).expect("the first begins at 0");
        let (file, row) = input.rows.place(place - input.first_row).unwrap_or(("?", 0));
        match self.inputs.len() {
            1 => format!("`{file}` row {row}"),
            _ => format!("`{file}` row {row} of input `{}`", input.port),
        }
    }
}
