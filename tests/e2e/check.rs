//! `pipe check`: the command. What it can find is tested in `tests/check.rs`.

use crate::sandbox::Sandbox;

#[test]
fn a_good_and_a_bad_file() {
    let sandbox = Sandbox::with_stages("  rows: { uses: make, with: { value: hello } }\n");
    sandbox.write("bad.yaml", "version: 1\nstages:\n  rows: { uses: mak, wiht: {} }\n");
    screen!(sandbox.pipe("check p.yaml"), @r"
    exit code: 0
    ----- stdout
    p.yaml: 1 stage, no problems
    ----- stderr
    ");
    screen!(sandbox.pipe("check p.yaml bad.yaml"), @r"
    exit code: 2
    ----- stdout
    p.yaml: 1 stage, no problems
    error[unknown-kind]: stage `rows` uses `mak`, but there is no such stage kind
     --> [dir]/bad.yaml:3:17
      |
    3 |   rows: { uses: mak, wiht: {} }
      |                 ^^^
    help: did you mean `make`?

    error[unknown-key]: unknown key `wiht` in stage `rows`
     --> [dir]/bad.yaml:3:22
      |
    3 |   rows: { uses: mak, wiht: {} }
      |                      ^^^^
    help: did you mean `with`?

    bad.yaml: 2 problems
    ----- stderr
    ");
    screen!(sandbox.pipe("check bad.yaml --json"), @r#"
    exit code: 2
    ----- stdout
    {"file":"bad.yaml","format_version":1,"problems":[{"help":"did you mean `make`?","location":{"column":17,"file":"[dir]/bad.yaml","length":3,"line":3},"message":"stage `rows` uses `mak`, but there is no such stage kind","notes":[],"slug":"unknown-kind"},{"help":"did you mean `with`?","location":{"column":22,"file":"[dir]/bad.yaml","length":4,"line":3},"message":"unknown key `wiht` in stage `rows`","notes":[],"slug":"unknown-key"}]}
    ----- stderr
    "#);
    assert!(!sandbox.path(".pipe").exists(), "checking needs no store");
}

#[test]
fn a_run_of_a_bad_file_reports_the_same() {
    let sandbox = Sandbox::with_stages("  rows: { uses: mak }\n");
    let (checked, run) = (sandbox.pipe("check p.yaml"), sandbox.pipe("run p.yaml"));
    assert_eq!((checked.code, run.code), (2, 2));
    assert!(checked.out.starts_with(&run.err), "{}\n{}", checked.out, run.err);
}
