//! The candle engine: values are candle tensors, hot ops are kernels on the CPU, no autograd anywhere.
//!
//! Forward walks the list and keeps what [`crate::program::Liveness`] says; backward walks it in reverse. Weights stay in
//! the dtype they have on disk and are widened one matrix at a time.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};

use super::parts::{Clock, Parts, part_of};
use super::{DropoutKey, GradientSum, LossSum, Sums};
use crate::adapter::Adapter;
use crate::error::LlmError;
use crate::ops::attention::{self, Documents, Heads};
use crate::ops::dropout::Dropout;
use crate::ops::head::{self, Head, Wanted};
use crate::ops::linear::{self, LowRank};
use crate::ops::rope::{self, Direction, Positions, RopeTable};
use crate::ops::tokens::TokenRows;
use crate::ops::{embedding, gated_mlp, gelu, layer_norm, rms_norm, slice};
use crate::program::{AdaptedIdx, Layout, Liveness, Op, ParameterIdx, Program, Rows, ValueIdx, WeightIdx};
use crate::sequence::Sequence;

/// A model ready to run.
pub struct CandleEngine {
    program: Program,
    liveness: Liveness,
    weights: Vec<Tensor>,
    /// One per rope of the config.
    tables: Vec<RopeTable>,
    n_positions: usize,
    device: Device,
    dtype: DType,
    clock: Clock,
}

/// The values of a pass so far, and what its backward will need.
pub(super) struct Tape {
    values: Vec<Option<Tensor>>,
    /// Per op: what it made for its own backward (moments of a norm, log-sum-exp, `h` of an adapter).
    extras: Vec<Option<Tensor>>,
}

/// What a pass is about, and what of it the ops make once: masks, cosines and sines.
pub(super) struct Pass<'a> {
    adapter: Option<&'a Adapter>,
    /// The adapter's rows of tokens, as in [`Program::tokens`].
    tokens: Vec<TokenRows>,
    sequence: &'a Sequence,
    documents: Documents<'a>,
    /// One per rope of the config.
    positions: Vec<Positions<'a>>,
    /// Per adapted module.
    dropouts: Vec<Option<Dropout<'a>>>,
}

impl Pass<'_> {
    /// Which rows of an embedding: (T).
    fn ids(&self, rows: Rows) -> &[u32] {
        match rows {
            Rows::Tokens => &self.sequence.input_ids,
            Rows::Positions => &self.sequence.position_ids,
        }
    }

    /// The input of an adapter.
    fn dropped(&self, module_idx: AdaptedIdx, x: &Tensor) -> candle_core::Result<Tensor> {
        self.dropouts[module_idx].as_ref().map_or_else(|| Ok(x.clone()), |dropout| dropout.apply(x))
    }
}

impl Tape {
    /// A value that the list says is alive.
    pub(super) fn value(&self, idx: ValueIdx) -> &Tensor {
        self.values[idx].as_ref().expect("liveness keeps every value until its last use")
    }

    pub(super) fn set(&mut self, idx: ValueIdx, value: Tensor) {
        self.values[idx] = Some(value);
    }

    pub(super) fn drop_value(&mut self, idx: ValueIdx) {
        self.values[idx] = None;
    }
}

impl CandleEngine {
    /// `weights`: of [`Program::weights`], in their order; `dtype`: of the arithmetic (f32, or f64 in tests);
    /// `n_positions`: the longest document there will be, in tokens. Weights that are trained are widened to `dtype`.
    ///
    /// # Errors
    /// When a weight cannot be widened.
    pub fn new(
        mut program: Program,
        mut weights: Vec<Tensor>,
        n_positions: usize,
        device: Device,
        dtype: DType,
    ) -> Result<Self, LlmError> {
        let liveness = program.liveness();
        program.round_scales(|weight| weights[weight].dtype());
        let ropes = program.config.ropes.iter();
        let tables = ropes.map(|rope| RopeTable::new(rope, program.config.head_dim, n_positions)).collect();
        for &weight in &program.trained {
            weights[weight] = linear::widen(&weights[weight], dtype)?;
        }
        Ok(CandleEngine { program, liveness, weights, tables, n_positions, device, dtype, clock: Clock::default() })
    }

    /// The list it runs.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The weights, in the order of [`Program::weights`].
    pub fn weights(&self) -> &[Tensor] {
        &self.weights
    }

    /// The weights that are trained, in the order of [`Program::trained`].
    pub fn trained_mut(&mut self) -> Vec<&mut Tensor> {
        let trained = &self.program.trained;
        let is_trained = |weight_idx: &WeightIdx| trained.binary_search(weight_idx).is_ok();
        self.weights.iter_mut().enumerate().filter(|(weight_idx, _)| is_trained(weight_idx)).map(|(_, t)| t).collect()
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Logits of every token: (T, V) in the dtype of the arithmetic.
    ///
    /// # Errors
    /// A document longer than the engine was made for; a failing tensor operation.
    pub fn logits(&self, adapter: Option<&Adapter>, sequence: &Sequence) -> Result<Tensor, LlmError> {
        let pass = self.pass(adapter, sequence, None)?;
        let tape = self.forward(&pass, false)?;
        let (input, head) = self.head_op(&pass);
        Ok(head::logits(tape.value(input), head)?)
    }

    /// The loss of the supervised tokens, without dropout.
    ///
    /// # Errors
    /// As [`CandleEngine::logits`].
    pub fn loss(&self, adapter: Option<&Adapter>, sequence: &Sequence) -> Result<LossSum, LlmError> {
        let pass = self.pass(adapter, sequence, None)?;
        let tape = self.forward(&pass, false)?;
        Ok(self.head(&tape, &pass, Wanted::default())?.loss_sum)
    }

    /// The loss, and its gradients added to `gradients`.
    ///
    /// # Errors
    /// As [`CandleEngine::logits`].
    pub fn loss_and_gradients(
        &self,
        adapter: Option<&Adapter>,
        sequence: &Sequence,
        dropout: Option<DropoutKey>,
        gradients: &mut GradientSum,
    ) -> Result<LossSum, LlmError> {
        let pass = self.pass(adapter, sequence, dropout)?;
        let mut tape = self.forward(&pass, true)?;
        let (input, _) = self.head_op(&pass);
        let (_, weight) = self.program.vocabulary_weights();
        let parameter = self.program.parameter_of(weight);
        let rows_parameter = self.tokens(&pass, weight).map(|(parameter, _)| parameter);
        let wanted = Wanted { input: self.liveness.needs_gradient[input], weight: parameter.is_some() };
        let started = Instant::now();
        let output = self.head(&tape, &pass, wanted)?;
        for (parameter, gradient) in [(parameter, output.d_weight), (rows_parameter, output.d_rows)] {
            if let (Some(parameter), Some(gradient)) = (parameter, gradient) {
                gradients.add(parameter, gradient)?;
            }
        }
        self.clock.took("head", started);
        tape.values[input] = None;
        if let Some(d_input) = output.d_input {
            self.backward(&pass, tape, (input, d_input), gradients)?;
        }
        Ok(output.loss_sum)
    }

    /// Losses and gradients of all supervised tokens of `sequences`, as [`super::Engine::sums`].
    ///
    /// # Errors
    /// As [`CandleEngine::logits`]; what `check` returns.
    pub fn sums<E: From<LlmError>>(
        &self,
        adapter: Option<&Adapter>,
        sequences: &[Sequence],
        dropout: Option<DropoutKey>,
        check: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Sums, E> {
        self.clock.around(|| self.sums_of_passes(adapter, sequences, dropout, check))
    }

    /// As [`super::Engine::take_parts`].
    pub fn take_parts(&self) -> Parts {
        self.clock.take()
    }

    fn sums_of_passes<E: From<LlmError>>(
        &self,
        adapter: Option<&Adapter>,
        sequences: &[Sequence],
        dropout: Option<DropoutKey>,
        mut check: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Sums, E> {
        let mut gradients = GradientSum::new(&self.program);
        let mut loss = 0.0;
        for (sequence_idx, sequence) in sequences.iter().enumerate() {
            check(sequence_idx)?;
            if !sequence.targets.is_empty() {
                loss += self.loss_and_gradients(adapter, sequence, dropout, &mut gradients)?;
            }
        }
        let host = |tensor: Option<Tensor>| {
            tensor.map(|tensor| tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()).transpose()
        };
        let gradients = gradients.tensors.into_iter().map(host).collect::<candle_core::Result<_>>();
        Ok(Sums { loss, gradients: gradients.map_err(LlmError::from)? })
    }

    /// The longest document it can take, in tokens.
    pub fn n_positions(&self) -> usize {
        self.n_positions
    }

    /// Tokens beyond which a sequence has other rotary positions from its first token on, if there is such a length.
    pub(super) fn longest_usual(&self) -> Option<usize> {
        self.tables.iter().filter_map(RopeTable::longest_usual).min()
    }

    pub(super) fn liveness(&self) -> &Liveness {
        &self.liveness
    }

    pub(super) fn empty_tape(&self) -> Tape {
        Tape { values: vec![None; self.program.n_values()], extras: vec![None; self.program.ops.len()] }
    }

    /// The head's input, and what makes logits of it.
    pub(super) fn head_op<'a>(&'a self, pass: &'a Pass<'_>) -> (ValueIdx, Head<'a>) {
        let Some(&Op::Head { input, weight, cap }) = self.program.ops.last() else {
            unreachable!("every program ends in its head")
        };
        let tokens = self.tokens(pass, weight).map(|(_, rows)| rows);
        (input, Head { weight: &self.weights[weight], tokens, cap })
    }

    fn head(&self, tape: &Tape, pass: &Pass<'_>, wanted: Wanted) -> Result<head::HeadOutput, LlmError> {
        let (input, head) = self.head_op(pass);
        let sequence = pass.sequence;
        Ok(head::loss(tape.value(input), head, &sequence.supervised, &sequence.targets, wanted)?)
    }

    /// The adapter's rows of tokens in a matrix, if it has some, and the parameter that they are.
    fn tokens<'a>(&self, pass: &'a Pass<'_>, weight: WeightIdx) -> Option<(ParameterIdx, &'a TokenRows)> {
        let tokens_idx = self.program.tokens_of(weight)?;
        Some((self.program.parameter_of_tokens(tokens_idx), pass.tokens.get(tokens_idx)?))
    }

    pub(super) fn heads(&self) -> Heads {
        let config = &self.program.config;
        Heads { n_heads: config.n_heads, n_kv_heads: config.n_kv_heads, head_dim: config.head_dim }
    }

    /// The weight of a norm in the dtype of the arithmetic, or 1 + weight.
    fn norm_weight(&self, weight: WeightIdx, adds_one: bool) -> candle_core::Result<Tensor> {
        let weight = linear::widen(&self.weights[weight], self.dtype)?;
        if adds_one { weight + 1.0 } else { Ok(weight) }
    }

    /// A linear module's matrix as (out, in).
    fn matrix(&self, weight: WeightIdx, layout: Layout) -> candle_core::Result<Tensor> {
        match layout {
            Layout::OutIn => Ok(self.weights[weight].clone()),
            // Widened first: that is quick where elements lie one after another.
            Layout::InOut => linear::widen(&self.weights[weight], self.dtype)?.t(),
        }
    }

    /// A pass over `sequence`, before its first op.
    ///
    /// # Errors
    /// When rows of tokens cannot be widened.
    pub(super) fn pass<'a>(
        &'a self,
        adapter: Option<&'a Adapter>,
        sequence: &'a Sequence,
        dropout: Option<DropoutKey>,
    ) -> candle_core::Result<Pass<'a>> {
        let positions =
            |table, sequence: &'a Sequence| Positions::new(table, &sequence.position_ids, &sequence.documents);
        let of_module = |module_idx| Some(Dropout::new(dropout?.mask(module_idx)?, sequence));
        let own = adapter.map(|adapter| &adapter.tokens[..]).unwrap_or_default();
        let tokens = self.program.tokens.iter().zip(own).map(|(t, own)| TokenRows::new(&t.ids, &own.rows, self.dtype));
        Ok(Pass {
            adapter,
            tokens: tokens.collect::<candle_core::Result<_>>()?,
            sequence,
            documents: Documents::new(&sequence.documents),
            positions: self.tables.iter().map(|table| positions(table, sequence)).collect(),
            dropouts: (0..self.program.adapted.len()).map(of_module).collect(),
        })
    }

    /// Runs every op but the head. `keeps`: whether a backward follows.
    fn forward(&self, pass: &Pass<'_>, keeps: bool) -> Result<Tape, LlmError> {
        if let Some(position) = pass.sequence.position_ids.iter().find(|&&p| p as usize >= self.n_positions) {
            return Err(LlmError::beyond_positions(*position, self.n_positions));
        }
        let mut tape = self.empty_tape();
        for (op_idx, op) in self.program.ops.iter().enumerate() {
            let Some(output) = op.output() else { continue };
            let (value, extra) = self.forward_op(op, &tape, pass)?;
            tape.values[output] = Some(value);
            tape.extras[op_idx] = extra.filter(|_| keeps && self.liveness.needs_gradient[output]);
            for &dead in &self.liveness.dies_after[op_idx] {
                if !(keeps && self.liveness.is_saved[dead]) {
                    tape.values[dead] = None;
                }
            }
        }
        Ok(tape)
    }

    pub(super) fn forward_op(
        &self,
        op: &Op,
        tape: &Tape,
        pass: &Pass<'_>,
    ) -> candle_core::Result<(Tensor, Option<Tensor>)> {
        let value = |idx: ValueIdx| tape.value(idx);
        let (mut part, mut started) = (part_of(op), Instant::now());
        let made = match *op {
            Op::Embedding { weight, rows, scale, .. } => {
                let ids = pass.ids(rows);
                let index = Tensor::new(ids, &self.device)?;
                let mut y = embedding::forward(&self.weights[weight], &index, self.dtype)?;
                if let Some((_, tokens)) = self.tokens(pass, weight) {
                    y = tokens.lookup(&y, ids)?;
                }
                (embedding::scaled(y, scale)?, None)
            }
            Op::RmsNorm { input, weight, adds_one, .. } => {
                let weight = self.norm_weight(weight, adds_one)?;
                let x = value(input);
                let (y, inv_rms) =
                    rms_norm::forward(&heads_as_rows(x, &weight)?, &weight, self.program.config.norm_eps)?;
                (y.reshape(x.dims())?, Some(inv_rms))
            }
            Op::LayerNorm { input, weight, bias, .. } => {
                let (weight, bias) = (self.norm_weight(weight, false)?, self.norm_weight(bias, false)?);
                let (y, moments) = layer_norm::forward(value(input), &weight, &bias, self.program.config.norm_eps)?;
                (y, Some(moments))
            }
            Op::Linear { input, weight, layout, bias, adapted, .. } => {
                let weight = self.matrix(weight, layout)?;
                let y = linear::forward(value(input), &weight, bias.map(|b| &self.weights[b]))?;
                match (pass.adapter, adapted) {
                    (Some(adapter), Some(module_idx)) => {
                        (part, started) = ("adapter", self.clock.took(part, started));
                        let x = pass.dropped(module_idx, value(input))?;
                        let (delta, h) = linear::low_rank_forward(&x, low_rank(adapter, module_idx))?;
                        ((y + delta)?, Some(h))
                    }
                    _ => (y, None),
                }
            }
            Op::Slice { input, start, output } => {
                (slice::forward(value(input), start, self.program.widths[output])?, None)
            }
            Op::Rope { input, n_heads, rope, .. } => {
                (rope::rotate(value(input), n_heads, &pass.positions[rope], Direction::Forward)?, None)
            }
            Op::Attention { q, k, v, scores, .. } => {
                let (q, k, v) = (value(q), value(k), value(v));
                let (o, log_sum_exp) = attention::forward(self.heads(), scores, &pass.documents, q, k, v)?;
                (o, Some(log_sum_exp))
            }
            Op::GatedMlp { gate, up, activation, .. } => {
                (gated_mlp::forward(activation, value(gate), value(up))?, None)
            }
            Op::Gelu { input, .. } => (gelu::forward(value(input))?, None),
            Op::Residual { left, right, .. } => ((value(left) + value(right))?, None),
            Op::Head { .. } => unreachable!("the head makes no value"),
        };
        self.clock.took(part, started);
        Ok(made)
    }

    /// Walks the list in reverse from the gradient `seed` of the head's input.
    fn backward(
        &self,
        pass: &Pass<'_>,
        mut tape: Tape,
        seed: (ValueIdx, Tensor),
        gradients: &mut GradientSum,
    ) -> Result<(), LlmError> {
        let mut d_values: Vec<Option<Tensor>> = vec![None; self.program.n_values()];
        d_values[seed.0] = Some(seed.1);
        for (op_idx, op) in self.program.ops.iter().enumerate().rev() {
            let Some(output) = op.output().filter(|&output| self.liveness.needs_gradient[output]) else { continue };
            let d_output = d_values[output].take().expect("every value with a gradient reaches the head");
            let extra = tape.extras[op_idx].take();
            for (input, d_input) in self.backward_op(op, &tape, extra, pass, d_output, gradients)? {
                let sum = match d_values[input].take() {
                    None => d_input,
                    Some(other) => {
                        let started = Instant::now();
                        let sum = (other + d_input)?;
                        self.clock.took("residual", started);
                        sum
                    }
                };
                d_values[input] = Some(sum);
            }
            // The list is walked backward, so nothing above reads what this op made.
            tape.values[output] = None;
        }
        Ok(())
    }

    /// Gradients in the op's inputs, of those that want one.
    fn backward_op(
        &self,
        op: &Op,
        tape: &Tape,
        extra: Option<Tensor>,
        pass: &Pass<'_>,
        d_y: Tensor,
        gradients: &mut GradientSum,
    ) -> candle_core::Result<Vec<(ValueIdx, Tensor)>> {
        let value = |idx: ValueIdx| tape.value(idx);
        let wants = |idx: ValueIdx| self.liveness.needs_gradient[idx];
        let extra = |what: &str| extra.clone().unwrap_or_else(|| unreachable!("the forward kept {what}"));
        let (mut part, mut started) = (part_of(op), Instant::now());
        let d_inputs = match *op {
            Op::RmsNorm { input, weight, adds_one, .. } => {
                let inv_rms = extra("the inverse rms");
                let parameter = self.program.parameter_of(weight);
                let weight = self.norm_weight(weight, adds_one)?;
                let (x, d_y) = (heads_as_rows(value(input), &weight)?, heads_as_rows(&d_y, &weight)?);
                if let Some(parameter) = parameter {
                    gradients.add(parameter, rms_norm::weight_gradient(&d_y, &x, &inv_rms)?)?;
                }
                if !wants(input) {
                    return Ok(vec![]);
                }
                let d_x = rms_norm::backward(&d_y, &x, &weight, &inv_rms)?;
                vec![(input, d_x.reshape(value(input).dims())?)]
            }
            Op::LayerNorm { input, weight, bias, .. } => {
                let moments = extra("mean and inverse deviation");
                let parameters = [weight, bias].map(|weight| self.program.parameter_of(weight));
                if parameters.iter().any(Option::is_some) {
                    let (d_weight, d_bias) = layer_norm::parameter_gradients(&d_y, value(input), &moments)?;
                    for (parameter, gradient) in parameters.into_iter().zip([d_weight, d_bias]) {
                        if let Some(parameter) = parameter {
                            gradients.add(parameter, gradient)?;
                        }
                    }
                }
                if !wants(input) {
                    return Ok(vec![]);
                }
                let weight = self.norm_weight(weight, false)?;
                vec![(input, layer_norm::backward(&d_y, value(input), &weight, &moments)?)]
            }
            Op::Linear { input, weight, layout, bias, adapted, .. } => {
                if let Some(parameter) = self.program.parameter_of(weight) {
                    let gradient = match layout {
                        Layout::OutIn => linear::weight_gradient(&d_y, value(input))?,
                        Layout::InOut => linear::weight_gradient(value(input), &d_y)?,
                    };
                    gradients.add(parameter, gradient)?;
                }
                if let Some(parameter) = bias.and_then(|bias| self.program.parameter_of(bias)) {
                    gradients.add(parameter, linear::bias_gradient(&d_y)?)?;
                }
                let mut d_x =
                    if wants(input) { Some(linear::backward(&d_y, &self.matrix(weight, layout)?)?) } else { None };
                if let (Some(adapter), Some(module_idx)) = (pass.adapter, adapted) {
                    (part, started) = ("adapter", self.clock.took(part, started));
                    let x = pass.dropped(module_idx, value(input))?;
                    let low_rank = low_rank(adapter, module_idx);
                    let parts = linear::low_rank_backward(&d_y, &x, &extra("x A^T"), low_rank, wants(input))?;
                    if let (Some(sum), Some(d_dropped)) = (&mut d_x, parts.d_x) {
                        *sum = (&*sum + pass.dropped(module_idx, &d_dropped)?)?;
                    }
                    gradients.add(2 * module_idx, parts.d_a)?;
                    gradients.add(2 * module_idx + 1, parts.d_b)?;
                }
                d_x.map(|d_x| (input, d_x)).into_iter().collect()
            }
            Op::Slice { input, start, .. } => {
                vec![(input, slice::backward(&d_y, start, self.program.widths[input])?)]
            }
            Op::Rope { input, n_heads, rope, .. } => {
                vec![(input, rope::rotate(&d_y, n_heads, &pass.positions[rope], Direction::Backward)?)]
            }
            Op::Attention { q, k, v, scores, output } => {
                let log_sum_exp = extra("the log-sum-exp");
                let saved = attention::Saved {
                    q: value(q),
                    k: value(k),
                    v: value(v),
                    o: value(output),
                    log_sum_exp: &log_sum_exp,
                };
                let d = attention::backward(self.heads(), scores, &pass.documents, &saved, &d_y)?;
                [(q, d.d_q), (k, d.d_k), (v, d.d_v)].into_iter().filter(|(idx, _)| wants(*idx)).collect()
            }
            Op::Gelu { input, .. } => vec![(input, gelu::backward(&d_y, value(input))?)],
            Op::GatedMlp { gate, up, activation, .. } => {
                let (d_gate, d_up) = gated_mlp::backward(activation, &d_y, value(gate), value(up))?;
                [(gate, d_gate), (up, d_up)].into_iter().filter(|(idx, _)| wants(*idx)).collect()
            }
            Op::Residual { left, right, .. } => {
                [(left, d_y.clone()), (right, d_y)].into_iter().filter(|(idx, _)| wants(*idx)).collect()
            }
            Op::Embedding { weight, rows, scale, .. } => {
                let ids = pass.ids(rows);
                if let Some(parameter) = self.program.parameter_of(weight) {
                    let (index, n_rows) = (Tensor::new(ids, &self.device)?, self.program.weights[weight].shape[0]);
                    gradients.add(parameter, embedding::weight_gradient(&d_y, &index, scale, n_rows)?)?;
                }
                if let Some((parameter, tokens)) = self.tokens(pass, weight) {
                    gradients.add(parameter, tokens.lookup_gradient(&d_y, ids, scale)?)?;
                }
                vec![]
            }
            Op::Head { .. } => unreachable!("it is where the backward begins"),
        };
        self.clock.took(part, started);
        Ok(d_inputs)
    }
}

/// (T, H D) as (T H, D) where the norm's weight is that of a head, (D).
fn heads_as_rows(x: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor> {
    x.reshape(((), weight.dims1()?))
}

fn low_rank(adapter: &Adapter, module_idx: AdaptedIdx) -> LowRank<'_> {
    let module = &adapter.modules[module_idx];
    LowRank { a: &module.a, b: &module.b, scale: adapter.config.scale() }
}
