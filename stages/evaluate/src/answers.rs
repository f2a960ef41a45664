//! What the model says to every question, and whether that is the completion.
//!
//! ```text
//! given     "### Response:\n"      expected   "four"
//! answer    "four" end              a match
//!           " four\n" end           a match: white space at both ends does not count
//!           "four, I think" end     none
//!           "four" and no end       none: cut at `max_new_tokens`, it could have gone on
//! ```
//!
//! Answers are greedy: the likeliest token each time, no sampling and no penalty.

use std::collections::BTreeSet;

use pipe_contract::StageError;
use pipe_llm::generate::{GenerationSettings, Prompt, generate};
use pipe_llm::{Adapter, CandleEngine};
use pipe_tokenizer::ModelTokenizer;

use crate::items::{Item, Question};

/// What was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The text behind the prompt, without the end.
    pub text: String,
    /// Whether it is the completion.
    pub is_match: bool,
}

/// How answers are made.
pub struct Answering<'a> {
    /// The base.
    pub engine: &'a CandleEngine,
    /// Of the base.
    pub tokenizer: &'a ModelTokenizer,
    /// Ids at which an answer ends: those of the model, and those with which the template ends a turn.
    pub end_ids: BTreeSet<u32>,
    /// Most tokens of an answer.
    pub max_new_tokens: usize,
    /// Questions that run together.
    pub batch_size: usize,
}

impl Answering<'_> {
    /// The answer to every question, in order; an empty one where the prompt fills the model's positions. `check` is called
    /// while tokens are made, with the number of questions answered and of new tokens of those that run.
    ///
    /// # Errors
    /// What `check` returns; a failing tensor operation.
    pub fn answers(
        &self,
        adapter: Option<&Adapter>,
        items: &[Item],
        mut check: impl FnMut(usize, usize) -> Result<(), StageError>,
    ) -> Result<Vec<Answer>, StageError> {
        let mut answers = vec![Answer::default(); items.len()];
        let questions: Vec<(usize, &Question)> = items
            .iter()
            .enumerate()
            .filter_map(|(item_idx, item)| item.question.as_ref().map(|question| (item_idx, question)))
            .filter(|(_, question)| self.fits(question))
            .collect();
        for (batch_idx, batch) in questions.chunks(self.batch_size).enumerate() {
            let n_done = batch_idx * self.batch_size;
            let said = self.answer_batch(adapter, batch, |n_new| check(n_done, n_new))?;
            for ((item_idx, _), answer) in batch.iter().zip(said) {
                answers[*item_idx] = answer;
            }
        }
        Ok(answers)
    }

    /// Whether the model has a position left for an answer.
    pub fn fits(&self, question: &Question) -> bool {
        question.ids.len() < self.engine.n_positions()
    }

    fn answer_batch(
        &self,
        adapter: Option<&Adapter>,
        batch: &[(usize, &Question)],
        mut check: impl FnMut(usize) -> Result<(), StageError>,
    ) -> Result<Vec<Answer>, StageError> {
        let settings = GenerationSettings {
            max_new_tokens: self.max_new_tokens,
            eos_ids: self.end_ids.iter().copied().collect(),
            repetition_penalty: 1.0,
            sampling: None,
            seed: 0,
        };
        let prompts: Vec<Prompt> =
            batch.iter().map(|(_, question)| Prompt { ids: question.ids.clone(), stream: 0 }).collect();
        let never = |_: usize, _: &[u32]| false;
        let new_ids = generate(self.engine, adapter, &prompts, &settings, never, &mut check)?;
        let answer = |(question_idx, ids): (usize, &Vec<u32>)| -> Result<Answer, StageError> {
            let question = batch[question_idx].1;
            let text = self.tokenizer.continuation(&question.ids, ids)?;
            let has_room = question.ids.len() + ids.len() <= self.engine.n_positions();
            let has_ended = ids.len() < self.max_new_tokens && has_room;
            Ok(Answer { is_match: has_ended && text.trim() == question.expected.trim(), text })
        };
        new_ids.iter().enumerate().map(answer).collect()
    }
}
