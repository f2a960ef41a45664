//! The artifact kind `packed`: `packed.parquet`, a row per pack, and `packed.json`, which counts them.
//!
//! ```text
//! input_ids     12  7 99  2 | 12 30  2        two documents in one pack
//! labels      -100  7 99  2 | -100 30 2       not shifted; -100 is not supervised, as in Hugging Face
//! position_ids   0  1  2  3 | 0  1  2         restart with each document
//! doc_ids        4  4  4  4 | 9  9  9         index of the document in the data set
//! ```
//!
//! Packs are read in any order: row groups are small ([`PACKS_PER_GROUP`]) and one decoded group is kept. It deliberately
//! holds no padding: a pack is as long as its documents.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, Int32Builder, ListBuilder, RecordBatch, UInt32Builder};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use pipe_contract::Artifact;
use serde::{Deserialize, Serialize};

use crate::RecordsError;
use crate::columns::{Place, i32_lists, u32_lists};
use crate::examples::list_field;
use crate::files::{FORMAT_VERSION_KEY, Layout, ParquetFile};
use crate::groups::GroupWriter;

/// The packs.
pub const PACKED_FILE: &str = "packed.parquet";

/// What is in them, as [`PackedInfo`].
pub const PACKED_INFO_FILE: &str = "packed.json";

/// Version of the columns.
pub const PACKED_FORMAT_VERSION: u32 = 1;

/// Version of `packed.json`. 2: `packing_strategy` and `n_dropped_tokens`.
pub const PACKED_INFO_FORMAT_VERSION: u32 = 2;

/// The label of a token that the loss leaves out (Hugging Face's `ignore_index`).
pub const NOT_SUPERVISED: i32 = -100;

/// Packs per row group: 64 of 1,024 tokens decode in about a millisecond, far below an optimizer step.
pub const PACKS_PER_GROUP: usize = 64;

/// Tokens that are encoded at a time, or one row group where that has more: 16 MB.
const TOKENS_AT_A_TIME: u64 = 1 << 20;

/// Tokens that are run through the model together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pack {
    /// (T) token ids.
    pub input_ids: Vec<u32>,
    /// (T) the token id itself, or [`NOT_SUPERVISED`]; not shifted.
    pub labels: Vec<i32>,
    /// (T) position in its document, from 0.
    pub position_ids: Vec<u32>,
    /// (T) index of its document in the data set.
    pub doc_ids: Vec<u32>,
}

/// How documents came to share a pack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    /// They do not: a pack is one document, in the order of the file.
    #[default]
    None,
    /// Best-fit decreasing: the longest first, each into the fullest pack that still has room.
    Bfd,
    /// The same, of documents that were split into pieces of `max_length` tokens before.
    BfdSplit,
    /// In the order of the file, each into the first pack that still has room.
    FirstFit,
    /// One behind the other, cut where a pack is full; they see each other.
    Wrapped,
}

impl Packing {
    /// All of them.
    pub const ALL: [Packing; 5] = [Packing::None, Packing::Bfd, Packing::BfdSplit, Packing::FirstFit, Packing::Wrapped];

    /// The word of the setting `packing_strategy`, and `none`.
    pub fn name(self) -> &'static str {
        match self {
            Packing::None => "none",
            Packing::Bfd => "bfd",
            Packing::BfdSplit => "bfd_split",
            Packing::FirstFit => "first_fit",
            Packing::Wrapped => "wrapped",
        }
    }

    /// Whether a token of one document sees those of another.
    pub fn is_contaminating(self) -> bool {
        self == Packing::Wrapped
    }
}

/// `packed.json`. No token goes without being counted: `n_tokens`, `n_truncated_tokens` and `n_dropped_tokens` are together all tokens of
/// the examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackedInfo {
    /// [`PACKED_INFO_FORMAT_VERSION`].
    pub format_version: u32,
    /// How documents came to share a pack.
    pub packing_strategy: Packing,
    /// Rows of `packed.parquet`.
    pub n_packs: u64,
    /// Documents in the packs; with [`Packing::BfdSplit`] each piece is one.
    pub n_documents: u64,
    /// Tokens in the packs.
    pub n_tokens: u64,
    /// Tokens that are learned: their label is not [`NOT_SUPERVISED`], and a token of their document stands before them.
    pub n_supervised_tokens: u64,
    /// Most tokens that a pack may have.
    pub max_length: u64,
    /// Documents that were cut: at `max_length`, or, where packs are cut out of a stream, where a pack ends. With
    /// [`Packing::BfdSplit`] those that became several pieces.
    pub n_truncated_documents: u64,
    /// Tokens that were cut off and are in no pack.
    pub n_truncated_tokens: u64,
    /// Documents left out: too long where that drops them, or without a supervised token.
    pub n_dropped_documents: u64,
    /// Tokens of the documents left out, as long as they were before anything was cut off.
    pub n_dropped_tokens: u64,
    /// `n_tokens / (n_packs * max_length)`, 0 to 1.
    pub fill: f64,
    /// Token ids are below this.
    pub vocab_size: u64,
}

/// What [`PackedWriter`] cannot count by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackedCounts {
    /// How documents came to share a pack.
    pub packing_strategy: Packing,
    /// Documents in the packs; with [`Packing::BfdSplit`] each piece is one.
    pub n_documents: u64,
    /// Documents that were cut: at `max_length`, or, where packs are cut out of a stream, where a pack ends. With
    /// [`Packing::BfdSplit`] those that became several pieces.
    pub n_truncated_documents: u64,
    /// Tokens that were cut off and are in no pack.
    pub n_truncated_tokens: u64,
    /// Documents left out.
    pub n_dropped_documents: u64,
    /// Tokens of the documents left out.
    pub n_dropped_tokens: u64,
}

/// Writes a `packed` artifact. Row groups are encoded side by side, on the threads of the current rayon pool.
pub struct PackedWriter {
    folder: PathBuf,
    schema: SchemaRef,
    writer: GroupWriter,
    open: OpenGroup,
    /// Row groups that are full and not encoded yet.
    full: Vec<RecordBatch>,
    n_tokens_in_full: u64,
    max_length: u64,
    vocab_size: u64,
    n_packs: u64,
    n_tokens: u64,
    n_supervised_tokens: u64,
}

/// The packs of the row group that is being filled.
struct OpenGroup {
    input_ids: ListBuilder<UInt32Builder>,
    labels: ListBuilder<Int32Builder>,
    position_ids: ListBuilder<UInt32Builder>,
    doc_ids: ListBuilder<UInt32Builder>,
    n_packs: usize,
    n_tokens: u64,
}

impl OpenGroup {
    fn new(schema: &Schema) -> Self {
        let numbers = |column| ListBuilder::new(UInt32Builder::new()).with_field(item_field(schema, column));
        OpenGroup {
            input_ids: numbers(0),
            labels: ListBuilder::new(Int32Builder::new()).with_field(item_field(schema, 1)),
            position_ids: numbers(2),
            doc_ids: numbers(3),
            n_packs: 0,
            n_tokens: 0,
        }
    }

    fn push(&mut self, pack: &Pack) {
        self.labels.values().append_slice(&pack.labels);
        self.labels.append(true);
        let numbers = [
            (&mut self.input_ids, &pack.input_ids),
            (&mut self.position_ids, &pack.position_ids),
            (&mut self.doc_ids, &pack.doc_ids),
        ];
        for (builder, values) in numbers {
            builder.values().append_slice(values);
            builder.append(true);
        }
        self.n_packs += 1;
        self.n_tokens += pack.input_ids.len() as u64;
    }

    /// The rows so far; begins anew.
    fn take(&mut self, schema: &SchemaRef) -> Result<RecordBatch, RecordsError> {
        (self.n_packs, self.n_tokens) = (0, 0);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.input_ids.finish()),
            Arc::new(self.labels.finish()),
            Arc::new(self.position_ids.finish()),
            Arc::new(self.doc_ids.finish()),
        ];
        Ok(RecordBatch::try_new(schema.clone(), columns)?)
    }
}

impl PackedWriter {
    /// Creates `packed.parquet` in `folder`, the output folder of the port. `max_length`: most tokens of a pack;
    /// `vocab_size`: token ids are below it.
    ///
    /// # Errors
    /// `Io` when it cannot be made.
    pub fn create(folder: &Path, max_length: u64, vocab_size: u64) -> Result<Self, RecordsError> {
        let metadata = [(FORMAT_VERSION_KEY.to_string(), PACKED_FORMAT_VERSION.to_string())];
        let fields = vec![
            list_field("input_ids", DataType::UInt32),
            list_field("labels", DataType::Int32),
            list_field("position_ids", DataType::UInt32),
            list_field("doc_ids", DataType::UInt32),
        ];
        let schema: SchemaRef = Arc::new(Schema::new(fields).with_metadata(metadata));
        let layout = Layout { rows_per_group: PACKS_PER_GROUP, delta_list_columns: &["position_ids", "doc_ids"] };
        Ok(PackedWriter {
            folder: folder.to_path_buf(),
            writer: GroupWriter::create(&folder.join(PACKED_FILE), schema.clone(), layout)?,
            open: OpenGroup::new(&schema),
            schema,
            full: Vec::new(),
            n_tokens_in_full: 0,
            max_length,
            vocab_size,
            n_packs: 0,
            n_tokens: 0,
            n_supervised_tokens: 0,
        })
    }

    /// Adds a pack.
    ///
    /// # Errors
    /// `BadRow` when it is empty, too long, has columns of different lengths, or an id or label at or above `vocab_size`.
    pub fn write(&mut self, pack: &Pack) -> Result<(), RecordsError> {
        let row = self.n_packs;
        check_lengths(pack, row)?;
        let n_tokens = pack.input_ids.len() as u64;
        if n_tokens == 0 || n_tokens > self.max_length {
            let problem = format!("it has {n_tokens} tokens, but must have 1 to {}", self.max_length);
            return Err(RecordsError::BadRow { row, problem });
        }
        let largest_label = pack.labels.iter().copied().max().and_then(|label| u32::try_from(label).ok());
        let largest = pack.input_ids.iter().copied().max().max(largest_label).map_or(0, u64::from);
        if largest >= self.vocab_size {
            let problem = format!("it has the token id {largest}, but the vocabulary has {}", self.vocab_size);
            return Err(RecordsError::BadRow { row, problem });
        }
        if let Some(label) = pack.labels.iter().find(|label| **label < 0 && **label != NOT_SUPERVISED) {
            let problem = format!("it has the label {label}, but must be a token id or {NOT_SUPERVISED}");
            return Err(RecordsError::BadRow { row, problem });
        }
        self.n_packs += 1;
        self.n_tokens += n_tokens;
        self.n_supervised_tokens += n_learned(pack);
        self.open.push(pack);
        if self.open.n_packs == PACKS_PER_GROUP { self.close_group() } else { Ok(()) }
    }

    fn close_group(&mut self) -> Result<(), RecordsError> {
        self.n_tokens_in_full += self.open.n_tokens;
        self.full.push(self.open.take(&self.schema)?);
        if self.n_tokens_in_full >= TOKENS_AT_A_TIME { self.encode_groups() } else { Ok(()) }
    }

    fn encode_groups(&mut self) -> Result<(), RecordsError> {
        self.n_tokens_in_full = 0;
        self.writer.write(&std::mem::take(&mut self.full))
    }

    /// Closes `packed.parquet` and writes `packed.json`.
    ///
    /// # Errors
    /// `Io` or `Parquet` when the disk refuses.
    pub fn finish(mut self, counts: PackedCounts) -> Result<PackedInfo, RecordsError> {
        if self.open.n_packs > 0 {
            self.close_group()?;
        }
        self.encode_groups()?;
        self.writer.finish()?;
        let n_packs = self.n_packs;
        let n_places = n_packs * self.max_length;
        let info = PackedInfo {
            format_version: PACKED_INFO_FORMAT_VERSION,
            packing_strategy: counts.packing_strategy,
            n_packs,
            n_documents: counts.n_documents,
            n_tokens: self.n_tokens,
            n_supervised_tokens: self.n_supervised_tokens,
            max_length: self.max_length,
            n_truncated_documents: counts.n_truncated_documents,
            n_truncated_tokens: counts.n_truncated_tokens,
            n_dropped_documents: counts.n_dropped_documents,
            n_dropped_tokens: counts.n_dropped_tokens,
            fill: if n_places == 0 { 0.0 } else { self.n_tokens as f64 / n_places as f64 },
            vocab_size: self.vocab_size,
        };
        let mut text = serde_json::to_string_pretty(&info).expect("numbers and words serialize");
        text.push('\n');
        let path = self.folder.join(PACKED_INFO_FILE);
        File::create(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|source| RecordsError::Io { verb: "write", file: path, source })?;
        Ok(info)
    }
}

/// Where the documents of a pack start: at its first token, and wherever `doc_ids` changes or a position is not the one
/// after its neighbour's. The model attends, and the loss predicts, only within these; `pack` has columns of one length.
///
/// ```text
/// doc_ids       4 4 4 9 9 9 9
/// position_ids  0 1 2 0 1 0 1
/// starts        0     3   5
/// ```
pub fn document_starts(pack: &Pack) -> impl Iterator<Item = usize> + '_ {
    (0..pack.doc_ids.len()).filter(|&t| starts_document(pack, t))
}

/// Tokens that are learned: supervised, and not the first of their document ([`document_starts`]).
pub fn n_learned(pack: &Pack) -> u64 {
    (0..pack.labels.len()).filter(|&t| pack.labels[t] != NOT_SUPERVISED && !starts_document(pack, t)).count() as u64
}

fn starts_document(pack: &Pack, t: usize) -> bool {
    t == 0 || pack.doc_ids[t] != pack.doc_ids[t - 1] || pack.position_ids[t] != pack.position_ids[t - 1].wrapping_add(1)
}

/// Reads packs by index, from any thread.
pub struct PackedReader {
    file: ParquetFile,
    info: PackedInfo,
    /// Index of the first pack of each row group, and the number of packs at the end.
    group_starts: Vec<usize>,
    decoded: Mutex<Option<(usize, Arc<Vec<Pack>>)>>,
}

impl PackedReader {
    /// Opens a `packed` artifact.
    ///
    /// # Errors
    /// When a file is missing, unreadable, of another version, or the two do not belong together.
    pub fn open(artifact: &Artifact) -> Result<Self, RecordsError> {
        let file = ParquetFile::open(artifact.file(PACKED_FILE).map_err(RecordsError::Artifact)?, PACKED_FILE)?;
        file.check_version(PACKED_FORMAT_VERSION)?;
        let info = read_info(artifact)?;
        let mut group_starts = vec![0];
        for n_rows in file.rows_per_group() {
            group_starts.push(group_starts[group_starts.len() - 1] + n_rows);
        }
        if file.num_rows() != info.n_packs {
            let problem =
                format!("`{PACKED_INFO_FILE}` counts {} packs, the file has {}", info.n_packs, file.num_rows());
            return Err(RecordsError::BadRow { row: 0, problem });
        }
        Ok(PackedReader { file, info, group_starts, decoded: Mutex::new(None) })
    }

    /// `packed.json`.
    pub fn info(&self) -> &PackedInfo {
        &self.info
    }

    /// Number of packs.
    pub fn n_packs(&self) -> usize {
        self.group_starts[self.group_starts.len() - 1]
    }

    /// The pack at `index`, from 0 to below [`PackedReader::n_packs`].
    ///
    /// # Errors
    /// `NoSuchPack`; `Decode` for a damaged file.
    pub fn pack(&self, index: usize) -> Result<Pack, RecordsError> {
        let n_packs = self.n_packs();
        if index >= n_packs {
            return Err(RecordsError::NoSuchPack { index, n_packs });
        }
        let group = self.group_starts.partition_point(|start| *start <= index) - 1;
        let packs = self.group(group)?;
        let found = packs.get(index - self.group_starts[group]);
        found.cloned().ok_or(RecordsError::NoSuchPack { index, n_packs })
    }

    /// All packs in order; memory is one row group.
    pub fn packs(&self) -> impl Iterator<Item = Result<Pack, RecordsError>> + '_ {
        (0..self.n_packs()).map(|index| self.pack(index))
    }

    /// The packs of a row group, the one decoded last being kept.
    fn group(&self, group: usize) -> Result<Arc<Vec<Pack>>, RecordsError> {
        if let Some((kept, packs)) = self.decoded.lock().unwrap_or_else(PoisonError::into_inner).as_ref()
            && *kept == group
        {
            return Ok(packs.clone());
        }
        let mut packs = Vec::new();
        for batch in self.file.batches(Some(group))? {
            let place = Place { file: PACKED_FILE, first_row: (self.group_starts[group] + packs.len()) as u64 };
            read_packs(&batch?, place, &mut packs)?;
        }
        let packs = Arc::new(packs);
        *self.decoded.lock().unwrap_or_else(PoisonError::into_inner) = Some((group, packs.clone()));
        Ok(packs)
    }
}

/// `packed.json` of an artifact.
///
/// # Errors
/// When it is missing, not valid or of another version.
pub fn read_info(artifact: &Artifact) -> Result<PackedInfo, RecordsError> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let path = artifact.file(PACKED_INFO_FILE).map_err(RecordsError::Artifact)?;
    let bytes =
        std::fs::read(path).map_err(|source| RecordsError::Io { verb: "read", file: path.to_path_buf(), source })?;
    let file = PACKED_INFO_FILE.to_string();
    // The version first: fields of another version are not this one's to complain about.
    let bad = |source| RecordsError::BadInfo { file: file.clone(), source };
    let Version { format_version } = serde_json::from_slice(&bytes).map_err(bad)?;
    if format_version != PACKED_INFO_FORMAT_VERSION {
        let found = format_version.to_string();
        return Err(RecordsError::UnknownVersion { file, found, expected: PACKED_INFO_FORMAT_VERSION });
    }
    serde_json::from_slice(&bytes).map_err(bad)
}

fn item_field(schema: &Schema, column: usize) -> Arc<arrow::datatypes::Field> {
    match schema.field(column).data_type() {
        DataType::List(item) => item.clone(),
        other => unreachable!("the schema above has lists only, not {other}"),
    }
}

fn read_packs(batch: &RecordBatch, place: Place, packs: &mut Vec<Pack>) -> Result<(), RecordsError> {
    let input_ids = u32_lists(batch, "input_ids", place)?;
    let labels = i32_lists(batch, "labels", place)?;
    let position_ids = u32_lists(batch, "position_ids", place)?;
    let doc_ids = u32_lists(batch, "doc_ids", place)?;
    for row in 0..batch.num_rows() {
        let pack = Pack {
            input_ids: input_ids.row(row),
            labels: labels.row(row),
            position_ids: position_ids.row(row),
            doc_ids: doc_ids.row(row),
        };
        check_lengths(&pack, place.first_row + row as u64)?;
        packs.push(pack);
    }
    Ok(())
}

fn check_lengths(pack: &Pack, row: u64) -> Result<(), RecordsError> {
    let n_tokens = pack.input_ids.len();
    for (name, length) in
        [("labels", pack.labels.len()), ("position_ids", pack.position_ids.len()), ("doc_ids", pack.doc_ids.len())]
    {
        if length != n_tokens {
            let problem = format!("`input_ids` has {n_tokens} entries, `{name}` {length}");
            return Err(RecordsError::BadRow { row, problem });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(doc_ids: &[u32], position_ids: &[u32]) -> Pack {
        let n_tokens = doc_ids.len();
        Pack {
            input_ids: vec![1; n_tokens],
            labels: vec![1; n_tokens],
            position_ids: position_ids.to_vec(),
            doc_ids: doc_ids.to_vec(),
        }
    }

    #[test]
    fn a_document_starts_where_its_id_or_its_position_says_so() {
        for (doc_ids, position_ids, starts) in [
            (&[4, 4, 4, 9, 9, 9, 9][..], &[0, 1, 2, 0, 1, 0, 1][..], &[0, 3, 5][..]),
            (&[1, 1, 2, 2], &[0, 1, 2, 3], &[0, 2]),
            (&[7, 7, 7, 7], &[3, 3, 3, 3], &[0, 1, 2, 3]),
            (&[7, 7, 7], &[5, 6, 7], &[0]),
            (&[], &[], &[]),
        ] {
            let pack = pack(doc_ids, position_ids);
            assert_eq!(document_starts(&pack).collect::<Vec<_>>(), starts, "{pack:?}");
            assert_eq!(n_learned(&pack), (doc_ids.len() - starts.len()) as u64, "{pack:?}");
        }
    }
}
