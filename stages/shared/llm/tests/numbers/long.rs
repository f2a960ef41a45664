//! 500 optimizer steps of stories260K: the native engine stays nearer to f64 than another seed does.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use pipe_kernels::random::Stream;
use pipe_llm::engine::{DropoutKey, GradientSum};
use pipe_llm::optimizer::AdamWSettings;
use pipe_llm::schedule::{Schedule, ScheduleType};
use pipe_llm::trainer::{Trained, Trainer};
use pipe_llm::weights::{self, WeightFiles};
use pipe_llm::{Adapter, CandleEngine, LlmError, LoraConfig, ModelConfig, NativeEngine, Program, Sequence};

use crate::common::{documents_of, test_data};

const N_STEPS: usize = 500;
const PACKS_PER_STEP: usize = 4;
/// Optimizer steps of one mean.
const WINDOW: usize = 50;
const SETTINGS: AdamWSettings =
    AdamWSettings { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0 };
const SCHEDULE: Schedule =
    Schedule { schedule_type: ScheduleType::Linear, peak: 2e-3, n_warmup_steps: 20, n_steps: N_STEPS as u64 };

/// The model, packs of 512 tokens, and what is adapted.
struct Job {
    config: ModelConfig,
    files: WeightFiles,
    packs: Vec<Sequence>,
    program: Program,
    lora: LoraConfig,
}

impl Job {
    fn open(model: PathBuf, packs: PathBuf) -> Self {
        let text = std::fs::read_to_string(model.join("config.json")).expect("config.json");
        let config = ModelConfig::from_json(&text).expect("a supported config");
        let files = WeightFiles::open(vec![("model.safetensors".into(), model.join("model.safetensors"))]);
        let targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"].map(String::from);
        let lora = LoraConfig {
            lora_rank: 16,
            lora_alpha: 32.0,
            lora_dropout: 0.05,
            use_rslora: false,
            target_modules: targets.to_vec(),
            trainable_token_indices: pipe_llm::adapter::TokenIndices::new(),
            fan_in_fan_out: false,
            base_model: None,
            revision: None,
        };
        let program = Program::new(&config, &targets).expect("targets");
        Job { packs: read_packs(&config, &packs), config, files: files.expect("readable"), program, lora }
    }

    fn adapter(&self, seed: u64) -> Adapter {
        Adapter::fresh(self.lora.clone(), &self.program, vec![], seed, &Device::Cpu).expect("an adapter")
    }

    /// The packs of an optimizer step: another order for each seed and epoch.
    fn batch(&self, seed: u64, step_idx: usize) -> Vec<Sequence> {
        let per_epoch = self.packs.len() / PACKS_PER_STEP;
        let stream = Stream::named(seed, &format!("order of epoch {}", step_idx / per_epoch));
        let mut order: Vec<usize> = (0..self.packs.len()).collect();
        order.sort_by_key(|&pack_idx| stream.bits(pack_idx as u64));
        let first = step_idx % per_epoch * PACKS_PER_STEP;
        order[first..first + PACKS_PER_STEP].iter().map(|&pack_idx| self.packs[pack_idx].clone()).collect()
    }

    fn native_losses(&self, seed: u64) -> Vec<f64> {
        let weights = weights::map(&self.program, &self.files).expect("weights");
        let engine = NativeEngine::new(self.program.clone(), weights, self.config.max_positions).expect("an engine");
        let mut trainer = Trainer::new(engine, Trained::Adapter(self.adapter(seed)), SETTINGS, SCHEDULE, seed);
        let step = |step_idx| trainer.step::<LlmError>(&self.batch(seed, step_idx), |_| Ok(())).expect("a step").loss;
        (0..N_STEPS).map(step).collect()
    }

    /// Everything in f64: values, gradients, moments, parameters. A document at a time, which is the same sum.
    fn f64_losses(&self, seed: u64) -> Vec<f64> {
        let weights = weights::load(&self.program, &self.files, &Device::Cpu).expect("weights");
        let (program, n_positions) = (self.program.clone(), self.config.max_positions);
        let engine = CandleEngine::new(program, weights, n_positions, Device::Cpu, DType::F64).expect("an engine");
        let mut adapter = self.adapter(seed);
        for module in &mut adapter.modules {
            module.a = module.a.to_dtype(DType::F64).expect("cast");
            module.b = module.b.to_dtype(DType::F64).expect("cast");
        }
        let mut moments: HashMap<usize, (Vec<f64>, Vec<f64>)> = HashMap::new();
        let mut losses = Vec::new();
        for step_idx in 0..N_STEPS {
            let batch = self.batch(seed, step_idx);
            let key = DropoutKey { seed, optimizer_step: step_idx as u64, probability: self.lora.lora_dropout };
            let mut sums = GradientSum::new(&self.program);
            let mut loss = 0.0;
            for document in batch.iter().flat_map(documents_of).filter(|d| !d.targets.is_empty()) {
                loss += engine.loss_and_gradients(Some(&adapter), &document, Some(key), &mut sums).expect("gradients");
            }
            let n_supervised: usize = batch.iter().map(|s| s.targets.len()).sum();
            losses.push(loss / n_supervised as f64);
            let mean = |sum: Option<Tensor>| -> Vec<f64> {
                let sum = sum.expect("the backward wrote it");
                sum.flatten_all().and_then(|t| (t / n_supervised as f64)?.to_vec1()).expect("numbers")
            };
            let gradients: Vec<Vec<f64>> = sums.tensors.into_iter().map(mean).collect();
            adamw_f64(&mut adapter, &gradients, &mut moments, step_idx as u64);
        }
        losses
    }
}

/// AdamW with clipping, as the optimizer's formulas say, in f64 (weight decay is 0 here).
fn adamw_f64(
    adapter: &mut Adapter,
    gradients: &[Vec<f64>],
    moments: &mut HashMap<usize, (Vec<f64>, Vec<f64>)>,
    step_idx: u64,
) {
    let norm = gradients.iter().flatten().map(|g| g * g).sum::<f64>().sqrt();
    let factor = (SETTINGS.max_grad_norm / (norm + 1e-6)).min(1.0);
    let learning_rate = SCHEDULE.learning_rate(step_idx);
    let t = i32::try_from(step_idx + 1).expect("few steps");
    let (correct1, correct2) = (1.0 - SETTINGS.beta1.powi(t), 1.0 - SETTINGS.beta2.powi(t));
    let tensors = adapter.modules.iter_mut().flat_map(|m| [&mut m.a, &mut m.b]);
    for (parameter_idx, (tensor, gradient)) in tensors.zip(gradients).enumerate() {
        let zeros = || (vec![0.0; gradient.len()], vec![0.0; gradient.len()]);
        let (first, second) = moments.entry(parameter_idx).or_insert_with(zeros);
        let mut values: Vec<f64> = tensor.flatten_all().and_then(|t| t.to_vec1()).expect("numbers");
        for (((value, g), m), v) in values.iter_mut().zip(gradient).zip(first).zip(second) {
            let g = g * factor;
            *m = SETTINGS.beta1 * *m + (1.0 - SETTINGS.beta1) * g;
            *v = SETTINGS.beta2 * *v + (1.0 - SETTINGS.beta2) * g * g;
            *value -= learning_rate * (*m / correct1) / ((*v / correct2).sqrt() + SETTINGS.epsilon);
        }
        *tensor = Tensor::from_vec(values, tensor.dims(), &Device::Cpu).expect("a tensor");
    }
}

/// `input_ids`, `labels`, `position_ids`, `doc_ids`: (N, 512) each, as `pipe bench train --ids` takes them.
fn read_packs(config: &ModelConfig, path: &PathBuf) -> Vec<Sequence> {
    let columns = candle_core::safetensors::load(path, &Device::Cpu).expect("PIPE_PACKS is a safetensors file");
    let [ids, labels, positions, documents] = ["input_ids", "labels", "position_ids", "doc_ids"]
        .map(|name| columns[name].to_dtype(DType::I64).and_then(|t| t.to_vec2::<i64>()).expect("(N, T) whole numbers"));
    let u32s = |row: &[i64]| row.iter().map(|x| u32::try_from(*x).expect("not negative")).collect::<Vec<_>>();
    let pack = |row: usize| {
        let labels: Vec<i32> = labels[row].iter().map(|x| i32::try_from(*x).expect("a label")).collect();
        Sequence::new(config, &u32s(&ids[row]), &labels, &u32s(&positions[row]), &u32s(&documents[row]))
            .expect("a pack")
    };
    (0..ids.len()).map(pack).collect()
}

fn means(losses: &[f64]) -> Vec<f64> {
    losses.chunks(WINDOW).map(|window| window.iter().sum::<f64>() / window.len() as f64).collect()
}

#[test]
#[ignore = "needs packs of 512 tokens in PIPE_PACKS, and half an hour: `just real`"]
fn a_run_of_500_optimizer_steps_stays_nearer_to_f64_than_another_seed() {
    let Some(data) = test_data("a_run_of_500_optimizer_steps") else { return };
    let packs = PathBuf::from(std::env::var_os("PIPE_PACKS").expect("PIPE_PACKS names a file"));
    let job = Job::open(data.join("models/stories260K"), packs);
    let native = means(&job.native_losses(1));
    let seeds: Vec<Vec<f64>> = std::thread::scope(|scope| {
        let runs = [1, 2, 3].map(|seed| {
            scope.spawn({
                let job = &job;
                move || means(&job.f64_losses(seed))
            })
        });
        runs.into_iter().map(|run| run.join().expect("the run ends")).collect()
    });
    for (window, native) in native.iter().enumerate() {
        let ours = (native - seeds[0][window]).abs();
        let pairs = [(0, 1), (0, 2), (1, 2)].map(|(a, b): (usize, usize)| (seeds[a][window] - seeds[b][window]).abs());
        let nearest = pairs.into_iter().fold(f64::INFINITY, f64::min);
        writeln!(
            std::io::stderr(),
            "optimizer steps {} to {}: f64 {:.5}, native differs by {ours:.1e}, seeds by {nearest:.1e} at least",
            window * WINDOW + 1,
            (window + 1) * WINDOW,
            seeds[0][window]
        )
        .expect("stderr can be written");
        assert!(ours < nearest, "window {window}: native {native}, f64 {}", seeds[0][window]);
    }
}
