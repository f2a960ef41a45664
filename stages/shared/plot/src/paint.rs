//! The drawing itself, on any backend of `plotters`.

use std::sync::LazyLock;

use pipe_figures::{Chart, Mark, Series, Threshold};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, FontTransform, register_font};

use crate::PlotError;
use crate::frame::{Frame, crisp, points, units};
use crate::points::{Place, columns, straight};

/// As an SVG names it: our font, then one that most machines have.
const FONT: &str = "DejaVu Sans, Verdana, sans-serif";

const INK: RGBColor = RGBColor(38, 43, 51);
const QUIET_INK: RGBColor = RGBColor(92, 99, 110);
const GRID: RGBColor = RGBColor(226, 229, 233);
const MARK: RGBColor = RGBColor(192, 57, 43);
/// Blue, orange, green, purple, teal: apart for the colour-blind too, and dark enough on white.
const SERIES: [RGBColor; 5] = [
    RGBColor(76, 120, 168),
    RGBColor(214, 107, 18),
    RGBColor(62, 137, 66),
    RGBColor(138, 84, 148),
    RGBColor(30, 132, 132),
];

const SMALL: i32 = 17;
const AXIS_NAME: i32 = 19;

type Area<DB> = DrawingArea<DB, Shift>;

/// Draws `chart` on all of `area`, which has the size of the drawing.
pub(crate) fn paint<DB: DrawingBackend>(area: &Area<DB>, chart: &Chart) -> Result<(), PlotError> {
    static ARE_FONTS_VALID: LazyLock<bool> = LazyLock::new(|| {
        register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).is_ok()
            && register_font(FONT, FontStyle::Bold, dejavu::sans::bold()).is_ok()
    });
    if !*ARE_FONTS_VALID {
        return Err(PlotError::Font);
    }
    let pen = Pen { area };
    pen.rectangle((0, 0), (units(crate::SIZE.0 as i32), units(crate::SIZE.1 as i32)), WHITE)?;
    let frame = Frame::of(chart, |text| pen.width(text, &style(SMALL, QUIET_INK)));
    pen.head(chart)?;
    pen.axes(&frame, chart)?;
    for (i, series) in chart.series.iter().enumerate() {
        match chart.mark {
            Mark::Line => pen.line(&frame, series, look(i, chart.series.len()))?,
            Mark::Bars { width } => pen.bars(&frame, series, width, SERIES[i % SERIES.len()])?,
        }
    }
    if chart.series.len() > 1 {
        pen.legend(&frame, chart)?;
    }
    if let Some(threshold) = &chart.threshold {
        pen.threshold(&frame, threshold)?;
    }
    area.present().map_err(failed)
}

/// `text` as one line: control characters would break an SVG.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || c == '\u{fffe}' || c == '\u{ffff}' { ' ' } else { c }).collect()
}

/// Colour and width, in units, of line `i` of `n`: the last one is what the chart says, those before it stand back.
fn look(i: usize, n: usize) -> (RGBColor, u32) {
    let RGBColor(r, g, b) = SERIES[i % SERIES.len()];
    let pale = |channel: u8| channel + (255 - channel) / 2;
    match (i + 1 == n, n) {
        (true, 1) => (RGBColor(r, g, b), 4),
        (true, _) => (RGBColor(r, g, b), 5),
        (false, _) => (RGBColor(pale(r), pale(g), pale(b)), 3),
    }
}

fn style(size: i32, color: RGBColor) -> TextStyle<'static> {
    (FONT, f64::from(units(size))).into_font().color(&color)
}

fn anchored(style: &TextStyle<'static>, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    style.pos(Pos::new(horizontal, vertical))
}

fn failed<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> PlotError {
    PlotError::Draw { message: error.to_string() }
}

/// An area with the shapes that a chart is made of, all in units.
struct Pen<'a, DB: DrawingBackend> {
    area: &'a Area<DB>,
}

impl<DB: DrawingBackend> Pen<'_, DB> {
    /// Title and caption.
    fn head(&self, chart: &Chart) -> Result<(), PlotError> {
        let bold = (FONT, f64::from(units(29)), FontStyle::Bold).into_font().color(&INK);
        self.text(&self.shortened(&chart.title, &bold), (units(30), units(20)), bold)?;
        let quiet = style(18, QUIET_INK);
        self.text(&self.shortened(&chart.caption, &quiet), (units(31), units(60)), quiet)
    }

    /// Grid, axes, their numbers and names.
    fn axes(&self, frame: &Frame, chart: &Chart) -> Result<(), PlotError> {
        let Frame { left, right, top, bottom, .. } = *frame;
        let number = style(SMALL, QUIET_INK);
        for (x, text) in &frame.x_ticks {
            self.rectangle((*x, top), (x + units(1), bottom), GRID)?;
            self.rectangle((*x, bottom), (x + units(1), bottom + units(6)), QUIET_INK)?;
            self.text(text, (*x, bottom + units(12)), anchored(&number, HPos::Center, VPos::Top))?;
        }
        for (y, text) in &frame.y_ticks {
            self.rectangle((left, *y), (right, y + units(1)), GRID)?;
            self.rectangle((left - units(6), *y), (left, y + units(1)), QUIET_INK)?;
            self.text(text, (left - units(11), *y), anchored(&number, HPos::Right, VPos::Center))?;
        }
        self.rectangle((left, top), (left + units(1), bottom + units(1)), QUIET_INK)?;
        self.rectangle((left, bottom), (right, bottom + units(1)), QUIET_INK)?;
        let name = style(AXIS_NAME, INK);
        let below = (left.midpoint(right), bottom + units(42));
        self.text(&self.shortened(&chart.x_label, &name), below, anchored(&name, HPos::Center, VPos::Top))?;
        let upright = anchored(&name, HPos::Center, VPos::Top).transform(FontTransform::Rotate270);
        self.text(&self.shortened(&chart.y_label, &name), (units(18), top.midpoint(bottom)), upright)?;
        if chart.series.iter().all(|series| points(series).next().is_none()) {
            let middle = (left.midpoint(right), top.midpoint(bottom));
            self.text("no data", middle, anchored(&style(22, QUIET_INK), HPos::Center, VPos::Center))?;
        }
        Ok(())
    }

    fn line(&self, frame: &Frame, series: &Series, (color, width): (RGBColor, u32)) -> Result<(), PlotError> {
        let places: Vec<Place> = points(series).map(|point| frame.place(point)).collect();
        let seen = straight(&columns(&places, f64::from(units(1))));
        let mut path: Vec<(i32, i32)> =
            seen.iter().map(|place| (place.0.round() as i32, place.1.round() as i32)).collect();
        path.dedup();
        match path.as_slice() {
            [] => Ok(()),
            [only] => self.area.draw(&Circle::new(*only, width + 2, color.filled())).map_err(failed),
            _ => self.area.draw(&PathElement::new(path, color.stroke_width(width))).map_err(failed),
        }
    }

    /// Several bars that start in the same pixel are one, as high as the highest.
    fn bars(&self, frame: &Frame, series: &Series, width: f64, color: RGBColor) -> Result<(), PlotError> {
        let zero = crisp(frame.y.place(0.0));
        let bars: Vec<[f64; 3]> = points(series)
            .filter(|(_, y)| *y != 0.0)
            .map(|(x, y)| [frame.x.place(x), frame.x.place(x + width), frame.y.place(y)])
            .collect();
        let pixel = |bar: &[f64; 3]| (bar[0] / f64::from(units(1))).floor();
        // A gap between bars that are wide enough to spare it.
        let wide = (frame.x.place(frame.x.low + width) - frame.x.place(frame.x.low)) >= f64::from(units(6));
        let gap = if wide { units(1) } else { 0 };
        for group in bars.chunk_by(|a, b| pixel(a) == pixel(b)) {
            let (first, last) = (group[0], group[group.len() - 1]);
            let highest = crisp(group.iter().map(|bar| bar[2]).fold(first[2], f64::min));
            let from = crisp(first[0]) + gap;
            let to = (crisp(last[1]) - gap).max(from + units(1));
            self.rectangle((from, highest.min(zero)), (to, highest.max(zero)), color)?;
        }
        Ok(())
    }

    /// A row above the plot.
    fn legend(&self, frame: &Frame, chart: &Chart) -> Result<(), PlotError> {
        let quiet = style(SMALL, INK);
        let (mut x, y) = (frame.left, units(112));
        for (i, series) in chart.series.iter().enumerate() {
            let (color, height) = match chart.mark {
                Mark::Line => look(i, chart.series.len()),
                Mark::Bars { .. } => (SERIES[i % SERIES.len()], units(12) as u32),
            };
            let (above, below) = (height as i32 / 2, (height as i32 + 1) / 2);
            self.rectangle((x, y - above), (x + units(26), y + below), color)?;
            x += units(34);
            let name = self.shortened(&series.name, &quiet);
            self.text(&name, (x, y), anchored(&quiet, HPos::Left, VPos::Center))?;
            x += self.width(&name, &quiet) + units(30);
        }
        Ok(())
    }

    /// A dashed line, its label above the plot.
    fn threshold(&self, frame: &Frame, threshold: &Threshold) -> Result<(), PlotError> {
        if !(frame.x.low..=frame.x.high).contains(&threshold.x) {
            return Ok(());
        }
        let x = crisp(frame.x.place(threshold.x));
        for dash in (frame.top - units(5)..frame.bottom).step_by(units(12) as usize) {
            let end = (dash + units(7)).min(frame.bottom);
            self.rectangle((x - units(1), dash), (x + units(1), end), MARK)?;
        }
        let style = style(SMALL, MARK);
        let label = self.shortened(&threshold.label, &style);
        // Near an end half of the label would be outside of the picture.
        let half = self.width(&label, &style) / 2;
        let middle = x.clamp(half + units(10), units(crate::SIZE.0 as i32 - 10) - half);
        self.text(&label, (middle, frame.top - units(8)), anchored(&style, HPos::Center, VPos::Bottom))
    }

    fn rectangle(&self, from: (i32, i32), to: (i32, i32), color: RGBColor) -> Result<(), PlotError> {
        self.area.draw(&Rectangle::new([from, to], color.filled())).map_err(failed)
    }

    fn text(&self, text: &str, place: (i32, i32), style: TextStyle<'static>) -> Result<(), PlotError> {
        self.area.draw(&Text::new(clean(text), place, style)).map_err(failed)
    }

    fn width(&self, text: &str, style: &TextStyle<'static>) -> i32 {
        self.area.estimate_text_size(text, style).map_or(0, |(width, _)| width as i32)
    }

    /// `text`, or as much of it as the picture is wide.
    fn shortened(&self, text: &str, style: &TextStyle<'static>) -> String {
        let width_max = units(crate::SIZE.0 as i32 - 60);
        let mut shortened = text.to_string();
        while self.width(&shortened, style) > width_max {
            shortened = shortened.chars().take(shortened.chars().count() * 9 / 10).collect::<String>() + "\u{2026}";
        }
        shortened
    }
}
