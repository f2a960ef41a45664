//! The artifact `scores`: `scores.json`, `examples.jsonl`, and both for people.
//!
//! ```text
//! {"format_version":1,"n_examples":64,"n_left_out":0,"n_tokens":3012,"base":{"loss":2.31,..},"adapter":{"loss":2.1,..}}
//! {"row":0,"n_tokens":41,"base":{"loss":2.5},"adapter":{"loss":2.2}}
//! ```
//!
//! What was not asked for is absent, and so is `adapter` without one.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::Path;

use pipe_contract::figures::{Facts, Table};
use pipe_contract::{Artifact, Figure, StageError};
use pipe_records::lines::write_lines;
use pipe_records::show::paragraph;
use pipe_records::thousands;
use serde::{Deserialize, Serialize};

use crate::error::EvaluateError;

const SCORES_FILE: &str = "scores.json";
const EXAMPLES_FILE: &str = "examples.jsonl";
/// Version of the fields of both files.
pub const FORMAT_VERSION: u32 = 1;

/// Lines of a text that are shown.
const N_LINES_MAX: usize = 12;

/// `scores.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Examples that were scored.
    pub n_examples: u64,
    /// Examples that are in training, and were not.
    pub n_left_out: u64,
    /// Examples whose document was cut at `max_length`.
    pub n_truncated: u64,
    /// Supervised tokens.
    pub n_tokens: u64,
    /// The model alone.
    pub base: Score,
    /// The model with the adapter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<Score>,
}

/// What was measured, of all examples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Mean over the supervised tokens, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Its exponential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// Share of the examples, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact_match: Option<f64>,
}

/// A line of `examples.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExampleLine {
    /// Row of the examples, counted from 0.
    pub row: u64,
    /// Supervised tokens.
    pub n_tokens: u64,
    /// What the model was given, where answers were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// What should follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// The model alone.
    pub base: ExampleScore,
    /// The model with the adapter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<ExampleScore>,
}

/// What was measured, of one example.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExampleScore {
    /// Mean over its supervised tokens, in nats; absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// What the model said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// Whether that is what should follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_match: Option<bool>,
}

impl Scores {
    /// Name and value of what was measured: `loss`, `2.313 -> 2.101`.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let cells = |score: &Score| {
            [
                score.loss.map(|loss| format!("{loss:.3}")),
                score.perplexity.map(shown_perplexity),
                score.exact_match.map(|share| format!("{:.1} %", share * 100.0)),
            ]
        };
        let (base, adapter) = (cells(&self.base), self.adapter.as_ref().map_or([const { None }; 3], cells));
        let names = ["loss", "perplexity", "exact match"];
        let both = names.into_iter().zip(base.into_iter().zip(adapter));
        both.filter_map(|(name, (base, adapter))| base.map(|base| (name, side_by_side(&base, adapter.as_deref()))))
            .collect()
    }

    fn counts(&self) -> Vec<(&'static str, String)> {
        let mut counts = vec![
            ("examples", thousands(self.n_examples)),
            ("left out, as in training", thousands(self.n_left_out)),
            ("supervised tokens", thousands(self.n_tokens)),
        ];
        if self.n_truncated > 0 {
            counts.push(("truncated examples", thousands(self.n_truncated)));
        }
        counts
    }
}

fn side_by_side(base: &str, adapter: Option<&str>) -> String {
    adapter.map_or_else(|| base.to_string(), |adapter| format!("{base} -> {adapter}"))
}

/// Two digits after the point, or none of a large number.
fn shown_perplexity(perplexity: f64) -> String {
    match perplexity < 1000.0 {
        true => format!("{perplexity:.2}"),
        false => thousands(perplexity.round() as u64),
    }
}

/// Writes both files into `folder`.
///
/// # Errors
/// When a file cannot be written.
pub fn write(folder: &Path, scores: &Scores, lines: &[ExampleLine]) -> Result<(), StageError> {
    let path = folder.join(EXAMPLES_FILE);
    write_lines(&path, lines).map_err(|e| StageError::io("write", &path, e))?;
    let path = folder.join(SCORES_FILE);
    let text = serde_json::to_string_pretty(scores).expect("finite numbers and texts can be written") + "\n";
    std::fs::write(&path, text).map_err(|e| StageError::io("write", &path, e))
}

/// Reads `scores.json` back.
///
/// # Errors
/// A file that is missing, unreadable or of another version.
pub fn read(artifact: &Artifact) -> Result<Scores, StageError> {
    let path = artifact.file(SCORES_FILE)?;
    let text = std::fs::read_to_string(path).map_err(|e| StageError::io("read", path, e))?;
    let bad = |why: String| EvaluateError::BadScores { file: SCORES_FILE, why };
    let scores: Scores = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    match scores.format_version {
        FORMAT_VERSION => Ok(scores),
        other => Err(bad(format!("it has format version {other}")).into()),
    }
}

/// Calls `take` with the first `n_rows` lines of `examples.jsonl`.
fn read_lines(artifact: &Artifact, n_rows: usize) -> Result<Vec<ExampleLine>, StageError> {
    let path = artifact.file(EXAMPLES_FILE)?;
    let file = std::fs::File::open(path).map_err(|e| StageError::io("read", path, e))?;
    let line = |line: std::io::Result<String>| -> Result<ExampleLine, StageError> {
        let line = line.map_err(|e| StageError::io("read", path, e))?;
        Ok(serde_json::from_str(&line)
            .map_err(|e| EvaluateError::BadScores { file: EXAMPLES_FILE, why: e.to_string() })?)
    };
    BufReader::new(file).lines().take(n_rows).map(line).collect()
}

/// The scores, then the first `n_rows` examples.
///
/// # Errors
/// As [`read`].
pub fn show(artifact: &Artifact, n_rows: usize) -> Result<String, StageError> {
    let scores = read(artifact)?;
    let mut text = String::new();
    for (name, value) in scores.facts().into_iter().chain(scores.counts()) {
        writeln!(text, "{name:<25} {value}").expect("writing to a String cannot fail");
    }
    for line in read_lines(artifact, n_rows)? {
        show_line(&mut text, &line);
    }
    Ok(text)
}

fn show_line(text: &mut String, line: &ExampleLine) {
    write!(text, "\nrow {}: {} supervised tokens", line.row, thousands(line.n_tokens)).expect("as above");
    let adapter = line.adapter.as_ref();
    if let Some(loss) = line.base.loss {
        let other = adapter.and_then(|score| score.loss).map(|loss| format!("{loss:.3}"));
        write!(text, ", loss {}", side_by_side(&format!("{loss:.3}"), other.as_deref())).expect("as above");
    }
    text.push('\n');
    let mark = |score: &ExampleScore| if score.is_match == Some(true) { " (match)" } else { "" };
    let parts = [
        ("prompt".to_string(), line.prompt.as_ref()),
        ("expected".to_string(), line.expected.as_ref()),
        (format!("base{}", mark(&line.base)), line.base.answer.as_ref()),
        (format!("with adapter{}", adapter.map_or("", mark)), adapter.and_then(|score| score.answer.as_ref())),
    ];
    for (name, part) in parts {
        let Some(part) = part else { continue };
        writeln!(text, "  {name}").expect("as above");
        text.push_str(&paragraph(part, "    ", N_LINES_MAX));
    }
}

/// A table of base and adapter, and what was counted.
///
/// # Errors
/// As [`read`].
pub fn figures(artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
    let scores = read(artifact)?;
    let mut columns = vec![String::new(), "base".to_string()];
    columns.extend(scores.adapter.is_some().then(|| "with adapter".to_string()));
    let row = |(name, value): (&str, String)| {
        let cells = value.split(" -> ").map(str::to_string);
        std::iter::once(with_unit(name).to_string()).chain(cells).collect()
    };
    let table = Table { title: "Scores".into(), columns, rows: scores.facts().into_iter().map(row).collect() };
    let facts = scores.counts().into_iter().map(|(name, value)| (name.to_string(), value)).collect();
    Ok(vec![Figure::Table(table), Figure::Facts(Facts { title: "What was scored".into(), facts })])
}

fn with_unit(name: &str) -> &str {
    match name {
        "loss" => "loss (nats per token)",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipe_contract::ArtifactKind;

    fn score(loss: f64, exact_match: f64) -> Score {
        Score { loss: Some(loss), perplexity: Some(libm::exp(loss)), exact_match: Some(exact_match) }
    }

    fn scores(adapter: Option<Score>) -> Scores {
        Scores {
            format_version: FORMAT_VERSION,
            n_examples: 2,
            n_left_out: 1,
            n_truncated: 0,
            n_tokens: 9,
            base: score(2.3126, 0.04),
            adapter,
        }
    }

    fn line() -> ExampleLine {
        let said = |text: &str, is_match| ExampleScore {
            loss: Some(1.5),
            answer: Some(text.into()),
            is_match: Some(is_match),
        };
        ExampleLine {
            row: 7,
            n_tokens: 3,
            prompt: Some("2 + 2 =".into()),
            expected: Some(" 4".into()),
            base: said(" 5\u{1b}[31m", false),
            adapter: Some(said(" 4", true)),
        }
    }

    fn artifact(scores: &Scores, lines: &[ExampleLine]) -> (tempfile::TempDir, Artifact) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write(folder.path(), scores, lines).expect("written");
        let artifact = Artifact::from_folder(ArtifactKind::Scores, folder.path()).expect("a folder");
        (folder, artifact)
    }

    #[test]
    fn facts_have_base_and_adapter_side_by_side() {
        let both = scores(Some(score(2.1011, 0.925))).facts();
        let expected =
            [("loss", "2.313 -> 2.101"), ("perplexity", "10.10 -> 8.18"), ("exact match", "4.0 % -> 92.5 %")];
        assert_eq!(both, expected.map(|(name, value)| (name, value.to_string())));
        let base = scores(None).facts();
        assert_eq!(base[2], ("exact match", "4.0 %".to_string()));
        let only_loss = Scores { base: Score { loss: Some(9.9), ..Score::default() }, ..scores(None) };
        assert_eq!(only_loss.facts(), [("loss", "9.900".to_string())]);
        assert_eq!(shown_perplexity(19_930.4), "19,930");
    }

    #[test]
    fn what_is_written_is_read_and_shown() {
        let scores = scores(Some(score(2.1, 0.5)));
        let (_folder, artifact) = artifact(&scores, &[line(), line()]);
        assert_eq!(read(&artifact).expect("scores"), scores);
        let shown = show(&artifact, 1).expect("text");
        assert_eq!(shown.matches("row 7").count(), 1, "{shown}");
        assert!(shown.contains("exact match               4.0 % -> 50.0 %"), "{shown}");
        assert!(shown.contains("  with adapter (match)\n    4\n"), "{shown}");
        assert!(!shown.contains('\u{1b}'), "a terminal must not obey an answer");
    }

    #[test]
    fn figures_are_a_table_and_facts() {
        let (_folder, artifact) = artifact(&scores(Some(score(2.1, 0.5))), &[line()]);
        let figures = figures(&artifact).expect("figures");
        let [Figure::Table(table), Figure::Facts(facts)] = figures.as_slice() else { panic!("{figures:?}") };
        assert_eq!(table.columns, ["", "base", "with adapter"]);
        assert_eq!(table.rows[0], ["loss (nats per token)", "2.313", "2.100"]);
        assert!(table.rows.iter().all(|row| row.len() == 3));
        assert_eq!(facts.facts[1], ("left out, as in training".to_string(), "1".to_string()));
    }

    #[test]
    fn another_version_is_named() {
        let (_folder, artifact) = artifact(&Scores { format_version: 2, ..scores(None) }, &[]);
        assert!(read(&artifact).expect_err("another version").message.contains("format version 2"));
    }
}
