//! The laws of the scheduler, over random graphs, wishes, failures, refusals, further tries and an interrupt.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::{Command, CpuWish, Grant, Outcome, Scheduler, SchedulerEvent, Slots, Wish};
use crate::graph::StageGraph;

const MEMORY_BYTES: u64 = 100;
const POOLS: [usize; 2] = [1, 3];

/// One stage of a random run: needs among earlier stages, a wish, and what it does when examined and run.
#[derive(Clone, Debug)]
struct RandomStage {
    needs: Vec<prop::sample::Index>,
    wish: Wish,
    weight: u64,
    is_found: bool,
    asks_to_remake: bool,
    is_unusable: bool,
    is_failing: bool,
    ends_first: bool,
    n_refusals: usize,
    /// Tries that fail before the last one.
    n_deferrals: usize,
}

fn random_stage() -> impl Strategy<Value = RandomStage> {
    let cpu = prop_oneof![
        Just(CpuWish::One),
        Just(CpuWish::Share),
        Just(CpuWish::All),
        (0usize..9).prop_map(CpuWish::Exactly)
    ];
    let pools =
        (0usize..3, 0usize..5).prop_map(|(a, b)| [(0, a), (1, b)].into_iter().filter(|&(_, n)| n > 0).collect());
    let wish = (cpu, 0u64..150, 0usize..3, pools).prop_map(|(cpu, memory_bytes, gpus, pools)| Wish {
        cpu,
        memory_bytes,
        gpus,
        pools,
    });
    let needs = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    let examined = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.03));
    let rarely_some = || prop_oneof![4 => Just(0usize), 1 => 1usize..4];
    let run = (prop::bool::weighted(0.05), any::<bool>(), rarely_some(), rarely_some());
    (needs, wish, 0u64..9, examined, run).prop_map(|(needs, wish, weight, examined, run)| {
        let (is_found, asks_to_remake, is_unusable) = examined;
        let (is_failing, ends_first, n_refusals, n_deferrals) = run;
        RandomStage {
            needs,
            wish,
            weight,
            is_found,
            asks_to_remake,
            is_unusable,
            is_failing,
            ends_first,
            n_refusals,
            n_deferrals,
        }
    })
}

/// A run of random stages, and what it came to so far.
struct Run {
    stages: Vec<RandomStage>,
    needs: Vec<Vec<usize>>,
    slots: Slots,
    scheduler: Scheduler,
    keeps_going: bool,
    is_interrupted: bool,
    running: Vec<(usize, Grant)>,
    deferred: Vec<usize>,
    outcomes: Vec<Option<Outcome>>,
    n_starts: Vec<usize>,
    is_finished: bool,
}

type Law = Result<Vec<Command>, TestCaseError>;

impl Run {
    fn new(stages: Vec<RandomStage>, slots: Slots, keeps_going: bool) -> Self {
        let needs: Vec<Vec<usize>> = stages
            .iter()
            .enumerate()
            .map(|(s, stage)| if s == 0 { vec![] } else { stage.needs.iter().map(|need| need.index(s)).collect() })
            .collect();
        let edges = needs.iter().enumerate().flat_map(|(to, needs)| needs.iter().map(move |&from| (from, to)));
        let graph = StageGraph::from_edges(stages.len(), edges).expect("no cycle");
        let wishes = stages.iter().map(|stage| stage.wish.clone()).collect();
        let weights: Vec<u64> = stages.iter().map(|stage| stage.weight).collect();
        let scheduler = Scheduler::new(graph, wishes, slots.clone()).with_weights(&weights);
        let n_stages = stages.len();
        Run {
            stages,
            needs,
            slots,
            scheduler: if keeps_going { scheduler.keep_going() } else { scheduler },
            keeps_going,
            is_interrupted: false,
            running: Vec::new(),
            deferred: Vec::new(),
            outcomes: vec![None; n_stages],
            n_starts: vec![0; n_stages],
            is_finished: false,
        }
    }

    fn are_needs_done(&self, stage: usize) -> bool {
        self.needs[stage].iter().all(|&need| matches!(self.outcomes[need], Some(Outcome::Ran | Outcome::Reused)))
    }

    /// Whether a failed stage is among all it needs, directly or not.
    fn needs_a_failed_one(&self, stage: usize) -> bool {
        let lost = |&need: &usize| self.outcomes[need] == Some(Outcome::Failed) || self.needs_a_failed_one(need);
        self.needs[stage].iter().any(lost)
    }

    fn obey(&mut self, command: Command) -> Law {
        match command {
            Command::Examine(stage) => self.examine(stage),
            Command::Start { stage, grant } => self.start(stage, grant),
            Command::Close(stage, outcome) => {
                prop_assert!(self.outcomes[stage].is_none_or(|before| before == Outcome::Reused), "closed twice");
                let was_deferred = self.deferred.contains(&stage);
                self.deferred.retain(|&other| other != stage);
                prop_assert!(outcome != Outcome::Failed || was_deferred, "stage {} never failed", stage);
                if self.keeps_going && !self.is_interrupted {
                    prop_assert_eq!(outcome, Outcome::Skipped);
                    prop_assert!(self.needs_a_failed_one(stage), "stage {} needs nothing that failed", stage);
                }
                self.outcomes[stage] = Some(outcome);
                Ok(Vec::new())
            }
            Command::Finish => {
                prop_assert!(self.running.is_empty() && self.deferred.is_empty());
                self.is_finished = true;
                Ok(Vec::new())
            }
        }
    }

    fn examine(&mut self, s: usize) -> Law {
        prop_assert!(self.are_needs_done(s));
        if self.stages[s].is_unusable {
            self.outcomes[s] = Some(Outcome::Failed);
            return Ok(self.scheduler.on(SchedulerEvent::Unusable(s)));
        }
        if self.stages[s].is_found && self.n_starts[s] == 0 && self.outcomes[s].is_none() {
            self.outcomes[s] = Some(Outcome::Reused);
            return Ok(self.scheduler.on(SchedulerEvent::Found(s)));
        }
        let is_asked = |&need: &usize| self.stages[s].asks_to_remake && self.outcomes[need] == Some(Outcome::Reused);
        let remake = self.needs[s].iter().copied().filter(is_asked).collect();
        Ok(self.scheduler.on(SchedulerEvent::MustRun { stage: s, remake }))
    }

    fn start(&mut self, s: usize, grant: Grant) -> Law {
        prop_assert!(self.are_needs_done(s));
        prop_assert!(self.running.iter().all(|(other, _)| *other != s) && !self.deferred.contains(&s));
        if self.stages[s].n_refusals > 0 {
            self.stages[s].n_refusals -= 1;
            return Ok(self.scheduler.on(SchedulerEvent::Refused(s)));
        }
        self.n_starts[s] += 1;
        prop_assert!(self.n_starts[s] <= 1, "stage {} started {} times", s, self.n_starts[s]);
        prop_assert!(grant.threads >= 1);
        for (granted, wished) in grant.pools.iter().zip(&self.stages[s].wish.pools) {
            prop_assert_eq!(*granted, (wished.0, wished.1.min(self.slots.pools[wished.0])));
        }
        self.running.push((s, grant));
        let sum = |of: &dyn Fn(&Grant) -> u64| self.running.iter().map(|(_, grant)| of(grant)).sum::<u64>();
        prop_assert!(sum(&|grant| grant.threads as u64) <= self.slots.threads as u64);
        prop_assert!(sum(&|grant| grant.memory_bytes) <= self.slots.memory_bytes);
        prop_assert!(sum(&|grant| grant.gpus as u64) <= self.slots.gpus as u64);
        for (pool, size) in self.slots.pools.iter().enumerate() {
            let of_pool = |grant: &Grant| grant.pools.iter().filter(|&&(p, _)| p == pool).map(|&(_, n)| n as u64).sum();
            prop_assert!(sum(&of_pool) <= *size as u64, "pool {} is above its size", pool);
        }
        Ok(Vec::new())
    }

    /// Nothing is to be done: a stage ends, one is due for its next try, or those that were refused are tried again.
    fn go_on(&mut self) -> Law {
        let is_due = |&stage: &usize| self.running.is_empty() || self.stages[stage].ends_first;
        if let Some(s) = self.deferred.iter().copied().find(is_due) {
            self.deferred.retain(|&other| other != s);
            return Ok(self.scheduler.on(SchedulerEvent::Due(s)));
        }
        if self.running.is_empty() {
            prop_assert!(self.scheduler.has_refused(), "nothing runs, nothing is asked, and it is not finished");
            return Ok(self.scheduler.on(SchedulerEvent::Retry));
        }
        let position = if self.stages[self.running[0].0].ends_first { 0 } else { self.running.len() - 1 };
        let (s, _) = self.running.remove(position);
        if self.stages[s].n_deferrals > 0 {
            self.stages[s].n_deferrals -= 1;
            self.n_starts[s] -= 1;
            self.deferred.push(s);
            return Ok(self.scheduler.on(SchedulerEvent::Deferred(s)));
        }
        let outcome = if self.stages[s].is_failing { Outcome::Failed } else { Outcome::Ran };
        self.outcomes[s] = Some(outcome);
        Ok(self.scheduler.on(SchedulerEvent::Ended(s, outcome)))
    }
}

proptest! {
    #[test]
    fn every_run_keeps_the_laws(
        stages in prop::collection::vec(random_stage(), 0..24),
        threads in 1usize..6,
        gpus in 0usize..3,
        keeps_going in any::<bool>(),
        interrupt_after in prop::option::weighted(0.2, 0usize..40),
    ) {
        let slots = Slots { threads, memory_bytes: MEMORY_BYTES, gpus, pools: POOLS.to_vec() };
        let mut run = Run::new(stages, slots, keeps_going);
        let mut commands = VecDeque::from(run.scheduler.on(SchedulerEvent::Begin));
        for n_events in 0.. {
            prop_assert!(n_events < 2000, "it does not end");
            if interrupt_after == Some(n_events) {
                run.is_interrupted = true;
                commands.extend(run.scheduler.on(SchedulerEvent::Interrupt));
            }
            let more = match commands.pop_front() {
                Some(command) => run.obey(command)?,
                None if run.is_finished => break,
                None => run.go_on()?,
            };
            commands.extend(more);
        }
        for stage in 0..run.stages.len() {
            let outcome = run.outcomes[stage];
            prop_assert!(outcome.is_some(), "stage {} has no outcome: {:?}", stage, run.outcomes);
            let is_skipped = outcome == Some(Outcome::Skipped);
            if run.keeps_going && !run.is_interrupted {
                prop_assert!(!is_skipped || run.needs_a_failed_one(stage));
            }
        }
    }
}
