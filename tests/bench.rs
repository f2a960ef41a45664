//! `pipe bench` through the real binary, on the small models of the parity fixtures.
#![cfg(feature = "stages")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

/// Of loss and gradient norm against PyTorch, relative: f32 rounding through one pass of a small model.
const PYTORCH_TOLERANCE: f64 = 1e-4;

fn fixture(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity").join(family)
}

/// Tensors of a safetensors file: name, then dtype, shape and bytes.
type Tensors = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

fn read_tensors(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).expect("the fixture");
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().expect("8 bytes")) as usize;
    let header: BTreeMap<String, Value> = serde_json::from_slice(&rest[..length]).expect("a header");
    let tensor = |(name, entry): (String, Value)| {
        let numbers = |key: &str| -> Vec<usize> { serde_json::from_value(entry[key].clone()).expect("numbers") };
        let [begin, end] = numbers("data_offsets")[..] else { panic!("two offsets") };
        let dtype = entry["dtype"].as_str().expect("a name").to_string();
        (name, (dtype, numbers("shape"), rest[length + begin..length + end].to_vec()))
    };
    header.into_iter().filter(|(name, _)| name != "__metadata__").map(tensor).collect()
}

fn write_tensors(path: &Path, tensors: &Tensors) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, (dtype, shape, bytes)) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert(name.clone(), json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }));
        data.extend_from_slice(bytes);
    }
    let header = serde_json::to_vec(&header).expect("JSON");
    let file = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
    std::fs::write(path, file).expect("a file");
}

fn numbers(tensors: &Tensors, name: &str) -> Vec<f64> {
    let (dtype, _, bytes) = &tensors[name];
    assert_eq!(dtype, "F32");
    bytes.as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect()
}

struct Work {
    folder: tempfile::TempDir,
    family: &'static str,
}

impl Work {
    /// A folder with `model`, the files of a model among others that are none of it.
    fn new(family: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir_all(folder.path().join("model/original")).expect("a folder");
        for (from, to) in [
            ("config.json", "config.json"),
            ("model.safetensors", "model.safetensors"),
            ("meta.json", "notes.json"),
            ("io.safetensors", "original/other.safetensors"),
        ] {
            std::fs::copy(fixture(family).join(from), folder.path().join("model").join(to)).expect("a copy");
        }
        Work { folder, family }
    }

    /// Writes `ids.safetensors` with columns of the fixture's under other names.
    fn ids(&self, names: &[(&str, &str)]) {
        let mut io = read_tensors(&fixture(self.family).join("io.safetensors"));
        let tensors = names.iter().map(|(from, to)| ((*to).to_string(), io.remove(*from).expect("a column"))).collect();
        write_tensors(&self.folder.path().join("ids.safetensors"), &tensors);
    }

    fn pipe(&self, arguments: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_pipe"))
            .current_dir(self.folder.path())
            .args(arguments.split_whitespace())
            .env_remove("PIPE_THREADS")
            .output()
            .expect("the binary starts")
    }

    fn train(&self, arguments: &str) -> Value {
        let output = self.pipe(&format!("bench train --model model {arguments} --json"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments}: {stderr}");
        serde_json::from_slice(&output.stdout).expect("one JSON object")
    }

    /// Exit code and standard error.
    fn fail(&self, arguments: &str) -> (Option<i32>, String) {
        let output = self.pipe(&format!("bench train --model model {arguments}"));
        assert!(output.stdout.is_empty(), "{arguments}: standard output is data");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    }
}

fn assert_close(case: &str, report: &Value, expected: [f64; 2]) {
    for (name, expected) in ["loss", "grad_norm"].into_iter().zip(expected) {
        let ours = report[name].as_f64().expect("a number");
        let difference = (ours - expected).abs() / expected;
        assert!(difference < PYTORCH_TOLERANCE, "{case}: {name} is {ours}, PyTorch's {expected}: {difference:e}");
    }
}

fn number(report: &Value, name: &str) -> f64 {
    report[name].as_f64().unwrap_or_else(|| panic!("`{name}` is a number in {report}"))
}

#[test]
fn loss_and_gradient_norm_equal_pytorchs() {
    for (family, engine) in [("llama", "native"), ("llama", "candle"), ("qwen2", "native"), ("qwen2", "candle")] {
        let work = Work::new(family);
        let meta = std::fs::read_to_string(fixture(family).join("meta.json")).expect("meta.json");
        let meta: Value = serde_json::from_str(&meta).expect("JSON");
        let case = |name: &str| ["loss", "grad_norm"].map(|field| number(&meta["cases"][name], field));
        let adapter = format!(
            "--adapter {} --ids ids.safetensors --batch 2 --steps 1 --engine {engine}",
            fixture(family).join("adapter").display()
        );

        work.ids(&[("input_ids", "input_ids"), ("labels", "labels")]);
        assert_close("plain", &work.train(&adapter), case("lora_plain"));

        work.ids(&[
            ("input_ids", "input_ids"),
            ("packed_labels", "labels"),
            ("position_ids", "position_ids"),
            ("doc_ids", "doc_ids"),
        ]);
        assert_close("packed", &work.train(&adapter), case("lora_packed"));

        let full = read_tensors(&fixture(family).join("full.safetensors"));
        let first = ["losses", "grad_norms"].map(|name| numbers(&full, &format!("t_full_wd01.{name}"))[0]);
        assert_close(
            "full",
            &work.train(&format!("--full --ids ids.safetensors --batch 2 --steps 1 --engine {engine}")),
            first,
        );
    }
}

#[test]
fn every_field_of_the_json() {
    for (engine, class) in [("native", "cpu-f32/"), ("candle", "candle-")] {
        check_every_field(engine, class);
    }
    let report = Work::new("llama").train("--length 32 --steps 1");
    assert_eq!((&report["engine"], &report["threads"]), (&json!("native"), &json!(n_threads())), "what is the default");
}

fn n_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn check_every_field(engine: &str, class: &str) {
    let work = Work::new("llama");
    let report = work.train(&format!(
        "--batch 3 --length 48 --documents 20 --supervised 0.74 --steps 1 --lora-r 4 --target-modules q_proj,v_proj,down_proj \
         --lora-dropout 0.05 --engine {engine} --threads 2",
    ));
    let fields: Vec<&String> = report.as_object().expect("an object").keys().collect();
    let expected = [
        "compute_class",
        "engine",
        "format_version",
        "grad_norm",
        "loss",
        "parts_seconds",
        "peak_gflops",
        "peak_rss_mib",
        "seconds_per_optimizer_step",
        "share_of_peak",
        "supervised_tokens_per_second",
        "threads",
        "tokens_per_second",
    ];
    assert_eq!(fields, expected);
    assert_eq!(
        (&report["format_version"], &report["threads"], &report["engine"]),
        (&json!(1), &json!(2), &json!(engine))
    );
    assert!(report["compute_class"].as_str().expect("text").starts_with(class), "{report}");
    let seconds = number(&report, "seconds_per_optimizer_step");
    let is_close = |a: f64, b: f64| (a - b).abs() < 1e-9 * b;
    assert!(is_close(number(&report, "tokens_per_second"), 144.0 / seconds), "{report}");
    // Documents of 20, 20 and 8 tokens: the last 15, 15 and 6 of each are supervised.
    assert!(is_close(number(&report, "supervised_tokens_per_second"), 108.0 / seconds), "{report}");
    let parts = report["parts_seconds"].as_object().expect("an object");
    let names: Vec<&String> = parts.keys().collect();
    let expected = [
        "adapter",
        "attention",
        "embedding",
        "head",
        "linear",
        "mlp",
        "norm",
        "optimizer",
        "other",
        "residual",
        "rope",
    ];
    assert_eq!(names, expected);
    let values: Vec<f64> = parts.values().map(|value| value.as_f64().expect("a number")).collect();
    // An engine may do one part together with another.
    assert!(values.iter().filter(|&&value| value > 0.0).count() >= 10, "every part takes time: {report}");
    assert!(is_close(values.iter().sum(), seconds), "the parts of one optimizer step are all of it: {report}");
    assert!(number(&report, "peak_gflops") > 0.1 && number(&report, "peak_rss_mib") > 1.0, "{report}");
    let share = number(&report, "share_of_peak");
    assert!(share > 0.0 && share < 1.0, "{report}");
    assert!(number(&report, "grad_norm") > 0.0);
    // Untrained on random tokens: about the logarithm of the vocabulary of 128, 4.85.
    assert!((number(&report, "loss") - 4.85).abs() < 1.5, "{report}");
}

#[test]
fn the_same_seed_gives_the_same_first_optimizer_step() {
    let work = Work::new("llama");
    let first = |arguments: &str| {
        let report = work.train(&format!("--length 32 --steps 1 --lora-dropout 0.5 {arguments}"));
        ["loss", "grad_norm"].map(|name| number(&report, name))
    };
    let with_defaults = first("");
    assert_eq!(first("--seed 42 --threads 1 --lora-r 16 --batch 4 --target-modules q_proj,v_proj"), with_defaults);
    assert_ne!(first("--seed 43"), with_defaults);
    assert_ne!(first("--target-modules all-linear"), with_defaults);
}

#[test]
fn the_text_says_what_the_share_is_of() {
    let work = Work::new("llama");
    let output = work.pipe("bench train --model model --length 32 --steps 2");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    for expected in ["median of 2", "share of the peak", "  matrices", "visible pairs", "peak memory", "  attention"] {
        assert!(stdout.contains(expected), "`{expected}` is missing:\n{stdout}");
    }
    let begins: Vec<&str> = stderr.lines().map(|line| line.split("  ").next().unwrap_or_default()).collect();
    assert!(begins[0].starts_with("memory: ") && begins[0].contains("nothing recomputed"), "{stderr}");
    assert_eq!(begins[1..], ["warm-up", "1/2", "2/2"]);
}

#[test]
fn what_cannot_be_measured_says_why() {
    let work = Work::new("llama");
    work.ids(&[("labels", "labels")]);
    for (arguments, expected) in [
        ("--model nowhere", "cannot be used multiple times"),
        ("--length 65", "position 64 is outside the 64 positions of the model"),
        ("--length 32 --documents 1", "error[bad-argument]: documents of 1 tokens do not fit"),
        ("--length 32 --supervised 1.5", "error[bad-argument]: the share of supervised tokens is 1.5"),
        ("--length 32 --lora-r 0", "error[bad-argument]: `r` is `0`, but must be a whole number from 1 to 1024\n"),
        ("--length 32 --engine candel", "error[bad-argument]: `engine` is `candel`"),
        ("--length 32 --target-modules query", "no linear module is called `query`"),
        ("--adapter nowhere", "error[io]: failed to read the folder `nowhere`"),
        (
            "--ids ids.safetensors",
            "error[bad-ids]: `ids.safetensors` cannot be used: the tensor `input_ids` is missing",
        ),
        ("--full --lora-r 4", "cannot be used with"),
        ("--ids ids.safetensors --documents 8", "cannot be used with"),
        ("--threads 0", "error[bad-threads]: --threads is `0`"),
        ("--steps 0", "0 is not in 1..=65535"),
    ] {
        let (code, stderr) = work.fail(arguments);
        assert_eq!(code, Some(2), "{arguments}: {stderr}");
        assert!(stderr.contains(expected), "{arguments}: `{expected}` is not in:\n{stderr}");
    }
    // Nothing to learn shows in the optimizer step: it is the training that fails.
    let mut tensors = read_tensors(&fixture("llama").join("io.safetensors"));
    let ids = tensors.remove("input_ids").expect("ids");
    let labels = (ids.0.clone(), ids.1.clone(), (-100_i64).to_le_bytes().repeat(ids.2.len() / 8));
    let tensors = Tensors::from([("input_ids".to_string(), ids), ("labels".to_string(), labels)]);
    write_tensors(&work.folder.path().join("ids.safetensors"), &tensors);
    let (code, stderr) = work.fail("--ids ids.safetensors --steps 1");
    assert!(code == Some(1) && stderr.contains("error[nothing-to-learn]"), "{code:?}: {stderr}");
}

#[test]
fn the_matrices_of_a_model() {
    let work = Work::new("llama");
    let output = work.pipe("bench gemm --model model --length 40 --threads 2 --json");
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((&report["format_version"], &report["threads"]), (&json!(1), &json!(2)));
    assert!(number(&report, "all_gflops") > 0.0 && number(&report, "peak_gflops") > 0.0, "{report}");
    let products = report["products"].as_array().expect("a list");
    let facts = |p: &Value| {
        [&p["modules"], &p["n_matrices"], &p["n_out"], &p["n_in"], &p["n_rows"], &p["dtype"]].map(Value::clone)
    };
    let found: Vec<Value> = products.iter().map(|p| Value::from(facts(p).to_vec())).collect();
    let expected = [
        json!([["k_proj", "v_proj"], 4, 16, 32, 40, "f32"]),
        json!([["o_proj", "q_proj"], 4, 32, 32, 40, "f32"]),
        json!([["down_proj"], 2, 32, 88, 40, "f32"]),
        json!([["gate_proj", "up_proj"], 4, 88, 32, 40, "f32"]),
        json!([["lm_head"], 1, 128, 32, 40, "f32"]),
    ];
    assert_eq!(found, expected);
    for name in ["forward_gflops", "input_gradient_gflops", "weight_gradient_gflops"] {
        assert!(products.iter().all(|product| number(product, name) > 0.0), "{name}: {report}");
    }
    let text = String::from_utf8(work.pipe("bench gemm --model model").stdout).expect("text");
    assert!(text.contains("4 of gate_proj, up_proj") && text.contains("1,024 x 88 x 32"), "{text}");
    let output = work.pipe("bench gemm --model nowhere");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn the_peak_of_the_machine() {
    let work = Work::new("llama");
    let output = work.pipe("bench peak --threads 2 --json");
    let peak: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((&peak["format_version"], &peak["threads"]), (&json!(1), &json!(2)));
    // One thread alone may be faster than two that other work disturbs.
    assert!(number(&peak, "one_thread_gflops") > 0.1, "{peak}");
    let larger = ["registers_gflops", "product_gflops"].map(|name| number(&peak, name)).into_iter().fold(0.1, f64::max);
    assert_eq!(number(&peak, "peak_gflops"), larger, "{peak}");
    let text = String::from_utf8(work.pipe("bench peak").stdout).expect("text");
    assert!(text.starts_with("f32 peak ") && text.contains("GFLOP/s"), "{text}");
}
