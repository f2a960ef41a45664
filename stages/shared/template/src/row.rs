//! Rows to texts by a template of the user, with `{% generation %}` around what is to be learned, as in chat templates.
//!
//! ```text
//! Q: {{ question }}\nA:{% generation %} {{ answer }}{% endgeneration %}
//!     {question: "2 + 2?", answer: "4"}  ->  Q: 2 + 2?\nA: 4
//!                                            |----------|         prompt
//!                                                        ||       completion, and `assistant`
//! ```
//!
//! Without such a block there is no prompt, and all is completion.

use std::ops::Range;

use minijinja::Value;

use crate::{Date, Formatted, SpecialTexts, Template, TemplateError};

/// A template whose variables are the columns of a row.
pub struct RowTemplate {
    template: Template,
    special: SpecialTexts,
    variables: Vec<(String, Value)>,
}

impl RowTemplate {
    /// Compiles `source`. `special`: of the tokenizer, none where no model is known; `variables`: besides the columns, which
    /// win.
    ///
    /// # Errors
    /// `Syntax`.
    pub fn new(
        (name, source): (&str, &str),
        special: SpecialTexts,
        variables: Vec<(String, Value)>,
        date: Option<Date>,
    ) -> Result<Self, TemplateError> {
        Ok(RowTemplate { template: Template::compile(name, source, date)?, special, variables })
    }

    /// Whether it says what is to be learned.
    pub fn has_generation(&self) -> bool {
        self.template.has_generation()
    }

    /// The text of a row: name and value of each column.
    ///
    /// # Errors
    /// What the template raises; `MarksVisible`; `ReservedCharacter`.
    pub fn format(&self, row: &[(String, Value)]) -> Result<Formatted, TemplateError> {
        let cells: Vec<&Value> = row.iter().map(|(_, cell)| cell).collect();
        let needs_marks = self.special.needs_marks(&cells)?;
        let rendered = self.template.render(&self.context(row.iter().cloned()))?;
        let control = match needs_marks {
            false => self.special.find(&rendered.text),
            true => {
                let marked = row.iter().map(|(name, cell)| (name.clone(), self.special.mark(cell)));
                let marked = self.template.render(&self.context(marked))?.text;
                let visible = || TemplateError::MarksVisible { template: self.template.name().to_string() };
                self.special.control(&rendered.text, &marked).ok_or_else(visible)?
            }
        };
        let assistant: Vec<Range<usize>> = rendered.generation.into_iter().filter(|block| !block.is_empty()).collect();
        let completion = match (assistant.first(), assistant.last()) {
            (Some(first), Some(last)) => first.start..last.end,
            _ if self.has_generation() => rendered.text.len()..rendered.text.len(),
            _ => 0..rendered.text.len(),
        };
        let prompt_end = completion.start;
        Ok(Formatted { text: rendered.text, prompt_end, completion, assistant, control, n_changed_turns: 0 })
    }

    fn context(&self, row: impl Iterator<Item = (String, Value)>) -> Value {
        Value::from_pairs(self.variables.iter().cloned().chain(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[(&str, &str)]) -> Vec<(String, Value)> {
        cells.iter().map(|(name, text)| ((*name).to_string(), Value::from(*text))).collect()
    }

    fn template(source: &str) -> RowTemplate {
        let special = SpecialTexts::new(["<|end|>".to_string()]);
        RowTemplate::new(("rows.jinja", source), special, vec![("eos_token".to_string(), Value::from("<|end|>"))], None)
            .unwrap()
    }

    #[test]
    fn what_is_to_be_learned_stands_between_marks() {
        let qa = template(
            "Q: {{ q }}{% if hint %} ({{ hint }}){% endif +%}\nA:{% generation %} {{ a }}{{ eos_token }}{% endgeneration %}\n\n",
        );
        let formatted = qa.format(&row(&[("q", "é?"), ("a", "no <|end|>"), ("hint", "")])).unwrap();
        let expected = "Q: é?\nA: no <|end|><|end|>";
        assert_eq!((formatted.text.as_str(), formatted.prompt_end, formatted.completion.clone()), (expected, 9, 9..27));
        assert_eq!((&formatted.assistant[0], &formatted.control[0]), (&(9..27), &(20..27)));
        let empty = template("{{ a }}{% generation %}{% endgeneration %}").format(&row(&[("a", "b")])).unwrap();
        assert_eq!((empty.prompt_end, empty.completion, empty.assistant.len()), (1, 1..1, 0));
    }

    #[test]
    fn without_marks_all_is_learned() {
        let formatted = template("{{ a }}-{{ a | upper }}").format(&row(&[("a", "b")])).unwrap();
        assert_eq!((formatted.text.as_str(), formatted.prompt_end, formatted.completion), ("b-B", 0, 0..3));
    }
}
