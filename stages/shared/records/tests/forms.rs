//! Each form of data file, plain and compressed: the same rows come out, and what is wrong is named.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, FixedSizeListArray, LargeStringArray, ListArray, NullArray, RecordBatch,
    StringArray, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use pipe_contract::{Artifact, ArtifactKind, StageError};
use pipe_records::ipc::{SpoolWriter, read_spool};
use pipe_records::show::show_rows;
use pipe_records::{OnBadRow, ReadOptions, RecordsError, RowReader, open_rows, open_rows_with, parquet_writer};

fn folder_of(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Artifact) {
    let dir = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, bytes)| fs::write(dir.path().join(name), bytes).unwrap());
    let artifact = Artifact::from_folder(ArtifactKind::Rows, dir.path()).unwrap();
    (dir, artifact)
}

/// Features, and the rows as `pipe show` prints them.
fn shown(files: &[(&str, &[u8])]) -> (String, String) {
    let (_dir, artifact) = folder_of(files);
    let rows = open_rows(&artifact).unwrap();
    (rows.features(), show_rows(rows, 100).unwrap())
}

fn error_of(files: &[(&str, &[u8])]) -> StageError {
    let (_dir, artifact) = folder_of(files);
    let first_error = match open_rows(&artifact) {
        Err(error) => Some(error),
        Ok(rows) => rows.filter_map(Result::err).next(),
    };
    first_error.expect("these rows are wrong").into()
}

fn dropping(artifact: &Artifact) -> RowReader {
    open_rows_with(artifact, ReadOptions { on_bad_row: OnBadRow::Drop, n_named_max: 2 }).unwrap()
}

fn numbers(rows: RowReader, name: &str) -> Vec<i64> {
    let batches: Vec<RecordBatch> = rows.collect::<Result<_, _>>().unwrap();
    batches.iter().flat_map(|b| b.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 3).unwrap()
}

fn stream(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

fn file(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

/// As Feather is written, in version 2 of it.
fn feather(batch: &RecordBatch, codec: CompressionType) -> Vec<u8> {
    let options = IpcWriteOptions::default().try_with_compression(Some(codec)).unwrap();
    let mut writer = FileWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

/// Two rows of a chat, as `datasets` has them: a list of structs, one null, one with a null in it.
fn chat() -> RecordBatch {
    let role: ArrayRef = Arc::new(StringArray::from(vec!["user", "assistant", "user"]));
    let content: ArrayRef = Arc::new(StringArray::from(vec![Some("Hi"), Some("Hello, \"you\""), None]));
    let fields = vec![Field::new("role", DataType::Utf8, true), Field::new("content", DataType::Utf8, true)];
    let turns = StructArray::new(fields.into(), vec![role, content], None);
    let item = Arc::new(Field::new("item", turns.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths([2, 0, 1]);
    let messages = ListArray::new(item, offsets, Arc::new(turns), Some(vec![true, false, true].into()));
    let fields = vec![Field::new("messages", messages.data_type().clone(), true)];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(messages)]).unwrap()
}

const CHAT_JSON: &str = r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello, \"you\""}]}
{"messages": null}
{"messages": [{"role": "user", "content": null}]}
"#;

#[test]
fn nested_columns_are_the_same_from_every_form_that_has_them() {
    let expected = shown(&[("a.jsonl", CHAT_JSON.as_bytes())]);
    assert_eq!(expected.0, "messages: list<{role: string, content: string}>");
    let list = format!("[{}]", CHAT_JSON.trim_end().replace('\n', ",\n"));
    let (stream, file) = (stream(&chat()), file(&chat()));
    let forms: [(&str, Vec<u8>); 11] = [
        ("a.ndjson", CHAT_JSON.into()),
        ("a.json", list.clone().into()),
        ("a.json.gz", gzip(list.as_bytes())),
        ("a.jsonl.gz", [gzip(&CHAT_JSON.as_bytes()[..96]), gzip(&CHAT_JSON.as_bytes()[96..])].concat()),
        ("a.jsonl.zst", [zstd(&CHAT_JSON.as_bytes()[..96]), zstd(&CHAT_JSON.as_bytes()[96..])].concat()),
        ("data-00000-of-00001.arrow", stream.clone()),
        ("a.feather", file.clone()),
        ("a.arrow.zst", zstd(&file)),
        ("a.ipc.gz", gzip(&stream)),
        ("lz4.feather", feather(&chat(), CompressionType::LZ4_FRAME)),
        ("zstd.feather", feather(&chat(), CompressionType::ZSTD)),
    ];
    for (name, bytes) in &forms {
        assert_eq!(shown(&[(name, bytes)]), expected, "{name}");
    }
    // All of them at once, with Parquet, are one stream of rows.
    let (dir, artifact) = folder_of(&forms.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect::<Vec<_>>());
    let rows = open_rows(&artifact).unwrap();
    let mut writer = parquet_writer(&dir.path().join("b.parquet"), rows.schema()).unwrap();
    rows.again().for_each(|batch| writer.write(&batch.unwrap()).unwrap());
    assert_eq!(writer.finish().unwrap(), 33);
    let rows = open_rows(&Artifact::from_folder(ArtifactKind::Rows, dir.path()).unwrap()).unwrap();
    assert_eq!((rows.num_rows(), rows.features()), (66, expected.0));
    // `data-00000-of-00001.arrow` comes behind it.
    assert_eq!(rows.place(24), Some(("b.parquet", 0)));
    assert_eq!(show_rows(rows, 3).unwrap(), expected.1);
}

#[test]
fn types_that_mean_the_same_are_one_type() {
    let large: ArrayRef = Arc::new(LargeStringArray::from(vec![Some("x"), None]));
    let dictionary: ArrayRef = Arc::new(["d", "e"].into_iter().collect::<DictionaryArray<Int32Type>>());
    let fixed: ArrayRef =
        Arc::new(FixedSizeListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1)]), Some([Some(2)])], 1));
    let null: ArrayRef = Arc::new(NullArray::new(2));
    let batch = RecordBatch::try_from_iter([("l", large), ("d", dictionary), ("f", fixed), ("n", null)]).unwrap();
    let (features, rows) = shown(&[("a.arrow", &stream(&batch))]);
    assert_eq!(features, "l: string, d: string, f: list<int64>, n: string");
    assert_eq!(
        rows,
        "row 0\n  l: x\n  d: d\n  f: [1]\n  n: (null)\n\nrow 1\n  l: (null)\n  d: e\n  f: [2]\n  n: (null)\n\n"
    );
    let json = "{\"l\": \"x\", \"d\": \"y\", \"f\": [1], \"n\": null}";
    assert_eq!(shown(&[("a.arrow", &stream(&batch)), ("b.json", json.as_bytes())]).0, features);
}

#[test]
fn a_large_arrow_batch_comes_in_parts() {
    let column: ArrayRef = Arc::new(StringArray::from_iter_values((0..3000).map(|i| i.to_string())));
    let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
    let (_dir, artifact) = folder_of(&[("a.arrow", &file(&batch))]);
    let parts: Vec<usize> = open_rows(&artifact).unwrap().map(|batch| batch.unwrap().num_rows()).collect();
    assert_eq!(parts, [1024, 1024, 952]);
}

#[test]
fn arrow_files_that_were_cut_off_are_refused() {
    let (bytes, framed) = (stream(&chat()), file(&chat()));
    for bytes in [&bytes[..bytes.len() - 8], &framed[..framed.len() - 6]] {
        let error = error_of(&[("a.arrow", bytes)]);
        assert_eq!((error.slug, error.message.as_str()), ("bad-arrow", "failed to read the Arrow file `a.arrow`"));
        assert!(error.chain().contains("it was cut off"), "{}", error.chain());
    }
    assert_eq!(error_of(&[("a.arrow", &bytes[..bytes.len() / 2])]).slug, "bad-arrow");
    assert_eq!(error_of(&[("a.arrow", b"no arrow, but text of some length")]).slug, "bad-arrow");
    assert_eq!(error_of(&[("a.arrow", b"")]).slug, "bad-arrow");
}

#[test]
fn cells_have_the_types_they_show() {
    let text = "\u{feff}\"id\",prompt,score,ok,zip,empty\r\n1,\"Hi, \"\"you\"\"\nthere\",0.5,true,01,\r\n\r\n2,,,False,20,\r\n";
    let expected = (
        "id: int64, prompt: string, score: float64, ok: bool, zip: string, empty: string".to_string(),
        "row 0\n  id: 1\n  prompt: Hi, \"you\"\n  there\n  score: 0.5\n  ok: true\n  zip: 01\n  empty: \n\nrow 1\n  id: 2\n  prompt: \n  score: (null)\n  ok: false\n  zip: 20\n  empty: \n\n".to_string(),
    );
    assert_eq!(shown(&[("a.csv", text.as_bytes())]), expected);
    assert_eq!(shown(&[("a.csv.gz", &gzip(text.as_bytes()))]), expected);
    assert_eq!(shown(&[("a.csv.zst", &zstd(text.as_bytes()))]), expected);
    // Types are those of all files together.
    let (features, rows) = shown(&[("1.tsv", b"a\tb\n1\t x,y \n"), ("2.csv", b"a,b\n0.5,NA\n")]);
    assert_eq!(features, "a: float64, b: string");
    assert_eq!(rows, "row 0\n  a: 1.0\n  b:  x,y \n\nrow 1\n  a: 0.5\n  b: NA\n\n");
    assert_eq!(shown(&[("a.csv", b",x\n0,y\n")]).0, "Unnamed: 0: int64, x: string");
    assert_eq!(shown(&[("a.csv", b"x,y")]), ("x: string, y: string".to_string(), String::new()));
}

#[test]
fn wrong_cells_are_named() {
    let told = |text: &[u8]| {
        let error = error_of(&[("a.csv", text)]);
        assert_eq!(error.slug, "bad-text");
        error.message
    };
    let wrong =
        |line: u64, row: u64, problem: &str| format!("`a.csv` line {line} (row {row}) cannot be read: {problem}");
    assert_eq!(told(b"a,b\n1,2\n\"x\ny\",3\n4\n"), wrong(5, 2, "it has 1 cells, but there are 2 columns"));
    assert_eq!(told(b"a,b\n1,\xff\n"), wrong(2, 0, "cell 1 (counted from 0) is not UTF-8"));
    assert_eq!(told(b"a,b\n1,2\n3,\"4\n5,6\n"), wrong(3, 1, "the quote that opens in this line is not closed"));
    assert_eq!(told(b"a,a\n"), wrong(1, 0, "it names the column `a` twice"));
    assert_eq!(told(b""), wrong(1, 0, "it has no line that names the columns"));
    let other = error_of(&[("1.csv", b"a,b\n"), ("2.csv", b"b,a\n")]);
    assert_eq!(other.slug, "schema-differs");
    // A quote inside of a cell is a character.
    assert_eq!(shown(&[("a.csv", b"a\n5\" disk\n")]).1, "row 0\n  a: 5\" disk\n\n");
}

#[test]
fn lines_of_text_are_rows() {
    let (features, rows) = shown(&[("a.txt", "\u{feff}one\r\n\n two\t\nthrée".as_bytes())]);
    assert_eq!(features, "text: string");
    assert_eq!(rows, "row 0\n  text: one\n\nrow 1\n  text: \n\nrow 2\n  text:  two\t\n\nrow 3\n  text: thrée\n\n");
    let error = error_of(&[("a.txt.gz", &gzip(b"ok\nab\xff\n"))]);
    let expected = "`a.txt.gz` line 2 (row 1) cannot be read: byte 2 of the line begins no character of UTF-8";
    assert_eq!((error.slug, error.message.as_str()), ("bad-text", expected));
    let error = error_of(&[("a.txt", b"x"), ("b.jsonl", b"{\"a\": 1}")]);
    assert_eq!(error.message, "`b.jsonl` has other columns than `a.txt`: `a: int64` where there is `text: string`");
}

#[test]
fn what_was_cut_off_while_compressed_is_an_error() {
    let text = "{\"n\": 1}\n".repeat(2000);
    for (name, bytes) in [("a.jsonl.gz", gzip(text.as_bytes())), ("a.jsonl.zst", zstd(text.as_bytes()))] {
        let error = error_of(&[(name, &bytes[..bytes.len() - 5])]);
        assert_eq!((error.slug, error.message), ("io", format!("failed to read `{name}`")));
    }
    assert_eq!(error_of(&[("a.csv.gz", b"a,b\n1,2\n")]).slug, "io");
}

#[test]
fn bad_rows_are_left_out_counted_and_named() {
    let jsonl = "{\"n\": 0, \"m\": [1]}\n{\"n\": 1,}\n{\"n\": 2, \"m\": [\"x\"]}\n[3]\n{\"n\": 4, \"m\": null}\n";
    let (_dir, artifact) = folder_of(&[
        ("1.jsonl", jsonl.as_bytes()),
        ("2.jsonl.zst", &zstd(b"{\"n\": \"five\", \"new\": true}\n{\"n\": 6}\n")),
    ]);
    let rows = dropping(&artifact);
    // What a dropped row alone has is no column.
    assert_eq!((rows.num_rows(), rows.features().as_str()), (3, "n: int64, m: list<int64>"));
    assert_eq!(rows.bad_rows().n_rows, 4);
    let first = [
        "`1.jsonl` line 2 (row 1) is not a JSON object: trailing comma at column 9",
        "column `m[]` is a number in earlier rows, but text in `1.jsonl` line 3 (row 2)",
    ];
    assert_eq!(rows.bad_rows().first, first);
    let places: Vec<_> = (0..4).map(|index| rows.place(index)).collect();
    let place = |file: &'static str, row: u64| Some((file, row));
    assert_eq!(places, [place("1.jsonl", 0), place("1.jsonl", 4), place("2.jsonl.zst", 1), None]);
    assert_eq!(numbers(rows.again(), "n"), [0, 4, 6]);
    assert_eq!(numbers(rows, "n"), [0, 4, 6]);

    let (_dir, artifact) = folder_of(&[("1.csv", b"n,t\n0,a\n1\n2,b\n3,\xff\n4,c,d\n5,\n")]);
    let rows = dropping(&artifact);
    assert_eq!((rows.num_rows(), rows.bad_rows().n_rows, rows.place(2)), (3, 3, Some(("1.csv", 5))));
    assert_eq!(numbers(rows, "n"), [0, 2, 5]);

    let (_dir, artifact) = folder_of(&[("1.txt", b"a\n\xff\nb")]);
    let rows = dropping(&artifact);
    assert_eq!(rows.bad_rows().n_rows, 1);
    assert_eq!(show_rows(rows, 9).unwrap(), "row 0\n  text: a\n\nrow 1\n  text: b\n\n");

    // What cannot be gone past is an error all the same.
    let (_dir, artifact) = folder_of(&[("1.json", b"[{\"n\": 1} {\"n\": 2}]")]);
    let options = ReadOptions { on_bad_row: OnBadRow::Drop, n_named_max: 2 };
    assert!(matches!(open_rows_with(&artifact, options), Err(RecordsError::BadJson { .. })));
}

#[test]
fn a_spool_gives_back_its_batches() {
    let dir = tempfile::tempdir().unwrap();
    let path: &Path = &dir.path().join("spool");
    let mut writer = SpoolWriter::create(path, &chat().schema()).unwrap();
    (0..3).for_each(|_| writer.write(&chat()).unwrap());
    writer.finish().unwrap();
    let batches: Vec<RecordBatch> = read_spool(path).unwrap().map(Result::unwrap).collect();
    assert_eq!(batches, [chat(), chat(), chat()]);
}
