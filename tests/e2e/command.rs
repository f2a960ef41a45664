//! `uses: command`: programs of the user's, and all that keeps them in bounds.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use pipe_lm::cli::Environment;

use crate::sandbox::{Sandbox, folders_and_files};

/// The value of the secret `TOKEN`.
pub(crate) const CANARY: &str = "canary-5f0b9d";

/// For what must end: far more than it takes, so that a process that stays fails the test instead of stopping it.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// A stage `it` that runs a shell script with `rest` of its keys; `$1` is its output `out`.
fn script(script: &str, rest: &str) -> String {
    let script = script.replace('\'', "''");
    format!(
        "  it: {{ uses: command, outputs: {{ out: file }}, {rest}with: {{ run: [sh, -c, '{script}', s, \"${{{{ outputs.out }}}}\"] }} }}\n"
    )
}

fn sandbox_with(text: &str) -> Sandbox {
    Sandbox::with_stages(&script(text, ""))
}

const COUNT: &str = "
  rows: { uses: make, with: { value: one two three } }
  count:
    uses: command
    inputs: { data: rows }
    outputs: { n: file, page: { file: page.txt } }
    with:
      run: [sh, count.sh, '${{ inputs.data }}', '${{ outputs.n }}', '${{ outputs.page }}']
      sources: [count.sh]
";

#[test]
fn it_runs_once_and_again_when_a_source_changes() {
    let sandbox = Sandbox::with_stages(COUNT);
    sandbox.write("count.sh", "wc -w < $1/value.txt | tr -d ' ' | tee $2 > $3; ls $1; echo counted >&2");
    screen!(sandbox.pipe("run p.yaml"), @r"
    exit code: 0
    ----- stdout
    ----- stderr
    rows   started, 2 threads
    rows   ran in [time]
    count  started, 2 threads
    count  | value.txt
    count  | counted
    count  ran in [time]

    rows  ran  characters 13
    count  ran

    2 ran in [time]
    everything in .pipe
    as a page with charts: pipe report
    ");
    assert_eq!(sandbox.outcomes("run p.yaml"), "count reused, rows reused");
    screen!(sandbox.pipe("show count.page"), @r"
    exit code: 0
    ----- stdout
               2  page.txt
    3
    ----- stderr
    ");
    sandbox.write("count.sh", "wc -c < $1/value.txt | tr -d ' ' | tee $2 > $3");
    screen!(sandbox.pipe("explain p.yaml count"), @r"
    exit code: 0
    ----- stdout
    count  command  run    never made with these settings and inputs
           since run [run]:
             file `count.sh` has other bytes, f0b206fb1905 -> eecf7ef4ceb5
    ----- stderr
    ");
    assert_eq!(sandbox.outcomes("run p.yaml"), "count ran, rows reused");
    sandbox.write_stages(&COUNT.replace("page.txt", "page.html"));
    screen!(sandbox.pipe("explain p.yaml count"), @r#"
    exit code: 0
    ----- stdout
    count  command  run    never made with these settings and inputs
           since run [run]:
             output `page` {"file":"page.txt"} -> {"file":"page.html"}
    ----- stderr
    "#);
    assert_eq!(sandbox.outcomes("run p.yaml"), "count ran, rows reused");
    assert_eq!(sandbox.pipe("get p.yaml count.page --to got").code, 0);
    assert_eq!(sandbox.read("got/page.html"), "13\n");
}

#[test]
fn what_it_gives_feeds_other_stages() {
    let sandbox = Sandbox::with_stages(
        "
  first: { uses: command, outputs: { rows: rows }, with: { run: [sh, -c, 'printf made > $1/value.txt', s, '${{ outputs.rows }}'] } }
  then: { uses: change, inputs: { rows: first }, with: { suffix: '!' } }
  last:
    uses: command
    inputs: { a: then, b: first.rows }
    outputs: { both: file }
    with: { run: [sh, -c, 'cat $A/value.txt $B/value.txt > $OUT'], env: { A: '${{ inputs.a }}', B: '${{ inputs.b }}', OUT: '${{ outputs.both }}' } }
    to: out
  again: { uses: command, inputs: { f: last }, outputs: { x: file }, with: { run: [cp, '${{ inputs.f }}', '${{ outputs.x }}'] }, to: again }
",
    );
    assert_eq!(sandbox.outcomes("run p.yaml"), "again ran, first ran, last ran, then ran");
    assert_eq!(sandbox.read("out/both/both"), "made!made");
    assert_eq!(sandbox.read("again/x/x"), "made!made");
}

#[test]
fn a_failure_says_how_it_ended() {
    let sandbox = sandbox_with("echo reading; echo broken >&2; exit 3");
    screen!(sandbox.pipe("run p.yaml"), @r"
    exit code: 1
    ----- stdout
    ----- stderr
    it  started, 2 threads
    it  | reading
    it  | broken
    it  failed after [time]

    it  failed

    error[command-failed]: stage `it` failed: `sh -c echo reading; echo broken >&2; exit 3 s ${{ outputs.out }}` ended with exit code 3
    help: what it printed is in its log; only exit code 0 is success
    its last lines:
      | reading
      | broken
    log: .pipe/runs/[run]/it.log
    go on with: pipe run p.yaml

    1 failed in [time]
    everything in .pipe
    as a page with charts: pipe report
    ");
}

#[test]
fn what_it_leaves_must_be_what_was_declared() {
    let mut told = String::new();
    let scripts = [
        "kill -SEGV $$",
        "true",
        "mkdir $1",
        "echo x > $1; echo y > $(dirname $1)/other",
        "ln -s /etc/hosts $1",
        "exec 3> $1; rm $1; mkfifo $1",
    ];
    for text in scripts {
        let output = sandbox_with(text).pipe("run p.yaml");
        let error = output.err.lines().find_map(|line| line.strip_prefix("error["));
        told.push_str(&format!("{} {text}\n    {}\n", output.code, error.unwrap_or(&output.err)));
    }
    insta::assert_snapshot!(told, @r"
    1 kill -SEGV $$
        command-failed]: stage `it` failed: `sh -c kill -SEGV $$ s ${{ outputs.out }}` ended with signal 11 (SEGV: a mistake in the program)
    1 true
        missing-output]: stage `it` failed: the command left its output `out` empty: there is no file `out`
    1 mkdir $1
        bad-output]: stage `it` failed: the command put `out` into its output `out`, which is a folder
    1 echo x > $1; echo y > $(dirname $1)/other
        bad-output]: stage `it` failed: the output `out` is one file, `out`, but the command wrote `other` beside it
    1 ln -s /etc/hosts $1
        bad-output]: stage `it` failed: the command put `out` into its output `out`, which is a symlink
    1 exec 3> $1; rm $1; mkfifo $1
        bad-output]: stage `it` failed: the command put `out` into its output `out`, which is no regular file
    ");
}

#[test]
fn a_program_that_is_not_there() {
    let sandbox = Sandbox::with_stages(
        "  it: { uses: command, outputs: { out: file }, with: { run: [no-such-program, '${{ outputs.out }}'] } }\n",
    );
    let output = sandbox.pipe("run p.yaml");
    assert!(output.err.contains("there is no program `no-such-program` on PATH, which is `"), "{}", output.err);
    let missing = Sandbox::with_stages(
        "  it: { uses: command, outputs: { out: file }, with: { run: [sh, s.sh, '${{ outputs.out }}'], sources: [s.sh] } }\n",
    );
    screen!(missing.pipe("run p.yaml"), @r"
    exit code: 1
    ----- stdout
    ----- stderr
    it  failed after [time]

    it  failed

    error[missing-file]: stage `it` failed: there is no file or folder `s.sh`, which `sources` names
    help: names are relative to the pipeline file's folder
    log: .pipe/runs/[run]/it.log
    go on with: pipe run p.yaml

    1 failed in [time]
    everything in .pipe
    as a page with charts: pipe report
    ");
}

#[test]
fn a_file_that_is_not_in_sources_is_told() {
    let sandbox = Sandbox::with_stages(
        "  it: { uses: command, outputs: { out: file }, with: { run: [sh, s.sh, --words=w.txt, '${{ outputs.out }}'], sources: [w.txt] } }\n",
    );
    sandbox.write("s.sh", "cp ${1#*=} $2");
    sandbox.write("w.txt", "words");
    screen!(sandbox.pipe("run p.yaml"), @r"
    exit code: 0
    ----- stdout
    ----- stderr
    it  started, 2 threads
    it  warning: `s.sh` is not in `sources`: a change of it is not noticed
    it  ran in [time]

    it  ran

    1 ran in [time]
    everything in .pipe
    as a page with charts: pipe report
    warning: it: `s.sh` is not in `sources`: a change of it is not noticed
    ");
}

#[test]
fn its_environment_is_declared() {
    let stages = "
  it:
    uses: command
    outputs: { out: file }
    resources: { cpu: 2 }
    with: { run: [sh, -c, 'env > $1', s, '${{ outputs.out }}'], env: { MODE: fast, LANG: C, N: 3, OUT: '${{ outputs.out }}' }, secrets: [TOKEN] }
";
    let sandbox = Sandbox::with_stages(&stages.replace("env > $1", "env | grep -v TOKEN > $1"));
    assert_eq!(sandbox.pipe("run p.yaml --threads 2").code, 0);
    let shown = sandbox.pipe("show it -n 50").out;
    let mut lines: Vec<&str> = shown.lines().skip(1).filter(|line| !line.starts_with("PATH=")).collect();
    lines.sort_unstable();
    let attempt = lines.iter().find_map(|line| line.strip_prefix("HOME=")?.strip_suffix("/scratch")).expect("HOME");
    let mark = lines.iter().find_map(|line| line.strip_prefix("PIPE_KEEPER=")).expect("it has a mark");
    let text = lines.join("\n").replace(attempt, "[attempt]").replace(mark, "[mark]");
    insta::assert_snapshot!(text, @r"
    HOME=[attempt]/scratch
    LANG=C
    MODE=fast
    N=3
    OMP_NUM_THREADS=2
    OUT=[attempt]/outputs/out/out
    PIPE_KEEPER=[mark]
    PIPE_THREADS=2
    PWD=[dir]
    PYTHONDONTWRITEBYTECODE=1
    RAYON_NUM_THREADS=2
    SOURCE_DATE_EPOCH=0
    TMPDIR=[attempt]/scratch
    TZ=UTC
    ");
    // With the secret in it, the same is refused.
    let leaking = Sandbox::with_stages(stages);
    screen!(leaking.pipe("run p.yaml"), @r"
    exit code: 1
    ----- stdout
    ----- stderr
    it  started, 2 threads
    it  failed after [time]

    it  failed

    error[secret-in-output]: stage `it` failed: the command wrote the value of the secret `TOKEN` into its output `out`: `out` holds it
    help: nothing was published; an output is kept and shared, so it must not hold a secret
    log: .pipe/runs/[run]/it.log
    go on with: pipe run p.yaml

    1 failed in [time]
    everything in .pipe
    as a page with charts: pipe report
    ");
}

#[test]
fn an_input_that_was_written_to_is_told_and_made_again() {
    let stages = |text: &str| {
        format!(
            "
  rows: {{ uses: make, with: {{ value: hello }} }}
  it: {{ uses: command, inputs: {{ data: rows }}, outputs: {{ out: file }}, with: {{ run: [sh, -c, '{text}', s, '${{{{ inputs.data }}}}', '${{{{ outputs.out }}}}'] }} }}
"
        )
    };
    let sandbox =
        Sandbox::with_stages(&stages("chmod u+w $1/value.txt; echo more >> $1/value.txt; cp $1/value.txt $2"));
    screen!(sandbox.pipe("run p.yaml"), @r"
    exit code: 1
    ----- stdout
    ----- stderr
    rows  started, 2 threads
    rows  ran in [time]
    it    started, 2 threads
    it    failed after [time]

    rows  ran  characters 5
    it  failed

    error[input-written]: stage `it` failed: the command changed its input `data`: `value.txt` is not as it was
    help: an input belongs to another stage too: copy it to an output or to `$TMPDIR` before changing it; the next run makes the input again
    log: .pipe/runs/[run]/it.log
    kept: 1 finished stage
    go on with: pipe run p.yaml

    1 ran, 1 failed in [time]
    everything in .pipe
    as a page with charts: pipe report
    ");
    sandbox.write_stages(&stages("cp $1/value.txt $2"));
    assert_eq!(sandbox.outcomes("run p.yaml"), "it ran, rows ran");
    assert!(sandbox.pipe("show it").out.ends_with("hello\n"));
}

// Secrets.

/// Runs the real binary, with the secret in its environment.
fn pipe(sandbox: &Sandbox, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
    command.args(arguments.split_whitespace()).current_dir(sandbox.path("")).env("TOKEN", CANARY);
    command
}

fn assert_no_canary(sandbox: &Sandbox, output: &std::process::Output) {
    let holds = |bytes: &[u8]| bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes());
    assert!(!holds(&output.stdout) && !holds(&output.stderr), "{}", String::from_utf8_lossy(&output.stderr));
    let files = folders_and_files(&sandbox.path(""));
    assert!(files.iter().any(|path| path.ends_with("events.jsonl")), "the run is recorded");
    for path in files.iter().filter(|path| path.is_file()) {
        assert!(!holds(&fs::read(path).expect("readable")), "{}", path.display());
    }
}

const SECRET: &str = "secrets: [TOKEN], sandbox: none, ";

fn secret_script(text: &str) -> String {
    script(text, "").replace("with: { ", &format!("with: {{ {SECRET}"))
}

#[test]
fn a_secret_is_used_and_stays_nowhere() {
    // Printed whole, in two writes, with codes inside, before a `\r`, without an end, and by a child; kept at home.
    let sandbox = Sandbox::with_stages(&secret_script(
        "echo token $TOKEN; echo $TOKEN >&2; printf \"${TOKEN%???}\"; printf \"${TOKEN#??????????}\\n\"; \
         printf \"\\033[1m$TOKEN\\r\\n\"; sh -c \"echo $TOKEN\"; env | grep TOKEN; \
         echo $TOKEN > $HOME/.netrc; printf %s \"$TOKEN\" | wc -c > $1; printf $TOKEN",
    ));
    let output = pipe(&sandbox, "run p.yaml --json").output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.matches("***").count(), 7, "{text}");
    assert_no_canary(&sandbox, &output);
    let shown = pipe(&sandbox, "show it").output().expect("it starts");
    assert!(String::from_utf8_lossy(&shown.stdout).contains(&CANARY.len().to_string()), "the command had it");
    // Another value: the name is in the key.
    let again = pipe(&sandbox, "run p.yaml --json").env("TOKEN", "another").output().expect("it starts");
    assert!(String::from_utf8_lossy(&again.stdout).contains("reused"));
}

#[test]
fn a_secret_in_an_output_fails_the_stage() {
    for text in ["echo x $TOKEN > $1", "head -c 3000000 /dev/zero > $1; echo $TOKEN >> $1"] {
        let sandbox = Sandbox::with_stages(&secret_script(text));
        let output = pipe(&sandbox, "run p.yaml").output().expect("it starts");
        assert_eq!(output.status.code(), Some(1));
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(err.contains("wrote the value of the secret `TOKEN` into its output `out`: `out` holds it"), "{err}");
        assert_no_canary(&sandbox, &output);
        assert_eq!(sandbox.blobs(), Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn a_secret_that_is_not_set_is_told_before_the_command_starts() {
    let sandbox = Sandbox::with_stages(&secret_script("echo started; echo x > $1"));
    let output = pipe(&sandbox, "run p.yaml").env_remove("TOKEN").output().expect("it starts");
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(err.contains("the secret `TOKEN` is not set in the environment of pipe"), "{err}");
    assert!(!err.contains("started\n"), "{err}");
}

// The sandbox.

/// Whether the kernel can; says so where it cannot.
fn has_landlock(test: &str) -> bool {
    let sandbox = Sandbox::with_stages(&script("echo x > $1", "").replace("with: { ", "with: { sandbox: strict, "));
    let output = sandbox.pipe("run p.yaml");
    let is_missing = output.err.contains("this kernel has no Landlock");
    if is_missing {
        eprintln!("SKIPPED {test}: this kernel has no Landlock");
    } else {
        assert_eq!(output.code, 0, "{}", output.err);
    }
    !is_missing
}

#[test]
fn a_strict_sandbox_shows_what_is_declared_and_nothing_else() {
    if !has_landlock("a_strict_sandbox_shows_what_is_declared_and_nothing_else") {
        return;
    }
    let sandbox = Sandbox::with_stages(
        "
  rows: { uses: make, with: { value: hello } }
  it:
    uses: command
    inputs: { data: rows }
    outputs: { out: file }
    with: { run: [sh, lib/s.sh, '${{ inputs.data }}', '${{ outputs.out }}'], sources: [lib, words.txt], sandbox: strict }
",
    );
    sandbox.write("words.txt", "words\n");
    sandbox.write("undeclared.txt", "nobody's business");
    let dir = sandbox.path("");
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    fs::write(elsewhere.path().join("f"), "x").expect("written");
    let tries = [
        ("cat $1/value.txt > /dev/null", true),
        ("cat words.txt > /dev/null", true),
        ("ls lib > /dev/null", true),
        ("cat /etc/passwd > /dev/null", true),
        ("echo x > $HOME/f && cat $HOME/f > /dev/null", true),
        ("cat undeclared.txt", false),
        ("cat p.yaml", false),
        ("ls .", false),
        ("ls .pipe/blobs", false),
        ("echo x > beside.txt", false),
        ("echo x >> words.txt", false),
        ("echo x >> $1/value.txt", false),
        ("rm words.txt", false),
        (&*format!("cat {}/f", elsewhere.path().display()), false),
        (&*format!("cat {}/undeclared.txt", dir.display()), false),
        ("sh -c 'cat undeclared.txt'", false),
        ("ln undeclared.txt $HOME/link", false),
    ];
    let mut text = "exec 2> /dev/null\n".to_string();
    for (command, _) in &tries {
        text.push_str(&format!("if ( {command} ); then echo yes >> $2; else echo no >> $2; fi\n"));
    }
    sandbox.write("lib/s.sh", &text);
    let output = sandbox.pipe("run p.yaml");
    assert_eq!(output.code, 0, "{}", output.err);
    let shown = sandbox.pipe("show it -n 50").out;
    let found: Vec<(&str, bool)> =
        tries.iter().map(|(command, _)| *command).zip(shown.lines().skip(1).map(|line| line == "yes")).collect();
    assert_eq!(found, tries);
    assert_eq!(sandbox.read("words.txt"), "words\n");
    assert!(!sandbox.path("beside.txt").exists());
}

#[test]
fn a_failure_in_a_strict_sandbox_is_one_of_the_command() {
    if !has_landlock("a_failure_in_a_strict_sandbox_is_one_of_the_command") {
        return;
    }
    let sandbox =
        Sandbox::with_stages(&script("cat secret.txt > $1", "").replace("with: { ", "with: { sandbox: strict, "));
    sandbox.write("secret.txt", "x");
    let output = sandbox.pipe("run p.yaml");
    assert_eq!(output.code, 1, "{}", output.err);
    assert!(output.err.contains("Permission denied"), "{}", output.err);
    assert_eq!(sandbox.blobs(), Vec::<std::path::PathBuf>::new());
}

// How it ends.

/// Processes that hold a FIFO: it ends when the last of them does.
struct Holders(File);

/// A script that goes on for ever with a child and a grandchild in the background, all of which hold `holders`.
const GO_ON: &str =
    "exec 3> holders; (sh -c 'sleep 1000; true' & sleep 1000 & wait) & echo waiting; wait; wait; echo x > $1";

impl Holders {
    fn make(sandbox: &Sandbox) {
        let status = Command::new("mkfifo").arg(sandbox.path("holders")).status();
        assert!(status.expect("there is a `mkfifo`").success());
    }

    /// Waits until nobody does.
    fn end(mut self) {
        let (sender, ended) = channel();
        thread::spawn(move || {
            let mut nothing = Vec::new();
            drop(sender.send(self.0.read_to_end(&mut nothing)));
        });
        ended.recv_timeout(END_TIMEOUT).expect("a process of the command is left").expect("readable");
    }
}

/// `pipe run` in a process group of its own, once the command says `waiting`.
fn start(sandbox: &Sandbox) -> Child {
    let mut child = pipe(sandbox, "run p.yaml")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("it starts");
    let lines = BufReader::new(child.stderr.as_mut().expect("it is piped")).lines();
    let mut seen = Vec::new();
    for line in lines {
        let line = line.expect("readable");
        if line == "it  | waiting" {
            return child;
        }
        seen.push(line);
    }
    let _ = child.wait();
    panic!("it ended:\n{}", seen.join("\n"));
}

fn kill(arguments: &[&str]) {
    assert!(Command::new("kill").args(arguments).status().expect("there is a `kill`").success());
}

#[test]
fn nothing_survives_a_killed_pipe() {
    // A process that left the group too.
    let script_with_session = GO_ON.replace("3> holders;", "3> holders; setsid sleep 1000 &");
    for is_group in [false, true] {
        let sandbox = sandbox_with(&script_with_session);
        Holders::make(&sandbox);
        let opened = open_later(&sandbox);
        let mut child = start(&sandbox);
        let holders = opened.join().expect("it opens");
        let target = if is_group { format!("-{}", child.id()) } else { child.id().to_string() };
        kill(&["-KILL", "--", &target]);
        child.wait().expect("it ends");
        holders.end();
        // And the next run goes on without a manual step.
        sandbox.write_stages(&script("echo x > $1", ""));
        assert_eq!(sandbox.outcomes("run p.yaml"), "it ran");
    }
}

/// Opening a FIFO waits for the other side.
fn open_later(sandbox: &Sandbox) -> thread::JoinHandle<Holders> {
    let path = sandbox.path("holders");
    thread::spawn(move || Holders(File::open(path).expect("it was made")))
}

#[test]
fn an_interrupt_asks_the_command_to_end_and_then_ends_it() {
    // The first ends when asked, the second does not listen.
    for (trap, heard) in [("trap 'echo stopping; exit 1' TERM; ", true), ("trap '' TERM; ", false)] {
        let sandbox = sandbox_with(&format!("{trap}{GO_ON}"));
        Holders::make(&sandbox);
        let opened = open_later(&sandbox);
        let mut child = start(&sandbox);
        let holders = opened.join().expect("it opens");
        kill(&["-INT", &child.id().to_string()]);
        let mut rest = String::new();
        child.stderr.as_mut().expect("it is piped").read_to_string(&mut rest).expect("readable");
        assert_eq!(child.wait().expect("it ends").code(), Some(130), "{rest}");
        assert_eq!(rest.contains("it  | stopping"), heard, "{rest}");
        holders.end();
    }
}

#[test]
fn what_is_left_in_the_background_ends_with_the_command() {
    let sandbox = sandbox_with("exec 3> holders; (sleep 1000 &) ; echo x > $1");
    Holders::make(&sandbox);
    let opened = open_later(&sandbox);
    assert_eq!(sandbox.outcomes("run p.yaml"), "it ran");
    opened.join().expect("it opens").end();
}

#[test]
fn a_command_sees_the_gpus_that_it_was_granted_and_no_other() {
    // Each waits for the other, so that they run beside each other.
    let stage = |name: &str, other: &str| {
        let script = format!(
            "touch {name}.here; until [ -e {other}.here ]; do sleep 0.01; done; printf %s \"$CUDA_VISIBLE_DEVICES\" > $1"
        );
        format!(
            "  {name}: {{ uses: command, outputs: {{ out: file }}, resources: {{ cpu: 1, gpu: 1 }}, with: {{ run: [sh, -c, '{script}', s, '${{{{ outputs.out }}}}'] }} }}\n"
        )
    };
    let none = "  none: { uses: command, outputs: { out: file }, with: { run: [sh, -c, 'echo \"${CUDA_VISIBLE_DEVICES-unset}\" > $1', s, '${{ outputs.out }}'] } }\n";
    let sandbox = Sandbox::with_stages(&format!("{}{}{none}", stage("a", "b"), stage("b", "a")));
    let environment = Environment { pretended_gpus: Some(2), ..Environment::default() };
    let output = sandbox.pipe_in("run p.yaml --threads 2", environment);
    assert_eq!(output.code, 0, "{}", output.err);
    let mut seen: Vec<String> = sandbox.blobs().iter().map(|blob| fs::read_to_string(blob).expect("a blob")).collect();
    seen.sort();
    assert_eq!(seen, ["0", "1", "unset\n"]);
}
