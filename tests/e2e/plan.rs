//! `pipe plan`: verdicts and reasons.

use pipe_lm::cli::Environment;

use crate::sandbox::Sandbox;

const STAGES: &str = "
  rows: { uses: make, with: { value: hello } }
  far:  { uses: remote, with: { value: never-asked } }
  text: { uses: change, inputs: { rows: rows } }
  last: { uses: join, inputs: { rows: text, more: far } }
";

#[test]
fn verdicts_before_and_after_a_run() {
    let sandbox = Sandbox::with_stages(STAGES);
    screen!(sandbox.pipe("plan p.yaml"), @r"
    exit code: 0
    ----- stdout
    rows  make    run      never made with these settings and inputs
    far   remote  run      the revision of `things/never-asked@main` is not known yet
    text  change  pending  depends on what `rows` gives
    last  join    pending  depends on what `far` and `text` give
    4 stages: 2 run, 2 pending
    how long this takes and how much it adds to the store is not known: none of it ran here before
    ----- stderr
    ");
    sandbox.pipe("run p.yaml --set stages.far.uses=make");
    screen!(sandbox.pipe("plan p.yaml"), @r"
    exit code: 0
    ----- stdout
    rows  make    reuse
    far   remote  run      ~ time and size unknown  the revision of `things/never-asked@main` is not known yet
    text  change  reuse
    last  join    pending  ~ [time], 16 B  depends on what `far` gives
    4 stages: 2 reuse, 1 run, 1 pending
    what runs takes at least [time] and adds at least 16 B to the store
    ----- stderr
    ");
}

#[test]
fn without_a_file_it_is_that_of_the_last_run() {
    let sandbox = Sandbox::with_stages("  rows: { uses: make, with: { value: hello } }\n");
    screen!(sandbox.pipe("plan"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[no-last-run]: there is no last run in `.pipe`
    help: name the pipeline file
    ");
    sandbox.outcomes("run p.yaml --set stages.rows.with.value=other");
    screen!(sandbox.pipe("plan"), @r"
    exit code: 0
    ----- stdout
    rows  make  reuse
    1 stage: 1 reuse
    ----- stderr
    ");
    screen!(sandbox.pipe("plan --json"), @r#"
    exit code: 0
    ----- stdout
    {"format_version":1,"pipeline":"p","predicted":{"bytes":null,"duration_ms":null},"stages":[{"fingerprint":"1ef59e58a6dd6c4762e19dbbb1b8a06012bd8f967e82a052555a4508690e1a79","kind":"make","reason":"","stage":"rows","verdict":"reuse"}]}
    ----- stderr
    "#);
}

#[test]
fn colours_are_a_choice() {
    let sandbox = Sandbox::with_stages("  rows: { uses: make, with: { value: hello } }\n");
    let forced = Environment { is_colour_forced: true, ..Environment::default() };
    let both = Environment { is_colour_unwanted: true, ..forced.clone() };
    let table = [
        ("", Environment::default(), false),
        ("", forced.clone(), true),
        ("", both.clone(), false),
        ("--color always", both, true),
        ("--color never", forced, false),
    ];
    for (argument, environment, is_colour) in table {
        let output = sandbox.pipe_in(&format!("plan p.yaml {argument}"), environment.clone());
        assert_eq!(output.out.contains('\x1b'), is_colour, "{argument} {environment:?}");
    }
}
