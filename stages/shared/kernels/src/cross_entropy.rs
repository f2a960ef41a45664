//! Softmax cross-entropy over a vocabulary, one row per supervised token.
//!
//! `loss = ln(sum(exp(logits))) - logits[target]`, and `d loss / d logits = softmax(logits) - onehot(target)`.
//!
//! A row is read from memory once and written once: it is turned into its gradient in place, in three passes that find it in
//! the cache. Rows without a target are not for this kernel: the head computes logits for supervised tokens only. Whoever adds up the losses
//! divides once, by all supervised tokens of the optimizer step.

use crate::dispatch::{self, Body};
use crate::lanes::{self, LANES, tree_sum};
use crate::math::{exp_of_nonpositive, ln};
use rayon::prelude::*;

/// Elements that are added up in f32 before their sum goes to f64: keeps the sum over a large vocabulary as exact as its terms.
const BLOCK_LEN: usize = 1024;

/// Losses of N rows; the logits become the gradient of `scale * sum(losses)`.
///
/// - logits: (N, V) in rows of V numbers or more; targets: (N), each below V; losses: (N) in nats; vocab_size: V, at least 1
/// - scale: factor of every gradient, not of the losses
///
/// A NaN or an infinity among the logits gives a loss that is not finite. The same bits as [`reference::forward_backward`].
pub fn forward_backward(logits: &mut [f32], vocab_size: usize, targets: &[u32], scale: f32, losses: &mut [f32]) {
    let Some(row_len) = row_len(logits.len(), vocab_size, targets, losses.len()) else { return };
    (logits.par_chunks_mut(row_len), targets.par_iter(), losses.par_iter_mut()).into_par_iter().for_each(
        |(logits, target, loss)| {
            let logits = &mut logits[..vocab_size];
            *loss = dispatch::run(GradientRow { logits, target: *target as usize, scale });
        },
    );
}

struct GradientRow<'a> {
    logits: &'a mut [f32],
    target: usize,
    scale: f32,
}

impl Body for GradientRow<'_> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        let max = lanes::max(self.logits);
        let at_target = self.logits[self.target];
        let mut sum = 0.0;
        for block in self.logits.chunks_mut(BLOCK_LEN) {
            let (chunks, tail) = block.as_chunks_mut::<LANES>();
            let mut acc = [0.0; LANES];
            for chunk in chunks {
                for lane in 0..LANES {
                    chunk[lane] = exp_of_nonpositive(chunk[lane] - max);
                    acc[lane] += chunk[lane];
                }
            }
            for (x, acc) in tail.iter_mut().zip(&mut acc) {
                *x = exp_of_nonpositive(*x - max);
                *acc += *x;
            }
            sum += f64::from(tree_sum(acc));
        }
        let factor = gradient_factor(self.scale, sum);
        for x in self.logits.iter_mut() {
            *x *= factor;
        }
        self.logits[self.target] -= self.scale;
        loss(max, at_target, sum)
    }
}

/// Losses of N rows, without gradients.
///
/// - logits, vocab_size, targets, losses: as in [`forward_backward`]
///
/// The same bits as the losses of [`forward_backward`].
pub fn forward(logits: &[f32], vocab_size: usize, targets: &[u32], losses: &mut [f32]) {
    let Some(row_len) = row_len(logits.len(), vocab_size, targets, losses.len()) else { return };
    (logits.par_chunks(row_len), targets.par_iter(), losses.par_iter_mut()).into_par_iter().for_each(
        |(logits, target, loss)| {
            *loss = dispatch::run(LossRow { logits: &logits[..vocab_size], target: *target as usize });
        },
    );
}

struct LossRow<'a> {
    logits: &'a [f32],
    target: usize,
}

impl Body for LossRow<'_> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        let max = lanes::max(self.logits);
        let mut sum = 0.0;
        for block in self.logits.chunks(BLOCK_LEN) {
            let mut acc = [0.0; LANES];
            lanes::for_each_chunk(
                block,
                f32::NEG_INFINITY,
                #[inline(always)]
                |chunk| {
                    for lane in 0..LANES {
                        acc[lane] += exp_of_nonpositive(chunk[lane] - max);
                    }
                },
            );
            sum += f64::from(tree_sum(acc));
        }
        loss(max, self.logits[self.target], sum)
    }
}

/// Numbers of a row, after checking the shapes; `None` where there are no rows.
fn row_len(n_logits: usize, vocab_size: usize, targets: &[u32], n_losses: usize) -> Option<usize> {
    assert_eq!(targets.len(), n_losses, "cross_entropy: targets and losses differ in length");
    if targets.is_empty() {
        assert_eq!(n_logits, 0, "cross_entropy: logits without targets");
        return None;
    }
    let row_len = n_logits / targets.len();
    assert!(vocab_size > 0 && vocab_size <= row_len, "cross_entropy: {vocab_size} logits in rows of {row_len}");
    assert_eq!(n_logits, row_len * targets.len(), "cross_entropy: logits are not rows of one length");
    for target in targets {
        assert!((*target as usize) < vocab_size, "cross_entropy: target {target} is outside of {vocab_size} logits");
    }
    Some(row_len)
}

#[inline(always)]
fn gradient_factor(scale: f32, sum: f64) -> f32 {
    (f64::from(scale) / sum) as f32
}

#[inline(always)]
fn loss(max: f32, at_target: f32, sum: f64) -> f32 {
    (max - at_target) + ln(sum as f32)
}

/// The plain version.
pub mod reference {
    use super::{BLOCK_LEN, gradient_factor, loss};
    use crate::lanes::reference::sum;
    use crate::math::exp_of_nonpositive;

    /// As [`super::forward_backward`].
    pub fn forward_backward(logits: &mut [f32], vocab_size: usize, targets: &[u32], scale: f32, losses: &mut [f32]) {
        let row_len = logits.len() / targets.len();
        for (row, target) in targets.iter().enumerate() {
            let logits = &mut logits[row * row_len..][..vocab_size];
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let powers: Vec<f32> = logits.iter().map(|x| exp_of_nonpositive(x - max)).collect();
            let total: f64 = powers.chunks(BLOCK_LEN).map(|block| f64::from(sum(block))).sum();
            losses[row] = loss(max, logits[*target as usize], total);
            for (x, power) in logits.iter_mut().zip(powers) {
                *x = power * gradient_factor(scale, total);
            }
            logits[*target as usize] -= scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_same_bits, central_differences, noise, on_every_pool, relative_difference};

    fn logits(len: usize) -> Vec<f32> {
        noise("logits", len).iter().map(|x| x * 4.0).collect()
    }

    #[test]
    fn losses_and_gradients_equal_the_reference_to_the_bit() {
        for (n, v, row_len) in [(1, 1, 1), (3, 17, 32), (5, 1024, 1024), (7, 2503, 2504), (2, 49_152, 49_168)] {
            let targets: Vec<u32> = (0..n as u32).map(|i| i * 7919 % v as u32).collect();
            let (mut gradient, mut losses) = (logits(n * row_len), vec![0.0; n]);
            reference::forward_backward(&mut gradient, v, &targets, 0.25, &mut losses);
            let fast = || {
                let (mut gradient, mut losses, mut only_losses) = (logits(n * row_len), vec![0.0; n], vec![0.0; n]);
                forward(&gradient, v, &targets, &mut only_losses);
                forward_backward(&mut gradient, v, &targets, 0.25, &mut losses);
                (gradient, losses, only_losses)
            };
            for (pool, (fast_gradient, fast_losses, only_losses)) in on_every_pool(fast) {
                assert_same_bits(&fast_losses, &losses, &format!("losses of ({n}, {v}) on {pool}"));
                assert_same_bits(&only_losses, &losses, &format!("losses alone of ({n}, {v}) on {pool}"));
                // What lies behind a row stays as it was, too.
                assert_same_bits(&fast_gradient, &gradient, &format!("gradient of ({n}, {v}) on {pool}"));
            }
        }
    }

    /// The loss of one row in f64.
    fn exact_loss(logits: &[f64], target: usize) -> f64 {
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        libm::log(logits.iter().map(|x| libm::exp(x - max)).sum()) + max - logits[target]
    }

    #[test]
    fn loss_and_gradient_match_f64() {
        /// A few roundings of numbers up to the loss; the sum itself is nearly exact.
        const TOLERANCE: f64 = 5e-7;
        let (v, target, scale) = (501, 77, 0.125);
        let (mut gradient, mut losses) = (logits(v), [0.0]);
        let exact = exact_loss(&crate::testing::wide(&gradient), target);
        let expected = central_differences(&gradient, |x| exact_loss(x, target) * f64::from(scale));
        forward_backward(&mut gradient, v, &[target as u32], scale, &mut losses);
        assert!((f64::from(losses[0]) - exact).abs() < TOLERANCE * exact, "{} instead of {exact}", losses[0]);
        let difference = relative_difference(&gradient, &expected);
        assert!(difference < TOLERANCE, "relative difference {difference:e}");
    }

    #[test]
    fn a_large_vocabulary_keeps_the_sum_exact() {
        // Equal logits: the loss is ln V, also where a lane adds 3,072 terms.
        let v = 49_152;
        let mut losses = [0.0];
        forward(&vec![3.5; v], v, &[11], &mut losses);
        assert_eq!(losses[0], libm::log(v as f64) as f32);
    }

    #[test]
    fn a_logit_that_is_no_number_shows_in_the_loss() {
        for bad in [f32::NAN, f32::INFINITY] {
            let (mut logits, mut losses) = (logits(40), [0.0]);
            logits[9] = bad;
            forward_backward(&mut logits, 40, &[3], 1.0, &mut losses);
            assert!(!losses[0].is_finite(), "{bad} gave the loss {}", losses[0]);
        }
    }

    #[test]
    fn no_rows_are_no_work() {
        forward_backward(&mut [], 7, &[], 1.0, &mut []);
        forward(&[], 7, &[], &mut []);
    }

    #[test]
    #[should_panic(expected = "target 4 is outside of 4 logits")]
    fn a_target_outside_of_the_vocabulary_is_refused() {
        forward(&[0.0; 4], 4, &[4], &mut [0.0]);
    }
}
