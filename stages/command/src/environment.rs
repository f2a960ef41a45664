//! The environment of a command: what is declared, and what any program needs.
//!
//! | variable | value |
//! |---|---|
//! | `PATH` | that of pipe |
//! | `HOME`, `TMPDIR` | a folder of the stage's own, removed afterwards |
//! | `LANG`, `TZ`, `SOURCE_DATE_EPOCH`, `PYTHONDONTWRITEBYTECODE` | `C.UTF-8`, `UTC`, `0`, `1`: the same everywhere |
//! | `PIPE_KEEPER` | a word by which what it started is found, should pipe be killed |
//! | `PIPE_THREADS`, `OMP_NUM_THREADS`, `RAYON_NUM_THREADS` | how many threads the stage was granted |
//!
//! `env` and secrets are laid over that. Nothing else of pipe's own environment gets through.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use crate::keeper;

/// What every command sees, whatever it declares.
pub(crate) fn basic(search_path: OsString, home: &Path, n_threads: usize, mark: String) -> BTreeMap<String, OsString> {
    let mut variables: BTreeMap<String, OsString> = [
        ("LANG", "C.UTF-8"),
        ("TZ", "UTC"),
        ("SOURCE_DATE_EPOCH", "0"),
        // Files beside the sources would change what `sources` stands for.
        ("PYTHONDONTWRITEBYTECODE", "1"),
    ]
    .map(|(name, value)| (name.to_string(), value.into()))
    .into();
    variables.insert("PATH".into(), search_path);
    variables.insert(keeper::VARIABLE.into(), mark.into());
    for name in ["HOME", "TMPDIR"] {
        variables.insert(name.into(), home.into());
    }
    for name in ["PIPE_THREADS", "OMP_NUM_THREADS", "RAYON_NUM_THREADS"] {
        variables.insert(name.into(), n_threads.to_string().into());
    }
    variables
}
