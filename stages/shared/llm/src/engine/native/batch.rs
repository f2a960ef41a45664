//! The sequences of one pass, one after another.
//!
//! ```text
//! pack 0: a b c | d e      pack 1: f g | h      rows  a b c d e f g h     documents  0..3 3..5 5..7 7..8     packs  0..5 5..8
//! ```

use std::ops::Range;

use crate::program::Rows;
use crate::sequence::Sequence;

/// What a pass reads: T rows in all.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) input_ids: Vec<u32>,
    pub(super) position_ids: Vec<u32>,
    pub(super) example_ids: Vec<u32>,
    pub(super) documents: Vec<Range<usize>>,
    /// Rows whose next token is supervised, rising, and those tokens.
    pub(super) supervised: Vec<u32>,
    pub(super) targets: Vec<u32>,
    /// Rows of each sequence.
    pub(super) packs: Vec<Range<usize>>,
    /// Of `supervised`, those of each sequence.
    pub(super) supervised_of: Vec<Range<usize>>,
}

impl Batch {
    pub(super) fn new(sequences: &[&Sequence]) -> Self {
        let mut batch = Batch::default();
        for sequence in sequences {
            let (first_row, first_target) = (batch.input_ids.len(), batch.targets.len());
            batch.input_ids.extend(&sequence.input_ids);
            batch.position_ids.extend(&sequence.position_ids);
            batch.example_ids.extend(&sequence.example_ids);
            batch.documents.extend(sequence.documents.iter().map(|d| d.start + first_row..d.end + first_row));
            batch.supervised.extend(sequence.supervised.iter().map(|row| row + first_row as u32));
            batch.targets.extend(&sequence.targets);
            batch.packs.push(first_row..batch.input_ids.len());
            batch.supervised_of.push(first_target..batch.targets.len());
        }
        batch
    }

    /// What a dry walk needs to know of packs: how many, and how long they are.
    pub(super) fn of_shape(n_packs: usize, n_tokens: usize, n_supervised: usize) -> Self {
        let sequence = Sequence {
            input_ids: vec![0; n_tokens],
            position_ids: vec![0; n_tokens],
            example_ids: vec![0; n_tokens],
            documents: std::iter::once(0..n_tokens).collect(),
            supervised: vec![0; n_supervised],
            targets: vec![0; n_supervised],
        };
        Batch::new(&vec![&sequence; n_packs])
    }

    /// Which rows of an embedding: (T).
    pub(super) fn ids(&self, rows: Rows) -> &[u32] {
        match rows {
            Rows::Tokens => &self.input_ids,
            Rows::Positions => &self.position_ids,
        }
    }

    pub(super) fn n_tokens(&self) -> usize {
        self.input_ids.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_keep_their_documents_and_targets() {
        let sequence = |first: u32| Sequence {
            input_ids: vec![first, 1, 2],
            position_ids: vec![0, 1, 0],
            example_ids: vec![0, 0, 1],
            documents: vec![0..2, 2..3],
            supervised: vec![0],
            targets: vec![1],
        };
        let batch = Batch::new(&[&sequence(8), &sequence(9)]);
        assert_eq!(batch.input_ids, [8, 1, 2, 9, 1, 2]);
        assert_eq!(batch.documents, [0..2, 2..3, 3..5, 5..6]);
        assert_eq!((batch.supervised.as_slice(), batch.targets.as_slice()), (&[0, 3][..], &[1, 1][..]));
        assert_eq!((batch.packs, batch.supervised_of), (vec![0..3, 3..6], vec![0..1, 1..2]));
    }
}
