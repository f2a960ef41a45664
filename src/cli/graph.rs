//! `pipe graph [FILE]`: the stages as a tree with their verdicts, or for drawing programs.

use super::arguments::{GraphArguments, GraphFormat};
use super::failure::CliError;
use super::session::Session;
use crate::exit_code;
use crate::report::graph_text;

pub(super) fn graph(session: &mut Session<'_>, arguments: &GraphArguments) -> Result<u8, CliError> {
    let request = session.request_or_last(arguments.file.as_deref(), &arguments.overlay)?;
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
