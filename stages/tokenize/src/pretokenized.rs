//! Rows that came with token ids: checked, completed where a column is missing, otherwise taken as they are.
//!
//! | missing | becomes |
//! |---|---|
//! | `labels` | `input_ids`: everything is supervised |
//! | `position_ids` | 0, 1, 2, ... from the start of each document |
//! | `doc_ids` | a new number where a position is 0, and at the start of each row |

use pipe_records::packed::{NOT_SUPERVISED, document_starts, n_learned};
use pipe_records::{Pack, PretokenizedRow};

use crate::TokenizeError;

/// What every row is checked against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_length: usize,
    pub(crate) max_positions: usize,
    pub(crate) vocab_size: usize,
}

/// Turns rows into packs, in order.
pub(crate) struct Pretokenized {
    limits: Limits,
    n_rows: u64,
    /// The number of the next document, where rows do not say.
    next_doc_id: u32,
    /// Documents in the packs so far.
    pub(crate) n_documents: u64,
}

impl Pretokenized {
    pub(crate) fn new(limits: Limits) -> Self {
        Pretokenized { limits, n_rows: 0, next_doc_id: 0, n_documents: 0 }
    }

    /// The pack of the next row; nothing where the row teaches nothing.
    pub(crate) fn pack(&mut self, row: PretokenizedRow) -> Result<Option<Pack>, TokenizeError> {
        let row_idx = self.n_rows;
        self.n_rows += 1;
        self.check(&row, row_idx)?;
        let PretokenizedRow { input_ids, labels, position_ids, doc_ids } = row;
        let labels = labels.unwrap_or_else(|| {
            input_ids.iter().map(|id| i32::try_from(*id).expect("checked to be below the vocabulary size")).collect()
        });
        let position_ids = match (position_ids, &doc_ids) {
            (Some(positions), _) => positions,
            (None, Some(doc_ids)) => positions_of(doc_ids),
            (None, None) => (0..input_ids.len() as u32).collect(),
        };
        let doc_ids = match doc_ids {
            Some(doc_ids) => doc_ids,
            None => self.number_documents(&position_ids)?,
        };
        let pack = Pack { input_ids, labels, position_ids, doc_ids };
        if n_learned(&pack) == 0 {
            return Ok(None);
        }
        self.n_documents += document_starts(&pack).count() as u64;
        Ok(Some(pack))
    }

    fn check(&self, row: &PretokenizedRow, row_idx: u64) -> Result<(), TokenizeError> {
        let Limits { max_length, max_positions, vocab_size } = self.limits;
        let n_tokens = row.input_ids.len();
        if n_tokens > max_length {
            return Err(TokenizeError::PretokenizedTooLong { row: row_idx, n_tokens, max_length });
        }
        let wrong = |problem: String| Err(TokenizeError::Pretokenized { row: row_idx, problem });
        if let Some(id) = row.input_ids.iter().find(|id| **id as usize >= vocab_size) {
            return wrong(format!("has the id {id}, but the model's `vocab_size` is {vocab_size}"));
        }
        let is_label = |label: i32| label == NOT_SUPERVISED || usize::try_from(label).is_ok_and(|id| id < vocab_size);
        if let Some(label) = row.labels.iter().flatten().find(|label| !is_label(**label)) {
            return wrong(format!(
                "has the label {label}, which is neither {NOT_SUPERVISED} nor an id below {vocab_size}"
            ));
        }
        if let Some(position) = row.position_ids.iter().flatten().find(|position| **position as usize >= max_positions)
        {
            return wrong(format!("has the position {position}, but the model has {max_positions}"));
        }
        Ok(())
    }

    fn number_documents(&mut self, position_ids: &[u32]) -> Result<Vec<u32>, TokenizeError> {
        let mut doc_ids = Vec::with_capacity(position_ids.len());
        for (i, position) in position_ids.iter().enumerate() {
            if i == 0 || *position == 0 {
                self.next_doc_id = self.next_doc_id.checked_add(1).ok_or(TokenizeError::TooManyRows)?;
            }
            doc_ids.push(self.next_doc_id - 1);
        }
        Ok(doc_ids)
    }
}

/// 0, 1, 2, ... from where `doc_ids` changes.
fn positions_of(doc_ids: &[u32]) -> Vec<u32> {
    let documents = doc_ids.chunk_by(|a, b| a == b);
    documents.flat_map(|document| 0..document.len() as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pretokenized() -> Pretokenized {
        Pretokenized::new(Limits { max_length: 8, max_positions: 8, vocab_size: 100 })
    }

    fn row(input_ids: &[u32]) -> PretokenizedRow {
        PretokenizedRow { input_ids: input_ids.to_vec(), ..PretokenizedRow::default() }
    }

    #[test]
    fn a_complete_row_is_unchanged() {
        let given = PretokenizedRow {
            labels: Some(vec![-100, 6, -100, 8]),
            position_ids: Some(vec![0, 1, 0, 1]),
            doc_ids: Some(vec![70, 70, 3, 3]),
            ..row(&[5, 6, 7, 8])
        };
        let pack = pretokenized().pack(given.clone()).unwrap().unwrap();
        assert_eq!(
            (Some(pack.labels), Some(pack.position_ids), Some(pack.doc_ids)),
            (given.labels, given.position_ids, given.doc_ids)
        );
        assert_eq!(pack.input_ids, given.input_ids);
    }

    #[test]
    fn missing_columns_are_completed() {
        let mut rows = pretokenized();
        let pack = rows.pack(row(&[5, 6, 7])).unwrap().unwrap();
        assert_eq!((pack.labels, pack.position_ids, pack.doc_ids), (vec![5, 6, 7], vec![0, 1, 2], vec![0, 0, 0]));
        let by_position = PretokenizedRow { position_ids: Some(vec![0, 1, 0, 1]), ..row(&[5, 6, 7, 8]) };
        assert_eq!(rows.pack(by_position).unwrap().unwrap().doc_ids, [1, 1, 2, 2]);
        let by_document = PretokenizedRow { doc_ids: Some(vec![9, 9, 9, 4]), ..row(&[5, 6, 7, 8]) };
        assert_eq!(rows.pack(by_document).unwrap().unwrap().position_ids, [0, 1, 2, 0]);
        assert_eq!(rows.n_documents, 5);
    }

    #[test]
    fn wrong_rows_are_named() {
        let mut rows = pretokenized();
        rows.pack(row(&[1, 2])).unwrap();
        let message = |row: PretokenizedRow, rows: &mut Pretokenized| rows.pack(row).unwrap_err().to_string();
        assert!(
            message(row(&[1, 100]), &mut rows)
                .contains("row 1 of the pretokenized examples (counted from 0) has the id 100")
        );
        assert!(message(row(&[1; 9]), &mut rows).contains("has 9 tokens, more than `max_length`, which is 8"));
        assert!(
            message(PretokenizedRow { labels: Some(vec![1, -1]), ..row(&[1, 2]) }, &mut rows).contains("the label -1")
        );
        assert!(
            message(PretokenizedRow { position_ids: Some(vec![0, 8]), ..row(&[1, 2]) }, &mut rows)
                .contains("the position 8")
        );
    }

    #[test]
    fn rows_that_teach_nothing_are_left_out() {
        let mut rows = pretokenized();
        assert_eq!(rows.pack(row(&[5])).unwrap(), None);
        assert_eq!(rows.pack(PretokenizedRow { labels: Some(vec![5, -100]), ..row(&[5, 6]) }).unwrap(), None);
        let two_firsts = PretokenizedRow { doc_ids: Some(vec![0, 1]), ..row(&[5, 6]) };
        assert_eq!(rows.pack(two_firsts).unwrap(), None);
        // Positions that do not rise make each token a document of its own.
        let four_firsts =
            PretokenizedRow { position_ids: Some(vec![3, 3, 3, 3]), doc_ids: Some(vec![1; 4]), ..row(&[5, 6, 7, 8]) };
        assert_eq!(rows.pack(four_firsts).unwrap(), None);
        assert_eq!(rows.n_documents, 0);
    }

    #[test]
    fn documents_are_counted_by_id_and_position() {
        let mut rows = pretokenized();
        let restarts =
            PretokenizedRow { position_ids: Some(vec![0, 1, 0, 1]), doc_ids: Some(vec![1; 4]), ..row(&[5, 6, 7, 8]) };
        assert!(rows.pack(restarts).unwrap().is_some());
        assert_eq!(rows.n_documents, 2);
    }
}
