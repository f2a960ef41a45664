//! A [`Chart`] as SVG: axes with round ticks, lines or bars, a legend, a threshold, and values under the pointer.
//!
//! ```text
//! loss (nats per token)                step 40: loss 2.31   <- of the place under the pointer; no script
//! 4 |\___
//! 2 |    \__________
//! 0 +----+----+----+
//!       optimizer step
//! ```
//!
//! Colours and sizes of text are left to the page's style: one drawing serves light and dark, screen and print. Lines differ
//! by their dashes too.

use std::fmt::Write as _;

use pipe_contract::figures::{Chart, Mark, Series};

use super::markup::escape;
use super::scale::{Axis, show, thin};

/// In drawing units; the page scales it.
const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 268.0;
/// Room for labels of five characters, also in the larger text of a narrow screen.
const LEFT: f64 = 66.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 54.0;
/// More points than there are places to draw them at are not drawn.
const N_POINTS_MAX: usize = 600;
/// Places that show their value under the pointer.
const N_READOUTS_MAX: usize = 150;
/// What a bar leaves of the one behind it on either side, as a share of its width.
const INSET: f64 = 0.2;
/// As many as the style has colours and dashes for.
const N_LOOKS: usize = 6;

const PLOT_WIDTH: f64 = WIDTH - LEFT - RIGHT;
const PLOT_HEIGHT: f64 = HEIGHT - TOP - BOTTOM;

/// A `figure` element.
pub(super) fn render(chart: &Chart) -> String {
    let title = escape(&chart.title);
    let mut html = format!("<figure class=\"chart\"><figcaption><h4>{title}</h4>");
    if !chart.caption.is_empty() {
        write!(html, "<p>{}</p>", escape(&chart.caption)).expect("to a String");
    }
    html.push_str("</figcaption>");
    let series: Vec<Series> = chart.series.iter().map(drawn).filter(|series| !series.points.is_empty()).collect();
    match Frame::new(chart, &series) {
        None => html.push_str("<p class=\"note\">There is nothing to draw: it has no points.</p>"),
        Some(frame) => {
            if series.len() > 1 {
                html.push_str(&legend(&series, chart.mark));
            }
            html.push_str(&frame.svg(chart, &series));
        }
    }
    html.push_str("</figure>\n");
    html
}

/// What cannot be drawn is left out, and what would not be seen.
fn drawn(series: &Series) -> Series {
    let is_finite = |&(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
    let points: Vec<(f64, f64)> = series.points.iter().copied().filter(is_finite).collect();
    Series { name: series.name.clone(), points: thin(&points, N_POINTS_MAX) }
}

fn legend(series: &[Series], mark: Mark) -> String {
    let entry = |(position, series): (usize, &Series)| {
        let look = position % N_LOOKS;
        let name = escape(&series.name);
        let (class, path) = match mark {
            Mark::Line => ("line", "M0 4h28"),
            Mark::Bars { .. } => ("bars", "M8 0h12v8h-12z"),
        };
        format!(
            "<li><svg viewBox=\"0 0 28 8\" aria-hidden=\"true\"><path class=\"{class} s{look}\" d=\"{path}\"/></svg>{name}</li>"
        )
    };
    format!("<ul class=\"legend\">{}</ul>", series.iter().enumerate().map(entry).collect::<String>())
}

/// The two axes.
struct Frame {
    x: Axis,
    y: Axis,
    bar_width: Option<f64>,
}

impl Frame {
    /// `None` where there are no points.
    fn new(chart: &Chart, series: &[Series]) -> Option<Self> {
        let points = || series.iter().flat_map(|series| series.points.iter().copied());
        let range = |values: &mut dyn Iterator<Item = f64>| {
            values.fold(None, |range: Option<(f64, f64)>, value| {
                Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
            })
        };
        let (mut x_low, mut x_high) = range(&mut points().map(|point| point.0))?;
        let (mut y_low, mut y_high) = range(&mut points().map(|point| point.1))?;
        let bar_width = match chart.mark {
            Mark::Bars { width } => Some(width),
            Mark::Line => None,
        };
        if let Some(width) = bar_width {
            x_high += width;
        }
        // A bar stands on zero; a line does where that costs little of its shape.
        if bar_width.is_some() || (y_low > 0.0 && y_low < 0.35 * y_high) {
            (y_low, y_high) = (y_low.min(0.0), y_high.max(0.0));
        }
        if let Some(threshold) = chart.threshold.as_ref().filter(|threshold| threshold.x.is_finite()) {
            (x_low, x_high) = (x_low.min(threshold.x), x_high.max(threshold.x));
        }
        Some(Frame { x: Axis::exact(x_low, x_high, 7), y: Axis::round(y_low, y_high, 5), bar_width })
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + self.x.place(value, PLOT_WIDTH)
    }

    fn y(&self, value: f64) -> f64 {
        TOP + PLOT_HEIGHT - self.y.place(value, PLOT_HEIGHT)
    }

    fn svg(&self, chart: &Chart, series: &[Series]) -> String {
        let mut svg = format!(
            "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\"><title>{}</title><desc>{}</desc>",
            escape(&chart.title),
            escape(&describe(chart, series))
        );
        svg.push_str(&self.axes(chart));
        for (position, series) in series.iter().enumerate() {
            let look = position % N_LOOKS;
            svg.push_str(&match self.bar_width {
                Some(width) => self.bars(series, look, width),
                None => self.line(series, look),
            });
        }
        svg.push_str(&self.threshold(chart));
        svg.push_str(&self.readouts(chart, series));
        svg.push_str("</svg>");
        svg
    }

    fn axes(&self, chart: &Chart) -> String {
        let mut svg = String::from("<g class=\"grid\">");
        for (value, _) in self.y.ticks() {
            write!(svg, "<path d=\"M{LEFT} {:.1}h{PLOT_WIDTH}\"/>", self.y(value)).expect("to a String");
        }
        svg.push_str("</g><g class=\"ticks\">");
        for (value, label) in self.y.ticks() {
            let (x, y) = (LEFT - 8.0, self.y(value) + 4.0);
            write!(svg, "<text class=\"end\" x=\"{x}\" y=\"{y:.1}\">{label}</text>").expect("to a String");
        }
        let bottom = TOP + PLOT_HEIGHT;
        for (value, label) in self.x.ticks() {
            let x = self.x(value);
            write!(
                svg,
                "<path d=\"M{x:.1} {bottom}v5\"/><text class=\"mid\" x=\"{x:.1}\" y=\"{}\">{label}</text>",
                bottom + 20.0
            )
            .expect("to a String");
        }
        write!(
            svg,
            "<path d=\"M{LEFT} {bottom}h{PLOT_WIDTH}\"/></g>\
             <text class=\"axis\" x=\"2\" y=\"15\">{}</text><text class=\"axis mid\" x=\"{}\" y=\"{}\">{}</text>",
            escape(&chart.y_label),
            LEFT + PLOT_WIDTH / 2.0,
            HEIGHT - 8.0,
            escape(&chart.x_label)
        )
        .expect("to a String");
        svg
    }

    fn line(&self, series: &Series, look: usize) -> String {
        if let [(x, y)] = series.points[..] {
            return format!(
                "<circle class=\"dot s{look}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"/>",
                self.x(x),
                self.y(y)
            );
        }
        let mut path = String::new();
        for (position, &(x, y)) in series.points.iter().enumerate() {
            let command = if position == 0 { 'M' } else { 'L' };
            write!(path, "{command}{:.1} {:.1}", self.x(x), self.y(y)).expect("to a String");
        }
        format!("<path class=\"line s{look}\" d=\"{path}\"/>")
    }

    fn bars(&self, series: &Series, look: usize, width: f64) -> String {
        let mut path = String::new();
        let zero = self.y(0.0);
        // Of several bars on one place, each is narrower than the one behind it.
        let inset = width * INSET * look.min(2) as f64;
        for &(x, y) in &series.points {
            let (left, right) = (self.x(x + inset), self.x(x + width - inset));
            // A gap between bars, as far as they are wide enough for one.
            let gap = if right - left > 3.0 { 1.0 } else { 0.0 };
            write!(path, "M{left:.2} {zero:.2}V{:.2}H{:.2}V{zero:.2}z", self.y(y), right - gap).expect("to a String");
        }
        format!("<path class=\"bars s{look}\" d=\"{path}\"/>")
    }

    fn threshold(&self, chart: &Chart) -> String {
        let Some(threshold) = chart.threshold.as_ref().filter(|threshold| threshold.x.is_finite()) else {
            return String::new();
        };
        let x = self.x(threshold.x);
        let is_right = x > LEFT + PLOT_WIDTH * 0.6;
        let (class, label_x) = if is_right { ("end", x - 6.0) } else { ("start", x + 6.0) };
        format!(
            "<g class=\"threshold\"><path d=\"M{x:.1} {TOP}v{PLOT_HEIGHT}\"/>\
             <text class=\"{class}\" x=\"{label_x:.1}\" y=\"{}\">{}</text></g>",
            TOP + 13.0,
            escape(&threshold.label)
        )
    }

    /// Strips from top to bottom, each with the values of its place: shown by the style where the pointer is.
    fn readouts(&self, chart: &Chart, series: &[Series]) -> String {
        let mut places: Vec<f64> = series
            .iter()
            .flat_map(|one| thin(&one.points, N_READOUTS_MAX / series.len().max(1)))
            .map(|point| point.0)
            .collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        let centre = |x: f64| self.x(x + self.bar_width.unwrap_or(0.0) / 2.0);
        let mut svg = String::from("<g class=\"readouts\">");
        for (position, &x) in places.iter().enumerate() {
            let here = centre(x);
            let left = position.checked_sub(1).map_or(LEFT, |before| (centre(places[before]) + here) / 2.0);
            let right = places.get(position + 1).map_or(LEFT + PLOT_WIDTH, |after| (centre(*after) + here) / 2.0);
            let mut marks = String::new();
            let mut values = Vec::new();
            for (number, series) in series.iter().enumerate() {
                let Ok(found) = series.points.binary_search_by(|point| point.0.total_cmp(&x)) else { continue };
                let y = series.points[found].1;
                values.push(if chart.series.len() > 1 { format!("{} {}", series.name, show(y)) } else { show(y) });
                let look = number % N_LOOKS;
                write!(marks, "<circle class=\"dot s{look}\" cx=\"{here:.1}\" cy=\"{:.1}\" r=\"3.5\"/>", self.y(y))
                    .expect("to a String");
            }
            let place = match self.bar_width {
                Some(width) => format!("{} to {}", show(x), show(x + width)),
                None => show(x),
            };
            write!(
                svg,
                "<g><rect x=\"{left:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{PLOT_HEIGHT}\"/>\
                 <path d=\"M{here:.1} {TOP}v{PLOT_HEIGHT}\"/>{marks}<text class=\"end\" x=\"{}\" y=\"15\">{}: {}</text></g>",
                (right - left).max(0.5),
                WIDTH - RIGHT,
                escape(&place),
                escape(&values.join(", "))
            )
            .expect("to a String");
        }
        svg.push_str("</g>");
        svg
    }
}

/// The chart in words, for who does not see it.
fn describe(chart: &Chart, series: &[Series]) -> String {
    let mut text = format!("{} over {}.", chart.y_label, chart.x_label);
    for series in series {
        let (Some(first), Some(last)) = (series.points.first(), series.points.last()) else { continue };
        let low = series.points.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
        let high = series.points.iter().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
        write!(
            text,
            " {}: from {} at {} to {} at {}, lowest {}, highest {}.",
            series.name,
            show(first.1),
            show(first.0),
            show(last.1),
            show(last.0),
            show(low),
            show(high)
        )
        .expect("to a String");
    }
    if let Some(threshold) = &chart.threshold {
        write!(text, " A line marks {} at {}.", threshold.label, show(threshold.x)).expect("to a String");
    }
    text
}
