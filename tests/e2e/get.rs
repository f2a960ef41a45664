//! `pipe get` and `pipe logs`: what a stage gave and what it said, out of the store.

use crate::sandbox::Sandbox;

const STAGES: &str = "
  rows: { uses: make, with: { value: hello } }
  text: { uses: change, inputs: { rows: rows }, with: { suffix: '!', label: text } }
";

#[test]
fn outputs_are_copied_and_nothing_of_the_users_is_written_over() {
    let sandbox = Sandbox::with_stages(STAGES);
    screen!(sandbox.pipe("get p.yaml text --to here"), @r"
    exit code: 1
    ----- stdout
    ----- stderr
    error[not-made]: stage `text` has not run with these settings
    help: make it with: pipe run p.yaml
    ");
    sandbox.outcomes("run p.yaml");
    screen!(sandbox.pipe("get text --to here"), @r"
    exit code: 0
    ----- stdout
    1 file written to here
    ----- stderr
    ");
    assert_eq!(sandbox.read("here/rows/value.txt"), "hello!");
    screen!(sandbox.pipe("get p.yaml text.rows --to there/below"), @r"
    exit code: 0
    ----- stdout
    1 file written to there/below
    ----- stderr
    ");
    assert_eq!(sandbox.read("there/below/value.txt"), "hello!");
    screen!(sandbox.pipe("get p.yaml text.rows --to there/below"), @r"
    exit code: 0
    ----- stdout
    0 files written to there/below, 1 there already
    ----- stderr
    ");
    sandbox.write("there/below/value.txt", "mine");
    screen!(sandbox.pipe("get p.yaml text.rows --to there/below"), @r"
    exit code: 1
    ----- stdout
    `there/below/value.txt` has other bytes: it is left as it is
    0 files written to there/below
    ----- stderr
    ");
    assert_eq!(sandbox.read("there/below/value.txt"), "mine");
    assert_eq!(sandbox.pipe("get p.yaml text.row --to here").code, 2);
}

#[test]
fn a_log_is_of_the_last_run_that_has_one() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.behave("text", "fail");
    sandbox.pipe("run p.yaml");
    sandbox.behave("text", "well");
    sandbox.outcomes("run p.yaml");
    sandbox.outcomes("run p.yaml");
    screen!(sandbox.pipe("logs text"), @r"
    exit code: 0
    ----- stdout
    reading row 1
    reading row 2
    error[bad-row]: failed to read the rows: row 2 is damaged
    ----- stderr
    ");
    screen!(sandbox.pipe("logs txt"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[no-log]: no run has a log of a stage `txt`
    help: `pipe runs RUN` shows the stages of a run; one that says nothing has no log
    ");
    screen!(sandbox.pipe("logs text --run 1999"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[unknown-run]: there is no run `1999` in `.pipe`
    help: the newest are `[run]`, `[run]`, `[run]`
    ");
}
