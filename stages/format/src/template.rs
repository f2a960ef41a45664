//! Templates: the cells of a row in, the text and the spans of its prompt and completion out.
//!
//! ```text
//! alpaca             Below is an instruction ... ### Response:\n4     the prompt ends at `### Response:`,
//!                    |----------------prompt----------------|  '- completion: the output, without the `\n`
//! prompt_completion  Two and two is| four                             prompt, completion, nothing between
//! text               Once upon a time                                 no prompt; all of it is completion
//! chat, jinja        templates of a model and of the user             [`crate::templated`]
//! ```
//!
//! The newline between an Alpaca prompt and its output belongs to neither span: it is given, not to be learned as an answer,
//! and a model is prompted with text that ends at `### Response:`. Whether a token that covers it is supervised is
//! `tokenize`'s boundary rule. The texts are those of the `text` column of `tatsu-lab/alpaca`.

use pipe_records::Example;

use crate::error::FormatError;

/// What becomes the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// Stanford Alpaca's, from `instruction`, `input` (may be empty) and `output`.
    Alpaca,
    /// `prompt` and `completion`, joined with nothing between.
    PromptCompletion,
    /// `text` as it is.
    Text,
    /// Token ids as they are, no text.
    Pretokenized,
    /// The model's own template, from a conversation.
    Chat,
    /// A template of the user, from whatever columns it names.
    Jinja,
}

impl Template {
    /// Every template.
    pub const ALL: [Template; 6] = [
        Template::Alpaca,
        Template::PromptCompletion,
        Template::Text,
        Template::Pretokenized,
        Template::Chat,
        Template::Jinja,
    ];

    /// The word after `template:`.
    pub fn name(self) -> &'static str {
        match self {
            Template::Alpaca => "alpaca",
            Template::PromptCompletion => "prompt_completion",
            Template::Text => "text",
            Template::Pretokenized => "pretokenized",
            Template::Chat => "chat",
            Template::Jinja => "jinja",
        }
    }

    /// The text fields it needs, in the order in which [`Template::example`] takes their cells.
    pub fn fields(self) -> &'static [&'static str] {
        match self {
            Template::Alpaca => &["instruction", "input", "output"],
            Template::PromptCompletion => &["prompt", "completion"],
            Template::Text => &["text"],
            Template::Pretokenized | Template::Chat | Template::Jinja => &[],
        }
    }

    /// Fields that it takes where the rows have their columns.
    pub fn optional_fields(self) -> &'static [&'static str] {
        match self {
            Template::Chat => &["messages", "prompt", "completion", "system", "tools", "documents"],
            Template::Alpaca | Template::PromptCompletion => &["text"],
            Template::Text | Template::Pretokenized | Template::Jinja => &[],
        }
    }

    /// Whether `columns:` may name a column for `field`.
    pub fn uses(self, field: &str) -> bool {
        self.fields().contains(&field) || self.optional_fields().contains(&field)
    }

    /// Whether it makes a text that may stand in the rows already, to be compared.
    pub fn replaces_text(self) -> bool {
        matches!(self, Template::Alpaca | Template::PromptCompletion)
    }

    /// The example of `row`; `cells` are those of [`Template::fields`].
    ///
    /// # Errors
    /// `TooLong` when the text has more characters than a `u32` counts.
    pub fn example(self, cells: &[&str], row: u64) -> Result<Example, FormatError> {
        let (prompt, between, completion) = match (self, cells) {
            (Template::Alpaca, [instruction, input, output]) => (alpaca_prompt(instruction, input), "\n", *output),
            (Template::PromptCompletion, [prompt, completion]) => ((*prompt).to_string(), "", *completion),
            (Template::Text, [text]) => (String::new(), "", *text),
            _ => unreachable!("cells are taken by `fields`; what has none does not come here"),
        };
        let count = |text: &str| u32::try_from(text.chars().count()).map_err(|_| FormatError::TooLong { row });
        let prompt_end = count(&prompt)?;
        let text = prompt + between + completion;
        let end = count(&text)?;
        Ok(Example { prompt: 0..prompt_end, completion: end - count(completion)?..end, text, ..Example::default() })
    }
}

/// Source: the prompts of stanford_alpaca's `train.py`, as the data set's `text` column has them.
fn alpaca_prompt(instruction: &str, input: &str) -> String {
    if input.is_empty() {
        return format!(
            "Below is an instruction that describes a task. Write a response that appropriately completes the \
             request.\n\n### Instruction:\n{instruction}\n\n### Response:"
        );
    }
    format!(
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a \
         response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n\
         ### Response:"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(text: &str, span: &std::ops::Range<u32>) -> String {
        text.chars().skip(span.start as usize).take(span.len()).collect()
    }

    #[test]
    fn alpaca_without_an_input() {
        let example = Template::Alpaca.example(&["Say hé", "", "hé"], 0).unwrap();
        let expected = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\nSay hé\n\n### Response:\nhé";
        assert_eq!(example.text, expected);
        assert!(slice(&example.text, &example.prompt).ends_with("### Response:"));
        assert_eq!(slice(&example.text, &example.completion), "hé");
        assert_eq!(example.completion.start, example.prompt.end + 1);
    }

    #[test]
    fn alpaca_with_an_input() {
        let example = Template::Alpaca.example(&["Add them", "2, 2", "4"], 0).unwrap();
        let expected = "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n### Instruction:\nAdd them\n\n### Input:\n2, 2\n\n### Response:\n4";
        assert_eq!(example.text, expected);
    }

    #[test]
    fn an_empty_output_has_an_empty_completion_at_the_end() {
        let example = Template::Alpaca.example(&["a", "", ""], 0).unwrap();
        let end = example.text.chars().count() as u32;
        assert_eq!(example.completion, end..end);
    }

    #[test]
    fn the_other_templates() {
        let example = Template::PromptCompletion.example(&["ä ", "b"], 0).unwrap();
        assert_eq!(example, Example { text: "ä b".into(), prompt: 0..2, completion: 2..3, ..Example::default() });
        let example = Template::Text.example(&["äb"], 0).unwrap();
        assert_eq!(example, Example { text: "äb".into(), prompt: 0..0, completion: 0..2, ..Example::default() });
    }
}
