//! `summary.json`.

use pipe_contract::Artifact;
use pipe_records::thousands;
use serde::{Deserialize, Serialize};

use crate::AnalyzeError;
use crate::duplicates::{Duplicates, Overlap};
use crate::histogram::Histogram;
use crate::oddities::{Listed, Oddity};
use crate::packing::Estimates;
use crate::statistics::Statistics;

/// The file.
pub(crate) const SUMMARY_FILE: &str = "summary.json";
/// Version of its fields.
pub(crate) const FORMAT_VERSION: u32 = 2;

/// What `analyze` found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Summary {
    pub(crate) format_version: u32,
    pub(crate) n_rows: u64,
    /// In `unit`.
    pub(crate) threshold: u32,
    /// `characters` or `tokens`: what the histogram counts.
    pub(crate) unit: String,
    pub(crate) characters: Statistics,
    /// Where a model was given.
    pub(crate) tokens: Option<Statistics>,
    /// Where a model was given.
    pub(crate) packing: Option<Estimates>,
    /// The longest rows in tokens where a model was given, else in characters; `value` is the length.
    pub(crate) longest: Vec<Listed>,
    /// Those that occurred.
    pub(crate) oddities: Vec<Oddity>,
    /// To the character.
    pub(crate) duplicates: Duplicates,
    /// But for case, punctuation and white space, those of `duplicates` not among them.
    pub(crate) near_duplicates: Duplicates,
    /// Where `test` was given.
    pub(crate) overlap: Option<Overlap>,
    pub(crate) histogram: Histogram,
}

impl Summary {
    /// The bytes of the file.
    pub(crate) fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("numbers and strings always serialize");
        text.push('\n');
        text
    }

    /// Reads it back from an artifact.
    pub(crate) fn read(artifact: &Artifact) -> Result<Self, pipe_contract::StageError> {
        let path = artifact.file(SUMMARY_FILE)?;
        let text = std::fs::read_to_string(path).map_err(|e| pipe_contract::StageError::io("read", path, e))?;
        let unreadable = |message: String| AnalyzeError::Summary { message };
        let summary: Summary = serde_json::from_str(&text).map_err(|e| unreadable(e.to_string()))?;
        if summary.format_version != FORMAT_VERSION {
            return Err(unreadable(format!("it has format version {}", summary.format_version)).into());
        }
        Ok(summary)
    }

    /// The statistics of `unit`.
    pub(crate) fn of_unit(&self) -> &Statistics {
        match (&self.tokens, self.unit.as_str()) {
            (Some(tokens), "tokens") => tokens,
            _ => &self.characters,
        }
    }
}

/// `1,234.5`; one digit after the point.
pub(crate) fn decimal(number: f64) -> String {
    let tenths = (number * 10.0).round().max(0.0) as u64;
    format!("{}.{}", thousands(tenths / 10), tenths % 10)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn summary() -> Summary {
        let (characters, tokens) = ([900, 1200, 15], [300, 400, 5]);
        Summary {
            format_version: FORMAT_VERSION,
            n_rows: 3,
            threshold: 1024,
            unit: "characters".into(),
            characters: Statistics::of(&characters, 1024).unwrap(),
            tokens: Statistics::of(&tokens, 1024),
            packing: None,
            longest: vec![Listed { row: 1, value: 400.0, start: "Once".into() }],
            oddities: Vec::new(),
            duplicates: Duplicates::default(),
            near_duplicates: Duplicates::default(),
            overlap: None,
            histogram: Histogram::of(&characters, 10).unwrap(),
        }
    }

    #[test]
    fn the_file_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(SUMMARY_FILE), summary().to_json()).unwrap();
        let artifact = Artifact::from_folder(pipe_contract::ArtifactKind::Lengths, folder.path()).unwrap();
        assert_eq!(Summary::read(&artifact).unwrap(), summary());
    }
}
