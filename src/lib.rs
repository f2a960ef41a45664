//! The runner as a library: a pipeline file in, finished artifacts and a report out.
//!
//! ```text
//! FILE --spec--> Pipeline --graph--> DAG --plan--> verdicts --schedule--> starts --execute--> artifacts in the store
//!                                                                             |
//!                                                                           events --report--> terminal, summary, JSON Lines
//! ```
//!
//! Reading order is the order of the modules below. A module imports only modules above it, [`cli`] alone sees all.
//!
//! Architecture invariant: no tensors, record batches or tokenizers here; stages are known by `pipe_contract` only, and
//! only [`registry`] names their crates. Only [`cli`] reads the environment or knows that there is a terminal.

pub mod diagnostic;
pub mod error;
pub mod exit_code;
pub mod registry;

pub mod spec;

pub mod schema;

pub mod graph;

pub mod key;
pub mod lockfile;
pub mod place;

pub mod ahead;

pub mod plan;

pub mod drift;

pub mod schedule;

pub mod events;

pub mod explain;
pub mod history;

pub mod record;
pub mod roots;

pub mod execute;

pub mod predict;
pub mod room;

pub mod compare;
pub mod diff;
pub mod verify;

pub mod report;

pub mod cli;
