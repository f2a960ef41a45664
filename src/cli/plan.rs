//! `pipe plan [FILE]`: a verdict per stage, with the reason.

use super::arguments::PlanArguments;
use super::failure::CliError;
use super::session::Session;
use crate::exit_code;
use crate::plan::Plan;
use crate::report::plan_table;
use crate::spec::Pipeline;

pub(super) fn plan(session: &mut Session<'_>, arguments: &PlanArguments) -> Result<u8, CliError> {
    let request = session.request_or_last(arguments.file.as_deref(), &arguments.overlay)?;
    let loaded = session.load_to_read(&request, arguments.numerics)?;
    let plan = loaded.plan(&session.io.current_dir)?;
    let text = if arguments.json {
        format!("{}\n", to_json(&loaded.pipeline, &plan))
    } else {
        plan_table::render(&loaded.pipeline, &plan, session.out_style)
    };
    session.write(&text)?;
    Ok(exit_code::OK)
}

fn to_json(pipeline: &Pipeline, plan: &Plan) -> serde_json::Value {
    let stages: Vec<serde_json::Value> = pipeline
        .stages
        .iter()
        .zip(&plan.stages)
        .map(|(stage, planned)| {
            serde_json::json!({
                "stage": stage.name,
                "kind": stage.kind.name(),
                "verdict": planned.verdict.name(),
                "reason": planned.verdict.explain(pipeline),
                "fingerprint": planned.manifest.as_ref().map(|manifest| &manifest.fingerprint),
            })
        })
        .collect();
    serde_json::json!({ "format_version": 1, "pipeline": pipeline.name, "stages": stages })
}
