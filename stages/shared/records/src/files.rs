//! Parquet files whose bytes are a function of their rows.
//!
//! Every property that the `parquet` crate would choose by itself is pinned here: version, `created_by`, compression,
//! encodings, row group size, no statistics, no Arrow schema blob. Batches are cut anew into [`BATCH_ROWS`] rows before
//! they are encoded, because page borders follow the borders of what is written. A test holds the digest of a file.
//!
//! It deliberately has no appending: a file is written once, from its first row to its last.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Metadata, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

use crate::RecordsError;

/// Rows per record batch, in what is read and in what is encoded at a time.
pub const BATCH_ROWS: usize = 1024;

/// Key in the schema metadata (and in the Parquet footer) of the version of an artifact kind's columns.
pub const FORMAT_VERSION_KEY: &str = "pipe.format_version";

/// What a kind of file chooses for itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Rows per row group: what a reader must decode to get one row.
    pub(crate) rows_per_group: usize,
    /// Columns of lists of slowly changing numbers: delta encoding is several times smaller than a dictionary.
    pub(crate) delta_list_columns: &'static [&'static str],
}

/// 8,192 rows of text are some 8 MB: a writer's memory stays small and a reader can skip.
pub(crate) const DEFAULT_LAYOUT: Layout = Layout { rows_per_group: 8192, delta_list_columns: &[] };

/// Writes record batches of one schema into one file.
pub struct RecordWriter {
    path: PathBuf,
    schema: SchemaRef,
    writer: ArrowWriter<BufWriter<File>>,
    pending: Vec<RecordBatch>,
    n_pending_rows: usize,
    n_rows: u64,
}

/// Creates `path` for rows of `schema`; the schema's metadata goes into the footer, sorted by key.
///
/// # Errors
/// `Io` when the file cannot be made, `Parquet` for a type that Parquet lacks.
pub fn parquet_writer(path: &Path, schema: SchemaRef) -> Result<RecordWriter, RecordsError> {
    parquet_writer_with(path, schema, DEFAULT_LAYOUT)
}

pub(crate) fn parquet_writer_with(
    path: &Path,
    schema: SchemaRef,
    layout: Layout,
) -> Result<RecordWriter, RecordsError> {
    let writer = arrow_writer(path, schema.clone(), layout)?;
    Ok(RecordWriter { path: path.to_path_buf(), schema, writer, pending: Vec::new(), n_pending_rows: 0, n_rows: 0 })
}

/// Creates `path` with every property pinned.
pub(crate) fn arrow_writer(
    path: &Path,
    schema: SchemaRef,
    layout: Layout,
) -> Result<ArrowWriter<BufWriter<File>>, RecordsError> {
    let file =
        File::create(path).map_err(|source| RecordsError::Io { verb: "create", file: path.to_path_buf(), source })?;
    let options = ArrowWriterOptions::new()
        .with_properties(writer_properties(&schema, layout))
        // The blob would repeat the schema in Arrow's own, versioned encoding; the Parquet schema says all we use.
        .with_skip_arrow_metadata(true);
    ArrowWriter::try_new_with_options(BufWriter::new(file), schema, options).map_err(|source| RecordsError::Parquet {
        verb: "create",
        file: name_of(path),
        source,
    })
}

impl RecordWriter {
    /// Adds the rows of `batch`, which has the writer's schema.
    ///
    /// # Errors
    /// `Parquet` or `Io` when the disk refuses, `Arrow` when the batch has another schema.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), RecordsError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.n_rows += batch.num_rows() as u64;
        self.n_pending_rows += batch.num_rows();
        self.pending.push(batch.clone());
        if self.n_pending_rows < BATCH_ROWS {
            return Ok(());
        }
        let joined = concat_batches(&self.schema, &self.pending)?;
        let n_whole = joined.num_rows() - joined.num_rows() % BATCH_ROWS;
        for start in (0..n_whole).step_by(BATCH_ROWS) {
            self.encode(&joined.slice(start, BATCH_ROWS))?;
        }
        self.n_pending_rows = joined.num_rows() - n_whole;
        self.pending =
            if self.n_pending_rows > 0 { vec![joined.slice(n_whole, self.n_pending_rows)] } else { Vec::new() };
        Ok(())
    }

    /// Rows given so far.
    pub fn num_rows(&self) -> u64 {
        self.n_rows
    }

    /// Writes what is left and the footer, and closes the file. Returns the number of rows.
    ///
    /// # Errors
    /// `Parquet` when the disk refuses.
    pub fn finish(mut self) -> Result<u64, RecordsError> {
        if self.n_pending_rows > 0 {
            let joined = concat_batches(&self.schema, &self.pending)?;
            self.encode(&joined)?;
        }
        let file = name_of(&self.path);
        self.writer.finish().map_err(|source| RecordsError::Parquet { verb: "write", file, source })?;
        Ok(self.n_rows)
    }

    fn encode(&mut self, batch: &RecordBatch) -> Result<(), RecordsError> {
        self.writer.write(batch).map_err(|source| RecordsError::Parquet {
            verb: "write",
            file: name_of(&self.path),
            source,
        })
    }
}

/// The batches of a Parquet file, each of at most [`BATCH_ROWS`] rows.
///
/// # Errors
/// `Io` or `Parquet` when the file cannot be opened or is no Parquet; later, `Decode` for a damaged page.
pub fn read_parquet(path: &Path) -> Result<ParquetBatches, RecordsError> {
    ParquetFile::open(path, &name_of(path))?.batches(None)
}

/// An iterator over the batches of one Parquet file.
pub struct ParquetBatches {
    label: String,
    schema: SchemaRef,
    n_rows: u64,
    reader: ParquetRecordBatchReader,
}

impl ParquetBatches {
    /// The schema in Parquet's own terms (no Arrow hints: text is Utf8, never a dictionary), with the footer's metadata.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Rows in the file.
    pub fn num_rows(&self) -> u64 {
        self.n_rows
    }
}

impl Iterator for ParquetBatches {
    type Item = Result<RecordBatch, RecordsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.reader.next()?;
        Some(batch.map_err(|source| RecordsError::Decode { file: self.label.clone(), source }))
    }
}

/// An open Parquet file with its footer read.
pub(crate) struct ParquetFile {
    label: String,
    path: PathBuf,
    file: File,
    footer: ArrowReaderMetadata,
    schema: SchemaRef,
}

impl ParquetFile {
    /// Reads the footer of `path`; `label` names the file in errors.
    pub(crate) fn open(path: &Path, label: &str) -> Result<Self, RecordsError> {
        let file = open(path)?;
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let footer = ArrowReaderMetadata::load(&file, options).map_err(|source| RecordsError::Parquet {
            verb: "read",
            file: label.to_string(),
            source,
        })?;
        let pairs = footer.metadata().file_metadata().key_value_metadata().into_iter().flatten();
        let metadata: Metadata = pairs
            .filter(|pair| pair.key != "ARROW:schema")
            .filter_map(|pair| Some((pair.key.clone(), pair.value.clone()?)))
            .collect();
        let schema = footer.schema().as_ref().clone().with_metadata(metadata).into();
        Ok(ParquetFile { label: label.to_string(), path: path.to_path_buf(), file, footer, schema })
    }

    pub(crate) fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    pub(crate) fn num_rows(&self) -> u64 {
        u64::try_from(self.footer.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    /// Rows of each row group.
    pub(crate) fn rows_per_group(&self) -> Vec<usize> {
        let groups = self.footer.metadata().row_groups().iter();
        groups.map(|group| usize::try_from(group.num_rows()).unwrap_or(0)).collect()
    }

    /// The batches of all rows, or of one row group.
    pub(crate) fn batches(&self, row_group: Option<usize>) -> Result<ParquetBatches, RecordsError> {
        let file = self.file.try_clone().or_else(|_| File::open(&self.path)).map_err(|source| RecordsError::Io {
            verb: "read",
            file: self.path.clone(),
            source,
        })?;
        let mut builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.footer.clone()).with_batch_size(BATCH_ROWS);
        if let Some(row_group) = row_group {
            builder = builder.with_row_groups(vec![row_group]);
        }
        let reader = builder.build().map_err(|source| RecordsError::Parquet {
            verb: "read",
            file: self.label.clone(),
            source,
        })?;
        Ok(ParquetBatches { label: self.label.clone(), schema: self.schema(), n_rows: self.num_rows(), reader })
    }

    /// Refuses a file whose columns are of another version of its kind.
    pub(crate) fn check_version(&self, expected: u32) -> Result<(), RecordsError> {
        let found = self.schema.metadata().get(FORMAT_VERSION_KEY).cloned().unwrap_or_else(|| "none".to_string());
        if found == expected.to_string() {
            return Ok(());
        }
        Err(RecordsError::UnknownVersion { file: self.label.clone(), found, expected })
    }
}

pub(crate) fn open(path: &Path) -> Result<File, RecordsError> {
    File::open(path).map_err(|source| RecordsError::Io { verb: "read", file: path.to_path_buf(), source })
}

pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn writer_properties(schema: &SchemaRef, layout: Layout) -> WriterProperties {
    let mut metadata: Vec<(&String, &String)> = schema.metadata().iter().collect();
    metadata.sort();
    let pairs: Vec<KeyValue> = metadata.into_iter().map(|(k, v)| KeyValue::new(k.clone(), v.clone())).collect();
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by("pipe version 1.0.0".to_string())
        // Level 3 is zstd's own default; the bytes also depend on its version, which Cargo.lock pins.
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).expect("3 is a zstd level")))
        .set_max_row_group_row_count(Some(layout.rows_per_group))
        .set_max_row_group_bytes(None)
        .set_write_batch_size(BATCH_ROWS)
        .set_data_page_row_count_limit(20_000)
        .set_data_page_size_limit(1 << 20)
        .set_dictionary_page_size_limit(1 << 20)
        .set_dictionary_enabled(true)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_bloom_filter_enabled(false)
        .set_key_value_metadata((!pairs.is_empty()).then_some(pairs));
    for column in layout.delta_list_columns {
        let path = ColumnPath::from(vec![(*column).to_string(), "list".to_string(), "element".to_string()]);
        builder = builder
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;

    fn schema() -> SchemaRef {
        let fields = vec![Field::new("id", DataType::Int64, false), Field::new("text", DataType::Utf8, true)];
        // Two pairs: a hash map would order them differently from run to run.
        let metadata = [("b".to_string(), "2".to_string()), (FORMAT_VERSION_KEY.to_string(), "1".to_string())];
        Arc::new(Schema::new(fields).with_metadata(metadata))
    }

    fn rows(range: std::ops::Range<i64>) -> RecordBatch {
        let text: StringArray = range.clone().map(|i| (i % 7 != 0).then(|| format!("row {i} ünï {}", i * i))).collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(range)), Arc::new(text)];
        RecordBatch::try_new(schema(), columns).expect("the columns fit the schema")
    }

    fn write(path: &Path, batches: &[RecordBatch]) -> Vec<u8> {
        let mut writer = parquet_writer(path, schema()).unwrap();
        for batch in batches {
            writer.write(batch).unwrap();
        }
        writer.finish().unwrap();
        std::fs::read(path).unwrap()
    }

    #[test]
    fn the_bytes_do_not_depend_on_how_rows_are_cut_into_batches() {
        let dir = tempfile::tempdir().unwrap();
        let whole = write(&dir.path().join("a.parquet"), &[rows(0..20_000)]);
        let cut: Vec<RecordBatch> = (0..20_000).step_by(37).map(|i| rows(i..(i + 37).min(20_000))).collect();
        assert!(whole == write(&dir.path().join("b.parquet"), &cut), "the bytes differ");
    }

    #[test]
    fn golden_digest_of_a_written_file() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = write(&dir.path().join("a.parquet"), &[rows(0..3000)]);
        // A change here changes every artifact: bump the VERSION of each stage that writes Parquet.
        assert_eq!(
            blake3::hash(&bytes).to_hex().as_str(),
            "eecb59c42ba8d165c283fc316fe0f5f5769a9845cd82e211fe139d5b3b724eaf"
        );
    }

    #[test]
    fn rows_and_metadata_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        write(&path, &[rows(0..2500)]);
        let batches = read_parquet(&path).unwrap();
        assert_eq!((batches.num_rows(), batches.schema().metadata()[FORMAT_VERSION_KEY].as_str()), (2500, "1"));
        let batches: Vec<RecordBatch> = batches.collect::<Result<_, _>>().unwrap();
        let read = concat_batches(&batches[0].schema(), &batches).unwrap();
        assert_eq!(read.columns(), rows(0..2500).columns());
    }

    #[test]
    fn what_is_no_parquet_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        std::fs::write(&path, "PAR1 not at all").unwrap();
        let error = read_parquet(&path).err().expect("it is no Parquet").to_string();
        assert_eq!(error, "failed to read the Parquet file `a.parquet`");
    }
}
