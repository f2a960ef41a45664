//! What a plan will cost: time and bytes of each stage that would run, and of the whole run.
//!
//! ```text
//! sizes of inputs ----the kind says--\
//! newest outputs of earlier runs ------> bytes by stage --sum--> bytes more on the disk
//! durations of earlier runs --median---> time by stage --forecast on this machine's slots--> the run's time
//! ```
//!
//! A pending stage counts as one that runs. What is not known is said to be unknown and counts as nothing in a sum, which is
//! then a lower bound. Bytes outside the store, such as a model in the Hugging Face cache, are not counted.
//!
//! It deliberately decides nothing: a run that was predicted wrongly is as right as any other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pipe_cache::{CacheError, Manifest, ManifestArtifact};

use crate::execute;
use crate::graph::StageGraph;
use crate::history::History;
use crate::plan::{Plan, Planner, Reason, Verdict};
use crate::schedule::{Scheduler, Slots, forecast};

/// What is predicted of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prediction {
    /// By position in the pipeline; `None` where a stage does not run.
    pub stages: Vec<Option<Box<StagePrediction>>>,
    /// From the begin of the run to its end, in milliseconds; `None` where nothing is known of any stage.
    pub makespan_ms: Option<Amount>,
    /// More on the disk after the run; `None` where nothing is known of any stage.
    pub bytes: Option<Amount>,
}

/// What is predicted of a stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StagePrediction {
    /// The median of what it took.
    pub duration: Option<Duration>,
    /// What it will write.
    pub size: Option<Size>,
}

/// What a stage will write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes in the store, as far as they are known.
    pub stored: Amount,
    /// Bytes in the store and outside, by output port; empty where only their sum is known.
    pub ports: BTreeMap<String, u64>,
    /// Bytes in the store and outside.
    pub total: u64,
}

/// A number, or a number and more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// What is known.
    pub value: u64,
    /// Whether something that is not known comes on top.
    pub is_at_least: bool,
}

/// Predicts a plan. `slots`: what this machine has to grant, its pools left out.
///
/// # Errors
/// When the store cannot be read.
pub fn predict(planner: &Planner<'_>, plan: &Plan, slots: Slots) -> Result<Prediction, CacheError> {
    let running: Vec<usize> = (0..plan.stages.len()).filter(|&stage| runs(plan, stage)).collect();
    if running.is_empty() {
        return Ok(Prediction { stages: vec![None; plan.stages.len()], ..Prediction::default() });
    }
    let history = execute::history_of(planner, &running)?;
    let sizes = predict_sizes(planner, plan, &history)?;
    let mut stages: Vec<Option<Box<StagePrediction>>> = vec![None; plan.stages.len()];
    for (stage, size) in sizes.into_iter().enumerate().filter(|(stage, _)| runs(plan, *stage)) {
        let duration = history.duration(&planner.pipeline.stages[stage].name);
        stages[stage] = Some(Box::new(StagePrediction { duration, size }));
    }
    let durations: Vec<Option<Duration>> =
        running.iter().map(|&stage| stages[stage].as_ref().and_then(|predicted| predicted.duration)).collect();
    let bytes = running.iter().map(|&stage| Some(stages[stage].as_ref()?.size.as_ref()?.stored));
    let makespan_ms = predict_makespan(planner, &running, &durations, slots);
    Ok(Prediction { bytes: sum(bytes), makespan_ms, stages })
}

/// Whether a stage runs, as far as anybody can say.
fn runs(plan: &Plan, stage: usize) -> bool {
    matches!(plan.stages[stage].verdict, Verdict::Run(_) | Verdict::Pending { .. })
}

/// `None` where nothing is known.
fn sum(amounts: impl Iterator<Item = Option<Amount>>) -> Option<Amount> {
    let mut total = None;
    let mut is_at_least = false;
    for amount in amounts {
        is_at_least |= amount.is_none_or(|amount| amount.is_at_least);
        if let Some(amount) = amount {
            *total.get_or_insert(0) += amount.value;
        }
    }
    total.map(|value| Amount { value, is_at_least })
}

/// Bytes of what each stage that runs will write; `None` where nothing is known. Looks at one manifest for each.
///
/// # Errors
/// When the store cannot be read.
pub fn predict_sizes(planner: &Planner<'_>, plan: &Plan, history: &History) -> Result<Vec<Option<Size>>, CacheError> {
    let mut sizes: Vec<Option<Size>> = vec![None; plan.stages.len()];
    for &stage in planner.pipeline.order.iter().filter(|&&stage| runs(plan, stage)) {
        sizes[stage] = predict_size(planner, plan, history, stage, &sizes)?;
    }
    Ok(sizes)
}

fn predict_size(
    planner: &Planner<'_>,
    plan: &Plan,
    history: &History,
    stage: usize,
    earlier: &[Option<Size>],
) -> Result<Option<Size>, CacheError> {
    let spec = &planner.pipeline.stages[stage];
    if let Some(manifest) = &plan.stages[stage].manifest {
        let size = Size::of(manifest);
        // Files that are there are not written again.
        let is_part = matches!(plan.stages[stage].verdict, Verdict::Run(Reason::FilesGone { .. }));
        return Ok(Some(if is_part { size.only(missing_bytes(planner, manifest)?) } else { size }));
    }
    let mut inputs = BTreeMap::new();
    for (port, from) in &spec.inputs {
        let bytes = match &plan.stages[from.stage].manifest {
            Some(manifest) => manifest.outputs.get(&from.port).map(total_bytes),
            None => earlier[from.stage].as_ref().and_then(|size| size.ports.get(&from.port).copied()),
        };
        inputs.extend(bytes.map(|bytes| (port.clone(), bytes)));
    }
    // Nothing and more is nothing that is known.
    let is_known = |total: &u64| *total > 0 || inputs.len() == spec.inputs.len();
    if let Some(total) = spec.stage.predict_bytes(&inputs).filter(is_known) {
        let stored = Amount { value: total, is_at_least: inputs.len() < spec.inputs.len() };
        return Ok(Some(Size { stored, ports: BTreeMap::new(), total }));
    }
    let Some(fingerprint) = history.fingerprint(&spec.name) else { return Ok(None) };
    Ok(planner.store.lookup(fingerprint)?.as_ref().map(Size::of))
}

impl Size {
    fn of(manifest: &Manifest) -> Self {
        let files = manifest.outputs.values().flat_map(|artifact| artifact.files.values());
        let stored = files.filter(|file| file.external.is_none()).map(|file| file.size_bytes).sum();
        let ports: BTreeMap<String, u64> =
            manifest.outputs.iter().map(|(port, artifact)| (port.clone(), total_bytes(artifact))).collect();
        let stored = Amount { value: stored, is_at_least: false };
        Size { stored, total: ports.values().sum(), ports }
    }

    fn only(self, stored: u64) -> Self {
        Size { stored: Amount { value: stored, is_at_least: false }, ..self }
    }
}

fn total_bytes(artifact: &ManifestArtifact) -> u64 {
    artifact.files.values().map(|file| file.size_bytes).sum()
}

/// Of the files that the store should have and has not.
fn missing_bytes(planner: &Planner<'_>, manifest: &Manifest) -> Result<u64, CacheError> {
    let missing = planner.store.missing(manifest)?;
    let file = |port: &str, name: &str| manifest.outputs.get(port)?.files.get(name);
    let files = missing.iter().filter_map(|missing| file(&missing.port, &missing.name));
    Ok(files.filter(|file| file.external.is_none()).map(|file| file.size_bytes).sum())
}

/// The scheduler itself, on the stages that run alone: one that is reused needs no slot. What is not known takes no time.
fn predict_makespan(
    planner: &Planner<'_>,
    running: &[usize],
    durations: &[Option<Duration>],
    slots: Slots,
) -> Option<Amount> {
    let pipeline = planner.pipeline;
    if durations.iter().all(Option::is_none) {
        return None;
    }
    let edges = waits_among(&StageGraph::new(pipeline), running);
    let graph = StageGraph::from_edges(running.len(), edges).expect("a part of a graph without cycles");
    let wishes = running.iter().map(|&stage| execute::wish(&pipeline.stages[stage])).collect();
    let slots = Slots { pools: pipeline.pools.iter().map(|pool| pool.size).collect(), ..slots };
    let known: Vec<u64> =
        durations.iter().map(|duration| duration.map_or(0, |duration| duration.as_millis() as u64)).collect();
    let scheduler = Scheduler::new(graph, wishes, slots).with_weights(&known);
    let value = forecast(scheduler, &known).makespan;
    Some(Amount { value, is_at_least: durations.iter().any(Option::is_none) })
}

/// Which of these stages waits for which, by position among them; over stages between them that do not run, too.
fn waits_among(graph: &StageGraph, stages: &[usize]) -> Vec<(usize, usize)> {
    let mut edges = Vec::new();
    for (to, &stage) in stages.iter().enumerate() {
        let mut seen = BTreeSet::new();
        let mut open: Vec<usize> = graph.predecessors(stage).collect();
        while let Some(before) = open.pop() {
            if !seen.insert(before) {
                continue;
            }
            match stages.binary_search(&before) {
                Ok(from) => edges.push((from, to)),
                Err(_) => open.extend(graph.predecessors(before)),
            }
        }
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exactly(value: u64) -> Option<Amount> {
        Some(Amount { value, is_at_least: false })
    }

    #[test]
    fn what_is_not_known_makes_a_sum_a_lower_bound() {
        let at_least = |value| Some(Amount { value, is_at_least: true });
        assert_eq!(sum([].into_iter()), None);
        assert_eq!(sum([None, None].into_iter()), None);
        assert_eq!(sum([exactly(1), exactly(2)].into_iter()), exactly(3));
        assert_eq!(sum([exactly(1), None].into_iter()), at_least(1));
        assert_eq!(sum([exactly(1), at_least(2)].into_iter()), at_least(3));
    }

    #[test]
    fn a_stage_waits_over_those_that_do_not_run() {
        // 0 -> 1 -> 2 -> 4, 3 -> 4.
        let graph = StageGraph::from_edges(5, [(0, 1), (1, 2), (2, 4), (3, 4)]).expect("no cycle");
        let mut edges = waits_among(&graph, &[0, 3, 4]);
        edges.sort_unstable();
        assert_eq!(edges, [(0, 2), (1, 2)]);
        assert_eq!(waits_among(&graph, &[1, 2]), [(0, 1)]);
        assert_eq!(waits_among(&graph, &[]), []);
    }
}
