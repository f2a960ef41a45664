//! `summary.json`, and the same as a table for people.

use pipe_contract::Artifact;
use pipe_contract::figures::{Facts, Table};
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
        let Table { columns, rows, .. } = self.statistics();
        let line = |cells: &[String]| {
            let (name, values) = cells.split_first().expect("a row has a name");
            values.iter().fold(format!("{name:<18}"), |line, value| line + &format!("{value:>14}"))
        };
        std::iter::once(&columns).chain(&rows).map(|cells| line(cells)).collect()
    }

    /// A row per statistic, characters and tokens side by side.
    pub(crate) fn statistics(&self) -> Table {
        let columns: Vec<&Statistics> = std::iter::once(&self.characters).chain(&self.tokens).collect();
        let row = |name: &str, value: &dyn Fn(&Statistics) -> String| {
            std::iter::once(name.to_string()).chain(columns.iter().map(|s| value(s))).collect::<Vec<String>>()
        };
        let mut rows = vec![
            row("count", &|s| thousands(s.count)),
            row("mean", &|s| decimal(s.mean)),
            row("standard deviation", &|s| decimal(s.standard_deviation)),
            row("min", &|s| thousands(s.min.into())),
        ];
        for (i, percentile) in self.characters.percentiles.iter().enumerate() {
            rows.push(row(&format!("{} %", percentile.percent), &|s| decimal(s.percentiles[i].length)));
        }
        rows.push(row("max", &|s| thousands(s.max.into())));
        rows.push(row(&format!("above {}", thousands(self.threshold.into())), &|s| thousands(s.n_above_threshold)));
        rows.push(row("", &|s| format!("{:.1} %", s.share_above_threshold * 100.0)));
        let heads = ["", "characters", "tokens"].into_iter().take(1 + columns.len()).map(str::to_string);
        Table { title: "Lengths".to_string(), columns: heads.collect(), rows }
    }

    /// How many texts are there twice, and the first of them.
    pub(crate) fn repeats(&self) -> Facts {
        let Duplicates { n_duplicates, first } = &self.duplicates;
        let mut facts = vec![
            ("texts".to_string(), thousands(self.n_rows)),
            ("texts that repeat an earlier one".to_string(), thousands(*n_duplicates)),
        ];
        if let Some(repeat) = first.first() {
            let places = format!("row {} (counted from 0) is row {} again", repeat.row, repeat.same_as_row);
            facts.push(("the first".to_string(), places));
        }
        Facts { title: "Repeated texts".to_string(), facts }
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
