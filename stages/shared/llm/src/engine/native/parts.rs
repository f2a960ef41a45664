//! Where the time of a pass goes.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::program::Op;

/// Seconds by part: `linear`, `adapter`, `attention`, `head`, ...
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts {
    /// By name.
    pub seconds: BTreeMap<&'static str, f64>,
}

impl Parts {
    /// Adds the time since `started`, and returns now.
    pub(super) fn add(&mut self, part: &'static str, started: Instant) -> Instant {
        let now = Instant::now();
        *self.seconds.entry(part).or_insert(0.0) += (now - started).as_secs_f64();
        now
    }

    /// Adds what another pass took.
    pub(super) fn merge(&mut self, other: Parts) {
        for (part, seconds) in other.seconds {
            *self.seconds.entry(part).or_insert(0.0) += seconds;
        }
    }
}

/// The part that an op belongs to.
pub(super) fn part_of(op: &Op) -> &'static str {
    match op {
        Op::Embedding { .. } => "embedding",
        Op::RmsNorm { .. } => "norm",
        Op::Linear { .. } => "linear",
        Op::Rope { .. } => "rope",
        Op::Attention { .. } => "attention",
        Op::GatedMlp { .. } => "mlp",
        Op::Residual { .. } => "residual",
        Op::Head { .. } => "head",
    }
}
