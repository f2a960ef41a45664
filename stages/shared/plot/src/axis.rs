//! An axis: which numbers it shows, and where each of them stands.

use crate::ticks::{Tick, ticks};

/// A range of numbers over a range of units of the drawing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Axis {
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// Only whole numbers are shown.
    pub(crate) are_whole: bool,
    /// Where `low` stands.
    pub(crate) start: i32,
    /// Where `high` stands; below `start` on the vertical axis.
    pub(crate) end: i32,
}

/// A range that a chart asks for, before it has a place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// Below this share of its numbers, a range is taken as one number: an `f64` could not resolve its ticks.
const SHARE_MIN: f64 = 1e-9;
/// Where numbers are positive and the least is below this share of the largest, the axis starts at zero.
const SHARE_OF_ZERO: f64 = 0.4;

impl Span {
    /// From the least to the largest of `values`; 0 to 1 where there are none.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let all =
            values.fold(None, |span: Option<Span>, value| {
                Some(span.map_or(Span { low: value, high: value }, |s| Span {
                    low: s.low.min(value),
                    high: s.high.max(value),
                }))
            });
        all.unwrap_or(Span { low: 0.0, high: 1.0 })
    }

    /// Room around a single number, so that it has a place.
    pub(crate) fn opened(self) -> Self {
        let Span { low, high } = self;
        if high - low > low.abs().max(high.abs()) * SHARE_MIN {
            return self;
        }
        let room = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
        Span { low: low - room, high: high + room }
    }

    /// `share` of its length more at each end, but zero stays an end.
    pub(crate) fn with_margin(self, share: f64) -> Self {
        let room = (self.high - self.low) * share;
        let low = if self.low == 0.0 { 0.0 } else { self.low - room };
        Span { low, high: if self.high == 0.0 { 0.0 } else { self.high + room } }
    }

    /// Down to zero where that costs little of the height.
    pub(crate) fn down_to_zero_if_near(self) -> Self {
        let is_near = self.low > 0.0 && self.low < SHARE_OF_ZERO * self.high;
        Span { low: if is_near { 0.0 } else { self.low }, ..self }
    }
}

impl Axis {
    /// Where `value` stands, in units of the drawing, not yet rounded.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let share = (value - self.low) / (self.high - self.low);
        f64::from(self.start) + share * f64::from(self.end - self.start)
    }

    /// At most `n_max` round numbers.
    pub(crate) fn ticks(&self, n_max: usize) -> Vec<Tick> {
        ticks(self.low, self.high, n_max, self.are_whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_number_stands_in_the_middle() {
        for (value, span) in [(0.0, (-1.0, 1.0)), (20.0, (18.0, 22.0)), (-20.0, (-22.0, -18.0))] {
            let opened = Span::of([value, value].into_iter()).opened();
            assert_eq!((opened.low, opened.high), span);
            let axis = Axis { low: opened.low, high: opened.high, are_whole: false, start: 100, end: 0 };
            assert_eq!(axis.place(value), 50.0);
        }
        assert_eq!(Span::of(std::iter::empty()), Span { low: 0.0, high: 1.0 });
    }

    #[test]
    fn zero_is_shown_where_it_is_near_and_is_never_passed() {
        let span = |low, high| Span { low, high }.down_to_zero_if_near().with_margin(0.1);
        assert_eq!(span(0.2, 1.0), Span { low: 0.0, high: 1.1 });
        assert_eq!(span(2.0, 3.0), Span { low: 1.9, high: 3.1 });
    }
}
