//! The settings of `format`: which template, what its columns are called, and what a template of a model or of the user is given.

use std::path::{Component, Path};

use pipe_contract::{KeySettings, KeyValue, ProblemKind, Reader};
use pipe_template::{Date, Value};

use crate::template::Template;

/// Settings as resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What becomes the text.
    pub template: Template,
    /// Names of columns, for the fields that templates have.
    pub columns: ColumnNames,
    /// For the templates `chat` and `jinja`.
    pub templated: Templated,
}

/// The column of the rows that each field of a template is read from; by default the one of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the column of the field of its name")]
pub struct ColumnNames {
    pub instruction: String,
    pub input: String,
    pub output: String,
    pub text: String,
    pub prompt: String,
    pub completion: String,
    /// `None`: `messages`, or else ShareGPT's `conversations`.
    pub messages: Option<String>,
    pub system: String,
    pub tools: String,
    pub documents: String,
}

/// What a template of a model or of the user is made of, and given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Templated {
    /// Where it is not the model's own.
    pub own: Option<OwnTemplate>,
    /// Further variables.
    pub kwargs: Vec<(String, Value)>,
    /// What `strftime_now` formats.
    pub date: Option<Date>,
    /// Whether the turns of the assistant are wanted.
    pub wants_turns: bool,
}

/// A template of the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnTemplate {
    /// In the pipeline file.
    Text(String),
    /// In a file: its name relative to the pipeline file, `/` between folders.
    File(String),
}

/// Reads the `with:` block.
pub fn read(reader: &mut Reader) -> Settings {
    let choices: Vec<&'static str> = Template::ALL.iter().map(|template| template.name()).collect();
    let name = reader.choice("template", Template::Alpaca.name(), &choices);
    let template = Template::ALL.into_iter().find(|t| t.name() == name).unwrap_or(Template::Alpaca);
    let columns = reader.section("columns", |reader| {
        let check = |reader: &mut Reader, field: &'static str| {
            if reader.has(field) && !template.uses(field) {
                let message = format!("template `{name}` does not use the column `{field}`");
                let used: Vec<String> = template.fields().iter().map(|field| format!("`{field}`")).collect();
                let help = match used.is_empty() {
                    true => "it takes its columns by their own names".to_string(),
                    false => format!("it uses {}", used.join(", ")),
                };
                reader.problem(field, ProblemKind::Unsupported, message, Some(help));
            }
        };
        let mut column = |field: &'static str| {
            check(reader, field);
            reader.text(field, field)
        };
        ColumnNames {
            instruction: column("instruction"),
            input: column("input"),
            output: column("output"),
            text: column("text"),
            prompt: column("prompt"),
            completion: column("completion"),
            system: column("system"),
            tools: column("tools"),
            documents: column("documents"),
            messages: {
                check(reader, "messages");
                reader.optional_text("messages")
            },
        }
    });
    let templated = match template {
        Template::Chat => read_chat(reader),
        Template::Jinja => read_jinja(reader),
        _ => Templated::default(),
    };
    Settings { template, columns, templated }
}

fn read_chat(reader: &mut Reader) -> Templated {
    Templated {
        own: read_path(reader, "chat_template_path"),
        kwargs: read_kwargs(reader),
        date: read_date(reader),
        wants_turns: reader.bool("return_assistant_tokens_mask", true),
    }
}

fn read_jinja(reader: &mut Reader) -> Templated {
    let text = reader.optional_text("template_text").map(OwnTemplate::Text);
    let own = match (text, read_path(reader, "template_path")) {
        (None, None) => {
            let message = "template `jinja` needs `template_text` or `template_path`";
            let help = "for instance `template_text: \"Q: {{ question }}\\nA:{% generation %} {{ answer }}{% endgeneration %}\"`";
            reader.problem("template_text", ProblemKind::MissingSetting, message, Some(help.to_string()));
            None
        }
        (Some(text), Some(_)) => {
            let message = "`template_text` and `template_path` are both given, but there is one template";
            reader.problem("template_path", ProblemKind::Unsupported, message, Some("leave one out".to_string()));
            Some(text)
        }
        (text, path) => text.or(path),
    };
    Templated { own, kwargs: Vec::new(), date: read_date(reader), wants_turns: true }
}

/// A file beside the pipeline file. Its content is in the key, by what the runner digests; its place is not.
fn read_path(reader: &mut Reader, name: &'static str) -> Option<OwnTemplate> {
    let path = reader.optional_text(name)?;
    reader.not_in_key(name);
    if Path::new(&path).is_absolute() {
        let message =
            format!("`{name}` is absolute, but the key of a stage must not depend on where the pipeline lies");
        let help = "write it relative to the pipeline file";
        reader.problem(name, ProblemKind::Unsupported, message, Some(help.to_string()));
    }
    let parts = Path::new(&path).components().filter(|part| *part != Component::CurDir);
    let parts: Vec<String> = parts.map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    Some(OwnTemplate::File(parts.join("/")))
}

fn read_date(reader: &mut Reader) -> Option<Date> {
    let text = reader.optional_text("date")?;
    match Date::parse(&text) {
        Ok(date) => Some(date),
        Err(error) => {
            reader.problem("date", ProblemKind::OutOfRange, error.to_string(), error.help().map(str::to_string));
            None
        }
    }
}

/// A mapping of names to texts, numbers and truth values.
fn read_kwargs(reader: &mut Reader) -> Vec<(String, Value)> {
    let name = "chat_template_kwargs";
    let raw = reader.raw(name);
    if raw.is_null() {
        return Vec::new();
    }
    let Some(entries) = raw.as_mapping() else {
        let message = format!("`{name}` must be a mapping of names to texts, numbers and truth values");
        reader.problem(name, ProblemKind::WrongType, message, None);
        return Vec::new();
    };
    let (mut kwargs, mut key) = (Vec::new(), KeySettings::default());
    for (variable, value) in entries {
        let text = |text: &str| (Value::from(text), KeyValue::Text(text.to_string()));
        let read = match (value.as_bool(), value.as_i64(), value.as_f64().and_then(KeyValue::float), value.as_str()) {
            (Some(is_true), ..) => Some((Value::from(is_true), KeyValue::Bool(is_true))),
            (_, Some(number), ..) => Some((Value::from(number), KeyValue::Int(number))),
            (_, _, Some(bits), _) => value.as_f64().map(|number| (Value::from(number), bits)),
            (.., Some(words)) => Some(text(words)),
            _ => None,
        };
        match (variable.as_str(), read) {
            (Some(variable), Some((value, of_key))) => {
                kwargs.push((variable.to_string(), value));
                key.insert(variable.to_string(), of_key);
            }
            _ => {
                let message = format!("an entry of `{name}` is not a name with a text, a number or a truth value");
                reader.problem(name, ProblemKind::WrongType, message, None);
            }
        }
    }
    kwargs.sort_by(|a, b| a.0.cmp(&b.0));
    if !key.is_empty() {
        reader.record_key(name, KeyValue::Map(key));
    }
    kwargs
}
