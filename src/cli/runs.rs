//! `pipe runs [RUN]`: the runs that the store remembers, or one of them again as it looked at its end.

use super::arguments::RunsArguments;
use super::failure::CliError;
use super::session::Session;
use crate::events::{Sink, read_events};
use crate::exit_code;
use crate::record::RunRecord;
use crate::report::runs;
use crate::report::shell::run_command;
use crate::report::summary::{Summary, SummaryContext};

pub(super) fn runs(session: &mut Session<'_>, arguments: &RunsArguments) -> Result<u8, CliError> {
    let store = session.open_store_to_read()?;
    if arguments.run.is_some() {
        let run_id = session.find_run(&store, arguments.run.as_deref())?;
        let record = RunRecord::read(&store, &run_id).ok_or_else(|| session.unreadable_run(&run_id))?;
        if arguments.json {
            return session.write_json(runs::to_json(&record)).map(|()| exit_code::OK);
        }
        let text = {
            let mut summary = Summary::default();
            read_events(&store.run_dir(&run_id)).for_each(|(at, event)| summary.on(at, &event));
            let context = SummaryContext {
                store: session.store_as_given.clone(),
                run_dir: session.store_as_given.join("runs").join(&run_id),
                resume_command: format!("{}{}", run_command(&record.request), session.store_option()),
                report_command: format!("pipe report{} {run_id}", session.store_option()),
                columns: None,
            };
            format!("{}\n{}", runs::line(&record, session.out_style), summary.render(&context, session.out_style))
        };
        session.write(&text)?;
        return Ok(exit_code::OK);
    }
    let ids = store.list_runs()?;
    // What cannot be read was killed before its first event, or is of a version to come.
    let newest = ids.iter().rev().filter_map(|run_id| RunRecord::read(&store, run_id)).take(arguments.n_runs);
    let records: Vec<RunRecord> = newest.collect();
    let text = if arguments.json {
        let runs: Vec<serde_json::Value> = records.iter().map(runs::to_json).collect();
        format!("{}\n", serde_json::json!({ "format_version": 1, "runs": runs }))
    } else {
        runs::list(&records, session.out_style)
    };
    session.write(&text)?;
    Ok(exit_code::OK)
}
