//! Why a stage runs, or need not: what its key is made of, compared with the last run of the same pipeline file.
//!
//! ```text
//! runs/, newest first --fingerprint of the stage--> manifest --preimage--> what it was made of then
//!                                                                                 |
//! settings, source, inputs as they are now -------------------------------------> changes
//! ```
//!
//! Only what is in the key is compared, so a change that is listed is a reason, and one that is not could not be one. Where inputs are not known yet (pending) the rest is
//! compared all the same: a prediction.
//!
//! It deliberately reads runs and manifests alone: no blob, no pipeline file of then.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pipe_cache::{CacheError, Store};
use serde::Serialize;
use serde_json::Value;

use crate::diagnostic::Location;
use crate::events::{Event, StageRecord, read_events};
use crate::key::{ENCODING_VERSION, readable, readable_outputs};
use crate::plan::{Plan, Reason, Verdict, declared_outputs};
use crate::spec::{Pipeline, StageSpec};

/// Runs that are looked through for a stage that the newest ones did not have.
const RUNS_MAX: usize = 200;

/// A stage in an earlier run.
#[derive(Clone, Debug)]
pub struct Before {
    /// The run.
    pub run_id: String,
    /// What its manifest is stored under.
    pub fingerprint: String,
    /// What its key was made of.
    preimage: Value,
    compute_class: Option<String>,
    /// Every setting in force then, by name.
    settings: BTreeMap<String, Value>,
}

/// Something in a key that is not what it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Change {
    /// The word after `uses:`.
    Kind {
        /// Then.
        old: String,
        /// Now.
        new: String,
    },
    /// The kind's implementation.
    Version {
        /// The kind.
        kind: String,
        /// Then.
        old: u64,
        /// Now.
        new: u64,
    },
    /// A setting below `with:`.
    Setting {
        /// Its keys, dots between them.
        name: String,
        /// The value in force then; null where the stage decided.
        old: Value,
        /// The value in force now.
        new: Value,
        /// Where it is written, if it is.
        at: Option<Location>,
    },
    /// A local file that the stage reads.
    File {
        /// Its name below the source.
        name: String,
        /// Digest then; none where it was not there.
        old: Option<String>,
        /// Digest now; none where it is not there.
        new: Option<String>,
    },
    /// What a remote name stands for.
    Revision {
        /// Then.
        old: Option<String>,
        /// Now.
        new: Option<String>,
    },
    /// The content on a port.
    Input {
        /// The port.
        port: String,
        /// `STAGE.OUTPUT`, where the port is connected.
        from: Option<String>,
        /// Digest then; none where nothing was connected.
        old: Option<String>,
        /// Digest now; none where nothing is connected.
        new: Option<String>,
    },
    /// An output that the pipeline file declares: its artifact kind, or the name of its file.
    Output {
        /// The port.
        port: String,
        /// Then; null where it was not declared.
        old: Value,
        /// Now; null where it is not declared.
        new: Value,
    },
    /// The content on a port is known when this stage has run.
    Unknown {
        /// The port.
        port: String,
        /// `STAGE.OUTPUT`.
        from: String,
    },
    /// What computes.
    ComputeClass {
        /// Then.
        old: Option<String>,
        /// Now.
        new: Option<String>,
    },
    /// How keys are computed at all.
    Encoding {
        /// Then.
        old: u64,
        /// Now.
        new: u64,
    },
    /// The outputs are recorded no more: removed from the store, damaged, or not all that the kind gives now.
    Record,
}

/// Why a stage has its verdict.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// What it is compared with; none where no run of this pipeline file is known that had the stage.
    pub before: Option<(String, String)>,
    /// What changed since.
    pub changes: Vec<Change>,
}

impl Explanation {
    /// Whether it says why the stage runs. A stage that runs for no reason is a mistake in pipe.
    pub fn is_complete(&self, verdict: &Verdict) -> bool {
        match verdict {
            Verdict::Run(Reason::New) | Verdict::Pending { .. } => self.before.is_none() || !self.changes.is_empty(),
            // Each has its reason in itself.
            Verdict::Run(Reason::Unresolved { .. } | Reason::FilesGone { .. } | Reason::Forced)
            | Verdict::Blocked(_)
            | Verdict::Reuse { .. } => true,
        }
    }
}

/// An explanation per stage, in file order. `file`: the pipeline file, absolute.
///
/// # Errors
/// When the store cannot be read.
pub fn explain(pipeline: &Pipeline, plan: &Plan, store: &Store, file: &Path) -> Result<Vec<Explanation>, CacheError> {
    let names: BTreeSet<&str> = pipeline.stages.iter().map(|stage| stage.name.as_str()).collect();
    let before = find_before(store, file, names)?;
    let explain = |(stage, spec): (usize, &StageSpec)| match before.get(&spec.name) {
        Some(before) => Explanation {
            before: Some((before.run_id.clone(), before.fingerprint.clone())),
            changes: changes(pipeline, plan, stage, before),
        },
        None => Explanation { before: None, changes: Vec::new() },
    };
    Ok(pipeline.stages.iter().enumerate().map(explain).collect())
}

/// The newest run of each stage whose manifest is still there.
fn find_before(store: &Store, file: &Path, mut names: BTreeSet<&str>) -> Result<BTreeMap<String, Before>, CacheError> {
    let mut found = BTreeMap::new();
    for run_id in store.list_runs()?.iter().rev().take(RUNS_MAX) {
        if names.is_empty() {
            break;
        }
        let mut events = read_events(&store.run_dir(run_id)).map(|(_, event)| event);
        let Some(Event::RunStarted { request, .. }) = events.next() else { continue };
        if request.file != file {
            continue;
        }
        let mut records: BTreeMap<String, StageRecord> = BTreeMap::new();
        for event in events {
            match event {
                Event::StagePlanned { stage, spec: Some(record), .. } => drop(records.insert(stage, record)),
                Event::StageFinished { stage, fingerprint: Some(fingerprint), .. }
                    if names.contains(stage.as_str()) =>
                {
                    let Some(manifest) = store.lookup(&fingerprint)? else { continue };
                    let Some(preimage) = store.preimage(&fingerprint)? else { continue };
                    let settings = records.remove(&stage).map(|record| record.settings).unwrap_or_default();
                    names.remove(stage.as_str());
                    found.insert(
                        stage,
                        Before {
                            run_id: run_id.clone(),
                            fingerprint,
                            preimage,
                            compute_class: manifest.compute_class,
                            settings: settings.into_iter().map(|setting| (setting.name, setting.value)).collect(),
                        },
                    );
                }
                _ => {}
            }
        }
    }
    Ok(found)
}

/// What is not as it was before.
fn changes(pipeline: &Pipeline, plan: &Plan, stage: usize, before: &Before) -> Vec<Change> {
    let (spec, planned) = (&pipeline.stages[stage], &plan.stages[stage]);
    let old = &before.preimage;
    let mut changes = Vec::new();
    let old_encoding = old["encoding"].as_u64().unwrap_or(0);
    if old_encoding != ENCODING_VERSION {
        changes.push(Change::Encoding { old: old_encoding, new: ENCODING_VERSION });
    }
    let (old_kind, kind) = (old["kind"].as_str().unwrap_or_default(), spec.kind.name());
    let (old_version, version) = (old["kind_version"].as_u64().unwrap_or(0), u64::from(spec.kind.version()));
    if old_kind != kind {
        changes.push(Change::Kind { old: old_kind.into(), new: kind.into() });
    } else if old_version != version {
        changes.push(Change::Version { kind: kind.into(), old: old_version, new: version });
    }
    changes.extend(setting_changes(spec, before));
    if let Some(source) = &planned.source {
        changes.extend(source_changes(&old["source"], &source.readable()));
    }
    changes.extend(input_changes(pipeline, plan, spec, &old["inputs"]));
    changes.extend(output_changes(&old["outputs"], &readable_outputs(&declared_outputs(spec))));
    let class = spec.stage.compute_class();
    if class != before.compute_class {
        changes.push(Change::ComputeClass { old: before.compute_class.clone(), new: class });
    }
    if changes.is_empty() && planned.verdict == Verdict::Run(Reason::New) {
        changes.push(Change::Record);
    }
    changes
}

fn setting_changes(spec: &StageSpec, before: &Before) -> Vec<Change> {
    let (mut old, mut new) = (BTreeMap::new(), BTreeMap::new());
    flatten("", &before.preimage["settings"], &mut old);
    for (name, value) in &spec.key_settings {
        flatten_one(name, &readable(value), &mut new);
    }
    let mut in_force = BTreeMap::new();
    for setting in &spec.settings {
        flatten_one(&setting.name, &setting.value.as_ref().map_or(Value::Null, readable), &mut in_force);
    }
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    let change = |name: &String| Change::Setting {
        name: name.clone(),
        // What is not in a key is a default: then, by the run's record, and now.
        old: old.get(name).or_else(|| before.settings.get(name)).cloned().unwrap_or(Value::Null),
        new: new.get(name).or_else(|| in_force.get(name)).cloned().unwrap_or(Value::Null),
        at: place(spec, name),
    };
    changed.map(change).collect()
}

/// Where a setting is written, or the innermost mapping that it would be in.
fn place(spec: &StageSpec, name: &str) -> Option<Location> {
    let mut name = name;
    loop {
        if let Some(location) = spec.setting_locations.get(name) {
            return Some(location.clone());
        }
        name = name.rsplit_once('.')?.0;
    }
}

/// Leaves by name, dots between keys. Lists are leaves: their order has meaning.
fn flatten(prefix: &str, value: &Value, leaves: &mut BTreeMap<String, Value>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        flatten_one(&format!("{prefix}{name}"), value, leaves);
    }
}

fn flatten_one(name: &str, value: &Value, leaves: &mut BTreeMap<String, Value>) {
    if value.as_object().is_some_and(|map| !map.is_empty()) {
        flatten(&format!("{name}."), value, leaves);
    } else {
        leaves.insert(name.into(), value.clone());
    }
}

fn source_changes(old: &Value, new: &Value) -> Vec<Change> {
    if old == new {
        return Vec::new();
    }
    let files = |source: &Value| -> BTreeMap<String, String> {
        let files = source["files"].as_object().into_iter().flatten();
        files.filter_map(|(name, digest)| Some((name.clone(), digest.as_str()?.to_string()))).collect()
    };
    let (old_files, new_files) = (files(old), files(new));
    let names: BTreeSet<&String> = old_files.keys().chain(new_files.keys()).collect();
    let changed = names.into_iter().filter(|name| old_files.get(*name) != new_files.get(*name));
    let mut changes: Vec<Change> = changed
        .map(|name| Change::File {
            name: name.clone(),
            old: old_files.get(name).cloned(),
            new: new_files.get(name).cloned(),
        })
        .collect();
    let commit = |source: &Value| source["commit"].as_str().map(str::to_string);
    if commit(old) != commit(new) {
        changes.push(Change::Revision { old: commit(old), new: commit(new) });
    }
    changes
}

fn input_changes(pipeline: &Pipeline, plan: &Plan, spec: &StageSpec, old: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    for (port, input) in &spec.inputs {
        let from = format!("{}.{}", pipeline.stages[input.stage].name, input.port);
        let before = old[port]["digest"].as_str().map(str::to_string);
        let artifact =
            plan.stages[input.stage].manifest.as_ref().and_then(|manifest| manifest.outputs.get(&input.port));
        match artifact {
            None => changes.push(Change::Unknown { port: port.clone(), from }),
            Some(artifact) if before.as_ref() != Some(&artifact.digest) => changes.push(Change::Input {
                port: port.clone(),
                from: Some(from),
                old: before,
                new: Some(artifact.digest.clone()),
            }),
            Some(_) => {}
        }
    }
    for (port, input) in old.as_object().into_iter().flatten() {
        if !spec.inputs.contains_key(port) {
            let before = input["digest"].as_str().map(str::to_string);
            changes.push(Change::Input { port: port.clone(), from: None, old: before, new: None });
        }
    }
    changes
}

fn output_changes(old: &Value, new: &Value) -> Vec<Change> {
    let ports: BTreeSet<&String> =
        [old, new].into_iter().flat_map(Value::as_object).flat_map(|map| map.keys()).collect();
    let changed = ports.into_iter().filter(|port| old[*port] != new[*port]);
    changed.map(|port| Change::Output { port: port.clone(), old: old[port].clone(), new: new[port].clone() }).collect()
}

impl Change {
    /// As a line without period.
    pub fn text(&self) -> String {
        let or_nothing = |value: &Option<String>| value.as_deref().map_or("none", short).to_string();
        match self {
            Change::Kind { old, new } => format!("stage kind `{old}` -> `{new}`"),
            Change::Version { kind, old, new } => format!("version of stage kind `{kind}` {old} -> {new}"),
            Change::Setting { name, old, new, at } => {
                let place = at.as_ref().map_or_else(|| ", now the default".into(), |at| format!(", {at}"));
                format!("`{name}` {} -> {}{place}", value_text(old), value_text(new))
            }
            Change::File { name, old: None, .. } => format!("file `{name}` is new"),
            Change::File { name, new: None, .. } => format!("file `{name}` is gone"),
            Change::File { name, old, new } => {
                format!("file `{name}` has other bytes, {} -> {}", or_nothing(old), or_nothing(new))
            }
            Change::Revision { old, new } => format!("revision {} -> {}", or_nothing(old), or_nothing(new)),
            Change::Input { port, from: None, .. } => format!("nothing is connected to `{port}` any more"),
            Change::Input { port, from: Some(from), old: None, .. } => format!("`{port}` is new, from `{from}`"),
            Change::Input { port, from: Some(from), old, new } => {
                format!("`{port}` from `{from}` has other content, {} -> {}", or_nothing(old), or_nothing(new))
            }
            Change::Output { port, old: Value::Null, new } => format!("output `{port}` is new, {}", value_text(new)),
            Change::Output { port, new: Value::Null, .. } => format!("output `{port}` is not declared any more"),
            Change::Output { port, old, new } => format!("output `{port}` {} -> {}", value_text(old), value_text(new)),
            Change::Unknown { port, from } => format!("`{port}` is known when `{from}` is made"),
            Change::ComputeClass { old, new } => {
                let class = |class: &Option<String>| class.as_deref().unwrap_or("none").to_string();
                format!("compute class {} -> {}", class(old), class(new))
            }
            Change::Encoding { old, new } => format!("this version of pipe computes keys otherwise ({old} -> {new})"),
            Change::Record => "the record of its outputs is gone from the store, damaged, or lacks one".into(),
        }
    }
}

/// Enough of a digest or commit to tell two apart.
fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

fn value_text(value: &Value) -> String {
    match value {
        Value::Null => "(none)".into(),
        value => value.to_string(),
    }
}
