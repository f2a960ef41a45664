//! When each stage ran, and what the process used meanwhile: rows of one time axis.
//!
//! ```text
//!            0 s      30 s      1 min
//! text       [==] 4.1 s
//! adapter         [==================] 52.0 s
//! memory     ___/-------------------\      peak 812 MB
//! processors __/--------------------\      2 threads
//! ```
//!
//! It is laid out by the page and not drawn, so that its text keeps its size on a narrow screen.

use std::fmt::Write as _;
use std::time::Duration;

use super::data::{ReportData, StageData};
use super::markup::{anchor, escape, time, word};
use crate::report::numbers::{self, plural};
use crate::schedule::Outcome;

/// Steps of the axis, in milliseconds.
const STEPS_MS: [u64; 25] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000,
    900_000, 1_800_000, 3_600_000, 7_200_000, 21_600_000, 86_400_000,
];
const N_TICKS_MAX: u64 = 6;
/// Widths of the curves, in units of their drawing.
const CURVE_WIDTH: f64 = 1000.0;
const CURVE_HEIGHT: f64 = 100.0;
/// At the start, at the end, and once a second between: fewer say nothing.
const N_USAGE_MIN: usize = 4;
/// More points than that are not seen.
const N_CURVE_POINTS_MAX: usize = 500;

/// The section's content.
pub(super) fn render(data: &ReportData) -> String {
    let mut started: Vec<&StageData> = data.stages.iter().filter(|stage| stage.started_at.is_some()).collect();
    started.sort_by_key(|stage| stage.started_at);
    let mut html = String::new();
    if started.is_empty() {
        html.push_str("<p>Nothing had to run.</p>\n");
        return html;
    }
    let whole = data.duration().max(data.last_at).max(Duration::from_millis(1));
    writeln!(html, "<div class=\"timeline\">{}", axis(whole)).expect("to a String");
    html.push_str("<ul>");
    for stage in started {
        html.push_str(&row(stage, whole));
    }
    html.push_str("</ul>");
    html.push_str(&curves(data, whole));
    html.push_str("</div>\n");
    let reused: Vec<String> = data
        .stages
        .iter()
        .filter(|stage| stage.outcome == Some(Outcome::Reused) && stage.started_at.is_none())
        .map(|stage| format!("<a href=\"#{}\">{}</a>", anchor(&stage.name), escape(&stage.name)))
        .collect();
    if !reused.is_empty() {
        writeln!(html, "<p class=\"note\">Reused without running: {}.</p>", reused.join(", ")).expect("to a String");
    }
    html
}

fn axis(whole: Duration) -> String {
    let whole_ms = whole.as_millis() as u64;
    let step = STEPS_MS.into_iter().find(|step| whole_ms / step <= N_TICKS_MAX).unwrap_or(whole_ms / N_TICKS_MAX);
    let mut html = String::from("<div class=\"row times\" aria-hidden=\"true\"><span></span><div class=\"track\">");
    for number in 0..=whole_ms / step.max(1) {
        let at = Duration::from_millis(number * step);
        let share = 100.0 * at.as_secs_f64() / whole.as_secs_f64();
        // The last label would stand beyond the edge.
        let class = if share > 82.0 { " class=\"last\"" } else { "" };
        write!(html, "<span{class} style=\"left:{share:.2}%\">{}</span>", clock(number * step)).expect("to a String");
    }
    html.push_str("</div></div>");
    html
}

/// A round time: `200 ms`, `5 s`, `2 min`, `1:30 min`, `1 h`, `1:30 h`.
fn clock(ms: u64) -> String {
    let seconds = ms / 1000;
    match ms {
        0 => "0".to_string(),
        1..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{seconds} s"),
        60_000..3_600_000 if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        60_000..3_600_000 => format!("{}:{:02} min", seconds / 60, seconds % 60),
        _ if seconds.is_multiple_of(3600) => format!("{} h", seconds / 3600),
        _ => format!("{}:{:02} h", seconds / 3600, seconds / 60 % 60),
    }
}

fn row(stage: &StageData, whole: Duration) -> String {
    let share = |duration: Duration| 100.0 * duration.as_secs_f64() / whole.as_secs_f64();
    let start = stage.started_at.unwrap_or_default();
    let end = stage.finished_at.unwrap_or(whole);
    let (left, width) = (share(start), share(end.saturating_sub(start)));
    let (name, outcome) = (escape(&stage.name), word(stage.outcome));
    let took = time(end.saturating_sub(start));
    let threads = plural(stage.n_threads, "thread");
    // The label stands behind the bar, or before it where there is no room.
    let label = if left + width < 70.0 {
        format!("<span class=\"label\" style=\"left:{:.2}%\">{took}</span>", left + width)
    } else if width > 30.0 {
        format!("<span class=\"label in\" style=\"left:{left:.2}%\">{took}</span>")
    } else {
        format!("<span class=\"label before\" style=\"right:{:.2}%\">{took}</span>", 100.0 - left)
    };
    let title = format!("{name}: {outcome}, from {} to {}, {took}, {threads}", time(start), time(end));
    format!(
        "<li class=\"row\"><a href=\"#{}\">{name}</a><div class=\"track\" title=\"{title}\">\
         <span class=\"bar {outcome}\" style=\"left:{left:.2}%;width:{width:.2}%\"></span>{label}\
         <span class=\"unseen\">{title}</span></div></li>",
        anchor(&stage.name)
    )
}

/// Memory and busy processors, where they were measured often enough for a curve.
fn curves(data: &ReportData, whole: Duration) -> String {
    if data.usage.len() < N_USAGE_MIN {
        return String::new();
    }
    let memory: Vec<(Duration, f64)> = data.usage.iter().map(|point| (point.at, point.memory_bytes as f64)).collect();
    let busy: Vec<(Duration, f64)> = data
        .usage
        .windows(2)
        .map(|pair| {
            let seconds = pair[1].at.saturating_sub(pair[0].at).as_secs_f64().max(1e-3);
            (pair[1].at, pair[1].cpu_ms.saturating_sub(pair[0].cpu_ms) as f64 / 1000.0 / seconds)
        })
        .collect();
    let peak = memory.iter().map(|point| point.1).fold(0.0, f64::max);
    let most = busy.iter().map(|point| point.1).fold(data.n_threads as f64, f64::max);
    let measured = numbers::bytes(peak as u64);
    curve("memory", &format!("up to {measured}"), &memory, peak, whole)
        + &curve("processors busy", &format!("of {}", data.n_threads), &busy, most, whole)
}

fn curve(name: &str, scale: &str, points: &[(Duration, f64)], highest: f64, whole: Duration) -> String {
    let stretch = points.len().div_ceil(N_CURVE_POINTS_MAX);
    let mut path = String::new();
    let mut last_x = 0.0;
    for (number, points) in points.chunks(stretch).enumerate() {
        let high = points.iter().map(|point| point.1).fold(0.0, f64::max);
        let x = points[0].0.as_secs_f64() / whole.as_secs_f64() * CURVE_WIDTH;
        let y = CURVE_HEIGHT * (1.0 - high / highest.max(1e-9));
        if number == 0 {
            write!(path, "M{x:.1} {CURVE_HEIGHT}").expect("to a String");
        }
        write!(path, "L{x:.1} {y:.1}").expect("to a String");
        last_x = x;
    }
    write!(path, "L{last_x:.1} {CURVE_HEIGHT}z").expect("to a String");
    format!(
        "<div class=\"row curve\"><span>{name} <small>{scale}</small></span><div class=\"track\">\
         <svg viewBox=\"0 0 {CURVE_WIDTH} {CURVE_HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\">\
         <title>{name} over the run, {scale}</title><path d=\"{path}\"/></svg></div></div>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_axis() {
        let shown = [0, 200, 5_000, 60_000, 90_000, 3_600_000, 5_400_000].map(clock);
        assert_eq!(shown, ["0", "200 ms", "5 s", "1 min", "1:30 min", "1 h", "1:30 h"]);
        for (whole_ms, n_ticks) in [(7, 1), (450, 5), (59_000, 6), (3_600_000, 7), (86_400_000 * 9, 7)] {
            let n = axis(Duration::from_millis(whole_ms)).matches("style=").count();
            assert!((1..=8).contains(&n), "{whole_ms} ms: {n} ticks, about {n_ticks} expected");
        }
    }
}
