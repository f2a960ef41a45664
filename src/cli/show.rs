//! `pipe show [FILE] STAGE[.PORT]`: looks into what a stage gave with the settings as they are now.

use super::arguments::ShowArguments;
use super::failure::CliError;
use super::session::Session;
use super::target::Target;
use crate::exit_code;

pub(super) fn show(session: &mut Session<'_>, arguments: &ShowArguments) -> Result<u8, CliError> {
    let target = Target::find(session, &arguments.targets, &arguments.overlay)?;
    let name = target.name();
    for (position, port) in target.ports.iter().enumerate() {
        let artifact = target.loaded.store.artifact(&target.manifest, port)?;
        if target.ports.len() > 1 {
            let line = format!("{name}.{port} ({})", artifact.kind);
            let gap = if position == 0 { "" } else { "\n" };
            session.write(&format!("{gap}{}\n", session.out_style.bold(&line)))?;
        }
        let kind = target.loaded.pipeline.stages[target.stage].kind;
        let mut text =
            kind.show(port, &artifact, arguments.n_rows).map_err(|error| CliError::of_stage(name, &error))?;
        if !text.ends_with('\n') {
            text.push('\n');
        }
        session.write(&text)?;
    }
    Ok(exit_code::OK)
}
