//! Small files of every form, changed in one place; each test has the whole sentence.
#![cfg(feature = "forms")]

use std::path::{Path, PathBuf};
use std::slice::from_ref;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::{Field, Int32Type, Schema};
use pipe_difference::{first_difference, first_differing_byte};
use proptest::prelude::*;

/// Two files of one name.
struct Pair {
    folder: tempfile::TempDir,
    name: String,
}

impl Pair {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for side in ["before", "now"] {
            std::fs::create_dir(folder.path().join(side)).expect("a folder");
        }
        Pair { folder, name: name.to_string() }
    }

    fn of(name: &str, before: impl AsRef<[u8]>, now: impl AsRef<[u8]>) -> Self {
        let pair = Pair::new(name);
        std::fs::write(pair.before(), before).expect("a file");
        std::fs::write(pair.now(), now).expect("a file");
        pair
    }

    fn before(&self) -> PathBuf {
        self.folder.path().join("before").join(&self.name)
    }

    fn now(&self) -> PathBuf {
        self.folder.path().join("now").join(&self.name)
    }

    /// The sentence; `equal` where there is none.
    fn difference(&self) -> String {
        let found = first_difference(&self.name, &self.before(), &self.now()).expect("both can be read");
        found.unwrap_or_else(|| "equal".to_string())
    }
}

fn difference(name: &str, before: impl AsRef<[u8]>, now: impl AsRef<[u8]>) -> String {
    Pair::of(name, before, now).difference()
}

/// Name, dtype, shape, data.
type Tensor<'a> = (&'a str, &'a str, &'a [u64], Vec<u8>);

/// A file of weights: `metadata` is JSON, or nothing.
fn weights(metadata: &str, tensors: &[Tensor]) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::<u8>::new());
    if !metadata.is_empty() {
        entries.push(format!("\"__metadata__\":{metadata}"));
    }
    for (name, dtype, shape, bytes) in tensors {
        let (begin, end) = (data.len(), data.len() + bytes.len());
        entries
            .push(format!("\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{begin},{end}]}}"));
        data.extend(bytes);
    }
    let head = format!("{{{}}}", entries.join(","));
    let mut file = (head.len() as u64).to_le_bytes().to_vec();
    file.extend(head.as_bytes());
    file.extend(data);
    file
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn equal_files_have_no_difference() {
    let weights = weights("", &[("a", "F32", &[1], f32s(&[1.0]))]);
    for name in ["a.safetensors", "a.parquet", "a.json", "a.jsonl", "a.txt", "a.bin", "a"] {
        assert_eq!(difference(name, &weights, &weights), "equal", "{name}");
        assert_eq!(difference(name, "", ""), "equal", "{name}");
    }
    let large = vec![7; (1 << 20) + 1];
    assert_eq!(difference("a.bin", &large, &large), "equal");
}

#[test]
fn bytes() {
    assert_eq!(difference("a.bin", "abc", "abd"), "byte 2 (counted from 0): 0x63 -> 0x64");
    assert_eq!(difference("a.bin", "abc", "xbcd"), "3 bytes -> 4 bytes; byte 0 (counted from 0): 0x61 -> 0x78");
    assert_eq!(difference("a.bin", "abc", "ab"), "3 bytes -> 2 bytes; equal up to the end of the shorter one");
    let (before, mut now) = (vec![7; 3 << 20], vec![7; 3 << 20]);
    now[(2 << 20) + 5] = 8;
    assert_eq!(difference("a.bin", &before, &now), "byte 2097157 (counted from 0): 0x07 -> 0x08");
    let pair = Pair::of("a.json", "1", "2");
    let found = first_differing_byte(&pair.before(), &pair.now()).expect("both can be read");
    assert_eq!(found.as_deref(), Some("byte 0 (counted from 0): 0x31 -> 0x32"));
    std::fs::remove_file(pair.now()).expect("it is there");
    let error = first_difference("a.json", &pair.before(), &pair.now()).expect_err("one is gone");
    assert_eq!(error.slug, "io");
}

#[test]
fn the_first_tensor_by_name_is_told() {
    let matrix = |at: usize, value: f32| {
        let mut values = vec![0.0; 16 * 576];
        values[at] = value;
        values[9000] = value;
        f32s(&values)
    };
    // `b` lies before `a` in the file.
    let file = |value: f32| {
        let tensors: [Tensor; 3] = [
            ("b", "F32", &[1], f32s(&[value])),
            ("a.lora_A.weight", "F32", &[16, 576], matrix(3 * 576 + 17, value)),
            ("c", "F32", &[2], f32s(&[1.0, 2.0])),
        ];
        weights("", &tensors)
    };
    assert_eq!(
        difference("m.safetensors", file(0.0123), file(0.0124)),
        "tensor `a.lora_A.weight` (F32, 16 x 576) at [3, 17]: 0.0123 -> 0.0124; 2 of its 9,216 elements differ, by 1.0e-4 at most; \
         2 of 3 tensors differ"
    );
}

#[test]
fn every_dtype_is_told_in_its_own_way() {
    let told = |dtype: &str, shape: &[u64], before: &[u8], now: &[u8]| {
        let file = |bytes: &[u8]| weights("", &[("t", dtype, shape, bytes.to_vec())]);
        let text = difference("m.safetensors", file(before), file(now));
        text.strip_suffix("; 1 of 1 tensors differ").unwrap_or_else(|| panic!("{text}")).to_string()
    };
    let halves = |values: [u16; 2]| values.map(u16::to_le_bytes).concat();
    assert_eq!(
        told("BF16", &[2], &halves([0x3f80, 0x3f80]), &halves([0x3f80, 0x3fc0])),
        "tensor `t` (BF16, 2) at [1]: 1.0 -> 1.5; 1 of its 2 elements differ, by 5.0e-1 at most"
    );
    assert_eq!(
        told("F16", &[2], &halves([0x3c00, 0x7e00]), &halves([0xbc00, 0x7e01])),
        "tensor `t` (F16, 2) at [0]: 1.0 -> -1.0; 2 of its 2 elements differ, by 2.0e0 at most, 1 of them NaN"
    );
    assert_eq!(
        told("F64", &[], &1.0_f64.to_le_bytes(), &1.5_f64.to_le_bytes()),
        "tensor `t` (F64, one number): 1.0 -> 1.5"
    );
    assert_eq!(
        told("I16", &[1, 2], &[1, 0, 0, 0], &[0xff, 0xff, 1, 0]),
        "tensor `t` (I16, 1 x 2) at [0, 0]: 1 -> -1; 2 of its 2 elements differ, by 2 at most"
    );
    assert_eq!(
        told("BOOL", &[2], &[0, 1], &[0, 0]),
        "tensor `t` (BOOL, 2) at [1]: true -> false; 1 of its 2 elements differ"
    );
    assert_eq!(
        told("F8_E4M3", &[2], &[0, 1], &[0, 0x7e]),
        "tensor `t` (F8_E4M3, 2) at [1]: 0x01 -> 0x7e; 1 of its 2 elements differ"
    );
    // Two elements to a byte.
    assert_eq!(
        told("F4", &[2, 2], &[0, 1], &[0, 2]),
        "tensor `t` (F4, 2 x 2) at byte 1 of its data: 0x01 -> 0x02; 1 of its 2 bytes differ"
    );
}

#[test]
fn a_tensor_may_be_gone_new_or_of_another_form() {
    let one = |name, dtype, shape| weights("", &[(name, dtype, shape, vec![0; 8])]);
    let told = |before: Vec<u8>, now: Vec<u8>| difference("m.safetensors", before, now);
    assert_eq!(
        told(one("a", "F32", &[2]), one("b", "F32", &[2])),
        "tensor `a` (F32, 2) is gone; 2 of 2 tensors differ"
    );
    assert_eq!(told(one("b", "F32", &[2]), one("a", "F32", &[2])), "tensor `a` (F32, 2) is new; 2 of 2 tensors differ");
    assert_eq!(
        told(one("a", "F32", &[2]), one("a", "F64", &[1])),
        "tensor `a` (F32, 2) -> (F64, 1); 1 of 1 tensors differ"
    );
    assert_eq!(
        told(one("a", "F32", &[2]), one("a", "F32", &[2, 1])),
        "tensor `a` (F32, 2) -> (F32, 2 x 1); 1 of 1 tensors differ"
    );
}

#[test]
fn weights_may_be_equal_and_the_file_not() {
    let tensors: [Tensor; 2] = [("a", "F32", &[1], f32s(&[1.0])), ("b", "F32", &[1], f32s(&[2.0]))];
    let plain = weights("", &tensors);
    let with_format = |format: &str| weights(&format!("{{\"format\":\"{format}\"}}"), &tensors);
    assert_eq!(
        difference("m.safetensors", with_format("pt"), with_format("mlx")),
        "the 2 tensors are equal, but not `__metadata__.format`: \"pt\" -> \"mlx\""
    );
    let reversed = weights("", &[tensors[1].clone(), tensors[0].clone()]);
    assert_eq!(
        difference("m.safetensors", &plain, reversed),
        "the 2 tensors are equal, but not how they are written: byte 10 (counted from 0): 0x61 -> 0x62"
    );
    let longer = [plain.clone(), vec![0]].concat();
    let told = difference("m.safetensors", &plain, longer);
    assert!(told.ends_with("equal up to the end of the shorter one"), "{told}");
}

#[test]
fn weights_with_a_broken_head_are_bytes() {
    let good = weights("", &[("a", "F32", &[1], f32s(&[1.0]))]);
    let is_bytes = |broken: &[u8]| {
        let told = difference("m.safetensors", &good, broken);
        assert!(told.contains("byte") && !told.contains("tensor"), "{told}");
    };
    is_bytes(&good[..good.len() - 1]);
    is_bytes(&[0xff; 100]);
    is_bytes(b"");
    is_bytes(&weights("", &[("a", "F32", &[2], f32s(&[1.0]))]));
    is_bytes(&weights("", &[("a", "F32", &[u64::MAX, u64::MAX], f32s(&[1.0]))]));
}

#[test]
fn tensors_larger_than_a_block_are_compared_to_their_end() {
    let (before, mut now) = (vec![0; 3 << 20], vec![0; 3 << 20]);
    for at in [(1 << 20) + 4, (3 << 20) - 4] {
        now[at] = 5;
    }
    let file = |data: &[u8]| weights("", &[("a", "I32", &[3 << 18], data.to_vec())]);
    assert_eq!(
        difference("m.safetensors", file(&before), file(&now)),
        "tensor `a` (I32, 786432) at [262145]: 0 -> 5; 2 of its 786,432 elements differ, by 5 at most; 1 of 1 tensors differ"
    );
}

/// Writes columns as one Parquet file.
fn write_parquet(path: &Path, metadata: &str, columns: &[(&str, ArrayRef)]) {
    let fields = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
    let metadata = [("pipe.format_version".to_string(), metadata.to_string())];
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()).with_metadata(metadata));
    let columns = columns.iter().map(|(_, column)| column.clone()).collect();
    let mut writer = pipe_records::parquet_writer(path, schema.clone()).expect("a file");
    writer.write(&RecordBatch::try_new(schema, columns).expect("columns of one length")).expect("the disk takes it");
    writer.finish().expect("the disk takes it");
}

fn parquet_difference(before: &[(&str, ArrayRef)], now: &[(&str, ArrayRef)]) -> String {
    let pair = Pair::new("a.parquet");
    write_parquet(&pair.before(), "1", before);
    write_parquet(&pair.now(), "1", now);
    pair.difference()
}

fn integers(range: std::ops::Range<i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(range))
}

fn texts(n_rows: usize, changed: &[(usize, Option<&str>)]) -> ArrayRef {
    let text = |row: usize| changed.iter().find(|(at, _)| *at == row).map_or(Some("same"), |(_, text)| *text);
    Arc::new((0..n_rows).map(text).collect::<StringArray>())
}

#[test]
fn the_first_column_that_differs_is_told() {
    // More rows than a row group has, and than a batch.
    let n_rows = 20_000;
    let before = [("id", integers(0..20_000)), ("text", texts(n_rows, &[(12_345, Some("a cat"))]))];
    let now = [("id", integers(0..20_000)), ("text", texts(n_rows, &[(12_345, Some("a\u{1b}dog")), (19_999, None)]))];
    assert_eq!(
        parquet_difference(&before, &now),
        "column `text`, row 12,345 (counted from 0): \"a cat\" -> \"a\\u001bdog\"; 2 of 20,000 rows differ in it; 1 of 2 columns differ"
    );
    let null = [("id", integers(0..20_000)), ("text", texts(n_rows, &[(12_345, None)]))];
    let told = parquet_difference(&null, &[("id", integers(1..20_001)), now[1].clone()]);
    assert_eq!(
        told,
        "column `id`, row 0 (counted from 0): 0 -> 1; 20,000 of 20,000 rows differ in it; 2 of 2 columns differ"
    );
}

#[test]
fn cells_of_any_type_are_told() {
    let lists = |last: i32| -> ArrayRef {
        let rows = vec![Some(vec![Some(1), Some(2)]), None, Some(vec![Some(3), Some(last)])];
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(rows))
    };
    let told = parquet_difference(&[("ids", lists(4))], &[("ids", lists(5))]);
    assert_eq!(told, "column `ids`, row 2 (counted from 0): [3, 4] -> [3, 5]; 1 of 3 rows differ in it");
    let floats = |value: f64| -> ArrayRef { Arc::new(Float64Array::from(vec![value])) };
    let told = parquet_difference(&[("x", floats(0.0))], &[("x", floats(-0.0))]);
    assert_eq!(told, "column `x`, row 0 (counted from 0): 0.0 -> -0.0; 1 of 1 rows differ in it");
    let word: ArrayRef = Arc::new(StringArray::from(vec!["null"]));
    let told = parquet_difference(&[("t", word)], &[("t", texts(1, &[(0, None)]))]);
    assert_eq!(told, "column `t`, row 0 (counted from 0): \"null\" -> null; 1 of 1 rows differ in it");
}

#[test]
fn schema_and_number_of_rows_come_first() {
    let (id, other) = (("id", integers(0..3)), ("other", integers(0..3)));
    let text = ("id", texts(3, &[]));
    let told = |before: &[(&str, ArrayRef)], now: &[(&str, ArrayRef)]| parquet_difference(before, now);
    assert_eq!(told(from_ref(&id), &[text]), "column `id`: int64 -> string");
    assert_eq!(told(&[id.clone(), other.clone()], from_ref(&id)), "column `other` (int64) is gone");
    assert_eq!(told(from_ref(&id), &[id.clone(), other.clone()]), "column `other` (int64) is new");
    assert_eq!(told(from_ref(&other), &[id.clone(), other.clone()]), "column `id` (int64) is new");
    let reversed = told(&[id.clone(), other.clone()], &[other.clone(), id.clone()]);
    assert_eq!(reversed, "the order of the columns: `id` -> `other`");
    assert_eq!(told(from_ref(&id), &[("id", integers(0..2000))]), "3 rows -> 2,000 rows");
}

#[test]
fn parquet_may_be_equal_and_the_file_not() {
    let pair = Pair::new("a.parquet");
    write_parquet(&pair.before(), "1", &[("id", integers(0..3))]);
    write_parquet(&pair.now(), "2", &[("id", integers(0..3))]);
    let told = "all values are equal, but not the footer's metadata: `[\"pipe.format_version\"]`: \"1\" -> \"2\"";
    assert_eq!(pair.difference(), told);
    // The name of the program that wrote it is in no value.
    let mut bytes = std::fs::read(pair.before()).expect("written above");
    let at = bytes.windows(12).position(|window| window == b"pipe version").expect("the writer's name");
    bytes[at] = b'P';
    std::fs::write(pair.now(), bytes).expect("a file");
    let told = format!("all values are equal, but not how they are written: byte {at} (counted from 0): 0x70 -> 0x50");
    assert_eq!(pair.difference(), told);
    std::fs::write(pair.now(), "no Parquet").expect("a file");
    assert!(pair.difference().ends_with("byte 0 (counted from 0): 0x50 -> 0x6e"), "{}", pair.difference());
}

#[test]
fn the_first_key_is_told() {
    let told = |before: &str, now: &str| difference("a.json", before, now);
    assert_eq!(told(r#"{"z": 1, "lora": {"r": 16}}"#, r#"{"lora": {"r": 8}, "z": 2}"#), "`lora.r`: 16 -> 8");
    assert_eq!(told(r#"{"a": [1, {"b": "x"}]}"#, r#"{"a": [1, {"b": null}]}"#), "`a[1].b`: \"x\" -> null");
    assert_eq!(told(r#"{"a": 1, "b": 2}"#, r#"{"a": 1}"#), "`b` is gone: 2");
    assert_eq!(told(r#"{"a": [1]}"#, r#"{"a": [1, [2]]}"#), "`a[1]` is new: [2]");
    assert_eq!(
        told(r#"{"model.norm.weight": 1}"#, r#"{"model.norm.weight": 1.0}"#),
        "`[\"model.norm.weight\"]`: 1 -> 1.0"
    );
    assert_eq!(told("1", "[1]"), "1 -> [1]");
    assert_eq!(
        told("{\"a\": 1}\n", "{\"a\":\n1}\n"),
        "all values are equal, but not how they are written: line 1: \"{\\\"a\\\": 1}\" -> \"{\\\"a\\\":\""
    );
    assert_eq!(told("{\"a\": 1}", "{\"a\": "), "line 1: \"{\\\"a\\\": 1}\" -> \"{\\\"a\\\": \"");
}

#[test]
fn lines_of_json() {
    let told = |before: &str, now: &str| difference("a.jsonl", before, now);
    let lines = |loss: &str| format!("{{\"step\": 1}}\n{{\"step\": 2, \"loss\": {loss}}}\n");
    assert_eq!(told(&lines("1.5"), &lines("1.25")), "line 2, `loss`: 1.5 -> 1.25");
    assert_eq!(told("1\n2\n", "1\n2\n3\n"), "line 3: (end) -> \"3\"");
    assert_eq!(told("1\n2\n", "1\nx\n"), "line 2: \"2\" -> \"x\"");
    assert_eq!(
        told("1\n", "1"),
        "all values are equal, but not how they are written: line 1; 2 bytes -> 1 bytes; equal up to the end of the shorter one"
    );
}

#[test]
fn lines_of_text() {
    let told = |before: &str, now: &str| difference("a.md", before, now);
    assert_eq!(told("one\ntwo\nthree\n", "one\ntwo!\nthree\n"), "line 2: \"two\" -> \"two!\"");
    assert_eq!(told("one\r\n", "one\n"), "line 1: \"one\\r\" -> \"one\"");
    assert_eq!(told("one\ntwo\n", "one\n"), "line 2: \"two\" -> (end)");
    assert_eq!(told("one", "one\n"), "line 1; 3 bytes -> 4 bytes; equal up to the end of the shorter one");
    assert_eq!(difference("a.csv", b"a\xff", b"a\xfe"), "line 1; byte 1 (counted from 0): 0xff -> 0xfe");
    // A line of megabytes, of characters of three bytes; and one that differs in the second byte of a character.
    let long = "漢".repeat(500_000);
    let shown = format!("line 2: …{0}漢x\" -> …{0}漢y\"", "漢".repeat(19));
    assert_eq!(told(&format!("\n{long}x\n"), &format!("\n{long}y\n")), shown);
    assert_eq!(told("aé", "aè"), "line 1: \"aé\" -> \"aè\"");
}

/// Every byte of `file` once with other bits: a difference, and no panic.
fn no_flipped_byte_is_overlooked(name: &str, file: &[u8], mask: u8) {
    let pair = Pair::of(name, file, file);
    let mut flipped = file.to_vec();
    for at in 0..file.len() {
        flipped[at] ^= mask;
        std::fs::write(pair.now(), &flipped).expect("a file");
        assert_ne!(pair.difference(), "equal", "byte {at} of {name}");
        flipped[at] ^= mask;
    }
}

proptest! {
    // Each case changes every byte of a file.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3) })]

    #[test]
    fn a_flipped_byte_of_weights_is_a_difference(values in prop::collection::vec(any::<f32>(), 1..20), mask in 1..=255_u8) {
        let shape = [values.len() as u64];
        let tensors: [Tensor; 2] = [("a", "F32", &shape, f32s(&values)), ("b", "U8", &[3], vec![1, 2, 3])];
        no_flipped_byte_is_overlooked("m.safetensors", &weights("{\"format\":\"pt\"}", &tensors), mask);
    }

    #[test]
    fn a_flipped_byte_of_parquet_is_a_difference(values in prop::collection::vec(any::<i64>(), 1..20), mask in 1..=255_u8) {
        let pair = Pair::new("a.parquet");
        let text: ArrayRef = Arc::new(values.iter().map(|value| Some(value.to_string())).collect::<StringArray>());
        write_parquet(&pair.before(), "1", &[("id", Arc::new(Int64Array::from(values))), ("text", text)]);
        no_flipped_byte_is_overlooked("a.parquet", &std::fs::read(pair.before()).expect("written above"), mask);
    }
}
