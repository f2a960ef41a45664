//! A pipeline of many small commands, killed: they write slowly, in parts, with processes of their own, and leave some behind.
//!
//! ```text
//! a0 slow    b0 parts    c0 late       three at a time, as there are threads
//!   \   \    /     \    /   \
//!    a1 parts    b1 late    c1 folder  ...  c2 --> joined --> to: out/joined
//! ```

use std::fmt::Write as _;
use std::fs;

use crate::harness::{Project, seed_and_points};

/// What a stage runs: its MODE, where it writes, its name, and what it reads.
const WORK: &str = r#"# MODE OUTPUT NAME [INPUT...]
set -eu
mode=$1 out=$2 name=$3
shift 3
sum=$({ echo "$name"; for input; do find -L "$input" -type f | LC_ALL=C sort | xargs cat; done; } | cksum)
line() { echo "$name $1 $sum"; sleep 0.01; }

case $mode in
slow) for i in 1 2 3 4 5 6; do line $i; done > "$out" ;;
parts)
  for i in 1 2 3; do
    { line $i; line $i again; } > "$TMPDIR/part-$i" &
  done
  wait
  cat "$TMPDIR/part-1" "$TMPDIR/part-2" "$TMPDIR/part-3" > "$out" ;;
late)
  line 1 > "$out"
  # Left behind: a process that would write once the output is long published, and a child of it.
  { sleep 300 & sleep 300; echo late >> "$out"; } &
  line 2 >> "$out" ;;
folder)
  for i in 1 2 3; do
    { line $i; line $i again; } > "$out/unfinished"
    mv "$out/unfinished" "$out/$i.txt"
  done ;;
esac
"#;

/// Stages side by side.
const WIDTH: usize = 3;
/// Rows of them.
const DEPTH: usize = 3;
const MODES: [&str; 4] = ["slow", "parts", "late", "folder"];

fn pipeline() -> String {
    let mut text = "version: 1\nname: fake\nstages:\n".to_string();
    let name = |column: usize, row: usize| format!("{}{row}", char::from(b'a' + u8::try_from(column).expect("few")));
    let mut stage = |name: &str, mode: &str, inputs: &[String], to: &str| {
        let kind = if mode == "folder" { "rows" } else { "file" };
        let ports: Vec<String> = (0..inputs.len()).map(|number| format!("in{number}")).collect();
        let connected: Vec<String> = ports.iter().zip(inputs).map(|(port, from)| format!("{port}: {from}")).collect();
        let paths: String = ports.iter().map(|port| format!(", \"${{{{ inputs.{port} }}}}\"")).collect();
        let inputs =
            if inputs.is_empty() { String::new() } else { format!(" inputs: {{ {} }},", connected.join(", ")) };
        writeln!(
            text,
            "  {name}: {{ uses: command,{inputs} outputs: {{ out: {kind} }}, with: {{ run: [sh, work.sh, {mode}, \
             \"${{{{ outputs.out }}}}\", {name}{paths}], sources: [work.sh] }}{to} }}"
        )
        .expect("to a String");
    };
    for row in 0..DEPTH {
        for column in 0..WIDTH {
            let above = |column: usize| name(column % WIDTH, row - 1);
            let inputs = if row == 0 { Vec::new() } else { vec![above(column), above(column + 1)] };
            let to = if column == 0 { format!(", to: out/{}", name(column, row)) } else { String::new() };
            stage(&name(column, row), MODES[(column + row) % MODES.len()], &inputs, &to);
        }
    }
    let last: Vec<String> = (0..WIDTH).map(|column| name(column, DEPTH - 1)).collect();
    stage("joined", "slow", &last, ", to: out/joined");
    text
}

fn project() -> Project {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("work.sh"), WORK).expect("a file");
    fs::write(folder.path().join("p.yaml"), pipeline()).expect("a file");
    let arguments = ["p.yaml", "--threads", "3"].map(str::to_string).to_vec();
    Project::new(folder, arguments, vec!["out", "p.lock"])
}

fn killed_at(default_seed: u64, default_points: usize) {
    let project = project();
    let clean = project.run_clean();
    assert_eq!(project.run_clean().results, clean.results, "two undisturbed runs");
    eprintln!("an undisturbed run: {:.2} s, {} events", clean.duration.as_secs_f64(), clean.n_events);
    let (seed, n_points) = seed_and_points(default_seed, default_points);
    let tally = project.kill_at_points(&clean, seed, n_points);
    eprintln!("fake pipeline, seed {seed}, {}", tally.text());
    assert!(tally.n_killed() * 2 > n_points, "too few runs were killed: {}", tally.text());
    assert!(tally.n_with_children() > n_points / 8, "too few commands were killed: {}", tally.text());
}

#[test]
fn killed_at_some_points_it_ends_as_a_clean_run() {
    killed_at(7, 20);
}

/// `just kill`: 500 points.
#[test]
#[ignore = "half an hour"]
fn killed_anywhere_it_ends_as_a_clean_run() {
    killed_at(1, 500);
}
