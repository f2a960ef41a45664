//! `pipe stages [KIND]`: what `uses:` can name, and what `with:` can say.

use std::fmt::Write as _;

use pipe_contract::StageKind;
use pipe_settings::{Declared, Form, nearest};

use serde_json::{Value, json};

use super::arguments::StagesArguments;
use super::failure::CliError;
use super::session::Session;
use crate::diagnostic::Diagnostic;
use crate::exit_code;
use crate::registry::Registry;
use crate::report::style::Style;
use crate::schema::declared_settings;

pub(super) fn stages(session: &mut Session<'_>, arguments: &StagesArguments) -> Result<u8, CliError> {
    if arguments.json {
        let object = match &arguments.kind {
            Some(name) => json!({ "kind": to_json(find(session.registry, name)?) }),
            None => {
                let kinds = session.registry.kinds().iter();
                json!({ "kinds": kinds.map(|kind| to_json(*kind)).collect::<Vec<_>>() })
            }
        };
        return session.write_json(object).map(|()| exit_code::OK);
    }
    let text = match &arguments.kind {
        None => table(session.registry, session.out_style),
        Some(name) => describe(find(session.registry, name)?, session.out_style),
    };
    session.write(&text)?;
    Ok(exit_code::OK)
}

fn find(registry: &Registry, name: &str) -> Result<&'static dyn StageKind, CliError> {
    registry.get(name).ok_or_else(|| {
        let names = registry.names();
        let help = match nearest(name, &names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the stage kinds are {}", names.join(", ")),
        };
        Diagnostic::new("unknown-kind", format!("there is no stage kind `{name}`")).help(help).into()
    })
}

/// `format    rows -> examples`, an optional input with `?`, and `declared` where the pipeline file says.
fn table(registry: &Registry, style: Style) -> String {
    let ports: Vec<String> = registry.kinds().iter().map(|kind| ports(*kind)).collect();
    let name_width = registry.kinds().iter().map(|kind| kind.name().len()).max().unwrap_or(0);
    let ports_width = ports.iter().map(String::len).max().unwrap_or(0);
    let mut text = String::new();
    for (kind, ports) in registry.kinds().iter().zip(&ports) {
        let name = style.bold(&format!("{:<name_width$}", kind.name()));
        writeln!(text, "{name}  {ports:<ports_width$}  {}", kind.summary()).expect("to a String");
    }
    text
}

fn ports(kind: &dyn StageKind) -> String {
    if kind.has_declared_ports() {
        return "declared -> declared".into();
    }
    let inputs: Vec<String> =
        kind.inputs().iter().map(|port| format!("{}{}", port.name, if port.is_required { "" } else { "?" })).collect();
    let outputs: Vec<&str> = kind.outputs().iter().map(|port| port.name).collect();
    format!("{} -> {}", inputs.join(", "), outputs.join(", ")).trim_start().to_string()
}

fn describe(kind: &dyn StageKind, style: Style) -> String {
    let mut text = format!("{}, version {}: {}\n", style.bold(kind.name()), kind.version(), kind.summary());
    for port in kind.inputs() {
        let optional = if port.is_required { "" } else { ", optional" };
        writeln!(text, "  input    {}: {}{optional}", port.name, port.kind).expect("to a String");
    }
    if kind.has_declared_ports() {
        text.push_str("  inputs and outputs as the pipeline file declares them\n");
    }
    for port in kind.outputs() {
        writeln!(text, "  output   {}: {}", port.name, port.kind).expect("to a String");
    }
    describe_settings("", &declared_settings(kind), &mut text);
    text
}

/// `setting  lora.r: a whole number from 1 to 1024; default 8`.
fn describe_settings(prefix: &str, settings: &[Declared], text: &mut String) {
    for setting in settings {
        let name = format!("{prefix}{}", setting.name);
        if let Form::Section(nested) = &setting.form {
            describe_settings(&format!("{name}."), nested, text);
            continue;
        }
        if let Form::Sections(nested) = &setting.form {
            describe_settings(&format!("{name}[]."), nested, text);
            continue;
        }
        let default = setting.default_text().filter(|default| !default.is_empty());
        let default = default.map(|default| format!("; default {default}")).unwrap_or_default();
        writeln!(text, "  setting  {name}: {}{default}", setting.form_text()).expect("to a String");
    }
}

fn to_json(kind: &dyn StageKind) -> Value {
    let inputs = kind.inputs().iter();
    let outputs = kind.outputs().iter();
    json!({
        "name": kind.name(),
        "version": kind.version(),
        "summary": kind.summary(),
        "inputs": inputs
            .map(|port| json!({ "port": port.name, "kind": port.kind, "is_required": port.is_required }))
            .collect::<Vec<_>>(),
        "outputs": outputs.map(|port| json!({ "port": port.name, "kind": port.kind })).collect::<Vec<_>>(),
        "settings": settings_to_json("", &declared_settings(kind)),
    })
}

fn settings_to_json(prefix: &str, settings: &[Declared]) -> Vec<Value> {
    let mut found = Vec::new();
    for setting in settings {
        let name = format!("{prefix}{}", setting.name);
        match &setting.form {
            Form::Section(nested) => found.extend(settings_to_json(&format!("{name}."), nested)),
            Form::Sections(nested) => found.extend(settings_to_json(&format!("{name}[]."), nested)),
            form => {
                let mut json = form_to_json(form);
                json["name"] = name.into();
                found.push(json);
            }
        }
    }
    found
}

fn form_to_json(form: &Form) -> Value {
    match form {
        Form::Bool { default } => json!({ "type": "bool", "default": default }),
        Form::Integer { default, min, max } => json!({ "type": "integer", "default": default, "min": min, "max": max }),
        Form::Float { default, min, max } => json!({ "type": "float", "default": default, "min": min, "max": max }),
        Form::Text { default } => json!({ "type": "text", "default": default }),
        Form::Choice { default, choices } => json!({ "type": "choice", "default": default, "choices": choices }),
        Form::TextList | Form::Words => json!({ "type": "list of texts" }),
        Form::TextMap => json!({ "type": "mapping of texts" }),
        Form::Section(_) | Form::Sections(_) => json!({ "type": "section" }),
        Form::Any => json!({ "type": "any" }),
    }
}
