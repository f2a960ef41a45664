//! Durations in, a timetable out: the scheduler itself, driven by a clock that jumps from end to end.
//!
//! ```text
//! durations 3, 2, 2 on two slots, the third stage needs the second:    0 [=====]
//!                                                                      1 [===]
//!                                                                      2      [===]     makespan 4
//! ```
//!
//! Every stage must run, and none fails. Stages that end at the same moment are told one after the other, in file order, as a
//! run would hear of them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::{Command, Grant, Outcome, Scheduler, SchedulerEvent};

/// When each stage would run, from the begin of the run on, in the unit of the durations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// By stage: begin, end, and what it has meanwhile.
    pub stages: Vec<(u64, u64, Grant)>,
    /// The end of the last one.
    pub makespan: u64,
}

/// Drives a scheduler that has not begun.
pub fn forecast(mut scheduler: Scheduler, durations: &[u64]) -> Forecast {
    let mut stages = vec![None; durations.len()];
    let mut running = BinaryHeap::new();
    let mut now = 0;
    let mut commands = VecDeque::from(scheduler.on(SchedulerEvent::Begin));
    loop {
        while let Some(command) = commands.pop_front() {
            match command {
                Command::Examine(stage) => {
                    commands.extend(scheduler.on(SchedulerEvent::MustRun { stage, remake: Vec::new() }));
                }
                Command::Start { stage, grant } => {
                    let end = now + durations[stage];
                    stages[stage] = Some((now, end, grant));
                    running.push(Reverse((end, stage)));
                }
                Command::Close(stage, _) => unreachable!("stage {stage} is closed, but none failed"),
                Command::Finish => {
                    let stages = stages.into_iter().map(|stage| stage.expect("a run ends when every stage ran"));
                    return Forecast { stages: stages.collect(), makespan: now };
                }
            }
        }
        let Reverse((end, stage)) = running.pop().expect("a run that is not finished has a running stage");
        now = end;
        commands.extend(scheduler.on(SchedulerEvent::Ended(stage, Outcome::Ran)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CpuWish, Slots, Wish};
    use super::*;
    use crate::graph::StageGraph;

    #[test]
    fn the_timetable_of_three_stages() {
        let graph = StageGraph::from_edges(3, [(1, 2)]).expect("no cycle");
        let slots = Slots { threads: 2, ..Slots::default() };
        let scheduler = Scheduler::new(graph, vec![Wish::of_threads(CpuWish::One); 3], slots);
        let forecast = forecast(scheduler, &[3, 2, 2]);
        let times: Vec<(u64, u64)> = forecast.stages.iter().map(|&(begin, end, _)| (begin, end)).collect();
        assert_eq!((times, forecast.makespan), (vec![(0, 3), (0, 2), (2, 4)], 4));
    }

    #[test]
    fn nothing_takes_no_time() {
        let graph = StageGraph::from_edges(0, []).expect("no cycle");
        assert_eq!(forecast(Scheduler::new(graph, Vec::new(), Slots::default()), &[]).makespan, 0);
    }
}
