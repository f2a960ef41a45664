//! `pipe doctor`: what it finds on a machine that is well, and that it finds what is not. What a machine has differs, so lines are looked at one by one.

use serde_json::Value;

use pipe_lm::cli::Environment;

use crate::sandbox::{Output, Sandbox};

/// The line of the check called `name`, and the one below it where that is its help.
fn line<'o>(output: &'o Output, name: &str) -> (&'o str, Option<&'o str>) {
    let mut lines = output.out.lines();
    let is_named = |line: &&str| line.get(9..).is_some_and(|rest| rest.starts_with(&format!("{name} ")));
    let found = lines.find(is_named).unwrap_or_else(|| panic!("no line `{name}`:\n{}", output.out));
    (found, lines.next().and_then(|line| line.trim_start().strip_prefix("help: ")))
}

#[test]
fn a_machine_that_is_well_and_nothing_is_left_behind() {
    let sandbox = Sandbox::new();
    let output = sandbox.pipe("doctor");
    assert_eq!(output.code, 0, "{}", output.screen());
    for (name, found) in [
        ("store", ".pipe, not there yet, can be made"),
        ("locks", "flock keeps a second one out"),
        ("writing", "files are synced and renamed"),
        ("clock", "that of the disk is that of the machine"),
        ("environment", "no PIPE_ variable is set"),
    ] {
        let (line, help) = line(&output, name);
        assert!(line.starts_with("ok ") && line.ends_with(found), "{line}");
        assert_eq!(help, None, "{line}");
    }
    for name in ["file system", "copies", "room", "threads", "memory", "gpu"] {
        assert!(!line(&output, name).0.starts_with("problem"), "{}", output.out);
    }
    assert!(!output.out.contains("hub"), "no kind asks it, so it is not asked");
    let left = std::fs::read_dir(sandbox.path("")).expect("a folder").count();
    assert_eq!(left, 0, "neither a store nor what it tried");
}

#[test]
fn the_same_for_programs() {
    let sandbox = Sandbox::with_stages("  rows: { uses: make }\n");
    sandbox.outcomes("run p.yaml");
    let answer: Value = serde_json::from_str(&sandbox.pipe("doctor p.yaml --json").out).expect("an object");
    assert_eq!((&answer["format_version"], &answer["is_well"]), (&1.into(), &true.into()));
    let checks = answer["checks"].as_array().expect("a list");
    let names: Vec<&str> = checks.iter().filter_map(|check| check["name"].as_str()).collect();
    let expected = [
        "store",
        "file system",
        "locks",
        "writing",
        "copies",
        "clock",
        "room",
        "leftovers",
        "threads",
        "memory",
        "gpu",
        "environment",
        "pipeline",
        "lock file",
    ];
    assert_eq!(names, expected);
    assert_eq!(
        checks[0],
        serde_json::json!({ "name": "store", "level": "ok", "found": ".pipe, writable", "help": null })
    );
}

#[test]
fn a_store_that_cannot_be_written_is_a_problem() {
    let output = Sandbox::new().pipe("doctor --store /proc/pipe-test");
    assert_eq!(output.code, 1);
    let (line, help) = line(&output, "store");
    assert!(line.starts_with("problem  store") && line.contains("`/proc/pipe-test` cannot be written"), "{line}");
    assert_eq!(help, Some("make it writable, or put it elsewhere with `--store DIR`"));
}

#[test]
fn a_small_disk_and_what_verify_set_aside_are_warnings() {
    let sandbox = Sandbox::with_stages("  rows: { uses: make }\n");
    sandbox.outcomes("run p.yaml");
    sandbox.write(".pipe/corrupt/some", "bytes");
    let environment = Environment { pretended_free_bytes: Some(400_000_000), ..Environment::default() };
    let output = sandbox.pipe_in("doctor", environment);
    assert_eq!(output.code, 0, "a warning is no problem");
    assert_eq!(
        line(&output, "room"),
        ("warning  room         400.0 MB free", Some("`pipe cache gc` says what can be removed"))
    );
    let (line, _) = line(&output, "leftovers");
    assert_eq!(line, "warning  leftovers    1 file with wrong bytes, set aside");
}

#[test]
fn variables_that_nothing_reads_or_that_are_wrong() {
    let environment =
        Environment { pipe_names: vec!["PIPE_STROE".into()], threads: Some("many".into()), ..Environment::default() };
    let output = Sandbox::new().pipe_in("doctor", environment);
    assert_eq!(output.code, 1);
    let (found, help) = line(&output, "environment");
    assert!(found.starts_with("warning") && found.ends_with("`PIPE_STROE`: nothing reads it"), "{found}");
    assert_eq!(help, Some("did you mean `PIPE_STORE`?"));
    assert!(line(&output, "threads").0.ends_with("PIPE_THREADS is `many`"), "{}", output.out);
}

#[test]
fn a_pipeline_file_and_its_lock_file() {
    let sandbox = Sandbox::with_stages("  rows: { uses: mak }\n");
    let output = sandbox.pipe("doctor p.yaml");
    assert_eq!(output.code, 1);
    assert_eq!(line(&output, "pipeline").1, Some("`pipe check p.yaml` shows them"));
    sandbox.write_stages("  rows: { uses: make }\n");
    let (found, _) = {
        let output = sandbox.pipe("doctor p.yaml");
        (line(&output, "lock file").0.to_string(), output)
    };
    assert!(found.starts_with("warning") && found.ends_with("`p.lock` is not there"), "{found}");
    sandbox.outcomes("run p.yaml");
    let output = sandbox.pipe("doctor p.yaml");
    assert!(line(&output, "lock file").0.ends_with("  p.lock"), "{}", output.out);
    sandbox.write("p.lock", "not a lock file");
    assert!(!line(&sandbox.pipe("doctor p.yaml"), "lock file").0.starts_with("ok"));
}

#[test]
fn what_is_missing_for_a_gpu_is_named() {
    let output = Sandbox::new().pipe("doctor --device cuda");
    assert_eq!((output.code, output.out.as_str()), (2, ""));
    if !cfg!(feature = "cuda") {
        assert!(output.err.contains("error[no-cuda-build]: this build of pipe cannot use a GPU"), "{}", output.err);
        assert!(output.err.contains("help: build it with `--features cuda`"), "{}", output.err);
    }
    assert_eq!(Sandbox::new().pipe("doctor --device tpu").code, 2);
}
