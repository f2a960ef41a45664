//! What a run is held to, besides its pipeline.

use std::time::Instant;

use pipe_contract::CancelToken;

use super::ledger::Ledger;
use super::spot::Spot;
use crate::history::History;

/// What limits a run: its user, and other runs on the machine.
#[derive(Debug)]
pub struct Limits<'a> {
    /// Set by the user.
    pub cancel: &'a CancelToken,
    /// Sets the token itself.
    pub time_limit: Option<TimeLimit>,
    /// Of each stage that wishes for none of its own.
    pub memory_bytes: Option<u64>,
    /// Whether a failure stops only what needs the failed stage.
    pub keeps_going: bool,
    /// Whether parts of earlier executions are enough.
    pub spot: Option<Spot<'a>>,
    /// What other runs hold.
    pub ledger: Ledger,
    /// What stages took in earlier runs.
    pub history: &'a History,
}

/// When a run has taken long enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeLimit {
    /// As the user wrote it.
    pub text: String,
    /// The moment.
    pub end: Instant,
}
