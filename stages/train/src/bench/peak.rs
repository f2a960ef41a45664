//! The f32 peak of the machine, on the threads of the current pool.
//!
//! ```text
//! peak = the larger of   a loop of multiply-adds in registers   and   our matrix product where it is at its best
//! ```
//!
//! Fastest of several repeats: a peak is what the machine does when nothing disturbs it.

use std::hint::black_box;
use std::time::Instant;

use pipe_kernels::gemm::{self, Matrix, Scratch, Start};
use pipe_kernels::peak::{FLOPS_PER_ROUND, multiply_add};
use serde::Serialize;

use super::report::FORMAT_VERSION;

/// Rounds of a repeat: about 10 ms at 100 GFLOP/s, long against the time it takes to wake a thread.
const N_ROUNDS: usize = 5_000_000;
/// Rows and columns of the matrix product.
const PRODUCT_SIDE: usize = 768;
/// Repeats; on a shared machine some are disturbed.
const N_REPEATS: usize = 15;

/// Speeds in GFLOP/s.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Peak {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Threads that worked together.
    pub threads: usize,
    /// Multiply-adds in registers, on one of them.
    pub one_thread_gflops: f64,
    /// Multiply-adds in registers, on all of them.
    pub registers_gflops: f64,
    /// A matrix product of f32 sides, on all of them.
    pub product_gflops: f64,
    /// The larger of the last two: what shares are of.
    pub peak_gflops: f64,
}

impl Peak {
    /// Measures, for half a second or so.
    pub fn measure() -> Self {
        let threads = rayon::current_num_threads();
        let flops = (N_ROUNDS * FLOPS_PER_ROUND) as f64;
        let one_thread_gflops = best_gflops(flops, || multiply_add(N_ROUNDS));
        let registers_gflops = best_gflops(threads as f64 * flops, || rayon::broadcast(|_| multiply_add(N_ROUNDS)));
        let product_gflops = product_gflops();
        Peak {
            format_version: FORMAT_VERSION,
            threads,
            one_thread_gflops,
            registers_gflops,
            product_gflops,
            peak_gflops: registers_gflops.max(product_gflops),
        }
    }

    /// A few lines for people.
    pub fn text(&self) -> String {
        format!(
            "f32 peak              {:.1} GFLOP/s on {} threads\n  in registers        {:.1} GFLOP/s, {:.1} on one thread\n  \
             in a matrix product {:.1} GFLOP/s\n",
            self.peak_gflops, self.threads, self.registers_gflops, self.one_thread_gflops, self.product_gflops
        )
    }
}

/// A product whose sides fit into the caches, long enough that their copies into panels do not count.
fn product_gflops() -> f64 {
    let side: Vec<f32> = (0..PRODUCT_SIDE * PRODUCT_SIDE).map(|i| (i % 251) as f32 / 251.0 - 0.5).collect();
    let matrix = Matrix::new(&side[..], PRODUCT_SIDE, PRODUCT_SIDE);
    let (mut out, mut scratch) = (vec![0.0; side.len()], Scratch::default());
    best_gflops(2.0 * (PRODUCT_SIDE as f64).powi(3), || {
        gemm::multiply(matrix, matrix, &mut out, Start::Zero, &mut scratch);
        black_box(&out);
    })
}

/// The fastest repeat of `work`, which takes `flops` operations.
fn best_gflops<T>(flops: f64, mut work: impl FnMut() -> T) -> f64 {
    let seconds = (0..N_REPEATS).map(|_| {
        let begin = Instant::now();
        black_box(work());
        begin.elapsed().as_secs_f64()
    });
    flops / seconds.fold(f64::INFINITY, f64::min) / 1e9
}
