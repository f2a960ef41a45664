//! Every environment variable that `pipe` reads.
//!
//! | variable | meaning |
//! |---|---|
//! | `PIPE_STORE` | the store's folder, where `--store` is not given; default `.pipe` in the current folder |
//! | `PIPE_THREADS` | threads of a run or a measurement, where `--threads` is not given; default: all of the machine |
//! | `PIPE_LEDGER` | the folder in which runs tell each other the GPUs and memory they hold; for tests. Default: `pipe` in `XDG_RUNTIME_DIR`, else `pipe-UID` in the system's temporary folder (`TMPDIR`) |
//! | `PIPE_PRETEND_GPUS` | so many GPUs are granted, whatever there is; for tests |
//! | `PIPE_PRETEND_FREE` | so many bytes are free on every disk, whatever is; for tests |
//! | `PIPE_KEEPER` | set for what a `command` stage starts, read by nobody in `pipe` |
//! | `CI` | `true`: `numerics: exact`, unless the file or `--numerics` says otherwise |
//! | `NO_COLOR` | not empty: no colours (no-color.org), unless `--color always` |
//! | `CLICOLOR_FORCE` | not empty and not `0`: colours also where there is no terminal (bixense.com/clicolors) |
//! | `COLUMNS` | width of help texts where there is no terminal; read by clap |
//! | `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE` | as in huggingface_hub; read by the stage kind `download`, as are the variables of its README for time limits, proxies, certificates and AWS |
//! | `PATH`, `HOME`, what `secrets:` names | for commands; read by the stage kind `command` |
//!
//! None of them is in a key.

use std::ffi::OsString;
use std::path::PathBuf;

/// Names that begin with `PIPE_` and mean something: here, and to the tests (CONTRIBUTING.md).
pub(super) const NAMES: [&str; 10] = [
    "PIPE_STORE",
    "PIPE_THREADS",
    "PIPE_LEDGER",
    "PIPE_PRETEND_GPUS",
    "PIPE_PRETEND_FREE",
    "PIPE_KEEPER",
    "PIPE_TEST_DATA",
    "PIPE_CHROMIUM",
    "PIPE_HUB_PYTHON",
    "PIPE_UPDATE_VERSIONS",
];

/// What the environment says. `Default` is an empty environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `PIPE_STORE`.
    pub store: Option<PathBuf>,
    /// `PIPE_THREADS`, as it stands there.
    pub threads: Option<String>,
    /// `PIPE_LEDGER`, or where it is by default; none in an empty environment, where a run knows no others.
    pub ledger: Option<PathBuf>,
    /// `PIPE_PRETEND_GPUS`, where it is a number.
    pub pretended_gpus: Option<usize>,
    /// `PIPE_PRETEND_FREE`, where it is a number.
    pub pretended_free_bytes: Option<u64>,
    /// Names that begin with `PIPE_`, sorted, known or not.
    pub pipe_names: Vec<String>,
    /// `CI` is `true`.
    pub is_ci: bool,
    /// `NO_COLOR` is set.
    pub is_colour_unwanted: bool,
    /// `CLICOLOR_FORCE` is set.
    pub is_colour_forced: bool,
}

impl Environment {
    /// That of this process.
    pub fn of_process() -> Self {
        let environment = Environment::from(|name| std::env::var_os(name).filter(|value| !value.is_empty()));
        let user = rustix::process::geteuid().as_raw();
        let ledger = environment.ledger.unwrap_or_else(|| std::env::temp_dir().join(format!("pipe-{user}")));
        let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
        let mut pipe_names: Vec<String> = names.filter(|name| name.starts_with("PIPE_")).collect();
        pipe_names.sort();
        Environment { ledger: Some(ledger), pipe_names, ..environment }
    }

    fn from(get: impl Fn(&str) -> Option<OsString>) -> Self {
        Environment {
            store: get("PIPE_STORE").map(PathBuf::from),
            threads: get("PIPE_THREADS").map(|value| value.to_string_lossy().into_owned()),
            ledger: get("PIPE_LEDGER")
                .or_else(|| {
                    let runtime_dir = PathBuf::from(get("XDG_RUNTIME_DIR")?);
                    Some(runtime_dir.join("pipe").into_os_string())
                })
                .map(PathBuf::from),
            pretended_gpus: get("PIPE_PRETEND_GPUS").and_then(|value| value.to_str()?.parse().ok()),
            pretended_free_bytes: get("PIPE_PRETEND_FREE").and_then(|value| value.to_str()?.parse().ok()),
            pipe_names: Vec::new(),
            is_ci: get("CI").is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1"),
            is_colour_unwanted: get("NO_COLOR").is_some(),
            is_colour_forced: get("CLICOLOR_FORCE").is_some_and(|value| value != "0"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_that_is_read_has_its_name_in_the_list() {
        let asked = std::cell::RefCell::new(Vec::new());
        Environment::from(|name| {
            asked.borrow_mut().push(name.to_string());
            None
        });
        let asked = asked.into_inner();
        let ours = asked.iter().filter(|name| name.starts_with("PIPE_"));
        assert_eq!(ours.filter(|name| !NAMES.contains(&name.as_str())).collect::<Vec<_>>(), Vec::<&String>::new());
    }

    #[test]
    fn each_variable_alone() {
        let with = |name: &'static str, value: &'static str| {
            Environment::from(move |asked| (asked == name).then(|| OsString::from(value)))
        };
        let empty = Environment::default();
        assert_eq!(with("PIPE_STORE", "s"), Environment { store: Some("s".into()), ..empty.clone() });
        assert_eq!(with("PIPE_THREADS", "x"), Environment { threads: Some("x".into()), ..empty.clone() });
        assert_eq!(with("PIPE_LEDGER", "l"), Environment { ledger: Some("l".into()), ..empty.clone() });
        assert_eq!(with("XDG_RUNTIME_DIR", "r"), Environment { ledger: Some("r/pipe".into()), ..empty.clone() });
        assert_eq!(with("PIPE_PRETEND_GPUS", "2"), Environment { pretended_gpus: Some(2), ..empty.clone() });
        assert_eq!(with("PIPE_PRETEND_GPUS", "many"), empty);
        assert_eq!(with("PIPE_PRETEND_FREE", "7"), Environment { pretended_free_bytes: Some(7), ..empty.clone() });
        assert_eq!(with("CI", "true"), Environment { is_ci: true, ..empty.clone() });
        assert_eq!(with("CI", "false"), empty);
        assert_eq!(with("NO_COLOR", "1"), Environment { is_colour_unwanted: true, ..empty.clone() });
        assert_eq!(with("CLICOLOR_FORCE", "1"), Environment { is_colour_forced: true, ..empty.clone() });
        assert_eq!(with("CLICOLOR_FORCE", "0"), empty);
    }
}
