//! The artifact `samples`: `samples.jsonl`, a line per prompt, and the same for people.
//!
//! ```text
//! {"row":3,"prompt":"### Response:\n","expected":"four","base":["The the"],"adapter":["four"]}
//! ```
//!
//! `base` and `adapter` have a text for each of `num_return_sequences`; `adapter` is absent without one.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::Path;

use pipe_contract::figures::{Sample, Samples};
use pipe_contract::{Artifact, Figure, StageError};
use pipe_records::lines::write_lines;
use pipe_records::show::paragraph;
use serde::{Deserialize, Serialize};

use crate::error::GenerateError;

const SAMPLES_FILE: &str = "samples.jsonl";

/// Lines of a text that are shown.
const N_LINES_MAX: usize = 12;

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleLine {
    /// Row of the prompts, counted from 0.
    pub row: u64,
    /// What the model was given.
    pub prompt: String,
    /// The completion of the example; may be empty.
    pub expected: String,
    /// What the model alone said.
    pub base: Vec<String>,
    /// What the model with the adapter said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<Vec<String>>,
}

impl SampleLine {
    /// Who said it, and what.
    fn answers(&self) -> Vec<(String, String)> {
        let named = |name: &str, texts: &[String]| -> Vec<(String, String)> {
            let name = |idx: usize| if texts.len() > 1 { format!("{name} {}", idx + 1) } else { name.to_string() };
            texts.iter().enumerate().map(|(idx, text)| (name(idx), text.clone())).collect()
        };
        let expected = (!self.expected.is_empty()).then(|| ("expected".to_string(), self.expected.clone()));
        let adapter = self.adapter.as_deref().unwrap_or_default();
        expected.into_iter().chain(named("base", &self.base)).chain(named("with adapter", adapter)).collect()
    }
}

/// Writes the file into `folder`.
///
/// # Errors
/// When it cannot be written.
pub fn write(folder: &Path, lines: &[SampleLine]) -> Result<(), StageError> {
    let path = folder.join(SAMPLES_FILE);
    write_lines(&path, lines).map_err(|e| StageError::io("write", &path, e))
}

/// The first `n_rows` lines.
///
/// # Errors
/// A file that is missing or unreadable.
pub fn read(artifact: &Artifact, n_rows: usize) -> Result<Vec<SampleLine>, StageError> {
    let path = artifact.file(SAMPLES_FILE)?;
    let file = std::fs::File::open(path).map_err(|e| StageError::io("read", path, e))?;
    let parse = |(line_idx, line): (usize, std::io::Result<String>)| -> Result<SampleLine, StageError> {
        let line = line.map_err(|e| StageError::io("read", path, e))?;
        let bad = |e: serde_json::Error| GenerateError::BadSamples {
            file: SAMPLES_FILE,
            line: line_idx + 1,
            why: format!("is not a sample: {e}"),
        };
        Ok(serde_json::from_str(&line).map_err(bad)?)
    };
    BufReader::new(file).lines().take(n_rows).enumerate().map(parse).collect()
}

/// The first `n_rows` prompts with what was said to them.
///
/// # Errors
/// As [`read`].
pub fn show(artifact: &Artifact, n_rows: usize) -> Result<String, StageError> {
    let mut text = String::new();
    for line in read(artifact, n_rows)? {
        writeln!(text, "row {}", line.row).expect("writing to a String cannot fail");
        for (name, part) in std::iter::once(("prompt".to_string(), line.prompt.clone())).chain(line.answers()) {
            writeln!(text, "  {name}").expect("as above");
            text.push_str(&paragraph(&part, "    ", N_LINES_MAX));
        }
        text.push('\n');
    }
    Ok(text)
}

/// Prompts with what was expected and what was said.
///
/// # Errors
/// As [`read`].
pub fn figures(artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
    let lines = read(artifact, usize::MAX)?;
    let sample = |line: SampleLine| Sample { answers: line.answers(), prompt: line.prompt };
    Ok(vec![Figure::Samples(Samples { title: "Samples".into(), samples: lines.into_iter().map(sample).collect() })])
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipe_contract::ArtifactKind;

    fn line() -> SampleLine {
        SampleLine {
            row: 3,
            prompt: "2 + 2 =".into(),
            expected: " 4".into(),
            base: vec![" 5\u{1b}[2J".into(), " 6".into()],
            adapter: Some(vec![" 4".into(), " 4!".into()]),
        }
    }

    fn artifact(lines: &[SampleLine]) -> (tempfile::TempDir, Artifact) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write(folder.path(), lines).expect("written");
        let artifact = Artifact::from_folder(ArtifactKind::Samples, folder.path()).expect("a folder");
        (folder, artifact)
    }

    #[test]
    fn what_is_written_is_read_shown_and_a_figure() {
        let (_folder, artifact) = artifact(&[line(), SampleLine { row: 4, ..line() }]);
        assert_eq!(read(&artifact, 1).expect("a line"), [line()]);
        let shown = show(&artifact, 1).expect("text");
        assert!(shown.starts_with("row 3\n  prompt\n    2 + 2 =\n  expected\n    4\n  base 1\n"), "{shown}");
        assert!(!shown.contains('\u{1b}') && !shown.contains("row 4"), "{shown}");
        let figures = figures(&artifact).expect("figures");
        let [Figure::Samples(samples)] = figures.as_slice() else { panic!("{figures:?}") };
        let names: Vec<&str> = samples.samples[1].answers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["expected", "base 1", "base 2", "with adapter 1", "with adapter 2"]);
    }

    #[test]
    fn one_sample_has_no_number_and_an_adapter_may_be_absent() {
        let line = SampleLine { base: vec!["a".into()], adapter: None, expected: String::new(), ..line() };
        assert_eq!(line.answers(), [("base".to_string(), "a".to_string())]);
        let (_folder, artifact) = artifact(&[line]);
        let text = std::fs::read_to_string(artifact.file("samples.jsonl").expect("the file")).expect("text");
        assert_eq!(text, "{\"row\":3,\"prompt\":\"2 + 2 =\",\"expected\":\"\",\"base\":[\"a\"]}\n");
    }
}
