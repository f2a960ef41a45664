use std::fs;

use pipe_cache::{CorruptionKind, SizeOf};

use crate::sandbox::*;

#[test]
fn a_sound_store_verifies() {
    let sandbox = Sandbox::new();
    sandbox.publish(FINGERPRINT, &[("a", "1"), ("b", "2"), ("empty", "")]);
    assert_eq!(sandbox.store.verify().expect("verified"), []);
}

#[test]
fn a_corrupt_blob_is_set_aside_and_made_again() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.publish(FINGERPRINT, &[("a", "bytes"), ("b", "sound")]);
    let path = blob(&sandbox.store, "bytes");
    // As a disk corrupts it: neither size nor time tell.
    let modified = fs::metadata(&path).and_then(|m| m.modified()).expect("a time");
    write_in_place(&path, "bytez");
    fs::File::open(&path).and_then(|file| file.set_modified(modified)).expect("our own file");
    assert_eq!(sandbox.store.missing(&manifest).expect("looked at"), [], "a hit does not read blobs");

    let corruptions = sandbox.store.verify().expect("verified");
    assert_eq!(corruptions.len(), 1);
    assert_eq!(corruptions[0].path, path);
    let expected = blake3::hash(b"bytes").to_hex().to_string();
    let found = blake3::hash(b"bytez").to_hex().to_string();
    assert_eq!(corruptions[0].kind, CorruptionKind::Blob { expected, found });
    assert_eq!(read(&corruptions[0].set_aside), "bytez");
    assert_eq!(sandbox.store.missing(&manifest).expect("looked at").len(), 1);
    assert_eq!(sandbox.publish(FINGERPRINT, &[("a", "bytes"), ("b", "sound")]), manifest);
    assert_eq!(sandbox.store.missing(&manifest).expect("looked at"), []);
    assert_eq!(sandbox.store.verify().expect("verified"), []);
}

#[test]
fn a_corrupt_manifest_is_set_aside() {
    let sandbox = Sandbox::new();
    sandbox.publish(FINGERPRINT, &[("a", "1")]);
    let path = sandbox.in_store("manifests/aa").join(FINGERPRINT);
    write(&path, &read(&path).replace("prepare", "prepaid"));
    let corruptions = sandbox.store.verify().expect("verified");
    assert_eq!((corruptions.len(), &corruptions[0].kind), (1, &CorruptionKind::Manifest));
    assert!(!path.exists());
}

#[test]
fn the_parts_of_a_store_are_counted_apart() {
    let sandbox = Sandbox::new();
    sandbox.publish(FINGERPRINT, &[("a", "12345"), ("b", "12345"), ("c", "123")]);
    write(&sandbox.store.checkpoint_dir("aabb").join("state"), "1234567");
    write(&sandbox.store.run_dir("20250101-000000-ab").join("events.jsonl"), "12");
    let size = sandbox.store.size().expect("sizes");
    assert_eq!(size.blobs, SizeOf { n_files: 2, size_bytes: 8 });
    assert_eq!(size.checkpoints, SizeOf { n_files: 1, size_bytes: 7 });
    assert_eq!(size.runs, SizeOf { n_files: 1, size_bytes: 2 });
    assert_eq!(size.manifests.n_files, 1);
    assert_eq!(size.external, SizeOf::default());
    assert_eq!(
        size.held_bytes(),
        8 + 7 + 2 + size.manifests.size_bytes + size.other.size_bytes,
        "the sum of what is held"
    );
}
