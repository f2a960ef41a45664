//! `pipe diff [RUN] [RUN]`: what is not the same in two runs: settings, facts, outputs.

use super::arguments::DiffArguments;
use super::failure::CliError;
use super::session::Session;
use crate::diagnostic::Diagnostic;
use crate::diff;
use crate::exit_code;
use crate::record::RunRecord;
use crate::report::run_diff;

pub(super) fn diff(session: &mut Session<'_>, arguments: &DiffArguments) -> Result<u8, CliError> {
    let store = session.open_store_to_read()?;
    let (first, second) = match arguments.runs.as_slice() {
        [] => {
            let last = session.find_run(&store, None)?;
            (before(&store, &last)?, last)
        }
        [first] => (session.find_run(&store, Some(first))?, session.find_run(&store, None)?),
        [first, second, ..] => (session.find_run(&store, Some(first))?, session.find_run(&store, Some(second))?),
    };
    let read = |run_id: &str| RunRecord::read(&store, run_id).ok_or_else(|| session.unreadable_run(run_id));
    let (first, second) = (read(&first)?, read(&second)?);
    let stages = diff::diff(&store, session.registry, &first, &second)?;
    let text = if arguments.json {
        let runs = [&first.run_id, &second.run_id];
        format!("{}\n", serde_json::json!({ "format_version": 1, "runs": runs, "stages": stages }))
    } else {
        run_diff::render(&first, &second, &stages, session.out_style)
    };
    session.write(&text)?;
    Ok(exit_code::OK)
}

/// The run that started before `last`.
fn before(store: &pipe_cache::Store, last: &str) -> Result<String, CliError> {
    let ids = store.list_runs()?;
    let earlier = ids.iter().rev().find(|id| id.as_str() < last).cloned();
    earlier.ok_or_else(|| Diagnostic::new("no-other-run", "there is only one run: nothing to compare it with").into())
}
