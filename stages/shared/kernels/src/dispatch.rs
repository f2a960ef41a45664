//! One body, compiled for several instruction sets, chosen at run time.
//!
//! A [`Body`] is a loop over slices whose `run` is `#[inline(always)]`. [`run`] inlines it into a function that is compiled for the best
//! instruction set of the host, and the compiler vectorizes it there:
//!
//! ```text
//! x86-64    AVX-512 (with the cargo feature `avx512`) > AVX2 with FMA > baseline (SSE2, multiply-add in software)
//! aarch64   NEON, which is its baseline
//! ```
//!
//! Call it inside a rayon task, never around one: a task that rayon starts is another function and would be compiled for the baseline.
//!
//! The choice never shows in a result. AVX-512 is compiled only with the feature, since no machine of ours has run it: a default build
//! takes AVX2 there.

use pulp::{Simd, WithSimd};
use std::sync::atomic::{AtomicU8, Ordering};

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

/// What the kernels are compiled for, the slower first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// What every processor of the target has.
    Baseline,
    /// 128-bit registers of aarch64.
    Neon,
    /// 256-bit registers of x86-64, with FMA.
    Avx2,
    /// 512-bit registers of x86-64; only with the cargo feature `avx512`.
    Avx512,
}

impl InstructionSet {
    /// All of them, the slower first.
    pub const ALL: [Self; 4] = [Self::Baseline, Self::Neon, Self::Avx2, Self::Avx512];

    /// What the kernels run with on this host.
    pub fn of_host() -> Self {
        Self::ALL.into_iter().rev().find(|set| set.is_available()).unwrap_or(Self::Baseline)
    }

    /// Whether this build has it and this host can run it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Baseline => true,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => pulp::aarch64::Neon::try_new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => pulp::x86::V3::try_new().is_some(),
            #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
            Self::Avx512 => pulp::x86::V4::try_new().is_some(),
            _ => false,
        }
    }
}

impl std::fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Baseline => "baseline",
            Self::Neon => "NEON",
            Self::Avx2 => "AVX2",
            Self::Avx512 => "AVX-512",
        })
    }
}

/// Runs `body` with the best instruction set of this host.
pub(crate) fn run<B: Body>(body: B) -> B::Output {
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    if is_allowed(InstructionSet::Avx512)
        && let Some(simd) = pulp::x86::V4::try_new()
    {
        return Simd::vectorize(simd, Vectorized(body));
    }
    #[cfg(target_arch = "x86_64")]
    if is_allowed(InstructionSet::Avx2)
        && let Some(simd) = pulp::x86::V3::try_new()
    {
        return Simd::vectorize(simd, Vectorized(body));
    }
    #[cfg(target_arch = "aarch64")]
    if is_allowed(InstructionSet::Neon)
        && let Some(simd) = pulp::aarch64::Neon::try_new()
    {
        return Simd::vectorize(simd, Vectorized(body));
    }
    body.run()
}

/// The best instruction set that the process may use, as its place in [`InstructionSet`].
static BEST_ALLOWED: AtomicU8 = AtomicU8::new(InstructionSet::Avx512 as u8);

/// Lets no kernel of this process use a better instruction set than `best` from now on, until it is called again. Results stay the same, to
/// the bit: this is how to see that. The baseline of x86-64 is about fifty times slower.
pub fn limit_instruction_set(best: InstructionSet) {
    BEST_ALLOWED.store(best as u8, Ordering::Relaxed);
}

fn is_allowed(set: InstructionSet) -> bool {
    #[cfg(test)]
    if !crate::testing::is_allowed(set) {
        return false;
    }
    set as u8 <= BEST_ALLOWED.load(Ordering::Relaxed)
}

/// How many rows of `row_len` elements make a task worth its overhead (about 16,000 elements). Never changes a result.
pub(crate) fn rows_per_task(row_len: usize) -> usize {
    16_384_usize.div_ceil(row_len.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::on_every_pool;
    use std::io::Write;

    /// A chain of multiply-adds whose rounding shows.
    struct Chain(f32);

    impl Body for Chain {
        type Output = f32;

        #[inline(always)]
        fn run(self) -> f32 {
            (0..100).fold(self.0, |sum, i| sum.mul_add(0.9, i as f32))
        }
    }

    #[test]
    fn every_instruction_set_of_the_host_is_tested() {
        let expected = Chain(0.1).run();
        let pools = on_every_pool(|| run(Chain(std::hint::black_box(0.1))));
        for set in InstructionSet::ALL {
            let n_pools = pools.iter().filter(|(name, _)| name.ends_with(&set.to_string())).count();
            assert_eq!(n_pools > 0, set.is_available(), "{set}");
        }
        assert!(pools.iter().all(|(_, sum)| sum.to_bits() == expected.to_bits()));
        if cfg!(target_arch = "x86_64") && !InstructionSet::Avx512.is_available() {
            let why =
                if cfg!(feature = "avx512") { "this processor has none" } else { "built without the feature avx512" };
            writeln!(std::io::stderr(), "SKIPPED equality on AVX-512: {why}").expect("stderr is open in tests");
        }
    }
}
