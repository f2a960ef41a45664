//! Which files of a repository or folder are taken: pure functions on names.
//!
//! ```text
//! dataset, split train   data/train-00000-of-00002.parquet, data/train-00001-of-00002.parquet
//! model                  config.json, tokenizer*.json, ..., model.safetensors or its shards with their index
//! adapter                adapter_config.json, adapter_model.safetensors
//! files: ["*.jsonl"]     what matches, and nothing else
//! ```
//!
//! Data files follow the rules of Hugging Face `datasets` for names: `data/SPLIT-00000-of-00001*`; else a name or folder
//! with the split as a word; else, for `train`, all files where no name speaks of a split. It deliberately does not read
//! the `configs` of a data set's README.

use std::collections::BTreeSet;

use crate::error::DownloadError;
use crate::settings::{Settings, Wanted};

/// The names of `all` that `settings` asks for, sorted. `place` names the repository or folder in messages.
///
/// # Errors
/// `NoMatch`, `NoSplit`, `SeveralConfigurations`, `OnlyPickle`, `Incomplete`: each lists what is there.
pub fn select(settings: &Settings, place: &str, all: &[String]) -> Result<Vec<String>, DownloadError> {
    let mut selected = match (&settings.files, settings.wanted) {
        (Some(patterns), _) => matching(patterns, place, all)?,
        (None, Wanted::Dataset) => data_files(settings, place, all)?,
        (None, Wanted::Model) => model_files(place, all)?,
        (None, Wanted::Adapter) => adapter_files(place, all)?,
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
    if let Some(subset) = subset {
        candidates.retain(|name| name.split('/').rev().skip(1).any(|folder| folder == subset));
    }
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
    let chosen = of_one_format(chosen);
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

/// The folder of a data file that stands for a configuration: the first that is neither `data` nor the split.
fn subset_folder<'a>(name: &'a str, split: &str) -> Option<&'a str> {
    let (folders, _) = name.rsplit_once('/')?;
    folders.split('/').find(|folder| *folder != "data" && *folder != split)
}

/// Parquet where there is any, then JSON Lines, then JSON: one format, as the columns must agree.
fn of_one_format(names: Vec<&String>) -> Vec<&String> {
    for extension in ["parquet", "jsonl", "json"] {
        let of_format: Vec<&String> =
            names.iter().copied().filter(|name| extension_of(name).eq_ignore_ascii_case(extension)).collect();
        if !of_format.is_empty() {
            return of_format;
        }
    }
    Vec::new()
}

fn is_data_file(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    let is_description = ["dataset_infos.json", "dataset_dict.json", "dataset_info.json", "state.json"].contains(&file);
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

fn extension_of(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, extension)| extension)
}

/// Beside `tokenizer*.json` and `*.safetensors`: what tokenizers and generation need.
const MODEL_FILES: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "model.safetensors.index.json",
];

fn model_files(place: &str, all: &[String]) -> Result<Vec<String>, DownloadError> {
    let incomplete =
        |missing| DownloadError::Incomplete { place: place.to_string(), what: "model", missing, found: all.to_vec() };
    let is_weights = |name: &&String| !name.contains('/') && name.ends_with(".safetensors");
    let standard: Vec<&String> = all.iter().filter(is_weights).filter(|name| name.starts_with("model")).collect();
    // Some repositories carry the same weights twice, as `consolidated.safetensors`.
    let weights: Vec<&String> = if standard.is_empty() { all.iter().filter(is_weights).collect() } else { standard };
    if weights.is_empty() {
        return Err(only_pickle(place, all).unwrap_or_else(|| incomplete("`*.safetensors`")));
    }
    if !all.iter().any(|name| name == "config.json") {
        return Err(incomplete("`config.json`"));
    }
    let is_other = |name: &&String| {
        MODEL_FILES.contains(&name.as_str()) || (!name.contains('/') && matches_pattern("tokenizer*.json", name))
    };
    Ok(all.iter().filter(is_other).chain(weights).cloned().collect())
}

fn adapter_files(place: &str, all: &[String]) -> Result<Vec<String>, DownloadError> {
    let wanted = ["adapter_config.json", "adapter_model.safetensors"];
    for missing in wanted {
        if !all.iter().any(|name| name == missing) {
            let missing = if missing == wanted[0] { "`adapter_config.json`" } else { "`adapter_model.safetensors`" };
            let incomplete =
                DownloadError::Incomplete { place: place.to_string(), what: "adapter", missing, found: all.to_vec() };
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

/// Whether `name` matches `pattern`: `*` is any text, also across `/`, and `?` one character, as in `huggingface_hub`.
pub fn matches_pattern(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // `star`: where in the pattern the last `*` stands, and how much of the name it has taken.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                None => return false,
                Some((star_p, taken)) => {
                    star = Some((star_p, taken + 1));
                    (p, n) = (star_p + 1, taken + 1);
                }
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_string).collect()
    }

    fn settings(wanted: Wanted) -> Settings {
        let (from, revision, split) = ("x".into(), "main".into(), "train".into());
        Settings { wanted, from, revision, split, subset: None, files: None }
    }

    fn rows(change: impl FnOnce(&mut Settings), all: &str) -> Result<Vec<String>, String> {
        let mut settings = settings(Wanted::Dataset);
        change(&mut settings);
        select(&settings, "it", &names(all)).map_err(|error| error.to_string())
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
    fn patterns_replace_the_choice() {
        assert_eq!(rows(|s| s.files = Some(names("*b.j* ?.md")), "a/b.json a.md c.json"), Ok(names("a.md a/b.json")));
        let error = rows(|s| s.files = Some(names("*.csv")), "a.json");
        assert_eq!(error, Err("no file of it matches `*.csv`; its files are `a.json`".into()));
    }

    #[test]
    fn a_model_is_its_safetensors_configuration_and_tokenizer() {
        let select = |all: &str| select(&settings(Wanted::Model), "it", &names(all)).map_err(|e| e.to_string());
        let sharded = "config.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json";
        let all = format!(
            "README.md consolidated.safetensors onnx/model.safetensors pytorch_model.bin tokenizer.json tokenizer_config.json {sharded}"
        );
        let mut expected = names(&format!("{sharded} tokenizer.json tokenizer_config.json"));
        expected.sort();
        assert_eq!(select(&all), Ok(expected));
        let pickle = select("config.json pytorch_model-00001-of-00002.bin");
        assert_eq!(
            pickle,
            Err("it has its weights only as pickle (`pytorch_model-00001-of-00002.bin`), which is not built yet".into())
        );
        assert_eq!(
            select("README.md"),
            Err("it is no model: it has no `*.safetensors`; its files are `README.md`".into())
        );
    }

    #[test]
    fn an_adapter_is_two_files() {
        let all = names("README.md adapter_config.json adapter_model.safetensors tokenizer.json");
        assert_eq!(
            select(&settings(Wanted::Adapter), "it", &all).unwrap(),
            names("adapter_config.json adapter_model.safetensors")
        );
    }

    #[test]
    fn stars_match_across_folders() {
        for (pattern, name, expected) in [
            ("*", "a/b", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("*.b*b", "x.bab", true),
            ("", "a", false),
        ] {
            assert_eq!(matches_pattern(pattern, name), expected, "{pattern} {name}");
        }
    }
}
