//! `[FILE] STAGE[.PORT]`: what a command that looks into outputs is pointed at.

use std::path::Path;
use std::sync::Arc;

use pipe_cache::Manifest;

use super::arguments::Overlay;
use super::failure::CliError;
use super::session::{Loaded, Session, help_for};
use crate::diagnostic::Diagnostic;
use crate::spec::split_reference;

/// Outputs of a stage that were made with the settings as they are now, and whose files are there.
pub(super) struct Target {
    pub(super) loaded: Loaded,
    pub(super) stage: usize,
    /// The port that was named, or all.
    pub(super) ports: Vec<String>,
    pub(super) manifest: Arc<Manifest>,
    /// Whether one port was named.
    pub(super) is_one_port: bool,
}

impl Target {
    /// # Errors
    /// No such stage or port; it was not made with these settings; its files are gone.
    pub(super) fn find(session: &Session<'_>, words: &[String], overlay: &Overlay) -> Result<Target, CliError> {
        let (file, target) = file_and_target(words);
        let request = session.request_or_last(file, overlay)?;
        let loaded = session.load_to_read(&request, None)?;
        let (name, port) = split_reference(target, |name| loaded.has_stage(name));
        let stage = loaded.find_stage(name)?;
        let ports = find_ports(&loaded, stage, port)?;
        let plan = loaded.plan(&session.io.current_dir)?;
        let run_it = format!("make it with: pipe run {}", request.file_as_given.display());
        let Some(manifest) = plan.stages[stage].manifest.clone() else {
            let message = format!("stage `{name}` has not run with these settings");
            return Err(CliError::Stage(Diagnostic::new("not-made", message).help(run_it).into()));
        };
        if let Some(missing) = loaded.store.missing(&manifest)?.first() {
            let message =
                format!("the files of stage `{name}` are gone or changed, such as `{}`", missing.path.display());
            return Err(CliError::Stage(Diagnostic::new("files-gone", message).help(run_it).into()));
        }
        Ok(Target { loaded, stage, ports, manifest, is_one_port: port.is_some() })
    }

    /// The stage's name.
    pub(super) fn name(&self) -> &str {
        &self.loaded.pipeline.stages[self.stage].name
    }
}

/// `[FILE] TARGET` as clap takes it: one or two words.
pub(super) fn file_and_target(words: &[String]) -> (Option<&Path>, &str) {
    match words {
        [target] => (None, target),
        [file, target, ..] => (Some(Path::new(file)), target),
        [] => unreachable!("clap demands one"),
    }
}

/// The port that was named, or all.
fn find_ports(loaded: &Loaded, stage: usize, port: Option<&str>) -> Result<Vec<String>, CliError> {
    let spec = &loaded.pipeline.stages[stage];
    let ports: Vec<&str> = spec.outputs.iter().map(|output| output.name.as_str()).collect();
    let Some(wanted) = port else { return Ok(ports.into_iter().map(str::to_string).collect()) };
    match ports.iter().find(|name| **name == wanted) {
        Some(name) => Ok(vec![(*name).to_string()]),
        None => {
            let message = format!("stage `{}` has no output `{wanted}`", spec.name);
            Err(Diagnostic::new("unknown-output", message).help(help_for(wanted, &ports, "outputs")).into())
        }
    }
}
