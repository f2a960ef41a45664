//! Decoding: new tokens of several sequences at once, keys and values of the earlier ones kept.
//!
//! ```text
//! rows of one pass         cache, per attention op and sequence
//! seq 0: 5 prompt tokens   k, v: (5, H_kv D)
//! seq 1: 1 new token       k, v: (11 + 1, H_kv D)
//! ```
//!
//! The rows of all sequences go through the matrix products together; only attention looks at one sequence at a time. Where it has a window, what no later
//! token will see is dropped. A sequence that grows beyond the length from which on LongRoPE has other frequencies is read again from its first token.

use candle_core::Tensor;
use pipe_kernels::attention::BLOCK_LEN;

use super::CandleEngine;
use crate::adapter::Adapter;
use crate::config::Scores;
use crate::error::LlmError;
use crate::ops::attention::{self, Documents};
use crate::ops::head;
use crate::program::Op;
use crate::sequence::Sequence;

/// Keys and values of the tokens that sequences have so far.
#[derive(Debug)]
pub struct KvCache {
    /// Per attention op, per sequence: (T, H_kv D) each, or less where it has a window.
    layers: Vec<Vec<Option<(Tensor, Tensor)>>>,
    /// Per sequence.
    ids: Vec<Vec<u32>>,
}

/// The next tokens of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Extension<'t> {
    /// Which sequence of the cache.
    pub sequence_idx: usize,
    /// At least one.
    pub ids: &'t [u32],
}

impl KvCache {
    /// Room for `n_sequences` empty sequences.
    pub fn new(engine: &CandleEngine, n_sequences: usize) -> Self {
        let n_layers = engine.program().ops.iter().filter(|op| matches!(op, Op::Attention { .. })).count();
        KvCache { layers: vec![vec![None; n_sequences]; n_layers], ids: vec![vec![]; n_sequences] }
    }

    /// Tokens of a sequence so far.
    pub fn n_tokens(&self, sequence_idx: usize) -> usize {
        self.ids[sequence_idx].len()
    }

    /// Frees what is kept of a sequence that is done.
    pub fn forget(&mut self, sequence_idx: usize) {
        self.layers.iter_mut().for_each(|layer| layer[sequence_idx] = None);
    }

    /// Adds keys and values of new tokens; returns those of all that they may see.
    fn append(
        &mut self,
        layer_idx: usize,
        sequence_idx: usize,
        window: Option<usize>,
        [k, v]: [Tensor; 2],
    ) -> candle_core::Result<[Tensor; 2]> {
        let slot = &mut self.layers[layer_idx][sequence_idx];
        let all = match slot.take() {
            None => [k.contiguous()?, v.contiguous()?],
            Some((past_k, past_v)) => [Tensor::cat(&[&past_k, &k], 0)?, Tensor::cat(&[&past_v, &v], 0)?],
        };
        let n_rows = all[0].dims2()?.0;
        // The next token sees itself and the last `window - 1` of these. Whole blocks, because blocks are part of a result's definition.
        let n_hidden = window.map_or(0, |window| (n_rows + 1).saturating_sub(window) / BLOCK_LEN * BLOCK_LEN);
        let kept = |x: &Tensor| x.narrow(0, n_hidden, n_rows - n_hidden)?.contiguous();
        *slot = Some((kept(&all[0])?, kept(&all[1])?));
        Ok(all)
    }
}

impl CandleEngine {
    /// Reads the new tokens of each extension and returns the logits after its last one: (N, V) for N extensions.
    ///
    /// # Errors
    /// An id outside the vocabulary, a sequence that grows beyond the model's positions, a failing tensor operation. The
    /// cache is then of no further use.
    pub fn extend(
        &self,
        adapter: Option<&Adapter>,
        cache: &mut KvCache,
        extensions: &[Extension<'_>],
    ) -> Result<Tensor, LlmError> {
        let read_again: Vec<Option<Vec<u32>>> =
            extensions.iter().map(|extension| self.read_again(cache, extension)).collect();
        let mut extensions = extensions.to_vec();
        for (extension, ids) in extensions.iter_mut().zip(&read_again) {
            extension.ids = ids.as_deref().unwrap_or(extension.ids);
        }
        let rows = self.rows(cache, &extensions)?;
        let pass = self.pass(adapter, &rows, None)?;
        let mut tape = self.empty_tape();
        let mut layer_idx = 0;
        for (op_idx, op) in self.program().ops.iter().enumerate() {
            let Some(output) = op.output() else { continue };
            let value = match *op {
                Op::Attention { q, k, v, scores, .. } => {
                    let qkv = [q, k, v].map(|idx| tape.value(idx));
                    let value = self.attend(cache, (layer_idx, scores), &extensions, &rows, qkv)?;
                    layer_idx += 1;
                    value
                }
                _ => self.forward_op(op, &tape, &pass)?.0,
            };
            tape.set(output, value);
            self.liveness().dies_after[op_idx].iter().for_each(|&dead| tape.drop_value(dead));
        }
        for extension in &extensions {
            cache.ids[extension.sequence_idx].extend_from_slice(extension.ids);
        }
        let last: Vec<u32> = rows.documents.iter().map(|rows| rows.end as u32 - 1).collect();
        let last = Tensor::new(last.as_slice(), self.device())?;
        let (input, head) = self.head_op(&pass);
        Ok(head::logits(&tape.value(input).index_select(&last, 0)?, head)?)
    }

    /// All ids of a sequence that these tokens make long, if it was not: what was cached of it is forgotten.
    fn read_again(&self, cache: &mut KvCache, extension: &Extension<'_>) -> Option<Vec<u32>> {
        let (longest_usual, past) = (self.longest_usual()?, cache.n_tokens(extension.sequence_idx));
        if past == 0 || past > longest_usual || past + extension.ids.len() <= longest_usual {
            return None;
        }
        cache.forget(extension.sequence_idx);
        let mut ids = std::mem::take(&mut cache.ids[extension.sequence_idx]);
        ids.extend_from_slice(extension.ids);
        Some(ids)
    }

    /// The new tokens one after another, an extension a document.
    fn rows(&self, cache: &KvCache, extensions: &[Extension<'_>]) -> Result<Sequence, LlmError> {
        let (mut input_ids, mut position_ids, mut documents) = (Vec::new(), Vec::new(), Vec::new());
        for extension in extensions {
            assert!(!extension.ids.is_empty(), "an extension has a token");
            let past = cache.n_tokens(extension.sequence_idx);
            let end = past + extension.ids.len();
            if end > self.n_positions() {
                let why = format!("a sequence of {end} tokens is longer than the model's {}", self.n_positions());
                return Err(LlmError::Input { why });
            }
            let vocab_size = self.program().config.vocab_size;
            if let Some(id) = extension.ids.iter().find(|&&id| id as usize >= vocab_size) {
                let why = format!("token id {id} is outside the model's vocabulary of {vocab_size}");
                return Err(LlmError::Input { why });
            }
            documents.push(input_ids.len()..input_ids.len() + extension.ids.len());
            input_ids.extend_from_slice(extension.ids);
            position_ids.extend((past..end).map(|position| position as u32));
        }
        let example_ids = vec![0; input_ids.len()];
        Ok(Sequence { input_ids, position_ids, example_ids, documents, supervised: vec![], targets: vec![] })
    }

    /// Attention of each extension's rows over all tokens of its sequence.
    fn attend(
        &self,
        cache: &mut KvCache,
        (layer_idx, scores): (usize, Scores),
        extensions: &[Extension<'_>],
        rows: &Sequence,
        [q, k, v]: [&Tensor; 3],
    ) -> candle_core::Result<Tensor> {
        let mut outputs = Vec::with_capacity(extensions.len());
        for (extension, rows) in extensions.iter().zip(&rows.documents) {
            let new = |x: &Tensor| x.narrow(0, rows.start, rows.len())?.contiguous();
            let (q, new_kv) = (new(q)?, [new(k)?, new(v)?]);
            let [all_k, all_v] = cache.append(layer_idx, extension.sequence_idx, scores.window, new_kv)?;
            outputs.push(if cache.n_tokens(extension.sequence_idx) == 0 {
                let whole = 0..rows.len();
                let documents = Documents::new(std::slice::from_ref(&whole));
                attention::forward(self.heads(), scores, &documents, &q, &all_k, &all_v)?.0
            } else {
                attention::extend(self.heads(), scores, &q, &all_k, &all_v)?
            });
        }
        Tensor::cat(&outputs, 0)
    }
}
