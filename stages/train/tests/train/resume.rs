//! A run goes on with equal bits: interrupted, killed, with damaged checkpoints, and as a longer run than it was.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use pipe_contract::{Artifact, StageEvent};

use crate::work::{FULL, Ran, WITH, Work, lines, losses};

/// 24 optimizer steps at one learning rate, with evaluations.
const CONSTANT: &str = "{ lora: { r: 4, lora_dropout: 0.1 }, per_device_train_batch_size: 4, learning_rate: 0.01, lr_scheduler_type: constant, max_steps: 24, logging_steps: 1, save_strategy: steps, save_steps: 4, eval_steps: 5 }";

fn with(settings: &str, from: &str, to: &str) -> String {
    assert!(settings.contains(from), "`{from}`");
    settings.replacen(from, to, 1)
}

/// Numbers that look random, from a seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Runs until it ends, interrupted again and again after a random number of sequences.
fn run_in_pieces(work: &Work, name: &str, with: &str, inputs: &[(&str, Artifact)], seed: u64) -> (Ran, usize) {
    let mut numbers = Numbers(seed);
    let mut n_interrupted = 0;
    loop {
        let n_left = AtomicU64::new(1 + numbers.below(40));
        let is_over = |event: &StageEvent| {
            matches!(event, StageEvent::Progress { .. }) && n_left.fetch_sub(1, Ordering::Relaxed) == 1
        };
        let ran = work.run_until(name, name, with, inputs, &is_over);
        match &ran.result {
            Ok(()) => return (ran, n_interrupted),
            Err(error) => assert!(error.is_cancelled, "{error}"),
        }
        assert!(ran.files.is_empty(), "an interrupted run has no outputs");
        n_interrupted += 1;
    }
}

#[test]
fn interruptions_between_any_two_sequences_leave_no_trace() {
    let work = Work::new();
    let inputs = work.inputs_with_eval();
    let whole = work.run("whole", CONSTANT, &inputs, None).well();
    for seed in 0..4 {
        let (resumed, n_interrupted) = run_in_pieces(&work, &format!("seed {seed}"), CONSTANT, &inputs, seed);
        eprintln!("seed {seed}: interrupted {n_interrupted} times");
        assert!(n_interrupted > 0);
        assert_eq!(resumed.files, whole.files, "seed {seed}");
    }
}

#[test]
fn an_interruption_saves_the_optimizer_step_before_it() {
    let work = Work::new();
    let whole = work.run("whole", WITH, &work.inputs(), None).well();
    let stopped = work.run("parts", WITH, &work.inputs(), Some(8));
    assert!(stopped.result.as_ref().expect_err("interrupted").is_cancelled);
    stopped.assert_says("interrupted; the state of optimizer step 8 is saved");
    let resumed = work.run("parts", WITH, &work.inputs(), None).well();
    resumed.assert_says("goes on from the checkpoint of optimizer step 8");
    assert_eq!(resumed.files, whole.files);
}

/// Whatever a kill leaves of the checkpoints: the folder as it is at each event.
#[test]
fn a_kill_at_any_moment_leaves_no_trace() {
    let work = Work::new();
    let inputs = work.inputs_with_eval();
    let settings = with(&with(CONSTANT, "save_steps: 4", "save_steps: 1"), "max_steps: 24", "max_steps: 7");
    for n_kept in [1, 2] {
        let settings = with(&settings, "save_strategy", &format!("save_total_limit: {n_kept}, save_strategy"));
        let name = format!("whole {n_kept}");
        let states = Mutex::new(Vec::new());
        let watch = |_: &StageEvent| {
            let mut states = states.lock().expect("not poisoned");
            let state = files(&work.checkpoint_dir(&name));
            if states.last() != Some(&state) {
                states.push(state);
            }
            false
        };
        let whole = work.run_until(&name, &name, &settings, &inputs, &watch).well();
        let states = states.into_inner().expect("not poisoned");
        assert!(states.len() > 7, "a folder for each checkpoint: {}", states.len());
        for (number, state) in states.iter().enumerate() {
            let killed = format!("killed {n_kept} {number}");
            let folder = work.checkpoint_dir(&killed);
            std::fs::create_dir_all(&folder).expect("a folder");
            state.iter().for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes).expect("a file"));
            let resumed = work.run(&killed, &settings, &inputs, None).well();
            if !state.is_empty() {
                resumed.assert_says("goes on from the checkpoint");
            }
            assert_eq!(resumed.files, whole.files, "state {number}");
        }
    }
}

fn files(folder: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("an entry"));
    let mut files: Vec<_> =
        entries.map(|entry| (entry.file_name(), std::fs::read(entry.path()).expect("a file"))).collect();
    files.sort();
    files
}

#[test]
fn the_last_checkpoints_are_kept_and_the_last_state_is_one() {
    let work = Work::new();
    let kept = |name: &str, settings: &str| {
        work.run(name, settings, &work.inputs(), None).well();
        work.checkpoints(name)
    };
    let settings = with(CONSTANT, ", eval_steps: 5", "");
    let settings = with(&settings, "max_steps: 24", "max_steps: 22");
    assert_eq!(kept("two", &settings), ["step-000000020", "step-000000022"]);
    let one = with(&settings, "save_strategy", "save_total_limit: 1, save_strategy");
    assert_eq!(kept("one", &one), ["step-000000022"]);
    let all = with(&settings, "save_strategy", "save_total_limit: 9, save_strategy");
    assert_eq!(kept("all", &all).len(), 6);
    let epochs = with(&with(&settings, "steps, save_steps: 4", "epoch"), "logging", "save_total_limit: 9, logging");
    assert_eq!(kept("epochs", &epochs).len(), 8, "seven epochs of three, and the last");
    let none = with(&settings, "save_strategy: steps, save_steps: 4", "save_strategy: no");
    work.run("none", &none, &work.inputs(), None).well();
    assert!(!work.checkpoint_dir("none").exists());
}

#[test]
fn a_damaged_checkpoint_is_named_and_an_older_one_is_used() {
    let work = Work::new();
    let settings = with(CONSTANT, ", eval_steps: 5", "");
    let whole = work.run("whole", &settings, &work.inputs(), None).well();
    work.run("parts", &settings, &work.inputs(), Some(9)).result.expect_err("interrupted");
    assert_eq!(work.checkpoints("parts"), ["step-000000008", "step-000000009"]);
    let saved = files(&work.checkpoint_dir("parts"));
    let (name, bytes) = &saved[1];
    let path = work.checkpoint_dir("parts").join(name);
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    let mut long = bytes.clone();
    long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    for broken in [&bytes[..bytes.len() - 10], &flipped, &long, &bytes[..4], &[]] {
        std::fs::write(&path, broken).expect("broken");
        let ran = work.run_until("resumed", "parts", &settings, &work.inputs(), &|_| false).well();
        ran.assert_says("the checkpoint of optimizer step 9 cannot be used: its bytes are damaged");
        ran.assert_says("goes on from the checkpoint of optimizer step 8");
        assert_eq!(ran.files, whole.files);
        std::fs::remove_dir_all(work.checkpoint_dir("parts")).expect("removed");
        std::fs::create_dir_all(work.checkpoint_dir("parts")).expect("made");
        saved.iter().for_each(|(name, bytes)| std::fs::write(path.with_file_name(name), bytes).expect("a file"));
    }
    for (name, bytes) in &saved {
        std::fs::write(path.with_file_name(name), &bytes[1..]).expect("broken");
    }
    let ran = work.run_until("anew", "parts", &settings, &work.inputs(), &|_| false).well();
    ran.assert_says("training starts anew");
    assert_eq!(ran.files, whole.files);
}

#[test]
fn the_checkpoint_of_another_adapter_is_not_used() {
    let work = Work::new();
    let other = with(WITH, "r: 4", "r: 2");
    let whole = work.run("whole", WITH, &work.inputs(), None).well();
    work.run("other", &other, &work.inputs(), Some(5)).result.expect_err("interrupted");
    let ran = work.run_until("mixed", "other", WITH, &work.inputs(), &|_| false).well();
    ran.assert_says("q_proj.A.value` is missing or of another shape");
    assert_eq!(ran.files, whole.files);
}

/// Runs `shorter`, then `longer` on its checkpoints; returns the longer one.
fn run_longer(work: &Work, name: &str, shorter: &str, longer: &str) -> Ran {
    let inputs = work.inputs_with_eval();
    let from_nothing = work.run(&format!("{name} from nothing"), longer, &inputs, None).well();
    let (first, second) = (format!("{name} first"), format!("{name} second"));
    work.run(&first, shorter, &inputs, None).well();
    let ran = work.run_until(&second, &first, longer, &inputs, &|_| false).well();
    assert_eq!(ran.files, from_nothing.files, "{name}");
    ran
}

#[test]
fn more_optimizer_steps_go_on_from_the_end_of_fewer() {
    let work = Work::new();
    // An end between two evaluations and two links, with its own of both: none of that is in the longer run.
    let shorter = with(CONSTANT, "max_steps: 24", "max_steps: 13");
    let ran = run_longer(&work, "constant", &shorter, CONSTANT);
    ran.assert_says("goes on from the checkpoint of optimizer step 13");
    assert_eq!(lines(&ran, "metrics/checkpoints.jsonl").len(), 3);

    let warmup = |settings: &str| with(settings, "constant,", "constant_with_warmup, warmup_steps: 3,");
    run_longer(&work, "warmup", &warmup(&shorter), &warmup(CONSTANT)).assert_says("checkpoint of optimizer step 13");

    let epochs = |n: &str| with(CONSTANT, "max_steps: 24", &format!("num_train_epochs: {n}"));
    run_longer(&work, "epochs", &epochs("2"), &epochs("3")).assert_says("checkpoint of optimizer step 6");
}

#[test]
fn fewer_optimizer_steps_go_on_from_what_lies_before_their_end() {
    let work = Work::new();
    let inputs = work.inputs_with_eval();
    let shorter = with(CONSTANT, "max_steps: 24", "max_steps: 22");
    let from_nothing = work.run("from nothing", &shorter, &inputs, None).well();
    work.run("longer", CONSTANT, &inputs, None).well();
    let ran = work.run_until("shorter", "longer", &shorter, &inputs, &|_| false).well();
    ran.assert_says("the checkpoint of optimizer step 24 is not used: this run has 22 optimizer steps");
    ran.assert_says("goes on from the checkpoint of optimizer step 20");
    assert_eq!(ran.files, from_nothing.files);
    assert_eq!(work.checkpoints("longer"), ["step-000000020", "step-000000022", "step-000000024"]);
}

#[test]
fn a_schedule_that_stretches_starts_anew_and_says_why() {
    let work = Work::new();
    for (name, settings) in [
        ("linear", with(CONSTANT, "constant", "linear")),
        ("cosine", with(CONSTANT, "constant", "cosine")),
        ("constant_with_warmup", with(CONSTANT, "constant,", "constant_with_warmup, warmup_ratio: 0.25,")),
    ] {
        let shorter = with(&settings, "max_steps: 24", "max_steps: 13");
        let ran = run_longer(&work, name, &shorter, &settings);
        ran.assert_says(&format!(
            "the checkpoint of optimizer step 13 is not used: it came to be with other learning rates, as with \
             `lr_scheduler_type: {name}` they depend on the number of optimizer steps, 24 in this run"
        ));
        ran.assert_says("training starts anew");
        assert_eq!(
            work.checkpoints(&format!("{name} first")).len(),
            4,
            "what belongs to the shorter run is left alone"
        );
    }
}

#[test]
fn what_lies_in_the_same_warmup_is_shared() {
    let work = Work::new();
    let settings = with(CONSTANT, "constant,", "linear, warmup_steps: 9,");
    let shorter = with(&settings, "max_steps: 24", "max_steps: 13");
    let inputs = work.inputs_with_eval();
    let from_nothing = work.run("from nothing", &settings, &inputs, None).well();
    work.run("parts", &shorter, &inputs, Some(8)).result.expect_err("interrupted");
    let ran = work.run_until("longer", "parts", &settings, &inputs, &|_| false).well();
    ran.assert_says("goes on from the checkpoint of optimizer step 8");
    assert_eq!(ran.files, from_nothing.files);
}

#[test]
fn the_chain_is_that_of_what_was_trained() {
    let work = Work::new();
    let inputs = work.inputs();
    let settings = with(CONSTANT, ", eval_steps: 5", "");
    let chain = |name: &str, settings: &str| {
        let ran = work.run(name, settings, &inputs, None).well();
        lines(&ran, "metrics/checkpoints.jsonl")
    };
    let first = chain("first", &settings);
    let steps: Vec<u64> = first.iter().map(|link| link["step"].as_u64().expect("a number")).collect();
    assert_eq!(steps, [10, 20, 24]);
    let other_checkpoints = with(&settings, "save_steps: 4", "save_steps: 7, save_total_limit: 1");
    assert_eq!(chain("other checkpoints", &other_checkpoints), first);
    let shorter = chain("shorter", &with(&settings, "max_steps: 24", "max_steps: 15"));
    assert_eq!((&shorter[0], shorter.len()), (&first[0], 2), "the same as far as it goes, then its own end");
    for (name, other) in
        [("seed", with(&settings, "max_steps", "seed: 1, max_steps")), ("rank", with(&settings, "r: 4", "r: 2"))]
    {
        let other = chain(name, &other);
        for (other, link) in other.iter().zip(&first) {
            assert!(other["digest"] != link["digest"] && other["chain"] != link["chain"], "{name}");
        }
    }
}

#[test]
fn full_training_goes_on_with_equal_bits_on_any_threads() {
    let work = Work::new();
    let in_pool = |n_threads: usize, name: &str, stop_after: Option<usize>| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("a pool");
        pool.install(|| work.run(name, FULL, &work.inputs(), stop_after))
    };
    let whole = in_pool(1, "whole", None).well();
    assert!(in_pool(3, "parts", Some(5)).result.expect_err("interrupted").is_cancelled);
    let resumed = in_pool(2, "parts", None).well();
    resumed.assert_says("checkpoint of optimizer step 5");
    assert_eq!(losses(&resumed).len(), 9);
    assert_eq!(resumed.files, whole.files);
}
