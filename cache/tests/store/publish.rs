use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use pipe_cache::{CacheError, ManifestDraft};
use pipe_contract::ExternalFile;

use crate::gc::{collect, roots};
use crate::sandbox::*;

#[test]
fn what_is_published_is_found_again() {
    let sandbox = Sandbox::new();
    let files = [("train.jsonl", "{\"a\":1}\n"), ("more/test.jsonl", "{\"a\":2}\n"), ("empty.json", "")];
    let published = sandbox.publish(FINGERPRINT, &files);

    let store = sandbox.reopen();
    let found = store.lookup(FINGERPRINT).expect("looked up").expect("there");
    assert_eq!(found, published);
    assert_eq!(store.missing(&found).expect("looked at"), []);
    let artifact = store.artifact(&found, "rows").expect("the port");
    assert_eq!(artifact.digest, found.outputs["rows"].digest);
    assert_eq!(artifact.files.len(), 3);
    for (name, text) in files {
        let path = artifact.file(name).expect("the file");
        assert!(path.is_absolute());
        assert_eq!(read(path), text);
        assert_eq!(fs::metadata(path).expect("a blob").permissions().mode() & 0o777, 0o444, "{name}");
    }
    assert!(matches!(store.artifact(&found, "text"), Err(CacheError::UnknownPort { .. })));
    assert_eq!(sandbox.attempts(), Vec::<String>::new());
    assert_eq!(names(&sandbox.in_store("locks")), Vec::<String>::new());
}

#[test]
fn a_manifest_reads_as_documented() {
    let sandbox = Sandbox::new();
    let attempt = attempt(&sandbox.store, FINGERPRINT, &[("rows.jsonl", "{}\n")]).expect("an attempt");
    let draft = ManifestDraft {
        compute_class: Some("cpu-f32/1".into()),
        preimage: serde_json::json!({ "settings": { "b": 1, "a": 2.5 }, "kind": "prepare" }),
        resolved: Some("0123abc".into()),
        facts: vec![("rows".into(), "1".into()), ("kept".into(), "all".into())],
        ..draft(FINGERPRINT)
    };
    sandbox.store.publish(attempt, draft).expect("published");
    let text = read(&sandbox.in_store("manifests").join("aa").join(FINGERPRINT));
    let expected = r#"{
  "format_version": 1,
  "fingerprint": "aa11111111111111111111111111111111111111111111111111111111111111",
  "semantic_key": "cc33333333333333333333333333333333333333333333333333333333333333",
  "compute_class": "cpu-f32/1",
  "kind": "prepare",
  "kind_version": 3,
  "preimage": {
    "kind": "prepare",
    "settings": {
      "a": 2.5,
      "b": 1
    }
  },
  "resolved": "0123abc",
  "outputs": {
    "rows": {
      "kind": "rows",
      "digest": "19f13fcf2a58b53ee7bde39706a79632f74b436db2286b35defaac0a7d61a274",
      "files": {
        "rows.jsonl": {
          "digest": "a7c4d54776fcb179f048728766a52d75dc450cc2a5072b7e2c238aa9b2cff3b6",
          "size_bytes": 3,
          "external": null
        }
      }
    }
  },
  "facts": [
    [
      "rows",
      "1"
    ],
    [
      "kept",
      "all"
    ]
  ]
}
blake3 a68accd12f5b3a1e485ad654853534f3c8d3abf5d3d31099a2ed7dbc645a1a2d
"#;
    assert_eq!(text, expected);
}

#[test]
fn the_same_bytes_are_kept_once() {
    let sandbox = Sandbox::new();
    let first = sandbox.publish(FINGERPRINT, &[("a", "same"), ("b", "same")]);
    let second = sandbox.publish(FINGERPRINT_2, &[("a", "same"), ("b", "same")]);
    assert_eq!(sandbox.store.size().expect("sizes").blobs.n_files, 1);
    assert_eq!(first.outputs["rows"].digest, second.outputs["rows"].digest);
    assert_eq!(sandbox.store.missing(&second).expect("looked at"), []);
}

#[test]
fn a_dropped_attempt_leaves_nothing() {
    let sandbox = Sandbox::new();
    let attempt = attempt(&sandbox.store, FINGERPRINT, &[("a", "1")]).expect("an attempt");
    let dir = attempt.dir().to_path_buf();
    assert!(dir.join("outputs/rows/a").is_file());
    drop(attempt);
    assert_eq!(sandbox.attempts(), Vec::<String>::new());
    assert_eq!(sandbox.store.lookup(FINGERPRINT).expect("looked up"), None);
}

#[test]
fn the_folder_of_an_attempt_is_the_next_ones_if_nothing_is_left_in_it() {
    let sandbox = Sandbox::new();
    let store = sandbox.reopen();
    let dir_of_next = || store.begin(FINGERPRINT).expect("an attempt").dir().to_path_buf();
    let publish = |files: &[(&str, &str)], more: &str| {
        let attempt = attempt(&store, FINGERPRINT, files).expect("an attempt");
        let dir = attempt.dir().to_path_buf();
        if !more.is_empty() {
            write(&dir.join(more), "left");
        }
        store.publish(attempt, draft(FINGERPRINT)).expect("published");
        dir
    };
    let first = publish(&[("a", "1")], "");
    assert!(first.join("outputs/rows").is_dir());
    assert_eq!(publish(&[("a", "2")], ""), first);
    // What is left: a file that the store had, another name of a blob, a folder, something in the scratch folder or beside it.
    for (n, (files, more)) in [
        (&[("a", "1")][..], ""),
        (&[("a", "3"), ("b", "3")], ""),
        (&[("deep/a", "4")], ""),
        (&[("a", "5")], "scratch/x"),
        (&[("a", "7")], "checkpoint/state"),
    ]
    .into_iter()
    .enumerate()
    {
        let dir = publish(files, more);
        assert!(!dir.exists(), "{n}");
        let next = dir_of_next();
        assert!(next != dir && !next.exists(), "{n}: one that was given up is not used either");
    }
    publish(&[("a", "6")], "");
    assert_eq!(sandbox.attempts().len(), 1);
    drop(store);
    assert_eq!(names(&sandbox.in_store("tmp")), Vec::<String>::new());
}

#[test]
fn only_regular_files_in_declared_ports_are_taken() {
    let sandbox = Sandbox::new();
    let target = sandbox.file("target", "outside");
    type Prepare = fn(&std::path::Path, &std::path::Path);
    let cases: [(&str, Prepare); 6] = [
        ("which is a symlink", |outputs, target| symlink(target, outputs.join("rows/link")).expect("a link")),
        ("`surprise`, which the stage does not declare", |outputs, _| write(&outputs.join("surprise/a"), "1")),
        ("`stray`, which the stage does not declare", |outputs, _| write(&outputs.join("stray"), "1")),
        ("`rows`, which the stage does not declare", |outputs, target| {
            fs::remove_dir_all(outputs.join("rows")).expect("gone");
            symlink(target.parent().expect("a folder"), outputs.join("rows")).expect("a link");
        }),
        ("no file was written to output `rows`", |outputs, _| fs::remove_file(outputs.join("rows/a")).expect("gone")),
        ("a name must be UTF-8", |outputs, _| write(&outputs.join("rows/back\\slash"), "1")),
    ];
    for (expected, prepare) in cases {
        let attempt = attempt(&sandbox.store, FINGERPRINT, &[("a", "1")]).expect("an attempt");
        prepare(&attempt.outputs_dir(), &target);
        let error = sandbox.store.publish(attempt, draft(FINGERPRINT)).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(sandbox.store.lookup(FINGERPRINT).expect("looked up"), None);
        assert_eq!(sandbox.attempts(), Vec::<String>::new());
    }
}

#[test]
fn a_reference_is_checked_like_a_file() {
    let sandbox = Sandbox::new();
    let path = sandbox.file("target", "outside");
    let good = external("a", &path);
    let cases: [(&str, Vec<ExternalFile>); 5] = [
        ("has the file `a` twice", vec![good.clone(), good.clone()]),
        ("a name must be UTF-8", vec![ExternalFile { name: "../a".into(), ..good.clone() }]),
        ("which the stage does not declare", vec![ExternalFile { port: "text".into(), ..good.clone() }]),
        ("is not a digest", vec![ExternalFile { digest: Some("ABC".into()), ..good.clone() }]),
        ("failed to read", vec![external("a", &sandbox.path("nowhere"))]),
    ];
    for (expected, external) in cases {
        let attempt = sandbox.store.begin(FINGERPRINT).expect("an attempt");
        let draft = ManifestDraft { external, ..draft(FINGERPRINT) };
        let error = sandbox.store.publish(attempt, draft).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_reference_is_not_copied() {
    let sandbox = Sandbox::new();
    let path = sandbox.file("model.safetensors", "weights");
    let manifest = sandbox.publish_external(&path);
    assert_eq!(
        sandbox.store.artifact(&manifest, "rows").expect("the port").file("rows.jsonl").expect("the file"),
        path
    );
    let size = sandbox.store.size().expect("sizes");
    assert_eq!((size.blobs.n_files, size.external.n_files, size.external.size_bytes), (0, 1, 7));
}

#[test]
fn an_input_that_is_passed_on_is_the_same_blob_and_kept_without_it() {
    let sandbox = Sandbox::new();
    let store = sandbox.reopen();
    let input = publish(&store, FINGERPRINT_2, &[("base", "weights")]).expect("published").manifest;
    let file = store.artifact(&input, "rows").expect("the port").files["base"].clone();
    let passed_on = ExternalFile { digest: Some(file.digest), ..external("model", &file.path) };
    let draft = ManifestDraft { external: vec![passed_on], ..draft(FINGERPRINT) };
    let manifest = store.publish(store.begin(FINGERPRINT).expect("an attempt"), draft).expect("published").manifest;
    let size = store.size().expect("sizes");
    assert_eq!((size.blobs.n_files, size.external.n_files), (1, 0));
    // Its holds end with it.
    drop(store);

    collect(&sandbox.store, &roots(&[FINGERPRINT]), None);
    assert_eq!(sandbox.store.missing(&manifest).expect("looked at"), []);
    collect(&sandbox.store, &roots(&[]), None);
    assert_eq!(sandbox.store.missing(&manifest).expect("looked at").len(), 1);
}

#[test]
fn a_file_that_a_stage_linked_from_elsewhere_gets_an_inode_of_its_own() {
    let sandbox = Sandbox::new();
    let outside = sandbox.file("outside", "linked");
    let attempt = attempt(&sandbox.store, FINGERPRINT, &[("a", "1")]).expect("an attempt");
    fs::hard_link(&outside, attempt.outputs_dir().join("rows/b")).expect("a hard link");
    let manifest = sandbox.store.publish(attempt, draft(FINGERPRINT)).expect("published").manifest;
    write_in_place(&outside, "edited");
    let artifact = sandbox.store.artifact(&manifest, "rows").expect("the port");
    assert_eq!(read(artifact.file("b").expect("the file")), "linked");
}

#[test]
fn keys_that_are_no_file_names_are_refused() {
    let sandbox = Sandbox::new();
    for key in ["", "..", "a/b"] {
        assert!(matches!(sandbox.store.lookup(key), Err(CacheError::BadKey { .. })), "{key}");
        assert!(matches!(sandbox.store.begin(key), Err(CacheError::BadKey { .. })), "{key}");
        assert!(matches!(sandbox.store.stage_lock(key, &mut |_| {}), Err(CacheError::BadKey { .. })), "{key}");
    }
}
