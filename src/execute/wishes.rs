//! What each stage wishes for, and what it weighs in the order of starts.

use std::time::Duration;

use pipe_cache::CacheError;
use pipe_contract::Cpu;

use crate::history::{self, History};
use crate::plan::{Plan, Planner, Verdict};
use crate::schedule::{CpuWish, Wish};
use crate::spec::StageSpec;

/// A stage's own words first, then what its kind says.
pub fn wish(spec: &StageSpec) -> Wish {
    let cpu = match (spec.resources.cpu, spec.stage.cpu()) {
        (Some(threads), _) => CpuWish::Exactly(threads),
        (None, Cpu::One) => CpuWish::One,
        (None, Cpu::Share) => CpuWish::Share,
        (None, Cpu::All) => CpuWish::All,
    };
    Wish {
        cpu,
        memory_bytes: spec.resources.memory_bytes.unwrap_or(0),
        gpus: spec.resources.gpu,
        pools: spec.resources.pools.clone(),
    }
}

/// What the stages that may run took in earlier runs. Where at most one runs there is no order, and no run is read.
///
/// # Errors
/// When the folder of the runs cannot be read.
pub fn read_history(planner: &Planner<'_>, plan: &Plan) -> Result<History, CacheError> {
    let open = open_stages(plan);
    if open.len() < 2 { Ok(History::default()) } else { history_of(planner, &open) }
}

/// What these stages took in earlier runs, and gave.
///
/// # Errors
/// When the folder of the runs cannot be read.
pub fn history_of(planner: &Planner<'_>, stages: &[usize]) -> Result<History, CacheError> {
    let pipeline = planner.pipeline;
    let file = std::path::absolute(&pipeline.path).unwrap_or_else(|_| pipeline.path.clone());
    let spec = |&stage: &usize| &pipeline.stages[stage];
    let wanted = stages.iter().map(spec).map(|spec| (spec.name.clone(), spec.kind.name().to_string()));
    History::read(planner.store, &file, wanted)
}

/// By stage; 0 for those that are reused.
pub(super) fn weights(planner: &Planner<'_>, plan: &Plan, history: &History) -> Vec<u64> {
    let pipeline = planner.pipeline;
    let open = open_stages(plan);
    let durations: Vec<Option<Duration>> =
        open.iter().map(|&stage| history.duration(&pipeline.stages[stage].name)).collect();
    let mut weights = vec![0; pipeline.stages.len()];
    for (&stage, weight) in open.iter().zip(history::weights(&durations)) {
        weights[stage] = weight;
    }
    weights
}

fn open_stages(plan: &Plan) -> Vec<usize> {
    let is_reused = |stage: usize| matches!(plan.stages[stage].verdict, Verdict::Reuse { .. });
    (0..plan.stages.len()).filter(|&stage| !is_reused(stage)).collect()
}
