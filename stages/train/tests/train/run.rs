//! The stage as the runner calls it.

use std::collections::BTreeMap;

use pipe_contract::{Artifact, ArtifactKind, Figure, StageKind};
use pipe_stage_train::KIND;

use crate::work::{FULL, WITH, Work, losses};

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
            "metrics/checkpoints.jsonl",
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
