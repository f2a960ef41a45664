//! Where the assistant speaks, in the text of a template that does not say.
//!
//! ```text
//! before   render(messages[..i], add_generation_prompt)     <|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n
//! after    render(messages[..=i])                           ...<|im_start|>assistant\nyo<|im_end|>\n
//! text     render(messages)                                 ...<|im_start|>assistant\nyo<|im_end|>\n<|im_start|>user...
//! turn     text[before.len()..after.len()]                                           yo<|im_end|>
//! ```
//!
//! Where `before` and `after` begin the whole text, that is exact by definition: `before` is what the model is given, and the
//! rest is what it is to say. White space behind the token that ends the turn is not said by the model.
//!
//! Some templates show earlier turns in another way than the last one: Qwen3 leaves their thinking out, and opens an empty
//! one in the last. There the answer is marked in the data, and found in the whole text by its marks; it must begin behind
//! the generation prompt, or as much of it as is shown, and end with what stands behind it when it is the last. A turn of which the
//! template leaves something out is no longer what the model said: it is [`Turn::Changed`], and not learned. All else is
//! refused.

use std::ops::Range;

use minijinja::Value;
use minijinja::value::ValueKind;

use crate::TemplateError;
use crate::chat::{Session, is_assistant};
use crate::marks::{TURN_END, TURN_START, take_pairs};
use crate::python::is_space;

/// What became of a message of the assistant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// All of it is here, with the token that ends it.
    Whole(Range<usize>),
    /// The template leaves some of it out.
    Changed,
}

/// Finds turns in one text.
pub(crate) struct Turns<'t> {
    pub(crate) session: &'t Session<'t>,
    /// Of all messages.
    pub(crate) text: &'t str,
    /// Whether the text ends with the generation prompt.
    pub(crate) is_prompted: bool,
    /// Special tokens that the template wrote.
    pub(crate) control: &'t [Range<usize>],
}

impl Turns<'_> {
    /// Message and turn for each of the assistant's messages, or for the last message alone.
    pub(crate) fn of_messages(&self, all: bool) -> Result<Vec<(usize, Turn)>, TemplateError> {
        let messages = &self.session.conversation.messages;
        let first = if all { 0 } else { messages.len() - 1 };
        let (mut turns, mut least) = (Vec::new(), 0);
        for index in (first..messages.len()).filter(|index| is_assistant(&messages[*index])) {
            let turn = self.of_message(index, least)?;
            if let Turn::Whole(range) = &turn {
                least = range.end;
            }
            turns.push((index, turn));
        }
        Ok(turns)
    }

    /// The same by the `{% generation %}` blocks of the template: one for each message of the assistant, or else numbered.
    pub(crate) fn of_blocks(&self, blocks: &[Range<usize>]) -> Result<Vec<(usize, Turn)>, TemplateError> {
        let conversation = self.session.conversation;
        let messages = conversation.messages.iter().enumerate();
        let of_assistant: Vec<usize> =
            messages.filter(|(_, message)| is_assistant(message)).map(|(index, _)| index).collect();
        if blocks.len() == of_assistant.len() {
            let turns = blocks.iter().map(|block| Turn::Whole(block.clone()));
            return Ok(of_assistant.into_iter().zip(turns).collect());
        }
        match conversation.not_learned.first() {
            Some(message) => {
                Err(self.no_turn(*message, "there are more or fewer `{% generation %}` blocks than answers"))
            }
            None => Ok(blocks.iter().map(|block| (usize::MAX, Turn::Whole(block.clone()))).collect()),
        }
    }

    /// Where the first `n_messages` end and the model would go on.
    pub(crate) fn prompt_end(&self, n_messages: usize) -> Result<usize, TemplateError> {
        let messages = &self.session.conversation.messages;
        let is_answered = messages[..n_messages].last().is_some_and(is_assistant);
        let before = self.session.text(&messages[..n_messages], !is_answered)?;
        if self.text.starts_with(&before) {
            return Ok(before.len());
        }
        match is_assistant(&messages[n_messages]).then(|| self.of_message(n_messages, 0)).transpose()? {
            Some(Turn::Whole(range)) => Ok(range.start),
            _ => Err(self.no_turn(n_messages, "the text of the prompt alone is not the beginning of the whole text")),
        }
    }

    /// `index`: of a message of the assistant. `least`: where the turn before it ends.
    fn of_message(&self, index: usize, least: usize) -> Result<Turn, TemplateError> {
        let messages = &self.session.conversation.messages;
        let before = self.session.text(&messages[..index], true).ok();
        let is_last = index + 1 == messages.len();
        let after = match is_last {
            true => Some(self.text.to_string()),
            false => self.session.text(&messages[..=index], false).ok(),
        };
        let is_start = |text: &String| self.text.starts_with(text.as_str());
        if let (Some(before), Some(after)) = (before.as_ref().filter(|t| is_start(t)), after.filter(is_start))
            && before.len() >= least
            && before.len() <= after.len()
        {
            let turn = before.len()..self.without_white_space(before.len(), after.len());
            return Ok(self.checked(index, turn));
        }
        self.by_marks(index, before.as_deref(), least)
    }

    fn by_marks(&self, index: usize, before: Option<&str>, least: usize) -> Result<Turn, TemplateError> {
        let messages = &self.session.conversation.messages;
        let is_last = index + 1 == messages.len();
        let mut marked = messages.clone();
        marked[index] = mark_message(&messages[index]);
        let whole = self.session.text(&marked, self.is_prompted)?;
        let (plain, pairs) = take_pairs(&whole, TURN_START, TURN_END);
        if plain != self.text {
            return Err(self.no_turn(index, "it gives another text where the answer is marked"));
        }
        let Some(said) = pairs.as_deref().and_then(hull) else { return Ok(Turn::Changed) };
        if said.start < least {
            return Err(self.no_turn(index, "it stands before the end of the answer before it"));
        }
        let alone = self.session.text(&marked[..=index], false)?;
        let (alone, pairs) = take_pairs(&alone, TURN_START, TURN_END);
        let Some(said_alone) = pairs.as_deref().and_then(hull) else { return Ok(Turn::Changed) };
        let start = self.start(index, before, &alone[..said_alone.start], least..said.start)?;
        let end = match is_last {
            true => self.text.len(),
            false => {
                let end = self.end(said.end, &alone[said_alone.end..]);
                end.ok_or_else(|| self.no_turn(index, "another text follows it when it is the last"))?
            }
        };
        Ok(self.checked(index, start..self.without_white_space(start, end)))
    }

    /// Where a turn begins whose first marked character is at `room.end`; the turn before it ends at `room.start`.
    /// `head`: the text before that character where the turn is the last.
    fn start(
        &self,
        index: usize,
        before: Option<&str>,
        head: &str,
        room: Range<usize>,
    ) -> Result<usize, TemplateError> {
        let before = before.filter(|before| self.text.starts_with(before));
        if let Some(before) = before.filter(|before| room.start <= before.len() && before.len() <= room.end) {
            return Ok(before.len());
        }
        let prompt = self.generation_prompt(index)?;
        if prompt.is_empty() {
            return Err(self.no_turn(index, "there is no generation prompt"));
        }
        // The template may open more for the turn that is to come (`<think>`) than it shows of the turns that were.
        let shown = (1..=prompt.len()).rev().filter_map(|n_bytes| prompt.get(..n_bytes));
        let found = shown.filter_map(|shown| Some((self.text[room.clone()].rfind(shown)?, shown.len()))).next();
        let (at, n_bytes) =
            found.ok_or_else(|| self.no_turn(index, "the generation prompt does not stand before it"))?;
        let (shown, start) = (room.start + at, room.start + at + n_bytes);
        let is_known = self.text[start..room.end].chars().all(is_space) || head.ends_with(&self.text[shown..room.end]);
        if is_known { Ok(start) } else { Err(self.no_turn(index, "another text stands before it when it is the last")) }
    }

    /// What `add_generation_prompt` adds before message `index`; where that cannot be rendered alone, behind it.
    fn generation_prompt(&self, index: usize) -> Result<String, TemplateError> {
        let messages = &self.session.conversation.messages;
        let added = |messages: &[Value]| -> Result<String, TemplateError> {
            let (with, without) = (self.session.text(messages, true)?, self.session.text(messages, false)?);
            let same = with.char_indices().zip(without.chars()).find(|((_, a), b)| a != b);
            Ok(with[same.map_or(without.len().min(with.len()), |((at, _), _)| at)..].to_string())
        };
        added(&messages[..index]).or_else(|_| added(&messages[..=index]))
    }

    /// Where a turn ends whose last marked character is before `said_end`. `tail`: the text behind it where the turn is the
    /// last, of which the token that ends the turn is enough: Phi-3 ends the whole conversation too.
    fn end(&self, said_end: usize, tail: &str) -> Option<usize> {
        let first = self.session.chat.special().find(tail).into_iter().next();
        let first = first.filter(|token| tail[..token.start].chars().all(is_space)).map(|token| &tail[..token.end]);
        let tails = [Some(tail), Some(tail.trim_end_matches(is_space)), first];
        let tail = tails.into_iter().flatten().find(|tail| self.text[said_end..].starts_with(tail))?;
        Some(said_end + tail.len())
    }

    /// Without the white space behind the token that ends it.
    pub(crate) fn without_white_space(&self, start: usize, end: usize) -> usize {
        let last = self.control.iter().rfind(|control| start <= control.start && control.end <= end);
        match last {
            Some(control) if self.text[control.end..end].chars().all(is_space) => control.end,
            _ => end,
        }
    }

    /// Whether all that the message says is in the turn, white space aside.
    fn checked(&self, index: usize, turn: Range<usize>) -> Turn {
        let squeeze = |text: &str| text.chars().filter(|character| !is_space(*character)).collect::<String>();
        let shown = squeeze(&self.text[turn.clone()]);
        let is_shown = |said: &str| shown.contains(&squeeze(said));
        let message = &self.session.conversation.messages[index];
        let said = |name: &str| message.get_attr(name).ok().filter(|value| value.as_str().is_some());
        let texts = ["content", "reasoning_content"].into_iter().filter_map(said);
        // A template that knows no tools shows nothing of a call, and a call without its name is none.
        match texts.chain(called(message)).all(|text| is_shown(text.as_str().unwrap_or_default())) {
            true => Turn::Whole(turn),
            false => Turn::Changed,
        }
    }

    fn no_turn(&self, message: usize, why: &'static str) -> TemplateError {
        TemplateError::NoTurn { template: self.session.template().name().to_string(), message, why }
    }
}

/// The names of the functions that a message calls.
fn called(message: &Value) -> impl Iterator<Item = Value> {
    let calls = message.get_attr("tool_calls").ok().and_then(|calls| calls.try_iter().ok());
    calls.into_iter().flatten().filter_map(|call| {
        let function = call.get_attr("function").ok().filter(|function| !function.is_undefined());
        function.unwrap_or(call).get_attr("name").ok()
    })
}

/// From the start of the first to the end of the last.
fn hull(pairs: &[Range<usize>]) -> Option<Range<usize>> {
    let (first, last) = (pairs.first()?, pairs.last()?);
    Some(first.start..last.end)
}

/// The message with marks around each thing it says: its content, its reasoning, the names and arguments of its calls.
fn mark_message(message: &Value) -> Value {
    let pairs = message.as_object().and_then(|object| object.try_iter_pairs()).into_iter().flatten();
    Value::from_pairs(pairs.map(|(key, value)| {
        let value = match key.as_str() {
            Some("content" | "reasoning_content" | "thinking" | "reasoning") => mark_texts(&value, &["text"]),
            Some("tool_calls") => mark_texts(&value, &["name", "arguments", "parameters"]),
            _ => value,
        };
        (key, value)
    }))
}

/// Texts of a value; of maps, those under `keys` and all that is below these.
fn mark_texts(value: &Value, keys: &[&str]) -> Value {
    match (value.as_str(), value.kind()) {
        (Some(text), _) => Value::from(mark_text(text)),
        (None, ValueKind::Seq) => value.try_iter().into_iter().flatten().map(|item| mark_texts(&item, keys)).collect(),
        (None, ValueKind::Map) => {
            let pairs = value.as_object().and_then(|object| object.try_iter_pairs()).into_iter().flatten();
            Value::from_pairs(pairs.map(|(key, value)| {
                let is_said = keys.is_empty() || keys.iter().any(|wanted| key.as_str() == Some(*wanted));
                let marked = match (is_said, value.as_str()) {
                    (true, _) => mark_texts(&value, &[]),
                    (false, None) => mark_texts(&value, keys),
                    (false, Some(_)) => value,
                };
                (key, marked)
            }))
        }
        _ => value.clone(),
    }
}

/// Marks inside of the white space at its ends, which templates trim; nothing where there is only white space, which
/// templates ask for.
fn mark_text(text: &str) -> String {
    let said = text.trim_matches(is_space);
    if said.is_empty() {
        return text.to_string();
    }
    let start = text.len() - text.trim_start_matches(is_space).len();
    let (before, after) = (&text[..start], &text[start + said.len()..]);
    format!("{before}{TURN_START}{said}{TURN_END}{after}")
}
