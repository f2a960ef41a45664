//! Arrow's own files: streams, which `datasets.save_to_disk` writes, and the file form, which is a stream in a frame.
//!
//! ```text
//! stream   schema | batch | batch | ... | FFFFFFFF 00000000
//! file     ARROW1 00 00 ... | a stream | where its batches are | ARROW1
//! ```
//!
//! So both are read from the front to the end, also out of a compressed file; nothing is mapped. A batch of the file is in
//! memory as a whole, and is given on in parts of [`BATCH_ROWS`]. A stream must close with its mark, a file with its name:
//! what was cut off between two batches would be rows lost silently. Source: Arrow's columnar format, "IPC streaming format"
//! and "IPC file format".
//!
//! It deliberately reads no compressed buffers (Feather's lz4 and zstd); the error says how to write without.

use std::fs::File;
use std::io::{BufReader, BufWriter, Cursor, Read};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;

use crate::RecordsError;
use crate::files::{BATCH_ROWS, open};
use crate::normal::{conform, normal_schema};
use crate::source::DataSource;

const MAGIC: &[u8] = b"ARROW1";
/// Behind the name there are zeros, to a border of 8 bytes or a multiple of it.
const BORDER_BYTES: u64 = 8;
/// The mark of the end: no message, of length 0.
const END_OF_STREAM: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// One data file in Arrow's own form.
#[derive(Clone)]
pub(crate) struct ArrowFile(pub(crate) DataSource);

struct Opened {
    reader: StreamReader<Tail>,
    is_framed: bool,
}

impl ArrowFile {
    /// Reads it through: its columns and how many rows it has.
    pub(crate) fn inspect(&self) -> Result<(SchemaRef, u64), RecordsError> {
        let Opened { mut reader, is_framed } = self.open()?;
        let schema = normal_schema(&reader.schema());
        let mut n_rows = 0;
        for batch in reader.by_ref() {
            n_rows += batch.map_err(|source| self.bad(source))?.num_rows() as u64;
        }
        let bytes = reader.get_mut();
        if is_framed {
            std::io::copy(bytes, &mut std::io::sink()).map_err(|source| self.0.unreadable(source))?;
        }
        let end = if is_framed { MAGIC } else { &END_OF_STREAM };
        if bytes.last.ends_with(end) { Ok((schema, n_rows)) } else { Err(self.cut_off()) }
    }

    pub(crate) fn batches(
        &self,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, RecordsError>> + use<>, RecordsError> {
        let Opened { reader, .. } = self.open()?;
        let (file, schema) = (self.clone(), normal_schema(&reader.schema()));
        Ok(reader.flat_map(move |batch| match batch {
            Ok(batch) => parts(&batch).map(|part| conform(&part, &schema)).collect::<Vec<_>>(),
            Err(source) => vec![Err(file.bad(source))],
        }))
    }

    fn open(&self) -> Result<Opened, RecordsError> {
        let mut bytes = self.0.bytes()?;
        let mut next = || {
            let mut head = Vec::new();
            let taken = bytes.by_ref().take(BORDER_BYTES).read_to_end(&mut head);
            taken.map(|_| head).map_err(|source| self.0.unreadable(source))
        };
        let mut head = next()?;
        let is_framed = head.starts_with(MAGIC);
        while is_framed && (head.starts_with(MAGIC) || (!head.is_empty() && head.iter().all(|byte| *byte == 0))) {
            head = next()?;
        }
        let bytes = Tail { inner: Box::new(Cursor::new(head).chain(bytes)), last: [0; 8] };
        let reader = StreamReader::try_new(bytes, None).map_err(|source| self.bad(source))?;
        Ok(Opened { reader, is_framed })
    }

    fn bad(&self, source: ArrowError) -> RecordsError {
        RecordsError::BadArrow { file: self.0.label.clone(), source }
    }

    fn cut_off(&self) -> RecordsError {
        self.bad(ArrowError::IpcError("it has no mark of its end: it was cut off, or is still being written".into()))
    }
}

/// `batch` in parts of [`BATCH_ROWS`].
fn parts(batch: &RecordBatch) -> impl Iterator<Item = RecordBatch> {
    let n_rows = batch.num_rows();
    (0..n_rows).step_by(BATCH_ROWS).map(move |start| batch.slice(start, BATCH_ROWS.min(n_rows - start)))
}

/// Bytes that are read, and the last eight of them.
struct Tail {
    inner: Box<dyn Read + Send>,
    last: [u8; 8],
}

impl Read for Tail {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n_read = self.inner.read(buffer)?;
        let new = &buffer[n_read.saturating_sub(8)..n_read];
        self.last.rotate_left(new.len() % 8);
        self.last[8 - new.len()..].copy_from_slice(new);
        Ok(n_read)
    }
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
