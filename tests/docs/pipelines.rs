//! The YAML blocks of a document, checked as `pipe check` does.
//!
//! | block | is |
//! |---|---|
//! | has `version:` | a whole pipeline: right as it stands and with each of its profiles |
//! | has none | a part: keys of the file (`vars:`, `profiles:`), or else entries of `stages:`; laid over pipelines/alpaca.yaml with its profile `laptop`, where a stage with `uses:` replaces the one of its name |
//! | `yaml other` | the YAML of another program: only its form is checked |
//!
//! Each must also pass the schema that `pipe schema` gives to editors. A name behind the fence that ends with `.yaml` is a file for the commands (`commands`), and changes nothing here.

use std::sync::LazyLock;

use pipe_lm::registry::builtin;
use pipe_lm::spec::{self, LoadOptions};
use serde_yaml::{Mapping, Value};

use crate::markdown::Block;
use crate::root;

/// Keys at the top of a pipeline file. A part that has others is entries of `stages:`.
const TOP_KEYS: [&str; 6] = ["name", "numerics", "vars", "matrix", "profiles", "stages"];

/// How many blocks were of which sort.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) n_whole: usize,
    pub(crate) n_parts: usize,
    pub(crate) n_others: usize,
}

/// Panics with the screen that the user would see.
pub(crate) fn check(block: &Block, document: &str, checked: &mut Checked) {
    let place = format!("{document}:{}", block.line);
    let value: Value = serde_yaml::from_str(&block.text).unwrap_or_else(|error| panic!("{place}: {error}"));
    let has_version = value.get("version").is_some();
    match block.name.as_deref() {
        Some("other") => {
            assert!(!has_version, "{place}: a pipeline cannot be `other`");
            checked.n_others += 1;
        }
        Some(name) if !name.ends_with(".yaml") => panic!("{place}: `{name}` behind `yaml` means nothing"),
        _ if has_version => {
            let profiles = value.get("profiles").and_then(Value::as_mapping);
            let names = profiles.into_iter().flat_map(Mapping::keys).filter_map(Value::as_str);
            for profile in std::iter::once(None).chain(names.map(Some)) {
                load(&block.text, profile, &place);
            }
            checked.n_whole += 1;
        }
        _ => {
            load(&over_the_main_job(&value), None, &place);
            checked.n_parts += 1;
        }
    }
}

/// Panics unless what the block shows stands in `file` like that.
pub(crate) fn assert_part_of(block: &Block, file: &Value, document: &str) {
    let part: Value = serde_yaml::from_str(&block.text).expect("it was checked as YAML");
    let of_file = if is_stages(&part) { &file["stages"] } else { file };
    assert!(is_in(&part, of_file), "{document}:{}: pipelines/alpaca.yaml says otherwise:\n{}", block.line, block.text);
}

/// Mappings may have more keys in `whole`; anything else is equal.
fn is_in(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Mapping(part), Value::Mapping(whole)) => {
            part.iter().all(|(key, value)| whole.get(key).is_some_and(|whole| is_in(value, whole)))
        }
        _ => part == whole,
    }
}

fn is_stages(part: &Value) -> bool {
    let keys = part.as_mapping().expect("a part of a pipeline is a mapping").keys().filter_map(Value::as_str);
    !keys.into_iter().any(|key| TOP_KEYS.contains(&key))
}

fn over_the_main_job(part: &Value) -> String {
    let text = std::fs::read_to_string(root().join("pipelines/alpaca.yaml")).expect("the pipeline");
    let mut file: Value = serde_yaml::from_str(&text).expect("it is YAML");
    let laptop = file["profiles"]["laptop"].clone();
    lay_over(&mut file, &laptop);
    if is_stages(part) {
        for (name, stage) in part.as_mapping().expect("a mapping") {
            if stage.get("uses").is_some() {
                file["stages"][name.clone()] = stage.clone();
            } else {
                lay_over(&mut file["stages"][name.clone()], stage);
            }
        }
    } else {
        lay_over(&mut file, part);
    }
    serde_yaml::to_string(&file).expect("what was read can be written")
}

/// Mappings are merged; anything else replaces.
fn lay_over(below: &mut Value, over: &Value) {
    match (below, over) {
        (Value::Mapping(below), Value::Mapping(over)) => {
            for (key, value) in over {
                match below.get_mut(key) {
                    Some(below) => lay_over(below, value),
                    None => drop(below.insert(key.clone(), value.clone())),
                }
            }
        }
        (below, over) => *below = over.clone(),
    }
}

fn load(text: &str, profile: Option<&str>, place: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("block.yaml");
    std::fs::write(&path, text).expect("the temporary folder can be written");
    let options = LoadOptions { profile: profile.map(str::to_string), sets: Vec::new() };
    if let Err(diagnostics) = spec::load(&path, &options, &builtin()) {
        panic!("{place}: {profile:?}\n{}", diagnostics.render(pipe_lm::diagnostic::Colour::Off));
    }
    // As an editor sees it.
    static SCHEMA: LazyLock<jsonschema::Validator> =
        LazyLock::new(|| jsonschema::validator_for(&pipe_lm::schema::schema(&builtin())).expect("a JSON Schema"));
    let value: serde_json::Value = serde_yaml::from_str(text).expect("it was read");
    if let Err(error) = SCHEMA.validate(&value) {
        panic!("{place}: `pipe schema` refuses {}: {error}", error.instance_path());
    }
}

#[test]
fn a_wrong_block_is_found() {
    let is_right = |text: &str| {
        let block = Block { language: "yaml".into(), name: None, text: text.into(), line: 1 };
        std::panic::catch_unwind(|| check(&block, "test", &mut Checked::default())).is_ok()
    };
    assert!(is_right("text: { uses: format, inputs: { rows: dataset } }"));
    assert!(!is_right("text: { uses: format, inputs: { rows: datset } }"));
    assert!(is_right("vars: { max_length: 512 }"));
    assert!(!is_right("vars: { max_length: lots }"));
    assert!(is_right("version: 1\nstages: { rows: { uses: download, with: { dataset: ./x } } }"));
    assert!(!is_right("version: 1\nstages: { rows: { uses: download, with: { datset: ./x } } }"));
}
