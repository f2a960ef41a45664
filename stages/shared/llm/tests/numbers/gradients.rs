//! The backward against central differences in f64 and against candle's autograd, and fast ops against plain ones.

use crate::common::{FAMILIES, Parity, TOKENS, fixtures, relative_difference};
use candle_core::{DType, Device, Tensor, Var};
use pipe_llm::config::{Activation, Rope, RopeScaling, Scores};
use pipe_llm::engine::{DropoutKey, GradientSum};
use pipe_llm::ops::attention::{self, Documents, Heads};
use pipe_llm::ops::dropout::{Dropout, Mask};
use pipe_llm::ops::linear::{self, LowRank};
use pipe_llm::ops::rope::{Direction, Positions, RopeTable};
use pipe_llm::ops::{gated_mlp, gelu, head, layer_norm, rms_norm, rope, slice, softcap};
use pipe_llm::{CandleEngine, Program, Sequence, new_tokens};

/// Central differences of five points in f64, good to about 1e-9 relative to the largest on these models.
const DIFFERENCE_TOLERANCE: f64 = 1e-6;

/// The derivative of `f` at 0: an error of the fourth power of the step, and rounding by 1e-16 / 3e-5 of f.
fn derivative(mut f: impl FnMut(f64) -> f64) -> f64 {
    let step = 3e-5;
    let mut difference = |step: f64| f(step) - f(-step);
    (8.0 * difference(step) - difference(2.0 * step)) / (12.0 * step)
}
/// Both sides in f64.
const AUTOGRAD_TOLERANCE: f64 = 1e-12;
/// f32 rounding, relative.
const FAST_TOLERANCE: f64 = 2e-6;

fn random(seed: u64, shape: &[usize], dtype: DType) -> Tensor {
    let stream = pipe_kernels::random::Stream::named(seed, "test");
    let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| stream.normal(i as u64)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).and_then(|t| t.to_dtype(dtype)).expect("a tensor")
}

/// All linear modules adapted and some tokens, in f64, with dropout: the whole backward at once.
fn everything(family: &str) -> (Parity, CandleEngine, pipe_llm::Adapter) {
    let parity = Parity::open(fixtures().join(family));
    let targets = Program::all_linear(&parity.config);
    let indices = new_tokens::indices(&parity.config, &TOKENS);
    let program = Program::new(&parity.config, &targets).and_then(|program| program.with_tokens(&indices));
    let engine = parity.engine_for(program.expect("targets and tokens"), DType::F64);
    let config = pipe_llm::LoraConfig { lora_rank: 3, target_modules: targets, ..parity.lora_config("adapter") };
    let rows = engine.program().tokens.iter().map(|_| vec![0.0; TOKENS.len() * parity.config.hidden_size]).collect();
    let mut adapter = pipe_llm::Adapter::fresh(config, engine.program(), rows, 1, &Device::Cpu).expect("an adapter");
    for (tokens_idx, tokens) in adapter.tokens.iter_mut().enumerate() {
        tokens.rows = (random(1000 + tokens_idx as u64, tokens.rows.dims(), DType::F64) * 0.1).expect("scaled");
    }
    for (module_idx, module) in adapter.modules.iter_mut().enumerate() {
        module.a = module.a.to_dtype(DType::F64).expect("cast");
        module.b = (random(module_idx as u64, module.b.dims(), DType::F64) * 0.1).expect("scaled");
    }
    (parity, engine, adapter)
}

/// A and B of each module, then the rows of tokens.
fn parameter(adapter: &mut pipe_llm::Adapter, parameter_idx: usize) -> &mut Tensor {
    let n_modules = adapter.modules.len();
    match adapter.modules.get_mut(parameter_idx / 2) {
        Some(module) if parameter_idx.is_multiple_of(2) => &mut module.a,
        Some(module) => &mut module.b,
        None => &mut adapter.tokens[parameter_idx - 2 * n_modules].rows,
    }
}

fn loss_with(engine: &CandleEngine, adapter: &pipe_llm::Adapter, sequence: &Sequence, key: DropoutKey) -> f64 {
    let mut ignored = GradientSum::new(engine.program());
    engine.loss_and_gradients(Some(adapter), sequence, Some(key), &mut ignored).expect("a loss")
}

#[test]
fn the_backward_equals_central_differences() {
    for family in FAMILIES {
        let (parity, engine, adapter) = everything(family);
        let sequence = &parity.batch(0, true)[0];
        let key = DropoutKey { seed: 3, optimizer_step: 5, probability: 0.1 };
        let mut sums = GradientSum::new(engine.program());
        engine.loss_and_gradients(Some(&adapter), sequence, Some(key), &mut sums).expect("gradients");
        for (parameter_idx, gradient) in sums.tensors.iter().enumerate() {
            let gradient = gradient.as_ref().expect("written");
            let direction = random(100 + parameter_idx as u64 / 2, gradient.dims(), DType::F64);
            let along = (gradient * &direction).and_then(|t| t.sum_all()?.to_scalar::<f64>()).expect("a number");
            let moved = |by: f64| {
                let mut adapter = adapter.clone();
                let tensor = parameter(&mut adapter, parameter_idx);
                *tensor = (&*tensor + (&direction * by).expect("scaled")).expect("moved");
                loss_with(&engine, &adapter, sequence, key)
            };
            let difference = derivative(moved);
            let error = (difference - along).abs() / along.abs().max(1e-3);
            assert!(
                error < DIFFERENCE_TOLERANCE,
                "{family} parameter {parameter_idx}: {along} against {difference}, {error:e}"
            );
        }
    }
}

#[test]
fn the_weights_gradients_equal_central_differences() {
    for family in FAMILIES {
        let parity = Parity::open(fixtures().join(family));
        let mut engine = parity.engine_for(Program::full(&parity.config, &[]).expect("all"), DType::F64);
        let sequence = &parity.batch(0, true)[0];
        let mut sums = GradientSum::new(engine.program());
        engine.loss_and_gradients(None, sequence, None, &mut sums).expect("gradients");
        for (parameter_idx, gradient) in sums.tensors.iter().enumerate() {
            let gradient = gradient.as_ref().expect("written");
            let direction = random(100 + parameter_idx as u64, gradient.dims(), DType::F64);
            let along = (gradient * &direction).and_then(|t| t.sum_all()?.to_scalar::<f64>()).expect("a number");
            let value = engine.weights()[parameter_idx].clone();
            let mut moved = |by: f64| {
                let slot = engine.trained_mut().swap_remove(parameter_idx);
                *slot = (&value + (&direction * by).expect("scaled")).expect("moved");
                engine.loss(None, sequence).expect("a loss")
            };
            let difference = derivative(&mut moved);
            moved(0.0);
            let error = (difference - along).abs() / along.abs().max(1e-3);
            let name = &engine.program().weights[parameter_idx].name;
            assert!(error < DIFFERENCE_TOLERANCE, "{family} {name}: {along} against {difference}, {error:e}");
        }
    }
}

#[test]
fn frozen_weights_get_no_gradient_and_change_no_other() {
    let parity = Parity::open(fixtures().join("qwen2"));
    let gradients = |freeze: &[&str]| {
        let freeze: Vec<String> = freeze.iter().map(|p| (*p).to_string()).collect();
        let engine = parity.engine_for(Program::full(&parity.config, &freeze).expect("some are left"), DType::F32);
        let mut sums = GradientSum::new(engine.program());
        engine.loss_and_gradients(None, &parity.batch(0, true)[0], None, &mut sums).expect("gradients");
        let names = engine.program().trained.iter().map(|&w| engine.program().weights[w].name.clone());
        let bits = |t: Option<Tensor>| t.and_then(|t| t.flatten_all().ok()?.to_vec1::<f32>().ok()).expect("written");
        names.zip(sums.tensors.into_iter().map(bits)).collect::<std::collections::BTreeMap<_, _>>()
    };
    let all = gradients(&[]);
    for freeze in [&["model.embed_tokens", "*norm.weight"][..], &["model.layers"], &["*.bias", "model.layers.0"]] {
        let some = gradients(freeze);
        assert!(!some.is_empty() && some.len() < all.len());
        for (name, gradient) in some {
            assert_eq!(gradient, all[&name], "{name} without {freeze:?}");
        }
    }
}

/// Gradients of `sum(weight * output)` in the inputs, by candle's autograd.
fn autograd(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> candle_core::Result<Tensor>) -> (Tensor, Vec<Tensor>) {
    let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).expect("a variable")).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let output = f(&tensors).expect("a forward pass");
    let d_output = random(9, output.dims(), output.dtype());
    let grads = (&output * &d_output).and_then(|t| t.sum_all()?.backward()).expect("a backward pass");
    let gradients = tensors.iter().map(|t| grads.get(t).expect("a gradient").clone()).collect();
    (d_output, gradients)
}

fn assert_close(what: &str, ours: &Tensor, theirs: &Tensor, tolerance: f64) {
    let difference = relative_difference(ours, theirs);
    assert!(difference < tolerance, "{what}: relative difference {difference:e}");
}

const HEADS: Heads = Heads { n_heads: 4, n_kv_heads: 2, head_dim: 6 };
/// Only scaled; with a window; with a cap; with both.
const SCORES: [Scores; 4] = [
    Scores { scale: 0.4, cap: None, window: None },
    Scores { scale: 0.4, cap: None, window: Some(3) },
    Scores { scale: 0.4, cap: Some(0.8), window: None },
    Scores { scale: 0.4, cap: Some(0.8), window: Some(3) },
];
/// Of six channels, four turn.
const ROPE: Rope = Rope { theta: 10_000.0, rotary_dim: 4, scaling: RopeScaling::None };

fn attention_inputs(dtype: DType) -> (Vec<Tensor>, Vec<std::ops::Range<usize>>) {
    let inputs = vec![random(1, &[13, 24], dtype), random(2, &[13, 12], dtype), random(3, &[13, 12], dtype)];
    (inputs, vec![0..7, 7..8, 8..13])
}

#[test]
fn each_backward_equals_candles_autograd() {
    let x = random(1, &[5, 8], DType::F64);
    let weight = random(2, &[8], DType::F64);
    let (d_y, theirs) = autograd(std::slice::from_ref(&x), |i| Ok(rms_norm::plain(&i[0], &weight, 1e-5)?.0));
    let (_, inv_rms) = rms_norm::plain(&x, &weight, 1e-5).expect("forward");
    assert_close(
        "rms_norm",
        &rms_norm::plain_backward(&d_y, &x, &weight, &inv_rms).expect("backward"),
        &theirs[0],
        AUTOGRAD_TOLERANCE,
    );

    let (gate, up) = (random(3, &[5, 7], DType::F64), random(4, &[5, 7], DType::F64));
    for activation in [Activation::Silu, Activation::GeluTanh] {
        let (d_y, theirs) = autograd(&[gate.clone(), up.clone()], |i| gated_mlp::plain(activation, &i[0], &i[1]));
        let (d_gate, d_up) = gated_mlp::plain_backward(activation, &d_y, &gate, &up).expect("backward");
        assert_close("gate", &d_gate, &theirs[0], AUTOGRAD_TOLERANCE);
        assert_close("up", &d_up, &theirs[1], AUTOGRAD_TOLERANCE);
    }
    let (d_y, theirs) = autograd(std::slice::from_ref(&gate), |i| gelu::plain(&i[0]));
    assert_close("gelu", &gelu::plain_backward(&d_y, &gate).expect("backward"), &theirs[0], AUTOGRAD_TOLERANCE);
    let (d_y, theirs) = autograd(std::slice::from_ref(&gate), |i| softcap::plain(1.5, &i[0]));
    let y = softcap::plain(1.5, &gate).expect("forward");
    let ours = softcap::plain_backward(1.5, &d_y, &y).expect("backward");
    assert_close("softcap", &ours, &theirs[0], AUTOGRAD_TOLERANCE);
    let (d_y, theirs) = autograd(std::slice::from_ref(&gate), |i| slice::forward(&i[0], 2, 4));
    assert_close("slice", &slice::backward(&d_y, 2, 7).expect("backward"), &theirs[0], AUTOGRAD_TOLERANCE);

    let (x, bias) = (random(5, &[5, 8], DType::F64), random(6, &[8], DType::F64));
    let inputs = [x.clone(), weight.clone(), bias.clone()];
    let (d_y, theirs) = autograd(&inputs, |i| Ok(layer_norm::plain(&i[0], &i[1], &i[2], 1e-5)?.0));
    let (_, moments) = layer_norm::plain(&x, &weight, &bias, 1e-5).expect("forward");
    let d_x = layer_norm::plain_backward(&d_y, &x, &weight, &moments).expect("backward");
    let (d_weight, d_bias) = layer_norm::plain_parameter_gradients(&d_y, &x, &moments).expect("backward");
    for (what, ours, theirs) in [("x", d_x, &theirs[0]), ("weight", d_weight, &theirs[1]), ("bias", d_bias, &theirs[2])]
    {
        assert_close(&format!("layer_norm {what}"), &ours, theirs, AUTOGRAD_TOLERANCE);
    }

    let table = RopeTable::new(&ROPE, 6, 16);
    let positions = Positions::new(&table, &[0, 1, 2, 0, 1], &[0..3, 3..5]);
    let x = random(5, &[5, 24], DType::F64);
    let (d_y, theirs) = autograd(&[x], |i| rope::plain(&i[0], 4, &positions, Direction::Forward));
    assert_close(
        "rope",
        &rope::plain(&d_y, 4, &positions, Direction::Backward).expect("backward"),
        &theirs[0],
        AUTOGRAD_TOLERANCE,
    );

    let (inputs, documents) = attention_inputs(DType::F64);
    let documents = Documents::new(&documents);
    for scores in SCORES {
        let [q, k, v] = [&inputs[0], &inputs[1], &inputs[2]];
        let plain = |q: &Tensor, k: &Tensor, v: &Tensor| attention::plain(HEADS, scores, &documents, q, k, v);
        let (d_o, theirs) = autograd(&inputs, |i| Ok(plain(&i[0], &i[1], &i[2])?.0));
        let (o, log_sum_exp) = plain(q, k, v).expect("forward");
        let saved = attention::Saved { q, k, v, o: &o, log_sum_exp: &log_sum_exp };
        let ours = attention::plain_backward(HEADS, scores, &documents, &saved, &d_o).expect("backward");
        for (what, ours, theirs) in
            [("q", &ours.d_q, &theirs[0]), ("k", &ours.d_k, &theirs[1]), ("v", &ours.d_v, &theirs[2])]
        {
            assert_close(&format!("{what}, {scores:?}"), ours, theirs, AUTOGRAD_TOLERANCE);
        }
    }

    let (x, a, b) = (random(6, &[5, 8], DType::F64), random(7, &[3, 8], DType::F64), random(8, &[6, 3], DType::F64));
    let (d_y, theirs) = autograd(&[x.clone(), a.clone(), b.clone()], |i| {
        Ok(linear::low_rank_forward(&i[0], LowRank { a: &i[1], b: &i[2], scale: 2.0 })?.0)
    });
    let low_rank = LowRank { a: &a, b: &b, scale: 2.0 };
    let (_, h) = linear::low_rank_forward(&x, low_rank).expect("forward");
    let ours = linear::low_rank_backward(&d_y, &x, &h, low_rank, true).expect("backward");
    assert_close("lora x", &ours.d_x.expect("wanted"), &theirs[0], AUTOGRAD_TOLERANCE);
    assert_close("lora A", &ours.d_a, &theirs[1], AUTOGRAD_TOLERANCE);
    assert_close("lora B", &ours.d_b, &theirs[2], AUTOGRAD_TOLERANCE);
}

const BOTH: head::Wanted = head::Wanted { input: true, weight: true };

/// A head without rows of tokens.
fn plain_head(weight: &Tensor, cap: Option<f64>) -> head::Head<'_> {
    head::Head { weight, tokens: None, cap }
}

#[test]
fn the_loss_of_the_head_equals_candles() {
    let (x, weight) = (random(1, &[300, 8], DType::F64), random(2, &[17, 8], DType::F64));
    let rows: Vec<u32> = (0..290).map(|i| i + 5).collect();
    let targets: Vec<u32> = (0..290).map(|i| i * 7 % 17).collect();
    let (var, weight_var) = (Var::from_tensor(&x).expect("a variable"), Var::from_tensor(&weight).expect("a variable"));
    let index = Tensor::new(rows.as_slice(), &Device::Cpu).expect("rows");
    let logits = var.as_tensor().index_select(&index, 0).and_then(|t| t.matmul(&weight_var.t()?)).expect("logits");
    let index = Tensor::new(targets.as_slice(), &Device::Cpu).expect("targets");
    // candle's is the mean.
    let loss = candle_nn::loss::cross_entropy(&logits, &index).and_then(|l| l * targets.len() as f64).expect("a loss");
    let theirs = loss.backward().expect("gradients");
    let ours = head::loss(&x, plain_head(&weight, None), &rows, &targets, BOTH).expect("a loss");
    assert!((ours.loss_sum / loss.to_scalar::<f64>().expect("a number") - 1.0).abs() < 1e-12);
    assert_close("head", &ours.d_input.expect("wanted"), theirs.get(&var).expect("a gradient"), AUTOGRAD_TOLERANCE);
    let theirs_weight = theirs.get(&weight_var).expect("a gradient");
    assert_close("head weight", ours.d_weight.as_ref().expect("wanted"), theirs_weight, AUTOGRAD_TOLERANCE);
    // The fast head in f32 on the same numbers.
    let cast = |t: &Tensor| t.to_dtype(DType::F32).expect("cast");
    let fast = head::loss(&cast(&x), plain_head(&cast(&weight), None), &rows, &targets, BOTH).expect("a loss");
    assert!((fast.loss_sum / ours.loss_sum - 1.0).abs() < 1e-6, "{} against {}", fast.loss_sum, ours.loss_sum);
    assert_close("fast head weight", fast.d_weight.as_ref().expect("wanted"), theirs_weight, FAST_TOLERANCE);
    assert_close("fast head", &fast.d_input.expect("wanted"), theirs.get(&var).expect("a gradient"), FAST_TOLERANCE);
}

#[test]
fn a_capped_head_equals_candles() {
    let (x, weight) = (random(1, &[9, 8], DType::F64), random(2, &[17, 8], DType::F64));
    let (rows, targets): (Vec<u32>, Vec<u32>) = ((1..9).collect(), (1..9).map(|i| i * 2).collect());
    let (var, weight_var) = (Var::from_tensor(&x).expect("a variable"), Var::from_tensor(&weight).expect("a variable"));
    let logits = var.as_tensor().narrow(0, 1, 8).and_then(|t| t.matmul(&weight_var.t()?)).expect("logits");
    let capped = (logits / 2.0).and_then(|t| t.tanh()? * 2.0).expect("capped");
    let index = Tensor::new(targets.as_slice(), &Device::Cpu).expect("targets");
    let loss = candle_nn::loss::cross_entropy(&capped, &index).and_then(|l| l * targets.len() as f64).expect("a loss");
    let theirs = loss.backward().expect("gradients");
    let ours = head::loss(&x, plain_head(&weight, Some(2.0)), &rows, &targets, BOTH).expect("a loss");
    assert!((ours.loss_sum / loss.to_scalar::<f64>().expect("a number") - 1.0).abs() < 1e-12);
    assert_close("head", &ours.d_input.expect("wanted"), theirs.get(&var).expect("a gradient"), AUTOGRAD_TOLERANCE);
    let theirs_weight = theirs.get(&weight_var).expect("a gradient");
    assert_close("head weight", ours.d_weight.as_ref().expect("wanted"), theirs_weight, AUTOGRAD_TOLERANCE);
    let cast = |t: &Tensor| t.to_dtype(DType::F32).expect("cast");
    let fast = head::loss(&cast(&x), plain_head(&cast(&weight), Some(2.0)), &rows, &targets, BOTH).expect("a loss");
    assert!((fast.loss_sum / ours.loss_sum - 1.0).abs() < 1e-6, "{} against {}", fast.loss_sum, ours.loss_sum);
    assert_close("fast head", &fast.d_input.expect("wanted"), theirs.get(&var).expect("a gradient"), FAST_TOLERANCE);
    assert_close("fast head weight", fast.d_weight.as_ref().expect("wanted"), theirs_weight, FAST_TOLERANCE);
}

#[test]
fn fast_ops_equal_plain_ones() {
    let f32 = DType::F32;
    let (x, weight, d_y) = (random(1, &[11, 24], f32), random(2, &[24], f32), random(3, &[11, 24], f32));
    let (fast, plain) =
        (rms_norm::forward(&x, &weight, 1e-5).expect("fast"), rms_norm::plain(&x, &weight, 1e-5).expect("plain"));
    assert_close("rms_norm", &fast.0, &plain.0, FAST_TOLERANCE);
    assert_close(
        "rms_norm backward",
        &rms_norm::backward(&d_y, &x, &weight, &fast.1).expect("fast"),
        &rms_norm::plain_backward(&d_y, &x, &weight, &plain.1).expect("plain"),
        FAST_TOLERANCE,
    );
    let up = random(4, &[11, 24], f32);
    for activation in [Activation::Silu, Activation::GeluTanh] {
        let fast = gated_mlp::forward(activation, &x, &up).expect("fast");
        assert_close("gated_mlp", &fast, &gated_mlp::plain(activation, &x, &up).expect("plain"), FAST_TOLERANCE);
        let fast = gated_mlp::backward(activation, &d_y, &x, &up).expect("fast");
        let plain = gated_mlp::plain_backward(activation, &d_y, &x, &up).expect("plain");
        assert_close("d_gate", &fast.0, &plain.0, FAST_TOLERANCE);
        assert_close("d_up", &fast.1, &plain.1, FAST_TOLERANCE);
    }
    let (fast, plain) = (gelu::forward(&x).expect("fast"), gelu::plain(&x).expect("plain"));
    assert_close("gelu", &fast, &plain, FAST_TOLERANCE);
    let (fast, plain) = (gelu::backward(&d_y, &x).expect("fast"), gelu::plain_backward(&d_y, &x).expect("plain"));
    assert_close("gelu d_x", &fast, &plain, FAST_TOLERANCE);
    let (fast, plain) = (softcap::forward(1.5, &x).expect("fast"), softcap::plain(1.5, &x).expect("plain"));
    assert_close("softcap", &fast, &plain, FAST_TOLERANCE);
    let fast = softcap::backward(1.5, &d_y, &plain).expect("fast");
    assert_close("softcap d_x", &fast, &softcap::plain_backward(1.5, &d_y, &plain).expect("plain"), FAST_TOLERANCE);

    let bias = random(6, &[24], f32);
    let fast = layer_norm::forward(&x, &weight, &bias, 1e-5).expect("fast");
    let plain = layer_norm::plain(&x, &weight, &bias, 1e-5).expect("plain");
    assert_close("layer_norm", &fast.0, &plain.0, FAST_TOLERANCE);
    let d_x = layer_norm::backward(&d_y, &x, &weight, &fast.1).expect("fast");
    let plain_d_x = layer_norm::plain_backward(&d_y, &x, &weight, &plain.1).expect("plain");
    assert_close("layer_norm d_x", &d_x, &plain_d_x, FAST_TOLERANCE);
    let fast = layer_norm::parameter_gradients(&d_y, &x, &fast.1).expect("fast");
    let plain = layer_norm::plain_parameter_gradients(&d_y, &x, &plain.1).expect("plain");
    assert_close("layer_norm d_weight", &fast.0, &plain.0, FAST_TOLERANCE);
    assert_close("layer_norm d_bias", &fast.1, &plain.1, FAST_TOLERANCE);

    let table = RopeTable::new(&ROPE, 6, 16);
    let ids: Vec<u32> = (0..11).collect();
    let positions = Positions::new(&table, &ids, std::slice::from_ref(&(0..11)));
    for direction in [Direction::Forward, Direction::Backward] {
        let fast = rope::rotate(&x, 4, &positions, direction).expect("fast");
        assert_close("rope", &fast, &rope::plain(&x, 4, &positions, direction).expect("plain"), FAST_TOLERANCE);
    }

    let (inputs, documents) = attention_inputs(f32);
    let documents = Documents::new(&documents);
    let d_o = random(5, &[13, 24], f32);
    let [q, k, v] = [&inputs[0], &inputs[1], &inputs[2]];
    for scores in SCORES {
        let fast = attention::forward(HEADS, scores, &documents, q, k, v).expect("fast");
        let plain = attention::plain(HEADS, scores, &documents, q, k, v).expect("plain");
        assert_close(&format!("attention, {scores:?}"), &fast.0, &plain.0, FAST_TOLERANCE);
        let saved = |o, log_sum_exp| attention::Saved { q, k, v, o, log_sum_exp };
        let backward = (attention::backward, attention::plain_backward);
        let fast = backward.0(HEADS, scores, &documents, &saved(&fast.0, &fast.1), &d_o).expect("fast");
        let plain = backward.1(HEADS, scores, &documents, &saved(&plain.0, &plain.1), &d_o).expect("plain");
        for (what, fast, plain) in
            [("d_q", &fast.d_q, &plain.d_q), ("d_k", &fast.d_k, &plain.d_k), ("d_v", &fast.d_v, &plain.d_v)]
        {
            assert_close(&format!("{what}, {scores:?}"), fast, plain, FAST_TOLERANCE);
        }
    }
}

#[test]
fn dropout_has_one_mask_for_both_paths_and_both_directions() {
    let mask = Mask { seed: 1, optimizer_step: 2, module: 3, probability: 0.3 };
    let x = random(1, &[50, 24], DType::F32);
    let sequence = Sequence {
        input_ids: vec![0; 50],
        position_ids: (0..50).collect(),
        example_ids: vec![4; 50],
        documents: std::iter::once(0..50).collect(),
        supervised: vec![],
        targets: vec![],
    };
    let fast = Dropout::new(mask, &sequence).apply(&x).expect("fast");
    let plain = Dropout::new(mask, &sequence);
    let x = x.to_dtype(DType::F64).expect("cast");
    // The second time with the mask that is kept.
    for _ in 0..2 {
        assert_close("dropout", &fast, &plain.apply(&x).expect("plain"), FAST_TOLERANCE);
    }
    let n_zero =
        fast.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("values").iter().filter(|v| **v == 0.0).count();
    assert!((300..420).contains(&n_zero), "{n_zero} of 1200 dropped at p = 0.3");
}

#[test]
fn a_document_does_not_see_its_neighbours() {
    let parity = Parity::open(fixtures().join("llama"));
    let engine = parity.engine(DType::F32);
    let adapter = parity.adapter("adapter", &engine);
    let packed = &parity.batch(0, true)[0];
    let second = packed.documents[1].clone();
    let mut other = packed.clone();
    other.input_ids[..packed.documents[0].end].iter_mut().for_each(|id| *id = (*id + 1) % 128);
    let rows = |sequence: &Sequence| -> Vec<Vec<f32>> {
        let logits = engine.logits(Some(&adapter), sequence).expect("logits");
        logits.narrow(0, second.start, second.len()).and_then(|t| t.to_vec2()).expect("rows")
    };
    assert_eq!(rows(packed), rows(&other));
}

#[test]
fn packed_and_alone_have_one_loss() {
    let parity = Parity::open(fixtures().join("qwen2"));
    let engine = parity.engine(DType::F32);
    let packed = &parity.batch(0, true)[1];
    let together = engine.loss(None, packed).expect("a loss");
    let alone: f64 = packed
        .documents
        .iter()
        .map(|d| {
            let labels: Vec<i32> = d
                .clone()
                .map(|t| {
                    packed
                        .supervised
                        .iter()
                        .position(|&s| s as usize + 1 == t)
                        .map_or(-100, |i| packed.targets[i] as i32)
                })
                .collect();
            let part = Sequence::new(
                &parity.config,
                &packed.input_ids[d.clone()],
                &labels,
                &packed.position_ids[d.clone()],
                &vec![0; d.len()],
            )
            .expect("a document");
            engine.loss(None, &part).expect("a loss")
        })
        .sum();
    assert!((together / alone - 1.0).abs() < 1e-6, "{together} packed, {alone} alone");
}
