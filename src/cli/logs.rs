//! `pipe logs STAGE`: what a stage said while it ran, in the last run that has something of it, or in one that is named.

use std::fs;
use std::path::{Path, PathBuf};

use super::arguments::LogsArguments;
use super::failure::CliError;
use super::session::Session;
use super::stage_names::several_instances;
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
    let read = |run_id: &String| {
        let logs = logs_of(&store.run_dir(run_id), &arguments.stage);
        (!logs.is_empty()).then(|| (run_id.clone(), logs))
    };
    let Some((run_id, logs)) = run_ids.iter().rev().find_map(read) else {
        let who = arguments.run.as_ref().map_or("no run has".into(), |run| format!("run `{run}` does not have"));
        let message = format!("{who} a log of a stage `{}`", arguments.stage);
        let help = "`pipe runs RUN` shows the stages of a run; one that says nothing has no log";
        return Err(Diagnostic::new("no-log", message).help(help).into());
    };
    let [(path, stage)] = logs.as_slice() else {
        return Err(several_instances(&arguments.stage, logs.iter().map(|(_, name)| name.as_str())).into());
    };
    let log = fs::read(path).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    if arguments.json {
        let lines: Vec<&str> = log.lines().collect();
        let object = serde_json::json!({ "run_id": run_id, "stage": stage, "lines": lines });
        return session.write_json(object).map(|()| exit_code::OK);
    }
    session.write(&log)?;
    Ok(exit_code::OK)
}

/// The log of the stage, or that of each of its instances, with the name.
fn logs_of(run_dir: &Path, stage: &str) -> Vec<(PathBuf, String)> {
    let own = log_path(run_dir, stage);
    if own.is_file() {
        return vec![(own, stage.to_string())];
    }
    let entries = fs::read_dir(run_dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".log")?.to_string()));
    let is_instance = |name: &String| name.strip_prefix(stage).is_some_and(|rest| rest.starts_with('@'));
    let mut instances: Vec<String> = names.filter(is_instance).collect();
    instances.sort();
    instances.into_iter().map(|name| (log_path(run_dir, &name), name)).collect()
}
