//! `uses: prepare` through the real binary: inputs with names of the file's own, and what stands between rows and `format`.
#![cfg(feature = "stages")]

use std::path::Path;
use std::process::Command;

const PIPELINE: &str = r#"
version: 1
name: two
stages:
  alpaca: { uses: download, with: { dataset: ./alpaca } }
  code: { uses: download, with: { dataset: ./code } }
  rows:
    uses: prepare
    inputs: { alpaca: alpaca, code: code }
    with:
      columns: { prompt: instruction, completion: output }
      select_columns: [prompt, completion]
      filter: { column: completion, min_characters: 1 }
      deduplicate: exact
      shuffle: true
      test_size: 0.25
      assert: { min_rows: 8, max_rows: 8, no_nulls: [prompt], columns: { prompt: string, completion: string } }
  text: { uses: format, inputs: { rows: rows.train }, with: { template: prompt_completion } }
"#;

fn pipe(folder: &Path, arguments: &str) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
    command.args(arguments.split_whitespace()).current_dir(folder).env_clear();
    let output = command.env("HOME", folder).output().expect("the binary starts");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("output is UTF-8"));
    (output.status.code(), text.concat())
}

fn folder_with(pipeline: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("below the folder")).expect("a folder can be made");
        std::fs::write(path, text).expect("it can be written");
    };
    write("p.yaml", pipeline);
    let row = |n: usize| format!("{{\"instruction\": \"Say {n}\", \"input\": \"\", \"output\": \"{n}\"}}\n");
    write("alpaca/train.jsonl", &(0..5).map(row).collect::<String>());
    // One row is there too, one has an empty completion.
    let rows = [("Say 4", "4"), ("Nothing", ""), ("Say 5", "5"), ("Say 6", "6"), ("Say 7", "7")];
    let row = |(prompt, completion)| format!("{{\"prompt\": \"{prompt}\", \"completion\": \"{completion}\"}}\n");
    write("code/train.jsonl", &rows.map(row).concat());
    folder
}

#[test]
fn rows_of_two_inputs_are_prepared_and_formatted() {
    let folder = folder_with(PIPELINE);
    let (code, text) = pipe(folder.path(), "run p.yaml");
    assert_eq!(code, Some(0), "{text}");
    for fact in ["rows in 10", "filtered by completion: min_characters 1", "duplicates 1", "train 6", "test 2"] {
        let words: Vec<&str> = fact.split(' ').collect();
        let has_all = |line: &str| words.iter().all(|word| line.contains(word));
        assert!(text.lines().any(has_all), "no line has `{fact}`:\n{text}");
    }
    let (code, shown) = pipe(folder.path(), "show p.yaml rows.test -n 9");
    assert_eq!((code, shown.matches("prompt: Say").count()), (Some(0), 2), "{shown}");
    let (code, shown) = pipe(folder.path(), "show p.yaml text -n 9");
    assert_eq!((code, shown.matches("prompt 0..5, completion 5..6").count()), (Some(0), 6), "{shown}");
    // Nothing is made again, also where a default is written out.
    let (code, text) = pipe(folder.path(), "run p.yaml --set stages.rows.with.seed=42");
    assert!(code == Some(0) && !text.contains("ran in"), "{text}");
}

#[test]
fn its_inputs_have_any_names_and_are_checked() {
    let told = |from: &str, to: &str| {
        assert!(PIPELINE.contains(from), "{from}");
        let folder = folder_with(&PIPELINE.replace(from, to));
        let (code, text) = pipe(folder.path(), "check p.yaml");
        assert_eq!(code, Some(2), "{text}");
        text
    };
    let text = told("inputs: { alpaca: alpaca, code: code }", "inputs: {}");
    assert!(text.contains("error[missing-input]: stage `rows` (`prepare`) has no input (rows)"), "{text}");
    let text = told("shuffle: true", "weights: { alpaca: 1, cod: 2 }");
    assert!(text.contains("`weights` has no weight for the input `code`"), "{text}");
    assert!(text.contains("there is no input `cod`"), "{text}");
    let text = told(
        "code: { uses: download, with: { dataset: ./code } }",
        "code: { uses: download, with: { model: ./code } }",
    );
    assert!(text.contains("error[wrong-artifact-kind]"), "{text}");
    let text = told("{ column: completion, min_characters: 1 }", "[{ colum: completion, min_characters: 1 }]");
    assert!(text.contains("unknown setting `colum`") && text.contains("p.yaml:13:"), "{text}");
}
