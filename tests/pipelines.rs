//! Every pipeline that we show is a right one: those in `pipelines/`, and each that README.md or a stage's README prints.
#![cfg(feature = "stages")]

use std::path::{Path, PathBuf};

use pipe_lm::registry::builtin;
use pipe_lm::spec::{self, LoadOptions, Pipeline};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Loads `path`, or panics with the screen the user would see.
fn load(path: &Path, profile: Option<&str>) -> Pipeline {
    let options = LoadOptions { profile: profile.map(str::to_string), sets: Vec::new() };
    spec::load(path, &options, &builtin()).unwrap_or_else(|diagnostics| {
        panic!("{}:\n{}", path.display(), diagnostics.render(pipe_lm::diagnostic::Colour::Off))
    })
}

/// The pipeline files in `pipelines/`, sorted.
fn pipeline_files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("pipelines")).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("the folder can be read").path());
    let mut files: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    files.sort();
    files
}

/// The names under `profiles:`.
fn profiles(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("the file can be read");
    let value: serde_yaml::Value = serde_yaml::from_str(&text).expect("it is YAML");
    let names = value.get("profiles").and_then(|profiles| profiles.as_mapping()).into_iter().flat_map(|map| map.keys());
    names.filter_map(|name| name.as_str().map(str::to_string)).collect()
}

/// The fenced `yaml` blocks of a Markdown text that are whole pipelines.
fn yaml_pipelines(markdown: &str) -> Vec<String> {
    let blocks = markdown.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```").map(|(block, _)| block));
    let is_pipeline = |block: &&str| block.lines().any(|line| line.starts_with("stages:"));
    blocks.filter(is_pipeline).map(str::to_string).collect()
}

#[test]
fn every_pipeline_file_is_valid_with_each_of_its_profiles() {
    let files = pipeline_files();
    assert!(files.len() >= 2, "alpaca and quickstart at least: {files:?}");
    assert_eq!(profiles(&root().join("pipelines/alpaca.yaml")), ["laptop"]);
    for path in files {
        let pipeline = load(&path, None);
        assert_eq!(
            Some(pipeline.name.as_str()),
            path.file_stem().and_then(|stem| stem.to_str()),
            "a file is named after its pipeline"
        );
        for profile in profiles(&path) {
            load(&path, Some(&profile));
        }
    }
}

#[test]
fn every_pipeline_file_opens_with_its_command_and_its_cost() {
    for path in pipeline_files() {
        let text = std::fs::read_to_string(&path).expect("the file can be read");
        let name = path.file_name().expect("a file has a name").to_string_lossy();
        let first = text.lines().next().unwrap_or_default();
        assert!(
            first.starts_with("# ") && first.contains(&format!(" run pipelines/{name}")),
            "{name} opens with `{first}`"
        );
        let head: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
        assert!(head.iter().any(|line| line.starts_with("# Cost:")), "{name} does not say what it costs");
    }
}

#[test]
fn every_pipeline_in_the_documents_is_valid() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stages = std::fs::read_dir(root().join("stages")).expect("the folder is there");
    let mut documents: Vec<PathBuf> =
        stages.map(|e| e.expect("the folder can be read").path().join("README.md")).collect();
    documents.extend(["README.md", "ARCHITECTURE.md", "stages/README.md"].map(|name| root().join(name)));
    let mut n_found = 0;
    for document in documents.into_iter().filter(|path| path.exists()) {
        let text = std::fs::read_to_string(&document).expect("the document can be read");
        for block in yaml_pipelines(&text) {
            n_found += 1;
            let path = folder.path().join(format!("block-{n_found}.yaml"));
            std::fs::write(&path, block).expect("the temporary folder can be written");
            load(&path, None);
        }
    }
    assert!(n_found > 0, "README.md shows a pipeline");
}

#[test]
fn the_quickstarts_rows_are_those_of_its_script() {
    let Ok(output) = std::process::Command::new("python3").arg("-c").arg(ROWS_TO_STDOUT).current_dir(root()).output()
    else {
        use std::io::Write as _;
        writeln!(std::io::stderr(), "SKIPPED the_quickstarts_rows_are_those_of_its_script: python3 is not installed")
            .expect("stderr is open");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows = std::fs::read(root().join("pipelines/quickstart/rows.jsonl")).expect("the rows are committed");
    assert!(output.stdout == rows, "run `python3 pipelines/quickstart/make_rows.py`");
}

/// Prints what `make_rows.py` would write.
const ROWS_TO_STDOUT: &str = "
import json, sys
sys.dont_write_bytecode = True
sys.path.insert(0, 'pipelines/quickstart')
import make_rows
sys.stdout.write(''.join(json.dumps(row) + '\\n' for row in make_rows.make_rows()))
";
