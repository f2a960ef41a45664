//! `download` against servers on the loopback interface: `tools/hub_server.py` in PIPE_TEST_DATA, one for each test, and
//! small ones in this process.

mod configs;
mod faults;
mod interop;
mod network;
mod parallel;
mod repositories;
mod sources;
mod support;
