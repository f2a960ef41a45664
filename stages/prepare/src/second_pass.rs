//! The second pass: the rows that stay, in their new order, to `train` and `test`.

use std::path::{Path, PathBuf};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, interleave_record_batch};
use arrow::datatypes::SchemaRef;
use pipe_contract::{Context, Unit};
use pipe_records::files::BATCH_ROWS;
use pipe_records::{RecordWriter, RowReader, parquet_writer};

use crate::columns::Mapping;
use crate::error::PrepareError;
use crate::first_pass::Found;
use crate::inputs::{Input, Inputs};
use crate::mix::Mix;
use crate::row_set::RowSet;
use crate::settings::Settings;
use crate::shuffle::Shuffle;
use crate::split::Split;

/// Rows of a file: Parquet numbers the row groups of a file with 16 bits, which is 268 million rows.
const ROWS_PER_FILE: u64 = 100_000_000;

/// How many rows there will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Rows of each input that stay.
    pub kept: Vec<u64>,
    /// Rows of the mix.
    pub n_mixed: u64,
    /// Rows written.
    pub n_out: u64,
    /// Those of them in `test`.
    pub n_test: u64,
}

impl Counts {
    /// From what the first pass found; nothing is read.
    pub fn new(inputs: &Inputs, found: &Found, settings: &Settings) -> Self {
        let rows = |input: &Input| input.first_row..input.first_row + input.rows.num_rows();
        let kept: Vec<u64> = inputs.inputs.iter().map(|input| found.kept.count(rows(input))).collect();
        let n_mixed = match settings.mix(&ports(inputs), &kept) {
            None => kept.iter().sum(),
            Some(mix) => mix.count() as u64,
        };
        let n_out = n_mixed.saturating_sub(settings.skip).min(settings.limit.unwrap_or(u64::MAX));
        Counts { kept, n_mixed, n_out, n_test: settings.test_size.of(n_out) }
    }
}

fn ports(inputs: &Inputs) -> Vec<&str> {
    inputs.inputs.iter().map(|input| input.port.as_str()).collect()
}

/// Reads the inputs again, and writes.
///
/// # Errors
/// Those of reading and writing, and `cancelled`.
pub fn run(
    inputs: &Inputs,
    found: &Found,
    counts: &Counts,
    settings: &Settings,
    ctx: &Context<'_>,
) -> Result<(), PrepareError> {
    let n_all = inputs.n_rows;
    let mut rows = Mixed::new(inputs, &found.kept, settings.mix(&ports(inputs), &counts.kept));
    let mut output = Outputs::create(inputs.schema(), counts, settings, ctx)?;
    if !settings.shuffle {
        while let Some(batch) = rows.next_batch()? {
            ctx.check_cancelled()?;
            ctx.progress(n_all + rows.n_given * n_all / counts.n_mixed.max(1), 2 * n_all, Unit::Rows);
            if !output.take(&batch)? {
                break;
            }
        }
        return output.finish();
    }
    // The rows that the mix takes are of the size of the others.
    let n_bytes = u128::from(found.n_bytes) * u128::from(counts.n_mixed) / u128::from(found.kept.len().max(1));
    let mut shuffle = Shuffle::new(ctx.scratch()?, inputs.schema(), n_bytes as u64, settings.seed)?;
    while let Some(batch) = rows.next_batch()? {
        ctx.check_cancelled()?;
        ctx.progress(n_all + rows.n_given * n_all / counts.n_mixed.max(1), 2 * n_all, Unit::Rows);
        shuffle.push(&batch)?;
    }
    shuffle.finish(ctx, |batch| output.take(batch))?;
    output.finish()
}

/// The rows of one input that stay, in batches.
struct Kept<'i> {
    rows: RowReader,
    mapping: &'i Mapping,
    kept: &'i RowSet,
    place: u64,
}

impl<'i> Kept<'i> {
    fn new(input: &'i Input, kept: &'i RowSet) -> Self {
        Kept { rows: input.rows.again(), mapping: &input.mapping, kept, place: input.first_row }
    }

    /// The next batch with a row.
    fn next_batch(&mut self) -> Result<Option<RecordBatch>, PrepareError> {
        for batch in self.rows.by_ref() {
            let batch = self.mapping.apply(&batch?)?;
            let places = self.place..self.place + batch.num_rows() as u64;
            self.place = places.end;
            let mask: BooleanArray = places.map(|place| Some(self.kept.contains(place))).collect();
            let batch = if mask.has_false() { filter_record_batch(&batch, &mask)? } else { batch };
            if batch.num_rows() > 0 {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}

/// The rows of all inputs, as the mix takes them.
struct Mixed<'i> {
    inputs: &'i [Input],
    kept: &'i RowSet,
    /// A reader for each input, and the batch it stands in with the next row of it.
    readers: Vec<(Kept<'i>, Option<(RecordBatch, usize)>)>,
    /// `None`: one input after the other.
    mix: Option<Mix>,
    current: usize,
    n_given: u64,
}

impl<'i> Mixed<'i> {
    fn new(inputs: &'i Inputs, kept: &'i RowSet, mix: Option<Mix>) -> Self {
        let readers = inputs.inputs.iter().map(|input| (Kept::new(input, kept), None)).collect();
        Mixed { inputs: &inputs.inputs, kept, readers, mix, current: 0, n_given: 0 }
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>, PrepareError> {
        let batch = match self.mix.is_some() {
            true => self.next_mixed()?,
            false => self.next_in_line()?,
        };
        self.n_given += batch.as_ref().map_or(0, |batch| batch.num_rows() as u64);
        Ok(batch)
    }

    fn next_in_line(&mut self) -> Result<Option<RecordBatch>, PrepareError> {
        while let Some((reader, _)) = self.readers.get_mut(self.current) {
            if let Some(batch) = reader.next_batch()? {
                return Ok(Some(batch));
            }
            self.current += 1;
        }
        Ok(None)
    }

    fn next_mixed(&mut self) -> Result<Option<RecordBatch>, PrepareError> {
        let chosen: Vec<usize> = self.mix.as_mut().into_iter().flatten().take(BATCH_ROWS).collect();
        let (mut batches, mut rows): (Vec<RecordBatch>, Vec<(usize, usize)>) = (Vec::new(), Vec::new());
        // Where the batch that an input stands in is among `batches`.
        let mut at: Vec<Option<usize>> = vec![None; self.inputs.len()];
        for input in chosen {
            let is_used_up = self.readers[input].1.as_ref().is_none_or(|(batch, row)| *row == batch.num_rows());
            if is_used_up {
                self.readers[input].1 = self.refill(input)?.map(|batch| (batch, 0));
                at[input] = None;
            }
            let Some((batch, row)) = &mut self.readers[input].1 else { continue };
            let index = *at[input].get_or_insert_with(|| {
                batches.push(batch.clone());
                batches.len() - 1
            });
            rows.push((index, *row));
            *row += 1;
        }
        if rows.is_empty() {
            return Ok(None);
        }
        Ok(Some(interleave_record_batch(&batches.iter().collect::<Vec<_>>(), &rows)?))
    }

    /// The next batch of an input, which begins anew behind its end.
    fn refill(&mut self, input: usize) -> Result<Option<RecordBatch>, PrepareError> {
        if let Some(batch) = self.readers[input].0.next_batch()? {
            return Ok(Some(batch));
        }
        self.readers[input].0 = Kept::new(&self.inputs[input], self.kept);
        self.readers[input].0.next_batch()
    }
}

/// `train` and `test`, with what is skipped and where it ends.
struct Outputs {
    train: Files,
    test: Option<Files>,
    split: Split,
    n_to_skip: u64,
    n_to_write: u64,
}

impl Outputs {
    fn create(
        schema: &SchemaRef,
        counts: &Counts,
        settings: &Settings,
        ctx: &Context<'_>,
    ) -> Result<Self, PrepareError> {
        let files = |port: &'static str, n_rows: u64| {
            Files::create(&ctx.output_dir(port)?, port, schema, n_rows, ROWS_PER_FILE)
        };
        Ok(Outputs {
            train: files("train", counts.n_out - counts.n_test)?,
            test: if settings.has_test() { Some(files("test", counts.n_test)?) } else { None },
            split: Split::new(counts.n_out, counts.n_test, settings.seed),
            n_to_skip: settings.skip,
            n_to_write: counts.n_out,
        })
    }

    /// Takes the rows that come next; whether more are wanted.
    fn take(&mut self, batch: &RecordBatch) -> Result<bool, PrepareError> {
        let n_rows = batch.num_rows() as u64;
        let n_skipped = self.n_to_skip.min(n_rows);
        self.n_to_skip -= n_skipped;
        let n_taken = (n_rows - n_skipped).min(self.n_to_write);
        self.n_to_write -= n_taken;
        // Both are at most the rows of a batch.
        let batch = batch.slice(n_skipped as usize, n_taken as usize);
        match &mut self.test {
            None => self.train.write(&batch)?,
            Some(test) => {
                let is_test: Vec<bool> = (0..batch.num_rows()).map(|_| self.split.is_test()).collect();
                let is_train: Vec<bool> = is_test.iter().map(|is_test| !is_test).collect();
                self.train.write(&filter_record_batch(&batch, &is_train.into())?)?;
                test.write(&filter_record_batch(&batch, &is_test.into())?)?;
            }
        }
        Ok(self.n_to_write > 0)
    }

    fn finish(self) -> Result<(), PrepareError> {
        self.train.finish()?;
        self.test.map_or(Ok(()), Files::finish)
    }
}

/// The Parquet files of an output: `train-00000-of-00001.parquet`, as Hugging Face names them.
struct Files {
    paths: Vec<PathBuf>,
    schema: SchemaRef,
    rows_per_file: u64,
    writer: RecordWriter,
    /// Files written before.
    n_done: usize,
}

impl Files {
    fn create(
        folder: &Path,
        port: &str,
        schema: &SchemaRef,
        n_rows: u64,
        rows_per_file: u64,
    ) -> Result<Self, PrepareError> {
        let n_files = n_rows.div_ceil(rows_per_file).max(1);
        let path = |index: u64| folder.join(format!("{port}-{index:05}-of-{n_files:05}.parquet"));
        let paths: Vec<PathBuf> = (0..n_files).map(path).collect();
        let writer = parquet_writer(&paths[0], schema.clone())?;
        Ok(Files { paths, schema: schema.clone(), rows_per_file, writer, n_done: 0 })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), PrepareError> {
        let mut rest = batch.clone();
        while rest.num_rows() > 0 {
            let room = self.rows_per_file - self.writer.num_rows();
            if room == 0 {
                self.n_done += 1;
                let next = parquet_writer(&self.paths[self.n_done], self.schema.clone())?;
                std::mem::replace(&mut self.writer, next).finish()?;
                continue;
            }
            let n_here = rest.num_rows().min(usize::try_from(room).unwrap_or(usize::MAX));
            self.writer.write(&rest.slice(0, n_here))?;
            rest = rest.slice(n_here, rest.num_rows() - n_here);
        }
        Ok(())
    }

    fn finish(self) -> Result<(), PrepareError> {
        self.writer.finish()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use pipe_contract::{Artifact, ArtifactKind};
    use pipe_records::open_rows;

    use super::*;

    #[test]
    fn a_file_that_is_full_is_followed_by_another() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..25));
        let rows = RecordBatch::try_from_iter([("n", column)]).expect("one column");
        let mut files = Files::create(folder.path(), "train", &rows.schema(), 25, 10).expect("a file");
        [0, 7, 7, 19].windows(2).for_each(|cut| files.write(&rows.slice(cut[0], cut[1] - cut[0])).expect("written"));
        files.write(&rows.slice(19, 6)).expect("written");
        files.finish().expect("written");
        let artifact = Artifact::from_folder(ArtifactKind::Rows, folder.path()).expect("a folder");
        let names: Vec<&str> = artifact.files.keys().map(String::as_str).collect();
        assert_eq!(names, [0, 1, 2].map(|index| format!("train-0000{index}-of-00003.parquet")));
        let batches: Vec<RecordBatch> = open_rows(&artifact).expect("rows").map(Result::unwrap).collect();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [10, 10, 5]);
        assert_eq!(
            arrow::compute::concat_batches(&batches[0].schema(), &batches).expect("alike").column(0),
            rows.column(0)
        );
    }
}
