//! Layer normalization (Ba, Kiros and Hinton, arXiv 1607.06450), as `torch.nn.functional.layer_norm`.
//!
//! `y = x_hat * weight + bias`, where `x_hat = (x - mean) * r`, `r = 1 / sqrt(mean((x - mean)^2) + eps)` for each row.
//!
//! ```
//! let (mut y, mut mean, mut inv_std) = ([0.0; 2], [0.0], [0.0]);
//! pipe_kernels::layer_norm::forward(&[3.0, 5.0], &[1.0, 2.0], &[0.0, 0.5], 0.0, &mut y, &mut mean, &mut inv_std);
//! assert_eq!((y, mean, inv_std), ([-1.0, 2.5], [4.0], [1.0]));
//! ```
//!
//! The variance is a second pass over the row, about its mean: the difference of two large sums would lose it. A model without bias passes
//! zeros. The gradients of weight and bias are a kernel of their own, for full training.

use crate::dispatch::{self, Body, rows_per_task};
use crate::lanes::{self, LANES, tree_sum};
use rayon::prelude::*;

/// Normalizes each row.
///
/// - x: (N, D), weight, bias: (D), y: (N, D); D is the weight's length, at least 1.
/// - mean, inv_std: (N), which keep the mean and `r` for the backward.
/// - eps: at least 0; `layer_norm_eps` of the model config.
///
/// The same bits as [`reference::forward`].
pub fn forward(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    y: &mut [f32],
    mean: &mut [f32],
    inv_std: &mut [f32],
) {
    let d = check_shapes(x, weight.len(), mean, inv_std);
    assert_eq!(bias.len(), d, "layer_norm: bias is not (D)");
    assert_eq!(y.len(), x.len(), "layer_norm: y is not (N, D)");
    (x.par_chunks(d), y.par_chunks_mut(d), mean.par_iter_mut(), inv_std.par_iter_mut())
        .into_par_iter()
        .with_min_len(rows_per_task(d))
        .for_each(|(x, y, mean, inv_std)| {
            (*mean, *inv_std) = dispatch::run(ForwardRow { x, weight, bias, eps, y });
        });
}

/// D, after checking what all functions take.
fn check_shapes(x: &[f32], d: usize, mean: &[f32], inv_std: &[f32]) -> usize {
    assert!(d > 0, "layer_norm: the weight is empty");
    assert_eq!(x.len(), mean.len() * d, "layer_norm: x is not (N, D)");
    assert_eq!(inv_std.len(), mean.len(), "layer_norm: inv_std is not (N)");
    d
}

struct ForwardRow<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
    y: &'a mut [f32],
}

impl Body for ForwardRow<'_> {
    /// mean, inv_std
    type Output = (f32, f32);

    #[inline(always)]
    fn run(self) -> (f32, f32) {
        let mean = lanes::sum(self.x) / self.x.len() as f32;
        let mut acc = [0.0; LANES];
        // The filler is the mean: it adds nothing to the squares.
        lanes::for_each_chunk(
            self.x,
            mean,
            #[inline(always)]
            |chunk| {
                for lane in 0..LANES {
                    let centred = chunk[lane] - mean;
                    acc[lane] = centred.mul_add(centred, acc[lane]);
                }
            },
        );
        let inv_std = inverse_std(tree_sum(acc), self.x.len(), self.eps);
        for (((y, x), weight), bias) in self.y.iter_mut().zip(self.x).zip(self.weight).zip(self.bias) {
            *y = ((x - mean) * inv_std).mul_add(*weight, *bias);
        }
        (mean, inv_std)
    }
}

#[inline(always)]
fn inverse_std(sum_of_squares: f32, d: usize, eps: f32) -> f32 {
    1.0 / (sum_of_squares / d as f32 + eps).sqrt()
}

/// The gradient of each row of x; `dx` is overwritten.
///
/// - dy, x, dx: (N, D), weight: (D), mean, inv_std: (N) as the forward left them.
///
/// With `g = dy * weight`: `dx = r (g - mean(g) - x_hat mean(g x_hat))`; the second term is what x does to the mean, the third what it
/// does to `r`. The same bits as [`reference::backward`].
pub fn backward(dy: &[f32], x: &[f32], weight: &[f32], mean: &[f32], inv_std: &[f32], dx: &mut [f32]) {
    let d = check_shapes(x, weight.len(), mean, inv_std);
    assert_eq!(dy.len(), x.len(), "layer_norm: dy is not (N, D)");
    assert_eq!(dx.len(), x.len(), "layer_norm: dx is not (N, D)");
    (dy.par_chunks(d), x.par_chunks(d), dx.par_chunks_mut(d), mean.par_iter(), inv_std.par_iter())
        .into_par_iter()
        .with_min_len(rows_per_task(d))
        .for_each(|(dy, x, dx, mean, inv_std)| {
            dispatch::run(BackwardRow { dy, x, weight, mean: *mean, inv_std: *inv_std, dx });
        });
}

struct BackwardRow<'a> {
    dy: &'a [f32],
    x: &'a [f32],
    weight: &'a [f32],
    mean: f32,
    inv_std: f32,
    dx: &'a mut [f32],
}

impl Body for BackwardRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (mut sum_g, mut sum_g_x_hat) = ([0.0; LANES], [0.0; LANES]);
        lanes::for_each_chunk_of_three(
            [self.dy, self.x, self.weight],
            #[inline(always)]
            |[dy, x, weight]| {
                for lane in 0..LANES {
                    let g = dy[lane] * weight[lane];
                    sum_g[lane] += g;
                    sum_g_x_hat[lane] = g.mul_add((x[lane] - self.mean) * self.inv_std, sum_g_x_hat[lane]);
                }
            },
        );
        let d = self.x.len() as f32;
        let (mean_g, mean_g_x_hat) = (tree_sum(sum_g) / d, tree_sum(sum_g_x_hat) / d);
        for (((dx, dy), x), weight) in self.dx.iter_mut().zip(self.dy).zip(self.x).zip(self.weight) {
            let x_hat = (x - self.mean) * self.inv_std;
            *dx = x_hat.mul_add(-mean_g_x_hat, dy * weight - mean_g) * self.inv_std;
        }
    }
}

/// Columns of one task of [`parameter_gradients`]: their sums stay in registers. Never changes a result.
const COLUMNS_PER_TASK: usize = 2 * LANES;

/// The gradients of the parameters: `d_weight += sum over rows of dy x_hat`, `d_bias += sum over rows of dy`.
///
/// - dy, x: (N, D), mean, inv_std: (N) as the forward left them, d_weight, d_bias: (D).
///
/// Each element is its own chain over the rows, fused multiply-adds for the weight, which goes on from what was there: rows given in
/// two calls make the bits of one. The same bits as [`reference::parameter_gradients`].
pub fn parameter_gradients(
    dy: &[f32],
    x: &[f32],
    mean: &[f32],
    inv_std: &[f32],
    d_weight: &mut [f32],
    d_bias: &mut [f32],
) {
    let d = check_shapes(x, d_weight.len(), mean, inv_std);
    assert_eq!(dy.len(), x.len(), "layer_norm: dy is not (N, D)");
    assert_eq!(d_bias.len(), d, "layer_norm: d_bias is not (D)");
    let columns = d_weight.par_chunks_mut(COLUMNS_PER_TASK).zip(d_bias.par_chunks_mut(COLUMNS_PER_TASK));
    columns.enumerate().for_each(|(task, (d_weight, d_bias))| {
        let first = task * COLUMNS_PER_TASK;
        dispatch::run(ParameterColumns { dy, x, mean, inv_std, width: d, first, d_weight, d_bias });
    });
}

struct ParameterColumns<'a> {
    dy: &'a [f32],
    x: &'a [f32],
    mean: &'a [f32],
    inv_std: &'a [f32],
    width: usize,
    first: usize,
    d_weight: &'a mut [f32],
    d_bias: &'a mut [f32],
}

impl Body for ParameterColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (mut d_weight, mut d_bias) = ([0.0_f32; COLUMNS_PER_TASK], [0.0_f32; COLUMNS_PER_TASK]);
        let n_columns = self.d_weight.len();
        d_weight[..n_columns].copy_from_slice(self.d_weight);
        d_bias[..n_columns].copy_from_slice(self.d_bias);
        let columns = self.first..self.first + n_columns;
        let rows = self.dy.chunks_exact(self.width).zip(self.x.chunks_exact(self.width));
        for ((dy, x), (mean, inv_std)) in rows.zip(self.mean.iter().zip(self.inv_std)) {
            let (dy, x) = (&dy[columns.clone()], &x[columns.clone()]);
            for (((d_weight, d_bias), dy), x) in d_weight.iter_mut().zip(&mut d_bias).zip(dy).zip(x) {
                *d_weight = dy.mul_add((x - mean) * inv_std, *d_weight);
                *d_bias += dy;
            }
        }
        self.d_weight.copy_from_slice(&d_weight[..n_columns]);
        self.d_bias.copy_from_slice(&d_bias[..n_columns]);
    }
}

/// The plain versions.
pub mod reference {
    use super::inverse_std;
    use crate::lanes::reference::{dot, sum};

    /// As [`super::forward`].
    pub fn forward(
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        eps: f32,
        y: &mut [f32],
        mean: &mut [f32],
        inv_std: &mut [f32],
    ) {
        let d = weight.len();
        for row in 0..mean.len() {
            let x = &x[row * d..(row + 1) * d];
            mean[row] = sum(x) / d as f32;
            let centred: Vec<f32> = x.iter().map(|x| x - mean[row]).collect();
            inv_std[row] = inverse_std(dot(&centred, &centred), d, eps);
            for i in 0..d {
                y[row * d + i] = (centred[i] * inv_std[row]).mul_add(weight[i], bias[i]);
            }
        }
    }

    /// As [`super::backward`].
    pub fn backward(dy: &[f32], x: &[f32], weight: &[f32], mean: &[f32], inv_std: &[f32], dx: &mut [f32]) {
        let d = weight.len();
        for row in 0..mean.len() {
            let at = row * d..(row + 1) * d;
            let g: Vec<f32> = dy[at.clone()].iter().zip(weight).map(|(dy, weight)| dy * weight).collect();
            let x_hat: Vec<f32> = x[at.clone()].iter().map(|x| (x - mean[row]) * inv_std[row]).collect();
            let (mean_g, mean_g_x_hat) = (sum(&g) / d as f32, dot(&g, &x_hat) / d as f32);
            for (i, dx) in dx[at].iter_mut().enumerate() {
                *dx = x_hat[i].mul_add(-mean_g_x_hat, g[i] - mean_g) * inv_std[row];
            }
        }
    }

    /// As [`super::parameter_gradients`].
    pub fn parameter_gradients(
        dy: &[f32],
        x: &[f32],
        mean: &[f32],
        inv_std: &[f32],
        d_weight: &mut [f32],
        d_bias: &mut [f32],
    ) {
        let d = d_weight.len();
        for row in 0..mean.len() {
            for i in 0..d {
                let x_hat = (x[row * d + i] - mean[row]) * inv_std[row];
                d_weight[i] = dy[row * d + i].mul_add(x_hat, d_weight[i]);
                d_bias[i] += dy[row * d + i];
            }
        }
    }
}

#[cfg(test)]
mod tests;
