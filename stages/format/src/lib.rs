//! The stage kind `format`: rows in, examples out.
//!
//! ```text
//! instruction | input | output        text                                  prompt   completion
//! Add them    | 2, 2  | 4       --->  "Below is ... ### Response:\n4"       0..216   217..218
//! ```
//!
//! Reading order: [`settings`] (template and column names), [`template`] (cells to text and spans), [`cells`] and
//! [`conversation`] (rows to messages), [`templated`] (templates of a model or of the user), [`pretokenized`] (token ids
//! passed on), [`run`] (batches in parallel, written in order), [`figures`] (what a report shows).
//!
//! It deliberately makes no token ids: spans are in characters, and what a boundary token belongs to is `tokenize`'s to say. Of
//! a tokenizer it asks which special tokens there are.

pub mod cells;
pub mod conversation;
pub mod error;
pub mod figures;
pub mod pretokenized;
pub mod run;
pub mod settings;
pub mod template;
pub mod templated;

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
        "rows -> examples: text with what is prompt, completion and turn of the assistant, by a template"
    }

    fn version(&self) -> u32 {
        1 // The first.
    }

    fn inputs(&self) -> &'static [InputPort] {
        &[
            InputPort { name: "rows", kind: ArtifactKind::Rows, is_required: true },
            InputPort { name: "model", kind: ArtifactKind::Model, is_required: false },
        ]
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
