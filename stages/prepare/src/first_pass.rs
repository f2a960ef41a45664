//! The first pass: which rows stay. Batches in parallel, a few at a time, taken in their order.

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, SchemaRef};
use pipe_contract::{Context, Unit};
use pipe_records::show::type_name;
use rayon::prelude::*;

use crate::assertions::RowAssertion;
use crate::columns;
use crate::conditions::{self, Condition};
use crate::error::PrepareError;
use crate::exact;
use crate::inputs::{Input, Inputs};
use crate::minhash::MinHash;
use crate::near::NearWriter;
use crate::partitions::Partitions;
use crate::row_set::RowSet;
use crate::settings::{Deduplicate, Settings};

/// What the first pass found.
pub struct Found {
    /// The rows that stay.
    pub kept: RowSet,
    /// Rows that each condition dropped, in order.
    pub n_filtered: Vec<u64>,
    /// Rows that are like an earlier one.
    pub n_duplicates: u64,
    /// Bytes in memory of the rows that the filters left.
    pub n_bytes: u64,
}

/// What is looked for in each batch.
struct Search<'s> {
    conditions: &'s [Condition],
    exact: Option<Vec<usize>>,
    near: Option<(Vec<usize>, MinHash)>,
    unique: Option<Vec<usize>>,
    assertions: Vec<RowAssertion>,
}

/// What a batch has of it; everything but the mask is of the rows that pass the filters.
struct OfBatch {
    passes: BooleanArray,
    n_filtered: Vec<u64>,
    n_bytes: u64,
    exact: Vec<u128>,
    unique: Vec<u128>,
    near: Vec<(Vec<u64>, Vec<u64>)>,
    broken: Vec<Vec<usize>>,
}

/// Where it goes.
struct Collected {
    kept: RowSet,
    n_filtered: Vec<u64>,
    n_bytes: u64,
    exact: Partitions,
    unique: Partitions,
    near: Option<NearWriter>,
}

/// Reads all inputs through.
///
/// # Errors
/// Columns that are missing or of another type; assertions about rows that do not hold; those of reading, and `cancelled`.
pub fn run(inputs: &Inputs, settings: &Settings, ctx: &Context<'_>) -> Result<Found, PrepareError> {
    let mut search = Search::new(inputs, settings)?;
    let folder = ctx.scratch()?.to_path_buf();
    let near = search.near.as_ref().map(|(_, minhash)| NearWriter::create(&folder, minhash.n_bands())).transpose()?;
    let mut collected = Collected {
        kept: RowSet::default(),
        n_filtered: vec![0; settings.conditions.len()],
        n_bytes: 0,
        exact: Partitions::new(&folder, "exact"),
        unique: Partitions::new(&folder, "unique"),
        near,
    };
    for input in &inputs.inputs {
        read_input(input, inputs.n_rows, &mut search, &mut collected, ctx)?;
    }
    let Collected { mut kept, n_filtered, n_bytes, exact, unique, near } = collected;
    let mut n_duplicates = exact::drop_duplicates(exact, &mut kept)?;
    if let Some(near) = near {
        n_duplicates += near.drop_duplicates(settings.minhash.threshold, &mut kept, ctx)?;
    }
    search.assertions.iter().try_for_each(|assertion| assertion.check(&kept, inputs))?;
    if let Some((row, earlier, n_rows)) = exact::first_duplicate(unique, &kept)? {
        let columns: Vec<String> = settings.assertions.unique.iter().map(|name| format!("`{name}`")).collect();
        let (row, earlier, n_rows) = (inputs.whence(row), inputs.whence(earlier), pipe_records::thousands(n_rows));
        let problem = format!("{row} has the {} of {earlier}; so have {n_rows} rows in all", columns.join(", "));
        return Err(PrepareError::Assertion { name: "unique", problem });
    }
    Ok(Found { kept, n_filtered, n_duplicates, n_bytes })
}

fn read_input(
    input: &Input,
    n_all: u64,
    search: &mut Search<'_>,
    collected: &mut Collected,
    ctx: &Context<'_>,
) -> Result<(), PrepareError> {
    let mut rows = input.rows.again();
    let mapping = &input.mapping;
    let mut place = input.first_row;
    // Two batches for each thread: enough to keep them busy, and memory stays small.
    let n_batches = 2 * rayon::current_num_threads();
    loop {
        ctx.check_cancelled()?;
        let chunk: Vec<RecordBatch> = rows.by_ref().take(n_batches).collect::<Result<_, _>>()?;
        if chunk.is_empty() {
            return Ok(());
        }
        let found: Vec<Result<OfBatch, PrepareError>> =
            chunk.par_iter().map(|batch| search.look(&mapping.apply(batch)?)).collect();
        for found in found {
            let found = found?;
            let places = found.passes.iter().zip(place..).filter(|(passes, _)| *passes == Some(true));
            let places: Vec<u64> = places.map(|(_, place)| place).collect();
            place += found.passes.len() as u64;
            collected.take(found, &places, &mut search.assertions)?;
        }
        ctx.progress(place, 2 * n_all, Unit::Rows);
    }
}

impl<'s> Search<'s> {
    fn new(inputs: &Inputs, settings: &'s Settings) -> Result<Self, PrepareError> {
        let (schema, port) = (inputs.schema(), inputs.first_port());
        settings.conditions.iter().try_for_each(|condition| condition.check(schema, port))?;
        let of_names = |what: &'static str, names: &[String]| -> Result<Vec<usize>, PrepareError> {
            names.iter().map(|name| columns::find(schema, what, name, port)).collect()
        };
        let compared = match (&settings.deduplicate_columns, settings.deduplicate) {
            (Some(names), _) => of_names("`deduplicate_columns`", names)?,
            (None, Deduplicate::Near) => text_columns(schema),
            (None, _) => (0..schema.fields().len()).collect(),
        };
        let is_exact = settings.deduplicate == Deduplicate::Exact;
        let near = match settings.deduplicate {
            Deduplicate::Near => {
                check_text(schema, &compared)?;
                Some((compared.clone(), MinHash::new(settings.minhash, settings.seed)))
            }
            _ => None,
        };
        let unique = of_names("`assert.unique`", &settings.assertions.unique)?;
        Ok(Search {
            conditions: &settings.conditions,
            exact: is_exact.then_some(compared),
            near,
            unique: (!unique.is_empty()).then_some(unique),
            assertions: RowAssertion::all(&settings.assertions, schema, port)?,
        })
    }

    fn look(&self, batch: &RecordBatch) -> Result<OfBatch, PrepareError> {
        let (passes, n_filtered) = conditions::apply(self.conditions, batch)?;
        let rows = filter_record_batch(batch, &passes)?;
        let digests = |columns: &Option<Vec<usize>>| match columns {
            Some(columns) => exact::digests(&rows, columns),
            None => Ok(Vec::new()),
        };
        let near = |(columns, minhash): &(Vec<usize>, MinHash)| {
            let cells: Vec<_> = columns.iter().map(|column| rows.column(*column).as_string::<i32>()).collect();
            let row = |row: usize| {
                let texts = cells.iter().filter(|column| column.is_valid(row)).map(|column| column.value(row));
                let shingles = minhash.shingles(texts);
                let bands = minhash.bands(&shingles);
                (shingles, bands)
            };
            (0..rows.num_rows()).map(row).collect()
        };
        Ok(OfBatch {
            n_filtered,
            n_bytes: rows.get_array_memory_size() as u64,
            exact: digests(&self.exact)?,
            unique: digests(&self.unique)?,
            near: self.near.as_ref().map(near).unwrap_or_default(),
            broken: self.assertions.iter().map(|assertion| assertion.broken(&rows)).collect(),
            passes,
        })
    }
}

impl Collected {
    fn take(&mut self, found: OfBatch, places: &[u64], assertions: &mut [RowAssertion]) -> Result<(), PrepareError> {
        places.iter().for_each(|place| self.kept.insert(*place));
        self.n_filtered.iter_mut().zip(found.n_filtered).for_each(|(sum, n)| *sum += n);
        self.n_bytes += found.n_bytes;
        for (digest, place) in found.exact.into_iter().zip(places) {
            self.exact.push(digest, *place)?;
        }
        for (digest, place) in found.unique.into_iter().zip(places) {
            self.unique.push(digest, *place)?;
        }
        if let Some(near) = &mut self.near {
            for ((set, bands), place) in found.near.iter().zip(places) {
                near.push(*place, set, bands)?;
            }
        }
        for (assertion, rows) in assertions.iter_mut().zip(found.broken) {
            rows.into_iter().for_each(|row| assertion.note(places[row]));
        }
        Ok(())
    }
}

fn text_columns(schema: &SchemaRef) -> Vec<usize> {
    let fields = schema.fields().iter().enumerate();
    fields.filter(|(_, field)| *field.data_type() == DataType::Utf8).map(|(index, _)| index).collect()
}

fn check_text(schema: &SchemaRef, compared: &[usize]) -> Result<(), PrepareError> {
    let field = compared.iter().map(|index| schema.field(*index)).find(|field| *field.data_type() != DataType::Utf8);
    let wrong = |column: String, found: String| {
        Err(PrepareError::WrongType { what: "`deduplicate: near`", column, expected: "text", found })
    };
    match field {
        Some(field) => wrong(field.name().clone(), type_name(field.data_type())),
        None if compared.is_empty() => wrong("*".to_string(), "in none of the columns".to_string()),
        None => Ok(()),
    }
}
