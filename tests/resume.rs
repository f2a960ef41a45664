//! Training through the real binary, killed and stopped again and again: the results are those of an undisturbed run.
//!
//! Everything is made here: rows, a fresh model, packs to train and to evaluate on. What ends a process is decided by numbers
//! from a seed, which is printed; when in its work it dies is left to the machine, and must not matter.
#![cfg(feature = "stages")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// Optimizer steps of the stage `adapter`.
const N_STEPS: u64 = 60;

const PIPELINE: &str = "\
version: 1
name: resume
stages:
  rows: { uses: download, with: { dataset: ./rows.jsonl } }
  text: { uses: format, inputs: { rows: rows }, with: { template: prompt_completion } }
  other_rows: { uses: download, with: { dataset: ./other.jsonl } }
  other_text: { uses: format, inputs: { rows: other_rows }, with: { template: prompt_completion } }
  base:
    uses: init
    inputs: { examples: text }
    with: { vocab_size: 300, config: { hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2, max_position_embeddings: 128 } }
  packed: { uses: tokenize, inputs: { examples: text, model: base }, with: { max_length: 64, packing: true } }
  heldout: { uses: tokenize, inputs: { examples: other_text, model: base }, with: { max_length: 64, packing: true } }
  adapter:
    uses: train
    inputs: { data: packed, model: base, eval: heldout }
    with:
      lora: { r: 4, lora_dropout: 0.1, target_modules: all-linear }
      per_device_train_batch_size: 4
      learning_rate: 5.0e-3
      lr_scheduler_type: constant_with_warmup
      warmup_steps: 5
      max_steps: 60
      logging_steps: 1
      save_strategy: steps
      save_steps: 3
      eval_steps: 7
    to: out
";

/// A folder with the pipeline and a store.
struct Project(tempfile::TempDir);

/// How a process ended.
struct Ended {
    /// `None` where a signal ended it.
    code: Option<i32>,
    /// Its stderr.
    lines: Vec<String>,
}

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let rows = |range: std::ops::Range<u32>| {
            let row = |n: u32| {
                let (a, b) = (n * 7 % 91, n * 13 % 83);
                format!("{{\"prompt\": \"add {a} and {b} ->\", \"completion\": \" {}\"}}\n", a + b)
            };
            range.map(row).collect::<String>()
        };
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
        write("rows.jsonl", &rows(0..400));
        write("other.jsonl", &rows(1000..1020));
        write("p.yaml", PIPELINE);
        Project(folder)
    }

    /// Runs `pipe run` and sends `signal`, one, once `is_over` says so of a line that it prints.
    fn run(&self, more: &[&str], signal: &str, mut is_over: impl FnMut(&str) -> bool) -> Ended {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pipe"))
            .current_dir(self.0.path())
            .args(["run", "p.yaml", "--threads", "2"])
            .args(more)
            .env_remove("PIPE_STORE")
            .env_remove("CI")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("pipe starts");
        let (mut lines, mut is_sent) = (Vec::new(), false);
        for line in BufReader::new(child.stderr.take().expect("it is piped")).lines() {
            lines.push(line.expect("text"));
            if !is_sent && is_over(&lines[lines.len() - 1]) {
                is_sent = true;
                let id = child.id().to_string();
                // It may have ended of itself.
                let _ = Command::new("kill").args([signal, &id]).stderr(Stdio::null()).status();
            }
        }
        Ended { code: child.wait().expect("it ends").code(), lines }
    }

    fn run_to_the_end(&self, more: &[&str]) -> Ended {
        let ended = self.run(more, "-KILL", |_| false);
        assert_eq!(ended.code, Some(0), "{:#?}", ended.lines);
        ended
    }

    /// Every file of the stage's outputs with its digest.
    fn outputs(&self) -> BTreeMap<String, blake3::Hash> {
        let mut files = BTreeMap::new();
        collect(&self.0.path().join("out"), "", &mut files);
        assert!(files.contains_key("adapter/adapter_model.safetensors"), "{files:?}");
        assert!(files.contains_key("metrics/checkpoints.jsonl"), "{files:?}");
        files
    }

    fn assert_nothing_is_left_behind(&self) {
        let entries =
            std::fs::read_dir(self.0.path().join(".pipe/tmp")).expect("a store").map(|e| e.expect("an entry"));
        assert_eq!(entries.filter(|entry| entry.path().is_dir()).count(), 0, "folders of attempts");
    }
}

fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, blake3::Hash>) {
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), files);
        } else {
            files.insert(name, blake3::hash(&std::fs::read(entry.path()).expect("a file")));
        }
    }
}

impl Ended {
    fn says(&self, part: &str) -> bool {
        self.lines.iter().any(|line| line.contains(part))
    }

    /// The last optimizer step that was logged.
    fn last_step(&self) -> u64 {
        self.lines.iter().rev().find_map(|line| step_of(line)).unwrap_or(0)
    }
}

/// `adapter  | step 12/60  loss ...` -> 12
fn step_of(line: &str) -> Option<u64> {
    line.split_once("| step ")?.1.split_once('/')?.0.parse().ok()
}

/// Numbers that look random, from a seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Kills a run after 1 to 20 optimizer steps, again and again until one comes to its end; returns how often it was killed.
fn kill_until_it_ends(project: &Project, signals: &[&str], seed: u64) -> usize {
    let mut numbers = Numbers(seed);
    let mut n_killed = 0;
    loop {
        let signal = signals[numbers.below(signals.len() as u64) as usize];
        // Counted in lines, which come before and between optimizer steps too: stages, evaluations, checkpoints.
        let mut n_left = 1 + numbers.below(25);
        let ended = project.run(&[], signal, |line| {
            n_left = n_left.saturating_sub(u64::from(line.starts_with("adapter")));
            n_left == 0
        });
        match (ended.code, signal) {
            (Some(0), _) => return n_killed,
            (None, "-KILL") => {}
            (Some(130), "-TERM" | "-INT") => {
                assert!(ended.says("go on with: pipe run p.yaml --threads 2"), "{:#?}", ended.lines);
            }
            (code, _) => panic!("exit code {code:?} after {signal}: {:#?}", ended.lines),
        }
        n_killed += 1;
        assert!(n_killed < 500, "it does not come to its end");
        eprintln!("seed {seed}: {signal} after optimizer step {}", ended.last_step());
    }
}

#[test]
fn killed_at_random_optimizer_steps_a_run_gives_the_same_bytes() {
    let undisturbed = Project::new();
    undisturbed.run_to_the_end(&[]);
    for seed in 1..=2 {
        let project = Project::new();
        let n_killed = kill_until_it_ends(&project, &["-KILL"], seed);
        assert!(n_killed > 1, "seed {seed}: it was killed {n_killed} times");
        assert_eq!(project.outputs(), undisturbed.outputs(), "seed {seed}");
        project.assert_nothing_is_left_behind();
    }
}

/// A longer loop than CI has time for, with all signals: `just resume`. `PIPE_SEED` sets the first of ten seeds.
#[test]
#[ignore = "minutes"]
fn killed_and_interrupted_for_long() {
    let first: u64 = std::env::var("PIPE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    let undisturbed = Project::new();
    undisturbed.run_to_the_end(&[]);
    for seed in first..first + 10 {
        let project = Project::new();
        let n_killed = kill_until_it_ends(&project, &["-KILL", "-KILL", "-TERM", "-INT"], seed);
        eprintln!("seed {seed}: {n_killed} times");
        assert_eq!(project.outputs(), undisturbed.outputs(), "seed {seed}");
        project.assert_nothing_is_left_behind();
    }
}

#[test]
fn sigterm_and_the_time_limit_save_the_last_optimizer_step_and_say_how_to_go_on() {
    let undisturbed = Project::new();
    undisturbed.run_to_the_end(&[]);
    let project = Project::new();
    // Between two of the saved optimizer steps.
    let ended = project.run(&[], "-TERM", |line| step_of(line) == Some(10));
    assert_eq!(ended.code, Some(130), "{:#?}", ended.lines);
    let stopped_at = ended.last_step();
    assert!((10..N_STEPS).contains(&stopped_at), "{:#?}", ended.lines);
    assert!(
        ended.says(&format!("interrupted; the state of optimizer step {stopped_at} is saved")),
        "{:#?}",
        ended.lines
    );
    let end = "the state of `adapter` at its last checkpoint; go on with: pipe run p.yaml --threads 2";
    assert!(ended.says(end), "{:#?}", ended.lines);

    // A limit that no machine is too slow for to reach: all of the run, or some of it.
    let mut n_runs = 0;
    let ended = loop {
        n_runs += 1;
        let ended = project.run(&["--time-limit", "1s"], "-KILL", |_| false);
        match ended.code {
            Some(0) => break ended,
            Some(130) => assert!(ended.says("the time limit of 1s is reached"), "{:#?}", ended.lines),
            code => panic!("exit code {code:?}: {:#?}", ended.lines),
        }
        assert!(ended.says("go on with: pipe run p.yaml --threads 2 --time-limit 1s"), "{:#?}", ended.lines);
        assert!(n_runs < 200, "a second is not enough for an optimizer step");
    };
    if n_runs == 1 {
        assert!(
            ended.says(&format!("goes on from the checkpoint of optimizer step {stopped_at}")),
            "{:#?}",
            ended.lines
        );
    }
    assert_eq!(project.outputs(), undisturbed.outputs());
}

#[test]
fn a_longer_run_goes_on_from_the_end_of_a_finished_one() {
    let undisturbed = Project::new();
    undisturbed.run_to_the_end(&[]);
    let project = Project::new();
    project.run_to_the_end(&["--set", "stages.adapter.with.max_steps=32"]);
    let ended = project.run_to_the_end(&[]);
    assert!(ended.says("goes on from the checkpoint of optimizer step 32"), "{:#?}", ended.lines);
    assert_eq!(ended.lines.iter().filter_map(|line| step_of(line)).next(), Some(33));
    assert_eq!(project.outputs(), undisturbed.outputs());

    // With a rate that falls until the end it cannot, and says why.
    let linear = ["--set", "stages.adapter.with.lr_scheduler_type=linear"];
    project.run_to_the_end(&[&linear[..], &["--set", "stages.adapter.with.max_steps=12"]].concat());
    let ended = project.run_to_the_end(&[&linear[..], &["--set", "stages.adapter.with.max_steps=14"]].concat());
    assert!(ended.says("the checkpoint of optimizer step 12 is not used"), "{:#?}", ended.lines);
    assert_eq!(ended.lines.iter().filter_map(|line| step_of(line)).next(), Some(1));
}
