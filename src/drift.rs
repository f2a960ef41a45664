//! Drift: where a pipeline is not what its lock file says it was.
//!
//! ```text
//! stages in topological order --settings, files, revisions and input digests of the lock file--> fingerprint --> an entry in the lock file?
//! ```
//!
//! The digests of a stage's outputs stand in the lock file, so the keys of all stages are known before anything runs, in a fresh clone too.
//! What follows from a stage that drifted is not known, and not reported.
//!
//! It deliberately does not say which setting changed: the lock file holds digests. `explain` does, where the store has a run.

use std::collections::BTreeMap;

use pipe_cache::CacheError;

use crate::diagnostic::Diagnostic;
use crate::key::KeyInput;
use crate::lockfile::PortDigests;
use crate::plan::{Keyed, Planner};

const SLUG: &str = "lock-drift";

/// Every stage that the lock file does not have as it is now, in topological order; empty where the lock file fits.
///
/// # Errors
/// When the store cannot be read.
pub fn find_drift(planner: &Planner<'_>) -> Result<Vec<Diagnostic>, CacheError> {
    let mut drift = Vec::new();
    let mut outputs: BTreeMap<usize, &PortDigests> = BTreeMap::new();
    for &stage in &planner.pipeline.order {
        let Some(inputs) = inputs(planner, stage, &outputs) else { continue };
        let answer = |request: &str| planner.lock.resolved(request).map(str::to_string);
        // A source that is not there blocks the stage: the plan says so.
        let Ok(keyed) = planner.keys(stage, inputs, answer) else { continue };
        match keyed {
            Keyed::Unresolved { request } => {
                let message = format!("the lock file does not have the revision of `{request}`");
                drift.push(at(planner, stage, message));
            }
            Keyed::Known(keys) => match planner.lock.outputs(&keys.fingerprint) {
                Some(digests) => {
                    outputs.insert(stage, digests);
                    let standing = planner.store.lookup(&keys.fingerprint)?;
                    if standing.is_some_and(|manifest| !planner.agrees_with_lock(&manifest)) {
                        let message = "the store has other bytes of stage `{}` than the lock file says";
                        drift.push(at(planner, stage, message.replace("{}", &planner.pipeline.stages[stage].name)));
                    }
                }
                None => {
                    let message = "the lock file does not have stage `{}` as it is now: its settings, files, revision, version or inputs are others";
                    drift.push(at(planner, stage, message.replace("{}", &planner.pipeline.stages[stage].name)));
                }
            },
        }
    }
    Ok(drift)
}

/// What the lock file says is on each port; `None` where it does not say.
fn inputs(
    planner: &Planner<'_>,
    stage: usize,
    outputs: &BTreeMap<usize, &PortDigests>,
) -> Option<BTreeMap<String, KeyInput>> {
    let spec = &planner.pipeline.stages[stage];
    let input = |(port, from): (&String, &crate::spec::InputRef)| {
        let digest = outputs.get(&from.stage)?.get(&from.port)?.clone();
        Some((port.clone(), KeyInput { kind: from.kind, digest }))
    };
    spec.inputs.iter().map(input).collect()
}

fn at(planner: &Planner<'_>, stage: usize, message: String) -> Diagnostic {
    Diagnostic::new(SLUG, message).at(planner.pipeline.stages[stage].location.clone())
}
