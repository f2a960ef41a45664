//! A folder of its own for each test, and commands in it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pipe_contract::CancelToken;
use pipe_lm::cli::{Environment, Io, run_with};

use crate::kinds;

/// Asserts a whole screen: exit code, stdout, stderr.
macro_rules! screen {
    ($output:expr, @$snapshot:literal) => {
        insta::with_settings!({ filters => $crate::sandbox::FILTERS.to_vec() }, {
            insta::assert_snapshot!($output.screen(), @$snapshot);
        });
    };
}

/// Durations, run ids, and the padding that depends on how long a duration is.
pub(crate) const FILTERS: &[(&str, &str)] = &[
    (r"(?m)^(\w+) +(reused|ran|failed|skipped|cancelled) *( \d+(\.\d)? (ms|s))?(  |$)", "$1  $2$6"),
    (r"\b(in|after|takes) (at least )?\d+(\.\d)? (ms|s)\b", "$1 $2[time]"),
    (r"~ \d+(\.\d)? (ms|s), ((at least )?\d+(\.\d)? \w+|size unknown) *", "~ [time], $3  "),
    (r"\b\d{8}-\d{6}-[0-9a-f]{4}\b", "[run]"),
];

/// A folder with a pipeline file and a store.
pub(crate) struct Sandbox {
    folder: tempfile::TempDir,
}

/// What a command left.
pub(crate) struct Output {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Sandbox { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// With the stages of a pipeline in `p.yaml`.
    pub(crate) fn with_stages(stages: &str) -> Self {
        let sandbox = Sandbox::new();
        sandbox.write_stages(stages);
        sandbox
    }

    /// Replaces the stages in `p.yaml`.
    pub(crate) fn write_stages(&self, stages: &str) {
        self.write("p.yaml", &format!("version: 1\nstages:\n{stages}"));
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("below the folder")).expect("a folder can be made");
        fs::write(path, text).expect("a file can be written");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Makes stages with this `label` fail, panic, cancel, leave an output empty, give other bytes (`other`), or behave again (`well`).
    pub(crate) fn behave(&self, label: &str, how: &str) {
        self.write(&format!("{label}.mode"), how);
    }

    /// Runs `pipe ARGUMENTS` in the folder, in this process, with the stage kinds of [`kinds`].
    pub(crate) fn pipe(&self, arguments: &str) -> Output {
        self.pipe_in(arguments, Environment::default())
    }

    pub(crate) fn pipe_in(&self, arguments: &str, environment: Environment) -> Output {
        if arguments.starts_with("run p.yaml") {
            self.expect_reasons(arguments, &environment);
        }
        self.execute(arguments, environment)
    }

    /// Whatever a test is about: before a run, every stage that will run has its reason.
    fn expect_reasons(&self, arguments: &str, environment: &Environment) {
        let mut words = arguments.split_whitespace().skip(1);
        let mut of_plan = vec!["plan", "--why"];
        while let Some(word) = words.next() {
            match word {
                "--json" | "--keep-going" => {}
                "--threads" | "--memory" | "--time-limit" | "--force" => drop(words.next()),
                word => of_plan.push(word),
            }
        }
        let plan = self.execute(&of_plan.join(" "), environment.clone());
        assert!(!plan.out.contains("no reason found"), "{arguments}:\n{}", plan.out);
    }

    fn execute(&self, arguments: &str, environment: Environment) -> Output {
        execute_in(self.folder.path(), arguments, environment)
    }

    /// Runs the pipeline, which must succeed, and says of each stage whether it ran: `rows ran, text reused`.
    pub(crate) fn outcomes(&self, arguments: &str) -> String {
        let output = self.pipe(&format!("{arguments} --json"));
        assert_eq!(output.code, 0, "{}", output.err);
        output.outcomes()
    }

    /// Every blob of the store, sorted.
    pub(crate) fn blobs(&self) -> Vec<PathBuf> {
        let mut blobs: Vec<PathBuf> = folders_and_files(&self.path(".pipe/blobs"));
        blobs.retain(|path| path.is_file());
        blobs.sort();
        blobs
    }

    /// Removes the blobs whose text is `text`.
    pub(crate) fn remove_blob(&self, text: &str) {
        let found: Vec<PathBuf> =
            self.blobs().into_iter().filter(|path| fs::read_to_string(path).is_ok_and(|found| found == text)).collect();
        assert_eq!(found.len(), 1, "blobs with the text {text:?}");
        fs::remove_file(&found[0]).expect("a blob can be removed by its owner");
    }
}

/// Runs `pipe ARGUMENTS` in a folder, in this process.
pub(crate) fn execute_in(folder: &Path, arguments: &str, environment: Environment) -> Output {
    let mut pause = |_| panic!("`{arguments}` waits for something");
    execute(folder, arguments, environment, &CancelToken::default(), &mut pause)
}

/// The same with a hand on Ctrl-C, and something to do while the command waits.
pub(crate) fn execute_with(
    folder: &Path,
    arguments: &str,
    cancel: &CancelToken,
    pause: &mut dyn FnMut(Duration),
) -> Output {
    execute(folder, arguments, Environment::default(), cancel, pause)
}

fn execute(
    folder: &Path,
    arguments: &str,
    environment: Environment,
    cancel: &CancelToken,
    pause: &mut dyn FnMut(Duration),
) -> Output {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let words = std::iter::once("pipe").chain(arguments.split_whitespace()).map(OsString::from);
    let io = Io {
        out: &mut out,
        err: &mut err,
        is_out_terminal: false,
        is_err_terminal: false,
        err_columns: None,
        environment,
        current_dir: folder.to_path_buf(),
        cancel: cancel.clone(),
        catch_signals: |_| {},
        pause,
    };
    let code = run_with(&kinds::registry(), words, io);
    let text = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).expect("output is UTF-8");
        text.replace(&folder.display().to_string(), "[dir]")
    };
    Output { code, out: text(out), err: text(err) }
}

impl Output {
    pub(crate) fn screen(&self) -> String {
        format!("exit code: {}\n----- stdout\n{}----- stderr\n{}", self.code, self.out, self.err)
    }

    /// From the events of a run with `--json`.
    pub(crate) fn outcomes(&self) -> String {
        let mut outcomes = Vec::new();
        for line in self.out.lines() {
            let event: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
            if event["event"] == "stage_finished" {
                let word = |name: &str| event[name].as_str().expect("text").to_string();
                outcomes.push(format!("{} {}", word("stage"), word("outcome")));
            }
        }
        outcomes.sort();
        outcomes.join(", ")
    }
}

pub(crate) fn folders_and_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            found.extend(folders_and_files(&path));
        }
        found.push(path);
    }
    found
}
