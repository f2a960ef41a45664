//! `--json` of the commands that answer in a sentence or a table: one object in one line.

use serde_json::Value;

use crate::kinds;
use crate::sandbox::Sandbox;

const STAGES: &str = "
  rows: { uses: make, with: { value: hello } }
  text: { uses: change, inputs: { rows: rows }, with: { suffix: '!', label: text }, to: out }
";

fn object(sandbox: &Sandbox, arguments: &str) -> Value {
    let output = sandbox.pipe(&format!("{arguments} --json"));
    assert_eq!(output.out.lines().count(), 1, "{arguments}: {}{}", output.out, output.err);
    let object: Value = serde_json::from_str(&output.out).expect("an object");
    assert_eq!(object["format_version"], 1, "{arguments}");
    object
}

#[test]
fn a_pipeline_and_its_kinds() {
    let sandbox = Sandbox::with_stages(STAGES);
    screen!(sandbox.pipe("graph p.yaml --json"), @r#"
    exit code: 0
    ----- stdout
    {"format_version":1,"pipeline":"p","stages":[{"inputs":{},"kind":"make","needs":[],"outputs":["rows"],"stage":"rows","to":null,"verdict":"run"},{"inputs":{"rows":"rows.rows"},"kind":"change","needs":[],"outputs":["rows"],"stage":"text","to":"out","verdict":"pending"}]}
    ----- stderr
    "#);
    screen!(sandbox.pipe("stages join --json"), @r#"
    exit code: 0
    ----- stdout
    {"format_version":1,"kind":{"inputs":[{"is_required":true,"kind":"rows","port":"rows"},{"is_required":false,"kind":"rows","port":"more"}],"name":"join","outputs":[{"kind":"rows","port":"rows"}],"settings":[{"default":"","name":"value","type":"text"},{"default":"","name":"suffix","type":"text"},{"default":null,"max":100,"min":0,"name":"first","type":"integer"},{"default":"","name":"room","type":"text"},{"default":"fake-1","name":"class","type":"text"},{"default":"","name":"label","type":"text"}],"summary":"joins two texts","version":1}}
    ----- stderr
    "#);
    let kinds = object(&sandbox, "stages");
    assert_eq!(kinds["kinds"].as_array().map(Vec::len), Some(kinds::registry().kinds().len()));
    assert_eq!(sandbox.pipe("graph p.yaml --json --format dot").code, 2);
}

#[test]
fn outputs_and_what_a_stage_said() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.behave("text", "fail");
    sandbox.pipe("run p.yaml");
    screen!(sandbox.pipe("logs text --json"), @r#"
    exit code: 0
    ----- stdout
    {"format_version":1,"lines":["reading row 1","reading row 2","error[bad-row]: failed to read the rows: row 2 is damaged"],"run_id":"[run]","stage":"text"}
    ----- stderr
    "#);
    sandbox.behave("text", "well");
    sandbox.outcomes("run p.yaml");
    screen!(sandbox.pipe("show text --json"), @r#"
    exit code: 0
    ----- stdout
    {"facts":[["characters","6"]],"fingerprint":"a9593413b20b8ab8e30cf00d954274db4d12a1ad2194e946c2a6789b32d62ad0","format_version":1,"outputs":[{"digest":"f7e323518cc93b94f4a65a6e9a1a3bf9c75f015efeace7592f81632529ef89b5","files":[{"digest":"0cac6414ccb21c104674359e6789bbe644db1db8fd740ed4cabff0e1c9d591f6","name":"value.txt","path":"[dir]/.pipe/blobs/0c/0cac6414ccb21c104674359e6789bbe644db1db8fd740ed4cabff0e1c9d591f6","size_bytes":6}],"kind":"rows","port":"rows","text":"rows, 5 rows: hello!"}],"stage":"text"}
    ----- stderr
    "#);
    screen!(sandbox.pipe("get text --to here --json"), @r#"
    exit code: 0
    ----- stdout
    {"format_version":1,"left_alone":[],"to":"here","unchanged":[],"written":["here/rows/value.txt"]}
    ----- stderr
    "#);
    sandbox.write("here/rows/value.txt", "mine");
    let output = sandbox.pipe("get text --to here --json");
    assert_eq!(output.code, 1);
    assert!(output.out.contains(r#""left_alone":["here/rows/value.txt"]"#), "{}", output.out);
    screen!(sandbox.pipe("report --json"), @r#"
    exit code: 0
    ----- stdout
    {"format_version":1,"report":".pipe/runs/[run]/report.html","run_id":"[run]"}
    ----- stderr
    "#);
}

#[test]
fn what_remote_names_stand_for() {
    kinds::set_remote("told-in-json", "c1");
    let sandbox = Sandbox::with_stages("  far: { uses: remote, with: { value: told-in-json } }\n");
    screen!(sandbox.pipe("update p.yaml --json"), @r#"
    exit code: 0
    ----- stdout
    {"format_version":1,"sources":[{"before":null,"id":"c1","request":"things/told-in-json@main"}]}
    ----- stderr
    "#);
    kinds::set_remote("told-in-json", "c2");
    screen!(sandbox.pipe("update p.yaml --json"), @r#"
    exit code: 0
    ----- stdout
    {"format_version":1,"sources":[{"before":"c1","id":"c2","request":"things/told-in-json@main"}]}
    ----- stderr
    "#);
}

#[test]
fn the_store() {
    let sandbox = Sandbox::with_stages(STAGES);
    screen!(sandbox.pipe("cache path --json"), @r#"
    exit code: 0
    ----- stdout
    {"format_version":1,"path":"[dir]/.pipe"}
    ----- stderr
    "#);
    screen!(sandbox.pipe("cache verify --json"), @r#"
    exit code: 0
    ----- stdout
    {"corrupt":[],"external":{"n_files":0,"size_bytes":0},"format_version":1}
    ----- stderr
    "#);
    sandbox.outcomes("run p.yaml");
    let size = object(&sandbox, "cache size");
    assert_eq!(size["blobs"], serde_json::json!({ "n_files": 2, "size_bytes": 11 }));
    for part in ["manifests", "checkpoints", "runs", "other", "external"] {
        assert!(size[part]["size_bytes"].is_u64(), "{part}: {size}");
    }
    screen!(sandbox.pipe("cache verify --json"), @r#"
    exit code: 0
    ----- stdout
    {"corrupt":[],"external":{"n_files":0,"size_bytes":0},"format_version":1}
    ----- stderr
    "#);
    let plan = object(&sandbox, "plan p.yaml");
    let fingerprint = plan["stages"][0]["fingerprint"].as_str().expect("it was made").to_string();
    let pinned = object(&sandbox, &format!("cache pin {fingerprint}"));
    assert_eq!(pinned["size_bytes"], 5);
    screen!(sandbox.pipe("cache pin --json"), @r#"
    exit code: 0
    ----- stdout
    {"format_version":1,"pins":[{"fingerprints":["15772b3b56e4479e0262bceb5ef9e4230196e3a408011b0a3468efed64beb8f9"],"pin":"15772b3b56e4479e0262bceb5ef9e4230196e3a408011b0a3468efed64beb8f9","size_bytes":5}]}
    ----- stderr
    "#);
    std::fs::remove_file(sandbox.path("p.lock")).expect("a lock file");
    let planned = object(&sandbox, "cache gc --keep-runs 0");
    let blob = "[dir]/.pipe/blobs/0c/0cac6414ccb21c104674359e6789bbe644db1db8fd740ed4cabff0e1c9d591f6";
    let removal = serde_json::json!({
        "kind": "artifacts", "path": blob, "what": "change: rows/value.txt", "n_files": 1, "size_bytes": 6,
    });
    assert_eq!(planned["removals"], serde_json::json!([removal]));
    assert_eq!((&planned["removed"], &planned["kept"]["size_bytes"]), (&Value::Null, &5.into()));
    let roots = serde_json::json!({ "n_lock_files": 0, "n_runs": 0, "n_pins": 1, "n_holds": 0 });
    assert_eq!(planned["roots"], roots);
    let removed = object(&sandbox, "cache gc --keep-runs 0 --yes");
    assert_eq!(removed["removed"]["sizes"]["artifacts"], serde_json::json!({ "n_files": 1, "size_bytes": 6 }));
    screen!(sandbox.pipe(&format!("cache unpin {fingerprint} --json")), @r#"
    exit code: 0
    ----- stdout
    {"format_version":1,"unpinned":"15772b3b56e4479e0262bceb5ef9e4230196e3a408011b0a3468efed64beb8f9"}
    ----- stderr
    "#);
}

#[test]
fn every_command_with_an_answer_has_it() {
    let without = ["completions", "man", "schema"];
    let help = Sandbox::new().pipe("--help").out;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names.iter().filter(|name| !without.contains(*name) && !matches!(**name, "help" | "bench" | "cache")) {
        let help = Sandbox::new().pipe(&format!("{name} --help")).out;
        assert!(help.contains("--json"), "`pipe {name}` has no --json");
    }
    for name in ["path", "size", "verify", "gc", "pin", "unpin"] {
        assert!(Sandbox::new().pipe(&format!("cache {name} --help")).out.contains("--json"), "`pipe cache {name}`");
    }
}
