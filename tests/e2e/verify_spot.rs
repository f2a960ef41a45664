//! `pipe verify --spot N`: stages that can run parts of what they did again, all others run in full.

use std::fs;

use crate::sandbox::Sandbox;

const STAGES: &str = "
  rows: { uses: make, with: { value: hello } }
  text: { uses: grow, inputs: { rows: rows }, with: { suffix: '!', label: text } }
  last: { uses: join, inputs: { rows: text } }
";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    sandbox
}

#[test]
fn parts_are_run_again_where_a_stage_can() {
    let sandbox = sandbox();
    screen!(sandbox.pipe("verify p.yaml --threads 1 --spot 2 --seed 7"), @r"
    exit code: 0
    ----- stdout
    rows  same
    text  spot same
          part 1 of `hello!` from `hello`, by seed 7; the state is `!`
          part 2 of `hello!` from `hello`, by seed 7; the state is `!`
          the digests in the lock file
    last  same
    3 stages: 2 same, 1 spot same
    parts were chosen by --seed 7
    ----- stderr
    rows  started, 1 thread
    rows  ran in [time]
    text  started, 1 thread
    text  ran in [time]
    last  started, 1 thread
    last  ran in [time]
    ");
    assert_eq!(fs::read_dir(sandbox.path(".pipe/tmp")).expect("there").count(), 0, "its store is left");
    let run = sandbox.pipe("run p.yaml --set stages.text.with.suffix=b --json");
    assert!(run.out.contains(r#""name":"goes on from","value":"!""#), "the state is as it was: {}", run.out);
}

#[test]
fn a_part_that_differs_is_told_in_every_form() {
    let sandbox = sandbox();
    sandbox.behave("text", "other");
    let output = sandbox.pipe("verify p.yaml --threads 1 --spot 1 --seed 7 --stage text --junit verify.xml");
    screen!(output, @r"
    exit code: 4
    ----- stdout
    rows  not asked
    text  spot differs  it is not as it says
          part 1 of `hello!` from `hello`, by seed 7; the state is `!`: `!` -> `x`
          the digests in the lock file
    2 stages: 1 spot differs, 1 not asked
    parts were chosen by --seed 7
    ----- stderr
    text  started, 1 thread
    text  ran in [time]
    ");
    insta::with_settings!({ filters => vec![(r#"time="\d+\.\d+""#, "time=[s]")] }, {
        insta::assert_snapshot!(sandbox.read("verify.xml"), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites>
          <testsuite name="pipe verify p" tests="2" failures="1" errors="0" skipped="1" time=[s]>
            <properties><property name="seed" value="7"/></properties>
            <testcase classname="p" name="rows" time=[s]><skipped/></testcase>
            <testcase classname="p" name="text" time=[s]><failure message="spot differs it is not as it says">part 1 of `hello!` from `hello`, by seed 7; the state is `!`: `!` -&gt; `x`
        the digests in the lock file</failure></testcase>
          </testsuite>
        </testsuites>
        "#);
    });
    let output = sandbox.pipe("verify p.yaml --spot 1 --seed 7 --stage text --json");
    let json: serde_json::Value = serde_json::from_str(&output.out).expect("JSON");
    let text = &json["stages"][1];
    assert_eq!((output.code, &json["seed"], &text["result"]), (4, &7.into(), &"spot-differs".into()));
    assert_eq!(text["checks"][0]["difference"], "`!` -> `x`");
    assert_eq!(text["checks"][1], serde_json::json!({ "what": "the digests in the lock file", "difference": null }));
    // Nothing was published: what stands is all there is.
    fs::remove_file(sandbox.path("text.mode")).expect("there");
    assert_eq!(sandbox.pipe("verify p.yaml").code, 0);
    assert_eq!(sandbox.outcomes("run p.yaml"), "last reused, rows reused, text reused");
}

#[test]
fn what_stands_must_be_what_the_lock_file_says() {
    let sandbox = sandbox();
    let lock: serde_json::Value = serde_json::from_str(&sandbox.read("p.lock")).expect("JSON");
    let digest = |value: &serde_json::Value| value.as_str().expect("text").to_string();
    let outputs = lock["outputs"].as_object().expect("by fingerprint");
    let fingerprint = sandbox.pipe("verify p.yaml --json --stage text").out;
    let fingerprint: serde_json::Value = serde_json::from_str(&fingerprint).expect("JSON");
    let rows = digest(&outputs[&digest(&fingerprint["stages"][1]["fingerprint"])]["rows"]);
    sandbox.write("p.lock", &sandbox.read("p.lock").replace(&rows, &"0".repeat(64)));
    let output = sandbox.pipe("verify p.yaml --spot 1 --stage text");
    assert_eq!(output.code, 4);
    let named = format!("the digests in the lock file: digest of `rows` 000000000000 -> {}", &rows[..12]);
    assert!(output.out.contains(&named), "{}", output.screen());
}

#[test]
fn without_what_it_gave_a_stage_runs_in_full() {
    let sandbox = sandbox();
    sandbox.remove_blob("hello!");
    let output = sandbox.pipe("verify p.yaml --spot 2 --seed 7");
    assert_eq!((output.code, output.out.contains("3 stages: 3 same")), (0, true), "{}", output.screen());
    fs::remove_dir_all(sandbox.path(".pipe")).expect("the store");
    let output = sandbox.pipe("verify p.yaml --spot 2 --seed 7");
    assert_eq!((output.code, output.out.contains("3 stages: 3 same")), (0, true), "{}", output.screen());
}

#[test]
fn inputs_that_are_gone_are_made_first() {
    let sandbox = sandbox();
    sandbox.remove_blob("hello");
    let output = sandbox.pipe("verify p.yaml --spot 1 --seed 7 --stage text");
    assert!(output.out.contains("rows  same\ntext  spot same\n"), "{}", output.screen());
}

#[test]
fn the_seed_is_that_of_the_last_run_and_can_be_given() {
    let sandbox = sandbox();
    let seed = || {
        let out = sandbox.pipe("verify p.yaml --spot 1").out;
        out.lines()
            .last()
            .and_then(|line| line.strip_prefix("parts were chosen by --seed "))
            .expect("a seed")
            .to_string()
    };
    let first = seed();
    assert_eq!(seed(), first);
    sandbox.outcomes("run p.yaml");
    assert_ne!(seed(), first, "another run, another place to look");
    assert_eq!(sandbox.pipe("verify p.yaml --seed 7").code, 2);
    assert_eq!(sandbox.pipe("verify p.yaml --spot 0").code, 2);
}
