//! What a plan will cost, and a run that the disk will not hold.

use pipe_lm::cli::Environment;

use crate::sandbox::Sandbox;

const STAGES: &str = "
  rows: { uses: make, with: { value: hello } }
  text: { uses: change, inputs: { rows: rows }, with: { suffix: -world } }
  last: { uses: join, inputs: { rows: text } }
";

fn with_free(bytes: u64) -> Environment {
    Environment { pretended_free_bytes: Some(bytes), ..Environment::default() }
}

#[test]
fn what_ran_before_is_predicted_and_what_did_not_is_unknown() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    let other = "plan p.yaml --set stages.rows.with.value=other";
    screen!(sandbox.pipe(other), @r"
    exit code: 0
    ----- stdout
    rows  make    run      ~ [time], 5 B  never made with these settings and inputs
    text  change  pending  ~ [time], 11 B  depends on what `rows` gives
    last  join    pending  ~ [time], 11 B  depends on what `text` gives
    3 stages: 1 run, 2 pending
    what runs takes [time] and adds 27 B to the store
    ----- stderr
    ");
    let more = format!("{STAGES}  more: {{ uses: join, inputs: {{ rows: last }} }}\n");
    sandbox.write_stages(&more);
    screen!(sandbox.pipe(other), @r"
    exit code: 0
    ----- stdout
    rows  make    run      ~ [time], 5 B  never made with these settings and inputs
    text  change  pending  ~ [time], 11 B  depends on what `rows` gives
    last  join    pending  ~ [time], 11 B  depends on what `text` gives
    more  join    pending  ~ time and size unknown  depends on what `last` gives
    4 stages: 1 run, 3 pending
    what runs takes at least [time] and adds at least 27 B to the store
    ----- stderr
    ");
    let json: serde_json::Value =
        serde_json::from_str(&sandbox.pipe(&format!("{other} --json")).out).expect("an object");
    assert_eq!(json["predicted"]["bytes"], serde_json::json!({ "value": 27, "is_at_least": true }));
    assert_eq!(json["predicted"]["duration_ms"]["is_at_least"], true);
    assert!(json["predicted"]["duration_ms"]["value"].is_u64());
    assert_eq!(json["stages"][1]["predicted"]["bytes"], serde_json::json!({ "value": 11, "is_at_least": false }));
    assert!(json["stages"][1]["predicted"]["duration_ms"].is_u64());
    assert_eq!(json["stages"][3]["predicted"], serde_json::json!({ "duration_ms": null, "bytes": null }));
}

#[test]
fn only_files_that_are_gone_are_written_again() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    sandbox.remove_blob("hello");
    screen!(sandbox.pipe("plan p.yaml --set stages.text.with.suffix=x"), @r"
    exit code: 0
    ----- stdout
    rows  make    run      ~ [time], 5 B  a file that `text` needs is gone or changed
    text  change  run      ~ [time], 11 B  never made with these settings and inputs
    last  join    pending  ~ [time], 11 B  depends on what `text` gives
    3 stages: 2 run, 1 pending
    what runs takes [time] and adds 27 B to the store
    ----- stderr
    ");
}

#[test]
fn a_run_that_the_disk_will_not_hold_does_not_begin() {
    let sandbox = Sandbox::with_stages(STAGES);
    // Nothing is known of it, so it begins on the smallest disk.
    assert_eq!(sandbox.pipe_in("run p.yaml", with_free(0)).code, 0);
    let other = "run p.yaml --set stages.rows.with.value=other";
    screen!(sandbox.pipe_in(other, with_free(5_000_000)), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[disk-space]: the disk of `.pipe` has 5.0 MB free, but this run will write about 27 B to it, and 16.8 MB are kept free
    help: `pipe cache gc` says what can be removed, `--store DIR` is for another disk, `--no-space-check` runs anyway
    note: most of it: `text` 11 B, `last` 11 B, `rows` 5 B
    ");
    assert!(!sandbox.pipe("runs").out.contains("failed"));
    assert_eq!(sandbox.pipe_in(other, with_free(17_000_000)).code, 0);
    let third = "run p.yaml --no-space-check --set stages.rows.with.value=third";
    assert_eq!(sandbox.pipe_in(third, with_free(0)).code, 0);
    // Nothing to do needs no room.
    assert_eq!(sandbox.pipe_in("run p.yaml", with_free(0)).code, 0);
}
