//! Arrow's own files: streams, which `datasets.save_to_disk` writes, and the file form, which is a stream in a frame.
//!
//! ```text
//! stream   schema | batch | batch | ... | FFFFFFFF 00000000
//! file     ARROW1 00 00 ... | a stream | where its batches are | ARROW1
//! ```
//!
//! So both are read from the front to the end, also out of a compressed file; nothing is mapped. A batch of the file is in
//! memory as a whole, and is given on in parts of [`BATCH_ROWS`]. Its buffers may be compressed, as Feather's are unless told
//! otherwise (LZ4), or with zstd. A stream must close with its mark, a file with its name: what was cut off between two batches
//! would be rows lost silently. Source: Arrow's columnar format, "IPC streaming format" and "IPC file format".
//!
//! It deliberately skips nothing: behind a damaged message it reads no further.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::{StreamReader, read_dictionary, read_record_batch};
use arrow_ipc::writer::StreamWriter;

use crate::RecordsError;
use crate::files::{BATCH_ROWS, open};
use crate::messages::{Message, cut_off};
use crate::normal::{conform, normal_schema};
use crate::source::DataSource;

const MAGIC: &[u8] = b"ARROW1";
/// Behind the name there are zeros, to a border of 8 bytes or a multiple of it.
const BORDER_BYTES: u64 = 8;

/// One data file in Arrow's own form.
#[derive(Clone)]
pub(crate) struct ArrowFile(pub(crate) DataSource);

impl ArrowFile {
    /// Reads it through: its columns and how many rows it has.
    pub(crate) fn inspect(&self) -> Result<(SchemaRef, u64), RecordsError> {
        let mut batches = self.open()?;
        let schema = normal_schema(&batches.schema);
        let mut n_rows = 0;
        for batch in batches.by_ref() {
            n_rows += batch.map_err(|source| self.bad(source))?.num_rows() as u64;
        }
        batches.check_end().map_err(|source| self.bad(source))?;
        Ok((schema, n_rows))
    }

    pub(crate) fn batches(
        &self,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, RecordsError>> + use<>, RecordsError> {
        let batches = self.open()?;
        let (file, schema) = (self.clone(), normal_schema(&batches.schema));
        Ok(batches.flat_map(move |batch| match batch {
            Ok(batch) => parts(&batch).map(|part| conform(&part, &schema)).collect::<Vec<_>>(),
            Err(source) => vec![Err(file.bad(source))],
        }))
    }

    fn open(&self) -> Result<Batches, RecordsError> {
        Batches::open(self.0.bytes()?).map_err(|source| self.bad(source))
    }

    fn bad(&self, source: ArrowError) -> RecordsError {
        RecordsError::BadArrow { file: self.0.label.clone(), source }
    }
}

/// The batches of a stream or file, to the first that is wrong.
struct Batches {
    bytes: Box<dyn Read + Send>,
    is_framed: bool,
    schema: SchemaRef,
    /// What columns of dictionary type have so far, by the number of the dictionary.
    dictionaries: HashMap<i64, ArrayRef>,
    n_batches: u64,
    is_over: bool,
}

impl Batches {
    fn open(mut bytes: impl Read + Send + 'static) -> Result<Self, ArrowError> {
        let mut next = || -> Result<Vec<u8>, ArrowError> {
            let mut head = Vec::new();
            bytes.by_ref().take(BORDER_BYTES).read_to_end(&mut head)?;
            Ok(head)
        };
        let mut head = next()?;
        let is_framed = head.starts_with(MAGIC);
        while is_framed && (head.starts_with(MAGIC) || (!head.is_empty() && head.iter().all(|byte| *byte == 0))) {
            head = next()?;
        }
        let mut bytes = Box::new(Cursor::new(head).chain(bytes));
        let first = Message::read(&mut bytes)?;
        let schema = first.as_ref().and_then(|message| message.head().header_as_schema());
        let schema = schema.ok_or_else(|| ArrowError::IpcError("it does not begin with its columns".into()))?;
        let schema = Arc::new(try_fb_to_schema(schema)?);
        Ok(Batches { bytes, is_framed, schema, dictionaries: HashMap::new(), n_batches: 0, is_over: false })
    }

    fn read(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        while let Some(message) = Message::read(&mut self.bytes)? {
            let (head, body) = (message.head(), &message.body);
            if let Some(batch) = head.header_as_record_batch() {
                message.check(&batch)?;
                let schema = Arc::clone(&self.schema);
                let decode = || read_record_batch(body, batch, schema, &self.dictionaries, None, &head.version());
                return decoded(decode).map(Some);
            }
            let Some(dictionary) = head.header_as_dictionary_batch() else {
                let found = head.header_type();
                return Err(ArrowError::IpcError(format!("it has a message of type {found:?} among its batches")));
            };
            if let Some(values) = dictionary.data() {
                message.check(&values)?;
            }
            decoded(|| read_dictionary(body, dictionary, &self.schema, &mut self.dictionaries, &head.version()))?;
        }
        Ok(None)
    }

    /// Behind the last batch: whether a file has its end.
    fn check_end(mut self) -> Result<(), ArrowError> {
        let mut last = Vec::new();
        let mut chunk = [0; 4096];
        while self.is_framed {
            let n_read = self.bytes.read(&mut chunk)?;
            last.extend_from_slice(&chunk[..n_read]);
            last.drain(..last.len().saturating_sub(MAGIC.len()));
            if n_read == 0 {
                return if last == MAGIC { Ok(()) } else { Err(cut_off()) };
            }
        }
        Ok(())
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let index = self.n_batches;
        self.n_batches += 1;
        let batch = self.read().transpose();
        self.is_over = !matches!(batch, Some(Ok(_)));
        batch.map(|batch| batch.map_err(|error| in_batch(index, &error)))
    }
}

fn in_batch(index: u64, error: &ArrowError) -> ArrowError {
    let problem = match error {
        ArrowError::IpcError(problem) => problem.clone(),
        other => other.to_string(),
    };
    ArrowError::IpcError(format!("batch {index} (from 0): {problem}"))
}

/// What `decode` gives. arrow-ipc panics on some damaged messages: a buffer of offsets that ends inside of one, say.
fn decoded<T>(decode: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, ArrowError> {
    let caught = catch_unwind(AssertUnwindSafe(decode));
    caught.unwrap_or_else(|_| {
        Err(ArrowError::IpcError("its buffers are not what its columns need: it is damaged".into()))
    })
}

/// `batch` in parts of [`BATCH_ROWS`].
fn parts(batch: &RecordBatch) -> impl Iterator<Item = RecordBatch> {
    let n_rows = batch.num_rows();
    (0..n_rows).step_by(BATCH_ROWS).map(move |start| batch.slice(start, BATCH_ROWS.min(n_rows - start)))
}

/// Batches that wait on the disk, for a stage that sees more rows than it may hold. Not for artifacts: the bytes are
/// those of Arrow's streams, and may differ from version to version.
pub struct SpoolWriter {
    path: PathBuf,
    writer: StreamWriter<BufWriter<File>>,
}

impl SpoolWriter {
    /// Creates `path`.
    ///
    /// # Errors
    /// `Io` when it cannot be made.
    pub fn create(path: &Path, schema: &SchemaRef) -> Result<Self, RecordsError> {
        let file =
            File::create(path).map_err(|source| RecordsError::Io { verb: "create", file: path.into(), source })?;
        let writer = StreamWriter::try_new(BufWriter::new(file), schema).map_err(|error| unwritten(path, error))?;
        Ok(SpoolWriter { path: path.to_path_buf(), writer })
    }

    /// Adds the rows of `batch`.
    ///
    /// # Errors
    /// `Io` when the disk refuses.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), RecordsError> {
        self.writer.write(batch).map_err(|error| unwritten(&self.path, error))
    }

    /// Ends the file.
    ///
    /// # Errors
    /// `Io` when the disk refuses.
    pub fn finish(mut self) -> Result<(), RecordsError> {
        self.writer.finish().map_err(|error| unwritten(&self.path, error))
    }
}

/// The batches of a file that [`SpoolWriter`] wrote, as they were.
///
/// # Errors
/// `Io` when it cannot be read.
pub fn read_spool(path: &Path) -> Result<impl Iterator<Item = Result<RecordBatch, RecordsError>>, RecordsError> {
    let reader = StreamReader::try_new(BufReader::new(open(path)?), None)?;
    Ok(reader.map(|batch| batch.map_err(RecordsError::from)))
}

fn unwritten(path: &Path, error: ArrowError) -> RecordsError {
    match error {
        ArrowError::IoError(_, source) => RecordsError::Io { verb: "write", file: path.to_path_buf(), source },
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BooleanArray, DictionaryArray, FixedSizeListArray, Int64Array, ListArray, NullArray, StringArray,
        StringViewArray, StructArray,
    };
    use arrow::datatypes::{DataType, Field, Int32Type, Int64Type};
    use arrow_ipc::CompressionType;
    use arrow_ipc::writer::IpcWriteOptions;

    use super::*;

    /// Of every way that buffers are laid out in one, long enough to be worth a compression.
    fn rows() -> RecordBatch {
        let n_rows = 40;
        let text: ArrayRef = Arc::new(StringArray::from_iter(
            (0..n_rows).map(|i| (i % 5 != 0).then(|| format!("row {} of a data set", i % 7))),
        ));
        let view: ArrayRef = Arc::new(StringViewArray::from_iter_values(
            (0..n_rows).map(|i| format!("a text that is too long to be inside of its view, {}", i % 3)),
        ));
        let word: ArrayRef =
            Arc::new((0..n_rows).map(|i| ["user", "assistant"][i % 2]).collect::<DictionaryArray<Int32Type>>());
        let flag: ArrayRef = Arc::new(BooleanArray::from_iter((0..n_rows).map(|i| Some(i % 2 == 0))));
        let ids: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(
            (0..n_rows).map(|i| (i % 4 != 0).then(|| vec![Some(1); i % 3])),
        ));
        let pair: ArrayRef = Arc::new(FixedSizeListArray::from_iter_primitive::<Int64Type, _, _>(
            (0..n_rows).map(|_| Some([Some(1), None])),
            2,
        ));
        let both: ArrayRef = Arc::new(StructArray::from(vec![(
            Arc::new(Field::new("n", DataType::Int64, false)),
            Arc::new(Int64Array::from_iter_values(0..n_rows as i64)) as ArrayRef,
        )]));
        let none: ArrayRef = Arc::new(NullArray::new(n_rows));
        let columns = [text, view, word, flag, ids, pair, both, none];
        RecordBatch::try_from_iter(["a", "b", "c", "d", "e", "f", "g", "h"].into_iter().zip(columns)).unwrap()
    }

    fn written(batch: &RecordBatch, codec: Option<CompressionType>) -> Vec<u8> {
        let options = IpcWriteOptions::default().try_with_compression(codec).unwrap();
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
        writer.write(batch).unwrap();
        writer.write(&batch.slice(3, 20)).unwrap();
        writer.finish().unwrap();
        writer.into_inner().unwrap()
    }

    fn read(bytes: Vec<u8>) -> Result<Vec<RecordBatch>, ArrowError> {
        Batches::open(Cursor::new(bytes))?.collect()
    }

    const CODECS: [Option<CompressionType>; 3] = [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)];

    #[test]
    fn compressed_buffers_hold_what_plain_ones_do() {
        let batch = rows();
        let sizes = CODECS.map(|codec| {
            let bytes = written(&batch, codec);
            assert_eq!(read(bytes.clone()).unwrap(), [batch.clone(), batch.slice(3, 20)], "{codec:?}");
            bytes.len()
        });
        assert!(sizes[1] < sizes[0] && sizes[2] < sizes[0], "{sizes:?}");
    }

    #[test]
    fn a_file_that_was_cut_anywhere_is_an_error() {
        for codec in CODECS {
            let bytes = written(&rows(), codec);
            for length in 0..bytes.len() {
                assert!(read(bytes[..length].to_vec()).is_err(), "{codec:?} {length} of {}", bytes.len());
            }
        }
    }

    /// Where no checksum is, a changed byte may be another value. It may be nothing worse.
    #[test]
    fn a_changed_byte_is_an_error_or_another_value() {
        for codec in CODECS {
            let bytes = written(&rows(), codec);
            let mut n_noticed = 0;
            for place in 0..bytes.len() {
                for change in [0x01, 0x80] {
                    let mut changed = bytes.clone();
                    changed[place] ^= change;
                    let Ok(batches) = read(changed) else {
                        n_noticed += 1;
                        continue;
                    };
                    // What was read can be looked at.
                    let schema = normal_schema(&batches.first().map_or_else(|| rows().schema(), RecordBatch::schema));
                    for batch in batches.iter().filter(|batch| batch.num_rows() < 1000) {
                        let _ = conform(batch, &schema).map(|batch| format!("{batch:?}"));
                    }
                }
            }
            assert!(n_noticed > bytes.len() / 2, "{codec:?}: {n_noticed} of {}", bytes.len());
        }
    }

    #[test]
    fn what_a_damaged_buffer_claims_is_told() {
        // The first buffer that is compressed: its length stands before the frame.
        for (codec, magic) in
            [(CompressionType::LZ4_FRAME, [0x04, 0x22, 0x4d, 0x18]), (CompressionType::ZSTD, [0x28, 0xb5, 0x2f, 0xfd])]
        {
            let mut bytes = written(&rows(), Some(codec));
            let frame = bytes.windows(4).position(|window| window == magic).unwrap();
            bytes[frame - 4] = 0x7f;
            let told = read(bytes).unwrap_err().to_string();
            assert!(told.contains("batch 0 (from 0): ") && told.contains("buffer "), "{told}");
            assert!(told.contains(" claims to have had ") && told.ends_with(": it is damaged"), "{told}");
        }
    }
}
