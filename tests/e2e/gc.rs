//! `pipe cache gc`, `pin` and `unpin`: what nobody keeps is removed, and made again only where it is needed.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pipe_lm::cli::Environment;

use crate::sandbox::{Sandbox, execute_in};

const STAGES: &str = "
  rows: { uses: make, with: { value: hello } }
  text: { uses: change, inputs: { rows: rows }, with: { suffix: '!' } }
  more: { uses: change, inputs: { rows: text }, with: { suffix: '?' } }
";

/// The texts of all blobs, sorted.
fn texts(sandbox: &Sandbox) -> Vec<String> {
    let mut texts: Vec<String> =
        sandbox.blobs().iter().map(|path| fs::read_to_string(path).expect("readable")).collect();
    texts.sort();
    texts
}

/// Runs the pipeline as it is written, then with another suffix of `more`: the lock file has the second.
fn run_twice() -> Sandbox {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    assert_eq!(sandbox.outcomes("run p.yaml --set stages.more.with.suffix=X"), "more ran, rows reused, text reused");
    sandbox
}

#[test]
fn without_yes_it_says_what_it_would_remove() {
    let sandbox = run_twice();
    screen!(sandbox.pipe("cache gc"), @r"
    exit code: 0
    ----- stdout
    kept               25 B  4 files of artifacts: 1 lock file, 2 runs, 0 pins, 0 running pipelines
    there is nothing to remove
    ----- stderr
    ");
    screen!(sandbox.pipe("cache gc --keep-runs 1"), @r"
    exit code: 0
    ----- stdout
    would remove        7 B  1 file of artifacts
                        7 B    change: rows/value.txt
    kept               18 B  3 files of artifacts: 1 lock file, 1 run, 0 pins, 0 running pipelines
    nothing was removed: --yes removes it
    ----- stderr
    ");
    assert_eq!(texts(&sandbox), ["hello", "hello!", "hello!?", "hello!X"]);
    screen!(sandbox.pipe("cache gc --keep-runs 1 --yes"), @r"
    exit code: 0
    ----- stdout
    removed             7 B  1 file of artifacts
    kept               18 B  3 files of artifacts: 1 lock file, 1 run, 0 pins, 0 running pipelines
    ----- stderr
    ");
    assert_eq!(texts(&sandbox), ["hello", "hello!", "hello!X"]);
    screen!(sandbox.pipe("cache gc --keep-runs 1 --yes"), @r"
    exit code: 0
    ----- stdout
    kept               18 B  3 files of artifacts: 1 lock file, 1 run, 0 pins, 0 running pipelines
    there was nothing to remove
    ----- stderr
    ");
}

#[test]
fn a_lock_file_keeps_what_it_names() {
    let sandbox = run_twice();
    sandbox.pipe("cache gc --keep-runs 0 --yes");
    assert_eq!(texts(&sandbox), ["hello", "hello!", "hello!X"]);
    fs::remove_file(sandbox.path("p.lock")).expect("it is there");
    sandbox.pipe("cache gc --keep-runs 0 --yes");
    assert_eq!(texts(&sandbox), Vec::<String>::new());
}

#[test]
fn a_lock_file_that_cannot_be_read_stops_it() {
    let sandbox = run_twice();
    sandbox.write("p.lock", "<<<<<<< HEAD\n");
    let output = sandbox.pipe("cache gc --keep-runs 0 --yes");
    assert_eq!((output.code, texts(&sandbox).len()), (2, 4), "{}", output.err);
    assert!(output.err.contains("error[lock-file]: the lock file `[dir]/p.lock` cannot be read"), "{}", output.err);
    sandbox.write("p.lock", "{\"format_version\": 99}");
    screen!(sandbox.pipe("cache gc --keep-runs 0 --yes"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[lock-file]: the lock file `[dir]/p.lock` is of another version of pipe, so it is not known which results it keeps
    help: take that version, or move the file away
    ");
    assert_eq!(texts(&sandbox).len(), 4);
}

#[test]
fn what_was_removed_is_made_again_only_where_it_is_needed() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    fs::remove_file(sandbox.path("p.lock")).expect("it is there");
    sandbox.pipe("cache gc --keep-runs 0 --yes");
    assert_eq!(texts(&sandbox), Vec::<String>::new());
    assert_eq!(sandbox.outcomes("run p.yaml"), "more reused, rows reused, text reused", "0 of 3 run");
    assert_eq!(texts(&sandbox), Vec::<String>::new());
    // `more` needs what `text` gave, and that what `rows` gave.
    assert_eq!(sandbox.outcomes("run p.yaml --set stages.more.with.suffix=X"), "more ran, rows ran, text ran");
    assert_eq!(texts(&sandbox), ["hello", "hello!", "hello!X"], "the old result of `more` is needed by nobody");

    // With the intermediate there, nothing before it runs.
    fs::remove_file(sandbox.path("p.lock")).expect("it is there");
    sandbox.pipe(&format!("cache pin {}", fingerprint(&sandbox, "text")));
    sandbox.pipe("cache gc --keep-runs 0 --yes");
    assert_eq!(texts(&sandbox), ["hello!"]);
    assert_eq!(sandbox.outcomes("run p.yaml --set stages.more.with.suffix=Y"), "more ran, rows reused, text reused");
    assert_eq!(texts(&sandbox), ["hello!", "hello!Y"]);
}

/// What a stage's result in the last run is stored under.
fn fingerprint(sandbox: &Sandbox, stage: &str) -> String {
    let runs = sandbox.pipe("runs --json");
    let runs: serde_json::Value = serde_json::from_str(&runs.out).expect("JSON");
    let stages = runs["runs"][0]["stages"].as_array().expect("stages");
    let found = stages.iter().find(|found| found["stage"] == stage).expect("the stage");
    found["fingerprint"].as_str().expect("it has a result").to_string()
}

fn run_ids(sandbox: &Sandbox) -> Vec<String> {
    let runs = fs::read_dir(sandbox.path(".pipe/runs")).expect("runs");
    let mut ids: Vec<String> = runs.map(|run| run.expect("a run").file_name().to_string_lossy().into_owned()).collect();
    ids.sort();
    ids
}

#[test]
fn a_pin_keeps_a_run_until_it_is_removed() {
    let sandbox = run_twice();
    fs::remove_file(sandbox.path("p.lock")).expect("it is there");
    let first = &run_ids(&sandbox)[0];
    screen!(sandbox.pipe("cache pin"), @r"
    exit code: 0
    ----- stdout
    there are no pins
    ----- stderr
    ");
    screen!(sandbox.pipe(&format!("cache pin {first}")), @r"
    exit code: 0
    ----- stdout
    pinned [run]: 3 results, 18 B
    ----- stderr
    ");
    screen!(sandbox.pipe("cache pin"), @r"
    exit code: 0
    ----- stdout
    [run]  3 results, 18 B
    ----- stderr
    ");
    sandbox.pipe("cache gc --keep-runs 0 --yes");
    assert_eq!(texts(&sandbox), ["hello", "hello!", "hello!?"]);
    // A pin outlives the run's folder.
    fs::remove_dir_all(sandbox.path(".pipe/runs")).expect("runs");
    sandbox.pipe("cache gc --keep-runs 0 --yes");
    assert_eq!(texts(&sandbox), ["hello", "hello!", "hello!?"]);
    screen!(sandbox.pipe(&format!("cache unpin {first}")), @r"
    exit code: 0
    ----- stdout
    unpinned [run]
    ----- stderr
    ");
    sandbox.pipe("cache gc --keep-runs 0 --yes");
    assert_eq!(texts(&sandbox), Vec::<String>::new());
    screen!(sandbox.pipe("cache pin zz"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[unknown-pin]: no run or fingerprint begins with `zz`
    ");
    screen!(sandbox.pipe("cache unpin 2"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[unknown-pin]: no pin begins with `2`
    ");
}

#[test]
fn a_pin_of_what_is_gone_says_so() {
    let sandbox = run_twice();
    sandbox.remove_blob("hello!");
    let last = &run_ids(&sandbox)[1];
    screen!(sandbox.pipe(&format!("cache pin {last}")), @r"
    exit code: 0
    ----- stdout
    pinned [run]: 3 results, 18 B
    files of 1 result are gone; the next run that needs them makes them
    ----- stderr
    ");
}

#[test]
fn with_a_size_the_longest_unused_go_first() {
    let sandbox = run_twice();
    fs::remove_file(sandbox.path("p.lock")).expect("it is there");
    // The second run ended an hour before the first, as far as the store can see.
    let ids = run_ids(&sandbox);
    for (id, age_s) in [(&ids[0], 0), (&ids[1], 3600)] {
        let events = fs::File::open(sandbox.path(".pipe/runs").join(id).join("events.jsonl")).expect("events");
        events.set_modified(std::time::SystemTime::now() - Duration::from_secs(age_s)).expect("ours");
    }
    let size = pipe_cache::Store::open_to_read(&sandbox.path(".pipe")).and_then(|store| store.size()).expect("sizes");
    let max_bytes = size.held_bytes() - 1;
    let output =
        sandbox.pipe(&format!("cache gc --keep-runs 0 --max-size {}.{:03}KB", max_bytes / 1000, max_bytes % 1000));
    assert_eq!(output.code, 0, "{}", output.err);
    let first = output.out.lines().next().unwrap_or_default();
    let words: Vec<&str> = first.split_whitespace().collect();
    assert_eq!(words, ["would", "remove", "7", "B", "1", "file", "of", "artifacts"], "{}", output.out);
    let output = sandbox.pipe("cache gc --keep-runs 0 --yes --max-size 0.1KB");
    assert!(output.out.contains("more than 100 B: the rest is kept"), "{}", output.out);
    assert_eq!(texts(&sandbox), Vec::<String>::new(), "manifests and runs alone are larger");
    let output = sandbox.pipe("cache gc --max-size 20");
    assert_eq!(output.code, 2);
    assert!(output.err.contains("error[bad-size]: --max-size is `20`"), "{}", output.err);
    let output = sandbox.pipe("cache gc --keep-runs 0 --yes --max-size 20GB");
    assert_eq!(output.out.lines().last(), Some("there was nothing to remove"));
}

#[test]
fn training_state_goes_when_it_is_old_and_of_no_root() {
    // `grow` keeps its training state for a longer run.
    let sandbox = Sandbox::with_stages(
        "
  rows: { uses: make, with: { value: hello } }
  text: { uses: grow, inputs: { rows: rows }, with: { suffix: '!' } }
",
    );
    let n_checkpoints = || fs::read_dir(sandbox.path(".pipe/checkpoints")).expect("it was made").count();
    sandbox.outcomes("run p.yaml");
    sandbox.outcomes("run p.yaml --set stages.rows.with.value=other");
    assert_eq!(n_checkpoints(), 2);
    sandbox.pipe("cache gc --yes");
    assert_eq!(n_checkpoints(), 2, "of runs that are kept");
    // Written long before any run ended; the lock file has the results of the second.
    let an_hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    for folder in fs::read_dir(sandbox.path(".pipe/checkpoints")).expect("it was made") {
        let folder = folder.expect("training state").path();
        for path in [folder.join("suffix"), folder] {
            fs::File::open(path).and_then(|file| file.set_modified(an_hour_ago)).expect("ours");
        }
    }
    sandbox.pipe("cache gc --keep-runs 0 --yes");
    assert_eq!(n_checkpoints(), 1);
    fs::remove_file(sandbox.path("p.lock")).expect("it is there");
    sandbox.pipe("cache gc --keep-runs 0 --yes");
    assert_eq!(n_checkpoints(), 0);
}

#[test]
fn a_stage_that_runs_keeps_what_it_takes() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    fs::remove_file(sandbox.path("p.lock")).expect("it is there");
    // While `more` runs, everything is garbage by lock files and runs.
    sandbox.behave("collector", "gc");
    let output =
        sandbox.pipe("run p.yaml --json --set stages.more.with.suffix=X --set stages.more.with.label=collector");
    assert_eq!(output.code, 0, "{}", output.err);
    assert_eq!(output.outcomes(), "more ran, rows reused, text reused");
    assert_eq!(texts(&sandbox), ["hello", "hello!", "hello!X"], "only the old result of `more` went");
}

#[test]
fn it_makes_no_store() {
    let sandbox = Sandbox::with_stages(STAGES);
    screen!(sandbox.pipe("cache gc --yes"), @r"
    exit code: 0
    ----- stdout
    there is no store in .pipe
    ----- stderr
    ");
    assert!(!sandbox.path(".pipe").exists());
}

/// Runs of each thread.
const N_RUNS: usize = 12;

#[test]
fn runs_beside_it_never_miss_what_they_found() {
    let sandbox = Sandbox::new();
    let pipeline = format!("version: 1\nstages:\n{STAGES}");
    let files = ["a.yaml", "b.yaml"];
    files.iter().for_each(|file| sandbox.write(file, &pipeline));
    let folder = sandbox.path("");
    let is_done = AtomicBool::new(false);
    let execute = |arguments: &str| execute_in(&folder, arguments, Environment::default());
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut n_removed = 0;
            while !is_done.load(Ordering::SeqCst) {
                for file in ["a.lock", "b.lock"] {
                    let _ = fs::remove_file(folder.join(file));
                }
                let output = execute("cache gc --keep-runs 0 --yes");
                assert_eq!(output.code, 0, "{}", output.err);
                n_removed += usize::from(output.out.starts_with("removed"));
            }
            n_removed
        });
        let runs = files.map(|file| {
            scope.spawn(move || {
                for round in 0..N_RUNS {
                    let suffix = format!("stages.text.with.suffix=s{}", round % 3);
                    let more = format!("stages.more.with.suffix=m{}", round % 4);
                    let output = execute(&format!("run {file} --set {suffix} --set {more}"));
                    assert_eq!(output.code, 0, "{file}, round {round}: {}", output.err);
                }
            })
        });
        let ended = runs.map(|thread| thread.join());
        is_done.store(true, Ordering::SeqCst);
        assert!(ended.iter().all(Result::is_ok));
        assert!(collector.join().expect("no panic") > 2, "too little was removed to test anything");
    });
    assert_eq!(execute("cache verify").code, 0);
}
