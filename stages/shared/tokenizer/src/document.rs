//! One example's ids and spans become a document: ids with labels.
//!
//! ```text
//! text     "Q: hi A: yo"     completion 6..11
//! spans     0..0  0..1 1..2 2..5  5..7 7..8  8..11  11..11
//! ids       <s>   Q    :    _hi   _A   :     _yo    </s>
//! label     -     -    -    -     _A   :     _yo    </s>     the token on the boundary belongs to the completion
//! ```
//!
//! In a chat what the assistant says may be supervised alone, turn by turn, each with the token that ends it; that of the template is
//! the end, and the model's is appended only where there is none.
//!
//! Labels never look at a padding id: where padding and end are the same id, masking by id would unlearn stopping.

use std::ops::Range;

use pipe_records::packed::NOT_SUPERVISED;
use pipe_records::{Example, SpecialTokens};

use crate::Encoded;

/// Token ids with their labels, equally long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// Below the model's vocabulary size.
    pub ids: Vec<u32>,
    /// The id itself, or [`NOT_SUPERVISED`]; not shifted.
    pub labels: Vec<i32>,
}

/// How a document is made of an encoded text.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The id that ends a sequence, where the model has one.
    pub eos_id: Option<u32>,
    /// Whether it is appended where it is absent.
    pub append_eos: bool,
    /// Which tokens are supervised.
    pub supervised: Supervised,
}

/// Which tokens are supervised, besides the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supervised {
    /// All.
    Everything,
    /// Those that cover a character of the completion.
    Completion,
    /// Those that cover a character of what the assistant says.
    Assistant,
    /// Those of the assistant that are in the completion.
    AssistantInCompletion,
}

impl Supervised {
    /// By TRL's `completion_only_loss` and `assistant_only_loss`.
    pub fn of(is_completion_only: bool, is_assistant_only: bool) -> Self {
        match (is_completion_only, is_assistant_only) {
            (false, false) => Supervised::Everything,
            (true, false) => Supervised::Completion,
            (false, true) => Supervised::Assistant,
            (true, true) => Supervised::AssistantInCompletion,
        }
    }

    /// Characters whose tokens are supervised, rising; `None`: all.
    fn spans(self, example: &Example) -> Option<Vec<Range<u32>>> {
        let (completion, assistant) = (&example.completion, &example.marks.assistant);
        match self {
            Supervised::Everything => None,
            Supervised::Completion => Some(vec![completion.clone()]),
            Supervised::Assistant => Some(assistant.clone()),
            Supervised::AssistantInCompletion => {
                let within = |turn: &Range<u32>| turn.start.max(completion.start)..turn.end.min(completion.end);
                Some(assistant.iter().map(within).filter(|turn| !turn.is_empty()).collect())
            }
        }
    }
}

impl Document {
    /// The document of `encoded`, the ids of `example`, and whether a token lies across the start of what is supervised.
    ///
    /// # Panics
    /// On an id above `i32::MAX`: the vocabulary size is checked before the first text.
    pub fn new(encoded: Encoded, example: &Example, rules: Rules) -> (Self, bool) {
        let Encoded { mut ids, spans } = encoded;
        let mut has_boundary_token = false;
        let supervised = rules.supervised.spans(example);
        let mut labels: Vec<i32> = match &supervised {
            None => ids.iter().map(|id| label(*id)).collect(),
            Some(supervised) => {
                let across = |at: u32| spans.iter().any(|span| span.0 < at && at < span.1);
                has_boundary_token = supervised.iter().any(|span| across(span.start));
                let is_in = |span: (u32, u32)| supervised.iter().any(|supervised| overlaps(span, supervised));
                let covered = ids.iter().zip(&spans);
                covered.map(|(id, span)| if is_in(*span) { label(*id) } else { NOT_SUPERVISED }).collect()
            }
        };
        if let Some(eos_id) = rules.eos_id {
            match example.marks.special_tokens {
                // A turn that the template ends is ended, and what is learned of it is known.
                SpecialTokens::Template => {
                    if rules.append_eos && has_open_end(example, supervised.as_deref()) {
                        ids.push(eos_id);
                        labels.push(label(eos_id));
                    }
                }
                SpecialTokens::Tokenizer | SpecialTokens::Both => {
                    if rules.append_eos && ids.last() != Some(&eos_id) {
                        ids.push(eos_id);
                        labels.push(NOT_SUPERVISED);
                    }
                    // Without it the model never learns to stop.
                    if let (Some(&last_id), Some(last_label)) = (ids.last(), labels.last_mut())
                        && last_id == eos_id
                    {
                        *last_label = label(eos_id);
                    }
                }
            }
        }
        (Document { ids, labels }, has_boundary_token)
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether it has no tokens: an empty text of a model without special ids.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Keeps the first `max_length` tokens; returns how many were cut off.
    pub fn truncate(&mut self, max_length: usize) -> usize {
        let n_cut = self.len().saturating_sub(max_length);
        self.ids.truncate(max_length);
        self.labels.truncate(max_length);
        n_cut
    }

    /// Whether a model can learn from it: a supervised token that has one before it to be predicted from.
    pub fn is_learnable(&self) -> bool {
        self.labels.iter().skip(1).any(|label| *label != NOT_SUPERVISED)
    }
}

/// Whether an answer at the end of a chat is to be learned, and the template puts no special token behind it.
fn has_open_end(example: &Example, supervised: Option<&[Range<u32>]>) -> bool {
    let is_learned = match supervised {
        None => true,
        Some(supervised) => supervised.last().is_some_and(|last| last.end >= example.completion.end),
    };
    !example.completion.is_empty() && is_learned && example.said() == example.completion
}

/// A token that covers nothing belongs to the completion only inside of it: what stands at its edges, such as the
/// beginning of the sequence before a text without prompt, does not.
fn overlaps(span: (u32, u32), completion: &Range<u32>) -> bool {
    let (start, end) = span;
    if start == end {
        return completion.start < start && start < completion.end;
    }
    start < completion.end && end > completion.start
}

fn label(id: u32) -> i32 {
    i32::try_from(id).expect("ids are below the vocabulary size, which is checked to fit before the first row")
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipe_records::Marks;

    const NONE: i32 = NOT_SUPERVISED;

    fn encoded(tokens: &[(u32, (u32, u32))]) -> Encoded {
        Encoded { ids: tokens.iter().map(|t| t.0).collect(), spans: tokens.iter().map(|t| t.1).collect() }
    }

    fn completion(completion: Range<u32>) -> Example {
        Example { completion, ..Example::default() }
    }

    fn rules(supervised: Supervised) -> Rules {
        Rules { eos_id: Some(2), append_eos: true, supervised }
    }

    /// <s>, then tokens of 3 characters each: 0..3, 3..6, 6..9.
    fn three() -> Encoded {
        encoded(&[(1, (0, 0)), (10, (0, 3)), (11, (3, 6)), (12, (6, 9))])
    }

    #[test]
    fn without_a_completion_rule_every_token_is_supervised() {
        let (document, boundary) = Document::new(three(), &completion(6..9), rules(Supervised::Everything));
        assert_eq!(document.ids, [1, 10, 11, 12, 2]);
        assert_eq!(document.labels, [1, 10, 11, 12, 2]);
        assert!(!boundary);
    }

    #[test]
    fn the_completion_and_the_end_are_supervised() {
        let (document, boundary) = Document::new(three(), &completion(6..9), rules(Supervised::Completion));
        assert_eq!(document.labels, [NONE, NONE, NONE, 12, 2]);
        assert!(!boundary);
    }

    #[test]
    fn a_token_on_the_boundary_belongs_to_the_completion() {
        let (document, boundary) = Document::new(three(), &completion(5..9), rules(Supervised::Completion));
        assert_eq!(document.labels, [NONE, NONE, 11, 12, 2]);
        assert!(boundary);
    }

    #[test]
    fn what_stands_behind_the_completion_is_not_supervised() {
        let (document, _) = Document::new(three(), &completion(3..6), rules(Supervised::Completion));
        assert_eq!(document.labels, [NONE, NONE, 11, NONE, 2]);
    }

    #[test]
    fn a_text_that_is_all_completion_leaves_the_beginning_out() {
        let (document, _) = Document::new(three(), &completion(0..9), rules(Supervised::Completion));
        assert_eq!(document.labels, [NONE, 10, 11, 12, 2]);
    }

    #[test]
    fn several_tokens_of_one_character_go_together() {
        let tokens = encoded(&[(10, (0, 1)), (20, (1, 2)), (21, (1, 2)), (22, (1, 2)), (11, (2, 3))]);
        let (document, _) = Document::new(tokens, &completion(1..2), rules(Supervised::Completion));
        assert_eq!(document.labels, [NONE, 20, 21, 22, NONE, 2]);
    }

    #[test]
    fn an_end_that_is_there_is_not_doubled_and_is_supervised() {
        let tokens = || encoded(&[(10, (0, 3)), (2, (3, 3))]);
        for append_eos in [true, false] {
            let rules = Rules { append_eos, ..rules(Supervised::Completion) };
            let (document, _) = Document::new(tokens(), &completion(0..3), rules);
            assert_eq!((document.ids, document.labels), (vec![10, 2], vec![10, 2]));
        }
    }

    #[test]
    fn an_id_that_is_also_padding_is_supervised_like_any_other() {
        // XGen: the padding id 0 is "!".
        let tokens = encoded(&[(10, (0, 1)), (0, (1, 2))]);
        let (document, _) = Document::new(tokens, &completion(1..2), rules(Supervised::Completion));
        assert_eq!(document.labels, [NONE, 0, 2]);
    }

    #[test]
    fn truncation_may_eat_the_whole_completion() {
        let (mut document, _) = Document::new(three(), &completion(6..9), rules(Supervised::Completion));
        assert!(document.is_learnable());
        assert_eq!(document.truncate(3), 2);
        assert_eq!(document.ids, [1, 10, 11]);
        assert!(!document.is_learnable());
    }

    #[test]
    fn the_first_token_alone_teaches_nothing() {
        let (document, _) = Document::new(encoded(&[]), &completion(0..0), rules(Supervised::Everything));
        assert_eq!(document.labels, [2]);
        assert!(!document.is_learnable());
    }

    /// `U: a|A: b|` twice, as tokens of one character but for `|`, which is special: id 2.
    fn chat(n_answers: usize) -> (Encoded, Example) {
        let text: String = "ua|Ab|".repeat(2);
        let tokens: Vec<(u32, (u32, u32))> =
            text.chars().zip(0..).map(|(c, at)| (if c == '|' { 2 } else { 10 + at }, (at, at + 1))).collect();
        let turns = [4..6, 10..12];
        let control = [2, 5, 8, 11].map(|at| at..at + 1).to_vec();
        let marks = Marks { assistant: turns[..n_answers].to_vec(), control, special_tokens: SpecialTokens::Template };
        (encoded(&tokens), Example { text, prompt: 0..10, completion: 10..12, marks })
    }

    fn supervised(document: &Document) -> Vec<usize> {
        (0..document.len()).filter(|t| document.labels[*t] != NONE).collect()
    }

    #[test]
    fn each_turn_of_the_assistant_is_supervised_with_its_end() {
        let made = |n_answers, how| {
            let (encoded, example) = chat(n_answers);
            let (document, boundary) = Document::new(encoded, &example, rules(how));
            assert_eq!((document.len(), boundary), (12, false), "nothing is appended");
            supervised(&document)
        };
        assert_eq!(made(2, Supervised::Assistant), [4, 5, 10, 11]);
        assert_eq!(made(2, Supervised::AssistantInCompletion), [10, 11]);
        assert_eq!(made(2, Supervised::Completion), [10, 11]);
        assert_eq!(made(2, Supervised::Everything).len(), 12);
        // An answer that is not to be learned does not teach its end either.
        assert_eq!(made(1, Supervised::Assistant), [4, 5]);
        assert!(made(1, Supervised::AssistantInCompletion).is_empty());
    }

    #[test]
    fn an_answer_that_the_template_does_not_end_gets_an_end() {
        let (encoded, mut example) = chat(2);
        example.marks.control.clear();
        let (document, _) = Document::new(encoded.clone(), &example, rules(Supervised::Assistant));
        assert_eq!((document.len(), supervised(&document)), (13, vec![4, 5, 10, 11, 12]));
        // Nobody has answered yet: there is nothing to end.
        example.completion = 12..12;
        let (document, _) = Document::new(encoded, &example, rules(Supervised::Everything));
        assert_eq!(document.len(), 12);
    }

    #[test]
    fn a_token_across_the_start_of_a_turn_is_of_the_turn() {
        let (mut encoded, example) = chat(2);
        encoded.spans[3] = (3, 5);
        let (document, boundary) = Document::new(encoded, &example, rules(Supervised::Assistant));
        assert_eq!((supervised(&document), boundary), (vec![3, 4, 5, 10, 11], true));
    }
}
