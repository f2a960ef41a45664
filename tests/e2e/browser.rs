//! The report in a real browser: headless Chromium, from `PIPE_CHROMIUM` or by its usual names.
//!
//! Looked at are text, the console, width on a phone, light and dark, and print. How it looks is for eyes: pages and pictures
//! stay in `tmp/report` of the target folder.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::sandbox::Sandbox;

/// Every outcome, long names and values, and a line over several layers.
const STAGES: &str = "
  rows: { uses: make, with: { value: 'a stone, a leaf, an unfound door <b>', label: rows } }
  more_of_the_same: { uses: make, with: { value: anothervalueofasinglewordthatislongerthananyphoneiswideinanyofitsorientations } }
  text: { uses: change, inputs: { rows: rows }, with: { suffix: '!' }, to: out/text }
  both: { uses: join, inputs: { rows: text, more: rows }, needs: [more_of_the_same] }
  bad: { uses: change, inputs: { rows: both }, with: { label: bad } }
  last: { uses: join, inputs: { rows: bad, more: rows } }
";

/// A blank page of these sizes has 3 to 9 KB as PNG.
const PICTURE_BYTES_MIN: u64 = 20_000;
const PHONE_WIDTH: u32 = 360;

struct Browser {
    program: PathBuf,
    profile: tempfile::TempDir,
}

/// What the browser said and wrote.
struct Seen {
    dom: String,
    console: Vec<String>,
}

impl Browser {
    fn find() -> Option<Self> {
        let named = std::env::var_os("PIPE_CHROMIUM").map(PathBuf::from);
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let usual = std::env::split_paths(&folders).flat_map(|folder| names.map(|name| folder.join(name)));
        let program = named.into_iter().chain(usual).find(|path| path.is_file())?;
        Some(Browser { program, profile: tempfile::tempdir().expect("a temporary folder") })
    }

    /// Opens a page; `more` says what to do with it.
    fn open(&self, page: &Path, more: &[String]) -> Seen {
        let output = Command::new(&self.program)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"])
            .args([
                "--no-first-run",
                "--disable-extensions",
                "--disable-background-networking",
                "--disable-dev-shm-usage",
            ])
            .arg(format!("--user-data-dir={}", self.profile.path().display()))
            .args(more)
            .arg(format!("file://{}", page.display()))
            .stdin(Stdio::null())
            .output()
            .expect("the browser starts");
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {log}", self.program.display());
        Seen {
            dom: String::from_utf8_lossy(&output.stdout).into_owned(),
            console: log.lines().filter(|line| line.contains("CONSOLE")).map(str::to_string).collect(),
        }
    }

    fn dom(&self, page: &Path, width: u32) -> Seen {
        self.open(
            page,
            &["--dump-dom".into(), "--virtual-time-budget=5000".into(), format!("--window-size={width},800")],
        )
    }
}

/// The report of a run with every outcome.
fn report() -> String {
    let sandbox = Sandbox::with_stages(STAGES);
    sandbox.outcomes("run p.yaml");
    sandbox.behave("bad", "fail");
    assert_eq!(sandbox.pipe("run p.yaml --set stages.both.with.suffix=x --set stages.text.with.first=20").code, 1);
    assert_eq!(sandbox.pipe("report --out r.html").code, 0);
    sandbox.read("r.html")
}

/// The page with a script that its own policy forbids: it tells the page around it what it measures, everything opened.
fn measuring(page: &str) -> String {
    let start = page.find("<meta http-equiv").expect("a policy");
    let end = start + page[start..].find('>').expect("it ends") + 1;
    let without_policy = format!("{}{}", &page[..start], &page[end..]);
    let script = "<script>addEventListener('load', () => { const root = document.documentElement; \
        const wide = [...document.querySelectorAll('main *')].filter(one => !one.closest('.scroll, svg') \
            && one.getBoundingClientRect().right > innerWidth + 0.5).map(one => one.outerHTML.slice(0, 60)); \
        parent.postMessage(root.scrollWidth + ' of ' + innerWidth + ' ' + wide.slice(0, 3).join(' | '), '*'); });</script></body>";
    without_policy.replace("</body>", script).replace("<details>", "<details open>")
}

/// A phone: browsers have no window as narrow as that, but a frame can be.
fn phone(page: &str) -> String {
    format!(
        "<!doctype html><meta charset=\"utf-8\"><body><iframe src=\"{page}\" width=\"{PHONE_WIDTH}\" height=\"800\" \
         style=\"border:0\"></iframe><script>addEventListener('message', \
         event => {{ document.body.dataset.widths = event.data; }});</script></body>"
    )
}

#[test]
fn the_report_in_a_browser() {
    let Some(browser) = Browser::find() else {
        writeln!(std::io::stderr(), "SKIPPED the_report_in_a_browser: no chromium is installed").expect("stderr");
        return;
    };
    let page = report();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    fs::create_dir_all(&folder).expect("a folder");
    let write = |name: &str, text: &str| {
        fs::write(folder.join(name), text).expect("a page can be written");
        folder.join(name)
    };
    let path = write("report.html", &page);

    let seen = browser.dom(&path, 1200);
    assert_eq!(seen.console, [""; 0], "the console");
    for part in
        ["Stage by stage", "say it louder: a stone", "row 2 is damaged", "threshold 3", "aria-label=\"The stages of p "]
    {
        assert!(seen.dom.contains(part), "`{part}` is not in the document");
    }

    write("measuring.html", &measuring(&page));
    let seen = browser.dom(&write("phone.html", &phone("measuring.html")), 1200);
    let widths = seen.dom.split_once("data-widths=\"").and_then(|(_, rest)| rest.split_once('"')).expect("measured").0;
    assert_eq!(widths, format!("{PHONE_WIDTH} of {PHONE_WIDTH} "), "wider than a phone, with everything open");

    // With the policy in place the same script is refused, and that is seen: the check of the console can fail.
    let refused = write("refused.html", &page.replace("</body>", "<script>document.title = 'x'</script></body>"));
    assert!(!browser.dom(&refused, 1200).console.is_empty(), "a script got past the policy");

    let pictures = [
        ("light", 1200, "--blink-settings=preferredColorScheme=1"),
        ("dark", 1200, "--blink-settings=preferredColorScheme=0"),
        ("phone", PHONE_WIDTH, "--blink-settings=preferredColorScheme=1"),
    ];
    let mut taken = Vec::new();
    for (name, width, scheme) in pictures {
        let picture = folder.join(format!("{name}.png"));
        let screenshot = format!("--screenshot={}", picture.display());
        browser.open(&path, &[screenshot, format!("--window-size={width},1600"), scheme.into()]);
        let bytes = fs::read(&picture).expect("a screenshot");
        assert!(bytes.len() as u64 > PICTURE_BYTES_MIN, "{name}: {} bytes, as a blank page has", bytes.len());
        assert!(!taken.contains(&bytes), "{name} looks like another");
        taken.push(bytes);
    }

    let print = folder.join("print.pdf");
    browser.open(&path, &[format!("--print-to-pdf={}", print.display())]);
    assert!(fs::read(&print).expect("a print").starts_with(b"%PDF"));
}
