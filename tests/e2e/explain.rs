//! `pipe explain` and `pipe plan --why`: what changed, where it is written, and what it is compared with.

use std::fs;

use crate::sandbox::Sandbox;

const STAGES: &str = "
  rows: { uses: make, with: { value: hello } }
  text: { uses: change, inputs: { rows: rows }, with: { suffix: '!' } }
  last: { uses: join, inputs: { rows: text, more: rows } }
";

#[test]
fn a_first_run_has_nothing_to_compare_with() {
    let sandbox = Sandbox::with_stages(STAGES);
    screen!(sandbox.pipe("explain p.yaml text"), @r"
    exit code: 0
    ----- stdout
    text  change  pending  depends on what `rows` gives
          no earlier run of this file has this stage
    rows  make    run      never made with these settings and inputs
          no earlier run of this file has this stage
    ----- stderr
    ");
}

#[test]
fn a_setting_is_named_with_both_values_and_its_place() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    screen!(sandbox.pipe("explain text"), @r"
    exit code: 0
    ----- stdout
    text  change  reuse
          nothing in its key changed since run [run]
    ----- stderr
    ");
    sandbox.write_stages(&STAGES.replace("'!'", "'?', first: 3"));
    screen!(sandbox.pipe("plan p.yaml --why"), @r#"
    exit code: 0
    ----- stdout
    rows  make    reuse
          nothing in its key changed since run [run]
    text  change  run      ~ [time], 6 B  never made with these settings and inputs
          since run [run]:
            `first` (none) -> 3, [dir]/p.yaml:5:77
            `suffix` "!" -> "?", [dir]/p.yaml:5:65
    last  join    pending  ~ [time], 11 B  depends on what `text` gives
          since run [run]:
            `rows` is known when `text.rows` is made
    3 stages: 1 reuse, 1 run, 1 pending
    what runs takes [time] and adds 17 B to the store
    ----- stderr
    "#);
    sandbox.write_stages(&STAGES.replace("suffix: '!'", ""));
    screen!(sandbox.pipe("explain p.yaml text"), @r#"
    exit code: 0
    ----- stdout
    text  change  run      never made with these settings and inputs
          since run [run]:
            `suffix` "!" -> "", now the default
    ----- stderr
    "#);
    screen!(sandbox.pipe("explain p.yaml last --set stages.rows.with.value=bye"), @r#"
    exit code: 0
    ----- stdout
    last  join    pending  depends on what `rows` and `text` give
          since run [run]:
            `more` is known when `rows.rows` is made
            `rows` is known when `text.rows` is made
    rows  make    run      never made with these settings and inputs
          since run [run]:
            `value` "hello" -> "bye", --set stages.rows.with.value=bye
    text  change  pending  depends on what `rows` gives
          since run [run]:
            `suffix` "!" -> "", now the default
            `rows` is known when `rows.rows` is made
    ----- stderr
    "#);
}

#[test]
fn an_input_is_named_with_the_stage_it_came_from() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    sandbox.write_stages(&STAGES.replace("value: hello", "value: bye").replace("rows: text, more: rows", "rows: rows"));
    // `rows` alone, so that its bytes are known and its followers are not made yet.
    sandbox.write("rows.yaml", "version: 1\nstages:\n  rows: { uses: make, with: { value: bye } }\n");
    assert_eq!(sandbox.pipe("run rows.yaml").code, 0);
    screen!(sandbox.pipe("plan p.yaml --why"), @r#"
    exit code: 0
    ----- stdout
    rows  make    reuse
          since run [run]:
            `value` "hello" -> "bye", [dir]/p.yaml:4:38
    text  change  run    ~ [time], 6 B  never made with these settings and inputs
          since run [run]:
            `rows` from `rows.rows` has other content, fc534959fc24 -> 768e8eedd34c
    last  join    run    ~ [time], 11 B  never made with these settings and inputs
          since run [run]:
            `rows` from `rows.rows` has other content, f7e323518cc9 -> 768e8eedd34c
            nothing is connected to `more` any more
    3 stages: 1 reuse, 2 run
    what runs takes [time] and adds 17 B to the store
    ----- stderr
    "#);
    screen!(sandbox.pipe("explain p.yaml last --json"), @r#"
    exit code: 0
    ----- stdout
    {"causes":[{"changes":[{"at":{"column":38,"file":"[dir]/p.yaml","length":3,"line":4},"name":"value","new":"bye","old":"hello","what":"setting"}],"compared_with":{"fingerprint":"15772b3b56e4479e0262bceb5ef9e4230196e3a408011b0a3468efed64beb8f9","run_id":"[run]"},"fingerprint":"e6d68e69d8365ebfe606603c311a0c59658c13cf3f799617a839bb9accd83a90","kind":"make","reason":"","stage":"rows","verdict":"reuse"}],"format_version":1,"stage":{"changes":[{"from":"rows.rows","new":"768e8eedd34c0bec16500f2253675652f9df62d2869451315c4a8c75bc1c52ed","old":"f7e323518cc93b94f4a65a6e9a1a3bf9c75f015efeace7592f81632529ef89b5","port":"rows","what":"input"},{"from":null,"new":null,"old":"fc534959fc249a87ca76eed30e06a1835f55432facaf2d1cc8f228ab4dd665bc","port":"more","what":"input"}],"compared_with":{"fingerprint":"50c76e546835465afcb26d3690c9e285b752af1059f0facb21ff02a4e33daf0d","run_id":"[run]"},"fingerprint":null,"kind":"join","reason":"never made with these settings and inputs","stage":"last","verdict":"run"}}
    ----- stderr
    "#);
}

#[test]
fn a_local_file_is_named() {
    let sandbox = Sandbox::with_stages("  copy: { uses: files, with: { value: data.txt } }\n");
    sandbox.write("data.txt", "one");
    sandbox.outcomes("run p.yaml");
    sandbox.write("data.txt", "two and more");
    screen!(sandbox.pipe("explain p.yaml copy"), @r"
    exit code: 0
    ----- stdout
    copy  files  run  never made with these settings and inputs
          since run [run]:
            file `data.txt` has other bytes, d33fb48ab5ad -> dc8a25aca8bb
    ----- stderr
    ");
}

#[test]
fn kinds_and_compute_classes_are_told_apart() {
    let sandbox = Sandbox::with_stages("  one: { uses: classy, with: { value: a, class: here } }\n");
    sandbox.outcomes("run p.yaml");
    sandbox.write_stages("  one: { uses: classy, with: { value: a, class: there } }\n");
    screen!(sandbox.pipe("explain p.yaml one"), @r"
    exit code: 0
    ----- stdout
    one  classy  reuse  made on here
         since run [run]:
           compute class here -> there
    ----- stderr
    ");
    screen!(sandbox.pipe("explain p.yaml one --numerics exact"), @r"
    exit code: 0
    ----- stdout
    one  classy  run  never made with these settings and inputs
         since run [run]:
           compute class here -> there
    ----- stderr
    ");
    sandbox.write_stages("  one: { uses: make, with: { value: a } }\n");
    screen!(sandbox.pipe("explain p.yaml one"), @r"
    exit code: 0
    ----- stdout
    one  make  run  never made with these settings and inputs
         since run [run]:
           stage kind `classy` -> `make`
           compute class here -> none
    ----- stderr
    ");
}

#[test]
fn a_record_that_is_gone_is_a_reason() {
    let sandbox = Sandbox::with_stages("  rows: { uses: make, with: { value: hello } }\n");
    sandbox.outcomes("run p.yaml");
    sandbox.outcomes("run p.yaml --set stages.rows.with.value=other");
    let newest = sandbox.pipe("plan p.yaml --json --set stages.rows.with.value=other").out;
    let newest: serde_json::Value = serde_json::from_str(&newest).expect("JSON");
    let fingerprint = newest["stages"][0]["fingerprint"].as_str().expect("it was made");
    let manifest = sandbox.path(&format!(".pipe/manifests/{}/{fingerprint}", &fingerprint[..2]));
    fs::remove_file(manifest).expect("the manifest lies there");
    // The newest run says nothing any more, so it is compared with the one before.
    screen!(sandbox.pipe("explain p.yaml rows --set stages.rows.with.value=other"), @r#"
    exit code: 0
    ----- stdout
    rows  make  run  never made with these settings and inputs
          since run [run]:
            `value` "hello" -> "other", --set stages.rows.with.value=other
    ----- stderr
    "#);
}

#[test]
fn an_unknown_stage_is_refused() {
    let sandbox = Sandbox::with_stages(STAGES);
    screen!(sandbox.pipe("explain p.yaml txet"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[unknown-stage]: `[dir]/p.yaml` has no stage `txet`
    help: did you mean `text`?
    ");
}
