//! Points at which a run is killed, and what must be so after each.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long processes may take to notice that they have nobody any more. They need milliseconds; the machine may be busy.
const SURVIVAL_MAX: Duration = Duration::from_secs(10);

/// After an event, a point lies up to so many microseconds later.
const JITTER_US: u64 = 3_000;

/// In a project's folder.
const BINARY: &str = "pipe-to-kill";

/// A folder with a pipeline, and how it is run.
pub(crate) struct Project {
    folder: tempfile::TempDir,
    /// Behind `pipe run`.
    arguments: Vec<String>,
    /// The folders and the lock file that a run writes besides its store.
    written: Vec<&'static str>,
}

/// What an undisturbed run leaves, and how it went.
pub(crate) struct Clean {
    pub(crate) results: Results,
    pub(crate) duration: Duration,
    pub(crate) n_events: u64,
}

/// Path to a digest of the bytes there.
pub(crate) type Results = BTreeMap<PathBuf, String>;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `pipe` and all that belongs to its process group.
    Group,
    /// `pipe` alone.
    Parent,
}

/// When.
#[derive(Clone, Copy, Debug)]
enum When {
    After(Duration),
    /// So long after so many events were read.
    AtEvent(u64, Duration),
}

/// Numbers that look random, from a seed.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        let mut numbers = Numbers(seed);
        numbers.below(1);
        numbers
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// What came of some points.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    n_points: usize,
    n_group: usize,
    n_parent: usize,
    /// Runs that ended of themselves before their point came.
    n_ended: usize,
    /// Points at which processes of stages ran.
    n_with_children: usize,
    /// Kills by how many stages had ended: the points lie everywhere.
    by_stage: BTreeMap<usize, usize>,
    longest_survival: Duration,
}

/// A run on its way, and its events.
struct Running {
    child: Child,
    events: Receiver<String>,
    n_read: u64,
    n_finished: usize,
}

impl Project {
    /// Around a folder with a pipeline. It gets a copy of the binary: what is built beside a long loop is not for it.
    pub(crate) fn new(folder: tempfile::TempDir, arguments: Vec<String>, written: Vec<&'static str>) -> Self {
        fs::copy(env!("CARGO_BIN_EXE_pipe"), folder.path().join(BINARY)).expect("it was built");
        Project { folder, arguments, written }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.folder.path().join(BINARY));
        command.current_dir(self.folder.path()).arg("run").args(&self.arguments);
        command.env_remove("PIPE_STORE").env_remove("CI").env("PIPE_LEDGER", self.folder.path().join("ledger"));
        command
    }

    fn start(&self) -> Running {
        // stdin is the run's own: whoever holds the terminal is not part of it.
        let mut child = self
            .command()
            .arg("--json")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("pipe starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (sender, events) = channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Running { child, events, n_read: 0, n_finished: 0 }
    }

    /// Takes away all that runs wrote; what they read keeps its inode and times.
    fn clean_up(&self) {
        for name in self.written.iter().chain(&[".pipe"]) {
            let path = self.folder.path().join(name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            assert!(removed.is_ok() || !path.exists(), "{}", path.display());
        }
    }

    /// An undisturbed run from nothing.
    pub(crate) fn run_clean(&self) -> Clean {
        self.clean_up();
        let begin = Instant::now();
        let mut running = self.start();
        running.read_to_the_end();
        assert_eq!(running.child.wait().expect("it ends").code(), Some(0), "an undisturbed run");
        Clean { duration: begin.elapsed(), n_events: running.n_read, results: self.results() }
    }

    /// A run to its end, after whatever there was: it succeeds.
    fn run_again(&self, point: &str) {
        let output = self.command().stdin(Stdio::null()).output().expect("pipe starts");
        let code = output.status.code();
        assert_eq!(code, Some(0), "{point}: the run after it: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Blobs and manifests, `to:` folders, the lock file; and nothing is left behind in the store.
    fn results(&self) -> Results {
        let mut results = Results::new();
        for name in self.written.iter().chain(&[".pipe/blobs", ".pipe/manifests", ".pipe/divergences", ".pipe/corrupt"])
        {
            collect(self.folder.path(), Path::new(name), &mut results);
        }
        for folder in ["tmp", "gc/holds", "locks"] {
            let left: Vec<PathBuf> = entries(&self.folder.path().join(".pipe").join(folder));
            assert!(left.is_empty(), "left in `{folder}`: {left:?}");
        }
        results
    }

    /// Processes that were started by a run of this project: they work in its folder.
    fn processes(&self) -> Vec<String> {
        let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
        let mut found = Vec::new();
        for process in entries(Path::new("/proc")) {
            let name = process.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // What ends while it is looked at, and what is another user's, has no folder to read.
            let Ok(folder) = fs::read_link(process.join("cwd")) else { continue };
            if is_number(&name) && folder.starts_with(self.folder.path()) {
                let words = fs::read(process.join("cmdline")).unwrap_or_default();
                found.push(format!("{name} {}", String::from_utf8_lossy(&words).replace('\0', " ")));
            }
        }
        found
    }

    /// Kills a run at each of `n_points` points and demands that the next one ends as `clean`.
    pub(crate) fn kill_at_points(&self, clean: &Clean, seed: u64, n_points: usize) -> Tally {
        let mut numbers = Numbers::new(seed);
        let mut tally = Tally::default();
        for number in 0..n_points {
            // Whole groups and parents alone take turns, and so do times and events: as many points of each.
            let target = if number % 2 == 0 { Target::Group } else { Target::Parent };
            let when =
                if number % 4 < 2 { at_some_time(&mut numbers, clean) } else { at_some_event(&mut numbers, clean) };
            self.clean_up();
            let point = format!("seed {seed}, point {number}, {target:?} {when:?}");
            self.kill_at(&point, target, when, clean, number % 8 < 4, &mut tally);
            if number % 25 == 24 {
                eprintln!("seed {seed}, so far {}", tally.text());
            }
        }
        tally
    }

    /// `waits`: whether the next run begins only once nothing of this one is left; else at once.
    fn kill_at(&self, point: &str, target: Target, when: When, clean: &Clean, waits: bool, tally: &mut Tally) {
        let mut running = self.start();
        let is_over = running.wait_for(when);
        tally.n_with_children += usize::from(self.processes().len() > 1);
        kill(&running.child, target);
        let status = running.child.wait().expect("it ends");
        let killed_at = Instant::now();
        tally.n_points += 1;
        tally.n_ended += usize::from(is_over || status.code().is_some());
        *(if target == Target::Group { &mut tally.n_group } else { &mut tally.n_parent }) += 1;
        *tally.by_stage.entry(running.n_finished).or_default() += 1;
        if waits {
            self.assert_no_process_is_left(point, killed_at);
            tally.longest_survival = tally.longest_survival.max(killed_at.elapsed());
        }
        self.run_again(point);
        self.assert_no_process_is_left(point, Instant::now());
        let results = self.results();
        if results != clean.results {
            panic!("{point}: {:#?}", differences(&clean.results, &results));
        }
    }

    fn assert_no_process_is_left(&self, point: &str, since: Instant) {
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            assert!(since.elapsed() < SURVIVAL_MAX, "{point}: these live on: {left:#?}");
            thread::yield_now();
        }
    }
}

fn at_some_time(numbers: &mut Numbers, clean: &Clean) -> When {
    // A little beyond the end: what is done after the last event belongs to a run too.
    let end_us = u64::try_from(clean.duration.as_micros()).expect("no run takes that long") * 21 / 20;
    When::After(Duration::from_micros(numbers.below(end_us)))
}

fn at_some_event(numbers: &mut Numbers, clean: &Clean) -> When {
    When::AtEvent(1 + numbers.below(clean.n_events), Duration::from_micros(numbers.below(JITTER_US)))
}

impl Running {
    fn note(&mut self, line: &str) {
        self.n_read += 1;
        self.n_finished += usize::from(line.contains("\"stage_finished\""));
    }

    fn read_to_the_end(&mut self) {
        while let Ok(line) = self.events.recv() {
            self.note(&line);
        }
    }

    /// Reads events until the moment has come. Returns whether they ended before.
    fn wait_for(&mut self, when: When) -> bool {
        let begin = Instant::now();
        let deadline = match when {
            When::After(duration) => begin + duration,
            When::AtEvent(n, jitter) => {
                while self.n_read < n {
                    let Ok(line) = self.events.recv() else { return true };
                    self.note(&line);
                }
                Instant::now() + jitter
            }
        };
        loop {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.note(&line),
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
    }
}

impl Tally {
    /// One line, and a line on where the points lie.
    pub(crate) fn text(&self) -> String {
        format!(
            "{} points: {} with the whole group, {} the parent alone; {} runs had ended before; processes of stages ran at {}, \
             and the last was gone {} ms after the kill\nstages that had ended: {:?}",
            self.n_points,
            self.n_group,
            self.n_parent,
            self.n_ended,
            self.n_with_children,
            self.longest_survival.as_millis(),
            self.by_stage
        )
    }

    pub(crate) fn n_with_children(&self) -> usize {
        self.n_with_children
    }

    pub(crate) fn n_killed(&self) -> usize {
        self.n_points - self.n_ended
    }
}

fn kill(child: &Child, target: Target) {
    let id = child.id().to_string();
    let whom = if target == Target::Group { format!("-{id}") } else { id };
    // It may have ended of itself.
    let _ = Command::new("kill").args(["-KILL", "--", &whom]).stderr(Stdio::null()).status();
}

/// What is on one side only, or has other bytes.
fn differences(clean: &Results, found: &Results) -> Vec<String> {
    let of_clean = clean.iter().filter_map(|(path, digest)| match found.get(path) {
        None => Some(format!("{} is not there", path.display())),
        Some(other) => (other != digest).then(|| format!("{} has other bytes", path.display())),
    });
    let more = found.keys().filter(|path| !clean.contains_key(*path)).map(|path| format!("{} is new", path.display()));
    of_clean.chain(more).collect()
}

fn collect(root: &Path, name: &Path, results: &mut Results) {
    let path = root.join(name);
    if path.is_dir() {
        for entry in entries(&path) {
            collect(root, &name.join(entry.file_name().expect("an entry has a name")), results);
        }
    } else if path.exists() {
        let bytes = fs::read(&path).expect("readable");
        let bytes = if name.starts_with(".pipe/manifests") { without_measurements(&bytes) } else { bytes };
        results.insert(name.to_path_buf(), blake3::hash(&bytes).to_hex().to_string());
    }
}

/// A manifest without what was measured when it was made: the facts that a summary shows have the peak of memory.
fn without_measurements(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(bytes.to_vec()).expect("a manifest is text");
    if !text.contains("\"peak memory\"") {
        return bytes.to_vec();
    }
    let (body, _checksum) = text.trim_end().rsplit_once('\n').expect("a last line");
    let mut manifest: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let facts = manifest["facts"].as_array_mut().expect("a list");
    facts.retain(|fact| fact[0] != "peak memory");
    manifest.to_string().into_bytes()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// `PIPE_SEED` and `PIPE_POINTS`, or these.
pub(crate) fn seed_and_points(seed: u64, n_points: usize) -> (u64, usize) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    (number("PIPE_SEED").unwrap_or(seed), number("PIPE_POINTS").map_or(n_points, |n| usize::try_from(n).expect("few")))
}
