//! Diagnostics: what is wrong with what the user wrote, where, and how to fix it.
//!
//! A pass over a pipeline file collects every [`Diagnostic`] it can find and hands them back as one [`Diagnostics`],
//! which prints itself or turns itself into JSON:
//!
//! ```text
//! error[unknown-stage]: stage `adapter` takes `data` from `pakced`, but no stage has that name
//!   --> pipelines/alpaca.yaml:14:21
//!    |
//! 14 |     inputs: { data: pakced, model: base }
//!    |                     ^^^^^^
//! help: did you mean `packed`? (declared at line 12)
//! ```
//!
//! It deliberately knows nothing of YAML, stages or terminals: colour is the caller's decision.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

mod render;

/// A stretch of one line of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The pipeline file as it was named, or a whole argument: `--set stages.adapter.with.lora.r=8`.
    #[serde(serialize_with = "as_text")]
    pub file: Arc<str>,
    /// From 1. An argument is one line.
    pub line: usize,
    /// In characters, from 1. In an argument from its first dash.
    pub column: usize,
    /// In characters; 0 where there is nothing to point at, such as a key that is missing.
    pub length: usize,
}

impl Location {
    /// Whether it points into a `--set` argument instead of a file.
    pub fn is_argument(&self) -> bool {
        self.file.starts_with("--set ")
    }
}

impl fmt::Display for Location {
    /// `FILE:LINE:COLUMN`, or the argument.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_argument() {
            f.write_str(&self.file)
        } else {
            write!(f, "{}:{}:{}", self.file, self.line, self.column)
        }
    }
}

fn as_text<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// A stable word for tools and tests: `unknown-stage`.
    pub slug: &'static str,
    /// Lower case, no final period, values in backticks.
    pub message: String,
    /// Where; `None` where there is no text to point at, such as a file that cannot be read.
    pub location: Option<Location>,
    /// How to fix it, if we know.
    pub help: Option<String>,
    /// What else belongs to it.
    pub notes: Vec<String>,
}

impl Diagnostic {
    /// A problem without a location.
    pub fn new(slug: &'static str, message: impl Into<String>) -> Self {
        Diagnostic { slug, message: message.into(), location: None, help: None, notes: Vec::new() }
    }

    /// Adds where it is.
    #[must_use]
    pub fn at(mut self, location: Location) -> Self {
        self.location = Some(location);
        self
    }

    /// Adds how to fix it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds what else belongs to it.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

/// A text that locations point into: its name and its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceText {
    /// As in [`Location::file`].
    pub name: Arc<str>,
    /// The content; of an argument, the argument.
    pub text: Arc<str>,
}

/// All problems of one pass, by source, line and column. Its `Display` is the screen without colour.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    sources: Vec<SourceText>,
}

impl Diagnostics {
    /// Sorts `list` by the order of `sources`, then line, then column; those without a location come first.
    pub fn new(mut list: Vec<Diagnostic>, sources: Vec<SourceText>) -> Self {
        list.sort_by_key(|diagnostic| {
            diagnostic.location.as_ref().map(|location| {
                let source_idx = sources.iter().position(|source| source.name == location.file);
                (source_idx, location.line, location.column)
            })
        });
        Diagnostics { list, sources }
    }

    /// The problems, in the order they are shown.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The screen: each problem as in the module's example, an empty line between two, a line end after the last.
    pub fn render(&self, colour: Colour) -> String {
        let screens: Vec<String> = self.list.iter().map(|one| render::render(one, &self.sources, colour)).collect();
        screens.join("\n")
    }

    /// `{ "format_version": 1, "problems": [{ "slug", "message", "location", "help", "notes" }] }`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "format_version": 1, "problems": self.list })
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Diagnostics { list: vec![diagnostic], sources: Vec::new() }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Colour::Off))
    }
}

impl std::error::Error for Diagnostics {}

/// Whether a screen has ANSI colours. Colour repeats what the text says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Colour {
    On,
    Off,
}
