//! What each stage wishes for, and what it weighs in the order of starts.

use std::time::Duration;

use pipe_cache::CacheError;
use pipe_contract::Cpu;

use crate::history::{self, History};
use crate::plan::{Plan, Planner, Verdict};
use crate::schedule::{CpuWish, Wish};
use crate::spec::StageSpec;

/// A stage's own words first, then what its kind says.
pub(super) fn wish(spec: &StageSpec) -> Wish {
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

/// What stages took in earlier runs; nothing for those that are reused. Where at most one runs there is no order, and no run is read.
pub(super) fn weights(planner: &Planner<'_>, plan: &Plan) -> Result<Vec<u64>, CacheError> {
    let pipeline = planner.pipeline;
    let is_reused = |stage: usize| matches!(plan.stages[stage].verdict, Verdict::Reuse { .. });
    let open: Vec<usize> = (0..pipeline.stages.len()).filter(|&stage| !is_reused(stage)).collect();
    let mut weights = vec![0; pipeline.stages.len()];
    if open.len() < 2 {
        return Ok(weights);
    }
    let file = std::path::absolute(&pipeline.path).unwrap_or_else(|_| pipeline.path.clone());
    let spec = |&stage: &usize| &pipeline.stages[stage];
    let wanted = open.iter().map(spec).map(|spec| (spec.name.clone(), spec.kind.name().to_string()));
    let history = History::read(planner.store, &file, wanted)?;
    let durations: Vec<Option<Duration>> = open.iter().map(spec).map(|spec| history.duration(&spec.name)).collect();
    for (&stage, weight) in open.iter().zip(history::weights(&durations)) {
        weights[stage] = weight;
    }
    Ok(weights)
}
