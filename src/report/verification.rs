//! What `pipe verify` found: a line per stage for people, JSON for programs, JUnit XML for CI.

use std::fmt::Write as _;

use pipe_contract::SpotCheck;
use unicode_width::UnicodeWidthStr;

use super::escape::escape;
use super::numbers::plural;
use super::style::Style;
use crate::compare::FileDifference;
use crate::verify::{Verified, VerifyResult, Witness};

/// The word for a result.
fn word(result: &VerifyResult) -> &'static str {
    match result {
        VerifyResult::Same { .. } => "same",
        VerifyResult::Differs { .. } => "differs",
        VerifyResult::SpotSame { .. } => "spot same",
        VerifyResult::SpotDiffers { .. } => "spot differs",
        VerifyResult::Unknown => "unknown",
        VerifyResult::OtherInputs => "other inputs",
        VerifyResult::NotAsked => "not asked",
        VerifyResult::NotRun { .. } => "not run",
    }
}

/// A line without period on what came of a stage; empty where the word says it all.
fn sentence(verified: &Verified) -> String {
    match &verified.result {
        VerifyResult::Same { .. } | VerifyResult::SpotSame { .. } | VerifyResult::NotAsked
            if verified.n_other_results > 0 =>
        {
            let n = plural(verified.n_other_results, "other result");
            format!("{n} of an earlier execution, kept in the store")
        }
        VerifyResult::Same { .. } | VerifyResult::SpotSame { .. } | VerifyResult::NotAsked => String::new(),
        VerifyResult::SpotDiffers { .. } => "it is not as it says".into(),
        VerifyResult::Differs { compared_with, .. } => {
            let witness = |witness: &Witness| match witness {
                Witness::Store => "what the store has",
                Witness::LockFile => "what the lock file says",
            };
            format!("from {}", compared_with.iter().map(witness).collect::<Vec<_>>().join(" and "))
        }
        VerifyResult::Unknown => "neither store nor lock file says what it gave before".into(),
        VerifyResult::OtherInputs => "a stage before it gave other bytes, and nothing stands to run it on".into(),
        VerifyResult::NotRun { failure } => failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default(),
    }
}

/// A part that was looked at, and what differs.
fn text_of(check: &SpotCheck) -> String {
    match &check.difference {
        Some(difference) => format!("{}: {difference}", check.what),
        None => check.what.clone(),
    }
}

/// The lines below a stage's: what differs, or what was looked at.
fn details(result: &VerifyResult) -> Vec<String> {
    match result {
        VerifyResult::Differs { differences, .. } => differences.iter().map(FileDifference::text).collect(),
        VerifyResult::SpotSame { checks } | VerifyResult::SpotDiffers { checks } => {
            checks.iter().map(text_of).collect()
        }
        _ => Vec::new(),
    }
}

/// The lines for people, a line end after each. `seed`: where parts were chosen by one.
pub fn render(stages: &[Verified], seed: Option<u64>, style: Style) -> String {
    let name_width = stages.iter().map(|verified| verified.stage.width()).max().unwrap_or(0);
    let word_width = stages.iter().map(|verified| word(&verified.result).len()).max().unwrap_or(0);
    let mut text = String::new();
    for verified in stages {
        let padding = " ".repeat(name_width - verified.stage.width());
        let word = format!("{:<word_width$}", word(&verified.result));
        let word = match verified.result {
            VerifyResult::Same { .. } | VerifyResult::SpotSame { .. } => style.green(&word),
            VerifyResult::NotAsked => style.dim(&word),
            VerifyResult::Unknown | VerifyResult::OtherInputs => style.yellow(&word),
            VerifyResult::Differs { .. } | VerifyResult::SpotDiffers { .. } | VerifyResult::NotRun { .. } => {
                style.red(&word)
            }
        };
        let line = format!("{}{padding}  {word}  {}", style.bold(&verified.stage), sentence(verified));
        writeln!(text, "{}", line.trim_end()).expect("to a String");
        for line in details(&verified.result) {
            writeln!(text, "{:name_width$}  {line}", "").expect("to a String");
        }
    }
    writeln!(text, "{}", totals(stages)).expect("to a String");
    if let Some(seed) = seed {
        writeln!(text, "parts were chosen by --seed {seed}").expect("to a String");
    }
    text
}

/// `7 stages: 6 same, 1 differs`.
fn totals(stages: &[Verified]) -> String {
    let words = ["same", "differs", "spot same", "spot differs", "unknown", "other inputs", "not asked", "not run"];
    let counts = words.map(|name| (stages.iter().filter(|verified| word(&verified.result) == name).count(), name));
    let parts: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, name)| format!("{n} {name}")).collect();
    format!("{}: {}", plural(stages.len(), "stage"), parts.join(", "))
}

/// `{ "format_version": 1, "pipeline", "seed", "stages": [{ "stage", "kind", "fingerprint", "result", "differences", ... }] }`.
pub fn to_json(pipeline: &str, stages: &[Verified], seed: Option<u64>) -> serde_json::Value {
    serde_json::json!({ "format_version": 1, "pipeline": pipeline, "seed": seed, "stages": stages })
}

/// JUnit XML as CI systems read it: a test case per stage, times in seconds. Bytes that differ and results nobody knows are
/// failures, a stage that did not run is an error, one that was not asked for is skipped.
pub fn to_junit(pipeline: &str, stages: &[Verified], seed: Option<u64>) -> String {
    let count = |is_counted: fn(&VerifyResult) -> bool| stages.iter().filter(|v| is_counted(&v.result)).count();
    let n_failures = count(|result| {
        matches!(
            result,
            VerifyResult::Differs { .. }
                | VerifyResult::SpotDiffers { .. }
                | VerifyResult::Unknown
                | VerifyResult::OtherInputs
        )
    });
    let n_errors = count(|result| matches!(result, VerifyResult::NotRun { .. }));
    let n_skipped = count(|result| matches!(result, VerifyResult::NotAsked));
    let seconds: f64 = stages.iter().map(|verified| verified.duration.as_secs_f64()).sum();
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"pipe verify {}\" tests=\"{}\" \
         failures=\"{n_failures}\" errors=\"{n_errors}\" skipped=\"{n_skipped}\" time=\"{seconds:.3}\">\n",
        escape(pipeline),
        stages.len()
    );
    if let Some(seed) = seed {
        writeln!(xml, "    <properties><property name=\"seed\" value=\"{seed}\"/></properties>").expect("to a String");
    }
    for verified in stages {
        write!(
            xml,
            "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\"",
            escape(pipeline),
            escape(&verified.stage),
            verified.duration.as_secs_f64()
        )
        .expect("to a String");
        let message = escape(&format!("{} {}", word(&verified.result), sentence(verified)));
        let message = message.trim_end();
        let lines = details(&verified.result).join("\n");
        match &verified.result {
            VerifyResult::Same { .. } => xml.push_str("/>\n"),
            VerifyResult::SpotSame { .. } => {
                writeln!(xml, "><system-out>{}</system-out></testcase>", escape(&lines)).expect("as above");
            }
            VerifyResult::NotAsked => xml.push_str("><skipped/></testcase>\n"),
            VerifyResult::NotRun { .. } => {
                writeln!(xml, "><error message=\"{message}\"/></testcase>").expect("as above")
            }
            VerifyResult::Unknown | VerifyResult::OtherInputs => {
                writeln!(xml, "><failure message=\"{message}\"/></testcase>").expect("as above");
            }
            VerifyResult::Differs { .. } | VerifyResult::SpotDiffers { .. } => {
                writeln!(xml, "><failure message=\"{message}\">{}</failure></testcase>", escape(&lines))
                    .expect("as above");
            }
        }
    }
    xml.push_str("  </testsuite>\n</testsuites>\n");
    xml
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::events::Failure;

    fn verified(stage: &str, result: VerifyResult) -> Verified {
        let duration = Duration::from_millis(1_500);
        Verified { stage: stage.into(), kind: "make".into(), fingerprint: None, result, n_other_results: 0, duration }
    }

    fn check(what: &str, difference: Option<&str>) -> SpotCheck {
        SpotCheck { what: what.into(), difference: difference.map(str::to_string) }
    }

    fn every_result() -> Vec<Verified> {
        let compared_with = vec![Witness::Store, Witness::LockFile];
        let what = "tensor `a<b>` differs".to_string();
        let difference = FileDifference { port: "adapter".into(), file: Some("x.safetensors".into()), what };
        let failure = Failure { slug: "bad".into(), message: "row \"2\"".into(), help: None, is_bug: false };
        vec![
            verified("rows", VerifyResult::Same { compared_with: compared_with.clone() }),
            verified("数据", VerifyResult::Differs { compared_with, differences: vec![difference] }),
            verified("spot", VerifyResult::SpotSame { checks: vec![check("steps 1 to 10", None)] }),
            verified(
                "part",
                VerifyResult::SpotDiffers {
                    checks: vec![check("the chain", None), check("steps 1 to 10", Some("`loss` 1 -> 2"))],
                },
            ),
            verified("new", VerifyResult::Unknown),
            verified("after", VerifyResult::OtherInputs),
            verified("left", VerifyResult::NotAsked),
            verified("bad", VerifyResult::NotRun { failure: Some(failure) }),
        ]
    }

    #[test]
    fn every_result_has_its_line() {
        insta::assert_snapshot!(render(&every_result(), Some(7), Style::PLAIN), @r#"
        rows   same
        数据   differs       from what the store has and what the lock file says
               adapter/x.safetensors: tensor `a<b>` differs
        spot   spot same
               steps 1 to 10
        part   spot differs  it is not as it says
               the chain
               steps 1 to 10: `loss` 1 -> 2
        new    unknown       neither store nor lock file says what it gave before
        after  other inputs  a stage before it gave other bytes, and nothing stands to run it on
        left   not asked
        bad    not run       row "2"
        8 stages: 1 same, 1 differs, 1 spot same, 1 spot differs, 1 unknown, 1 other inputs, 1 not asked, 1 not run
        parts were chosen by --seed 7
        "#);
    }

    #[test]
    fn junit_counts_and_escapes() {
        insta::assert_snapshot!(to_junit("a & b", &every_result(), Some(7)), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites>
          <testsuite name="pipe verify a &amp; b" tests="8" failures="4" errors="1" skipped="1" time="12.000">
            <properties><property name="seed" value="7"/></properties>
            <testcase classname="a &amp; b" name="rows" time="1.500"/>
            <testcase classname="a &amp; b" name="数据" time="1.500"><failure message="differs from what the store has and what the lock file says">adapter/x.safetensors: tensor `a&lt;b&gt;` differs</failure></testcase>
            <testcase classname="a &amp; b" name="spot" time="1.500"><system-out>steps 1 to 10</system-out></testcase>
            <testcase classname="a &amp; b" name="part" time="1.500"><failure message="spot differs it is not as it says">the chain
        steps 1 to 10: `loss` 1 -&gt; 2</failure></testcase>
            <testcase classname="a &amp; b" name="new" time="1.500"><failure message="unknown neither store nor lock file says what it gave before"/></testcase>
            <testcase classname="a &amp; b" name="after" time="1.500"><failure message="other inputs a stage before it gave other bytes, and nothing stands to run it on"/></testcase>
            <testcase classname="a &amp; b" name="left" time="1.500"><skipped/></testcase>
            <testcase classname="a &amp; b" name="bad" time="1.500"><error message="not run row &quot;2&quot;"/></testcase>
          </testsuite>
        </testsuites>
        "#);
        assert!(to_junit("a\u{1b}b", &[], None).contains("pipe verify ab"), "XML cannot hold an escape");
    }
}
