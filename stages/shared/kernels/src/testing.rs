//! What the tests of all kernels share: noise, thread pools, comparison of bits.

use crate::dispatch::InstructionSet;
use std::cell::Cell;

thread_local! {
    /// The best instruction set that `dispatch::run` may use in this thread.
    static LIMIT: Cell<InstructionSet> = const { Cell::new(InstructionSet::Avx512) };
}

/// Whether the current thread belongs to a pool that may use `set`.
pub(crate) fn is_allowed(set: InstructionSet) -> bool {
    set <= LIMIT.get()
}

/// Runs `work` with every instruction set of the host: on 1, 2, 3 and 5 threads with the best, on 1 and 3 with the others. Each result
/// comes with its name.
pub(crate) fn on_every_pool<R: Send>(work: impl Fn() -> R + Sync) -> Vec<(String, R)> {
    let mut results = Vec::new();
    for set in InstructionSet::ALL.into_iter().filter(|set| set.is_available()) {
        // Without the instruction, a fused multiply-add costs fifty times as much: two pools of that kind are enough.
        let thread_counts = if set == InstructionSet::of_host() { &[1, 2, 3, 5][..] } else { &[1, 3] };
        for &n_threads in thread_counts {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(n_threads)
                .start_handler(move |_| LIMIT.set(set))
                .build()
                .expect("a few threads can be started");
            results.push((format!("{n_threads} threads, {set}"), pool.install(&work)));
        }
    }
    results
}

/// Standard normal numbers, named so that two arrays of a test differ.
pub(crate) fn noise(name: &str, len: usize) -> Vec<f32> {
    let stream = crate::random::Stream::named(7, name);
    (0..len as u64).map(|i| stream.normal(i)).collect()
}

/// Fails, with the first index, where two slices differ in a bit.
#[track_caller]
pub(crate) fn assert_same_bits(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert_eq!(got.to_bits(), expected.to_bits(), "{what}: element {i}: {got:e} instead of {expected:e}");
    }
}

/// Largest difference, relative to the largest magnitude in `expected`; 0 for two zero slices.
#[track_caller]
pub(crate) fn relative_difference(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len(), "lengths");
    let scale = expected.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    let difference = got.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    assert!(difference.is_finite(), "a value is not finite");
    if scale == 0.0 { difference } else { difference / scale }
}

/// f32 values as f64.
pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

/// The gradient of `f` at `x` by central differences in f64.
pub(crate) fn central_differences(x: &[f32], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let step = 1e-5;
    let mut x = wide(x);
    (0..x.len())
        .map(|i| {
            let here = x[i];
            x[i] = here + step;
            let above = f(&x);
            x[i] = here - step;
            let below = f(&x);
            x[i] = here;
            (above - below) / (2.0 * step)
        })
        .collect()
}
