//! How fast this machine multiplies and adds in f32 at all: the measure that speeds of training are divided by.
//!
//! ```text
//! 12 registers of 8 lanes      sums[i] = sums[i] * factor + addend, 12 chains that do not wait for each other
//! ```
//!
//! A loop that touches no memory is as fast as the processor goes: two fused multiply-adds of eight lanes a cycle where it has AVX2. It is
//! compiled as every kernel here, so a host with wider registers is measured with the instructions that the kernels use there.
//!
//! It deliberately keeps no time: how often, and which repeat counts, is the caller's.

use std::hint::black_box;

use crate::dispatch::{Body, run};

/// Chains side by side: enough to hide the latency of a multiply-add, few enough for 16 registers.
const N_CHAINS: usize = 12;
/// Lanes of a chain: one AVX2 register.
const N_LANES: usize = 8;

/// Floating point operations of one round of [`multiply_add`]: a product and a sum for each lane.
pub const FLOPS_PER_ROUND: usize = 2 * N_CHAINS * N_LANES;

struct MultiplyAdd {
    n_rounds: usize,
    factor: f32,
    addend: f32,
}

impl Body for MultiplyAdd {
    type Output = [[f32; N_LANES]; N_CHAINS];

    #[inline(always)]
    fn run(self) -> Self::Output {
        let (factor, addend) = ([self.factor; N_LANES], [self.addend; N_LANES]);
        let mut sums = [[0.0_f32; N_LANES]; N_CHAINS];
        for _ in 0..self.n_rounds {
            for chain in &mut sums {
                for lane in 0..N_LANES {
                    chain[lane] = chain[lane].mul_add(factor[lane], addend[lane]);
                }
            }
        }
        sums
    }
}

/// `n_rounds` times [`FLOPS_PER_ROUND`] operations in registers, on this thread. Returns what they give: `1 - 2^-n_rounds`.
pub fn multiply_add(n_rounds: usize) -> f32 {
    // x -> x / 2 + 1 / 2 goes to 1: nothing grows, and nothing becomes so small that it would be slow.
    let sums = run(MultiplyAdd { n_rounds: black_box(n_rounds), factor: black_box(0.5), addend: black_box(0.5) });
    sums.as_flattened().iter().sum::<f32>() / (N_CHAINS * N_LANES) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::on_every_pool;

    #[test]
    fn every_lane_is_computed() {
        for (name, values) in on_every_pool(|| [0, 1, 3, 1000].map(multiply_add)) {
            assert_eq!(values, [0.0, 0.5, 0.875, 1.0], "{name}");
        }
        assert_eq!(FLOPS_PER_ROUND, 192);
    }
}
