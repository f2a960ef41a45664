//! Our model against PyTorch + PEFT: logits, gradients and training curves.
//!
//! The same tests run on the small fixtures of this repository and, where PIPE_TEST_DATA names them, on larger ones.

use std::collections::HashMap;

use crate::common::{Parity, fixtures, largest_difference, relative_difference, test_data};
use candle_core::{DType, Device, IndexOp, Tensor};
use pipe_llm::engine::GradientSum;
use pipe_llm::optimizer::AdamWSettings;
use pipe_llm::schedule::{Schedule, ScheduleType};
use pipe_llm::trainer::{Trained, Trainer};
use pipe_llm::weights::{self, WeightFiles};
use pipe_llm::{CandleEngine, Engine, LlmError, ModelConfig, Program, Sequence};

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
    check_folder(fixtures().join("llama"));
}

#[test]
fn qwen2_fixture_equals_pytorch() {
    check_folder(fixtures().join("qwen2"));
}

#[test]
fn nano_equals_pytorch() {
    if let Some(data) = test_data("nano_equals_pytorch") {
        check_folder(data.join("parity/nano"));
    }
}

#[test]
fn qwen2_equals_pytorch() {
    if let Some(data) = test_data("qwen2_equals_pytorch") {
        check_folder(data.join("parity/qwen2"));
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
fn both_ways_to_write_rope_theta_give_the_same_logits() {
    for family in ["llama", "qwen2"] {
        let parity = Parity::open(fixtures().join(family));
        let classic = std::fs::read_to_string(parity.folder.join("config_classic.json")).expect("config_classic.json");
        assert!(classic.contains("\"rope_theta\"") && !classic.contains("rope_parameters"));
        let classic = ModelConfig::from_json(&classic).expect("a supported config");
        let program = Program::new(&classic, &parity.lora_config("adapter").target_modules).expect("targets");
        let sequence = &parity.batch(0, false)[0];
        let logits =
            |engine: CandleEngine| engine.logits(None, sequence).expect("logits").to_vec2::<f32>().expect("f32");
        assert_eq!(logits(parity.engine_for(program, DType::F32)), logits(parity.engine(DType::F32)), "{family}");
        let other = ModelConfig { rope_theta: 10_000.0, ..parity.config.clone() };
        let program = Program::new(&other, &parity.lora_config("adapter").target_modules).expect("targets");
        assert_ne!(
            logits(parity.engine_for(program, DType::F32)),
            logits(parity.engine(DType::F32)),
            "{family}: theta matters"
        );
    }
}

fn check_folder(folder: std::path::PathBuf) {
    let parity = Parity::open(folder);
    let engine = parity.engine(DType::F32);
    let mut n_checked = 0;
    for (case, adapter, is_packed) in [
        ("base", None, false),
        ("base_packed", None, true),
        ("init_plain", Some("adapter_init"), false),
        ("lora_plain", Some("adapter"), false),
        ("lora_packed", Some("adapter"), true),
    ] {
        let adapter = adapter.map(|name| parity.adapter(name, &engine));
        let batch = parity.batch(0, is_packed);
        n_checked += check_logits(&parity, &engine, case, adapter.as_ref(), &batch);
        n_checked += check_loss(&parity, &engine, case, adapter.as_ref(), &batch);
        if let Some(adapter) = &adapter {
            n_checked += check_gradients(&parity, &engine, case, adapter, &batch);
        }
    }
    let meta: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(parity.folder.join("meta.json")).expect("meta.json"))
            .expect("JSON");
    for (case, settings) in meta["cases"].as_object().expect("cases").iter().filter(|(name, _)| name.starts_with("t_"))
    {
        for (name, engine) in parity.engines_for(&parity.program()) {
            n_checked += check_training(&parity, case, settings, name, engine);
        }
    }
    assert!(n_checked > 30, "only {n_checked} tensors were compared");
}

#[test]
fn full_training_equals_pytorch() {
    for family in ["llama", "qwen2"] {
        let parity = Parity::open(fixtures().join(family));
        let expected = candle_core::safetensors::load(parity.folder.join("full.safetensors"), &Device::Cpu)
            .expect("full.safetensors");
        let engine = parity.engine_for(Program::full(&parity.config, &[]).expect("all"), DType::F32);
        check_full_gradients(family, &parity, &engine, &expected);
        for (name, engine) in parity.engines_for(engine.program()) {
            check_full_curve(&format!("{family}, {name} engine"), &parity, engine, &expected);
        }
    }
}

fn check_full_gradients(family: &str, parity: &Parity, engine: &CandleEngine, expected: &HashMap<String, Tensor>) {
    let batch = parity.batch(0, true);
    let mut sums = GradientSum::new(engine.program());
    let mut loss = 0.0;
    for sequence in &batch {
        loss += engine.loss_and_gradients(None, sequence, None, &mut sums).expect("gradients");
    }
    let factor = 1.0 / batch.iter().map(|s| s.targets.len()).sum::<usize>() as f64;
    let expected_loss = f64::from(expected["full_packed.loss"].to_scalar::<f32>().expect("a number"));
    assert!((loss * factor - expected_loss).abs() < 1e-5, "{family}: loss {}", loss * factor);
    assert_eq!(sums.tensors.len(), engine.program().weights.len());
    for (spec, sum) in engine.program().weights.iter().zip(sums.tensors) {
        let gradient = (sum.expect("the backward wrote it") * factor).expect("scaled");
        let difference = relative_difference(&gradient, &expected[&format!("full_packed.grad.{}", spec.name)]);
        assert!(difference < GRADIENT_TOLERANCE, "{family}: gradient of {} differs by {difference:e}", spec.name);
    }
}

fn check_full_curve(family: &str, parity: &Parity, engine: Engine, expected: &HashMap<String, Tensor>) {
    let settings = AdamWSettings { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.1, max_grad_norm: 1.0 };
    let schedule = Schedule { schedule_type: ScheduleType::Linear, peak: 2e-3, n_warmup_steps: 2, n_steps: 20 };
    let mut trainer = Trainer::new(engine, Trained::Weights, settings, schedule, 0);
    let column = |name: &str| expected[&format!("t_full_wd01.{name}")].to_vec1::<f32>().expect("20 numbers");
    for (step_idx, (loss, norm)) in column("losses").into_iter().zip(column("grad_norms")).enumerate() {
        let report = trainer.step::<LlmError>(&parity.batch(step_idx % 4, true), |_| Ok(())).expect("a step");
        let (d_loss, d_norm) =
            ((report.loss - f64::from(loss)).abs(), (report.grad_norm / f64::from(norm) - 1.0).abs());
        assert!(d_loss < CURVE_TOLERANCE, "{family}, step {step_idx}: loss {} against {loss}", report.loss);
        assert!(d_norm < 1e-3, "{family}, step {step_idx}: norm {} against {norm}", report.grad_norm);
    }
    for parameter in trainer.parameters() {
        let expected = &expected[&format!("t_full_wd01.step20.{}", parameter.name)];
        let difference = relative_difference(parameter.tensor, expected);
        assert!(difference < ADAPTER_TOLERANCE, "{family}: {} differs by {difference:e}", parameter.name);
    }
}

fn check_logits(
    parity: &Parity,
    engine: &CandleEngine,
    case: &str,
    adapter: Option<&pipe_llm::Adapter>,
    batch: &[Sequence],
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
        assert!(difference < LOGITS_TOLERANCE, "{name}: logits differ by {difference:e}");
        n_checked += 1;
    }
    n_checked
}

fn check_loss(
    parity: &Parity,
    engine: &CandleEngine,
    case: &str,
    adapter: Option<&pipe_llm::Adapter>,
    batch: &[Sequence],
) -> usize {
    let n_supervised: usize = batch.iter().map(|s| s.targets.len()).sum();
    let loss: f64 = batch.iter().map(|s| engine.loss(adapter, s).expect("loss")).sum::<f64>() / n_supervised as f64;
    let expected = parity.expected[&format!("{case}.loss")].to_scalar::<f32>().expect("a number");
    assert!((loss - f64::from(expected)).abs() < 1e-5, "{case}: loss {loss}, expected {expected}");
    1
}

fn check_gradients(
    parity: &Parity,
    engine: &CandleEngine,
    case: &str,
    adapter: &pipe_llm::Adapter,
    batch: &[Sequence],
) -> usize {
    let mut sums = GradientSum::new(engine.program());
    for sequence in batch {
        engine.loss_and_gradients(Some(adapter), sequence, None, &mut sums).expect("gradients");
    }
    let factor = 1.0 / batch.iter().map(|s| s.targets.len()).sum::<usize>() as f64;
    let mut n_checked = 0;
    let gradients: Vec<Tensor> = sums.tensors.into_iter().map(|sum| sum.expect("the backward wrote it")).collect();
    for (module, gradients) in adapter.modules.iter().zip(gradients.chunks_exact(2)) {
        let (d_a, d_b) = (&gradients[0], &gradients[1]);
        let (a_name, b_name) = pipe_llm::adapter::tensor_names(&module.path);
        for (name, gradient) in [(a_name, d_a), (b_name, d_b)] {
            let gradient = (gradient * factor).expect("scaled");
            match parity.expected.get(&format!("{case}.grad.{name}")) {
                Some(expected) => {
                    let difference = relative_difference(&gradient, expected);
                    assert!(difference < GRADIENT_TOLERANCE, "{case}: gradient of {name} differs by {difference:e}");
                    n_checked += 1;
                }
                // With B = 0 the gradient of A is exactly zero; some folders do not store it.
                None => {
                    assert!(case == "init_plain" && name.contains("lora_A"), "{case}.grad.{name} is not in the fixture")
                }
            }
            if case == "init_plain" && name.contains("lora_A") {
                let zero = gradient.zeros_like().expect("zeros");
                assert_eq!(largest_difference(&gradient, &zero), 0.0, "{name}: B is zero, so A has no gradient");
            }
        }
    }
    n_checked
}

fn check_training(
    parity: &Parity,
    case: &str,
    settings: &serde_json::Value,
    engine_name: &str,
    engine: Engine,
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
