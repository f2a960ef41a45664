//! `download` of local files, and its settings: no network.

use std::fs;
use std::path::Path;

use pipe_contract::{
    Artifact, ArtifactKind, Context, Figure, KeySettings, KeyValue, Problem, Reader, Source, StageKind as _, read_yaml,
};
use pipe_stage_download::KIND;

fn settings_of(yaml: &str) -> (KeySettings, Vec<Problem>) {
    let (_, key, problems) = read_yaml(yaml, |reader| KIND.read(reader));
    (key, problems)
}

fn key(yaml: &str) -> KeySettings {
    let (key, problems) = settings_of(yaml);
    assert!(problems.is_empty(), "{problems:?}");
    key
}

fn problems(yaml: &str) -> Vec<String> {
    settings_of(yaml).1.into_iter().map(|problem| problem.message).collect()
}

fn stage(yaml: &str) -> Box<dyn pipe_contract::Stage> {
    let yaml = serde_yaml::from_str(yaml).unwrap();
    KIND.read(&mut Reader::new(&yaml))
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn the_key_has_what_selects_files_and_no_names() {
    let base = key("{ dataset: a/b }");
    assert_eq!(base, [("wanted".to_string(), KeyValue::Text("dataset".into()))].into());
    for same in ["{ dataset: ./c }", "{ dataset: a/b, revision: v1 }", "{ dataset: a/b, split: train }"] {
        assert_eq!(key(same), base, "{same}");
    }
    for other in [
        "{ model: a/b }",
        "{ adapter: a/b }",
        "{ dataset: a/b, split: test }",
        "{ dataset: a/b, config: c }",
        "{ dataset: a/b, files: x }",
        "{ dataset: a/b, ignore_patterns: x }",
    ] {
        assert_ne!(key(other), base, "{other}");
    }
    assert_eq!(key("{ dataset: a/b, name: c }"), key("{ dataset: a/b, config: c }"));
}

#[test]
fn wrong_settings_are_problems() {
    assert_eq!(problems("{}"), ["one of `dataset`, `model` and `adapter` is needed"]);
    let both = "`model` is given beside `dataset`, but a stage downloads one thing";
    assert_eq!(problems("{ dataset: a, model: b }"), [both]);
    assert_eq!(problems("{ model: a, split: test }"), ["`split` is for data sets, but this is `model`"]);
    assert_eq!(problems("{ dataset: ./a, revision: main }"), ["a local path has no revision"]);
    let slice = "`split` is `train[:10]`, but slices and sums of splits are not built yet";
    assert_eq!(problems("{ dataset: a, split: \"train[:10]\" }"), [slice]);
    assert_eq!(problems("{ dataset: a, config: x, name: x }"), ["`name` and `config` mean the same, give one"]);
    assert_eq!(problems("{ datset: a }").len(), 2);
    let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    assert_eq!(problems(&format!("{{ dataset: \"https://h/x.jsonl\", sha256: {sha256} }}")), Vec::<String>::new());
    assert_eq!(problems("{ dataset: \"s3://b/x/\" }"), Vec::<String>::new());
    let short = "`sha256` is `12ab`, but a SHA-256 has 64 hex digits";
    assert_eq!(problems("{ dataset: \"https://h/x.jsonl\", sha256: 12ab }"), [short]);
    let hub = "`sha256` is for an `https://` address: a hub or a local path is checked without it";
    assert_eq!(problems(&format!("{{ dataset: a/b, sha256: {sha256} }}")), [hub]);
    let plain = "an `http://` address needs `sha256`, as anyone on the way may change what it gives";
    assert_eq!(problems("{ dataset: \"http://h/x.jsonl\" }"), [plain]);
    let one = "`model` is an address of one file, but a folder is needed";
    assert_eq!(problems("{ model: \"https://h/x.gguf\" }"), [one]);
    assert_eq!(problems("{ dataset: \"s3://b/x\", revision: v1 }"), ["an address has no revision"]);
}

#[test]
fn a_report_shows_the_first_rows_and_what_a_model_is() {
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(2000);
    let rows: String =
        (0..5).map(|i| format!("{{\"question\": \"<b>{i}</b>\", \"answer\": \"{long}\", \"n\": {i}}}\n")).collect();
    write(folder.path(), "data.jsonl", &rows);
    let artifact = Artifact::from_folder(ArtifactKind::Rows, folder.path()).unwrap();
    let figures = KIND.figures("rows", &artifact).unwrap();
    let [Figure::Facts(facts), Figure::Table(table)] = figures.as_slice() else { panic!("{figures:?}") };
    assert_eq!(facts.facts[0], ("num_rows".to_string(), "5".to_string()));
    assert_eq!(facts.facts[1].1, "question: string, answer: string, n: int64");
    assert_eq!(table.columns, ["question (string)", "answer (string)", "n (int64)"]);
    assert_eq!(table.rows.len(), 3);
    assert_eq!((table.rows[2][0].as_str(), table.rows[2][2].as_str()), ("<b>2</b>", "2"));
    assert_eq!(table.rows[2][1].chars().count(), pipe_records::show::CELL_LENGTH + 1);

    let model = folder.path().join("model");
    write(&model, "config.json", "{\"architectures\": [\"LlamaForCausalLM\"], \"vocab_size\": 300}");
    let figures = KIND.figures("model", &Artifact::from_folder(ArtifactKind::Model, &model).unwrap()).unwrap();
    let [Figure::Facts(facts)] = figures.as_slice() else { panic!("{figures:?}") };
    assert_eq!(facts.facts[1], ("vocabulary (tokens)".to_string(), "300".to_string()));
}

#[test]
fn a_local_folder_is_published_by_reference() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "rows/train.jsonl", "{\"text\": \"a\"}\n");
    write(dir.path(), "rows/test.jsonl", "{\"text\": \"b\"}\n");
    write(dir.path(), "rows/.git/config.json", "{}");
    let root = fs::canonicalize(dir.path().join("rows")).unwrap();
    // `rows` is a path because it exists beside the pipeline file.
    let stage = stage("{ dataset: rows }");
    let names = vec!["train.jsonl".to_string()];
    assert_eq!(stage.source(dir.path()).unwrap(), Source::Files { root: root.clone(), names });

    let emit = |_| ();
    let mut ctx = Context::new(dir.path(), &emit);
    stage.run(&mut ctx).unwrap();
    let files = ctx.take_external();
    assert_eq!((files.len(), files[0].port.as_str(), files[0].name.as_str()), (1, "rows", "train.jsonl"));
    assert_eq!((files[0].path.as_path(), &files[0].digest), (root.join("train.jsonl").as_path(), &None));
}

#[test]
fn a_local_file_is_taken_whatever_its_name() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "my_test_rows.json", "[{\"text\": \"a\"}]");
    let source = stage("{ dataset: ./my_test_rows.json }").source(dir.path()).unwrap();
    let root = fs::canonicalize(dir.path()).unwrap();
    assert_eq!(source, Source::Files { root, names: vec!["my_test_rows.json".into()] });
}

#[test]
fn a_pattern_takes_what_matches_in_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["rows/b-1.jsonl", "rows/a-1.jsonl", "rows/a-2.jsonl", "rows/sub/a-3.jsonl", "rows/.a-4.jsonl"] {
        write(dir.path(), name, "{\"text\": \"a\"}\n");
    }
    let root = fs::canonicalize(dir.path().join("rows")).unwrap();
    let source = |pattern: &str| stage(&format!("{{ dataset: \"{pattern}\" }}")).source(dir.path());
    let files =
        |names: &[&str]| Source::Files { root: root.clone(), names: names.iter().map(|n| (*n).into()).collect() };
    assert_eq!(source("rows/a-*.jsonl").unwrap(), files(&["a-1.jsonl", "a-2.jsonl"]));
    assert_eq!(source("./rows/?-[!2].jsonl").unwrap(), files(&["a-1.jsonl", "b-1.jsonl"]));
    assert_eq!(source("rows/**/a-[3-9].jsonl").unwrap(), files(&["sub/a-3.jsonl"]));
    let absolute = format!("{}/rows/b*", dir.path().display());
    assert_eq!(source(&absolute).unwrap(), files(&["b-1.jsonl"]));
    let error = source("rows/*.csv").unwrap_err();
    assert_eq!(error.slug, "no-match");
    assert_eq!(source("none/*.csv").unwrap_err().slug, "not-found");

    let emit = |_| ();
    let mut ctx = Context::new(dir.path(), &emit);
    stage("{ dataset: \"rows/a-*.jsonl\" }").run(&mut ctx).unwrap();
    assert_eq!(ctx.take_external().len(), 2);
}

#[test]
fn the_readme_of_a_local_folder_says_which_files_are_meant() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["train.jsonl", "more/a.jsonl", "more/b.jsonl"] {
        write(dir.path(), &format!("rows/{name}"), "{\"text\": \"a\"}\n");
    }
    let names = |yaml: &str| match stage(yaml).source(dir.path()) {
        Ok(Source::Files { names, .. }) => Ok(names.join(" ")),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(format!("{}: {error}", error.slug)),
    };
    assert_eq!(names("{ dataset: rows }").as_deref(), Ok("train.jsonl"));
    let configs =
        "configs: [{ config_name: a, data_dir: more, data_files: '*' }, { config_name: b, data_files: more/b.* }]";
    write(dir.path(), "rows/README.md", &format!("---\n{configs}\n---\n"));
    let told = "several-configurations: `rows` has several configurations, and its README.md says of none that it is the default: `a`, `b`";
    assert_eq!(names("{ dataset: rows }"), Err(told.into()));
    assert_eq!(names("{ dataset: rows, name: a }").as_deref(), Ok("more/a.jsonl more/b.jsonl"));
    assert_eq!(names("{ dataset: rows, config: b }").as_deref(), Ok("more/b.jsonl"));
    assert_eq!(names("{ dataset: rows, files: train.* }").as_deref(), Ok("train.jsonl"));
    // A pattern and a file are what they say.
    assert_eq!(names("{ dataset: rows/*.jsonl }").as_deref(), Ok("train.jsonl"));

    let emit = |_| ();
    let mut ctx = Context::new(dir.path(), &emit);
    stage("{ dataset: rows, name: b }").run(&mut ctx).unwrap();
    let files = ctx.take_external();
    assert_eq!((files.len(), files[0].name.as_str()), (1, "more/b.jsonl"));
}

#[test]
fn what_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = |yaml: &str| {
        let error = stage(yaml).source(dir.path()).unwrap_err();
        format!("{}: {error}", error.slug).replace(&dir.path().display().to_string(), "DIR")
    };
    assert_eq!(error("{ dataset: ./rows }"), "not-found: there is no file or folder `DIR/./rows`");
    assert_eq!(
        error("{ model: a/b/c }"),
        "not-found: `a/b/c` is neither a file or folder near the pipeline file nor a hub id"
    );
    write(dir.path(), "m/README.md", "x");
    assert_eq!(
        error("{ model: ./m }"),
        "incomplete: `./m` is no model: it has no weights (`model*.safetensors`, `pytorch_model*.bin` or `*.gguf`); its files are `README.md`"
    );
}

#[test]
fn models_of_pickles_or_gguf_are_published_and_described() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"]
    {
        write(dir.path(), &format!("xgen/{name}"), "PK");
    }
    write(dir.path(), "xgen/config.json", "{\"architectures\": [\"LlamaForCausalLM\"]}");
    write(dir.path(), "xgen/tokenizer_config.json", "{}");
    write(dir.path(), "xgen/tokenization_xgen.py", "import os");
    write(dir.path(), "one/a.gguf", "GGUF");
    for (folder, n_files, architecture) in [("xgen", 5, "LlamaForCausalLM"), ("one", 1, "unknown")] {
        let stage = stage(&format!("{{ model: ./{folder} }}"));
        let facts = std::sync::Mutex::new(Vec::new());
        let emit = |event| {
            if let pipe_contract::StageEvent::Fact { name, value } = event {
                facts.lock().unwrap().push((name, value));
            }
        };
        let mut ctx = Context::new(dir.path(), &emit);
        stage.run(&mut ctx).unwrap();
        let files = ctx.take_external();
        assert_eq!(files.len(), n_files, "{folder}");
        assert!(files.iter().all(|file| !file.name.ends_with(".py")));
        let facts = facts.into_inner().unwrap();
        assert!(facts.contains(&("architecture".to_string(), architecture.to_string())), "{facts:?}");
        assert!(facts.iter().all(|(name, _)| name != "parameters"), "{facts:?}");
    }
    let gguf = Artifact::from_folder(ArtifactKind::Model, &dir.path().join("one")).unwrap();
    assert_eq!(KIND.show("model", &gguf, 1).unwrap(), "\n               4  a.gguf\n");
    let [Figure::Facts(facts)] = &KIND.figures("model", &gguf).unwrap()[..] else { panic!("one figure") };
    assert_eq!(facts.facts[0], ("files".to_string(), "a.gguf".to_string()));

    // One that is whole says what it is.
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/weights/llama.gguf");
    std::fs::copy(fixture, dir.path().join("one/a.gguf")).unwrap();
    let gguf = Artifact::from_folder(ArtifactKind::Model, &dir.path().join("one")).unwrap();
    let shown = KIND.show("model", &gguf, 1).unwrap();
    assert!(shown.starts_with("architectures: LlamaForCausalLM\nmodel_type: llama\nvocab_size: 128\n"), "{shown}");
    let [Figure::Facts(facts)] = &KIND.figures("model", &gguf).unwrap()[..] else { panic!("one figure") };
    assert_eq!(facts.facts[0], ("architecture".to_string(), "LlamaForCausalLM".to_string()));
}

#[test]
fn show_prints_rows_wrapped_and_a_model_by_its_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let words = "word ".repeat(12);
    write(
        dir.path(),
        "r/a.jsonl",
        &format!("{{\"text\": \"{}\", \"n\": 1}}\n{{\"text\": \"b\", \"n\": 2}}\n", words.trim()),
    );
    let rows = pipe_contract::Artifact::from_folder(pipe_contract::ArtifactKind::Rows, &dir.path().join("r")).unwrap();
    let expected = "features: text: string, n: int64\nnum_rows: 2\n\nrow 0\n  text: word word word word word word word word word\n  word word word\n  n: 1\n\n";
    assert_eq!(KIND.show("rows", &rows, 1).unwrap(), expected);

    write(
        dir.path(),
        "m/config.json",
        "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 64, \"other\": 1}",
    );
    let model =
        pipe_contract::Artifact::from_folder(pipe_contract::ArtifactKind::Model, &dir.path().join("m")).unwrap();
    let expected = "architectures: LlamaForCausalLM\nhidden_size: 64\n\n              70  config.json\n";
    assert_eq!(KIND.show("model", &model, 1).unwrap(), expected);
}
