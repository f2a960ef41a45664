//! The main job through the real binary: `pipelines/alpaca.yaml` on real rows and a real Llama from a hub on loopback.
//!
//! Reads tools/make_hub_tree.py, tools/hub_server.py and the data they serve from PIPE_TEST_DATA. The model is stories260K, and
//! training is cut to a few optimizer steps; `just real` runs SmolLM2-135M.
#![cfg(feature = "stages")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A hub server that ends with the test.
struct Hub {
    process: Child,
    address: String,
}

impl Hub {
    fn start(data: &Path, work: &Path) -> Self {
        let python = |arguments: &[&std::ffi::OsStr]| {
            let mut command = Command::new("python3");
            command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let (tree, port_file) = (work.join("hub"), work.join("hub.json"));
        let make = data.join("tools/make_hub_tree.py");
        assert!(python(&[make.as_os_str(), tree.as_os_str()]).status().expect("python3 runs").success());
        let server = data.join("tools/hub_server.py");
        let mut command = python(&[server.as_os_str(), "--root".as_ref(), tree.as_os_str()]);
        command.arg("--port-file").arg(&port_file).arg("--parent-pid").arg(std::process::id().to_string());
        let process = command.spawn().expect("python3 runs");
        let begin = Instant::now();
        while !port_file.exists() {
            assert!(begin.elapsed() < Duration::from_secs(30), "the hub did not start");
            std::thread::yield_now();
        }
        let text = std::fs::read_to_string(&port_file).expect("the port file");
        let ports: Value = serde_json::from_str(&text).expect("JSON");
        Hub { process, address: ports["hub"].as_str().expect("an address").to_string() }
    }

    /// A request without a body; returns the body of the answer.
    fn request(&self, method: &str, path: &str) -> String {
        let host = self.address.trim_start_matches("http://");
        let mut stream = TcpStream::connect(host).expect("the hub answers");
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.split_once("\r\n\r\n").expect("a body").1.to_string()
    }

    fn n_requests(&self) -> u64 {
        let stats: Value = serde_json::from_str(&self.request("GET", "/_control/stats")).expect("JSON");
        stats["requests"].as_u64().expect("a count")
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Job {
    work: tempfile::TempDir,
    hub: Hub,
}

impl Job {
    fn start(test: &str) -> Option<Self> {
        let Some(data) = std::env::var_os("PIPE_TEST_DATA").map(PathBuf::from) else {
            writeln!(std::io::stderr(), "SKIPPED {test}: PIPE_TEST_DATA is not set").expect("stderr can be written to");
            return None;
        };
        let work = tempfile::tempdir().expect("a temporary folder");
        let hub = Hub::start(&data, work.path());
        std::fs::create_dir(work.path().join("pipelines")).expect("a folder");
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/alpaca.yaml"));
        std::fs::write(work.path().join("pipelines/alpaca.yaml"), text.expect("the pipeline")).expect("a copy");
        Some(Job { work, hub })
    }

    fn pipe(&self, command: &str, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_pipe"))
            .current_dir(self.work.path())
            .args([command, "pipelines/alpaca.yaml"])
            .args(["--set", "vars.model=karpathy/stories260K", "--set", "vars.max_length=512"])
            .args(["--set", "stages.adapter.with.max_steps=4"])
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
            (!name.ends_with(':') && !name.starts_with(|c: char| c.is_ascii_digit()))
                .then(|| (name.to_string(), verdict.to_string()))
        };
        text.lines().filter_map(line).collect()
    }
}

#[test]
fn real_rows_and_a_real_llama_become_an_adapter_once() {
    let Some(job) = Job::start("real_rows_and_a_real_llama_become_an_adapter_once") else { return };
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
    job.hub.request("DELETE", "/_control/log");
    assert!(job.run(&[]).starts_with("7 stages, all reused in"));
    assert_eq!(job.hub.n_requests(), 0);

    // Another learning rate: train and export, nothing else.
    let verdicts = job.verdicts(&["--set", "stages.adapter.with.learning_rate=1.0e-4"]);
    let changed: Vec<&str> =
        verdicts.iter().filter(|(_, verdict)| verdict != "reuse").map(|(name, _)| name.as_str()).collect();
    assert_eq!((verdicts.len(), changed), (7, vec!["adapter", "released"]), "{verdicts:?}");

    // A fresh store and one thread: every artifact has the same digest.
    job.run(&["--threads", "1", "--store", "fresh"]);
    assert_eq!(job.outputs(), two_threads);
}
