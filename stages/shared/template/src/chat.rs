//! Conversations to texts, with what a training run has to know of them.
//!
//! ```text
//! Conversation { messages, tools }  --Chat::format-->  Formatted { text, prompt, completion, assistant, control }
//! ```
//!
//! The variables of a template are those of transformers' `apply_chat_template`: `messages`, `tools`, `documents`,
//! `add_generation_prompt`, the special tokens, and further ones of the user (`enable_thinking`).
//!
//! The prompt ends where a model would begin to speak: behind the generation prompt. A conversation whose last message is
//! not the assistant's is all prompt, and ends with the generation prompt.

use std::ops::Range;

use minijinja::Value;
use minijinja::value::ValueKind;

use crate::turns::{Turn, Turns};
use crate::{Date, ModelTemplates, SpecialTexts, Template, TemplateError};

/// The template of a model, or of the user, ready for conversations.
pub struct Chat {
    plain: Template,
    /// Where a model has another one for conversations with tools.
    with_tools: Option<Template>,
    special: SpecialTexts,
    variables: Vec<(String, Value)>,
}

/// What becomes one text.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// Maps with `role`, `content`, `tool_calls`, ..., as transformers takes them.
    pub messages: Vec<Value>,
    /// A list of tools as JSON schemas.
    pub tools: Option<Value>,
    /// A list of maps with `title` and `text`.
    pub documents: Option<Value>,
    /// How many of the messages are the prompt, where the row says so.
    pub n_prompt: Option<usize>,
    /// Messages that are not to be learned, by their index, rising.
    pub not_learned: Vec<usize>,
}

/// A text with its parts. Ranges are bytes of the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Formatted {
    /// Everything.
    pub text: String,
    /// Where the prompt ends; it begins at 0.
    pub prompt_end: usize,
    /// What the model is to say to the prompt, with the token that ends its turn; empty, at the end, where there is nothing.
    pub completion: Range<usize>,
    /// What the assistant says, turn by turn, each with the token that ends it; rising, apart, none empty.
    pub assistant: Vec<Range<usize>>,
    /// Special tokens that the template wrote, rising.
    pub control: Vec<Range<usize>>,
    /// Turns of the assistant that the template does not show as they were said: they are not in `assistant`.
    pub n_changed_turns: usize,
}

impl Chat {
    /// Compiles the templates of `model`, or `own` (name and source) instead. `special`: of the tokenizer; `variables`:
    /// further ones, which win over special tokens.
    ///
    /// # Errors
    /// `NoChatTemplate`, `NoDefault`, `Syntax`.
    pub fn new(
        model: &ModelTemplates,
        own: Option<(&str, &str)>,
        special: SpecialTexts,
        variables: Vec<(String, Value)>,
        date: Option<Date>,
    ) -> Result<Self, TemplateError> {
        let compile = |(name, source): (&str, &str)| Template::compile(name, source, date);
        let (plain, with_tools) = match own {
            Some(own) => (compile(own)?, None),
            None => {
                let (plain, with_tools) = (model.chat(false), model.chat(true)?);
                // A model may have a template for tools alone.
                let plain = plain.unwrap_or(with_tools);
                (compile(plain)?, (plain != with_tools).then(|| compile(with_tools)).transpose()?)
            }
        };
        let variables = model.variables().chain(variables).collect();
        Ok(Chat { plain, with_tools, special, variables })
    }

    /// The text of `conversation`. `wants_turns`: whether [`Formatted::assistant`] is wanted, for which a template without
    /// `{% generation %}` is rendered once more for each turn.
    ///
    /// # Errors
    /// What the template raises; `NoTurn` where it does not show a turn that is wanted; `MarksVisible`; `ReservedCharacter`.
    pub fn format(&self, conversation: &Conversation, wants_turns: bool) -> Result<Formatted, TemplateError> {
        let messages: Vec<Value> = conversation.messages.iter().map(normal_message).collect();
        let conversation = Conversation { messages, ..conversation.clone() };
        let data = [Value::from(conversation.messages.clone())];
        let extra = conversation.tools.iter().chain(&conversation.documents);
        let data: Vec<&Value> = data.iter().chain(extra).collect();
        let needs_marks = self.special.needs_marks(&data)?;
        let is_answered = conversation.messages.last().is_some_and(is_assistant);
        let session = Session { chat: self, conversation: &conversation };
        let rendered = session.template().render(&session.context(&conversation.messages, !is_answered))?;
        let control = match needs_marks {
            false => self.special.find(&rendered.text),
            true => session.control(&rendered.text, !is_answered)?,
        };
        let turns = Turns { session: &session, text: &rendered.text, is_prompted: !is_answered, control: &control };
        let mut formatted = Formatted::default();
        if wants_turns || (is_answered && conversation.n_prompt.is_none()) {
            let found = match session.template().has_generation() {
                true => turns.of_blocks(&rendered.generation)?,
                false => turns.of_messages(wants_turns)?,
            };
            formatted.n_changed_turns = found.iter().filter(|(_, turn)| *turn == Turn::Changed).count();
            formatted.completion = match found.last() {
                Some((_, Turn::Whole(range))) if is_answered => range.clone(),
                _ => rendered.text.len()..rendered.text.len(),
            };
            let learned = found.into_iter().filter(|(message, _)| !conversation.not_learned.contains(message));
            let ranges = learned.filter_map(|(_, turn)| match turn {
                Turn::Whole(range) if wants_turns && !range.is_empty() => Some(range),
                _ => None,
            });
            formatted.assistant = ranges.collect();
        } else {
            formatted.completion = rendered.text.len()..rendered.text.len();
        }
        if let Some(n_prompt) = conversation.n_prompt.filter(|n_prompt| *n_prompt < conversation.messages.len()) {
            let start = turns.prompt_end(n_prompt)?;
            formatted.completion = start..turns.without_white_space(start, rendered.text.len());
        }
        formatted.prompt_end = formatted.completion.start;
        Ok(Formatted { text: rendered.text, control, ..formatted })
    }
}

impl Chat {
    pub(crate) fn special(&self) -> &SpecialTexts {
        &self.special
    }
}

/// One conversation with the template that is its.
pub(crate) struct Session<'s> {
    pub(crate) chat: &'s Chat,
    pub(crate) conversation: &'s Conversation,
}

impl Session<'_> {
    pub(crate) fn template(&self) -> &Template {
        match (&self.chat.with_tools, &self.conversation.tools) {
            (Some(template), Some(_)) => template,
            _ => &self.chat.plain,
        }
    }

    /// The text of some of the messages.
    pub(crate) fn text(&self, messages: &[Value], add_generation_prompt: bool) -> Result<String, TemplateError> {
        Ok(self.template().render(&self.context(messages, add_generation_prompt))?.text)
    }

    fn context(&self, messages: &[Value], add_generation_prompt: bool) -> Value {
        let (tools, documents) = (self.conversation.tools.clone(), self.conversation.documents.clone());
        self.context_of(Value::from(messages.to_vec()), tools, documents, add_generation_prompt)
    }

    fn context_of(
        &self,
        messages: Value,
        tools: Option<Value>,
        documents: Option<Value>,
        add_generation_prompt: bool,
    ) -> Value {
        let given = [
            ("messages", messages),
            ("tools", Value::from(tools)),
            ("documents", Value::from(documents)),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
        ];
        let given = given.into_iter().map(|(name, value)| (name.to_string(), value));
        Value::from_pairs(self.chat.variables.iter().cloned().chain(given))
    }

    /// The special tokens of `text` that the template wrote, by a rendering of marked data.
    fn control(&self, text: &str, add_generation_prompt: bool) -> Result<Vec<Range<usize>>, TemplateError> {
        let special = &self.chat.special;
        let mark = |value: &Option<Value>| value.as_ref().map(|value| special.mark(value));
        let messages = special.mark(&Value::from(self.conversation.messages.clone()));
        let (tools, documents) = (mark(&self.conversation.tools), mark(&self.conversation.documents));
        let context = self.context_of(messages, tools, documents, add_generation_prompt);
        let marked = self.template().render(&context)?.text;
        let visible = || TemplateError::MarksVisible { template: self.template().name().to_string() };
        special.control(text, &marked).ok_or_else(visible)
    }
}

/// Whether the model says this message.
pub(crate) fn is_assistant(message: &Value) -> bool {
    let role = message.get_attr("role").unwrap_or_default();
    // Gemma's name for it is in some data sets.
    matches!(role.as_str(), Some("assistant" | "model"))
}

/// A message as transformers gives it to a template: without entries that are null, and with its reasoning under each name
/// that templates read. Source: `apply_chat_template` and `_alias_reasoning_fields`.
fn normal_message(message: &Value) -> Value {
    if message.kind() != ValueKind::Map {
        return message.clone();
    }
    let pairs = message.as_object().and_then(|object| object.try_iter_pairs()).into_iter().flatten();
    let mut entries: Vec<(Value, Value)> = pairs.filter(|(_, value)| !value.is_none()).collect();
    let value_of = |entries: &[(Value, Value)], name: &str| {
        entries.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value.clone())
    };
    let names = ["reasoning_content", "thinking", "reasoning"];
    if let Some(reasoning) = names.into_iter().find_map(|name| value_of(&entries, name)) {
        if value_of(&entries, "thinking").is_none() {
            entries.insert(0, (Value::from("thinking"), reasoning.clone()));
        }
        match entries.iter_mut().find(|(key, _)| key.as_str() == Some("reasoning_content")) {
            Some(entry) => entry.1 = reasoning,
            None => entries.push((Value::from("reasoning_content"), reasoning)),
        }
    }
    Value::from_pairs(entries)
}
