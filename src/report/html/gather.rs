//! Adds to the events of a run what the store has of its outputs: manifests, and the figures that stage kinds give.
//!
//! A report must be possible whatever became of the store: what is not there any more becomes a sentence.

use std::time::Duration;

use pipe_cache::{Manifest, MissingFile, Store};
use pipe_contract::{Figure, StageKind};

use super::data::{MadeData, ReportData, StageData};
use crate::error::chain;
use crate::events::{Event, Sink as _, read_events};
use crate::registry::Registry;
use crate::schedule::Outcome;

/// Earlier runs that are searched for who made what this one reused: the newest.
const N_RUNS_SEARCHED_MAX: usize = 50;

/// Reads a run: its events, then its outputs. `None` where nothing of the run can be read.
pub fn gather(store: &Store, registry: &Registry, run_id: &str) -> Option<ReportData> {
    let mut data = ReportData::default();
    read_events(&store.run_dir(run_id)).for_each(|(at, event)| data.on(at, &event));
    if data.run_id.is_empty() {
        return None;
    }
    for stage in &mut data.stages {
        add_outputs(stage, store, registry);
    }
    add_makers(&mut data, store);
    Some(data)
}

fn add_outputs(stage: &mut StageData, store: &Store, registry: &Registry) {
    if !matches!(stage.outcome, Some(Outcome::Ran | Outcome::Reused)) {
        return;
    }
    let Some(fingerprint) = &stage.fingerprint else {
        stage
            .notes
            .push("The run was recorded by an early version of pipe, which did not say where its outputs are.".into());
        return;
    };
    let found = store.lookup(fingerprint).and_then(|manifest| Ok(manifest.zip(store.preimage(fingerprint)?)));
    let (manifest, preimage) = match found {
        Ok(Some(found)) => found,
        Ok(None) => {
            stage.notes.push("Its outputs are not in the store any more.".into());
            return;
        }
        Err(error) => {
            stage.notes.push(format!("Its manifest cannot be read: {}.", chain(&error)));
            return;
        }
    };
    let mut figures = Vec::new();
    match registry.get(&stage.kind) {
        None => stage.notes.push(format!("This build has no stage kind {}, which knows what to show.", stage.kind)),
        Some(kind) => {
            let missing = store.missing(&manifest).map_err(|error| chain(&error));
            for port in manifest.outputs.keys() {
                match figures_of(kind, store, &manifest, &missing, port) {
                    Ok(shown) => figures.push((port.clone(), shown)),
                    Err(why) => stage.notes.push(format!("Nothing is shown of its output {port}: {why}.")),
                }
            }
        }
    }
    stage.made = Some(MadeData { manifest, preimage, figures, made_in: None });
}

/// `missing`: of all outputs, or why that cannot be known.
fn figures_of(
    kind: &dyn StageKind,
    store: &Store,
    manifest: &Manifest,
    missing: &Result<Vec<MissingFile>, String>,
    port: &str,
) -> Result<Vec<Figure>, String> {
    let n_missing = missing.as_ref().map_err(String::clone)?.iter().filter(|file| file.port == port).count();
    if n_missing > 0 {
        let files = if n_missing == 1 { "a file of it is" } else { "files of it are" };
        return Err(format!("{files} gone or changed"));
    }
    let artifact = store.artifact(manifest, port).map_err(|error| chain(&error))?;
    kind.figures(port, &artifact).map_err(|error| chain(&error))
}

/// Finds the runs that made what this one reused.
fn add_makers(data: &mut ReportData, store: &Store) {
    let is_open = |stage: &StageData| {
        stage.outcome == Some(Outcome::Reused) && stage.made.as_ref().is_some_and(|made| made.made_in.is_none())
    };
    let runs = store.list_runs().unwrap_or_default();
    let earlier = runs.iter().rev().filter(|id| **id < data.run_id).take(N_RUNS_SEARCHED_MAX);
    for run_id in earlier {
        if !data.stages.iter().any(is_open) {
            return;
        }
        for (_, event) in read_events(&store.run_dir(run_id)) {
            let Event::StageFinished { outcome: Outcome::Ran, fingerprint: Some(made), duration_ms, .. } = event else {
                continue;
            };
            let maker = (run_id.clone(), Duration::from_millis(duration_ms));
            let open = data.stages.iter_mut().filter(|stage| is_open(stage));
            for stage in open.filter(|stage| stage.fingerprint.as_ref() == Some(&made)) {
                if let Some(outputs) = &mut stage.made {
                    outputs.made_in = Some(maker.clone());
                }
            }
        }
    }
}
