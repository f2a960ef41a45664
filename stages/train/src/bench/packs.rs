//! What is trained on: random packs as a function of a seed, or the rows of a safetensors file.
//!
//! ```text
//! pack of 10 tokens, documents of 4, half of them supervised
//! document   0 0 0 0 | 1 1 1 1 | 2 2
//! supervised . . x x | . . x x | . x        (the end of a document, as a completion after its prompt)
//! ```
//!
//! A file has `input_ids`, and may have `labels` (-100: not supervised), `position_ids`, `doc_ids` and `attention_mask` (0: padding at
//! the end of a row, which is left out), each of shape (N, T) in int64 or int32; further leading dimensions are taken as more rows.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use pipe_contract::StageError;
use pipe_kernels::random::Stream;
use pipe_llm::{ModelConfig, Sequence};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::error::TrainError;

/// Where packs come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// Random token ids.
    Random(Shape),
    /// The rows of a file, again from the first when they are used up.
    File {
        /// A safetensors file.
        path: PathBuf,
        /// Its T, if the user said it.
        length: Option<usize>,
    },
}

/// The form of random packs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Tokens of a pack.
    pub length: usize,
    /// Tokens of a document; the last of a pack may be shorter.
    pub document_length: usize,
    /// Share of each document's tokens that are supervised, above 0 and at most 1.
    pub supervised: f64,
}

/// Packs by their number.
pub(super) enum Packs {
    Random { shape: Shape, stream: Stream },
    Rows(Vec<Columns>),
}

/// The columns of one pack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Columns {
    input_ids: Vec<u32>,
    labels: Vec<i32>,
    position_ids: Vec<u32>,
    doc_ids: Vec<u32>,
}

impl Packs {
    pub(super) fn open(source: &Source, seed: u64) -> Result<Self, StageError> {
        match source {
            Source::Random(shape) => {
                shape.check()?;
                Ok(Packs::Random { shape: *shape, stream: Stream::named(seed, "token ids of pipe bench") })
            }
            Source::File { path, length } => Ok(Packs::Rows(read(path, *length)?)),
        }
    }

    /// The pack with the number `pack_idx`.
    pub(super) fn sequence(&self, config: &ModelConfig, pack_idx: usize) -> Result<Sequence, StageError> {
        let random;
        let columns = match self {
            Packs::Random { shape, stream } => {
                random = random_pack(*shape, *stream, config.vocab_size, pack_idx);
                &random
            }
            Packs::Rows(rows) => &rows[pack_idx % rows.len()],
        };
        Ok(Sequence::new(config, &columns.input_ids, &columns.labels, &columns.position_ids, &columns.doc_ids)?)
    }
}

impl Shape {
    fn check(&self) -> Result<(), TrainError> {
        if self.document_length < 2 || self.document_length > self.length {
            return Err(TrainError::BenchPacks {
                why: format!(
                    "documents of {} tokens do not fit into packs of {}; a document has at least 2",
                    self.document_length, self.length
                ),
            });
        }
        if !(self.supervised > 0.0 && self.supervised <= 1.0) {
            return Err(TrainError::BenchPacks {
                why: format!(
                    "the share of supervised tokens is {}, but must be above 0 and at most 1",
                    self.supervised
                ),
            });
        }
        Ok(())
    }
}

fn random_pack(shape: Shape, stream: Stream, vocab_size: usize, pack_idx: usize) -> Columns {
    let mut pack = Columns::default();
    let n_documents = shape.length.div_ceil(shape.document_length);
    for token in 0..shape.length {
        let bits = stream.bits((pack_idx * shape.length + token) as u64);
        // The high half of the product is uniform in 0..vocab_size, to within 2^-64 of the range.
        let id = ((u128::from(bits) * vocab_size as u128) >> 64) as u32;
        let position = token % shape.document_length;
        let document_idx = token / shape.document_length;
        let n_tokens = shape.document_length.min(shape.length - document_idx * shape.document_length);
        let n_supervised = (shape.supervised * n_tokens as f64).round() as usize;
        pack.input_ids.push(id);
        pack.labels.push(if position + n_supervised >= n_tokens { id as i32 } else { -100 });
        pack.position_ids.push(position as u32);
        pack.doc_ids.push((pack_idx * n_documents + document_idx) as u32);
    }
    pack
}

fn read(path: &Path, length: Option<usize>) -> Result<Vec<Columns>, StageError> {
    let bytes = fs::read(path).map_err(|source| TrainError::Io { verb: "read", path: path.into(), source })?;
    let bad = |why: String| TrainError::BenchIds { path: path.into(), why };
    let file = SafeTensors::deserialize(&bytes).map_err(|e| bad(format!("it is cut off, or not safetensors: {e}")))?;
    let ids = file.tensor("input_ids").map_err(|_| bad("the tensor `input_ids` is missing".into()))?;
    let [.., row_length] = *ids.shape() else { return Err(bad("`input_ids` has no rows".into()).into()) };
    if let Some(length) = length.filter(|&length| length != row_length) {
        return Err(bad(format!("its rows have {row_length} tokens, but a length of {length} was asked for")).into());
    }
    let column = |name: &str| -> Result<Option<Vec<i64>>, TrainError> {
        let Ok(tensor) = file.tensor(name) else { return Ok(None) };
        if tensor.shape() != ids.shape() {
            let (theirs, ours) = (tensor.shape(), ids.shape());
            return Err(bad(format!("`{name}` has shape {theirs:?}, but `input_ids` has {ours:?}")));
        }
        integers(&tensor).map(Some).ok_or_else(|| bad(format!("`{name}` is stored as {:?}, not int64", tensor.dtype())))
    };
    let input_ids = column("input_ids")?.expect("found above");
    let columns = AllRows {
        labels: column("labels")?,
        position_ids: column("position_ids")?,
        doc_ids: column("doc_ids")?,
        attention_mask: column("attention_mask")?,
        input_ids,
    };
    let n_rows = columns.input_ids.len().checked_div(row_length).unwrap_or(0);
    if n_rows == 0 {
        return Err(bad("it has no tokens".into()).into());
    }
    let row = |row_idx: usize| columns.row(row_idx, row_idx * row_length..(row_idx + 1) * row_length);
    Ok((0..n_rows).map(row).collect::<Result<Vec<_>, _>>().map_err(bad)?)
}

/// The columns of a file, rows behind each other.
struct AllRows {
    input_ids: Vec<i64>,
    labels: Option<Vec<i64>>,
    position_ids: Option<Vec<i64>>,
    doc_ids: Option<Vec<i64>>,
    attention_mask: Option<Vec<i64>>,
}

impl AllRows {
    fn row(&self, row_idx: usize, tokens: Range<usize>) -> Result<Columns, String> {
        let n_tokens = match &self.attention_mask {
            None => tokens.len(),
            Some(mask) => mask[tokens.clone()].iter().take_while(|&&seen| seen != 0).count(),
        };
        if self.attention_mask.as_ref().is_some_and(|mask| mask[tokens.clone()][n_tokens..].iter().any(|&m| m != 0)) {
            return Err(format!("the `attention_mask` of row {row_idx} has padding before tokens"));
        }
        let tokens = tokens.start..tokens.start + n_tokens;
        let of = |column: &Option<Vec<i64>>| column.as_ref().map(|column| column[tokens.clone()].to_vec());
        let input_ids = unsigned("input_ids", self.input_ids[tokens.clone()].to_vec())?;
        let labels = of(&self.labels).unwrap_or_else(|| self.input_ids[tokens.clone()].to_vec());
        let labels = labels.into_iter().map(|label| i32::try_from(label).map_err(|_| format!("a label is {label}")));
        let doc_ids = of(&self.doc_ids);
        let position_ids = match of(&self.position_ids) {
            Some(positions) => unsigned("position_ids", positions)?,
            None => positions(n_tokens, doc_ids.as_deref()),
        };
        Ok(Columns {
            labels: labels.collect::<Result<_, _>>()?,
            doc_ids: doc_ids.map_or_else(|| Ok(vec![row_idx as u32; n_tokens]), |ids| unsigned("doc_ids", ids))?,
            position_ids,
            input_ids,
        })
    }
}

/// Positions that begin again where a document does.
fn positions(n_tokens: usize, doc_ids: Option<&[i64]>) -> Vec<u32> {
    let mut begin = 0;
    let position = |token: usize| {
        if token > 0 && doc_ids.is_some_and(|ids| ids[token] != ids[token - 1]) {
            begin = token;
        }
        (token - begin) as u32
    };
    (0..n_tokens).map(position).collect()
}

fn unsigned(name: &str, values: Vec<i64>) -> Result<Vec<u32>, String> {
    let value = |value: i64| u32::try_from(value).map_err(|_| format!("`{name}` has the value {value}"));
    values.into_iter().map(value).collect()
}

fn integers(tensor: &TensorView<'_>) -> Option<Vec<i64>> {
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::I64 => Some(data.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()),
        Dtype::I32 => Some(data.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes).into()).collect()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use candle_core::{Device, Tensor};

    use super::*;

    fn config() -> ModelConfig {
        ModelConfig::from_json(
            r#"{"architectures":["LlamaForCausalLM"],"hidden_size":8,"intermediate_size":12,"num_hidden_layers":1,
            "num_attention_heads":2,"vocab_size":16,"max_position_embeddings":8}"#,
        )
        .expect("valid")
    }

    /// Rows of a file with these tensors of shape (n, T).
    fn rows(tensors: &[(&str, &[&[i64]])]) -> Result<Vec<Columns>, StageError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("ids.safetensors");
        let tensor = |(name, rows): &(&str, &[&[i64]])| {
            let shape = (rows.len(), rows[0].len());
            ((*name).to_string(), Tensor::from_vec(rows.concat(), shape, &Device::Cpu).expect("a tensor"))
        };
        let tensors: BTreeMap<String, Tensor> = tensors.iter().map(tensor).collect();
        safetensors::serialize_to_file(tensors.iter(), None, &path).expect("a file");
        read(&path, None)
    }

    #[test]
    fn random_packs_have_the_shape_that_was_asked_for() {
        let shape = Shape { length: 8, document_length: 3, supervised: 0.5 };
        let packs = Packs::open(&Source::Random(shape), 7).expect("a shape");
        let [first, second] = [0, 1].map(|pack_idx| packs.sequence(&config(), pack_idx).expect("a pack"));
        assert_eq!(first.documents, [0..3, 3..6, 6..8]);
        // Two of three tokens and one of two are learned: each is predicted by the one before it.
        assert_eq!(first.supervised, [0, 1, 3, 4, 6]);
        assert_ne!(first.input_ids, second.input_ids);
        assert_eq!(second.example_ids, [3, 3, 3, 4, 4, 4, 5, 5], "dropout tells documents of different packs apart");
        let again = Packs::open(&Source::Random(shape), 7).expect("a shape");
        assert_eq!(again.sequence(&config(), 1).expect("a pack"), second);
        for (document_length, supervised) in [(1, 1.0), (9, 1.0), (8, 0.0), (8, 1.5), (8, f64::NAN)] {
            let shape = Shape { length: 8, document_length, supervised };
            assert!(Packs::open(&Source::Random(shape), 7).is_err(), "{document_length}, {supervised}");
        }
    }

    #[test]
    fn a_file_of_ids_alone_is_one_supervised_document_a_row() {
        let rows = rows(&[("input_ids", &[&[1, 2, 3], &[4, 5, 6]])]).expect("rows");
        let expected = |ids: [u32; 3], row: u32| Columns {
            input_ids: ids.into(),
            labels: ids.map(|id| id as i32).into(),
            position_ids: vec![0, 1, 2],
            doc_ids: vec![row; 3],
        };
        assert_eq!(rows, [expected([1, 2, 3], 0), expected([4, 5, 6], 1)]);
    }

    #[test]
    fn padding_is_left_out_and_documents_begin_anew() {
        let ids: &[&[i64]] = &[&[1, 2, 3, 0]];
        let rows = rows(&[
            ("input_ids", ids),
            ("labels", &[&[-100, 2, 3, -100]]),
            ("doc_ids", &[&[7, 8, 8, 0]]),
            ("attention_mask", &[&[1, 1, 1, 0]]),
        ])
        .expect("rows");
        let expected = Columns {
            input_ids: vec![1, 2, 3],
            labels: vec![-100, 2, 3],
            position_ids: vec![0, 0, 1],
            doc_ids: vec![7, 8, 8],
        };
        assert_eq!(rows, [expected]);
    }

    #[test]
    fn a_file_that_cannot_be_used_says_why() {
        let ids: &[&[i64]] = &[&[1, 2]];
        for (tensors, why) in [
            (&[("ids", ids)][..], "`input_ids` is missing"),
            (&[("input_ids", &[&[1, -2][..]][..])], "`input_ids` has the value -2"),
            (&[("input_ids", ids), ("labels", &[&[1, 2, 3]])], "`labels` has shape [1, 3]"),
            (&[("input_ids", ids), ("attention_mask", &[&[0, 1]])], "padding before tokens"),
        ] {
            let error = rows(tensors).expect_err(why);
            assert!(error.message.contains(why), "{error}");
        }
    }
}
