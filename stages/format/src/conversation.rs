//! Rows to conversations, from each of the forms that data sets have.
//!
//! ```text
//! messages       [{role: user, content: "hi"}, {role: assistant, content: "yo", tool_calls: [...]}]
//! conversations  [{from: human, value: "hi"}, {from: gpt, value: "yo"}]           ShareGPT: also system, function_call,
//!                                                                                 observation, tool
//! prompt, completion     lists of messages, or two texts: a question and its answer
//! system         a text that comes first      tools, documents     lists, or text of JSON
//! ```
//!
//! Messages come out as transformers takes them: a content of text parts is one text, arguments of calls that are text of JSON
//! become what they say, a tool without its `function` around it gets it. A weight of 0 (`weight`, `loss_weight`, `train`) on an
//! answer means that it is not to be learned. What is not understood is an error with its row and message, never left out.

use pipe_template::{Conversation, Value};

use crate::cells::parsed;
use crate::error::FormatError;

/// Which columns a conversation is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConversationForm {
    /// A column of messages.
    Messages,
    /// A column of prompts and one of completions.
    PromptCompletion,
}

/// The cells of one row; none where there is no such column.
#[derive(Clone, Debug, Default)]
pub struct Cells {
    /// Of `messages` or `conversations`.
    pub messages: Value,
    /// Of `prompt`.
    pub prompt: Value,
    /// Of `completion`.
    pub completion: Value,
    /// Of `system`.
    pub system: Value,
    /// Of `tools`.
    pub tools: Value,
    /// Of `documents`.
    pub documents: Value,
}

/// Keys of a message that say whether it is learned.
const WEIGHTS: [&str; 3] = ["weight", "loss_weight", "train"];

/// The conversation of `row`.
///
/// # Errors
/// `BadMessage`, `BadColumn` and `NoMessages`, with the row.
pub fn conversation(cells: Cells, form: ConversationForm, row: u64) -> Result<Conversation, FormatError> {
    let mut reading = Reading { row, conversation: Conversation::default() };
    if let Some(text) = cells.system.as_str().filter(|text| !text.is_empty()) {
        reading.conversation.messages.push(message("system", text));
    }
    match form {
        ConversationForm::Messages => reading.read_messages(cells.messages, "messages", "user")?,
        ConversationForm::PromptCompletion => {
            reading.read_messages(cells.prompt, "prompt", "user")?;
            reading.conversation.n_prompt = Some(reading.conversation.messages.len());
            reading.read_messages(cells.completion, "completion", "assistant")?;
        }
    }
    if reading.conversation.messages.is_empty() {
        return Err(FormatError::NoMessages { row });
    }
    reading.conversation.tools = reading.list(cells.tools, "tools")?.map(|tools| tools.into_iter().map(tool).collect());
    reading.conversation.documents =
        reading.list(cells.documents, "documents")?.map(|documents| documents.into_iter().collect());
    Ok(reading.conversation)
}

struct Reading {
    row: u64,
    conversation: Conversation,
}

impl Reading {
    /// A list of messages, or a text as one message of `role`.
    fn read_messages(&mut self, cell: Value, column: &'static str, role: &'static str) -> Result<(), FormatError> {
        let is_text = cell.as_str().is_some_and(|text| !text.trim_start().starts_with('['));
        if column != "messages" && is_text {
            self.conversation.messages.push(message(role, cell.as_str().unwrap_or_default()));
            return Ok(());
        }
        for item in self.list(cell, column)?.unwrap_or_default() {
            let read = read_message(&item).map_err(|problem| FormatError::BadMessage {
                row: self.row,
                message: self.conversation.messages.len(),
                problem,
            })?;
            if !read.is_learned {
                self.conversation.not_learned.push(self.conversation.messages.len());
            }
            self.conversation.messages.push(read.message);
        }
        Ok(())
    }

    fn list(&self, cell: Value, column: &'static str) -> Result<Option<Vec<Value>>, FormatError> {
        let is_empty =
            cell.is_none() || cell.is_undefined() || cell.as_str().is_some_and(|text| text.trim().is_empty());
        if is_empty {
            return Ok(None);
        }
        let bad = || FormatError::BadColumn { row: self.row, column, expected: "a list, or text of JSON with a list" };
        let items = parsed(cell).filter(|value| value.kind() == pipe_template::ValueKind::Seq).ok_or_else(bad)?;
        let items: Vec<Value> = items.try_iter().map_err(|_| bad())?.collect();
        // Entries may be text of JSON themselves.
        let items: Option<Vec<Value>> = items.into_iter().map(parsed).collect();
        let items = items.filter(|items| items.iter().all(is_map)).ok_or_else(bad)?;
        Ok((!items.is_empty()).then_some(items))
    }
}

/// A message, and whether it is to be learned where the assistant says it.
struct ReadMessage {
    message: Value,
    is_learned: bool,
}

fn read_message(item: &Value) -> Result<ReadMessage, String> {
    let (mut role, mut entries, mut is_learned) = (None, Vec::new(), true);
    for (key, value) in pairs(item) {
        let name = key.as_str().unwrap_or_default();
        match (name, value.as_str()) {
            ("role" | "from", Some(text)) => role = Some((text.to_string(), name == "from")),
            ("role" | "from", None) => return Err(format!("has a `{name}` that is not text")),
            ("content" | "value", _) => entries.push(("content", content(&value)?)),
            ("tool_calls", _) if !value.is_true() => {}
            ("tool_calls", _) => entries.push(("tool_calls", tool_calls(&value)?)),
            _ if WEIGHTS.contains(&name) => is_learned = weight(name, &value)?,
            _ => entries.push(("", Value::from(vec![key.clone(), value]))),
        }
    }
    let (role, is_sharegpt) = role.ok_or("has no `role` and no `from`")?;
    let content = entries.iter().find(|(name, _)| *name == "content").map(|(_, value)| value.clone());
    let (role, call) = match (role.as_str(), is_sharegpt) {
        ("human", true) => ("user", None),
        ("gpt", true) => ("assistant", None),
        ("observation", true) => ("tool", None),
        ("function_call", true) => ("assistant", Some(function_calls(content.as_ref())?)),
        ("user" | "assistant" | "system" | "tool", _) => (role.as_str(), None),
        (_, true) => {
            return Err(format!(
                "is from `{role}`, but must be from `human`, `gpt`, `system`, `function_call`, `observation` or `tool`"
            ));
        }
        (_, false) => (role.as_str(), None),
    };
    if content.is_none() && !entries.iter().any(|(name, _)| *name == "tool_calls") {
        return Err("has no `content` and no `tool_calls`".to_string());
    }
    let mut message = vec![(Value::from("role"), Value::from(role))];
    for (name, value) in entries {
        match (name, &call) {
            ("content", Some(calls)) => {
                message.push((Value::from("content"), Value::from("")));
                message.push((Value::from("tool_calls"), calls.clone()));
            }
            ("", _) => message.push((item_at(&value, 0), item_at(&value, 1))),
            _ => message.push((Value::from(name), value)),
        }
    }
    Ok(ReadMessage { message: Value::from_pairs(message), is_learned })
}

/// A text, or parts of text as one.
fn content(value: &Value) -> Result<Value, String> {
    if value.as_str().is_some() || !matches!(value.kind(), pipe_template::ValueKind::Seq) {
        return match value.as_str() {
            Some(_) => Ok(value.clone()),
            None => Err(format!("has a `content` that is {}, not text", value.kind())),
        };
    }
    let mut text = String::new();
    for part in value.try_iter().into_iter().flatten() {
        let words =
            ["text", "value"].into_iter().find_map(|name| part.get_attr(name).ok().filter(|v| v.as_str().is_some()));
        let kind = part.get_attr("type").unwrap_or_default();
        match words.filter(|_| matches!(kind.as_str(), None | Some("text"))) {
            Some(words) => text.push_str(words.as_str().unwrap_or_default()),
            None => return Err(format!("has a part of type `{kind}`: only text can be read")),
        }
    }
    Ok(Value::from(text))
}

/// Calls with their arguments as maps.
fn tool_calls(value: &Value) -> Result<Value, String> {
    let calls = value.try_iter().map_err(|_| "has `tool_calls` that are no list".to_string())?;
    let calls: Result<Vec<Value>, String> = calls
        .map(|call| {
            let function = call.get_attr("function").ok().filter(is_map);
            match function {
                Some(function) => Ok(with(&call, "function", with_arguments(&function))),
                None if has(&call, "name") => Ok(function_of(&call)),
                None => Err("has a call without `function` and without `name`".to_string()),
            }
        })
        .collect();
    Ok(Value::from(calls?))
}

/// ShareGPT's calls: text of JSON with a name and arguments, or a list of such.
fn function_calls(content: Option<&Value>) -> Result<Value, String> {
    let bad = || "is a function call that is no JSON with `name` and `arguments`".to_string();
    let value = content.cloned().and_then(parsed).ok_or_else(bad)?;
    let calls: Vec<Value> = match value.kind() {
        pipe_template::ValueKind::Seq => value.try_iter().map_err(|_| bad())?.collect(),
        _ => vec![value],
    };
    let is_call = |call: &Value| is_map(call) && has(call, "name");
    if calls.is_empty() || !calls.iter().all(is_call) {
        Err(bad())
    } else {
        Ok(calls.iter().map(function_of).collect())
    }
}

fn function_of(call: &Value) -> Value {
    Value::from_pairs([("type", Value::from("function")), ("function", with_arguments(call))])
}

/// Arguments that are text of a JSON object become the object.
fn with_arguments(function: &Value) -> Value {
    let arguments = function.get_attr("arguments").ok().filter(|arguments| arguments.as_str().is_some());
    match arguments.and_then(parsed).filter(is_map) {
        Some(arguments) => with(function, "arguments", arguments),
        None => function.clone(),
    }
}

/// A tool in its wrapping.
fn tool(tool: Value) -> Value {
    match has(&tool, "function") || !has(&tool, "name") {
        true => tool,
        false => Value::from_pairs([("type", Value::from("function")), ("function", tool)]),
    }
}

fn weight(name: &str, value: &Value) -> Result<bool, String> {
    let number = f64::try_from(value.clone())
        .ok()
        .or_else(|| (value.kind() == pipe_template::ValueKind::Bool).then(|| f64::from(u8::from(value.is_true()))));
    match number {
        Some(0.0) => Ok(false),
        Some(1.0) => Ok(true),
        _ => Err(format!("has a `{name}` of {value}, but must be 0 or 1: an answer is learned or not")),
    }
}

fn message(role: &str, text: &str) -> Value {
    Value::from_pairs([("role", role), ("content", text)])
}

fn pairs(map: &Value) -> Vec<(Value, Value)> {
    map.as_object()
        .and_then(|object| object.try_iter_pairs())
        .into_iter()
        .flatten()
        .filter(|(_, v)| !v.is_none())
        .collect()
}

fn is_map(value: &Value) -> bool {
    value.kind() == pipe_template::ValueKind::Map
}

fn has(map: &Value, key: &str) -> bool {
    map.get_attr(key).is_ok_and(|value| !value.is_undefined() && !value.is_none())
}

/// `map` with another value under `key`, which it has.
fn with(map: &Value, key: &str, value: Value) -> Value {
    let replaced = |(name, old): (Value, Value)| match name.as_str() == Some(key) {
        true => (name, value.clone()),
        false => (name, old),
    };
    Value::from_pairs(pairs(map).into_iter().map(replaced))
}

fn item_at(list: &Value, index: usize) -> Value {
    list.get_item_by_index(index).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Conversation, FormatError> {
        let messages = serde_json::from_str(json).unwrap();
        conversation(Cells { messages, ..Cells::default() }, ConversationForm::Messages, 7)
    }

    fn shown(json: &str) -> String {
        Value::from(read(json).unwrap().messages).to_string()
    }

    #[test]
    fn sharegpt_becomes_messages() {
        let json = r#"[{"from": "system", "value": "s"}, {"from": "human", "value": "h"}, {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"b\": 1, \"a\": []}}"},
            {"from": "observation", "value": "o"}, {"from": "gpt", "value": "g"}]"#;
        let expected = "[{'role': 'system', 'content': 's'}, {'role': 'user', 'content': 'h'}, {'role': 'assistant', 'content': '', 'tool_calls': [{'type': 'function', 'function': {'name': 'f', 'arguments': {'b': 1, 'a': []}}}]}, {'role': 'tool', 'content': 'o'}, {'role': 'assistant', 'content': 'g'}]";
        assert_eq!(shown(json), expected);
        let two = r#"[{"from": "human", "value": "h"}, {"from": "function_call", "value": "[{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"g\"}]"}]"#;
        assert!(shown(two).ends_with("{'type': 'function', 'function': {'name': 'g'}}]}]"), "{}", shown(two));
    }

    #[test]
    fn messages_stay_with_their_arguments_read() {
        let json = r#"[{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "value": "b"}]},
            {"role": "assistant", "content": null, "name": "n", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]}]"#;
        let expected = "[{'role': 'user', 'content': 'ab'}, {'role': 'assistant', 'name': 'n', 'tool_calls': [{'id': '1', 'function': {'name': 'f', 'arguments': {'x': 1}}}]}]";
        assert_eq!(shown(json), expected);
    }

    #[test]
    fn a_weight_of_zero_is_not_learned() {
        let json = r#"[{"role": "user", "content": "a", "weight": 1}, {"role": "assistant", "content": "b", "loss_weight": 0.0}, {"role": "assistant", "content": "c", "train": true}]"#;
        let read = read(json).unwrap();
        assert_eq!(
            (read.not_learned, read.messages[1].to_string().as_str()),
            (vec![1], "{'role': 'assistant', 'content': 'b'}")
        );
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let cases = [
            (r#"[{"content": "a"}]"#, "message 0 of row 7 has no `role` and no `from`"),
            (r#"[{"from": "bard", "value": "a"}]"#, "message 0 of row 7 is from `bard`"),
            (
                r#"[{"role": "user", "content": "a"}, {"role": "assistant"}]"#,
                "message 1 of row 7 has no `content` and no `tool_calls`",
            ),
            (r#"[{"role": "user", "content": 3}]"#, "message 0 of row 7 has a `content` that is number, not text"),
            (
                r#"[{"role": "user", "content": [{"type": "image"}]}]"#,
                "message 0 of row 7 has a part of type `image`: only text can be read",
            ),
            (
                r#"[{"role": "assistant", "content": "a", "weight": 0.5}]"#,
                "message 0 of row 7 has a `weight` of 0.5, but must be 0 or 1",
            ),
            (r#"[{"from": "function_call", "value": "f()"}]"#, "message 0 of row 7 is a function call that is no JSON"),
            ("[]", "row 7 has no message"),
            ("{}", "column `messages` in row 7 must be a list, or text of JSON with a list"),
            ("\"hi\"", "column `messages` in row 7 must be a list, or text of JSON with a list"),
        ];
        for (json, expected) in cases {
            let error = read(json).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn prompts_and_completions_are_texts_or_messages() {
        let pair = |prompt: &str, completion: &str| {
            let cells = Cells {
                prompt: serde_json::from_str(prompt).unwrap(),
                completion: serde_json::from_str(completion).unwrap(),
                system: Value::from("s"),
                tools: Value::from(r#"[{"name": "f", "parameters": {}}]"#),
                ..Cells::default()
            };
            conversation(cells, ConversationForm::PromptCompletion, 0).unwrap()
        };
        let messages = r#"[{"role": "user", "content": "q"}]"#;
        for read in [pair("\"q\"", "\"a\""), pair(messages, "\"a\"")] {
            let expected = "[{'role': 'system', 'content': 's'}, {'role': 'user', 'content': 'q'}, {'role': 'assistant', 'content': 'a'}]";
            assert_eq!((Value::from(read.messages).to_string().as_str(), read.n_prompt), (expected, Some(2)));
            let tools = "[{'type': 'function', 'function': {'name': 'f', 'parameters': {}}}]";
            assert_eq!(read.tools.unwrap().to_string(), tools);
        }
    }
}
