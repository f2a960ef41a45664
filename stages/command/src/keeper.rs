//! The keeper: one tiny process for all commands of this pipe, which ends what they started when pipe is gone, however it went.
//!
//! ```text
//! pipe --stdin--> keeper (sh)     reads until its stdin is closed: by the kernel, when pipe is no more
//!   |                             then kills what has the mark in its environment, until there is nothing
//!   \--> command, and what it starts: PIPE_KEEPER=<mark> in the environment
//! ```
//!
//! Only pipe holds the other end of that stdin: it is closed on exec. A child between fork and exec holds it too, so the
//! keeper does not look before that child has its mark. It costs a command nothing: the mark is a variable, and the keeper was
//! started for the first one.
//!
//! It finds what left the command's process group, or made a session of its own. It deliberately does not reach what dropped the
//! variable, nor anything where there is no `/proc`: [`crate::group`] ends a command while pipe lives.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// The variable that holds the mark.
pub(crate) const VARIABLE: &str = "PIPE_KEEPER";

/// `read` is a builtin: one process, until there is something to do. A process that is dead but not waited for has no environment.
/// `grep` fails where a process is another user's, so what it prints counts. What the kernel cannot end, it gives up on.
const SCRIPT: &str = r#"trap '' HUP INT QUIT TERM
read -r _
n=0
while [ $n -lt 500 ]; do
  found=$(grep -lsF "$1" /proc/[0-9]*/environ)
  [ -n "$found" ] || exit 0
  for file in $found; do file=${file#/proc/}; kill -KILL "${file%/environ}"; done
  n=$((n + 1))
done"#;

struct Keeper {
    mark: String,
    // Its stdin is open as long as this process lives.
    _process: Child,
}

static KEEPER: Mutex<Option<Keeper>> = Mutex::new(None);

/// The value of [`VARIABLE`] for every command of this process; starts the keeper for the first.
pub(crate) fn mark() -> io::Result<String> {
    let mut keeper = KEEPER.lock().unwrap_or_else(PoisonError::into_inner);
    if keeper.is_none() {
        *keeper = Some(start()?);
    }
    Ok(keeper.as_ref().expect("it was just started").mark.clone())
}

fn start() -> io::Result<Keeper> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // No other process ever had both.
    let mark = format!("{}-{}", std::process::id(), since_epoch.as_nanos());
    let process = Command::new("/bin/sh")
        .args(["-c", SCRIPT, "pipe-keeper", &format!("{VARIABLE}={mark}")])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/")
        // A signal for the group of pipe is not for the keeper.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Keeper { mark, _process: process })
}
