//! The main job through the real binary: `pipelines/alpaca.yaml` on real rows and a real Llama from a hub on loopback.
//!
//! Reads what `support/hub.rs` lists from PIPE_TEST_DATA. The model is stories260K, and training is cut to a few optimizer
//! steps; `just real` runs SmolLM2-135M. `xgen` runs it under its own name.
#![cfg(feature = "stages")]

mod support;
#[path = "main_job/xgen.rs"]
mod xgen;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use support::hub::{Hub, test_data};

/// A request to the hub without a body; returns the body of the answer.
fn request(hub: &Hub, method: &str, path: &str) -> String {
    let host = hub.address.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).expect("the hub answers");
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.split_once("\r\n\r\n").expect("a body").1.to_string()
}

fn n_requests(hub: &Hub) -> u64 {
    let stats: Value = serde_json::from_str(&request(hub, "GET", "/_control/stats")).expect("JSON");
    stats["requests"].as_u64().expect("a count")
}

/// A folder with the pipeline, and a hub.
struct Job {
    work: tempfile::TempDir,
    hub: Hub,
    /// Of every command.
    settings: Vec<String>,
}

impl Job {
    /// `settings`: arguments of every command.
    fn start(test: &str, settings: &[&str]) -> Option<Self> {
        let data = test_data(test)?;
        let work = tempfile::tempdir().expect("a temporary folder");
        let hub = Hub::start(&data, work.path());
        std::fs::create_dir(work.path().join("pipelines")).expect("a folder");
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/alpaca.yaml"));
        std::fs::write(work.path().join("pipelines/alpaca.yaml"), text.expect("the pipeline")).expect("a copy");
        Some(Job { work, hub, settings: settings.iter().map(ToString::to_string).collect() })
    }

    fn pipe(&self, command: &str, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_pipe"))
            .current_dir(self.work.path())
            .args([command, "pipelines/alpaca.yaml"])
            .args(&self.settings)
            .args(more)
            .env("HF_ENDPOINT", &self.hub.address)
            .env("HF_HOME", self.work.path().join("hf"))
            .env_remove("PIPE_STORE")
            .env_remove("PIPE_THREADS")
            .env_remove("CI")
            .output()
            .expect("pipe runs")
    }

    fn run(&self, more: &[&str]) -> String {
        let output = self.pipe("run", more);
        let printed = String::from_utf8(output.stderr).expect("text");
        assert!(output.status.success(), "{printed}");
        printed
    }

    /// Fingerprint to digests, of the last run.
    fn outputs(&self) -> Value {
        let text = std::fs::read_to_string(self.work.path().join("pipelines/alpaca.lock")).expect("a lock file");
        serde_json::from_str::<Value>(&text).expect("JSON")["outputs"].clone()
    }

    /// Names of stages with a verdict.
    fn verdicts(&self, more: &[&str]) -> Vec<(String, String)> {
        let output = self.pipe("plan", more);
        let text = String::from_utf8(output.stdout).expect("text");
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            let (name, _, verdict) = (words.next()?, words.next()?, words.next()?);
            let is_verdict = ["reuse", "run", "pending", "blocked"].contains(&verdict);
            is_verdict.then(|| (name.to_string(), verdict.to_string()))
        };
        text.lines().filter_map(line).collect()
    }
}

#[test]
fn real_rows_and_a_real_llama_become_an_adapter_once() {
    let settings = [
        ["--set", "vars.model=karpathy/stories260K"],
        ["--set", "vars.max_length=512"],
        ["--set", "stages.adapter.with.max_steps=4"],
    ];
    let started = Job::start("real_rows_and_a_real_llama_become_an_adapter_once", &settings.concat());
    let Some(job) = started else { return };
    let printed = job.run(&["--threads", "2"]);
    assert!(printed.contains("7 ran in"), "{printed}");
    assert!(printed.contains("column `text` equals the template in all 2000 rows"), "{printed}");
    let released = job.work.path().join("out/karpathy/stories260K");
    for file in ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", "merged/model.safetensors"] {
        assert!(released.join(file).is_file(), "{file} is missing");
    }
    let config = std::fs::read_to_string(released.join("adapter/adapter_config.json")).expect("a config");
    assert!(config.contains("\"base_model_name_or_path\": \"karpathy/stories260K\""), "{config}");
    let two_threads = job.outputs();

    // Again: no stage, no network.
    request(&job.hub, "DELETE", "/_control/log");
    assert!(job.run(&[]).starts_with("7 stages, all reused in"));
    assert_eq!(n_requests(&job.hub), 0);

    // Another learning rate: train and export, nothing else.
    let verdicts = job.verdicts(&["--set", "stages.adapter.with.learning_rate=1.0e-4"]);
    let changed: Vec<&str> =
        verdicts.iter().filter(|(_, verdict)| verdict != "reuse").map(|(name, _)| name.as_str()).collect();
    assert_eq!((verdicts.len(), changed), (7, vec!["adapter", "released"]), "{verdicts:?}");

    // A fresh store and one thread: every artifact has the same digest.
    job.run(&["--threads", "1", "--store", "fresh"]);
    assert_eq!(job.outputs(), two_threads);
}
