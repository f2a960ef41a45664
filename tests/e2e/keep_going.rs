//! `pipe run --keep-going`: after a failure, what does not need the failed stage still runs.

use crate::sandbox::Sandbox;

/// `bad` and `worse` fail side by side; `far` needs neither.
const STAGES: &str = "
  bad:   { uses: make, with: { value: bad, label: bad } }
  worse: { uses: make, with: { value: worse, label: worse } }
  after: { uses: change, inputs: { rows: bad } }
  both:  { uses: join, inputs: { rows: after, more: far } }
  last:  { uses: change, inputs: { rows: worse }, needs: [both] }
  good:  { uses: make, with: { value: good } }
  far:   { uses: change, inputs: { rows: good }, with: { suffix: '!' } }
";

#[test]
fn what_does_not_need_the_failed_stage_runs() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.behave("bad", "fail");
    let stopped = sandbox.pipe("run p.yaml --threads 1 --json");
    assert_eq!(stopped.code, 1);
    assert!(stopped.outcomes().contains("far skipped"), "{}", stopped.outcomes());
    screen!(sandbox.pipe("run p.yaml --threads 1 --keep-going"), @r"
    exit code: 1
    ----- stdout
    ----- stderr
    bad    started, 1 thread
    bad    | reading row 1
    bad    | reading row 2
    bad    failed after [time]
    good   started, 1 thread
    good   ran in [time]
    far    started, 1 thread
    far    ran in [time]
    worse  started, 1 thread
    worse  ran in [time]

    bad  failed
    worse  ran  characters 5
    after  skipped  it needs `bad`, which failed
    both  skipped  it needs `bad`, which failed
    last  skipped  it needs `bad`, which failed
    good  ran  characters 4
    far  ran  characters 5

    error[bad-row]: stage `bad` failed: failed to read the rows: row 2 is damaged
    help: repair row 2
    its last lines:
      | reading row 1
      | reading row 2
    log: .pipe/runs/[run]/bad.log
    kept: 3 finished stages
    go on with: pipe run p.yaml --threads 1 --keep-going

    3 ran, 1 failed, 3 skipped in [time]
    everything in .pipe
    as a page with charts: pipe report
    ");
    sandbox.behave("bad", "well");
    let outcomes = sandbox.outcomes("run p.yaml --keep-going");
    assert_eq!(outcomes, "after ran, bad ran, both ran, far reused, good reused, last ran, worse reused");
}

#[test]
fn every_failure_is_shown() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.behave("bad", "fail");
    sandbox.behave("worse", "fail");
    let output = sandbox.pipe("run p.yaml --threads 1 --keep-going");
    assert_eq!(output.code, 1);
    for line in ["stage `bad` failed", "stage `worse` failed", "2 ran, 2 failed, 3 skipped in"] {
        assert!(output.err.contains(line), "{line}:\n{}", output.err);
    }
}

#[test]
fn a_source_that_is_not_there_stops_only_what_needs_it() {
    let sandbox = Sandbox::with_stages(
        "
  rows: { uses: files, with: { value: in.txt } }
  text: { uses: change, inputs: { rows: rows } }
  good: { uses: make, with: { value: good } }
",
    );
    let output = sandbox.pipe("run p.yaml --threads 1 --keep-going --json");
    assert_eq!((output.code, output.outcomes().as_str()), (1, "good ran, rows failed, text skipped"));
}
