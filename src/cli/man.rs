//! `pipe man [--out DIR]`: the manual page of `pipe`, or those of all commands, made of their help.

use std::fs;
use std::io;

use clap::CommandFactory as _;
use clap_mangen::Man;

use super::arguments::{Arguments, ManArguments};
use super::failure::CliError;
use super::session::Session;
use crate::diagnostic::Diagnostic;
use crate::exit_code;
use crate::report::numbers::plural;

pub(super) fn man(session: &mut Session<'_>, arguments: &ManArguments) -> Result<u8, CliError> {
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    let Some(out) = &arguments.out else {
        let page = render(command).map_err(|error| unwritable("the page", &error))?;
        session.write(&page)?;
        return Ok(exit_code::OK);
    };
    let folder = session.io.current_dir.join(out);
    let shown = out.display().to_string();
    fs::create_dir_all(&folder).map_err(|error| unwritable(&shown, &error))?;
    let mut n_pages = 0;
    let mut open = vec![("pipe".to_string(), command)];
    while let Some((name, command)) = open.pop() {
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            open.push((format!("{name}-{}", below.get_name()), below.clone()));
        }
        let page = render(named(command, &name)).map_err(|error| unwritable(&shown, &error))?;
        fs::write(folder.join(format!("{name}.1")), page).map_err(|error| unwritable(&shown, &error))?;
        n_pages += 1;
    }
    session.write(&format!("{} written to {shown}\n", plural(n_pages, "page")))?;
    Ok(exit_code::OK)
}

/// A page is called after the whole command, `pipe-cache-gc`.
fn named(command: clap::Command, name: &str) -> clap::Command {
    // clap keeps names for as long as the program runs; there are as many as commands.
    let name: &'static str = Box::leak(name.to_string().into_boxed_str());
    command.name(name).display_name(name)
}

fn render(command: clap::Command) -> io::Result<String> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

fn unwritable(what: &str, error: &io::Error) -> CliError {
    Diagnostic::new("unwritable-page", format!("failed to write `{what}`: {error}")).into()
}
