//! A model as a straight list of ops, built from its config.
//!
//! ```text
//! a Llama:
//! embedding
//! per layer:  rms_norm -> q, k, v -> rope -> attention -> o -> residual -> rms_norm -> gate, up -> gated_mlp -> down -> residual
//! rms_norm
//! head with cross-entropy
//! ```
//!
//! The list is data: an engine walks it forward and then backward, and everything that autograd would find out while
//! running (which values to keep, which gradients are wanted) is read off the list before ([`Liveness`]).
//! A new architecture is a new list: a file beside this one. `builder` has what they share. It deliberately computes nothing.

mod builder;
mod gemma;
mod gpt2;
mod llama;
mod phi3;

use std::collections::BTreeSet;

use candle_core::DType;

use crate::adapter::{EMBEDDING, HEAD, LoraConfig, TokenIndices};
use crate::config::{Activation, Architecture, ModelConfig, Scores};
use crate::error::LlmError;
use crate::ops::embedding::rounded_scale;
use crate::pattern;
use builder::Builder;

/// Index of an intermediate value of shape (T, width).
pub type ValueIdx = usize;
/// Index into [`Program::weights`].
pub type WeightIdx = usize;
/// Index into [`Program::adapted`].
pub type AdaptedIdx = usize;
/// Index of a tensor that is trained: A and B of each adapted module, then the rows of tokens, then the trained weights.
pub type ParameterIdx = usize;

/// Which rows of an embedding a sequence takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Those of its token ids.
    Tokens,
    /// Those of its positions.
    Positions,
}

/// How a linear module's matrix is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[out, in]`, as PyTorch's `Linear`.
    OutIn,
    /// `[in, out]`, as transformers' `Conv1D`.
    InOut,
}

/// One operation on values of shape (T, width): T the tokens of one sequence.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are values and weights; each op's file says what it computes")]
pub enum Op {
    /// Rows of an embedding, times `scale`: token ids or positions -> (T, C). Engines round the scale to the dtype that the weight is stored in.
    Embedding { weight: WeightIdx, rows: Rows, scale: Option<f64>, output: ValueIdx },
    /// RMSNorm with a weight, or with 1 + weight: (T, C) -> (T, C). A shorter weight (D) norms each D channels by themselves: (T, H D) -> same.
    RmsNorm { input: ValueIdx, weight: WeightIdx, adds_one: bool, output: ValueIdx },
    /// LayerNorm with weight and bias: (T, C) -> (T, C).
    LayerNorm { input: ValueIdx, weight: WeightIdx, bias: WeightIdx, output: ValueIdx },
    /// `x W^T + b`, plus the adapter's part where the module is adapted: (T, in) -> (T, out).
    Linear {
        input: ValueIdx,
        weight: WeightIdx,
        layout: Layout,
        bias: Option<WeightIdx>,
        adapted: Option<AdaptedIdx>,
        output: ValueIdx,
    },
    /// Some columns of a value, from `start` on: (T, width) -> (T, less).
    Slice { input: ValueIdx, start: usize, output: ValueIdx },
    /// Rotary positions on `n_heads` heads, the `rope`-th of the config: (T, n_heads D) -> same.
    Rope { input: ValueIdx, n_heads: usize, rope: usize, output: ValueIdx },
    /// Causal attention inside documents: (T, H D), (T, H_kv D) twice -> (T, H D).
    Attention { q: ValueIdx, k: ValueIdx, v: ValueIdx, scores: Scores, output: ValueIdx },
    /// `f(gate) * up`.
    GatedMlp { gate: ValueIdx, up: ValueIdx, activation: Activation, output: ValueIdx },
    /// GELU with its tanh.
    Gelu { input: ValueIdx, output: ValueIdx },
    /// `left + right`.
    Residual { left: ValueIdx, right: ValueIdx, output: ValueIdx },
    /// Logits of the supervised rows, capped if `cap` says so, and their cross-entropy; the last op: (T, C) -> a number.
    Head { input: ValueIdx, weight: WeightIdx, cap: Option<f64> },
}

impl Op {
    /// The values it reads.
    pub fn inputs(&self) -> Vec<ValueIdx> {
        match *self {
            Op::Embedding { .. } => vec![],
            Op::RmsNorm { input, .. }
            | Op::LayerNorm { input, .. }
            | Op::Linear { input, .. }
            | Op::Slice { input, .. }
            | Op::Rope { input, .. }
            | Op::Gelu { input, .. }
            | Op::Head { input, .. } => vec![input],
            Op::Attention { q, k, v, .. } => vec![q, k, v],
            Op::GatedMlp { gate, up, .. } => vec![gate, up],
            Op::Residual { left, right, .. } => vec![left, right],
        }
    }

    /// The weights it reads.
    pub fn weights(&self) -> Vec<WeightIdx> {
        match *self {
            Op::Embedding { weight, .. } | Op::RmsNorm { weight, .. } | Op::Head { weight, .. } => vec![weight],
            Op::LayerNorm { weight, bias, .. } => vec![weight, bias],
            Op::Linear { weight, bias, .. } => std::iter::once(weight).chain(bias).collect(),
            Op::Slice { .. }
            | Op::Rope { .. }
            | Op::Attention { .. }
            | Op::GatedMlp { .. }
            | Op::Gelu { .. }
            | Op::Residual { .. } => vec![],
        }
    }

    /// The value it makes; the head makes none.
    pub fn output(&self) -> Option<ValueIdx> {
        match *self {
            Op::Embedding { output, .. }
            | Op::RmsNorm { output, .. }
            | Op::LayerNorm { output, .. }
            | Op::Linear { output, .. }
            | Op::Slice { output, .. }
            | Op::Rope { output, .. }
            | Op::Attention { output, .. }
            | Op::GatedMlp { output, .. }
            | Op::Gelu { output, .. }
            | Op::Residual { output, .. } => Some(output),
            Op::Head { .. } => None,
        }
    }

    /// The values its backward reads again.
    fn saved(&self, is_trained: impl Fn(WeightIdx) -> bool) -> Vec<ValueIdx> {
        match *self {
            Op::RmsNorm { input, .. } | Op::LayerNorm { input, .. } | Op::Gelu { input, .. } => vec![input],
            // The gradient in the input needs the weight alone; those of a weight and of an adapter need the input.
            Op::Linear { input, weight, adapted, .. } if adapted.is_some() || is_trained(weight) => vec![input],
            Op::Linear { .. } => vec![],
            Op::Attention { q, k, v, output, .. } => vec![q, k, v, output],
            Op::GatedMlp { gate, up, .. } => vec![gate, up],
            Op::Embedding { .. } | Op::Slice { .. } | Op::Rope { .. } | Op::Residual { .. } | Op::Head { .. } => vec![],
        }
    }

    /// Whether its output is cheap to make again from its inputs: norms, and what lies between two matrices of an MLP.
    pub fn is_cheap(&self) -> bool {
        matches!(self, Op::RmsNorm { .. } | Op::LayerNorm { .. } | Op::GatedMlp { .. } | Op::Gelu { .. })
    }
}

/// A tensor of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightSpec {
    /// Hugging Face's name.
    pub name: String,
    /// As stored: `[out, in]` or `[in, out]`, `[V, C]` or `[C]`.
    pub shape: Vec<usize>,
}

impl WeightSpec {
    /// How many elements it has.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A linear module that carries an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdaptedModule {
    /// Full module path: `model.layers.0.self_attn.q_proj`.
    pub path: String,
    /// Input channels.
    pub n_in: usize,
    /// Output channels.
    pub n_out: usize,
    /// How the module's own matrix is stored; A is (r, in) and B (out, r) either way.
    pub layout: Layout,
}

/// Rows of a matrix over the vocabulary that an adapter has its own of: the tokens of PEFT's `trainable_token_indices`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainedTokens {
    /// Full module path: `model.embed_tokens`, `lm_head`.
    pub path: String,
    /// The matrix, (V, C). A tied head reads the same one.
    pub weight: WeightIdx,
    /// Which rows, each once, below V.
    pub ids: Vec<u32>,
}

/// A model's forward pass as a list, with the modules that carry adapters.
#[derive(Clone, Debug)]
pub struct Program {
    /// The config it was built from.
    pub config: ModelConfig,
    /// Every weight, each once.
    pub weights: Vec<WeightSpec>,
    /// The list.
    pub ops: Vec<Op>,
    /// Channels of each value.
    pub widths: Vec<usize>,
    /// The modules with an adapter, in the order of the list.
    pub adapted: Vec<AdaptedModule>,
    /// The matrices over the vocabulary with rows of an adapter: none, or the embedding, or it and a head of its own.
    pub tokens: Vec<TrainedTokens>,
    /// The weights that are trained themselves, rising; all others are frozen.
    pub trained: Vec<WeightIdx>,
}

impl Program {
    /// The program of a model. `targets`: names of the modules that get adapters, each the last part of a module
    /// path (`q_proj`) or a longer suffix of it (`self_attn.q_proj`), as PEFT's list form of `target_modules`.
    ///
    /// # Errors
    /// A target that matches no linear module.
    pub fn new(config: &ModelConfig, targets: &[String]) -> Result<Self, LlmError> {
        let builder = Builder::run(config, targets);
        match targets.iter().find(|target| !builder.matched.contains(*target)) {
            None => Ok(builder.program),
            Some(target) => {
                let modules = builder.linear_names.join(", ");
                Err(LlmError::Adapter { why: format!("no linear module is called `{target}`; there are {modules}") })
            }
        }
    }

    /// The program that an adapter is for: [`Program::new`], and the tokens that it has rows of. Without one, that of the base.
    ///
    /// # Errors
    /// As [`Program::new`] and [`Program::with_tokens`].
    pub fn for_adapter(config: &ModelConfig, lora: Option<&LoraConfig>) -> Result<Self, LlmError> {
        match lora {
            Some(lora) => Program::new(config, &lora.target_modules)?.with_tokens(&lora.trainable_token_indices),
            None => Program::new(config, &[]),
        }
    }

    /// The same with rows of tokens that an adapter has its own of. `indices`: the last part of a module's path (`embed_tokens`, which is
    /// the input embedding of every family, or `lm_head`) to token ids, as the mapping form of PEFT's `trainable_token_indices`.
    ///
    /// # Errors
    /// A name that is neither the embedding's nor the head's; a tied head with other tokens than the embedding; an id that is not in the
    /// vocabulary, or twice in a list; an empty list.
    pub fn with_tokens(mut self, indices: &TokenIndices) -> Result<Self, LlmError> {
        let error = |why: String| Err(LlmError::Adapter { why: format!("`trainable_token_indices` {why}") });
        let (embedding, head) = self.vocabulary_weights();
        let path = |weight: WeightIdx| self.weights[weight].name.trim_end_matches(".weight").to_string();
        let mut tokens: Vec<TrainedTokens> = Vec::new();
        for (name, ids) in indices {
            let is_embedding = name == EMBEDDING || name == last_part(&path(embedding));
            let weight = if is_embedding { embedding } else { head };
            if !is_embedding && name != HEAD {
                return error(format!("names `{name}`; it may name `{EMBEDDING}` and `{HEAD}`"));
            }
            let distinct: BTreeSet<u32> = ids.iter().copied().collect();
            if ids.is_empty() || distinct.len() < ids.len() {
                return error(format!("lists no token of `{name}`, or one twice"));
            }
            let vocab_size = self.config.vocab_size;
            if let Some(id) = distinct.last().filter(|&&id| id as usize >= vocab_size) {
                return error(format!("lists the token {id}, but the model has {vocab_size}"));
            }
            match tokens.iter().find(|other| other.weight == weight) {
                Some(other) if other.ids == *ids => {}
                Some(_) => return error(format!("lists other tokens of `{name}` than of the embedding it is tied to")),
                None => tokens.push(TrainedTokens { path: path(weight), weight, ids: ids.clone() }),
            }
        }
        if self.config.is_tied && !tokens.is_empty() && !indices.keys().any(|name| name != HEAD) {
            return error(format!("lists tokens of `{HEAD}` only, which is tied to the embedding"));
        }
        // The embedding comes first, whatever names sort to.
        tokens.sort_by_key(|tokens| tokens.weight);
        self.tokens = tokens;
        Ok(self)
    }

    /// The matrices that have a row for each token: the input embedding, and the head, which is the same where they are tied.
    pub fn vocabulary_weights(&self) -> (WeightIdx, WeightIdx) {
        let embedding = self.ops.iter().find_map(|op| match op {
            Op::Embedding { weight, rows: Rows::Tokens, .. } => Some(*weight),
            _ => None,
        });
        match (embedding, self.ops.last()) {
            (Some(embedding), Some(Op::Head { weight, .. })) => (embedding, *weight),
            _ => unreachable!("every program begins with its embedding and ends in its head"),
        }
    }

    /// The tokens that an adapter has rows of in this matrix: their index in [`Program::tokens`].
    pub fn tokens_of(&self, weight: WeightIdx) -> Option<usize> {
        self.tokens.iter().position(|tokens| tokens.weight == weight)
    }

    /// The parameter that rows of tokens are, by their index in [`Program::tokens`].
    pub fn parameter_of_tokens(&self, tokens_idx: usize) -> ParameterIdx {
        2 * self.adapted.len() + tokens_idx
    }

    /// The names of all linear modules but the head, each the last part of its path: what PEFT's `target_modules: all-linear` stands for. Sorted.
    pub fn all_linear(config: &ModelConfig) -> Vec<String> {
        let mut names = Builder::run(config, &[]).linear_names;
        names.sort();
        names
    }

    /// How many values there are.
    pub fn n_values(&self) -> usize {
        self.widths.len()
    }

    /// Input and output channels of a linear module's matrix.
    pub fn linear_shape(&self, weight: WeightIdx, layout: Layout) -> [usize; 2] {
        match (layout, self.weights[weight].shape.as_slice()) {
            (Layout::OutIn, &[n_out, n_in]) | (Layout::InOut, &[n_in, n_out]) => [n_in, n_out],
            _ => unreachable!("the builder makes matrices of two dimensions"),
        }
    }

    /// The program of full training: every weight is trained but those that a pattern of `freeze` names
    /// ([`pattern::names`]).
    ///
    /// # Errors
    /// A pattern that names no weight; patterns that name all.
    pub fn full(config: &ModelConfig, freeze: &[String]) -> Result<Self, LlmError> {
        let mut program = Program::new(config, &[])?;
        for pattern in freeze {
            if !program.weights.iter().any(|w| pattern::names(pattern, &w.name)) {
                return Err(LlmError::Freeze { why: format!("`{pattern}` names no weight of this model") });
            }
        }
        let is_frozen = |name: &str| freeze.iter().any(|pattern| pattern::names(pattern, name));
        let all = program.weights.iter().enumerate();
        program.trained = all.filter(|(_, w)| !is_frozen(&w.name)).map(|(weight_idx, _)| weight_idx).collect();
        if program.trained.is_empty() {
            return Err(LlmError::Freeze { why: "every weight is frozen: there is nothing to train".into() });
        }
        Ok(program)
    }

    /// Elements of all weights.
    pub fn n_elements(&self) -> usize {
        self.weights.iter().map(WeightSpec::n_elements).sum()
    }

    /// Elements of the weights that are trained themselves; an adapter's are not among them.
    pub fn n_trained_elements(&self) -> usize {
        self.trained.iter().map(|&weight| self.weights[weight].n_elements()).sum()
    }

    /// How many tensors are trained.
    pub fn n_parameters(&self) -> usize {
        2 * self.adapted.len() + self.tokens.len() + self.trained.len()
    }

    /// Rounds the scales of embeddings to the dtypes that their weights are stored in.
    pub(crate) fn round_scales(&mut self, stored: impl Fn(WeightIdx) -> DType) {
        for op in &mut self.ops {
            if let Op::Embedding { weight, scale: Some(scale), .. } = op {
                *scale = rounded_scale(*scale, stored(*weight));
            }
        }
    }

    /// The parameter that a weight is, if it is trained.
    pub fn parameter_of(&self, weight: WeightIdx) -> Option<ParameterIdx> {
        let first = 2 * self.adapted.len() + self.tokens.len();
        self.trained.binary_search(&weight).ok().map(|position| first + position)
    }

    /// Reads off the list what an engine must keep and which gradients are wanted.
    pub fn liveness(&self) -> Liveness {
        let mut needs_gradient = vec![false; self.n_values()];
        for op in &self.ops {
            let Some(output) = op.output() else { continue };
            let is_adapted = matches!(op, Op::Linear { adapted: Some(_), .. });
            let is_trained =
                op.weights().iter().any(|&w| self.parameter_of(w).is_some() || self.tokens_of(w).is_some());
            needs_gradient[output] = is_adapted || is_trained || op.inputs().iter().any(|&v| needs_gradient[v]);
        }
        let mut is_saved = vec![false; self.n_values()];
        let mut last_use = vec![0; self.n_values()];
        for (op_idx, op) in self.ops.iter().enumerate() {
            for value in op.inputs() {
                last_use[value] = op_idx;
            }
            let runs_backward = op.output().is_some_and(|output| needs_gradient[output]);
            if runs_backward {
                op.saved(|weight| self.parameter_of(weight).is_some())
                    .into_iter()
                    .for_each(|value| is_saved[value] = true);
            }
        }
        let mut dies_after = vec![Vec::new(); self.ops.len()];
        for value in 0..self.n_values() {
            dies_after[last_use[value]].push(value);
        }
        Liveness { needs_gradient, is_saved, dies_after }
    }

    /// Floating point operations of one forward and backward pass, per token, without attention's scores: for each
    /// element of a matrix 2 forward, 2 for the gradient in its input, and 2 more for its own where it is trained.
    pub fn flops_per_token(&self) -> f64 {
        let size = |weight: WeightIdx| match self.weights[weight].shape.as_slice() {
            [n_out, n_in] => (n_out * n_in) as f64,
            _ => 0.0,
        };
        let products = self.ops.iter().filter(|op| matches!(op, Op::Linear { .. } | Op::Head { .. }));
        let per_weight = |weight: WeightIdx| if self.parameter_of(weight).is_some() { 6.0 } else { 4.0 };
        products.flat_map(Op::weights).map(|weight| per_weight(weight) * size(weight)).sum()
    }
}

/// Name and shape of every weight of the model, as Hugging Face stores them, in the order of the list.
pub fn tensor_shapes(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    Builder::run(config, &[]).program.weights.into_iter().map(|weight| (weight.name, weight.shape)).collect()
}

/// The last part of a module's path, by which PEFT names it.
pub(crate) fn last_part(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// What to keep and what to compute backward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Liveness {
    /// Per value: something that is trained lies on the way to it, so its gradient is wanted.
    pub needs_gradient: Vec<bool>,
    /// Per value: a backward reads it.
    pub is_saved: Vec<bool>,
    /// Per op: the values no later op reads.
    pub dies_after: Vec<Vec<ValueIdx>>,
}

#[cfg(test)]
mod tests;
