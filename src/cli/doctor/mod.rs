//! `pipe doctor [FILE]`: what can be wrong on this machine, before a run finds out.
//!
//! ```text
//! store, machine, environment, file --Check--> ok | warning | problem, with what to do --> lines or JSON
//! ```
//!
//! It looks and tries: what it writes to try it out, it removes. Nothing of a pipeline runs. Exit code 0 where nothing is a problem, 1 where something is.

mod device;
mod environment;
mod file;
mod machine;
mod store;

use std::fmt::Write as _;

use serde::Serialize;

use super::arguments::DoctorArguments;
use super::failure::CliError;
use super::session::Session;
use crate::exit_code;
use crate::report::style::Style;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    /// It works, but not as well as it could, or not as somebody may believe.
    Warning,
    /// A run fails, or loses something.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    level: Level,
    found: String,
    /// What to do; nothing where all is well.
    help: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Check { name, level: Level::Ok, found: found.into(), help: None }
    }

    fn warning(name: &'static str, found: impl Into<String>, help: impl Into<String>) -> Self {
        Check { name, level: Level::Warning, found: found.into(), help: Some(help.into()) }
    }

    fn problem(name: &'static str, found: impl Into<String>, help: impl Into<String>) -> Self {
        Check { name, level: Level::Problem, found: found.into(), help: Some(help.into()) }
    }
}

pub(super) fn doctor(session: &mut Session<'_>, arguments: &DoctorArguments) -> Result<u8, CliError> {
    let checks = match arguments.device {
        Some(device) => device::checks(device)?,
        None => {
            let mut checks = store::checks(session);
            checks.extend(machine::checks(session));
            checks.extend(environment::checks(session));
            if let Some(file) = &arguments.file {
                checks.extend(file::checks(session, file, &arguments.overlay));
            }
            checks
        }
    };
    let is_well = checks.iter().all(|check| check.level < Level::Problem);
    if arguments.json {
        session.write_json(serde_json::json!({ "is_well": is_well, "checks": checks }))?;
    } else {
        session.write(&render(&checks, session.out_style))?;
    }
    Ok(if is_well { exit_code::OK } else { exit_code::STAGE_FAILED })
}

/// `warning  room      0.4 GB free`, and below it what to do.
fn render(checks: &[Check], style: Style) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Check { name, level, found, help } in checks {
        let word = match level {
            Level::Ok => style.green("ok     "),
            Level::Warning => style.yellow("warning"),
            Level::Problem => style.red("problem"),
        };
        writeln!(text, "{word}  {name:<width$}  {found}").expect("to a String");
        if let Some(help) = help {
            writeln!(text, "{:7}  {:width$}  help: {help}", "", "").expect("to a String");
        }
    }
    text
}
