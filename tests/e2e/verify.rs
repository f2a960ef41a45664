//! `pipe verify`: the same bytes again, or what differs; and what a fresh clone can compare with.

use std::fs;

use crate::sandbox::Sandbox;

const STAGES: &str = "
  rows: { uses: make, with: { value: hello } }
  text: { uses: change, inputs: { rows: rows }, with: { suffix: '!', label: text } }
  last: { uses: join, inputs: { rows: text }, to: out }
";

/// The stages and what came of each, from the JSON.
fn results(sandbox: &Sandbox, arguments: &str) -> (u8, String) {
    let output = sandbox.pipe(&format!("verify p.yaml --json {arguments}"));
    let json: serde_json::Value = serde_json::from_str(&output.out).unwrap_or_else(|_| panic!("{}", output.screen()));
    let word = |stage: &serde_json::Value, name: &str| stage[name].as_str().expect("text").to_string();
    let stages = json["stages"].as_array().expect("a list").iter();
    let results: Vec<String> = stages.map(|s| format!("{} {}", word(s, "stage"), word(s, "result"))).collect();
    (output.code, results.join(", "))
}

#[test]
fn the_same_bytes_again() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    fs::remove_dir_all(sandbox.path("out")).expect("it was placed");
    screen!(sandbox.pipe("verify p.yaml --threads 1"), @r"
    exit code: 0
    ----- stdout
    rows  same
    text  same
    last  same
    3 stages: 3 same
    ----- stderr
    rows  started, 1 thread
    rows  ran in [time]
    text  started, 1 thread
    text  ran in [time]
    last  started, 1 thread
    last  ran in [time]
    ");
    assert!(!sandbox.path("out").exists(), "verifying places nothing");
    assert_eq!(fs::read_dir(sandbox.path(".pipe/tmp")).expect("there").count(), 0, "its store is left");
    assert_eq!(sandbox.outcomes("run p.yaml"), "last reused, rows reused, text reused");
}

#[test]
fn other_bytes_are_named_and_kept_and_doubt_nothing_else() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    sandbox.behave("text", "other");
    screen!(sandbox.pipe("verify p.yaml --threads 1 --junit verify.xml"), @r"
    exit code: 4
    ----- stdout
    rows  same
    text  differs  from what the store has and what the lock file says
          rows/value.txt: 6 bytes -> 16 bytes; equal up to the end of the shorter one
    last  same
    3 stages: 2 same, 1 differs
    ----- stderr
    rows  started, 1 thread
    rows  ran in [time]
    text  started, 1 thread
    text  warning: it gave other bytes than an earlier execution with the same fingerprint: both are kept
    text  ran in [time]
    last  started, 1 thread
    last  ran in [time]
    ");
    insta::with_settings!({ filters => vec![(r#"time="\d+\.\d+""#, "time=[s]")] }, {
        insta::assert_snapshot!(sandbox.read("verify.xml"), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites>
          <testsuite name="pipe verify p" tests="3" failures="1" errors="0" skipped="0" time=[s]>
            <testcase classname="p" name="rows" time=[s]/>
            <testcase classname="p" name="text" time=[s]><failure message="differs from what the store has and what the lock file says">rows/value.txt: 6 bytes -&gt; 16 bytes; equal up to the end of the shorter one</failure></testcase>
            <testcase classname="p" name="last" time=[s]/>
          </testsuite>
        </testsuites>
        "#);
    });
    sandbox.behave("text", "well");
    screen!(sandbox.pipe("verify p.yaml --stage text --stage rows --threads 1"), @r"
    exit code: 0
    ----- stdout
    rows  same
    text  same  1 other result of an earlier execution, kept in the store
    2 stages: 2 same
    ----- stderr
    rows  started, 1 thread
    rows  ran in [time]
    text  started, 1 thread
    text  ran in [time]
    ");
    assert_eq!(sandbox.outcomes("run p.yaml"), "last reused, rows reused, text reused");
}

#[test]
fn one_stage_runs_on_the_inputs_that_stand() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    assert_eq!(results(&sandbox, "--stage text"), (0, "rows not-asked, text same".into()));
    // Where those are gone, they are made again first.
    sandbox.remove_blob("hello");
    assert_eq!(results(&sandbox, "--stage text"), (0, "rows same, text same".into()));
    assert_eq!(sandbox.pipe("verify p.yaml --stage txt").code, 2);
}

#[test]
fn a_fresh_clone_has_its_lock_file() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    fs::remove_dir_all(sandbox.path(".pipe")).expect("the store");
    assert_eq!(results(&sandbox, ""), (0, "rows same, text same, last same".into()));
    sandbox.behave("text", "other");
    screen!(sandbox.pipe("verify p.yaml --threads 1"), @r"
    exit code: 4
    ----- stdout
    rows  same
    text  differs       from what the lock file says
          rows: digest f7e323518cc9 -> 292fb92f8976; the bytes of before are not there to compare
    last  other inputs  a stage before it gave other bytes, and nothing stands to run it on
    3 stages: 1 same, 1 differs, 1 other inputs
    ----- stderr
    rows  started, 1 thread
    rows  ran in [time]
    text  started, 1 thread
    text  ran in [time]
    last  started, 1 thread
    last  ran in [time]
    ");
}

#[test]
fn nobody_knows_what_was_never_made() {
    let sandbox = Sandbox::with_stages(STAGES);
    screen!(sandbox.pipe("verify p.yaml"), @r"
    exit code: 3
    ----- stdout
    ----- stderr
    error[nothing-to-compare]: there is nothing to compare with: neither the store nor `[dir]/p.lock` has outputs of these stages
    help: make them first: pipe run [dir]/p.yaml
    ");
    sandbox.outcomes("run p.yaml");
    let changed = "--set stages.text.with.suffix=X";
    assert_eq!(results(&sandbox, changed), (3, "rows same, text unknown, last unknown".into()));
    assert_eq!(results(&sandbox, &format!("{changed} --stage rows")), (0, "rows same".into()));
}

#[test]
fn a_stage_that_fails_leaves_no_verdict() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    sandbox.behave("text", "fail");
    screen!(sandbox.pipe("verify --threads 1"), @r"
    exit code: 1
    ----- stdout
    rows  same
    text  not run  failed to read the rows: row 2 is damaged
    last  not run  it needs `text`, which failed
    3 stages: 1 same, 2 not run
    ----- stderr
    rows  started, 1 thread
    rows  ran in [time]
    text  started, 1 thread
    text  | reading row 1
    text  | reading row 2
    text  failed after [time]
    ");
    sandbox.behave("text", "panic");
    assert_eq!(sandbox.pipe("verify").code, 70);
    sandbox.behave("text", "cancel");
    assert_eq!(sandbox.pipe("verify").code, 130);
}

#[test]
fn nothing_is_gone_on_from() {
    let sandbox = Sandbox::with_stages(
        "
  rows: { uses: make, with: { value: hello } }
  text: { uses: grow, inputs: { rows: rows }, with: { suffix: a } }
",
    );
    sandbox.outcomes("run p.yaml");
    let output = sandbox.pipe("verify p.yaml --threads 1");
    assert!(output.out.contains("2 same"), "{}", output.screen());
    // The checkpoint is as the run left it.
    let run = sandbox.pipe("run p.yaml --set stages.text.with.suffix=b --json");
    assert!(run.out.contains(r#""name":"goes on from","value":"a""#), "{}", run.out);
}

#[test]
fn another_compute_class_is_another_fingerprint() {
    let sandbox = Sandbox::with_stages("  work: { uses: classy, with: { value: x } }\n");
    sandbox.outcomes("run p.yaml");
    assert_eq!(results(&sandbox, ""), (0, "work same".into()));
    assert_eq!(results(&sandbox, "--set stages.work.with.class=fake-2"), (3, "work unknown".into()));
}

#[test]
fn a_remote_source_stays_at_its_revision() {
    let sandbox = Sandbox::with_stages("  data: { uses: remote, with: { value: of-verify } }\n");
    crate::kinds::set_remote("of-verify", "11");
    sandbox.outcomes("run p.yaml");
    crate::kinds::set_remote("of-verify", "22");
    assert_eq!(results(&sandbox, ""), (0, "data same".into()));
    // Without the lock file, the store remembers.
    fs::remove_file(sandbox.path("p.lock")).expect("a lock file");
    assert_eq!(results(&sandbox, ""), (0, "data same".into()));
    assert_eq!(crate::kinds::n_questions("of-verify"), 1);
}
