//! `pipe plan [FILE]`: a verdict per stage, with the reason and the predicted cost; `--why` adds what changed since the last run.

use super::arguments::PlanArguments;
use super::failure::CliError;
use super::session::Session;
use crate::exit_code;
use crate::explain::Explanation;
use crate::plan::Plan;
use crate::predict::{Amount, Prediction, StagePrediction, predict};
use crate::report::plan_table;
use crate::spec::Pipeline;

pub(super) fn plan(session: &mut Session<'_>, arguments: &PlanArguments) -> Result<u8, CliError> {
    let request = session.request_or_last(arguments.file.as_deref(), &arguments.overlay)?;
    let mut loaded = session.load_to_read(&request, arguments.numerics)?;
    loaded.select(&arguments.until, &arguments.from)?;
    if arguments.locked {
        loaded.lock_down(arguments.numerics, &request, &session.io.current_dir)?;
    }
    let plan = loaded.plan(&session.io.current_dir)?;
    let (slots, _) = session.machine(session.n_threads(None)?, None);
    let prediction = predict(&loaded.planner(&session.io.current_dir), &plan, slots)?;
    let why = if arguments.why { Some(loaded.explain(&plan, &request)?) } else { None };
    let text = if arguments.json {
        format!("{}\n", to_json(&loaded.pipeline, &plan, &prediction, why.as_deref()))
    } else {
        plan_table::render(&loaded.pipeline, &plan, &prediction, why.as_deref(), session.out_style)
    };
    session.write(&text)?;
    Ok(exit_code::OK)
}

fn to_json(
    pipeline: &Pipeline,
    plan: &Plan,
    prediction: &Prediction,
    why: Option<&[Explanation]>,
) -> serde_json::Value {
    let stage = |stage: usize| {
        let mut json = stage_to_json(pipeline, plan, stage, why);
        if let Some(predicted) = &prediction.stages[stage] {
            json["predicted"] = stage_prediction_to_json(predicted);
        }
        json
    };
    serde_json::json!({
        "format_version": 1,
        "pipeline": pipeline.name,
        "predicted": {
            "duration_ms": prediction.makespan_ms.map(amount_to_json),
            "bytes": prediction.bytes.map(amount_to_json),
        },
        "stages": (0..plan.stages.len()).map(stage).collect::<Vec<_>>(),
    })
}

/// Null is what is not known.
fn stage_prediction_to_json(predicted: &StagePrediction) -> serde_json::Value {
    serde_json::json!({
        "duration_ms": predicted.duration.map(|duration| duration.as_millis() as u64),
        "bytes": predicted.size.as_ref().map(|size| amount_to_json(size.stored)),
    })
}

fn amount_to_json(amount: Amount) -> serde_json::Value {
    serde_json::json!({ "value": amount.value, "is_at_least": amount.is_at_least })
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
