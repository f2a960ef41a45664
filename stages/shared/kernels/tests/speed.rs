//! How fast the kernels are here: `cargo test -p pipe-kernels --test speed -- --ignored --nocapture`.
//!
//! The shapes are those of SmolLM2-135M at 1,024 tokens. Best of several repeats, on 1 and on 2 threads. The figures in README.md come
//! from this file; nothing else depends on them. On a busy machine the processor time of a thread is what counts: it is the wall time that a
//! quiet machine would show.

use pipe_kernels::attention::Scores;
use pipe_kernels::random::Stream;
use pipe_kernels::{
    adamw, attention, cross_entropy, dropout, gated_mlp, gemm, layer_norm, peak, reduce, rms_norm, rope,
};
use std::io::Write;
use std::ops::Range;
use std::time::{Duration, Instant};

const N_TOKENS: usize = 1024;
const REPEATS: usize = 7;

fn noise(name: &str, len: usize) -> Vec<f32> {
    let stream = Stream::named(1, name);
    (0..len as u64).map(|i| stream.normal(i)).collect()
}

/// Shorter work is repeated: Linux brings a thread's processor time up to date every few milliseconds only.
const MEASURED_MIN: Duration = Duration::from_millis(40);

/// The fastest of the repeats on a pool of `n_threads`, in seconds: wall time, and processor time of a thread on average.
fn best(n_threads: usize, repeats: usize, mut work: impl FnMut() + Send) -> [f64; 2] {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("threads can be started");
    let busy_all = || pool.broadcast(|_| busy()).into_iter().sum::<Duration>();
    let mut once = || {
        let (start, start_busy) = (Instant::now(), busy_all());
        let mut n_runs = 0;
        while n_runs == 0 || start.elapsed() < MEASURED_MIN {
            pool.install(&mut work);
            n_runs += 1;
        }
        let times = [start.elapsed(), (busy_all() - start_busy) / n_threads as u32];
        times.map(|time| time.as_secs_f64() / f64::from(n_runs))
    };
    (0..repeats).map(|_| once()).fold([f64::INFINITY; 2], |a, b| [a[0].min(b[0]), a[1].min(b[1])])
}

/// Processor time of this thread so far; zero where the system does not tell (it is in nanoseconds in Linux's schedstat).
fn busy() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// One line of the table, for 1 and for 2 threads: wall time, processor time of a thread, and the rate by the latter (`amount / 1e9`
/// per second).
fn report(name: &str, amount: f64, unit: &str, mut work: impl FnMut() + Send) {
    report_line(name, amount, unit, [1, 2].map(|n_threads| best(n_threads, REPEATS, &mut work)).as_slice());
}

/// As [`report`], once and on 1 thread: the plain versions use no more.
fn report_plain(name: &str, amount: f64, unit: &str, work: impl FnMut() + Send) {
    report_line(name, amount, unit, &[best(1, 1, work)]);
}

fn report_line(name: &str, amount: f64, unit: &str, times: &[[f64; 2]]) {
    let mut line = format!("{name:44}");
    for (i, [wall, busy]) in times.iter().enumerate() {
        let rate = amount / busy / 1e9;
        line += &format!(" | {} threads: wall {:8.2} busy {:8.2} ms {rate:6.1} {unit}", i + 1, wall * 1e3, busy * 1e3);
    }
    writeln!(std::io::stderr(), "{line}").expect("stderr is open in tests");
}

#[test]
#[ignore = "a measurement, not a check"]
fn peak_speed() {
    let n_rounds = 20_000_000;
    let flops = (n_rounds * peak::FLOPS_PER_ROUND) as f64;
    report_line(
        "peak::multiply_add",
        flops,
        "GFLOP/s",
        &[best(1, REPEATS, || assert!(peak::multiply_add(n_rounds) > 0.0))],
    );
}

type Forward = fn(attention::Shape, &[Range<usize>], Scores, &[f32], &[f32], &[f32], &mut [f32], &mut [f32]);
type Backward = fn(
    attention::Shape,
    &[Range<usize>],
    Scores,
    &[f32],
    &[f32],
    &[f32],
    &[f32],
    &[f32],
    &[f32],
    &mut [f32],
    &mut [f32],
    &mut [f32],
);

/// q, k, v, d_o of an attention, and room for its results.
struct Attention {
    shape: attention::Shape,
    documents: Vec<Range<usize>>,
    inputs: [Vec<f32>; 4],
    /// o, log_sum_exp, dq, dk, dv.
    outputs: [Vec<f32>; 5],
}

impl Attention {
    fn new(head_dim: usize, document_len: usize) -> Self {
        let shape = attention::Shape { n_tokens: N_TOKENS, n_heads: 9, n_kv_heads: 3, head_dim };
        let starts = (0..N_TOKENS).step_by(document_len);
        let documents = starts.map(|start| start..N_TOKENS.min(start + document_len)).collect();
        let (n_queries, n_keys) = (shape.n_query_elements(), shape.n_key_elements());
        let inputs =
            [("q", n_queries), ("k", n_keys), ("v", n_keys), ("d_o", n_queries)].map(|(name, len)| noise(name, len));
        let outputs = [n_queries, N_TOKENS * shape.n_heads, n_queries, n_keys, n_keys].map(|len| vec![0.0; len]);
        Self { shape, documents, inputs, outputs }
    }

    /// Floating-point operations of one matrix product over the visible pairs: two per pair and channel.
    fn product(&self) -> f64 {
        let n_pairs: usize = self.documents.iter().map(|document| document.len() * (document.len() + 1) / 2).sum();
        (2 * n_pairs * self.shape.n_heads * self.shape.head_dim) as f64
    }

    fn forward(&mut self, forward: Forward) {
        let ([q, k, v, _], [o, log_sum_exp, ..]) = (&self.inputs, &mut self.outputs);
        forward(self.shape, &self.documents, Scores::scaled(0.125), q, k, v, o, log_sum_exp);
    }

    fn backward(&mut self, backward: Backward) {
        let ([q, k, v, d_o], [o, log_sum_exp, dq, dk, dv]) = (&self.inputs, &mut self.outputs);
        backward(self.shape, &self.documents, Scores::scaled(0.125), q, k, v, o, log_sum_exp, d_o, dq, dk, dv);
    }
}

#[test]
#[ignore = "a measurement, not a check"]
fn attention_speed() {
    for (head_dim, document_len) in [(64, 1024), (64, 205), (8, 512)] {
        let mut x = Attention::new(head_dim, document_len);
        // Two products forward, five backward.
        let (forward, backward) = (2.0 * x.product(), 5.0 * x.product());
        let name = |direction: &str| format!("attention {direction}, {head_dim} channels, documents of {document_len}");
        report(&name("forward"), forward, "GFLOP/s", || x.forward(attention::forward));
        report(&name("backward"), backward, "GFLOP/s", || x.backward(attention::backward));
        report_plain(&name("forward, plain"), forward, "GFLOP/s", || x.forward(attention::reference::forward));
        report_plain(&name("backward, plain"), backward, "GFLOP/s", || x.backward(attention::reference::backward));
    }
}

/// The products of SmolLM2-135M: (name, rows, reduced, columns, whether the right side is turned).
const PRODUCTS: [(&str, usize, usize, usize, bool); 14] = [
    ("copy of a turned side", 6, 576, 1536, true),
    ("copy of a straight side", 6, 576, 1536, false),
    ("small model", 512, 64, 64, true),
    ("adapter's gradient, r = 16", 16, N_TOKENS, 576, false),
    ("adapter, r = 16, back", N_TOKENS, 16, 576, false),
    ("q, o forward", N_TOKENS, 576, 576, true),
    ("k, v forward", N_TOKENS, 576, 192, true),
    ("gate, up forward", N_TOKENS, 576, 1536, true),
    ("down forward", N_TOKENS, 1536, 576, true),
    ("gate, up backward", N_TOKENS, 1536, 576, false),
    ("down backward", N_TOKENS, 576, 1536, false),
    ("head forward, 256 rows", 256, 576, 49_152, true),
    ("head backward, 256 rows", 256, 49_152, 576, false),
    ("adapter, r = 16", N_TOKENS, 576, 16, true),
];

#[test]
#[ignore = "a measurement, not a check"]
fn gemm_speed() {
    for (name, m, k, n, is_turned) in PRODUCTS {
        let x = noise("x", m * k);
        let w: Vec<half::bf16> = noise("w", k * n).into_iter().map(half::bf16::from_f32).collect();
        let w = gemm::Elements::Bf16(&w);
        let right = if is_turned { gemm::Matrix::new(w, n, k).transposed() } else { gemm::Matrix::new(w, k, n) };
        let left = gemm::Matrix::new(&x[..], m, k);
        let (mut y, mut scratch) = (vec![0.0; m * n], gemm::Scratch::default());
        report(&format!("gemm {name}: {m} x {k} x {n}"), (2 * m * k * n) as f64, "GFLOP/s", || {
            gemm::multiply(left, right, &mut y, gemm::Start::Zero, &mut scratch);
        });
        // One of them: the plain version takes seconds for each GFLOP.
        if name == "q, o forward" {
            report_plain("gemm q, o forward, plain", (2 * m * k * n) as f64, "GFLOP/s", || {
                gemm::reference::multiply(left, right, &mut y, gemm::Start::Zero);
            });
        }
    }
}

#[test]
#[ignore = "a measurement, not a check"]
fn cross_entropy_speed() {
    let (n, v) = (256, 49_152);
    let bytes = (4 * n * v) as f64;
    let logits = noise("logits", n * v);
    let targets: Vec<u32> = (0..n as u32).map(|i| i * 191).collect();
    let (mut work, mut losses) = (logits.clone(), vec![0.0; n]);
    report("copy of the same logits", 2.0 * bytes, "GB/s", || {
        use rayon::prelude::*;
        work.par_chunks_mut(v).zip(logits.par_chunks(v)).for_each(|(work, logits)| work.copy_from_slice(logits));
    });
    // No plain version of its own: it is the one below without the gradient.
    report("cross_entropy::forward", bytes, "GB/s", || cross_entropy::forward(&logits, v, &targets, &mut losses));
    report("cross_entropy::forward_backward", 2.0 * bytes, "GB/s", || {
        cross_entropy::forward_backward(&mut work, v, &targets, 1.0, &mut losses);
    });
    report_plain("cross_entropy::reference::forward_backward", 2.0 * bytes, "GB/s", || {
        cross_entropy::reference::forward_backward(&mut work, v, &targets, 1.0, &mut losses);
    });
}

#[test]
#[ignore = "a measurement, not a check"]
fn norm_speed() {
    let (n, d) = (N_TOKENS, 576);
    let (x, weight, bias, dy) = (noise("x", n * d), noise("weight", d), noise("bias", d), noise("dy", n * d));
    let (mut y, mut mean, mut inv) = (vec![0.0; n * d], vec![0.0; n], vec![0.0; n]);
    let (mut d_weight, mut d_bias) = (vec![0.0; d], vec![0.0; d]);
    let (len, unit) = ((n * d) as f64, "Gelement/s");
    report("rms_norm::forward", len, unit, || rms_norm::forward(&x, &weight, 1e-5, &mut y, &mut inv));
    report_plain("rms_norm::reference::forward", len, unit, || {
        rms_norm::reference::forward(&x, &weight, 1e-5, &mut y, &mut inv);
    });
    report("rms_norm::backward", len, unit, || rms_norm::backward(&dy, &x, &weight, &inv, &mut y));
    report_plain("rms_norm::reference::backward", len, unit, || {
        rms_norm::reference::backward(&dy, &x, &weight, &inv, &mut y);
    });
    report("rms_norm::weight_gradient", len, unit, || rms_norm::weight_gradient(&dy, &x, &inv, &mut d_weight));
    report_plain("rms_norm::reference::weight_gradient", len, unit, || {
        rms_norm::reference::weight_gradient(&dy, &x, &inv, &mut d_weight);
    });
    report("layer_norm::forward", len, unit, || {
        layer_norm::forward(&x, &weight, &bias, 1e-5, &mut y, &mut mean, &mut inv);
    });
    report_plain("layer_norm::reference::forward", len, unit, || {
        layer_norm::reference::forward(&x, &weight, &bias, 1e-5, &mut y, &mut mean, &mut inv);
    });
    report("layer_norm::backward", len, unit, || layer_norm::backward(&dy, &x, &weight, &mean, &inv, &mut y));
    report_plain("layer_norm::reference::backward", len, unit, || {
        layer_norm::reference::backward(&dy, &x, &weight, &mean, &inv, &mut y);
    });
    report("layer_norm::parameter_gradients", len, unit, || {
        layer_norm::parameter_gradients(&dy, &x, &mean, &inv, &mut d_weight, &mut d_bias);
    });
    report_plain("layer_norm::reference::parameter_gradients", len, unit, || {
        layer_norm::reference::parameter_gradients(&dy, &x, &mean, &inv, &mut d_weight, &mut d_bias);
    });
}

#[test]
#[ignore = "a measurement, not a check"]
fn row_kernels_speed() {
    let (n, d) = (N_TOKENS, 576);
    let x = noise("x", n * d);
    let mut y = x.clone();
    let (len, unit) = ((n * d) as f64, "Gelement/s");
    let table = rope::Table::new(n, 64, 10_000.0);
    let positions: Vec<u32> = (0..n as u32).collect();
    report("rope::rotate", len, unit, || rope::rotate(&mut y, 9, 64, &table, &positions));
    report_plain("rope::reference::rotate", len, unit, || {
        rope::reference::rotate(&mut y, 9, 64, &table, &positions, 1.0);
    });
    let mask = dropout::Mask { seed: 1, optimizer_step: 2, module: 3, probability: 0.05 };
    let example_ids = vec![0; n];
    report("dropout::apply", len, unit, || dropout::apply(mask, &x, &example_ids, &positions, &mut y));
    report_plain("dropout::reference::apply", len, unit, || {
        dropout::reference::apply(mask, &x, &example_ids, &positions, &mut y);
    });
}

#[test]
#[ignore = "a measurement, not a check"]
fn element_kernels_speed() {
    let len = N_TOKENS * 1536;
    let (gate, up, dy) = (noise("gate", len), noise("up", len), noise("dy", len));
    let (mut y, mut dgate, mut dup) = (vec![0.0; len], vec![0.0; len], vec![0.0; len]);
    let (amount, unit) = (len as f64, "Gelement/s");
    report("gated_mlp::forward", amount, unit, || gated_mlp::forward(gated_mlp::Activation::Silu, &gate, &up, &mut y));
    report_plain("gated_mlp::reference::forward", amount, unit, || {
        gated_mlp::reference::forward(gated_mlp::Activation::Silu, &gate, &up, &mut y);
    });
    report("gated_mlp::backward", amount, unit, || {
        gated_mlp::backward(gated_mlp::Activation::Silu, &dy, &gate, &up, &mut dgate, &mut dup)
    });
    report_plain("gated_mlp::reference::backward", amount, unit, || {
        gated_mlp::reference::backward(gated_mlp::Activation::Silu, &dy, &gate, &up, &mut dgate, &mut dup);
    });
    let step = adamw::Step { learning_rate: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, t: 1 };
    report("adamw::update", amount, unit, || adamw::update(step, &mut y, &dy, &mut dgate, &mut dup));
    report_plain("adamw::reference::update", amount, unit, || {
        adamw::reference::update(step, &mut y, &dy, &mut dgate, &mut dup);
    });
    report("reduce::sum_of_squares", amount, unit, || assert!(reduce::sum_of_squares(&dy) > 0.0));
    report_plain("reduce::reference::sum_of_squares", amount, unit, || {
        assert!(reduce::reference::sum_of_squares(&dy) > 0.0);
    });
    report("reduce::add_assign", amount, unit, || reduce::add_assign(&mut y, &dy));
    report_plain("the same in a plain loop", amount, unit, || {
        y.iter_mut().zip(&dy).for_each(|(y, x)| *y += x);
    });
}
