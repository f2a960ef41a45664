//! `pipe run`: what runs again and what does not.

use pipe_lm::cli::Environment;

use crate::sandbox::{Sandbox, folders_and_files};

const CHAIN: &str = "
  rows: { uses: make, with: { value: hello } }
  text: { uses: change, inputs: { rows: rows }, with: { suffix: '!' } }
  last: { uses: join, inputs: { rows: text, more: rows } }
";

#[test]
fn the_first_run_runs_all_and_the_second_none() {
    let sandbox = Sandbox::with_stages(CHAIN);
    screen!(sandbox.pipe("run p.yaml --threads 1"), @r"
    exit code: 0
    ----- stdout
    ----- stderr
    rows  started, 1 thread
    rows  ran in [time]
    text  started, 1 thread
    text  ran in [time]
    last  started, 1 thread
    last  ran in [time]

    rows  ran  characters 5
    text  ran  characters 6
    last  ran  characters 11

    3 ran in [time]
    everything in .pipe
    as a page with charts: pipe report
    ");
    screen!(sandbox.pipe("run p.yaml --threads 1"), @r"
    exit code: 0
    ----- stdout
    ----- stderr
    3 stages, all reused in [time]
    everything in .pipe
    as a page with charts: pipe report
    ");
}

#[test]
fn a_changed_setting_runs_only_what_is_downstream() {
    let sandbox = Sandbox::with_stages(CHAIN);
    sandbox.outcomes("run p.yaml");
    assert_eq!(sandbox.outcomes("run p.yaml --set stages.text.with.suffix=X"), "last ran, rows reused, text ran");
    assert_eq!(sandbox.outcomes("run p.yaml"), "last reused, rows reused, text reused");
}

#[test]
fn comments_order_and_names_run_nothing() {
    let sandbox = Sandbox::with_stages(CHAIN);
    sandbox.outcomes("run p.yaml");
    sandbox.write_stages(
        "
  # The same, told differently.
  end: { inputs: { more: first, rows: second }, uses: join }
  second: { with: { suffix: \"!\" }, uses: change, inputs: { rows: first.rows } }
  first: { uses: make, with: { value: hello } }   # a comment
",
    );
    assert_eq!(sandbox.outcomes("run p.yaml"), "end reused, first reused, second reused");
}

#[test]
fn a_default_written_out_runs_nothing() {
    let sandbox = Sandbox::with_stages(CHAIN);
    sandbox.outcomes("run p.yaml");
    assert_eq!(
        sandbox.outcomes("run p.yaml --set stages.rows.with.suffix=''"),
        "last reused, rows reused, text reused"
    );
}

#[test]
fn the_same_bytes_cut_the_cascade_off() {
    let sandbox = Sandbox::with_stages(
        "
  rows:  { uses: make, with: { value: hello } }
  short: { uses: change, inputs: { rows: rows }, with: { first: 2 } }
  last:  { uses: change, inputs: { rows: short }, with: { suffix: '!' } }
",
    );
    sandbox.outcomes("run p.yaml");
    assert_eq!(sandbox.outcomes("run p.yaml --set stages.rows.with.value=help"), "last reused, rows ran, short ran");
}

#[test]
fn two_stages_overlap() {
    let sandbox = Sandbox::with_stages(
        "
  left:  { uses: meet, with: { room: overlap, value: left } }
  right: { uses: meet, with: { room: overlap, value: right } }
",
    );
    assert_eq!(sandbox.outcomes("run p.yaml --threads 2"), "left ran, right ran");
}

#[test]
fn one_and_two_threads_give_the_same_digests() {
    let (one, two) = (Sandbox::with_stages(CHAIN), Sandbox::with_stages(CHAIN));
    one.outcomes("run p.yaml --threads 1");
    two.outcomes("run p.yaml --threads 2");
    assert_eq!(one.read("p.lock"), two.read("p.lock"));
}

#[test]
fn a_missing_blob_is_made_again_when_a_stage_needs_it() {
    let sandbox = Sandbox::with_stages(CHAIN);
    sandbox.outcomes("run p.yaml");
    sandbox.remove_blob("hello");
    sandbox.remove_blob("hello!");
    assert_eq!(sandbox.outcomes("run p.yaml"), "last reused, rows reused, text reused", "nobody needs them");
    // `last` is new now, so it needs both; `text` needs `rows` as well.
    sandbox.write_stages(&CHAIN.replace("last: { uses: join", "last: { uses: join, with: { suffix: x }"));
    screen!(sandbox.pipe("plan p.yaml"), @r"
    exit code: 0
    ----- stdout
    rows  make    run  ~ [time], 5 B  a file that `last` needs is gone or changed
    text  change  run  ~ [time], 6 B  a file that `last` needs is gone or changed
    last  join    run  ~ [time], 11 B  never made with these settings and inputs
    3 stages: 3 run
    what runs takes [time] and adds 22 B to the store
    ----- stderr
    ");
    assert_eq!(sandbox.outcomes("run p.yaml"), "last ran, rows ran, text ran");
}

#[test]
fn a_missing_blob_behind_a_pending_stage_is_made_again() {
    let sandbox = Sandbox::with_stages(CHAIN);
    sandbox.outcomes("run p.yaml");
    sandbox.remove_blob("hello");
    // `last` is pending until `text` has run, and only then turns out to need `rows` too.
    let outcomes = sandbox.outcomes("run p.yaml --threads 2 --set stages.text.with.first=3");
    assert_eq!(outcomes, "last ran, rows ran, text ran");
}

#[test]
fn commands_at_the_same_time_run_a_stage_once() {
    let sandbox = Sandbox::with_stages(CHAIN);
    let begin = std::sync::Barrier::new(4);
    let outcomes: Vec<String> = std::thread::scope(|scope| {
        let command = || {
            begin.wait();
            sandbox.outcomes("run p.yaml --threads 2")
        };
        let commands: Vec<_> = (0..4).map(|_| scope.spawn(command)).collect();
        commands.into_iter().map(|command| command.join().expect("no command panics")).collect()
    });
    let n_ran = outcomes.join(", ").matches(" ran").count();
    assert_eq!(n_ran, 3, "{outcomes:#?}");
}

#[test]
fn two_stages_that_make_the_same_run_once() {
    let sandbox = Sandbox::with_stages(
        "
  one: { uses: make, with: { value: hello } }
  two: { uses: make, with: { value: hello } }
",
    );
    let outcomes = sandbox.outcomes("run p.yaml --threads 2");
    assert!(["one ran, two reused", "one reused, two ran"].contains(&outcomes.as_str()), "{outcomes}");
}

#[test]
fn a_changed_local_file_runs_and_a_touched_one_does_not() {
    let sandbox = Sandbox::with_stages("  rows: { uses: files, with: { value: in.txt } }\n");
    sandbox.write("in.txt", "one");
    sandbox.outcomes("run p.yaml");
    sandbox.write("in.txt", "one");
    assert_eq!(sandbox.outcomes("run p.yaml"), "rows reused");
    sandbox.write("in.txt", "two");
    assert_eq!(sandbox.outcomes("run p.yaml"), "rows ran");
}

#[test]
fn an_artifact_of_another_class_is_reused_unless_numerics_are_exact() {
    let sandbox = Sandbox::with_stages("  loss: { uses: classy, with: { value: x } }\n");
    sandbox.outcomes("run p.yaml");
    let other = "--set stages.loss.with.class=fake-2";
    screen!(sandbox.pipe(&format!("plan p.yaml {other}")), @r"
    exit code: 0
    ----- stdout
    loss  classy  reuse  made on fake-1
    1 stage: 1 reuse
    ----- stderr
    ");
    assert_eq!(sandbox.outcomes(&format!("run p.yaml {other}")), "loss reused");
    let in_ci =
        sandbox.pipe_in(&format!("run p.yaml {other} --json"), Environment { is_ci: true, ..Environment::default() });
    assert_eq!(in_ci.outcomes(), "loss ran");
    assert_eq!(sandbox.outcomes(&format!("run p.yaml {other} --numerics exact")), "loss reused");
}

#[test]
fn a_store_elsewhere_is_shared() {
    let sandbox = Sandbox::with_stages(CHAIN);
    sandbox.outcomes("run p.yaml --store shared");
    let environment = Environment { store: Some("shared".into()), ..Environment::default() };
    let output = sandbox.pipe_in("run p.yaml --json", environment);
    assert_eq!(output.outcomes(), "last reused, rows reused, text reused");
    assert!(!sandbox.path(".pipe").exists());
}

#[test]
fn needs_orders_without_data() {
    let sandbox = Sandbox::with_stages(
        "
  late:  { uses: make, with: { value: late }, needs: [early] }
  early: { uses: make, with: { value: early } }
",
    );
    let output = sandbox.pipe("run p.yaml --threads 2");
    let position = |line: &str| output.err.find(line).unwrap_or_else(|| panic!("no `{line}` in\n{}", output.err));
    assert!(position("early  ran") < position("late   started"), "{}", output.err);
}

#[test]
fn a_gpu_that_is_not_there_is_a_wish() {
    let sandbox = Sandbox::with_stages("  rows: { uses: make, with: { value: x }, resources: { gpu: 1 } }\n");
    screen!(sandbox.pipe("run p.yaml --threads 1"), @r"
    exit code: 0
    ----- stdout
    ----- stderr
    rows  started, 1 thread
    rows  | it asks for 1 GPU, and none can be used here: it runs on the CPU
    rows  ran in [time]

    rows  ran  characters 1

    1 ran in [time]
    everything in .pipe
    as a page with charts: pipe report
    ");
}

#[test]
fn events_are_recorded_as_they_are_printed() {
    let sandbox = Sandbox::with_stages("  rows: { uses: make, with: { value: hi } }\n");
    let output = sandbox.pipe("run p.yaml --json --threads 1");
    let run_id = std::fs::read_dir(sandbox.path(".pipe/runs")).expect("runs").next().expect("one").expect("readable");
    let recorded = std::fs::read_to_string(run_id.path().join("events.jsonl")).expect("recorded");
    assert_eq!(recorded.replace(&sandbox.path("").display().to_string(), "[dir]/"), output.out);
    let without_times = |text: &str| {
        let filter = |line: &str| {
            let mut event: serde_json::Value = serde_json::from_str(line).expect("JSON");
            for name in ["at_ms", "duration_ms", "run_id", "peak_memory_bytes", "cpu_ms", "memory_bytes"] {
                event.as_object_mut().expect("an object").remove(name);
            }
            event.to_string()
        };
        text.lines().map(filter).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(without_times(&output.out), @r#"
    {"event":"run_started","format_version":1,"n_threads":1,"pipeline":"p","request":{"file":"[dir]/p.yaml","file_as_given":"p.yaml","profile":null,"sets":[]},"stages":["rows"]}
    {"event":"stage_planned","kind":"make","reason":"never made with these settings and inputs","spec":{"inputs":{},"needs":[],"settings":[{"is_given":true,"name":"value","value":"hi"},{"is_given":false,"name":"suffix","value":""},{"is_given":false,"name":"room","value":""},{"is_given":false,"name":"class","value":"fake-1"},{"is_given":false,"name":"label","value":""},{"is_given":false,"name":"first","value":null}]},"stage":"rows","verdict":"run"}
    {"event":"usage"}
    {"event":"stage_started","n_gpus":0,"n_threads":1,"stage":"rows"}
    {"done":1,"event":"progress","stage":"rows","total":1,"unit":"files"}
    {"event":"fact","name":"characters","stage":"rows","value":"2"}
    {"checkpoint":null,"event":"stage_finished","failure":null,"fingerprint":"885eb5b2c86f5c1c96df28f69cdb741c89de7ed2ca8f923d102b2a56e5f2ec42","outcome":"ran","stage":"rows"}
    {"event":"usage"}
    {"event":"run_finished","is_interrupted":false}
    "#);
}

#[test]
fn bad_threads_are_named() {
    let sandbox = Sandbox::with_stages(CHAIN);
    screen!(sandbox.pipe("run p.yaml --threads 0"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[bad-threads]: --threads is `0`, but must be a whole number from 1 to 4096
    ");
    let environment = Environment { threads: Some("many".into()), ..Environment::default() };
    screen!(sandbox.pipe_in("run p.yaml", environment), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[bad-threads]: PIPE_THREADS is `many`, but must be a whole number from 1 to 4096
    ");
    assert!(!sandbox.path(".pipe").exists());
}

/// A measurement, not a promise: `cargo test --test e2e -- --ignored --nocapture nothing_to_do`.
#[test]
#[ignore = "prints times"]
fn how_long_a_run_with_nothing_to_do_takes() {
    use std::io::Write as _;
    for n_stages in [7usize, 100, 1_000] {
        let mut stages = "  s0: { uses: make, with: { value: hello } }\n".to_string();
        for number in 1..n_stages {
            let before = if number % 10 == 1 { 0 } else { number - 1 };
            stages.push_str(&format!(
                "  s{number}: {{ uses: change, inputs: {{ rows: s{before} }}, with: {{ suffix: '{number}' }} }}\n"
            ));
        }
        let sandbox = Sandbox::with_stages(&stages);
        sandbox.outcomes("run p.yaml");
        let times = (0..9).map(|_| {
            let begin = std::time::Instant::now();
            assert!(sandbox.pipe("run p.yaml").err.contains("all reused"));
            begin.elapsed()
        });
        let fastest = times.min().expect("nine of them");
        writeln!(std::io::stderr(), "{n_stages} stages, nothing to do: {fastest:.1?}").expect("stderr");
    }
}

/// So many stages that the manifests are read beside the pipeline file.
#[test]
fn manifests_that_were_read_ahead_are_those_of_the_store() {
    const N_STAGES: usize = 320;
    let name = |number: usize| format!("s{number:03}");
    let stages: String = (0..N_STAGES)
        .map(|number| format!("  {}: {{ uses: make, with: {{ value: v{number} }} }}\n", name(number)))
        .collect();
    let sandbox = Sandbox::with_stages(&stages);
    let outcomes = |of: &dyn Fn(usize) -> &'static str| {
        (0..N_STAGES).map(|number| format!("{} {}", name(number), of(number))).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(sandbox.outcomes("run p.yaml"), outcomes(&|_| "ran"));
    assert!(sandbox.read("p.lock").len() > 32 << 10, "a lock file that is read ahead");
    assert_eq!(sandbox.outcomes("run p.yaml"), outcomes(&|_| "reused"));

    // One that is gone, one that is another's, and a stage that the lock file does not know.
    let mut manifests: Vec<_> = folders_and_files(&sandbox.path(".pipe/manifests"));
    manifests.retain(|path| path.is_file());
    manifests.sort_by_key(|path| std::fs::read_to_string(path).expect("a manifest"));
    std::fs::remove_file(&manifests[0]).expect("removed");
    std::fs::copy(&manifests[2], &manifests[1]).expect("copied");
    sandbox.write("p.yaml", &sandbox.read("p.yaml").replace("value: v7 }", "value: other }"));
    let again = sandbox.outcomes("run p.yaml");
    assert_eq!(again.matches("ran").count(), 3, "{again}");
    assert!(again.contains("s007 ran"), "{again}");
    assert_eq!(sandbox.outcomes("run p.yaml"), outcomes(&|_| "reused"));
}
