//! `pools:`: no more at a time than their size; and which of several stages starts first.

use std::fs;

use crate::sandbox::Sandbox;

fn pipeline(pools: &str, stages: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("p.yaml", &format!("version: 1\n{pools}\nstages:\n{stages}"));
    sandbox
}

const STAGES: &str = "
  one: { uses: make, with: { value: one }, resources: { pools: { hub: 1 } } }
  two: { uses: make, with: { value: two }, resources: { pools: { hub: 1 } } }
";

#[test]
fn no_more_stages_at_a_time_than_the_pool_holds() {
    // On two threads two stages start before the end of either is heard of.
    for (size, is_one_at_a_time) in [(1, true), (2, false)] {
        let sandbox = pipeline(&format!("pools: {{ hub: {size} }}"), STAGES);
        let output = sandbox.pipe("run p.yaml --threads 2");
        let position = |line: &str| output.err.find(line).unwrap_or_else(|| panic!("no `{line}` in\n{}", output.err));
        assert_eq!(position("one  ran") < position("two  started"), is_one_at_a_time, "size {size}:\n{}", output.err);
    }
}

#[test]
fn pools_are_in_no_key() {
    let sandbox = pipeline("pools: { hub: 1 }", STAGES);
    sandbox.outcomes("run p.yaml");
    sandbox
        .write("p.yaml", &format!("version: 1\nstages:\n{}", STAGES.replace(", resources: { pools: { hub: 1 } }", "")));
    assert_eq!(sandbox.outcomes("run p.yaml"), "one reused, two reused");
}

#[test]
fn what_took_longest_in_earlier_runs_starts_first() {
    let stages = "
  short: { uses: make, with: { value: short } }
  long:  { uses: make, with: { value: long } }
";
    let sandbox = Sandbox::with_stages(stages);
    let order = |sandbox: &Sandbox| {
        let output = sandbox.pipe("run p.yaml --threads 1");
        let started = output.err.lines().filter(|line| line.contains("started"));
        started.map(|line| line.split(' ').next().expect("a name").to_string()).collect::<Vec<_>>()
    };
    assert_eq!(order(&sandbox), ["short", "long"], "without history in file order");
    let run = fs::read_dir(sandbox.path(".pipe/runs")).expect("runs").next().expect("one").expect("readable").path();
    let events = fs::read_to_string(run.join("events.jsonl")).expect("recorded");
    let edited: Vec<String> = events
        .lines()
        .map(|line| {
            let mut event: serde_json::Value = serde_json::from_str(line).expect("JSON");
            if event["event"] == "stage_finished" && event["stage"] == "long" {
                event["duration_ms"] = 60_000.into();
            }
            event.to_string()
        })
        .collect();
    fs::write(run.join("events.jsonl"), edited.join("\n")).expect("a file can be written");
    sandbox.write_stages(&stages.replace("value: ", "suffix: x, value: "));
    assert_eq!(order(&sandbox), ["long", "short"]);
}
