//! The main job under its own name: `pipelines/alpaca.yaml` as it is, on a hub that has a tiny model where XGen-7B lies.
//!
//! The model is made by scripts/make_xgen_like.py: fp32 pickle shards with an index, no tokenizer.json, and code that must not be run. Reads
//! what `support/hub.rs` lists from PIPE_TEST_DATA.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::Job;

const MODEL: &str = "Salesforce/xgen-7b-8k-base";

/// The JSON file `name` of what was released.
fn released(job: &Job, name: &str) -> Value {
    let path = job.work.path().join("out").join(MODEL).join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn xgen_as_it_lies_on_the_hub_becomes_an_adapter_and_a_model_that_others_load() {
    // The profile adds an evaluation; its model is set back to the pipeline's own.
    let model = format!("vars.model={MODEL}");
    let settings = [
        ["--profile", "laptop"],
        ["--set", &model],
        ["--set", "vars.max_length=256"],
        ["--set", "stages.adapter.with.max_steps=2"],
        ["--set", "stages.heldout.with.max_examples=4"],
    ];
    let test = "xgen_as_it_lies_on_the_hub_becomes_an_adapter_and_a_model_that_others_load";
    let Some(job) = Job::start(test, &settings.concat()) else { return };
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/make_xgen_like.py"));
    command.arg(job.work.path().join("hub/models").join(MODEL));
    assert!(command.status().expect("python3 runs").success());
    let printed = job.run(&["--threads", "2"]);
    assert!(printed.contains("10 ran in"), "{printed}");
    assert!(printed.contains("column `text` equals the template in all 2000 rows"), "{printed}");
    // The code in the model's folder is not even downloaded.
    assert!(job.work.path().join("hf/hub/models--Salesforce--xgen-7b-8k-base/snapshots").is_dir());
    assert!(!find(&job.work.path().join("hf"), "tokenization_xgen.py"));

    let config = released(&job, "adapter/adapter_config.json");
    assert_eq!(config["base_model_name_or_path"], MODEL);
    assert_eq!(released(&job, "merged/config.json")["torch_dtype"], "float32");
    for folder in ["adapter", "merged"] {
        let tokenizer = released(&job, &format!("{folder}/tokenizer.json"));
        assert_eq!(tokenizer["model"]["vocab"].as_object().map(serde_json::Map::len), Some(50_295), "{folder}");
        let config = released(&job, &format!("{folder}/tokenizer_config.json"));
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
    let again = job.run(&["--threads", "2"]);
    assert!(again.starts_with("10 stages, all reused in"), "{again}");
}

/// Whether a file below `folder` has `part` in its name.
fn find(folder: &Path, part: &str) -> bool {
    std::fs::read_dir(folder).expect("a folder").any(|entry| {
        let path = entry.expect("an entry").path();
        path.file_name().is_some_and(|name| name.to_string_lossy().contains(part)) || path.is_dir() && find(&path, part)
    })
}
