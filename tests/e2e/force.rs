//! `pipe run --force STAGE`: it runs although it was made before, and what comes of other bytes.

use crate::sandbox::Sandbox;

const STAGES: &str = "
  rows: { uses: make, with: { value: hello } }
  text: { uses: change, inputs: { rows: rows }, with: { suffix: '!', label: text } }
  last: { uses: join, inputs: { rows: text } }
";

#[test]
fn a_forced_stage_runs_and_what_takes_the_same_bytes_does_not() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    assert_eq!(sandbox.outcomes("run p.yaml --force text"), "last reused, rows reused, text ran");
    assert_eq!(sandbox.outcomes("run p.yaml --force last --force rows"), "last ran, rows ran, text reused");
    assert_eq!(sandbox.outcomes("run p.yaml"), "last reused, rows reused, text reused");
}

#[test]
fn one_that_waits_for_another_is_forced_too() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml --set stages.rows.with.value=bye");
    sandbox.outcomes("run p.yaml");
    // The inputs of `text` are not known before `rows` has run, and then it turns out to be there.
    sandbox.write_stages(&STAGES.replace("value: hello", "value: hello, first: 5"));
    assert_eq!(sandbox.outcomes("run p.yaml --force text"), "last reused, rows ran, text ran");
}

#[test]
fn names_that_no_stage_has_are_all_named() {
    let sandbox = Sandbox::with_stages(STAGES);
    screen!(sandbox.pipe("run p.yaml --force txt --force text --force zzz"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[unknown-stage]: `[dir]/p.yaml` has no stage `txt`
    help: did you mean `text`?

    error[unknown-stage]: `[dir]/p.yaml` has no stage `zzz`
    help: its stages are `rows`, `text`, `last`
    ");
}

#[test]
fn other_bytes_are_a_divergence_and_the_first_ones_stay() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    sandbox.behave("text", "other");
    screen!(sandbox.pipe("run p.yaml --force text --threads 1"), @r"
    exit code: 0
    ----- stdout
    ----- stderr
    text  started, 1 thread
    text  warning: it gave other bytes than an earlier execution with the same fingerprint: both are kept
    text  ran in [time]

    rows  reused  characters 5
    text  ran  characters 16
    last  reused  characters 6

    2 reused, 1 ran in [time]
    everything in .pipe
    as a page with charts: pipe report
    warning: text: it gave other bytes than an earlier execution with the same fingerprint: both are kept
    ");
    screen!(sandbox.pipe("show p.yaml text"), @r"
    exit code: 0
    ----- stdout
    rows, 5 rows: hello!
    ----- stderr
    ");
    let texts: Vec<String> = sandbox.blobs().iter().map(|blob| std::fs::read_to_string(blob).expect("text")).collect();
    assert!(texts.contains(&"hello! otherwise".to_string()), "{texts:?}");
}

#[test]
fn a_forced_stage_does_not_go_on_from_a_checkpoint() {
    let sandbox = Sandbox::with_stages(
        "
  rows: { uses: make, with: { value: hello } }
  text: { uses: grow, inputs: { rows: rows }, with: { suffix: a } }
",
    );
    let goes_on_from = |arguments: &str| {
        let output = sandbox.pipe(&format!("{arguments} --json"));
        let line = output.out.lines().find(|line| line.contains("goes on from")).expect("a fact").to_string();
        let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        event["value"].as_str().expect("text").to_string()
    };
    assert_eq!(goes_on_from("run p.yaml"), "nothing");
    assert_eq!(goes_on_from("run p.yaml --set stages.text.with.suffix=b"), "a");
    assert_eq!(goes_on_from("run p.yaml --set stages.text.with.suffix=b --force text"), "nothing");
    assert_eq!(goes_on_from("run p.yaml --set stages.text.with.suffix=c"), "b");
}
