//! The cache shared with Python's huggingface_hub, both ways, without a network.
//!
//! PIPE_HUB_PYTHON names a Python that has huggingface_hub (`pip install huggingface_hub`); without it these tests are
//! skipped.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pipe_stage_download::glob::matches_pattern;
use serde_json::{Value, json};

use crate::support::Hub;

const MODEL: &str = "{ model: acme/tiny }";
const ROWS: &str = "{ dataset: acme/rows, files: \"*.jsonl\" }";
const OFFLINE: [(&str, &str); 1] = [("HF_HUB_OFFLINE", "1")];

fn python(test: &str) -> Option<PathBuf> {
    let found = std::env::var_os("PIPE_HUB_PYTHON").map(PathBuf::from);
    if found.is_none() {
        let mut stderr = std::io::stderr(); // Not `eprintln!`, which the test harness captures.
        writeln!(stderr, "SKIPPED {test}: PIPE_HUB_PYTHON is not set").unwrap();
    }
    found
}

/// Runs scripts/check_hub_cache.py with nothing in its environment that could lead elsewhere.
fn check(python: &Path, arguments: &[&str], variables: &[(&str, &str)], input: &str) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/check_hub_cache.py");
    let mut command = Command::new(python);
    command.arg(script).args(arguments).env_clear().env("HF_HUB_DISABLE_XET", "1").env("HF_HUB_DISABLE_TELEMETRY", "1");
    command.envs(variables.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    running.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = running.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn huggingface_hub_reads_what_pipe_has_downloaded() {
    let test = "huggingface_hub_reads_what_pipe_has_downloaded";
    let Some(python) = python(test) else { return };
    let Some(hub) = Hub::start(test) else { return };
    let cache = hub.cache();
    let model = hub.download(MODEL, &[]);
    let rows = hub.download(ROWS, &[]);
    let pull_request = hub.download("{ model: acme/tiny, revision: refs/pr/1 }", &[]);
    hub.control("DELETE", "log");

    let found = check(&python, &["read", cache.to_str().unwrap()], &[("HF_ENDPOINT", hub.endpoint())], "");
    assert_eq!(found["warnings"], json!([]));
    for (repository, outcome, reference) in [
        ("models/acme/tiny", &model, "main"),
        ("datasets/acme/rows", &rows, "main"),
        ("models/acme/tiny", &pull_request, "refs/pr/1"),
    ] {
        let revisions = found["revisions"].as_array().unwrap();
        let of = |one: &&Value| one["repo"] == repository && one["commit"] == outcome.commit.as_str();
        let revision = revisions.iter().find(of).unwrap_or_else(|| panic!("{repository} is not in {found}"));
        assert_eq!(revision["refs"], json!([reference]));
        let files: BTreeMap<String, String> = serde_json::from_value(revision["files"].clone()).unwrap();
        let expected = outcome.files().iter().map(|file| (file.name.clone(), sha256(&fs::read(&file.path).unwrap())));
        assert_eq!(files, expected.collect::<BTreeMap<_, _>>(), "{repository}");
        let knows_missing = revision["missing"].as_array().unwrap().contains(&json!("generation_config.json"));
        assert_eq!(knows_missing, repository.starts_with("models/"), "{revision}");
    }
    assert_eq!(hub.log(), Vec::<String>::new(), "nothing was asked of the hub");
}

#[test]
fn pipe_reads_what_huggingface_hub_has_downloaded_and_lays_out_the_same() {
    let test = "pipe_reads_what_huggingface_hub_has_downloaded";
    let Some(python) = python(test) else { return };
    let Some(hub) = Hub::start(test) else { return };
    let cache = hub.cache();
    let write = |repo_type: &str, id: &str| {
        let variables = [("HF_ENDPOINT", hub.endpoint())];
        check(&python, &["write", cache.to_str().unwrap(), repo_type, id], &variables, "")
    };
    let model = write("model", "acme/tiny");
    let written = write("dataset", "acme/rows");
    let (theirs, their_listings) = (&written["layout"], &written["listings"]);
    hub.control("DELETE", "log");
    let of_theirs: Vec<_> = [MODEL, ROWS].iter().map(|settings| hub.download(settings, &OFFLINE)).collect();
    assert_eq!(Some(of_theirs[0].commit.as_str()), model["commit"].as_str());
    assert_eq!(hub.bytes_of(&of_theirs[0], "model.safetensors"), hub.weights());
    assert_eq!(hub.log(), Vec::<String>::new(), "nothing was asked of the hub");

    // The same downloads by `pipe` alone: the same digests, and the same paths and links.
    fs::remove_dir_all(&cache).unwrap();
    let ours: Vec<_> = [MODEL, ROWS].iter().map(|settings| hub.download(settings, &[])).collect();
    for (ours, theirs) in ours.iter().zip(&of_theirs) {
        assert_eq!(ours.digests(), theirs.digests());
    }
    let read = check(&python, &["read", cache.to_str().unwrap()], &[], "");
    let ours = &read["layout"];
    assert_eq!(read["listings"], *their_listings);
    assert_eq!(their_listings.as_object().unwrap().len(), 2, "{their_listings}");
    // Listings are our own, and of a model we know more files that it has not; Python may unlink its locks.
    let is_shared =
        |path: &str| !path.contains("/pipe/") && !path.contains("/.no_exist/") && !path.starts_with(".locks/");
    let shared = |layout: &Value| -> BTreeMap<String, String> {
        let all: BTreeMap<String, String> = serde_json::from_value(layout.clone()).unwrap();
        all.into_iter().filter(|(path, _)| is_shared(path)).collect()
    };
    assert_eq!(shared(ours), shared(theirs));
    let noted = |layout: &Value, prefix: &str| -> Vec<String> {
        let all = layout.as_object().unwrap().keys();
        all.filter(|path| path.contains(prefix)).cloned().collect()
    };
    let missing = noted(theirs, "models--acme--tiny/.no_exist/");
    assert_eq!(missing.len(), 1, "{theirs}");
    assert!(noted(ours, "models--acme--tiny/.no_exist/").contains(&missing[0]), "{ours}");
    let locks = noted(theirs, ".locks/");
    let own = noted(ours, ".locks/");
    assert!(locks.iter().all(|path| own.contains(path)), "{locks:?} {own:?}");
}

#[test]
fn patterns_take_the_names_that_huggingface_hub_takes() {
    let Some(python) = python("patterns_take_the_names_that_huggingface_hub_takes") else { return };
    let names =
        ["a.json", "data/a.json", "data/b/c.JSON", "[x].bin", "model-00001-of-00002.bin", "x]y", "data/-.txt", "b!.md"];
    let patterns = [
        "*",
        "*.json",
        "data/",
        "data/*",
        "data\\*.json",
        "[[]x].bin",
        "model-0000[0-9]*",
        "x[]]y",
        "?.json",
        "[!a]*",
        "*[-x]*",
        "data/?.txt",
        "*/*",
        "[z-a]*",
        "b[!]*",
        "",
        "DATA/*",
    ];
    let cases: Vec<Value> =
        patterns.iter().map(|pattern| json!({ "names": names, "allow": [pattern], "ignore": [] })).collect();
    let theirs = check(&python, &["names"], &[], &json!(cases).to_string());
    for (pattern, theirs) in patterns.iter().zip(theirs.as_array().unwrap()) {
        let ours: Vec<&str> = names.iter().copied().filter(|name| matches_pattern(pattern, name)).collect();
        assert_eq!(json!(ours), *theirs, "{pattern}");
    }
}

/// Bytes of the file that is measured: what the weights of SmolLM2-135M have.
const MEASURED_SIZE_BYTES: usize = 270_000_000;

/// Run by hand, on a machine that is at rest: `cargo test -p pipe-stage-download --test remote -- --ignored --nocapture measure`.
#[test]
#[ignore = "a measurement"]
fn measure_a_download_beside_huggingface_hub() {
    let test = "measure_a_download_beside_huggingface_hub";
    let Some(python) = python(test) else { return };
    let Some(hub) = Hub::start(test) else { return };
    hub.add_model("acme/measured", MEASURED_SIZE_BYTES);
    let yaml = "{ model: acme/measured }";
    // The hub hashes a file when it is first asked for it.
    let commit = hub.download(yaml, &[]).commit;
    let mut seconds = [Vec::new(), Vec::new()];
    for _ in 0..5 {
        fs::remove_dir_all(hub.cache()).unwrap();
        let began = std::time::Instant::now();
        assert!(hub.run_resolved(yaml, &commit, &[]).result.is_ok());
        seconds[0].push(began.elapsed().as_secs_f64());
        fs::remove_dir_all(hub.cache()).unwrap();
        let (cache, endpoint) = (hub.cache(), [("HF_ENDPOINT", hub.endpoint())]);
        let found = check(&python, &["write", cache.to_str().unwrap(), "model", "acme/measured"], &endpoint, "");
        seconds[1].push(found["seconds"].as_f64().unwrap());
    }
    let median = |seconds: &mut Vec<f64>| {
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    };
    let [ours, theirs] = seconds.each_mut().map(median);
    let mut stderr = std::io::stderr();
    writeln!(stderr, "huggingface_hub takes {:.2} times as long ({seconds:.2?})", theirs / ours).unwrap();
}
