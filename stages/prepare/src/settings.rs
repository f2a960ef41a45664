//! The settings of `prepare`.

use std::collections::BTreeMap;

use pipe_contract::{KeyValue, Problem, ProblemKind, Reader};
use regex::Regex;

use crate::assertions::AssertionSettings;
use crate::columns::ColumnSettings;
use crate::conditions::{Condition, Test};
use crate::minhash::MinHashSettings;
use crate::mix::{Mix, StoppingStrategy};
use crate::split::TestSize;

/// Settings as resolved.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Names, and which stay.
    pub columns: ColumnSettings,
    /// All must be met.
    pub conditions: Vec<Condition>,
    /// Which rows are duplicates.
    pub deduplicate: Deduplicate,
    /// Columns that are compared; `None`: all, or all of text for near duplicates.
    pub deduplicate_columns: Option<Vec<String>>,
    /// What near is.
    pub minhash: MinHashSettings,
    /// Port to a positive weight; empty: one input after the other.
    pub weights: BTreeMap<String, f64>,
    /// When a mix ends.
    pub stopping_strategy: StoppingStrategy,
    /// Whether the order is changed.
    pub shuffle: bool,
    /// Of everything that is random.
    pub seed: u64,
    /// Rows that are left out at the start.
    pub skip: u64,
    /// Rows at most.
    pub limit: Option<u64>,
    /// Rows for testing.
    pub test_size: TestSize,
    /// Whether rows that cannot be read are left out.
    pub drops_bad_rows: bool,
    /// How many of them are named.
    pub n_bad_rows_listed: usize,
    /// What must hold.
    pub assertions: AssertionSettings,
}

/// Which rows are duplicates of an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Deduplicate {
    None,
    Exact,
    Near,
}

impl Settings {
    /// Whether there is an output `test`.
    pub fn has_test(&self) -> bool {
        self.test_size != TestSize::None
    }

    /// Which input gives the next row, of inputs at `ports` with `n_rows` each; `None` without weights.
    pub fn mix(&self, ports: &[&str], n_rows: &[u64]) -> Option<Mix> {
        if self.weights.is_empty() {
            return None;
        }
        let weights: Vec<f64> = ports.iter().map(|port| self.weights.get(*port).copied().unwrap_or(0.0)).collect();
        Some(Mix::new(&weights, n_rows, self.stopping_strategy, self.seed))
    }

    /// What is wrong with the weights where these ports have something on them.
    pub fn check_inputs(&self, connected: &[&str]) -> Vec<Problem> {
        let problem = |path: &[&str], message: String| Problem {
            path: path.iter().map(|key| (*key).to_string()).collect(),
            at_key: path.len() > 1,
            kind: ProblemKind::OutOfRange,
            message,
            help: Some("`weights` has the name of each input, as in `inputs`".to_string()),
        };
        let without = connected.iter().filter(|port| !self.weights.is_empty() && !self.weights.contains_key(**port));
        let unknown = self.weights.keys().filter(|port| !connected.contains(&port.as_str()));
        without
            .map(|port| problem(&["weights"], format!("`weights` has no weight for the input `{port}`")))
            .chain(unknown.map(|port| problem(&["weights", port], format!("there is no input `{port}`"))))
            .collect()
    }
}

/// Reads the `with:` block.
pub fn read(reader: &mut Reader) -> Settings {
    let columns = read_columns(reader);
    let conditions = reader.sections("filter", read_condition).into_iter().flatten().collect();
    let deduplicate = match reader.choice("deduplicate", "none", &["none", "exact", "near"]) {
        "exact" => Deduplicate::Exact,
        "near" => Deduplicate::Near,
        _ => Deduplicate::None,
    };
    let deduplicate_columns = reader.text_list("deduplicate_columns");
    if deduplicate_columns.is_some() && deduplicate == Deduplicate::None {
        unused(reader, "deduplicate_columns", "deduplicate: exact");
    }
    if reader.has("minhash") && deduplicate != Deduplicate::Near {
        unused(reader, "minhash", "deduplicate: near");
    }
    let minhash = reader.section("minhash", |reader| MinHashSettings {
        threshold: reader.float("threshold", 0.7, 0.05..=1.0),
        num_perm: size(reader.integer("num_perm", 128, 16..=1024)),
        ngram: size(reader.integer("ngram", 5, 1..=100)),
    });
    let weights = numbers(reader, "weights", |text| text.parse().ok().filter(|w: &f64| *w > 0.0 && w.is_finite()));
    let strategies = ["first_exhausted", "all_exhausted"];
    let stopping_strategy = match reader.choice("stopping_strategy", "first_exhausted", &strategies) {
        "all_exhausted" => StoppingStrategy::AllExhausted,
        _ => StoppingStrategy::FirstExhausted,
    };
    if reader.has("stopping_strategy") && weights.is_empty() {
        unused(reader, "stopping_strategy", "weights: { ... }");
    }
    let shuffle = reader.bool("shuffle", false);
    let seed = reader.integer("seed", 42, 0..=i64::MAX as u64);
    let skip = reader.integer("skip", 0, 0..=i64::MAX as u64);
    let limit = reader.optional_integer("limit", 1..=i64::MAX as u64);
    let test_size = read_test_size(reader);
    if test_size != TestSize::None && stopping_strategy == StoppingStrategy::AllExhausted {
        let message = "`all_exhausted` repeats rows, so one row could be in `train` and in `test`";
        let help = "split in a `prepare` stage of its own before the mix".to_string();
        reader.problem("stopping_strategy", ProblemKind::Unsupported, message, Some(help));
    }
    let drops_bad_rows = reader.choice("on_bad_rows", "error", &["error", "drop"]) == "drop";
    let n_bad_rows_listed = size(reader.integer("bad_rows_listed", 10, 0..=10_000));
    // They are named in the log, which is no part of an output.
    reader.not_in_key("bad_rows_listed");
    let assertions = reader.section("assert", read_assertions);
    Settings {
        columns,
        conditions,
        deduplicate,
        deduplicate_columns,
        minhash,
        weights,
        stopping_strategy,
        shuffle,
        seed,
        skip,
        limit,
        test_size,
        drops_bad_rows,
        n_bad_rows_listed,
        assertions,
    }
}

fn read_columns(reader: &mut Reader) -> ColumnSettings {
    let columns = reader.text_map("columns");
    let twice = columns.values().find(|old| columns.values().filter(|other| other == old).count() > 1);
    if let Some(old) = twice {
        let message = format!("`columns` gives the column `{old}` two names");
        reader.problem("columns", ProblemKind::OutOfRange, message, None);
    }
    let select = reader.text_list("select_columns");
    let remove = reader.text_list("remove_columns").unwrap_or_default();
    for name in select.iter().flatten().filter(|name| remove.contains(name)) {
        let message = format!("`{name}` is in `select_columns` and in `remove_columns`");
        reader.problem("remove_columns", ProblemKind::OutOfRange, message, None);
    }
    ColumnSettings { columns, select, remove }
}

fn read_condition(reader: &mut Reader) -> Option<Condition> {
    let column = reader.optional_text("column");
    if column.is_none() && !reader.has("column") {
        reader.problem("column", ProblemKind::MissingSetting, "`column` is missing", None);
    }
    let not_null = reader.bool("not_null", true);
    let mut tests = Vec::new();
    tests.extend(words(reader, "equals").map(Test::OneOf));
    tests.extend(words(reader, "not_equals").map(Test::NoneOf));
    let most = i64::MAX as u64;
    tests.extend(reader.optional_integer("min_characters", 1..=most).map(|n| Test::MinCharacters(size(n))));
    tests.extend(reader.optional_integer("max_characters", 0..=most).map(|n| Test::MaxCharacters(size(n))));
    tests.extend(pattern(reader, "matches").map(Test::Matches));
    tests.extend(pattern(reader, "not_matches").map(Test::NotMatches));
    tests.extend(reader.optional_integer("min_items", 1..=most).map(|n| Test::MinItems(size(n))));
    tests.extend(reader.optional_integer("max_items", 0..=most).map(|n| Test::MaxItems(size(n))));
    let mut bound = |name: &'static str, none: f64| {
        let is_given = reader.has(name);
        let value = reader.float(name, none, f64::MIN..=f64::MAX);
        is_given.then_some(value)
    };
    tests.extend(bound("min_value", f64::MIN).map(Test::MinValue));
    tests.extend(bound("max_value", f64::MAX).map(Test::MaxValue));
    if !not_null && tests.is_empty() {
        let message = "a condition with `not_null: false` and nothing else drops no row";
        reader.problem("not_null", ProblemKind::Unsupported, message, None);
    }
    column.map(|column| Condition { column, not_null, tests })
}

fn read_assertions(reader: &mut Reader) -> AssertionSettings {
    let most = i64::MAX as u64;
    AssertionSettings {
        min_rows: reader.optional_integer("min_rows", 0..=most),
        max_rows: reader.optional_integer("max_rows", 0..=most),
        columns: reader.text_map("columns"),
        no_nulls: reader.text_list("no_nulls").unwrap_or_default(),
        max_characters: numbers(reader, "max_characters", |text| text.parse().ok()),
        unique: reader.text_list("unique").unwrap_or_default(),
        max_dropped_share: reader.float("max_dropped_share", 1.0, 0.0..=1.0),
    }
}

/// A share below 1, or a number of rows.
fn read_test_size(reader: &mut Reader) -> TestSize {
    let value = reader.float("test_size", 0.0, 0.0..=9.0e15);
    match value {
        0.0 => TestSize::None,
        share if share < 1.0 => TestSize::Share(share),
        rows if rows.trunc() == rows => TestSize::Rows(rows as u64),
        other => {
            let message = format!("`test_size` is {other}, but must be a share below 1 or a whole number of rows");
            reader.problem("test_size", ProblemKind::OutOfRange, message, None);
            TestSize::None
        }
    }
}

/// One value or a list of them, in words.
fn words(reader: &mut Reader, name: &'static str) -> Option<Vec<String>> {
    let value = reader.raw(name);
    if value.is_sequence() || value.is_null() {
        return reader.words(name);
    }
    let word = match (value.as_str(), value.as_bool(), value.as_i64()) {
        (Some(text), _, _) => text.to_string(),
        (_, Some(truth), _) => truth.to_string(),
        (_, _, Some(number)) => number.to_string(),
        _ => {
            let message = format!("`{name}` must be text, a whole number, `true` or `false`, or a list of them");
            reader.problem(name, ProblemKind::WrongType, message, None);
            return None;
        }
    };
    reader.record_key(name, KeyValue::List(vec![KeyValue::Text(word.clone())].into()));
    Some(vec![word])
}

fn pattern(reader: &mut Reader, name: &'static str) -> Option<Regex> {
    let text = reader.optional_text(name)?;
    match Regex::new(&text) {
        Ok(regex) => Some(regex),
        Err(error) => {
            // The last line says what is wrong; those before it draw a picture.
            let text = error.to_string();
            let what = text.lines().last().unwrap_or(&text).trim_start_matches("error: ").to_string();
            reader.problem(name, ProblemKind::OutOfRange, format!("`{name}` is no regular expression: {what}"), None);
            None
        }
    }
}

/// A mapping of names to numbers.
fn numbers<T>(reader: &mut Reader, name: &'static str, parse: impl Fn(&str) -> Option<T>) -> BTreeMap<String, T> {
    let mut numbers = BTreeMap::new();
    for (key, text) in reader.text_map(name) {
        match parse(&text) {
            Some(number) => drop(numbers.insert(key, number)),
            None => {
                let message = format!("`{key}` in `{name}` is `{text}`, but must be a number above 0");
                reader.problem(name, ProblemKind::OutOfRange, message, None);
            }
        }
    }
    numbers
}

fn unused(reader: &mut Reader, name: &'static str, with: &str) {
    let help = Some(format!("it belongs to `{with}`"));
    reader.problem(name, ProblemKind::Unsupported, format!("`{name}` has no effect here"), help);
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
