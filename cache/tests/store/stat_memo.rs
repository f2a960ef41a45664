use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use crate::sandbox::*;

#[test]
fn an_unchanged_file_is_read_once_across_processes() {
    let sandbox = Sandbox::new();
    let path = sandbox.file("rows", "bytes");
    let first = sandbox.store.digest_file(&path).expect("digested");
    assert_eq!(first.digest, blake3::hash(b"bytes").to_hex().to_string());
    assert_eq!((first.size_bytes, sandbox.store.n_files_read()), (5, 1));
    let store = sandbox.reopen();
    assert_eq!(store.digest_file(&path).expect("digested"), first);
    assert_eq!(store.n_files_read(), 0);
}

#[test]
fn a_link_to_it_and_a_new_name_for_it_are_not_read() {
    let sandbox = Sandbox::new();
    let path = sandbox.file("rows", "bytes");
    symlink(&path, sandbox.path("link")).expect("a link");
    let first = sandbox.store.digest_file(&path).expect("digested");
    assert_eq!(sandbox.store.digest_file(&sandbox.path("link")).expect("digested"), first);
    assert_eq!(sandbox.store.n_files_read(), 1);
}

#[test]
fn a_touched_file_is_read_once_more() {
    let sandbox = Sandbox::new();
    let path = sandbox.file("rows", "bytes");
    sandbox.store.digest_file(&path).expect("digested");
    age(&path, Duration::from_secs(60));
    for _ in 0..3 {
        sandbox.store.digest_file(&path).expect("digested");
        assert_eq!(sandbox.store.n_files_read(), 2);
    }
}

#[test]
fn bytes_changed_behind_an_old_time_are_seen() {
    let sandbox = Sandbox::new();
    let path = sandbox.file("rows", "bytes");
    sandbox.store.digest_file(&path).expect("digested");
    let modified = fs::metadata(&path).and_then(|m| m.modified()).expect("a time");
    write_in_place(&path, "other");
    fs::File::open(&path).and_then(|file| file.set_modified(modified)).expect("our own file");
    let digest = sandbox.store.digest_file(&path).expect("digested").digest;
    assert_eq!(digest, blake3::hash(b"other").to_hex().to_string(), "size and mtime are the same, ctime is not");
}

#[test]
fn a_file_written_a_moment_ago_is_not_remembered() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("rows");
    // Ahead of the clock, so that the test does not depend on how fast it runs.
    write(&path, "bytes");
    fs::File::open(&path)
        .and_then(|file| file.set_modified(std::time::SystemTime::now() + Duration::from_secs(3600)))
        .expect("our own file");
    for n_read in 1..=2 {
        sandbox.store.digest_file(&path).expect("digested");
        assert_eq!(sandbox.store.n_files_read(), n_read);
    }
}

#[test]
fn a_damaged_memo_is_not_believed() {
    let sandbox = Sandbox::new();
    let path = sandbox.file("rows", "bytes");
    let digest = sandbox.store.digest_file(&path).expect("digested").digest;
    let stat_dir = sandbox.in_store("idx/stat");
    let device = stat_dir.join(&names(&stat_dir)[0]);
    let memo = device.join(&names(&device)[0]);
    let whole = read(&memo);
    for damaged in ["", &whole[..whole.len() - 1], &whole.replace(&digest, "0"), &whole.replacen("1 ", "2 ", 1)] {
        write(&memo, damaged);
        let store = sandbox.reopen();
        assert_eq!(store.digest_file(&path).expect("digested").digest, digest, "{damaged:?}");
        assert_eq!(store.n_files_read(), 1, "{damaged:?}");
    }
}
