//! What the documents say is true: their YAML passes `pipe check`, their commands run, and what they show is printed.
//!
//! ```text
//! README.md, docs/**, stages/**/README.md --markdown--> fenced blocks
//!   yaml      pipelines   whole ones as they are, parts laid over pipelines/alpaca.yaml
//!   sh        commands    each `pipe` command runs in a folder that has pipelines/, against a hub on loopback
//!   text      commands    after a block of commands: lines that they print, in this order
//!   others    nothing: languages that are listed below, so that a new one is noticed
//! ```
//!
//! CONTRIBUTING.md tells a writer the same. The commands of a document run in their order, with small models and few
//! optimizer steps: see [`commands`]. It does not look at prose, nor at tables.
#![cfg(feature = "stages")]

mod commands;
mod markdown;
mod pipelines;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use markdown::{Block, blocks};
use support::hub::{Hub, test_data};

/// Fences that are neither checked nor run. `""`: a drawing. `console`: what a run printed that takes longer than a test may.
const OTHERS: [&str; 5] = ["", "console", "json", "python", "jsonl"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The Markdown files in `folder` and below it that are called `name`, or all.
fn markdown_files(folder: &Path, name: Option<&str>, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the checkout can be read") {
        let path = entry.expect("a folder of the checkout can be read").path();
        let is_wanted = |path: &Path| match name {
            Some(name) => path.file_name().is_some_and(|found| found == name),
            None => path.extension().is_some_and(|extension| extension == "md"),
        };
        if path.is_dir() {
            markdown_files(&path, name, found);
        } else if is_wanted(&path) {
            found.push(path);
        }
    }
}

/// The documents whose commands run: path below the root, and blocks.
fn documents() -> BTreeMap<String, Vec<Block>> {
    let mut paths = vec![root().join("README.md")];
    markdown_files(&root().join("docs"), None, &mut paths);
    with_blocks(paths)
}

/// The documents whose YAML is checked: those, and what developers read.
fn documents_with_yaml() -> BTreeMap<String, Vec<Block>> {
    let mut paths: Vec<PathBuf> =
        ["ARCHITECTURE.md", "CONTRIBUTING.md", "STYLE.md"].map(|name| root().join(name)).into();
    markdown_files(&root().join("stages"), Some("README.md"), &mut paths);
    let mut found = documents();
    found.append(&mut with_blocks(paths));
    found
}

fn with_blocks(paths: Vec<PathBuf>) -> BTreeMap<String, Vec<Block>> {
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.strip_prefix(root()).expect("it is below the root").to_string_lossy().replace('\\', "/");
        let blocks = blocks(&text).unwrap_or_else(|problem| panic!("{name}:{problem}"));
        (name, blocks)
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn every_block_is_of_a_sort_that_is_known() {
    for (name, blocks) in documents() {
        for (index, block) in blocks.iter().enumerate() {
            let place = format!("{name}:{}", block.line);
            match block.language.as_str() {
                "yaml" | "sh" => {}
                "text" => {
                    let follows = index > 0 && blocks[index - 1].language == "sh";
                    assert!(follows, "{place}: `text` is what the commands before it print, and there are none");
                }
                other => assert!(OTHERS.contains(&other), "{place}: nothing checks a block of `{other}`"),
            }
        }
    }
}

#[test]
fn every_pipeline_and_every_part_of_one_passes_check() {
    let mut checked = pipelines::Checked::default();
    for (name, blocks) in documents_with_yaml() {
        for block in blocks.iter().filter(|block| block.language == "yaml") {
            pipelines::check(block, &name, &mut checked);
        }
    }
    let fences = |name: &String| {
        let text = std::fs::read_to_string(root().join(name)).expect("it was read before");
        text.lines().filter(|line| line.trim_start().starts_with("```yaml")).count()
    };
    let n_fences: usize = documents_with_yaml().keys().map(fences).sum();
    assert_eq!(checked.n_whole + checked.n_parts + checked.n_others, n_fences, "a YAML block was not looked at");
    assert!(checked.n_whole >= 3 && checked.n_parts >= 6, "the documents show more than that: {checked:?}");
}

#[test]
fn the_tutorials_stages_are_those_of_the_pipeline() {
    let (text, n_parts) = (std::fs::read_to_string(root().join("pipelines/alpaca.yaml")), &mut 0);
    let file: serde_yaml::Value = serde_yaml::from_str(&text.expect("the pipeline")).expect("it is YAML");
    for block in documents()["docs/tutorial.md"].iter().filter(|block| block.language == "yaml") {
        pipelines::assert_part_of(block, &file, "docs/tutorial.md");
        *n_parts += 1;
    }
    assert!(*n_parts >= 6, "the tutorial shows {n_parts} parts of the pipeline");
}

#[test]
fn the_german_tutorial_has_the_blocks_of_the_english_one() {
    let documents = documents();
    let (english, german) = (&documents["docs/tutorial.md"], &documents["docs/tutorial.de.md"]);
    for (english, german) in english.iter().zip(german) {
        let of = |block: &Block| (block.language.clone(), block.name.clone(), block.text.clone());
        assert_eq!(of(english), of(german), "tutorial.md:{} and tutorial.de.md:{}", english.line, german.line);
    }
    assert_eq!(english.len(), german.len(), "one of the tutorials has more blocks");
}

#[test]
fn every_command_runs_and_prints_what_is_shown() {
    let Some(data) = test_data("every_command_runs_and_prints_what_is_shown") else { return };
    let work = tempfile::tempdir().expect("a temporary folder");
    let hub = Hub::start(&data, work.path());
    let mut n_commands = BTreeMap::new();
    for (name, blocks) in documents() {
        n_commands.insert(name.clone(), commands::run_document(&name, &blocks, &hub));
    }
    for (name, least) in [("README.md", 4), ("docs/tutorial.md", 10), ("docs/how-to/own-data.md", 3)] {
        assert!(n_commands[name] >= least, "{name} has only {} commands", n_commands[name]);
    }
}
