//! `--from STAGE`: that stage, what needs it, and what those need; with `--until`, a slice.

use crate::sandbox::Sandbox;

/// `rows -> text -> last -> end`, with `side` beside them for `last`, and `far` for itself.
const STAGES: &str = "
  rows: { uses: make, with: { value: hello } }
  text: { uses: change, inputs: { rows: rows }, with: { suffix: '!' } }
  side: { uses: make, with: { value: side } }
  last: { uses: join, inputs: { rows: text, more: side } }
  end:  { uses: change, inputs: { rows: last }, with: { suffix: ' end' } }
  far:  { uses: make, with: { value: far } }
";

#[test]
fn what_needs_the_stage_runs_with_what_that_needs() {
    let sandbox = Sandbox::with_stages(STAGES);
    screen!(sandbox.pipe("plan p.yaml --from last"), @r"
    exit code: 0
    ----- stdout
    rows  make    run      never made with these settings and inputs
    text  change  pending  depends on what `rows` gives
    side  make    run      never made with these settings and inputs
    last  join    pending  depends on what `text` and `side` give
    end   change  pending  depends on what `last` gives
    5 stages: 2 run, 3 pending
    how long this takes and how much it adds to the store is not known: none of it ran here before
    ----- stderr
    ");
    assert_eq!(sandbox.outcomes("run p.yaml --from text"), "end ran, last ran, rows ran, side ran, text ran");
    assert!(!sandbox.path("p.lock").exists(), "the lock file says what the whole pipeline gives");
    assert_eq!(sandbox.outcomes("run p.yaml --from end --from far"), {
        "end reused, far ran, last reused, rows reused, side reused, text reused"
    });
}

#[test]
fn with_until_it_is_a_slice() {
    let sandbox = Sandbox::with_stages(STAGES);
    assert_eq!(sandbox.outcomes("run p.yaml --from text --until last"), "last ran, rows ran, side ran, text ran");
    assert_eq!(sandbox.outcomes("run p.yaml --from rows --until text"), "rows reused, text reused");
    screen!(sandbox.pipe("run p.yaml --from far --until last"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[empty-part]: no stage of `--until` needs one of `--from`
    help: `pipe graph [dir]/p.yaml` shows what needs what
    ");
    screen!(sandbox.pipe("plan p.yaml --from ned"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[unknown-stage]: `[dir]/p.yaml` has no stage `ned`
    help: its stages are `rows`, `text`, `side`, `last`, `end`, `far`
    ");
}

#[test]
fn a_failure_names_the_command_to_go_on_with() {
    let sandbox = Sandbox::with_stages("  bad: { uses: make, with: { label: bad } }\n  far: { uses: make }\n");
    sandbox.behave("bad", "fail");
    let output = sandbox.pipe("run p.yaml --from bad");
    assert!(output.err.contains("go on with: pipe run p.yaml --from bad\n"), "{}", output.err);
    assert!(!output.err.contains("far"), "{}", output.err);
}
