//! The part of an example that a model is given to go on from: the tokens before the completion.
//!
//! ```text
//! text    "Two and two is four"     completion 15..19
//! tokens   Two| and| two| is| four                   the text is tokenized whole, as for training
//! spans    0..3 3..7 7..11 11..14 14..19
//! prompt   Two| and| two| is          end 14         ` four` lies across the start: it is for the model to say
//! ```
//!
//! So the ids are those that training saw before the completion, and what is expected of the model is the text from
//! [`Prompt::end`] on. That is the completion, with the last characters of the prompt before it where a token joins them:
//! mostly white space. A token that ends where the completion starts, such as a line break, belongs to the prompt.
//!
//! It deliberately never tokenizes the prompt alone: its last token could be one that training never saw there.

/// What a model goes on from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// With what the tokenizer adds in front.
    pub ids: Vec<u32>,
    /// The characters of the text that the ids cover: at most where the completion starts.
    pub end: u32,
}

impl Prompt {
    /// `ids` and `spans`: of a whole text, without what the tokenizer adds behind it.
    pub(crate) fn new(ids: &[u32], spans: &[(u32, u32)], completion_start: u32) -> Self {
        let mut end = completion_start;
        loop {
            let n_before = spans.iter().take_while(|span| span.1 <= end).count();
            match spans.get(n_before) {
                // What lies across the start may share its first character with the token before it: then that goes too.
                Some(span) if span.0 < end => end = span.0,
                _ => return Prompt { ids: ids[..n_before].to_vec(), end },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(spans: &[(u32, u32)], completion_start: u32) -> (usize, u32) {
        let ids: Vec<u32> = (0..spans.len() as u32).collect();
        let prompt = Prompt::new(&ids, spans, completion_start);
        (prompt.ids.len(), prompt.end)
    }

    #[test]
    fn a_line_break_before_the_completion_is_given() {
        assert_eq!(prompt(&[(0, 0), (0, 3), (3, 4), (4, 8)], 4), (3, 4));
        assert_eq!(prompt(&[(0, 0), (0, 4), (4, 8)], 4), (2, 4)); // `:\n` as one token
    }

    #[test]
    fn a_token_across_the_start_is_not_given() {
        assert_eq!(prompt(&[(0, 0), (0, 3), (3, 8)], 4), (2, 3));
        assert_eq!(prompt(&[(0, 0), (0, 8)], 4), (1, 0));
    }

    #[test]
    fn a_character_is_given_whole_or_not_at_all() {
        // The second byte of the character 3 is in one token with the character 4, where the completion starts.
        assert_eq!(prompt(&[(0, 3), (3, 4), (3, 5), (5, 6)], 4), (1, 3));
        // Both bytes lie before the completion.
        assert_eq!(prompt(&[(0, 3), (3, 4), (3, 4), (4, 6)], 4), (3, 4));
    }

    #[test]
    fn characters_that_no_token_covers_change_nothing() {
        assert_eq!(prompt(&[(0, 3), (5, 8)], 5), (1, 5));
        assert_eq!(prompt(&[(0, 3)], 5), (1, 5));
    }
}
