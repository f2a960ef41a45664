//! `pipe completions SHELL`: a script with which a shell completes commands and options.

use clap::CommandFactory as _;

use super::arguments::{Arguments, CompletionsArguments};
use super::failure::CliError;
use super::session::Session;
use crate::exit_code;

pub(super) fn completions(session: &mut Session<'_>, arguments: &CompletionsArguments) -> Result<u8, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "pipe", &mut script);
    session.write(&String::from_utf8_lossy(&script))?;
    Ok(exit_code::OK)
}
