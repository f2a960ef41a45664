//! `pipe show [FILE] STAGE[.PORT]`: looks into what a stage gave with the settings as they are now.

use std::path::Path;

use super::arguments::ShowArguments;
use super::failure::CliError;
use super::session::{Loaded, Session, help_for};
use crate::diagnostic::Diagnostic;
use crate::exit_code;

pub(super) fn show(session: &mut Session<'_>, arguments: &ShowArguments) -> Result<u8, CliError> {
    let (file, target) = file_and_target(&arguments.targets);
    let request = session.request_or_last(file, &arguments.overlay)?;
    let loaded = session.load_to_read(&request, None)?;
    let (name, port) = match target.split_once('.') {
        Some((name, port)) => (name, Some(port)),
        None => (target, None),
    };
    let stage = loaded.find_stage(name)?;
    let ports = find_ports(&loaded, stage, port)?;
    let plan = loaded.plan(&session.io.current_dir)?;
    let run_it = format!("make it with: pipe run {}", request.file_as_given.display());
    let Some(manifest) = &plan.stages[stage].manifest else {
        let message = format!("stage `{name}` has not run with these settings");
        return Err(CliError::Stage(Diagnostic::new("not-made", message).help(run_it).into()));
    };
    if let Some(missing) = loaded.store.missing(manifest)?.first() {
        let message = format!("the files of stage `{name}` are gone or changed, such as `{}`", missing.path.display());
        return Err(CliError::Stage(Diagnostic::new("files-gone", message).help(run_it).into()));
    }
    for (position, port) in ports.iter().enumerate() {
        let artifact = loaded.store.artifact(manifest, port)?;
        if ports.len() > 1 {
            let line = format!("{name}.{port} ({})", artifact.kind);
            let gap = if position == 0 { "" } else { "\n" };
            session.write(&format!("{gap}{}\n", session.out_style.bold(&line)))?;
        }
        let kind = loaded.pipeline.stages[stage].kind;
        let mut text =
            kind.show(port, &artifact, arguments.n_rows).map_err(|error| CliError::of_stage(name, &error))?;
        if !text.ends_with('\n') {
            text.push('\n');
        }
        session.write(&text)?;
    }
    Ok(exit_code::OK)
}

/// `[FILE] TARGET` as clap takes it: one or two words.
pub(super) fn file_and_target(targets: &[String]) -> (Option<&Path>, &str) {
    match targets {
        [target] => (None, target),
        [file, target, ..] => (Some(Path::new(file)), target),
        [] => unreachable!("clap demands one"),
    }
}

/// The port that was named, or all.
fn find_ports(loaded: &Loaded, stage: usize, port: Option<&str>) -> Result<Vec<&'static str>, CliError> {
    let spec = &loaded.pipeline.stages[stage];
    let ports: Vec<&'static str> = spec.stage.outputs().iter().map(|output| output.name).collect();
    let Some(wanted) = port else { return Ok(ports) };
    match ports.iter().find(|name| **name == wanted) {
        Some(name) => Ok(vec![name]),
        None => {
            let message = format!("stage `{}` has no output `{wanted}`", spec.name);
            Err(Diagnostic::new("unknown-output", message).help(help_for(wanted, &ports, "outputs")).into())
        }
    }
}
