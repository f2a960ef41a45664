//! pipelines/quickstart.yaml, killed: real stages of every kind, with trainings that go on from checkpoints.

use std::fs;
use std::path::Path;

use crate::harness::{Project, seed_and_points};

/// So that a run takes seconds. `PIPE_WHOLE` leaves the trainings as they are: hours.
const SHORTER: [&str; 8] = [
    "stages.base.with.max_steps=40",
    "stages.base.with.save_strategy=steps",
    "stages.base.with.save_steps=3",
    "stages.adapter.with.max_steps=30",
    "stages.adapter.with.save_strategy=steps",
    "stages.adapter.with.save_steps=4",
    "stages.old_skills.with.max_examples=16",
    "stages.new_skill.with.max_examples=16",
];

fn project() -> Project {
    let folder = tempfile::tempdir().expect("a temporary folder");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines"), "quickstart", folder.path());
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines"), "quickstart.yaml", folder.path());
    let mut arguments = vec!["quickstart.yaml".to_string(), "--threads".into(), "2".into()];
    if std::env::var_os("PIPE_WHOLE").is_none() {
        arguments.extend(SHORTER.iter().flat_map(|set| ["--set".to_string(), (*set).into()]));
    }
    Project::new(folder, arguments, vec!["out", "quickstart.lock"])
}

fn copy(from: &Path, name: &str, to: &Path) {
    let (from, to) = (from.join(name), to.join(name));
    if !from.is_dir() {
        fs::copy(&from, &to).expect("a file of the checkout");
        return;
    }
    fs::create_dir(&to).expect("a new folder");
    for entry in fs::read_dir(&from).expect("a folder of the checkout").map(|entry| entry.expect("an entry")) {
        copy(&from, &entry.file_name().to_string_lossy(), &to);
    }
}

#[test]
#[ignore = "a quarter of an hour"]
fn killed_anywhere_the_quickstart_ends_as_a_clean_run() {
    let project = project();
    let clean = project.run_clean();
    assert_eq!(project.run_clean().results, clean.results, "two undisturbed runs");
    eprintln!("an undisturbed run: {:.1} s, {} events", clean.duration.as_secs_f64(), clean.n_events);
    let (seed, n_points) = seed_and_points(1, 25);
    let tally = project.kill_at_points(&clean, seed, n_points);
    eprintln!("quickstart, seed {seed}, {}", tally.text());
    assert!(tally.n_killed() * 2 > n_points, "too few runs were killed: {}", tally.text());
}
