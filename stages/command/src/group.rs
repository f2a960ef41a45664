//! The process group of a command: asked to end, ended, waited for.
//!
//! ```text
//! its leader was started --> signal() ... --> the leader ends --> end(): the rest is killed, the leader is waited for
//! ```
//!
//! Until its leader is waited for, nobody else can get the number of the group, so no signal can reach another process.

use std::io;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, test_kill_process_group, waitid};

/// The kernel ends what was killed at once, but not before `kill` returns; what is dead may wait long for who reaps it.
const END_WAIT_MAX: Duration = Duration::from_millis(500);
const END_WAIT: Duration = Duration::from_millis(1);

/// The group of a command.
pub(crate) struct Group {
    leader: Child,
}

impl Group {
    /// `leader` was started in a group of its own.
    pub(crate) fn of(leader: Child) -> Self {
        Group { leader }
    }

    /// Whether the leader has ended. It is not waited for.
    pub(crate) fn has_ended(&self) -> io::Result<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(self.number()), options) {
            Ok(status) => Ok(status.is_some()),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a signal to every process of the group.
    pub(crate) fn signal(&self, signal: Signal) {
        // Nobody left is what is wanted.
        let _ = kill_process_group(self.number(), signal);
    }

    /// Ends the leader, and what is left in the group; says how the leader ended.
    pub(crate) fn end(mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::KILL);
        let status = self.leader.wait()?;
        let mut waited = Duration::ZERO;
        while test_kill_process_group(self.number()).is_ok() && waited < END_WAIT_MAX {
            thread::sleep(END_WAIT);
            waited += END_WAIT;
        }
        Ok(status)
    }

    fn number(&self) -> Pid {
        Pid::from_child(&self.leader)
    }
}
