//! The stage as the runner calls it. Samples need a real model: `models/stories260K` of PIPE_TEST_DATA. Errors need none.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;

use pipe_contract::{Artifact, ArtifactKind, CancelToken, Context, StageError, StageEvent, StageKind, read_yaml};
use pipe_records::{Example, ExamplesForm, ExamplesWriter, Marks, SpecialTokens};
use pipe_stage_generate::KIND;
use pipe_stage_generate::samples::{self, SampleLine};
use pipe_tokenizer::train_bpe;

/// The folder of shared test data, or a line on stderr that says what was skipped.
fn test_data(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("PIPE_TEST_DATA").map(PathBuf::from);
    if folder.is_none() {
        writeln!(std::io::stderr(), "SKIPPED {test}: PIPE_TEST_DATA is not set").expect("stderr can be written to");
    }
    folder
}

fn stories260k(data: &std::path::Path) -> Artifact {
    Artifact::from_folder(ArtifactKind::Model, &data.join("models/stories260K")).expect("the model")
}

/// The samples, and the progress in tokens.
type Ran = Result<(Vec<SampleLine>, Vec<(u64, u64)>), StageError>;

fn run(with: &str, inputs: &[(&str, &Artifact)]) -> Ran {
    run_until(with, inputs, u64::MAX)
}

/// Runs the stage; the user interrupts once `n_done_max` tokens are done.
fn run_until(with: &str, inputs: &[(&str, &Artifact)], n_done_max: u64) -> Ran {
    let (stage, _, problems) = read_yaml(with, |reader| KIND.read(reader));
    assert_eq!(problems, []);
    let (progress, cancel) = (Mutex::new(Vec::new()), CancelToken::default());
    let emit = |event: StageEvent| {
        if let StageEvent::Progress { done, total, .. } = event {
            progress.lock().expect("not poisoned").push((done, total));
            if done >= n_done_max {
                cancel.cancel();
            }
        }
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut ctx = Context::new(folder.path(), &emit);
    ctx.cancel = cancel.clone();
    ctx.inputs = inputs.iter().map(|(port, artifact)| (port.to_string(), (*artifact).clone())).collect();
    stage.run(&mut ctx)?;
    let output = Artifact::from_folder(ArtifactKind::Samples, &folder.path().join("outputs/samples"))?;
    Ok((samples::read(&output, usize::MAX)?, progress.into_inner().expect("not poisoned")))
}

/// Prompt and completion of each example.
fn examples(rows: &[(&str, &str)]) -> (tempfile::TempDir, Artifact) {
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

const ROWS: [(&str, &str); 3] =
    [("Once upon a time, there was", " a dog."), ("Tom had a red ball. One day,", ""), ("The cat", " sat on the mat.")];

#[test]
fn greedy_text_is_that_of_transformers() {
    let Some(data) = test_data("greedy_text_is_that_of_transformers") else { return };
    let text = std::fs::read_to_string(data.join("reference/stories260K.json")).expect("the reference");
    let reference: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let said = reference["greedy_text"].as_str().expect("a text");
    let prompt = "Once upon a time, there was";
    assert!(said.starts_with(prompt));
    let (_a, rows) = examples(&[(prompt, " a dog.")]);
    let (lines, progress) =
        run("{ max_new_tokens: 40 }", &[("prompts", &rows), ("model", &stories260k(&data))]).expect("samples");
    assert!(said[prompt.len()..].starts_with(&lines[0].base[0]) && lines[0].base[0].len() > 60, "{lines:?}");
    assert_eq!((lines[0].prompt.as_str(), lines[0].expected.as_str()), (prompt, " a dog."));
    assert_eq!(progress.last(), Some(&(40, 40)));
}

/// The template writes the beginning that the tokenizer would add, and the end, which is not part of what is expected.
#[test]
fn a_chat_is_prompted_up_to_its_last_answer() {
    let Some(data) = test_data("a_chat_is_prompted_up_to_its_last_answer") else { return };
    let (_a, plain) = examples(&ROWS[..1]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let form = ExamplesForm { special_tokens: SpecialTokens::Template, ..ExamplesForm::default() };
    let mut writer = ExamplesWriter::create_with(folder.path(), form).expect("a writer");
    let text = format!("<s>{}{}</s>", ROWS[0].0, ROWS[0].1);
    let (start, end) = (3 + ROWS[0].0.len() as u32, text.len() as u32);
    let marks = Marks { control: vec![0..3, end - 4..end], special_tokens: form.special_tokens, ..Marks::default() };
    writer.write(&Example { text, prompt: 0..start, completion: start..end, marks }).expect("a row");
    writer.finish().expect("finished");
    let chat = Artifact::from_folder(ArtifactKind::Examples, folder.path()).expect("a folder");
    let sample = |prompts: &Artifact| {
        let inputs = [("prompts", prompts), ("model", &stories260k(&data))];
        run("{ max_new_tokens: 12 }", &inputs).expect("samples").0.remove(0)
    };
    let (of_chat, of_plain) = (sample(&chat), sample(&plain));
    assert_eq!((&of_chat.base, &of_chat.expected), (&of_plain.base, &of_plain.expected));
    assert_eq!(of_chat.prompt, format!("<s>{}", of_plain.prompt));
}

#[test]
fn prompts_in_training_are_not_shown() {
    let Some(data) = test_data("prompts_in_training_are_not_shown") else { return };
    let model = stories260k(&data);
    let (_a, rows) = examples(&ROWS);
    let (_b, training) = examples(&[(ROWS[0].0, " another end.")]);
    let inputs: [(&str, &Artifact); 3] = [("prompts", &rows), ("model", &model), ("training", &training)];
    let (lines, _) = run("{ max_new_tokens: 3 }", &inputs).expect("samples");
    assert_eq!(lines.iter().map(|line| line.row).collect::<Vec<_>>(), [1, 2]);
    let (lines, _) = run("{ max_new_tokens: 3, max_examples: 1 }", &inputs).expect("samples");
    assert_eq!((lines.len(), lines[0].row, lines[0].adapter.is_none()), (1, 1, true));
    let error = run("{}", &[("prompts", &training), ("model", &model), ("training", &rows)]).expect_err("all seen");
    assert_eq!(error.slug, "no-examples");
    assert!(error.message.contains("all 1 examples"), "{error}");
    assert!(run_until("{}", &inputs, 1).expect_err("interrupted").is_cancelled);
}

#[test]
fn a_stop_string_ends_a_sample() {
    let Some(data) = test_data("a_stop_string_ends_a_sample") else { return };
    let model = stories260k(&data);
    let (_a, rows) = examples(&ROWS);
    let inputs: [(&str, &Artifact); 2] = [("prompts", &rows), ("model", &model)];
    let (lines, _) = run("{ max_new_tokens: 60, stop_strings: [\".\", \" named\"] }", &inputs).expect("samples");
    for line in &lines {
        let text = &line.base[0];
        let ends = [".", " named"].map(|stop| text.matches(stop).count());
        assert_eq!(ends[0] + ends[1], 1, "it stops at the first: {text:?}");
    }
    assert!(lines[0].base[0].ends_with(" named"), "{lines:?}");
}

#[test]
fn samples_depend_on_seed_and_row_alone() {
    let Some(data) = test_data("samples_depend_on_seed_and_row_alone") else { return };
    let model = stories260k(&data);
    let (_a, rows) = examples(&ROWS);
    let inputs: [(&str, &Artifact); 2] = [("prompts", &rows), ("model", &model)];
    let sample = |with: &str| run(with, &inputs).expect("samples").0;
    let with = "{ do_sample: true, max_new_tokens: 12, num_return_sequences: 2, seed: 1 }";
    let drawn = sample(with);
    assert!(drawn.iter().all(|line| line.base.len() == 2 && line.base[0] != line.base[1]), "{drawn:?}");
    assert_eq!(drawn, sample(with));
    assert_ne!(drawn, sample(&with.replace("seed: 1", "seed: 2")));
    // The first sample of a prompt is the same one, however many there are and whatever stands beside it.
    let one = sample(&with.replace("num_return_sequences: 2", "num_return_sequences: 1"));
    assert!(one.iter().zip(&drawn).all(|(one, two)| one.base[0] == two.base[0]), "{one:?} {drawn:?}");
    let alone = sample(&with.replace("seed: 1", "seed: 1, per_device_eval_batch_size: 1"));
    assert_eq!(alone, drawn);
}

#[test]
fn what_cannot_be_said_is_named_before_the_weights_are_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = r#"{"architectures":["LlamaForCausalLM"],"hidden_size":8,"intermediate_size":12,"num_hidden_layers":1,
        "num_attention_heads":2,"vocab_size":300,"max_position_embeddings":8}"#;
    std::fs::write(folder.path().join("config.json"), config).expect("written");
    let tokenizer = train_bpe(&["the cat sat"], 300, &["<end>"]).expect("a tokenizer");
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer).expect("written");
    let model = Artifact::from_folder(ArtifactKind::Model, folder.path()).expect("a folder");
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[], "no-examples"),
        (&[("", "a text")], "no-prompt"),
        (&[("123456789", "0")], "prompt-too-long"),
        (&[("1", "2")], "weights"), // and only then
    ];
    for (rows, slug) in cases {
        let (_a, prompts) = examples(rows);
        let error = run("{}", &[("prompts", &prompts), ("model", &model)]).expect_err("it fails");
        assert_eq!(error.slug, slug, "{error}");
    }
}
