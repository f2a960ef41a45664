//! A model as a straight list of ops, built from its config.
//!
//! ```text
//! embedding
//! per layer:  rms_norm -> q, k, v -> rope -> attention -> o -> residual -> rms_norm -> gate, up -> gated_mlp -> down -> residual
//! rms_norm
//! head with cross-entropy
//! ```
//!
//! The list is data: an engine walks it forward and then backward, and everything that autograd would find out while
//! running (which values to keep, which gradients are wanted) is read off the list before ([`Liveness`]).
//! A new architecture is a new list. It deliberately computes nothing.

use crate::config::ModelConfig;
use crate::error::LlmError;
use crate::pattern;

/// Index of an intermediate value of shape (T, width).
pub type ValueIdx = usize;
/// Index into [`Program::weights`].
pub type WeightIdx = usize;
/// Index into [`Program::adapted`].
pub type AdaptedIdx = usize;
/// Index of a tensor that is trained: A and B of each adapted module, then the trained weights.
pub type ParameterIdx = usize;

/// One operation on values of shape (T, width): T the tokens of one sequence.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are values and weights; each op's file says what it computes")]
pub enum Op {
    /// Rows of the embedding: token ids -> (T, C).
    Embedding { weight: WeightIdx, output: ValueIdx },
    /// RMSNorm with a weight: (T, C) -> (T, C).
    RmsNorm { input: ValueIdx, weight: WeightIdx, output: ValueIdx },
    /// `x W^T + b`, plus the adapter's part where the module is adapted: (T, in) -> (T, out).
    Linear {
        input: ValueIdx,
        weight: WeightIdx,
        bias: Option<WeightIdx>,
        adapted: Option<AdaptedIdx>,
        output: ValueIdx,
    },
    /// Rotary positions on `n_heads` heads: (T, n_heads D) -> same.
    Rope { input: ValueIdx, n_heads: usize, output: ValueIdx },
    /// Causal attention inside documents: (T, H D), (T, H_kv D) twice -> (T, H D).
    Attention { q: ValueIdx, k: ValueIdx, v: ValueIdx, output: ValueIdx },
    /// `silu(gate) * up`.
    GatedMlp { gate: ValueIdx, up: ValueIdx, output: ValueIdx },
    /// `left + right`.
    Residual { left: ValueIdx, right: ValueIdx, output: ValueIdx },
    /// Logits of the supervised rows and their cross-entropy; the last op: (T, C) -> a number.
    Head { input: ValueIdx, weight: WeightIdx },
}

impl Op {
    /// The values it reads.
    pub fn inputs(&self) -> Vec<ValueIdx> {
        match *self {
            Op::Embedding { .. } => vec![],
            Op::RmsNorm { input, .. } | Op::Linear { input, .. } | Op::Rope { input, .. } | Op::Head { input, .. } => {
                vec![input]
            }
            Op::Attention { q, k, v, .. } => vec![q, k, v],
            Op::GatedMlp { gate, up, .. } => vec![gate, up],
            Op::Residual { left, right, .. } => vec![left, right],
        }
    }

    /// The weights it reads.
    pub fn weights(&self) -> Vec<WeightIdx> {
        match *self {
            Op::Embedding { weight, .. } | Op::RmsNorm { weight, .. } | Op::Head { weight, .. } => vec![weight],
            Op::Linear { weight, bias, .. } => std::iter::once(weight).chain(bias).collect(),
            Op::Rope { .. } | Op::Attention { .. } | Op::GatedMlp { .. } | Op::Residual { .. } => vec![],
        }
    }

    /// The value it makes; the head makes none.
    pub fn output(&self) -> Option<ValueIdx> {
        match *self {
            Op::Embedding { output, .. }
            | Op::RmsNorm { output, .. }
            | Op::Linear { output, .. }
            | Op::Rope { output, .. }
            | Op::Attention { output, .. }
            | Op::GatedMlp { output, .. }
            | Op::Residual { output, .. } => Some(output),
            Op::Head { .. } => None,
        }
    }

    /// The values its backward reads again.
    fn saved(&self, is_trained: impl Fn(WeightIdx) -> bool) -> Vec<ValueIdx> {
        match *self {
            Op::RmsNorm { input, .. } => vec![input],
            // The gradient in the input needs the weight alone; those of a weight and of an adapter need the input.
            Op::Linear { input, weight, adapted, .. } if adapted.is_some() || is_trained(weight) => vec![input],
            Op::Linear { .. } => vec![],
            Op::Attention { q, k, v, output } => vec![q, k, v, output],
            Op::GatedMlp { gate, up, .. } => vec![gate, up],
            Op::Embedding { .. } | Op::Rope { .. } | Op::Residual { .. } | Op::Head { .. } => vec![],
        }
    }
}

/// A tensor of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightSpec {
    /// Hugging Face's name.
    pub name: String,
    /// `[out, in]`, `[V, C]` or `[C]`.
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
    /// How many values there are.
    pub n_values: usize,
    /// The modules with an adapter, in the order of the list.
    pub adapted: Vec<AdaptedModule>,
    /// The weights that are trained themselves, rising; all others are frozen.
    pub trained: Vec<WeightIdx>,
}

impl Program {
    /// The program of a Llama or Qwen2. `targets`: names of the modules that get adapters, each the last part of a module
    /// path (`q_proj`) or a longer suffix of it (`self_attn.q_proj`), as PEFT's list form of `target_modules`.
    ///
    /// # Errors
    /// A target that matches no linear module.
    pub fn new(config: &ModelConfig, targets: &[String]) -> Result<Self, LlmError> {
        let mut builder = Builder::new(config.clone(), targets);
        builder.build();
        let unmatched: Vec<&String> = targets.iter().filter(|t| !builder.matched.contains(*t)).collect();
        if let Some(target) = unmatched.first() {
            let modules = "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj";
            return Err(LlmError::Adapter {
                why: format!("no linear module is called `{target}`; there are {modules}"),
            });
        }
        Ok(builder.program)
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
        2 * self.adapted.len() + self.trained.len()
    }

    /// The parameter that a weight is, if it is trained.
    pub fn parameter_of(&self, weight: WeightIdx) -> Option<ParameterIdx> {
        self.trained.binary_search(&weight).ok().map(|position| 2 * self.adapted.len() + position)
    }

    /// Reads off the list what an engine must keep and which gradients are wanted.
    pub fn liveness(&self) -> Liveness {
        let mut needs_gradient = vec![false; self.n_values];
        for op in &self.ops {
            let Some(output) = op.output() else { continue };
            let is_adapted = matches!(op, Op::Linear { adapted: Some(_), .. });
            let is_trained = op.weights().iter().any(|&w| self.parameter_of(w).is_some());
            needs_gradient[output] = is_adapted || is_trained || op.inputs().iter().any(|&v| needs_gradient[v]);
        }
        let mut is_saved = vec![false; self.n_values];
        let mut last_use = vec![0; self.n_values];
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
        for value in 0..self.n_values {
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

struct Builder<'t> {
    program: Program,
    targets: &'t [String],
    matched: std::collections::BTreeSet<String>,
}

impl<'t> Builder<'t> {
    fn new(config: ModelConfig, targets: &'t [String]) -> Self {
        let program = Program { config, weights: vec![], ops: vec![], n_values: 0, adapted: vec![], trained: vec![] };
        Builder { program, targets, matched: Default::default() }
    }

    fn value(&mut self) -> ValueIdx {
        self.program.n_values += 1;
        self.program.n_values - 1
    }

    fn weight(&mut self, name: String, shape: Vec<usize>) -> WeightIdx {
        self.program.weights.push(WeightSpec { name, shape });
        self.program.weights.len() - 1
    }

    fn build(&mut self) {
        let config = self.program.config.clone();
        let c = config.hidden_size;
        let embedding = self.weight("model.embed_tokens.weight".into(), vec![config.vocab_size, c]);
        let mut x = self.value();
        self.program.ops.push(Op::Embedding { weight: embedding, output: x });
        for layer_idx in 0..config.n_layers {
            x = self.layer(&config, layer_idx, x);
        }
        let normed = self.rms_norm("model.norm.weight".into(), c, x);
        let head =
            if config.is_tied { embedding } else { self.weight("lm_head.weight".into(), vec![config.vocab_size, c]) };
        self.program.ops.push(Op::Head { input: normed, weight: head });
    }

    fn layer(&mut self, config: &ModelConfig, layer_idx: usize, x: ValueIdx) -> ValueIdx {
        let prefix = format!("model.layers.{layer_idx}");
        let (c, i) = (config.hidden_size, config.intermediate_size);
        let (q_width, kv_width) = (config.q_width(), config.kv_width());
        let normed = self.rms_norm(format!("{prefix}.input_layernorm.weight"), c, x);
        let q = self.linear(format!("{prefix}.self_attn.q_proj"), normed, c, q_width, config.has_qkv_bias);
        let k = self.linear(format!("{prefix}.self_attn.k_proj"), normed, c, kv_width, config.has_qkv_bias);
        let v = self.linear(format!("{prefix}.self_attn.v_proj"), normed, c, kv_width, config.has_qkv_bias);
        let q = self.rope(q, config.n_heads);
        let k = self.rope(k, config.n_kv_heads);
        let attended = self.value();
        self.program.ops.push(Op::Attention { q, k, v, output: attended });
        let o = self.linear(format!("{prefix}.self_attn.o_proj"), attended, q_width, c, config.has_o_bias);
        let x = self.residual(x, o);
        let normed = self.rms_norm(format!("{prefix}.post_attention_layernorm.weight"), c, x);
        let gate = self.linear(format!("{prefix}.mlp.gate_proj"), normed, c, i, config.has_mlp_bias);
        let up = self.linear(format!("{prefix}.mlp.up_proj"), normed, c, i, config.has_mlp_bias);
        let hidden = self.value();
        self.program.ops.push(Op::GatedMlp { gate, up, output: hidden });
        let down = self.linear(format!("{prefix}.mlp.down_proj"), hidden, i, c, config.has_mlp_bias);
        self.residual(x, down)
    }

    fn rms_norm(&mut self, name: String, width: usize, input: ValueIdx) -> ValueIdx {
        let (weight, output) = (self.weight(name, vec![width]), self.value());
        self.program.ops.push(Op::RmsNorm { input, weight, output });
        output
    }

    fn linear(&mut self, path: String, input: ValueIdx, n_in: usize, n_out: usize, has_bias: bool) -> ValueIdx {
        let weight = self.weight(format!("{path}.weight"), vec![n_out, n_in]);
        let bias = has_bias.then(|| self.weight(format!("{path}.bias"), vec![n_out]));
        let is_target = |t: &&String| path == **t || path.ends_with(&format!(".{t}"));
        let matching: Vec<String> = self.targets.iter().filter(is_target).cloned().collect();
        let adapted = (!matching.is_empty()).then(|| {
            self.matched.extend(matching);
            self.program.adapted.push(AdaptedModule { path, n_in, n_out });
            self.program.adapted.len() - 1
        });
        let output = self.value();
        self.program.ops.push(Op::Linear { input, weight, bias, adapted, output });
        output
    }

    fn rope(&mut self, input: ValueIdx, n_heads: usize) -> ValueIdx {
        let output = self.value();
        self.program.ops.push(Op::Rope { input, n_heads, output });
        output
    }

    fn residual(&mut self, left: ValueIdx, right: ValueIdx) -> ValueIdx {
        let output = self.value();
        self.program.ops.push(Op::Residual { left, right, output });
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(n_layers: usize) -> ModelConfig {
        ModelConfig::from_json(&format!(
            r#"{{"architectures":["LlamaForCausalLM"],"hidden_size":8,"intermediate_size":12,"num_hidden_layers":{n_layers},
            "num_attention_heads":2,"vocab_size":16,"max_position_embeddings":32}}"#
        ))
        .expect("valid")
    }

    #[test]
    fn the_weights_are_those_of_the_config() {
        let config = config(2);
        let program = Program::new(&config, &[]).expect("no targets");
        let mut ours: Vec<(String, Vec<usize>)> =
            program.weights.iter().map(|w| (w.name.clone(), w.shape.clone())).collect();
        let mut theirs = crate::config::tensor_shapes(&config);
        ours.sort();
        theirs.sort();
        assert_eq!(ours, theirs);
    }

    #[test]
    fn no_gradient_is_wanted_below_the_lowest_adapter() {
        let program = Program::new(&config(2), &["down_proj".into()]).expect("a module");
        let liveness = program.liveness();
        let Op::Residual { output, .. } = program.ops.iter().find(|op| matches!(op, Op::Residual { .. })).expect("one")
        else {
            unreachable!("found by its kind")
        };
        assert!(!liveness.needs_gradient[*output], "the attention half of layer 0 lies below every adapter");
        assert!(liveness.needs_gradient[program.n_values - 1]);
        let Op::Attention { q, .. } = program.ops.iter().find(|op| matches!(op, Op::Attention { .. })).expect("one")
        else {
            unreachable!("found by its kind")
        };
        assert!(!liveness.is_saved[*q]);
    }

    #[test]
    fn full_training_trains_what_is_not_frozen() {
        let all = Program::full(&config(2), &[]).expect("valid");
        assert_eq!(all.n_parameters(), all.weights.len());
        assert!(all.liveness().needs_gradient.iter().all(|needs| *needs), "the embedding is trained");
        let upper = Program::full(&config(2), &["model.embed_tokens".into(), "model.layers.0".into()]).expect("valid");
        let names: Vec<&str> = upper.trained.iter().map(|&w| upper.weights[w].name.as_str()).collect();
        assert!(
            names
                .iter()
                .all(|n| n.starts_with("model.layers.1.") || n == &"model.norm.weight" || n == &"lm_head.weight")
        );
        assert_eq!(names.len(), 11, "{names:?}");
        let liveness = upper.liveness();
        let n_below = liveness.needs_gradient.iter().filter(|needs| !**needs).count();
        // The embedding and the values of the first layer but the rotated ones.
        assert_eq!(
            n_below,
            1 + upper
                .ops
                .iter()
                .skip(1)
                .position(|op| op.weights().iter().any(|w| upper.parameter_of(*w).is_some()))
                .expect("one")
        );
        assert!(
            Program::full(&config(1), &["*.q_porj".into()]).expect_err("a typing error").to_string().contains("q_porj")
        );
        assert!(Program::full(&config(1), &["*".into()]).is_err());
    }

    #[test]
    fn a_target_that_matches_nothing_is_an_error() {
        let error = Program::new(&config(1), &["q_proj".into(), "query".into()]).expect_err("no such module");
        assert!(error.to_string().contains("`query`"), "{error}");
    }
}
