//! The promises of the store, kept against its public interface.
//!
//! One binary, so that it links once: `sandbox` is the harness, each other module is one promise.

mod adopt;
mod crash;
mod divergence;
mod faults;
mod gc;
mod gc_crash;
mod inspect;
mod lookup;
mod opening;
mod power_cut;
mod processes;
mod publish;
mod restore;
mod sandbox;
mod semantic;
mod simulated_disk;
mod stat_memo;
