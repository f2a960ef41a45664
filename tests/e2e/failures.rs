//! `pipe run` when a stage fails, panics, or the user interrupts.

use crate::sandbox::Sandbox;

const FORK: &str = "
  rows: { uses: make, with: { value: hello, label: rows } }
  bad:  { uses: change, inputs: { rows: rows }, with: { suffix: '!', label: bad } }
  last: { uses: join, inputs: { rows: bad } }
";

#[test]
fn a_failed_stage_says_what_why_where_and_how_to_go_on() {
    let sandbox = Sandbox::with_stages(FORK);
    sandbox.behave("bad", "fail");
    screen!(sandbox.pipe("run p.yaml --threads 1 --set stages.bad.with.first=3"), @r"
    exit code: 1
    ----- stdout
    ----- stderr
    rows  started, 1 thread
    rows  ran in [time]
    bad   started, 1 thread
    bad   | reading row 1
    bad   | reading row 2
    bad   failed after [time]

    rows  ran  characters 5
    bad  failed
    last  skipped  it needs `bad`, which failed

    error[bad-row]: stage `bad` failed: failed to read the rows: row 2 is damaged
    help: repair row 2
    its last lines:
      | reading row 1
      | reading row 2
    log: .pipe/runs/[run]/bad.log
    kept: 1 finished stage
    go on with: pipe run p.yaml --set stages.bad.with.first=3 --threads 1

    1 ran, 1 failed, 1 skipped in [time]
    everything in .pipe
    as a page with charts: pipe report
    ");
    let logs =
        std::fs::read_dir(sandbox.path(".pipe/runs")).expect("runs").next().expect("one").expect("readable").path();
    insta::assert_snapshot!(std::fs::read_to_string(logs.join("bad.log")).expect("a log"), @r"
    reading row 1
    reading row 2
    error[bad-row]: failed to read the rows: row 2 is damaged
    ");
    sandbox.behave("bad", "well");
    assert_eq!(sandbox.outcomes("run p.yaml --set stages.bad.with.first=3"), "bad ran, last ran, rows reused");
}

#[test]
fn a_panic_is_a_bug_and_not_the_end_of_the_process() {
    let sandbox = Sandbox::with_stages(FORK);
    for mode in ["panic", "panic in the pool"] {
        sandbox.behave("bad", mode);
        let output = sandbox.pipe("run p.yaml --threads 2");
        assert_eq!(output.code, 70, "{}", output.err);
        assert!(
            output.err.contains("error[bug]: stage `bad` failed: it panicked: index out of rows at "),
            "{}",
            output.err
        );
    }
    sandbox.behave("bad", "well");
    assert_eq!(sandbox.outcomes("run p.yaml"), "bad ran, last ran, rows reused");
}

#[test]
fn an_output_without_files_is_a_bug() {
    let sandbox = Sandbox::with_stages(FORK);
    sandbox.behave("bad", "empty");
    let output = sandbox.pipe("run p.yaml --threads 1");
    assert_eq!(output.code, 70);
    assert!(
        output.err.contains("error[bug]: stage `bad` failed: no file was written to output `rows`"),
        "{}",
        output.err
    );
}

#[test]
fn after_a_failure_what_runs_is_finished_and_nothing_new_starts() {
    // `bad` and `good` run together; `good` ends after `bad` has failed, as it waits for a stage that never comes.
    let sandbox = Sandbox::with_stages(
        "
  bad:   { uses: meet, with: { room: failing, label: bad } }
  other: { uses: make, with: { value: x }, needs: [late] }
  late:  { uses: make, with: { value: y }, needs: [bad] }
  free:  { uses: change, inputs: { rows: first }, resources: { cpu: 2 } }
  first: { uses: make, with: { value: z }, resources: { cpu: 2 } }
",
    );
    sandbox.behave("bad", "fail");
    let output = sandbox.pipe("run p.yaml --threads 2 --json");
    assert_eq!(output.code, 1);
    assert!(output.outcomes().contains("bad failed"), "{}", output.outcomes());
    assert!(output.outcomes().contains("late skipped, other skipped"), "{}", output.outcomes());
    assert!(output.err.starts_with("error[bad-row]: stage `bad` failed"), "{}", output.err);
}

#[test]
fn an_interrupted_run_goes_on_where_it_stopped() {
    let sandbox = Sandbox::with_stages(FORK);
    sandbox.behave("bad", "cancel");
    screen!(sandbox.pipe("run p.yaml --threads 1"), @r"
    exit code: 130
    ----- stdout
    ----- stderr
    rows  started, 1 thread
    rows  ran in [time]
    bad   started, 1 thread
    bad   cancelled after [time]

    rows  ran  characters 5
    bad  cancelled
    last  cancelled

    1 ran, 2 cancelled in [time]
    everything in .pipe
    as a page with charts: pipe report
    interrupted; kept: 1 finished stage, the state of `bad` at its last checkpoint; go on with: pipe run p.yaml --threads 1
    ");
    assert!(std::fs::read_dir(sandbox.path(".pipe/tmp")).expect("it was made").next().is_none(), "an attempt is left");
    let checkpoints = || std::fs::read_dir(sandbox.path(".pipe/checkpoints")).expect("it was made").count();
    assert_eq!(checkpoints(), 1);
    sandbox.behave("bad", "well");
    assert_eq!(sandbox.outcomes("run p.yaml"), "bad ran, last ran, rows reused");
    assert_eq!(checkpoints(), 0, "what was published needs no checkpoint");
}

#[test]
fn a_checkpoint_that_a_longer_run_can_go_on_from_outlives_its_outputs() {
    let stages = |suffix: &str| {
        format!(
            "  rows: {{ uses: make, with: {{ value: hello }} }}\n  long: {{ uses: grow, inputs: {{ rows: rows }}, with: {{ first: 2, suffix: '{suffix}' }} }}\n"
        )
    };
    let sandbox = Sandbox::with_stages(&stages("!"));
    let goes_on_from = |sandbox: &Sandbox| {
        let output = sandbox.pipe("run p.yaml --threads 1");
        assert_eq!(output.code, 0, "{}", output.err);
        let line = output.err.lines().find(|line| line.starts_with("long") && line.contains("goes on from"));
        line.map(|line| {
            line.split("goes on from ").last().unwrap_or_default().split(',').next().unwrap_or_default().to_string()
        })
    };
    assert_eq!(goes_on_from(&sandbox).as_deref(), Some("nothing"));
    sandbox.write_stages(&stages("!!"));
    assert_eq!(goes_on_from(&sandbox).as_deref(), Some("!"), "the same trajectory, further");
    sandbox.write_stages(&stages("!!").replace("first: 2", "first: 3"));
    assert_eq!(goes_on_from(&sandbox).as_deref(), Some("nothing"), "another trajectory");
}

#[test]
fn a_time_limit_stops_a_run_as_an_interruption_does() {
    let sandbox = Sandbox::with_stages(FORK);
    sandbox.behave("bad", "wait");
    screen!(sandbox.pipe("run p.yaml --threads 1 --time-limit 1s"), @r"
    exit code: 130
    ----- stdout
    ----- stderr
    rows  started, 1 thread
    rows  ran in [time]
    bad   started, 1 thread
    bad   | waiting
          warning: the time limit of 1s is reached
    bad   cancelled after [time]

    rows  ran  characters 5
    bad  cancelled
    last  cancelled

    1 ran, 2 cancelled in [time]
    everything in .pipe
    as a page with charts: pipe report
    warning: the time limit of 1s is reached
    interrupted; kept: 1 finished stage; go on with: pipe run p.yaml --threads 1 --time-limit 1s
    ");
    sandbox.behave("bad", "well");
    assert_eq!(sandbox.outcomes("run p.yaml --time-limit 1h30m"), "bad ran, last ran, rows reused");
    screen!(sandbox.pipe("run p.yaml --time-limit 90"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[bad-time-limit]: --time-limit is `90`, but must be a duration of at least a second
    help: write `90s`, `30m`, `2h` or `1h30m`
    ");
}

#[test]
fn a_source_that_is_not_there_fails_its_stage() {
    let sandbox = Sandbox::with_stages(
        "
  rows: { uses: files, with: { value: in.txt } }
  text: { uses: change, inputs: { rows: rows } }
",
    );
    screen!(sandbox.pipe("plan p.yaml"), @r"
    exit code: 0
    ----- stdout
    rows  files   blocked  there is no `in.txt`
          help: write it first
    text  change  blocked  needs `rows`
    2 stages: 2 blocked
    ----- stderr
    ");
    screen!(sandbox.pipe("run p.yaml --threads 1"), @r"
    exit code: 1
    ----- stdout
    ----- stderr
    rows  failed after [time]

    rows  failed
    text  skipped  it needs `rows`, which failed

    error[missing-file]: stage `rows` failed: there is no `in.txt`
    help: write it first
    log: .pipe/runs/[run]/rows.log
    go on with: pipe run p.yaml --threads 1

    1 failed, 1 skipped in [time]
    everything in .pipe
    as a page with charts: pipe report
    ");
}

#[test]
fn a_remote_name_that_is_not_there_fails_its_stage() {
    let sandbox = Sandbox::with_stages("  rows: { uses: remote, with: { value: nowhere } }\n");
    screen!(sandbox.pipe("run p.yaml --threads 1"), @r"
    exit code: 1
    ----- stdout
    ----- stderr
    rows  started, 1 thread
    rows  | asking for the revision of things/nowhere@main
    rows  failed after [time]

    rows  failed

    error[not-found]: stage `rows` failed: there is no `nowhere` on the hub
    help: look for its name
    its last lines:
      | asking for the revision of things/nowhere@main
    log: .pipe/runs/[run]/rows.log
    go on with: pipe run p.yaml --threads 1

    1 failed in [time]
    everything in .pipe
    as a page with charts: pipe report
    ");
}

#[test]
fn a_folder_that_is_not_a_store_is_left_alone() {
    let sandbox = Sandbox::with_stages(FORK);
    sandbox.write("photos/cat.jpg", "meow");
    screen!(sandbox.pipe("run p.yaml --store photos"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[store]: the store cannot be used: `[dir]/photos` is not a store: it holds files, but no `FORMAT`; name an empty or a new folder
    ");
}

#[test]
fn a_file_that_is_changed_while_it_is_read_fails_the_stage_and_nothing_is_stored() {
    let referred = "
  rows: { uses: refer, with: { value: in.txt, label: rows } }
  text: { uses: change, inputs: { rows: rows }, with: { suffix: '!', label: text } }
";
    let digested = "  text: { uses: files, with: { value: in.txt, label: text } }\n";
    for (stages, is_referred) in [(referred, true), (digested, false)] {
        for mode in ["edit", "edit and back"] {
            let sandbox = Sandbox::with_stages(stages);
            sandbox.write("in.txt", "first");
            sandbox.behave("text", mode);
            let output = sandbox.pipe("run p.yaml --threads 1");
            assert_eq!(output.code, 1, "{mode}: {}", output.err);
            let error = "error[input-changed]: stage `text` failed: `in.txt` was changed while the pipeline ran";
            assert!(output.err.contains(error), "{mode}: {}", output.err);
            assert!(output.err.contains("help: run again"), "{}", output.err);
            sandbox.behave("text", "well");
            sandbox.write("in.txt", "first");
            let expected = if is_referred { "rows reused, text ran" } else { "text ran" };
            assert_eq!(sandbox.outcomes("run p.yaml"), expected);
        }
    }
}

#[test]
fn a_file_that_is_changed_between_two_stages_fails_the_second() {
    let sandbox = Sandbox::with_stages(
        "
  rows: { uses: refer, with: { value: in.txt } }
  wait: { uses: make, with: { value: x, label: wait }, needs: [rows] }
  text: { uses: change, inputs: { rows: rows }, needs: [wait] }
",
    );
    sandbox.write("in.txt", "first");
    sandbox.behave("wait", "edit");
    let output = sandbox.pipe("run p.yaml --threads 1");
    assert!(output.err.contains("error[input-changed]: stage `text` failed: `in.txt`"), "{}", output.err);
    assert_eq!(sandbox.outcomes("run p.yaml"), "rows ran, text ran, wait reused");
}
