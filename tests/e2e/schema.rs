//! `pipe schema`: what an editor underlines, and that it never underlines what is right.

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

fn schema() -> (Value, jsonschema::Validator) {
    let output = Sandbox::new().pipe("schema");
    assert_eq!((output.code, output.err.as_str()), (0, ""));
    let schema = serde_json::from_str(&output.out).expect("JSON");
    jsonschema::meta::validate(&schema).expect("a JSON Schema");
    let validator = jsonschema::validator_for(&schema).expect("a schema that can be used");
    (schema, validator)
}

/// Whether `pipe check` and the schema take a file.
fn is_right(validator: &jsonschema::Validator, yaml: &str) -> (bool, bool) {
    let sandbox = Sandbox::new();
    sandbox.write("p.yaml", yaml);
    let value: Value = serde_yaml::from_str(yaml).expect("the test's YAML parses");
    (sandbox.pipe("check p.yaml").code == 0, validator.is_valid(&value))
}

#[test]
fn what_is_right_is_taken() {
    let (_, validator) = schema();
    let files = [
        "{ version: 1, stages: { rows: { uses: make } } }",
        "{ version: 1, name: p, numerics: exact, stages: { rows: { uses: make, with: { value: a }, to: out } } }",
        "{ version: 1, vars: { n: 3, word: x }, stages: { rows: { uses: make }, text: { uses: change, inputs: { rows: rows.rows }, with: { first: '${{ vars.n }}', suffix: 'a ${{ vars.word }}' } } } }",
        "{ version: 1, vars: { kind: make }, stages: { rows: { uses: '${{ vars.kind }}' } } }",
        "{ version: 1, stages: { rows: { uses: make }, text: { uses: change, inputs: { rows: rows }, with: { first: null }, needs: [rows] } } }",
        "{ version: 1, pools: { hub: 2 }, stages: { rows: { uses: make, resources: { cpu: 2, memory: 1.5GiB, gpu: 0, pools: { hub: 1 } } } } }",
        "{ version: 1, profiles: { small: { vars: { n: 1 }, stages: { rows: { with: { value: b } } } } }, stages: { rows: { uses: make } } }",
    ];
    for file in files {
        assert_eq!(is_right(&validator, file), (true, true), "{file}");
    }
}

#[test]
fn each_sort_of_mistake_is_underlined() {
    let (_, validator) = schema();
    let with = |with: &str| {
        format!(
            "{{ version: 1, stages: {{ rows: {{ uses: make }}, text: {{ uses: change, inputs: {{ rows: rows }}, {with} }} }} }}"
        )
    };
    let files = [
        ("an unknown key", "{ version: 1, stage: {}, stages: { rows: { uses: make } } }".to_string()),
        ("an unknown key of a stage", with("withs: {}")),
        ("an unknown key of resources", with("resources: { cpus: 1 }")),
        ("an unknown setting", with("with: { sufix: a }")),
        ("a wrong type", with("with: { suffix: 3 }")),
        ("a number out of its range", with("with: { first: 101 }")),
        ("a fraction where a whole number should be", with("with: { first: 1.5 }")),
        ("an unknown kind", "{ version: 1, stages: { rows: { uses: mak } } }".into()),
        ("no kind", "{ version: 1, stages: { rows: { with: {} } } }".into()),
        ("an unknown port", with("inputs: { row: rows }").replacen("inputs: { rows: rows }, ", "", 1)),
        ("no inputs", "{ version: 1, stages: { text: { uses: change } } }".into()),
        ("a memory without unit", with("resources: { memory: 4 }")),
        ("too many threads", with("resources: { cpu: 5000 }")),
        ("another version", "{ version: 2, stages: { rows: { uses: make } } }".into()),
        ("no version", "{ stages: { rows: { uses: make } } }".into()),
        ("no stages", "{ version: 1 }".into()),
        ("a bad name", "{ version: 1, stages: { 1rows: { uses: make } } }".into()),
        ("a bad choice", "{ version: 1, numerics: exactly, stages: { rows: { uses: make } } }".into()),
    ];
    for (what, file) in files {
        assert_eq!(is_right(&validator, &file), (false, false), "{what}: {file}");
    }
}

#[test]
fn a_setting_has_its_type_its_range_its_default_and_a_description() {
    let (schema, _) = schema();
    let settings = &schema["$defs"]["with.change"]["anyOf"][0];
    assert_eq!(settings["additionalProperties"], false);
    assert_eq!(
        settings["properties"]["first"],
        json!({
            "anyOf": [{ "type": ["integer", "null"], "minimum": 0, "maximum": 100 }, { "$ref": "#/$defs/expression" }],
            "description": "a whole number from 0 to 100",
        })
    );
    assert_eq!(
        settings["properties"]["class"],
        json!({
            "anyOf": [{ "type": ["string", "null"] }, { "$ref": "#/$defs/expression" }],
            "description": "text; default fake-1",
            "default": "fake-1",
        })
    );
}
