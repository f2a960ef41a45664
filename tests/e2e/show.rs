//! `pipe show`: looks into outputs.

use crate::sandbox::Sandbox;

const STAGES: &str = "
  rows: { uses: make, with: { value: hello } }
  text: { uses: change, inputs: { rows: rows } }
";

#[test]
fn it_shows_what_was_made_with_these_settings() {
    let sandbox = Sandbox::with_stages(STAGES);
    screen!(sandbox.pipe("show p.yaml text"), @r"
    exit code: 1
    ----- stdout
    ----- stderr
    error[not-made]: stage `text` has not run with these settings
    help: make it with: pipe run p.yaml
    ");
    sandbox.outcomes("run p.yaml --set stages.rows.with.value=other");
    screen!(sandbox.pipe("show p.yaml text"), @r"
    exit code: 1
    ----- stdout
    ----- stderr
    error[not-made]: stage `text` has not run with these settings
    help: make it with: pipe run p.yaml
    ");
    screen!(sandbox.pipe("show text.rows -n 2"), @r"
    exit code: 0
    ----- stdout
    rows, 2 rows: other
    ----- stderr
    ");
}

#[test]
fn wrong_names_get_the_nearest() {
    let sandbox = Sandbox::with_stages(STAGES);
    screen!(sandbox.pipe("show p.yaml txt"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[unknown-stage]: `[dir]/p.yaml` has no stage `txt`
    help: did you mean `text`?
    ");
    screen!(sandbox.pipe("show p.yaml text.row"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[unknown-output]: stage `text` has no output `row`
    help: did you mean `rows`?
    ");
}

#[test]
fn files_that_are_gone_are_named() {
    let sandbox = Sandbox::with_stages("  rows: { uses: make, with: { value: hello } }\n");
    sandbox.outcomes("run p.yaml");
    sandbox.remove_blob("hello");
    let output = sandbox.pipe("show rows");
    assert_eq!(output.code, 1);
    assert!(output.err.contains("error[files-gone]: the files of stage `rows` are gone or changed"), "{}", output.err);
}
