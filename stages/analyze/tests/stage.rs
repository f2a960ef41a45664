//! The stage as the runner calls it, on folders.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use arrow::array::AsArray;
use pipe_contract::figures::Mark;
use pipe_contract::{Artifact, ArtifactKind, Context, Figure, StageError, StageEvent, StageKind, read_yaml};
use pipe_records::{Example, ExamplesWriter, open_rows, read_parquet};
use pipe_stage_analyze::KIND;

fn write_examples<'a>(folder: &Path, texts: impl IntoIterator<Item = &'a str>) {
    std::fs::create_dir_all(folder).unwrap();
    let mut writer = ExamplesWriter::create(folder).unwrap();
    for text in texts {
        let n_characters = text.chars().count() as u32;
        writer
            .write(&Example { text: text.to_string(), prompt: 0..0, completion: 0..n_characters, ..Example::default() })
            .unwrap();
    }
    writer.finish().unwrap();
}

fn run(
    examples: &Path,
    model: Option<&Path>,
    settings: &str,
    work: &Path,
) -> Result<(Artifact, Vec<StageEvent>), StageError> {
    run_with_test(examples, model, None, settings, work)
}

fn run_with_test(
    examples: &Path,
    model: Option<&Path>,
    test: Option<&Path>,
    settings: &str,
    work: &Path,
) -> Result<(Artifact, Vec<StageEvent>), StageError> {
    let (stage, _, problems) = read_yaml(settings, |reader| KIND.read(reader));
    assert_eq!(problems, []);
    let events = Mutex::new(Vec::new());
    let emit = |event| events.lock().unwrap().push(event);
    let mut ctx = Context::new(work, &emit);
    ctx.inputs.insert("examples".into(), Artifact::from_folder(ArtifactKind::Examples, examples).unwrap());
    if let Some(model) = model {
        ctx.inputs.insert("model".into(), Artifact::from_folder(ArtifactKind::Model, model).unwrap());
    }
    if let Some(test) = test {
        ctx.inputs.insert("test".into(), Artifact::from_folder(ArtifactKind::Examples, test).unwrap());
    }
    stage.run(&mut ctx)?;
    drop(ctx);
    let lengths = Artifact::from_folder(ArtifactKind::Lengths, &work.join("outputs/lengths")).unwrap();
    Ok((lengths, events.into_inner().unwrap()))
}

fn bytes(artifact: &Artifact, name: &str) -> Vec<u8> {
    std::fs::read(artifact.file(name).unwrap()).unwrap()
}

fn summary(artifact: &Artifact) -> serde_json::Value {
    serde_json::from_slice(&bytes(artifact, "summary.json")).unwrap()
}

/// 200 different texts of 2 to 100 characters.
fn some_texts() -> Vec<String> {
    (0..200usize)
        .map(|i| "xyz é 你".chars().cycle().skip(i % 6).take(1 + i * i % 97).collect::<String>() + &i.to_string())
        .collect()
}

#[test]
fn the_pictures_have_these_bytes_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let texts = some_texts();
    write_examples(&folder.path().join("examples"), texts.iter().map(String::as_str));
    let settings = "{ threshold: 60, bins: 20, title: A golden picture }";
    let (lengths, _) = run(&folder.path().join("examples"), None, settings, &folder.path().join("work")).unwrap();
    let digest = |name: &str| blake3::hash(&bytes(&lengths, name)).to_hex().to_string();
    let digests = ["histogram.svg", "histogram.png", "summary.json", "lengths.parquet"].map(digest);
    assert_eq!(
        digests, GOLDEN,
        "if the pictures were changed on purpose, look at them and bump the version of the kind"
    );

    let picture = image::load_from_memory(&bytes(&lengths, "histogram.png")).unwrap().to_rgb8();
    assert_eq!(picture.dimensions(), (1200, 680));
    let n_mark = picture.pixels().filter(|pixel| pixel.0 == [192, 57, 43]).count();
    assert!(n_mark > 300, "the threshold is marked with {n_mark} pixels");
    // Grid lines each way, and none under the label: it stands above the plot, where rows of pixels have no grid.
    let is_grid = |x: u32, y: u32| picture.get_pixel(x, y).0 == [226, 229, 233];
    // Row 130 is above the bars, column 1155 right of them.
    let n_columns = (0..1200).filter(|x| is_grid(*x, 130)).count();
    let n_rows = (0..680).filter(|y| is_grid(1155, *y)).count();
    assert!(n_columns >= 8 && n_rows >= 3, "{n_columns} vertical and {n_rows} horizontal grid lines");
    let letters = (100..119).flat_map(|y| (0..1200).map(move |x| (x, y)));
    assert!(letters.clone().filter(|(x, y)| picture.get_pixel(*x, *y).0 == [192, 57, 43]).count() > 20);
    assert!(letters.clone().all(|(x, y)| !is_grid(x, y)), "a grid line crosses the label of the threshold");
    let svg = String::from_utf8(bytes(&lengths, "histogram.svg")).unwrap();
    for word in ["A golden picture", "length of a text (characters)", "number of texts", "threshold 60"] {
        assert!(svg.contains(word), "the picture does not say {word:?}");
    }
}

const GOLDEN: [&str; 4] = [
    "38d7cb846af76dccf0267da8f0f2c04160284119d0d1c178a32e7f7e4711e4c0",
    "963782e65a8c7a5df5b1b14b496e777319d9c089ebbfbd839d863c2fbe08a502",
    "8d77f468cb7151752d710d26884c04d533b19362571b53cfc806cc86ff9c4a50",
    "048ec987515a89405c000906bd8f4b69387b4e999df68179a4fbc7788ceb5598",
];

#[test]
fn lengths_are_counted_per_row() {
    let folder = tempfile::tempdir().unwrap();
    write_examples(&folder.path().join("examples"), ["", "abc", "你好😀", "abc"]);
    let (lengths, events) =
        run(&folder.path().join("examples"), None, "{ threshold: 2 }", &folder.path().join("work")).unwrap();
    let batches: Vec<_> = read_parquet(lengths.file("lengths.parquet").unwrap()).unwrap().map(Result::unwrap).collect();
    let column = batches[0].column_by_name("characters").unwrap();
    assert_eq!(column.as_primitive::<arrow::datatypes::UInt32Type>().values().as_ref(), [0, 3, 3, 3]);
    assert!(batches[0].column_by_name("tokens").is_none());
    let summary = summary(&lengths);
    assert_eq!(summary["characters"]["n_above_threshold"], 3);
    assert_eq!(summary["duplicates"]["first"], serde_json::json!([{"row": 3, "same_as_row": 1}]));
    assert!(events.contains(&StageEvent::Fact { name: "duplicates".into(), value: "1".into() }));
    assert!(KIND.show("lengths", &lengths, 5).unwrap().contains("1 texts repeat an earlier one: rows 3 (= 1)"));
}

#[test]
fn a_report_shows_histogram_statistics_and_repeats() {
    let folder = tempfile::tempdir().unwrap();
    write_examples(&folder.path().join("examples"), ["", "abc", "abcdef", "abc"]);
    let (lengths, _) =
        run(&folder.path().join("examples"), None, "{ threshold: 4, bins: 2 }", &folder.path().join("work")).unwrap();
    let figures = KIND.figures("lengths", &lengths).unwrap();
    let [Figure::Chart(chart), Figure::Table(table), Figure::Facts(facts), Figure::Table(longest), Figure::Table(odd)] =
        figures.as_slice()
    else {
        panic!("{figures:?}")
    };
    assert_eq!(longest.rows[0], ["2", "6", "abcdef"].map(String::from));
    let empty = ["nearly empty", "1", "row 0"].map(String::from);
    assert!(odd.rows.contains(&empty.to_vec()), "{odd:?}");
    assert_eq!(
        (chart.mark, chart.series[0].points.as_slice()),
        (Mark::Bars { width: 4.0 }, &[(0.0, 3.0), (4.0, 1.0)][..])
    );
    assert_eq!(chart.threshold.as_ref().map(|t| (t.x, t.label.as_str())), Some((4.0, "threshold 4")));
    assert_eq!(
        (table.columns.as_slice(), table.rows[1].as_slice()),
        (&["", "characters"].map(String::from)[..], &["mean", "3.0"].map(String::from)[..])
    );
    assert_eq!(facts.facts[1].1, "1");
    assert_eq!(facts.facts[2].1, "row 3 (counted from 0) is row 1 again");
}

/// A model folder whose tokenizer gives a token a byte: 256 bytes and an end.
fn write_model(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let json = pipe_tokenizer::train_bpe(&["x"], 257, &["<|endoftext|>"]).unwrap();
    std::fs::write(folder.join("tokenizer.json"), json).unwrap();
    std::fs::write(folder.join("config.json"), r#"{"vocab_size": 257}"#).unwrap();
    std::fs::write(folder.join("tokenizer_config.json"), r#"{"eos_token": "<|endoftext|>"}"#).unwrap();
}

#[test]
fn with_a_model_it_tells_what_each_strategy_would_waste() {
    let folder = tempfile::tempdir().unwrap();
    let (examples, model) = (folder.path().join("examples"), folder.path().join("model"));
    write_model(&model);
    // With the end 15, 3, 5 and 2 tokens; packs of 10.
    let texts = [14, 2, 4, 1].map(|n| "abcdefghijklmnop"[..n].to_string());
    write_examples(&examples, texts.iter().map(String::as_str));
    let (lengths, events) = run(&examples, Some(&model), "{ max_length: 10 }", &folder.path().join("work")).unwrap();
    let packing = &summary(&lengths)["packing"];
    assert_eq!(packing["max_length"], 10);
    let counts = |strategy: &serde_json::Value| {
        let count = |name: &str| strategy[name].as_u64().unwrap();
        let name = strategy["packing_strategy"].as_str().unwrap().to_string();
        (name, ["n_packs", "n_tokens", "n_truncated_documents", "n_truncated_tokens", "n_empty_places"].map(count))
    };
    let found: Vec<_> = packing["strategies"].as_array().unwrap().iter().map(counts).collect();
    let expected = [
        ("none", [4, 20, 1, 5, 20]),
        ("bfd", [2, 20, 1, 5, 0]),
        ("bfd_split", [3, 25, 1, 0, 5]),
        ("first_fit", [2, 20, 1, 5, 0]),
        ("wrapped", [3, 25, 2, 0, 5]),
    ];
    assert_eq!(found, expected.map(|(name, counts)| (name.to_string(), counts)));
    let told = "bfd                      2       100.0 %             0             1             5             0";
    assert!(KIND.show("lengths", &lengths, 5).unwrap().lines().any(|line| line == told));
    assert!(events.contains(&StageEvent::Log { line: told.to_string() }), "{events:?}");
}

#[test]
fn test_rows_among_the_examples_are_counted_and_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let (examples, test) = (folder.path().join("examples"), folder.path().join("test"));
    write_examples(&examples, ["Where is Rome?", "Add 2 and 2.", "add 2, and 2"]);
    write_examples(&test, ["Who?", "Add 2 and 2.", "where is  ROME"]);
    let (lengths, events) = run_with_test(&examples, None, Some(&test), "{}", &folder.path().join("work")).unwrap();
    let summary = summary(&lengths);
    assert_eq!(summary["overlap"]["n_test_rows"], 3);
    let first = |kind: &str| summary["overlap"][kind]["first"].clone();
    assert_eq!(first("exact"), serde_json::json!([{"row": 1, "same_as_row": 1}]));
    assert_eq!(first("normalized"), serde_json::json!([{"row": 2, "same_as_row": 0}]));
    assert_eq!(first("prompt"), serde_json::json!([]));
    assert_eq!(summary["near_duplicates"]["first"], serde_json::json!([{"row": 2, "same_as_row": 1}]));
    let warning = StageEvent::Warning { line: "2 of the 3 test rows are among the examples".to_string() };
    assert!(events.contains(&warning), "{events:?}");
    let shown = KIND.show("lengths", &lengths, 5).unwrap();
    assert!(shown.contains("among the examples: 1: test row 1 is example 1\n"), "{shown}");

    std::fs::remove_dir_all(&test).unwrap();
    std::fs::create_dir_all(&test).unwrap();
    pipe_records::examples::pretokenized_writer(&test, &[]).unwrap().finish().unwrap();
    let error = run_with_test(&examples, None, Some(&test), "{}", &folder.path().join("again")).unwrap_err();
    assert!(error.message.contains("at port `test`"), "{}", error.message);
}

#[test]
fn tokens_need_a_model_and_examples_need_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (examples, work) = (folder.path().join("examples"), folder.path().join("work"));
    write_examples(&examples, ["abc"]);
    let error = run(&examples, None, "{ unit: tokens }", &work).unwrap_err();
    assert_eq!(error.message, "`unit` is `tokens`, but nothing is connected to port `model`");
    write_examples(&examples, []);
    assert_eq!(run(&examples, None, "{}", &work).unwrap_err().slug, "no-rows");
}

#[test]
fn pretokenized_rows_have_no_text() {
    let folder = tempfile::tempdir().unwrap();
    let (examples, work) = (folder.path().join("examples"), folder.path().join("work"));
    std::fs::create_dir_all(&examples).unwrap();
    pipe_records::examples::pretokenized_writer(&examples, &[]).unwrap().finish().unwrap();
    let error = run(&examples, None, "{}", &work).unwrap_err();
    assert_eq!(
        (error.slug, error.message.as_str()),
        ("no-text", "the examples are pretokenized rows, which have no text to measure")
    );
    assert!(error.help.unwrap().starts_with("remove this stage"));
}

#[test]
fn alpaca_has_its_known_duplicates_and_tokens() {
    let Some(data) = std::env::var_os("PIPE_TEST_DATA").map(PathBuf::from) else {
        writeln!(std::io::stderr(), "SKIPPED alpaca_has_its_known_duplicates_and_tokens: PIPE_TEST_DATA is not set")
            .expect("stderr can be written to");
        return;
    };
    let rows = Artifact::from_folder(ArtifactKind::Rows, &data.join("data/alpaca_en_demo_hf")).unwrap();
    let mut texts = Vec::new();
    for batch in open_rows(&rows).unwrap() {
        let batch = batch.unwrap();
        let column = batch.column_by_name("text").unwrap().as_string::<i32>();
        texts.extend((0..batch.num_rows()).map(|row| column.value(row).to_string()));
    }
    let folder = tempfile::tempdir().unwrap();
    write_examples(&folder.path().join("examples"), texts.iter().map(String::as_str));
    let model = data.join("models/stories260K");
    let run = |settings: &str, work: &str| {
        run(&folder.path().join("examples"), Some(&model), settings, &folder.path().join(work)).unwrap().0
    };
    let characters = run("{}", "characters");
    let summary_of = summary(&characters);
    assert_eq!(summary_of["duplicates"]["n_duplicates"], 14);
    assert_eq!(summary_of["n_rows"], 999);
    let plain = tokenizers::Tokenizer::from_file(model.join("tokenizer.json")).unwrap();
    let n_tokens: usize = texts.iter().map(|text| plain.encode(text.as_str(), true).unwrap().len()).sum();
    assert_eq!(summary_of["tokens"]["mean"].as_f64().unwrap(), n_tokens as f64 / 999.0);
    let tokens = run("{ unit: tokens, threshold: 512 }", "tokens");
    assert_eq!(summary(&tokens)["histogram"]["start"], summary(&tokens)["tokens"]["min"]);
}
