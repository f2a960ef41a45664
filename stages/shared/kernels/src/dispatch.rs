//! One body, compiled for several instruction sets, chosen at run time.
//!
//! A [`Body`] is a loop over slices whose `run` is `#[inline(always)]`. [`run`] inlines it into a function that is compiled with AVX2 and
//! FMA where the host has them, and the compiler vectorizes it there. Call it inside a rayon task, never around one: a task that
//! rayon starts is another function and would be compiled for the baseline.

use pulp::{Arch, Simd, WithSimd};

/// Work to be compiled once per instruction set. `run` must be `#[inline(always)]`.
pub(crate) trait Body {
    /// What the work returns.
    type Output;
    /// Does the work.
    fn run(self) -> Self::Output;
}

struct Vectorized<B>(B);

impl<B: Body> WithSimd for Vectorized<B> {
    type Output = B::Output;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> B::Output {
        self.0.run()
    }
}

/// Runs `body` with the best instruction set of this host.
pub(crate) fn run<B: Body>(body: B) -> B::Output {
    #[cfg(test)]
    if crate::testing::is_baseline() {
        return body.run();
    }
    Arch::new().dispatch(Vectorized(body))
}

/// How many rows of `row_len` elements make a task worth its overhead (about 16,000 elements). Never changes a result.
pub(crate) fn rows_per_task(row_len: usize) -> usize {
    16_384_usize.div_ceil(row_len.max(1))
}
