//! Which files of a repository or folder are taken: pure functions on names.
//!
//! ```text
//! dataset, split train   data/train-00000-of-00002.parquet, data/train-00001-of-00002.parquet
//! model                  config.json, tokenizer*.json, ..., and the weights in the first of these forms that is there:
//!                        model*.safetensors, pytorch_model*.bin, *.gguf
//! adapter                adapter_config.json, adapter_model.safetensors
//! files: ["*.jsonl"]     what matches, and nothing else
//! ignore_patterns        what is never taken
//!
//! default/train/0000.parquet   the branch that the hub converts to: CONFIG/SPLIT/NUMBER.parquet, or CONFIG/partial-SPLIT/...
//! ```
//!
//! Data files follow the rules of Hugging Face `datasets` for names: `data/SPLIT-00000-of-00001*`; else a name or folder
//! with the split as a word; else, for `train`, all files where no name speaks of a split. Where the README of a data set has
//! `configs`, those say it: see [`crate::configs`]. It deliberately never takes code (`*.py`).

use std::collections::BTreeSet;

use pipe_records::source::data_format;

use crate::configs::{self, Configuration};
use crate::error::DownloadError;
use crate::glob::matches_pattern;
use crate::settings::{Settings, Wanted};

/// The names of `all` that `settings` asks for, sorted. `place` names the repository or folder in messages; `configurations`
/// are those of its README.
///
/// # Errors
/// `NoMatch`, `NoSplit`, `SeveralConfigurations`, `OnlyPickle`, `Incomplete`, and those of a configuration: each lists what is
/// there.
pub fn select(
    settings: &Settings,
    place: &str,
    all: &[String],
    configurations: &[Configuration],
) -> Result<Vec<String>, DownloadError> {
    let is_ignored = |name: &str| settings.ignore_patterns.iter().any(|pattern| matches_pattern(pattern, name));
    let kept: Vec<String> = all.iter().filter(|name| !is_ignored(name)).cloned().collect();
    let mut selected = match (&settings.files, settings.wanted) {
        (Some(patterns), _) => matching(patterns, place, &kept)?,
        (None, Wanted::Dataset) if !configurations.is_empty() => {
            let files = configs::files(settings, place, configurations, all)?;
            let files: Vec<String> = files.into_iter().filter(|name| !is_ignored(name)).collect();
            // None is left: said as where there is no README.
            if files.is_empty() { data_files(settings, place, &[])? } else { files }
        }
        (None, Wanted::Dataset) => data_files(settings, place, &kept)?,
        (None, Wanted::Model) => model_files(place, &kept)?,
        (None, Wanted::Adapter) => adapter_files(place, &kept)?,
    };
    selected.sort();
    Ok(selected)
}

fn matching(patterns: &[String], place: &str, all: &[String]) -> Result<Vec<String>, DownloadError> {
    let selected: Vec<String> =
        all.iter().filter(|name| patterns.iter().any(|pattern| matches_pattern(pattern, name))).cloned().collect();
    if selected.is_empty() {
        let place = place.to_string();
        return Err(DownloadError::NoMatch { place, patterns: patterns.to_vec(), found: all.to_vec() });
    }
    Ok(selected)
}

/// Splits that other names than the one asked for can speak of: the words of Hugging Face `datasets`.
const SPLIT_WORDS: [&str; 10] =
    ["train", "training", "test", "testing", "eval", "evaluation", "validation", "valid", "val", "dev"];

fn data_files(settings: &Settings, place: &str, all: &[String]) -> Result<Vec<String>, DownloadError> {
    let (split, subset) = (settings.split.as_str(), settings.subset.as_deref());
    let mut candidates: Vec<&String> = all.iter().filter(|name| is_data_file(name)).collect();
    let found = candidates.iter().map(|name| (*name).clone()).collect();
    if let Some(chosen) = converted_files(settings, place, &candidates)? {
        return Ok(chosen);
    }
    if let Some(subset) = subset {
        candidates.retain(|name| name.split('/').rev().skip(1).any(|folder| folder == subset));
    }
    let chosen = of_split(candidates, split);
    let (place, split) = (place.to_string(), split.to_string());
    if chosen.is_empty() {
        return Err(DownloadError::NoSplit { place, split, subset: settings.subset.clone(), found });
    }
    let folders: BTreeSet<&str> = chosen.iter().filter_map(|name| subset_folder(name, &split)).collect();
    let has_several =
        folders.len() > 1 || (folders.len() == 1 && chosen.iter().any(|name| subset_folder(name, &split).is_none()));
    if subset.is_none() && has_several {
        let found = folders.into_iter().map(str::to_string).collect();
        return Err(DownloadError::SeveralConfigurations { place, split, found });
    }
    Ok(chosen.into_iter().cloned().collect())
}

/// The data files of `candidates` that belong to the split by their names, of one format.
pub(crate) fn of_split<'a>(candidates: Vec<&'a String>, split: &str) -> Vec<&'a String> {
    let standard: Vec<&String> = candidates.iter().copied().filter(|name| is_standard_shard(name, split)).collect();
    let of_split: Vec<&String> =
        candidates.iter().copied().filter(|name| words(name).any(|word| word == split)).collect();
    let speaks_of_splits = candidates.iter().any(|name| words(name).any(|word| SPLIT_WORDS.contains(&word)));
    let chosen = if !standard.is_empty() {
        standard
    } else if !of_split.is_empty() {
        of_split
    } else if split == "train" && !speaks_of_splits {
        candidates
    } else {
        Vec::new()
    };
    of_one_format(chosen)
}

/// `(configuration, split)` of a file that the hub has converted: `default/train/0000.parquet`, or `default/partial-train/...`
/// where a part was enough for its viewer.
fn converted(name: &str) -> Option<(&str, &str)> {
    let mut parts = name.split('/');
    let (subset, folder, file) = (parts.next()?, parts.next()?, parts.next()?);
    let number = file.strip_suffix(".parquet")?;
    let is_it = parts.next().is_none() && number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit());
    is_it.then(|| (subset, folder.strip_prefix("partial-").unwrap_or(folder)))
}

/// Whether a converted file is of a split of which the hub has converted only the first part.
pub(crate) fn is_part(name: &str) -> bool {
    converted(name).is_some() && name.split('/').nth(1).is_some_and(|folder| folder.starts_with("partial-"))
}

/// The files of the split where all that is there are the hub's conversions; `None` where it is not so. Without `config:` the
/// only configuration is meant, else the one called `default`, as in `datasets`.
fn converted_files(
    settings: &Settings,
    place: &str,
    candidates: &[&String],
) -> Result<Option<Vec<String>>, DownloadError> {
    let all: Option<Vec<(&str, &str, &String)>> =
        candidates.iter().map(|name| converted(name).map(|(subset, split)| (subset, split, *name))).collect();
    let Some(all) = all.filter(|all| !all.is_empty()) else { return Ok(None) };
    let of_split: Vec<_> = all.iter().filter(|(_, split, _)| *split == settings.split).collect();
    let subsets: BTreeSet<&str> = of_split.iter().map(|(subset, _, _)| *subset).collect();
    let subset = match (settings.subset.as_deref(), subsets.len()) {
        (Some(subset), _) => subset,
        (None, 2..) if !subsets.contains("default") => {
            let found = subsets.into_iter().map(str::to_string).collect();
            let (place, split) = (place.to_string(), settings.split.clone());
            return Err(DownloadError::SeveralConfigurations { place, split, found });
        }
        (None, 2..) => "default",
        (None, _) => subsets.first().copied().unwrap_or_default(),
    };
    let chosen: Vec<String> =
        of_split.iter().filter(|(other, _, _)| *other == subset).map(|(_, _, name)| (*name).clone()).collect();
    if chosen.is_empty() {
        return Err(DownloadError::NoSplit {
            place: place.to_string(),
            split: settings.split.clone(),
            subset: settings.subset.clone(),
            found: candidates.iter().map(|name| (*name).clone()).collect(),
        });
    }
    Ok(Some(chosen))
}

/// The folder of a data file that stands for a configuration: the first that is neither `data` nor the split.
fn subset_folder<'a>(name: &'a str, split: &str) -> Option<&'a str> {
    let (folders, _) = name.rsplit_once('/')?;
    folders.split('/').find(|folder| *folder != "data" && *folder != split)
}

/// The files of the most wanted form that is there: one form, as the columns must agree. A compressed file whose
/// uncompressed twin is there, too, is left out: the rows would be taken twice.
fn of_one_format(names: Vec<&String>) -> Vec<&String> {
    let Some(wanted) = names.iter().filter_map(|name| data_format(name)).min() else { return Vec::new() };
    let of_format: Vec<&String> = names.into_iter().filter(|name| data_format(name) == Some(wanted)).collect();
    let is_twin = |name: &str| {
        let plain = without_compression(name);
        plain != name && of_format.iter().any(|other| *other == plain)
    };
    of_format.iter().copied().filter(|name| !is_twin(name)).collect()
}

/// `rows.jsonl.gz` is `rows.jsonl`.
fn without_compression(name: &str) -> &str {
    name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(name)
}

/// Files with the ending of a format of rows that hold none.
const DESCRIPTIONS: [&str; 9] = [
    "dataset_infos.json",
    "dataset_dict.json",
    "dataset_info.json",
    "state.json",
    "requirements.txt",
    "license.txt",
    "readme.txt",
    "notice.txt",
    "citation.txt",
];

/// Whether `name` holds rows that we read.
pub(crate) fn is_data_file(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    let is_description = DESCRIPTIONS.iter().any(|other| file.eq_ignore_ascii_case(other));
    let is_hidden = name.split('/').any(|part| part.starts_with(['.', '_']));
    !is_description && !is_hidden && pipe_records::rows::is_data_file(name)
}

/// `data/train-00000-of-00002-da78d2d5.parquet`, in any folder.
fn is_standard_shard(name: &str, split: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    let Some(rest) = file.strip_prefix(split).and_then(|rest| rest.strip_prefix('-')) else { return false };
    let mut parts = rest.splitn(3, ['-', '.']);
    let is_number = |part: Option<&str>| part.is_some_and(|p| p.len() == 5 && p.bytes().all(|b| b.is_ascii_digit()));
    is_number(parts.next()) && parts.next() == Some("of") && is_number(parts.next().and_then(|rest| rest.get(..5)))
}

/// The words of a path: `data/my_train.v2.jsonl` has data, my, train, v, jsonl. Digits part words as in `train2`.
fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty())
}

/// Beside `tokenizer*.json` and the weights: what tokenizers and generation need.
pub(crate) const MODEL_FILES: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
];

fn model_files(place: &str, all: &[String]) -> Result<Vec<String>, DownloadError> {
    let top: Vec<&String> = all.iter().filter(|name| !name.contains('/')).collect();
    let weights = weights(place, &top, all)?;
    let is_gguf = weights.iter().all(|name| name.ends_with(".gguf"));
    if !is_gguf && !top.iter().any(|name| *name == "config.json") {
        return Err(incomplete(place, "model", "`config.json`", all));
    }
    let is_other = |name: &&String| MODEL_FILES.contains(&name.as_str()) || matches_pattern("tokenizer*.json", name);
    Ok(top.into_iter().filter(is_other).chain(weights).cloned().collect())
}

/// The files of the weights, with the index of their shards, in the first form that is there.
fn weights<'a>(place: &str, top: &[&'a String], all: &[String]) -> Result<Vec<&'a String>, DownloadError> {
    let matching = |pattern: &str| -> Vec<&'a String> {
        top.iter().copied().filter(|name| matches_pattern(pattern, name)).collect()
    };
    // Some repositories carry the same weights twice, as `consolidated.safetensors`.
    for (pattern, index) in [
        ("model*.safetensors", Some("model.safetensors.index.json")),
        ("*.safetensors", Some("model.safetensors.index.json")),
        ("pytorch_model*.bin", Some("pytorch_model.bin.index.json")),
        ("*.gguf", None),
    ] {
        let found = one_form(matching(pattern));
        if found.is_empty() {
            continue;
        }
        if let Some(missing) = missing_shard(&found) {
            return Err(incomplete(place, "model", &format!("`{missing}`"), all));
        }
        let is_sharded = found.iter().any(|name| shard_of(name).is_some());
        if pattern == "*.gguf" && (if is_sharded { n_sets(&found) } else { found.len() }) > 1 {
            let found = found.into_iter().cloned().collect();
            return Err(DownloadError::SeveralWeights { place: place.to_string(), found });
        }
        let index = index.filter(|_| is_sharded).into_iter().flat_map(matching);
        return Ok(found.iter().copied().chain(index).collect());
    }
    let missing = "weights (`model*.safetensors`, `pytorch_model*.bin` or `*.gguf`)";
    Err(only_pickle(place, all).unwrap_or_else(|| incomplete(place, "model", missing, all)))
}

/// All of `found`, or the whole file alone where it lies beside shards of the same weights.
fn one_form(found: Vec<&String>) -> Vec<&String> {
    let whole: Vec<&String> = found
        .iter()
        .copied()
        .filter(|name| ["model.safetensors", "pytorch_model.bin"].contains(&name.as_str()))
        .collect();
    if whole.is_empty() { found } else { whole }
}

/// `(stem, index from 1, number of shards, ending)` of `model-00001-of-00002.safetensors`.
fn shard_of(name: &str) -> Option<(&str, u32, u32, &str)> {
    let (stem, ending) = name.rsplit_once('.')?;
    let (stem, n_shards) = stem.rsplit_once("-of-")?;
    let (stem, idx) = stem.rsplit_once('-')?;
    Some((stem, idx.parse().ok()?, n_shards.parse().ok()?, ending))
}

fn n_sets(names: &[&String]) -> usize {
    names.iter().filter_map(|name| shard_of(name)).map(|(stem, _, n, _)| (stem, n)).collect::<BTreeSet<_>>().len()
}

/// The first shard that its neighbours speak of and that is not there.
fn missing_shard(names: &[&String]) -> Option<String> {
    let (stem, _, n_shards, ending) = names.iter().find_map(|name| shard_of(name))?;
    // A bound for names such as `x-1-of-4000000000.bin`.
    (1..=n_shards.min(99_999))
        .map(|idx| format!("{stem}-{idx:05}-of-{n_shards:05}.{ending}"))
        .find(|wanted| !names.contains(&wanted))
}

fn incomplete(place: &str, what: &'static str, missing: &str, all: &[String]) -> DownloadError {
    DownloadError::Incomplete { place: place.to_string(), what, missing: missing.to_string(), found: all.to_vec() }
}

fn adapter_files(place: &str, all: &[String]) -> Result<Vec<String>, DownloadError> {
    let wanted = ["adapter_config.json", "adapter_model.safetensors"];
    for missing in wanted {
        if !all.iter().any(|name| name == missing) {
            let incomplete = incomplete(place, "adapter", &format!("`{missing}`"), all);
            return Err(only_pickle(place, all).unwrap_or(incomplete));
        }
    }
    Ok(wanted.iter().map(|name| (*name).to_string()).collect())
}

fn only_pickle(place: &str, all: &[String]) -> Option<DownloadError> {
    let is_pickle = |name: &&String| [".bin", ".pt", ".pth"].iter().any(|extension| name.ends_with(extension));
    let example = all.iter().find(is_pickle)?.clone();
    Some(DownloadError::OnlyPickle { place: place.to_string(), example })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_string).collect()
    }

    fn settings(wanted: Wanted) -> Settings {
        let (from, revision, split) = ("x".into(), "main".into(), "train".into());
        Settings { wanted, from, revision, split, subset: None, files: None, ignore_patterns: Vec::new(), sha256: None }
    }

    fn rows(change: impl FnOnce(&mut Settings), all: &str) -> Result<Vec<String>, String> {
        let mut settings = settings(Wanted::Dataset);
        change(&mut settings);
        select(&settings, "it", &names(all), &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_split_is_found_as_hugging_face_finds_it() {
        let plain = |all: &str| rows(|_| (), all);
        assert_eq!(
            plain("README.md data/train-00000-of-00001-a0.parquet data/test-00000-of-00001.parquet train.jsonl"),
            Ok(names("data/train-00000-of-00001-a0.parquet"))
        );
        assert_eq!(plain("my_train_2.jsonl my_test.jsonl constraint.jsonl"), Ok(names("my_train_2.jsonl")));
        assert_eq!(plain("train/a.json train/b.json dev/a.json"), Ok(names("train/a.json train/b.json")));
        assert_eq!(plain("a.json b.json dataset_infos.json .x.json"), Ok(names("a.json b.json")));
        assert_eq!(plain("a.jsonl a.parquet"), Ok(names("a.parquet")));
    }

    #[test]
    fn a_missing_split_lists_what_is_there() {
        assert_eq!(
            rows(|s| s.split = "dev".into(), "README.md train.jsonl test.jsonl"),
            Err("it has no data file of the split `dev`; its data files are `train.jsonl`, `test.jsonl`".into())
        );
    }

    #[test]
    fn several_configurations_need_a_choice() {
        let all = "main/train-00000-of-00001.parquet socratic/train-00000-of-00001.parquet";
        assert_eq!(
            rows(|_| (), all),
            Err("it has several configurations of the split `train`: `main`, `socratic`".into())
        );
        let chosen = rows(|s| s.subset = Some("main".into()), all);
        assert_eq!(chosen, Ok(names("main/train-00000-of-00001.parquet")));
    }

    #[test]
    fn the_hubs_conversion_is_known_by_its_folders() {
        let all =
            "default/train/0000.parquet default/train/0001.parquet default/test/0000.parquet extra/train/0000.parquet";
        let expected = names("default/train/0000.parquet default/train/0001.parquet");
        assert_eq!(rows(|_| (), all), Ok(expected), "`default` where there are several");
        let extra = rows(|s| s.subset = Some("extra".into()), all);
        assert_eq!(extra, Ok(names("extra/train/0000.parquet")));
        let part = rows(|_| (), "only/partial-train/0000.parquet only/test/0000.parquet");
        assert_eq!(part, Ok(names("only/partial-train/0000.parquet")));
        assert!(is_part("only/partial-train/0000.parquet") && !is_part("only/test/0000.parquet"));
        let several = rows(|_| (), "a/train/0000.parquet b/train/0000.parquet");
        assert_eq!(several, Err("it has several configurations of the split `train`: `a`, `b`".into()));
        let none = rows(|s| s.split = "dev".into(), "a/train/0000.parquet").unwrap_err();
        assert!(none.starts_with("it has no data file of the split `dev`"), "{none}");
        // A configuration or a split may be called as the other.
        let odd = rows(|s| s.split = "train_sft".into(), "train/train_sft/0000.parquet train/train/0000.parquet");
        assert_eq!(odd, Ok(names("train/train_sft/0000.parquet")));
    }

    #[test]
    fn ignored_files_are_not_there() {
        let ignore = |patterns: &str, all: &str| rows(|s| s.ignore_patterns = names(patterns), all);
        assert_eq!(ignore("*-0[0-9]*", "train-1.jsonl train-00.jsonl"), Ok(names("train-1.jsonl")));
        assert_eq!(ignore("extra/", "train.jsonl extra/train.jsonl"), Ok(names("train.jsonl")));
    }

    #[test]
    fn patterns_replace_the_choice() {
        assert_eq!(rows(|s| s.files = Some(names("*b.j* ?.md")), "a/b.json a.md c.json"), Ok(names("a.md a/b.json")));
        let error = rows(|s| s.files = Some(names("*.csv")), "a.json");
        assert_eq!(error, Err("no file of it matches `*.csv`; its files are `a.json`".into()));
    }

    #[test]
    fn a_model_is_its_safetensors_configuration_and_tokenizer() {
        let select = |all: &str| select(&settings(Wanted::Model), "it", &names(all), &[]).map_err(|e| e.to_string());
        let sharded = "config.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json";
        let all = format!(
            "README.md consolidated.safetensors onnx/model.safetensors pytorch_model.bin tokenizer.json tokenizer_config.json {sharded}"
        );
        let mut expected = names(&format!("{sharded} tokenizer.json tokenizer_config.json"));
        expected.sort();
        assert_eq!(select(&all), Ok(expected));
        assert_eq!(
            select("README.md"),
            Err("it is no model: it has no weights (`model*.safetensors`, `pytorch_model*.bin` or `*.gguf`); its files are `README.md`".into())
        );
        assert_eq!(
            select("config.json model-00001-of-00002.safetensors"),
            Err("it is no model: it has no `model-00002-of-00002.safetensors`; its files are `config.json`, `model-00001-of-00002.safetensors`".into())
        );
    }

    #[test]
    fn pickles_and_gguf_are_taken_where_there_is_nothing_better() {
        let select = |all: &str| select(&settings(Wanted::Model), "it", &names(all), &[]).map_err(|e| e.to_string());
        let xgen = "config.json pytorch_model-00001-of-00002.bin pytorch_model-00002-of-00002.bin pytorch_model.bin.index.json tokenizer_config.json";
        assert_eq!(select(&format!("README.md tokenization_xgen.py {xgen}")), Ok(names(xgen)));
        assert_eq!(
            select(&format!("model.safetensors {xgen}")),
            Ok(names("config.json model.safetensors tokenizer_config.json"))
        );
        assert_eq!(
            select("config.json pytorch_model.bin training_args.bin optimizer.bin"),
            Ok(names("config.json pytorch_model.bin"))
        );
        assert_eq!(select("README.md a.q8.gguf"), Ok(names("a.q8.gguf")));
        let shards = "a-00001-of-00002.gguf a-00002-of-00002.gguf";
        assert_eq!(select(shards), Ok(names(shards)));
        assert_eq!(select("a.q8.gguf a.q4.gguf"), Err("it has several weights: `a.q8.gguf`, `a.q4.gguf`".into()));
        assert_eq!(
            select("config.json weights.pt"),
            Err("it has its weights only as `weights.pt`, a pickle of unknown layout".into())
        );
    }

    #[test]
    fn an_adapter_is_two_files() {
        let all = names("README.md adapter_config.json adapter_model.safetensors tokenizer.json");
        assert_eq!(
            select(&settings(Wanted::Adapter), "it", &all, &[]).unwrap(),
            names("adapter_config.json adapter_model.safetensors")
        );
    }

    #[test]
    fn one_format_is_taken_and_no_row_twice() {
        let one =
            |all: &str| -> Vec<String> { of_one_format(names(all).iter().collect()).into_iter().cloned().collect() };
        assert_eq!(one("a.csv b.jsonl.gz c.jsonl.zst d.txt"), names("b.jsonl.gz c.jsonl.zst"));
        assert_eq!(one("a.csv a.csv.gz b.csv.zst x.tsv"), names("a.csv b.csv.zst"));
        assert_eq!(one("a.arrow a.jsonl b.feather"), names("a.arrow b.feather"));
        assert_eq!(one("a.json b.NDJSON"), names("b.NDJSON"));
        assert!(!is_data_file("requirements.txt") && !is_data_file("sub/LICENSE.txt"));
    }
}
