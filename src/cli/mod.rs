//! The command line: arguments and environment in, a command run, an exit code out.
//!
//! ```text
//! arguments --arguments--> Command --one file per command--> text on stdout, progress on stderr, exit code
//! ```
//!
//! Standard output is data and nothing else; everything about how it goes is on stderr. A reader of stdout that goes away
//! ends the command, and is no error.
//!
//! Architecture invariant: only this module reads the environment, the current folder and whether there is a terminal. All
//! of it comes in through [`Io`], so a test runs a whole command in its own process with stage kinds of its own.

mod arguments;
mod bench;
mod cache;
mod check;
mod completions;
mod diff;
mod doctor;
mod env;
mod explain;
mod failure;
mod gc;
mod get;
mod graph;
mod interrupt;
mod logs;
mod man;
mod memory_limit;
mod pin;
mod plan;
mod report;
mod room;
mod run;
mod runs;
mod schema;
mod screen;
mod session;
mod show;
mod stage_names;
mod stages;
mod target;
mod time_limit;
mod trace;
mod update;
mod verify;
mod watch;

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser as _;
use clap::error::ErrorKind;
use pipe_contract::CancelToken;

pub use env::Environment;

use crate::exit_code;
use crate::registry::Registry;
use arguments::{Arguments, Command};
use failure::CliError;
use session::{Session, style_of};

/// Where a command reads and writes besides its arguments.
pub struct Io<'a> {
    /// Data.
    pub out: &'a mut dyn Write,
    /// Progress, warnings, errors.
    pub err: &'a mut dyn Write,
    /// Whether stdout is a terminal.
    pub is_out_terminal: bool,
    /// Whether stderr is a terminal: live lines instead of plain ones, drawn to the stderr of the process.
    pub is_err_terminal: bool,
    /// Columns of that terminal.
    pub err_columns: Option<usize>,
    /// What the environment says.
    pub environment: Environment,
    /// What relative paths start from: empty for the current folder of the process.
    pub current_dir: PathBuf,
    /// Set to interrupt the command.
    pub cancel: CancelToken,
    /// Called when stages begin to run: arranges that signals set the token.
    pub catch_signals: fn(&CancelToken),
    /// Lets that much time pass, while the command waits for something to change.
    pub pause: &'a mut dyn FnMut(Duration),
}

/// The program: the process's own terminal, environment and signals.
pub fn main_with(registry: Registry, args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
    let io = Io {
        is_out_terminal: stdout.is_terminal(),
        is_err_terminal: stderr.is_terminal(),
        err_columns: terminal_size::terminal_size_of(&stderr).map(|(width, _)| usize::from(width.0)),
        out: &mut stdout.lock(),
        // Not locked: a panic on another thread must be able to speak.
        err: &mut &stderr,
        environment: Environment::of_process(),
        current_dir: PathBuf::new(),
        cancel: CancelToken::default(),
        catch_signals: interrupt::catch_signals,
        pause: &mut std::thread::sleep,
    };
    // What panicked has spoken through the panic hook; the exit code says whose mistake it is.
    let code = catch_unwind(AssertUnwindSafe(|| run_with(&registry, args, io))).unwrap_or(exit_code::BUG);
    ExitCode::from(code)
}

/// Runs one command; returns one of [`crate::exit_code`].
pub fn run_with<'a>(registry: &'a Registry, args: impl IntoIterator<Item = OsString>, io: Io<'a>) -> u8 {
    let begin = Instant::now();
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => return show_clap(&error, io),
    };
    let mut session = Session::new(registry, &arguments, io, begin);
    let result = match &arguments.command {
        Command::Run(arguments) => run::run(&mut session, arguments),
        Command::Plan(arguments) => plan::plan(&mut session, arguments),
        Command::Explain(arguments) => explain::explain(&mut session, arguments),
        Command::Verify(arguments) => verify::verify(&mut session, arguments),
        Command::Check(arguments) => check::check(&mut session, arguments),
        Command::Graph(arguments) => graph::graph(&mut session, arguments),
        Command::Stages(arguments) => stages::stages(&mut session, arguments),
        Command::Schema => schema::schema_of_files(&mut session),
        Command::Report(arguments) => report::report(&mut session, arguments),
        Command::Trace(arguments) => trace::trace(&mut session, arguments),
        Command::Completions(arguments) => completions::completions(&mut session, arguments),
        Command::Man(arguments) => man::man(&mut session, arguments),
        Command::Runs(arguments) => runs::runs(&mut session, arguments),
        Command::Diff(arguments) => diff::diff(&mut session, arguments),
        Command::Logs(arguments) => logs::logs(&mut session, arguments),
        Command::Get(arguments) => get::get(&mut session, arguments),
        Command::Show(arguments) => show::show(&mut session, arguments),
        Command::Update(arguments) => update::update(&mut session, arguments),
        Command::Bench(arguments) => bench::bench(&mut session, arguments),
        Command::Doctor(arguments) => doctor::doctor(&mut session, arguments),
        Command::Cache(arguments) => cache::cache(&mut session, arguments),
    };
    match result {
        Ok(code) => code,
        Err(CliError::ReaderGone) => exit_code::OK,
        Err(error) => {
            // There is nobody left to tell if stderr is gone too.
            let _ = session.io.err.write_all(error.render(session.err_style).as_bytes());
            error.exit_code()
        }
    }
}

/// Help and version go to stdout, mistakes to stderr.
fn show_clap(error: &clap::Error, io: Io<'_>) -> u8 {
    let is_asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let (to, is_terminal) = if is_asked_for { (io.out, io.is_out_terminal) } else { (io.err, io.is_err_terminal) };
    let is_colour = style_of(None, &io.environment, is_terminal).colour() == crate::diagnostic::Colour::On;
    let text = error.render();
    let text = if is_colour { text.ansi().to_string() } else { text.to_string() };
    let _ = to.write_all(text.as_bytes());
    if is_asked_for { exit_code::OK } else { exit_code::PIPELINE }
}
