//! `pipe graph [FILE]`: the stages as a tree with their verdicts, or for drawing programs.

use super::arguments::{GraphArguments, GraphFormat};
use super::failure::CliError;
use super::session::Session;
use crate::events::StageRecord;
use crate::exit_code;
use crate::plan::Plan;
use crate::report::graph_text;
use crate::spec::Pipeline;

pub(super) fn graph(session: &mut Session<'_>, arguments: &GraphArguments) -> Result<u8, CliError> {
    let request = session.request_or_last(arguments.file.as_deref(), &arguments.overlay)?;
    if arguments.json {
        let loaded = session.load_to_read(&request, None)?;
        let plan = loaded.plan(&session.io.current_dir)?;
        return session.write_json(to_json(&loaded.pipeline, &plan)).map(|()| exit_code::OK);
    }
    let text = match arguments.format {
        GraphFormat::Text => {
            let loaded = session.load_to_read(&request, None)?;
            let plan = loaded.plan(&session.io.current_dir)?;
            graph_text::render_tree(&loaded.pipeline, &plan, session.out_style)
        }
        GraphFormat::Dot => graph_text::render_dot(&session.load_pipeline(&request)?),
        GraphFormat::Mermaid => graph_text::render_mermaid(&session.load_pipeline(&request)?),
    };
    session.write(&text)?;
    Ok(exit_code::OK)
}

fn to_json(pipeline: &Pipeline, plan: &Plan) -> serde_json::Value {
    let stage = |idx: usize| {
        let spec = &pipeline.stages[idx];
        let StageRecord { inputs, needs, .. } = StageRecord::new(pipeline, idx);
        let outputs: Vec<&str> = spec.stage.outputs().iter().map(|output| output.name).collect();
        serde_json::json!({
            "stage": spec.name,
            "kind": spec.kind.name(),
            "verdict": plan.stages[idx].verdict.name(),
            "inputs": inputs,
            "needs": needs,
            "outputs": outputs,
            "to": spec.to,
        })
    };
    let stages: Vec<serde_json::Value> = (0..pipeline.stages.len()).map(stage).collect();
    serde_json::json!({ "pipeline": pipeline.name, "stages": stages })
}
