//! Several processes at a time: on one store a stage runs once, on one machine a GPU or memory is granted once.

use std::fs;

use serde_json::Value;

use crate::sandbox::Sandbox;
use crate::signals::Running;

/// The events of all runs in a sandbox.
fn events(sandbox: &Sandbox) -> Vec<Value> {
    let runs = fs::read_dir(sandbox.path(".pipe/runs")).expect("runs");
    let texts =
        runs.map(|run| fs::read_to_string(run.expect("readable").path().join("events.jsonl")).expect("recorded"));
    let lines: Vec<String> = texts.flat_map(|text| text.lines().map(str::to_string).collect::<Vec<_>>()).collect();
    lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// How often a stage had this outcome.
fn count(events: &[Value], stage: &str, outcome: &str) -> usize {
    let is_it =
        |event: &&Value| event["event"] == "stage_finished" && event["stage"] == stage && event["outcome"] == outcome;
    events.iter().filter(is_it).count()
}

#[test]
fn two_processes_on_one_store_run_each_stage_once() {
    let sandbox = Sandbox::with_stages(
        "
  rows: { uses: make, with: { value: hello } }
  slow: { uses: change, inputs: { rows: rows }, with: { suffix: '!', label: slow } }
  last: { uses: change, inputs: { rows: slow }, with: { suffix: '?' } }
",
    );
    sandbox.behave("slow", "hold");
    let mut first = Running::spawn(&sandbox, &[]);
    first.wait_for("slow  | waiting");
    let mut second = Running::spawn(&sandbox, &[]);
    second.wait_for(&format!("slow  | process {} makes the same outputs: waiting for it", first.id()));
    sandbox.behave("slow", "well");
    for running in [first, second] {
        let (code, err) = running.end();
        assert_eq!(code, Some(0), "{err}");
    }
    let events = events(&sandbox);
    for stage in ["rows", "slow", "last"] {
        assert_eq!((count(&events, stage, "ran"), count(&events, stage, "reused")), (1, 1), "{stage}");
    }
}

/// Two sandboxes, each with a stage `slow` with these resources that holds on until it is released; in the second there is a stage
/// that asks for nothing.
fn two_with(resources: &str) -> (Sandbox, Sandbox) {
    let slow = format!("  slow: {{ uses: make, with: {{ value: x, label: slow }}, resources: {{ {resources} }} }}\n");
    let first = Sandbox::with_stages(&slow);
    let second = Sandbox::with_stages(&format!("{slow}  free: {{ uses: make, with: {{ value: y }} }}\n"));
    first.behave("slow", "hold");
    (first, second)
}

/// The first process has what the second waits for, until it ends or is killed.
fn expect_one_after_the_other(resources: &str, what: &str) {
    for is_killed in [false, true] {
        let ledger = Sandbox::new();
        let folder = ledger.path("ledger").display().to_string();
        let environment = [("PIPE_LEDGER", folder.as_str()), ("PIPE_PRETEND_GPUS", "1")];
        let (one, other) = two_with(resources);
        let mut first = Running::spawn(&one, &environment);
        first.wait_for("slow  | waiting");
        let mut second = Running::spawn(&other, &environment);
        second.wait_for(&format!("slow  | process {} holds {what} it asks for: waiting for it", first.id()));
        second.wait_for_start("free  ran in ");
        if is_killed {
            first.send("-KILL");
        } else {
            one.behave("slow", "well");
        }
        second.wait_for("slow  started, 2 threads");
        assert_eq!(first.end().0, if is_killed { None } else { Some(0) });
        let (code, err) = second.end();
        assert_eq!(code, Some(0), "{err}");
        let waits =
            events(&other).iter().filter(|event| event["line"].as_str().is_some_and(|l| l.contains("holds"))).count();
        assert_eq!(waits, 1, "it says once whom it waits for");
        let left = fs::read_dir(&folder).expect("it was made").count();
        assert_eq!(left, 0, "nothing is left in the ledger");
    }
}

#[test]
fn two_processes_never_take_the_same_gpu() {
    expect_one_after_the_other("gpu: 1", "the GPU");
}

#[test]
fn two_processes_never_take_more_memory_than_there_is() {
    let meminfo = fs::read_to_string("/proc/meminfo").expect("this is Linux");
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).expect("it is there");
    let kibibytes: u64 = line.trim().strip_suffix("kB").expect("its unit").trim().parse().expect("a number");
    expect_one_after_the_other(&format!("memory: {}KiB", kibibytes / 10 * 6), "the memory");
}

#[test]
fn two_gpus_are_for_two_processes() {
    let ledger = Sandbox::new();
    let folder = ledger.path("ledger").display().to_string();
    let environment = [("PIPE_LEDGER", folder.as_str()), ("PIPE_PRETEND_GPUS", "2")];
    let (one, other) = two_with("gpu: 1");
    let mut first = Running::spawn(&one, &environment);
    first.wait_for("slow  | waiting");
    let (code, err) = Running::spawn(&other, &environment).end();
    assert_eq!(code, Some(0), "{err}");
    one.behave("slow", "well");
    assert_eq!(first.end().0, Some(0));
    let gpus = |sandbox: &Sandbox| -> Vec<Value> {
        let events = events(sandbox);
        events.iter().filter(|event| event["stage"] == "slow").filter_map(|event| event.get("gpus").cloned()).collect()
    };
    assert_eq!((gpus(&one), gpus(&other)), (vec![serde_json::json!([0])], vec![serde_json::json!([1])]));
}
