//! `pipe report [RUN]`: one HTML file with all that is known of a run.

use std::fs;
use std::path::Path;

use pipe_cache::Store;
use pipe_settings::nearest;

use super::arguments::ReportArguments;
use super::failure::CliError;
use super::session::Session;
use crate::diagnostic::Diagnostic;
use crate::exit_code;
use crate::report::html;

/// Runs that are named where another was asked for.
const N_NAMED: usize = 3;

pub(super) fn report(session: &mut Session<'_>, arguments: &ReportArguments) -> Result<u8, CliError> {
    let store = session.open_store_to_read()?;
    let run_id = find_run(session, &store, arguments.run.as_deref())?;
    let Some(data) = html::gather(&store, session.registry, &run_id) else {
        let message = format!("the events of run `{run_id}` cannot be read");
        return Err(Diagnostic::new("unreadable-run", message).into());
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
    session.write(&format!("{}\n", out.display()))?;
    Ok(exit_code::OK)
}

/// The last run, or the one whose id begins so.
fn find_run(session: &Session<'_>, store: &Store, wanted: Option<&str>) -> Result<String, CliError> {
    let runs = store.list_runs()?;
    let Some(last) = runs.last() else {
        let message = format!("there is no run in `{}`", session.store_as_given.display());
        return Err(Diagnostic::new("no-last-run", message).help("`pipe run FILE` makes one").into());
    };
    let Some(wanted) = wanted else { return Ok(last.clone()) };
    let found: Vec<&String> = runs.iter().filter(|id| id.starts_with(wanted)).collect();
    let newest =
        |runs: &[&String]| runs.iter().rev().take(N_NAMED).map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ");
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            let names: Vec<&str> = runs.iter().map(String::as_str).collect();
            let near = nearest(wanted, &names).map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
            let help = format!("{near}the newest are {}", newest(&runs.iter().collect::<Vec<_>>()));
            let message = format!("there is no run `{wanted}` in `{}`", session.store_as_given.display());
            Err(Diagnostic::new("unknown-run", message).help(help).into())
        }
        several => {
            let message = format!("{} runs begin with `{wanted}`", several.len());
            Err(Diagnostic::new("ambiguous-run", message).help(format!("the newest are {}", newest(several))).into())
        }
    }
}

/// Beside and then renamed: a browser never sees half a page.
fn write_whole(path: &Path, page: &str) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_os_string();
    beside.push(format!(".{}", std::process::id()));
    let beside = Path::new(&beside);
    fs::write(beside, page).and_then(|()| fs::rename(beside, path)).inspect_err(|_| drop(fs::remove_file(beside)))
}
