//! `pipe runs` and `pipe diff`: what was run, and what is not the same in two runs.

use std::fs;

use crate::sandbox::Sandbox;

const STAGES: &str = "
  rows: { uses: make, with: { value: hello } }
  text: { uses: change, inputs: { rows: rows }, with: { suffix: '!', label: text } }
  last: { uses: join, inputs: { rows: text, more: rows } }
";

fn run_ids(sandbox: &Sandbox) -> Vec<String> {
    let entries = fs::read_dir(sandbox.path(".pipe/runs")).expect("runs");
    let mut ids: Vec<String> =
        entries.map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8")).collect();
    ids.sort();
    ids
}

#[test]
fn runs_are_listed_newest_first_and_marked() {
    let sandbox = Sandbox::with_stages(STAGES);
    screen!(sandbox.pipe("runs"), @r"
    exit code: 0
    ----- stdout
    ----- stderr
    ");
    sandbox.outcomes("run p.yaml");
    sandbox.outcomes("run p.yaml --set stages.text.with.suffix=X");
    sandbox.behave("text", "other");
    sandbox.outcomes("run p.yaml --force text");
    sandbox.behave("text", "fail");
    assert_eq!(sandbox.pipe("run p.yaml --force text").code, 1);
    sandbox.behave("text", "cancel");
    assert_eq!(sandbox.pipe("run p.yaml --force text").code, 130);
    // A run that was killed has no end.
    let ids = run_ids(&sandbox);
    let path = format!(".pipe/runs/{}/events.jsonl", ids[1]);
    let events = sandbox.read(&path);
    sandbox.write(&path, &events[..events.rfind("{\"at_ms\"").expect("a last event")]);
    let list = sandbox.pipe("runs");
    insta::with_settings!({ filters => vec![
        (r"\b\d{8}-\d{6}-[0-9a-f]{4}\b", "[run]"),
        (r" +\d+(\.\d)? m?s  ", "  [time]  "),
    ] }, {
        insta::assert_snapshot!(list.screen(), @r"
        exit code: 0
        ----- stdout
        [run]  interrupted  1 reused, 2 cancelled  [time]  pipe run p.yaml
        [run]  failed       1 reused, 1 failed, 1 skipped  [time]  pipe run p.yaml
        [run]  ok           1 ran, 2 reused, 1 diverged  [time]  pipe run p.yaml
        [run]  no end       2 ran, 1 reused                             pipe run p.yaml --set stages.text.with.suffix=X
        [run]  ok           3 ran  [time]  pipe run p.yaml
        ----- stderr
        ");
    });
    assert_eq!(sandbox.pipe("runs -n 2").out.lines().count(), 2);
    let json: serde_json::Value = serde_json::from_str(&sandbox.pipe("runs --json").out).expect("JSON");
    let words: Vec<&str> =
        json["runs"].as_array().expect("a list").iter().map(|run| run["result"].as_str().expect("a word")).collect();
    assert_eq!(words, ["interrupted", "failed", "ok", "no end", "ok"]);
    assert_eq!(json["runs"][2]["stages"][1]["is_divergent"], true);
}

#[test]
fn a_run_is_shown_again() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    sandbox.behave("text", "fail");
    sandbox.pipe("run p.yaml --force text");
    let ids = run_ids(&sandbox);
    screen!(sandbox.pipe(&format!("runs {}", ids[0])), @r"
    exit code: 0
    ----- stdout
    [run]  ok  pipe run p.yaml

    rows  ran  characters 5
    text  ran  characters 6
    last  ran  characters 11

    3 ran in [time]
    everything in .pipe
    as a page with charts: pipe report [run]
    ----- stderr
    ");
    screen!(sandbox.pipe(&format!("runs {}", ids[1])), @r"
    exit code: 0
    ----- stdout
    [run]  failed  pipe run p.yaml

    rows  reused  characters 5
    text  failed
    last  skipped  it needs `text`, which failed

    error[bad-row]: stage `text` failed: failed to read the rows: row 2 is damaged
    help: repair row 2
    its last lines:
      | reading row 1
      | reading row 2
    log: .pipe/runs/[run]/text.log
    kept: 1 finished stage
    go on with: pipe run p.yaml

    1 reused, 1 failed, 1 skipped in [time]
    everything in .pipe
    as a page with charts: pipe report [run]
    ----- stderr
    ");
    let json: serde_json::Value =
        serde_json::from_str(&sandbox.pipe(&format!("runs {} --json", ids[0])).out).expect("JSON");
    assert_eq!(json["stages"][0]["facts"]["characters"], "5");
    assert_eq!(sandbox.pipe("runs 1999").code, 2);
}

#[test]
fn two_runs_differ_in_settings_facts_and_outputs() {
    let sandbox = Sandbox::with_stages(STAGES);
    screen!(sandbox.pipe("diff"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[no-last-run]: there is no run in `.pipe`
    help: `pipe run FILE` makes one
    ");
    sandbox.outcomes("run p.yaml");
    screen!(sandbox.pipe("diff"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[no-other-run]: there is only one run: nothing to compare it with
    ");
    sandbox.write_stages(
        "
  rows: { uses: make, with: { value: hello } }
  text: { uses: change, inputs: { rows: rows }, with: { suffix: '!?', label: text } }
  end: { uses: join, inputs: { rows: text } }
",
    );
    sandbox.outcomes("run p.yaml");
    screen!(sandbox.pipe("diff"), @r"
    exit code: 0
    ----- stdout
    [run] -> [run]
    text  with.suffix: ! -> !?
          characters: 6 -> 7
          rows/value.txt: 6 bytes -> 7 bytes; equal up to the end of the shorter one
    end   only in the second
    last  only in the first
    4 stages: 1 the same
    ----- stderr
    ");
    let ids = run_ids(&sandbox);
    let back = sandbox.pipe(&format!("diff {} {} --json", ids[1], ids[0]));
    let json: serde_json::Value = serde_json::from_str(&back.out).expect("JSON");
    assert_eq!(json["stages"][1]["settings"][0], serde_json::json!({ "name": "with.suffix", "old": "!?", "new": "!" }));
    assert_eq!(json["stages"][3]["place"], "first");
    assert_eq!(sandbox.pipe(&format!("diff {}", ids[1])).out.lines().last(), Some("3 stages: 3 the same"));
}
