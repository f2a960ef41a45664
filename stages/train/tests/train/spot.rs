//! Spot checks: a run that is as it says passes, and whatever was changed in it is named with its optimizer step.

use std::path::PathBuf;

use pipe_contract::{Artifact, SpotCheck};

use crate::work::{FULL, Work};

/// 24 optimizer steps; states of 8, 16, 20 and 24 among those that are kept.
const WITH: &str = "{ lora: { r: 4, lora_dropout: 0.1 }, per_device_train_batch_size: 4, learning_rate: 0.01, lr_scheduler_type: constant, max_steps: 24, logging_steps: 1, save_strategy: steps, save_steps: 4, save_total_limit: 9 }";

/// A line per check, with what differs.
fn texts(checks: &[SpotCheck]) -> Vec<String> {
    let text = |check: &SpotCheck| match &check.difference {
        Some(difference) => format!("{}: {difference}", check.what),
        None => check.what.clone(),
    };
    checks.iter().map(text).collect()
}

struct Trained {
    work: Work,
    inputs: Vec<(&'static str, Artifact)>,
}

impl Trained {
    fn new(with: &str) -> Self {
        let work = Work::new();
        let inputs = work.inputs();
        work.run("run", with, &inputs, None).well();
        Trained { work, inputs }
    }

    fn spot(&self, with: &str, n_parts: usize) -> Vec<String> {
        texts(&self.work.spot("run", "run", with, &self.inputs, n_parts).expect("it can be read"))
    }

    fn output(&self, name: &str) -> PathBuf {
        self.work.folder.path().join("run/outputs").join(name)
    }

    fn checkpoint(&self, step: u64) -> PathBuf {
        let entries = std::fs::read_dir(self.work.checkpoint_dir("run")).expect("a folder");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let begin = format!("step-{step:09}-");
        paths.into_iter().find(|path| path.to_string_lossy().contains(&begin)).expect("it is kept")
    }

    /// Replaces the first `from` in a file of the metrics.
    fn edit(&self, name: &str, from: &str, to: &str) {
        let path = self.output("metrics").join(name);
        let text = std::fs::read_to_string(&path).expect("text");
        assert!(text.contains(from), "`{from}` is not in {text}");
        std::fs::write(&path, text.replacen(from, to, 1)).expect("a file");
    }

    /// Only what differs.
    fn faults(&self, with: &str, n_parts: usize) -> Vec<String> {
        self.spot(with, n_parts).into_iter().filter(|text| text.contains(": ")).collect()
    }
}

#[test]
fn a_run_that_is_as_it_says_passes() {
    let trained = Trained::new(WITH);
    let all = [
        "the chain of 3 links",
        "optimizer steps 1 to 10, run again",
        "the checkpoint of optimizer step 4",
        "optimizer steps 5 to 10, run again",
        "the checkpoint of optimizer step 8",
        "optimizer steps 9 to 10, run again",
        "the checkpoint of optimizer step 12",
        "optimizer steps 13 to 20, run again",
        "the checkpoint of optimizer step 16",
        "optimizer steps 17 to 20, run again",
        "the checkpoint of optimizer step 20",
        "optimizer steps 21 to 24, run again",
        "`adapter` as the state of optimizer step 24",
        "the checkpoint of optimizer step 24",
    ];
    assert_eq!(trained.spot(WITH, 100), all);
    let two = trained.spot(WITH, 2);
    assert_eq!(two.iter().filter(|text| text.contains("run again")).count(), 2, "{two:?}");
    assert_eq!(two, trained.spot(WITH, 2), "the seed decides");

    // Of a run whose state is gone, its start is left.
    std::fs::remove_dir_all(trained.work.checkpoint_dir("run")).expect("there");
    assert_eq!(trained.spot(WITH, 3), ["the chain of 3 links", "optimizer steps 1 to 10, run again"]);
}

#[test]
fn a_model_and_a_schedule_that_falls_pass_too() {
    let linear = FULL.replace("logging_steps", "save_total_limit: 9, logging_steps");
    let trained = Trained::new(&linear);
    assert_eq!(
        trained.spot(&linear, 9),
        [
            "the chain of 1 link",
            "optimizer steps 1 to 9, run again",
            "`model` as the state of optimizer step 9",
            "the checkpoint of optimizer step 3",
            "optimizer steps 4 to 9, run again",
            "the checkpoint of optimizer step 6",
            "optimizer steps 7 to 9, run again",
            "the checkpoint of optimizer step 9",
        ]
    );
}

#[test]
fn a_changed_learning_rate_is_named_at_its_first_optimizer_step() {
    let trained = Trained::new(WITH);
    let other = WITH.replace("learning_rate: 0.01", "learning_rate: 0.02");
    // None of the checkpoints is one that a run with the other rate would have come to.
    let faults = trained.faults(&other, 9);
    assert_eq!(faults.len(), 1, "{faults:?}");
    let begin = "optimizer steps 1 to 10, run again: optimizer step 1: `learning_rate` 0.01 -> 0.02; digest of the state of optimizer step 10 ";
    assert!(faults[0].starts_with(begin), "{faults:?}");

    // A rate that was another one for one optimizer step, in the file alone.
    trained.edit("metrics.jsonl", "\"step\":18,", "\"step\":18,\"was\":0,");
    let line = |step: u64| {
        let text = std::fs::read_to_string(trained.output("metrics/metrics.jsonl")).expect("text");
        text.lines().nth(step as usize - 1).expect("a line").to_string()
    };
    let changed = line(18).replace("\"learning_rate\":0.01", "\"learning_rate\":0.015");
    trained.edit("metrics.jsonl", &line(18), &changed);
    let faults = trained.faults(WITH, 9);
    let named = "run again: optimizer step 18: `learning_rate` 0.015 -> 0.01";
    assert!(faults.iter().any(|fault| fault.ends_with(named)), "{faults:?}");
}

#[test]
fn a_changed_chain_is_named() {
    let trained = Trained::new(WITH);
    let digests: Vec<String> = {
        let text = std::fs::read_to_string(trained.output("metrics/checkpoints.jsonl")).expect("text");
        let digest = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["digest"].to_string();
        text.lines().map(|line| digest(line).trim_matches('"').to_string()).collect()
    };
    let other = "0".repeat(64);
    trained.edit("checkpoints.jsonl", &digests[1], &other);
    let faults = trained.faults(WITH, 9);
    let chain =
        "the chain of 3 links: the link of optimizer step 20 does not follow from its digest and the link before";
    assert_eq!(faults[0], chain);
    let state = format!("digest of the state of optimizer step 20 {} -> {}", &other[..12], &digests[1][..12]);
    assert!(
        faults.iter().any(|fault| fault.starts_with("optimizer steps 17 to 20") && fault.ends_with(&state)),
        "{faults:?}"
    );

    trained.edit("checkpoints.jsonl", "{\"step\":20", "no JSON {\"step\":20");
    assert!(trained.faults(WITH, 1)[0].contains("a line of `checkpoints.jsonl` is no link"));
}

/// Changes one element of a checkpoint, and its digest so that the file is whole.
fn change_state(trained: &Trained, step: u64) {
    let path = trained.checkpoint(step);
    let mut bytes = std::fs::read(&path).expect("a file");
    let at = bytes.len() - 32 - 4;
    bytes[at..at + 4].copy_from_slice(&0.5_f32.to_le_bytes());
    let end = bytes.len() - 32;
    let digest = blake3::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(digest.as_bytes());
    std::fs::write(&path, &bytes).expect("a file");
}

#[test]
fn a_changed_checkpoint_is_named_with_its_tensor() {
    let trained = Trained::new(WITH);
    change_state(&trained, 20);
    let faults = trained.faults(WITH, 9);
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].starts_with("the checkpoint of optimizer step 20: digest of the state "), "{faults:?}");
    let tensor = "tensor `model.layers.1.self_attn.v_proj.B.second` at [";
    assert!(faults[0].contains(tensor) && faults[0].contains("]: 0.5 -> "), "{faults:?}");

    // Between two links, what is run again from it tells.
    let trained = Trained::new(WITH);
    change_state(&trained, 16);
    let faults = trained.faults(WITH, 9);
    assert!(faults[0].starts_with("optimizer steps 17 to 20, run again: optimizer step 18: `loss` "), "{faults:?}");
    assert!(
        faults[0].contains("digest of the state of optimizer step 20") && faults[0].contains("tensor `"),
        "{faults:?}"
    );

    // One that is not whole.
    let path = trained.checkpoint(8);
    let mut bytes = std::fs::read(&path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).expect("a file");
    assert_eq!(trained.faults(WITH, 9)[0], "the checkpoint of optimizer step 8: its bytes are damaged");
}

#[test]
fn a_changed_adapter_is_named() {
    let trained = Trained::new(WITH);
    let path = trained.output("adapter/adapter_model.safetensors");
    let mut bytes = std::fs::read(&path).expect("a file");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(&path, bytes).expect("a file");
    let named = "`adapter` as the state of optimizer step 24: `adapter_model.safetensors` has other bytes";
    assert_eq!(trained.faults(WITH, 1), [named]);
}

#[test]
fn fewer_losses_than_optimizer_steps_are_named() {
    let trained = Trained::new(WITH);
    let path = trained.output("metrics/metrics.jsonl");
    let text = std::fs::read_to_string(&path).expect("text");
    std::fs::write(&path, text.lines().take(23).map(|line| format!("{line}\n")).collect::<String>()).expect("a file");
    let faults = trained.faults(WITH, 9);
    assert_eq!(faults[0], "the losses: `metrics.jsonl` has 23 optimizer steps, the settings ask for 24");
    assert!(faults.iter().any(|fault| fault.ends_with("`metrics.jsonl` has no optimizer step 24")), "{faults:?}");
}
