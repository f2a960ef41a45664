//! What is scored of an example: a document for its loss, a question for its answer.
//!
//! ```text
//! text      "Q: hi\nA: yo"                       completion 10..12
//! document   <s> Q : hi \n A : yo </s>           ids with labels, cut at `max_length`: as `tokenize` makes them
//! question   <s> Q : hi \n A :                   given; expected: "yo"
//! ```

use std::ops::Range;

use pipe_llm::{ModelConfig, Sequence};
use pipe_records::Example;
use pipe_tokenizer::{Document, Encoded, ModelTokenizer, Rules};
use rayon::prelude::*;

use crate::error::EvaluateError;

/// One example, ready to be scored.
#[derive(Clone, Debug)]
pub struct Item {
    /// Counted from 0.
    pub row: u64,
    /// Its document; nothing where no token is supervised.
    pub sequence: Option<Sequence>,
    /// Tokens that were cut off the document.
    pub n_cut_tokens: usize,
    /// What the model is asked, if answers are wanted.
    pub question: Option<Question>,
}

/// A prompt, and what is expected to follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The ids before the completion.
    pub ids: Vec<u32>,
    /// Their text.
    pub prompt: String,
    /// The text from there to the end of the completion.
    pub expected: String,
    /// Tokens of the rest of the example, and one for the end.
    pub n_expected_tokens: usize,
    /// The id with which the template ends the answer, where it does.
    pub turn_end_id: Option<u32>,
}

/// How examples become items.
pub struct ItemRules<'r> {
    /// Of the model.
    pub tokenizer: &'r ModelTokenizer,
    /// Of the model.
    pub config: &'r ModelConfig,
    /// Of the document.
    pub document: Rules,
    /// Most tokens of a document.
    pub max_length: usize,
    /// Whether answers are wanted.
    pub wants_questions: bool,
}

/// The items of `examples` (row and example), in order, made on all threads.
///
/// # Errors
/// The first example that cannot be tokenized, or has no prompt or completion where answers are wanted.
pub fn items(examples: &[(u64, Example)], rules: &ItemRules<'_>) -> Result<Vec<Item>, EvaluateError> {
    let made: Vec<Result<Item, EvaluateError>> =
        examples.par_iter().map(|(row, example)| item(*row, example, rules)).collect();
    made.into_iter().collect()
}

fn item(row: u64, example: &Example, rules: &ItemRules<'_>) -> Result<Item, EvaluateError> {
    let encoded = rules.tokenizer.encode_example(example).map_err(|source| EvaluateError::Row { row, source })?;
    let question = match rules.wants_questions {
        true => Some(question(row, example, &encoded, rules.tokenizer)?),
        false => None,
    };
    let (mut document, _) = Document::new(encoded, example, rules.document);
    let n_cut_tokens = document.truncate(rules.max_length);
    let sequence = match document.is_learnable() {
        true => Some(
            sequence(rules.config, &document).expect("the tokenizer checked the ids, and `max_length` the positions"),
        ),
        false => None,
    };
    Ok(Item { row, sequence, n_cut_tokens, question })
}

fn sequence(config: &ModelConfig, document: &Document) -> Result<Sequence, pipe_llm::LlmError> {
    let positions: Vec<u32> = (0..document.len() as u32).collect();
    Sequence::new(config, &document.ids, &document.labels, &positions, &vec![0; document.len()])
}

fn question(
    row: u64,
    example: &Example,
    encoded: &Encoded,
    tokenizer: &ModelTokenizer,
) -> Result<Question, EvaluateError> {
    let Range { start, end } = example.said();
    if example.part(0..start).trim().is_empty() {
        return Err(EvaluateError::NoPart { row, part: "prompt" });
    }
    if example.part(start..end).trim().is_empty() {
        return Err(EvaluateError::NoPart { row, part: "completion" });
    }
    let prompt = tokenizer.prompt_of(encoded, example);
    let turn_end_id = tokenizer.turn_end_id(example).map_err(|source| EvaluateError::Row { row, source })?;
    Ok(Question {
        prompt: example.part(0..prompt.end).to_string(),
        expected: example.part(prompt.end..end).to_string(),
        n_expected_tokens: encoded.ids.len() - prompt.ids.len() + 1,
        ids: prompt.ids,
        turn_end_id,
    })
}
