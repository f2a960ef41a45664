//! The configurations that the README of a data set names, and the files of one of them: pure functions.
//!
//! ```text
//! ---                             name: math, split: train   ->  math/a.jsonl, math/b.jsonl
//! configs:
//! - config_name: default          neither                    ->  rows/train.parquet: the default
//!   data_files: rows/train.parquet
//! - config_name: math
//!   data_dir: math
//!   data_files:
//!   - split: train
//!     path: ["a.jsonl", "b*"]
//!   - split: test
//!     path: test/**
//! ---
//! ```
//!
//! As in `datasets` 5.2: `utils/metadata.py` (the form, the default), `load.py` and `builder.py` (the choice), `data_files.py`
//! (the patterns: `*` stays in its folder, `**` is any folders; what is hidden or begins with `__` is matched only by a pattern
//! that says so). Rows come in the order of the files' names, not in that of the patterns, and no file twice.
//!
//! It deliberately takes no file from outside of the repository, and reads neither `.huggingface.yaml` nor `dataset_info`.

use std::collections::BTreeSet;

use pipe_records::source::{DataFormat, EXTENSIONS, data_format};
use pipe_settings::nearest;
use serde_yaml::Value;

use crate::error::DownloadError;
use crate::glob::{is_pattern, matches_path};
use crate::select::{is_data_file, of_split};
use crate::settings::{Settings, Wanted};

/// The file that says it.
pub(crate) const README: &str = "README.md";

/// The split of files of which nothing is said.
const SPLIT: &str = "train";

/// Files that a pattern finds only by their name (`FILES_TO_IGNORE` in `data_files.py`).
const DESCRIPTIONS: [&str; 5] =
    ["config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "README.md"];

/// What `datasets` hands on to its readers of files, so that the rows would be others: `CsvConfig`, `JsonConfig`,
/// `ParquetConfig`, `TextConfig`.
const READING_OPTIONS: [&str; 39] = [
    "column_names",
    "columns",
    "comment",
    "converters",
    "date_format",
    "date_parser",
    "dayfirst",
    "decimal",
    "delimiter",
    "dialect",
    "doublequote",
    "encoding",
    "encoding_errors",
    "escapechar",
    "false_values",
    "field",
    "filters",
    "header",
    "index_col",
    "keep_default_na",
    "keep_linebreaks",
    "lineterminator",
    "mangle_dupe_cols",
    "na_filter",
    "na_values",
    "names",
    "nrows",
    "on_bad_lines",
    "prefix",
    "quotechar",
    "quoting",
    "sample_by",
    "sep",
    "skip_blank_lines",
    "skipfooter",
    "skipinitialspace",
    "skiprows",
    "thousands",
    "usecols",
];

/// One entry of `configs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// `config_name`.
    name: String,
    /// Patterns of each split; `None` where they are found by their names.
    data_files: Option<Vec<(String, Vec<String>)>>,
    /// The folder that the patterns begin in: empty, or with a `/` behind.
    data_dir: String,
    is_default: bool,
    /// Those of [`READING_OPTIONS`] that are set.
    options: Vec<(String, String)>,
}

/// Whether `settings` choose files by what a README may say.
pub(crate) fn matter_to(settings: &Settings) -> bool {
    settings.wanted == Wanted::Dataset && settings.files.is_none()
}

/// The configurations that `readme` names, in its order; none where it has no `configs`. `place` names the data set in messages.
///
/// # Errors
/// `BadReadme` for `configs` of another form.
pub fn read(place: &str, readme: &str) -> Result<Vec<Configuration>, DownloadError> {
    let Some(block) = front_matter(readme) else { return Ok(Vec::new()) };
    let bad = |problem: String| DownloadError::BadReadme { place: place.to_string(), problem };
    let value: Value = match serde_yaml::from_str(&block) {
        Ok(value) => value,
        Err(error) if block.contains("configs") => return Err(bad(format!("it is no YAML: {error}"))),
        // What else may be wrong with a README does not matter here.
        Err(_) => return Ok(Vec::new()),
    };
    let entries = match value.get("configs") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Sequence(entries)) => entries,
        Some(_) => return Err(bad("`configs` is no list".to_string())),
    };
    let configurations: Vec<Configuration> =
        entries.iter().map(configuration).collect::<Result<_, _>>().map_err(bad)?;
    let mut seen = BTreeSet::new();
    match configurations.iter().find(|configuration| !seen.insert(&configuration.name)) {
        Some(twice) => Err(bad(format!("`configs` names `{}` twice", twice.name))),
        None => Ok(configurations),
    }
}

/// The YAML between the first two lines of three dashes (`REGEX_YAML_BLOCK` in huggingface_hub's `repocard.py`).
fn front_matter(readme: &str) -> Option<String> {
    let mut lines = readme.trim_start().lines();
    if lines.next() != Some("---") {
        return None;
    }
    let mut block = Vec::new();
    for line in lines {
        if line.trim_end_matches([' ', '\t']) == "---" {
            return Some(block.join("\n"));
        }
        block.push(line);
    }
    None
}

fn configuration(entry: &Value) -> Result<Configuration, String> {
    let name = entry.get("config_name").and_then(text);
    let name = name.ok_or("an entry of `configs` has no `config_name`")?;
    let of = |problem: &str| format!("of the configuration `{name}` {problem}");
    let is_default = match entry.get("default") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(is_default)) => *is_default,
        Some(_) => return Err(of("`default` is neither `true` nor `false`")),
    };
    let data_dir = match entry.get("data_dir") {
        None | Some(Value::Null) => String::new(),
        Some(folder) => text(folder).ok_or_else(|| of("`data_dir` is no path"))?,
    };
    let data_dir = inside(&data_dir).map_err(|problem| of(&problem))?;
    let data_dir = if data_dir.is_empty() { data_dir } else { format!("{data_dir}/") };
    let data_files = match entry.get("data_files") {
        None | Some(Value::Null) => None,
        Some(value) => Some(data_files(value).map_err(|problem| of(&problem))?),
    };
    let options = READING_OPTIONS.iter().filter_map(|option| {
        let value = entry.get(option).filter(|value| !value.is_null())?;
        Some(((*option).to_string(), text(value).unwrap_or_else(|| "...".to_string())))
    });
    Ok(Configuration { options: options.collect(), name, data_files, data_dir, is_default })
}

/// `STR`, `[STR]` or `[{ split, path: STR | [STR] }]`.
fn data_files(value: &Value) -> Result<Vec<(String, Vec<String>)>, String> {
    const FORM: &str = "`data_files` must be a pattern, a list of patterns, or a list of `split` and `path`";
    let entries = match value {
        Value::Sequence(entries) if entries.iter().any(Value::is_mapping) => entries,
        other => return Ok(vec![(SPLIT.to_string(), patterns(other)?.ok_or(FORM)?)]),
    };
    let mut splits: Vec<(String, Vec<String>)> = Vec::new();
    for entry in entries {
        let split = entry.get("split").and_then(text).ok_or(FORM)?;
        let paths = entry.get("path").map(patterns).transpose()?.flatten().ok_or(FORM)?;
        if entry.as_mapping().is_none_or(|mapping| mapping.len() != 2) {
            return Err(FORM.to_string());
        }
        let is_word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || c == '_');
        if !split.split('.').all(is_word) {
            return Err(format!("a split is called `{split}`, but its name must be of letters, digits and `_`"));
        }
        if splits.iter().any(|(other, _)| *other == split) {
            return Err(format!("`data_files` has the split `{split}` twice"));
        }
        splits.push((split, paths));
    }
    Ok(splits)
}

/// `None` where it is neither a text nor a list of texts.
fn patterns(value: &Value) -> Result<Option<Vec<String>>, String> {
    let patterns = match value {
        Value::Sequence(entries) => entries.iter().map(text).collect::<Option<Vec<_>>>(),
        other => text(other).map(|one| vec![one]),
    };
    let Some(patterns) = patterns.filter(|patterns| !patterns.is_empty()) else { return Ok(None) };
    let is_odd = |pattern: &String| pattern.split('/').any(|part| part.contains("**") && part != "**");
    if let Some(odd) = patterns.iter().find(|pattern| is_odd(pattern)) {
        return Err(format!("`{odd}` is no pattern: `**` must be a whole part of the path, as in `data/**/*.csv`"));
    }
    patterns.iter().map(|pattern| inside(pattern)).collect::<Result<_, _>>().map(Some)
}

/// A path or pattern below the repository, without `./`.
fn inside(path: &str) -> Result<String, String> {
    let parts: Vec<&str> = path.split('/').filter(|part| *part != ".").collect();
    if path.starts_with('/') || path.contains("://") || parts.contains(&"..") {
        return Err(format!("`{path}` is outside of the data set, and only its own files are taken"));
    }
    Ok(parts.join("/").trim_end_matches('/').to_string())
}

/// A text, or what YAML took for a number.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// The files of `all` that one of `configurations`, which are not none, has for the split.
///
/// # Errors
/// `SeveralDefaults`, `NoDefault`, `UnknownConfiguration`, `UnknownSplit`, `ConfigurationLacks`, `UnreadFiles`,
/// `UnreadOption`: each lists what there is.
pub(crate) fn files(
    settings: &Settings,
    place: &str,
    configurations: &[Configuration],
    all: &[String],
) -> Result<Vec<String>, DownloadError> {
    let configuration = choose(settings.subset.as_deref(), place, configurations)?;
    let files = match &configuration.data_files {
        Some(splits) => {
            let Some((_, patterns)) = splits.iter().find(|(split, _)| *split == settings.split) else {
                return Err(DownloadError::UnknownSplit {
                    place: place.to_string(),
                    split: settings.split.clone(),
                    configuration: configuration.name.clone(),
                    found: splits.iter().map(|(split, _)| split.clone()).collect(),
                });
            };
            let lacks = |patterns: &[String]| configuration.lacks(place, &settings.split, patterns, all);
            let files = of_patterns(configuration, patterns, all).map_err(|pattern| lacks(&[pattern]))?;
            configuration.refuse_mixture(place, &settings.split, &files)?;
            if files.is_empty() {
                return Err(lacks(patterns));
            }
            files
        }
        None => by_names(configuration, &settings.split, all)
            .ok_or_else(|| configuration.lacks(place, &settings.split, &[], all))?,
    };
    configuration.refuse_options(place, &files)?;
    Ok(files)
}

/// The one called `name`; else the only one, the one called `default`, or the one that says so.
fn choose<'c>(
    name: Option<&str>,
    place: &str,
    configurations: &'c [Configuration],
) -> Result<&'c Configuration, DownloadError> {
    let place = place.to_string();
    let found: Vec<String> = configurations.iter().map(|configuration| configuration.name.clone()).collect();
    if let Some(name) = name {
        let chosen = configurations.iter().find(|configuration| configuration.name == name);
        return chosen.ok_or_else(|| {
            let names: Vec<&str> = found.iter().map(String::as_str).collect();
            let meant = nearest(name, &names).map(str::to_string);
            DownloadError::UnknownConfiguration { place, name: name.to_string(), meant, found }
        });
    }
    let is_default = |configuration: &&Configuration| configuration.is_default || configuration.name == "default";
    let mut defaults = configurations.iter().filter(|one| configurations.len() == 1 || is_default(one));
    match (defaults.next(), defaults.next()) {
        (Some(only), None) => Ok(only),
        (Some(first), Some(second)) => {
            Err(DownloadError::SeveralDefaults { place, found: vec![first.name.clone(), second.name.clone()] })
        }
        (None, _) => Err(DownloadError::NoDefault { place, found }),
    }
}

impl Configuration {
    /// For messages.
    fn wanted(&self, split: &str) -> String {
        format!("the split `{split}` of the configuration `{}`", self.name)
    }

    fn lacks(&self, place: &str, split: &str, patterns: &[String], all: &[String]) -> DownloadError {
        DownloadError::ConfigurationLacks {
            place: place.to_string(),
            wanted: self.wanted(split),
            patterns: patterns.iter().map(|pattern| format!("{}{pattern}", self.data_dir)).collect(),
            found: all.iter().filter(|name| is_data_file(name)).cloned().collect(),
        }
    }

    /// Refused are files that one reader of `datasets` could not read together, or that only `datasets` reads: none is
    /// left out silently.
    fn refuse_mixture(&self, place: &str, split: &str, files: &[String]) -> Result<(), DownloadError> {
        let refused = |problem, found: Vec<String>| DownloadError::UnreadFiles {
            place: place.to_string(),
            wanted: self.wanted(split),
            problem,
            found,
        };
        let unread: Vec<String> = files.iter().filter(|name| data_format(name).is_none()).cloned().collect();
        let forms: BTreeSet<DataFormat> = files.iter().filter_map(|name| data_format(name)).map(reader).collect();
        if !unread.is_empty() {
            Err(refused("that are not read here", unread))
        } else if forms.len() > 1 {
            Err(refused("of several forms", files.to_vec()))
        } else {
            Ok(())
        }
    }

    /// Refused is what would make other rows of the same files. A delimiter may be said where it is that of the form.
    fn refuse_options(&self, place: &str, files: &[String]) -> Result<(), DownloadError> {
        let is_usual = |option: &str, value: &str| {
            let usual = |name: &String| match data_format(name) {
                Some(DataFormat::Csv) => value == ",",
                Some(DataFormat::Tsv) => value == "\t",
                _ => false,
            };
            ["sep", "delimiter"].contains(&option) && files.iter().all(usual)
        };
        match self.options.iter().find(|(option, value)| !is_usual(option, value)) {
            None => Ok(()),
            Some((option, value)) => Err(DownloadError::UnreadOption {
                place: place.to_string(),
                configuration: self.name.clone(),
                option: option.clone(),
                value: value.escape_debug().to_string(),
            }),
        }
    }
}

/// The files of rows that the patterns of a split match, sorted; the first path that is not there is the error.
fn of_patterns(configuration: &Configuration, patterns: &[String], all: &[String]) -> Result<Vec<String>, String> {
    let mut matched = BTreeSet::new();
    for pattern in patterns {
        let full = format!("{}{pattern}", configuration.data_dir);
        let found: Vec<&String> = all.iter().filter(|name| finds(&full, name) && has_rows(name)).collect();
        if found.is_empty() && !is_pattern(pattern) {
            return Err(pattern.clone());
        }
        matched.extend(found);
    }
    Ok(matched.into_iter().cloned().collect())
}

/// Whether `datasets` takes it for rows, in a form of ours or, compressed, in one that only it reads: `a.json.bz2`.
fn has_rows(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name).to_lowercase();
    file.split('.').skip(1).any(|part| EXTENSIONS.iter().any(|(extension, _)| *extension == part))
}

/// Forms that one reader of `datasets` reads are one.
fn reader(format: DataFormat) -> DataFormat {
    match format {
        DataFormat::Json => DataFormat::JsonLines,
        DataFormat::Tsv => DataFormat::Csv,
        other => other,
    }
}

fn finds(pattern: &str, name: &str) -> bool {
    if !matches_path(pattern, name) {
        return false;
    }
    let n_hidden = |path: &str| path.split('/').filter(|part| part.starts_with('.')).count();
    let n_special = |path: &str| path.split('/').rev().skip(1).filter(|part| part.starts_with("__")).count();
    let file = |path: &str| path.rsplit('/').next().unwrap_or(path).to_string();
    let is_description = DESCRIPTIONS.contains(&file(name).as_str()) && file(name) != file(pattern);
    !is_description && n_hidden(pattern) == n_hidden(name) && n_special(pattern) == n_special(name)
}

/// As where nothing is said, below `data_dir`.
fn by_names(configuration: &Configuration, split: &str, all: &[String]) -> Option<Vec<String>> {
    let folder = &configuration.data_dir;
    let below: Vec<String> = all.iter().filter_map(|name| name.strip_prefix(folder)).map(str::to_string).collect();
    let chosen = of_split(below.iter().filter(|name| is_data_file(name)).collect(), split);
    (!chosen.is_empty()).then(|| chosen.into_iter().map(|name| format!("{folder}{name}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 16] = [
        ".hidden/a.jsonl",
        "README.md",
        "__extra/a.jsonl",
        "config.json",
        "data/a-1.jsonl",
        "data/a-2.jsonl",
        "data/b.csv",
        "data/deep/c.jsonl",
        "math/hard.tsv",
        "math/test/t.jsonl",
        "math/train.jsonl",
        "math/train.parquet",
        "more/a.json",
        "more/b.json.bz2",
        "notes.md",
        "pictures/a.png",
    ];

    fn picked(yaml: &str, name: Option<&str>, split: &str) -> Result<String, String> {
        let settings = Settings {
            wanted: Wanted::Dataset,
            from: "x".into(),
            revision: "main".into(),
            split: split.into(),
            subset: name.map(str::to_string),
            files: None,
            ignore_patterns: Vec::new(),
            sha256: None,
        };
        let all = ALL.map(str::to_string);
        let told = |error: DownloadError| error.to_string();
        let configurations = read("it", &format!("---\n{yaml}\n---\n# It\n")).map_err(told)?;
        files(&settings, "it", &configurations, &all).map(|files| files.join(" ")).map_err(told)
    }

    /// `data_files` of the only configuration.
    fn of(data_files: &str) -> Result<String, String> {
        picked(&format!("configs:\n- config_name: x\n  data_files: {data_files}"), None, "train")
    }

    // What each gives was tried with `datasets` 5.2: scripts/check_configs.py.
    #[test]
    fn patterns_are_those_of_datasets() {
        for (data_files, expected) in [
            ("data/a-1.jsonl", "data/a-1.jsonl"),
            ("./data/a-1.jsonl", "data/a-1.jsonl"),
            ("data/*.jsonl", "data/a-1.jsonl data/a-2.jsonl"),
            ("data/deep/**", "data/deep/c.jsonl"),
            ("data/**/*.jsonl", "data/a-1.jsonl data/a-2.jsonl data/deep/c.jsonl"),
            ("'**/a-[13].jsonl'", "data/a-1.jsonl"),
            ("[data/a-2.jsonl, 'data/a-?.jsonl']", "data/a-1.jsonl data/a-2.jsonl"),
            ("[nothing/*, data/b.csv]", "data/b.csv"),
            ("'**/a.jsonl'", ""),
            ("'__*/*.jsonl'", "__extra/a.jsonl"),
            ("'.*/*'", ".hidden/a.jsonl"),
            ("'*.json'", ""),
            ("config.json", "config.json"),
            ("math/train.p*", "math/train.parquet"),
            ("[{ split: train, path: [data/b.csv] }, { split: test.v_1, path: math/* }]", "data/b.csv"),
        ] {
            let found = of(data_files);
            if expected.is_empty() {
                let told = found.unwrap_err();
                assert!(told.starts_with("it has no data file that its README.md promises"), "{data_files}: {told}");
            } else {
                assert_eq!(found.as_deref(), Ok(expected), "{data_files}");
            }
        }
    }

    #[test]
    fn a_folder_is_where_patterns_and_names_begin() {
        let yaml = "configs:\n- { config_name: x, data_dir: ./math/, data_files: test/* }";
        assert_eq!(picked(yaml, None, "train").as_deref(), Ok("math/test/t.jsonl"));
        let yaml = "configs:\n- { config_name: x, data_dir: math }";
        assert_eq!(picked(yaml, None, "train").as_deref(), Ok("math/train.parquet"));
        assert_eq!(picked(yaml, None, "test").as_deref(), Ok("math/test/t.jsonl"));
        let told = picked(yaml, None, "dev").unwrap_err();
        assert!(
            told.contains("for the split `dev` of the configuration `x`; its data files are `config.json`, `data/a"),
            "{told}"
        );
    }

    #[test]
    fn a_configuration_is_chosen_as_datasets_does() {
        let two = |of_b: &str| {
            format!(
                "configs:\n- {{ config_name: a, data_files: data/a-1.jsonl }}\n- {{ config_name: b, data_files: [{{ split: test, path: data/b.csv }}]{of_b} }}"
            )
        };
        let listed = "it has several configurations, and its README.md says of none that it is the default: `a`, `b`";
        assert_eq!(picked(&two(""), None, "train"), Err(listed.into()));
        assert_eq!(picked(&two(""), Some("a"), "train").as_deref(), Ok("data/a-1.jsonl"));
        assert_eq!(picked(&two(", default: true"), None, "test").as_deref(), Ok("data/b.csv"));
        let told = "it has no split `train` in the configuration `b`; its splits are `test`";
        assert_eq!(picked(&two(""), Some("b"), "train"), Err(told.into()));
        let told = "it has no configuration `c`; its configurations are `a`, `b`";
        assert_eq!(picked(&two(""), Some("c"), "train"), Err(told.into()));
        let named = two("").replace("config_name: b", "config_name: default");
        assert_eq!(picked(&named, None, "test").as_deref(), Ok("data/b.csv"));
        let both = named.replace("config_name: a,", "config_name: a, default: true,");
        let told = "the README.md of it says of several configurations that they are the default: `a`, `default`";
        assert_eq!(picked(&both, None, "test"), Err(told.into()));
        // YAML takes it for a number.
        let year = "configs:\n- { config_name: 2024, data_files: data/b.csv }";
        assert_eq!(picked(year, Some("2024"), "train").as_deref(), Ok("data/b.csv"));
    }

    #[test]
    fn what_is_no_configuration_is_told() {
        let told = |yaml: &str| {
            let told = picked(yaml, None, "train").unwrap_err();
            told.strip_prefix("the README.md of it cannot be used: ").unwrap_or(&told).to_string()
        };
        let x = |rest: &str| told(&format!("configs:\n- {{ config_name: x, {rest} }}"));
        assert_eq!(told("configs: { a: b }"), "`configs` is no list");
        assert_eq!(told("configs: [{ data_files: a }]"), "an entry of `configs` has no `config_name`");
        let form = "of the configuration `x` `data_files` must be a pattern, a list of patterns, or a list of `split` and `path`";
        for wrong in
            ["{ train: a }", "[{ split: train }]", "[a, { split: a, path: b }]", "[{ split: a, path: b, c: d }]", "[]"]
        {
            assert_eq!(x(&format!("data_files: {wrong}")), form, "{wrong}");
        }
        assert!(x("data_files: [{ split: a-b, path: c }]").contains("a split is called `a-b`"));
        assert!(x("data_files: [{ split: a, path: c }, { split: a, path: d }]").ends_with("has the split `a` twice"));
        for outside in ["../x.csv", "/x.csv", "hf://datasets/a/b/x.csv", "https://host/x.csv"] {
            assert!(x(&format!("data_files: '{outside}'")).contains("is outside of the data set"), "{outside}");
        }
        assert!(x("data_files: 'data/**.csv'").contains("`**` must be a whole part of the path"));
        assert!(x("default: maybe").ends_with("`default` is neither `true` nor `false`"));
        assert!(told("configs: [").starts_with("it is no YAML: "));
        let twice = "configs: [{ config_name: x }, { config_name: x }]";
        assert_eq!(told(twice), "`configs` names `x` twice");
    }

    #[test]
    fn a_reading_of_files_that_is_not_done_is_refused() {
        let with = |file: &str, option: &str| {
            picked(&format!("configs:\n- {{ config_name: x, data_files: {file}, {option} }}"), None, "train")
        };
        assert_eq!(with("data/b.csv", "sep: ','").as_deref(), Ok("data/b.csv"));
        assert_eq!(with("math/hard.tsv", "delimiter: \"\\t\"").as_deref(), Ok("math/hard.tsv"));
        assert_eq!(with("data/b.csv", "version: 1.0.0, features: []").as_deref(), Ok("data/b.csv"));
        let told = "the README.md of it has the configuration `x` read with `sep: \\t`, which is not done here";
        assert_eq!(with("data/b.csv", "sep: \"\\t\""), Err(told.into()));
        assert!(with("data/a-1.jsonl", "field: data").unwrap_err().contains("`field: data`"));
    }

    #[test]
    fn no_file_is_left_out_silently() {
        let told = "it has for the split `train` of the configuration `x` files of several forms: `data/a-1.jsonl`, `data/a-2.jsonl`, `data/b.csv`";
        assert_eq!(of("data/*"), Err(told.into()));
        let told =
            "it has for the split `train` of the configuration `x` files that are not read here: `more/b.json.bz2`";
        assert_eq!(of("more/*"), Err(told.into()));
    }

    #[test]
    fn a_readme_without_configs_says_nothing() {
        for readme in [
            "",
            "# It\n---\nconfigs: [a]\n---\n",
            "---\nlicense: mit\n---\n",
            "---\nconfigs: []\n",
            "---\nlicense: [mit\n---\n",
            "---\nconfigs:\n---\n",
            " ---\nconfigs: []\n---\n",
        ] {
            assert_eq!(read("it", readme).unwrap(), [], "{readme}");
        }
        let windows = "\n---\r\nconfigs:\r\n- config_name: x\r\n--- \r\n# It";
        assert_eq!(read("it", windows).unwrap()[0].name, "x");
    }
}
