//! Numbers bent to stay between `-cap` and `cap` (Gemma 2: arXiv 2408.00118, section 2.1): `y = cap tanh(x / cap)`.
//!
//! Logits are bent with it, in place. The scores of [`crate::attention`] have the same inside.

use crate::dispatch::{self, Body};
use crate::math::tanh;
use rayon::prelude::*;

/// Elements of one task. Never changes a result.
const TASK_LEN: usize = 8192;

/// Bends every element of `x`; `cap` is positive. The same bits as [`reference::forward`].
pub fn forward(cap: f32, x: &mut [f32]) {
    assert!(cap > 0.0, "softcap: cap {cap} is not positive");
    x.par_chunks_mut(TASK_LEN).for_each(|x| dispatch::run(Forward { cap, x }));
}

#[inline(always)]
fn capped(cap: f32, x: f32) -> f32 {
    cap * tanh(x * (1.0 / cap))
}

struct Forward<'a> {
    cap: f32,
    x: &'a mut [f32],
}

impl Body for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for x in self.x.iter_mut() {
            *x = capped(self.cap, *x);
        }
    }
}

/// Turns gradients of what [`forward`] made into those of what it took: `dx = dy (1 - (y / cap)^2)`, in place; y and dy have one length. The
/// same bits as [`reference::backward`].
pub fn backward(cap: f32, y: &[f32], dy: &mut [f32]) {
    assert!(cap > 0.0, "softcap: cap {cap} is not positive");
    assert_eq!(y.len(), dy.len(), "softcap: y and dy differ in length");
    (y.par_chunks(TASK_LEN), dy.par_chunks_mut(TASK_LEN))
        .into_par_iter()
        .for_each(|(y, dy)| dispatch::run(Backward { cap, y, dy }));
}

#[inline(always)]
fn gradient(cap: f32, y: f32, dy: f32) -> f32 {
    let t = y * (1.0 / cap);
    dy * t.mul_add(-t, 1.0)
}

struct Backward<'a> {
    cap: f32,
    y: &'a [f32],
    dy: &'a mut [f32],
}

impl Body for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (dy, y) in self.dy.iter_mut().zip(self.y) {
            *dy = gradient(self.cap, *y, *dy);
        }
    }
}

/// The plain versions.
pub mod reference {
    use super::{capped, gradient};

    /// As [`super::forward`].
    pub fn forward(cap: f32, x: &mut [f32]) {
        for x in x {
            *x = capped(cap, *x);
        }
    }

    /// As [`super::backward`].
    pub fn backward(cap: f32, y: &[f32], dy: &mut [f32]) {
        for i in 0..y.len() {
            dy[i] = gradient(cap, y[i], dy[i]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{backward, forward, reference};
    use crate::testing::{assert_same_bits, central_differences, noise, on_every_pool, relative_difference, wide};

    #[test]
    fn forward_and_backward_equal_the_reference_to_the_bit() {
        for len in [0, 1, 17, 8191, 8193] {
            let (dy, x) = (noise("dy", len), noise("x", len));
            let run = |forward: fn(f32, &mut [f32]), backward: fn(f32, &[f32], &mut [f32])| {
                let (mut y, mut dx) = (x.clone(), dy.clone());
                forward(1.5, &mut y);
                backward(1.5, &y, &mut dx);
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
        let exact = |x: f64| 1.5 * libm::tanh(x / 1.5);
        let (x, mut dx) = (noise("x", 400), noise("dy", 400));
        let (mut y, dy) = (x.clone(), dx.clone());
        forward(1.5, &mut y);
        let expected: Vec<f64> = wide(&x).into_iter().map(exact).collect();
        assert!(relative_difference(&y, &expected) < TOLERANCE);
        backward(1.5, &y, &mut dx);
        let loss = |x: &[f64]| -> f64 { x.iter().zip(&dy).map(|(x, dy)| exact(*x) * f64::from(*dy)).sum() };
        assert!(relative_difference(&dx, &central_differences(&x, loss)) < TOLERANCE);
    }

    #[test]
    fn nothing_is_beyond_the_cap() {
        let mut x = [f32::MIN, -1000.0, 0.0, 1e-20, f32::INFINITY];
        forward(30.0, &mut x);
        assert_eq!(x[..3], [-30.0, -30.0, 0.0]);
        assert!((x[3] / 1e-20 - 1.0).abs() < 1e-6);
        assert_eq!(x[4], 30.0);
    }
}
