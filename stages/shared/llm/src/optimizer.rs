//! AdamW (arXiv 1711.05101, algorithm 2) over the tensors that are trained, with the arithmetic of `torch.optim.AdamW`.
//!
//! As in the Trainer of transformers (`get_decay_parameter_names`), weight decay acts on matrices, not on norms and biases.

use candle_core::{DType, Device, Result, Tensor};
use pipe_kernels::{adamw as kernel, reduce};

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

/// A tensor that is trained.
#[derive(Clone, Debug)]
pub struct Parameter<'t> {
    /// Path of the module and which of its tensors: `model.layers.0.self_attn.q_proj.A`, `model.norm.weight`.
    pub name: String,
    /// Its value.
    pub tensor: &'t Tensor,
}

impl Parameter<'_> {
    /// Whether weight decay acts on it: on matrices only.
    fn decays(&self) -> bool {
        self.tensor.rank() > 1
    }
}

/// The optimizer's state.
#[derive(Clone, Debug)]
pub struct AdamW {
    settings: AdamWSettings,
    /// Optimizer steps taken.
    pub n_done: u64,
    /// Per parameter.
    pub moments: Vec<Moments>,
    decays: Vec<bool>,
}

impl AdamW {
    /// Zero moments for `parameters`.
    pub fn new(settings: AdamWSettings, parameters: &[Parameter<'_>]) -> Self {
        let zeros =
            |tensor: &Tensor| Moments { first: vec![0.0; tensor.elem_count()], second: vec![0.0; tensor.elem_count()] };
        let moments = parameters.iter().map(|p| zeros(p.tensor)).collect();
        AdamW { settings, n_done: 0, moments, decays: parameters.iter().map(Parameter::decays).collect() }
    }

    /// Takes one optimizer step. `parameters` in the order they were given to
    /// [`AdamW::new`], `gradients` of the mean loss, row-major. Returns their L2 norm before clipping.
    ///
    /// Clipping as `torch.nn.utils.clip_grad_norm_`: all gradients times `min(1, max_norm / (norm + 1e-6))`.
    ///
    /// # Errors
    /// When a tensor cannot be moved to or from its device.
    pub fn step(
        &mut self,
        parameters: Vec<&mut Tensor>,
        mut gradients: Vec<Vec<f32>>,
        learning_rate: f64,
    ) -> Result<f64> {
        let norm = libm::sqrt(gradients.iter().map(|g| reduce::sum_of_squares(g)).sum::<f64>());
        if !norm.is_finite() {
            return Ok(norm);
        }
        let max_norm = self.settings.max_grad_norm;
        if max_norm > 0.0 && max_norm / (norm + 1e-6) < 1.0 {
            let factor = (max_norm / (norm + 1e-6)) as f32;
            gradients.iter_mut().for_each(|g| reduce::scale(g, factor));
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
        let each = parameters.into_iter().zip(&gradients).zip(self.moments.iter_mut().zip(&self.decays));
        for ((tensor, gradient), (moments, decays)) in each {
            let weight_decay = if *decays { step.weight_decay } else { 0.0 };
            update(kernel::Step { weight_decay, ..step }, tensor, gradient, moments)?;
        }
        Ok(norm)
    }
}

/// The tensor is replaced, not written to: clones of it, a checkpoint's or a best adapter's, keep their values.
fn update(step: kernel::Step, tensor: &mut Tensor, gradient: &[f32], moments: &mut Moments) -> Result<()> {
    let mut values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    kernel::update(step, &mut values, gradient, &mut moments.first, &mut moments.second);
    *tensor = Tensor::from_vec(values, tensor.dims(), &Device::Cpu)?.to_device(tensor.device())?;
    Ok(())
}
