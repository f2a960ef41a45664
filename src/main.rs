//! The program `pipe`: the command line of the library with every stage kind of this build.

use std::process::ExitCode;

fn main() -> ExitCode {
    say_how_many_cores();
    pipe_lm::cli::main_with(pipe_lm::registry::builtin(), std::env::args_os())
}

/// Before each matrix product candle asks how many cores there are, and reads all of /proc/cpuinfo to know it, unless this
/// variable says so. On small models that was a quarter of the time of an optimizer step. Bytes do not depend on it.
#[expect(unsafe_code, reason = "a variable of the environment can be set safely while there is one thread")]
fn say_how_many_cores() {
    const NAME: &str = "RAYON_NUM_THREADS";
    if std::env::var_os(NAME).is_some() {
        return;
    }
    let n_cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // SAFETY: this is the first thing the program does, so no other thread reads the environment.
    unsafe { std::env::set_var(NAME, n_cores.to_string()) };
}
