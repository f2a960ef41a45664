//! `pipe report`: a run as one HTML file.

use std::fs;

use crate::sandbox::{Output, Sandbox};

const CHAIN: &str = "
  rows: { uses: make, with: { value: hello you, label: rows } }
  text: { uses: change, inputs: { rows: rows }, with: { suffix: '!', label: text }, to: out/text }
  last: { uses: join, inputs: { rows: text, more: rows }, needs: [rows] }
";

/// The page of a run, which must be there.
fn page(sandbox: &Sandbox, arguments: &str) -> String {
    let Output { code, out, err } = sandbox.pipe(&format!("report {arguments} --out -"));
    assert_eq!((code, err.as_str()), (0, ""));
    out
}

/// Its text, without tags.
fn text(page: &str) -> String {
    let body = page.split_once("<body>").expect("a body").1;
    let texts = body.split('<').filter_map(|piece| piece.split_once('>').map(|(_, text)| text));
    texts.map(str::trim).filter(|text| !text.is_empty()).collect::<Vec<_>>().join("|")
}

/// The piece of a page that belongs to a stage.
fn section<'a>(page: &'a str, stage: &str) -> &'a str {
    let start = page.find(&format!("<section class=\"stage\" id=\"stage-{stage}\"")).expect("a section");
    let end = page[start..].find("</section>").expect("it ends");
    &page[start..start + end]
}

fn runs(sandbox: &Sandbox) -> Vec<String> {
    let entries = fs::read_dir(sandbox.path(".pipe/runs")).expect("runs");
    let mut runs: Vec<String> = entries.map(|e| e.expect("readable").file_name().to_string_lossy().into()).collect();
    runs.sort();
    runs
}

#[track_caller]
fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        let shown = text.split_once("<body>").map_or(text, |(_, body)| body);
        assert!(text.contains(part), "`{part}` is not in\n{shown}");
    }
}

#[test]
fn the_last_run_becomes_a_file_in_its_folder() {
    let sandbox = Sandbox::with_stages(CHAIN);
    sandbox.outcomes("run p.yaml --set stages.text.with.first=4");
    screen!(sandbox.pipe("report"), @r"
    exit code: 0
    ----- stdout
    .pipe/runs/[run]/report.html
    ----- stderr
    ");
    let run = &runs(&sandbox)[0];
    let page = sandbox.read(&format!(".pipe/runs/{run}/report.html"));
    assert_eq!(
        fs::read_dir(sandbox.path(&format!(".pipe/runs/{run}"))).expect("there").count(),
        2,
        "events and report"
    );
    let text = text(&page);
    assert_has(
        &text,
        &["pipe run p.yaml --set stages.text.with.first=4", "Done: all 3 stages are there", "3 ran", "|hell!|"],
    );
    // Nothing is loaded from anywhere: no address, no script, no source but data.
    for outside in ["http:", "https:", "<script", "<img", "@import", "url("] {
        assert!(!page.contains(outside), "`{outside}` is in the page");
    }
}

#[test]
fn every_setting_digest_and_figure_of_a_stage_is_there() {
    let sandbox = Sandbox::with_stages(CHAIN);
    sandbox.outcomes("run p.yaml");
    let page = page(&sandbox, "");
    let text_stage = text(&format!("<body>{}", section(&page, "text")));
    assert_has(
        &text_stage,
        &[
            "text|change|ran|",
            "Settings|6, 2 given|",
            "|suffix|!|pipeline|",
            "|class|fake-1|default|",
            "|first|\u{2013}|not set|",
        ],
    );
    assert_has(
        &text_stage,
        &[
            "Its outputs are copied to|out/text|",
            "|characters|10|",
            "|rows|rows.rows|rows|",
            "semantic key|",
            "fingerprint|",
        ],
    );
    assert_has(
        &text_stage,
        &["Code points", "|whole|", "threshold 3", "Words|", "say it louder: hello you!", "as expected"],
    );
    assert_eq!(text_stage.matches("|characters|10|").count(), 1, "what a figure says is not said twice: {text_stage}");
    // The digest that the lock file has for it.
    let lock: serde_json::Value = serde_json::from_str(&sandbox.read("p.lock")).expect("JSON");
    let digests =
        lock["outputs"].as_object().expect("outputs").values().map(|ports| ports["rows"].as_str().expect("text"));
    digests.for_each(|digest| assert!(page.contains(digest), "{digest}"));
    // The drawing: a line for each input, one for `needs:`, and a link to each section.
    assert_has(
        &page,
        &[
            "rows.rows \u{2192} text.rows",
            "rows.rows \u{2192} last.more",
            "last waits for rows",
            "href=\"#stage-last\"",
        ],
    );
}

#[test]
fn a_reused_stage_shows_its_figures_and_who_made_it() {
    let sandbox = Sandbox::with_stages(CHAIN);
    sandbox.outcomes("run p.yaml");
    sandbox.outcomes("run p.yaml");
    let maker = &runs(&sandbox)[0];
    let page = page(&sandbox, "");
    assert_has(&text(&page), &["All 3 stages reused: nothing had to run", "Nothing had to run.", "3 reused"]);
    assert_has(section(&page, "rows"), &["say it louder: hello you", &format!("made in run {maker} in ")]);
}

#[test]
fn a_run_is_found_by_how_its_id_begins() {
    let sandbox = Sandbox::with_stages(CHAIN);
    sandbox.outcomes("run p.yaml");
    fs::rename(sandbox.path(".pipe/runs").join(&runs(&sandbox)[0]), sandbox.path(".pipe/runs/20200101-000000-aaaa"))
        .expect("renamed");
    sandbox.outcomes("run p.yaml --set stages.rows.with.value=other");
    assert_has(&page(&sandbox, "2020"), &["say it louder: hello you!"]);
    assert_has(&page(&sandbox, ""), &["say it louder: other!"]);
    screen!(sandbox.pipe("report xyz"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[unknown-run]: there is no run `xyz` in `.pipe`
    help: the newest are `[run]`, `[run]`
    ");
    screen!(sandbox.pipe("report 20"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[ambiguous-run]: 2 runs begin with `20`
    help: the newest are `[run]`, `[run]`
    ");
    assert_has(
        &sandbox.pipe("report 20200101-000000-aaab").err,
        &["help: did you mean `20200101-000000-aaaa`? the newest are"],
    );
}

#[test]
fn a_failure_says_what_why_and_how_to_go_on() {
    let sandbox = Sandbox::with_stages(CHAIN);
    sandbox.behave("text", "fail");
    assert_eq!(sandbox.pipe("run p.yaml --threads 1").code, 1);
    let page = page(&sandbox, "");
    assert_has(&text(&page), &["Failed:|text|", "1 ran, 1 failed, 1 skipped"]);
    assert_has(
        &text(&format!("<body>{}", section(&page, "text"))),
        &[
            "error[bad-row]|failed to read the rows: row 2 is damaged|help|repair row 2|",
            "reading row 1\nreading row 2",
            "Go on with|pipe run p.yaml|",
        ],
    );
    assert_has(section(&page, "last"), &["it needs `text`, which failed"]);
}

#[test]
fn what_is_gone_from_the_store_becomes_a_sentence() {
    let sandbox = Sandbox::with_stages(CHAIN);
    sandbox.outcomes("run p.yaml");
    sandbox.remove_blob("hello you!");
    let text = page(&sandbox, "");
    assert_has(section(&text, "text"), &["Nothing is shown of its output rows: a file of it is gone or changed."]);
    assert_has(section(&text, "rows"), &["say it louder: hello you"]);
    fs::remove_dir_all(sandbox.path(".pipe/manifests")).expect("removed");
    assert_has(section(&page(&sandbox, ""), "rows"), &["Its outputs are not in the store any more.", "characters"]);
}

#[test]
fn a_run_of_an_early_version_is_shown_as_far_as_it_goes() {
    let sandbox = Sandbox::with_stages(CHAIN);
    sandbox.outcomes("run p.yaml");
    let path = sandbox.path(".pipe/runs").join(&runs(&sandbox)[0]).join("events.jsonl");
    let events = fs::read_to_string(&path).expect("recorded");
    let early = |line: &str| {
        let mut event: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let fields = event.as_object_mut().expect("an object");
        ["spec", "fingerprint", "peak_memory_bytes", "cpu_ms"].iter().for_each(|name| drop(fields.remove(*name)));
        format!("{event}\n")
    };
    let with_rest =
        events.lines().map(early).collect::<String>() + "{\"at_ms\":1,\"event\":\"invented_later\"}\n{\"at_";
    fs::write(&path, with_rest).expect("written");
    let page = page(&sandbox, "");
    assert_has(&page, &["recorded by an early version of pipe", "Done: all 3 stages are there", "characters"]);
}

#[test]
fn text_of_users_never_becomes_markup() {
    let sandbox = Sandbox::with_stages("  rows: { uses: make, with: { value: '<script>alert(1)</script>' } }\n");
    sandbox.outcomes("run p.yaml");
    let page = page(&sandbox, "");
    assert!(!page.contains("<script"), "{page}");
    assert_has(&page, &["say it louder: &lt;script&gt;alert(1)&lt;/script&gt;"]);
}

#[test]
fn it_can_be_written_elsewhere() {
    let sandbox = Sandbox::with_stages(CHAIN);
    screen!(sandbox.pipe("report"), @r"
    exit code: 2
    ----- stdout
    ----- stderr
    error[no-last-run]: there is no run in `.pipe`
    help: `pipe run FILE` makes one
    ");
    assert!(!sandbox.path(".pipe").exists(), "looking makes no store");
    sandbox.outcomes("run p.yaml --store shared");
    assert_eq!(sandbox.pipe("report --store shared --out r.html").out, "r.html\n");
    assert!(sandbox.read("r.html").ends_with("</html>\n"));
    let output = sandbox.pipe("report --store shared --out nowhere/r.html");
    assert_eq!(output.code, 2);
    assert_has(&output.err, &["error[unwritable-report]: failed to write `nowhere/r.html`: ", "help: `--out FILE`"]);
    assert!(sandbox.pipe("report --store shared").out.starts_with("shared/runs/"));
}
