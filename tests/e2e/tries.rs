//! `timeout:` and `retries:` of a stage.

use crate::sandbox::Sandbox;

const FLAKY: &str = "
  rows: { uses: make, with: { value: hello, label: rows }, retries: { max: 2, delay: 1s } }
  text: { uses: change, inputs: { rows: rows }, with: { suffix: '!' } }
";

#[test]
fn a_failed_stage_is_tried_again_and_says_so() {
    let sandbox = Sandbox::with_stages(FLAKY);
    sandbox.behave("rows", "fail once");
    screen!(sandbox.pipe("run p.yaml --threads 1"), @r"
    exit code: 0
    ----- stdout
    ----- stderr
    rows  started, 1 thread
    rows  | reading row 1
    rows  try 1 of 3 failed: row 1 is not there yet; again in [time]
    rows  started, 1 thread
    rows  ran in [time]
    text  started, 1 thread
    text  ran in [time]

    rows  ran  2 tries, characters 5
    text  ran  characters 6

    2 ran in [time]
    everything in .pipe
    as a page with charts: pipe report
    ");
    let log = sandbox.pipe("logs rows").out;
    assert_eq!(log, "reading row 1\nerror[bad-row]: row 1 is not there yet\ntry 2 of 3\ncharacters: 5\n");
    assert_eq!(sandbox.pipe("report --out r.html").code, 0);
    assert!(sandbox.read("r.html").contains("try 1 of 3 failed: row 1 is not there yet"));
}

#[test]
fn neither_is_in_a_key() {
    let sandbox = Sandbox::with_stages("  rows: { uses: make, with: { value: hello } }\n");
    assert_eq!(sandbox.outcomes("run p.yaml"), "rows ran");
    sandbox.write_stages("  rows: { uses: make, with: { value: hello }, timeout: 2h, retries: 3 }\n");
    assert_eq!(sandbox.outcomes("run p.yaml"), "rows reused");
}

#[test]
fn a_mistake_in_pipe_is_not_repeated() {
    let sandbox = Sandbox::with_stages(FLAKY);
    sandbox.behave("rows", "panic");
    let output = sandbox.pipe("run p.yaml --json");
    assert_eq!(output.code, 70);
    assert!(!output.out.contains("stage_retried"), "{}", output.out);
}

#[test]
fn what_the_user_stopped_is_not_tried_again() {
    let sandbox = Sandbox::with_stages(FLAKY);
    sandbox.behave("rows", "wait");
    let output = sandbox.pipe("run p.yaml --json --time-limit 1s");
    assert_eq!((output.code, output.outcomes().as_str()), (130, "rows cancelled, text cancelled"));
    assert!(!output.out.contains("stage_retried"), "{}", output.out);
}

#[test]
fn what_the_user_stops_is_cancelled_though_it_has_a_limit_of_its_own() {
    let sandbox = Sandbox::with_stages("  rows: { uses: make, with: { label: rows }, timeout: 1h, retries: 3 }\n");
    sandbox.behave("rows", "wait");
    let output = sandbox.pipe("run p.yaml --json --time-limit 1s");
    assert_eq!((output.code, output.outcomes().as_str()), (130, "rows cancelled"));
}

#[test]
fn a_wait_for_the_next_try_ends_with_the_run() {
    let sandbox =
        Sandbox::with_stages("  rows: { uses: make, with: { label: rows }, retries: { max: 9, delay: 1h } }\n");
    sandbox.behave("rows", "fail");
    let output = sandbox.pipe("run p.yaml --json --time-limit 1s");
    assert_eq!((output.code, output.outcomes().as_str()), (130, "rows cancelled"));
}

#[test]
fn a_stage_that_waits_for_its_next_try_gives_its_place_to_others() {
    let sandbox = Sandbox::with_stages(
        "
  rows: { uses: make, with: { value: rows, label: rows }, retries: 1, resources: { pools: { hub: 1 } } }
  more: { uses: make, with: { value: more }, resources: { pools: { hub: 1 } } }
",
    );
    let text = sandbox.read("p.yaml").replace("stages:", "pools: { hub: 1 }\nstages:");
    sandbox.write("p.yaml", &text);
    sandbox.behave("rows", "fail once");
    let output = sandbox.pipe("run p.yaml --threads 1 --json");
    assert_eq!(output.code, 0, "{}", output.err);
    let at = |event: &str, stage: &str| {
        let wanted = |line: &&str| line.contains(&format!("\"event\":\"{event}\",\"stage\":\"{stage}\""));
        output.out.lines().position(|line| wanted(&line)).unwrap_or_else(|| panic!("no {event} of {stage}"))
    };
    assert!(at("stage_retried", "rows") < at("stage_finished", "more"));
    assert!(at("stage_finished", "more") < at("stage_finished", "rows"));
}

#[test]
fn a_stage_that_takes_too_long_is_stopped_and_has_failed() {
    let sandbox = Sandbox::with_stages(
        "
  rows: { uses: make, with: { value: hello } }
  slow: { uses: change, inputs: { rows: rows }, with: { suffix: '!', label: slow }, timeout: 1s }
  last: { uses: change, inputs: { rows: slow } }
",
    );
    sandbox.behave("slow", "wait and save");
    screen!(sandbox.pipe("run p.yaml --threads 1"), @r"
    exit code: 1
    ----- stdout
    ----- stderr
    rows  started, 1 thread
    rows  ran in [time]
    slow  started, 1 thread
    slow  | waiting
    slow  | its timeout of 1s is reached: waiting for it to stop
    slow  failed after [time]

    rows  ran  characters 5
    slow  failed
    last  skipped  it needs `slow`, which failed

    error[timeout]: stage `slow` failed: it took longer than its timeout of 1s
    help: raise `timeout:` of the stage, or leave it out
    its last lines:
      | waiting
      | its timeout of 1s is reached: waiting for it to stop
    log: .pipe/runs/[run]/slow.log
    kept: 1 finished stage, the state of `slow` at its last checkpoint
    go on with: pipe run p.yaml --threads 1

    1 ran, 1 failed, 1 skipped in [time]
    everything in .pipe
    as a page with charts: pipe report
    ");
    sandbox.behave("slow", "well");
    assert_eq!(sandbox.outcomes("run p.yaml"), "last ran, rows reused, slow ran");
}

#[test]
fn a_stage_that_takes_too_long_is_tried_again() {
    let sandbox = Sandbox::with_stages("  slow: { uses: make, with: { label: slow }, timeout: 1s, retries: 1 }\n");
    sandbox.behave("slow", "wait");
    let output = sandbox.pipe("run p.yaml --threads 1");
    assert_eq!(output.code, 1, "{}", output.err);
    assert!(output.err.contains("slow  try 1 of 2 failed: it took longer than its timeout of 1s"), "{}", output.err);
    assert!(output.err.contains("error[timeout]: stage `slow` failed"), "{}", output.err);
}
