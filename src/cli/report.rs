//! `pipe report [RUN]`: one HTML file with all that is known of a run.

use std::fs;
use std::path::Path;

use super::arguments::ReportArguments;
use super::failure::CliError;
use super::session::Session;
use crate::diagnostic::Diagnostic;
use crate::exit_code;
use crate::report::html;

pub(super) fn report(session: &mut Session<'_>, arguments: &ReportArguments) -> Result<u8, CliError> {
    let store = session.open_store_to_read()?;
    let run_id = session.find_run(&store, arguments.run.as_deref())?;
    let Some(data) = html::gather(&store, session.registry, &run_id) else {
        return Err(session.unreadable_run(&run_id));
    };
    let page = html::render(&data);
    let out = arguments.out.clone().unwrap_or_else(|| {
        let run_dir = store.run_dir(&run_id);
        let inside = run_dir.strip_prefix(store.root()).unwrap_or(&run_dir);
        session.store_as_given.join(inside).join("report.html")
    });
    if out == Path::new("-") {
        session.write(&page)?;
        return Ok(exit_code::OK);
    }
    write_whole(&session.io.current_dir.join(&out), &page).map_err(|error| {
        let message = format!("failed to write `{}`: {error}", out.display());
        CliError::from(Diagnostic::new("unwritable-report", message).help("`--out FILE` writes it elsewhere"))
    })?;
    if arguments.json {
        return session.write_json(serde_json::json!({ "run_id": run_id, "report": out })).map(|()| exit_code::OK);
    }
    session.write(&format!("{}\n", out.display()))?;
    Ok(exit_code::OK)
}

/// Beside and then renamed: a browser never sees half a page.
pub(super) fn write_whole(path: &Path, page: &str) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_os_string();
    beside.push(format!(".{}", std::process::id()));
    let beside = Path::new(&beside);
    fs::write(beside, page).and_then(|()| fs::rename(beside, path)).inspect_err(|_| drop(fs::remove_file(beside)))
}
