//! Where the time of a pass goes.
//!
//! Both engines note how long an op took, forward and backward together, by the part of the program it belongs to. Nothing computes
//! with these times: they are for `pipe bench`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::program::Op;

/// Seconds by part: `linear`, `adapter`, `attention`, `head`, ..., and `other` for what lies between.
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
    fn merge(&mut self, other: Parts) {
        for (part, seconds) in other.seconds {
            *self.seconds.entry(part).or_insert(0.0) += seconds;
        }
    }

    /// Adds what passes took that were begun and ended in `wall`: passes side by side share it, and what they did not take is `other`.
    fn merge_within(&mut self, passes: Parts, wall: Duration) {
        let (taken, wall) = (passes.seconds.values().sum::<f64>(), wall.as_secs_f64());
        let share = if taken > wall { wall / taken } else { 1.0 };
        let scaled = passes.seconds.into_iter().map(|(part, seconds)| (part, share * seconds));
        self.merge(Parts { seconds: scaled.chain([("other", wall - share * taken)]).collect() });
    }
}

/// The times of an engine, written from any thread.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// What passes took since the sums they belong to began.
    passes: Mutex<Parts>,
    sums: Mutex<Parts>,
}

impl Clock {
    /// Runs `sums` and files what its passes noted.
    pub(super) fn around<R>(&self, sums: impl FnOnce() -> R) -> R {
        let started = Instant::now();
        // What an evaluation took before is nobody's question.
        take(&self.passes);
        let result = sums();
        lock(&self.sums).merge_within(take(&self.passes), started.elapsed());
        result
    }

    /// Notes how long something in a pass took; returns now.
    pub(super) fn took(&self, part: &'static str, started: Instant) -> Instant {
        lock(&self.passes).add(part, started)
    }

    /// Notes what a whole pass took.
    pub(super) fn took_parts(&self, parts: Parts) {
        lock(&self.passes).merge(parts);
    }

    /// What sums took since the last call.
    pub(super) fn take(&self) -> Parts {
        take(&self.sums)
    }
}

fn lock(parts: &Mutex<Parts>) -> std::sync::MutexGuard<'_, Parts> {
    parts.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(parts: &Mutex<Parts>) -> Parts {
    std::mem::take(&mut *lock(parts))
}

/// The part that an op belongs to; the adapter of a linear op is the part `adapter`.
pub(super) fn part_of(op: &Op) -> &'static str {
    match op {
        Op::Embedding { .. } => "embedding",
        Op::RmsNorm { .. } | Op::LayerNorm { .. } => "norm",
        Op::Linear { .. } => "linear",
        Op::Slice { .. } => "slice",
        Op::Rope { .. } => "rope",
        Op::Attention { .. } => "attention",
        Op::GatedMlp { .. } | Op::Gelu { .. } => "mlp",
        Op::Residual { .. } => "residual",
        Op::Head { .. } => "head",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_the_time_that_passed() {
        let passes = |linear: f64, head: f64| Parts { seconds: BTreeMap::from([("head", head), ("linear", linear)]) };
        let mut parts = Parts::default();
        parts.merge_within(passes(2.0, 1.0), Duration::from_secs(4));
        assert_eq!(parts.seconds, BTreeMap::from([("head", 1.0), ("linear", 2.0), ("other", 1.0)]));
        // Two threads, six seconds of work in three.
        parts.merge_within(passes(4.0, 2.0), Duration::from_secs(3));
        assert_eq!(parts.seconds, BTreeMap::from([("head", 2.0), ("linear", 4.0), ("other", 1.0)]));
    }
}
