//! The stage as the runner calls it. Scores need a real model: `models/stories260K` of PIPE_TEST_DATA. Errors need none.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use pipe_contract::{Artifact, ArtifactKind, CancelToken, Context, StageError, StageEvent, StageKind, Unit, read_yaml};
use pipe_llm::device::{self, DeviceChoice};
use pipe_llm::{Adapter, LoraConfig, Sequence, load};
use pipe_records::{Example, ExamplesWriter};
use pipe_stage_evaluate::KIND;
use pipe_tokenizer::{ModelTokenizer, train_bpe};

/// The folder of shared test data, or a line on stderr that says what was skipped.
fn test_data(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("PIPE_TEST_DATA").map(PathBuf::from);
    if folder.is_none() {
        writeln!(std::io::stderr(), "SKIPPED {test}: PIPE_TEST_DATA is not set").expect("stderr can be written to");
    }
    folder
}

/// What a run left: its outputs' bytes, facts, warnings, progress, the error.
#[derive(Default)]
struct Ran {
    files: BTreeMap<String, Vec<u8>>,
    facts: BTreeMap<String, String>,
    warnings: Vec<String>,
    progress: Vec<(u64, u64)>,
    error: Option<StageError>,
}

impl Ran {
    fn scores(&self) -> serde_json::Value {
        assert!(self.error.is_none(), "{:?}", self.error);
        serde_json::from_slice(&self.files["scores.json"]).expect("JSON")
    }

    fn lines(&self) -> Vec<serde_json::Value> {
        let text = String::from_utf8(self.files["examples.jsonl"].clone()).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn slug(&self) -> &'static str {
        self.error.as_ref().expect("it fails").slug
    }
}

fn run(with: &str, inputs: &[(&str, &Artifact)]) -> Ran {
    run_until(with, inputs, u64::MAX)
}

/// Runs the stage; the user interrupts once `n_done_max` tokens are done.
fn run_until(with: &str, inputs: &[(&str, &Artifact)], n_done_max: u64) -> Ran {
    let (stage, _, problems) = read_yaml(with, |reader| KIND.read(reader));
    assert_eq!(problems, []);
    let (ran, cancel) = (Mutex::new(Ran::default()), CancelToken::default());
    let emit = |event: StageEvent| {
        let mut ran = ran.lock().expect("not poisoned");
        match event {
            StageEvent::Fact { name, value } => drop(ran.facts.insert(name, value)),
            StageEvent::Warning { line } => ran.warnings.push(line),
            StageEvent::Progress { done, total, unit } => {
                assert_eq!(unit, Unit::Tokens);
                ran.progress.push((done, total));
                if done >= n_done_max {
                    cancel.cancel();
                }
            }
            StageEvent::Log { .. } => {}
        }
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut ctx = Context::new(folder.path(), &emit);
    ctx.cancel = cancel.clone();
    ctx.inputs = inputs.iter().map(|(port, artifact)| (port.to_string(), (*artifact).clone())).collect();
    let error = stage.run(&mut ctx).err();
    let mut ran = ran.into_inner().expect("not poisoned");
    ran.error = error;
    let written = std::fs::read_dir(folder.path().join("outputs/scores")).into_iter().flatten();
    for path in written.map(|entry| entry.expect("an entry").path()) {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        ran.files.insert(name, std::fs::read(&path).expect("a file"));
    }
    ran
}

/// Prompt and completion of each example.
fn examples(rows: &[(String, String)]) -> (tempfile::TempDir, Artifact) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut writer = ExamplesWriter::create(folder.path()).expect("a writer");
    for (prompt, completion) in rows {
        let prompt_end = prompt.chars().count() as u32;
        let end = prompt_end + completion.chars().count() as u32;
        let text = format!("{prompt}{completion}");
        writer
            .write(&Example { text, prompt: 0..prompt_end, completion: prompt_end..end, ..Example::default() })
            .expect("a row");
    }
    writer.finish().expect("finished");
    let artifact = Artifact::from_folder(ArtifactKind::Examples, folder.path()).expect("a folder");
    (folder, artifact)
}

fn stories() -> Vec<(String, String)> {
    let rows = [
        ("Once upon a time, there was", " a little girl named Lily."),
        ("Tom had a red ball. One day,", " he"),
        ("The cat", " sat on the mat and was very happy, because the sun was warm."),
    ];
    rows.map(|(prompt, completion)| (prompt.to_string(), completion.to_string())).to_vec()
}

/// `stories260K`, which also stops at a full stop.
fn model_that_stops_at_a_full_stop(data: &Path) -> (tempfile::TempDir, Artifact) {
    let mut model = Artifact::from_folder(ArtifactKind::Model, &data.join("models/stories260K")).expect("the model");
    let tokenizer = ModelTokenizer::load(&model).expect("its tokenizer");
    let full_stop = *tokenizer.encode("He sat.").expect("ids").ids.last().expect("an id");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("generation_config.json");
    std::fs::write(&path, format!("{{\"eos_token_id\": [2, {full_stop}]}}")).expect("written");
    model.files.get_mut("generation_config.json").expect("it has one").path = path;
    (folder, model)
}

/// A fresh adapter for `model`: B is zero unless `is_zero` is false.
fn adapter(model: &Artifact, is_zero: bool) -> (tempfile::TempDir, Artifact) {
    let targets = vec!["q_proj".to_string(), "v_proj".to_string()];
    let config = LoraConfig {
        lora_rank: 4,
        lora_alpha: 8.0,
        lora_dropout: 0.5,
        use_rslora: false,
        target_modules: targets.clone(),
        trainable_token_indices: pipe_llm::adapter::TokenIndices::new(),
        fan_in_fan_out: false,
        base_model: None,
        revision: None,
    };
    let program = pipe_llm::Program::new(&load::model_config(model).expect("a config"), &targets).expect("targets");
    let device = device::open(DeviceChoice::Cpu, &[]).expect("a CPU");
    let mut adapter = Adapter::fresh(config, &program, vec![], 1, &device).expect("an adapter");
    for module in adapter.modules.iter_mut().filter(|_| !is_zero) {
        module.b = (module.b.ones_like().expect("ones") * 0.05).expect("scaled");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    adapter.save(folder.path()).expect("written");
    let artifact = Artifact::from_folder(ArtifactKind::Adapter, folder.path()).expect("a folder");
    (folder, artifact)
}

#[test]
fn the_loss_is_that_of_all_supervised_tokens() {
    let Some(data) = test_data("the_loss_is_that_of_all_supervised_tokens") else { return };
    let model = Artifact::from_folder(ArtifactKind::Model, &data.join("models/stories260K")).expect("the model");
    let (_a, rows) = examples(&stories());
    // The model has 512 positions: the default gives way to them.
    let ran = run("{}", &[("examples", &rows), ("model", &model)]);

    let tokenizer = ModelTokenizer::load(&model).expect("a tokenizer");
    let cpu = device::open(DeviceChoice::Cpu, &[]).expect("a CPU");
    let (engine, _) = load::engine_and_adapter(&model, None, &cpu).expect("an engine");
    let (mut sum, mut n_tokens) = (0.0, 0);
    for ((prompt, completion), line) in stories().iter().zip(ran.lines()) {
        let mut ids = tokenizer.encode(&format!("{prompt}{completion}")).expect("ids").ids;
        ids.push(2); // the end
        let loss = engine.loss(None, &Sequence::plain(&engine.program().config, &ids).expect("ids")).expect("a loss");
        assert_eq!(line["base"]["loss"].as_f64(), Some(loss / (ids.len() - 1) as f64));
        sum += loss;
        n_tokens += ids.len() - 1;
    }
    let scores = ran.scores();
    assert_eq!(scores["base"]["loss"].as_f64(), Some(sum / n_tokens as f64));
    assert_eq!(scores["n_tokens"].as_u64(), Some(n_tokens as u64));
    assert_eq!((&scores["format_version"], &scores["n_examples"]), (&1.into(), &3.into()));
    assert!(scores.get("adapter").is_none() && scores["base"].get("exact_match").is_none(), "{scores}");
    let perplexity = scores["base"]["perplexity"].as_f64().expect("a number");
    assert!((perplexity - libm::exp(sum / n_tokens as f64)).abs() < 1e-9, "{perplexity}");
    let (last, total) = *ran.progress.last().expect("progress");
    assert_eq!((last, total), (n_tokens as u64 + 3, n_tokens as u64 + 3), "all tokens of three documents");

    // Only the completion: fewer tokens, another loss.
    let completions = run("{ max_length: 512, completion_only_loss: true }", &[("examples", &rows), ("model", &model)]);
    assert!(completions.scores()["n_tokens"].as_u64() < Some(n_tokens as u64 / 2 + 10));
    assert_ne!(completions.scores()["base"]["loss"], scores["base"]["loss"]);
}

#[test]
fn the_loss_of_transformers_is_ours() {
    let Some(data) = test_data("the_loss_of_transformers_is_ours") else { return };
    let text = std::fs::read_to_string(data.join("reference/stories260K.json")).expect("the reference");
    let reference: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let model = Artifact::from_folder(ArtifactKind::Model, &data.join("models/stories260K")).expect("the model");
    let (_a, rows) = examples(&[(String::new(), reference["text"].as_str().expect("a text").to_string())]);
    let ran = run("{ max_length: 512, append_eos: false }", &[("examples", &rows), ("model", &model)]);
    let difference =
        ran.scores()["base"]["loss"].as_f64().expect("a loss") - reference["loss"].as_f64().expect("a loss");
    // Two orders of summation of 63 losses in float32.
    assert!(difference.abs() < 1e-5, "{difference:e}");
}

#[test]
fn an_adapter_that_does_nothing_scores_as_the_base() {
    let Some(data) = test_data("an_adapter_that_does_nothing_scores_as_the_base") else { return };
    let (_m, model) = model_that_stops_at_a_full_stop(&data);
    let (_a, rows) = examples(&stories());
    let with = "{ max_length: 512, metrics: [loss, exact_match], max_new_tokens: 24 }";
    let score = |is_zero: bool| {
        let (_b, adapter) = adapter(&model, is_zero);
        run(with, &[("examples", &rows), ("model", &model), ("adapter", &adapter)])
    };
    let (zero, other) = (score(true), score(false));
    let scores = zero.scores();
    assert_eq!(scores["base"], scores["adapter"]);
    assert!(zero.lines().iter().all(|line| line["base"] == line["adapter"]));
    assert_eq!(other.scores()["base"], scores["base"]);
    assert_ne!(other.scores()["adapter"], scores["base"]);
    assert!(zero.facts["loss"].contains(" -> ") && zero.facts["exact match"].contains(" % -> "), "{:?}", zero.facts);
}

#[test]
fn a_models_own_answers_match() {
    let Some(data) = test_data("a_models_own_answers_match") else { return };
    let (_m, model) = model_that_stops_at_a_full_stop(&data);
    let with = "{ max_length: 512, metrics: exact_match, max_new_tokens: 40, per_device_eval_batch_size: 2 }";
    // What it says to the prompts becomes the completions.
    let (_a, rows) = examples(&stories());
    let own_answers = |with: &str| {
        let ran = run(with, &[("examples", &rows), ("model", &model)]);
        assert_eq!(ran.scores()["base"]["exact_match"].as_f64(), Some(0.0));
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_string();
        let answer = |line: &serde_json::Value| (text(&line["prompt"]), text(&line["base"]["answer"]));
        let answers: Vec<(String, String)> = ran.lines().iter().map(answer).collect();
        assert!(answers.iter().all(|(_, answer)| !answer.trim().is_empty()), "{answers:?}");
        answers
    };
    let (_b, own) = examples(&own_answers(with));
    let second = run(with, &[("examples", &own), ("model", &model)]);
    assert_eq!(second.scores()["base"]["exact_match"].as_f64(), Some(1.0), "{:?}", second.lines());
    assert_eq!((second.facts["exact match"].as_str(), second.warnings.len()), ("100.0 %", 0));
    assert!(second.scores()["base"].get("loss").is_none());

    // The very words, but cut and not ended: no match, and a warning says why.
    let with = with.replace("40", "3");
    let (_c, cut) = examples(&own_answers(&with));
    let third = run(&with, &[("examples", &cut), ("model", &model)]);
    assert!(third.lines().iter().all(|line| line["base"]["answer"] == line["expected"]), "{:?}", third.lines());
    assert_eq!(third.scores()["base"]["exact_match"].as_f64(), Some(0.0));
    assert!(third.warnings.iter().any(|line| line.contains("more than `max_new_tokens`")), "{:?}", third.warnings);
}

#[test]
fn bytes_depend_on_neither_threads_nor_the_micro_batch_of_a_loss() {
    let Some(data) = test_data("bytes_depend_on_neither_threads_nor_the_micro_batch_of_a_loss") else { return };
    let (_m, model) = model_that_stops_at_a_full_stop(&data);
    let (_a, rows) = examples(&stories());
    let in_pool = |n_threads: usize, with: &str| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("a pool");
        let ran = pool.install(|| run(with, &[("examples", &rows), ("model", &model)]));
        assert!(ran.error.is_none(), "{:?}", ran.error);
        ran.files
    };
    let both = "{ max_length: 512, metrics: [loss, exact_match], max_new_tokens: 12 }";
    assert_eq!(in_pool(1, both), in_pool(3, both));
    let loss = "{ max_length: 512, per_device_eval_batch_size: 1 }";
    assert_eq!(in_pool(2, loss), in_pool(2, &loss.replace("size: 1", "size: 3")));
}

#[test]
fn training_is_left_out_and_long_documents_are_cut() {
    let Some(data) = test_data("training_is_left_out_and_long_documents_are_cut") else { return };
    let model = Artifact::from_folder(ArtifactKind::Model, &data.join("models/stories260K")).expect("the model");
    let (_a, rows) = examples(&stories());
    let (_b, training) = examples(&stories()[1..2]);
    let inputs: [(&str, &Artifact); 3] = [("examples", &rows), ("model", &model), ("training", &training)];
    let ran = run("{ max_length: 16, max_examples: 1 }", &inputs);
    let scores = ran.scores();
    assert_eq!((&scores["n_examples"], &scores["n_left_out"]), (&1.into(), &1.into()));
    assert_eq!((&scores["n_truncated"], &scores["n_tokens"]), (&1.into(), &15.into()));
    assert!(
        ran.warnings[0].contains("1 of 1 examples are scored up to their first 16 tokens only"),
        "{:?}",
        ran.warnings
    );
    let error = run("{ max_length: 512 }", &[("examples", &training), ("model", &model), ("training", &rows)]);
    assert_eq!(error.slug(), "no-examples");
    assert!(error.error.expect("it fails").message.contains("all 1 examples are in `training`"));
    let stopped = run_until("{ max_length: 512 }", &inputs, 0);
    assert!(stopped.error.expect("interrupted").is_cancelled && stopped.files.is_empty());
}

/// A model folder without weights: enough for what is checked before they are read.
fn model_without_weights(eos: &str) -> (tempfile::TempDir, Artifact) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = r#"{"architectures":["LlamaForCausalLM"],"hidden_size":8,"intermediate_size":12,"num_hidden_layers":1,
        "num_attention_heads":2,"vocab_size":300,"max_position_embeddings":1024}"#;
    let tokenizer = train_bpe(&["the cat sat"], 300, &["<end>"]).expect("a tokenizer");
    for (name, bytes) in [
        ("config.json", config.as_bytes()),
        ("tokenizer.json", tokenizer.as_ref()),
        ("tokenizer_config.json", eos.as_bytes()),
    ] {
        std::fs::write(folder.path().join(name), bytes).expect("written");
    }
    let artifact = Artifact::from_folder(ArtifactKind::Model, folder.path()).expect("a folder");
    (folder, artifact)
}

#[test]
fn what_cannot_be_scored_is_named_before_the_weights_are_read() {
    let (_m, model) = model_without_weights(r#"{"eos_token": "<end>"}"#);
    let (_n, endless) = model_without_weights("{}");
    let (_a, rows) = examples(&stories());
    let (_b, no_rows) = examples(&[]);
    let (_c, no_prompt) = examples(&[("a".into(), "b".into()), (String::new(), "text".into())]);
    let (_d, no_completion) = examples(&[("a".into(), " ".into())]);
    let cases = [
        ("{ max_length: 1025 }", &rows, &model, "max-length-above-positions"),
        ("{}", &rows, &endless, "no-end-token"),
        ("{ append_eos: false, metrics: exact_match }", &rows, &endless, "no-end-token"),
        ("{}", &no_rows, &model, "no-examples"),
        ("{ metrics: exact_match }", &no_prompt, &model, "nothing-to-match"),
        ("{ metrics: exact_match }", &no_completion, &model, "nothing-to-match"),
        ("{ max_length: 2, completion_only_loss: true }", &rows, &model, "nothing-to-score"),
        ("{}", &rows, &model, "weights"), // and only then
    ];
    for (with, rows, model, slug) in cases {
        let ran = run(with, &[("examples", rows), ("model", model)]);
        assert_eq!(ran.slug(), slug, "{with}: {:?}", ran.error);
    }
    let error = run("{ metrics: exact_match }", &[("examples", &no_prompt), ("model", &model)]).error;
    assert!(error.expect("it fails").message.contains("row 1 of the examples (counted from 0) has no prompt"));
}
