//! The program `pipe`: the command line of the library with every stage kind of this build.

use std::process::ExitCode;

fn main() -> ExitCode {
    pipe_lm::cli::main_with(pipe_lm::registry::builtin(), std::env::args_os())
}
