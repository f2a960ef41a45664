//! `summary.json` for people: tables and lines of it.

use pipe_contract::figures::{Facts, Table};
use pipe_records::thousands;

use crate::duplicates::{Duplicates, Overlap};
use crate::oddities::{Kind, Listed};
use crate::statistics::Statistics;
use crate::summary::{Summary, decimal};

impl Summary {
    /// Everything as text, tables with aligned columns.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = aligned(&self.statistics(), 18, 14);
        let mut add = |title: &str, more: Vec<String>| {
            lines.extend(["".to_string(), title.to_string()]);
            lines.extend(more);
        };
        if let Some(table) = self.packing_table() {
            add(&table.title, aligned(&table, 12, 14));
        }
        add("the longest rows", self.longest.iter().map(|row| self.longest_line(row)).collect());
        if let Some(table) = self.oddity_table() {
            let line = |cells: &Vec<String>| format!("{:>9}  {}: {}", cells[1], cells[0], cells[2]);
            add(&table.title, table.rows.iter().map(line).collect());
        }
        lines.push(String::new());
        lines.push(repeats_line(&self.duplicates, "an earlier one", "no text is there twice"));
        if self.near_duplicates.n_duplicates > 0 {
            let what = "an earlier one but for case, punctuation and white space";
            lines.push(repeats_line(&self.near_duplicates, what, ""));
        }
        if let Some(facts) = self.overlap_facts() {
            lines.extend([String::new(), facts.title]);
            lines.extend(facts.facts.iter().map(|(name, value)| format!("{name}: {value}")));
        }
        lines
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

    /// A row per strategy: what it would make of the examples.
    pub(crate) fn packing_table(&self) -> Option<Table> {
        let packing = self.packing.as_ref()?;
        let heads = ["", "packs", "fill", "empty places", "docs cut", "tokens lost", "docs left out"];
        let rows = packing.strategies.iter().map(|estimate| {
            vec![
                estimate.packing_strategy.name().to_string(),
                thousands(estimate.n_packs),
                format!("{:.1} %", estimate.fill * 100.0),
                thousands(estimate.n_empty_places),
                thousands(estimate.n_truncated_documents),
                thousands(estimate.n_truncated_tokens + estimate.n_dropped_tokens),
                thousands(estimate.n_dropped_documents),
            ]
        });
        Some(Table {
            title: format!("What packing to {} tokens would waste", thousands(packing.max_length.into())),
            columns: heads.map(str::to_string).to_vec(),
            rows: rows.collect(),
        })
    }

    /// The longest rows, with how they begin.
    pub(crate) fn longest_table(&self) -> Table {
        let rows = self
            .longest
            .iter()
            .map(|row| vec![thousands(row.row.into()), thousands(row.value as u64), row.start.clone()]);
        Table {
            title: "The longest rows (counted from 0)".to_string(),
            columns: ["row", self.unit_of_longest(), "begins"].map(str::to_string).to_vec(),
            rows: rows.collect(),
        }
    }

    /// A row per oddity that occurred.
    pub(crate) fn oddity_table(&self) -> Option<Table> {
        if self.oddities.is_empty() {
            return None;
        }
        let rows = self.oddities.iter().map(|oddity| {
            let listed: Vec<String> = oddity.rows.iter().map(|row| odd_row(oddity.oddity, row)).collect();
            let more = if oddity.n_rows > listed.len() as u64 { ", ..." } else { "" };
            let listed = format!("row {}{more}", listed.join(", "));
            vec![oddity.oddity.words().to_string(), thousands(oddity.n_rows), listed]
        });
        let columns = ["", "rows", "the oddest (counted from 0)"].map(str::to_string).to_vec();
        Some(Table { title: "Unusual rows".to_string(), columns, rows: rows.collect() })
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
        let near = &self.near_duplicates;
        let name = "others that do but for case, punctuation and white space";
        facts.push((name.to_string(), count_and_first(near, "row", "is")));
        Facts { title: "Repeated texts".to_string(), facts }
    }

    /// What of the test rows is among the examples.
    pub(crate) fn overlap_facts(&self) -> Option<Facts> {
        let Overlap { n_test_rows, exact, normalized, prompt } = self.overlap.as_ref()?;
        let found = |found: &Duplicates| count_and_first(found, "test row", "is example");
        let facts = vec![
            ("test rows".to_string(), thousands(*n_test_rows)),
            ("among the examples".to_string(), found(exact)),
            ("among them but for case, punctuation and white space".to_string(), found(normalized)),
            ("their prompt alone is".to_string(), found(prompt)),
        ];
        Some(Facts { title: "Test rows among the examples".to_string(), facts })
    }

    fn unit_of_longest(&self) -> &'static str {
        if self.tokens.is_some() { "tokens" } else { "characters" }
    }

    fn longest_line(&self, row: &Listed) -> String {
        format!("{:>9} {}  row {}: {}", thousands(row.value as u64), self.unit_of_longest(), row.row, row.start)
    }
}

/// `3: row 7 is 2, row 9 is 2, ...`.
fn count_and_first(found: &Duplicates, row: &str, is: &str) -> String {
    if found.first.is_empty() {
        return "0".to_string();
    }
    let listed: Vec<String> =
        found.first.iter().take(3).map(|repeat| format!("{row} {} {is} {}", repeat.row, repeat.same_as_row)).collect();
    let more = if found.n_duplicates > listed.len() as u64 { ", ..." } else { "" };
    format!("{}: {}{more}", thousands(found.n_duplicates), listed.join(", "))
}

fn repeats_line(found: &Duplicates, what: &str, none: &str) -> String {
    let Duplicates { n_duplicates, first } = found;
    if *n_duplicates == 0 {
        return none.to_string();
    }
    let listed: Vec<String> = first.iter().map(|r| format!("{} (= {})", r.row, r.same_as_row)).collect();
    let more = if first.len() as u64 == *n_duplicates { "" } else { ", ..." };
    format!("{} texts repeat {what}: rows {}{more}", thousands(*n_duplicates), listed.join(", "))
}

/// `17 (2.41)`: the row, and its value where that says more than that it is odd.
fn odd_row(kind: Kind, row: &Listed) -> String {
    match kind {
        Kind::TokensPerCharacter => format!("{} ({:.2})", row.row, row.value),
        Kind::Repetition => format!("{} ({:.0} %)", row.row, row.value * 100.0),
        Kind::ControlCharacters | Kind::ReplacementCharacters => format!("{} ({})", row.row, row.value),
        _ => row.row.to_string(),
    }
}

/// The first column to the left, `name_width` wide; the others to the right, `width` wide.
fn aligned(table: &Table, name_width: usize, width: usize) -> Vec<String> {
    let line = |cells: &Vec<String>| {
        let (name, values) = cells.split_first().expect("a row has a name");
        values.iter().fold(format!("{name:<name_width$}"), |line, value| line + &format!("{value:>width$}"))
    };
    std::iter::once(&table.columns).chain(&table.rows).map(line).collect()
}

#[cfg(test)]
mod tests {
    use crate::duplicates::Repeat;
    use crate::oddities::Oddity;
    use crate::packing::Estimator;
    use crate::summary::tests::summary;
    use pipe_tokenizer::Document;

    use super::*;

    #[test]
    fn the_table_has_both_units_side_by_side() {
        let lines = summary().lines();
        assert_eq!(lines[0], "                      characters        tokens");
        assert_eq!(lines[2], "mean                       705.0         235.0");
        assert_eq!(lines[7], "50 %                       900.0         300.0");
        assert_eq!(lines[13], "above 1,024                    1             0");
        assert_eq!(lines[14], "                          33.3 %         0.0 %");
        assert_eq!(lines[16..18], ["the longest rows", "      400 tokens  row 1: Once"]);
    }

    #[test]
    fn packing_odd_rows_and_overlap_are_told() {
        let mut estimator = Estimator::new(1024);
        for n_tokens in [1500, 300, 200] {
            estimator.push(&Document { ids: vec![1; n_tokens], labels: vec![1; n_tokens] });
        }
        let found = |n_duplicates| Duplicates { n_duplicates, first: vec![Repeat { row: 7, same_as_row: 2 }] };
        let listed = Listed { row: 17, value: 2.408, start: "x".to_string() };
        let summary = Summary {
            packing: Some(estimator.finish()),
            oddities: vec![Oddity { oddity: Kind::TokensPerCharacter, n_rows: 2, rows: vec![listed] }],
            overlap: Some(Overlap { n_test_rows: 9, exact: found(1), normalized: found(4), ..Overlap::default() }),
            near_duplicates: found(1),
            ..summary()
        };
        let lines = summary.lines();
        for line in [
            "What packing to 1,024 tokens would waste",
            "none                     3        49.6 %         1,548             1           476             0",
            "wrapped                  2        97.7 %            48             1             0             0",
            "        2  more than one token a character: row 17 (2.41), ...",
            "no text is there twice",
            "1 texts repeat an earlier one but for case, punctuation and white space: rows 7 (= 2)",
            "among the examples: 1: test row 7 is example 2",
            "among them but for case, punctuation and white space: 4: test row 7 is example 2, ...",
            "their prompt alone is: 0",
        ] {
            assert!(lines.iter().any(|l| l == line), "no line {line:?} in {lines:#?}");
        }
    }
}
