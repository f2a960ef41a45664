//! AdamW (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2), with the roundings of `torch.optim.AdamW`.
//!
//! ```text
//! param -= learning_rate weight_decay param          decoupled decay, before the update
//! m     += (1 - beta1) (grad - m)
//! v      = beta2 v + (1 - beta2) grad^2
//! param -= learning_rate / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
//! ```
//!
//! Scalars are computed in f64 and rounded once, as PyTorch does. There is no AMSGrad, no `maximize`, no schedule and no clipping here.

use crate::dispatch::{self, Body};
use rayon::prelude::*;

/// Elements of one task. Never changes a result.
const TASK_LEN: usize = 8192;

/// The scalars of one optimizer step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The learning rate of this optimizer step, 0 or more.
    pub learning_rate: f64,
    /// Decay of the mean of gradients, in `[0, 1)`; usually 0.9.
    pub beta1: f64,
    /// Decay of the mean of squared gradients, in `[0, 1)`; usually 0.999.
    pub beta2: f64,
    /// Added to the denominator; usually 1e-8.
    pub eps: f64,
    /// Decoupled weight decay per unit of learning rate, 0 or more.
    pub weight_decay: f64,
    /// Number of this optimizer step, counted from 1.
    pub t: u64,
}

/// The factors of [`Step`] as the loop needs them.
#[derive(Clone, Copy)]
struct Factors {
    keep: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    sqrt_bias_correction2: f32,
    eps: f32,
    minus_step_size: f32,
}

impl Factors {
    fn new(step: Step) -> Self {
        assert!(step.t >= 1, "adamw: t counts from 1");
        let t = step.t as f64;
        let bias_correction1 = 1.0 - libm::pow(step.beta1, t);
        let bias_correction2 = 1.0 - libm::pow(step.beta2, t);
        Self {
            keep: (1.0 - step.learning_rate * step.weight_decay) as f32,
            one_minus_beta1: (1.0 - step.beta1) as f32,
            beta2: step.beta2 as f32,
            one_minus_beta2: (1.0 - step.beta2) as f32,
            sqrt_bias_correction2: bias_correction2.sqrt() as f32,
            eps: step.eps as f32,
            minus_step_size: -(step.learning_rate / bias_correction1) as f32,
        }
    }

    /// The new (param, m, v).
    #[inline(always)]
    fn applied(self, param: f32, grad: f32, m: f32, v: f32) -> (f32, f32, f32) {
        let m = m + self.one_minus_beta1 * (grad - m);
        let v = v * self.beta2 + self.one_minus_beta2 * grad * grad;
        let denominator = v.sqrt() / self.sqrt_bias_correction2 + self.eps;
        (param * self.keep + self.minus_step_size * m / denominator, m, v)
    }
}

/// Applies one optimizer step to a tensor.
///
/// - param, m, v: changed in place; grad: read; all of one length. m and v are zero before the first optimizer step.
///
/// The same bits as [`reference::update`].
pub fn update(step: Step, param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32]) {
    assert_eq!(param.len(), grad.len(), "adamw: param and grad differ in length");
    assert_eq!(param.len(), m.len(), "adamw: param and m differ in length");
    assert_eq!(param.len(), v.len(), "adamw: param and v differ in length");
    let factors = Factors::new(step);
    let tensors = (param.par_chunks_mut(TASK_LEN), grad.par_chunks(TASK_LEN)).into_par_iter();
    let moments = (m.par_chunks_mut(TASK_LEN), v.par_chunks_mut(TASK_LEN)).into_par_iter();
    tensors.zip(moments).for_each(|((param, grad), (m, v))| dispatch::run(Chunk { factors, param, grad, m, v }));
}

struct Chunk<'a> {
    factors: Factors,
    param: &'a mut [f32],
    grad: &'a [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
}

impl Body for Chunk<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let moments = self.m.iter_mut().zip(self.v);
        for ((param, grad), (m, v)) in self.param.iter_mut().zip(self.grad).zip(moments) {
            (*param, *m, *v) = self.factors.applied(*param, *grad, *m, *v);
        }
    }
}

/// The plain version.
pub mod reference {
    use super::{Factors, Step};

    /// As [`super::update`].
    pub fn update(step: Step, param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32]) {
        let factors = Factors::new(step);
        for i in 0..param.len() {
            (param[i], m[i], v[i]) = factors.applied(param[i], grad[i], m[i], v[i]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_same_bits, noise, on_every_pool, relative_difference, wide};

    fn step(t: u64) -> Step {
        Step { learning_rate: 2e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, t }
    }

    type Update = fn(Step, &mut [f32], &[f32], &mut [f32], &mut [f32]);

    /// Ten optimizer steps; param, m and v one after another.
    fn trained(update: Update, len: usize) -> [Vec<f32>; 3] {
        let (mut param, mut m, mut v) = (noise("param", len), vec![0.0; len], vec![0.0; len]);
        for t in 1..=10 {
            update(step(t), &mut param, &noise(&format!("grad {t}"), len), &mut m, &mut v);
        }
        [param, m, v]
    }

    #[test]
    fn ten_steps_equal_the_reference_to_the_bit() {
        for len in [1, 17, 8195] {
            let expected = trained(reference::update, len).concat();
            for (pool, got) in on_every_pool(|| trained(update, len).concat()) {
                assert_same_bits(&got, &expected, &format!("length {len} on {pool}"));
            }
        }
    }

    #[test]
    fn ten_steps_follow_the_formula_in_f64() {
        /// Ten f32 roundings.
        const TOLERANCE: f64 = 1e-6;
        let len = 50;
        let (mut param, mut m, mut v) = (wide(&noise("param", len)), vec![0.0; len], vec![0.0; len]);
        for t in 1..=10 {
            let grad = wide(&noise(&format!("grad {t}"), len));
            for i in 0..len {
                param[i] -= 2e-4 * 0.01 * param[i];
                m[i] = 0.9 * m[i] + 0.1 * grad[i];
                v[i] = 0.999 * v[i] + 0.001 * grad[i] * grad[i];
                let m_hat = m[i] / (1.0 - 0.9_f64.powi(t));
                let v_hat = v[i] / (1.0 - 0.999_f64.powi(t));
                param[i] -= 2e-4 * m_hat / (v_hat.sqrt() + 1e-8);
            }
        }
        for (name, got, expected) in
            ["param", "m", "v"].into_iter().zip(trained(update, len)).zip([param, m, v]).map(|((a, b), c)| (a, b, c))
        {
            let difference = relative_difference(&got, &expected);
            assert!(difference < TOLERANCE, "{name}: relative difference {difference:e}");
        }
    }

    #[test]
    fn the_first_step_moves_by_the_learning_rate() {
        let (mut param, mut m, mut v) = ([1.0, 1.0, 1.0], [0.0; 3], [0.0; 3]);
        update(Step { weight_decay: 0.0, ..step(1) }, &mut param, &[3.0, -0.01, 0.0], &mut m, &mut v);
        for (got, expected) in param.iter().zip([1.0 - 2e-4, 1.0 + 2e-4, 1.0]) {
            assert!((got - expected).abs() < 2e-7, "{got} instead of {expected}");
        }
    }

    #[test]
    #[should_panic(expected = "t counts from 1")]
    fn step_zero_is_refused() {
        update(step(0), &mut [], &[], &mut [], &mut []);
    }
}
