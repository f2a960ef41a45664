//! The state machine of one run.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::{Grant, Slots, Wish};
use crate::graph::StageGraph;

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
    /// A stage that was to start could not: another process holds what it was granted.
    Refused(usize),
    /// Refused stages may be tried again.
    Retry,
    /// A started stage failed and has a further try, for which it waits: it holds nothing meanwhile.
    Deferred(usize),
    /// A deferred stage has waited long enough.
    Due(usize),
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
    /// Start the stage with these slots, and answer with `Ended` or `Deferred`, or at once with `Refused`.
    Start {
        /// The stage.
        stage: usize,
        /// What it may use until it ends.
        grant: Grant,
    },
    /// The stage will not run: `Skipped` or `Cancelled`, or `Failed` where it did before and will not be tried again.
    Close(usize, Outcome),
    /// Every stage has an outcome.
    Finish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Examined,
    Ready,
    Refused,
    Deferred,
    Running,
    Ended(Outcome),
}

/// Who starts when. An event costs the logarithm of the number of stages, and a look at the ready ones while threads are free.
pub struct Scheduler {
    graph: StageGraph,
    wishes: Vec<Wish>,
    states: Vec<State>,
    /// Of the running stages.
    grants: Vec<Option<Grant>>,
    /// Stages that were sent back to be made again.
    is_remade: Vec<bool>,
    remaining_path: Vec<u64>,
    total: Slots,
    free: Slots,
    /// Waiting stages to look at: something about their needs changed.
    to_look_at: BTreeSet<usize>,
    /// In the order in which they start.
    ready: BTreeSet<(Reverse<u64>, usize)>,
    refused: BTreeSet<usize>,
    n_examined: usize,
    n_open: usize,
    keeps_going: bool,
    is_draining: Option<Outcome>,
    is_finished: bool,
}

impl Scheduler {
    /// A run over the stages of `graph`, with one wish for each. Every stage weighs 1.
    pub fn new(graph: StageGraph, wishes: Vec<Wish>, slots: Slots) -> Self {
        let n_stages = graph.n_stages();
        assert_eq!(n_stages, wishes.len(), "one wish for each stage");
        let remaining_path = graph.longest_remaining(|_| 1);
        let slots = Slots { threads: slots.threads.max(1), ..slots };
        Scheduler {
            graph,
            wishes,
            states: vec![State::Waiting; n_stages],
            grants: vec![None; n_stages],
            is_remade: vec![false; n_stages],
            remaining_path,
            total: slots.clone(),
            free: slots,
            to_look_at: (0..n_stages).collect(),
            ready: BTreeSet::new(),
            refused: BTreeSet::new(),
            n_examined: 0,
            n_open: n_stages,
            keeps_going: false,
            is_draining: None,
            is_finished: false,
        }
    }

    /// The same with a weight for each stage: what it is expected to take, in any unit.
    pub fn with_weights(mut self, weights: &[u64]) -> Self {
        assert_eq!(weights.len(), self.wishes.len(), "one weight for each stage");
        self.remaining_path = self.graph.longest_remaining(|stage| weights[stage]);
        self
    }

    /// The same where a failure stops only what needs the failed stage.
    pub fn keep_going(mut self) -> Self {
        self.keeps_going = true;
        self
    }

    /// Whether a stage waits for what another process holds.
    pub fn has_refused(&self) -> bool {
        !self.refused.is_empty()
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
                self.end(stage, Outcome::Reused);
            }
            SchedulerEvent::MustRun { stage, remake } => {
                self.expect_examined(stage);
                self.must_run(stage, &remake);
            }
            SchedulerEvent::Unusable(stage) => {
                self.expect_examined(stage);
                self.end(stage, Outcome::Failed);
            }
            SchedulerEvent::Refused(stage) => {
                self.release(stage);
                self.set(stage, State::Refused);
            }
            SchedulerEvent::Retry => {
                for stage in std::mem::take(&mut self.refused) {
                    self.set(stage, State::Ready);
                }
            }
            SchedulerEvent::Deferred(stage) => {
                self.release(stage);
                self.set(stage, State::Deferred);
            }
            SchedulerEvent::Due(stage) => {
                assert_eq!(self.states[stage], State::Deferred, "stage {stage} is due, but it waits for nothing");
                // Looked at again: its inputs may be gone by now, or another process may have made it.
                self.set(stage, State::Waiting);
            }
            SchedulerEvent::Ended(stage, outcome) => {
                self.release(stage);
                self.end(stage, outcome);
            }
            SchedulerEvent::Interrupt => self.is_draining = Some(Outcome::Cancelled),
        }
        self.commands()
    }

    fn expect_examined(&self, stage: usize) {
        assert_eq!(self.states[stage], State::Examined, "an answer about stage {stage}, which nobody asked about");
    }

    fn must_run(&mut self, stage: usize, remake: &[usize]) {
        for &producer in remake {
            // Two consumers may name one producer: the second finds it under way already.
            if !std::mem::replace(&mut self.is_remade[producer], true) && self.is_done(producer) {
                self.set(producer, State::Waiting);
            }
        }
        let is_waiting = remake.iter().any(|&producer| !self.is_done(producer));
        self.set(stage, if is_waiting { State::Waiting } else { State::Ready });
    }

    fn release(&mut self, stage: usize) {
        assert_eq!(self.states[stage], State::Running, "stage {stage} ended, but it was not running");
        let grant = self.grants[stage].take().expect("what runs has a grant");
        self.free.give_back(&grant);
    }

    fn end(&mut self, stage: usize, outcome: Outcome) {
        self.set(stage, State::Ended(outcome));
        match outcome {
            Outcome::Failed if !self.keeps_going => {
                self.is_draining.get_or_insert(Outcome::Skipped);
            }
            Outcome::Failed => self.unready_dependents(stage),
            Outcome::Cancelled => self.is_draining = Some(Outcome::Cancelled),
            Outcome::Ran | Outcome::Reused | Outcome::Skipped => {}
        }
    }

    /// A stage may be ready when a need of it is made again for another one, and is lost by that.
    fn unready_dependents(&mut self, lost: usize) {
        let dependents: Vec<usize> = self.graph.successors(lost).collect();
        for dependent in dependents {
            if matches!(self.states[dependent], State::Ready | State::Refused | State::Deferred) {
                self.set(dependent, State::Waiting);
            }
        }
    }

    /// Every change of a state: keeps what is counted and listed.
    fn set(&mut self, stage: usize, state: State) {
        match std::mem::replace(&mut self.states[stage], state) {
            State::Examined => self.n_examined -= 1,
            State::Ready => drop(self.ready.remove(&(Reverse(self.remaining_path[stage]), stage))),
            State::Refused => drop(self.refused.remove(&stage)),
            State::Ended(_) => self.n_open += 1,
            State::Waiting | State::Deferred | State::Running => {}
        }
        match state {
            State::Waiting => drop(self.to_look_at.insert(stage)),
            State::Examined => self.n_examined += 1,
            State::Ready => drop(self.ready.insert((Reverse(self.remaining_path[stage]), stage))),
            State::Refused => drop(self.refused.insert(stage)),
            State::Deferred | State::Running => {}
            State::Ended(_) => {
                self.n_open -= 1;
                self.to_look_at.extend(self.graph.successors(stage));
            }
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
            self.look_at_waiting(&mut commands);
            if self.n_examined == 0 {
                self.start_what_fits(&mut commands);
            }
        }
        if self.n_open == 0 {
            self.is_finished = true;
            commands.push(Command::Finish);
        }
        commands
    }

    /// Examined stages are left to their answer, running ones to their end.
    fn close_the_rest(&mut self, outcome: Outcome, commands: &mut Vec<Command>) {
        for stage in 0..self.states.len() {
            let outcome = match self.states[stage] {
                State::Waiting | State::Ready | State::Refused => outcome,
                State::Deferred if outcome == Outcome::Skipped => Outcome::Failed,
                State::Deferred => outcome,
                State::Examined | State::Running | State::Ended(_) => continue,
            };
            self.set(stage, State::Ended(outcome));
            commands.push(Command::Close(stage, outcome));
        }
    }

    /// In file order: what has all its needs is examined, what cannot get them any more is skipped.
    fn look_at_waiting(&mut self, commands: &mut Vec<Command>) {
        while let Some(stage) = self.to_look_at.pop_first() {
            if self.states[stage] != State::Waiting {
                continue;
            }
            if self.graph.predecessors(stage).all(|need| self.is_done(need)) {
                self.set(stage, State::Examined);
                commands.push(Command::Examine(stage));
            } else if self.graph.predecessors(stage).any(|need| self.is_lost(need)) {
                self.set(stage, State::Ended(Outcome::Skipped));
                self.unready_dependents(stage);
                commands.push(Command::Close(stage, Outcome::Skipped));
            }
        }
    }

    fn start_what_fits(&mut self, commands: &mut Vec<Command>) {
        let mut n_ready = self.ready.len();
        let mut starts = Vec::new();
        for &(_, stage) in &self.ready {
            if self.free.threads == 0 {
                break;
            }
            if let Some(grant) = self.total.grant(&self.free, &self.wishes[stage], n_ready) {
                self.free.take(&grant);
                starts.push((stage, grant));
            }
            n_ready -= 1;
        }
        for (stage, grant) in starts {
            self.set(stage, State::Running);
            self.grants[stage] = Some(grant.clone());
            commands.push(Command::Start { stage, grant });
        }
    }

    fn is_done(&self, stage: usize) -> bool {
        matches!(self.states[stage], State::Ended(Outcome::Reused | Outcome::Ran))
    }

    fn is_lost(&self, stage: usize) -> bool {
        matches!(self.states[stage], State::Ended(Outcome::Failed | Outcome::Skipped | Outcome::Cancelled))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::super::CpuWish;
    use super::*;

    const SHARE: Wish = Wish { cpu: CpuWish::Share, memory_bytes: 0, gpus: 0, pools: Vec::new() };
    const TWO: Slots = Slots { threads: 2, memory_bytes: 100, gpus: 0, pools: Vec::new() };

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
        let wishes = vec![Wish::of_threads(CpuWish::One), Wish::of_threads(CpuWish::All)];
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
        let greedy = Wish { cpu: CpuWish::Exactly(64), memory_bytes: 1 << 40, gpus: 8, ..SHARE };
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

    #[test]
    fn weights_say_how_long_a_path_is() {
        // 0 alone is heavier than 1 -> 2; without weights it is shorter.
        let needs = [vec![], vec![], vec![1]];
        let mut scheduler =
            scheduler(&needs, vec![SHARE; 3], Slots { threads: 1, ..TWO }).with_weights(&[9_000, 20, 3_000]);
        let commands = scheduler.on(SchedulerEvent::Begin);
        assert_eq!(run_all(&mut scheduler, commands), [(0, 1)]);
    }

    #[test]
    fn a_pool_holds_back_and_lets_others_pass() {
        // 0 and 1 want the only place of the pool, 2 does not.
        let one_of_pool = Wish { cpu: CpuWish::One, pools: vec![(0, 1)], ..SHARE };
        let wishes = vec![one_of_pool.clone(), one_of_pool, Wish::of_threads(CpuWish::One)];
        let mut scheduler = scheduler(&[vec![], vec![], vec![]], wishes, Slots { threads: 3, pools: vec![1], ..TWO });
        let commands = scheduler.on(SchedulerEvent::Begin);
        assert_eq!(run_all(&mut scheduler, commands), [(0, 1), (2, 1)]);
        let commands = scheduler.on(SchedulerEvent::Ended(0, Outcome::Ran));
        assert_eq!(run_all(&mut scheduler, commands), [(1, 1)]);
    }

    #[test]
    fn a_refused_stage_lets_others_pass_and_is_tried_again() {
        let mut scheduler = scheduler(&[vec![], vec![]], vec![Wish::of_threads(CpuWish::All); 2], TWO);
        let commands = scheduler.on(SchedulerEvent::Begin);
        assert_eq!(run_all(&mut scheduler, commands), [(0, 2)]);
        let commands = scheduler.on(SchedulerEvent::Refused(0));
        assert_eq!(run_all(&mut scheduler, commands), [(1, 2)]);
        assert!(scheduler.has_refused());
        assert_eq!(scheduler.on(SchedulerEvent::Retry), [], "there is no thread for it");
        let commands = scheduler.on(SchedulerEvent::Ended(1, Outcome::Ran));
        assert_eq!(run_all(&mut scheduler, commands), [(0, 2)]);
        assert_eq!(scheduler.on(SchedulerEvent::Ended(0, Outcome::Ran)), [Command::Finish]);
    }

    #[test]
    fn a_deferred_stage_holds_nothing_and_is_looked_at_again() {
        let mut scheduler = scheduler(&[vec![], vec![]], vec![Wish::of_threads(CpuWish::All); 2], TWO);
        let commands = scheduler.on(SchedulerEvent::Begin);
        assert_eq!(run_all(&mut scheduler, commands), [(0, 2)]);
        let commands = scheduler.on(SchedulerEvent::Deferred(0));
        assert_eq!(run_all(&mut scheduler, commands), [(1, 2)], "its threads go to another");
        assert_eq!(scheduler.on(SchedulerEvent::Ended(1, Outcome::Ran)), [], "the run waits for the next try");
        assert_eq!(scheduler.on(SchedulerEvent::Due(0)), [Command::Examine(0)]);
        let commands = scheduler.on(SchedulerEvent::MustRun { stage: 0, remake: vec![] });
        assert_eq!(run_all(&mut scheduler, commands), [(0, 2)]);
        assert_eq!(scheduler.on(SchedulerEvent::Ended(0, Outcome::Ran)), [Command::Finish]);
    }

    #[test]
    fn a_deferred_stage_has_failed_when_another_ends_the_run_and_is_cancelled_by_an_interrupt() {
        for (event, outcome) in [
            (SchedulerEvent::Ended(1, Outcome::Failed), Outcome::Failed),
            (SchedulerEvent::Interrupt, Outcome::Cancelled),
        ] {
            let mut scheduler = scheduler(&[vec![], vec![]], vec![SHARE; 2], TWO);
            let commands = scheduler.on(SchedulerEvent::Begin);
            run_all(&mut scheduler, commands);
            assert_eq!(scheduler.on(SchedulerEvent::Deferred(0)), []);
            assert_eq!(scheduler.on(event)[0], Command::Close(0, outcome));
        }
    }

    #[test]
    fn a_run_that_keeps_going_skips_only_what_needs_the_failed_stage() {
        // 0 fails; 2 needs it, and 3 needs 2; 4 needs 1.
        let needs = [vec![], vec![], vec![0], vec![2, 1], vec![1]];
        let mut scheduler = scheduler(&needs, vec![SHARE; 5], TWO).keep_going();
        let commands = scheduler.on(SchedulerEvent::Begin);
        assert_eq!(run_all(&mut scheduler, commands), [(0, 1), (1, 1)]);
        let commands = scheduler.on(SchedulerEvent::Ended(0, Outcome::Failed));
        assert_eq!(commands, [Command::Close(2, Outcome::Skipped), Command::Close(3, Outcome::Skipped)]);
        let commands = scheduler.on(SchedulerEvent::Ended(1, Outcome::Ran));
        assert_eq!(run_all(&mut scheduler, commands), [(4, 2)]);
        assert_eq!(scheduler.on(SchedulerEvent::Ended(4, Outcome::Ran)), [Command::Finish]);
    }
}
