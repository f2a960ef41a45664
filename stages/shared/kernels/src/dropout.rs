//! Dropout whose mask is a function of what is trained, not of how.
//!
//! `y = keep ? x / (1 - p) : 0`. Whether channel `c` of a token is kept follows from (seed, optimizer step, module, example id, position in the
//! example, `c`) alone, by Philox (see [`crate::random`]). So packing, micro-batches, threads and a resumed run meet the same mask, and
//! nothing is stored: the backward computes the mask again, since `dx = keep ? dy / (1 - p) : 0` is the same function.

use crate::dispatch::{self, Body, rows_per_task};
use crate::random::{derive_key, halves, philox};
use rayon::prelude::*;

/// Channels decided by one call of Philox: half a word each.
const PER_CALL: usize = 8;
/// Calls made side by side, as many as the lanes of AVX2.
const CALLS: usize = 8;
/// Channels of a block.
const BLOCK_LEN: usize = PER_CALL * CALLS;
/// Steps of the probability: a half word has this many values.
const STEPS: f64 = 65_536.0;

/// Which mask: one per optimizer step and adapted module.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mask {
    /// The seed of the training run.
    pub seed: u64,
    /// The optimizer step, from 0 or 1 as the caller likes.
    pub optimizer_step: u64,
    /// Index of the adapted module in the model.
    pub module: u64,
    /// Chance `p` of a channel to be dropped: 0 or more, below 1.
    pub probability: f32,
}

impl Mask {
    fn key(&self) -> [u32; 2] {
        derive_key(halves(self.seed), self.optimizer_step, self.module)
    }

    /// Half words below this number drop: `p` as a fraction of 2^16.
    fn threshold(&self) -> u16 {
        (f64::from(self.probability) * STEPS).round().min(STEPS - 1.0) as u16
    }

    /// `1 / (1 - p)`, of the probability that the threshold has.
    fn scale(&self) -> f32 {
        (1.0 / (1.0 - f64::from(self.threshold()) / STEPS)) as f32
    }
}

/// Drops channels of x (or of a gradient) and scales the others; `y` is overwritten.
///
/// - x, y: (N, D); example_ids, positions: (N), N at least 1; D at most 2^34
///
/// The probability is rounded to a multiple of 2^-16. With `probability` 0, y is x. The same bits as [`reference::apply`].
pub fn apply(mask: Mask, x: &[f32], example_ids: &[u32], positions: &[u32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "dropout: x and y differ in length");
    let d = mask.check(x.len(), example_ids, positions);
    if d == 0 || mask.threshold() == 0 {
        y.copy_from_slice(x);
        return;
    }
    let drop = Drop { key: mask.key(), threshold: mask.threshold(), scale: mask.scale() };
    (x.par_chunks(d), y.par_chunks_mut(d), example_ids.par_iter(), positions.par_iter())
        .into_par_iter()
        .with_min_len(rows_per_task(4 * d))
        .for_each(|(x, y, &example_id, &position)| dispatch::run(Row { drop, example_id, position, x, y }));
}

/// Both sides of a backward in one go, since the mask is most of the work: `y = drop(x)`, and `sum += drop(d)`.
///
/// - x, y, d, sum: (N, D); the others as in [`apply`]
///
/// The same bits as [`reference::apply`] twice and an addition.
pub fn apply_and_add(
    mask: Mask,
    [x, d]: [&[f32]; 2],
    example_ids: &[u32],
    positions: &[u32],
    [y, sum]: [&mut [f32]; 2],
) {
    assert!(x.len() == y.len() && x.len() == d.len() && x.len() == sum.len(), "dropout: lengths differ");
    let width = mask.check(x.len(), example_ids, positions);
    if width == 0 || mask.threshold() == 0 {
        y.copy_from_slice(x);
        crate::reduce::add_assign(sum, d);
        return;
    }
    let drop = Drop { key: mask.key(), threshold: mask.threshold(), scale: mask.scale() };
    let inputs =
        (x.par_chunks(width), d.par_chunks(width), example_ids.par_iter(), positions.par_iter()).into_par_iter();
    inputs
        .zip((y.par_chunks_mut(width), sum.par_chunks_mut(width)).into_par_iter())
        .with_min_len(rows_per_task(4 * width))
        .for_each(|((x, d, &example_id, &position), (y, sum))| {
            dispatch::run(TwoRows { drop, example_id, position, x, d, y, sum });
        });
}

impl Mask {
    /// D, or 0 for no elements. Fails where the sizes do not fit.
    fn check(&self, len: usize, example_ids: &[u32], positions: &[u32]) -> usize {
        assert!((0.0..1.0).contains(&self.probability), "dropout: probability {} is not in [0, 1)", self.probability);
        assert_eq!(example_ids.len(), positions.len(), "dropout: example_ids and positions differ in length");
        if len == 0 {
            return 0;
        }
        assert!(!positions.is_empty() && len.is_multiple_of(positions.len()), "dropout: x is not (N, D)");
        len / positions.len()
    }
}

#[derive(Clone, Copy)]
struct Drop {
    key: [u32; 2],
    threshold: u16,
    scale: f32,
}

impl Drop {
    /// What the channels of block `block_idx` are multiplied by: 0 or the scale.
    #[inline(always)]
    fn factors(&self, example_id: u32, position: u32, block_idx: usize) -> [f32; BLOCK_LEN] {
        let mut factors = [0.0; BLOCK_LEN];
        for (call, factors) in factors.as_chunks_mut::<PER_CALL>().0.iter_mut().enumerate() {
            let words = philox([example_id, position, (block_idx * CALLS + call) as u32, 0], self.key);
            for i in 0..PER_CALL {
                let half = (words[i / 2] >> (16 * (i % 2))) as u16;
                factors[i] = if half < self.threshold { 0.0 } else { self.scale };
            }
        }
        factors
    }
}

struct Row<'a> {
    drop: Drop,
    example_id: u32,
    position: u32,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Body for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let chunks = self.x.chunks(BLOCK_LEN).zip(self.y.chunks_mut(BLOCK_LEN));
        for (block_idx, (x, y)) in chunks.enumerate() {
            let factors = self.drop.factors(self.example_id, self.position, block_idx);
            for ((x, y), factor) in x.iter().zip(y).zip(factors) {
                *y = dropped(*x, factor);
            }
        }
    }
}

struct TwoRows<'a> {
    drop: Drop,
    example_id: u32,
    position: u32,
    x: &'a [f32],
    d: &'a [f32],
    y: &'a mut [f32],
    sum: &'a mut [f32],
}

impl Body for TwoRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let inputs = self.x.chunks(BLOCK_LEN).zip(self.d.chunks(BLOCK_LEN));
        let outputs = self.y.chunks_mut(BLOCK_LEN).zip(self.sum.chunks_mut(BLOCK_LEN));
        for (block_idx, ((x, d), (y, sum))) in inputs.zip(outputs).enumerate() {
            let factors = self.drop.factors(self.example_id, self.position, block_idx);
            for ((((x, d), y), sum), factor) in x.iter().zip(d).zip(y).zip(sum).zip(factors) {
                *y = dropped(*x, factor);
                *sum += dropped(*d, factor);
            }
        }
    }
}

/// A dropped channel is 0 whatever it was, a NaN too.
#[inline(always)]
fn dropped(x: f32, factor: f32) -> f32 {
    if factor == 0.0 { 0.0 } else { x * factor }
}

/// The plain version.
pub mod reference {
    use super::{Mask, PER_CALL, dropped};
    use crate::random::philox;

    /// As [`super::apply`], channel by channel.
    pub fn apply(mask: Mask, x: &[f32], example_ids: &[u32], positions: &[u32], y: &mut [f32]) {
        let d = x.len() / positions.len();
        for i in 0..x.len() {
            let (row, channel) = (i / d, i % d);
            let words = philox([example_ids[row], positions[row], (channel / PER_CALL) as u32, 0], mask.key());
            let in_call = channel % PER_CALL;
            let half = (words[in_call / 2] >> (16 * (in_call % 2))) & 0xffff;
            let factor = if half < u32::from(mask.threshold()) { 0.0 } else { mask.scale() };
            y[i] = dropped(x[i], factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_same_bits, noise, on_every_pool};

    const MASK: Mask = Mask { seed: 42, optimizer_step: 3, module: 5, probability: 0.05 };

    fn applied(mask: Mask, x: &[f32], example_ids: &[u32], positions: &[u32]) -> Vec<f32> {
        let mut y = vec![f32::NAN; x.len()];
        apply(mask, x, example_ids, positions, &mut y);
        y
    }

    #[test]
    fn the_mask_equals_the_reference_to_the_bit() {
        for (n, d) in [(1, 1), (3, 17), (31, 96), (5, 101), (40, 576)] {
            let x = noise("x", n * d);
            let example_ids: Vec<u32> = (0..n as u32).map(|i| i / 7).collect();
            let positions: Vec<u32> = (0..n as u32).map(|i| i % 7).collect();
            let mut expected = vec![f32::NAN; n * d];
            reference::apply(MASK, &x, &example_ids, &positions, &mut expected);
            for (pool, got) in on_every_pool(|| applied(MASK, &x, &example_ids, &positions)) {
                assert_same_bits(&got, &expected, &format!("({n}, {d}) on {pool}"));
            }
        }
    }

    #[test]
    fn both_sides_of_a_backward_have_one_mask() {
        for (n, d) in [(1, 1), (5, 101), (7, 130)] {
            let [x, d_y, before] = ["x", "d", "sum"].map(|name| noise(name, n * d));
            let (example_ids, positions): (Vec<u32>, Vec<u32>) = (0..n as u32).map(|i| (i / 3, i % 3)).unzip();
            for mask in [MASK, Mask { probability: 0.0, ..MASK }] {
                let (y_expected, dropped) =
                    (applied(mask, &x, &example_ids, &positions), applied(mask, &d_y, &example_ids, &positions));
                let sum_expected: Vec<f32> = before.iter().zip(dropped).map(|(sum, d)| sum + d).collect();
                for (pool, (y, sum)) in on_every_pool(|| {
                    let (mut y, mut sum) = (vec![f32::NAN; n * d], before.clone());
                    apply_and_add(mask, [&x, &d_y], &example_ids, &positions, [&mut y, &mut sum]);
                    (y, sum)
                }) {
                    assert_same_bits(&y, &y_expected, &format!("y of ({n}, {d}) on {pool}"));
                    assert_same_bits(&sum, &sum_expected, &format!("sum of ({n}, {d}) on {pool}"));
                }
            }
        }
    }

    #[test]
    fn the_mask_follows_the_token_and_not_its_place() {
        let (n, d) = (12, 50);
        let x = vec![1.0; n * d];
        let example_ids: Vec<u32> = (0..n as u32).map(|i| 100 + i / 5).collect();
        let positions: Vec<u32> = (0..n as u32).map(|i| i % 5).collect();
        let packed = applied(MASK, &x, &example_ids, &positions);
        for row in 0..n {
            let alone = applied(MASK, &x[..d], &example_ids[row..=row], &positions[row..=row]);
            assert_same_bits(&alone, &packed[row * d..(row + 1) * d], &format!("row {row}"));
        }
    }

    #[test]
    fn every_part_of_the_name_changes_the_mask() {
        let x = vec![1.0; 400];
        let mask = |mask: Mask, example_id: u32, position: u32| applied(mask, &x, &[example_id], &[position]);
        let base = mask(MASK, 1, 2);
        let others = [
            mask(Mask { seed: 43, ..MASK }, 1, 2),
            mask(Mask { seed: MASK.seed + (1 << 32), ..MASK }, 1, 2),
            mask(Mask { optimizer_step: 4, ..MASK }, 1, 2),
            mask(Mask { module: 6, ..MASK }, 1, 2),
            mask(Mask { optimizer_step: MASK.module, module: MASK.optimizer_step, ..MASK }, 1, 2),
            mask(MASK, 2, 2),
            mask(MASK, 1, 3),
            mask(MASK, 2, 1),
        ];
        for (i, other) in others.iter().enumerate() {
            assert_ne!(&base, other, "case {i}");
        }
    }

    #[test]
    fn the_share_of_dropped_channels_is_the_probability() {
        let n = 1000;
        let d = 100;
        for probability in [0.05, 0.5, 0.9] {
            let positions: Vec<u32> = (0..n).collect();
            let mask = Mask { probability, ..MASK };
            let y = applied(mask, &vec![1.0; (n * d) as usize], &vec![0; n as usize], &positions);
            let share = y.iter().filter(|y| **y == 0.0).count() as f64 / f64::from(n * d);
            // Five standard deviations.
            let tolerance = 5.0 * (f64::from(probability) * (1.0 - f64::from(probability)) / f64::from(n * d)).sqrt();
            assert!((share - f64::from(probability)).abs() < tolerance, "{share} instead of {probability}");
            // The rounded probability is within 2^-17 of what was asked for.
            let kept = mask.scale();
            assert!((f64::from(kept) * (1.0 - f64::from(probability)) - 1.0).abs() < 1e-4, "scale {kept}");
            assert!(y.iter().all(|y| *y == 0.0 || *y == kept));
        }
    }

    #[test]
    fn probability_zero_is_the_identity() {
        let x = noise("x", 30);
        assert_same_bits(&applied(Mask { probability: 0.0, ..MASK }, &x, &[0; 3], &[0; 3]), &x, "y");
    }
}
