//! The commands of a document, run in their order in a folder of its own that has `pipelines/`.
//!
//! | line of an `sh` block | what happens |
//! |---|---|
//! | `pipe ...`, `cargo run -- ...` | runs; the exit code must be 0, or N where the line ends with `# exits N` |
//! | a build or test command, `git`, `pip`, `export`, the start of the hub | left out |
//! | anything else | fails the test |
//!
//! So that it takes seconds, `run`, `plan`, `show`, `graph` and `update` of a FILE get further arguments, for each stage of
//! the file: [`stand_ins`]. A command without FILE means the last run, and so has them already. A block with a file name
//! behind its fence is saved under that name. A `text` block holds lines that the commands before it print, in that order
//! with others between them; what is a duration is not compared, nor how wide a gap is.

use std::path::Path;
use std::process::Command;

use pipe_contract::Source;
use pipe_lm::registry::builtin;
use pipe_lm::spec::{self, LoadOptions, StageSpec};

use crate::markdown::Block;
use crate::root;
use crate::support::hub::Hub;

/// Begins of lines that are left out, each with its reason.
const LEFT_OUT: [(&str, &str); 9] = [
    ("cargo install", "builds"),
    ("cargo build", "builds"),
    ("cargo test", "is this"),
    ("just ", "builds and tests"),
    ("git ", "nothing of ours"),
    ("pip ", "nothing of ours"),
    ("export ", "the test sets HF_ENDPOINT and HF_HOME"),
    ("python3 $PIPE_TEST_DATA/tools/make_hub_tree.py ", "the test has started the hub"),
    ("python3 $PIPE_TEST_DATA/tools/hub_server.py ", "the test has started the hub"),
];

/// Commands that take a FILE and `--set`.
const WITH_FILE: [&str; 6] = ["run", "plan", "show", "graph", "update", "verify"];

/// Runs all commands of a document; returns their number.
pub(crate) fn run_document(document: &str, blocks: &[Block], hub: &Hub) -> usize {
    let folder = tempfile::tempdir().expect("a temporary folder");
    copy_folder(&root().join("pipelines"), &folder.path().join("pipelines"));
    let (mut n_commands, mut printed) = (0, String::new());
    for block in blocks {
        if let Some(name) = block.name.as_ref().filter(|name| name.contains('.')) {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("below the folder")).expect("a folder can be made");
            std::fs::write(path, &block.text).expect("the folder can be written");
        }
        match block.language.as_str() {
            "sh" => {
                printed.clear();
                for line in lines(&block.text) {
                    let Some(command) = parse(&line) else { continue };
                    let command = command.unwrap_or_else(|why| panic!("{document}:{}: `{line}`: {why}", block.line));
                    printed.push_str(&run(&command, folder.path(), hub, &format!("{document}:{}", block.line)));
                    n_commands += 1;
                }
            }
            "text" => assert_shown(&block.text, &printed, &format!("{document}:{}", block.line)),
            _ => {}
        }
    }
    n_commands
}

/// The lines of a block, with those joined that a backslash continues.
fn lines(text: &str) -> Vec<String> {
    text.replace("\\\n", " ").lines().map(str::to_string).collect()
}

/// A command to run.
#[derive(Debug, PartialEq, Eq)]
struct Pipe {
    /// Environment, then `pipe` and its arguments; without the comment.
    line: String,
    exit_code: i32,
}

/// Nothing for a line that is left out.
fn parse(line: &str) -> Option<Result<Pipe, String>> {
    let (command, comment) = line.split_once('#').unwrap_or((line, ""));
    let command = command.trim();
    if command.is_empty() || LEFT_OUT.iter().any(|(start, _)| format!("{command} ").starts_with(start)) {
        return None;
    }
    let command = command.replacen("cargo run -- ", "pipe ", 1);
    let first = command.split_whitespace().find(|word| !word.contains('=')).unwrap_or_default();
    if first != "pipe" {
        return Some(Err("only `pipe` is run here; tests/docs/commands.rs lists what is left out".into()));
    }
    if let Some(bad) = command.chars().find(|c| "|<>;&$`".contains(*c)) {
        return Some(Err(format!("`{bad}`: further arguments could not be put at its end")));
    }
    let exit_code = match comment.split_once("exits ") {
        Some((_, code)) => code.trim().parse().map_err(|_| format!("`{code}` is no exit code")),
        None => Ok(0),
    };
    Some(exit_code.map(|exit_code| Pipe { line: command, exit_code }))
}

/// Returns what it printed: stdout, then stderr.
fn run(command: &Pipe, folder: &Path, hub: &Hub, place: &str) -> String {
    let programs = Path::new(env!("CARGO_BIN_EXE_pipe")).parent().expect("a program is in a folder");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(programs.to_path_buf()).chain(std::env::split_paths(&path));
    let line = format!("{}{}", command.line, stand_ins(&command.line, folder));
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).current_dir(folder).env("PATH", std::env::join_paths(paths).expect("a path"));
    for name in ["PIPE_STORE", "PIPE_THREADS", "CI", "HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"] {
        shell.env_remove(name);
    }
    let output = shell.env("HF_ENDPOINT", &hub.address).env("HF_HOME", folder.join("hf")).output().expect("sh runs");
    let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("text")).concat();
    assert_eq!(output.status.code(), Some(command.exit_code), "{place}: `{line}` printed:\n{printed}");
    printed
}

/// The further arguments of a command: what keeps a test short, by the kinds of its file's stages.
///
/// | stage | gets |
/// |---|---|
/// | `download` of a model from the hub | `model: karpathy/stories260K` |
/// | `download` of a data set that the test's hub lacks | `dataset: tatsu-lab/alpaca-demo` |
/// | `tokenize`, `evaluate`, where a model is of the hub | `max_length: 512`, the positions of that model |
/// | `train` | `max_steps: 2` |
/// | `evaluate`, `generate` | `max_examples: 4`, `max_new_tokens: 4` |
fn stand_ins(line: &str, folder: &Path) -> String {
    let words: Vec<&str> = line.split_whitespace().map(|word| word.trim_matches(['"', '\''])).collect();
    let file = words.iter().find(|word| word.ends_with(".yaml") && !word.contains('='));
    let Some(file) = file.filter(|_| WITH_FILE.iter().any(|name| words.contains(name))) else { return String::new() };
    let after = |name: &str| {
        let pairs = words.windows(2).filter(move |pair| pair[0] == name);
        pairs.map(|pair| pair[1].to_string()).collect::<Vec<String>>()
    };
    let options = LoadOptions { profile: after("--profile").pop(), sets: after("--set") };
    let path = folder.join(file);
    // A file with a mistake is the command's to report.
    let Ok(pipeline) = spec::load(&path, &options, &builtin()) else { return String::new() };
    let is_hub_model = |stage: &StageSpec| match stage.stage.source(&pipeline.base_dir) {
        Ok(Source::Remote { request }) => request.starts_with("models/"),
        _ => false,
    };
    let has_hub_model = pipeline.stages.iter().any(is_hub_model);
    let mut arguments = String::new();
    let mut set = |stage: &str, setting: &str, value: &str| {
        let argument = format!(" --set stages.{stage}.with.{setting}={value}");
        // Instances of a matrix share it.
        if !arguments.contains(&argument) {
            arguments.push_str(&argument);
        }
    };
    for stage in &pipeline.stages {
        let name = stage.declared_name();
        match stage.kind.name() {
            "download" if is_hub_model(stage) => set(name, "model", "karpathy/stories260K"),
            "download" => {
                let source = stage.stage.source(&pipeline.base_dir);
                let is_absent = |request: &str| {
                    request.starts_with("datasets/") && !request.starts_with("datasets/tatsu-lab/alpaca")
                };
                if matches!(source, Ok(Source::Remote { request }) if is_absent(&request)) {
                    set(name, "dataset", "tatsu-lab/alpaca-demo");
                }
            }
            "train" => set(name, "max_steps", "2"),
            "tokenize" if has_hub_model => set(name, "max_length", "512"),
            "evaluate" | "generate" => {
                set(name, "max_examples", "4");
                set(name, "max_new_tokens", "4");
                if stage.kind.name() == "evaluate" && has_hub_model {
                    set(name, "max_length", "512");
                }
            }
            _ => {}
        }
    }
    arguments
}

/// Panics unless every line of `shown` is in `printed`, in this order.
fn assert_shown(shown: &str, printed: &str, place: &str) {
    let mut printed_lines = printed.lines().map(words);
    for line in shown.lines().filter(|line| !line.trim().is_empty() && line.trim() != "...") {
        let is_there = printed_lines.any(|printed| printed == words(line));
        assert!(is_there, "{place}: `{line}` is not printed, or not at this place:\n{printed}");
    }
}

/// The words of a line, with one `[time]` for what is a duration.
fn words(line: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        let is_unit = matches!(word.trim_end_matches([',', '.', ':']), "ms" | "s" | "min" | "h");
        if is_unit && found.last().is_some_and(|number| number.parse::<f64>().is_ok()) {
            found.pop();
            if found.last().is_none_or(|last| last != "[time]") {
                found.push("[time]".into());
            }
        } else {
            found.push(word.into());
        }
    }
    found
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder can be made");
    for entry in std::fs::read_dir(from).expect("a folder of the checkout can be read") {
        let entry = entry.expect("a folder of the checkout can be read");
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_folder(&path, &to);
        } else if path.extension().is_none_or(|extension| extension != "lock") {
            std::fs::copy(&path, &to).expect("a copy");
        }
    }
}

#[test]
fn a_line_is_run_left_out_or_refused() {
    let run = |line: &str, exit_code| Some(Ok(Pipe { line: line.into(), exit_code }));
    assert_eq!(parse("pipe check a.yaml   # a comment"), run("pipe check a.yaml", 0));
    assert_eq!(parse("pipe check a.yaml  # exits 2"), run("pipe check a.yaml", 2));
    assert_eq!(parse("cargo run -- run a.yaml"), run("pipe run a.yaml", 0));
    assert_eq!(parse("CI=true pipe check a.yaml"), run("CI=true pipe check a.yaml", 0));
    assert_eq!((parse(""), parse("# only a comment"), parse("cargo test --workspace")), (None, None, None));
    for refused in ["rm -r .pipe", "pipe show text | head", "pipe run a.yaml > log", "pipe run a.yaml # exits soon"] {
        assert!(parse(refused).is_some_and(|result| result.is_err()), "{refused}");
    }
}

#[test]
fn durations_are_not_compared_and_all_else_is() {
    assert_shown(
        "text ran 3 ms rows 2000\n...\nended in 1 min 2 s",
        "a\ntext  ran 1.2 s   rows 2000\nended in 4 s\n",
        "",
    );
    for shown in ["text ran 3 ms rows 2001", "b\na"] {
        assert!(std::panic::catch_unwind(|| assert_shown(shown, "a\nb\ntext ran 3 ms rows 2000\n", "")).is_err());
    }
}
