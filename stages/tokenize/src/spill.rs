//! Documents in a scratch file: packing needs all lengths at once, but not all tokens.
//!
//! ```text
//! file:  tokens of document 0 | tokens of document 1 | ...      4 bytes each, little-endian: the id, the highest bit where it is supervised
//! kept:  16 bytes per document
//! ```
//!
//! Ids are below 2^31 ([`TokenizeError::VocabularyTooLarge`]), and a label is the id itself or none.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use pipe_records::packed::NOT_SUPERVISED;
use pipe_tokenizer::Document;

use crate::TokenizeError;

/// Set where a token is supervised.
const SUPERVISED: u32 = 1 << 31;

/// Where a document lies, and which row it was.
#[derive(Clone, Copy, Debug)]
struct Entry {
    offset_tokens: u64,
    n_tokens: u32,
    row: u32,
}

/// Being filled.
pub(crate) struct SpillWriter {
    file: BufWriter<File>,
    entries: Vec<Entry>,
    n_tokens: u64,
    /// The bytes of a document.
    bytes: Vec<u8>,
}

impl SpillWriter {
    pub(crate) fn create(folder: &Path) -> Result<Self, TokenizeError> {
        let options = File::options().read(true).write(true).create(true).truncate(true).open(folder.join("documents"));
        let file = BufWriter::with_capacity(1 << 20, options.map_err(TokenizeError::Spill)?);
        Ok(SpillWriter { file, entries: Vec::new(), n_tokens: 0, bytes: Vec::new() })
    }

    pub(crate) fn push(&mut self, row: u32, document: &Document) -> Result<(), TokenizeError> {
        let n_tokens = u32::try_from(document.len()).expect("a document was cut at max_length");
        self.bytes.clear();
        for (id, label) in document.ids.iter().zip(&document.labels) {
            let word = if *label == NOT_SUPERVISED { *id } else { *id | SUPERVISED };
            self.bytes.extend_from_slice(&word.to_le_bytes());
        }
        self.file.write_all(&self.bytes).map_err(TokenizeError::Spill)?;
        self.entries.push(Entry { offset_tokens: self.n_tokens, n_tokens, row });
        self.n_tokens += u64::from(n_tokens);
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<SpillReader, TokenizeError> {
        let file = self.file.into_inner().map_err(|e| TokenizeError::Spill(e.into_error()))?;
        Ok(SpillReader { file, entries: self.entries })
    }
}

/// Complete, read in any order.
pub(crate) struct SpillReader {
    file: File,
    entries: Vec<Entry>,
}

impl SpillReader {
    /// In tokens, in the order of the data set.
    pub(crate) fn lengths(&self) -> Vec<u32> {
        self.entries.iter().map(|entry| entry.n_tokens).collect()
    }

    /// The document at `index`, and its row. From any thread.
    pub(crate) fn read(&self, index: usize) -> Result<(u32, Document), TokenizeError> {
        let Entry { offset_tokens, n_tokens, row } = self.entries[index];
        let mut bytes = vec![0; n_tokens as usize * 4];
        self.file.read_exact_at(&mut bytes, offset_tokens * 4).map_err(TokenizeError::Spill)?;
        let words = bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let label = |word: u32| if word & SUPERVISED == 0 { NOT_SUPERVISED } else { (word & !SUPERVISED) as i32 };
        let document = Document {
            ids: words.clone().map(|word| word & !SUPERVISED).collect(),
            labels: words.map(label).collect(),
        };
        Ok((row, document))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_come_back_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let document = |n: u32| {
            let ids: Vec<u32> = (0..n).map(|i| i * n + u32::from(i == 3) * (i32::MAX as u32 - 3 * n)).collect();
            let label = |id: &u32| if id % 3 == 1 { NOT_SUPERVISED } else { *id as i32 };
            Document { labels: ids.iter().map(label).collect(), ids }
        };
        let mut writer = SpillWriter::create(folder.path()).unwrap();
        for (row, n) in [(3, 5), (4, 1), (9, 700)] {
            writer.push(row, &document(n)).unwrap();
        }
        let reader = writer.finish().unwrap();
        assert_eq!(reader.lengths(), [5, 1, 700]);
        assert_eq!(reader.read(2).unwrap(), (9, document(700)));
        assert_eq!(reader.read(0).unwrap(), (3, document(5)));
        assert_eq!(reader.read(1).unwrap(), (4, document(1)));
    }
}
