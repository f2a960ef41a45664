//! `pipe trace`: a run in the Trace Event Format.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::sandbox::Sandbox;

const STAGES: &str = "
  rows: { uses: make, with: { value: hello } }
  one:  { uses: meet, with: { room: trace, value: a } }
  two:  { uses: meet, with: { room: trace, value: b } }
  text: { uses: change, inputs: { rows: rows }, needs: [one, two], with: { suffix: '!', label: text } }
";

fn events(sandbox: &Sandbox, arguments: &str) -> Vec<Value> {
    let output = sandbox.pipe(arguments);
    assert_eq!(output.code, 0, "{}", output.err);
    let trace: Value = serde_json::from_str(&output.out).expect("JSON");
    trace["traceEvents"].as_array().expect("a list").clone()
}

fn number(event: &Value, key: &str) -> u64 {
    event[key].as_u64().unwrap_or_else(|| panic!("`{key}` of {event}"))
}

#[test]
fn the_form_is_what_viewers_read() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml --threads 2");
    let events = events(&sandbox, "trace --out -");
    let tracks: Vec<u64> =
        events.iter().filter(|event| event["name"] == "thread_name").map(|event| number(event, "tid")).collect();
    assert!(events.iter().any(|event| event["name"] == "process_name"));
    let mut last_at = 0;
    let mut spans: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    for event in &events {
        let (at, track) = (number(event, "ts"), number(event, "tid"));
        assert!(last_at <= at, "sorted by time: {event}");
        last_at = at;
        assert_eq!(number(event, "pid"), 1);
        assert!(tracks.contains(&track), "a track with a name: {event}");
        assert!(event["name"].is_string() && event["args"].is_object(), "{event}");
        match event["ph"].as_str() {
            Some("X") => spans.entry(track).or_default().push((at, at + number(event, "dur"))),
            Some("i") => assert_eq!(event["s"], "t"),
            Some("C") => assert!(event["args"].as_object().is_some_and(|args| args.values().all(Value::is_number))),
            Some("M") => assert_eq!(at, 0),
            other => panic!("{other:?} is neither a span, an instant, a counter nor a name"),
        }
    }
    assert_eq!(spans.values().map(Vec::len).sum::<usize>(), 4, "each stage is a span");
    assert!(spans.len() >= 2, "`one` and `two` wait for each other, so they ran side by side");
    for (track, spans) in spans {
        assert!(
            spans.windows(2).all(|pair| pair[0].1 <= pair[1].0),
            "slot {track} holds one stage at a time: {spans:?}"
        );
    }
}

#[test]
fn what_went_wrong_and_what_was_reused_are_marked() {
    let sandbox = Sandbox::with_stages(
        "  rows: { uses: make }\n  text: { uses: change, inputs: { rows: rows }, with: { label: text } }\n",
    );
    sandbox.outcomes("run p.yaml --until rows");
    sandbox.behave("text", "fail");
    assert_eq!(sandbox.pipe("run p.yaml").code, 1);
    let events = events(&sandbox, "trace --out -");
    let names: Vec<&str> =
        events.iter().filter(|event| event["ph"] == "i").filter_map(|event| event["name"].as_str()).collect();
    assert_eq!(names, ["reused: rows", "failed: text"]);
    let failed = events.iter().find(|event| event["name"] == "text").expect("a span");
    assert_eq!(failed["args"]["outcome"], "failed");
}

#[test]
fn it_lies_in_the_runs_folder_or_where_it_is_wanted() {
    let sandbox = Sandbox::with_stages("  rows: { uses: make }\n");
    assert_eq!(sandbox.pipe("trace").code, 2);
    sandbox.outcomes("run p.yaml");
    screen!(sandbox.pipe("trace"), @r"
    exit code: 0
    ----- stdout
    .pipe/runs/[run]/trace.json
    ----- stderr
    ");
    screen!(sandbox.pipe("trace --out there.json --json"), @r#"
    exit code: 0
    ----- stdout
    {"format_version":1,"run_id":"[run]","trace":"there.json"}
    ----- stderr
    "#);
    assert!(sandbox.read("there.json").contains("traceEvents"));
    screen!(sandbox.pipe("trace --out no/such/there.json"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[unwritable-trace]: failed to write `no/such/there.json`: No such file or directory (os error 2)
    help: `--out FILE` writes it elsewhere
    ");
}
