//! Who starts when: a pure state machine from events to commands.
//!
//! ```text
//!            all needs done          it must run            it fits              it ended
//! waiting ------------------> examined -----------> ready ------------> running ---------> done
//!                                 |  it is there already                            \---> failed: its dependents are skipped
//!                                 \--------------------> done
//! ```
//!
//! Laws, kept by a property test over random graphs: a stage starts only when all its needs are done; the slots granted at
//! any moment never exceed what there is; every run ends with an outcome for every stage.
//!
//! - *Order.* Among ready stages, the one with the longest remaining path comes first, then file order. A stage that does not
//!   fit is passed over by smaller ones: nothing idles while something fits, and as the graph is finite nothing waits forever.
//! - *Threads.* [`CpuWish::One`] gets one. [`CpuWish::All`] waits until every thread is free. [`CpuWish::Share`] gets the free
//!   threads divided by the number of ready stages, at least one: two stages that become ready together run together.
//!   Nothing starts while a stage is being examined, so that "together" does not depend on who was looked at first.
//! - *Remaking.* A stage that must run may find that files of an input are gone from the store. It then names the producers;
//!   they go back to waiting, and so does it. A producer is remade at most once in a run.
//! - *Failure.* After the first failure nothing new starts; what runs is finished, the rest is skipped.
//!
//! It deliberately knows no threads, clocks, files or stages: only indices and numbers.

use std::collections::VecDeque;

use crate::graph::StageGraph;

/// What there is to grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// CPU threads, at least 1.
    pub threads: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// GPUs.
    pub gpus: usize,
}

/// How many threads a stage would like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuWish {
    /// One.
    One,
    /// Its share of what is free.
    Share,
    /// All there are.
    All,
    /// This many, at least 1.
    Exactly(usize),
}

/// What a stage would like. More than there is counts as all there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Threads.
    pub cpu: CpuWish,
    /// Memory in bytes, 0 where it does not say.
    pub memory_bytes: u64,
    /// GPUs.
    pub gpus: usize,
}

/// How a stage ended in this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "GLOSSARY.md: outcome")]
pub enum Outcome {
    Reused,
    Ran,
    Failed,
    Skipped,
    Cancelled,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchedulerEvent {
    /// The run begins.
    Begin,
    /// An examined stage has its outputs already.
    Found(usize),
    /// An examined stage must run, after `remake` have run again.
    MustRun {
        /// The stage.
        stage: usize,
        /// Producers whose files are gone; all of them among its needs.
        remake: Vec<usize>,
    },
    /// An examined stage cannot even be looked at.
    Unusable(usize),
    /// A started stage ended with `Ran`, `Reused` (another process made it meanwhile), `Failed` or `Cancelled`.
    Ended(usize, Outcome),
    /// The user asked to stop.
    Interrupt,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Find out whether the stage must run, and answer with `Found`, `MustRun` or `Unusable`.
    Examine(usize),
    /// Start the stage with these slots, and answer with `Ended`.
    Start {
        /// The stage.
        stage: usize,
        /// What it may use until it ends.
        grant: Slots,
    },
    /// The stage will not run: `Skipped` or `Cancelled`.
    Close(usize, Outcome),
    /// Every stage has an outcome.
    Finish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Examined,
    Ready,
    Running(Slots),
    Ended(Outcome),
}

/// The state machine of one run.
pub struct Scheduler {
    graph: StageGraph,
    wishes: Vec<Wish>,
    states: Vec<State>,
    /// Stages that were sent back to be made again.
    is_remade: Vec<bool>,
    remaining_path: Vec<u64>,
    total: Slots,
    free: Slots,
    is_draining: Option<Outcome>,
    is_finished: bool,
}

impl Scheduler {
    /// A run over the stages of `graph`, with one wish for each.
    pub fn new(graph: StageGraph, wishes: Vec<Wish>, slots: Slots) -> Self {
        assert_eq!(graph.n_stages(), wishes.len(), "one wish for each stage");
        let remaining_path = graph.longest_remaining(|_| 1);
        let slots = Slots { threads: slots.threads.max(1), ..slots };
        Scheduler {
            graph,
            states: vec![State::Waiting; wishes.len()],
            is_remade: vec![false; wishes.len()],
            wishes,
            remaining_path,
            total: slots,
            free: slots,
            is_draining: None,
            is_finished: false,
        }
    }

    /// Takes one event and says what to do about it.
    ///
    /// # Panics
    /// When the event does not fit the state of its stage: a mistake of the caller.
    pub fn on(&mut self, event: SchedulerEvent) -> Vec<Command> {
        match event {
            SchedulerEvent::Begin => {}
            SchedulerEvent::Found(stage) => {
                self.expect_examined(stage);
                self.states[stage] = State::Ended(Outcome::Reused);
            }
            SchedulerEvent::MustRun { stage, remake } => {
                self.expect_examined(stage);
                self.must_run(stage, &remake);
            }
            SchedulerEvent::Unusable(stage) => {
                self.expect_examined(stage);
                self.states[stage] = State::Ended(Outcome::Failed);
                self.is_draining.get_or_insert(Outcome::Skipped);
            }
            SchedulerEvent::Ended(stage, outcome) => self.ended(stage, outcome),
            SchedulerEvent::Interrupt => self.is_draining = Some(Outcome::Cancelled),
        }
        self.commands()
    }

    fn expect_examined(&self, stage: usize) {
        assert_eq!(self.states[stage], State::Examined, "an answer about stage {stage}, which nobody asked about");
    }

    fn must_run(&mut self, stage: usize, remake: &[usize]) {
        let again: Vec<usize> = remake.iter().copied().filter(|&producer| !self.is_remade[producer]).collect();
        for &producer in &again {
            let is_ended = matches!(self.states[producer], State::Ended(Outcome::Reused | Outcome::Ran));
            // Two consumers may name one producer: the second finds it under way already.
            if is_ended {
                self.states[producer] = State::Waiting;
            }
            self.is_remade[producer] = true;
        }
        let is_waiting = remake.iter().any(|&producer| !self.is_done(producer));
        self.states[stage] = if is_waiting { State::Waiting } else { State::Ready };
    }

    fn ended(&mut self, stage: usize, outcome: Outcome) {
        let State::Running(grant) = self.states[stage] else {
            panic!("stage {stage} ended, but it was not running");
        };
        self.free.threads += grant.threads;
        self.free.memory_bytes += grant.memory_bytes;
        self.free.gpus += grant.gpus;
        self.states[stage] = State::Ended(outcome);
        match outcome {
            Outcome::Failed => {
                self.is_draining.get_or_insert(Outcome::Skipped);
            }
            Outcome::Cancelled => self.is_draining = Some(Outcome::Cancelled),
            Outcome::Ran | Outcome::Reused | Outcome::Skipped => {}
        }
    }

    fn commands(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        if self.is_finished {
            return commands;
        }
        if let Some(outcome) = self.is_draining {
            self.close_the_rest(outcome, &mut commands);
        } else {
            self.examine_what_can_be(&mut commands);
            if !self.states.contains(&State::Examined) {
                self.start_what_fits(&mut commands);
            }
        }
        if self.states.iter().all(|state| matches!(state, State::Ended(_))) {
            self.is_finished = true;
            commands.push(Command::Finish);
        }
        commands
    }

    /// Examined stages are left to their answer, running ones to their end.
    fn close_the_rest(&mut self, outcome: Outcome, commands: &mut Vec<Command>) {
        for stage in 0..self.states.len() {
            if matches!(self.states[stage], State::Waiting | State::Ready) {
                self.states[stage] = State::Ended(outcome);
                commands.push(Command::Close(stage, outcome));
            }
        }
    }

    fn examine_what_can_be(&mut self, commands: &mut Vec<Command>) {
        for stage in 0..self.states.len() {
            if self.states[stage] == State::Waiting && self.graph.predecessors(stage).all(|need| self.is_done(need)) {
                self.states[stage] = State::Examined;
                commands.push(Command::Examine(stage));
            }
        }
    }

    fn start_what_fits(&mut self, commands: &mut Vec<Command>) {
        let mut ready: Vec<usize> =
            (0..self.states.len()).filter(|&stage| self.states[stage] == State::Ready).collect();
        ready.sort_by_key(|&stage| (std::cmp::Reverse(self.remaining_path[stage]), stage));
        let mut queue = VecDeque::from(ready);
        while let Some(stage) = queue.pop_front() {
            let n_ready = queue.len() + 1;
            let Some(grant) = self.grant(self.wishes[stage], n_ready) else { continue };
            self.free.threads -= grant.threads;
            self.free.memory_bytes -= grant.memory_bytes;
            self.free.gpus -= grant.gpus;
            self.states[stage] = State::Running(grant);
            commands.push(Command::Start { stage, grant });
        }
    }

    /// What a stage would get now, if it fits. `n_ready`: how many want to start, this one counted.
    fn grant(&self, wish: Wish, n_ready: usize) -> Option<Slots> {
        if self.free.threads == 0 {
            return None;
        }
        let threads = match wish.cpu {
            CpuWish::One => 1,
            CpuWish::All => self.total.threads,
            CpuWish::Exactly(threads) => threads.clamp(1, self.total.threads),
            CpuWish::Share => (self.free.threads / n_ready).max(1),
        };
        let memory_bytes = wish.memory_bytes.min(self.total.memory_bytes);
        let gpus = wish.gpus.min(self.total.gpus);
        let fits = threads <= self.free.threads && memory_bytes <= self.free.memory_bytes && gpus <= self.free.gpus;
        fits.then_some(Slots { threads, memory_bytes, gpus })
    }

    fn is_done(&self, stage: usize) -> bool {
        matches!(self.states[stage], State::Ended(Outcome::Reused | Outcome::Ran))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHARE: Wish = Wish { cpu: CpuWish::Share, memory_bytes: 0, gpus: 0 };
    const TWO: Slots = Slots { threads: 2, memory_bytes: 100, gpus: 0 };

    fn wish(cpu: CpuWish) -> Wish {
        Wish { cpu, ..SHARE }
    }

    fn scheduler(needs: &[Vec<usize>], wishes: Vec<Wish>, slots: Slots) -> Scheduler {
        let edges = needs.iter().enumerate().flat_map(|(to, needs)| needs.iter().map(move |&from| (from, to)));
        Scheduler::new(StageGraph::from_edges(needs.len(), edges).expect("no cycle"), wishes, slots)
    }

    /// Answers every `Examine` with `MustRun`, and returns the starts as (stage, threads).
    fn run_all(scheduler: &mut Scheduler, commands: Vec<Command>) -> Vec<(usize, usize)> {
        let mut starts = Vec::new();
        let mut queue = VecDeque::from(commands);
        while let Some(command) = queue.pop_front() {
            match command {
                Command::Examine(stage) => {
                    queue.extend(scheduler.on(SchedulerEvent::MustRun { stage, remake: vec![] }))
                }
                Command::Start { stage, grant } => starts.push((stage, grant.threads)),
                Command::Close(..) | Command::Finish => {}
            }
        }
        starts
    }

    #[test]
    fn two_that_become_ready_together_share_the_threads() {
        let mut scheduler = scheduler(&[vec![], vec![]], vec![SHARE; 2], TWO);
        let commands = scheduler.on(SchedulerEvent::Begin);
        assert_eq!(run_all(&mut scheduler, commands), [(0, 1), (1, 1)]);
    }

    #[test]
    fn one_alone_gets_all_threads() {
        let mut scheduler = scheduler(&[vec![]], vec![SHARE], TWO);
        let commands = scheduler.on(SchedulerEvent::Begin);
        assert_eq!(run_all(&mut scheduler, commands), [(0, 2)]);
    }

    #[test]
    fn all_waits_until_everything_is_free() {
        let wishes = vec![wish(CpuWish::One), wish(CpuWish::All)];
        let mut scheduler = scheduler(&[vec![], vec![]], wishes, TWO);
        let commands = scheduler.on(SchedulerEvent::Begin);
        assert_eq!(run_all(&mut scheduler, commands), [(0, 1)]);
        let commands = scheduler.on(SchedulerEvent::Ended(0, Outcome::Ran));
        assert_eq!(run_all(&mut scheduler, commands), [(1, 2)]);
    }

    #[test]
    fn the_longest_remaining_path_goes_first() {
        // 0 is alone; 1 -> 2 is longer.
        let mut scheduler = scheduler(&[vec![], vec![], vec![1]], vec![SHARE; 3], Slots { threads: 1, ..TWO });
        let commands = scheduler.on(SchedulerEvent::Begin);
        assert_eq!(run_all(&mut scheduler, commands), [(1, 1)]);
    }

    #[test]
    fn more_than_there_is_counts_as_all_there_is() {
        let greedy = Wish { cpu: CpuWish::Exactly(64), memory_bytes: 1 << 40, gpus: 8 };
        let mut scheduler = scheduler(&[vec![]], vec![greedy], TWO);
        let commands = scheduler.on(SchedulerEvent::Begin);
        assert_eq!(run_all(&mut scheduler, commands), [(0, 2)]);
    }

    #[test]
    fn after_a_failure_nothing_starts_and_what_runs_is_finished() {
        // 0 fails while 1 runs; 2 needs 0, 3 needs 1.
        let needs = [vec![], vec![], vec![0], vec![1]];
        let mut scheduler = scheduler(&needs, vec![SHARE; 4], TWO);
        let commands = scheduler.on(SchedulerEvent::Begin);
        run_all(&mut scheduler, commands);
        let commands = scheduler.on(SchedulerEvent::Ended(0, Outcome::Failed));
        assert_eq!(commands, [Command::Close(2, Outcome::Skipped), Command::Close(3, Outcome::Skipped)]);
        assert_eq!(scheduler.on(SchedulerEvent::Ended(1, Outcome::Ran)), [Command::Finish]);
    }

    #[test]
    fn a_producer_whose_files_are_gone_runs_again_before_its_consumer() {
        let mut scheduler = scheduler(&[vec![], vec![0]], vec![SHARE; 2], TWO);
        assert_eq!(scheduler.on(SchedulerEvent::Begin), [Command::Examine(0)]);
        assert_eq!(scheduler.on(SchedulerEvent::Found(0)), [Command::Examine(1)]);
        let commands = scheduler.on(SchedulerEvent::MustRun { stage: 1, remake: vec![0] });
        assert_eq!(commands, [Command::Examine(0)]);
        let commands = scheduler.on(SchedulerEvent::MustRun { stage: 0, remake: vec![] });
        assert_eq!(run_all(&mut scheduler, commands), [(0, 2)]);
        assert_eq!(scheduler.on(SchedulerEvent::Ended(0, Outcome::Ran)), [Command::Examine(1)]);
    }

    /// One stage of a random run: needs among earlier stages, a wish, and what it does when examined and run.
    #[derive(Clone, Debug)]
    struct RandomStage {
        needs: Vec<prop::sample::Index>,
        wish: Wish,
        is_found: bool,
        asks_to_remake: bool,
        is_failing: bool,
        ends_first: bool,
    }

    fn random_stage() -> impl Strategy<Value = RandomStage> {
        let cpu = prop_oneof![
            Just(CpuWish::One),
            Just(CpuWish::Share),
            Just(CpuWish::All),
            (0usize..9).prop_map(CpuWish::Exactly)
        ];
        let wish = (cpu, 0u64..150, 0usize..3).prop_map(|(cpu, memory_bytes, gpus)| Wish { cpu, memory_bytes, gpus });
        let needs = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
        (needs, wish, any::<bool>(), any::<bool>(), prop::bool::weighted(0.05), any::<bool>()).prop_map(
            |(needs, wish, is_found, asks_to_remake, is_failing, ends_first)| RandomStage {
                needs,
                wish,
                is_found,
                asks_to_remake,
                is_failing,
                ends_first,
            },
        )
    }

    proptest! {
        #[test]
        fn every_run_keeps_the_laws(
            stages in prop::collection::vec(random_stage(), 0..24),
            threads in 1usize..6,
            gpus in 0usize..3,
            interrupt_after in prop::option::weighted(0.2, 0usize..40),
        ) {
            let needs: Vec<Vec<usize>> = stages
                .iter()
                .enumerate()
                .map(|(s, stage)| if s == 0 { vec![] } else { stage.needs.iter().map(|need| need.index(s)).collect() })
                .collect();
            let slots = Slots { threads, memory_bytes: 100, gpus };
            let mut scheduler = scheduler(&needs, stages.iter().map(|s| s.wish).collect(), slots);
            let mut running: Vec<(usize, Slots)> = Vec::new();
            let mut outcomes: Vec<Option<Outcome>> = vec![None; stages.len()];
            let mut n_starts = vec![0usize; stages.len()];
            let mut commands = VecDeque::from(scheduler.on(SchedulerEvent::Begin));
            let mut is_finished = false;
            for n_events in 0.. {
                prop_assert!(n_events < 2000, "it does not end");
                if interrupt_after == Some(n_events) {
                    commands.extend(scheduler.on(SchedulerEvent::Interrupt));
                }
                match commands.pop_front() {
                    Some(Command::Examine(s)) => {
                        prop_assert!(needs[s].iter().all(|&n| matches!(outcomes[n], Some(Outcome::Ran | Outcome::Reused))));
                        if stages[s].is_found && n_starts[s] == 0 && outcomes[s].is_none() {
                            outcomes[s] = Some(Outcome::Reused);
                            commands.extend(scheduler.on(SchedulerEvent::Found(s)));
                        } else {
                            let remake: Vec<usize> = needs[s]
                                .iter()
                                .copied()
                                .filter(|&n| stages[s].asks_to_remake && outcomes[n] == Some(Outcome::Reused))
                                .collect();
                            commands.extend(scheduler.on(SchedulerEvent::MustRun { stage: s, remake }));
                        }
                    }
                    Some(Command::Start { stage: s, grant }) => {
                        prop_assert!(needs[s].iter().all(|&n| matches!(outcomes[n], Some(Outcome::Ran | Outcome::Reused))));
                        prop_assert!(running.iter().all(|(other, _)| *other != s));
                        n_starts[s] += 1;
                        prop_assert!(n_starts[s] <= 1, "stage {} started {} times", s, n_starts[s]);
                        running.push((s, grant));
                        prop_assert!(grant.threads >= 1);
                        prop_assert!(running.iter().map(|(_, g)| g.threads).sum::<usize>() <= threads);
                        prop_assert!(running.iter().map(|(_, g)| g.memory_bytes).sum::<u64>() <= 100);
                        prop_assert!(running.iter().map(|(_, g)| g.gpus).sum::<usize>() <= gpus);
                    }
                    Some(Command::Close(s, outcome)) => outcomes[s] = Some(outcome),
                    Some(Command::Finish) => {
                        prop_assert!(running.is_empty());
                        is_finished = true;
                    }
                    None if is_finished => break,
                    None => {
                        let last = running.len().checked_sub(1);
                        prop_assert!(last.is_some(), "nothing runs, nothing is asked, and it is not finished");
                        let pick = if stages[running[0].0].ends_first { 0 } else { last.unwrap_or(0) };
                        let (s, _) = running.remove(pick);
                        let outcome = if stages[s].is_failing { Outcome::Failed } else { Outcome::Ran };
                        outcomes[s] = Some(outcome);
                        commands.extend(scheduler.on(SchedulerEvent::Ended(s, outcome)));
                    }
                }
            }
            prop_assert!(outcomes.iter().all(Option::is_some), "a stage has no outcome: {:?}", outcomes);
        }
    }
}
