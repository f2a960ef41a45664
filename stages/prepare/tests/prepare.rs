//! `prepare` through its public door: settings as YAML, rows in folders, Parquet out. One test reads real rows of `PIPE_TEST_DATA`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use pipe_contract::{Artifact, ArtifactKind, Context, Figure, StageError, StageEvent, StageKind as _, read_yaml};
use pipe_records::show::show_rows;
use pipe_records::{open_rows, parquet_writer};
use pipe_stage_prepare::KIND;
use proptest::prelude::*;

struct Outcome {
    result: Result<(), StageError>,
    dir: tempfile::TempDir,
    events: Vec<StageEvent>,
}

impl Outcome {
    fn artifact(&self, port: &str) -> Artifact {
        self.result.as_ref().expect("prepare succeeds");
        Artifact::from_folder(ArtifactKind::Rows, &self.dir.path().join("outputs").join(port)).unwrap()
    }

    fn batches(&self, port: &str) -> Vec<RecordBatch> {
        open_rows(&self.artifact(port)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    fn numbers(&self, port: &str, column: &str) -> Vec<i64> {
        let batches = self.batches(port);
        let columns = batches.iter().map(|batch| batch.column_by_name(column).unwrap().as_primitive::<Int64Type>());
        columns.flat_map(|column| column.values().to_vec()).collect()
    }

    fn train(&self) -> Vec<i64> {
        self.numbers("train", "n")
    }

    fn error(&self) -> String {
        let error = self.result.as_ref().expect_err("prepare fails");
        format!("{}: {error}", error.slug)
    }

    fn fact(&self, wanted: &str) -> Option<&str> {
        self.events.iter().find_map(|event| match event {
            StageEvent::Fact { name, value } if name == wanted => Some(value.as_str()),
            _ => None,
        })
    }

    fn digest(&self, port: &str) -> String {
        let mut hasher = blake3::Hasher::new();
        for (name, file) in self.artifact(port).files {
            hasher.update(name.as_bytes()).update(&std::fs::read(file.path).unwrap());
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// Runs on inputs of (port, file, text); files of the same port are of one artifact.
fn run(inputs: &[(&str, &str, &str)], settings: &str) -> Outcome {
    let rows = tempfile::tempdir().unwrap();
    let mut artifacts = BTreeMap::new();
    for (port, file, text) in inputs {
        let folder = rows.path().join(port);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(file), text).unwrap();
        artifacts.insert((*port).to_string(), Artifact::from_folder(ArtifactKind::Rows, &folder).unwrap());
    }
    run_on(artifacts, settings)
}

fn run_on(inputs: BTreeMap<String, Artifact>, settings: &str) -> Outcome {
    let (stage, _, problems) = read_yaml(settings, |reader| KIND.read(reader));
    assert!(problems.is_empty(), "{problems:?}");
    let dir = tempfile::tempdir().unwrap();
    let events = Mutex::new(Vec::new());
    let emit = |event: StageEvent| events.lock().unwrap().push(event);
    let mut ctx = Context::new(dir.path(), &emit);
    ctx.inputs = inputs;
    let result = stage.run(&mut ctx);
    Outcome { result, dir, events: events.into_inner().unwrap() }
}

fn one(text: &str, settings: &str) -> Outcome {
    run(&[("rows", "a.jsonl", text)], settings)
}

/// `{"n": 0, "t": "text 0"}`, ...
fn numbered(rows: std::ops::Range<usize>) -> String {
    rows.fold(String::new(), |mut text, n| {
        writeln!(text, "{{\"n\": {n}, \"t\": \"text {n}\"}}").unwrap();
        text
    })
}

fn problems_of(settings: &str) -> Vec<String> {
    let (_, _, problems) = read_yaml(settings, |reader| KIND.read(reader));
    problems.into_iter().map(|problem| format!("{}: {}", problem.path.join("."), problem.message)).collect()
}

fn test_data(test: &str) -> Option<PathBuf> {
    let found = std::env::var_os("PIPE_TEST_DATA").map(PathBuf::from);
    if found.is_none() {
        let mut stderr = std::io::stderr(); // Not `eprintln!`, which the test harness captures.
        writeln!(stderr, "SKIPPED {test}: PIPE_TEST_DATA is not set").unwrap();
    }
    found
}

#[test]
fn without_settings_rows_pass_on_as_they_are() {
    let chat = "{\"n\": 1, \"messages\": [{\"role\": \"user\", \"content\": null}], \"meta\": {\"tools\": [\"a\"]}}\n{\"n\": 2, \"messages\": null, \"meta\": null}\n";
    let outcome = run(&[("rows", "a.jsonl", chat)], "{}");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.jsonl"), chat).unwrap();
    let rows = open_rows(&Artifact::from_folder(ArtifactKind::Rows, folder.path()).unwrap()).unwrap();
    let prepared = open_rows(&outcome.artifact("train")).unwrap();
    assert_eq!(prepared.features(), rows.features());
    assert_eq!(show_rows(prepared, 9).unwrap(), show_rows(rows, 9).unwrap());
    assert_eq!(outcome.artifact("train").files.keys().collect::<Vec<_>>(), ["train-00000-of-00001.parquet"]);
    assert!(!outcome.dir.path().join("outputs/test").exists());
}

#[test]
fn columns_are_renamed_selected_and_removed() {
    let text = "{\"q\": \"a\", \"n\": 1, \"id\": 7}\n";
    let features = |settings: &str| open_rows(&one(text, settings).artifact("train")).unwrap().features();
    assert_eq!(features("{ columns: { prompt: q } }"), "prompt: string, n: int64, id: int64");
    assert_eq!(features("{ columns: { prompt: q }, select_columns: [n, prompt] }"), "n: int64, prompt: string");
    assert_eq!(features("{ remove_columns: id }"), "q: string, n: int64");
    assert_eq!(features("{ columns: { q: n, n: q } }"), "n: string, q: int64, id: int64");
    let expected = "missing-column: `columns` needs the column `question`, but input `rows` has `q`, `n`, `id`";
    assert_eq!(one(text, "{ columns: { prompt: question } }").error(), expected);
    let expected = "duplicate-column: input `rows` would have two columns called `n`";
    assert_eq!(one(text, "{ columns: { n: q } }").error(), expected);
}

#[test]
fn inputs_come_in_the_order_of_their_names_with_the_same_columns() {
    let inputs = [
        ("b", "x.jsonl", "{\"q\": \"b\", \"n\": 2}\n"),
        ("a", "y.csv", "n,prompt\n1,a\n"),
        ("c", "z.tsv", "extra\n1\n"),
    ];
    let outcome = run(&inputs[..2], "{ columns: { prompt: q } }");
    assert_eq!((outcome.train(), outcome.fact("rows of b")), (vec![1, 2], Some("1")));
    let expected = "schema-differs: input `b` has other columns than input `a`: it has no column `prompt`";
    assert_eq!(run(&inputs[..2], "{}").error(), expected);
    let expected = "schema-differs: input `b` has other columns than input `a`: column `n` is string, and int64 there";
    assert_eq!(
        run(&inputs[..2], "{ columns: { n: q, m: n, prompt: p }, select_columns: [n] }").error().split(':').next(),
        Some("missing-column")
    );
    assert_eq!(run(&[("a", "a.csv", "n\n1\n"), ("b", "a.csv", "n\nx\n")], "{}").error(), expected);
    let expected = "schema-differs: input `b` has other columns than input `a`: it also has the column `m`";
    assert_eq!(run(&[("a", "a.csv", "n\n1\n"), ("b", "a.csv", "m,n\n1,1\n")], "{}").error(), expected);
}

#[test]
fn each_condition_drops_what_it_says_and_counts_it() {
    let text = concat!(
        "{\"n\": 0, \"t\": \"é\", \"ok\": true, \"score\": 0.5, \"m\": [1]}\n",
        "{\"n\": 1, \"t\": \"long text\", \"ok\": false, \"score\": 1.5, \"m\": []}\n",
        "{\"n\": 2, \"t\": null, \"ok\": null, \"score\": null, \"m\": null}\n",
        "{\"n\": 3, \"t\": \"\", \"ok\": true, \"score\": -1, \"m\": [1, 2]}\n",
    );
    let left = |filter: &str| one(text, &format!("{{ filter: {filter} }}")).train();
    assert_eq!(left("{ column: t }"), [0, 1, 3]);
    assert_eq!(left("{ column: t, min_characters: 1 }"), [0, 1]);
    assert_eq!(left("{ column: t, max_characters: 1 }"), [0, 3]);
    assert_eq!(left("{ column: t, max_characters: 1, not_null: false }"), [0, 2, 3]);
    assert_eq!(left("{ column: t, matches: '(?i)^LONG' }"), [1]);
    assert_eq!(left("{ column: t, not_matches: 'text$' }"), [0, 3]);
    assert_eq!(left("{ column: ok, equals: true }"), [0, 3]);
    assert_eq!(left("{ column: n, equals: [3, 1] }"), [1, 3]);
    assert_eq!(left("{ column: t, not_equals: ['', 'é'] }"), [1]);
    assert_eq!(left("{ column: score, min_value: 0, max_value: 1.5 }"), [0, 1]);
    assert_eq!(left("{ column: m, min_items: 1 }"), [0, 3]);
    assert_eq!(left("{ column: m, max_items: 1 }"), [0, 1]);

    let filters = "{ filter: [{ column: t }, { column: n, max_value: 2 }, { column: ok, equals: false }] }";
    let outcome = one(text, filters);
    let facts = ["rows in", "filtered by t: not_null", "filtered by n: max_value", "filtered by ok: equals", "train"];
    assert_eq!(facts.map(|name| outcome.fact(name)), ["4", "1", "1", "1", "1"].map(Some));
    let wrong = one(text, "{ filter: { column: n, matches: x } }").error();
    assert_eq!(wrong, "wrong-column-type: matches needs text in column `n`, but it is int64");
    let none = one(text, "{ filter: { column: n, min_value: 9 } }").error();
    assert_eq!(none, "no-rows: no row is left: of 4 rows, 0 cannot be read, 4 were filtered, 0 are duplicates");
}

#[test]
fn of_equal_rows_the_first_stays() {
    let text = concat!(
        "{\"n\": 0, \"m\": [{\"a\": \"x\"}], \"t\": \"1\"}\n",
        "{\"n\": 0, \"m\": [{\"a\": \"x\"}], \"t\": \"1\"}\n",
        "{\"n\": 0, \"m\": [{\"a\": null}], \"t\": \"1\"}\n",
        "{\"n\": 0, \"m\": null, \"t\": \"1\"}\n",
        "{\"n\": 1, \"m\": null, \"t\": \"1\"}\n",
        "{\"n\": 0, \"m\": null, \"t\": \"1\"}\n",
    );
    let all = one(text, "{ deduplicate: exact }");
    assert_eq!((all.train(), all.fact("duplicates")), (vec![0, 0, 0, 1], Some("2")));
    assert_eq!(one(text, "{ deduplicate: exact, deduplicate_columns: [n] }").train(), [0, 1]);
    // Across inputs too: the first is the one of the first port.
    let two = run(&[("b", "a.jsonl", &numbered(0..4)), ("a", "a.jsonl", &numbered(2..6))], "{ deduplicate: exact }");
    assert_eq!(two.train(), [2, 3, 4, 5, 0, 1]);
}

#[test]
fn of_nearly_equal_rows_the_first_stays() {
    let words = |from: usize, to: usize| (from..to).map(|i| format!("word{i}")).collect::<Vec<_>>().join(" ");
    let row = |n: usize, text: &str| format!("{{\"n\": {n}, \"t\": \"{text}\"}}\n");
    let text = [
        row(0, &words(0, 100)),
        // Other case and punctuation, and one word more: 96 of 97 sequences.
        row(1, &words(0, 101).to_uppercase().replace(' ', ", ")),
        row(2, &words(0, 60)),    // 56 of 96 sequences: 0.58.
        row(3, &words(200, 300)), // Nothing.
        row(4, &words(5, 105)),   // 91 of 101: 0.9.
        row(5, ""),
        row(6, "!"),
        row(7, "short"),
        row(8, "Short."),
    ];
    let outcome = one(&text.concat(), "{ deduplicate: near }");
    assert_eq!((outcome.train(), outcome.fact("duplicates")), (vec![0, 2, 3, 5, 7], Some("4")));
    let strict = one(&text.concat(), "{ deduplicate: near, minhash: { threshold: 0.95, num_perm: 256 } }");
    assert_eq!(strict.train(), [0, 2, 3, 4, 5, 7]);
    let error = one(&text.concat(), "{ deduplicate: near, deduplicate_columns: [n] }").error();
    assert_eq!(error, "wrong-column-type: `deduplicate: near` needs text in column `n`, but it is int64");
}

/// The plain version: each row against each earlier one that stayed.
#[test]
fn near_duplicates_of_real_rows_are_those_that_a_comparison_of_all_finds() {
    let Some(data) = test_data("near_duplicates_of_real_rows_are_those_that_a_comparison_of_all_finds") else { return };
    let rows =
        open_rows(&Artifact::from_folder(ArtifactKind::Rows, &data.join("data/alpaca_small_hf")).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut writer = parquet_writer(&folder.path().join("a.parquet"), rows.schema()).unwrap();
    let batches: Vec<RecordBatch> = rows.map(Result::unwrap).collect();
    // Each row twice.
    batches.iter().chain(&batches).for_each(|batch| writer.write(batch).unwrap());
    let n_rows = writer.finish().unwrap();
    let artifact = Artifact::from_folder(ArtifactKind::Rows, folder.path()).unwrap();
    let outcome = run_on(
        [("rows".to_string(), artifact)].into(),
        "{ deduplicate: near, deduplicate_columns: [text], minhash: { threshold: 0.8 } }",
    );
    let minhash = pipe_stage_prepare::minhash::MinHash::new(
        pipe_stage_prepare::minhash::MinHashSettings { threshold: 0.8, num_perm: 128, ngram: 5 },
        42,
    );
    let texts = batches.iter().flat_map(|batch| batch.column_by_name("text").unwrap().as_string::<i32>().iter());
    let sets: Vec<Vec<u64>> = texts.map(|text| minhash.shingles(text.into_iter())).collect();
    let mut stay: Vec<&Vec<u64>> = Vec::new();
    for set in &sets {
        let is_near = |earlier: &&Vec<u64>| pipe_stage_prepare::minhash::jaccard(earlier, set) >= 0.8;
        if !stay.iter().any(is_near) {
            stay.push(set);
        }
    }
    let n_stay = outcome.batches("train").iter().map(RecordBatch::num_rows).sum::<usize>();
    assert!(n_stay as u64 <= n_rows / 2);
    // LSH may miss a pair just above the threshold: as many as one in a hundred rows is far more than that.
    assert!(n_stay.abs_diff(stay.len()) * 100 <= stay.len(), "{n_stay} rows stay, and {} do by comparison", stay.len());
}

#[test]
fn a_split_is_of_the_limited_shuffled_rows_and_loses_none() {
    let text = numbered(0..2000);
    let outcome = one(&text, "{ shuffle: true, limit: 500, test_size: 0.1 }");
    let (train, test) = (outcome.train(), outcome.numbers("test", "n"));
    assert_eq!((train.len(), test.len(), outcome.fact("test")), (450, 50, Some("50")));
    let mut all: Vec<i64> = train.iter().chain(&test).copied().collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 500);
    assert!(all[499] > 1900 && train != all, "a sample of all, in another order");

    let plain = one(&text, "{ skip: 10, limit: 20, test_size: 5, seed: 7 }");
    let (train, test) = (plain.train(), plain.numbers("test", "n"));
    assert!(train.is_sorted() && test.is_sorted() && test.len() == 5);
    let mut all = [train, test].concat();
    all.sort_unstable();
    assert_eq!(all, (10..30).collect::<Vec<_>>());
    let error = one(&numbered(0..3), "{ test_size: 3 }").error();
    assert_eq!(error, "out-of-range: `test_size` is 3, but there are 3 rows, and `train` needs one");
}

#[test]
fn a_mix_takes_rows_by_weight_in_their_order() {
    let inputs = [("a", "a.jsonl", numbered(0..3000)), ("b", "a.jsonl", numbered(10_000..10_500))];
    let inputs: Vec<_> = inputs.iter().map(|(port, file, text)| (*port, *file, text.as_str())).collect();
    let outcome = run(&inputs, "{ weights: { a: 3, b: 1 } }");
    let rows = outcome.train();
    let (a, b): (Vec<i64>, Vec<i64>) = rows.iter().partition(|n| **n < 10_000);
    // It ends with the last of the 500 rows of `b`; the deviation of the others is 77.
    assert_eq!((b.len(), *rows.last().unwrap()), (500, 10_499));
    assert!(a.len().abs_diff(1500) < 300, "{}", a.len());
    assert_eq!(a, (0..a.len() as i64).collect::<Vec<_>>());
    assert_eq!(outcome.fact("rows of the mix").map(str::to_string), Some(pipe_records::thousands(rows.len() as u64)));

    let all = run(&inputs, "{ weights: { a: 3, b: 1 }, stopping_strategy: all_exhausted }").train();
    let (a, b): (Vec<i64>, Vec<i64>) = all.iter().partition(|n| **n < 10_000);
    assert_eq!(a, (0..3000).collect::<Vec<_>>());
    assert!(b.len() > 500 && b[500] == 10_000 && b[..500] == (10_000..10_500).collect::<Vec<_>>(), "{}", b.len());
}

#[test]
fn bad_rows_are_fatal_or_dropped_as_the_setting_says() {
    let text = "{\"n\": 0}\n{\"n\": }\n{\"n\": 2}\n[]\n{\"n\": \"x\"}\n";
    let fatal = one(text, "{}");
    assert_eq!(fatal.error(), "bad-json: `a.jsonl` line 2 (row 1) is not a JSON object: expected value at column 7");
    assert!(fatal.result.as_ref().unwrap_err().help.as_deref().unwrap().contains("on_bad_rows: drop"));
    let dropped = one(text, "{ on_bad_rows: drop, bad_rows_listed: 2 }");
    assert_eq!(
        (dropped.train(), dropped.fact("bad rows"), dropped.fact("rows in")),
        (vec![0, 2], Some("3"), Some("5"))
    );
    let logs: Vec<&str> = dropped
        .events
        .iter()
        .filter_map(|event| match event {
            StageEvent::Log { line } | StageEvent::Warning { line } => Some(line.as_str()),
            _ => None,
        })
        .collect();
    let expected = [
        "dropped: `a.jsonl` line 2 (row 1) is not a JSON object: expected value at column 7",
        "dropped: `a.jsonl` line 4 (row 3) is not a JSON object: found a list",
        "and 1 more rows that cannot be read (`bad_rows_listed`)",
        "3 of 5 rows cannot be read and were dropped",
    ];
    assert_eq!(logs, expected);
}

#[test]
fn assertions_name_the_first_row_that_breaks_them() {
    let text = "{\"n\": 0, \"t\": \"a\"}\n{\"n\": 1,}\n{\"n\": 2, \"t\": \"éé\"}\n{\"n\": 3, \"t\": null}\n{\"n\": 0, \"t\": null}\n";
    let told = |assert: &str, more: &str| {
        let settings = format!("{{ on_bad_rows: drop, assert: {{ {assert} }} {more} }}");
        one(text, &settings).error()
    };
    let expected = "assertion-failed: `assert.no_nulls` does not hold: column `t` is null in `a.jsonl` row 3, and in 2 rows in all";
    assert_eq!(told("no_nulls: [n, t]", ""), expected);
    let expected = "assertion-failed: `assert.max_characters` does not hold: column `t` has more than 1 characters in `a.jsonl` row 2, and in 1 rows in all";
    assert_eq!(told("max_characters: { t: 1 }", ""), expected);
    let expected = "assertion-failed: `assert.unique` does not hold: `a.jsonl` row 4 has the `n` of `a.jsonl` row 0; so have 1 rows in all";
    assert_eq!(told("unique: [n]", ""), expected);
    let expected = "assertion-failed: `assert.min_rows` does not hold: 4 rows are left";
    assert_eq!(told("min_rows: 5", ""), expected);
    assert_eq!(told("max_rows: 3", ""), expected.replace("min_rows", "max_rows"));
    let expected = "assertion-failed: `assert.max_dropped_share` does not hold: 1 of 5 rows were dropped";
    assert_eq!(told("max_dropped_share: 0.1", ""), expected);
    let expected = "assertion-failed: `assert.columns` does not hold: column `n` is int64, but must be string";
    assert_eq!(told("columns: { n: string, t: string }", ""), expected);
    let expected = "assertion-failed: `assert.columns` does not hold: there is also the column `t`";
    assert_eq!(told("columns: { n: int64 }", ""), expected);
    // What is dropped breaks nothing.
    let holds = "{ on_bad_rows: drop, filter: { column: t }, deduplicate: exact, assert: { no_nulls: [t], unique: [n], max_characters: { t: 2 }, min_rows: 2, max_rows: 2, columns: { t: string, n: int64 }, max_dropped_share: 0.6 } }";
    assert_eq!(one(text, holds).train(), [0, 2]);
    let two = run(&[("a", "1.csv", "n\n1\n"), ("b", "2.csv", "n\n2\n1\n")], "{ assert: { unique: n } }").error();
    let expected = "`2.csv` row 1 of input `b` has the `n` of `1.csv` row 0 of input `a`; so have 1 rows in all";
    assert!(two.ends_with(expected), "{two}");
}

#[test]
fn problems_of_settings_are_told_all_at_once() {
    assert_eq!(
        problems_of(
            "{ filter: [{ min_characters: 0 }, { column: t, matches: '(' , x: 1 }], deduplicate_columns: [a], minhash: { ngram: 2 }, stopping_strategy: first_exhausted, test_size: 1.5, columns: { a: c, b: c } }"
        ),
        [
            "columns: `columns` gives the column `c` two names",
            "filter.0.column: `column` is missing",
            "filter.0.min_characters: `min_characters` is `0`, but must be a whole number from 1 to 9223372036854775807",
            "filter.1.matches: `matches` is no regular expression: unclosed group",
            "filter.1.x: unknown setting `x`",
            "deduplicate_columns: `deduplicate_columns` has no effect here",
            "minhash: `minhash` has no effect here",
            "stopping_strategy: `stopping_strategy` has no effect here",
            "test_size: `test_size` is 1.5, but must be a share below 1 or a whole number of rows",
        ]
    );
    let repeated = problems_of("{ weights: { a: 1, b: 0 }, stopping_strategy: all_exhausted, test_size: 0.1 }");
    assert_eq!(
        repeated,
        [
            "weights: `b` in `weights` is `0`, but must be a number above 0",
            "stopping_strategy: `all_exhausted` repeats rows, so one row could be in `train` and in `test`",
        ]
    );
    let (stage, _, _) = read_yaml("{ weights: { a: 1, c: 1 } }", |reader| KIND.read(reader));
    let problems: Vec<String> = stage.check_inputs(&["a", "b"]).into_iter().map(|problem| problem.message).collect();
    assert_eq!(problems, ["`weights` has no weight for the input `b`", "there is no input `c`"]);
}

#[test]
fn what_is_only_logged_is_not_in_the_key() {
    let key = |settings: &str| read_yaml(settings, |reader| KIND.read(reader)).1;
    assert_eq!(key("{ bad_rows_listed: 3, seed: 42, shuffle: false, filter: [] }"), key("{}"));
    assert_ne!(key("{ filter: [{ column: a }, { column: b }] }"), key("{ filter: [{ column: b }, { column: a }] }"));
    assert_ne!(key("{ filter: { column: a, equals: x } }"), key("{ filter: { column: a, equals: y } }"));
    assert_eq!(key("{ filter: { column: a, equals: x } }"), key("{ filter: [{ column: a, equals: [x] }] }"));
}

#[test]
fn the_bytes_depend_on_no_threads_and_no_files_and_have_golden_digests() {
    let text = numbered(0..3000) + &numbered(1000..2000);
    let cut = text.match_indices('\n').nth(1234).unwrap().0 + 1;
    let settings = "{ filter: { column: n, max_value: 2900 }, deduplicate: near, shuffle: true, test_size: 0.2, minhash: { ngram: 1 } }";
    let digests = |n_threads: usize, files: &[(&str, &str, &str)]| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        let outcome = pool.install(|| run(files, settings));
        ["train", "test"].map(|port| outcome.digest(port))
    };
    let whole = [("rows", "a.jsonl", text.as_str())];
    let parted = [("rows", "1.jsonl", &text[..cut]), ("rows", "2.jsonl", &text[cut..])];
    let first = digests(1, &whole);
    for n_threads in [2, 3] {
        assert_eq!(digests(n_threads, &whole), first);
    }
    assert_eq!(digests(2, &parted), first);
    // Other bytes under the same key are a lie to every store: bump `version` in src/lib.rs with this.
    assert_eq!(
        first,
        [
            "c6d38749a73af94807865a1a111daf1ab978dd3ed7e68c9a1ab74cf2bcae570d",
            "4a21dd4a421f0500b60fc0b49eb20a3fa43a2a59ec7f91d16b5de8bb85571e55"
        ]
    );
}

#[test]
fn show_and_report_have_the_rows() {
    let outcome = one(&numbered(0..5), "{}");
    let artifact = outcome.artifact("train");
    assert_eq!(KIND.show("train", &artifact, 1).unwrap(), "row 0\n  n: 0\n  t: text 0\n\n");
    let figures = KIND.figures("train", &artifact).unwrap();
    let [Figure::Facts(facts), Figure::Table(table)] = figures.as_slice() else { panic!("{figures:?}") };
    assert_eq!((facts.facts[0].1.as_str(), table.rows.len()), ("5", 3));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Shuffle, split and mix as a multiset: what goes in comes out, once.
    #[test]
    fn no_row_is_lost_or_doubled(n_a in 1_usize..200, n_b in 1_usize..200, share in 1_u32..50, seed in 0_u64..1000) {
        let (a, b) = (numbered(0..n_a), numbered(1000..1000 + n_b));
        let inputs = [("a", "a.jsonl", a.as_str()), ("b", "b.jsonl", b.as_str())];
        let outcome = run(&inputs, &format!("{{ shuffle: true, seed: {seed}, test_size: 0.{share:02} }}"));
        if n_a + n_b > 1 && outcome.result.is_ok() {
            let mut rows = [outcome.train(), outcome.numbers("test", "n")].concat();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..n_a as i64).chain(1000..1000 + n_b as i64).collect::<Vec<_>>());
        }
        let mixed = run(&inputs, &format!("{{ weights: {{ a: 2, b: 1 }}, shuffle: true, seed: {seed} }}"));
        let plain = run(&inputs, &format!("{{ weights: {{ a: 2, b: 1 }}, seed: {seed} }}"));
        let (mut mixed, mut plain) = (mixed.train(), plain.train());
        mixed.sort_unstable();
        plain.sort_unstable();
        prop_assert_eq!(&mixed, &plain);
        plain.dedup();
        prop_assert_eq!(mixed, plain);
    }
}
