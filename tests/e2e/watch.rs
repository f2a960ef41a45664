//! `pipe run --watch`: what a user does meanwhile is done while the command waits, so nothing sleeps here.

use std::fs;
use std::time::Duration;

use pipe_contract::CancelToken;

use crate::kinds::edit;
use crate::sandbox::{Output, Sandbox, execute_with};

const STAGES: &str = "
  rows: { uses: files, with: { value: in } }
  text: { uses: change, inputs: { rows: rows }, with: { suffix: '!' } }
";

/// It waits longer between two looks than for a change to be over.
const LOOKS: Duration = Duration::from_millis(200);

/// What a user does, one thing each time the command looks and finds nothing; Ctrl-C comes last.
fn watch(sandbox: &Sandbox, arguments: &str, steps: &[&dyn Fn()]) -> Output {
    let cancel = CancelToken::default();
    let mut steps = steps.iter();
    let mut pause = |duration: Duration| {
        if duration < LOOKS {
            return;
        }
        match steps.next() {
            Some(step) => step(),
            None => cancel.cancel(),
        }
    };
    execute_with(sandbox.folder(), arguments, &cancel, &mut pause)
}

#[test]
fn an_edit_runs_what_it_changes_and_a_broken_file_is_told_and_waited_for() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.write("in", "one");
    let good = sandbox.read("p.yaml");
    let output = watch(
        &sandbox,
        "run p.yaml --watch --threads 1",
        &[
            &|| edit(&sandbox.path("in"), "two"),
            &|| {},
            &|| sandbox.write("p.yaml", &good.replace("change", "chnge")),
            &|| sandbox.write("p.yaml", &good.replace("'!'", "' and more'")),
        ],
    );
    screen!(output, @r"
    exit code: 0
    ----- stdout
    ----- stderr
    rows  started, 1 thread
    rows  ran in [time]
    text  started, 1 thread
    text  ran in [time]

    rows  ran  characters 3
    text  ran  characters 4

    2 ran in [time]
    everything in .pipe
    as a page with charts: pipe report
    watching p.yaml and 1 other file; Ctrl-C ends

    in changed
    rows  started, 1 thread
    rows  ran in [time]
    text  started, 1 thread
    text  ran in [time]

    rows  ran  characters 3
    text  ran  characters 4

    2 ran in [time]
    everything in .pipe
    as a page with charts: pipe report
    watching p.yaml and 1 other file; Ctrl-C ends

    p.yaml changed
    error[unknown-kind]: stage `text` uses `chnge`, but there is no such stage kind
     --> [dir]/p.yaml:5:17
      |
    5 |   text: { uses: chnge, inputs: { rows: rows }, with: { suffix: '!' } }
      |                 ^^^^^
    help: did you mean `change`?
    watching p.yaml; Ctrl-C ends

    p.yaml changed
    text  started, 1 thread
    text  ran in [time]

    rows  reused  characters 3
    text  ran  characters 12

    1 reused, 1 ran in [time]
    everything in .pipe
    as a page with charts: pipe report
    watching p.yaml and 1 other file; Ctrl-C ends
    ");
}

#[test]
fn a_file_that_is_replaced_by_rename_is_changed() {
    let sandbox = Sandbox::with_stages("  rows: { uses: make, with: { value: one } }\n");
    let replaced = sandbox.read("p.yaml").replace("one", "two");
    let output = watch(
        &sandbox,
        "run p.yaml --watch --json",
        &[&|| {
            sandbox.write("p.new", &replaced);
            fs::rename(sandbox.path("p.new"), sandbox.path("p.yaml")).expect("a file can be renamed");
        }],
    );
    assert_eq!((output.code, output.outcomes().as_str()), (0, "rows ran, rows ran"), "{}", output.err);
}

#[test]
fn a_new_file_in_a_folder_is_a_change_and_so_is_one_that_was_missing() {
    let sandbox = Sandbox::with_stages("  rows: { uses: files, with: { value: in } }\n");
    let output = watch(
        &sandbox,
        "run p.yaml --watch --json",
        &[&|| sandbox.write("in/a.txt", "a"), &|| sandbox.write("in/b.txt", "b")],
    );
    assert_eq!((output.code, output.outcomes().as_str()), (0, "rows failed, rows ran, rows ran"), "{}", output.err);
    assert_eq!(sandbox.pipe("show rows").out, "rows, 5 rows: ab\n");
}

#[test]
fn it_waits_until_nothing_changes_any_more() {
    let sandbox = Sandbox::with_stages("  rows: { uses: files, with: { value: in } }\n");
    sandbox.write("in", "0");
    let cancel = CancelToken::default();
    let (mut n_looks, mut n_settles) = (0, 0);
    let mut pause = |duration: Duration| {
        if duration < LOOKS {
            n_settles += 1;
            if n_settles < 4 {
                edit(&sandbox.path("in"), &n_settles.to_string());
            }
            return;
        }
        n_looks += 1;
        match n_looks {
            1 => edit(&sandbox.path("in"), "first"),
            _ => cancel.cancel(),
        }
    };
    let output = execute_with(sandbox.folder(), "run p.yaml --watch --json", &cancel, &mut pause);
    assert_eq!((output.code, output.outcomes().as_str()), (0, "rows ran, rows ran"), "{}", output.err);
    assert_eq!(n_settles, 4);
    assert_eq!(sandbox.pipe("show rows").out, "rows, 5 rows: 3\n");
}

#[test]
fn a_run_that_is_cut_off_says_so() {
    let sandbox = Sandbox::with_stages("  rows: { uses: make, with: { label: rows } }\n");
    sandbox.behave("rows", "cancel");
    let output = watch(&sandbox, "run p.yaml --watch", &[]);
    assert_eq!(output.code, 130, "{}", output.err);
    assert!(!output.err.contains("watching"), "{}", output.err);
}

#[test]
fn a_failed_run_is_waited_for_too_and_limits_are_of_one_run() {
    let sandbox = Sandbox::with_stages("  rows: { uses: make, with: { label: rows } }\n");
    sandbox.behave("rows", "fail");
    let again = format!("{}\n", sandbox.read("p.yaml"));
    let output = watch(
        &sandbox,
        "run p.yaml --watch --json",
        &[&|| {
            sandbox.behave("rows", "well");
            sandbox.write("p.yaml", &again);
        }],
    );
    assert_eq!((output.code, output.outcomes().as_str()), (0, "rows failed, rows ran"), "{}", output.err);
    for wrong in ["--time-limit 1h", "--force rows", "--threads none"] {
        assert_eq!(watch(&sandbox, &format!("run p.yaml --watch {wrong}"), &[]).code, 2, "{wrong}");
    }
}
