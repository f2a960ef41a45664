//! The main job under its own name: `pipelines/alpaca.yaml` as it is, on a hub that has a tiny model where XGen-7B lies.
//!
//! The model is made by scripts/make_xgen_like.py: fp32 pickle shards with an index, no tokenizer.json, and code that must not be run. Reads
//! what `support/hub.rs` lists from PIPE_TEST_DATA.
#![cfg(feature = "stages")]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use support::hub::{Hub, test_data};

const MODEL: &str = "Salesforce/xgen-7b-8k-base";

struct Job {
    work: tempfile::TempDir,
    hub: Hub,
}

impl Job {
    fn start(test: &str) -> Option<Self> {
        let data = test_data(test)?;
        let work = tempfile::tempdir().expect("a temporary folder");
        let hub = Hub::start(&data, work.path());
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new("python3");
        command.arg(root.join("scripts/make_xgen_like.py")).arg(work.path().join("hub/models").join(MODEL));
        assert!(command.status().expect("python3 runs").success());
        std::fs::create_dir(work.path().join("pipelines")).expect("a folder");
        std::fs::copy(root.join("pipelines/alpaca.yaml"), work.path().join("pipelines/alpaca.yaml")).expect("a copy");
        Some(Job { work, hub })
    }

    /// The profile adds an evaluation; its model is set back to the pipeline's own.
    fn pipe(&self, command: &str, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_pipe"))
            .current_dir(self.work.path())
            .args([command, "pipelines/alpaca.yaml"])
            .args(["--profile", "laptop", "--set", &format!("vars.model={MODEL}"), "--set", "vars.max_length=256"])
            .args(["--set", "stages.adapter.with.max_steps=2", "--set", "stages.heldout.with.max_examples=4"])
            .args(more)
            .env("HF_ENDPOINT", &self.hub.address)
            .env("HF_HOME", self.work.path().join("hf"))
            .env_remove("PIPE_STORE")
            .env_remove("PIPE_THREADS")
            .env_remove("CI")
            .output()
            .expect("pipe runs")
    }

    fn run(&self) -> String {
        let output = self.pipe("run", &["--threads", "2"]);
        let printed = String::from_utf8(output.stderr).expect("text");
        assert!(output.status.success(), "{printed}");
        printed
    }

    /// The JSON file `name` of what was released.
    fn released(&self, name: &str) -> Value {
        let path = self.work.path().join("out").join(MODEL).join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).expect("JSON")
    }
}

#[test]
fn xgen_as_it_lies_on_the_hub_becomes_an_adapter_and_a_model_that_others_load() {
    let Some(job) = Job::start("xgen_as_it_lies_on_the_hub_becomes_an_adapter_and_a_model_that_others_load") else {
        return;
    };
    let printed = job.run();
    assert!(printed.contains("10 ran in"), "{printed}");
    assert!(printed.contains("column `text` equals the template in all 2000 rows"), "{printed}");
    // The code in the model's folder is not even downloaded.
    assert!(job.work.path().join("hf/hub/models--Salesforce--xgen-7b-8k-base/snapshots").is_dir());
    assert!(!find(&job.work.path().join("hf"), "tokenization_xgen.py"));

    let config = job.released("adapter/adapter_config.json");
    assert_eq!(config["base_model_name_or_path"], MODEL);
    assert_eq!(job.released("merged/config.json")["torch_dtype"], "float32");
    for folder in ["adapter", "merged"] {
        let tokenizer = job.released(&format!("{folder}/tokenizer.json"));
        assert_eq!(tokenizer["model"]["vocab"].as_object().map(serde_json::Map::len), Some(50_295), "{folder}");
        let config = job.released(&format!("{folder}/tokenizer_config.json"));
        assert_eq!(config["tokenizer_class"].as_str(), Some("PreTrainedTokenizerFast"), "{folder}");
        assert!(config["auto_map"].is_null(), "{folder}");
    }
    let released = job.work.path().join("out").join(MODEL);
    assert!(released.join("merged/model.safetensors").is_file() && !find(&released, "pytorch_model"));

    // What the base is, is read from its pickles.
    let shown = job.pipe("show", &["base"]);
    let shown = String::from_utf8(shown.stdout).expect("text") + &String::from_utf8_lossy(&shown.stderr);
    assert!(shown.contains("1,644,752"), "{shown}");

    // Again: no stage.
    let again = job.run();
    assert!(again.starts_with("10 stages, all reused in"), "{again}");
}

/// Whether a file below `folder` has `part` in its name.
fn find(folder: &Path, part: &str) -> bool {
    std::fs::read_dir(folder).expect("a folder").any(|entry| {
        let path = entry.expect("an entry").path();
        path.file_name().is_some_and(|name| name.to_string_lossy().contains(part)) || path.is_dir() && find(&path, part)
    })
}
