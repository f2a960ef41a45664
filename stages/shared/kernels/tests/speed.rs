//! How fast the kernels are here: `cargo test -p pipe-kernels --test speed -- --ignored --nocapture`.
//!
//! The shapes are those of SmolLM2-135M at 1,024 tokens. Best of several repeats, on 1 and on 2 threads. The figures in README.md come
//! from this file; nothing else depends on them. Columns: wall time on 1 and on 2 threads, processor time on 1 thread (what counts on a
//! busy machine), and the three rates.

use pipe_kernels::random::Stream;
use pipe_kernels::{adamw, attention, cross_entropy, dropout, gated_mlp, reduce, rms_norm, rope};
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

/// The fastest of the repeats on a pool of `n_threads`: wall time, and processor time of the first thread.
fn best(n_threads: usize, repeats: usize, mut work: impl FnMut() + Send) -> (Duration, Duration) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("threads can be started");
    let once = |work: &mut (dyn FnMut() + Send)| {
        pool.install(|| {
            let (start, start_busy) = (Instant::now(), busy());
            let mut n_runs = 0;
            while n_runs == 0 || start.elapsed() < MEASURED_MIN {
                work();
                n_runs += 1;
            }
            (start.elapsed() / n_runs, busy().saturating_sub(start_busy) / n_runs)
        })
    };
    let times: Vec<_> = (0..repeats).map(|_| once(&mut work)).collect();
    let least = |times: &mut dyn Iterator<Item = Duration>| times.min().expect("there is a repeat");
    (least(&mut times.iter().map(|time| time.0)), least(&mut times.iter().map(|time| time.1)))
}

/// Processor time of this thread so far; zero where the system does not tell (it is in nanoseconds in Linux's schedstat).
fn busy() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// One line of the table: wall time on 1 thread and on 2, processor time on 1; then the rates (`amount / 1e9` per second).
fn report(name: &str, amount: f64, unit: &str, repeats: usize, mut work: impl FnMut() + Send) {
    let (one, one_busy) = best(1, repeats, &mut work);
    let (two, _) = best(2, repeats, &mut work);
    let [one, two, one_busy] = [one, two, one_busy].map(|time| time.as_secs_f64());
    writeln!(
        std::io::stderr(),
        "{name:44} {:9.3} {:9.3} {:9.3} ms {:8.1} {:8.1} {:8.1} {unit}",
        one * 1e3,
        two * 1e3,
        one_busy * 1e3,
        amount / one / 1e9,
        amount / two / 1e9,
        amount / one_busy / 1e9
    )
    .expect("stderr is open in tests");
}

type Forward = fn(attention::Shape, &[Range<usize>], f32, &[f32], &[f32], &[f32], &mut [f32], &mut [f32]);
type Backward = fn(
    attention::Shape,
    &[Range<usize>],
    f32,
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

fn measure_attention(name: &str, repeats: usize, forward: Forward, backward: Backward, document_len: usize) {
    let shape = attention::Shape { n_tokens: N_TOKENS, n_heads: 9, n_kv_heads: 3, head_dim: 64 };
    let documents: Vec<Range<usize>> =
        (0..N_TOKENS).step_by(document_len).map(|start| start..N_TOKENS.min(start + document_len)).collect();
    let n_pairs: usize = documents.iter().map(|document| document.len() * (document.len() + 1) / 2).sum();
    // Two floating-point operations per pair, channel and product; 2 products forward, 5 backward.
    let product = (2 * n_pairs * shape.n_heads * shape.head_dim) as f64;
    let (n_queries, n_keys) = (shape.n_query_elements(), shape.n_key_elements());
    let (q, k, v, d_o) = (noise("q", n_queries), noise("k", n_keys), noise("v", n_keys), noise("d_o", n_queries));
    let (mut o, mut log_sum_exp) = (vec![0.0; n_queries], vec![0.0; N_TOKENS * shape.n_heads]);
    report(&format!("attention forward, {name}"), 2.0 * product, "GFLOP/s", repeats, || {
        forward(shape, &documents, 0.125, &q, &k, &v, &mut o, &mut log_sum_exp);
    });
    let (mut dq, mut dk, mut dv) = (vec![0.0; n_queries], vec![0.0; n_keys], vec![0.0; n_keys]);
    report(&format!("attention backward, {name}"), 5.0 * product, "GFLOP/s", repeats, || {
        backward(shape, &documents, 0.125, &q, &k, &v, &o, &log_sum_exp, &d_o, &mut dq, &mut dk, &mut dv);
    });
}

#[test]
#[ignore = "a measurement, not a check"]
fn attention_speed() {
    for document_len in [1024, 205, 96] {
        measure_attention(
            &format!("documents of {document_len}"),
            REPEATS,
            attention::forward,
            attention::backward,
            document_len,
        );
    }
    measure_attention("plain, one", 1, attention::reference::forward, attention::reference::backward, 1024);
}

#[test]
#[ignore = "a measurement, not a check"]
fn cross_entropy_speed() {
    let (n, v) = (256, 49_152);
    let bytes = (4 * n * v) as f64;
    let logits = noise("logits", n * v);
    let targets: Vec<u32> = (0..n as u32).map(|i| i * 191).collect();
    let (mut work, mut losses) = (logits.clone(), vec![0.0; n]);
    report("copy of the same logits", 2.0 * bytes, "GB/s", REPEATS, || {
        use rayon::prelude::*;
        work.par_chunks_mut(v).zip(logits.par_chunks(v)).for_each(|(work, logits)| work.copy_from_slice(logits));
    });
    report("cross_entropy::forward", bytes, "GB/s", REPEATS, || cross_entropy::forward(&logits, &targets, &mut losses));
    report("cross_entropy::forward_backward", 2.0 * bytes, "GB/s", REPEATS, || {
        cross_entropy::forward_backward(&mut work, &targets, 1.0, &mut losses);
    });
    report("cross_entropy::reference::forward_backward", 2.0 * bytes, "GB/s", 1, || {
        cross_entropy::reference::forward_backward(&mut work, &targets, 1.0, &mut losses);
    });
}

#[test]
#[ignore = "a measurement, not a check"]
fn row_kernels_speed() {
    let (n, d) = (N_TOKENS, 576);
    let (x, weight, dy) = (noise("x", n * d), noise("weight", d), noise("dy", n * d));
    let (mut y, mut inv_rms) = (vec![0.0; n * d], vec![0.0; n]);
    let len = (n * d) as f64;
    report("rms_norm::forward", len, "Gelement/s", REPEATS, || {
        rms_norm::forward(&x, &weight, 1e-5, &mut y, &mut inv_rms);
    });
    report("rms_norm::backward", len, "Gelement/s", REPEATS, || {
        rms_norm::backward(&dy, &x, &weight, &inv_rms, &mut y);
    });
    let table = rope::Table::new(n, 64, 10_000.0);
    let positions: Vec<u32> = (0..n as u32).collect();
    report("rope::rotate", len, "Gelement/s", REPEATS, || rope::rotate(&mut y, 9, 64, &table, &positions));
    let mask = dropout::Mask { seed: 1, optimizer_step: 2, module: 3, probability: 0.05 };
    let example_ids = vec![0; n];
    report("dropout::apply", len, "Gelement/s", REPEATS, || {
        dropout::apply(mask, &x, &example_ids, &positions, &mut y);
    });
    report("dropout::reference::apply", len, "Gelement/s", 2, || {
        dropout::reference::apply(mask, &x, &example_ids, &positions, &mut y);
    });
}

#[test]
#[ignore = "a measurement, not a check"]
fn element_kernels_speed() {
    let len = N_TOKENS * 1536;
    let (gate, up, dy) = (noise("gate", len), noise("up", len), noise("dy", len));
    let (mut y, mut dgate, mut dup) = (vec![0.0; len], vec![0.0; len], vec![0.0; len]);
    let amount = len as f64;
    report("gated_mlp::forward", amount, "Gelement/s", REPEATS, || gated_mlp::forward(&gate, &up, &mut y));
    report("gated_mlp::reference::forward", amount, "Gelement/s", 2, || {
        gated_mlp::reference::forward(&gate, &up, &mut y);
    });
    report("gated_mlp::backward", amount, "Gelement/s", REPEATS, || {
        gated_mlp::backward(&dy, &gate, &up, &mut dgate, &mut dup);
    });
    let step = adamw::Step { learning_rate: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, t: 1 };
    report("adamw::update", amount, "Gelement/s", REPEATS, || {
        adamw::update(step, &mut y, &dy, &mut dgate, &mut dup);
    });
    report("reduce::sum_of_squares", amount, "Gelement/s", REPEATS, || {
        assert!(reduce::sum_of_squares(&dy) > 0.0);
    });
}
