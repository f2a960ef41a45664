//! AdamW (arXiv 1711.05101, algorithm 2) over the tensors of an adapter, with the arithmetic of `torch.optim.AdamW`.

use candle_core::{DType, Device, Result, Tensor};
use pipe_kernels::{adamw as kernel, reduce};

use crate::adapter::Adapter;

/// Hyperparameters, with Hugging Face's names in the docs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWSettings {
    /// `adam_beta1`.
    pub beta1: f64,
    /// `adam_beta2`.
    pub beta2: f64,
    /// `adam_epsilon`.
    pub epsilon: f64,
    /// `weight_decay`, decoupled.
    pub weight_decay: f64,
    /// `max_grad_norm`; 0 does not clip.
    pub max_grad_norm: f64,
}

/// First and second moments of one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Running mean of the gradient.
    pub first: Vec<f32>,
    /// Running mean of its square.
    pub second: Vec<f32>,
}

/// The optimizer's state: moments of A and B of every adapted module.
#[derive(Clone, Debug)]
pub struct AdamW {
    settings: AdamWSettings,
    /// Optimizer steps taken.
    pub n_done: u64,
    /// (A, B) per adapted module.
    pub moments: Vec<(Moments, Moments)>,
}

/// Gradients of one adapted module: A's and B's.
pub type ModuleGradient = (Tensor, Tensor);

impl AdamW {
    /// Zero moments for the tensors of `adapter`.
    pub fn new(settings: AdamWSettings, adapter: &Adapter) -> Self {
        let zeros =
            |tensor: &Tensor| Moments { first: vec![0.0; tensor.elem_count()], second: vec![0.0; tensor.elem_count()] };
        let moments = adapter.modules.iter().map(|m| (zeros(&m.a), zeros(&m.b))).collect();
        AdamW { settings, n_done: 0, moments }
    }

    /// Takes one optimizer step. `gradients`: of the mean loss. Returns their L2 norm before clipping.
    ///
    /// Clipping as `torch.nn.utils.clip_grad_norm_`: all gradients times `min(1, max_norm / (norm + 1e-6))`.
    ///
    /// # Errors
    /// When a tensor cannot be moved to or from its device.
    pub fn step(&mut self, adapter: &mut Adapter, gradients: &[ModuleGradient], learning_rate: f64) -> Result<f64> {
        let mut host: Vec<(Vec<f32>, Vec<f32>)> =
            gradients.iter().map(|(a, b)| Ok((to_host(a)?, to_host(b)?))).collect::<Result<_>>()?;
        let norm =
            libm::sqrt(host.iter().map(|(a, b)| reduce::sum_of_squares(a) + reduce::sum_of_squares(b)).sum::<f64>());
        if !norm.is_finite() {
            return Ok(norm);
        }
        let max_norm = self.settings.max_grad_norm;
        if max_norm > 0.0 && max_norm / (norm + 1e-6) < 1.0 {
            let factor = (max_norm / (norm + 1e-6)) as f32;
            for (a, b) in &mut host {
                reduce::scale(a, factor);
                reduce::scale(b, factor);
            }
        }
        self.n_done += 1;
        let step = kernel::Step {
            learning_rate,
            beta1: self.settings.beta1,
            beta2: self.settings.beta2,
            eps: self.settings.epsilon,
            weight_decay: self.settings.weight_decay,
            t: self.n_done,
        };
        for ((module, (d_a, d_b)), (a, b)) in adapter.modules.iter_mut().zip(&host).zip(&mut self.moments) {
            module.a = update(step, &module.a, d_a, a)?;
            module.b = update(step, &module.b, d_b, b)?;
        }
        Ok(norm)
    }
}

fn update(step: kernel::Step, tensor: &Tensor, gradient: &[f32], moments: &mut Moments) -> Result<Tensor> {
    let mut values = to_host(tensor)?;
    kernel::update(step, &mut values, gradient, &mut moments.first, &mut moments.second);
    Tensor::from_vec(values, tensor.dims(), &Device::Cpu)?.to_device(tensor.device())
}

fn to_host(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}
