//! Settings of a stage kind, as it declares them, to the schema of its `with:`.

use pipe_settings::{Declared, Form};
use serde_json::{Map, Value, json};

use super::or_expression;

/// The schema of a `with:`, or of a section in it: these settings and no others.
pub(super) fn of_block(declared: &[Declared]) -> Value {
    let properties: Map<String, Value> =
        declared.iter().map(|declared| (declared.name.to_string(), of_setting(declared))).collect();
    json!({ "type": ["object", "null"], "additionalProperties": false, "properties": properties })
}

fn of_setting(declared: &Declared) -> Value {
    let mut form = of_form(&declared.form);
    if let Some(none) = declared.none {
        form = json!({ "anyOf": [form, { "const": none }] });
    }
    let mut schema = or_expression(form);
    let mut description = declared.form_text();
    if let Some(default) = declared.default_text() {
        description.push_str(&format!("; default {default}"));
        schema["default"] = default_of(&declared.form);
    }
    schema["description"] = description.into();
    schema
}

/// Nothing is as good as leaving a setting out.
fn of_form(form: &Form) -> Value {
    match form {
        Form::Bool { .. } => json!({ "type": ["boolean", "null"] }),
        Form::Integer { min, max, .. } => json!({ "type": ["integer", "null"], "minimum": min, "maximum": max }),
        // `2e-4` is text to some readers of YAML.
        Form::Float { min, max, .. } => {
            let number = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$";
            json!({ "type": ["number", "string", "null"], "minimum": min, "maximum": max, "pattern": number })
        }
        Form::Text { .. } => json!({ "type": ["string", "null"] }),
        Form::Choice { choices, .. } => {
            let choices = choices.iter().map(|choice| Value::from(*choice)).chain([Value::Null]);
            json!({ "enum": choices.collect::<Vec<_>>() })
        }
        Form::TextList => json!({ "type": ["string", "array", "null"], "items": { "type": "string" } }),
        Form::Words => json!({ "type": ["array", "null"], "items": scalar() }),
        Form::TextMap => json!({ "type": ["object", "null"], "additionalProperties": scalar() }),
        Form::Section(declared) => of_block(declared),
        Form::Sections(declared) => {
            let block = of_block(declared);
            json!({ "anyOf": [block, { "type": "array", "items": block }] })
        }
        Form::Any => json!({}),
    }
}

/// What can be written as a text without quotes.
pub(super) fn scalar() -> Value {
    json!({ "type": ["string", "number", "boolean"] })
}

fn default_of(form: &Form) -> Value {
    match form {
        Form::Bool { default } => (*default).into(),
        Form::Integer { default, .. } => (*default).into(),
        Form::Float { default, .. } => (*default).into(),
        Form::Text { default } => default.clone().into(),
        Form::Choice { default, .. } => (*default).into(),
        Form::TextList | Form::Words | Form::TextMap | Form::Section(_) | Form::Sections(_) | Form::Any => Value::Null,
    }
}
