//! Documents in a scratch file: packing needs all lengths at once, but not all tokens.
//!
//! ```text
//! file:  ids of document 0 | labels of document 0 | ids of document 1 | ...      4 bytes each, little-endian
//! kept:  16 bytes per document
//! ```

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use pipe_tokenizer::Document;

use crate::TokenizeError;

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
}

impl SpillWriter {
    pub(crate) fn create(folder: &Path) -> Result<Self, TokenizeError> {
        let options = File::options().read(true).write(true).create(true).truncate(true).open(folder.join("documents"));
        let file = BufWriter::with_capacity(1 << 20, options.map_err(TokenizeError::Spill)?);
        Ok(SpillWriter { file, entries: Vec::new(), n_tokens: 0 })
    }

    pub(crate) fn push(&mut self, row: u32, document: &Document) -> Result<(), TokenizeError> {
        let n_tokens = u32::try_from(document.len()).expect("a document was cut at max_length");
        for id in &document.ids {
            self.file.write_all(&id.to_le_bytes()).map_err(TokenizeError::Spill)?;
        }
        for label in &document.labels {
            self.file.write_all(&label.to_le_bytes()).map_err(TokenizeError::Spill)?;
        }
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
    pub(crate) fn lengths(&self) -> Vec<usize> {
        self.entries.iter().map(|entry| entry.n_tokens as usize).collect()
    }

    /// The document at `index`, and its row.
    pub(crate) fn read(&mut self, index: usize) -> Result<(u32, Document), TokenizeError> {
        let entry = self.entries[index];
        let n_tokens = entry.n_tokens as usize;
        let mut bytes = vec![0; n_tokens * 8];
        self.file.seek(SeekFrom::Start(entry.offset_tokens * 8)).map_err(TokenizeError::Spill)?;
        self.file.read_exact(&mut bytes).map_err(TokenizeError::Spill)?;
        let (ids, labels) = bytes.split_at(n_tokens * 4);
        let word = |chunk: &[u8]| [chunk[0], chunk[1], chunk[2], chunk[3]];
        let document = Document {
            ids: ids.chunks_exact(4).map(|chunk| u32::from_le_bytes(word(chunk))).collect(),
            labels: labels.chunks_exact(4).map(|chunk| i32::from_le_bytes(word(chunk))).collect(),
        };
        Ok((entry.row, document))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_come_back_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let document = |n: u32| Document { ids: (0..n).map(|i| i * n).collect(), labels: vec![-100; n as usize] };
        let mut writer = SpillWriter::create(folder.path()).unwrap();
        for (row, n) in [(3, 5), (4, 1), (9, 700)] {
            writer.push(row, &document(n)).unwrap();
        }
        let mut reader = writer.finish().unwrap();
        assert_eq!(reader.lengths(), [5, 1, 700]);
        assert_eq!(reader.read(2).unwrap(), (9, document(700)));
        assert_eq!(reader.read(0).unwrap(), (3, document(5)));
        assert_eq!(reader.read(1).unwrap(), (4, document(1)));
    }
}
