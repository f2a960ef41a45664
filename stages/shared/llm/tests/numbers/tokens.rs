//! Rows of tokens in embedding and head against PEFT's `trainable_token_indices`, on both engines.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use pipe_llm::adapter::{tensor_names, token_rows_name};
use pipe_llm::optimizer::AdamWSettings;
use pipe_llm::schedule::{Schedule, ScheduleType};
use pipe_llm::trainer::{Trained, Trainer};
use pipe_llm::{Adapter, LlmError, LoraConfig, Program};

use crate::common::{Parity, fixtures, largest_difference, relative_difference};

/// As in `parity.rs`.
const LOGITS_TOLERANCE: f64 = 3e-5;
const GRADIENT_TOLERANCE: f64 = 1e-4;
const CURVE_TOLERANCE: f64 = 1e-4;
const ROWS_TOLERANCE: f64 = 1e-3;

/// llama and phi3 have a head of their own; gemma2 scales its embedding and caps its logits; gpt2 calls its embedding `wte`.
const WITH_TOKENS: [&str; 4] = ["llama", "phi3", "gemma2", "gpt2"];

fn expected(family: &str) -> HashMap<String, Tensor> {
    let path = fixtures().join(family).join("tokens.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).expect("safetensors")
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).and_then(|t| t.flatten_all()?.to_vec1()).expect("numbers")
}

#[test]
fn logits_and_gradients_equal_those_of_peft() {
    for family in WITH_TOKENS {
        let (parity, expected) = (Parity::open(fixtures().join(family)), expected(family));
        let program = parity.program_of("tokens");
        let adapter = parity.adapter_for("tokens", &program);
        let batch = parity.batch(0, true);
        let n_supervised: usize = batch.iter().map(|s| s.targets.len()).sum();

        let logits = parity.engine_for(program.clone(), DType::F32).logits(Some(&adapter), &batch[0]).expect("logits");
        let difference = largest_difference(&logits, &expected["tokens.logits_row0"]);
        assert!(difference < LOGITS_TOLERANCE, "{family}: logits differ by {difference:e}");

        for (engine_name, engine) in parity.engines_for(&program) {
            let sums = engine.sums::<LlmError>(Some(&adapter), &batch, None, |_| Ok(())).expect("sums");
            let loss = sums.loss / n_supervised as f64;
            assert!((loss - numbers(&expected["tokens.loss"])[0]).abs() < 1e-5, "{family}, {engine_name}: {loss}");
            let modules = adapter.modules.iter().flat_map(|m| <[String; 2]>::from(tensor_names(&m.path)));
            let names = modules.chain(adapter.tokens.iter().map(|tokens| token_rows_name(&tokens.path)));
            let mut n_rows_checked = 0;
            for (name, gradient) in names.zip(&sums.gradients) {
                let Some(expected) = expected.get(&format!("tokens.grad.{name}")) else { continue };
                let gradient = gradient.as_ref().expect("written").iter().map(|g| g / n_supervised as f32).collect();
                let gradient = Tensor::from_vec(gradient, expected.dims(), &Device::Cpu).expect("of the same shape");
                let difference = relative_difference(&gradient, expected);
                assert!(difference < GRADIENT_TOLERANCE, "{family}, {engine_name}: {name} differs by {difference:e}");
                n_rows_checked += usize::from(name.contains("token_adapter"));
            }
            assert_eq!(n_rows_checked, if parity.config.is_tied { 1 } else { 2 }, "{family}");
        }
    }
}

#[test]
fn twenty_optimizer_steps_equal_those_of_peft() {
    for family in WITH_TOKENS {
        let (parity, expected) = (Parity::open(fixtures().join(family)), expected(family));
        let program = parity.program_of("tokens");
        for (engine_name, engine) in parity.engines_for(&program) {
            let adapter = parity.adapter_for("tokens", &program);
            // Those of scripts/make_parity_fixtures.py.
            let settings =
                AdamWSettings { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01, max_grad_norm: 1.0 };
            let schedule = Schedule { schedule_type: ScheduleType::Linear, peak: 2e-3, n_warmup_steps: 2, n_steps: 20 };
            let mut trainer = Trainer::new(engine, Trained::Adapter(adapter), settings, schedule, 0);
            let steps =
                numbers(&expected["t_tokens.losses"]).into_iter().zip(numbers(&expected["t_tokens.grad_norms"]));
            for (step_idx, (loss, norm)) in steps.enumerate() {
                let report = trainer.step::<LlmError>(&parity.batch(step_idx % 4, true), |_| Ok(())).expect("a step");
                let difference = (report.loss - loss).abs();
                assert!(difference < CURVE_TOLERANCE, "{family}, {engine_name}, step {step_idx}: {difference:e}");
                assert!((report.grad_norm / norm - 1.0).abs() < 1e-3, "{family}, {engine_name}, step {step_idx}");
            }
            for tokens in &trainer.adapter().expect("one is trained").tokens {
                let difference = relative_difference(
                    &tokens.rows,
                    &expected[&format!("t_tokens.step20.{}", token_rows_name(&tokens.path))],
                );
                assert!(
                    difference < ROWS_TOLERANCE,
                    "{family}, {engine_name}: {} differ by {difference:e}",
                    tokens.path
                );
            }
        }
    }
}

#[test]
fn an_adapter_with_tokens_reads_back_as_it_was() {
    for family in WITH_TOKENS {
        let parity = Parity::open(fixtures().join(family));
        let program = parity.program_of("tokens");
        let adapter = parity.adapter_for("tokens", &program);
        let folder = tempfile::tempdir().expect("a temporary folder");
        adapter.save(folder.path()).expect("written");
        let text = std::fs::read_to_string(folder.path().join("adapter_config.json")).expect("a config");
        let config = LoraConfig::from_json(&text).expect("our own");
        assert_eq!(config, adapter.config, "{family}");
        assert_eq!(Program::for_adapter(&parity.config, Some(&config)).expect("the same").tokens, program.tokens);
        let weights = folder.path().join("adapter_model.safetensors");
        let back = Adapter::load(config, &weights, &program, &Device::Cpu).expect("fits");
        for (ours, back) in adapter.tokens.iter().zip(&back.tokens) {
            assert_eq!((&ours.path, numbers(&ours.rows)), (&back.path, numbers(&back.rows)), "{family}");
        }
    }
}
