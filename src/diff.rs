//! Two runs side by side: settings, inputs, facts and outputs that are not the same.
//!
//! ```text
//! RunRecord, RunRecord --stages by name--> settings, facts --fingerprints, manifests, files--> StageDiff
//! ```
//!
//! Events are enough for settings and facts; outputs are compared as far as the store has them.

use std::collections::{BTreeMap, BTreeSet};

use pipe_cache::{CacheError, Store};
use serde::Serialize;
use serde_json::Value;

use crate::compare::{FileDifference, compare};
use crate::events::StageRecord;
use crate::record::{RecordedStage, RunRecord};
use crate::registry::Registry;

/// A stage in two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageDiff {
    /// Its name.
    pub stage: String,
    /// Where it is.
    pub place: Place,
    /// Settings, inputs and `uses:` that are not the same, with both values; null where a side has none.
    pub settings: Vec<ValueDiff>,
    /// Facts that are not the same.
    pub facts: Vec<ValueDiff>,
    /// Outputs that are not the same.
    pub outputs: Vec<FileDifference>,
}

/// In which of two runs a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Place {
    Both,
    First,
    Second,
}

/// A value that is not the same in both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ValueDiff {
    /// What it is of.
    pub name: String,
    /// In the first run.
    pub old: Value,
    /// In the second run.
    pub new: Value,
}

impl StageDiff {
    /// Whether the stage is in both runs, with the same settings, facts and outputs.
    pub fn is_same(&self) -> bool {
        self.place == Place::Both && self.settings.is_empty() && self.facts.is_empty() && self.outputs.is_empty()
    }
}

/// An entry per stage: those of the second run in file order, then those of the first alone.
///
/// # Errors
/// When the store cannot be read.
pub fn diff(
    store: &Store,
    registry: &Registry,
    first: &RunRecord,
    second: &RunRecord,
) -> Result<Vec<StageDiff>, CacheError> {
    let mut stages = Vec::new();
    for now in &second.stages {
        stages.push(match first.stage(&now.name) {
            Some(before) => StageDiff {
                stage: now.name.clone(),
                place: Place::Both,
                settings: differing(&settings(before), &settings(now)),
                facts: differing(&facts(before), &facts(now)),
                outputs: outputs(store, registry, before, now)?,
            },
            None => alone(&now.name, Place::Second),
        });
    }
    let gone = first.stages.iter().filter(|stage| second.stage(&stage.name).is_none());
    stages.extend(gone.map(|stage| alone(&stage.name, Place::First)));
    Ok(stages)
}

fn alone(stage: &str, place: Place) -> StageDiff {
    StageDiff { stage: stage.to_string(), place, settings: Vec::new(), facts: Vec::new(), outputs: Vec::new() }
}

/// `uses`, inputs and settings in force, by the keys they are written under.
fn settings(stage: &RecordedStage) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::from([("uses".to_string(), stage.kind.clone().into())]);
    let Some(StageRecord { inputs, settings, .. }) = &stage.spec else { return values };
    values.extend(inputs.iter().map(|(port, from)| (format!("inputs.{port}"), from.clone().into())));
    values.extend(settings.iter().map(|setting| (format!("with.{}", setting.name), setting.value.clone())));
    values
}

fn facts(stage: &RecordedStage) -> BTreeMap<String, Value> {
    stage.facts.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect()
}

fn differing(old: &BTreeMap<String, Value>, new: &BTreeMap<String, Value>) -> Vec<ValueDiff> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    let value = |values: &BTreeMap<String, Value>, name: &String| values.get(name).cloned().unwrap_or(Value::Null);
    changed.map(|name| ValueDiff { name: name.clone(), old: value(old, name), new: value(new, name) }).collect()
}

fn outputs(
    store: &Store,
    registry: &Registry,
    before: &RecordedStage,
    now: &RecordedStage,
) -> Result<Vec<FileDifference>, CacheError> {
    let (Some(old), Some(new)) = (&before.fingerprint, &now.fingerprint) else { return Ok(Vec::new()) };
    if old == new {
        return Ok(Vec::new());
    }
    let (Some(old), Some(new)) = (store.lookup(old)?, store.lookup(new)?) else {
        let what = "the store has no record of it any more, so its files are not compared".to_string();
        return Ok(vec![FileDifference { port: "outputs".into(), file: None, what }]);
    };
    compare(registry, (store, &old), (store, &new))
}
