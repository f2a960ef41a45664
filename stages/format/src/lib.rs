//! The stage kind `format`: rows in, examples out.
//!
//! ```text
//! instruction | input | output        text                                  prompt   completion
//! Add them    | 2, 2  | 4       --->  "Below is ... ### Response:\n4"       0..216   217..218
//! ```
//!
//! Reading order: [`settings`] (template and column names), [`template`] (cells to text and spans), [`pretokenized`]
//! (token ids passed on), [`run`] (batches in parallel, written in order), [`figures`] (what a report shows).
//!
//! It deliberately knows no tokenizer: spans are in characters, and what a boundary token belongs to is `tokenize`'s to say.

pub mod error;
pub mod figures;
pub mod pretokenized;
pub mod run;
pub mod settings;
pub mod template;

use pipe_contract::{Artifact, ArtifactKind, Figure, InputPort, OutputPort, Reader, Stage, StageError, StageKind};

/// The kind as the runner's registry lists it.
pub static KIND: FormatKind = FormatKind;

/// `uses: format`.
pub struct FormatKind;

impl StageKind for FormatKind {
    fn name(&self) -> &'static str {
        "format"
    }

    fn summary(&self) -> &'static str {
        "rows -> examples: text with the characters that are prompt and completion, by a template"
    }

    fn version(&self) -> u32 {
        1 // The first.
    }

    fn inputs(&self) -> &'static [InputPort] {
        &[InputPort { name: "rows", kind: ArtifactKind::Rows, is_required: true }]
    }

    fn outputs(&self) -> &'static [OutputPort] {
        &[OutputPort { name: "examples", kind: ArtifactKind::Examples }]
    }

    fn read(&self, reader: &mut Reader) -> Box<dyn Stage> {
        Box::new(run::Format { settings: settings::read(reader) })
    }

    fn show(&self, _port: &str, artifact: &Artifact, n_rows: usize) -> Result<String, StageError> {
        Ok(run::show(artifact, n_rows)?)
    }

    fn figures(&self, _port: &str, artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
        figures::figures(artifact)
    }
}
