//! `summary.json`, and the same as a table for people.

use std::fmt::Write as _;

use pipe_contract::Artifact;
use pipe_records::thousands;
use serde::{Deserialize, Serialize};

use crate::AnalyzeError;
use crate::duplicates::Duplicates;
use crate::histogram::Histogram;
use crate::statistics::Statistics;

/// The file.
pub(crate) const SUMMARY_FILE: &str = "summary.json";
/// Version of its fields.
pub(crate) const FORMAT_VERSION: u32 = 1;

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
    pub(crate) duplicates: Duplicates,
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

    /// A line per statistic, characters and tokens side by side.
    pub(crate) fn table(&self) -> Vec<String> {
        let columns: Vec<&Statistics> = std::iter::once(&self.characters).chain(&self.tokens).collect();
        let line = |name: &str, value: &dyn Fn(&Statistics) -> String| {
            let mut line = format!("{name:<18}");
            for statistics in &columns {
                write!(line, "{:>14}", value(statistics)).expect("writing to a String cannot fail");
            }
            line
        };
        let mut head = format!("{:<18}{:>14}", "", "characters");
        if self.tokens.is_some() {
            write!(head, "{:>14}", "tokens").expect("writing to a String cannot fail");
        }
        let mut lines = vec![
            head,
            line("count", &|s| thousands(s.count)),
            line("mean", &|s| decimal(s.mean)),
            line("standard deviation", &|s| decimal(s.standard_deviation)),
            line("min", &|s| thousands(s.min.into())),
        ];
        for (i, percentile) in self.characters.percentiles.iter().enumerate() {
            lines.push(line(&format!("{} %", percentile.percent), &|s| decimal(s.percentiles[i].length)));
        }
        lines.push(line("max", &|s| thousands(s.max.into())));
        lines.push(line(&format!("above {}", thousands(self.threshold.into())), &|s| thousands(s.n_above_threshold)));
        lines.push(line("", &|s| format!("{:.1} %", s.share_above_threshold * 100.0)));
        lines
    }

    /// A line about repeated texts.
    pub(crate) fn duplicates_line(&self) -> String {
        let Duplicates { n_duplicates, first } = &self.duplicates;
        if *n_duplicates == 0 {
            return "no text is there twice".to_string();
        }
        let listed: Vec<String> = first.iter().map(|r| format!("{} (= {})", r.row, r.same_as_row)).collect();
        let more = if first.len() as u64 == *n_duplicates { "" } else { ", ..." };
        format!("{} texts repeat an earlier one: rows {}{more}", thousands(*n_duplicates), listed.join(", "))
    }
}

/// `1,234.5`; one digit after the point.
pub(crate) fn decimal(number: f64) -> String {
    let tenths = (number * 10.0).round().max(0.0) as u64;
    format!("{}.{}", thousands(tenths / 10), tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        let (characters, tokens) = ([900, 1200, 15], [300, 400, 5]);
        Summary {
            format_version: FORMAT_VERSION,
            n_rows: 3,
            threshold: 1024,
            unit: "characters".into(),
            characters: Statistics::of(&characters, 1024).unwrap(),
            tokens: Statistics::of(&tokens, 1024),
            duplicates: Duplicates::default(),
            histogram: Histogram::of(&characters, 10).unwrap(),
        }
    }

    #[test]
    fn the_table_has_both_units_side_by_side() {
        let table = summary().table();
        assert_eq!(table[0], "                      characters        tokens");
        assert_eq!(table[2], "mean                       705.0         235.0");
        assert_eq!(table[7], "50 %                       900.0         300.0");
        assert_eq!(table[13], "above 1,024                    1             0");
        assert_eq!(table[14], "                          33.3 %         0.0 %");
    }

    #[test]
    fn the_file_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(SUMMARY_FILE), summary().to_json()).unwrap();
        let artifact = Artifact::from_folder(pipe_contract::ArtifactKind::Lengths, folder.path()).unwrap();
        assert_eq!(Summary::read(&artifact).unwrap(), summary());
    }
}
