//! Two processes at once, and one that is killed. The second process is this test binary, asked to run `child` alone.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use pipe_cache::Store;

use crate::sandbox::*;

const ROLE: &str = "PIPE_CACHE_TEST_ROLE";
const ROOT: &str = "PIPE_CACHE_TEST_ROOT";

/// Not a test by itself: what the second process does.
#[test]
fn child() {
    let (Ok(role), Ok(root)) = (env::var(ROLE), env::var(ROOT)) else { return };
    let store = Store::open(Path::new(&root)).expect("opened");
    match role.as_str() {
        "attempt" => {
            let _attempt = attempt(&store, FINGERPRINT, &[("a", "half a fi")]).expect("an attempt");
            say_ready_and_wait();
        }
        "lock" => {
            let _lock = store.stage_lock(FINGERPRINT, &mut |_| {}).expect("locked");
            say_ready_and_wait();
        }
        "publish" => {
            for round in 0..20 {
                publish(&store, FINGERPRINT, &[("a", "agreed"), ("b", &format!("{round}"))]).expect("published");
                publish(&store, &format!("dd{round}"), &[("a", "agreed")]).expect("published");
            }
        }
        other => panic!("no such role: {other}"),
    }
}

fn say_ready_and_wait() {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "\nready").and_then(|()| stdout.flush()).expect("the parent listens");
    // Ends when the parent closes the pipe, or with the process.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn spawn(role: &str, root: &Path) -> Child {
    Command::new(env::current_exe().expect("this binary"))
        .args(["--exact", "processes::child", "--nocapture"])
        .env(ROLE, role)
        .env(ROOT, root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a second process")
}

fn await_ready(child: &mut Child) {
    let stdout = child.stdout.take().expect("piped");
    let is_ready = BufReader::new(stdout).lines().map_while(Result::ok).any(|line| line == "ready");
    assert!(is_ready, "the second process ended early");
}

fn kill(mut child: Child) {
    child.kill().expect("our own child");
    child.wait().expect("our own child");
}

#[test]
fn a_killed_attempt_is_removed_by_the_next_process_and_a_running_one_is_not() {
    let sandbox = Sandbox::new();
    let mut child = spawn("attempt", sandbox.store.root());
    await_ready(&mut child);
    assert_eq!(names(&sandbox.in_store("tmp")).len(), 2);
    sandbox.reopen();
    assert_eq!(names(&sandbox.in_store("tmp")).len(), 2, "its process is alive");
    kill(child);
    assert_eq!(names(&sandbox.in_store("tmp")).len(), 2, "nothing tidies up after SIGKILL");
    let store = sandbox.reopen();
    assert_eq!(names(&sandbox.in_store("tmp")), Vec::<String>::new());
    assert_eq!(store.lookup(FINGERPRINT).expect("looked up"), None);
}

#[test]
fn a_stage_lock_is_waited_for_and_dies_with_its_process() {
    let sandbox = Sandbox::new();
    let mut child = spawn("lock", sandbox.store.root());
    await_ready(&mut child);
    let child_id = child.id();
    let mut holders = Vec::new();
    let mut child = Some(child);
    // The kill comes from inside the wait, so waiting is proven without a clock.
    let lock = sandbox.store.stage_lock(FINGERPRINT, &mut |holder| {
        holders.push(holder);
        child.take().map(kill).unwrap_or_default();
    });
    lock.expect("locked");
    assert_eq!(holders, [child_id]);
}

#[test]
fn the_names_of_a_dead_holder_hold_nothing() {
    let sandbox = Sandbox::new();
    let (dead, names_of_dead) = (sandbox.in_store("tmp/dead.lock"), [FINGERPRINT, FINGERPRINT_2]);
    write(&dead, "4000000");
    for name in names_of_dead {
        fs::create_dir_all(sandbox.in_store("locks")).expect("a folder");
        fs::hard_link(&dead, sandbox.in_store("locks").join(name)).expect("a name");
    }
    let locks = names_of_dead.map(|name| sandbox.store.stage_lock(name, &mut |_| panic!("nobody holds it")));
    let locks = locks.map(|lock| lock.expect("locked"));
    let is_held = |name| sandbox.reopen().stage_lock_unless(name, &mut |_| {}, &|| true).expect("no error").is_none();
    assert!(names_of_dead.into_iter().all(is_held), "by this store value now");
    drop(locks);
    assert!(!names_of_dead.into_iter().any(is_held));
    assert_eq!(names(&sandbox.in_store("locks")), Vec::<String>::new());
}

#[test]
fn a_wait_for_a_stage_lock_can_be_given_up() {
    let sandbox = Sandbox::new();
    let _held = sandbox.store.stage_lock(FINGERPRINT, &mut |_| {}).expect("locked");
    let given_up = sandbox.store.stage_lock_unless(FINGERPRINT, &mut |_| {}, &|| true).expect("no error");
    assert!(given_up.is_none());
    let other = sandbox.store.stage_lock_unless(FINGERPRINT_2, &mut |_| {}, &|| true).expect("no error");
    assert!(other.is_some(), "another fingerprint is another lock");
}

#[test]
fn a_stage_lock_lets_one_thread_in_at_a_time() {
    let sandbox = Sandbox::new();
    let store = &sandbox.store;
    let counter = sandbox.path("counter");
    write(&counter, "0");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let _lock = store.stage_lock(FINGERPRINT, &mut |_| {}).expect("locked");
                    let count: u32 = read(&counter).parse().expect("a number");
                    write(&counter, &(count + 1).to_string());
                }
            });
        }
    });
    assert_eq!(read(&counter), "40");
    assert_eq!(names(&sandbox.in_store("locks")), Vec::<String>::new());
}

#[test]
fn a_second_thread_waits_until_the_first_lets_go() {
    let sandbox = Sandbox::new();
    let held = sandbox.store.stage_lock(FINGERPRINT, &mut |_| {}).expect("locked");
    let (waits, is_waiting) = mpsc::channel();
    let store = sandbox.store.clone();
    let second = thread::spawn(move || {
        store.stage_lock(FINGERPRINT, &mut |holder| waits.send(holder).expect("the test listens")).map(drop)
    });
    assert_eq!(is_waiting.recv().expect("it waits"), std::process::id());
    drop(held);
    second.join().expect("no panic").expect("locked");
}

#[test]
fn two_processes_that_publish_the_same_agree() {
    let sandbox = Sandbox::new();
    let children = [spawn("publish", sandbox.store.root()), spawn("publish", sandbox.store.root())];
    for child in children {
        let output = child.wait_with_output().expect("our own child");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let store = sandbox.reopen();
    let manifest = store.lookup(FINGERPRINT).expect("looked up").expect("there");
    assert_eq!(store.missing(&manifest).expect("looked at"), []);
    assert_eq!(store.verify().expect("verified"), []);
    assert_eq!(store.size().expect("sizes").manifests.n_files, 21);
    assert_eq!(names(&sandbox.in_store("tmp")), Vec::<String>::new());
}
