//! The frame of a chart: what its axes show, where the plot lies in the picture, and what stands at its edges.
//!
//! ```text
//!      left          right
//! top   +--------------+       x: numbers from left to right
//!  10 --|              |       y: numbers from bottom to top
//!   5 --|              |       as much room at the left as the longest number needs
//!   0 --+--------------+ bottom
//!       0      1       2
//! ```

use pipe_figures::{Chart, Mark, Series};

use crate::axis::{Axis, Span};
use crate::ticks::labels;

/// CSS pixels to units of the drawing.
pub(crate) const fn units(css_pixels: i32) -> i32 {
    css_pixels * crate::SCALE as i32
}

/// The nearest unit that is a whole CSS pixel: what has upright edges is crisp there.
pub(crate) fn crisp(place: f64) -> i32 {
    units((place / f64::from(crate::SCALE)).round() as i32)
}

/// Numbers beyond are left out, as are NaN and infinities: differences of two of them would overflow.
const NUMBER_MAX: f64 = 1e300;
/// Above this, an `f64` may not be every whole number.
const WHOLE_MAX: f64 = 9e15;

const X_TICKS_MAX: usize = 12;
const Y_TICKS_MAX: usize = 8;
/// Free place between two numbers on the horizontal axis.
const X_LABEL_GAP: i32 = units(22);

/// Where the plot lies, in units of the drawing, and its axes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frame {
    pub(crate) left: i32,
    pub(crate) right: i32,
    pub(crate) top: i32,
    pub(crate) bottom: i32,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    /// Places and texts.
    pub(crate) x_ticks: Vec<(i32, String)>,
    pub(crate) y_ticks: Vec<(i32, String)>,
}

impl Frame {
    /// `measure`: the width of a number on an axis, in units.
    pub(crate) fn of(chart: &Chart, measure: impl Fn(&str) -> i32) -> Self {
        let (width, height) = (units(crate::SIZE.0 as i32), units(crate::SIZE.1 as i32));
        // A row of its own for the legend.
        let top = if chart.series.len() > 1 { units(150) } else { units(124) };
        let (right, bottom) = (width - units(36), height - units(76));
        let (x_span, y_span) = (x_span(chart), y_span(chart));
        let y_is_whole = is_bars(chart) && all_points(chart).all(|(_, y)| is_whole(y));
        let y = Axis { low: y_span.low, high: y_span.high, are_whole: y_is_whole, start: bottom, end: top };
        let y_ticks = placed(&y, Y_TICKS_MAX);
        let widest = y_ticks.iter().map(|(_, text)| measure(text)).max().unwrap_or(0);
        let left = crisp(f64::from(widest + units(22 + 28 + 14))).max(units(106)).min(width / 2);
        let x_is_whole = all_points(chart).all(|(x, _)| is_whole(x));
        let x = Axis { low: x_span.low, high: x_span.high, are_whole: x_is_whole, start: left, end: right };
        let fits = |ticks: &[(i32, String)]| {
            let widest = ticks.iter().map(|(_, text)| measure(text)).max().unwrap_or(0);
            ticks.windows(2).all(|pair| pair[1].0 - pair[0].0 >= widest + X_LABEL_GAP)
        };
        let mut candidates = (2..=X_TICKS_MAX).rev().map(|n_max| placed(&x, n_max));
        let x_ticks = candidates.find(|ticks| fits(ticks)).unwrap_or_else(|| placed(&x, 2));
        Frame { left, right, top, bottom, x, y, x_ticks, y_ticks }
    }

    /// Where a point stands.
    pub(crate) fn place(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (self.x.place(x), self.y.place(y))
    }
}

/// The points of `series` that can be drawn.
pub(crate) fn points(series: &Series) -> impl Iterator<Item = (f64, f64)> + '_ {
    series.points.iter().copied().filter(|(x, y)| x.abs() <= NUMBER_MAX && y.abs() <= NUMBER_MAX)
}

fn all_points(chart: &Chart) -> impl Iterator<Item = (f64, f64)> + '_ {
    chart.series.iter().flat_map(points)
}

fn is_bars(chart: &Chart) -> bool {
    matches!(chart.mark, Mark::Bars { .. })
}

fn is_whole(number: f64) -> bool {
    number.abs() <= WHOLE_MAX && number.fract() == 0.0
}

fn placed(axis: &Axis, n_max: usize) -> Vec<(i32, String)> {
    let ticks = axis.ticks(n_max);
    let places = ticks.iter().map(|tick| crisp(axis.place(tick.value())));
    places.zip(labels(&ticks)).collect()
}

/// All points; wide enough to show the threshold too, where it is not far off.
fn x_span(chart: &Chart) -> Span {
    let bar_width = if let Mark::Bars { width } = chart.mark { width } else { 0.0 };
    let mut span = Span::of(all_points(chart).flat_map(|(x, _)| [x, x + bar_width])).opened();
    let length = span.high - span.low;
    if let Some(threshold) = chart.threshold.as_ref().map(|threshold| threshold.x) {
        if (span.high..=span.high + length).contains(&threshold) {
            span.high = threshold;
        }
        if (span.low - length..=span.low).contains(&threshold) {
            span.low = threshold;
        }
    }
    if is_bars(chart) { span.with_margin(0.02) } else { span }
}

fn y_span(chart: &Chart) -> Span {
    let values = all_points(chart).map(|(_, y)| y);
    if is_bars(chart) {
        let span = Span::of(values.chain([0.0]));
        let is_flat = span.low == span.high;
        return if is_flat { Span { low: 0.0, high: 1.0 } } else { span }.with_margin(1.0 / 12.0);
    }
    Span::of(values).opened().down_to_zero_if_near().with_margin(0.06)
}

#[cfg(test)]
mod tests {
    use pipe_figures::Threshold;

    use super::*;

    fn chart(mark: Mark, points: &[(f64, f64)]) -> Chart {
        let series = vec![Series { name: "a".into(), points: points.to_vec() }];
        let empty = String::new;
        Chart { title: empty(), x_label: empty(), y_label: empty(), mark, series, threshold: None, caption: empty() }
    }

    fn frame(chart: &Chart) -> Frame {
        Frame::of(chart, |text| 20 * text.len() as i32)
    }

    fn texts(ticks: &[(i32, String)]) -> Vec<&str> {
        ticks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn counts_and_optimizer_steps_have_whole_numbers_only() {
        let frame = frame(&chart(Mark::Bars { width: 1.0 }, &[(1.0, 2.0), (2.0, 3.0)]));
        assert_eq!((texts(&frame.x_ticks), texts(&frame.y_ticks)), (vec!["1", "2", "3"], vec!["0", "1", "2", "3"]));
        assert_eq!(frame.place((1.0, 0.0)).1, f64::from(frame.bottom));
    }

    #[test]
    fn a_threshold_nearby_is_shown_and_one_far_away_is_not() {
        let mut bars = chart(Mark::Bars { width: 10.0 }, &[(0.0, 1.0), (90.0, 1.0)]);
        let high_with = |x: f64, bars: &mut Chart| {
            bars.threshold = Some(Threshold { x, label: String::new() });
            frame(bars).x.high
        };
        assert_eq!((high_with(150.0, &mut bars), high_with(250.0, &mut bars)), (153.0, 102.0));
    }

    #[test]
    fn long_numbers_get_room_and_do_not_touch() {
        let points: Vec<(f64, f64)> = (0..10).map(|i| (f64::from(i) * 123_456.0, 1e6 + f64::from(i))).collect();
        let frame = frame(&chart(Mark::Line, &points));
        assert_eq!(texts(&frame.y_ticks)[0], "1,000,000");
        assert!(frame.left >= 180 + units(64), "{}", frame.left);
        let widest = texts(&frame.x_ticks).iter().map(|text| 20 * text.len() as i32).max().unwrap();
        assert!(frame.x_ticks.len() >= 2 && frame.x_ticks.windows(2).all(|pair| pair[1].0 - pair[0].0 > widest));
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        let points = [(0.0, f64::NAN), (1.0, 1.0), (2.0, f64::INFINITY), (3.0, 2.0), (f64::NEG_INFINITY, 1.0)];
        let frame = frame(&chart(Mark::Line, &points));
        assert_eq!((frame.x.low, frame.x.high), (1.0, 3.0));
    }
}
