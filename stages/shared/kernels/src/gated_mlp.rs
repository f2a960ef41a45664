//! The gate of a feed-forward block (Shazeer, arXiv 2002.05202, equation 6): `y = f(gate) * up`, where f is
//!
//! - `silu(x) = x s(x)` with the logistic function `s` (SwiGLU: Llama), or
//! - [`gelu`] (GEGLU: Gemma).
//!
//! The matrix products around it are elsewhere.

use crate::dispatch::{self, Body};
use crate::gelu::{gelu, gelu_and_slope};
use crate::math::sigmoid;
use rayon::prelude::*;
use std::marker::PhantomData;

/// Elements of one task. Never changes a result.
const TASK_LEN: usize = 8192;

/// The function of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x s(x)`: Hugging Face's `silu`.
    Silu,
    /// [`gelu`]: Hugging Face's `gelu_pytorch_tanh`.
    GeluTanh,
}

/// An [`Activation`] as a type, so that a loop over it has no branch.
trait Gate {
    fn gated(gate: f32, up: f32) -> f32;
    /// Gradients of gate and up.
    fn gradients(dy: f32, gate: f32, up: f32) -> (f32, f32);
}

struct Silu;
struct GeluTanh;

impl Gate for Silu {
    #[inline(always)]
    fn gated(gate: f32, up: f32) -> f32 {
        gate * sigmoid(gate) * up
    }

    /// With `s = s(gate)`: `silu' = s (1 + gate (1 - s))`, since `s' = s (1 - s)`.
    #[inline(always)]
    fn gradients(dy: f32, gate: f32, up: f32) -> (f32, f32) {
        let s = sigmoid(gate);
        (dy * up * s * gate.mul_add(1.0 - s, 1.0), dy * (gate * s))
    }
}

impl Gate for GeluTanh {
    #[inline(always)]
    fn gated(gate: f32, up: f32) -> f32 {
        gelu(gate) * up
    }

    #[inline(always)]
    fn gradients(dy: f32, gate: f32, up: f32) -> (f32, f32) {
        let (value, slope) = gelu_and_slope(gate);
        (dy * up * slope, dy * value)
    }
}

/// `y = f(gate) * up`, element by element; three slices of one length. The same bits as [`reference::forward`].
pub fn forward(activation: Activation, gate: &[f32], up: &[f32], y: &mut [f32]) {
    match activation {
        Activation::Silu => forward_with::<Silu>(gate, up, y),
        Activation::GeluTanh => forward_with::<GeluTanh>(gate, up, y),
    }
}

fn forward_with<G: Gate>(gate: &[f32], up: &[f32], y: &mut [f32]) {
    assert_eq!(gate.len(), up.len(), "gated_mlp: gate and up differ in length");
    assert_eq!(gate.len(), y.len(), "gated_mlp: gate and y differ in length");
    (gate.par_chunks(TASK_LEN), up.par_chunks(TASK_LEN), y.par_chunks_mut(TASK_LEN))
        .into_par_iter()
        .for_each(|(gate, up, y)| dispatch::run(Forward::<G> { gate, up, y, of: PhantomData }));
}

struct Forward<'a, G> {
    gate: &'a [f32],
    up: &'a [f32],
    y: &'a mut [f32],
    of: PhantomData<G>,
}

impl<G: Gate> Body for Forward<'_, G> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for ((y, gate), up) in self.y.iter_mut().zip(self.gate).zip(self.up) {
            *y = G::gated(*gate, *up);
        }
    }
}

/// The gradients of gate and up, element by element; five slices of one length, `dgate` and `dup` are overwritten.
///
/// `dup = dy f(gate)` and `dgate = dy up f'(gate)`. The same bits as [`reference::backward`].
pub fn backward(activation: Activation, dy: &[f32], gate: &[f32], up: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    match activation {
        Activation::Silu => backward_with::<Silu>(dy, gate, up, dgate, dup),
        Activation::GeluTanh => backward_with::<GeluTanh>(dy, gate, up, dgate, dup),
    }
}

fn backward_with<G: Gate>(dy: &[f32], gate: &[f32], up: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    assert_eq!(gate.len(), dy.len(), "gated_mlp: gate and dy differ in length");
    assert_eq!(gate.len(), up.len(), "gated_mlp: gate and up differ in length");
    assert_eq!(gate.len(), dgate.len(), "gated_mlp: gate and dgate differ in length");
    assert_eq!(gate.len(), dup.len(), "gated_mlp: gate and dup differ in length");
    let inputs = (dy.par_chunks(TASK_LEN), gate.par_chunks(TASK_LEN), up.par_chunks(TASK_LEN)).into_par_iter();
    let outputs = (dgate.par_chunks_mut(TASK_LEN), dup.par_chunks_mut(TASK_LEN)).into_par_iter();
    inputs.zip(outputs).for_each(|((dy, gate, up), (dgate, dup))| {
        dispatch::run(Backward::<G> { dy, gate, up, dgate, dup, of: PhantomData });
    });
}

struct Backward<'a, G> {
    dy: &'a [f32],
    gate: &'a [f32],
    up: &'a [f32],
    dgate: &'a mut [f32],
    dup: &'a mut [f32],
    of: PhantomData<G>,
}

impl<G: Gate> Body for Backward<'_, G> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let inputs = self.dy.iter().zip(self.gate).zip(self.up);
        for (((dy, gate), up), (dgate, dup)) in inputs.zip(self.dgate.iter_mut().zip(self.dup)) {
            (*dgate, *dup) = G::gradients(*dy, *gate, *up);
        }
    }
}

/// The plain versions.
pub mod reference {
    use super::{Activation, Gate, GeluTanh, Silu};

    /// As [`super::forward`].
    pub fn forward(activation: Activation, gate: &[f32], up: &[f32], y: &mut [f32]) {
        for i in 0..y.len() {
            y[i] = match activation {
                Activation::Silu => Silu::gated(gate[i], up[i]),
                Activation::GeluTanh => GeluTanh::gated(gate[i], up[i]),
            };
        }
    }

    /// As [`super::backward`].
    pub fn backward(activation: Activation, dy: &[f32], gate: &[f32], up: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
        for i in 0..dy.len() {
            (dgate[i], dup[i]) = match activation {
                Activation::Silu => Silu::gradients(dy[i], gate[i], up[i]),
                Activation::GeluTanh => GeluTanh::gradients(dy[i], gate[i], up[i]),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Activation::{GeluTanh, Silu};
    use super::{Activation, backward, forward, reference};
    use crate::testing::{assert_same_bits, central_differences, noise, on_every_pool, relative_difference, wide};

    type Forward = fn(Activation, &[f32], &[f32], &mut [f32]);
    type Backward = fn(Activation, &[f32], &[f32], &[f32], &mut [f32], &mut [f32]);

    #[test]
    fn forward_and_backward_equal_the_reference_to_the_bit() {
        let lengths = [0, 1, 17, 8191, 8193, 20_011];
        for (activation, len) in [Silu, GeluTanh].into_iter().flat_map(|f| lengths.map(|len| (f, len))) {
            let (dy, up) = (noise("dy", len), noise("up", len));
            let gate: Vec<f32> = noise("gate", len).iter().map(|x| x * 20.0).collect();
            let run = |forward: Forward, backward: Backward| {
                let (mut y, mut dgate, mut dup) = (vec![0.0; len], vec![0.0; len], vec![0.0; len]);
                forward(activation, &gate, &up, &mut y);
                backward(activation, &dy, &gate, &up, &mut dgate, &mut dup);
                [y, dgate, dup].concat()
            };
            let expected = run(reference::forward, reference::backward);
            for (pool, got) in on_every_pool(|| run(forward, backward)) {
                assert_same_bits(&got, &expected, &format!("{activation:?}, length {len} on {pool}"));
            }
        }
    }

    #[test]
    fn backward_matches_central_differences() {
        /// A few f32 roundings per element.
        const TOLERANCE: f64 = 1e-6;
        let len = 40;
        let (gate, up, dy) = (noise("gate", len), noise("up", len), noise("dy", len));
        let silu = |x: f64| x / (1.0 + libm::exp(-x));
        let functions = [(Silu, &silu as &dyn Fn(f64) -> f64), (GeluTanh, &crate::gelu::exact)];
        for (activation, f) in functions {
            let (mut dgate, mut dup) = (vec![0.0; len], vec![0.0; len]);
            backward(activation, &dy, &gate, &up, &mut dgate, &mut dup);
            let loss =
                |gate: &[f64], up: &[f64]| -> f64 { (0..len).map(|i| f(gate[i]) * up[i] * f64::from(dy[i])).sum() };
            let expected_dgate = central_differences(&gate, |gate| loss(gate, &wide(&up)));
            let expected_dup = central_differences(&up, |up| loss(&wide(&gate), up));
            for (name, got, expected) in [("dgate", dgate, expected_dgate), ("dup", dup, expected_dup)] {
                let difference = relative_difference(&got, &expected);
                assert!(difference < TOLERANCE, "{activation:?}, {name}: relative difference {difference:e}");
            }
        }
    }

    #[test]
    fn extreme_gates_stay_finite() {
        let gate = [-1000.0, 1000.0, -88.0, 0.0];
        for activation in [Silu, GeluTanh] {
            let mut y = [f32::NAN; 4];
            forward(activation, &gate, &[1.0; 4], &mut y);
            assert_eq!(y[..2], [0.0, 1000.0]);
            let (mut dgate, mut dup) = ([f32::NAN; 4], [f32::NAN; 4]);
            backward(activation, &[1.0; 4], &gate, &[1.0; 4], &mut dgate, &mut dup);
            assert_eq!(dgate[..2], [0.0, 1.0]);
            assert_eq!(dgate[3], 0.5);
            assert!(dgate.iter().chain(&dup).all(|x| x.is_finite()));
        }
    }
}
