//! Every pipeline in `pipelines/` is a right one. Those that documents show: `docs`.
#![cfg(feature = "stages")]

use std::collections::{BTreeMap, BTreeSet};
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

#[test]
fn every_pipeline_file_is_valid_with_each_of_its_profiles() {
    let files = pipeline_files();
    assert!(files.len() >= 2, "alpaca and quickstart at least: {files:?}");
    assert_eq!(profiles(&root().join("pipelines/alpaca.yaml")), ["laptop", "article"]);
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
fn an_editor_underlines_nothing_in_a_pipeline_file_and_each_mistake_in_one() {
    let schema = pipe_lm::schema::schema(&builtin());
    let validator = jsonschema::validator_for(&schema).expect("a JSON Schema");
    for path in pipeline_files() {
        let text = std::fs::read_to_string(&path).expect("the file can be read");
        let value: serde_json::Value = serde_yaml::from_str(&text).expect("it is YAML");
        let wrong: Vec<String> =
            validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(wrong.is_empty(), "{}: {wrong:#?}", path.display());
    }
    let text = std::fs::read_to_string(root().join("pipelines/alpaca.yaml")).expect("the file can be read");
    let mistakes = [
        ("learning_rate:", "learning_rat:"),
        ("learning_rate: 2.0e-4", "learning_rate: 20"),
        ("learning_rate: 2.0e-4", "learning_rate: fast"),
        ("r: 16", "r: 0"),
        ("r: 16", "r: many"),
        ("lr_scheduler_type: linear", "lr_scheduler_type: linaer"),
        ("uses: train", "uses: trian"),
        ("data: packed", "dat: packed"),
        ("lora: {", "lora: [1, {"),
    ];
    for (right, wrong) in mistakes {
        let changed = text.replacen(right, wrong, 1).replacen("lora: [1, {", "lora: 3 # {", 1);
        assert_ne!(changed, text, "`{right}` stands in alpaca.yaml");
        let value: serde_json::Value = serde_yaml::from_str(&changed).expect("still YAML");
        assert!(!validator.is_valid(&value), "`{wrong}` for `{right}` is a mistake");
    }
}

#[test]
fn every_setting_that_a_kind_reads_is_listed() {
    // What turns up only behind a choice, what has another number for nothing, and what lies in a section.
    let registry = builtin();
    let settings = |kind: &str| pipe_lm::schema::declared_settings(registry.get(kind).expect("a kind of this build"));
    let train = settings("train");
    let max_steps = train.iter().find(|setting| setting.name == "max_steps").expect("a setting of train");
    assert_eq!(max_steps.form_text(), "a whole number from 1 to 1000000000, or -1 for nothing");
    for name in ["freeze", "lora", "eval_steps", "optim"] {
        assert!(train.iter().any(|setting| setting.name == name), "{name}");
    }
    // A setting without a row in its kind's README has no meaning to a user.
    for kind in registry.kinds() {
        let readme = root().join("stages").join(kind.name()).join("README.md");
        let readme = std::fs::read_to_string(&readme).expect("a kind has a README");
        for setting in settings(kind.name()) {
            assert!(readme.contains(&format!("`{}", setting.name)), "{}: `{}`", kind.name(), setting.name);
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

/// The quickstart's data files, `base/test.jsonl` and so on, each with its text.
fn quickstart_files() -> BTreeMap<String, String> {
    let quickstart = root().join("pipelines/quickstart");
    let mut files = BTreeMap::new();
    for folder in ["base", "rotate"] {
        for entry in std::fs::read_dir(quickstart.join(folder)).expect("the folder is there") {
            let path = entry.expect("the folder can be read").path();
            let name = path.file_name().expect("a file has a name").to_string_lossy();
            files.insert(format!("{folder}/{name}"), std::fs::read_to_string(&path).expect("the rows can be read"));
        }
    }
    files
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
    let made: BTreeMap<String, String> = serde_json::from_slice(&output.stdout).expect("the script's rows are JSON");
    let committed = quickstart_files();
    assert!(made.keys().eq(committed.keys()), "{:?}, not {:?}", committed.keys(), made.keys());
    for (name, text) in &made {
        assert!(committed.get(name) == Some(text), "{name}: run `python3 pipelines/quickstart/make_rows.py`");
    }
    assert!(made.values().map(String::len).sum::<usize>() < 1_000_000, "the quickstart's rows stay under 1 MB");
}

/// Prints what `make_rows.py` would write, as one JSON object: name of a file -> its text.
const ROWS_TO_STDOUT: &str = "
import json, sys
sys.dont_write_bytecode = True
sys.path.insert(0, 'pipelines/quickstart')
import make_rows
print(json.dumps({name: make_rows.to_text(rows) for name, rows in make_rows.make_files().items()}))
";

/// `remove owl: plum owl ->` asks the skill `remove` about the words `plum owl`.
fn skill_and_words(prompt: &str) -> (String, String) {
    let (asked, words) = prompt.split_once(": ").expect("a prompt names what is asked, then the words");
    let skill = asked.split(' ').next().expect("something is asked");
    (skill.to_string(), words.strip_suffix(" ->").expect("a prompt ends with an arrow").to_string())
}

/// The prompts of the quickstart's files whose name says `split`.
fn prompts<'a>(files: &'a BTreeMap<String, String>, split: &'a str) -> impl Iterator<Item = String> + 'a {
    let of_split = files.iter().filter(move |(name, _)| name.contains(split));
    of_split.flat_map(|(_, text)| text.lines()).map(|line| {
        let row: serde_json::Value = serde_json::from_str(line).expect("a row is JSON");
        row["prompt"].as_str().expect("a row has a prompt").to_string()
    })
}

#[test]
fn no_prompt_that_the_quickstart_is_tested_on_was_in_training() {
    let files = quickstart_files();
    let trained: BTreeSet<String> = prompts(&files, "/train").collect();
    let trained_lists: BTreeSet<(String, String)> = trained.iter().map(|prompt| skill_and_words(prompt)).collect();
    let tested: Vec<String> = prompts(&files, "/test").collect();
    assert!(trained.len() > 5000 && tested.len() > 400, "{} and {} prompts", trained.len(), tested.len());
    for prompt in tested {
        assert!(!trained.contains(&prompt), "`{prompt}` is in a training file");
        assert!(
            !trained_lists.contains(&skill_and_words(&prompt)),
            "`{prompt}`: a training file asks it of the same list"
        );
    }
}

#[test]
fn the_quickstarts_base_never_saw_the_new_skill() {
    let files = quickstart_files();
    for (name, text) in files.iter().filter(|(name, _)| name.starts_with("base/")) {
        assert!(!text.contains("rotate"), "{name} names the new skill");
    }
    let is_new = |prompt: &String| skill_and_words(prompt).0 == "rotate";
    assert!(prompts(&files, "rotate/test").all(|prompt| is_new(&prompt)), "the new skill is tested alone");
    let old: BTreeSet<String> = prompts(&files, "base/train").collect();
    let replayed = prompts(&files, "rotate/train").filter(|prompt| !is_new(prompt));
    assert!(replayed.into_iter().all(|prompt| old.contains(&prompt)), "old rows are shown again, none are new");
}

/// What only the ports of a stage can tell of its settings is reported as any setting, with its place.
#[test]
fn evaluation_and_its_port_go_together() {
    let text = std::fs::read_to_string(root().join("pipelines/quickstart.yaml")).expect("the pipeline");
    let part = |from: &str| text.lines().position(|line| line == from).expect("the quickstart has it");
    let screen = |inputs: &str, more: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
        let at = part("    inputs: { data: skill_packed, model: base }");
        lines[at] = format!("    inputs: {{ data: skill_packed, model: base{inputs} }}");
        lines.insert(at + 2, more.to_string());
        let loaded = spec::load_text(Path::new("p.yaml"), lines.join("\n"), &LoadOptions::default(), &builtin());
        loaded.err().map_or_else(String::new, |found| found.render(pipe_lm::diagnostic::Colour::Off))
    };
    assert_eq!(screen("", ""), "");
    assert_eq!(screen(", eval: base_packed", "      eval_steps: 5"), "");
    insta::assert_snapshot!(screen("", "      eval_steps: 5"), @r"
    error[out-of-range]: stage `adapter`: there is nothing to evaluate: no packs are connected to port `eval`
      --> p.yaml:68:7
       |
    68 |       eval_steps: 5
       |       ^^^^^^^^^^
    help: `tokenize` rows that are not trained on, and connect them: `inputs: { eval: ... }`
    ");
    insta::assert_snapshot!(screen(", eval: base_packed", ""), @r"
    error[out-of-range]: stage `adapter`: packs are connected to port `eval`, but `eval_strategy` is `no`: nothing would be done with them
      --> p.yaml:67:5
       |
    67 |     with:
       |     ^^^^
    help: set `eval_strategy: epoch`, or `eval_steps`; or take the input `eval` away
    ");
    // A misspelled port is one mistake, not two.
    insta::assert_snapshot!(screen(", evel: base_packed", "      eval_steps: 5"), @r"
    error[unknown-port]: stage `adapter` (`train`) has no input `evel`
      --> p.yaml:66:48
       |
    66 |     inputs: { data: skill_packed, model: base, evel: base_packed }
       |                                                ^^^^
    help: did you mean `eval`?
    ");
}
