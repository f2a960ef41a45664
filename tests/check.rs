//! What is said about a wrong pipeline file: every problem, as the whole screen, and what a right one becomes.
//!
//! The stage kinds are fakes, so that a screen shows what the runner says; the real kinds test their own settings.

use std::path::Path;

use pipe_contract::{
    ArtifactKind, Context, InputPort, KeyValue, OutputPort, ProblemKind, Reader, Stage, StageError, StageKind,
};
use pipe_lm::diagnostic::{Colour, Diagnostics};
use pipe_lm::graph::StageGraph;
use pipe_lm::registry::Registry;
use pipe_lm::spec::{self, LoadOptions, Numerics, Pipeline};
use proptest::prelude::*;

// The fakes.

/// A stage kind that has ports and settings and never runs.
struct Fake {
    name: &'static str,
    inputs: &'static [InputPort],
    outputs: &'static [OutputPort],
    read: fn(&mut Reader) -> Vec<OutputPort>,
}

struct FakeStage(Vec<OutputPort>);

impl StageKind for Fake {
    fn name(&self) -> &'static str {
        self.name
    }
    fn summary(&self) -> &'static str {
        "a fake"
    }
    fn version(&self) -> u32 {
        1
    }
    fn has_declared_ports(&self) -> bool {
        self.name == "runs"
    }
    fn inputs(&self) -> &'static [InputPort] {
        self.inputs
    }
    fn outputs(&self) -> &'static [OutputPort] {
        self.outputs
    }
    fn read(&self, reader: &mut Reader) -> Box<dyn Stage> {
        Box::new(FakeStage((self.read)(reader)))
    }
}

impl Stage for FakeStage {
    fn outputs(&self) -> Vec<OutputPort> {
        self.0.clone()
    }
    fn run(&self, _: &mut Context<'_>) -> Result<(), StageError> {
        Err(StageError::user("fake", "a fake does not run"))
    }
}

const fn required(name: &'static str, kind: ArtifactKind) -> InputPort {
    InputPort { name, kind, is_required: true }
}

const fn optional(name: &'static str, kind: ArtifactKind) -> InputPort {
    InputPort { name, kind, is_required: false }
}

const fn output(name: &'static str, kind: ArtifactKind) -> OutputPort {
    OutputPort { name, kind }
}

/// `-> rows`; needs `dataset`.
static SOURCE: Fake = Fake {
    name: "source",
    inputs: &[],
    outputs: &[output("rows", ArtifactKind::Rows)],
    read: |reader| {
        if !reader.has("dataset") {
            reader.problem("dataset", ProblemKind::MissingSetting, "there is no `dataset`", None);
        }
        reader.optional_text("dataset");
        reader.text("split", "train");
        reader.integer("n_rows", 10, 1..=1000);
        SOURCE.outputs.to_vec()
    },
};

/// `rows -> train, test?`; `test` only with `test_size`.
static PREPARE: Fake = Fake {
    name: "prepare",
    inputs: &[required("rows", ArtifactKind::Rows)],
    outputs: &[output("train", ArtifactKind::Rows), output("test", ArtifactKind::Rows)],
    read: |reader| {
        let has_test = reader.float("test_size", 0.0, 0.0..=1.0) > 0.0;
        PREPARE.outputs[..1 + usize::from(has_test)].to_vec()
    },
};

/// `rows -> examples`.
static FORMAT: Fake = Fake {
    name: "format",
    inputs: &[required("rows", ArtifactKind::Rows)],
    outputs: &[output("examples", ArtifactKind::Examples)],
    read: |reader| {
        reader.choice("template", "alpaca", &["alpaca", "chatml"]);
        reader.text_list("columns");
        FORMAT.outputs.to_vec()
    },
};

/// `-> model`.
static MODEL: Fake = Fake {
    name: "model",
    inputs: &[],
    outputs: &[output("model", ArtifactKind::Model)],
    read: |reader| {
        reader.text("name", "tiny");
        MODEL.outputs.to_vec()
    },
};

/// `examples, model, adapter? -> adapter, metrics`.
static JOIN: Fake = Fake {
    name: "join",
    inputs: &[
        required("data", ArtifactKind::Examples),
        required("model", ArtifactKind::Model),
        optional("adapter", ArtifactKind::Adapter),
    ],
    outputs: &[output("adapter", ArtifactKind::Adapter), output("metrics", ArtifactKind::Metrics)],
    read: |reader| {
        reader.integer("max_length", 1024, 1..=4096);
        reader.float("learning_rate", 1e-4, 0.0..=1.0);
        reader.section("lora", |lora| lora.integer("r", 8, 1..=64));
        JOIN.outputs.to_vec()
    },
};

/// Whatever the file declares.
static RUNS: Fake = Fake {
    name: "runs",
    inputs: &[],
    outputs: &[],
    read: |reader| {
        reader.text_list("run");
        reader.raw("env");
        Vec::new()
    },
};

/// A file without problems; tests put theirs into copies of it.
const GOOD: &str = "\
version: 1
name: good
vars: { size: 512, model: nano }
profiles:
  laptop: { vars: { size: 64 }, stages: { adapter: { with: { lora: { r: 2 } } } } }
stages:
  dataset: { uses: source, with: { dataset: alpaca } }
  base: { uses: model, with: { name: \"${{ vars.model }}\" } }
  text: { uses: format, inputs: { rows: dataset } }
  adapter:
    uses: join
    inputs: { data: text, model: base.model }
    needs: [dataset]
    resources: { cpu: 2, memory: 4GiB, gpu: 1 }
    with: { max_length: \"${{ vars.size }}\", lora: { r: 4 } }
    to: \"out/${{ vars.model }}\"
";

fn load_with(text: &str, options: &LoadOptions) -> Result<Pipeline, Diagnostics> {
    let registry = Registry::new(vec![&SOURCE, &PREPARE, &FORMAT, &MODEL, &JOIN, &RUNS]);
    spec::load_text(Path::new("p.yaml"), text, options, &registry)
}

fn load(text: &str) -> Result<Pipeline, Diagnostics> {
    load_with(text, &LoadOptions::default())
}

fn sets(arguments: &[&str]) -> LoadOptions {
    LoadOptions { profile: None, sets: arguments.iter().map(ToString::to_string).collect() }
}

fn profile(name: &str) -> LoadOptions {
    LoadOptions { profile: Some(name.into()), sets: Vec::new() }
}

/// The screen of a file that has problems.
fn screen(text: &str) -> String {
    screen_with(text, &LoadOptions::default())
}

fn screen_with(text: &str, options: &LoadOptions) -> String {
    load_with(text, options).expect_err("the file has problems").render(Colour::Off)
}

/// The screen of a file with these stages, which begin in line 3.
fn screen_of_stages(lines: &[&str]) -> String {
    let stages: String = lines.iter().map(|line| format!("  {line}\n")).collect();
    screen(&format!("version: 1\nstages:\n{stages}"))
}

/// The screen of a file of these lines.
fn screen_of_lines(lines: &[&str]) -> String {
    screen(&(lines.join("\n") + "\n"))
}

// A right file.

#[test]
fn a_right_file_is_resolved() {
    let pipeline = load(GOOD).expect("it has no problems");
    let names: Vec<&str> = pipeline.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!((pipeline.name.as_str(), pipeline.numerics), ("good", None));
    assert_eq!(names, ["dataset", "base", "text", "adapter"]);
    assert_eq!(pipeline.order, [0, 1, 2, 3]);
    assert!(pipeline.base_dir.is_absolute());

    let adapter = &pipeline.stages[3];
    let inputs: Vec<(&str, usize, &str)> =
        adapter.inputs.iter().map(|(port, input)| (port.as_str(), input.stage, input.port.as_str())).collect();
    assert_eq!(inputs, [("data", 2, "examples"), ("model", 1, "model")]);
    assert_eq!(adapter.needs, [0]);
    assert_eq!(adapter.waits_for().collect::<Vec<_>>(), [2, 1, 0]);
    assert_eq!(adapter.key_settings["max_length"], KeyValue::Int(512));
    assert_eq!(adapter.key_settings["lora"], KeyValue::Map([("r".to_string(), KeyValue::Int(4))].into()));
    assert_eq!(adapter.to.as_deref(), Some(Path::new("out/nano")));
    assert_eq!(
        (adapter.resources.cpu, adapter.resources.memory_bytes, adapter.resources.gpu),
        (Some(2), Some(4 << 30), 1)
    );
    assert_eq!(adapter.location.to_string(), "p.yaml:10:3");

    let graph = StageGraph::new(&pipeline);
    assert_eq!(graph.successors(0).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(graph.layers(), [0, 0, 1, 2]);
}

#[test]
fn defaults_of_the_file() {
    let pipeline = load("version: 1\nnumerics: exact\nstages: { base: { uses: model } }").expect("it has no problems");
    assert_eq!((pipeline.name.as_str(), pipeline.numerics), ("p", Some(Numerics::Exact)));
    let base = &pipeline.stages[0];
    assert!(base.key_settings.is_empty() && base.inputs.is_empty() && base.to.is_none());
    assert_eq!((base.resources.cpu, base.resources.memory_bytes, base.resources.gpu), (None, None, 0));
}

#[test]
fn stages_may_be_written_in_any_order() {
    let pipeline = load(
        "version: 1\nstages: { b: { uses: format, inputs: { rows: a } }, a: { uses: source, with: { dataset: x } } }",
    )
    .expect("it has no problems");
    assert_eq!(pipeline.order, [1, 0]);
}

#[test]
fn ten_thousand_stages_in_a_chain() {
    let mut text = String::from("version: 1\nstages:\n  s0: { uses: source, with: { dataset: x } }\n");
    for idx in 1..10_000 {
        text.push_str(&format!("  s{idx}: {{ uses: prepare, inputs: {{ rows: s{} }} }}\n", idx - 1));
    }
    let pipeline = load(&text).expect("it has no problems");
    assert_eq!(pipeline.order, (0..10_000).collect::<Vec<_>>());
    assert_eq!(StageGraph::new(&pipeline).layers()[9_999], 9_999);
}

#[test]
fn the_file_is_overlaid_by_the_profile_and_that_by_set() {
    let r_and_size = |options: &LoadOptions| {
        let key = load_with(GOOD, options).expect("it has no problems").stages[3].key_settings.clone();
        let KeyValue::Map(lora) = key["lora"].clone() else { panic!("`lora` is a section") };
        (lora["r"].clone(), key["max_length"].clone())
    };
    assert_eq!(r_and_size(&LoadOptions::default()), (KeyValue::Int(4), KeyValue::Int(512)));
    assert_eq!(r_and_size(&profile("laptop")), (KeyValue::Int(2), KeyValue::Int(64)));
    let over_profile = LoadOptions {
        profile: Some("laptop".into()),
        sets: vec!["vars.size=128".into(), "stages.adapter.with.lora.r=16".into(), "vars.size=256".into()],
    };
    assert_eq!(r_and_size(&over_profile), (KeyValue::Int(16), KeyValue::Int(256)));
}

#[test]
fn set_reads_yaml_and_may_add_a_setting() {
    let options = sets(&[
        "stages.text.with.columns=[a, b]",
        "stages.adapter.with.learning_rate=2e-3",
        "stages.adapter.with.lora={ r: 32 }",
        "stages.adapter.needs=",
        "stages.dataset.with.split=no",
        "stages.base.to=a=b",
        "vars.model=x/y",
    ]);
    let pipeline = load_with(GOOD, &options).expect("it has no problems");
    let [dataset, base, text, adapter] = pipeline.stages.as_slice() else { panic!("it has four stages") };
    let word = |text: &str| KeyValue::Text(text.into());
    assert_eq!(text.key_settings["columns"], KeyValue::List(vec![word("a"), word("b")].into()));
    assert_eq!(adapter.key_settings["learning_rate"], KeyValue::float(2e-3).expect("a number"));
    assert_eq!(adapter.key_settings["lora"], KeyValue::Map([("r".to_string(), KeyValue::Int(32))].into()));
    assert!(adapter.needs.is_empty());
    assert_eq!(dataset.key_settings["split"], word("no"));
    assert_eq!(base.to.as_deref(), Some(Path::new("a=b")));
    assert_eq!(base.key_settings["name"], word("x/y"));
}

#[test]
fn text_that_looks_like_something_else_in_other_yaml_versions_is_text() {
    for word in ["no", "on", "1_000", "off", "y", "012:30"] {
        let file = format!("version: 1\nstages: {{ base: {{ uses: model, with: {{ name: {word} }} }} }}");
        let pipeline = load(&file).unwrap_or_else(|problems| panic!("{word}: {problems}"));
        assert_eq!(pipeline.stages[0].key_settings["name"], KeyValue::Text(word.into()), "{word}");
    }
}

#[test]
fn an_alias_stands_for_its_value() {
    let pipeline = load(
        "version: 1\nstages:\n  a: { uses: model, with: &common { name: big } }\n  b: { uses: model, with: *common }",
    )
    .expect("it has no problems");
    assert_eq!(pipeline.stages[0].key_settings, pipeline.stages[1].key_settings);
}

#[test]
fn comments_key_order_and_stage_names_do_not_change_key_settings() {
    let settings = |text: &str| {
        let mut settings: Vec<_> =
            load(text).expect("it has no problems").stages.into_iter().map(|s| s.key_settings).collect();
        settings.sort();
        settings
    };
    let before = settings(GOOD);
    let commented = GOOD.replace('\n', "  # a comment\n");
    let renamed = GOOD
        .replace("  dataset:", "  rows_of_2024:")
        .replace("rows: dataset", "rows: rows_of_2024")
        .replace("[dataset]", "rows_of_2024");
    let reordered = GOOD
        .replace("{ max_length: \"${{ vars.size }}\", lora: { r: 4 } }", "{ lora: { r: 4 }, max_length: 512 }")
        .replace("  dataset: { uses: source, with: { dataset: alpaca } }\n", "")
        + "  dataset: { with: { dataset: alpaca }, uses: source }\n";
    for same in [commented, renamed, reordered] {
        assert_ne!(same, GOOD);
        assert_eq!(settings(&same), before, "{same}");
    }
    assert_ne!(settings(&GOOD.replace("r: 4", "r: 5")), before);
}

// YAML.

#[test]
fn yaml_syntax() {
    let shown = screen_of_lines(&["version: 1", "stages:", "  a: { uses: model", "  b: { uses: model }"]);
    insta::assert_snapshot!(shown, @r"
    error[yaml-syntax]: while parsing a flow mapping, did not find expected ',' or '}'
     --> p.yaml:4:4
      |
    4 |   b: { uses: model }
      |    ^
    ");
}

#[test]
fn yaml_syntax_tab() {
    insta::assert_snapshot!(screen_of_lines(&["version: 1", "stages:", "\ta: { uses: model }"]), @r"
    error[yaml-syntax]: tabs disallowed within this context (block indentation)
     --> p.yaml:3:2
      |
    3 |     a: { uses: model }
      |     ^
    ");
}

#[test]
fn yaml_syntax_unknown_anchor() {
    insta::assert_snapshot!(screen_of_lines(&["version: 1", "stages: *nothing"]), @r"
    error[yaml-syntax]: while parsing node, found unknown anchor
     --> p.yaml:2:9
      |
    2 | stages: *nothing
      |         ^
    ");
}

#[test]
fn yaml_syntax_second_document() {
    insta::assert_snapshot!(screen_of_lines(&["version: 1", "---", "version: 1"]), @r"
    error[yaml-syntax]: there is a second document, but a pipeline file is one document
     --> p.yaml:3:1
      |
    3 | version: 1
      | ^
    ");
}

#[test]
fn yaml_nested_too_deep() {
    let deep = format!("version: 1\nstages: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    let problems = load(&deep).expect_err("it is nested too deep");
    assert_eq!(problems.iter().map(|problem| problem.slug).collect::<Vec<_>>(), ["yaml-syntax"]);
}

#[test]
fn aliases_that_multiply_are_refused() {
    let mut text = String::from("version: 1\nvars:\n  a0: &a0 x\n");
    for level in 1..30 {
        text.push_str(&format!("  a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 9].join(", ")));
    }
    text.push_str("stages: { base: { uses: model } }\n");
    let problems = load(&text).expect_err("its value has 9^29 texts");
    assert_eq!(problems.iter().map(|problem| problem.slug).collect::<Vec<_>>(), ["yaml-syntax"], "{problems}");
}

#[test]
fn duplicate_key() {
    let shown = screen_of_stages(&[
        "a:",
        "  uses: model",
        "b: { uses: model, with: { name: x, name: y } }",
        "a:",
        "  uses: model",
    ]);
    insta::assert_snapshot!(shown, @r"
    error[duplicate-key]: the key `name` is given twice
     --> p.yaml:5:38
      |
    5 |   b: { uses: model, with: { name: x, name: y } }
      |                                      ^^^^
    note: first given at line 5

    error[duplicate-key]: the key `a` is given twice
     --> p.yaml:6:3
      |
    6 |   a:
      |   ^
    note: first given at line 3
    ");
}

#[test]
fn a_key_that_is_not_text() {
    insta::assert_snapshot!(screen_of_stages(&["1: { uses: model }"]), @r"
    error[wrong-type]: a key must be text, found the number `1`
     --> p.yaml:3:3
      |
    3 |   1: { uses: model }
      |   ^
    help: put it in quotes
    ");
}

#[test]
fn merge_key() {
    let shown = screen_of_stages(&["a: &a { uses: model }", "b: { <<: *a, with: {} }"]);
    insta::assert_snapshot!(shown, @r"
    error[unsupported-key]: merge keys (`<<`) are not part of YAML 1.2
     --> p.yaml:4:8
      |
    4 |   b: { <<: *a, with: {} }
      |        ^^
    help: an alias can stand for a whole value: `with: *common`
    ");
}

// Keys and types.

#[test]
fn unknown_key() {
    let shown = screen_of_lines(&[
        "version: 1",
        "stage: {}",
        "stages:",
        "  base: { uses: model, width: {}, resources: { cpus: 2, disk: 4GiB } }",
    ]);
    insta::assert_snapshot!(shown, @r"
    error[unknown-key]: unknown key `stage` in the pipeline file
     --> p.yaml:2:1
      |
    2 | stage: {}
      | ^^^^^
    help: did you mean `stages`?

    error[unknown-key]: unknown key `width` in stage `base`
     --> p.yaml:4:24
      |
    4 |   base: { uses: model, width: {}, resources: { cpus: 2, disk: 4GiB } }
      |                        ^^^^^
    help: did you mean `with`?

    error[unknown-key]: unknown key `cpus` in `resources` of stage `base`
     --> p.yaml:4:48
      |
    4 |   base: { uses: model, width: {}, resources: { cpus: 2, disk: 4GiB } }
      |                                                ^^^^
    help: did you mean `cpu`?

    error[unknown-key]: unknown key `disk` in `resources` of stage `base`
     --> p.yaml:4:57
      |
    4 |   base: { uses: model, width: {}, resources: { cpus: 2, disk: 4GiB } }
      |                                                         ^^^^
    help: the keys here are `cpu`, `memory`, `gpu`, `pools`
    ");
}

#[test]
fn missing_key() {
    insta::assert_snapshot!(screen("name: x\n"), @r"
    error[missing-key]: the pipeline file has no `version`
      --> p.yaml:1:1
    help: add `version: 1`

    error[missing-key]: the pipeline file has no `stages`
      --> p.yaml:1:1
    help: a pipeline file begins with `version: 1` and has `stages: { NAME: { uses: KIND } }`
    ");
}

#[test]
fn missing_key_of_an_empty_file() {
    insta::assert_snapshot!(screen("# nothing\n"), @r"
    error[missing-key]: the file is empty
      --> p.yaml:1:1
    help: a pipeline file begins with `version: 1` and has `stages: { NAME: { uses: KIND } }`
    ");
}

#[test]
fn missing_key_uses_and_stages_without_any() {
    insta::assert_snapshot!(screen_of_stages(&["a: { with: {} }", "b:"]), @r"
    error[missing-key]: stage `a` has no `uses`
     --> p.yaml:3:3
      |
    3 |   a: { with: {} }
      |   ^
    help: `uses` names the stage kind, `uses: train`

    error[missing-key]: stage `b` has no `uses`
     --> p.yaml:4:3
      |
    4 |   b:
      |   ^
    help: `uses` names the stage kind, `uses: train`
    ");
    insta::assert_snapshot!(screen_of_lines(&["version: 1", "stages:"]), @r"
    error[missing-key]: `stages` is empty
     --> p.yaml:2:1
      |
    2 | stages:
      | ^^^^^^
    help: a pipeline has at least one stage
    ");
}

#[test]
fn wrong_type() {
    let shown = screen_of_lines(&[
        "version: one",
        "name: [x]",
        "numerics: 3",
        "vars: 4",
        "profiles: { a: [] }",
        "stages:",
        "  a: [model]",
        "  b: { uses: 3, with: model, inputs: [x], needs: { x: y }, resources: 4, to: 7 }",
        "  c: { uses: model, to: '' }",
    ]);
    insta::assert_snapshot!(shown, @r"
    error[wrong-type]: `version` must be the number `1`, found the text `one`
     --> p.yaml:1:10
      |
    1 | version: one
      |          ^^^

    error[wrong-type]: `name` of the pipeline file must be text, found a list
     --> p.yaml:2:7
      |
    2 | name: [x]
      |       ^^^

    error[wrong-type]: `numerics` must be `exact` or `any`, found the number `3`
     --> p.yaml:3:11
      |
    3 | numerics: 3
      |           ^

    error[wrong-type]: `vars` must be a mapping, found the number `4`
     --> p.yaml:4:7
      |
    4 | vars: 4
      |       ^

    error[wrong-type]: profile `a` must be a mapping, found a list
     --> p.yaml:5:16
      |
    5 | profiles: { a: [] }
      |                ^^^

    error[wrong-type]: stage `a` must be a mapping, found a list
     --> p.yaml:7:6
      |
    7 |   a: [model]
      |      ^^^^^^^

    error[wrong-type]: `uses` of stage `b` must be text, found the number `3`
     --> p.yaml:8:14
      |
    8 |   b: { uses: 3, with: model, inputs: [x], needs: { x: y }, resources: 4, to: 7 }
      |              ^

    error[wrong-type]: `inputs` of stage `b` must be a mapping, found a list
     --> p.yaml:8:38
      |
    8 |   b: { uses: 3, with: model, inputs: [x], needs: { x: y }, resources: 4, to: 7 }
      |                                      ^^^

    error[wrong-type]: `needs` of stage `b` must be a list of stages, found a mapping
     --> p.yaml:8:50
      |
    8 |   b: { uses: 3, with: model, inputs: [x], needs: { x: y }, resources: 4, to: 7 }
      |                                                  ^^^^^^^^

    error[wrong-type]: `resources` of stage `b` must be a mapping, found the number `4`
     --> p.yaml:8:71
      |
    8 |   b: { uses: 3, with: model, inputs: [x], needs: { x: y }, resources: 4, to: 7 }
      |                                                                       ^

    error[wrong-type]: `to` of stage `b` must be text, found the number `7`
     --> p.yaml:8:78
      |
    8 |   b: { uses: 3, with: model, inputs: [x], needs: { x: y }, resources: 4, to: 7 }
      |                                                                              ^

    error[wrong-type]: `to` of stage `c` is empty
     --> p.yaml:9:25
      |
    9 |   c: { uses: model, to: '' }
      |                         ^^^
    ");
}

#[test]
fn the_file_is_not_a_mapping() {
    insta::assert_snapshot!(screen("- version: 1\n"), @r"
    error[wrong-type]: the pipeline file must be a mapping, found a list
     --> p.yaml:1:1
      |
    1 | - version: 1
      | ^
    ");
}

#[test]
fn unsupported_version() {
    insta::assert_snapshot!(screen_of_lines(&["version: 2", "something: else"]), @r"
    error[unsupported-version]: the pipeline file has version 2, but this `pipe` reads version 1
     --> p.yaml:1:10
      |
    1 | version: 2
      |          ^
    ");
}

#[test]
fn numerics_is_one_of_two() {
    let shown = screen_of_lines(&["version: 1", "numerics: exakt", "stages: { base: { uses: model } }"]);
    insta::assert_snapshot!(shown, @r"
    error[out-of-range]: `numerics` is `exakt`, but must be `exact` or `any`
     --> p.yaml:2:11
      |
    2 | numerics: exakt
      |           ^^^^^
    help: did you mean `exact`?
    ");
}

#[test]
fn bad_name() {
    let shown = screen_of_stages(&["my.model: { uses: model }", "\"4\": { uses: model }"]);
    insta::assert_snapshot!(shown, @r#"
    error[bad-name]: `my.model` cannot be the name of a stage
     --> p.yaml:3:3
      |
    3 |   my.model: { uses: model }
      |   ^^^^^^^^
    help: a name is a letter or `_`, and then letters, digits, `_` and `-`

    error[bad-name]: `4` cannot be the name of a stage
     --> p.yaml:4:3
      |
    4 |   "4": { uses: model }
      |   ^^^
    help: a name is a letter or `_`, and then letters, digits, `_` and `-`
    "#);
}

#[test]
fn unsupported_key() {
    let shown = screen_of_stages(&["b: { uses: model, outputs: { report: file } }"]);
    insta::assert_snapshot!(shown, @r"
    error[unsupported-key]: stage `b`: `model` has outputs of its own, so `outputs` cannot be given
     --> p.yaml:3:21
      |
    3 |   b: { uses: model, outputs: { report: file } }
      |                     ^^^^^^^
    help: remove `outputs`; this kind gives `model`
    ");
}

#[test]
fn declared_ports_become_outputs_and_take_anything() {
    let pipeline = load(
        "version: 1
vars: { n: 3 }
stages:
  base: { uses: model }
  a:
    uses: runs
    inputs: { m: base }
    outputs: { rows: rows, page: { file: page.html }, log: file }
    with: { run: [make, '-n${{ vars.n }}', 'in=${{inputs.m}}', '${{ outputs.page }}', '${{ outputs.log }}'], env: { TO: '${{ outputs.rows }}' } }
  b: { uses: format, inputs: { rows: a } }
  c: { uses: runs, inputs: { it: a.page }, outputs: { x: file }, with: { run: [cp, '${{ inputs.it }}', '${{ outputs.x }}'] } }
",
    )
    .expect("it has no problems");
    let shown = |stage: usize| -> Vec<String> {
        let outputs = pipeline.stages[stage].outputs.iter();
        outputs.map(|output| format!("{} {} {:?}", output.name, output.kind, output.file)).collect()
    };
    assert_eq!(shown(0), ["model model None"]);
    assert_eq!(shown(1), ["rows rows None", "page file Some(\"page.html\")", "log file Some(\"log\")"]);
    let run = KeyValue::List(
        ["make", "-n3", "in=${{ inputs.m }}", "${{ outputs.page }}", "${{ outputs.log }}"]
            .map(|word| KeyValue::Text(word.into()))
            .to_vec()
            .into(),
    );
    assert_eq!(pipeline.stages[1].key_settings["run"], run);
    let feeds = |stage: usize, port: &str| {
        let input = &pipeline.stages[stage].inputs[port];
        (pipeline.stages[input.stage].name.as_str(), input.port.as_str(), input.kind)
    };
    assert_eq!(feeds(1, "m"), ("base", "model", ArtifactKind::Model));
    assert_eq!(feeds(2, "rows"), ("a", "rows", ArtifactKind::Rows));
    assert_eq!(feeds(3, "it"), ("a", "page", ArtifactKind::File));
}

#[test]
fn bad_declared_outputs() {
    let shown = screen_of_stages(&[
        "a: { uses: runs, with: { run: [ls] } }",
        "b: { uses: runs, outputs: { }, with: { run: [ls] } }",
        "c: { uses: runs, outputs: { 2x: fille, y: { name: z }, z: 3 }, with: { run: ['${{ outputs.y }}'] } }",
        "d: { uses: runs, outputs: { y: { file: a/b } }, with: { run: ['${{ outputs.y }}'] } }",
    ]);
    insta::assert_snapshot!(shown, @r"
    error[missing-output]: stage `a` (`runs`) declares no output
     --> p.yaml:3:3
      |
    3 |   a: { uses: runs, with: { run: [ls] } }
      |   ^
    help: `outputs: { report: file }` declares a port and its artifact kind

    error[missing-output]: stage `b` (`runs`) declares no output
     --> p.yaml:4:20
      |
    4 |   b: { uses: runs, outputs: { }, with: { run: [ls] } }
      |                    ^^^^^^^
    help: `outputs: { report: file }` declares a port and its artifact kind

    error[bad-name]: `2x` cannot be the name of a port
     --> p.yaml:5:31
      |
    5 |   c: { uses: runs, outputs: { 2x: fille, y: { name: z }, z: 3 }, with: { run: ['${{ outputs.y }}'] } }
      |                               ^^
    help: a name is a letter or `_`, and then letters, digits, `_` and `-`

    error[unknown-artifact-kind]: output `2x` of stage `c` is `fille`, but there is no such artifact kind
     --> p.yaml:5:35
      |
    5 |   c: { uses: runs, outputs: { 2x: fille, y: { name: z }, z: 3 }, with: { run: ['${{ outputs.y }}'] } }
      |                                   ^^^^^
    help: did you mean `file`?

    error[missing-key]: output `y` of stage `c` has no `file`
     --> p.yaml:5:45
      |
    5 |   c: { uses: runs, outputs: { 2x: fille, y: { name: z }, z: 3 }, with: { run: ['${{ outputs.y }}'] } }
      |                                             ^^^^^^^^^^^
    help: name its artifact kind, `file`, or its file, `{ file: report.html }`

    error[unknown-key]: unknown key `name` in output `y` of stage `c`
     --> p.yaml:5:47
      |
    5 |   c: { uses: runs, outputs: { 2x: fille, y: { name: z }, z: 3 }, with: { run: ['${{ outputs.y }}'] } }
      |                                               ^^^^
    help: the keys here are `file`

    error[wrong-type]: output `z` of stage `c` must be text, found the number `3`
     --> p.yaml:5:61
      |
    5 |   c: { uses: runs, outputs: { 2x: fille, y: { name: z }, z: 3 }, with: { run: ['${{ outputs.y }}'] } }
      |                                                             ^

    error[bad-name]: `a/b` cannot be the name of the file of output `y` of stage `d`
     --> p.yaml:6:42
      |
    6 |   d: { uses: runs, outputs: { y: { file: a/b } }, with: { run: ['${{ outputs.y }}'] } }
      |                                          ^^^
    help: it is a name without folders, `report.html`
    ");
}

#[test]
fn bad_expressions_for_ports() {
    let shown = screen_of_stages(&[
        "base: { uses: model }",
        "a: { uses: runs, inputs: { data: base }, outputs: { report: file }, with: { run: ['x=${{ inputs.dta }}', '${{ outputs.reprt }}'] } }",
        "b: { uses: model, with: { name: 'x ${{ inputs.data }}' } }",
        "c: { uses: format, inputs: { rows: '${{ outputs.report }}' }, to: '${{inputs.data}}' }",
    ]);
    insta::assert_snapshot!(shown, @r"
    error[unknown-port]: stage `a` has no input `dta`
     --> p.yaml:4:92
      |
    4 |   a: { uses: runs, inputs: { data: base }, outputs: { report: file }, with: { run: ['x=${{ inputs.dta }}', '${{ outputs.reprt }}'] } }
      |                                                                                            ^^^^^^^^^^
    help: did you mean `data`?

    error[unknown-port]: stage `a` has no output `reprt`
     --> p.yaml:4:113
      |
    4 |   a: { uses: runs, inputs: { data: base }, outputs: { report: file }, with: { run: ['x=${{ inputs.dta }}', '${{ outputs.reprt }}'] } }
      |                                                                                                                 ^^^^^^^^^^^^^
    help: did you mean `report`?

    error[bad-expression]: `inputs.data` cannot be used here, only `vars.NAME` can
     --> p.yaml:5:38
      |
    5 |   b: { uses: model, with: { name: 'x ${{ inputs.data }}' } }
      |                                      ^^^^^^^^^^^^^^^^^^
    help: paths of ports stand in `with:` of a stage kind whose ports the file declares, `command`

    error[bad-expression]: `outputs.report` cannot be used here, only `vars.NAME` can
     --> p.yaml:6:39
      |
    6 |   c: { uses: format, inputs: { rows: '${{ outputs.report }}' }, to: '${{inputs.data}}' }
      |                                       ^^^^^^^^^^^^^^^^^^^^^
    help: paths of ports stand in `with:` of a stage kind whose ports the file declares, `command`

    error[bad-expression]: `inputs.data` cannot be used here, only `vars.NAME` can
     --> p.yaml:6:69
      |
    6 |   c: { uses: format, inputs: { rows: '${{ outputs.report }}' }, to: '${{inputs.data}}' }
      |                                                                     ^^^^^^^^^^^^^^^^^^^
    help: paths of ports stand in `with:` of a stage kind whose ports the file declares, `command`
    ");
}

#[test]
fn a_declared_input_takes_one_output() {
    let shown = screen_of_stages(&[
        "base: { uses: source, with: { dataset: alpaca } }",
        "two: { uses: prepare, inputs: { rows: base }, with: { test_size: 0.5 } }",
        "a: { uses: runs, inputs: { data: two, 2x: base, more: two.tset }, outputs: { report: file }, with: { run: ['${{ outputs.report }}'] } }",
        "b: { uses: format, inputs: { rows: a } }",
    ]);
    insta::assert_snapshot!(shown, @r"
    error[ambiguous-output]: stage `a` takes `data` from `two`, which has 2 outputs
     --> p.yaml:5:36
      |
    5 |   a: { uses: runs, inputs: { data: two, 2x: base, more: two.tset }, outputs: { report: file }, with: { run: ['${{ outputs.report }}'] } }
      |                                    ^^^
    help: write `two.train` or `two.test`

    error[bad-name]: `2x` cannot be the name of a port
     --> p.yaml:5:41
      |
    5 |   a: { uses: runs, inputs: { data: two, 2x: base, more: two.tset }, outputs: { report: file }, with: { run: ['${{ outputs.report }}'] } }
      |                                         ^^
    help: a name is a letter or `_`, and then letters, digits, `_` and `-`

    error[unknown-output]: stage `a` takes `more` from `two.tset`, but `two` has no such output
     --> p.yaml:5:61
      |
    5 |   a: { uses: runs, inputs: { data: two, 2x: base, more: two.tset }, outputs: { report: file }, with: { run: ['${{ outputs.report }}'] } }
      |                                                             ^^^^
    help: did you mean `test`?

    error[wrong-artifact-kind]: stage `b` takes `rows` (rows) from `a`, which gives `report` (file)
     --> p.yaml:6:38
      |
    6 |   b: { uses: format, inputs: { rows: a } }
      |                                      ^
    help: rows comes from `base`, `two.train`, `two.test`
    ");
}

#[test]
fn bad_matrix() {
    let text = "version: 1
matrix: { lr: [1e-4, 2e-4], r: [8, 16], exclude: [{ lr: 3e-4 }, { rr: 8 }], include: [{ note: [x] }] }
stages:
  base: { uses: model, matrix: { size: [] } }
  text: { uses: format, inputs: { rows: \"${{ matrix.lrr }}\" } }
  adapter: { uses: join, matrix: { lr: [1] }, inputs: { data: text, model: base } }
";
    insta::assert_snapshot!(screen(text), @r#"
    error[unknown-matrix-variable]: `exclude` of the pipeline file names `rr`, which its matrix does not list
     --> p.yaml:2:67
      |
    2 | matrix: { lr: [1e-4, 2e-4], r: [8, 16], exclude: [{ lr: 3e-4 }, { rr: 8 }], include: [{ note: [x] }] }
      |                                                                   ^^
    help: did you mean `r`?

    error[wrong-type]: `note` in `include` in `matrix` of the pipeline file must be text, a number, `true` or `false`, found a list
     --> p.yaml:2:95
      |
    2 | matrix: { lr: [1e-4, 2e-4], r: [8, 16], exclude: [{ lr: 3e-4 }, { rr: 8 }], include: [{ note: [x] }] }
      |                                                                                               ^^^^

    error[empty-matrix]: `size` in `matrix` of stage `base` lists no value
     --> p.yaml:4:40
      |
    4 |   base: { uses: model, matrix: { size: [] } }
      |                                        ^^^
    help: list at least one, or remove it

    error[unknown-matrix-variable]: stage `text` uses `matrix.lrr`, but has no such variable
     --> p.yaml:5:42
      |
    5 |   text: { uses: format, inputs: { rows: "${{ matrix.lrr }}" } }
      |                                          ^^^^^^^^^^^^^^^^^
    help: did you mean `lr`?

    error[duplicate-variable]: stage `adapter` depends on two variables of a matrix that are called `lr`
     --> p.yaml:6:36
      |
    6 |   adapter: { uses: join, matrix: { lr: [1] }, inputs: { data: text, model: base } }
      |                                    ^^
    help: give them different names (the other is declared at line 2)
    "#);
}

#[test]
fn what_instances_have_in_common_is_said_once() {
    let text = "version: 1
matrix: { r: [8, 128], lr: [1e-4, 2e-4] }
stages:
  rows: { uses: source, with: { dataset: x } }
  text: { uses: format, inputs: { rows: rows }, with: { template: alpca } }
  base: { uses: model, to: out }
  adapter:
    uses: join
    inputs: { data: text, model: base, adaptor: base }
    with: { lora: { r: \"${{ matrix.r }}\" }, learning_rate: \"${{ matrix.lr }}\" }
    to: adapters
  again: { uses: join, inputs: { data: text, model: base, adapter: adapter.metrics, }, needs: [adapter@r=8, adapterr] }
";
    insta::assert_snapshot!(screen(text), @r"
    error[out-of-range]: stage `adapter@r=128,lr=0.0001`: `r` is `128`, but must be a whole number from 1 to 64
     --> p.yaml:2:18
      |
    2 | matrix: { r: [8, 128], lr: [1e-4, 2e-4] }
      |                  ^^^
    note: used as `${{ matrix.r }}` at p.yaml:10:24

    error[out-of-range]: stage `text`: `template` is `alpca`, but must be one of `alpaca`, `chatml`
     --> p.yaml:5:67
      |
    5 |   text: { uses: format, inputs: { rows: rows }, with: { template: alpca } }
      |                                                                   ^^^^^
    help: did you mean `alpaca`?

    error[unknown-port]: stage `adapter@r=8,lr=0.0001` (`join`) has no input `adaptor`
     --> p.yaml:9:40
      |
    9 |     inputs: { data: text, model: base, adaptor: base }
      |                                        ^^^^^^^
    help: did you mean `adapter`?

    error[same-to]: stages `adapter@r=8,lr=0.0001` and `adapter@r=8,lr=0.0002` would be copied over each other in `adapters/adapter`
      --> p.yaml:11:9
       |
    11 |     to: adapters
       |         ^^^^^^^^
    help: put what tells them apart into `to`, such as `${{ matrix.lr }}`

    error[wrong-artifact-kind]: stage `again@r=8,lr=0.0001` takes `adapter` (adapter) from `adapter@r=8,lr=0.0001.metrics`, which is metrics
      --> p.yaml:12:68
       |
    12 |   again: { uses: join, inputs: { data: text, model: base, adapter: adapter.metrics, }, needs: [adapter@r=8, adapterr] }
       |                                                                    ^^^^^^^^^^^^^^^
    help: adapter comes from `adapter`

    error[unknown-stage]: stage `again@r=8,lr=0.0001` needs `adapter@r=8`, but no stage has that name
      --> p.yaml:12:96
       |
    12 |   again: { uses: join, inputs: { data: text, model: base, adapter: adapter.metrics, }, needs: [adapter@r=8, adapterr] }
       |                                                                                                ^^^^^^^^^^^
    help: did you mean `adapter@r=8,lr=0.0002`? (declared at line 7)

    error[unknown-stage]: stage `again@r=8,lr=0.0001` needs `adapterr`, but no stage has that name
      --> p.yaml:12:109
       |
    12 |   again: { uses: join, inputs: { data: text, model: base, adapter: adapter.metrics, }, needs: [adapter@r=8, adapterr] }
       |                                                                                                             ^^^^^^^^
    help: did you mean `adapter`? (declared at line 7)
    ");
}

#[test]
fn an_instance_is_an_ordinary_stage() {
    let text = "version: 1
matrix: { size: [1e-4, 0.5], name: [a/b, c] }
profiles: { small: { matrix: { size: [1] } } }
stages:
  base: { uses: model, with: { name: \"m-${{ matrix.name }}\" }, to: \"out/${{ matrix.name }}\" }
  rows: { uses: source, with: { dataset: x } }
  text: { uses: format, inputs: { rows: rows } }
  adapter: { uses: join, inputs: { data: text, model: base }, with: { learning_rate: \"${{ matrix.size }}\" } }
";
    let names = |options: &LoadOptions| -> Vec<String> {
        let stages = load_with(text, options).unwrap_or_else(|problems| panic!("{problems}")).stages;
        stages.into_iter().map(|stage| stage.name).collect()
    };
    assert_eq!(names(&LoadOptions::default())[..4], ["base@name=a%2Fb", "base@name=c", "rows", "text"]);
    assert_eq!(
        names(&LoadOptions::default())[4..],
        [
            "adapter@size=0.0001,name=a%2Fb",
            "adapter@size=0.0001,name=c",
            "adapter@size=0.5,name=a%2Fb",
            "adapter@size=0.5,name=c",
        ]
    );
    assert_eq!(names(&profile("small"))[4..], ["adapter@size=1,name=a%2Fb", "adapter@size=1,name=c"].map(String::from));
    let set = sets(&["matrix.name=[d]", "stages.text.matrix={ n: [1, 2] }", "stages.adapter.with.learning_rate=0.1"]);
    assert_eq!(
        names(&set)[2..],
        ["text@n=1", "text@n=2", "adapter@name=d,n=1", "adapter@name=d,n=2"].map(String::from)
    );
    let screen = screen_with(text, &sets(&["matrix.lr=[1]", "matrix=[1]"]));
    insta::assert_snapshot!(screen, @r"
    error[unknown-matrix-variable]: there is no matrix variable `lr`
      --> --set matrix.lr=[1]
                       ^^
    help: the matrix variables are `size`, `name`

    error[bad-set-argument]: its path is too short
      --> --set matrix=[1]
                ^^^^^^^^^^
    help: the form is `vars.NAME=VALUE`, `matrix.NAME=[VALUE, ..]` or `stages.STAGE.with.SETTING=VALUE`
    ");
}

#[test]
fn bad_tries() {
    let shown = screen_of_stages(&[
        "a: { uses: model, timeout: 30, retries: -1 }",
        "b: { uses: model, timeout: soon, retries: { delay: 10 } }",
        "c: { uses: model, timeout: [1h], retries: { max: 2, dely: 1s } }",
        "d: { uses: model, timeout: 1h30m, retries: { max: 2, delay: 5m } }",
    ]);
    insta::assert_snapshot!(shown, @r"
    error[wrong-type]: `timeout` of stage `a` is `30` without a unit
     --> p.yaml:3:30
      |
    3 |   a: { uses: model, timeout: 30, retries: -1 }
      |                              ^^
    help: write `90s`, `30m`, `2h` or `1h30m`

    error[out-of-range]: `retries` of stage `a` is `-1`, but must be a whole number from 0 to 4096
     --> p.yaml:3:43
      |
    3 |   a: { uses: model, timeout: 30, retries: -1 }
      |                                           ^^

    error[out-of-range]: `timeout` of stage `b` is `soon`, but must be a duration of at least a second
     --> p.yaml:4:30
      |
    4 |   b: { uses: model, timeout: soon, retries: { delay: 10 } }
      |                              ^^^^
    help: write `90s`, `30m`, `2h` or `1h30m`

    error[missing-key]: `retries` of stage `b` has no `max`
     --> p.yaml:4:45
      |
    4 |   b: { uses: model, timeout: soon, retries: { delay: 10 } }
      |                                             ^^^^^^^^^^^^^^
    help: `max` is how many further tries there are after a failure, `{ max: 3, delay: 10s }`

    error[wrong-type]: `delay` in `retries` of stage `b` is `10` without a unit
     --> p.yaml:4:54
      |
    4 |   b: { uses: model, timeout: soon, retries: { delay: 10 } }
      |                                                      ^^
    help: write `90s`, `30m`, `2h` or `1h30m`

    error[wrong-type]: `timeout` of stage `c` must be a duration like `30m`, found a list
     --> p.yaml:5:30
      |
    5 |   c: { uses: model, timeout: [1h], retries: { max: 2, dely: 1s } }
      |                              ^^^^

    error[unknown-key]: unknown key `dely` in `retries` of stage `c`
     --> p.yaml:5:55
      |
    5 |   c: { uses: model, timeout: [1h], retries: { max: 2, dely: 1s } }
      |                                                       ^^^^
    help: did you mean `delay`?
    ");
}

#[test]
fn bad_pools() {
    let text = "version: 1
pools: { hub: 2, disk: 0, 2fast: 1, none: }
stages:
  a: { uses: model, resources: { pools: { hup: 1, hub: 3 } } }
  b: { uses: model, resources: { pools: { hub: -1, disk: 9 } } }
  c: { uses: model, resources: { pools: hub } }
";
    insta::assert_snapshot!(screen(text), @r"
    error[out-of-range]: the size of pool `disk` is `0`, but must be a whole number from 1 to 4096
     --> p.yaml:2:24
      |
    2 | pools: { hub: 2, disk: 0, 2fast: 1, none: }
      |                        ^

    error[bad-name]: `2fast` cannot be the name of a pool
     --> p.yaml:2:27
      |
    2 | pools: { hub: 2, disk: 0, 2fast: 1, none: }
      |                           ^^^^^
    help: a name is a letter or `_`, and then letters, digits, `_` and `-`

    error[wrong-type]: the size of pool `none` must be a whole number, found nothing
     --> p.yaml:2:37
      |
    2 | pools: { hub: 2, disk: 0, 2fast: 1, none: }
      |                                     ^^^^

    error[unknown-pool]: stage `a` asks for pool `hup`, but the file declares no such pool
     --> p.yaml:4:43
      |
    4 |   a: { uses: model, resources: { pools: { hup: 1, hub: 3 } } }
      |                                           ^^^
    help: did you mean `hub`?

    error[out-of-range]: stage `a` asks for 3 of pool `hub`, which has 2
     --> p.yaml:4:56
      |
    4 |   a: { uses: model, resources: { pools: { hup: 1, hub: 3 } } }
      |                                                        ^
    help: ask for less, or enlarge the pool (declared at line 2)

    error[out-of-range]: `hub` in `pools` in `resources` of stage `b` is `-1`, but must be a whole number from 0 to 4096
     --> p.yaml:5:48
      |
    5 |   b: { uses: model, resources: { pools: { hub: -1, disk: 9 } } }
      |                                                ^^

    error[wrong-type]: `pools` in `resources` of stage `c` must be a mapping, found the text `hub`
     --> p.yaml:6:41
      |
    6 |   c: { uses: model, resources: { pools: hub } }
      |                                         ^^^
    ");
    let undeclared = screen_of_stages(&["a: { uses: model, resources: { pools: { hub: 1 } } }"]);
    insta::assert_snapshot!(undeclared, @r"
    error[unknown-pool]: stage `a` asks for pool `hub`, but the file declares no such pool
     --> p.yaml:3:43
      |
    3 |   a: { uses: model, resources: { pools: { hub: 1 } } }
      |                                           ^^^
    help: declare it at the top of the file: `pools: { hub: 1 }`
    ");
}

#[test]
fn pools_are_found_by_their_names() {
    let text = "version: 1
vars: { n: 3 }
pools: { hub: 2, disk: '${{ vars.n }}' }
stages:
  a: { uses: model, resources: { pools: { disk: 3, hub: 0 } } }
  b: { uses: model, resources: { pools: { disk: '${{ vars.n }}', hub: 1 } } }
";
    let pipeline = load(text).expect("it is right");
    let pools: Vec<(&str, usize)> = pipeline.pools.iter().map(|pool| (pool.name.as_str(), pool.size)).collect();
    assert_eq!(pools, [("hub", 2), ("disk", 3)]);
    assert_eq!(pipeline.stages[0].resources.pools, [(1, 3)]);
    assert_eq!(pipeline.stages[1].resources.pools, [(1, 3), (0, 1)]);
}

#[test]
fn bad_resources() {
    let shown = screen_of_stages(&[
        "a: { uses: model, resources: { cpu: 0, memory: 4, gpu: yes } }",
        "b: { uses: model, resources: { cpu: two, memory: 4 gigs, gpu: -1 } }",
    ]);
    insta::assert_snapshot!(shown, @r"
    error[out-of-range]: `cpu` in `resources` of stage `a` is `0`, but must be a whole number from 1 to 4096
     --> p.yaml:3:39
      |
    3 |   a: { uses: model, resources: { cpu: 0, memory: 4, gpu: yes } }
      |                                       ^

    error[wrong-type]: `memory` in `resources` of stage `a` is `4` without a unit
     --> p.yaml:3:50
      |
    3 |   a: { uses: model, resources: { cpu: 0, memory: 4, gpu: yes } }
      |                                                  ^
    help: give one: `4GiB`; the units are KiB, MiB, GiB, TiB, KB, MB, GB, TB

    error[wrong-type]: `gpu` in `resources` of stage `a` must be a whole number, found the text `yes`
     --> p.yaml:3:58
      |
    3 |   a: { uses: model, resources: { cpu: 0, memory: 4, gpu: yes } }
      |                                                          ^^^

    error[wrong-type]: `cpu` in `resources` of stage `b` must be a whole number, found the text `two`
     --> p.yaml:4:39
      |
    4 |   b: { uses: model, resources: { cpu: two, memory: 4 gigs, gpu: -1 } }
      |                                       ^^^

    error[out-of-range]: `memory` in `resources` of stage `b` is `4 gigs`, but must be a size like `4GiB` or `1.5GB`
     --> p.yaml:4:52
      |
    4 |   b: { uses: model, resources: { cpu: two, memory: 4 gigs, gpu: -1 } }
      |                                                    ^^^^^^
    help: the units are KiB, MiB, GiB, TiB, KB, MB, GB, TB

    error[out-of-range]: `gpu` in `resources` of stage `b` is `-1`, but must be a whole number from 0 to 4096
     --> p.yaml:4:65
      |
    4 |   b: { uses: model, resources: { cpu: two, memory: 4 gigs, gpu: -1 } }
      |                                                                 ^^
    ");
}

// Names.

#[test]
fn unknown_kind() {
    insta::assert_snapshot!(screen_of_stages(&["a: { uses: modell }", "b: { uses: deploy }"]), @r"
    error[unknown-kind]: stage `a` uses `modell`, but there is no such stage kind
     --> p.yaml:3:14
      |
    3 |   a: { uses: modell }
      |              ^^^^^^
    help: did you mean `model`?

    error[unknown-kind]: stage `b` uses `deploy`, but there is no such stage kind
     --> p.yaml:4:14
      |
    4 |   b: { uses: deploy }
      |              ^^^^^^
    help: the stage kinds are `source`, `prepare`, `format`, `model`, `join`, `runs`
    ");
}

#[test]
fn unknown_stage() {
    let shown = screen(&GOOD.replace("rows: dataset", "rows: \"datasat.rows\"").replace("[dataset]", "[dateset, zzz]"));
    insta::assert_snapshot!(shown, @r#"
    error[unknown-stage]: stage `text` takes `rows` from `datasat`, but no stage has that name
     --> p.yaml:9:42
      |
    9 |   text: { uses: format, inputs: { rows: "datasat.rows" } }
      |                                          ^^^^^^^
    help: did you mean `dataset`? (declared at line 7)

    error[unknown-stage]: stage `adapter` needs `dateset`, but no stage has that name
      --> p.yaml:13:13
       |
    13 |     needs: [dateset, zzz]
       |             ^^^^^^^
    help: did you mean `dataset`? (declared at line 7)

    error[unknown-stage]: stage `adapter` needs `zzz`, but no stage has that name
      --> p.yaml:13:22
       |
    13 |     needs: [dateset, zzz]
       |                      ^^^
    help: the other stages are `dataset`, `base`, `text`
    "#);
}

#[test]
fn unknown_port() {
    let shown = screen(
        &GOOD
            .replace("{ data: text,", "{ data: text, modle: base, zzz: text,")
            .replace("{ uses: model,", "{ uses: model, inputs: { rows: dataset },"),
    );
    insta::assert_snapshot!(shown, @r#"
    error[unknown-port]: stage `base` (`model`) has no input `rows`
     --> p.yaml:8:34
      |
    8 |   base: { uses: model, inputs: { rows: dataset }, with: { name: "${{ vars.model }}" } }
      |                                  ^^^^
    help: there are no inputs of `model`

    error[unknown-port]: stage `adapter` (`join`) has no input `modle`
      --> p.yaml:12:27
       |
    12 |     inputs: { data: text, modle: base, zzz: text, model: base.model }
       |                           ^^^^^
    help: did you mean `model`?

    error[unknown-port]: stage `adapter` (`join`) has no input `zzz`
      --> p.yaml:12:40
       |
    12 |     inputs: { data: text, modle: base, zzz: text, model: base.model }
       |                                        ^^^
    help: the inputs of `join` are `data`, `model`, `adapter`
    "#);
}

#[test]
fn unknown_output() {
    let shown = screen(&GOOD.replace("data: text", "data: text.exmples").replace("base.model", "base.zzz"));
    insta::assert_snapshot!(shown, @r"
    error[unknown-output]: stage `adapter` takes `data` from `text.exmples`, but `text` has no such output
      --> p.yaml:12:26
       |
    12 |     inputs: { data: text.exmples, model: base.zzz }
       |                          ^^^^^^^
    help: did you mean `examples`?

    error[unknown-output]: stage `adapter` takes `model` from `base.zzz`, but `base` has no such output
      --> p.yaml:12:47
       |
    12 |     inputs: { data: text.exmples, model: base.zzz }
       |                                               ^^^
    help: the outputs of `base` are `model`
    ");
}

#[test]
fn unknown_output_that_the_settings_leave_out() {
    let shown = screen_of_stages(&[
        "dataset: { uses: source, with: { dataset: x } }",
        "parts: { uses: prepare, inputs: { rows: dataset } }",
        "text: { uses: format, inputs: { rows: parts.test } }",
    ]);
    insta::assert_snapshot!(shown, @r"
    error[unknown-output]: stage `text` takes `rows` from `parts.test`, but `parts` has no such output
     --> p.yaml:5:47
      |
    5 |   text: { uses: format, inputs: { rows: parts.test } }
      |                                               ^^^^
    help: the settings of `parts` leave it out; its outputs are `train`
    ");
}

#[test]
fn ambiguous_output() {
    let shown = screen_of_stages(&[
        "dataset: { uses: source, with: { dataset: x } }",
        "parts: { uses: prepare, inputs: { rows: dataset }, with: { test_size: 0.1 } }",
        "text: { uses: format, inputs: { rows: parts } }",
    ]);
    insta::assert_snapshot!(shown, @r"
    error[ambiguous-output]: stage `text` takes `rows` (rows) from `parts`, which has 2 outputs of that kind
     --> p.yaml:5:41
      |
    5 |   text: { uses: format, inputs: { rows: parts } }
      |                                         ^^^^^
    help: write `parts.train` or `parts.test`
    ");
}

#[test]
fn same_to() {
    let shown = screen_of_stages(&[
        "a: { uses: model, to: out/x }",
        "b: { uses: model, to: ./out/y/../x/ }",
        "c: { uses: source, with: { dataset: x }, to: out/x }",
        "d: { uses: model, to: out/x/rows }",
        "e: { uses: model, to: \"\" }",
    ]);
    insta::assert_snapshot!(shown, @r#"
    error[same-to]: stages `a` and `b` would be copied over each other in `./out/y/../x/model`
     --> p.yaml:4:25
      |
    4 |   b: { uses: model, to: ./out/y/../x/ }
      |                         ^^^^^^^^^^^^^
    help: give each a `to` of its own (`a` is at line 3)

    error[same-to]: stages `c` and `d` would be copied over each other in `out/x/rows/model`
     --> p.yaml:6:25
      |
    6 |   d: { uses: model, to: out/x/rows }
      |                         ^^^^^^^^^^
    help: give each a `to` of its own (`c` is at line 5)

    error[wrong-type]: `to` of stage `e` is empty
     --> p.yaml:7:25
      |
    7 |   e: { uses: model, to: "" }
      |                         ^^^
    "#);
}

#[test]
fn wrong_artifact_kind() {
    let shown = screen(&GOOD.replace("data: text", "data: dataset").replace("base.model", "dataset.rows"));
    insta::assert_snapshot!(shown, @r"
    error[wrong-artifact-kind]: stage `adapter` takes `data` (examples) from `dataset`, which gives `rows` (rows)
      --> p.yaml:12:21
       |
    12 |     inputs: { data: dataset, model: dataset.rows }
       |                     ^^^^^^^
    help: examples comes from `text`

    error[wrong-artifact-kind]: stage `adapter` takes `model` (model) from `dataset.rows`, which is rows
      --> p.yaml:12:37
       |
    12 |     inputs: { data: dataset, model: dataset.rows }
       |                                     ^^^^^^^^^^^^
    help: model comes from `base`
    ");
}

#[test]
fn missing_input() {
    let shown = screen_of_stages(&["text: { uses: format }", "adapter: { uses: join, inputs: { data: text } }"]);
    insta::assert_snapshot!(shown, @r"
    error[missing-input]: stage `text` (`format`) has nothing connected to its input `rows` (rows)
     --> p.yaml:3:3
      |
    3 |   text: { uses: format }
      |   ^^^^
    help: no other stage gives rows

    error[missing-input]: stage `adapter` (`join`) has nothing connected to its input `model` (model)
     --> p.yaml:4:26
      |
    4 |   adapter: { uses: join, inputs: { data: text } }
      |                          ^^^^^^
    help: no other stage gives model
    ");
}

#[test]
fn a_misspelled_port_is_one_problem() {
    let problems = load(&GOOD.replace("model: base.model", "modle: base.model")).expect_err("there is no such port");
    assert_eq!(problems.iter().map(|problem| problem.slug).collect::<Vec<_>>(), ["unknown-port"]);
}

#[test]
fn the_caret_stands_below_the_output_when_it_is_called_as_its_stage() {
    let problems = load(&GOOD.replace("base.model", "dataset.dataset")).expect_err("there is no such output");
    let found: Vec<String> =
        problems.iter().filter_map(|problem| problem.location.as_ref()).map(ToString::to_string).collect();
    assert_eq!(found, ["p.yaml:12:42"]);
}

#[test]
fn an_optional_input_may_be_missing_and_a_wrong_stage_does_not_hide_others() {
    let problems = load(&GOOD.replace("uses: format", "uses: formt")).expect_err("the kind is unknown");
    assert_eq!(problems.iter().map(|problem| problem.slug).collect::<Vec<_>>(), ["unknown-kind"]);
}

#[test]
fn cycle() {
    let shown = screen_of_stages(&[
        "base: { uses: model, needs: c }",
        "a: { uses: join, inputs: { data: text, model: base, adapter: b } }",
        "b: { uses: join, inputs: { data: text, model: base, adapter: a } }",
        "c: { uses: model, needs: [d, base] }",
        "d: { uses: model }",
        "dataset: { uses: source, with: { dataset: x } }",
        "text: { uses: format, inputs: { rows: dataset } }",
    ]);
    insta::assert_snapshot!(shown, @r"
    error[cycle]: these stages wait for each other: `base` -> `c` -> `base`
     --> p.yaml:3:31
      |
    3 |   base: { uses: model, needs: c }
      |                               ^
    note: `c` needs `base` at line 6
    note: `base` needs `c` at line 3

    error[cycle]: these stages wait for each other: `a` -> `b` -> `a`
     --> p.yaml:4:64
      |
    4 |   a: { uses: join, inputs: { data: text, model: base, adapter: b } }
      |                                                                ^
    note: `b` takes `adapter` from `a` at line 5
    note: `a` takes `adapter` from `b` at line 4
    ");
}

#[test]
fn self_dependency() {
    let shown =
        screen_of_stages(&["a: { uses: model, needs: [a] }", "b: { uses: prepare, inputs: { rows: b.train } }"]);
    insta::assert_snapshot!(shown, @r"
    error[self-dependency]: stage `a` needs `a`, which is itself
     --> p.yaml:3:29
      |
    3 |   a: { uses: model, needs: [a] }
      |                             ^

    error[self-dependency]: stage `b` takes `rows` from `b`, which is itself
     --> p.yaml:4:39
      |
    4 |   b: { uses: prepare, inputs: { rows: b.train } }
      |                                       ^
    ");
}

// Vars, profiles and `--set`.

#[test]
fn unknown_var() {
    let shown = screen(
        &GOOD
            .replace("vars.size", "vars.sise")
            .replace("out/${{ vars.model }}", "out/${{ vars.model }}/${{ vars.zzz }}"),
    );
    insta::assert_snapshot!(shown, @r#"
    error[unknown-var]: there is no var `sise`
      --> p.yaml:15:26
       |
    15 |     with: { max_length: "${{ vars.sise }}", lora: { r: 4 } }
       |                          ^^^^^^^^^^^^^^^^
    help: did you mean `size`?

    error[unknown-var]: there is no var `zzz`
      --> p.yaml:16:32
       |
    16 |     to: "out/${{ vars.model }}/${{ vars.zzz }}"
       |                                ^^^^^^^^^^^^^^^
    help: the vars are `size`, `model`
    "#);
}

#[test]
fn bad_expression() {
    let shown = screen(
        &GOOD
            .replace("${{ vars.size }}", "${{ stages.base.model }}")
            .replace("out/${{ vars.model }}", "out/${{ vars.model")
            .replace("model: nano }", "model: \"${{ vars.size }}\" }"),
    );
    insta::assert_snapshot!(shown, @r#"
    error[bad-expression]: a var cannot use another var
     --> p.yaml:3:27
      |
    3 | vars: { size: 512, model: "${{ vars.size }}" }
      |                           ^^^^^^^^^^^^^^^^^^^
    help: write the value out, or use both vars in the stage

    error[bad-expression]: `stages.base.model` cannot be used here, only `vars.NAME` and `matrix.NAME` can
      --> p.yaml:15:26
       |
    15 |     with: { max_length: "${{ stages.base.model }}", lora: { r: 4 } }
       |                          ^^^^^^^^^^^^^^^^^^^^^^^^
    help: there is `vars.size`, `vars.model`

    error[bad-expression]: `${{` is not closed by `}}`
      --> p.yaml:16:9
       |
    16 |     to: "out/${{ vars.model"
       |         ^^^^^^^^^^^^^^^^^^^^
    "#);
}

#[test]
fn a_mapping_inside_text() {
    insta::assert_snapshot!(screen(&GOOD.replace("model: nano", "model: { a: b }")), @r#"
    error[wrong-type]: stage `base`: `name` must be text, found a mapping
     --> p.yaml:3:27
      |
    3 | vars: { size: 512, model: { a: b } }
      |                           ^^^^^^^^^
    note: used as `${{ vars.model }}` at p.yaml:8:38

    error[wrong-type]: `vars.model` stands inside text, but is a mapping
      --> p.yaml:16:14
       |
    16 |     to: "out/${{ vars.model }}"
       |              ^^^^^^^^^^^^^^^^^
    note: `vars.model` is given at line 3
    "#);
}

#[test]
fn a_wrong_value_of_a_var_is_shown_where_it_is_written() {
    insta::assert_snapshot!(screen(&GOOD.replace("size: 512", "size: 0")), @r"
    error[out-of-range]: stage `adapter`: `max_length` is `0`, but must be a whole number from 1 to 4096
     --> p.yaml:3:15
      |
    3 | vars: { size: 0, model: nano }
      |               ^
    note: used as `${{ vars.size }}` at p.yaml:15:25
    ");
    insta::assert_snapshot!(screen_with(GOOD, &sets(&["vars.size=0"])), @r"
    error[out-of-range]: stage `adapter`: `max_length` is `0`, but must be a whole number from 1 to 4096
      --> --set vars.size=0
                          ^
    note: used as `${{ vars.size }}` at p.yaml:15:25
    ");
}

#[test]
fn unknown_profile() {
    insta::assert_snapshot!(screen_with(GOOD, &profile("labtop")), @r"
    error[unknown-profile]: `--profile labtop`: there is no such profile
    help: did you mean `laptop`?
    ");
}

#[test]
fn a_problem_in_a_profile_is_shown_in_the_profile() {
    let text = GOOD.replace("lora: { r: 2 }", "lora: { r: 99, alpha: 1 }");
    assert!(load(&text).is_ok(), "a profile that is not chosen does not matter");
    insta::assert_snapshot!(screen_with(&text, &profile("laptop")), @r"
    error[out-of-range]: stage `adapter`: `r` is `99`, but must be a whole number from 1 to 64
     --> p.yaml:5:73
      |
    5 |   laptop: { vars: { size: 64 }, stages: { adapter: { with: { lora: { r: 99, alpha: 1 } } } } }
      |                                                                         ^^

    error[unknown-setting]: stage `adapter`: unknown setting `alpha`
     --> p.yaml:5:77
      |
    5 |   laptop: { vars: { size: 64 }, stages: { adapter: { with: { lora: { r: 99, alpha: 1 } } } } }
      |                                                                             ^^^^^
    help: the settings here are `r`
    ");
}

#[test]
fn a_profile_has_two_keys() {
    let shown = screen(&GOOD.replace("laptop: { vars:", "laptop: { with: {}, vars:"));
    insta::assert_snapshot!(shown, @r"
    error[unknown-key]: unknown key `with` in profile `laptop`
     --> p.yaml:5:13
      |
    5 |   laptop: { with: {}, vars: { size: 64 }, stages: { adapter: { with: { lora: { r: 2 } } } } }
      |             ^^^^
    help: the keys here are `vars`, `matrix`, `stages`
    ");
}

#[test]
fn bad_set_argument() {
    let options = sets(&[
        "stages.adapter.with.lora.r",
        "stages.adapter=8",
        "stages..with=8",
        "stage.adapter.with.lora.r=8",
        "name=x",
        "stages.adapter.with.lora.r.x=8",
        "stages.adapter.with.lora={ r: 8",
    ]);
    insta::assert_snapshot!(screen_with(GOOD, &options), @r"
    error[bad-set-argument]: there is no `=` in it
      --> --set stages.adapter.with.lora.r
                ^^^^^^^^^^^^^^^^^^^^^^^^^^
    help: the form is `vars.NAME=VALUE`, `matrix.NAME=[VALUE, ..]` or `stages.STAGE.with.SETTING=VALUE`

    error[bad-set-argument]: its path is too short
      --> --set stages.adapter=8
                ^^^^^^^^^^^^^^^^
    help: the form is `vars.NAME=VALUE`, `matrix.NAME=[VALUE, ..]` or `stages.STAGE.with.SETTING=VALUE`

    error[bad-set-argument]: there is an empty name in its path
      --> --set stages..with=8
                       ^
    help: the form is `vars.NAME=VALUE`, `matrix.NAME=[VALUE, ..]` or `stages.STAGE.with.SETTING=VALUE`

    error[bad-set-argument]: a path cannot begin with `stage`
      --> --set stage.adapter.with.lora.r=8
                ^^^^^
    help: did you mean `stages`?

    error[bad-set-argument]: a path cannot begin with `name`
      --> --set name=x
                ^^^^
    help: the names it can begin with are `vars`, `matrix`, `stages`

    error[bad-set-argument]: `stages.adapter.with.lora.r` is the number `4`, so `x` in it cannot be set
      --> --set stages.adapter.with.lora.r.x=8
                                           ^
    help: set all of it: `--set stages.adapter.with.lora.r=VALUE`

    error[yaml-syntax]: while parsing a flow mapping, did not find expected ',' or '}'
      --> --set stages.adapter.with.lora={ r: 8
                                               ^
    ");
}

#[test]
fn set_of_an_unknown_stage_or_var() {
    let shown = screen_with(GOOD, &sets(&["stages.adaptor.with.lora.r=8", "vars.sise=1", "stages.zzz.to=x"]));
    insta::assert_snapshot!(shown, @r"
    error[unknown-stage]: there is no stage `adaptor`
      --> --set stages.adaptor.with.lora.r=8
                       ^^^^^^^
    help: did you mean `adapter`?

    error[unknown-var]: there is no var `sise`
      --> --set vars.sise=1
                     ^^^^
    help: did you mean `size`?

    error[unknown-stage]: there is no stage `zzz`
      --> --set stages.zzz.to=x
                       ^^^
    help: the stages are `dataset`, `base`, `text`, `adapter`
    ");
}

#[test]
fn a_problem_of_a_set_argument_is_shown_in_the_argument() {
    let options = sets(&[
        "stages.adapter.with.lora.rr=8",
        "stages.adapter.with.lora.r=0",
        "stages.adapter.inputs.data=texd",
        "stages.dataset.with={ dataset: x, splid: y }",
        "stages.text.uses=[format]",
        "stages.base.wiht.name=x",
        "stages.base.to=${{ vars.zzz }}",
    ]);
    insta::assert_snapshot!(screen_with(GOOD, &options), @r"
    error[unknown-setting]: stage `adapter`: unknown setting `rr`
      --> --set stages.adapter.with.lora.rr=8
                                         ^^
    help: did you mean `r`?

    error[out-of-range]: stage `adapter`: `r` is `0`, but must be a whole number from 1 to 64
      --> --set stages.adapter.with.lora.r=0
                                           ^

    error[unknown-stage]: stage `adapter` takes `data` from `texd`, but no stage has that name
      --> --set stages.adapter.inputs.data=texd
                                           ^^^^
    help: did you mean `text`? (declared at line 9)

    error[unknown-setting]: stage `dataset`: unknown setting `splid`
      --> --set stages.dataset.with={ dataset: x, splid: y }
                                                  ^^^^^
    help: did you mean `split`?

    error[wrong-type]: `uses` of stage `text` must be text, found a list
      --> --set stages.text.uses=[format]
                                 ^^^^^^^^

    error[unknown-key]: unknown key `wiht` in stage `base`
      --> --set stages.base.wiht.name=x
                            ^^^^
    help: did you mean `with`?

    error[unknown-var]: there is no var `zzz`
      --> --set stages.base.to=${{ vars.zzz }}
                               ^^^^^^^^^^^^^^^
    help: the vars are `size`, `model`
    ");
}

// Settings.

#[test]
fn problems_of_settings_are_shown_where_they_are_written() {
    let text = GOOD
        .replace("with: { dataset: alpaca }", "with: { splt: train }")
        .replace("lora: { r: 4 } }", "lora: { r: 0, alpha: 2 }, learning_rate: fast }")
        .replace(
            "inputs: { rows: dataset } }",
            "inputs: { rows: dataset }, with: { template: alpacca, columns: [a, { b: c }] } }",
        );
    insta::assert_snapshot!(screen(&text), @r#"
    error[missing-setting]: stage `dataset`: there is no `dataset`
     --> p.yaml:7:28
      |
    7 |   dataset: { uses: source, with: { splt: train } }
      |                            ^^^^

    error[unknown-setting]: stage `dataset`: unknown setting `splt`
     --> p.yaml:7:36
      |
    7 |   dataset: { uses: source, with: { splt: train } }
      |                                    ^^^^
    help: did you mean `split`?

    error[out-of-range]: stage `text`: `template` is `alpacca`, but must be one of `alpaca`, `chatml`
     --> p.yaml:9:70
      |
    9 |   text: { uses: format, inputs: { rows: dataset }, with: { template: alpacca, columns: [a, { b: c }] } }
      |                                                                      ^^^^^^^
    help: did you mean `alpaca`?

    error[wrong-type]: stage `text`: `columns` must be a list of texts, found a list
     --> p.yaml:9:88
      |
    9 |   text: { uses: format, inputs: { rows: dataset }, with: { template: alpacca, columns: [a, { b: c }] } }
      |                                                                                        ^^^^^^^^^^^^^^

    error[out-of-range]: stage `adapter`: `r` is `0`, but must be a whole number from 1 to 64
      --> p.yaml:15:56
       |
    15 |     with: { max_length: "${{ vars.size }}", lora: { r: 0, alpha: 2 }, learning_rate: fast }
       |                                                        ^

    error[unknown-setting]: stage `adapter`: unknown setting `alpha`
      --> p.yaml:15:59
       |
    15 |     with: { max_length: "${{ vars.size }}", lora: { r: 0, alpha: 2 }, learning_rate: fast }
       |                                                           ^^^^^
    help: the settings here are `r`

    error[wrong-type]: stage `adapter`: `learning_rate` must be a number, found the text `fast`
      --> p.yaml:15:86
       |
    15 |     with: { max_length: "${{ vars.size }}", lora: { r: 0, alpha: 2 }, learning_rate: fast }
       |                                                                                      ^^^^
    "#);
}

#[test]
fn a_setting_that_is_missing_is_shown_at_with_or_at_the_kind() {
    let shown = screen_of_stages(&["a: { uses: source }", "b:", "  uses: source", "  with:", "    split: test"]);
    insta::assert_snapshot!(shown, @r"
    error[missing-setting]: stage `a`: there is no `dataset`
     --> p.yaml:3:14
      |
    3 |   a: { uses: source }
      |              ^^^^^^

    error[missing-setting]: stage `b`: there is no `dataset`
     --> p.yaml:6:5
      |
    6 |     with:
      |     ^^^^
    ");
}

#[test]
fn problems_below_an_alias_are_shown_at_the_alias() {
    let shown =
        screen_of_stages(&["a: { uses: model, with: &common { nane: big } }", "b: { uses: model, with: *common }"]);
    insta::assert_snapshot!(shown, @r"
    error[unknown-setting]: stage `a`: unknown setting `nane`
     --> p.yaml:3:37
      |
    3 |   a: { uses: model, with: &common { nane: big } }
      |                                     ^^^^
    help: did you mean `name`?

    error[unknown-setting]: stage `b`: unknown setting `nane`
     --> p.yaml:4:27
      |
    4 |   b: { uses: model, with: *common }
      |                           ^^^^^^^
    help: did you mean `name`?
    ");
}

// Screens as a whole.

#[test]
fn every_problem_of_a_pass_is_reported_in_the_order_of_the_file() {
    let text = GOOD
        .replace("rows: dataset", "rows: datasett")
        .replace("uses: model", "uses: modell")
        .replace("r: 4", "r: 400");
    let problems = load_with(&text, &sets(&["stages.adapter.with.zzz=1"])).expect_err("it has problems");
    let found: Vec<(&str, String)> = problems
        .iter()
        .map(|problem| (problem.slug, problem.location.as_ref().map(ToString::to_string).unwrap_or_default()))
        .collect();
    let expected = [
        ("unknown-kind", "p.yaml:8:17"),
        ("unknown-stage", "p.yaml:9:41"),
        ("out-of-range", "p.yaml:15:56"),
        ("unknown-setting", "--set stages.adapter.with.zzz=1"),
    ];
    assert_eq!(found, expected.map(|(slug, at)| (slug, at.to_string())));
}

#[test]
fn json_has_the_same_facts() {
    let problems = load("version: 1\nstages: { a: { uses: modell } }\n").expect_err("it has a problem");
    let shown = serde_json::to_string_pretty(&problems.to_json()).expect("it is JSON");
    insta::assert_snapshot!(shown, @r#"
    {
      "format_version": 1,
      "problems": [
        {
          "help": "did you mean `model`?",
          "location": {
            "column": 22,
            "file": "p.yaml",
            "length": 6,
            "line": 2
          },
          "message": "stage `a` uses `modell`, but there is no such stage kind",
          "notes": [],
          "slug": "unknown-kind"
        }
      ]
    }
    "#);
}

#[test]
fn colour_marks_header_arrow_and_caret() {
    let problems = load("version: 1\nstages: { a: { uses: modell } }\n").expect_err("it has a problem");
    insta::assert_snapshot!(problems.render(Colour::On).replace('\x1b', "ESC"), @r"
    ESC[1;31merror[unknown-kind]ESC[0mESC[1m: stage `a` uses `modell`, but there is no such stage kindESC[0m
     ESC[1;34m-->ESC[0m p.yaml:2:22
      ESC[1;34m|ESC[0m
    ESC[1;34m2ESC[0m ESC[1;34m|ESC[0m stages: { a: { uses: modell } }
      ESC[1;34m|ESC[0m                      ESC[1;31m^^^^^^ESC[0m
    ESC[1mhelpESC[0m: did you mean `model`?
    ");
}

#[test]
fn a_file_that_cannot_be_read() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let registry = Registry::new(vec![]);
    let screen = |path: &Path| {
        let problems = spec::load(path, &LoadOptions::default(), &registry).expect_err("it cannot be read");
        problems.to_string().replace(&folder.path().display().to_string(), "FOLDER")
    };
    let latin1 = folder.path().join("latin1.yaml");
    std::fs::write(&latin1, b"name: caf\xe9").expect("a file for the test");
    assert_eq!(
        screen(&folder.path().join("none.yaml")),
        "error[unreadable-file]: failed to read `FOLDER/none.yaml`: No such file or directory (os error 2)\n"
    );
    assert_eq!(
        screen(&latin1),
        "error[unreadable-file]: failed to read `FOLDER/latin1.yaml`: it is not UTF-8 (at byte 9)\n"
    );
}

#[test]
fn a_file_is_read_from_disk_with_or_without_a_byte_order_mark() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("job.yaml");
    let registry = Registry::new(vec![&MODEL]);
    for mark in ["", "\u{feff}"] {
        std::fs::write(&path, format!("{mark}version: 1\r\nstages: {{ base: {{ uses: model }} }}\r\n"))
            .expect("a file for the test");
        let pipeline = spec::load(&path, &LoadOptions::default(), &registry).expect("it has no problems");
        assert_eq!((pipeline.name.as_str(), pipeline.base_dir.as_path()), ("job", folder.path()));
    }
}

// Anything at all.

/// A failure prints its text, so no file has to remember it.
fn cases() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    /// A file with a few characters changed loads or has problems that can be shown; it never stops the program.
    #[test]
    fn no_text_is_a_panic(
        edits in prop::collection::vec((0..GOOD.len(), 0..3usize, "[-{}\\[\\]:,&*#$.!|>'\"\ta0é\n ]{0,3}"), 1..6),
    ) {
        let mut text = GOOD.to_string();
        for (at, n_removed, inserted) in edits {
            let bound = |idx: usize| (0..=idx).rev().find(|&idx| text.is_char_boundary(idx)).unwrap_or(0);
            text.replace_range(bound(at)..bound(at + n_removed), &inserted);
        }
        if let Err(problems) = load_with(&text, &profile("laptop")) {
            prop_assert!(!problems.is_empty());
            prop_assert!(problems.render(Colour::On).starts_with("\x1b[1;31merror["));
        }
    }

    /// The same for `--set`.
    #[test]
    fn no_argument_is_a_panic(argument in "(stages\\.adapter\\.with|vars|stages)?[a-z.=\\[{:&*!é\n\" ]{0,12}") {
        if let Err(problems) = load_with(GOOD, &sets(&[&argument])) {
            prop_assert!(problems.render(Colour::Off).starts_with("error["));
        }
    }
}
