//! `pipe cache`: looks after the store.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::sandbox::Sandbox;

const STAGES: &str = "
  rows: { uses: make, with: { value: hello } }
  text: { uses: change, inputs: { rows: rows }, with: { suffix: '!' } }
";

#[test]
fn path_and_size() {
    let sandbox = Sandbox::with_stages(STAGES);
    screen!(sandbox.pipe("cache path"), @r"
    exit code: 0
    ----- stdout
    [dir]/.pipe
    ----- stderr
    ");
    assert!(!sandbox.path(".pipe").exists());
    sandbox.outcomes("run p.yaml");
    let output = sandbox.pipe("cache size");
    let blobs = output.out.lines().next().expect("a line");
    assert_eq!(blobs.split_whitespace().collect::<Vec<_>>(), ["blobs", "11", "B", "2", "files"], "{}", output.out);
}

#[test]
fn a_corrupt_blob_is_found_and_made_again() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    screen!(sandbox.pipe("cache verify"), @r"
    exit code: 0
    ----- stdout
    every file of the store has the bytes it should have
    ----- stderr
    ");
    let blob = sandbox
        .blobs()
        .into_iter()
        .find(|path| fs::read_to_string(path).is_ok_and(|text| text == "hello"))
        .expect("it is there");
    let seen = fs::metadata(&blob).expect("it is there");
    fs::set_permissions(&blob, fs::Permissions::from_mode(0o644)).expect("ours");
    fs::write(&blob, "hullo").expect("ours");
    fs::File::options()
        .write(true)
        .open(&blob)
        .expect("ours")
        .set_modified(seen.modified().expect("a time"))
        .expect("ours");
    let output = sandbox.pipe("cache verify");
    assert_eq!(output.code, 1);
    assert!(output.out.contains("1 corrupt file; the next run makes again what it needs of them"), "{}", output.out);
    assert_eq!(sandbox.outcomes("run p.yaml --set stages.text.with.suffix=X"), "rows ran, text ran");
    assert_eq!(sandbox.pipe("cache verify").code, 0);
}
