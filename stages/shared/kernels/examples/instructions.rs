//! One kernel, once, on one thread, at a fixed shape: what `scripts/count_instructions.py` counts under valgrind.
//!
//! `instructions` lists the cases, `instructions NAME` runs one and prints the instruction set. The script collects from the entry of
//! [`counted_section`] to its end, found by that name. Instruction counts do not depend on the load of a machine: a change of a few per
//! cent is the code's. They say nothing about caches or about what an instruction costs; for that there is `tests/speed.rs`.
//!
//! A new case is one `add` in [`cases`], then `scripts/count_instructions.py --update`.

use pipe_kernels::attention::Scores;
use pipe_kernels::gated_mlp::Activation;
use pipe_kernels::random::Stream;
use pipe_kernels::{InstructionSet, adamw, attention, cross_entropy, dropout, gated_mlp, gelu};
use pipe_kernels::{gemm, layer_norm, reduce, rms_norm, rope, softcap};
use std::io::{Error, Write};
use std::ops::Range;

/// Rows, and channels of a row: no multiple of 16, so that the rest of a row counts too.
const N: usize = 64;
const D: usize = 579;
/// Elements of a kernel without rows.
const LEN: usize = N * D;

type Work = Box<dyn FnMut() + Send>;

type Prepare = Box<dyn FnOnce() -> Work>;

/// Names with what prepares their data.
#[derive(Default)]
struct Cases(Vec<(&'static str, Prepare)>);

impl Cases {
    /// `prepare` makes the data and returns what is counted.
    fn add<W: FnMut() + Send + 'static>(&mut self, name: &'static str, prepare: impl FnOnce() -> W + 'static) {
        self.0.push((name, Box::new(|| Box::new(prepare()))));
    }
}

fn cases() -> Cases {
    let mut cases = Cases::default();
    add_norms(&mut cases);
    add_rows(&mut cases);
    add_elements(&mut cases);
    cases.add("gemm::multiply/forward", || Product::new(50, 400, 70).turned(true));
    cases.add("gemm::multiply/backward", || Product::new(50, 400, 70).turned(false));
    cases.add("attention::forward/one_document", || Attention::new(64, &[200]).forward());
    cases.add("attention::backward/one_document", || Attention::new(64, &[200]).backward());
    cases.add("attention::forward/narrow_heads", || Attention::new(8, &[200]).forward());
    cases.add("attention::backward/narrow_heads", || Attention::new(8, &[200]).backward());
    cases.add("attention::forward/documents", || Attention::new(64, &[7, 97, 70, 26]).forward());
    cases.add("attention::backward/documents", || Attention::new(64, &[7, 97, 70, 26]).backward());
    let bent = || Scores { window: Some(120), cap: Some(50.0), ..Scores::scaled(0.125) };
    cases.add("attention::forward/window_and_cap", move || Attention::new(64, &[400]).with(bent()).forward());
    cases.add("attention::backward/window_and_cap", move || Attention::new(64, &[400]).with(bent()).backward());
    cases
}

fn add_norms(cases: &mut Cases) {
    cases.add("rms_norm::forward", || {
        let (x, weight, mut y, mut inv) = (noise("x", LEN), noise("weight", D), zeros(LEN), zeros(N));
        move || rms_norm::forward(&x, &weight, 1e-5, &mut y, &mut inv)
    });
    cases.add("rms_norm::backward", || {
        let (dy, x, weight, inv, mut dx) = (noise("dy", LEN), noise("x", LEN), noise("weight", D), ones(N), zeros(LEN));
        move || rms_norm::backward(&dy, &x, &weight, &inv, &mut dx)
    });
    cases.add("rms_norm::weight_gradient", || {
        let (dy, x, inv, mut d_weight) = (noise("dy", LEN), noise("x", LEN), ones(N), zeros(D));
        move || rms_norm::weight_gradient(&dy, &x, &inv, &mut d_weight)
    });
    cases.add("layer_norm::forward", || {
        let (x, weight, bias) = (noise("x", LEN), noise("weight", D), noise("bias", D));
        let (mut y, mut mean, mut inv) = (zeros(LEN), zeros(N), zeros(N));
        move || layer_norm::forward(&x, &weight, &bias, 1e-5, &mut y, &mut mean, &mut inv)
    });
    cases.add("layer_norm::backward", || {
        let (dy, x, weight) = (noise("dy", LEN), noise("x", LEN), noise("weight", D));
        let (mean, inv, mut dx) = (zeros(N), ones(N), zeros(LEN));
        move || layer_norm::backward(&dy, &x, &weight, &mean, &inv, &mut dx)
    });
    cases.add("layer_norm::parameter_gradients", || {
        let (dy, x, mean, inv) = (noise("dy", LEN), noise("x", LEN), zeros(N), ones(N));
        let (mut d_weight, mut d_bias) = (zeros(D), zeros(D));
        move || layer_norm::parameter_gradients(&dy, &x, &mean, &inv, &mut d_weight, &mut d_bias)
    });
}

fn add_rows(cases: &mut Cases) {
    cases.add("rope::rotate", || {
        let (mut x, table, positions) = (noise("x", N * 9 * 64), rope::Table::new(N, 64, 10_000.0), positions());
        move || rope::rotate(&mut x, 9, 64, &table, &positions)
    });
    cases.add("dropout::apply", || {
        let (x, positions, mut y) = (noise("x", LEN), positions(), zeros(LEN));
        let mask = dropout::Mask { seed: 1, optimizer_step: 2, module: 3, probability: 0.05 };
        move || dropout::apply(mask, &x, &[7; N], &positions, &mut y)
    });
    cases.add("dropout::apply_and_add", || {
        let (x, d, positions, mut y, mut sum) = (noise("x", LEN), noise("d", LEN), positions(), zeros(LEN), zeros(LEN));
        let mask = dropout::Mask { seed: 1, optimizer_step: 2, module: 3, probability: 0.05 };
        move || dropout::apply_and_add(mask, [&x, &d], &[7; N], &positions, [&mut y, &mut sum])
    });
    cases.add("cross_entropy::forward", || {
        let (logits, mut losses) = (noise("logits", 8 * 4999), zeros(8));
        move || cross_entropy::forward(&logits, 4999, &[123; 8], &mut losses)
    });
    cases.add("cross_entropy::forward_backward", || {
        let (mut logits, mut losses) = (noise("logits", 8 * 4999), zeros(8));
        move || cross_entropy::forward_backward(&mut logits, 4999, &[123; 8], 0.5, &mut losses)
    });
}

fn add_elements(cases: &mut Cases) {
    cases.add("gated_mlp::forward", || {
        let (gate, up, mut y) = (noise("gate", LEN), noise("up", LEN), zeros(LEN));
        move || gated_mlp::forward(Activation::Silu, &gate, &up, &mut y)
    });
    cases.add("gated_mlp::backward", || {
        let (dy, gate, up) = (noise("dy", LEN), noise("gate", LEN), noise("up", LEN));
        let (mut dgate, mut dup) = (zeros(LEN), zeros(LEN));
        move || gated_mlp::backward(Activation::Silu, &dy, &gate, &up, &mut dgate, &mut dup)
    });
    cases.add("gated_mlp::forward/gelu_tanh", || {
        let (gate, up, mut y) = (noise("gate", LEN), noise("up", LEN), zeros(LEN));
        move || gated_mlp::forward(Activation::GeluTanh, &gate, &up, &mut y)
    });
    cases.add("gated_mlp::backward/gelu_tanh", || {
        let (dy, gate, up) = (noise("dy", LEN), noise("gate", LEN), noise("up", LEN));
        let (mut dgate, mut dup) = (zeros(LEN), zeros(LEN));
        move || gated_mlp::backward(Activation::GeluTanh, &dy, &gate, &up, &mut dgate, &mut dup)
    });
    cases.add("gelu::forward", || {
        let (x, mut y) = (noise("x", LEN), zeros(LEN));
        move || gelu::forward(&x, &mut y)
    });
    cases.add("gelu::backward", || {
        let (dy, x, mut dx) = (noise("dy", LEN), noise("x", LEN), zeros(LEN));
        move || gelu::backward(&dy, &x, &mut dx)
    });
    cases.add("softcap::forward", || {
        let mut x = noise("x", LEN);
        move || softcap::forward(30.0, &mut x)
    });
    cases.add("softcap::backward", || {
        let (y, mut dy) = (noise("y", LEN), noise("dy", LEN));
        move || softcap::backward(30.0, &y, &mut dy)
    });
    cases.add("adamw::update", || {
        let step = adamw::Step { learning_rate: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, t: 1 };
        let (mut param, grad, mut m, mut v) = (noise("param", LEN), noise("grad", LEN), zeros(LEN), zeros(LEN));
        move || adamw::update(step, &mut param, &grad, &mut m, &mut v)
    });
    cases.add("reduce::sum_of_squares", || {
        let x = noise("x", LEN);
        move || assert!(reduce::sum_of_squares(&x) > 0.0)
    });
    cases.add("reduce::add_assign", || {
        let (mut y, x) = (zeros(LEN), noise("x", LEN));
        move || reduce::add_assign(&mut y, &x)
    });
    cases.add("reduce::add_row", || {
        let (mut y, row) = (zeros(LEN), noise("row", D));
        move || reduce::add_row(&mut y, &row)
    });
    cases.add("reduce::add_column_sums", || {
        let (x, mut sums) = (noise("x", LEN), zeros(D));
        move || reduce::add_column_sums(&x, &mut sums)
    });
}

/// f32 on the left, bf16 on the right.
struct Product {
    shape: [usize; 3],
    left: Vec<f32>,
    right: Vec<half::bf16>,
}

impl Product {
    /// (m, k) times (k, n).
    fn new(m: usize, k: usize, n: usize) -> Self {
        let right = noise("right", k * n).into_iter().map(half::bf16::from_f32).collect();
        Self { shape: [m, k, n], left: noise("left", m * k), right }
    }

    fn turned(self, is_turned: bool) -> impl FnMut() + Send {
        let Self { shape: [m, k, n], left, right } = self;
        let (mut out, mut scratch) = (zeros(m * n), gemm::Scratch::default());
        move || {
            let right = gemm::Elements::Bf16(&right);
            let right =
                if is_turned { gemm::Matrix::new(right, n, k).transposed() } else { gemm::Matrix::new(right, k, n) };
            gemm::multiply(gemm::Matrix::new(&left[..], m, k), right, &mut out, gemm::Start::Zero, &mut scratch);
        }
    }
}

/// Three query heads for one key head.
struct Attention {
    shape: attention::Shape,
    scores: Scores,
    documents: Vec<Range<usize>>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Attention {
    fn new(head_dim: usize, lengths: &[usize]) -> Self {
        let shape = attention::Shape { n_tokens: lengths.iter().sum(), n_heads: 3, n_kv_heads: 1, head_dim };
        let starts = (0..lengths.len()).map(|i| lengths[..i].iter().sum());
        let documents = starts.zip(lengths).map(|(start, length): (usize, _)| start..start + length).collect();
        let (q, [k, v]) = (noise("q", shape.n_query_elements()), ["k", "v"].map(|x| noise(x, shape.n_key_elements())));
        Self { shape, scores: Scores::scaled(0.125), documents, q, k, v }
    }

    fn with(self, scores: Scores) -> Self {
        Self { scores, ..self }
    }

    fn forward(self) -> impl FnMut() + Send {
        let (mut o, mut log_sum_exp) = (zeros(self.q.len()), zeros(self.shape.n_tokens * self.shape.n_heads));
        move || {
            let Self { shape, scores, documents, q, k, v } = &self;
            attention::forward(*shape, documents, *scores, q, k, v, &mut o, &mut log_sum_exp);
        }
    }

    fn backward(self) -> impl FnMut() + Send {
        let (o, d_o) = (noise("o", self.q.len()), noise("d_o", self.q.len()));
        // Not of these scores, but large enough for all of them: a probability is at most 1.
        let log_sum_exp = vec![100.0; self.shape.n_tokens * self.shape.n_heads];
        let (mut dq, [mut dk, mut dv]) = (zeros(self.q.len()), [zeros(self.k.len()), zeros(self.k.len())]);
        move || {
            let Self { shape, scores, documents, q, k, v } = &self;
            let (lse, dq, dk, dv) = (&log_sum_exp, &mut dq, &mut dk, &mut dv);
            attention::backward(*shape, documents, *scores, q, k, v, &o, lse, &d_o, dq, dk, dv);
        }
    }
}

fn zeros(len: usize) -> Vec<f32> {
    vec![0.0; len]
}

fn ones(len: usize) -> Vec<f32> {
    vec![1.0; len]
}

fn positions() -> Vec<u32> {
    (0..N as u32).collect()
}

fn noise(name: &str, len: usize) -> Vec<f32> {
    let stream = Stream::named(1, name);
    (0..len as u64).map(|i| stream.uniform(i) * 4.0 - 2.0).collect()
}

/// What valgrind collects in: a function of its own, called through a pointer, so that its name is found and nothing else has it.
#[inline(never)]
fn counted_section(work: &mut (dyn FnMut() + Send)) {
    work();
    // Without this, the call would be a jump and the function's end would not be seen.
    std::hint::black_box(());
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let mut cases = cases().0.into_iter();
    let Some(name) = std::env::args().nth(1) else {
        return cases.try_for_each(|(name, _)| writeln!(out, "{name}"));
    };
    let (_, prepare) = cases.find(|case| case.0 == name).ok_or_else(|| Error::other(format!("no case `{name}`")))?;
    let mut work = prepare();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(Error::other)?;
    // Once before, for what happens only the first time.
    pool.install(&mut work);
    pool.install(|| counted_section(&mut *work));
    writeln!(out, "{}", InstructionSet::of_host())
}
