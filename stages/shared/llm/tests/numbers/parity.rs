//! Our model against PyTorch + PEFT: logits, gradients and training curves.
//!
//! The same tests run on the small fixtures of this repository and, where PIPE_TEST_DATA names them, on larger ones.

use std::collections::HashMap;
use std::io::Write as _;

use crate::common::{FAMILIES, Parity, fixtures, largest_difference, relative_difference, test_data};
use candle_core::{DType, Device, IndexOp, Tensor};
use pipe_llm::engine::Sums;
use pipe_llm::merge::Update;
use pipe_llm::optimizer::AdamWSettings;
use pipe_llm::schedule::{Schedule, ScheduleType};
use pipe_llm::trainer::{Trained, Trainer};
use pipe_llm::weights::{self, WeightFiles};
use pipe_llm::{Adapter, CandleEngine, Engine, LlmError, ModelConfig, Program, Sequence};

/// PyTorch's own f32 error on these models is 2e-6 to 6e-6 (meta.json, `f32_vs_f64_logits_max_abs`).
const LOGITS_TOLERANCE: f64 = 3e-5;
/// f32 rounding through a backward pass, relative, per tensor.
const GRADIENT_TOLERANCE: f64 = 1e-4;
/// Losses of twenty optimizer steps, absolute, in nats.
const CURVE_TOLERANCE: f64 = 1e-4;
/// Adapters after those, relative, per tensor: Adam divides by small numbers, so rounding grows.
const ADAPTER_TOLERANCE: f64 = 1e-3;

#[test]
fn llama_fixture_equals_pytorch() {
    check_fixture("llama");
}

#[test]
fn qwen2_fixture_equals_pytorch() {
    check_fixture("qwen2");
}

#[test]
fn llama3_fixture_equals_pytorch() {
    check_fixture("llama3");
}

#[test]
fn mistral_fixture_equals_pytorch() {
    check_fixture("mistral");
}

#[test]
fn qwen2_window_fixture_equals_pytorch() {
    check_fixture("qwen2_window");
}

#[test]
fn qwen3_fixture_equals_pytorch() {
    check_fixture("qwen3");
}

#[test]
fn phi3_fixture_equals_pytorch() {
    check_fixture("phi3");
}

#[test]
fn gemma2_fixture_equals_pytorch() {
    check_fixture("gemma2");
}

#[test]
fn gemma3_fixture_equals_pytorch() {
    check_fixture("gemma3");
}

#[test]
fn gpt2_fixture_equals_pytorch() {
    check_fixture("gpt2");
}

/// Logits, adapters and full training of one of our own folders.
fn check_fixture(family: &str) {
    let mut seen = Seen::default();
    check_folder(fixtures().join(family), &mut seen);
    check_full_training(family, &mut seen);
    let Seen { logits, gradients, curves } = seen;
    writeln!(
        std::io::stderr(),
        "{family}: logits differ by at most {logits:.1e}, gradients by {gradients:.1e} relative, losses of 20 optimizer steps by {curves:.1e}"
    )
    .expect("stderr can be written");
}

/// The largest differences of a folder.
#[derive(Default)]
struct Seen {
    logits: f64,
    gradients: f64,
    curves: f64,
}

#[test]
fn nano_equals_pytorch() {
    if let Some(data) = test_data("nano_equals_pytorch") {
        check_folder(data.join("parity/nano"), &mut Seen::default());
    }
}

#[test]
fn qwen2_equals_pytorch() {
    if let Some(data) = test_data("qwen2_equals_pytorch") {
        check_folder(data.join("parity/qwen2"), &mut Seen::default());
    }
}

#[test]
fn stories260k_equals_pytorch() {
    let Some(data) = test_data("stories260k_equals_pytorch") else { return };
    let model = data.join("models/stories260K");
    let config =
        ModelConfig::from_json(&std::fs::read_to_string(model.join("config.json")).expect("config")).expect("a Llama");
    let program = Program::new(&config, &[]).expect("no targets");
    let files = vec![("model.safetensors".into(), model.join("model.safetensors"))];
    let files = WeightFiles::open(files).expect("readable");
    let weights = weights::load(&program, &files, &Device::Cpu).expect("weights");
    let engine = CandleEngine::new(program, weights, config.max_positions, Device::Cpu, DType::F32).expect("an engine");
    let reference = candle_core::safetensors::load(data.join("reference/stories260K.safetensors"), &Device::Cpu)
        .expect("reference");
    let ids: Vec<u32> = reference["input_ids"].to_vec1::<i64>().expect("ids").iter().map(|&id| id as u32).collect();
    let sequence = Sequence::plain(&config, &ids).expect("a sequence");
    let difference = largest_difference(&engine.logits(None, &sequence).expect("logits"), &reference["logits"]);
    assert!(difference < LOGITS_TOLERANCE, "logits differ by {difference:e}");
    let loss = engine.loss(None, &sequence).expect("loss") / sequence.targets.len() as f64;
    // `loss` of reference/stories260K.json.
    assert!((loss - 4.487_882_614_135_742).abs() < 1e-5, "loss {loss}");
}

#[test]
fn both_ways_to_write_rotary_positions_give_the_same_logits() {
    for family in FAMILIES {
        let parity = Parity::open(fixtures().join(family));
        if parity.config.ropes.is_empty() {
            continue;
        }
        let classic = std::fs::read_to_string(parity.folder.join("config_classic.json")).expect("config_classic.json");
        assert!(classic.contains("\"rope_theta\"") && !classic.contains("rope_parameters"));
        let classic = ModelConfig::from_json(&classic).expect("a supported config");
        let targets = &parity.lora_config("adapter").target_modules;
        let sequence = &parity.batch(0, false)[0];
        let logits_of = |config: &ModelConfig| {
            let engine = parity.engine_for(Program::new(config, targets).expect("targets"), DType::F32);
            engine.logits(None, sequence).expect("logits").to_vec2::<f32>().expect("f32")
        };
        assert_eq!(logits_of(&classic), logits_of(&parity.config), "{family}");
        for rope in 0..classic.ropes.len() {
            let mut other = parity.config.clone();
            other.ropes[rope].theta *= 2.0;
            assert_ne!(logits_of(&other), logits_of(&parity.config), "{family}: theta of rope {rope} matters");
        }
    }
}

#[test]
fn targets_are_those_that_peft_takes() {
    for (family, is_default) in [("llama", true), ("llama3", true), ("mistral", true), ("gemma2", true)]
        .into_iter()
        .chain(["qwen2", "qwen2_window", "qwen3", "phi3", "gemma3", "gpt2"].map(|family| (family, false)))
    {
        let parity = Parity::open(fixtures().join(family));
        let default = parity.config.architecture.default_targets().unwrap_or_default();
        let mut expected = parity.lora_config("adapter").target_modules;
        expected.sort();
        let ours = if is_default {
            default.iter().map(|t| (*t).to_string()).collect()
        } else {
            Program::all_linear(&parity.config)
        };
        assert_eq!(ours, expected, "{family}");
        let fan_in_fan_out = parity.lora_config("adapter").fan_in_fan_out;
        assert_eq!(fan_in_fan_out, parity.config.architecture.fan_in_fan_out(), "{family}");
    }
}

#[test]
fn a_merged_model_computes_what_base_and_adapter_do() {
    for family in FAMILIES {
        let parity = Parity::open(fixtures().join(family));
        let engine = parity.engine(DType::F32);
        let adapter = parity.adapter("adapter", &engine);
        let mut weights = engine.weights().to_vec();
        for (module, adapted) in adapter.modules.iter().zip(&engine.program().adapted) {
            let name = format!("{}.weight", module.path);
            let weight_idx = engine.program().weights.iter().position(|w| w.name == name).expect("its matrix");
            let mut values = weights[weight_idx].flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("f32");
            Update::new(&adapter, module, adapted.layout).expect("an update").add_to(&mut values);
            let shape = weights[weight_idx].dims().to_vec();
            weights[weight_idx] = Tensor::from_vec(values, shape, &Device::Cpu).expect("a matrix");
        }
        let program = Program::new(&parity.config, &[]).expect("no targets");
        let n_positions = parity.config.max_positions;
        let merged = CandleEngine::new(program, weights, n_positions, Device::Cpu, DType::F32).expect("an engine");
        let sequence = &parity.batch(0, true)[0];
        let expected = engine.logits(Some(&adapter), sequence).expect("logits");
        let difference = largest_difference(&merged.logits(None, sequence).expect("logits"), &expected);
        assert!(difference < LOGITS_TOLERANCE, "{family}: merged logits differ by {difference:e}");
    }
}

fn check_folder(folder: std::path::PathBuf, seen: &mut Seen) {
    let parity = Parity::open(folder);
    let candle = parity.engine(DType::F32);
    let mut n_checked = 0;
    for (case, adapter, is_packed) in [
        ("base", None, false),
        ("base_packed", None, true),
        ("init_plain", Some("adapter_init"), false),
        ("lora_plain", Some("adapter"), false),
        ("lora_packed", Some("adapter"), true),
    ] {
        let adapter = adapter.map(|name| parity.adapter(name, &candle));
        let batch = parity.batch(0, is_packed);
        n_checked += check_logits(&parity, &candle, case, adapter.as_ref(), &batch, seen);
        for (name, engine) in parity.engines_for(&parity.program()) {
            let case = Case { parity: &parity, engine_name: name, engine: &engine, name: case };
            n_checked += case.check_loss(adapter.as_ref(), &batch);
            if let Some(adapter) = &adapter {
                n_checked += case.check_gradients(adapter, &batch, seen);
            }
        }
    }
    let meta: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(parity.folder.join("meta.json")).expect("meta.json"))
            .expect("JSON");
    for (case, settings) in meta["cases"].as_object().expect("cases").iter().filter(|(name, _)| name.starts_with("t_"))
    {
        for (name, engine) in parity.engines_for(&parity.program()) {
            n_checked += check_training(&parity, case, settings, name, engine, seen);
        }
    }
    assert!(n_checked > 30, "only {n_checked} tensors were compared");
}

fn check_full_training(family: &str, seen: &mut Seen) {
    let parity = Parity::open(fixtures().join(family));
    let expected =
        candle_core::safetensors::load(parity.folder.join("full.safetensors"), &Device::Cpu).expect("full.safetensors");
    for (name, engine) in parity.engines_for(&Program::full(&parity.config, &[]).expect("all")) {
        check_full_gradients(&format!("{family}, {name} engine"), &parity, &engine, &expected, seen);
        check_full_curve(&format!("{family}, {name} engine"), &parity, engine, &expected, seen);
    }
}

fn check_full_gradients(
    family: &str,
    parity: &Parity,
    engine: &Engine,
    expected: &HashMap<String, Tensor>,
    seen: &mut Seen,
) {
    let batch = parity.batch(0, true);
    let Sums { loss, gradients } = engine.sums::<LlmError>(None, &batch, None, |_| Ok(())).expect("gradients");
    let factor = 1.0 / batch.iter().map(|s| s.targets.len()).sum::<usize>() as f64;
    let expected_loss = f64::from(expected["full_packed.loss"].to_scalar::<f32>().expect("a number"));
    assert!((loss * factor - expected_loss).abs() < 1e-5, "{family}: loss {}", loss * factor);
    assert_eq!(gradients.len(), engine.program().weights.len());
    for (spec, gradient) in engine.program().weights.iter().zip(gradients) {
        let expected = &expected[&format!("full_packed.grad.{}", spec.name)];
        let difference = relative_difference(&scaled(gradient, factor, expected), expected);
        seen.gradients = seen.gradients.max(difference);
        assert!(difference < GRADIENT_TOLERANCE, "{family}: gradient of {} differs by {difference:e}", spec.name);
    }
}

/// A gradient of a sum as the gradient of a mean, in the shape of the expected one.
fn scaled(gradient: Option<Vec<f32>>, factor: f64, expected: &Tensor) -> Tensor {
    let gradient = gradient.expect("the backward wrote it");
    Tensor::from_vec(gradient, expected.dims(), &Device::Cpu).and_then(|t| t * factor).expect("scaled")
}

fn check_full_curve(
    family: &str,
    parity: &Parity,
    engine: Engine,
    expected: &HashMap<String, Tensor>,
    seen: &mut Seen,
) {
    let settings = AdamWSettings { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.1, max_grad_norm: 1.0 };
    let schedule = Schedule { schedule_type: ScheduleType::Linear, peak: 2e-3, n_warmup_steps: 2, n_steps: 20 };
    let mut trainer = Trainer::new(engine, Trained::Weights, settings, schedule, 0);
    let column = |name: &str| expected[&format!("t_full_wd01.{name}")].to_vec1::<f32>().expect("20 numbers");
    for (step_idx, (loss, norm)) in column("losses").into_iter().zip(column("grad_norms")).enumerate() {
        let report = trainer.step::<LlmError>(&parity.batch(step_idx % 4, true), |_| Ok(())).expect("a step");
        let (d_loss, d_norm) =
            ((report.loss - f64::from(loss)).abs(), (report.grad_norm / f64::from(norm) - 1.0).abs());
        seen.curves = seen.curves.max(d_loss);
        assert!(d_loss < CURVE_TOLERANCE, "{family}, step {step_idx}: loss {} against {loss}", report.loss);
        assert!(d_norm < 1e-3, "{family}, step {step_idx}: norm {} against {norm}", report.grad_norm);
    }
    for parameter in trainer.parameters() {
        let (ours, expected) = (parameter.tensor, &expected[&format!("t_full_wd01.step20.{}", parameter.name)]);
        let (ours, expected) = if parameter.name.ends_with("c_attn.bias") {
            (without_k(ours), without_k(expected))
        } else {
            (ours.clone(), expected.clone())
        };
        let difference = relative_difference(&ours, &expected);
        assert!(difference < ADAPTER_TOLERANCE, "{family}: {} differs by {difference:e}", parameter.name);
    }
}

fn check_logits(
    parity: &Parity,
    engine: &CandleEngine,
    case: &str,
    adapter: Option<&Adapter>,
    batch: &[Sequence],
    seen: &mut Seen,
) -> usize {
    let mut n_checked = 0;
    for (name, expected) in parity.expected.iter().filter(|(name, _)| name.starts_with(&format!("{case}.logits"))) {
        let logits: Vec<Tensor> = batch.iter().map(|s| engine.logits(adapter, s).expect("logits")).collect();
        let ours = match name.find("_row") {
            None => Tensor::stack(&logits, 0).expect("same shapes"),
            Some(at) => {
                let row = usize::from(name.as_bytes()[at + 4] == b'1');
                let n_rows = expected.dims2().expect("(T, V)").0;
                logits[row].i(logits[row].dims2().expect("(T, V)").0 - n_rows..).expect("the last rows")
            }
        };
        let difference = largest_difference(&ours, expected);
        seen.logits = seen.logits.max(difference);
        assert!(difference < LOGITS_TOLERANCE, "{name}: logits differ by {difference:e}");
        n_checked += 1;
    }
    n_checked
}

/// The bias of q and v. That of k moves all scores of a row by the same, so its gradient is 0, and what Adam makes of its rounding is noise.
fn without_k(bias: &Tensor) -> Tensor {
    let width = bias.dims1().expect("a vector") / 3;
    let part = |i: usize| bias.narrow(0, i * width, width).expect("a third");
    Tensor::cat(&[part(0), part(2)], 0).expect("a vector")
}

/// Numbers of one name on one engine.
struct Case<'p> {
    parity: &'p Parity,
    engine_name: &'static str,
    engine: &'p Engine,
    name: &'p str,
}

impl Case<'_> {
    fn check_loss(&self, adapter: Option<&Adapter>, batch: &[Sequence]) -> usize {
        let Case { name: case, engine_name, .. } = self;
        let n_supervised: usize = batch.iter().map(|s| s.targets.len()).sum();
        let sum: f64 = batch.iter().map(|s| self.engine.loss(adapter, s).expect("loss")).sum();
        let loss = sum / n_supervised as f64;
        let expected = self.parity.expected[&format!("{case}.loss")].to_scalar::<f32>().expect("a number");
        assert!((loss - f64::from(expected)).abs() < 1e-5, "{case}, {engine_name}: loss {loss}, expected {expected}");
        1
    }

    fn check_gradients(&self, adapter: &Adapter, batch: &[Sequence], seen: &mut Seen) -> usize {
        let Case { name: case, engine_name, .. } = self;
        let sums = self.engine.sums::<LlmError>(Some(adapter), batch, None, |_| Ok(())).expect("gradients");
        let factor = 1.0 / batch.iter().map(|s| s.targets.len()).sum::<usize>() as f64;
        let mut n_checked = 0;
        for (module, gradients) in adapter.modules.iter().zip(sums.gradients.chunks_exact(2)) {
            let (a_name, b_name) = pipe_llm::adapter::tensor_names(&module.path);
            for (name, gradient, like) in [(a_name, &gradients[0], &module.a), (b_name, &gradients[1], &module.b)] {
                let gradient = scaled(gradient.clone(), factor, like);
                match self.parity.expected.get(&format!("{case}.grad.{name}")) {
                    Some(expected) => {
                        let difference = relative_difference(&gradient, expected);
                        seen.gradients = seen.gradients.max(difference);
                        assert!(
                            difference < GRADIENT_TOLERANCE,
                            "{case}, {engine_name}: gradient of {name} differs by {difference:e}"
                        );
                        n_checked += 1;
                    }
                    // With B = 0 the gradient of A is exactly zero; some folders do not store it.
                    None => assert!(
                        *case == "init_plain" && name.contains("lora_A"),
                        "{case}.grad.{name} is not in the fixture"
                    ),
                }
                if *case == "init_plain" && name.contains("lora_A") {
                    let zero = gradient.zeros_like().expect("zeros");
                    assert_eq!(largest_difference(&gradient, &zero), 0.0, "{name}: B is zero, so A has no gradient");
                }
            }
        }
        n_checked
    }
}

fn check_training(
    parity: &Parity,
    case: &str,
    settings: &serde_json::Value,
    engine_name: &str,
    engine: Engine,
    seen: &mut Seen,
) -> usize {
    let number = |name: &str| settings[name].as_f64().unwrap_or_else(|| panic!("{case}: no {name} in meta.json"));
    let adapter = parity.adapter_for(settings["start"].as_str().expect("start"), engine.program());
    let is_linear = settings["schedule"].as_str().expect("schedule").starts_with("linear, 2 warm-up of 20");
    let schedule_type = if is_linear { ScheduleType::Linear } else { ScheduleType::Constant };
    let optimizer_settings = AdamWSettings {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: number("eps"),
        weight_decay: number("weight_decay"),
        max_grad_norm: number("clip"),
    };
    let schedule = Schedule { schedule_type, peak: number("lr"), n_warmup_steps: 2, n_steps: 20 };
    let mut trainer = Trainer::new(engine, Trained::Adapter(adapter), optimizer_settings, schedule, 0);
    let column = |name: &str| -> Vec<f64> {
        parity.expected[&format!("{case}.{name}")].to_dtype(DType::F64).and_then(|t| t.to_vec1()).expect("20 numbers")
    };
    let (losses, norms) = (column("losses"), column("grad_norms"));
    let is_packed = settings["packed"].as_bool().expect("packed");
    let mut n_checked = 0;
    for (step_idx, (loss, norm)) in losses.iter().zip(&norms).enumerate() {
        let report =
            trainer.step::<LlmError>(&parity.batch(step_idx % 4, is_packed), |_| Ok(())).expect("an optimizer step");
        seen.curves = seen.curves.max((report.loss - loss).abs());
        assert!(
            (report.loss - loss).abs() < CURVE_TOLERANCE,
            "{case}, {engine_name}, step {step_idx}: loss {}, expected {loss}",
            report.loss
        );
        assert!(
            (report.grad_norm / norm - 1.0).abs() < 1e-3,
            "{case}, {engine_name}, step {step_idx}: norm {}, expected {norm}",
            report.grad_norm
        );
        n_checked += check_adapter(parity, &trainer, &format!("{case}.step{}.", step_idx + 1)) + 1;
    }
    n_checked
}

fn check_adapter(parity: &Parity, trainer: &Trainer, prefix: &str) -> usize {
    let mut n_checked = 0;
    for module in &trainer.adapter().expect("one is trained").modules {
        let (a_name, b_name) = pipe_llm::adapter::tensor_names(&module.path);
        for (name, tensor) in [(a_name, &module.a), (b_name, &module.b)] {
            if let Some(expected) = parity.expected.get(&format!("{prefix}{name}")) {
                let difference = relative_difference(tensor, expected);
                assert!(difference < ADAPTER_TOLERANCE, "{prefix}{name} differs by {difference:e}");
                n_checked += 1;
            }
        }
    }
    n_checked
}
