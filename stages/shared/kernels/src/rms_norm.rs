//! Root mean square normalization (Zhang and Sennrich, arXiv 1910.07467, equation 4), as in Llama.
//!
//! `y = x * r * weight`, where `r = 1 / sqrt(mean(x^2) + eps)` for each row.
//!
//! The weight's gradient is a kernel of its own, for full training; with a frozen weight it is not called.

use crate::dispatch::{self, Body, rows_per_task};
use crate::lanes::{self, LANES, tree_sum};
use rayon::prelude::*;

/// Normalizes each row.
///
/// - x: (N, D), weight: (D), y: (N, D), inv_rms: (N), which keeps `r` for the backward; D is the weight's length, at least 1.
/// - eps: at least 0; the model config's `rms_norm_eps`.
///
/// The same bits as [`reference::forward`].
pub fn forward(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32], inv_rms: &mut [f32]) {
    let d = weight.len();
    assert!(d > 0, "rms_norm: the weight is empty");
    assert_eq!(x.len(), inv_rms.len() * d, "rms_norm: x is not (N, D)");
    assert_eq!(y.len(), x.len(), "rms_norm: y is not (N, D)");
    (x.par_chunks(d), y.par_chunks_mut(d), inv_rms.par_iter_mut())
        .into_par_iter()
        .with_min_len(rows_per_task(d))
        .for_each(|(x, y, inv_rms)| *inv_rms = dispatch::run(ForwardRow { x, weight, eps, y }));
}

struct ForwardRow<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    y: &'a mut [f32],
}

impl Body for ForwardRow<'_> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        let inv_rms = inverse_rms(lanes::dot(self.x, self.x), self.x.len(), self.eps);
        for ((y, x), weight) in self.y.iter_mut().zip(self.x).zip(self.weight) {
            *y = x * inv_rms * weight;
        }
        inv_rms
    }
}

#[inline(always)]
fn inverse_rms(sum_of_squares: f32, d: usize, eps: f32) -> f32 {
    1.0 / (sum_of_squares / d as f32 + eps).sqrt()
}

/// The gradient of each row of x; `dx` is overwritten.
///
/// - dy, x, dx: (N, D), weight: (D), inv_rms: (N) as the forward left it.
///
/// With `g = dy * weight`: `dx = r g - x r^3 mean(g x)`; the second term is what x does to `r`.
/// The same bits as [`reference::backward`].
pub fn backward(dy: &[f32], x: &[f32], weight: &[f32], inv_rms: &[f32], dx: &mut [f32]) {
    let d = weight.len();
    assert!(d > 0, "rms_norm: the weight is empty");
    assert_eq!(x.len(), inv_rms.len() * d, "rms_norm: x is not (N, D)");
    assert_eq!(dy.len(), x.len(), "rms_norm: dy is not (N, D)");
    assert_eq!(dx.len(), x.len(), "rms_norm: dx is not (N, D)");
    (dy.par_chunks(d), x.par_chunks(d), dx.par_chunks_mut(d), inv_rms.par_iter())
        .into_par_iter()
        .with_min_len(rows_per_task(d))
        .for_each(|(dy, x, dx, inv_rms)| dispatch::run(BackwardRow { dy, x, weight, inv_rms: *inv_rms, dx }));
}

struct BackwardRow<'a> {
    dy: &'a [f32],
    x: &'a [f32],
    weight: &'a [f32],
    inv_rms: f32,
    dx: &'a mut [f32],
}

impl Body for BackwardRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let mut acc = [0.0; LANES];
        lanes::for_each_chunk_of_three(
            [self.dy, self.x, self.weight],
            #[inline(always)]
            |[dy, x, weight]| {
                for lane in 0..LANES {
                    acc[lane] = (dy[lane] * weight[lane]).mul_add(x[lane], acc[lane]);
                }
            },
        );
        let through_rms = row_term(tree_sum(acc), self.inv_rms, self.x.len());
        for (((dx, dy), x), weight) in self.dx.iter_mut().zip(self.dy).zip(self.x).zip(self.weight) {
            *dx = (dy * weight).mul_add(self.inv_rms, x * through_rms);
        }
    }
}

/// Columns of one task of [`weight_gradient`]: their sums stay in registers. Never changes a result.
const COLUMNS_PER_TASK: usize = 4 * LANES;

/// The gradient of the weight: `d_weight += sum over rows of dy x r`.
///
/// - dy, x: (N, D), inv_rms: (N) as the forward left it, d_weight: (D).
///
/// Each element is its own chain of fused multiply-adds over the rows, which goes on from what was there: rows given in two calls make the
/// bits of one. The same bits as [`reference::weight_gradient`].
pub fn weight_gradient(dy: &[f32], x: &[f32], inv_rms: &[f32], d_weight: &mut [f32]) {
    let d = d_weight.len();
    assert!(d > 0, "rms_norm: the weight is empty");
    assert_eq!(x.len(), inv_rms.len() * d, "rms_norm: x is not (N, D)");
    assert_eq!(dy.len(), x.len(), "rms_norm: dy is not (N, D)");
    d_weight.par_chunks_mut(COLUMNS_PER_TASK).enumerate().for_each(|(task, sums)| {
        dispatch::run(WeightColumns { dy, x, inv_rms, width: d, first: task * COLUMNS_PER_TASK, sums });
    });
}

struct WeightColumns<'a> {
    dy: &'a [f32],
    x: &'a [f32],
    inv_rms: &'a [f32],
    width: usize,
    first: usize,
    sums: &'a mut [f32],
}

impl Body for WeightColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let mut sums = [0.0_f32; COLUMNS_PER_TASK];
        sums[..self.sums.len()].copy_from_slice(self.sums);
        let columns = self.first..self.first + self.sums.len();
        let rows = self.dy.chunks_exact(self.width).zip(self.x.chunks_exact(self.width)).zip(self.inv_rms);
        for ((dy, x), inv_rms) in rows {
            for ((sum, dy), x) in sums.iter_mut().zip(&dy[columns.clone()]).zip(&x[columns.clone()]) {
                *sum = (dy * x).mul_add(*inv_rms, *sum);
            }
        }
        self.sums.copy_from_slice(&sums[..self.sums.len()]);
    }
}

/// `-r^3 mean(g x)`, the factor of x in the gradient.
#[inline(always)]
fn row_term(sum_g_x: f32, inv_rms: f32, d: usize) -> f32 {
    -(inv_rms * inv_rms * inv_rms) * (sum_g_x / d as f32)
}

/// The plain versions.
pub mod reference {
    use super::{inverse_rms, row_term};
    use crate::lanes::reference::dot;

    /// As [`super::forward`].
    pub fn forward(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32], inv_rms: &mut [f32]) {
        let d = weight.len();
        for row in 0..inv_rms.len() {
            let x = &x[row * d..(row + 1) * d];
            inv_rms[row] = inverse_rms(dot(x, x), d, eps);
            for i in 0..d {
                y[row * d + i] = x[i] * inv_rms[row] * weight[i];
            }
        }
    }

    /// As [`super::backward`].
    pub fn backward(dy: &[f32], x: &[f32], weight: &[f32], inv_rms: &[f32], dx: &mut [f32]) {
        let d = weight.len();
        for (row, inv_rms) in inv_rms.iter().enumerate() {
            let at = row * d..(row + 1) * d;
            let g: Vec<f32> = dy[at.clone()].iter().zip(weight).map(|(dy, weight)| dy * weight).collect();
            let x = &x[at.clone()];
            let through_rms = row_term(dot(&g, x), *inv_rms, d);
            for (i, dx) in dx[at].iter_mut().enumerate() {
                *dx = g[i].mul_add(*inv_rms, x[i] * through_rms);
            }
        }
    }

    /// As [`super::weight_gradient`].
    pub fn weight_gradient(dy: &[f32], x: &[f32], inv_rms: &[f32], d_weight: &mut [f32]) {
        let d = d_weight.len();
        for (row, inv_rms) in inv_rms.iter().enumerate() {
            for (i, sum) in d_weight.iter_mut().enumerate() {
                *sum = (dy[row * d + i] * x[row * d + i]).mul_add(*inv_rms, *sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_same_bits, central_differences, noise, on_every_pool, relative_difference, wide};

    const EPS: f32 = 1e-5;
    const SHAPES: [(usize, usize); 5] = [(1, 1), (3, 17), (5, 64), (97, 131), (64, 576)];

    #[test]
    fn forward_and_backward_equal_the_reference_to_the_bit() {
        for (n, d) in SHAPES {
            let (x, dy, weight) = (noise("x", n * d), noise("dy", n * d), noise("weight", d));
            let (mut y, mut inv_rms, mut dx) = (vec![0.0; n * d], vec![0.0; n], vec![f32::NAN; n * d]);
            reference::forward(&x, &weight, EPS, &mut y, &mut inv_rms);
            reference::backward(&dy, &x, &weight, &inv_rms, &mut dx);
            let fast = || {
                let (mut y, mut inv_rms, mut dx) = (vec![0.0; n * d], vec![0.0; n], vec![f32::NAN; n * d]);
                forward(&x, &weight, EPS, &mut y, &mut inv_rms);
                backward(&dy, &x, &weight, &inv_rms, &mut dx);
                (y, inv_rms, dx)
            };
            for (pool, (fast_y, fast_inv_rms, fast_dx)) in on_every_pool(fast) {
                assert_same_bits(&fast_y, &y, &format!("y of ({n}, {d}) on {pool}"));
                assert_same_bits(&fast_inv_rms, &inv_rms, &format!("inv_rms of ({n}, {d}) on {pool}"));
                assert_same_bits(&fast_dx, &dx, &format!("dx of ({n}, {d}) on {pool}"));
            }
        }
    }

    #[test]
    fn the_weights_gradient_equals_the_reference_to_the_bit() {
        for (n, d) in SHAPES {
            let (x, dy, weight) = (noise("x", n * d), noise("dy", n * d), noise("weight", d));
            let (mut y, mut inv_rms, mut expected) = (vec![0.0; n * d], vec![0.0; n], noise("before", d));
            forward(&x, &weight, EPS, &mut y, &mut inv_rms);
            reference::weight_gradient(&dy, &x, &inv_rms, &mut expected);
            let fast = || {
                let mut d_weight = noise("before", d);
                let half = n / 2;
                weight_gradient(&dy[..half * d], &x[..half * d], &inv_rms[..half], &mut d_weight);
                weight_gradient(&dy[half * d..], &x[half * d..], &inv_rms[half..], &mut d_weight);
                d_weight
            };
            for (pool, d_weight) in on_every_pool(fast) {
                assert_same_bits(&d_weight, &expected, &format!("d_weight of ({n}, {d}) on {pool}"));
            }
        }
    }

    #[test]
    fn the_weights_gradient_matches_central_differences() {
        let d = 33;
        let (x, dy, weight) = (noise("x", d), noise("dy", d), noise("weight", d));
        let (mut y, mut inv_rms, mut d_weight) = (vec![0.0; d], vec![0.0; 1], vec![0.0; d]);
        forward(&x, &weight, EPS, &mut y, &mut inv_rms);
        weight_gradient(&dy, &x, &inv_rms, &mut d_weight);
        let expected = central_differences(&weight, |weight| loss(&wide(&x), weight, &wide(&dy)));
        let difference = relative_difference(&d_weight, &expected);
        assert!(difference < 1e-6, "relative difference {difference:e}");
    }

    /// The loss `sum(dy * y)` of one row in f64.
    fn loss(x: &[f64], weight: &[f64], dy: &[f64]) -> f64 {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let inv_rms = 1.0 / (mean + f64::from(EPS)).sqrt();
        x.iter().zip(weight).zip(dy).map(|((x, weight), dy)| x * inv_rms * weight * dy).sum()
    }

    #[test]
    fn backward_matches_central_differences() {
        /// f32 rounding of sums of 33 terms.
        const TOLERANCE: f64 = 1e-6;
        let d = 33;
        let (x, dy, weight) = (noise("x", d), noise("dy", d), noise("weight", d));
        let (mut y, mut inv_rms, mut dx) = (vec![0.0; d], vec![0.0; 1], vec![0.0; d]);
        forward(&x, &weight, EPS, &mut y, &mut inv_rms);
        backward(&dy, &x, &weight, &inv_rms, &mut dx);
        let expected = central_differences(&x, |x| loss(x, &wide(&weight), &wide(&dy)));
        let difference = relative_difference(&dx, &expected);
        assert!(difference < TOLERANCE, "relative difference {difference:e}");
    }

    #[test]
    #[should_panic(expected = "x is not (N, D)")]
    fn a_wrong_length_is_refused() {
        forward(&[0.0; 5], &[1.0; 2], EPS, &mut [0.0; 5], &mut [0.0; 2]);
    }
}
