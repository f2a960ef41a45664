//! A command as a process: started, listened to, ended.
//!
//! ```text
//! thread: (sandbox) start, wait, end its group ----Ended----> this thread: tells lines, looks at the cancel token
//! thread: read one pipe for stdout and stderr --Said--/
//! ```
//!
//! stdout and stderr are one pipe, so lines come in the order in which they were written. A command is asked to end with
//! TERM, and ended with KILL.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use pipe_contract::CancelToken;
use rustix::process::Signal;

use crate::error::CommandError;
use crate::group::Group;
use crate::lines::Lines;
use crate::sandbox::Sandbox;
use crate::secrets::Secrets;

/// How often the cancel token is looked at.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);

/// From TERM to KILL: enough to write a checkpoint, short enough to wait for at a terminal.
const GRACE: Duration = Duration::from_secs(5);

/// For the pipe to close after all of the group was killed: the kernel needs milliseconds, on a busy machine more.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Messages on their way: a command that prints faster than lines can be told waits.
const N_MESSAGES: usize = 64;
const READ_BYTES: usize = 8192;

/// What to start.
pub(crate) struct Call {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: BTreeMap<String, OsString>,
    pub(crate) dir: PathBuf,
    pub(crate) sandbox: Option<Sandbox>,
}

enum Message {
    Said(Vec<u8>),
    Ended(Result<ExitStatus, CommandError>),
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
    let group = Arc::new(Group::default());
    let (sender, messages) = sync_channel(N_MESSAGES);
    let said = sender.clone();
    thread::Builder::new().name("command-reader".into()).spawn(move || read(reader, &said)).map_err(failed)?;
    let group_of_starter = Arc::clone(&group);
    let starter = move || drop(sender.send(Message::Ended(start_and_wait(call, &group_of_starter, writer))));
    thread::Builder::new().name("command".into()).spawn(starter).map_err(failed)?;

    let mut lines = Lines::new(secrets, Instant::now());
    let ended = listen(&messages, &group, cancel, &mut lines, tell);
    let is_closed = drain(&messages, &mut lines, tell);
    lines.finish(Instant::now(), tell);
    let status = ended?;
    if is_closed { Ok(status) } else { Err(CommandError::LeftRunning) }
}

/// Takes messages until the command has ended, and all of its group.
fn listen(
    messages: &Receiver<Message>,
    group: &Group,
    cancel: &CancelToken,
    lines: &mut Lines<'_>,
    tell: &mut dyn FnMut(String),
) -> Result<ExitStatus, CommandError> {
    let mut kill_at: Option<Instant> = None;
    loop {
        let message = messages.recv_timeout(CANCEL_INTERVAL);
        let now = Instant::now();
        match message {
            Ok(Message::Said(bytes)) => lines.take(&bytes, now, tell),
            Ok(Message::Ended(_)) if cancel.is_cancelled() => return Err(CommandError::Cancelled),
            Ok(Message::Ended(status)) => return status,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => unreachable!("the starter sends how the command ended"),
        }
        match kill_at {
            // One that is just being started is asked the next time.
            None if cancel.is_cancelled() && group.signal(Signal::TERM) => kill_at = Some(now + GRACE),
            // Again, should it start processes faster than they are ended.
            Some(at) if now >= at => drop(group.signal(Signal::KILL)),
            _ => {}
        }
    }
}

/// Takes what is still in the pipe. Whether nobody has it open any more.
fn drain(messages: &Receiver<Message>, lines: &mut Lines<'_>, tell: &mut dyn FnMut(String)) -> bool {
    let until = Instant::now() + CLOSE_WAIT_MAX;
    loop {
        let now = Instant::now();
        match messages.recv_timeout(until.saturating_duration_since(now)) {
            Ok(Message::Said(bytes)) => lines.take(&bytes, now, tell),
            Ok(Message::Ended(_)) => {}
            Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
    }
}

/// Reads until the last process that has the pipe is gone.
fn read(mut reader: PipeReader, said: &SyncSender<Message>) {
    let mut buffer = [0; READ_BYTES];
    loop {
        match reader.read(&mut buffer) {
            Ok(n_read) if n_read > 0 => {
                if said.send(Message::Said(buffer[..n_read].to_vec())).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// On a thread of its own: a sandbox is of the thread that enters it, and of what that thread starts.
fn start_and_wait(call: Call, group: &Group, writer: PipeWriter) -> Result<ExitStatus, CommandError> {
    let failed = |source| CommandError::Io { verb: "start", path: call.program.clone(), source };
    if let Some(sandbox) = &call.sandbox {
        sandbox.enter()?;
    }
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
    let started = command.spawn();
    // It has the pipe, and would keep it open.
    drop(command);
    group.wait(started.map_err(failed)?).map_err(failed)
}
