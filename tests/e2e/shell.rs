//! `pipe completions` and `pipe man`: what shells and `man` read.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::sandbox::Sandbox;

/// Whether a program takes `input`, with what it printed; `None` where it is not installed.
fn feed(program: &str, arguments: &[&str], input: &str) -> Option<(bool, String)> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.ok()?;
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("the program reads");
    let output = child.wait_with_output().expect("the program ends");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Some((output.status.success(), text))
}

fn skip(test: &str, why: &str) {
    writeln!(std::io::stderr(), "SKIPPED {test}: {why}").expect("stderr is open");
}

/// Bold is a letter printed twice in one place.
fn without_overstriking(text: &str) -> String {
    let mut plain = String::new();
    for letter in text.chars() {
        if letter == '\u{8}' {
            plain.pop();
        } else {
            plain.push(letter);
        }
    }
    plain
}

#[test]
fn every_shell_has_a_script_with_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = Sandbox::new().pipe(&format!("completions {shell}"));
        assert_eq!((output.code, output.err.as_str()), (0, ""), "{shell}");
        for word in ["run", "explain", "keep-going", "unpin"] {
            assert!(output.out.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(Sandbox::new().pipe("completions tcsh").code, 2);
}

#[test]
fn bash_takes_its_script_and_completes_with_it() {
    let script = Sandbox::new().pipe("completions bash").out;
    let Some((is_right, text)) = feed("bash", &["-n"], &script) else {
        return skip("bash_takes_its_script_and_completes_with_it", "bash is not installed");
    };
    assert!(is_right, "{text}");
    let ask = format!("{script}\nCOMP_WORDS=(pipe ru); COMP_CWORD=1; _pipe pipe ru pipe; echo \"${{COMPREPLY[@]}}\"\n");
    let (is_right, text) = feed("bash", &["--norc"], &ask).expect("it was there a moment ago");
    assert!(is_right, "{text}");
    assert_eq!(text.trim(), "run runs");
}

#[test]
fn every_command_has_a_page() {
    let sandbox = Sandbox::new();
    screen!(sandbox.pipe("man --out pages"), @r"
    exit code: 0
    ----- stdout
    31 pages written to pages
    ----- stderr
    ");
    let mut pages: Vec<String> = fs::read_dir(sandbox.path("pages"))
        .expect("a folder")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    pages.sort();
    for page in ["pipe.1", "pipe-run.1", "pipe-cache-gc.1", "pipe-bench-train.1"] {
        assert!(pages.iter().any(|name| name == page), "{page} is not among {pages:?}");
    }
    let of_run = sandbox.read("pages/pipe-run.1");
    assert!(of_run.contains(".TH pipe\\-run 1") || of_run.contains(".TH pipe-run 1"), "{of_run}");
    assert!(of_run.contains("keep\\-going"), "{of_run}");
    assert!(sandbox.pipe("man").out.lines().any(|line| line.starts_with(".TH")));
}

#[test]
fn man_shows_the_pages() {
    let sandbox = Sandbox::new();
    sandbox.pipe("man --out pages");
    let page = sandbox.read("pages/pipe-run.1");
    let shown = feed("mandoc", &["-Tascii"], &page).or_else(|| feed("groff", &["-man", "-Tascii", "-ww"], &page));
    let Some((is_right, text)) = shown else {
        return skip("man_shows_the_pages", "neither mandoc nor groff is installed");
    };
    assert!(is_right, "{text}");
    let text = without_overstriking(&text);
    assert!(text.contains("NAME") && text.contains("OPTIONS"), "{text}");
}
