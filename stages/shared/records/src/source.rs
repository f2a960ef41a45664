//! A data file by its name: what form it has, how it is compressed, and its bytes without the compression.
//!
//! ```text
//! data/train.jsonl.gz   ->  JsonLines, Gzip   ->  {"a": 1}\n{"a": 2}\n
//! ```
//!
//! Names decide, as in Hugging Face `datasets`; content is not guessed at. A gzip file may have several members and a zstd
//! file several frames. A byte order mark at the start of text is not part of it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::RecordsError;
use crate::files::open;

/// Bytes read from the disk at a time.
const BUFFER_BYTES: usize = 1 << 16;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The form of a data file. The order is that of preference, where a data set has its rows in several forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the table at `EXTENSIONS` says what is in them")]
pub enum DataFormat {
    Parquet,
    Arrow,
    JsonLines,
    Json,
    Csv,
    Tsv,
    Text,
}

/// Extensions, in any case, and what they stand for. Behind all but `parquet` there may be `.gz` or `.zst`.
pub const EXTENSIONS: [(&str, DataFormat); 10] = [
    ("parquet", DataFormat::Parquet),
    // What `datasets.save_to_disk` writes (a stream), and Arrow's file form, which Feather is another name of.
    ("arrow", DataFormat::Arrow),
    ("feather", DataFormat::Arrow),
    ("ipc", DataFormat::Arrow),
    ("jsonl", DataFormat::JsonLines),
    ("ndjson", DataFormat::JsonLines),
    ("json", DataFormat::Json),
    ("csv", DataFormat::Csv),
    ("tsv", DataFormat::Tsv),
    ("txt", DataFormat::Text),
];

/// What the name of a file says about its form; `None` where it is no data file.
pub fn data_format(name: &str) -> Option<DataFormat> {
    form_of(name).map(|(format, _)| format)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

fn form_of(name: &str) -> Option<(DataFormat, Compression)> {
    let path = Path::new(name);
    let extension = |path: &Path| path.extension().map(|found| found.to_string_lossy().to_lowercase());
    let (compression, inner) = match extension(path)?.as_str() {
        "gz" => (Compression::Gzip, path.file_stem().map(Path::new)?),
        "zst" => (Compression::Zstd, path.file_stem().map(Path::new)?),
        _ => (Compression::None, path),
    };
    let extension = extension(inner)?;
    let (_, format) = EXTENSIONS.iter().find(|(known, _)| *known == extension)?;
    // Parquet is read from its end, and compressed inside.
    (*format != DataFormat::Parquet || compression == Compression::None).then_some((*format, compression))
}

/// One data file of an artifact.
#[derive(Clone, Debug)]
pub(crate) struct DataSource {
    /// Its name in the artifact, for messages.
    pub(crate) label: String,
    pub(crate) path: PathBuf,
    pub(crate) format: DataFormat,
    compression: Compression,
}

/// The bytes of a data file, in order.
pub(crate) type Bytes = Box<dyn BufRead + Send>;

impl DataSource {
    /// The file called `label`, which lies at `path`. `None` where the name is not that of a data file.
    pub(crate) fn new(label: &str, path: &Path) -> Option<Self> {
        let (format, compression) = form_of(label)?;
        Some(DataSource { label: label.to_string(), path: path.to_path_buf(), format, compression })
    }

    /// Its bytes without their compression.
    pub(crate) fn bytes(&self) -> Result<Bytes, RecordsError> {
        let file = BufReader::with_capacity(BUFFER_BYTES, open(&self.path)?);
        Ok(match self.compression {
            Compression::None => Box::new(file),
            Compression::Gzip => buffered(MultiGzDecoder::new(file)),
            Compression::Zstd => buffered(zstd_decoder(file).map_err(|source| self.unreadable(source))?),
        })
    }

    /// The same, of text: without a byte order mark.
    pub(crate) fn text(&self) -> Result<Bytes, RecordsError> {
        let mut bytes = self.bytes()?;
        let mut head = Vec::new();
        let length = BYTE_ORDER_MARK.len() as u64;
        bytes.by_ref().take(length).read_to_end(&mut head).map_err(|source| self.unreadable(source))?;
        if head == BYTE_ORDER_MARK {
            head.clear();
        }
        Ok(Box::new(std::io::Cursor::new(head).chain(bytes)))
    }

    /// The error of a read: the disk's, or that of the decompressor.
    pub(crate) fn unreadable(&self, source: std::io::Error) -> RecordsError {
        RecordsError::Io { verb: "read", file: PathBuf::from(&self.label), source }
    }
}

fn buffered(reader: impl Read + Send + 'static) -> Bytes {
    Box::new(BufReader::with_capacity(BUFFER_BYTES, reader))
}

fn zstd_decoder(file: BufReader<File>) -> std::io::Result<zstd::stream::read::Decoder<'static, BufReader<File>>> {
    zstd::stream::read::Decoder::with_buffer(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_form_and_compression() {
        let told = |name: &str| form_of(name);
        assert_eq!(told("a/b.PARQUET"), Some((DataFormat::Parquet, Compression::None)));
        assert_eq!(told("data-00000-of-00001.arrow"), Some((DataFormat::Arrow, Compression::None)));
        assert_eq!(told("a.jsonl.gz"), Some((DataFormat::JsonLines, Compression::Gzip)));
        assert_eq!(told("a.b.tsv.zst"), Some((DataFormat::Tsv, Compression::Zstd)));
        for other in ["a.md", "a", "gz", ".gz", "a.gz", "a.parquet.gz", "a.csv.bz2", "csv"] {
            assert_eq!(told(other), None, "{other}");
        }
    }
}
