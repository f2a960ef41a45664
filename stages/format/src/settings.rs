//! The settings of `format`: which template, and what its columns are called.

use pipe_contract::{ProblemKind, Reader};

use crate::template::Template;

/// Settings as resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What becomes the text.
    pub template: Template,
    /// Names of columns, for the fields that templates have.
    pub columns: ColumnNames,
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
}

/// Reads the `with:` block.
pub fn read(reader: &mut Reader) -> Settings {
    let choices: Vec<&'static str> = Template::ALL.iter().map(|template| template.name()).collect();
    let name = reader.choice("template", Template::Alpaca.name(), &choices);
    let template = Template::ALL.into_iter().find(|t| t.name() == name).unwrap_or(Template::Alpaca);
    let columns = reader.section("columns", |reader| {
        let mut column = |field: &'static str| {
            if reader.has(field) && !template.uses(field) {
                let message = format!("template `{name}` does not use the column `{field}`");
                let used: Vec<String> = template.fields().iter().map(|field| format!("`{field}`")).collect();
                let help = match used.is_empty() {
                    true => "it takes its columns by their own names".to_string(),
                    false => format!("it uses {}", used.join(", ")),
                };
                reader.problem(field, ProblemKind::Unsupported, message, Some(help));
            }
            reader.text(field, field)
        };
        ColumnNames {
            instruction: column("instruction"),
            input: column("input"),
            output: column("output"),
            text: column("text"),
            prompt: column("prompt"),
            completion: column("completion"),
        }
    });
    Settings { template, columns }
}
