//! `--locked`: a pipeline that is not what its lock file says is refused before anything runs.

use std::fs;

use crate::kinds::{n_questions, set_remote};
use crate::sandbox::Sandbox;

const STAGES: &str = "
  rows: { uses: make, with: { value: hello } }
  text: { uses: change, inputs: { rows: rows }, with: { suffix: '!', label: text } }
  last: { uses: join, inputs: { rows: text } }
";

/// With its lock file and an empty store: a fresh clone.
fn fresh_clone(stages: &str) -> Sandbox {
    let sandbox = Sandbox::with_stages(stages);
    sandbox.outcomes("run p.yaml");
    fs::remove_dir_all(sandbox.path(".pipe")).expect("the store");
    sandbox
}

#[test]
fn what_fits_runs_and_leaves_the_lock_file_alone() {
    let sandbox = fresh_clone(STAGES);
    let before = sandbox.read("p.lock");
    assert_eq!(sandbox.outcomes("run p.yaml --locked"), "last ran, rows ran, text ran");
    assert_eq!(sandbox.outcomes("run p.yaml --locked"), "last reused, rows reused, text reused");
    assert_eq!(sandbox.pipe("plan p.yaml --locked").code, 0);
    assert_eq!(sandbox.read("p.lock"), before);
}

#[test]
fn every_stage_that_drifted_is_named_before_anything_runs() {
    let sandbox = fresh_clone(
        "
  rows: { uses: make, with: { value: hello } }
  more: { uses: make, with: { value: bye } }
  text: { uses: change, inputs: { rows: rows }, with: { suffix: '!' } }
  last: { uses: join, inputs: { rows: text, more: more } }
",
    );
    let changed = "--set stages.text.with.suffix=X --set stages.more.with.value=x";
    screen!(sandbox.pipe(&format!("run p.yaml --locked {changed}")), @r"
    exit code: 3
    ----- stdout
    ----- stderr
    error[lock-drift]: the lock file does not have stage `more` as it is now: its settings, files, revision, version or inputs are others
      --> [dir]/p.yaml:5:3

    error[lock-drift]: the lock file does not have stage `text` as it is now: its settings, files, revision, version or inputs are others
      --> [dir]/p.yaml:6:3
    help: `pipe explain p.yaml STAGE` says what changed; run without `--locked` to accept it, and commit `[dir]/p.lock`
    ");
    assert_eq!(sandbox.pipe(&format!("plan p.yaml --locked {changed}")).code, 3);
    assert!(sandbox.blobs().is_empty(), "something ran");
}

#[test]
fn without_a_lock_file_nothing_fits() {
    let sandbox = Sandbox::with_stages(STAGES);
    screen!(sandbox.pipe("run p.yaml --locked"), @r"
    exit code: 3
    ----- stdout
    ----- stderr
    error[lock-drift]: `[dir]/p.lock` is not there, or is of no complete run
    help: run without `--locked`, and commit `[dir]/p.lock`
    ");
    sandbox.write("p.lock", r#"{ "format_version": 9 }"#);
    screen!(sandbox.pipe("run p.yaml --locked"), @r"
    exit code: 3
    ----- stdout
    ----- stderr
    error[lock-drift]: `[dir]/p.lock` is of another version of pipe
    help: run without `--locked`, and commit `[dir]/p.lock`
    ");
}

#[test]
fn the_network_is_not_asked() {
    set_remote("locked", "c0ffee");
    let sandbox = fresh_clone("  rows: { uses: remote, with: { value: locked } }\n");
    set_remote("locked", "decade");
    assert_eq!(sandbox.outcomes("run p.yaml --locked"), "rows ran");
    let text = sandbox.read("p.lock").replace("things/locked@main", "things/other@main");
    sandbox.write("p.lock", &text);
    screen!(sandbox.pipe("run p.yaml --locked"), @r"
    exit code: 3
    ----- stdout
    ----- stderr
    error[lock-drift]: the lock file does not have the revision of `things/locked@main`
      --> [dir]/p.yaml:3:3
    help: `pipe explain p.yaml STAGE` says what changed; run without `--locked` to accept it, and commit `[dir]/p.lock`
    ");
    assert_eq!(n_questions("locked"), 1);
}

#[test]
fn a_local_file_is_part_of_it() {
    let sandbox = Sandbox::new();
    sandbox.write("in.txt", "one");
    sandbox.write_stages("  rows: { uses: files, with: { value: in.txt } }\n");
    sandbox.outcomes("run p.yaml");
    assert_eq!(sandbox.pipe("run p.yaml --locked").code, 0);
    sandbox.write("in.txt", "other");
    assert_eq!(sandbox.pipe("run p.yaml --locked").code, 3);
}

#[test]
fn other_bytes_than_the_lock_file_says_fail_the_stage() {
    let sandbox = fresh_clone(STAGES);
    sandbox.behave("text", "other");
    screen!(sandbox.pipe("run p.yaml --locked --threads 1"), @r"
    exit code: 3
    ----- stdout
    ----- stderr
    rows  started, 1 thread
    rows  ran in [time]
    text  started, 1 thread
    text  failed after [time]

    rows  ran  characters 5
    text  failed  characters 16
    last  skipped  it needs `text`, which failed

    error[lock-drift]: stage `text` failed: it gave other bytes than `[dir]/p.lock` says
    help: `pipe verify` says what differs; run without `--locked` to accept it
    log: .pipe/runs/[run]/text.log
    kept: 1 finished stage
    go on with: pipe run p.yaml --threads 1 --locked

    1 ran, 1 failed, 1 skipped in [time]
    everything in .pipe
    as a page with charts: pipe report
    ");
    // They are in the store now, and not what the lock file says.
    screen!(sandbox.pipe("run p.yaml --locked"), @r"
    exit code: 3
    ----- stdout
    ----- stderr
    error[lock-drift]: the store has other bytes of stage `text` than the lock file says
      --> [dir]/p.yaml:5:3
    help: `pipe explain p.yaml STAGE` says what changed; run without `--locked` to accept it, and commit `[dir]/p.lock`
    ");
}

#[test]
fn an_artifact_of_another_compute_class_does_not_do() {
    let sandbox = Sandbox::with_stages("  work: { uses: classy, with: { value: x } }\n");
    sandbox.outcomes("run p.yaml");
    let other = "--set stages.work.with.class=fake-2";
    assert_eq!(sandbox.outcomes(&format!("run p.yaml {other}")), "work reused");
    sandbox.outcomes("run p.yaml");
    assert_eq!(sandbox.pipe(&format!("run p.yaml --locked {other}")).code, 3);
}

#[test]
fn a_divergence_is_told_too() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    sandbox.behave("text", "other");
    let run = sandbox.pipe("run p.yaml --locked --force text --json");
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(run.out.contains(r#""event":"diverged","stage":"text""#), "{}", run.out);
    // What stands is still what the lock file says.
    assert_eq!(sandbox.outcomes("run p.yaml --locked"), "last reused, rows reused, text reused");
}
