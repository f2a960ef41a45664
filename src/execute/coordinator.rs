//! The coordinator: takes commands of the scheduler and messages of running stages, one at a time.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use pipe_cache::{Divergence, Manifest};
use pipe_contract::{CancelToken, SpotCheck, StageEvent};

use super::failures::{drifted, timed_out};
use super::job::{Done, Job, JobEnd};
use super::ledger::{self, Answer, Ledger};
use super::limits::{Limits, TimeLimit};
use super::spot::Spot;
use super::tries::StageTries;
use super::usage::Usage;
use super::wishes;
use super::workers::Workers;
use crate::error::{RunnerError, chain};
use crate::events::{Event, EventBus, Failure};
use crate::graph::StageGraph;
use crate::history::History;
use crate::place;
use crate::plan::{Judgement, Keys, Obstacle, Plan, Planner, Verdict};
use crate::schedule::{Command, Grant, Outcome, Scheduler, SchedulerEvent, Slots};

/// How often the terminal moves and the cancel token is looked at while nothing happens.
const TICK: Duration = Duration::from_millis(100);

/// How often memory and processor time are looked at.
const USAGE_INTERVAL: Duration = Duration::from_secs(1);

/// What a run left.
#[derive(Debug)]
pub struct RunEnd {
    /// By position in the pipeline.
    pub outcomes: Vec<Outcome>,
    /// The manifest of every stage that was reused or ran.
    pub manifests: Vec<Option<Arc<Manifest>>>,
    /// Where a stage gave other bytes than an earlier execution with the same fingerprint, by position.
    pub divergences: BTreeMap<usize, Divergence>,
    /// Where parts of an earlier execution were looked at, by position: what was found.
    pub spot_checks: BTreeMap<usize, Vec<SpotCheck>>,
    /// Stages that failed because they gave other bytes than the lock file says.
    pub n_drifted: usize,
    /// What remote names were resolved to in this run.
    pub resolutions: Vec<(String, String)>,
    /// Whether a stage failed by a mistake in pipe.
    pub has_bug: bool,
    /// Whether the files of a `to:` could not be written.
    pub has_unplaced: bool,
}

impl RunEnd {
    /// How many stages ended so.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.outcomes.iter().filter(|&&other| other == outcome).count()
    }
}

/// How often stages that another process holds back are tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Runs what the plan says and places what `to:` names.
///
/// # Errors
/// When the store cannot be read. What goes wrong inside a stage is its outcome instead.
pub fn execute(
    planner: Planner<'_>,
    plan: &Plan,
    slots: Slots,
    limits: Limits<'_>,
    bus: &mut EventBus<'_>,
) -> Result<RunEnd, RunnerError> {
    let n_stages = planner.pipeline.stages.len();
    let (sender, receiver) = channel();
    let mut coordinator = Coordinator {
        planner,
        plan,
        cancel: limits.cancel,
        time_limit: limits.time_limit,
        memory_limit: limits.memory_bytes,
        keeps_going: limits.keeps_going,
        spot: limits.spot,
        ledger: limits.ledger,
        history: limits.history,
        told_holders: vec![Vec::new(); n_stages],
        graph: StageGraph::new(planner.pipeline),
        bus,
        sender,
        manifests: vec![None; n_stages],
        outcomes: vec![None; n_stages],
        is_remade: vec![false; n_stages],
        prepared: (0..n_stages).map(|_| None).collect(),
        started_at: vec![None; n_stages],
        tries: StageTries::new(n_stages),
        last_failures: vec![None; n_stages],
        first_failed: None,
        divergences: BTreeMap::new(),
        spot_checks: BTreeMap::new(),
        n_drifted: 0,
        resolutions: Vec::new(),
        has_bug: false,
    };
    if plan.is_all_reuse() {
        for stage in 0..n_stages {
            coordinator.reuse(stage, plan.stages[stage].manifest.clone().expect("what is reused has a manifest"));
        }
    } else {
        coordinator.run(slots, &receiver)?;
    }
    let has_unplaced = if coordinator.cancel.is_cancelled() { false } else { coordinator.place() };
    Ok(RunEnd {
        outcomes: coordinator
            .outcomes
            .into_iter()
            .map(|outcome| outcome.expect("the scheduler ends every stage"))
            .collect(),
        manifests: coordinator.manifests,
        divergences: coordinator.divergences,
        spot_checks: coordinator.spot_checks,
        n_drifted: coordinator.n_drifted,
        resolutions: coordinator.resolutions,
        has_bug: coordinator.has_bug,
        has_unplaced,
    })
}

/// From a stage's thread.
enum Message {
    Told(usize, StageEvent),
    Ended(usize, Box<JobEnd>),
}

struct Coordinator<'a, 'bus, 'sinks> {
    planner: Planner<'a>,
    plan: &'a Plan,
    cancel: &'a CancelToken,
    /// `None` where there is none, or it was reached.
    time_limit: Option<TimeLimit>,
    memory_limit: Option<u64>,
    keeps_going: bool,
    spot: Option<Spot<'a>>,
    ledger: Ledger,
    history: &'a History,
    /// For whom a stage was last said to wait.
    told_holders: Vec<Vec<u32>>,
    graph: StageGraph,
    bus: &'bus mut EventBus<'sinks>,
    sender: Sender<Message>,
    manifests: Vec<Option<Arc<Manifest>>>,
    outcomes: Vec<Option<Outcome>>,
    /// Stages whose files another one misses.
    is_remade: Vec<bool>,
    /// The keys of stages that must run; the inner `None` where they are not resolved.
    prepared: Vec<Option<Option<Box<Keys>>>>,
    started_at: Vec<Option<Instant>>,
    tries: StageTries,
    /// Of stages that wait for their next try.
    last_failures: Vec<Option<Failure>>,
    first_failed: Option<usize>,
    divergences: BTreeMap<usize, Divergence>,
    spot_checks: BTreeMap<usize, Vec<SpotCheck>>,
    n_drifted: usize,
    resolutions: Vec<(String, String)>,
    has_bug: bool,
}

impl<'a> Coordinator<'a, '_, '_> {
    fn run(&mut self, slots: Slots, receiver: &Receiver<Message>) -> Result<(), RunnerError> {
        let pipeline = self.planner.pipeline;
        let wishes = pipeline.stages.iter().map(wishes::wish).collect();
        let weights = wishes::weights(&self.planner, self.plan, self.history);
        let slots = Slots { pools: pipeline.pools.iter().map(|pool| pool.size).collect(), ..slots };
        let mut scheduler = Scheduler::new(self.graph.clone(), wishes, slots).with_weights(&weights);
        if self.keeps_going {
            scheduler = scheduler.keep_going();
        }
        thread::scope(|scope| {
            let result = self.drive(&mut scheduler, receiver, &Workers::new(scope));
            // The scope waits for its threads: with the store unusable, they need not go on.
            if result.is_err() {
                self.cancel.cancel();
                self.tries.stop_all();
            }
            result
        })
    }

    fn drive<'scope>(
        &mut self,
        scheduler: &mut Scheduler,
        receiver: &Receiver<Message>,
        workers: &Workers<'scope, '_>,
    ) -> Result<(), RunnerError>
    where
        'a: 'scope,
    {
        let mut is_interrupted = false;
        self.measure();
        let mut measured_at = Instant::now();
        let mut retried_at = Instant::now();
        let mut commands = VecDeque::from(scheduler.on(SchedulerEvent::Begin));
        loop {
            while let Some(command) = commands.pop_front() {
                let answer = match command {
                    Command::Examine(stage) => Some(self.examine(stage)?),
                    Command::Start { stage, grant } => self.start(workers, stage, grant),
                    Command::Close(stage, outcome) => {
                        self.close(stage, outcome);
                        None
                    }
                    Command::Finish => {
                        self.measure();
                        return Ok(());
                    }
                };
                commands.extend(answer.map(|event| scheduler.on(event)).unwrap_or_default());
            }
            // Only now: what was closed just before is not due any more.
            let due = self.tries.take_due(Instant::now());
            if !due.is_empty() {
                commands.extend(due.into_iter().flat_map(|stage| scheduler.on(SchedulerEvent::Due(stage))));
                continue;
            }
            match receiver.recv_timeout(TICK) {
                Ok(Message::Told(stage, event)) => self.tell(stage, event),
                Ok(Message::Ended(stage, end)) => {
                    let event = self.end(stage, *end);
                    commands.extend(scheduler.on(event));
                }
                Err(RecvTimeoutError::Timeout) => self.bus.tick(),
                Err(RecvTimeoutError::Disconnected) => unreachable!("the coordinator holds a sender itself"),
            }
            if measured_at.elapsed() >= USAGE_INTERVAL {
                measured_at = Instant::now();
                self.measure();
            }
            if scheduler.has_refused() && retried_at.elapsed() >= RETRY_INTERVAL {
                retried_at = Instant::now();
                commands.extend(scheduler.on(SchedulerEvent::Retry));
            }
            self.keep_time_limit();
            self.keep_timeouts();
            if self.cancel.is_cancelled() && !is_interrupted {
                is_interrupted = true;
                self.tries.stop_all();
                commands.extend(scheduler.on(SchedulerEvent::Interrupt));
            }
        }
    }

    /// Interrupts the run once it has taken long enough.
    fn keep_time_limit(&mut self) {
        let is_reached = |limit: &mut TimeLimit| Instant::now() >= limit.end;
        let Some(limit) = self.time_limit.take_if(is_reached) else { return };
        if !self.cancel.is_cancelled() {
            self.cancel.cancel();
            let line = format!("the time limit of {} is reached", limit.text);
            self.bus.emit(&Event::Warning { stage: None, line });
        }
    }

    /// Asks stages to stop that take longer than their `timeout:`.
    fn keep_timeouts(&mut self) {
        for (stage, limit) in self.tries.stop_late_ones(Instant::now()) {
            let line = format!("its timeout of {limit} is reached: waiting for it to stop");
            self.bus.emit(&Event::Log { stage: self.name(stage), line });
        }
    }

    fn measure(&mut self) {
        if let Some(Usage { memory_bytes, cpu_ms, .. }) = Usage::now() {
            self.bus.emit(&Event::Usage { memory_bytes, cpu_ms });
        }
    }

    /// Finds out whether a stage must run, now that all its inputs are known.
    fn examine(&mut self, stage: usize) -> Result<SchedulerEvent, RunnerError> {
        let planned = &self.plan.stages[stage];
        if let Verdict::Blocked(Obstacle::Source { slug, message, help }) = &planned.verdict {
            let (message, help) = (message.clone(), help.clone());
            return Ok(self.unusable(stage, Failure { slug: (*slug).to_string(), message, help, is_bug: false }));
        }
        let has_new_inputs = self.planner.producers(stage).iter().any(|&p| self.outcomes[p] == Some(Outcome::Ran));
        if let (Verdict::Reuse { .. }, Some(manifest), false, false) =
            (&planned.verdict, &planned.manifest, has_new_inputs, self.is_remade[stage])
        {
            self.reuse(stage, manifest.clone());
            return Ok(SchedulerEvent::Found(stage));
        }
        match self.planner.judge(stage, &self.manifests_for(stage), None) {
            Ok(Judgement::Keyed(keys, found)) => {
                if let Some(manifest) = &found {
                    self.planner.store.hold(&[&manifest.fingerprint], &[])?;
                }
                let is_forced = self.planner.forced.contains(&stage);
                let is_demanded = is_forced || self.is_remade[stage] || matches!(planned.verdict, Verdict::Run(_));
                if let Some(manifest) = found.filter(|_| !is_demanded)
                    && !self.planner.lacks_files_for_to(stage, &manifest)?
                {
                    self.reuse(stage, manifest);
                    return Ok(SchedulerEvent::Found(stage));
                }
                self.prepared[stage] = Some(Some(keys));
            }
            Ok(Judgement::Unresolved { .. }) => self.prepared[stage] = Some(None),
            Err(error) => {
                let failure =
                    Failure { slug: error.slug.to_string(), message: chain(&error), help: error.help, is_bug: false };
                return Ok(self.unusable(stage, failure));
            }
        }
        let remake = self.producers_without_files(stage)?;
        remake.iter().for_each(|&producer| self.is_remade[producer] = true);
        Ok(SchedulerEvent::MustRun { stage, remake })
    }

    fn manifests_for(&self, stage: usize) -> BTreeMap<usize, Arc<Manifest>> {
        let manifest = |producer: usize| self.manifests[producer].clone().expect("a stage is examined after its needs");
        self.planner.producers(stage).into_iter().map(|producer| (producer, manifest(producer))).collect()
    }

    /// Those that did not run in this run: what was just made is there. One that is being made again already is named too,
    /// so that the scheduler waits for it.
    fn producers_without_files(&self, stage: usize) -> Result<Vec<usize>, RunnerError> {
        let mut without = Vec::new();
        for (producer, manifest) in self.manifests_for(stage) {
            let is_fresh = self.outcomes[producer] == Some(Outcome::Ran);
            if !is_fresh && !self.planner.store.missing(&manifest)?.is_empty() {
                without.push(producer);
            }
        }
        Ok(without)
    }

    /// Hands the stage to a thread; answers the scheduler only if there is none.
    fn start<'scope>(&mut self, workers: &Workers<'scope, '_>, stage: usize, grant: Grant) -> Option<SchedulerEvent>
    where
        'a: 'scope,
    {
        let Some(gpus) = self.ask_ledger(stage, &grant) else { return Some(SchedulerEvent::Refused(stage)) };
        let keys = self.prepared[stage].take().expect("a stage is examined before it starts");
        let manifests = self.manifests_for(stage);
        // A wish for all there is would be no limit to the stage.
        let wish = self.planner.pipeline.stages[stage].resources.memory_bytes;
        let memory_bytes = wish.or(self.memory_limit);
        let (n_threads, n_gpus) = (grant.threads, grant.gpus);
        let begin = Instant::now();
        let cancel = self.tries.begin(stage, &self.planner.pipeline.stages[stage].tries, self.cancel, begin);
        let (planner, spot) = (self.planner, self.spot);
        let job = Job { planner, stage, keys, manifests, grant, gpus: gpus.clone(), memory_bytes, spot, cancel };
        self.started_at[stage] = Some(begin);
        self.bus.emit(&Event::StageStarted { stage: self.name(stage), n_threads, n_gpus, gpus });
        let n_wanted = self.planner.pipeline.stages[stage].resources.gpu;
        if n_gpus < n_wanted {
            let line = match n_gpus {
                0 => format!("it asks for {n_wanted} GPU, and none can be used here: it runs on the CPU"),
                n => format!("it asks for {n_wanted} GPUs, and {n} can be used here"),
            };
            self.bus.emit(&Event::Log { stage: self.name(stage), line });
        }
        let sender = self.sender.clone();
        let started = workers.start(Box::new(move || {
            let end = Box::new(job.run(&|event| drop(sender.send(Message::Told(stage, event)))));
            Box::new(move || drop(sender.send(Message::Ended(stage, end))))
        }));
        let error = started.err()?;
        let message = format!("failed to start a thread for it: {error}");
        let help = Some("fewer threads may be allowed here: try `--threads 1`".to_string());
        let failure = Failure { slug: "threads".into(), message, help, is_bug: false };
        self.finish(stage, Outcome::Failed, Some(failure));
        Some(SchedulerEvent::Ended(stage, Outcome::Failed))
    }

    /// The numbers of the GPUs it gets; `None` where it must wait for other processes, and then says so, once for each set of them.
    fn ask_ledger(&mut self, stage: usize, grant: &Grant) -> Option<Vec<usize>> {
        match self.ledger.ask(stage, grant.gpus, grant.memory_bytes) {
            Ok(Answer::Granted(gpus)) => Some(gpus),
            Ok(Answer::HeldBy(holders)) => {
                if self.told_holders[stage] != holders {
                    let line = ledger::waits_for(&holders, grant);
                    self.bus.emit(&Event::Log { stage: self.name(stage), line });
                    self.told_holders[stage] = holders;
                }
                None
            }
            Err(error) => {
                self.ledger.forget_others();
                let line = format!("other runs on this machine may take the same GPUs and memory: {}", chain(&error));
                self.bus.emit(&Event::Warning { stage: None, line });
                self.ask_ledger(stage, grant)
            }
        }
    }

    fn tell(&mut self, stage: usize, event: StageEvent) {
        let stage = self.name(stage);
        self.bus.emit(&match event {
            StageEvent::Progress { done, total, unit } => Event::Progress { stage, done, total, unit },
            StageEvent::Log { line } => Event::Log { stage, line },
            StageEvent::Warning { line } => Event::Warning { stage: Some(stage), line },
            StageEvent::Fact { name, value } => Event::Fact { stage, name, value },
        });
    }

    /// What the scheduler is told of a try that ended.
    fn end(&mut self, stage: usize, end: JobEnd) -> SchedulerEvent {
        self.resolutions.extend(end.resolution);
        let reached = self.tries.end(stage);
        let (failure, outcome) = match (end.result, end.outcome) {
            (Ok(done), Outcome::Reused) => {
                self.reuse(stage, done.manifest);
                return SchedulerEvent::Ended(stage, Outcome::Reused);
            }
            (Ok(done), outcome) => return SchedulerEvent::Ended(stage, self.keep(stage, done, outcome)),
            (Err(failure), Outcome::Cancelled) => match reached.filter(|_| !self.cancel.is_cancelled()) {
                Some(limit) => (timed_out(&limit), Outcome::Failed),
                None => (failure, Outcome::Cancelled),
            },
            (Err(failure), outcome) => (failure, outcome),
        };
        if outcome == Outcome::Failed && self.try_again(stage, &failure) {
            return SchedulerEvent::Deferred(stage);
        }
        self.finish_with(stage, outcome, Some(failure), end.checkpoint);
        SchedulerEvent::Ended(stage, outcome)
    }

    /// A stage gave outputs.
    fn keep(&mut self, stage: usize, done: Done, outcome: Outcome) -> Outcome {
        let has_drifted = self.planner.is_locked && !self.planner.agrees_with_lock(done.made());
        if let Some(divergence) = done.divergence {
            self.diverge(stage, *divergence);
        }
        if has_drifted {
            self.n_drifted += 1;
            self.finish(stage, Outcome::Failed, Some(drifted(self.planner.lock.path())));
            return Outcome::Failed;
        }
        self.spot_checks.extend(done.spot_checks.map(|checks| (stage, checks)));
        self.manifests[stage] = Some(done.manifest);
        self.finish(stage, outcome, None);
        outcome
    }

    /// Whether a failed stage gets another try, and then says so. A mistake in pipe would only be repeated, and after the user
    /// stopped the run, or another failure did, nothing new starts.
    fn try_again(&mut self, stage: usize, failure: &Failure) -> bool {
        let is_ending = self.cancel.is_cancelled() || (self.first_failed.is_some() && !self.keeps_going);
        if failure.is_bug || is_ending {
            return false;
        }
        let tries = &self.planner.pipeline.stages[stage].tries;
        let (n_failures, Some(delay)) = self.tries.fail(stage, tries, Instant::now()) else { return false };
        self.ledger.give_back(stage);
        self.last_failures[stage] = Some(failure.clone());
        self.bus.emit(&Event::StageRetried {
            stage: self.name(stage),
            n_failures,
            n_tries_max: tries.n_retries + 1,
            delay_ms: delay.as_millis() as u64,
            failure: failure.clone(),
        });
        true
    }

    fn diverge(&mut self, stage: usize, divergence: Divergence) {
        let fingerprint = divergence.now.fingerprint.clone();
        self.bus.emit(&Event::Diverged { stage: self.name(stage), fingerprint });
        let line = "it gave other bytes than an earlier execution with the same fingerprint: both are kept".to_string();
        self.bus.emit(&Event::Warning { stage: Some(self.name(stage)), line });
        self.divergences.insert(stage, divergence);
    }

    fn reuse(&mut self, stage: usize, manifest: Arc<Manifest>) {
        for (name, value) in &manifest.facts {
            self.bus.emit(&Event::Fact { stage: self.name(stage), name: name.clone(), value: value.clone() });
        }
        self.manifests[stage] = Some(manifest);
        self.finish(stage, Outcome::Reused, None);
    }

    fn unusable(&mut self, stage: usize, failure: Failure) -> SchedulerEvent {
        self.finish(stage, Outcome::Failed, Some(failure));
        SchedulerEvent::Unusable(stage)
    }

    /// A stage that does not run any more, and why.
    fn close(&mut self, stage: usize, outcome: Outcome) {
        self.tries.give_up(stage);
        if outcome == Outcome::Failed {
            let failure = self.last_failures[stage].take();
            return self.finish(stage, outcome, failure);
        }
        let name = |stage: usize| &self.planner.pipeline.stages[stage].name;
        let message = match (self.failed_need(stage), self.first_failed) {
            (Some(failed), _) => Some(format!("it needs `{}`, which failed", name(failed))),
            (None, failed) => failed.map(|failed| format!("nothing new was started after `{}` failed", name(failed))),
        };
        let message = message.filter(|_| outcome == Outcome::Skipped);
        let failure = message.map(|message| Failure { slug: "skipped".into(), message, help: None, is_bug: false });
        self.finish(stage, outcome, failure);
    }

    /// The first failed stage among those that a stage needs, directly or not.
    fn failed_need(&self, stage: usize) -> Option<usize> {
        let mut seen = vec![false; self.outcomes.len()];
        let mut open = vec![stage];
        let mut found = None;
        while let Some(stage) = open.pop() {
            for need in self.graph.predecessors(stage) {
                if self.outcomes[need] == Some(Outcome::Failed) && found.is_none_or(|found| need < found) {
                    found = Some(need);
                }
                if !std::mem::replace(&mut seen[need], true) {
                    open.push(need);
                }
            }
        }
        found
    }

    fn finish(&mut self, stage: usize, outcome: Outcome, failure: Option<Failure>) {
        self.finish_with(stage, outcome, failure, None);
    }

    fn finish_with(&mut self, stage: usize, outcome: Outcome, failure: Option<Failure>, checkpoint: Option<PathBuf>) {
        if outcome == Outcome::Failed {
            self.first_failed.get_or_insert(stage);
            self.has_bug |= failure.as_ref().is_some_and(|failure| failure.is_bug);
        }
        self.outcomes[stage] = Some(outcome);
        self.ledger.give_back(stage);
        // 0 stands for a stage that never started, so one that did took at least 1 ms.
        let duration_ms = self.started_at[stage].take().map_or(0, |begin| (begin.elapsed().as_millis() as u64).max(1));
        let fingerprint = self.manifests[stage].as_ref().map(|manifest| manifest.fingerprint.clone());
        let stage = self.name(stage);
        self.bus.emit(&Event::StageFinished { stage, outcome, duration_ms, failure, checkpoint, fingerprint });
    }

    /// Copies outputs to where `to:` says. Returns whether that failed somewhere.
    fn place(&mut self) -> bool {
        let mut has_unplaced = false;
        for stage in 0..self.planner.pipeline.stages.len() {
            let (Some(to), Some(manifest)) = (self.planner.to(stage), self.manifests[stage].clone()) else { continue };
            let name = self.name(stage);
            match place::place(self.planner.store, &manifest, &to) {
                Ok(placed) => {
                    let findings = [
                        (&placed.edited, "was edited since it was copied there: it is left as it is"),
                        (&placed.unknown, "is not known to this store: it is left as it is"),
                        (&placed.stale, "is of an earlier run and no longer part of the outputs"),
                    ];
                    for (path, what) in findings.iter().flat_map(|(paths, what)| paths.iter().map(move |p| (p, what))) {
                        let line = format!("`{}` {what}", self.show(path));
                        self.bus.emit(&Event::Warning { stage: Some(name.clone()), line });
                    }
                    let to = self.planner.pipeline.stages[stage].to.clone().unwrap_or(to);
                    let n_left = placed.edited.len() + placed.unknown.len();
                    self.bus.emit(&Event::Placed { stage: name, to, n_written: placed.n_written, n_left });
                }
                Err(error) => {
                    has_unplaced = true;
                    let line =
                        format!("its outputs are in the store, but not in `{}`: {}", self.show(&to), chain(&error));
                    self.bus.emit(&Event::Warning { stage: Some(name), line });
                }
            }
        }
        has_unplaced
    }

    /// A path as the user would write it.
    fn show(&self, path: &Path) -> String {
        path.strip_prefix(self.planner.current_dir).unwrap_or(path).display().to_string()
    }

    fn name(&self, stage: usize) -> String {
        self.planner.pipeline.stages[stage].name.clone()
    }
}
