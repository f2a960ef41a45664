//! Signals to a running process: this test binary starts itself again and runs a command with the fake stage kinds.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};

use crate::kinds;
use crate::sandbox::Sandbox;

const STAGES: &str = "
  rows: { uses: make, with: { value: hello } }
  slow: { uses: change, inputs: { rows: rows }, with: { suffix: '!', label: slow } }
";

/// In the child: the arguments of the command.
const ARGUMENTS: &str = "PIPE_E2E_ARGUMENTS";

/// Not a test of its own: what the child runs. Without arguments it does nothing.
#[test]
fn child() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else { return };
    let words = std::iter::once("pipe").chain(arguments.split_whitespace()).map(OsString::from);
    let code = pipe_lm::cli::main_with(kinds::registry(), words);
    // ExitCode shows nothing of itself; a test's own exit code would be 0 or 101.
    let is = |expected: u8| code == std::process::ExitCode::from(expected);
    std::process::exit((0..=255u8).find(|&expected| is(expected)).map_or(255, i32::from));
}

/// A running command, once its stage `slow` has said `waiting`.
pub(crate) struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStderr>>,
}

impl Running {
    fn start(sandbox: &Sandbox) -> Self {
        Running::start_until(sandbox, "slow  | waiting")
    }

    fn start_until(sandbox: &Sandbox, line: &str) -> Self {
        let mut running = Running::spawn(sandbox, &[]);
        running.wait_for(line);
        running
    }

    /// With further environment variables, at its beginning.
    pub(crate) fn spawn(sandbox: &Sandbox, environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "signals::child", "--nocapture"])
            .env(ARGUMENTS, "run p.yaml --threads 2")
            .envs(environment.iter().copied())
            .current_dir(sandbox.path(""))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this binary starts");
        let stderr = child.stderr.take().expect("it is piped");
        Running { child, lines: BufReader::new(stderr).lines() }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn wait_for(&mut self, wanted: &str) {
        self.wait_until(wanted, |line| line == wanted);
    }

    /// For a line that begins so.
    pub(crate) fn wait_for_start(&mut self, wanted: &str) {
        self.wait_until(wanted, |line| line.starts_with(wanted));
    }

    fn wait_until(&mut self, wanted: &str, is_it: impl Fn(&str) -> bool) {
        let mut seen = Vec::new();
        for line in &mut self.lines {
            let line = line.expect("readable");
            if is_it(&line) {
                return;
            }
            seen.push(line);
        }
        panic!("it ended without `{wanted}`:\n{}", seen.join("\n"));
    }

    pub(crate) fn send(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.expect("there is a `kill`").success());
    }

    /// The exit code and the rest of stderr.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let rest: Vec<String> = (&mut self.lines).map(|line| line.expect("readable")).collect();
        (self.child.wait().expect("it ends").code(), rest.join("\n"))
    }
}

impl Drop for Running {
    /// A failed test leaves no process behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn ctrl_c_ends_cleanly_and_the_next_run_goes_on() {
    for signal in ["-INT", "-TERM"] {
        let sandbox = Sandbox::with_stages(STAGES);
        sandbox.behave("slow", "wait");
        let running = Running::start(&sandbox);
        running.send(signal);
        let (code, err) = running.end();
        assert_eq!(code, Some(130), "{err}");
        assert!(err.contains("interrupted; kept: 1 finished stage; go on with: pipe run p.yaml --threads 2"), "{err}");
        sandbox.behave("slow", "well");
        assert_eq!(sandbox.outcomes("run p.yaml"), "rows reused, slow ran");
    }
}

#[test]
fn ctrl_c_ends_a_run_that_waits_for_a_remote() {
    let sandbox = Sandbox::with_stages("  far: { uses: remote, with: { value: silent } }\n");
    let mut running = Running::start_until(&sandbox, "far  | asking for the revision of things/silent@main");
    running.send("-INT");
    running.wait_for("interrupting; press Ctrl-C again to end at once");
    let (code, err) = running.end();
    assert_eq!(code, Some(130), "{err}");
    assert!(err.contains("far  cancelled"), "{err}");
}

#[test]
fn ctrl_c_ends_a_run_that_waits_for_changes() {
    let sandbox = Sandbox::with_stages("  rows: { uses: make, with: { value: one } }\n");
    let changed = sandbox.read("p.yaml").replace("one", "another");
    let mut running = Running::spawn(&sandbox, &[(ARGUMENTS, "run p.yaml --watch")]);
    running.wait_for("watching p.yaml; Ctrl-C ends");
    sandbox.write("p.yaml", &changed);
    running.wait_for("p.yaml changed");
    running.wait_for("watching p.yaml; Ctrl-C ends");
    running.send("-INT");
    assert_eq!(running.end(), (Some(0), "interrupting; press Ctrl-C again to end at once".to_string()));
    assert_eq!(sandbox.outcomes("run p.yaml"), "rows reused");
}

#[test]
fn a_second_ctrl_c_ends_at_once() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.behave("slow", "deaf");
    let mut running = Running::start(&sandbox);
    running.send("-INT");
    running.wait_for("slow  | not listening");
    running.send("-INT");
    let (code, err) = running.end();
    assert_eq!((code, err.as_str()), (Some(130), ""));
    sandbox.behave("slow", "well");
    assert_eq!(sandbox.outcomes("run p.yaml"), "rows reused, slow ran");
}

#[test]
fn a_killed_process_leaves_nothing_behind() {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.behave("slow", "wait");
    let running = Running::start(&sandbox);
    assert_eq!(attempts(&sandbox), 1);
    running.send("-KILL");
    assert_eq!(running.end().0, None);
    sandbox.behave("slow", "well");
    assert_eq!(sandbox.outcomes("run p.yaml"), "rows reused, slow ran");
    assert_eq!(attempts(&sandbox), 0);
}

/// Folders of stages that run.
fn attempts(sandbox: &Sandbox) -> usize {
    let entries = std::fs::read_dir(sandbox.path(".pipe/tmp")).expect("it was made");
    entries.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_dir())).count()
}
