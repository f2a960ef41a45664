//! The form of pipeline files as a JSON Schema (2020-12): what an editor completes, explains and underlines.
//!
//! ```text
//! keys that `spec` reads ------\
//! kinds and ports of the registry --> { "$defs": { "stage": ..., "with.train": ... }, "properties": { "stages": ... } }
//! settings that kinds declare -/
//! ```
//!
//! It is made of what reads a file, so it cannot know another key, type or range. A stage's `with:` and `inputs:` are chosen by its `uses:`.
//! Wherever a value of a stage stands, `${{ }}` may stand.
//!
//! It deliberately knows less than `pipe check`: no names of other stages, no connections, nothing that depends on two settings. What it refuses,
//! `pipe check` refuses.

mod settings;

use pipe_contract::{ArtifactKind, StageKind};
use pipe_settings::Declared;
use serde_json::{Map, Value, json};

use crate::registry::Registry;
use crate::spec::{COUNT_MAX, MEMORY_UNITS, PROFILE_KEYS, RESOURCE_KEYS, STAGE_KEYS, TOP_KEYS};

/// A name of a stage, var, pool or profile.
const NAME_PATTERN: &str = "^[A-Za-z_][A-Za-z0-9_-]*$";

/// Every setting of a kind, as it declares them.
pub fn declared_settings(kind: &dyn StageKind) -> Vec<Declared> {
    Declared::all(|reader| drop(kind.read(reader)))
}

/// The schema of pipeline files with the stage kinds of `registry`.
pub fn schema(registry: &Registry) -> Value {
    let mut definitions = Map::new();
    definitions.insert("expression".into(), expression());
    definitions.insert("resources".into(), block(RESOURCE_KEYS, resource_key));
    definitions.insert("stage".into(), stage(registry, Completeness::Whole));
    definitions.insert("stage-part".into(), stage(registry, Completeness::Part));
    for kind in registry.kinds() {
        definitions.insert(format!("with.{}", kind.name()), with(*kind));
        definitions.insert(format!("inputs.{}", kind.name()), inputs(*kind));
    }
    let mut schema = block(TOP_KEYS, top_key);
    schema["type"] = "object".into();
    schema["required"] = json!(["version", "stages"]);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "a pipeline file of pipe".into();
    schema["$defs"] = definitions.into();
    schema
}

/// Whether a stage stands for itself, or is laid over another one by a profile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Completeness {
    Whole,
    Part,
}

fn top_key(key: &str) -> Option<Value> {
    let schema = match key {
        "version" => json!({ "const": 1, "description": "the version of the file format" }),
        "name" => {
            json!({ "type": "string", "minLength": 1, "description": "the pipeline's name; default: the file's" })
        }
        "numerics" => json!({
            "enum": ["exact", "any"],
            "description": "which artifacts are reused: those of any compute class, or of this one exactly",
        }),
        "pools" => named(count(1), "what running stages hold some of, and how much of it there is"),
        "vars" => named(json!({}), "values for `${{ vars.NAME }}`"),
        "matrix" => matrix(),
        "profiles" => named(block(PROFILE_KEYS, profile_key), "what `--profile NAME` lays over the file"),
        "stages" => {
            let mut stages = named(definition("stage"), "the stages, by name");
            stages["type"] = "object".into();
            stages["minProperties"] = 1.into();
            stages
        }
        _ => return None,
    };
    Some(schema)
}

fn profile_key(key: &str) -> Option<Value> {
    match key {
        "vars" => Some(named(json!({}), "values for `${{ vars.NAME }}`")),
        "matrix" => Some(matrix()),
        "stages" => Some(named(definition("stage-part"), "laid over the stages of these names")),
        _ => None,
    }
}

fn stage(registry: &Registry, completeness: Completeness) -> Value {
    let mut schema = block(STAGE_KEYS, |key| stage_key(key, registry));
    let kinds = registry.kinds().iter().map(|kind| {
        let name = kind.name();
        let mut then = json!({ "properties": {
            "with": definition(&format!("with.{name}")),
            "inputs": definition(&format!("inputs.{name}")),
            "outputs": kind.has_declared_ports(),
        } });
        let mut required = Vec::new();
        if kind.inputs().iter().any(|port| port.is_required) {
            required.push("inputs");
        }
        if kind.has_declared_ports() {
            required.push("outputs");
        }
        if completeness == Completeness::Whole && !required.is_empty() {
            then["required"] = json!(required);
        }
        json!({ "if": { "properties": { "uses": { "const": name } }, "required": ["uses"] }, "then": then })
    });
    schema["allOf"] = kinds.collect::<Vec<_>>().into();
    if completeness == Completeness::Whole {
        schema["type"] = "object".into();
        schema["required"] = json!(["uses"]);
    }
    schema
}

fn stage_key(key: &str, registry: &Registry) -> Option<Value> {
    let text = || json!({ "type": "string", "minLength": 1 });
    let schema = match key {
        "uses" => {
            let kinds = registry.kinds().iter();
            let kinds = kinds.map(|kind| json!({ "const": kind.name(), "description": kind.summary() }));
            let mut uses = json!({ "anyOf": kinds.chain([definition("expression")]).collect::<Vec<_>>() });
            uses["description"] = "the stage kind: `pipe stages` lists them".into();
            uses
        }
        "with" => json!({ "description": "the settings: `pipe stages KIND` lists them" }),
        "inputs" => json!({ "description": "port: STAGE or STAGE.OUTPUT" }),
        "needs" => json!({
            "type": ["string", "array", "null"],
            "items": { "type": "string" },
            "description": "stages that come first without giving anything",
        }),
        "outputs" => outputs(),
        "resources" => or_expression(definition("resources")),
        "timeout" => described(or_expression(duration()), "how long a try may take"),
        "retries" => {
            let tries = block(&["max", "delay"], |key| Some(if key == "max" { count(0) } else { duration() }));
            let tries = json!({ "anyOf": [count(0), tries] });
            described(or_expression(tries), "how many more tries there are after a failure")
        }
        "matrix" => matrix(),
        "to" => json!({
            "anyOf": [text(), { "type": "null" }],
            "description": "a folder, relative to the current one, that the outputs are copied to",
        }),
        _ => return None,
    };
    Some(schema)
}

fn resource_key(key: &str) -> Option<Value> {
    let schema = match key {
        "cpu" => count(1),
        "gpu" => count(0),
        "memory" => {
            let units: Vec<&str> = MEMORY_UNITS.iter().map(|(unit, _)| *unit).collect();
            let pattern = format!(r"^[0-9]+(\.[0-9]{{1,9}})?\s*({})$", units.join("|"));
            or_expression(json!({ "type": ["string", "null"], "pattern": pattern }))
        }
        "pools" => or_expression(named(count(0), "how much of which pool")),
        _ => return None,
    };
    Some(schema)
}

fn with(kind: &dyn StageKind) -> Value {
    or_expression(settings::of_block(&declared_settings(kind)))
}

/// `90s`, `1h30m`.
fn duration() -> Value {
    json!({ "type": ["string", "null"], "pattern": "^[0-9]+[dhms]([0-9]+[hms]){0,3}$" })
}

/// Lists of values by variable, and combinations that are left out or added.
fn matrix() -> Value {
    let scalar = settings::scalar();
    let combinations =
        json!({ "type": ["array", "null"], "items": { "type": "object", "additionalProperties": scalar } });
    let values = json!({ "type": "array", "minItems": 1, "items": scalar });
    let mut matrix = named(or_expression(values), "values for `${{ matrix.NAME }}`: a stage for each combination");
    matrix["properties"] =
        json!({ "include": or_expression(combinations.clone()), "exclude": or_expression(combinations) });
    matrix
}

/// Ports that the file declares, by name.
fn outputs() -> Value {
    let kinds: Vec<&str> = ArtifactKind::ALL.iter().map(|kind| kind.name()).collect();
    let file = json!({ "type": "string", "minLength": 1, "description": "the name of the file" });
    let file = json!({ "type": "object", "additionalProperties": false, "required": ["file"], "properties": { "file": file } });
    let port = json!({ "anyOf": [{ "enum": kinds }, file] });
    named(or_expression(port), "port: its artifact kind, or `{ file: NAME }`")
}

/// Ports of the kind, and no others; any, where the file declares them.
fn inputs(kind: &dyn StageKind) -> Value {
    if kind.has_declared_ports() {
        return or_expression(named(json!({ "type": "string", "minLength": 1 }), "port: STAGE or STAGE.OUTPUT"));
    }
    if let Some(any) = kind.inputs().iter().find(|port| port.name == pipe_contract::stage::ANY_NAME) {
        let what = format!("{}: STAGE or STAGE.OUTPUT", any.kind);
        return or_expression(named(json!({ "type": "string", "minLength": 1 }), &format!("any name, {what}")));
    }
    let port = |port: &pipe_contract::InputPort| {
        let what = format!("{}{}", port.kind, if port.is_required { "" } else { ", optional" });
        (port.name.to_string(), json!({ "type": "string", "minLength": 1, "description": what }))
    };
    let properties: Map<String, Value> = kind.inputs().iter().map(port).collect();
    or_expression(json!({ "type": ["object", "null"], "additionalProperties": false, "properties": properties }))
}

/// A mapping with these keys and no others. A key without a schema of its own may be anything: a test finds it.
fn block(keys: &[&str], of: impl Fn(&str) -> Option<Value>) -> Value {
    let properties: Map<String, Value> =
        keys.iter().map(|key| ((*key).to_string(), of(key).unwrap_or(Value::Bool(true)))).collect();
    json!({ "type": ["object", "null"], "additionalProperties": false, "properties": properties })
}

/// A mapping from names to values of this form.
fn named(value: Value, description: &str) -> Value {
    json!({
        "type": ["object", "null"],
        "propertyNames": { "pattern": NAME_PATTERN },
        "additionalProperties": value,
        "description": description,
    })
}

fn described(mut schema: Value, description: &str) -> Value {
    schema["description"] = description.into();
    schema
}

fn count(min: u64) -> Value {
    or_expression(json!({ "type": ["integer", "null"], "minimum": min, "maximum": COUNT_MAX }))
}

/// `"${{ vars.NAME }}"`, alone or in a text.
fn expression() -> Value {
    json!({ "type": "string", "pattern": r"\$\{\{.*\}\}" })
}

fn or_expression(schema: Value) -> Value {
    json!({ "anyOf": [schema, definition("expression")] })
}

fn definition(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_is_read_has_a_form() {
        let registry = Registry::new(vec![]);
        let keys = [
            block(TOP_KEYS, top_key),
            block(PROFILE_KEYS, profile_key),
            block(RESOURCE_KEYS, resource_key),
            block(STAGE_KEYS, |key| stage_key(key, &registry)),
        ];
        for block in keys {
            for (key, schema) in block["properties"].as_object().expect("a mapping") {
                assert!(schema.is_object(), "`{key}` is read, but src/schema does not say what it may be");
            }
        }
    }
}
