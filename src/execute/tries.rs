//! Tries of stages: which one has run long enough, and when one that failed begins again.
//!
//! ```text
//! begin --> running --limit reached--> asked to stop ----\
//!              \------------------ ended: failed <-------/--delay--> due: the scheduler looks at it again
//! ```
//!
//! A stage with a limit has a cancel token of its own, so that it can be stopped alone; the others share that of the run.
//!
//! It deliberately does not look at the clock, and does not know what a failure is.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use pipe_contract::CancelToken;

use super::limits::TimeLimit;
use crate::spec::Tries;

/// What became of the tries of each stage.
pub(super) struct StageTries {
    stages: Vec<StageState>,
    /// Those with a limit that run, and those that wait: looked at with every message, and few.
    limited: BTreeSet<usize>,
    waiting: BTreeSet<usize>,
}

#[derive(Clone, Default)]
struct StageState {
    /// Of the try that runs, where it has a limit.
    token: Option<CancelToken>,
    /// When the try that runs has taken long enough; `None` where there is no limit, or it was reached.
    limit: Option<TimeLimit>,
    /// The limit that the try was stopped at.
    reached: Option<String>,
    n_failures: usize,
    /// When the next try begins.
    due: Option<Instant>,
}

impl StageTries {
    pub(super) fn new(n_stages: usize) -> Self {
        StageTries { stages: vec![StageState::default(); n_stages], limited: BTreeSet::new(), waiting: BTreeSet::new() }
    }

    /// A try begins. Returns the token that stops it; `of_run`: the one that stops them all.
    pub(super) fn begin(&mut self, stage: usize, tries: &Tries, of_run: &CancelToken, now: Instant) -> CancelToken {
        let limit = tries.timeout.as_ref().and_then(|timeout| {
            // Beyond what a clock can count there is no limit.
            Some(TimeLimit { text: timeout.text.clone(), end: now.checked_add(timeout.limit)? })
        });
        let own = limit.is_some().then(CancelToken::default);
        let token = own.clone().unwrap_or_else(|| of_run.clone());
        // What the user stopped meanwhile is to stop, too.
        if of_run.is_cancelled() {
            token.cancel();
        }
        if limit.is_some() {
            self.limited.insert(stage);
        }
        let state = &mut self.stages[stage];
        (state.token, state.limit, state.reached) = (own, limit, None);
        token
    }

    /// Asks those to stop that have taken long enough. Returns each with its limit, once.
    pub(super) fn stop_late_ones(&mut self, now: Instant) -> Vec<(usize, String)> {
        let mut late = Vec::new();
        for &stage in &self.limited {
            let state = &mut self.stages[stage];
            if let (Some(token), Some(limit)) = (&state.token, state.limit.take_if(|limit| now >= limit.end)) {
                token.cancel();
                state.reached = Some(limit.text.clone());
                late.push((stage, limit.text));
            }
        }
        late
    }

    /// Asks every running stage to stop that has a token of its own.
    pub(super) fn stop_all(&self) {
        self.stages.iter().filter_map(|state| state.token.as_ref()).for_each(CancelToken::cancel);
    }

    /// A try ended. Returns the limit that it was stopped at, if any.
    pub(super) fn end(&mut self, stage: usize) -> Option<String> {
        self.limited.remove(&stage);
        let state = &mut self.stages[stage];
        (state.token, state.limit) = (None, None);
        state.reached.take()
    }

    /// The stage failed. Returns how often it has, and after which delay it is tried again, if it is.
    pub(super) fn fail(&mut self, stage: usize, tries: &Tries, now: Instant) -> (usize, Option<Duration>) {
        let state = &mut self.stages[stage];
        state.n_failures += 1;
        let delay = tries.delay_after(state.n_failures);
        state.due = delay.map(|delay| now + delay);
        if delay.is_some() {
            self.waiting.insert(stage);
        }
        (state.n_failures, delay)
    }

    /// The stage will not be tried again.
    pub(super) fn give_up(&mut self, stage: usize) {
        self.stages[stage].due = None;
        self.waiting.remove(&stage);
    }

    /// Those whose next try begins, each once.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<usize> {
        let is_due = |&stage: &usize| self.stages[stage].due.is_some_and(|due| now >= due);
        let due: Vec<usize> = self.waiting.iter().copied().filter(is_due).collect();
        due.iter().for_each(|&stage| self.give_up(stage));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Timeout;

    fn tries(n_retries: usize) -> Tries {
        let timeout = Timeout { text: "1m".into(), limit: Duration::from_secs(60) };
        Tries { timeout: Some(timeout), n_retries, delay: Duration::from_secs(10) }
    }

    #[test]
    fn a_late_try_is_stopped_once_and_no_other_is() {
        let (mut all, begin) = (StageTries::new(2), Instant::now());
        let run = CancelToken::default();
        let late = all.begin(0, &tries(0), &run, begin);
        let other = all.begin(1, &tries(0), &run, begin + Duration::from_secs(1));
        assert_eq!(all.stop_late_ones(begin + Duration::from_secs(59)), []);
        let at_limit = begin + Duration::from_secs(60);
        assert_eq!(all.stop_late_ones(at_limit), [(0, "1m".to_string())]);
        assert_eq!(all.stop_late_ones(at_limit), []);
        assert!(late.is_cancelled() && !other.is_cancelled());
        assert_eq!((all.end(0).as_deref(), all.end(1)), (Some("1m"), None));
        let again = all.begin(0, &tries(0), &run, at_limit);
        assert_eq!((again.is_cancelled(), all.end(0)), (false, None), "the next try begins anew");
        assert!(!run.is_cancelled());
        let again = all.begin(0, &tries(0), &run, at_limit);
        let without_limit = all.begin(1, &Tries::default(), &run, begin);
        run.cancel();
        assert!(without_limit.is_cancelled() && !again.is_cancelled());
        all.stop_all();
        assert!(again.is_cancelled(), "it began before");
        assert!(all.begin(0, &tries(0), &run, begin).is_cancelled(), "it begins after");
    }

    #[test]
    fn a_failed_stage_is_due_after_its_delay_and_not_for_ever() {
        let (mut all, begin) = (StageTries::new(2), Instant::now());
        assert_eq!(all.fail(1, &tries(2), begin), (1, Some(Duration::from_secs(10))));
        assert_eq!(all.take_due(begin + Duration::from_secs(9)), [] as [usize; 0]);
        assert_eq!(all.take_due(begin + Duration::from_secs(10)), [1]);
        assert_eq!(all.take_due(begin + Duration::from_secs(10)), [] as [usize; 0]);
        assert_eq!(all.fail(1, &tries(2), begin), (2, Some(Duration::from_secs(20))));
        all.give_up(1);
        assert_eq!(all.take_due(begin + Duration::from_secs(99)), [] as [usize; 0]);
        assert_eq!(all.fail(1, &tries(2), begin), (3, None));
    }
}
