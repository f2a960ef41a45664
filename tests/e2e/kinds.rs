//! Stage kinds for tests: small, and badly behaved on demand.
//!
//! | kind | what it does |
//! |---|---|
//! | `make` | writes its setting `value` to `value.txt` |
//! | `change` | writes its input, cut to `first` characters, and `suffix` behind it |
//! | `grow` | `change` whose `suffix` only extends it: its checkpoints outlive its outputs, and say which suffix was last; it can be spot-checked |
//! | `join` | writes its inputs, one after the other; the second is optional |
//! | `meet` | waits until another stage of the same `room` has started, then writes |
//! | `files` | digests and copies a local file, or those of a folder |
//! | `refer` | publishes a local file by reference |
//! | `remote` | a file that depends on the commit that `name@main` stands for |
//! | `classy` | its bytes are said to depend on a compute class |
//! | `command` | the real one, with an environment of the tests' own |
//!
//! Every other kind takes `label`, which is not in the key: the file `LABEL.mode` beside the pipeline says how it behaves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use pipe_contract::{
    Artifact, ArtifactKind, Context, Cpu, ExternalFile, Figure, InputPort, KeySettings, OutputPort, Reader, Resolved,
    Source, SpotCheck, Stage, StageError, StageKind, Unit,
};
use pipe_lm::cli::Environment;
use pipe_lm::registry::Registry;
use pipe_stage_command::CommandKind;

use crate::sandbox::execute_in;
use crate::{command, figures};

pub(crate) fn registry() -> Registry {
    Registry::new(vec![&MAKE, &CHANGE, &GROW, &JOIN, &MEET, &FILES, &REFER, &REMOTE, &CLASSY, &COMMAND])
}

type Work = fn(&Fake, &mut Context<'_>) -> Result<String, StageError>;

/// One kind: its ports and its work, which gives the text of its only output.
struct FakeKind {
    name: &'static str,
    summary: &'static str,
    inputs: &'static [InputPort],
    work: Work,
}

/// A stage of any of them.
struct Fake {
    kind: &'static str,
    value: String,
    suffix: String,
    first: Option<u64>,
    room: String,
    class: String,
    label: String,
    work: Work,
}

const ROWS: InputPort = InputPort { name: "rows", kind: ArtifactKind::Rows, is_required: true };
const OUTPUTS: &[OutputPort] = &[OutputPort { name: "rows", kind: ArtifactKind::Rows }];

static MAKE: FakeKind =
    FakeKind { name: "make", summary: "writes a value", inputs: &[], work: |fake, _| Ok(fake.value.clone()) };
static CHANGE: FakeKind = FakeKind { name: "change", summary: "changes a text", inputs: &[ROWS], work: change };
static GROW: FakeKind = FakeKind { name: "grow", summary: "extends a text", inputs: &[ROWS], work: grow };
static JOIN: FakeKind = FakeKind {
    name: "join",
    summary: "joins two texts",
    inputs: &[ROWS, InputPort { name: "more", kind: ArtifactKind::Rows, is_required: false }],
    work: join,
};
static MEET: FakeKind = FakeKind { name: "meet", summary: "waits for another stage", inputs: &[], work: meet };
static FILES: FakeKind = FakeKind {
    name: "files",
    summary: "copies a file",
    inputs: &[],
    work: |fake, ctx| names(&ctx.base_dir, &fake.value).iter().map(|name| read(&ctx.base_dir.join(name))).collect(),
};
static REFER: FakeKind =
    FakeKind { name: "refer", summary: "refers to a file", inputs: &[], work: |fake, _| Ok(fake.value.clone()) };
static REMOTE: FakeKind = FakeKind { name: "remote", summary: "fetches a file", inputs: &[], work: fetch };
static CLASSY: FakeKind = FakeKind {
    name: "classy",
    summary: "computes",
    inputs: &[],
    work: |fake, _| Ok(format!("{} on {}", fake.value, fake.class)),
};

/// The environment of this process belongs to all tests.
static COMMAND: CommandKind = CommandKind::new(|name| match name {
    "TOKEN" => Some(command::CANARY.into()),
    name => std::env::var_os(name),
});

impl StageKind for FakeKind {
    fn name(&self) -> &'static str {
        self.name
    }
    fn summary(&self) -> &'static str {
        self.summary
    }
    fn version(&self) -> u32 {
        1
    }
    fn inputs(&self) -> &'static [InputPort] {
        self.inputs
    }
    fn outputs(&self) -> &'static [OutputPort] {
        OUTPUTS
    }
    fn read(&self, reader: &mut Reader) -> Box<dyn Stage> {
        let fake = Fake {
            kind: self.name,
            value: reader.text("value", ""),
            suffix: reader.text("suffix", ""),
            first: reader.optional_integer("first", 0..=100),
            room: reader.text("room", ""),
            class: reader.text("class", "fake-1"),
            label: reader.text("label", ""),
            work: self.work,
        };
        reader.not_in_key("class");
        reader.not_in_key("label");
        Box::new(fake)
    }
    fn show(&self, port: &str, artifact: &Artifact, n_rows: usize) -> Result<String, StageError> {
        let text = read(artifact.file("value.txt")?)?;
        Ok(format!("{port}, {n_rows} rows: {text}"))
    }
    fn figures(&self, _: &str, artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
        Ok(figures::of(&read(artifact.file("value.txt")?)?))
    }
}

impl Stage for Fake {
    fn outputs(&self) -> Vec<OutputPort> {
        OUTPUTS.to_vec()
    }

    fn compute_class(&self) -> Option<String> {
        (self.kind == "classy").then(|| self.class.clone())
    }

    fn cpu(&self) -> Cpu {
        if self.kind == "remote" { Cpu::One } else { Cpu::Share }
    }

    fn trajectory(&self, key: &KeySettings) -> Option<KeySettings> {
        let mut key = key.clone();
        key.remove("suffix");
        (self.kind == "grow").then_some(key)
    }

    fn source(&self, base_dir: &Path) -> Result<Source, StageError> {
        match self.kind {
            "files" | "refer" if base_dir.join(&self.value).exists() => {
                Ok(Source::Files { root: base_dir.to_path_buf(), names: names(base_dir, &self.value) })
            }
            "files" | "refer" => {
                Err(StageError::user("missing-file", format!("there is no `{}`", self.value)).help("write it first"))
            }
            "remote" => Ok(Source::Remote { request: format!("things/{}@main", self.value) }),
            _ => Ok(Source::Computed),
        }
    }

    fn resolve(&self) -> Result<Resolved, StageError> {
        if self.value == "silent" {
            wait_until(|| false);
        }
        let mut remotes = REMOTES.lock().expect("no test panics while it holds the remotes");
        let remote = remotes.get_mut(&self.value).ok_or_else(|| {
            StageError::user("not-found", format!("there is no `{}` on the hub", self.value)).help("look for its name")
        })?;
        remote.n_questions += 1;
        Ok(Resolved { id: remote.commit.clone() })
    }

    /// `grow` has parts: the suffix that its state says, as many times as were asked for. One with the mode `other` is not as it said.
    fn spot_check(
        &self,
        ctx: &Context<'_>,
        outputs: &BTreeMap<String, Artifact>,
        n_parts: usize,
        seed: u64,
    ) -> Result<Option<Vec<SpotCheck>>, StageError> {
        if self.kind != "grow" {
            return Ok(None);
        }
        let given = input(ctx, "rows")?;
        let text = read(outputs["rows"].file("value.txt")?)?;
        let kept = read(&ctx.checkpoint_dir.join("suffix")).unwrap_or_else(|_| "gone".into());
        let is_other = ctx.base_dir.join(format!("{}.mode", self.label)).exists();
        let check = |part: usize| SpotCheck {
            what: format!("part {part} of `{text}` from `{given}`, by seed {seed}; the state is `{kept}`"),
            difference: is_other.then(|| format!("`{kept}` -> `x`")),
        };
        Ok(Some((1..=n_parts).map(check).collect()))
    }

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), StageError> {
        let mode = fs::read_to_string(ctx.base_dir.join(format!("{}.mode", self.label))).unwrap_or_default();
        match mode.as_str() {
            "fail" => {
                ctx.log("reading row 1");
                ctx.log("reading row 2");
                let cause = std::io::Error::other("row 2 is damaged");
                return Err(StageError::user("bad-row", "failed to read the rows").because(cause).help("repair row 2"));
            }
            // Once: the next try is well.
            "fail once" => {
                fs::write(ctx.base_dir.join(format!("{}.mode", self.label)), "well").expect("a file can be written");
                ctx.log("reading row 1");
                return Err(StageError::user("bad-row", "row 1 is not there yet"));
            }
            "panic" => panic!("index out of rows"),
            "panic in the pool" => rayon::scope(|scope| scope.spawn(|_| panic!("index out of rows"))),
            "cancel" => {
                ctx.cancel.cancel();
                fs::create_dir_all(&ctx.checkpoint_dir).expect("a checkpoint can be made");
                ctx.check_cancelled()?;
            }
            "edit" => edit(&ctx.base_dir.join("in.txt"), "other"),
            "edit and back" => {
                let path = ctx.base_dir.join("in.txt");
                let before = read(&path)?;
                edit(&path, "other");
                edit(&path, &before);
            }
            "empty" => return Ok(()),
            // As another process, which reads the roots while this one uses what is none.
            "gc" => {
                let output = execute_in(&ctx.base_dir, "cache gc --keep-runs 0 --yes", Environment::default());
                assert_eq!(output.code, 0, "{}", output.err);
            }
            "wait" | "wait and save" => {
                ctx.log("waiting");
                wait_until(|| ctx.cancel.is_cancelled());
                if mode == "wait and save" {
                    fs::create_dir_all(&ctx.checkpoint_dir).expect("a checkpoint can be made");
                }
                ctx.check_cancelled()?;
            }
            "hold" => {
                ctx.log("waiting");
                let path = ctx.base_dir.join(format!("{}.mode", self.label));
                wait_until(|| fs::read_to_string(&path).is_ok_and(|mode| mode == "well"));
            }
            "deaf" => {
                ctx.log("waiting");
                wait_until(|| ctx.cancel.is_cancelled());
                ctx.log("not listening");
                wait_until(|| false);
            }
            _ => {}
        }
        let mut text = (self.work)(self, ctx)?;
        if mode == "other" {
            text.push_str(" otherwise");
        }
        ctx.progress(1, 1, Unit::Files);
        ctx.fact("characters", text.chars().count().to_string());
        if self.kind == "refer" {
            let path = ctx.base_dir.join(&self.value);
            ctx.publish_external(ExternalFile { port: "rows".into(), name: "value.txt".into(), path, digest: None });
            return Ok(());
        }
        fs::write(ctx.output_dir("rows")?.join("value.txt"), text)
            .map_err(|e| StageError::io("write", Path::new("value.txt"), e))
    }
}

/// As a stage does that looks at the token between pieces of work.
fn wait_until(is_over: impl Fn() -> bool) {
    while !is_over() {
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// As a user does in an editor. The time is one that no other write of the test has.
pub(crate) fn edit(path: &Path, text: &str) {
    static N_EDITS: AtomicU64 = AtomicU64::new(1);
    fs::write(path, text).expect("a file can be written");
    let time = UNIX_EPOCH + Duration::from_secs(1_000 + N_EDITS.fetch_add(1, Ordering::Relaxed));
    fs::File::options().append(true).open(path).expect("there").set_modified(time).expect("a time can be set");
}

/// The file called `name` itself, or the files in the folder called so.
fn names(base_dir: &Path, name: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(base_dir.join(name)) else { return vec![name.to_string()] };
    let file_name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut names: Vec<String> = entries.flatten().map(|entry| format!("{name}/{}", file_name(entry))).collect();
    names.sort();
    names
}

fn read(path: &Path) -> Result<String, StageError> {
    fs::read_to_string(path).map_err(|error| StageError::io("read", path, error))
}

fn input(ctx: &Context<'_>, port: &str) -> Result<String, StageError> {
    read(ctx.input(port)?.file("value.txt")?)
}

fn change(fake: &Fake, ctx: &mut Context<'_>) -> Result<String, StageError> {
    let text = input(ctx, "rows")?;
    let kept: String = text.chars().take(fake.first.map_or(usize::MAX, |n| n as usize)).collect();
    Ok(kept + &fake.suffix)
}

fn grow(fake: &Fake, ctx: &mut Context<'_>) -> Result<String, StageError> {
    fs::create_dir_all(&ctx.checkpoint_dir).expect("a checkpoint can be made");
    let path = ctx.checkpoint_dir.join("suffix");
    ctx.fact("goes on from", read(&path).unwrap_or_else(|_| "nothing".into()));
    fs::write(&path, &fake.suffix).expect("a checkpoint can be written");
    change(fake, ctx)
}

fn join(_: &Fake, ctx: &mut Context<'_>) -> Result<String, StageError> {
    let more = if ctx.inputs.contains_key("more") { input(ctx, "more")? } else { String::new() };
    Ok(input(ctx, "rows")? + &more)
}

/// Room to the number of stages that have entered it.
static ROOMS: (Mutex<BTreeMap<String, usize>>, Condvar) = (Mutex::new(BTreeMap::new()), Condvar::new());

/// How long a stage waits for the other before it says that they do not overlap.
const MEETING_TIMEOUT: Duration = Duration::from_secs(20);

fn meet(fake: &Fake, _: &mut Context<'_>) -> Result<String, StageError> {
    let (rooms, entered) = &ROOMS;
    let mut rooms = rooms.lock().expect("no test panics in a room");
    *rooms.entry(fake.room.clone()).or_default() += 1;
    entered.notify_all();
    let (_rooms, timeout) = entered
        .wait_timeout_while(rooms, MEETING_TIMEOUT, |rooms| rooms[&fake.room] < 2)
        .expect("no test panics in a room");
    if timeout.timed_out() {
        return Err(StageError::user("alone", "the other stage did not start meanwhile"));
    }
    Ok(fake.value.clone())
}

/// What a remote name stands for, and how often that was asked.
struct Remote {
    commit: String,
    n_questions: usize,
}

static REMOTES: Mutex<BTreeMap<String, Remote>> = Mutex::new(BTreeMap::new());

/// Makes `name@main` stand for `commit`. Each test has names of its own.
pub(crate) fn set_remote(name: &str, commit: &str) {
    let mut remotes = REMOTES.lock().expect("no test panics while it holds the remotes");
    remotes.entry(name.into()).or_insert(Remote { commit: String::new(), n_questions: 0 }).commit = commit.into();
}

/// How often the hub was asked what `name@main` stands for.
pub(crate) fn n_questions(name: &str) -> usize {
    REMOTES.lock().expect("no test panics while it holds the remotes")[name].n_questions
}

fn fetch(fake: &Fake, ctx: &mut Context<'_>) -> Result<String, StageError> {
    let commit = ctx.resolved.clone().ok_or_else(|| StageError::user("unresolved", "no commit was given"))?;
    let path = PathBuf::from(format!("{} at {commit}", fake.value));
    Ok(path.display().to_string())
}
