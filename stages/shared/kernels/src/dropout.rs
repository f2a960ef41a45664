//! Dropout whose mask is a function of what is trained, not of how.
//!
//! `y = keep ? x / (1 - p) : 0`. Whether channel `c` of a token is kept follows from (seed, optimizer step, module, example id, position in the
//! example, `c`) alone, by Philox (see [`crate::random`]). So packing, micro-batches, threads and a resumed run meet the same mask, and
//! nothing is stored: the backward computes the mask again, since `dx = keep ? dy / (1 - p) : 0` is the same function.

use crate::dispatch::{self, Body, rows_per_task};
use crate::random::{derive_key, halves, philox};
use rayon::prelude::*;

/// Channels decided by one call of Philox: one word each.
const WORDS: usize = 4;
/// Calls made side by side, as many as the lanes of AVX2.
const CALLS: usize = 8;

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

    /// Words below this number drop: `p` as a fraction of 2^32.
    fn threshold(&self) -> u32 {
        (f64::from(self.probability) * 4_294_967_296.0).round() as u32
    }

    fn scale(&self) -> f32 {
        (1.0 / (1.0 - f64::from(self.probability))) as f32
    }
}

/// Drops channels of x (or of a gradient) and scales the others; `y` is overwritten.
///
/// - x, y: (N, D); example_ids, positions: (N), N at least 1; D at most 2^34
///
/// With `probability` 0, y is x. The same bits as [`reference::apply`].
pub fn apply(mask: Mask, x: &[f32], example_ids: &[u32], positions: &[u32], y: &mut [f32]) {
    assert!((0.0..1.0).contains(&mask.probability), "dropout: probability {} is not in [0, 1)", mask.probability);
    assert_eq!(example_ids.len(), positions.len(), "dropout: example_ids and positions differ in length");
    assert_eq!(x.len(), y.len(), "dropout: x and y differ in length");
    if mask.probability == 0.0 || x.is_empty() {
        y.copy_from_slice(x);
        return;
    }
    assert!(!positions.is_empty() && x.len().is_multiple_of(positions.len()), "dropout: x is not (N, D)");
    let d = x.len() / positions.len();
    let (key, threshold, scale) = (mask.key(), mask.threshold(), mask.scale());
    (x.par_chunks(d), y.par_chunks_mut(d), example_ids.par_iter(), positions.par_iter())
        .into_par_iter()
        .with_min_len(rows_per_task(4 * d))
        .for_each(|(x, y, example_id, position)| {
            dispatch::run(Row { key, threshold, scale, example_id: *example_id, position: *position, x, y });
        });
}

struct Row<'a> {
    key: [u32; 2],
    threshold: u32,
    scale: f32,
    example_id: u32,
    position: u32,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Body for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let chunks = self.x.chunks(WORDS * CALLS).zip(self.y.chunks_mut(WORDS * CALLS));
        for (i, (x, y)) in chunks.enumerate() {
            let mut words = [0; WORDS * CALLS];
            for (call, words) in words.as_chunks_mut::<WORDS>().0.iter_mut().enumerate() {
                *words = philox([self.example_id, self.position, (i * CALLS + call) as u32, 0], self.key);
            }
            for ((x, y), word) in x.iter().zip(y).zip(words) {
                *y = dropped(*x, word, self.threshold, self.scale);
            }
        }
    }
}

#[inline(always)]
fn dropped(x: f32, word: u32, threshold: u32, scale: f32) -> f32 {
    if word < threshold { 0.0 } else { x * scale }
}

/// The plain version.
pub mod reference {
    use super::{Mask, WORDS, dropped};
    use crate::random::philox;

    /// As [`super::apply`], channel by channel.
    pub fn apply(mask: Mask, x: &[f32], example_ids: &[u32], positions: &[u32], y: &mut [f32]) {
        let d = x.len() / positions.len();
        for i in 0..x.len() {
            let (row, channel) = (i / d, i % d);
            let words = philox([example_ids[row], positions[row], (channel / WORDS) as u32, 0], mask.key());
            y[i] = dropped(x[i], words[channel % WORDS], mask.threshold(), mask.scale());
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
            let kept = (1.0 / (1.0 - f64::from(probability))) as f32;
            assert!(y.iter().all(|y| *y == 0.0 || *y == kept));
        }
    }

    #[test]
    fn probability_zero_is_the_identity() {
        let x = noise("x", 30);
        assert_same_bits(&applied(Mask { probability: 0.0, ..MASK }, &x, &[0; 3], &[0; 3]), &x, "y");
    }
}
