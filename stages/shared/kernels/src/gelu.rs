//! The Gaussian error linear unit with its tanh (Hendrycks and Gimpel, arXiv 1606.08415, section 2): Hugging Face's `gelu_new` and
//! `gelu_pytorch_tanh`.
//!
//! ```text
//! y = x/2 (1 + tanh(u)) = x s(2 u),   u = sqrt(2/pi) (x + 0.044715 x^3),   s the logistic function
//! ```
//!
//! As a logistic function, because `1 + tanh(u)` loses its digits for negative x.

use crate::dispatch::{self, Body};
use crate::math::sigmoid;
use rayon::prelude::*;

/// `2 sqrt(2/pi)`, and the same times 0.044715.
const C1: f32 = 1.595_769_2;
const C3: f32 = 0.071_354_814;

/// Elements of one task. Never changes a result.
const TASK_LEN: usize = 8192;

/// The function itself.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    x * sigmoid(twice_u(x))
}

#[inline(always)]
fn twice_u(x: f32) -> f32 {
    x * (x * x).mul_add(C3, C1)
}

/// The function and its derivative: with `s = s(2 u)`, `s + x s (1 - s) 2 u'`.
#[inline(always)]
pub(crate) fn gelu_and_slope(x: f32) -> (f32, f32) {
    let s = sigmoid(twice_u(x));
    let value = x * s;
    (value, (value * (1.0 - s)).mul_add((x * x).mul_add(3.0 * C3, C1), s))
}

/// `y = gelu(x)`, element by element; two slices of one length. The same bits as [`reference::forward`].
pub fn forward(x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "gelu: x and y differ in length");
    (x.par_chunks(TASK_LEN), y.par_chunks_mut(TASK_LEN))
        .into_par_iter()
        .for_each(|(x, y)| dispatch::run(Forward { x, y }));
}

struct Forward<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Body for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (y, x) in self.y.iter_mut().zip(self.x) {
            *y = gelu(*x);
        }
    }
}

/// `dx = dy gelu'(x)`, element by element; three slices of one length, `dx` is overwritten. The same bits as [`reference::backward`].
pub fn backward(dy: &[f32], x: &[f32], dx: &mut [f32]) {
    assert_eq!(x.len(), dy.len(), "gelu: x and dy differ in length");
    assert_eq!(x.len(), dx.len(), "gelu: x and dx differ in length");
    (dy.par_chunks(TASK_LEN), x.par_chunks(TASK_LEN), dx.par_chunks_mut(TASK_LEN))
        .into_par_iter()
        .for_each(|(dy, x, dx)| dispatch::run(Backward { dy, x, dx }));
}

struct Backward<'a> {
    dy: &'a [f32],
    x: &'a [f32],
    dx: &'a mut [f32],
}

impl Body for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for ((dx, x), dy) in self.dx.iter_mut().zip(self.x).zip(self.dy) {
            *dx = dy * gelu_and_slope(*x).1;
        }
    }
}

/// The plain versions.
pub mod reference {
    use super::{gelu, gelu_and_slope};

    /// As [`super::forward`].
    pub fn forward(x: &[f32], y: &mut [f32]) {
        for i in 0..x.len() {
            y[i] = gelu(x[i]);
        }
    }

    /// As [`super::backward`].
    pub fn backward(dy: &[f32], x: &[f32], dx: &mut [f32]) {
        for i in 0..x.len() {
            dx[i] = dy[i] * gelu_and_slope(x[i]).1;
        }
    }
}

/// The formula in f64, as it is published.
#[cfg(test)]
pub(crate) fn exact(x: f64) -> f64 {
    let u = libm::sqrt(2.0 / std::f64::consts::PI) * (x + 0.044715 * x * x * x);
    0.5 * x * (1.0 + libm::tanh(u))
}

#[cfg(test)]
mod tests {
    use super::{backward, exact, forward, reference};
    use crate::testing::{assert_same_bits, central_differences, noise, on_every_pool, relative_difference, wide};

    #[test]
    fn forward_and_backward_equal_the_reference_to_the_bit() {
        for len in [0, 1, 17, 8191, 8193] {
            let (dy, x) = (noise("dy", len), noise("x", len));
            let run = |forward: fn(&[f32], &mut [f32]), backward: fn(&[f32], &[f32], &mut [f32])| {
                let (mut y, mut dx) = (vec![0.0; len], vec![0.0; len]);
                forward(&x, &mut y);
                backward(&dy, &x, &mut dx);
                [y, dx].concat()
            };
            let expected = run(reference::forward, reference::backward);
            for (pool, got) in on_every_pool(|| run(forward, backward)) {
                assert_same_bits(&got, &expected, &format!("length {len} on {pool}"));
            }
        }
    }

    #[test]
    fn both_directions_match_the_formula_in_f64() {
        /// A few f32 roundings per element.
        const TOLERANCE: f64 = 1e-6;
        let (x, dy) = (noise("x", 400), noise("dy", 400));
        let (mut y, mut dx) = (vec![0.0; 400], vec![0.0; 400]);
        forward(&x, &mut y);
        let expected: Vec<f64> = wide(&x).into_iter().map(exact).collect();
        assert!(relative_difference(&y, &expected) < TOLERANCE);
        backward(&dy, &x, &mut dx);
        let loss = |x: &[f64]| -> f64 { x.iter().zip(&dy).map(|(x, dy)| exact(*x) * f64::from(*dy)).sum() };
        assert!(relative_difference(&dx, &central_differences(&x, loss)) < TOLERANCE);
    }
}
