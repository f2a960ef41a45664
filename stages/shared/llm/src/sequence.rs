//! One sequence of tokens as an engine takes it: documents, targets and positions worked out and checked.
//!
//! ```text
//! input_ids      a  b  c | d  e          labels        -  b  c | -  e        (- = not supervised)
//! position_ids   0  1  2 | 0  1          targets       b  c  - | e  -        (shifted left inside a document)
//! documents      0..3, 3..5              supervised    rows 0, 1, 3
//! ```

use std::ops::Range;

use crate::config::ModelConfig;
use crate::error::LlmError;

/// A checked sequence of T tokens: one pack, or one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// (T), below the model's vocabulary.
    pub input_ids: Vec<u32>,
    /// (T), restarting at each document.
    pub position_ids: Vec<u32>,
    /// (T), the same number for the tokens of a document: keys of dropout.
    pub example_ids: Vec<u32>,
    /// Ranges of tokens that attend to each other, in order, covering 0..T.
    pub documents: Vec<Range<usize>>,
    /// Rows whose next token is supervised, rising.
    pub supervised: Vec<u32>,
    /// The next token of each supervised row.
    pub targets: Vec<u32>,
}

impl Sequence {
    /// From columns of equal length, as Hugging Face has them: `labels` is not shifted, -100 is not supervised. A document
    /// is a run of equal `doc_ids` in which positions rise by one.
    ///
    /// # Errors
    /// Unequal lengths, no tokens, an id outside the vocabulary, a position the model has none for, a label below -100.
    pub fn new(
        config: &ModelConfig,
        input_ids: &[u32],
        labels: &[i32],
        position_ids: &[u32],
        doc_ids: &[u32],
    ) -> Result<Self, LlmError> {
        let n_tokens = input_ids.len();
        let bad = |why: String| Err(LlmError::Input { why });
        if n_tokens == 0 {
            return bad("a sequence has no tokens".into());
        }
        if labels.len() != n_tokens || position_ids.len() != n_tokens || doc_ids.len() != n_tokens {
            return bad(format!(
                "columns of a sequence differ in length: {n_tokens} input_ids, {} labels, {} position_ids, {} doc_ids",
                labels.len(),
                position_ids.len(),
                doc_ids.len()
            ));
        }
        if let Some(id) = input_ids.iter().find(|&&id| id as usize >= config.vocab_size) {
            return bad(format!("token id {id} is outside the model's vocabulary of {}", config.vocab_size));
        }
        if let Some(position) = position_ids.iter().find(|&&p| p as usize >= config.max_positions) {
            return bad(format!("position {position} is outside the {} positions of the model", config.max_positions));
        }
        let documents = documents(position_ids, doc_ids);
        let (mut supervised, mut targets) = (Vec::new(), Vec::new());
        for document in &documents {
            // The first token of a document has nothing before it to be predicted from.
            for (token, &label) in labels.iter().enumerate().take(document.end).skip(document.start + 1) {
                if label == -100 {
                    continue;
                }
                match u32::try_from(label) {
                    Ok(target) if (target as usize) < config.vocab_size => {
                        supervised.push(u32::try_from(token - 1).expect("sequences are shorter than 2^32"));
                        targets.push(target);
                    }
                    _ => {
                        return bad(format!(
                            "label {label} is neither -100 nor a token id below {}",
                            config.vocab_size
                        ));
                    }
                }
            }
        }
        Ok(Sequence {
            input_ids: input_ids.to_vec(),
            position_ids: position_ids.to_vec(),
            example_ids: doc_ids.to_vec(),
            documents,
            supervised,
            targets,
        })
    }

    /// One document whose tokens are all supervised.
    ///
    /// # Errors
    /// As [`Sequence::new`].
    pub fn plain(config: &ModelConfig, input_ids: &[u32]) -> Result<Self, LlmError> {
        let labels: Vec<i32> = input_ids.iter().map(|&id| i32::try_from(id).unwrap_or(i32::MAX)).collect();
        let positions: Vec<u32> = (0..u32::try_from(input_ids.len()).unwrap_or(u32::MAX)).collect();
        Sequence::new(config, input_ids, &labels, &positions, &vec![0; input_ids.len()])
    }

    /// T.
    pub fn len(&self) -> usize {
        self.input_ids.len()
    }

    /// Never: [`Sequence::new`] refuses it.
    pub fn is_empty(&self) -> bool {
        self.input_ids.is_empty()
    }
}

fn documents(position_ids: &[u32], doc_ids: &[u32]) -> Vec<Range<usize>> {
    let mut documents = Vec::new();
    let mut start = 0;
    for token in 1..=position_ids.len() {
        let goes_on = token < position_ids.len()
            && doc_ids[token] == doc_ids[token - 1]
            && position_ids[token] == position_ids[token - 1].wrapping_add(1);
        if !goes_on {
            documents.push(start..token);
            start = token;
        }
    }
    documents
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ModelConfig {
        ModelConfig::from_json(
            r#"{"architectures":["LlamaForCausalLM"],"hidden_size":8,"intermediate_size":12,"num_hidden_layers":1,
            "num_attention_heads":2,"vocab_size":16,"max_position_embeddings":8}"#,
        )
        .expect("valid")
    }

    #[test]
    fn a_target_never_crosses_a_document() {
        let s = Sequence::new(&config(), &[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5], &[0, 1, 2, 0, 1], &[7, 7, 7, 9, 9])
            .expect("valid");
        assert_eq!(s.documents, [0..3, 3..5]);
        assert_eq!((s.supervised.as_slice(), s.targets.as_slice()), (&[0, 1, 3][..], &[2, 3, 5][..]));
    }

    #[test]
    fn positions_alone_separate_documents() {
        let s = Sequence::new(&config(), &[1, 2, 3], &[-100, 2, 3], &[0, 1, 0], &[0, 0, 0]).expect("valid");
        assert_eq!(s.documents, [0..2, 2..3]);
        assert_eq!(s.targets, [2]);
    }

    #[test]
    fn what_the_model_cannot_take_is_refused() {
        let new = |ids: &[u32], labels: &[i32], positions: &[u32]| {
            Sequence::new(&config(), ids, labels, positions, &vec![0; ids.len()])
        };
        assert!(new(&[], &[], &[]).is_err());
        assert!(new(&[16], &[16], &[0]).is_err());
        assert!(new(&[1], &[1], &[8]).is_err());
        assert!(new(&[1, 2], &[1, -7], &[0, 1]).is_err());
        assert!(new(&[1, 2], &[1], &[0, 1]).is_err());
    }
}
