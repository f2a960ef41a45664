//! One word for one thing (GLOSSARY.md), and no trace of the machine a file was written on.

use crate::report;
use crate::tree::{TextFile, text_files};

/// Words that have a better one in GLOSSARY.md. Matched as whole words, in any case.
const BANNED: [(&str, &str); 7] = [
    ("workflow", "pipeline"),
    ("recipe", "pipeline"),
    ("idempotent", "reproducible, deterministic"),
    ("minibatch", "micro-batch"),
    ("mini-batch", "micro-batch"),
    ("batch size", "micro-batch, global batch"),
    ("global step", "optimizer step"),
];

/// Names of files that say nothing.
const EMPTY_FILES: [&str; 5] = ["util.rs", "utils.rs", "helper.rs", "helpers.rs", "misc.rs"];

/// Ends of type names that say nothing.
const EMPTY_NAMES: [&str; 4] = ["Manager", "Helper", "Util", "Handler"];

/// Starts of absolute paths that exist on one machine only. Split, so that this file does not hold them.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), concat!("/wo", "rk/")];

/// Our own words: code, documents, scripts, pipelines. The two lists of forbidden words may name them.
fn our_text() -> Vec<TextFile> {
    let endings = [".rs", ".md", ".py", ".yaml", ".toml", ".sh", "justfile", ".ci/run"];
    text_files(|path| {
        endings.iter().any(|ending| path.ends_with(ending))
            && !matches!(path, "GLOSSARY.md" | "STYLE.md" | "tests/tidy/words.rs")
    })
}

/// Whether `word` stands in `line` with no letter, digit or underscore beside it. Both in lower case.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word)
        .any(|(at, _)| !is_part(line[..at].chars().next_back()) && !is_part(line[at + word.len()..].chars().next()))
}

#[test]
fn one_word_for_one_thing() {
    let mut violations = Vec::new();
    for file in our_text() {
        for (index, line) in file.text.lines().enumerate() {
            let lower = line.to_lowercase();
            for (banned, better) in BANNED {
                if has_word(&lower, banned) {
                    violations.push(format!("{}:{}: `{banned}`: say {better}", file.path, index + 1));
                }
            }
        }
    }
    report("GLOSSARY.md has another word for it", &violations);
}

#[test]
fn names_say_something() {
    let mut violations = Vec::new();
    for file in text_files(|path| path.ends_with(".rs")) {
        if EMPTY_FILES.iter().any(|name| file.path.ends_with(&format!("/{name}"))) {
            violations.push(file.path.clone());
        }
        for (index, line) in file.text.lines().enumerate() {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
            let name = words.find(|word| matches!(*word, "struct" | "enum" | "trait")).and_then(|_| words.next());
            let is_empty_name = |name: &str| EMPTY_NAMES.iter().any(|end| name.ends_with(end));
            if let Some(name) = name.filter(|name| is_empty_name(name) && !line.trim_start().starts_with("//")) {
                violations.push(format!("{}:{}: `{name}`", file.path, index + 1));
            }
        }
    }
    report("a type or a file is named for what it is", &violations);
}

#[test]
fn no_path_of_a_developers_machine() {
    let mut violations = Vec::new();
    // All text, fixtures too.
    for file in text_files(|path| path != "Cargo.lock") {
        for (index, line) in file.text.lines().enumerate() {
            // A folder of that name inside a relative path is none of a machine's.
            let starts = |path: &str| {
                line.match_indices(path).any(|(at, _)| {
                    !line[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || "._-}/)".contains(c))
                })
            };
            if let Some(path) = MACHINE_PATHS.iter().find(|path| starts(path)) {
                violations.push(format!("{}:{}: {path}...", file.path, index + 1));
            }
        }
    }
    report("an absolute path of one machine", &violations);
}

#[test]
fn words_are_matched_whole() {
    assert!(has_word("a workflow of", "workflow"));
    assert!(!has_word("a workflows_of", "workflow"));
    assert!(!has_word("subworkflow", "workflow"));
}
