//! One template, compiled: a context goes in, a text comes out, with the parts that stand in `{% generation %}` blocks.
//!
//! ```text
//! {% for m in messages %}{{ m.role }}: {% generation %}{{ m.content }}{% endgeneration %}{% endfor %}
//!     user: hi                                       text        "user: hi"
//!           ^^                                       generation  [6..8]
//! ```
//!
//! minijinja does the work; what is set here makes it Jinja2 as transformers configures it. Source:
//! `_cached_compile_jinja_template` in transformers' `utils/chat_template_utils.py` (5.23): `trim_blocks`, `lstrip_blocks`,
//! loop controls, `tojson` as `json.dumps(ensure_ascii=False)`, `raise_exception`, `strftime_now`, and the block
//! `generation`. It deliberately loads no other template, and knows no clock.

use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};

use crate::date::Date;
use crate::{TemplateError, marks, python};

/// Instructions that one rendering may take, and 64 bytes of output each: some ten thousand messages. A template that
/// counts to a billion ends within a second or two.
const FUEL: u64 = 10_000_000;

/// The only template of an environment.
const ONLY: &str = "template";

/// Before the message of an error that a template raised.
const RAISED: &str = "raised: ";
/// Before the message of an error about the missing date.
const NO_DATE: &str = "no date";
/// Before a directive of `strftime` that is not known.
const DIRECTIVE: &str = "directive: ";

/// A compiled template.
pub struct Template {
    name: String,
    environment: Environment<'static>,
    has_generation: bool,
}

/// What a template gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The text, without marks.
    pub text: String,
    /// Bytes of `text` that stand in `{% generation %}` blocks, in the order of their ends; may be empty ranges.
    pub generation: Vec<Range<usize>>,
}

impl Template {
    /// Compiles `source`. `name`: for messages. `date`: what `strftime_now` formats.
    ///
    /// # Errors
    /// `Syntax`.
    pub fn compile(name: &str, source: &str, date: Option<Date>) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(true).lstrip_blocks(true);
        environment.set_syntax(syntax.build().expect("the delimiters are the default ones"));
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_fuel(Some(FUEL));
        python::install(&mut environment);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", move |format: &str| strftime_now(date, format));
        environment.add_filter(marks::GENERATION_FILTER, |text: &str| {
            format!("{}{text}{}", marks::GENERATION_START, marks::GENERATION_END)
        });
        let (source, has_generation) = marks::with_generation_filters(source);
        let added = environment.add_template_owned(ONLY, source);
        added.map_err(|error| TemplateError::Syntax {
            template: name.to_string(),
            line: error.line(),
            message: message_of(&error),
        })?;
        Ok(Template { name: name.to_string(), environment, has_generation })
    }

    /// Its name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has `{% generation %}` blocks.
    pub fn has_generation(&self) -> bool {
        self.has_generation
    }

    /// The text for `context`, a map of variables.
    ///
    /// # Errors
    /// `Raised` where the template refuses, `NeedsDate`, `UnknownDirective`, `Failed` for everything else.
    pub fn render(&self, context: &Value) -> Result<Rendered, TemplateError> {
        let template = self.environment.get_template(ONLY).expect("it was compiled");
        let marked = template.render(context).map_err(|error| self.failure(&error))?;
        Ok(marks::take_generation(marked))
    }

    fn failure(&self, error: &Error) -> TemplateError {
        let template = self.name.clone();
        // The cause of an error inside of a call is the one that says what happened.
        let innermost = std::iter::successors(Some(error), |error| {
            std::error::Error::source(*error).and_then(|source| source.downcast_ref::<Error>())
        });
        for error in innermost {
            let detail = error.detail().unwrap_or_default();
            if let Some(message) = detail.strip_prefix(RAISED) {
                return TemplateError::Raised { template, message: message.to_string() };
            }
            if detail == NO_DATE {
                return TemplateError::NeedsDate { template };
            }
            if let Some(directive) = detail.strip_prefix(DIRECTIVE) {
                return TemplateError::UnknownDirective { template, directive: directive.to_string() };
            }
        }
        TemplateError::Failed { template, line: error.line(), message: message_of(error) }
    }
}

fn message_of(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{message}")))
}

fn strftime_now(date: Option<Date>, format: &str) -> Result<String, Error> {
    let error = |detail: String| Error::new(ErrorKind::InvalidOperation, detail);
    let date = date.ok_or_else(|| error(NO_DATE.to_string()))?;
    date.strftime(format).map_err(|directive| error(format!("{DIRECTIVE}{directive}")))
}
