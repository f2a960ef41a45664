//! Who starts when: a pure state machine from events to commands.
//!
//! ```text
//!            all needs done          it must run            it fits              it ended
//! waiting ------------------> examined -----------> ready ------------> running ---------> done
//!                                 |  it is there already   ^                |     \---> failed: what needs it is skipped
//!                                 \--------------------> done               |
//!                                                          \---- refused <--/  others on the machine hold its slots
//! ```
//!
//! Laws, kept by a property test over random graphs (`laws`): a stage starts only when all its needs are done; the slots granted at
//! any moment never exceed what there is; every run ends with an outcome for every stage.
//!
//! - *Order.* Among ready stages, the one with the longest remaining path comes first, then file order. A path is as long as the
//!   weights of its stages: their durations in earlier runs, or 1 each. A stage that does not
//!   fit is passed over by smaller ones: nothing idles while something fits, and as the graph is finite nothing waits forever.
//! - *Threads.* [`CpuWish::One`] gets one. [`CpuWish::All`] waits until every thread is free. [`CpuWish::Share`] gets the free
//!   threads divided by the number of ready stages, at least one: two stages that become ready together run together.
//!   Nothing starts while a stage is being examined, so that "together" does not depend on who was looked at first.
//! - *Pools.* What a pipeline file names and sizes itself, such as downloads at a time; counted like GPUs.
//! - *Remaking.* A stage that must run may find that files of an input are gone from the store. It then names the producers;
//!   they go back to waiting, and so does it. A producer is remade at most once in a run.
//! - *Failure.* After the first failure nothing new starts; what runs is finished, the rest is skipped. A run that keeps going
//!   skips only what needs the failed stage, directly or not.
//! - *Tries.* Whoever starts a stage may say that it failed and is to be tried again later. A deferred stage holds nothing. When it is
//!   due it is looked at as if it were new.
//! - *Others.* Whoever starts a stage may find that another process holds its GPU or its memory. A refused stage gives its slots
//!   back, lets smaller ones pass, and is tried again with the next [`SchedulerEvent::Retry`].
//!
//! It deliberately knows no threads, clocks, files or stages: only indices and numbers.

mod forecast;
#[cfg(test)]
mod laws;
mod scheduler;
mod slots;

pub use forecast::{Forecast, forecast};
pub use scheduler::{Command, Outcome, Scheduler, SchedulerEvent};
pub use slots::{CpuWish, Grant, Slots, Wish};
