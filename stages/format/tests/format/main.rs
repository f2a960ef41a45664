//! `format` through its public door: settings as YAML, rows in a folder, `examples.parquet` out.

mod templated;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use arrow::array::AsArray;
use pipe_contract::{Artifact, ArtifactKind, Context, Figure, StageError, StageEvent, StageKind as _, read_yaml};
use pipe_records::examples::{read_examples, read_pretokenized};
use pipe_records::{Example, open_rows};
use pipe_stage_format::KIND;

struct Outcome {
    result: Result<(), StageError>,
    examples: Artifact,
    events: Vec<StageEvent>,
    _dir: tempfile::TempDir,
}

impl Outcome {
    fn examples(&self) -> Vec<Example> {
        self.result.as_ref().expect("format succeeds");
        read_examples(&self.examples).unwrap().collect::<Result<Vec<_>, _>>().unwrap().concat()
    }

    fn error(&self) -> String {
        let error = self.result.as_ref().expect_err("format fails");
        format!("{}: {}", error.slug, error.chain())
    }

    fn fact(&self, wanted: &str) -> Option<&str> {
        self.events.iter().find_map(|event| match event {
            StageEvent::Fact { name, value } if name == wanted => Some(value.as_str()),
            _ => None,
        })
    }

    fn digest(&self) -> String {
        self.result.as_ref().expect("format succeeds");
        blake3::hash(&std::fs::read(self.examples.file("examples.parquet").unwrap()).unwrap()).to_hex().to_string()
    }
}

fn run_on(rows: Artifact, model: Option<&Path>, settings: &str) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let (stage, _, problems) = read_yaml(settings, |reader| KIND.read(reader));
    assert!(problems.is_empty(), "{problems:?}");
    let events = Mutex::new(Vec::new());
    let emit = |event: StageEvent| events.lock().unwrap().push(event);
    let mut ctx = Context::new(dir.path(), &emit);
    ctx.inputs.insert("rows".to_string(), rows);
    if let Some(model) = model {
        let model = Artifact::from_folder(ArtifactKind::Model, model).unwrap();
        ctx.inputs.insert("model".to_string(), model);
    }
    let result = stage.run(&mut ctx);
    let folder = ctx.output_dir("examples").unwrap();
    let examples = Artifact::from_folder(ArtifactKind::Examples, &folder).unwrap();
    Outcome { result, examples, events: events.into_inner().unwrap(), _dir: dir }
}

fn run(jsonl: &str, settings: &str) -> Outcome {
    run_with(jsonl, None, settings)
}

/// With a model on its port.
fn run_with(jsonl: &str, model: Option<&Path>, settings: &str) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rows.jsonl"), jsonl).unwrap();
    run_on(Artifact::from_folder(ArtifactKind::Rows, dir.path()).unwrap(), model, settings)
}

fn problems_of(settings: &str) -> Vec<String> {
    let (_, _, problems) = read_yaml(settings, |reader| KIND.read(reader));
    problems.into_iter().map(|problem| problem.message).collect()
}

fn test_data(test: &str) -> Option<PathBuf> {
    let found = std::env::var_os("PIPE_TEST_DATA").map(PathBuf::from);
    if found.is_none() {
        let mut stderr = std::io::stderr(); // Not `eprintln!`, which the test harness captures.
        writeln!(stderr, "SKIPPED {test}: PIPE_TEST_DATA is not set").unwrap();
    }
    found
}

fn column(folder: &Path, name: &str) -> Vec<String> {
    let rows = open_rows(&Artifact::from_folder(ArtifactKind::Rows, folder).unwrap()).unwrap();
    let batches: Vec<_> = rows.map(Result::unwrap).collect();
    let cells = batches.iter().flat_map(|batch| batch.column_by_name(name).unwrap().as_string::<i32>().iter());
    cells.map(|cell| cell.unwrap().to_string()).collect()
}

#[test]
fn the_alpaca_template_equals_the_text_of_all_2999_real_rows() {
    let Some(data) = test_data("the_alpaca_template_equals_the_text_of_all_2999_real_rows") else { return };
    let mut n_rows = 0;
    for folder in ["data/alpaca_small_hf", "data/alpaca_en_demo_hf"].map(|name| data.join(name)) {
        let outcome = run_on(Artifact::from_folder(ArtifactKind::Rows, &folder).unwrap(), None, "{}");
        let examples = outcome.examples();
        let (expected, outputs) = (column(&folder, "text"), column(&folder, "output"));
        assert_eq!(outcome.fact("texts replaced"), Some("0"));
        assert_eq!(examples.len(), expected.len());
        for ((example, expected), output) in examples.iter().zip(&expected).zip(&outputs) {
            assert_eq!(&example.text, expected);
            let characters: Vec<char> = example.text.chars().collect();
            let part = |span: &std::ops::Range<u32>| -> String {
                characters[span.start as usize..span.end as usize].iter().collect()
            };
            assert!(part(&example.prompt).ends_with("### Response:"));
            assert_eq!(&part(&example.completion), output);
            assert_eq!(example.prompt.end + 1, example.completion.start);
        }
        n_rows += examples.len();
    }
    assert_eq!(n_rows, 2999);
}

#[test]
fn a_text_that_differs_is_replaced_counted_and_named() {
    let right = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\\n\\n### Instruction:\\na\\n\\n### Response:\\nb";
    let row =
        |text: &str| format!("{{\"instruction\": \"a\", \"input\": \"\", \"output\": \"b\", \"text\": \"{text}\"}}\n");
    let outcome = run(&(row(right) + &row("wrong") + &row("wrong too")), "{}");
    assert_eq!(outcome.examples()[1].text, right.replace("\\n", "\n"));
    assert_eq!(outcome.fact("texts replaced"), Some("2"));
    let line = "column `text` was replaced: 2 of 3 rows differ, the first is row 1".to_string();
    assert!(outcome.events.contains(&StageEvent::Log { line }), "{:?}", outcome.events);
}

#[test]
fn columns_can_have_other_names() {
    let settings = "{ template: prompt_completion, columns: { prompt: q, completion: a } }";
    let outcome = run("{\"q\": \"é?\", \"a\": \" é\"}\n{\"q\": \"x\", \"a\": \"\"}\n", settings);
    assert_eq!(
        outcome.examples()[0],
        Example { text: "é? é".into(), prompt: 0..2, completion: 2..4, ..Example::default() }
    );
    assert_eq!(outcome.fact("empty completions"), Some("1"));
}

#[test]
fn a_report_shows_the_first_examples_as_they_are() {
    let rows = "{\"prompt\": \"é?\", \"completion\": \" é\"}\n{\"prompt\": \"x\", \"completion\": \" y\"}\n{\"prompt\": \"z\", \"completion\": \"z\"}\n";
    let figures = KIND.figures("examples", &run(rows, "{ template: prompt_completion }").examples).unwrap();
    let [Figure::Facts(facts), Figure::Samples(samples)] = figures.as_slice() else { panic!("{figures:?}") };
    assert_eq!(facts.facts[0], ("examples".to_string(), "3".to_string()));
    assert_eq!(facts.facts[1].1, "the completions");
    let shown: Vec<(&str, &str)> =
        samples.samples.iter().map(|sample| (sample.prompt.as_str(), sample.answers[0].1.as_str())).collect();
    assert_eq!(shown, [("é?", " é"), ("x", " y")]);

    let figures = KIND.figures("examples", &run("{\"text\": \"a b\"}\n", "{ template: text }").examples).unwrap();
    let [Figure::Facts(_), Figure::Table(table)] = figures.as_slice() else { panic!("{figures:?}") };
    assert_eq!((table.columns.concat(), table.rows.concat().concat()), ("text".to_string(), "a b".to_string()));

    let rows = format!("{{\"input_ids\": {:?}}}\n", (0..30).collect::<Vec<u32>>());
    let figures = KIND.figures("examples", &run(&rows, "{ template: pretokenized }").examples).unwrap();
    let [Figure::Facts(_), Figure::Table(table)] = figures.as_slice() else { panic!("{figures:?}") };
    assert_eq!((table.rows[0][1].as_str(), table.rows[0][2].starts_with("0, 1, 2, ")), ("30", true));
    assert!(table.rows[0][2].ends_with("23, \u{2026}"), "{}", table.rows[0][2]);
}

#[test]
fn a_missing_column_names_what_is_there_and_the_nearest() {
    let outcome = run("{\"instruction\": \"a\", \"inputs\": \"\", \"output\": \"\"}\n", "{}");
    assert_eq!(
        outcome.error(),
        "missing-column: template `alpaca` needs the column `input`, but the rows have `instruction`, `inputs`, `output`"
    );
    let help = outcome.result.as_ref().unwrap_err().help.as_deref();
    assert_eq!(help, Some("did you mean `inputs`? say so with `columns: { input: inputs }`"));
}

#[test]
fn a_null_cell_is_named_by_its_row() {
    let row = "{\"text\": \"a\"}\n";
    // In the third batch of 1,024 rows, so that rows are counted over batches.
    let outcome = run(&(row.repeat(2100) + "{\"text\": null}\n" + row), "{ template: text }");
    assert_eq!(outcome.error(), "null-cell: column `text` is empty (null) in row 2100");
}

#[test]
fn a_column_that_is_not_text_is_refused() {
    let outcome = run("{\"text\": 3}\n", "{ template: text }");
    assert_eq!(
        outcome.error(),
        "wrong-column-type: column `text` is int64 in every row from row 0, but template `text` needs text"
    );
}

#[test]
fn token_ids_are_passed_on_in_file_order() {
    let jsonl = "{\"input_ids\": [5, 4294967295], \"labels\": [-100, 4], \"extra\": \"x\"}\n{\"input_ids\": [], \"labels\": []}\n";
    let outcome = run(jsonl, "{ template: pretokenized }");
    outcome.result.as_ref().expect("format succeeds");
    let rows = read_pretokenized(&outcome.examples).unwrap().collect::<Result<Vec<_>, _>>().unwrap().concat();
    assert_eq!(rows[0].input_ids, [5, u32::MAX]);
    assert_eq!((rows[0].labels.as_deref(), rows[0].doc_ids.as_deref()), (Some(&[-100, 4][..]), None));
    assert_eq!(rows.len(), 2);
}

#[test]
fn wrong_token_ids_are_named_by_their_row() {
    let error = |jsonl: &str| run(jsonl, "{ template: pretokenized }").error();
    assert_eq!(
        error("{\"input_ids\": [1]}\n{\"input_ids\": [-1]}\n"),
        "out-of-range: column `input_ids` has -1 in row 1, but must hold numbers from 0 to 4294967295"
    );
    assert_eq!(
        error("{\"input_ids\": [1], \"labels\": [1, 2]}\n"),
        "length-differs: row 0 has 1 `input_ids`, but 2 `labels`"
    );
    assert_eq!(error("{\"input_ids\": [1, null]}\n"), "null-cell: column `input_ids` is empty (null) in row 0");
}

/// Padding would be trained on: its ids are tokens like others once the mask is gone.
#[test]
fn padded_rows_are_refused() {
    let outcome = run(
        "{\"input_ids\": [5, 6], \"attention_mask\": [1, 1]}\n{\"input_ids\": [5, 0], \"attention_mask\": [1, 0]}\n",
        "{ template: pretokenized }",
    );
    assert_eq!(
        outcome.error(),
        "padding: column `attention_mask` has 0 in row 1 at token 1, but must be 1 everywhere: padding would be trained on"
    );
    assert!(outcome.result.unwrap_err().help.unwrap().starts_with("cut the tokens whose `attention_mask` is not 1"));
    let two = run("{\"input_ids\": [5], \"attention_mask\": [2]}\n", "{ template: pretokenized }");
    assert!(two.error().contains("has 2 in row 0 at token 0"), "{}", two.error());
    let short = run("{\"input_ids\": [5, 6], \"attention_mask\": [1]}\n", "{ template: pretokenized }");
    assert_eq!(short.error(), "length-differs: row 0 has 2 `input_ids`, but 1 `attention_mask`");
    let text = run("{\"input_ids\": [5], \"attention_mask\": \"1\"}\n", "{ template: pretokenized }");
    assert!(text.error().starts_with("wrong-column-type: column `attention_mask`"), "{}", text.error());
    let whole = run("{\"input_ids\": [5, 6], \"attention_mask\": [1, 1]}\n", "{ template: pretokenized }");
    whole.result.as_ref().expect("nothing is masked");
    assert_eq!(read_pretokenized(&whole.examples).unwrap().next().unwrap().unwrap()[0].input_ids, [5, 6]);
}

#[test]
fn rows_without_a_row_are_an_error() {
    for settings in ["{}", "{ template: text }", "{ template: pretokenized }"] {
        assert_eq!(run("", settings).error(), "no-rows: the rows have no row", "{settings}");
    }
}

#[test]
fn the_help_for_a_null_cell_fits_what_the_cell_holds() {
    let help = |jsonl: &str, settings: &str| run(jsonl, settings).result.unwrap_err().help.unwrap();
    let of_text = help("{\"text\": \"a\"}\n{\"text\": null}\n", "{ template: text }");
    assert_eq!(of_text, "write an empty text into the cell, or remove the row from the data");
    let of_ids = help("{\"input_ids\": [1, null]}\n", "{ template: pretokenized }");
    assert_eq!(of_ids, "write a list of whole numbers without null, or remove the row from the data");
}

#[test]
fn settings_that_a_template_does_not_use_are_problems() {
    assert_eq!(
        problems_of("{ template: text, columns: { prompt: p, tekst: t } }"),
        ["template `text` does not use the column `prompt`", "unknown setting `tekst`"]
    );
    let expected = "`template` is `alpacca`, but must be one of `alpaca`, `prompt_completion`, `text`, `pretokenized`, `chat`, `jinja`";
    assert_eq!(problems_of("{ template: alpacca }"), [expected]);
}

#[test]
fn the_bytes_do_not_depend_on_threads_and_have_a_golden_digest() {
    let jsonl: String = (0..5000)
        .map(|i| {
            format!("{{\"instruction\": \"Say {i} ü\", \"input\": \"{}\", \"output\": \"{i}\"}}\n", "x".repeat(i % 3))
        })
        .collect();
    let digest = |n_threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        let outcome = pool.install(|| run(&jsonl, "{}"));
        outcome.result.as_ref().expect("format succeeds");
        blake3::hash(&std::fs::read(outcome.examples.file("examples.parquet").unwrap()).unwrap()).to_hex().to_string()
    };
    let one = digest(1);
    assert_eq!(one, digest(3));
    // Other bytes under the same key are a lie to every store: bump `version` in src/lib.rs with this.
    assert_eq!(one, "8d040b04795c7bc4adb61bfb17646c82a284c48503338ef3bd2a816a855a0bf1");
}

#[test]
fn show_prints_spans_and_wrapped_text() {
    let outcome = run(
        "{\"prompt\": \"one two three four five six seven eight nine ten eleven\", \"completion\": \"b\"}\n",
        "{ template: prompt_completion }",
    );
    outcome.result.as_ref().expect("format succeeds");
    let shown = KIND.show("examples", &outcome.examples, 5).unwrap();
    let expected =
        "row 0: prompt 0..55, completion 55..56\n  one two three four five six seven eight nine ten\n  eleven⟦b⟧\n\n";
    assert_eq!(shown, expected);
}
