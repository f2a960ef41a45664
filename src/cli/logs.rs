//! `pipe logs STAGE`: what a stage said while it ran, in the last run that has something of it, or in one that is named.

use std::fs;

use super::arguments::LogsArguments;
use super::failure::CliError;
use super::session::Session;
use crate::diagnostic::Diagnostic;
use crate::events::log_path;
use crate::exit_code;

pub(super) fn logs(session: &mut Session<'_>, arguments: &LogsArguments) -> Result<u8, CliError> {
    let store = session.open_store_to_read()?;
    let run_ids = match &arguments.run {
        Some(wanted) => vec![session.find_run(&store, Some(wanted))?],
        None => store.list_runs()?,
    };
    // A stage that was reused said nothing: its log is in an earlier run.
    let read = |run_id: &String| fs::read(log_path(&store.run_dir(run_id), &arguments.stage)).ok();
    let Some(log) = run_ids.iter().rev().find_map(read) else {
        let who = arguments.run.as_ref().map_or("no run has".into(), |run| format!("run `{run}` does not have"));
        let message = format!("{who} a log of a stage `{}`", arguments.stage);
        let help = "`pipe runs RUN` shows the stages of a run; one that says nothing has no log";
        return Err(Diagnostic::new("no-log", message).help(help).into());
    };
    session.write(&String::from_utf8_lossy(&log))?;
    Ok(exit_code::OK)
}
