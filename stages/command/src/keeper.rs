//! A keeper: a tiny process that leads the process group of a command and ends it when pipe does, however that ends.
//!
//! ```text
//! pipe --stdin--> keeper (sh)        reads until its stdin is closed: by pipe, or by the kernel when pipe is no more
//!                   | same group     then kills the group
//!                 command, and what it starts
//! ```
//!
//! Only pipe holds the other end of that stdin: it is closed on exec. A child between fork and exec holds it too, so the
//! keeper cannot act before that child is in the group. While the keeper has not been waited for, nobody else can get the
//! number of the group.
//!
//! It deliberately does not reach a process that leaves the group for a session of its own (`setsid`).

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

/// Signals for the command do not end it. `read` is a builtin: one process, no more.
const SCRIPT: &str = "trap '' HUP INT QUIT TERM; read -r _; kill -KILL 0";

/// The kernel ends what was killed at once, but not before `kill` returns; what is dead may wait long for who reaps it.
const END_WAIT_MAX: Duration = Duration::from_millis(500);
const END_WAIT: Duration = Duration::from_millis(1);

/// A process group that ends with this value, or with the process that has it.
pub(crate) struct Keeper {
    process: Child,
}

impl Keeper {
    /// Starts one, in a group of its own.
    pub(crate) fn start() -> io::Result<Self> {
        let process = Command::new("/bin/sh")
            .args(["-c", SCRIPT])
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Keeper { process })
    }

    /// The number of its group, for [`CommandExt::process_group`].
    pub(crate) fn group(&self) -> i32 {
        i32::try_from(self.process.id()).expect("the kernel's process numbers are positive i32")
    }

    /// Sends a signal to every process of the group.
    pub(crate) fn signal(&self, signal: Signal) {
        // Nobody left is what is wanted.
        let _ = kill_process_group(self.pid(), signal);
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }
}

impl Drop for Keeper {
    /// Ends the group, and waits until nothing of it can write any more.
    fn drop(&mut self) {
        let group = self.pid();
        self.signal(Signal::KILL);
        let _ = self.process.wait();
        let mut waited = Duration::ZERO;
        while test_kill_process_group(group).is_ok() && waited < END_WAIT_MAX {
            thread::sleep(END_WAIT);
            waited += END_WAIT;
        }
    }
}
