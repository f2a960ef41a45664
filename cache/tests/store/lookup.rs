use std::fs;
use std::path::PathBuf;

use pipe_cache::{MissingReason, Store};

use crate::sandbox::*;

/// Replaces the body of the manifest by `edit` of it, with a checksum that holds.
fn rewrite(sandbox: &Sandbox, edit: impl Fn(&str) -> String) {
    let path = manifest_path(sandbox);
    let text = read(&path);
    let (body, _) = text.trim_end().rsplit_once('\n').expect("a last line");
    let mut body = edit(body);
    body.push('\n');
    let checksum = blake3::hash(body.as_bytes()).to_hex();
    write(&path, &format!("{body}blake3 {checksum}\n"));
}

fn manifest_path(sandbox: &Sandbox) -> PathBuf {
    sandbox.in_store("manifests").join("aa").join(FINGERPRINT)
}

fn is_hit(store: &Store) -> bool {
    store.lookup(FINGERPRINT).expect("a miss is no error").is_some()
}

fn faults(sandbox: &Sandbox, manifest: &pipe_cache::Manifest) -> Vec<MissingReason> {
    sandbox.store.missing(manifest).expect("looked at").iter().map(|file| file.reason).collect()
}

#[test]
fn nothing_published_is_a_miss() {
    assert!(!is_hit(&Sandbox::new().store));
}

#[test]
fn a_manifest_cut_short_anywhere_is_a_miss() {
    let sandbox = Sandbox::new();
    sandbox.publish(FINGERPRINT, &[("a", "1")]);
    let path = manifest_path(&sandbox);
    let whole = fs::read(&path).expect("a manifest");
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).expect("a shorter manifest");
        assert!(!is_hit(&sandbox.store), "cut to {length} of {} bytes", whole.len());
    }
    fs::write(&path, &whole).expect("the whole manifest");
    assert!(is_hit(&sandbox.store));
}

#[test]
fn a_manifest_with_a_changed_byte_is_a_miss() {
    let sandbox = Sandbox::new();
    sandbox.publish(FINGERPRINT, &[("a", "1")]);
    let path = manifest_path(&sandbox);
    let whole = fs::read(&path).expect("a manifest");
    for position in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[position] ^= 1;
        fs::write(&path, &bytes).expect("a damaged manifest");
        assert!(!is_hit(&sandbox.store), "byte {position}");
    }
}

#[test]
fn what_another_version_wrote_is_a_miss_and_is_not_called_damaged() {
    let changes: [(&str, &str); 4] = [
        (r#""format_version": 1"#, r#""format_version": 2"#),
        (r#""kind": "rows""#, r#""kind": "pictures""#),
        (r#""facts""#, r#""news": 1, "facts""#),
        (FINGERPRINT, FINGERPRINT_2),
    ];
    for (old, new) in changes {
        let sandbox = Sandbox::new();
        sandbox.publish(FINGERPRINT, &[("a", "1")]);
        rewrite(&sandbox, str::to_owned);
        assert!(is_hit(&sandbox.store), "rewriting alone changes nothing");
        rewrite(&sandbox, |body| body.replace(old, new));
        assert!(!is_hit(&sandbox.store), "{new}");
        assert_eq!(sandbox.store.verify().expect("verified"), []);
    }
}

#[test]
fn a_manifest_cannot_name_files_outside_their_folder() {
    let sandbox = Sandbox::new();
    sandbox.publish(FINGERPRINT, &[("name", "1")]);
    rewrite(&sandbox, |body| body.replace(r#""name": {"#, r#""../name": {"#));
    assert!(!is_hit(&sandbox.store));
}

#[test]
fn a_blob_that_is_gone_short_or_overwritten_is_missing() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.publish(FINGERPRINT, &[("a", "bytes")]);
    let path = blob(&sandbox.store, "bytes");
    assert_eq!(faults(&sandbox, &manifest), []);
    write_in_place(&path, "other");
    assert_eq!(faults(&sandbox, &manifest), [MissingReason::Changed], "same size, other bytes");
    write_in_place(&path, "byte");
    assert_eq!(faults(&sandbox, &manifest), [MissingReason::Changed], "other size");
    fs::remove_file(&path).expect("a blob");
    assert_eq!(faults(&sandbox, &manifest), [MissingReason::Absent]);
    assert_eq!(sandbox.store.lookup(FINGERPRINT).expect("looked up"), Some(manifest), "a manifest outlives its blobs");
}

#[test]
fn a_missing_blob_is_made_again_by_publishing() {
    for damage in ["", "other"] {
        let sandbox = Sandbox::new();
        let manifest = sandbox.publish(FINGERPRINT, &[("a", "bytes")]);
        write_in_place(&blob(&sandbox.store, "bytes"), damage);
        assert_eq!(sandbox.publish(FINGERPRINT, &[("a", "bytes")]), manifest);
        assert_eq!(faults(&sandbox, &manifest), []);
        assert_eq!(read(&blob(&sandbox.store, "bytes")), "bytes");
    }
}

#[test]
fn a_blob_copied_without_its_times_is_read_once_and_good() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.publish(FINGERPRINT, &[("a", "bytes")]);
    age(&blob(&sandbox.store, "bytes"), std::time::Duration::from_secs(60));
    let store = sandbox.reopen();
    for _ in 0..2 {
        assert_eq!(store.missing(&manifest).expect("looked at"), []);
        assert_eq!(store.n_files_read(), 1);
    }
}

#[test]
fn an_external_file_that_changed_or_is_gone_is_missing() {
    let sandbox = Sandbox::new();
    let path = sandbox.file("rows", "bytes");
    let manifest = sandbox.publish_external(&path);
    assert_eq!(faults(&sandbox, &manifest), []);
    write_in_place(&path, "other");
    assert_eq!(faults(&sandbox, &manifest), [MissingReason::Changed], "same size, other bytes");
    write_in_place(&path, "longer bytes");
    assert_eq!(faults(&sandbox, &manifest), [MissingReason::Changed], "other size");
    fs::remove_file(&path).expect("a file");
    assert_eq!(faults(&sandbox, &manifest), [MissingReason::Absent]);
    let missing = sandbox.store.missing(&manifest).expect("looked at");
    assert_eq!((missing[0].port.as_str(), missing[0].name.as_str(), &missing[0].path), ("rows", "rows.jsonl", &path));
}

#[test]
fn an_external_file_is_read_only_when_it_looks_different() {
    let sandbox = Sandbox::new();
    let path = sandbox.file("rows", "bytes");
    let manifest = sandbox.publish_external(&path);
    let store = sandbox.reopen();
    assert_eq!(store.missing(&manifest).expect("looked at"), []);
    assert_eq!(store.n_files_read(), 0, "unchanged: looked at, not read");
    age(&path, std::time::Duration::from_secs(60));
    for _ in 0..2 {
        assert_eq!(store.missing(&manifest).expect("looked at"), []);
        assert_eq!(store.n_files_read(), 1, "touched: read once, then remembered");
    }
}

#[test]
fn a_manifest_of_many_files_is_found() {
    let sandbox = Sandbox::new();
    let names: Vec<String> = (0..200).map(|number| format!("part-{number:03}.jsonl")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "{}\n")).collect();
    let published = sandbox.publish(FINGERPRINT, &files);
    let text = read(&sandbox.in_store("manifests/aa").join(FINGERPRINT));
    assert!(text.len() > 3 * 8192, "longer than what is read at once");
    assert_eq!(sandbox.reopen().lookup(FINGERPRINT).expect("looked up"), Some(published));
}
