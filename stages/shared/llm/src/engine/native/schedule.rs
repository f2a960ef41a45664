//! What a pass keeps, what it makes again, and in which parts: read off the list once.
//!
//! ```text
//! x0 | rms q k v rope rope attention o residual | rms gate up gated_mlp down residual | rms q k ..
//!    cut                                        cut                                   cut
//! ```
//!
//! A *cut* is a place where a single value is alive; the ops between two cuts are a *segment*. A segment can be recomputed: forward it
//! keeps nothing but its input, and the backward runs it again first. Two kinds of values are never kept, since they are cheap to make again from
//! others that are: outputs of norms, and of what lies between an MLP's matrices.

use std::ops::Range;

use crate::program::{Liveness, Op, Program, ValueIdx};

/// Ops between two cuts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) ops: Range<usize>,
    /// Whether the backward runs it again instead of finding its values.
    pub(super) is_recomputed: bool,
}

/// The order of work of a pass.
#[derive(Clone, Debug)]
pub(super) struct WalkPlan {
    pub(super) segments: Vec<Segment>,
    /// Per value: the op that makes it.
    pub(super) producer: Vec<usize>,
    /// Per value: a backward reads it as it was made.
    kept: Vec<bool>,
    /// Per value: the forward of a training pass keeps it.
    pub(super) kept_forward: Vec<bool>,
}

impl WalkPlan {
    /// `n_recomputed` segments are recomputed, of those that have a backward: first those with an MLP, which keep most for what
    /// they cost, each kind from the first layer on, since the last ones are needed again at once.
    pub(super) fn new(program: &Program, liveness: &Liveness, n_recomputed: usize) -> Self {
        let n_values = program.n_values();
        let mut producer = vec![0; n_values];
        for (op_idx, op) in program.ops.iter().enumerate() {
            if let Some(output) = op.output() {
                producer[output] = op_idx;
            }
        }
        let mut kept = liveness.is_saved.clone();
        for value in 0..n_values {
            let op = &program.ops[producer[value]];
            if kept[value] && op.is_cheap() {
                kept[value] = false;
                op.inputs().into_iter().for_each(|input| kept[input] = true);
            }
        }
        let (mut segments, cuts) = segments(program, liveness);
        let ops = |segment: &Segment| &program.ops[segment.ops.clone()];
        let has_backward = |segment: &Segment| {
            ops(segment).iter().filter_map(Op::output).any(|output| liveness.needs_gradient[output])
        };
        let has_mlp =
            |segment: &Segment| ops(segment).iter().any(|op| matches!(op, Op::GatedMlp { .. } | Op::Gelu { .. }));
        let mut order: Vec<usize> = (0..segments.len()).filter(|&idx| has_backward(&segments[idx])).collect();
        order.sort_by_key(|&idx| !has_mlp(&segments[idx]));
        for segment_idx in order.into_iter().take(n_recomputed) {
            segments[segment_idx].is_recomputed = true;
        }
        let mut kept_forward = kept.clone();
        for (segment_idx, segment) in segments.iter().enumerate().filter(|(_, segment)| segment.is_recomputed) {
            for value in program.ops[segment.ops.clone()].iter().filter_map(Op::output) {
                kept_forward[value] &= cuts.contains(&value);
            }
            if let Some(input) = segment_idx.checked_sub(1).map(|before| cuts[before]) {
                kept_forward[input] = true;
            }
        }
        WalkPlan { segments, producer, kept, kept_forward }
    }

    /// For the ops of a segment that is run again: whether to run each, and whether its output is wanted beside its extra.
    pub(super) fn again(&self, program: &Program, liveness: &Liveness, segment: &Segment) -> Vec<(bool, bool)> {
        let mut wanted = self.kept.clone();
        let mut again: Vec<(bool, bool)> = Vec::new();
        for op_idx in segment.ops.clone().rev() {
            let op = &program.ops[op_idx];
            let Some(output) = op.output() else {
                again.push((false, false));
                continue;
            };
            // The cut at the segment's end is still there.
            let wants_output = wanted[output] && !self.kept_forward[output];
            let has_extra = liveness.needs_gradient[output]
                && matches!(
                    op,
                    Op::RmsNorm { .. }
                        | Op::LayerNorm { .. }
                        | Op::Attention { .. }
                        | Op::Linear { adapted: Some(_), .. }
                );
            if wants_output || has_extra {
                op.inputs().into_iter().for_each(|input| wanted[input] = true);
            }
            again.push((wants_output || has_extra, wants_output));
        }
        again.reverse();
        again
    }

    /// Whether a backward reads this value as it was made, or a recomputed segment begins with it.
    pub(super) fn is_needed(&self, value: ValueIdx) -> bool {
        self.kept[value] || self.kept_forward[value]
    }
}

/// The segments without the head, and per segment the value that is alive at its end.
fn segments(program: &Program, liveness: &Liveness) -> (Vec<Segment>, Vec<ValueIdx>) {
    let (mut segments, mut cuts) = (Vec::new(), Vec::new());
    let mut alive: Vec<ValueIdx> = Vec::new();
    let mut start = 0;
    for (op_idx, op) in program.ops.iter().enumerate() {
        alive.extend(op.output());
        alive.retain(|value| !liveness.dies_after[op_idx].contains(value));
        if let [cut] = alive[..] {
            // A norm alone would be a segment without anything to save.
            let is_norm_alone = op_idx == start && matches!(op, Op::RmsNorm { .. } | Op::LayerNorm { .. });
            if !is_norm_alone || op_idx + 2 == program.ops.len() {
                segments.push(Segment { ops: start..op_idx + 1, is_recomputed: false });
                cuts.push(cut);
                start = op_idx + 1;
            }
        }
    }
    (segments, cuts)
}
