//! `--until STAGE`: that stage and what it needs, nothing else.

use crate::sandbox::Sandbox;

const STAGES: &str = "
  side: { uses: make, with: { value: side } }
  last: { uses: join, inputs: { rows: text, more: side } }
  text: { uses: change, inputs: { rows: rows }, with: { suffix: '!' }, needs: [early] }
  rows: { uses: make, with: { value: hello } }
  early: { uses: make, with: { value: early } }
";

#[test]
fn only_what_the_stage_needs_runs_and_no_key_changes() {
    let sandbox = Sandbox::with_stages(STAGES);
    screen!(sandbox.pipe("plan p.yaml --until text"), @r"
    exit code: 0
    ----- stdout
    text   change  pending  depends on what `rows` gives
    rows   make    run      never made with these settings and inputs
    early  make    run      never made with these settings and inputs
    3 stages: 2 run, 1 pending
    how long this takes and how much it adds to the store is not known: none of it ran here before
    ----- stderr
    ");
    assert_eq!(sandbox.outcomes("run p.yaml --until text"), "early ran, rows ran, text ran");
    assert!(!sandbox.path("p.lock").exists(), "the lock file says what the whole pipeline gives");
    assert_eq!(sandbox.outcomes("run p.yaml"), "early reused, last ran, rows reused, side ran, text reused");
    let lock = sandbox.read("p.lock");
    assert_eq!(sandbox.outcomes("run p.yaml --until side --until rows"), "rows reused, side reused");
    assert_eq!(sandbox.read("p.lock"), lock);
}

#[test]
fn a_stage_that_is_left_out_cannot_be_forced() {
    let sandbox = Sandbox::with_stages(STAGES);
    let output = sandbox.pipe("run p.yaml --until rows --force last");
    assert_eq!(output.code, 2, "{}", output.err);
    screen!(sandbox.pipe("run p.yaml --until txt"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[unknown-stage]: `[dir]/p.yaml` has no stage `txt`
    help: did you mean `text`?
    ");
}

#[test]
fn a_failure_names_the_command_to_go_on_with() {
    let sandbox = Sandbox::with_stages("  bad: { uses: make, with: { label: bad } }\n  far: { uses: make }\n");
    sandbox.behave("bad", "fail");
    let output = sandbox.pipe("run p.yaml --until bad --keep-going --threads 1");
    let command = "go on with: pipe run p.yaml --threads 1 --until bad --keep-going\n";
    assert!(output.err.contains(command), "{}", output.err);
}
