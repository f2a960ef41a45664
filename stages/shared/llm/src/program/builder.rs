//! What the lists of all families are put together from.

use std::collections::BTreeSet;

use super::{
    AdaptedModule, Architecture, Layout, Op, Program, Rows, ValueIdx, WeightIdx, WeightSpec, gemma, gpt2, last_part,
    llama, phi3,
};
use crate::config::{Layer, ModelConfig};

/// A list in the making.
pub(super) struct Builder<'t> {
    pub(super) program: Program,
    targets: &'t [String],
    /// The targets that a module was found for.
    pub(super) matched: BTreeSet<String>,
    /// Last parts of the linear modules' paths, each once, in the order of the list.
    pub(super) linear_names: Vec<String>,
}

/// q, k and v of one layer, before positions are put into them.
pub(super) struct Heads {
    pub(super) q: ValueIdx,
    pub(super) k: ValueIdx,
    pub(super) v: ValueIdx,
}

impl<'t> Builder<'t> {
    /// The whole list of a model.
    pub(super) fn run(config: &ModelConfig, targets: &'t [String]) -> Self {
        let program = Program {
            config: config.clone(),
            weights: vec![],
            ops: vec![],
            widths: vec![],
            adapted: vec![],
            tokens: vec![],
            trained: vec![],
        };
        let mut builder = Builder { program, targets, matched: BTreeSet::new(), linear_names: vec![] };
        match config.architecture {
            Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 | Architecture::Qwen3 => {
                llama::build(&mut builder, config);
            }
            Architecture::Phi3 => phi3::build(&mut builder, config),
            Architecture::Gemma2 | Architecture::Gemma3 => gemma::build(&mut builder, config),
            Architecture::Gpt2 => gpt2::build(&mut builder, config),
        }
        builder
    }

    fn value(&mut self, width: usize) -> ValueIdx {
        self.program.widths.push(width);
        self.program.widths.len() - 1
    }

    pub(super) fn width(&self, value: ValueIdx) -> usize {
        self.program.widths[value]
    }

    fn weight(&mut self, name: String, shape: Vec<usize>) -> WeightIdx {
        self.program.weights.push(WeightSpec { name, shape });
        self.program.weights.len() - 1
    }

    /// Rows of the matrix `name`, (n_rows, C). Returns them, and the weight.
    pub(super) fn embedding(
        &mut self,
        name: &str,
        n_rows: usize,
        rows: Rows,
        scale: Option<f64>,
    ) -> (ValueIdx, WeightIdx) {
        let width = self.program.config.hidden_size;
        let weight = self.weight(name.into(), vec![n_rows, width]);
        let output = self.value(width);
        self.program.ops.push(Op::Embedding { weight, rows, scale, output });
        (output, weight)
    }

    /// The norm of every `width` channels; `adds_one`: with 1 + weight.
    pub(super) fn rms_norm(&mut self, module: &str, input: ValueIdx, width: usize, adds_one: bool) -> ValueIdx {
        let weight = self.weight(format!("{module}.weight"), vec![width]);
        let output = self.value(self.width(input));
        self.program.ops.push(Op::RmsNorm { input, weight, adds_one, output });
        output
    }

    pub(super) fn layer_norm(&mut self, module: &str, input: ValueIdx) -> ValueIdx {
        let width = self.width(input);
        let weight = self.weight(format!("{module}.weight"), vec![width]);
        let bias = self.weight(format!("{module}.bias"), vec![width]);
        let output = self.value(width);
        self.program.ops.push(Op::LayerNorm { input, weight, bias, output });
        output
    }

    pub(super) fn linear(&mut self, path: String, input: ValueIdx, n_out: usize, has_bias: bool) -> ValueIdx {
        let n_in = self.width(input);
        let layout = if self.program.config.architecture.fan_in_fan_out() { Layout::InOut } else { Layout::OutIn };
        let shape = match layout {
            Layout::OutIn => vec![n_out, n_in],
            Layout::InOut => vec![n_in, n_out],
        };
        let weight = self.weight(format!("{path}.weight"), shape);
        let bias = has_bias.then(|| self.weight(format!("{path}.bias"), vec![n_out]));
        let name = last_part(&path);
        if !self.linear_names.iter().any(|known| known == name) {
            self.linear_names.push(name.to_string());
        }
        let is_target = |t: &&String| path == **t || path.ends_with(&format!(".{t}"));
        let matching: Vec<String> = self.targets.iter().filter(is_target).cloned().collect();
        let adapted = (!matching.is_empty()).then(|| {
            self.matched.extend(matching);
            self.program.adapted.push(AdaptedModule { path, n_in, n_out, layout });
            self.program.adapted.len() - 1
        });
        let output = self.value(n_out);
        self.program.ops.push(Op::Linear { input, weight, layout, bias, adapted, output });
        output
    }

    /// Columns of a fused matrix's output, one after another.
    pub(super) fn split<const N: usize>(&mut self, input: ValueIdx, widths: [usize; N]) -> [ValueIdx; N] {
        let mut start = 0;
        widths.map(|width| {
            let output = self.value(width);
            self.program.ops.push(Op::Slice { input, start, output });
            start += width;
            output
        })
    }

    /// Rotary positions where the layer has them, then attention.
    pub(super) fn attention(&mut self, layer: &Layer, Heads { q, k, v }: Heads) -> ValueIdx {
        let (n_heads, n_kv_heads) = (self.program.config.n_heads, self.program.config.n_kv_heads);
        let [q, k] = match layer.rope {
            None => [q, k],
            Some(rope) => [self.rope(q, n_heads, rope), self.rope(k, n_kv_heads, rope)],
        };
        let output = self.value(self.width(q));
        self.program.ops.push(Op::Attention { q, k, v, scores: layer.scores, output });
        output
    }

    fn rope(&mut self, input: ValueIdx, n_heads: usize, rope: usize) -> ValueIdx {
        let output = self.value(self.width(input));
        self.program.ops.push(Op::Rope { input, n_heads, rope, output });
        output
    }

    pub(super) fn gated_mlp(&mut self, gate: ValueIdx, up: ValueIdx) -> ValueIdx {
        let (activation, output) = (self.program.config.activation, self.value(self.width(gate)));
        self.program.ops.push(Op::GatedMlp { gate, up, activation, output });
        output
    }

    pub(super) fn gelu(&mut self, input: ValueIdx) -> ValueIdx {
        let output = self.value(self.width(input));
        self.program.ops.push(Op::Gelu { input, output });
        output
    }

    pub(super) fn residual(&mut self, left: ValueIdx, right: ValueIdx) -> ValueIdx {
        let output = self.value(self.width(left));
        self.program.ops.push(Op::Residual { left, right, output });
        output
    }

    /// The last op: with the embedding's matrix where the head is tied, else one of its own.
    pub(super) fn head(&mut self, input: ValueIdx, embedding: WeightIdx) {
        let config = &self.program.config;
        let (shape, cap) = (vec![config.vocab_size, config.hidden_size], config.logit_cap);
        let weight = if config.is_tied { embedding } else { self.weight("lm_head.weight".into(), shape) };
        self.program.ops.push(Op::Head { input, weight, cap });
    }
}
