//! The native engine against the candle engine, and against itself: threads, passes, recomputing, packing.

use candle_core::{DType, Device, Tensor};
use pipe_kernels::{InstructionSet, limit_instruction_set};
use pipe_llm::engine::native::{Execution, PackShape};
use pipe_llm::engine::{DropoutKey, Sums};
use pipe_llm::optimizer::AdamWSettings;
use pipe_llm::schedule::{Schedule, ScheduleType};
use pipe_llm::trainer::{Trained, Trainer};
use pipe_llm::{Adapter, CandleEngine, LlmError, LoraConfig, NativeEngine, Program, Sequence, new_tokens};

use crate::common::{FAMILIES, Parity, TOKENS, documents_of, fixtures, relative_difference};

/// Two orders of adding the same f32 numbers.
const TOLERANCE: f64 = 1e-5;
const SETTINGS: AdamWSettings =
    AdamWSettings { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01, max_grad_norm: 1.0 };
const KEY: DropoutKey = DropoutKey { seed: 3, optimizer_step: 5, probability: 0.1 };

/// What is trained, and on what.
struct Case {
    name: String,
    parity: Parity,
    program: Program,
    adapter: Option<Adapter>,
}

impl Case {
    fn native(&self) -> NativeEngine {
        self.parity.native_for(self.program.clone())
    }

    fn candle(&self, dtype: DType) -> CandleEngine {
        self.parity.engine_for(self.program.clone(), dtype)
    }

    fn key(&self) -> Option<DropoutKey> {
        self.adapter.is_some().then_some(KEY)
    }

    fn sums(&self, engine: &NativeEngine, sequences: &[Sequence]) -> Sums {
        engine.sums::<LlmError>(self.adapter.as_ref(), sequences, self.key(), |_| Ok(())).expect("sums")
    }

    /// Gradients with their names; panics where one was not written.
    fn gradients(&self, sums: &Sums) -> Vec<(String, Vec<f32>)> {
        let adapted = self.program.adapted.iter().flat_map(|m| ["A", "B"].map(|which| format!("{}.{which}", m.path)));
        let trained = self.program.trained.iter().map(|&w| self.program.weights[w].name.clone());
        let tensors = sums.gradients.iter().map(|g| g.clone().expect("the backward wrote it"));
        let tokens = self.program.tokens.iter().map(|tokens| format!("{}.tokens", tokens.path));
        adapted.chain(tokens).chain(trained).zip(tensors).collect()
    }
}

fn random(seed: u64, shape: &[usize]) -> Tensor {
    let stream = pipe_kernels::random::Stream::named(seed, "test");
    let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| 0.1 * stream.normal(i as u64)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("a tensor")
}

/// Adapters on some and on all modules, full training of all and of some weights.
fn cases() -> Vec<Case> {
    FAMILIES.into_iter().flat_map(cases_of).collect()
}

fn cases_of(family: &str) -> Vec<Case> {
    let open = || Parity::open(fixtures().join(family));
    let all = Program::all_linear(&open().config);
    let (some, freeze): (&[&str], &[&[&str]]) = match family {
        "llama" | "qwen2" => (
            &["q_proj,v_proj", "down_proj,o_proj"],
            &[&[], &["model.embed_tokens", "*norm.weight"], &["model.layers.0", "*k_proj.weight"]],
        ),
        "gpt2" => (&["mlp.c_proj"], &[&[], &["transformer.wte", "*.ln_1", "*.bias"]]),
        "phi3" => (&["qkv_proj"], &[&[], &["model.layers.0", "*up_proj.weight"]]),
        _ => (&[], &[&[]]),
    };
    let listed = some.iter().map(|names| names.split(',').map(str::to_string).collect::<Vec<_>>());
    let adapters = listed.chain([all.clone()]).map(|targets| adapted(open(), family, &targets, &[]));
    // With and without a head of its own, with a scale of the embedding, with capped logits, with positions that are embedded.
    let has_tokens = ["llama", "qwen2", "gemma2", "gpt2"].contains(&family);
    let tokens = has_tokens.then(|| adapted(open(), family, &all, &TOKENS));
    let full = freeze.iter().map(|freeze| {
        let parity = open();
        let freeze: Vec<String> = freeze.iter().map(|p| (*p).to_string()).collect();
        let program = Program::full(&parity.config, &freeze).expect("some are left");
        Case { name: format!("{family} without {freeze:?}"), parity, program, adapter: None }
    });
    adapters.chain(tokens).chain(full).collect()
}

/// An adapter on `targets` with B not zero, and rows of `tokens` in embedding and head.
fn adapted(parity: Parity, family: &str, targets: &[String], tokens: &[u32]) -> Case {
    let indices = new_tokens::indices(&parity.config, tokens);
    let program = Program::new(&parity.config, targets).and_then(|program| program.with_tokens(&indices));
    let program = program.expect("targets and tokens");
    let config = LoraConfig { lora_rank: 3, target_modules: targets.to_vec(), ..parity.lora_config("adapter") };
    let n_elements = tokens.len() * parity.config.hidden_size;
    let rows = program.tokens.iter().map(|_| vec![0.0; n_elements]).collect();
    let mut adapter = Adapter::fresh(config, &program, rows, 1, &Device::Cpu).expect("an adapter");
    for (module_idx, module) in adapter.modules.iter_mut().enumerate() {
        module.b = random(module_idx as u64, module.b.dims());
    }
    for (tokens_idx, tokens) in adapter.tokens.iter_mut().enumerate() {
        tokens.rows = random(1000 + tokens_idx as u64, tokens.rows.dims());
    }
    Case { name: format!("{family} {targets:?} {tokens:?}"), parity, program, adapter: Some(adapter) }
}

fn tensor(values: &[f32]) -> Tensor {
    Tensor::from_slice(values, values.len(), &Device::Cpu).expect("a tensor")
}

#[test]
fn losses_and_gradients_equal_those_of_the_candle_engine() {
    for case in cases() {
        let (native, candle) = (case.native(), case.candle(DType::F32));
        let batch = case.parity.batch(0, true);
        let adapter = case.adapter.as_ref();
        for sequence in &batch {
            let (ours, theirs) = (native.loss(adapter, sequence), candle.loss(adapter, sequence));
            let (ours, theirs) = (ours.expect("a loss"), theirs.expect("a loss"));
            assert!((ours / theirs - 1.0).abs() < TOLERANCE, "{}: loss {ours} against {theirs}", case.name);
        }
        let ours = case.sums(&native, &batch);
        let theirs = candle.sums::<LlmError>(adapter, &batch, case.key(), |_| Ok(())).expect("sums");
        assert!((ours.loss / theirs.loss - 1.0).abs() < TOLERANCE, "{}: {} {}", case.name, ours.loss, theirs.loss);
        for ((name, ours), (_, theirs)) in case.gradients(&ours).iter().zip(case.gradients(&theirs)) {
            let difference = relative_difference(&tensor(ours), &tensor(&theirs));
            assert!(difference < TOLERANCE, "{}: the gradient of {name} differs by {difference:e}", case.name);
        }
    }
}

fn bits(sums: &Sums) -> (u64, Vec<Vec<u32>>) {
    let tensor = |g: &Option<Vec<f32>>| g.as_ref().expect("written").iter().map(|x| x.to_bits()).collect();
    (sums.loss.to_bits(), sums.gradients.iter().map(tensor).collect())
}

#[test]
fn threads_passes_and_recomputing_change_no_bit() {
    for case in cases() {
        let mut engine = case.native();
        let batch: Vec<Sequence> = [0, 1, 2].iter().flat_map(|&i| case.parity.batch(i, i != 1)).take(5).collect();
        let expected = bits(&case.sums(&engine, &batch));
        for (n_packs_per_pass, n_recomputed, head_rows_max) in [(2, 0, 7), (1, 2, 256), (5, 99, 1), (3, 3, 64)] {
            engine.set_execution(Execution { n_packs_per_pass, n_recomputed, head_rows_max });
            let what = format!("{}: {n_packs_per_pass} packs, {n_recomputed} recomputed", case.name);
            for n_threads in [1, 2, 3, 5] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("threads");
                let got = pool.install(|| bits(&case.sums(&engine, &batch)));
                assert!(got == expected, "{what}, {n_threads} threads");
            }
        }
    }
}

/// Losses, adapter and trained weights after three optimizer steps, dropout on.
fn trained_bits(case: &Case) -> (Vec<u64>, Vec<u32>) {
    let trained = case.adapter.clone().map_or(Trained::Weights, Trained::Adapter);
    let schedule = Schedule { schedule_type: ScheduleType::Linear, peak: 1e-2, n_warmup_steps: 1, n_steps: 3 };
    let mut trainer = Trainer::new(case.native(), trained, SETTINGS, schedule, 7);
    let batches = (0..3).map(|step_idx| case.parity.batch(step_idx, true));
    let step = |batch: Vec<Sequence>| trainer.step::<LlmError>(&batch, |_| Ok(())).expect("a step").loss.to_bits();
    let losses = batches.map(step).collect();
    let tensors: Vec<Tensor> = match &trainer.trained {
        Trained::Adapter(adapter) => {
            let matrices = adapter.modules.iter().flat_map(|m| [m.a.clone(), m.b.clone()]);
            matrices.chain(adapter.tokens.iter().map(|tokens| tokens.rows.clone())).collect()
        }
        Trained::Weights => trainer.engine.trained().into_iter().cloned().collect(),
    };
    let values = |t: &Tensor| t.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("numbers");
    (losses, tensors.iter().flat_map(values).map(f32::to_bits).collect())
}

#[test]
fn instruction_sets_train_the_same_bits() {
    for case in cases() {
        limit_instruction_set(InstructionSet::of_host());
        let expected = trained_bits(&case);
        limit_instruction_set(InstructionSet::Baseline);
        let got = trained_bits(&case);
        limit_instruction_set(InstructionSet::of_host());
        assert!(got == expected, "{}: {} is not the baseline", case.name, InstructionSet::of_host());
    }
}

#[test]
fn a_plan_takes_the_fastest_way_that_fits() {
    let case = cases().swap_remove(0);
    let (mut engine, adapter) = (case.native(), case.adapter.as_ref());
    let shape = PackShape { n_tokens: 512, n_supervised: 400, n_packs: 4 };
    let fastest = engine.plan(adapter, shape, None).expect("no limit");
    assert_eq!((engine.execution().n_packs_per_pass, engine.execution().n_recomputed), (2, 0));
    let (mut before, mut smallest) = (fastest.total(), fastest);
    // A little less each time: every plan fits, and the last one refuses.
    let error = loop {
        let budget = before - 1;
        match engine.plan(adapter, shape, Some(budget)) {
            Ok(forecast) => {
                assert!(forecast.total() <= budget, "{forecast:?} does not fit into {budget}");
                (before, smallest) = (forecast.total(), forecast);
            }
            Err(error) => break error.to_string(),
        }
    };
    assert_eq!(engine.execution().n_packs_per_pass, 1);
    assert!(engine.execution().n_recomputed > 0);
    assert!(smallest.values < fastest.values / 3, "{smallest:?}, and at best {fastest:?}");
    assert!(error.contains("needs at least") && error.contains("packs of 512 tokens"), "{error}");
}

#[test]
fn a_token_has_the_same_loss_packed_and_alone() {
    /// Sums over tokens are cut at other places.
    const PACKING_TOLERANCE: f64 = 1e-6;
    for case in cases() {
        let (engine, adapter) = (case.native(), case.adapter.as_ref());
        let packed = &case.parity.batch(0, true)[1];
        let alone = documents_of(packed);
        assert!(alone.len() > 1 && alone.iter().all(|s| !s.targets.is_empty()), "a pack of several documents");
        let losses = engine.losses(adapter, packed).expect("losses");
        let losses_alone: Vec<f32> = alone.iter().flat_map(|s| engine.losses(adapter, s).expect("losses")).collect();
        let bits = |losses: &[f32]| losses.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&losses), bits(&losses_alone), "{}", case.name);
        let (together, apart) = (case.sums(&engine, std::slice::from_ref(packed)), case.sums(&engine, &alone));
        for ((name, packed), (_, alone)) in case.gradients(&together).iter().zip(case.gradients(&apart)) {
            let difference = relative_difference(&tensor(packed), &tensor(&alone));
            assert!(difference < PACKING_TOLERANCE, "{}: the gradient of {name} differs by {difference:e}", case.name);
        }
    }
}
