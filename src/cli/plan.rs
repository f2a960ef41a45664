//! `pipe plan [FILE]`: a verdict per stage, with the reason; `--why` adds what changed since the last run.

use super::arguments::PlanArguments;
use super::failure::CliError;
use super::session::Session;
use crate::exit_code;
use crate::explain::Explanation;
use crate::plan::Plan;
use crate::report::plan_table;
use crate::spec::Pipeline;

pub(super) fn plan(session: &mut Session<'_>, arguments: &PlanArguments) -> Result<u8, CliError> {
    let request = session.request_or_last(arguments.file.as_deref(), &arguments.overlay)?;
    let mut loaded = session.load_to_read(&request, arguments.numerics)?;
    loaded.select(&arguments.until)?;
    if arguments.locked {
        loaded.lock_down(arguments.numerics, &request, &session.io.current_dir)?;
    }
    let plan = loaded.plan(&session.io.current_dir)?;
    let why = if arguments.why { Some(loaded.explain(&plan, &request)?) } else { None };
    let text = if arguments.json {
        format!("{}\n", to_json(&loaded.pipeline, &plan, why.as_deref()))
    } else {
        plan_table::render(&loaded.pipeline, &plan, why.as_deref(), session.out_style)
    };
    session.write(&text)?;
    Ok(exit_code::OK)
}

fn to_json(pipeline: &Pipeline, plan: &Plan, why: Option<&[Explanation]>) -> serde_json::Value {
    let stages = (0..plan.stages.len()).map(|stage| stage_to_json(pipeline, plan, stage, why));
    serde_json::json!({ "format_version": 1, "pipeline": pipeline.name, "stages": stages.collect::<Vec<_>>() })
}

/// A stage with its verdict, and what changed where that was asked.
pub(super) fn stage_to_json(
    pipeline: &Pipeline,
    plan: &Plan,
    stage_idx: usize,
    why: Option<&[Explanation]>,
) -> serde_json::Value {
    let (stage, planned) = (&pipeline.stages[stage_idx], &plan.stages[stage_idx]);
    let mut json = serde_json::json!({
        "stage": stage.name,
        "kind": stage.kind.name(),
        "verdict": planned.verdict.name(),
        "reason": planned.verdict.explain(pipeline),
        "fingerprint": planned.manifest.as_ref().map(|manifest| &manifest.fingerprint),
    });
    if let Some(why) = why {
        let Explanation { before, changes } = &why[stage_idx];
        let before = before
            .as_ref()
            .map(|(run_id, fingerprint)| serde_json::json!({ "run_id": run_id, "fingerprint": fingerprint }));
        json["compared_with"] = before.unwrap_or_default();
        json["changes"] = serde_json::to_value(changes).expect("plain data with text keys");
    }
    json
}
