//! Reports: what the user sees of a run and of a plan.
//!
//! ```text
//! Event --> live     a line per running stage, where stderr is a terminal
//!      \--> plain    a line per fact, where it is not
//!      \--> summary  the end: outcomes, facts, warnings, where the results lie, what to do about a failure
//!      \--> json     JSON Lines for programs
//!      \--> html     one file with everything, for `pipe report`
//!      \--> trace    what ran beside what, for Perfetto
//! RunRecord --> runs, run_diff    lists and comparisons of runs that are over
//! Verified --> verification   what `pipe verify` found, for people, programs and CI
//! Pipeline, Plan --> plan_table, graph_text   screens of `pipe plan`, `pipe explain` and `pipe graph`
//! ```
//!
//! Each is a fold over the events or a pure function to text. No meaning is in colour alone, and nothing here decides
//! anything.

mod escape;
pub mod graph_text;
pub mod html;
pub mod json;
pub mod live;
pub mod numbers;
pub mod plain;
pub mod plan_table;
pub mod progress;
pub mod run_diff;
pub mod runs;
pub mod shell;
pub mod style;
pub mod summary;
pub mod trace;
pub mod verification;
mod why;
