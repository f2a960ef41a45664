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
    every file that the store holds has the bytes it should have
    ----- stderr
    ");
    damage(&sandbox, "hello", "hullo");
    let output = sandbox.pipe("cache verify");
    assert_eq!(output.code, 1);
    assert!(output.out.contains("1 corrupt file; the next run makes again what it needs of them"), "{}", output.out);
    assert_eq!(sandbox.outcomes("run p.yaml --set stages.text.with.suffix=X"), "rows ran, text ran");
    assert_eq!(sandbox.pipe("cache verify").code, 0);
    assert_eq!(set_aside(&sandbox), ["hullo"], "for who wants to look at it");
}

#[test]
fn a_truncated_blob_is_set_aside_and_made_again_when_it_is_needed() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    let before = sandbox.blobs();
    damage(&sandbox, "hello", "hel");
    let output = sandbox.pipe("cache verify");
    assert_eq!((output.code, output.out.matches("; set aside").count()), (1, 1), "{}", output.out);
    assert_eq!(set_aside(&sandbox), ["hel"]);
    assert_eq!(sandbox.outcomes("run p.yaml"), "rows reused, text reused", "nothing that runs needs it");
    assert_eq!(sandbox.outcomes("run p.yaml --set stages.text.with.suffix=X"), "rows ran, text ran");
    assert!(before.iter().all(|blob| blob.exists()), "the same bytes have the same name");
    assert_eq!(sandbox.pipe("cache verify").code, 0);

    // A run notices by itself what its size tells: `verify` is for what only reading finds.
    damage(&sandbox, "hello", "");
    assert_eq!(sandbox.outcomes("run p.yaml --set stages.text.with.suffix=Y"), "rows ran, text ran");
    assert_eq!(sandbox.pipe("cache verify").code, 0);
}

/// Changes the bytes of the blob with this text as a failing disk does: its times stay.
fn damage(sandbox: &Sandbox, text: &str, damaged: &str) {
    let blob = sandbox.blobs().into_iter().find(|path| fs::read_to_string(path).is_ok_and(|found| found == text));
    let blob = blob.expect("it is there");
    let seen = fs::metadata(&blob).and_then(|seen| seen.modified()).expect("a time");
    fs::set_permissions(&blob, fs::Permissions::from_mode(0o644)).expect("ours");
    fs::write(&blob, damaged).expect("ours");
    fs::File::options().write(true).open(&blob).and_then(|file| file.set_modified(seen)).expect("ours");
}

/// The texts of what was set aside.
fn set_aside(sandbox: &Sandbox) -> Vec<String> {
    let files = fs::read_dir(sandbox.path(".pipe/corrupt")).expect("it was made");
    let mut texts: Vec<String> =
        files.map(|file| fs::read_to_string(file.expect("a file").path()).expect("readable")).collect();
    texts.sort();
    texts
}

#[test]
fn looking_makes_no_store() {
    let sandbox = Sandbox::with_stages(&format!("{STAGES}  copy: {{ uses: files, with: {{ value: in.txt }} }}\n"));
    sandbox.write("in.txt", "local");
    let settled = std::time::UNIX_EPOCH + std::time::Duration::from_secs(9);
    fs::File::options().append(true).open(sandbox.path("in.txt")).expect("ours").set_modified(settled).expect("ours");
    for command in ["cache size", "cache verify", "plan p.yaml", "graph p.yaml", "plan", "show p.yaml text"] {
        let output = sandbox.pipe(command);
        assert!(output.code < 70, "{}", output.err);
        assert!(!sandbox.path(".pipe").exists(), "{command}");
    }
    screen!(sandbox.pipe("plan p.yaml"), @r"
    exit code: 0
    ----- stdout
    rows  make    run      never made with these settings and inputs
    text  change  pending  depends on what `rows` gives
    copy  files   run      never made with these settings and inputs
    3 stages: 2 run, 1 pending
    how long this takes and how much it adds to the store is not known: none of it ran here before
    ----- stderr
    ");
    screen!(sandbox.pipe("cache verify"), @r"
    exit code: 0
    ----- stdout
    there is no store in .pipe
    ----- stderr
    ");
    // A folder in which nobody can make anything, not even root.
    assert_eq!(sandbox.pipe("plan p.yaml --store /proc/pipe-test").code, 0);
}

#[test]
fn files_that_the_store_refers_to_are_not_said_to_be_right() {
    let sandbox = Sandbox::with_stages("  rows: { uses: refer, with: { value: in.txt } }\n");
    sandbox.write("in.txt", "local");
    sandbox.outcomes("run p.yaml");
    screen!(sandbox.pipe("cache verify"), @r"
    exit code: 0
    ----- stdout
    every file that the store holds has the bytes it should have
    not read: 1 file elsewhere that the store refers to
    ----- stderr
    ");
}
