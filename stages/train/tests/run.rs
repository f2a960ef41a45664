//! The stage as the runner calls it, on a tiny Llama.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use pipe_contract::{
    Artifact, ArtifactKind, CancelToken, Context, Figure, StageError, StageEvent, StageKind, read_yaml,
};
use pipe_records::packed::{Pack, PackedCounts, PackedWriter};
use pipe_stage_train::KIND;

const T: usize = 32;

struct Work {
    folder: tempfile::TempDir,
}

/// What a run left: its outputs' bytes, the log, the error.
struct Ran {
    files: BTreeMap<String, Vec<u8>>,
    log: Vec<String>,
    result: Result<(), StageError>,
}

impl Work {
    fn new() -> Self {
        Work { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn model() -> Artifact {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity/llama");
        let mut artifact = Artifact::from_folder(ArtifactKind::Model, &fixture).expect("the fixture");
        artifact.files.retain(|name, _| name == "config.json" || name == "model.safetensors");
        artifact
    }

    /// Ten packs of two documents each; every third token is not supervised.
    fn packs(&self, is_supervised: bool) -> Artifact {
        let folder = self.folder.path().join(format!("packed-{is_supervised}"));
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut writer = PackedWriter::create(&folder, T as u64, 128).expect("a writer");
        for index in 0..10u32 {
            let input_ids: Vec<u32> = (0..T as u32).map(|t| (t * 7 + index * 13 + t * t * index) % 128).collect();
            let label = |(t, id): (usize, &u32)| if is_supervised && t % 3 != 0 { *id as i32 } else { -100 };
            let labels = input_ids.iter().enumerate().map(label).collect();
            let position_ids = (0..20).chain(0..12).collect();
            let doc_ids = [vec![2 * index; 20], vec![2 * index + 1; 12]].concat();
            writer.write(&Pack { input_ids, labels, position_ids, doc_ids }).expect("a pack");
        }
        writer.finish(PackedCounts { n_documents: 20, ..PackedCounts::default() }).expect("finished");
        Artifact::from_folder(ArtifactKind::Packed, &folder).expect("an artifact")
    }

    fn run(&self, name: &str, with: &str, inputs: &[(&str, Artifact)], stop_after: Option<usize>) -> Ran {
        let (stage, _, problems) = read_yaml(with, |reader| KIND.read(reader));
        assert_eq!(problems, []);
        let (log, cancel) = (Mutex::new(Vec::new()), CancelToken::default());
        let n_steps_seen = Mutex::new(0);
        let emit = |event: StageEvent| match event {
            StageEvent::Log { line } | StageEvent::Warning { line } => {
                if line.starts_with("step ") {
                    let mut n = n_steps_seen.lock().expect("not poisoned");
                    *n += 1;
                    if Some(*n) == stop_after {
                        cancel.cancel();
                    }
                }
                log.lock().expect("not poisoned").push(line);
            }
            _ => {}
        };
        let folder = self.folder.path().join(name);
        let mut ctx = Context::new(&folder, &emit);
        ctx.cancel = cancel.clone();
        ctx.checkpoint_dir = self.folder.path().join("checkpoint").join(name);
        ctx.inputs = inputs.iter().map(|(port, artifact)| (port.to_string(), artifact.clone())).collect();
        let result = stage.run(&mut ctx);
        Ran { files: files_below(&folder.join("outputs")), log: log.into_inner().expect("not poisoned"), result }
    }

    fn inputs(&self) -> Vec<(&'static str, Artifact)> {
        vec![("data", self.packs(true)), ("model", Self::model())]
    }

    fn adapter_of(&self, name: &str) -> Artifact {
        Artifact::from_folder(ArtifactKind::Adapter, &self.folder.path().join(name).join("outputs/adapter"))
            .expect("an adapter")
    }
}

fn files_below(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut pending: Vec<PathBuf> = vec![folder.to_path_buf()];
    while let Some(current) = pending.pop() {
        for entry in std::fs::read_dir(&current).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("below").to_string_lossy().into_owned();
                files.insert(name, std::fs::read(&path).expect("a file"));
            }
        }
    }
    files
}

const WITH: &str = "{ lora: { r: 4, lora_dropout: 0.1 }, per_device_train_batch_size: 4, learning_rate: 0.01, num_train_epochs: 3, logging_steps: 1 }";

fn losses(ran: &Ran) -> Vec<f64> {
    let text = String::from_utf8(ran.files["metrics/metrics.jsonl"].clone()).expect("text");
    text.lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["loss"].as_f64().expect("a loss"))
        .collect()
}

#[test]
fn a_run_writes_an_adapter_and_its_metrics_and_learns() {
    let work = Work::new();
    let ran = work.run("a", WITH, &work.inputs(), None);
    ran.result.as_ref().expect("a run");
    let names: Vec<&str> = ran.files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "adapter/adapter_config.json",
            "adapter/adapter_model.safetensors",
            "metrics/grad_norm.png",
            "metrics/grad_norm.svg",
            "metrics/learning_rate.png",
            "metrics/learning_rate.svg",
            "metrics/loss.png",
            "metrics/loss.svg",
            "metrics/metrics.jsonl",
            "metrics/trainer_state.json"
        ]
    );
    let figures = KIND.figures("adapter", &work.adapter_of("a")).expect("figures");
    let [Figure::Facts(facts)] = figures.as_slice() else { panic!("{figures:?}") };
    for (name, value) in [("tensors", "8"), ("stored as", "float32"), ("r", "4"), ("target modules", "q_proj, v_proj")]
    {
        assert!(facts.facts.contains(&(name.to_string(), value.to_string())), "{name}: {facts:?}");
    }
    let losses = losses(&ran);
    assert_eq!(losses.len(), 9); // 10 packs, 4 a step, 3 epochs
    assert!(losses[8] < losses[0] - 0.1, "{losses:?}");
}

#[test]
fn bytes_do_not_depend_on_threads_or_on_the_split_into_micro_batches() {
    let work = Work::new();
    let in_pool = |n_threads: usize, name: &str, with: &str| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("a pool");
        let ran = pool.install(|| work.run(name, with, &work.inputs(), None));
        ran.result.as_ref().expect("a run");
        ran.files
    };
    let one = in_pool(1, "one", WITH);
    assert_eq!(one, in_pool(3, "three", WITH));
    let split = WITH
        .replace("per_device_train_batch_size: 4", "per_device_train_batch_size: 1, gradient_accumulation_steps: 4");
    assert_eq!(one, in_pool(2, "split", &split));
}

#[test]
fn an_interrupted_run_goes_on_with_equal_bits() {
    let work = Work::new();
    let whole = work.run("whole", WITH, &work.inputs(), None);
    let stopped = work.run("parts", WITH, &work.inputs(), Some(8));
    assert!(stopped.result.expect_err("interrupted").is_cancelled);
    assert!(stopped.files.is_empty(), "an interrupted run has no outputs");
    let resumed = work.run("parts", WITH, &work.inputs(), None);
    resumed.result.as_ref().expect("a run");
    assert!(
        resumed.log.iter().any(|line| line.contains("goes on from the checkpoint of optimizer step 8")),
        "{:?}",
        resumed.log
    );
    assert_eq!(resumed.files, whole.files);
}

#[test]
fn a_broken_checkpoint_is_named_and_training_starts_anew() {
    let work = Work::new();
    let whole = work.run("whole", WITH, &work.inputs(), None);
    work.run("parts", WITH, &work.inputs(), Some(2)).result.expect_err("interrupted");
    let path = work.folder.path().join("checkpoint/parts/checkpoint.bin");
    let bytes = std::fs::read(&path).expect("a checkpoint");
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    for broken in [&bytes[..bytes.len() - 10], &flipped, &[]] {
        std::fs::write(&path, broken).expect("broken");
        let ran = work.run("parts", WITH, &work.inputs(), None);
        ran.result.as_ref().expect("a run");
        assert!(ran.log.iter().any(|line| line.contains("training starts anew")), "{:?}", ran.log);
        assert_eq!(ran.files, whole.files);
    }
}

#[test]
fn training_starts_from_an_adapter() {
    let work = Work::new();
    let first = work.run("first", WITH, &work.inputs(), None);
    let mut inputs = work.inputs();
    inputs.push(("adapter", work.adapter_of("first")));
    let second = work.run("second", &WITH.replace("0.01", "0.001"), &inputs, None);
    second.result.as_ref().expect("a run");
    assert!(losses(&second)[0] < losses(&first)[0] - 0.1, "{:?} then {:?}", losses(&first), losses(&second));
    let error = work.run("third", &WITH.replace("r: 4", "r: 16"), &inputs, None).result.expect_err("another rank");
    assert!(error.message.contains("`lora.r` is 16, but the adapter on port `adapter` has 4"), "{error}");
}

#[test]
fn what_cannot_learn_stops_before_the_first_optimizer_step() {
    let work = Work::new();
    let inputs = [("data", work.packs(false)), ("model", Work::model())];
    let error = work.run("a", WITH, &inputs, None).result.expect_err("no labels");
    assert_eq!(error.slug, "nothing-to-learn");
    let error =
        work.run("b", "{ lora: { target_modules: [query] } }", &work.inputs(), None).result.expect_err("no module");
    assert!(error.message.contains("`query`"), "{error}");
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run() {
    let work = Work::new();
    let with = "{ lora: { r: 4 }, per_device_train_batch_size: 4, learning_rate: 10, max_grad_norm: 0, num_train_epochs: 40, adam_epsilon: 1.0e-16, weight_decay: 10, logging_steps: 1 }";
    let ran = work.run("a", with, &work.inputs(), None);
    let error = ran.result.expect_err("the learning rate is far too large");
    assert_eq!(error.slug, "not-finite", "{error}");
    assert!(error.help.expect("help").contains("learning_rate"));
}

const FULL: &str = "{ method: full, freeze: [model.embed_tokens, '*.mlp'], per_device_train_batch_size: 4, learning_rate: 0.01, num_train_epochs: 3, logging_steps: 1 }";

/// Tensors of a `model.safetensors`, by name.
fn tensors(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let file = safetensors::SafeTensors::deserialize(bytes).expect("safetensors");
    file.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())).collect()
}

#[test]
fn full_training_writes_a_model_that_learned_and_leaves_frozen_weights_alone() {
    let work = Work::new();
    let ran = work.run("full", FULL, &work.inputs(), None);
    ran.result.as_ref().expect("a run");
    let names: Vec<&str> = ran.files.keys().map(String::as_str).filter(|name| name.starts_with("model/")).collect();
    assert_eq!(names, ["model/config.json", "model/model.safetensors"]);
    let losses = losses(&ran);
    assert!(losses[8] < losses[0] - 0.1, "{losses:?}");
    let before = tensors(&std::fs::read(Work::model().file("model.safetensors").expect("weights")).expect("readable"));
    let after = tensors(&ran.files["model/model.safetensors"]);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (name, bytes) in &before {
        let is_frozen = name.starts_with("model.embed_tokens") || name.contains(".mlp.");
        assert_eq!(*bytes == after[name], is_frozen, "{name}");
    }
    // What was written is a model: training goes on from it, at the loss that was reached.
    let mut inputs = work.inputs();
    let folder = work.folder.path().join("full/outputs/model");
    inputs[1] = ("model", Artifact::from_folder(ArtifactKind::Model, &folder).expect("a model"));
    let next = work.run("next", &FULL.replace("0.01", "0.0001"), &inputs, None);
    next.result.as_ref().expect("a run");
    assert!(self::losses(&next)[0] < losses[0] - 0.1);
}

#[test]
fn full_training_goes_on_with_equal_bits_on_any_threads() {
    let work = Work::new();
    let in_pool = |n_threads: usize, name: &str, stop_after: Option<usize>| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("a pool");
        pool.install(|| work.run(name, FULL, &work.inputs(), stop_after))
    };
    let whole = in_pool(1, "whole", None);
    assert!(in_pool(3, "parts", Some(5)).result.expect_err("interrupted").is_cancelled);
    let resumed = in_pool(2, "parts", None);
    assert!(resumed.log.iter().any(|line| line.contains("checkpoint of optimizer step 5")), "{:?}", resumed.log);
    assert_eq!(resumed.files, whole.files);
}

#[test]
fn full_training_names_what_it_cannot_do() {
    let work = Work::new();
    let error = work
        .run("a", "{ method: full, freeze: [model.layers.7] }", &work.inputs(), None)
        .result
        .expect_err("no such layer");
    assert!(error.message.contains("`model.layers.7` names no weight"), "{error}");
    work.run("first", WITH, &work.inputs(), None).result.expect("an adapter");
    let mut inputs = work.inputs();
    inputs.push(("adapter", work.adapter_of("first")));
    let error = work.run("b", FULL, &inputs, None).result.expect_err("an adapter");
    assert!(error.message.contains("`method: full`"), "{error}");
}
