//! The three artifact kinds of data, written to disk and read back.

use std::fs;
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use pipe_contract::{Artifact, ArtifactKind};
use pipe_records::examples::{
    is_pretokenized, pretokenized_schema, pretokenized_writer, read_examples, read_pretokenized,
};
use pipe_records::packed::{PACKED_FILE, PACKED_INFO_FILE, PACKS_PER_GROUP};
use pipe_records::show::show_rows;
use pipe_records::{
    Example, ExamplesForm, ExamplesWriter, Marks, Pack, PackedCounts, PackedReader, PackedWriter, RecordsError,
    SpecialTokens, open_rows, parquet_writer,
};

fn artifact(kind: ArtifactKind, folder: &Path) -> Artifact {
    Artifact::from_folder(kind, folder).unwrap()
}

fn rows_of(files: &[(&str, &str)]) -> (tempfile::TempDir, Artifact) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let artifact = artifact(ArtifactKind::Rows, dir.path());
    (dir, artifact)
}

fn error_of(files: &[(&str, &str)]) -> String {
    let (_dir, artifact) = rows_of(files);
    let first_error = match open_rows(&artifact) {
        Err(error) => Some(error),
        Ok(rows) => rows.filter_map(Result::err).next(),
    };
    first_error.expect("these rows are wrong").to_string()
}

fn column_of_numbers(batches: &[RecordBatch], name: &str) -> Vec<i64> {
    let columns = batches.iter().map(|batch| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>());
    columns.flat_map(|column| column.values().to_vec()).collect()
}

#[test]
fn files_are_read_in_natural_order_whatever_their_kind() {
    let (dir, _) = rows_of(&[
        ("part-10.jsonl", "{\"n\": 5}\n\n{\"n\": 6}\n"),
        ("part-9.json", "[\n  {\"n\": 3},\n {\"n\": 4}]\n"),
        ("part-2.json", "{\"n\": 1}\n{\n\"n\": 2\n}"),
        ("README.md", "no data"),
    ]);
    let (_other, json) = rows_of(&[("a.json", "[{\"n\": 0}]")]);
    let rows = open_rows(&json).unwrap();
    let mut writer = parquet_writer(&dir.path().join("part-1.parquet"), rows.schema()).unwrap();
    rows.for_each(|batch| writer.write(&batch.unwrap()).unwrap());
    writer.finish().unwrap();

    let rows = open_rows(&artifact(ArtifactKind::Rows, dir.path())).unwrap();
    assert_eq!((rows.num_rows(), rows.features().as_str()), (7, "n: int64"));
    let batches: Vec<RecordBatch> = rows.collect::<Result<_, _>>().unwrap();
    assert_eq!(column_of_numbers(&batches, "n"), [0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn columns_keep_their_order_and_widen() {
    let text = "{\"z\": 1, \"a\": \"x\", \"m\": [{\"role\": \"user\"}]}\n{\"z\": 2.5, \"late\": true, \"a\": null}\n";
    let (_dir, artifact) = rows_of(&[("a.jsonl", text)]);
    let rows = open_rows(&artifact).unwrap();
    assert_eq!(rows.features(), "z: float64, a: string, m: list<{role: string}>, late: bool");
    let shown = show_rows(rows, 2).unwrap();
    assert_eq!(
        shown,
        "row 0\n  z: 1.0\n  a: x\n  m: [{role: user}]\n  late: (null)\n\nrow 1\n  z: 2.5\n  a: (null)\n  m: (null)\n  late: true\n\n"
    );
}

#[test]
fn wrong_json_is_named_by_file_and_line() {
    assert_eq!(
        error_of(&[("a.jsonl", "{\"a\": 1}\n\n{\"a\": 1,}\n")]),
        "`a.jsonl` line 3 (row 1) is not a JSON object: trailing comma at column 9"
    );
    assert_eq!(error_of(&[("a.jsonl", "[1]\n")]), "`a.jsonl` line 1 (row 0) is not a JSON object: found a list");
    assert_eq!(
        error_of(&[("a.json", "[{\"a\": 1}\n{\"a\": 2}]")]),
        "`a.json` line 2 (row 1) is not a JSON object: expected `,` or `]` after an object"
    );
    assert_eq!(
        error_of(&[("a.json", "[{\"a\": 1},\n{\"a\": \"}\"")]),
        "`a.json` line 2 (row 1) is not a JSON object: the object that begins here is not closed"
    );
    assert_eq!(
        error_of(&[("a.jsonl", "{\"a\": {\"b\": 1}}\n"), ("b.jsonl", "{\"a\": {\"b\": \"x\"}}")]),
        "column `a.b` is a number in earlier rows, but text in `b.jsonl` line 1 (row 0)"
    );
    assert_eq!(error_of(&[("a.md", "x")]), "the rows artifact has no data file; it has `a.md`");
}

#[test]
fn parquet_shards_with_other_columns_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("1.parquet", "[{\"n\": 0}]"), ("2.parquet", "[{\"n\": 0.5}]")] {
        let (_dir, artifact) = rows_of(&[("a.json", text)]);
        let rows = open_rows(&artifact).unwrap();
        let writer = parquet_writer(&dir.path().join(name), rows.schema()).unwrap();
        writer.finish().unwrap();
    }
    let error = open_rows(&artifact(ArtifactKind::Rows, dir.path())).err().unwrap().to_string();
    assert_eq!(error, "`2.parquet` has other columns than `1.parquet`: `n: float64` where there is `n: int64`");
}

#[test]
fn examples_come_back_in_batches() {
    let dir = tempfile::tempdir().unwrap();
    let examples: Vec<Example> = (0..2500)
        .map(|i| Example { text: format!("ä{i}\nb"), prompt: 0..1, completion: 2..3, ..Example::default() })
        .collect();
    let mut writer = ExamplesWriter::create(dir.path()).unwrap();
    examples.iter().for_each(|example| writer.write(example).unwrap());
    assert_eq!(writer.finish().unwrap(), 2500);
    let artifact = artifact(ArtifactKind::Examples, dir.path());
    assert!(!is_pretokenized(&artifact).unwrap());
    let reader = read_examples(&artifact).unwrap();
    assert_eq!(reader.num_rows(), 2500);
    assert_eq!(reader.collect::<Result<Vec<_>, _>>().unwrap().concat(), examples);
}

#[test]
fn what_a_template_knows_comes_back() {
    let special_tokens = SpecialTokens::Template;
    let example = |i: u32| Example {
        text: "<s>é<s>b</s>".repeat(2),
        prompt: 0..3,
        completion: 4..8,
        marks: Marks {
            assistant: if i.is_multiple_of(3) { vec![] } else { vec![4..8, 16..20] },
            control: (0..i % 3).map(|n| n * 4..n * 4 + 3).collect(),
            special_tokens,
        },
    };
    let examples: Vec<Example> = (0..1500).map(example).collect();
    let dir = tempfile::tempdir().unwrap();
    let form = ExamplesForm { is_completion_only: true, has_turns: true, special_tokens };
    let mut writer = ExamplesWriter::create_with(dir.path(), form).unwrap();
    examples.iter().for_each(|example| writer.write(example).unwrap());
    assert_eq!(writer.finish().unwrap(), 1500);
    let artifact = artifact(ArtifactKind::Examples, dir.path());
    assert_eq!(pipe_records::examples::form(&artifact).unwrap(), form);
    assert_eq!(read_examples(&artifact).unwrap().collect::<Result<Vec<_>, _>>().unwrap().concat(), examples);
    let mut writer = ExamplesWriter::create_with(dir.path(), form).unwrap();
    let mut overlapping = example(1);
    overlapping.marks.assistant = vec![4..8, 7..9];
    let error = writer.write(&overlapping).unwrap_err().to_string();
    assert_eq!(error, "row 0 is inconsistent: the assistant span 7..9 is not within 8..24 characters");
}

#[test]
fn what_is_said_ends_before_the_tokens_that_end_it() {
    let said = |control: Vec<std::ops::Range<u32>>| {
        let marks = Marks { control, ..Marks::default() };
        Example { text: "<a>hi<e>\n<t>".into(), prompt: 0..3, completion: 3..12, marks }.said()
    };
    assert_eq!(said(vec![0..3, 5..8, 9..12]), 3..5);
    assert_eq!(said(vec![0..3, 5..8]), 3..12);
    assert_eq!(said(vec![0..3, 9..12]), 3..9);
}

#[test]
fn a_span_behind_the_text_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = ExamplesWriter::create(dir.path()).unwrap();
    // "äb" has two characters but three bytes.
    let error =
        writer.write(&Example { text: "äb".into(), prompt: 0..1, completion: 1..3, ..Example::default() }).unwrap_err();
    assert_eq!(error.to_string(), "row 0 is inconsistent: the completion span 1..3 is not within 2 characters");
}

#[test]
fn pretokenized_rows_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (_rows_dir, rows) = rows_of(&[("a.json", "[]")]);
    assert_eq!(open_rows(&rows).unwrap().count(), 0);
    let writer = pretokenized_writer(dir.path(), &["labels"]).unwrap();
    assert_eq!(pretokenized_schema(&["labels"]).fields().len(), 2);
    writer.finish().unwrap();
    let artifact = artifact(ArtifactKind::Examples, dir.path());
    assert!(is_pretokenized(&artifact).unwrap());
    assert_eq!(read_pretokenized(&artifact).unwrap().count(), 0);
    assert!(matches!(read_examples(&artifact), Err(RecordsError::MissingColumn { .. })));
}

fn pack(index: u32) -> Pack {
    let length = 3 + index % 5;
    Pack {
        input_ids: (0..length).map(|i| (i * 7 + index) % 100).collect(),
        labels: (0..length).map(|i| if i == 0 { -100 } else { ((i * 7 + index) % 100) as i32 }).collect(),
        position_ids: (0..length).collect(),
        doc_ids: vec![index; length as usize],
    }
}

#[test]
fn packs_are_read_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    let n_packs = 3 * PACKS_PER_GROUP as u32 + 5;
    let mut writer = PackedWriter::create(dir.path(), 8, 100).unwrap();
    (0..n_packs).for_each(|index| writer.write(&pack(index)).unwrap());
    let info = writer.finish(PackedCounts { n_documents: n_packs.into(), ..PackedCounts::default() }).unwrap();
    assert_eq!(info.n_supervised_tokens, info.n_tokens - u64::from(n_packs));
    assert_eq!(info.fill, info.n_tokens as f64 / f64::from(n_packs * 8));

    let artifact = artifact(ArtifactKind::Packed, dir.path());
    let reader = PackedReader::open(&artifact).unwrap();
    assert_eq!((reader.n_packs(), reader.info()), (n_packs as usize, &info));
    for index in (0..n_packs).map(|index| index * 89 % n_packs) {
        assert_eq!(reader.pack(index as usize).unwrap(), pack(index), "pack {index}");
    }
    assert_eq!(reader.packs().count(), n_packs as usize);
    let error = reader.pack(n_packs as usize).unwrap_err().to_string();
    assert_eq!(error, format!("there is no pack {n_packs}; there are {n_packs}"));
}

#[test]
fn golden_digest_of_packs() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = PackedWriter::create(dir.path(), 8, 100).unwrap();
    (0..200).for_each(|index| writer.write(&pack(index)).unwrap());
    writer.finish(PackedCounts::default()).unwrap();
    let digest = |name: &str| blake3::hash(&fs::read(dir.path().join(name)).unwrap()).to_hex().to_string();
    // A change here changes every `packed` artifact: bump the VERSION of tokenize.
    assert_eq!(
        [digest(PACKED_FILE), digest(PACKED_INFO_FILE)],
        [
            "3c56bcd4796102ef9fc2ac59ec533336792b4fae6bd82ed2340d1c44c3a9857e",
            "60619006b97839990180ec1ab61e4a0900f85269a77218ba1f3fff2d98842ad0"
        ]
    );
}

#[test]
fn a_wrong_pack_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = PackedWriter::create(dir.path(), 8, 100).unwrap();
    let mut refuse = |change: fn(&mut Pack)| {
        let mut wrong = pack(1);
        change(&mut wrong);
        writer.write(&wrong).unwrap_err().to_string()
    };
    assert!(refuse(|p| p.input_ids[1] = 100).contains("the token id 100, but the vocabulary has 100"));
    assert!(refuse(|p| p.labels[1] = -1).contains("the label -1"));
    assert!(refuse(|p| p.doc_ids.clear()).contains("`input_ids` has 4 entries, `doc_ids` 0"));
    assert!(refuse(|p| *p = Pack::default()).contains("it has 0 tokens, but must have 1 to 8"));
}

#[test]
fn another_format_version_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = PackedWriter::create(dir.path(), 8, 100).unwrap();
    writer.write(&pack(0)).unwrap();
    writer.finish(PackedCounts::default()).unwrap();
    fs::write(dir.path().join(PACKED_INFO_FILE), "{\"format_version\": 1, \"old\": 1}").unwrap();
    let error = PackedReader::open(&artifact(ArtifactKind::Packed, dir.path())).err().unwrap().to_string();
    assert_eq!(error, "`packed.json` has format version 1, but this program reads version 2");
}
