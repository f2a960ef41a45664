//! Long documents in pieces: `packing_strategy: bfd_split`.
//!
//! ```text
//! document   a b c d e f g h i      max_length 4
//! pieces     a b c d | e f g h | i      each a document of its own: its positions begin at 0, it does not see the one before
//! ```
//!
//! The cuts are TRL's. A piece of which nothing is learned is left out by the caller, and counted: TRL keeps it. The first token of a piece is
//! never learned, because nothing stands before it.

use pipe_tokenizer::Document;

/// `document` in pieces of `max_length` (at least 1) tokens, the last of which is the rest; one piece where it is not longer.
pub(crate) fn split(document: Document, max_length: usize) -> Vec<Document> {
    if document.len() <= max_length {
        return vec![document];
    }
    let pieces = document.ids.chunks(max_length).zip(document.labels.chunks(max_length));
    pieces.map(|(ids, labels)| Document { ids: ids.to_vec(), labels: labels.to_vec() }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn document(n_tokens: u32) -> Document {
        Document { ids: (0..n_tokens).collect(), labels: (0..n_tokens as i32).map(|i| i / 2).collect() }
    }

    #[test]
    fn the_example_of_the_documentation() {
        let pieces = split(document(9), 4);
        assert_eq!(
            pieces.iter().map(|piece| piece.ids.as_slice()).collect::<Vec<_>>(),
            [&[0, 1, 2, 3][..], &[4, 5, 6, 7], &[8]]
        );
        assert_eq!(pieces[1].labels, [2, 2, 3, 3]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn pieces_are_the_document_and_only_the_last_is_shorter(n_tokens in 0u32..300, max_length in 1usize..50) {
            let pieces = split(document(n_tokens), max_length);
            prop_assert_eq!(pieces.len(), (n_tokens as usize).div_ceil(max_length).max(1));
            let (last, whole) = pieces.split_last().unwrap();
            prop_assert!(whole.iter().all(|piece| piece.len() == max_length) && last.len() <= max_length);
            let joined = Document {
                ids: pieces.iter().flat_map(|piece| piece.ids.clone()).collect(),
                labels: pieces.iter().flat_map(|piece| piece.labels.clone()).collect(),
            };
            prop_assert_eq!(joined, document(n_tokens));
        }
    }
}
