//! The runner from the outside: whole commands in a folder of their own, with stage kinds made for the purpose.
//!
//! One binary, one file per command; screens are inline snapshots in which only durations, folders and run ids are replaced.

#[macro_use]
mod sandbox;
mod figures;
mod kinds;

mod binary;
mod browser;
mod cache;
mod check;
mod command;
mod doctor;
mod explain;
mod failures;
mod force;
mod from;
mod gc;
mod get;
mod graph;
mod json;
mod keep_going;
mod lock;
mod locked;
mod matrix;
mod place;
mod plan;
mod pools;
mod predictions;
mod prepare;
mod report;
mod run;
mod runs;
mod schema;
mod shell;
mod show;
mod signals;
#[path = "../../cache/tests/store/simulated_disk.rs"]
mod simulated_disk;
mod stages;
mod together;
mod trace;
mod tries;
mod until;
mod update;
mod verify;
mod verify_spot;
mod watch;
