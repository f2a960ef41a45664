//! `to:`: copies of outputs in a folder of the user's.

use std::fs;

use crate::sandbox::Sandbox;

const STAGES: &str = "
  rows: { uses: make, with: { value: hello } }
  text: { uses: change, inputs: { rows: rows }, with: { suffix: '!' }, to: out/text }
";

const PLACED: &str = "out/text/rows/value.txt";

#[test]
fn outputs_are_copied_below_a_folder_per_port() {
    let sandbox = Sandbox::with_stages(STAGES);
    screen!(sandbox.pipe("run p.yaml --threads 1"), @r"
    exit code: 0
    ----- stdout
    ----- stderr
    rows  started, 1 thread
    rows  ran in [time]
    text  started, 1 thread
    text  ran in [time]

    rows  ran  characters 5
    text  ran  characters 6

    2 ran in [time]
    results of text in out/text
    everything in .pipe
    as a page with charts: pipe report
    ");
    assert_eq!(sandbox.read(PLACED), "hello!");
    assert!(!fs::metadata(sandbox.path(PLACED)).expect("it is there").permissions().readonly());
}

#[test]
fn a_deleted_folder_is_restored_without_a_run() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    fs::remove_dir_all(sandbox.path("out")).expect("it can be removed");
    assert_eq!(sandbox.outcomes("run p.yaml"), "rows reused, text reused");
    assert_eq!(sandbox.read(PLACED), "hello!");
}

#[test]
fn an_edited_file_is_named_and_left_alone() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    sandbox.write(PLACED, "mine");
    screen!(sandbox.pipe("run p.yaml"), @r"
    exit code: 0
    ----- stdout
    ----- stderr
    2 stages, all reused in [time]
    NOT all results of text in out/text: 1 file there is not from this store and was left alone
    everything in .pipe
    as a page with charts: pipe report
    warning: text: `out/text/rows/value.txt` was edited since it was copied there: it is left as it is
    ");
    sandbox.pipe("run p.yaml --set stages.text.with.suffix=X");
    assert_eq!(sandbox.read(PLACED), "mine");
}

#[test]
fn a_file_that_was_there_before_is_not_called_edited_and_is_named_once() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.write(PLACED, "mine");
    let output = sandbox.pipe("run p.yaml --threads 1");
    let warning = "warning: text: `out/text/rows/value.txt` is not known to this store: it is left as it is";
    assert!(output.err.contains(warning), "{}", output.err);
    assert_eq!(output.err.matches("not known to this store").count(), 1, "{}", output.err);
    assert!(output.err.contains("NOT all results of text in out/text"), "{}", output.err);
    assert_eq!(sandbox.read(PLACED), "mine");
}

#[test]
fn files_of_an_earlier_run_are_replaced() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    sandbox.outcomes("run p.yaml --set stages.text.with.suffix=X");
    assert_eq!(sandbox.read(PLACED), "helloX");
    assert_eq!(sandbox.outcomes("run p.yaml"), "rows reused, text reused");
    assert_eq!(sandbox.read(PLACED), "hello!");
}

#[test]
fn a_deleted_folder_whose_blobs_are_gone_is_made_again() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    sandbox.remove_blob("hello!");
    assert_eq!(sandbox.outcomes("run p.yaml"), "rows reused, text reused", "the copy is there");
    fs::remove_dir_all(sandbox.path("out")).expect("it can be removed");
    screen!(sandbox.pipe("plan p.yaml"), @r"
    exit code: 0
    ----- stdout
    rows  make    reuse
    text  change  run    ~ [time], 6 B  a file that `to:` needs is gone or changed
    2 stages: 1 reuse, 1 run
    what runs takes [time] and adds 6 B to the store
    ----- stderr
    ");
    assert_eq!(sandbox.outcomes("run p.yaml"), "rows reused, text ran");
    assert_eq!(sandbox.read(PLACED), "hello!");
}

#[test]
fn a_file_in_the_way_of_the_folder_is_left_alone() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.write("out", "mine");
    let output = sandbox.pipe("run p.yaml --threads 1");
    assert_eq!(output.code, 2, "{}", output.err);
    let error =
        "error[bad-to]: the outputs of stage `text` cannot be copied to `out/text`: `[dir]/out` is not a folder";
    assert!(output.err.contains(error), "{}", output.err);
    assert_eq!(sandbox.read("out"), "mine");
}

#[test]
fn a_folder_that_cannot_be_made_fails_the_run_and_keeps_the_result() {
    // Nobody can make a folder there, not even root.
    let sandbox = Sandbox::with_stages(&STAGES.replace("out/text", "/proc/pipe-test"));
    let output = sandbox.pipe("run p.yaml --threads 1");
    assert_eq!(output.code, 1, "{}", output.err);
    let warning = "warning: text: its outputs are in the store, but not in `/proc/pipe-test`: failed to";
    assert!(output.err.contains(warning), "{}", output.err);
    let again = sandbox.pipe("run p.yaml --json");
    assert_eq!((again.code, again.outcomes().as_str()), (1, "rows reused, text reused"));
}

#[test]
fn another_stage_may_take_a_folder_over() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    // Another stage takes the place over: what `text` left there is an earlier run's, not the user's.
    sandbox.write_stages(
        "
  rows: { uses: make, with: { value: hello } }
  more: { uses: change, inputs: { rows: rows }, with: { suffix: '!!' }, to: ./out/text/ }
",
    );
    sandbox.outcomes("run p.yaml");
    assert_eq!(sandbox.read(PLACED), "hello!!");
}

#[test]
fn a_folder_in_the_store_is_refused() {
    for (to, store) in [(".pipe/blobs", ""), ("sub/../.pipe", ""), ("held/x", "--store held")] {
        let sandbox = Sandbox::with_stages(&STAGES.replace("out/text", to));
        let output = sandbox.pipe(&format!("run p.yaml {store}"));
        assert_eq!(output.code, 2, "{}", output.err);
        let error =
            format!("error[bad-to]: the outputs of stage `text` cannot be copied to `{to}`: it lies in the store");
        assert!(output.err.contains(&error), "{}", output.err);
    }
}
