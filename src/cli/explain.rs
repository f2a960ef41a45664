//! `pipe explain [FILE] STAGE`: why a stage runs or is reused, down to the setting, file or version that changed.

use std::collections::BTreeSet;

use super::arguments::ExplainArguments;
use super::failure::CliError;
use super::plan::stage_to_json;
use super::session::Session;
use super::target::file_and_target;
use crate::exit_code;
use crate::explain::{Change, Explanation};
use crate::plan::{Plan, Reason, Verdict};
use crate::report::plan_table;
use crate::spec::Pipeline;

pub(super) fn explain(session: &mut Session<'_>, arguments: &ExplainArguments) -> Result<u8, CliError> {
    let (file, name) = file_and_target(&arguments.targets);
    let request = session.request_or_last(file, &arguments.overlay)?;
    let loaded = session.load_to_read(&request, arguments.numerics)?;
    let stage = loaded.find_stage(name)?;
    let plan = loaded.plan(&session.io.current_dir)?;
    let why = loaded.explain(&plan, &request)?;
    let causes = causes(&loaded.pipeline, &plan, &why, stage);
    let text = if arguments.json {
        let to_json = |stage| stage_to_json(&loaded.pipeline, &plan, stage, Some(&why));
        let causes: Vec<serde_json::Value> = causes.iter().copied().map(to_json).collect();
        format!("{}\n", serde_json::json!({ "format_version": 1, "stage": to_json(stage), "causes": causes }))
    } else {
        let stages: Vec<usize> = std::iter::once(stage).chain(causes).collect();
        plan_table::render_stages(&loaded.pipeline, &plan, &stages, Some(&why), session.out_style)
    };
    session.write(&text)?;
    Ok(exit_code::OK)
}

/// The stages that are the reason for what a stage's inputs are: those it takes changed or unknown inputs from, and theirs, in file order.
fn causes(pipeline: &Pipeline, plan: &Plan, why: &[Explanation], stage: usize) -> Vec<usize> {
    let mut found = BTreeSet::new();
    let mut open = vec![stage];
    while let Some(at) = open.pop() {
        let spec = &pipeline.stages[at];
        let ports = why[at].changes.iter().filter_map(|change| match change {
            Change::Input { port, from: Some(_), .. } | Change::Unknown { port, .. } => Some(port),
            _ => None,
        });
        let mut before: Vec<usize> = ports.map(|port| spec.inputs[port].stage).collect();
        // Without an earlier run to compare with, what is not made yet is the reason.
        let is_open = |stage: &usize| !matches!(plan.stages[*stage].verdict, Verdict::Reuse { .. });
        before.extend(spec.waits_for().filter(is_open));
        if let Verdict::Run(Reason::FilesGone { needed_by: Some(needed_by), .. }) = plan.stages[at].verdict {
            before.push(needed_by);
        }
        open.extend(before.into_iter().filter(|&before| before != stage && found.insert(before)));
    }
    found.into_iter().collect()
}
