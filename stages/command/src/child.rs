//! A command as a process: started, listened to, ended.
//!
//! ```text
//! (sandbox) start --> its output as it comes, its end, the cancel token --> end its group --> the rest of its output
//! ```
//!
//! stdout and stderr are one pipe, so lines come in the order in which they were written. A command is asked to end with
//! TERM, and ended with KILL. All of it happens on the thread of the stage: a thread costs as much as a small command.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pipe_contract::CancelToken;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::error::CommandError;
use crate::group::Group;
use crate::lines::Lines;
use crate::sandbox::Sandbox;
use crate::secrets::Secrets;

/// How often the cancel token is looked at, and whether a command has ended that left its output open.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);

/// A process closes its files just before it ends: the first look again, doubled up to [`CANCEL_INTERVAL`].
const END_INTERVAL_MIN: Duration = Duration::from_micros(20);

/// From TERM to KILL: enough to write a checkpoint, short enough to wait for at a terminal.
const GRACE: Duration = Duration::from_secs(5);

/// For the pipe to close after all of the group was killed: the kernel needs milliseconds, on a busy machine more.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(10);

const READ_BYTES: usize = 8192;

/// What to start.
pub(crate) struct Call {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: BTreeMap<String, OsString>,
    pub(crate) dir: PathBuf,
    pub(crate) sandbox: Option<Sandbox>,
}

/// What a command prints, until the last process that has the pipe is gone.
struct Output<'a> {
    /// `None` once it is closed.
    reader: Option<PipeReader>,
    lines: Lines<'a>,
    tell: &'a mut dyn FnMut(String),
}

/// Runs a command to its end, and tells what it says. Nothing of it is left when this returns.
pub(crate) fn run(
    call: Call,
    secrets: &Secrets,
    cancel: &CancelToken,
    tell: &mut dyn FnMut(String),
) -> Result<ExitStatus, CommandError> {
    let program = call.program.clone();
    let failed = |source| CommandError::Io { verb: "start", path: program.clone(), source };
    let (reader, writer) = io::pipe().map_err(failed)?;
    let group = Group::of(start(call, writer)?);
    let mut output = Output { reader: Some(reader), lines: Lines::new(secrets, Instant::now()), tell };
    let ended = listen(&group, cancel, &mut output);
    let status = group.end().map_err(failed);
    let is_closed = output.drain();
    let Output { lines, tell, .. } = output;
    lines.finish(Instant::now(), tell);
    ended.map_err(failed)?;
    let status = status?;
    if cancel.is_cancelled() {
        return Err(CommandError::Cancelled);
    }
    if is_closed { Ok(status) } else { Err(CommandError::LeftRunning) }
}

/// Takes what the command says until it has ended, by itself or because it was stopped.
fn listen(group: &Group, cancel: &CancelToken, output: &mut Output<'_>) -> io::Result<()> {
    let mut kill_at: Option<Instant> = None;
    let mut end_interval = END_INTERVAL_MIN;
    while !group.has_ended()? {
        if output.reader.is_some() {
            output.take(CANCEL_INTERVAL)?;
        } else {
            thread::sleep(end_interval);
            end_interval = (end_interval * 2).min(CANCEL_INTERVAL);
        }
        match kill_at {
            None if cancel.is_cancelled() => {
                group.signal(Signal::TERM);
                kill_at = Some(Instant::now() + GRACE);
            }
            Some(at) if Instant::now() >= at => return Ok(()),
            _ => {}
        }
    }
    Ok(())
}

impl Output<'_> {
    /// Waits until there is something or it is closed, so long at most, and takes what is there.
    fn take(&mut self, timeout: Duration) -> io::Result<()> {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        let timeout = Timespec::try_from(timeout).expect("some seconds");
        match poll(&mut [PollFd::new(reader, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut buffer = [0; READ_BYTES];
        match reader.read(&mut buffer) {
            Ok(0) => self.reader = None,
            Ok(n_read) => self.lines.take(&buffer[..n_read], Instant::now(), self.tell),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes what is still in the pipe. Whether nobody has it open any more.
    fn drain(&mut self) -> bool {
        let until = Instant::now() + CLOSE_WAIT_MAX;
        while self.reader.is_some() && Instant::now() < until {
            if self.take(CANCEL_INTERVAL).is_err() {
                break;
            }
        }
        self.reader.is_none()
    }
}

/// A sandbox is of the thread that enters it and of what that thread starts, so that one begins and ends here.
fn start(mut call: Call, writer: PipeWriter) -> Result<Child, CommandError> {
    let Some(sandbox) = call.sandbox.take() else { return spawn(&call, writer) };
    let program = call.program.clone();
    let failed = |source| CommandError::Io { verb: "start", path: program, source };
    let inside = move || {
        sandbox.enter()?;
        spawn(&call, writer)
    };
    let thread = thread::Builder::new().name("command".into()).spawn(inside).map_err(failed)?;
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn spawn(call: &Call, writer: PipeWriter) -> Result<Child, CommandError> {
    let failed = |source| CommandError::Io { verb: "start", path: call.program.clone(), source };
    let mut command = Command::new(&call.program);
    command
        .args(&call.arguments)
        .env_clear()
        .envs(&call.environment)
        .current_dir(&call.dir)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(writer.try_clone().map_err(failed)?)
        .stderr(writer);
    // The command has the pipe, and would keep it open: it ends with this function.
    command.spawn().map_err(failed)
}
