//! The whole page: head, what came of it, the stages as a drawing, when they ran, and a section each.

use std::fmt::Write as _;

use super::data::ReportData;
use super::markup::{SYMBOLS, anchor, escape, time, value};
use super::{dag, stage, timeline};
use crate::report::numbers::{self, plural};
use crate::report::shell;
use crate::schedule::Outcome;

/// Colours, light and dark, screen and print.
const STYLE: &str = include_str!("report.css");
/// What is the same in the head of every page, the policy that forbids to load anything first of all.
const HEAD: &str = include_str!("head.html");
/// Facts that say what changed; more of them say nothing.
const N_CHANGES_MAX: usize = 8;

/// The page.
pub fn render(data: &ReportData) -> String {
    let (pipeline, run_id) = (escape(&data.pipeline), escape(&data.run_id));
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n{HEAD}<title>{pipeline}, run {run_id}</title>\n<style>\n{STYLE}</style>\n\
         </head>\n<body>\n{SYMBOLS}"
    );
    html.push_str(&head(data));
    html.push_str("<main>\n");
    html.push_str(&tiles(data));
    html.push_str(&warnings(data));
    let drawing = dag::render(data);
    html.push_str("<section aria-labelledby=\"stages\">\n<h2 id=\"stages\">Stages and what flows between them</h2>\n");
    if drawing.is_empty() {
        html.push_str("<p class=\"note\">The run was recorded by an early version of pipe, which did not say how its stages are connected.</p>\n");
    } else {
        writeln!(html, "<div class=\"scroll wide\">{drawing}</div>").expect("to a String");
    }
    html.push_str("</section>\n<section aria-labelledby=\"time\">\n<h2 id=\"time\">Timeline</h2>\n");
    html.push_str(&timeline::render(data));
    html.push_str("</section>\n<h2 class=\"apart\">Stage by stage</h2>\n");
    for one in &data.stages {
        html.push_str(&stage::render(one, data));
    }
    html.push_str("</main>\n");
    writeln!(html, "<footer>Written by <code>pipe report {run_id}</code>. Times are of this run; digests are the same wherever it runs.</footer>\n</body>\n</html>")
        .expect("to a String");
    html
}

fn head(data: &ReportData) -> String {
    let mut html =
        format!("<header class=\"page\">\n<p class=\"over\">pipe report</p>\n<h1>{}</h1>\n<p>", escape(&data.pipeline));
    let when = when(&data.run_id).map(|when| format!(" \u{b7} {when}")).unwrap_or_default();
    writeln!(
        html,
        "run <code>{}</code>{when} \u{b7} <code>{}</code></p>",
        escape(&data.run_id),
        escape(&shell::run_command(&data.request))
    )
    .expect("to a String");
    writeln!(html, "{}\n</header>", verdict(data)).expect("to a String");
    html
}

/// `20260131-235959-07af` began on `31 January 2026, 23:59:59 UTC`.
fn when(run_id: &str) -> Option<String> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let number = |from: usize, to: usize| run_id.get(from..to)?.parse::<usize>().ok();
    let month = MONTHS.get(number(4, 6)?.checked_sub(1)?)?;
    let (hour, minute, second) = (number(9, 11)?, number(11, 13)?, number(13, 15)?);
    Some(format!("{} {month} {}, {hour:02}:{minute:02}:{second:02} UTC", number(6, 8)?, number(0, 4)?))
}

/// One sentence, with the symbol of the worst outcome.
fn verdict(data: &ReportData) -> String {
    let n_stages = data.stages.len();
    let failed: Vec<String> = data
        .stages
        .iter()
        .filter(|stage| stage.outcome == Some(Outcome::Failed))
        .map(|stage| format!("<a href=\"#{}\">{}</a>", anchor(&stage.name), escape(&stage.name)))
        .collect();
    let (class, text) = if !failed.is_empty() {
        ("failed", format!("Failed: {}", failed.join(", ")))
    } else if data.end.is_some_and(|end| end.is_interrupted) {
        ("cancelled", "Interrupted".to_string())
    } else if data.end.is_none() {
        ("unfinished", "Not finished: it is still running, or was killed".to_string())
    } else if data.count(Outcome::Reused) == n_stages {
        ("reused", format!("All {} reused: nothing had to run", plural(n_stages, "stage")))
    } else {
        ("ran", format!("Done: all {} are there", plural(n_stages, "stage")))
    };
    format!("<p class=\"verdict {class}\"><svg aria-hidden=\"true\"><use href=\"#i-{class}\"/></svg>{text}</p>")
}

/// The numbers to look at first.
fn tiles(data: &ReportData) -> String {
    let mut tiles =
        vec![("time".to_string(), time(data.duration()), format!("{} granted", plural(data.n_threads, "thread")))];
    if let Some(peak) = data.end.and_then(|end| end.peak_memory_bytes) {
        tiles.push(("peak memory".into(), numbers::bytes(peak), "resident, of the process".into()));
    }
    if let Some(cpu_ms) = data.end.and_then(|end| end.cpu_ms).filter(|cpu_ms| *cpu_ms > 0) {
        let busy = cpu_ms as f64 / 1000.0 / data.duration().as_secs_f64().max(1e-3);
        let cpu = time(std::time::Duration::from_millis(cpu_ms));
        tiles.push(("processor time".into(), cpu, format!("{busy:.1} busy on average")));
    }
    let counts = [Outcome::Ran, Outcome::Reused, Outcome::Failed, Outcome::Skipped, Outcome::Cancelled];
    let counts = counts.map(|outcome| (data.count(outcome), super::markup::word(Some(outcome))));
    let parts: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    tiles.push(("stages".into(), data.stages.len().to_string(), parts.join(", ")));
    let changes = data.stages.iter().flat_map(|stage| {
        // Perplexity is the exponential of the loss: it stands in the section of its stage.
        let facts = stage.facts.iter().filter(|(name, shown)| shown.contains(" -> ") && name != "perplexity");
        facts.map(move |(name, shown)| {
            let link = format!("<a href=\"#{}\">{}</a>", anchor(&stage.name), escape(&stage.name));
            (escape(name), value(shown), link)
        })
    });
    let changes: Vec<(String, String, String)> = changes.take(N_CHANGES_MAX).collect();
    let tile = |(name, shown, below): &(String, String, String)| {
        format!("<div><dt>{name}</dt><dd>{shown}<small>{below}</small></dd></div>")
    };
    let mut html = format!("<dl class=\"tiles\">{}</dl>\n", tiles.iter().map(tile).collect::<String>());
    if !changes.is_empty() {
        let changes: String = changes.iter().map(tile).collect();
        writeln!(html, "<dl class=\"tiles changes\" aria-label=\"Before and after\">{changes}</dl>")
            .expect("to a String");
    }
    html
}

fn warnings(data: &ReportData) -> String {
    let of_stages = data.stages.iter().flat_map(|stage| {
        stage.warnings.iter().map(move |line| {
            format!("<a href=\"#{}\">{}</a>: {}", anchor(&stage.name), escape(&stage.name), escape(line))
        })
    });
    let all: Vec<String> = data.warnings.iter().map(|line| escape(line)).chain(of_stages).collect();
    all.iter().map(|line| format!("<p class=\"warning\"><strong>Warning</strong> {line}</p>\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_says_when() {
        assert_eq!(when("20260131-235959-07af").as_deref(), Some("31 January 2026, 23:59:59 UTC"));
        assert_eq!(when("mine"), None);
    }
}
