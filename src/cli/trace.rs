//! `pipe trace [RUN]`: a run for Perfetto and chrome://tracing: what ran beside what.

use std::path::Path;

use super::arguments::TraceArguments;
use super::failure::CliError;
use super::report::write_whole;
use super::session::Session;
use crate::diagnostic::Diagnostic;
use crate::events::{Sink as _, read_events};
use crate::exit_code;
use crate::report::trace::Trace;

pub(super) fn trace(session: &mut Session<'_>, arguments: &TraceArguments) -> Result<u8, CliError> {
    let store = session.open_store_to_read()?;
    let run_id = session.find_run(&store, arguments.run.as_deref())?;
    let mut trace = Trace::default();
    let mut n_events = 0;
    for (at, event) in read_events(&store.run_dir(&run_id)) {
        trace.on(at, &event);
        n_events += 1;
    }
    if n_events == 0 {
        return Err(session.unreadable_run(&run_id));
    }
    let text = format!("{}\n", trace.to_json());
    let out =
        arguments.out.clone().unwrap_or_else(|| session.store_as_given.join("runs").join(&run_id).join("trace.json"));
    if out == Path::new("-") {
        session.write(&text)?;
        return Ok(exit_code::OK);
    }
    write_whole(&session.io.current_dir.join(&out), &text).map_err(|error| {
        let message = format!("failed to write `{}`: {error}", out.display());
        CliError::from(Diagnostic::new("unwritable-trace", message).help("`--out FILE` writes it elsewhere"))
    })?;
    if arguments.json {
        return session.write_json(serde_json::json!({ "run_id": run_id, "trace": out })).map(|()| exit_code::OK);
    }
    session.write(&format!("{}\n", out.display()))?;
    Ok(exit_code::OK)
}
