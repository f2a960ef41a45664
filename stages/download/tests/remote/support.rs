//! A hub on the loopback interface with a small tree, and `download` run against it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use pipe_contract::{CancelToken, Context, ExternalFile, Reader, Stage as _, StageError, StageEvent};
use pipe_stage_download::environment::Environment;
use pipe_stage_download::run::Download;
use pipe_stage_download::settings;
use serde_json::Value;

/// Size of `model.safetensors` in the small tree.
pub(crate) const WEIGHTS_SIZE_BYTES: usize = 400_000;

/// PIPE_TEST_DATA, or one line that the test is skipped.
pub(crate) fn skip_without_test_data(test: &str) -> Option<PathBuf> {
    let found = std::env::var_os("PIPE_TEST_DATA").map(PathBuf::from);
    if found.is_none() {
        let mut stderr = std::io::stderr(); // Not `eprintln!`, which the test harness captures.
        writeln!(stderr, "SKIPPED {test}: PIPE_TEST_DATA is not set").unwrap();
    }
    found
}

/// How a hub is started.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) server: &'static [&'static str],
    /// Adds the model acme/big, whose weights are worth several connections, and acme/many with many small files.
    pub(crate) has_large_models: bool,
}

/// A running hub with a cache beside it; ends with its value.
pub(crate) struct Hub {
    dir: tempfile::TempDir,
    server: Option<Child>,
    endpoint: String,
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// What a run of the stage gave.
pub(crate) struct Outcome {
    pub(crate) result: Result<(), StageError>,
    pub(crate) commit: String,
    files: Vec<ExternalFile>,
    events: Vec<StageEvent>,
}

impl Outcome {
    pub(crate) fn files(&self) -> &[ExternalFile] {
        self.result.as_ref().expect("download succeeds");
        &self.files
    }

    pub(crate) fn digests(&self) -> Vec<(&str, &str)> {
        self.files().iter().map(|file| (file.name.as_str(), file.digest.as_deref().expect("computed"))).collect()
    }

    pub(crate) fn error(&self) -> String {
        let error = self.result.as_ref().expect_err("download fails");
        format!("{}: {error}", error.slug)
    }

    pub(crate) fn help(&self) -> String {
        self.result.as_ref().expect_err("download fails").help.clone().unwrap_or_default()
    }

    pub(crate) fn warnings(&self) -> Vec<&str> {
        let warnings = self.events.iter().filter_map(|event| match event {
            StageEvent::Warning { line } => Some(line.as_str()),
            _ => None,
        });
        warnings.collect()
    }

    /// `(done, total)` as they were told.
    pub(crate) fn progress(&self) -> Vec<(u64, u64)> {
        let told = self.events.iter().filter_map(|event| match event {
            StageEvent::Progress { done, total, .. } => Some((*done, *total)),
            _ => None,
        });
        told.collect()
    }

    pub(crate) fn logs(&self) -> Vec<&str> {
        let lines = self.events.iter().filter_map(|event| match event {
            StageEvent::Log { line } => Some(line.as_str()),
            _ => None,
        });
        lines.collect()
    }

    /// All that a user could see of it.
    pub(crate) fn everything_said(&self) -> String {
        format!("{:?} {:?}", self.events, self.result)
    }

    pub(crate) fn fact(&self, wanted: &str) -> Option<String> {
        self.events.iter().find_map(|event| match event {
            StageEvent::Fact { name, value } if name == wanted => Some(value.clone()),
            _ => None,
        })
    }
}

impl Hub {
    /// Folders and caches alone, for what asks no hub.
    pub(crate) fn absent() -> Self {
        Hub { dir: tempfile::tempdir().unwrap(), server: None, endpoint: "http://127.0.0.1:9".to_string() }
    }

    /// With the small tree.
    pub(crate) fn start(test: &str) -> Option<Self> {
        Hub::start_with(test, Options::default())
    }

    pub(crate) fn start_with(test: &str, options: Options) -> Option<Self> {
        let data = skip_without_test_data(test)?;
        let dir = tempfile::tempdir().unwrap();
        write_small_tree(&dir.path().join("root"));
        let has_large_models = options.has_large_models;
        if has_large_models {
            write_many_files(&dir.path().join("root"));
        }
        let hub = Hub::serve(&data, dir, options);
        if has_large_models {
            hub.add_model("acme/big", LARGE_SIZE_BYTES);
        }
        Some(hub)
    }

    /// With the real files of PIPE_TEST_DATA.
    pub(crate) fn of_real_files(data: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made =
            Command::new("python3").arg(data.join("tools/make_hub_tree.py")).arg(dir.path().join("root")).status();
        assert!(made.unwrap().success());
        Hub::serve(data, dir, Options::default())
    }

    fn serve(data: &Path, dir: tempfile::TempDir, options: Options) -> Self {
        let port_file = dir.path().join("hub.json");
        let mut server = Command::new("python3")
            .arg(data.join("tools/hub_server.py"))
            .arg("--root")
            .arg(dir.path().join("root"))
            .arg("--port-file")
            .arg(&port_file)
            .args(["--parent-pid", &std::process::id().to_string()])
            .args(options.server)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        // The file appears when the server listens; there is nothing to wait on but its appearance.
        while !port_file.exists() {
            assert!(server.try_wait().unwrap().is_none(), "the hub ended");
            assert!(began.elapsed() < Duration::from_secs(60), "the hub does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        let ports: Value = serde_json::from_slice(&fs::read(&port_file).unwrap()).unwrap();
        let endpoint = ports["hub"].as_str().unwrap().trim_end_matches('/').to_string();
        Hub { dir, server: Some(server), endpoint }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.dir.path().join("hf/hub")
    }

    pub(crate) fn weights(&self) -> Vec<u8> {
        self.served("models/acme/tiny/model.safetensors")
    }

    /// A file as the hub has it.
    pub(crate) fn served(&self, path: &str) -> Vec<u8> {
        fs::read(self.dir.path().join("root").join(path)).unwrap()
    }

    /// Adds a model with weights of that size.
    pub(crate) fn add_model(&self, id: &str, size_bytes: usize) {
        let folder = self.dir.path().join("root/models").join(id);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.json"), b"{}\n").unwrap();
        fs::write(folder.join("model.safetensors"), safetensors(size_bytes)).unwrap();
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn sha256_of_weights(&self) -> String {
        use sha2::Digest as _;
        sha2::Sha256::digest(self.weights()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn bytes_of(&self, outcome: &Outcome, name: &str) -> Vec<u8> {
        let file = outcome.files().iter().find(|file| file.name == name).expect("it was published");
        fs::read(&file.path).unwrap()
    }

    pub(crate) fn stage(&self, yaml: &str, variables: &[(&str, &str)]) -> Download {
        let yaml = serde_yaml::from_str(yaml).unwrap();
        let mut reader = Reader::new(&yaml);
        let settings = settings::read(&mut reader);
        let (_, problems) = reader.finish();
        assert!(problems.is_empty(), "{problems:?}");
        let hf_home = self.dir.path().join("hf").to_string_lossy().into_owned();
        let caches = self.dir.path().join("caches").to_string_lossy().into_owned();
        let own = [("HF_ENDPOINT", self.endpoint.as_str()), ("HF_HOME", &hf_home), ("XDG_CACHE_HOME", &caches)];
        let lookup = |name: &str| {
            let found = variables.iter().chain(&own).find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_string())
        };
        let mut environment = Environment::read(lookup);
        environment.first_pause = Duration::from_millis(20);
        Download { settings, environment }
    }

    /// Resolves and runs.
    pub(crate) fn download(&self, yaml: &str, variables: &[(&str, &str)]) -> Outcome {
        match self.stage(yaml, variables).resolve() {
            Ok(resolved) => self.run_resolved(yaml, &resolved.id, variables),
            Err(error) => Outcome { result: Err(error), commit: String::new(), files: Vec::new(), events: Vec::new() },
        }
    }

    pub(crate) fn run_resolved(&self, yaml: &str, commit: &str, variables: &[(&str, &str)]) -> Outcome {
        self.run(&self.stage(yaml, variables), commit, None)
    }

    /// Interrupted once `n_bytes` are done.
    pub(crate) fn run_cancelled(&self, yaml: &str, commit: &str, n_bytes: u64) -> Outcome {
        self.run(&self.stage(yaml, &[]), commit, Some(n_bytes))
    }

    fn run(&self, stage: &Download, commit: &str, cancel_at: Option<u64>) -> Outcome {
        let events = Mutex::new(Vec::new());
        let cancel = CancelToken::default();
        let emit = |event: StageEvent| {
            if let (StageEvent::Progress { done, .. }, Some(n_bytes)) = (&event, cancel_at)
                && *done >= n_bytes
            {
                cancel.cancel();
            }
            events.lock().unwrap().push(event);
        };
        if cancel_at == Some(0) {
            cancel.cancel();
        }
        let mut ctx = Context::new(self.dir.path(), &emit);
        ctx.cancel = cancel.clone();
        ctx.resolved = Some(commit.to_string());
        let result = stage.run(&mut ctx);
        let files = ctx.take_external();
        Outcome { result, commit: commit.to_string(), files, events: events.into_inner().unwrap() }
    }

    /// Asks the hub to misbehave: see `hub_server.md`.
    pub(crate) fn fault(&self, query: &str) {
        self.control("POST", &format!("fault?{query}"));
    }

    pub(crate) fn control(&self, method: &str, path: &str) -> Value {
        let address = format!("{}/_control/{path}", self.endpoint);
        let response = match method {
            "POST" => ureq::post(&address).send_empty(),
            "DELETE" => ureq::delete(&address).call(),
            _ => ureq::get(&address).call(),
        };
        let text = response.unwrap().body_mut().read_to_string().unwrap();
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Requests for bytes or answers on one origin, in order.
    pub(crate) fn requests(&self, origin: &str) -> Vec<Value> {
        let log = self.control("GET", "log");
        let entries = log.as_array().or_else(|| log["log"].as_array()).expect("the log is a list").clone();
        entries.into_iter().filter(|entry| entry["origin"] == origin).collect()
    }

    /// `(first byte, bytes sent)` of each request for the bytes of a file of `size_bytes`, once the last of them is logged:
    /// the hub logs an answer when it has been sent, a moment after it has arrived.
    pub(crate) fn spans(&self, size_bytes: usize) -> Vec<(u64, u64)> {
        let begin = |range: &str| range.trim_start_matches("bytes=").split('-').next().unwrap().parse().unwrap();
        let began = Instant::now();
        loop {
            let of = |request: &Value| (request["range"].as_str().map_or(0, begin), request["sent"].as_u64().unwrap());
            let spans: Vec<(u64, u64)> = self.requests("cdn").iter().map(of).collect();
            if spans.iter().any(|(begin, sent)| begin + sent == size_bytes as u64) {
                return spans;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "the last bytes were never sent: {spans:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Every request, as `METHOD PATH`.
    pub(crate) fn log(&self) -> Vec<String> {
        let all = [self.requests("hub"), self.requests("cdn")].concat();
        all.iter().map(|entry| format!("{} {}", entry["method"], entry["path"])).collect()
    }
}

fn write_small_tree(root: &Path) {
    let write = |path: &str, bytes: &[u8]| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let weights = safetensors(WEIGHTS_SIZE_BYTES);
    for name in ["tiny", "tiny@refs%2Fpr%2F1", "other", "gated", "secret"] {
        let folder = format!("models/acme/{name}");
        let config = format!("{{\"architectures\": [\"LlamaForCausalLM\"], \"comment\": \"{name}\"}}\n");
        write(&format!("{folder}/config.json"), config.as_bytes());
        write(&format!("{folder}/tokenizer.json"), b"{}\n");
        write(&format!("{folder}/tokenizer_config.json"), b"");
        write(&format!("{folder}/model.safetensors"), &weights);
        write(&format!("{folder}/README.md"), b"not taken\n");
    }
    write("models/acme/twice/a.safetensors", &weights);
    write("models/acme/twice/b.safetensors", &weights);
    write("models/acme/pickle/config.json", b"{}\n");
    write("models/acme/pickle/pytorch_model.bin", b"PK");
    write("datasets/acme/rows/data/train.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"b\"}\n{\"text\": \"c\"}\n");
    write("datasets/acme/rows/data/test.jsonl", b"{\"text\": \"d\"}\n{\"text\": \"e\"}\n");
    let options = serde_json::json!({
        "tokens": {
            "hf_alice": { "user": "alice", "access": ["models/acme/*", "datasets/acme/*"] },
            "hf_bob": { "user": "bob", "access": [] },
        },
        "repos": { "models/acme/gated": { "gated": "manual" }, "models/acme/secret": { "private": true } },
        "moved": { "models/acme/old": "models/acme/tiny" },
    });
    write("hub.json", options.to_string().as_bytes());
}

/// Several ranges of 8 MiB, and many small files.
pub(crate) const LARGE_SIZE_BYTES: usize = 30_000_000;
pub(crate) const N_SMALL_FILES: usize = 12;

fn write_many_files(root: &Path) {
    let many = root.join("models/acme/many");
    fs::create_dir_all(&many).unwrap();
    for idx in 0..N_SMALL_FILES {
        fs::write(many.join(format!("part-{idx:02}.json")), format!("{{\"idx\": {idx}}}\n")).unwrap();
    }
}

/// A valid safetensors file whose bytes do not repeat.
fn safetensors(size_bytes: usize) -> Vec<u8> {
    let header = format!("{{\"w\":{{\"dtype\":\"U8\",\"shape\":[{0}],\"data_offsets\":[0,{0}]}}}}", size_bytes - 200);
    let header = format!("{header:<192}");
    let mut bytes = 192_u64.to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    let mut state = 1_u32;
    while bytes.len() < size_bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.push((state >> 24) as u8);
    }
    bytes
}
