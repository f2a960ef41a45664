//! `preview.json`: the text of the first packs, in pieces that are learned and pieces that are not, for people.
//!
//! ```text
//! {"format_version": 1, "packs": [[{"doc_id": 4, "pieces": [{"text": "<s> Q: hi A:", "is_learned": false},
//!                                                           {"text": " yo</s>", "is_learned": true}]}]]}
//! ```
//!
//! Packs hold ids, and who looks at them has no tokenizer: so this is written with them. The text is what the ids say, decoded
//! behind those before them; nothing is read back but by `pipe show`.

use std::path::Path;

use pipe_contract::{Artifact, StageError};
use pipe_records::packed::{NOT_SUPERVISED, document_starts};
use pipe_records::{Pack, PackedReader};
use pipe_tokenizer::ModelTokenizer;
use serde::{Deserialize, Serialize};

const PREVIEW_FILE: &str = "preview.json";
const FORMAT_VERSION: u32 = 1;
/// Packs in it, as many as `pipe show` shows.
const N_PACKS: usize = 5;
/// Tokens in it, of longer packs the first.
const N_TOKENS_MAX: usize = 8192;

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Preview {
    format_version: u32,
    /// Of the first packs, in order.
    pub(crate) packs: Vec<Vec<PreviewDocument>>,
}

/// A document, or as much of it as is shown.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PreviewDocument {
    /// Index of the example.
    pub(crate) doc_id: u32,
    pub(crate) pieces: Vec<Piece>,
}

/// Tokens that are learned or not, as text.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) is_learned: bool,
}

/// Writes the preview of the packs in `folder`, which are complete.
pub(crate) fn write(folder: &Path, tokenizer: &ModelTokenizer) -> Result<(), StageError> {
    let reader = PackedReader::open(&Artifact::from_folder(pipe_contract::ArtifactKind::Packed, folder)?)?;
    let (mut packs, mut n_left) = (Vec::new(), N_TOKENS_MAX);
    for index in 0..N_PACKS.min(reader.n_packs()) {
        let pack = reader.pack(index)?;
        packs.push(documents(&pack, n_left, tokenizer)?);
        n_left = n_left.saturating_sub(pack.input_ids.len());
        if n_left == 0 {
            break;
        }
    }
    let preview = Preview { format_version: FORMAT_VERSION, packs };
    let text = serde_json::to_string_pretty(&preview).expect("texts serialize") + "\n";
    let path = folder.join(PREVIEW_FILE);
    std::fs::write(&path, text).map_err(|error| StageError::io("write", &path, error))
}

/// The preview of an artifact; none where it was made without one.
pub(crate) fn read(artifact: &Artifact) -> Result<Option<Preview>, StageError> {
    let Some(path) = artifact.get(PREVIEW_FILE) else { return Ok(None) };
    let text = std::fs::read_to_string(path).map_err(|error| StageError::io("read", path, error))?;
    // Another version is no preview for this one.
    Ok(serde_json::from_str(&text).ok().filter(|preview: &Preview| preview.format_version == FORMAT_VERSION))
}

fn documents(pack: &Pack, n_tokens_max: usize, tokenizer: &ModelTokenizer) -> Result<Vec<PreviewDocument>, StageError> {
    let n_tokens = pack.input_ids.len().min(n_tokens_max);
    let starts: Vec<usize> = document_starts(pack).filter(|start| *start < n_tokens).collect();
    let ends = starts.iter().skip(1).copied().chain([n_tokens]);
    starts.iter().zip(ends).map(|(start, end)| document(pack, *start..end, tokenizer)).collect()
}

fn document(
    pack: &Pack,
    tokens: std::ops::Range<usize>,
    tokenizer: &ModelTokenizer,
) -> Result<PreviewDocument, StageError> {
    let start = tokens.start;
    // The first token of a document is predicted from nothing, whatever its label says.
    let is_learned = |t: usize| t > start && pack.labels[t] != NOT_SUPERVISED;
    let (mut pieces, mut at) = (Vec::new(), start);
    while at < tokens.end {
        let end = (at..tokens.end).find(|t| is_learned(*t) != is_learned(at)).unwrap_or(tokens.end);
        let ids = &pack.input_ids;
        let text = match at == start {
            true => tokenizer.decode(&ids[at..end])?,
            false => tokenizer.continuation(&ids[start..at], &ids[at..end])?,
        };
        pieces.push(Piece { text, is_learned: is_learned(at) });
        at = end;
    }
    Ok(PreviewDocument { doc_id: pack.doc_ids[start], pieces })
}
