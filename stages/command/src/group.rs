//! The process group of a command: asked to end, ended, waited for.
//!
//! ```text
//! spawn in a group of its own --> signal() ... --> its leader ends --> the rest is killed --> the leader is waited for
//! ```
//!
//! Until its leader is waited for, nobody else can get the number of the group, so no signal can reach another process.

use std::io;
use std::process::{Child, ExitStatus};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, test_kill_process_group, waitid};

/// The kernel ends what was killed at once, but not before `kill` returns; what is dead may wait long for who reaps it.
const END_WAIT_MAX: Duration = Duration::from_millis(500);
const END_WAIT: Duration = Duration::from_millis(1);

/// The group of a command, while there is one.
#[derive(Default)]
pub(crate) struct Group(Mutex<Option<Pid>>);

impl Group {
    /// Sends a signal to every process of the group. Whether there is one: not before the command was started, nor after it ended.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        let group = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody left is what is wanted.
        group.is_some_and(|group| kill_process_group(group, signal).is_ok())
    }

    /// Waits for the end of `leader`, which was started in a group of its own, and ends what it left in it.
    pub(crate) fn wait(&self, mut leader: Child) -> io::Result<ExitStatus> {
        let group = Pid::from_child(&leader);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(group);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(Errno::INTR) = waitid(WaitId::Pid(group), options) {}
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = kill_process_group(group, Signal::KILL);
        *open = None;
        let status = leader.wait()?;
        let mut waited = Duration::ZERO;
        while test_kill_process_group(group).is_ok() && waited < END_WAIT_MAX {
            thread::sleep(END_WAIT);
            waited += END_WAIT;
        }
        Ok(status)
    }
}
