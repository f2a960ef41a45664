//! What a stage kind declares by reading: the name of each setting, its type, default, range and choices.
//!
//! ```text
//! reader.integer("max_length", 1024, 1..=1_048_576)  ->  max_length: a whole number from 1 to 1048576, default 1024
//! ```
//!
//! The calls of a [`crate::Reader`] are the only source, so what is listed here cannot differ from what is read. A kind may read other
//! settings where a choice or a switch is another one: [`Declared::all`] tries each, but not those inside a section.

use serde_yaml::{Mapping, Value};

use crate::Reader;

/// A setting as it is declared.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// Its key.
    pub name: &'static str,
    /// What it may be, besides nothing.
    pub form: Form,
    /// A number that stands for nothing, as -1 does in Hugging Face.
    pub none: Option<i64>,
}

/// The type of a setting, its default and its range. A default of `None`: nothing, and the stage decides.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it; ranges include both ends")]
pub enum Form {
    Bool {
        default: bool,
    },
    Integer {
        default: Option<u64>,
        min: u64,
        max: u64,
    },
    Float {
        default: f64,
        min: f64,
        max: f64,
    },
    Text {
        default: Option<String>,
    },
    Choice {
        default: &'static str,
        choices: Vec<&'static str>,
    },
    /// One text, or a list of texts.
    TextList,
    /// A list of texts, numbers, `true` and `false`.
    Words,
    /// A mapping of names to any of these.
    TextMap,
    /// A mapping with settings of its own.
    Section(Vec<Declared>),
    /// A list of such mappings.
    Sections(Vec<Declared>),
    /// Whatever the kind makes of it.
    Any,
}

impl Declared {
    /// Every setting that `read` reads, whatever the choices and switches before it are.
    pub fn all(read: impl Fn(&mut Reader<'_>)) -> Vec<Declared> {
        let mut found = read_with(Mapping::new(), &read);
        let mut tried = 0;
        // What turns up only behind another choice is tried itself.
        while let Some(declared) = found.get(tried).cloned() {
            for value in declared.other_values() {
                let with: Mapping = [(Value::from(declared.name), value)].into_iter().collect();
                merge(&mut found, read_with(with, &read));
            }
            tried += 1;
        }
        found
    }

    /// Values that may make a kind read on in another way.
    fn other_values(&self) -> Vec<Value> {
        match &self.form {
            Form::Bool { default } => vec![Value::from(!default)],
            Form::Choice { default, choices } => {
                choices.iter().filter(|choice| *choice != default).map(|choice| Value::from(*choice)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The default as a user would write it; `None` where nothing is set, or a section is.
    pub fn default_text(&self) -> Option<String> {
        match &self.form {
            Form::Bool { default } => Some(default.to_string()),
            Form::Integer { default, .. } => default.map(|default| default.to_string()),
            Form::Float { default, .. } => Some(number(*default)),
            Form::Text { default } => default.clone(),
            Form::Choice { default, .. } => Some((*default).to_string()),
            Form::TextList | Form::Words | Form::TextMap | Form::Section(_) | Form::Sections(_) | Form::Any => None,
        }
    }

    /// What it may be, in words: `a whole number from 1 to 1024`.
    pub fn form_text(&self) -> String {
        let form = match &self.form {
            Form::Bool { .. } => "true or false".into(),
            Form::Integer { min, max, .. } => format!("a whole number from {min} to {max}"),
            Form::Float { min, max, .. } => format!("a number from {} to {}", number(*min), number(*max)),
            Form::Text { .. } => "text".into(),
            Form::Choice { choices, .. } => choices.join(", "),
            Form::TextList | Form::Words => "a list of texts".into(),
            Form::TextMap => "a mapping of names to texts".into(),
            Form::Section(_) => "a mapping".into(),
            Form::Sections(_) => "a list of mappings".into(),
            Form::Any => "any value".into(),
        };
        self.none.map_or(form.clone(), |none| format!("{form}, or {none} for nothing"))
    }
}

/// As short as it can be: `2e-5`, `0.9`, `10000`.
fn number(value: f64) -> String {
    let (plain, scientific) = (value.to_string(), format!("{value:e}"));
    if scientific.len() + 2 < plain.len() { scientific } else { plain }
}

fn read_with(with: Mapping, read: &impl Fn(&mut Reader<'_>)) -> Vec<Declared> {
    Reader::declared_by(&Value::Mapping(with), |reader| read(reader))
}

/// Adds to `found` what is not in it yet.
pub(crate) fn merge(found: &mut Vec<Declared>, more: Vec<Declared>) {
    for declared in more {
        let Some(known) = found.iter_mut().find(|known| known.name == declared.name) else {
            found.push(declared);
            continue;
        };
        known.none = known.none.or(declared.none);
        match (&mut known.form, declared.form) {
            (Form::Section(known), Form::Section(more)) | (Form::Sections(known), Form::Sections(more)) => {
                merge(known, more);
            }
            (known @ Form::Any, form) => *known = form,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reader: &mut Reader<'_>) {
        let method = reader.choice("method", "lora", &["lora", "full"]);
        if method == "full" {
            reader.text_list("freeze");
        } else {
            reader.section("lora", |lora| {
                lora.bool("fast", true);
                lora.float("lora_alpha", 8.0, 1e-6..=1e6)
            });
        }
        if !reader.is_number("max_steps", -1) {
            reader.optional_integer("max_steps", 1..=9);
        }
        reader.sections("filter", |filter| filter.bool("fast", false));
        reader.raw("other");
    }

    #[test]
    fn every_setting_is_declared_by_being_read() {
        let all = Declared::all(read);
        let told = |declared: &Declared| {
            format!("{}: {} [{}]", declared.name, declared.form_text(), declared.default_text().unwrap_or_default())
        };
        let expected = [
            "method: lora, full [lora]",
            "lora: a mapping []",
            "max_steps: a whole number from 1 to 9, or -1 for nothing []",
            "filter: a list of mappings []",
            "other: any value []",
            "freeze: a list of texts []",
        ];
        assert_eq!(all.iter().map(told).collect::<Vec<_>>(), expected);
        let Form::Section(lora) = &all[1].form else { panic!("a section") };
        assert_eq!(
            lora.iter().map(told).collect::<Vec<_>>(),
            ["fast: true or false [true]", "lora_alpha: a number from 1e-6 to 1e6 [8]"]
        );
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([2e-5, 0.9, 10_000.0, 1e12, 0.0].map(number), ["2e-5", "0.9", "10000", "1e12", "0"]);
    }
}
