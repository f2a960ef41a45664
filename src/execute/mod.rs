//! Executing a plan: stages run, each on a thread that does nothing else meanwhile, and their outputs become part of the store.
//!
//! ```text
//! scheduler --Start--> thread: stage lock -> look up again -> resolve, run in a pool of its own -> publish --Ended--> scheduler
//!                         \--StageEvent--> coordinator --Event--> sinks
//! ```
//!
//! The coordinator is the only one that knows the state of the run: it takes messages one at a time, so events have one order.
//!
//! - *Single flight.* Two processes that need the same stage run it once: whoever waited for the stage lock looks again.
//! - *Interrupt.* The cancel token is set by a signal, or by the time limit; running stages stop at their next check, nothing new starts, and what
//!   is finished stays. Nothing has to be cleaned up for the next run.
//! - *Tries.* A stage that takes longer than its `timeout:` is stopped likewise, alone, and has failed. A failed stage with `retries:` left
//!   is tried again after a while; a panic and what the user stopped are not.
//! - *Panic.* Caught at the border of the stage: an outcome like any failure, marked as a bug.
//! - *Several runs.* What stages ask for of GPUs and memory is in a ledger of the machine; one that does not get it waits and lets
//!   others pass.
//! - *Pools.* rayon runs a stage, never the stages among each other: pools do not steal, so a waiting stage cannot pick up
//!   the work of another one.
//!
//! It deliberately does not decide who runs when (`schedule`), what must run (`plan`) or how it looks (`report`).

mod coordinator;
mod failures;
mod job;
mod ledger;
mod limits;
mod panics;
mod pool;
mod slots;
mod spot;
mod tries;
mod usage;
mod wishes;
mod workers;

pub use coordinator::{RunEnd, execute};
pub use ledger::Ledger;
pub use limits::{Limits, TimeLimit};
pub use slots::{machine_memory_bytes, machine_slots};
pub use spot::Spot;
pub use usage::Usage;
pub use wishes::{history_of, read_history, wish};
