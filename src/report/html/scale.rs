//! From numbers to places on paper: round ticks, short labels, and fewer points of the same shape.

/// An axis: values of `low..=high` on a length in drawing units.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// That holds `low..=high`, both being ticks: for what is read by its height.
    pub(super) fn round(low: f64, high: f64, n_ticks: usize) -> Self {
        let axis = Axis::exact(low, high, n_ticks);
        let step = axis.step;
        Axis { low: (axis.low / step + 1e-9).floor() * step, high: (axis.high / step - 1e-9).ceil() * step, step }
    }

    /// From `low` to `high` exactly, with round ticks between.
    pub(super) fn exact(low: f64, high: f64, n_ticks: usize) -> Self {
        let (low, high) = if high > low { (low, high) } else { widen(low) };
        Axis { low, high, step: round_step((high - low) / n_ticks.max(1) as f64) }
    }

    /// The place of `value` on a length.
    pub(super) fn place(&self, value: f64, length: f64) -> f64 {
        (value - self.low) / (self.high - self.low) * length
    }

    /// Values with their labels.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let first = (self.low / self.step - 1e-9).ceil() as i64;
        let last = (self.high / self.step + 1e-9).floor() as i64;
        let scale = self.low.abs().max(self.high.abs());
        (first..=last).map(|n| n as f64 * self.step).map(|value| (value, label(value, self.step, scale))).collect()
    }
}

/// An axis of one value still has a length.
fn widen(value: f64) -> (f64, f64) {
    let half = if value == 0.0 { 1.0 } else { value.abs() * 0.05 };
    (value - half, value + half)
}

/// The smallest of 1, 2, 5 times a power of ten that is not below `raw`.
fn round_step(raw: f64) -> f64 {
    if !(raw.is_finite() && raw > f64::MIN_POSITIVE) {
        return 1.0;
    }
    let mut power = 0;
    while 10f64.powi(power + 1) <= raw {
        power += 1;
    }
    while 10f64.powi(power) > raw {
        power -= 1;
    }
    let magnitude = 10f64.powi(power);
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * magnitude)
        .into_iter()
        .find(|step| *step >= raw * (1.0 - 1e-9))
        .unwrap_or(raw)
}

/// As many decimals as the step needs; powers of ten where numbers are tiny, `k` and `M` where they are large.
fn label(value: f64, step: f64, scale: f64) -> String {
    if value.abs() < step * 1e-6 {
        return "0".to_string();
    }
    if scale < 1e-3 {
        return power_of_ten(value, step);
    }
    if scale >= 1e6 {
        return format!("{} M", decimals(value / 1e6, step / 1e6));
    }
    decimals(value, step)
}

fn power_of_ten(value: f64, step: f64) -> String {
    let mut exponent = 0;
    while value.abs() < 10f64.powi(exponent) * (1.0 - 1e-9) {
        exponent -= 1;
    }
    let magnitude = 10f64.powi(exponent);
    let digits = decimals(value / magnitude, (step / magnitude).min(1.0));
    let digits = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { &digits };
    format!("{digits}e{exponent}")
}

fn decimals(value: f64, step: f64) -> String {
    let mut n_decimals = 0;
    while n_decimals < 9
        && (step * 10f64.powi(n_decimals)).fract().min(1.0 - (step * 10f64.powi(n_decimals)).fract()) > 1e-6
    {
        n_decimals += 1;
    }
    group(&format!("{value:.*}", n_decimals.unsigned_abs() as usize))
}

/// A comma between thousands.
fn group(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("\u{2212}", digits));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, fraction)| (whole, Some(fraction)));
    let whole = whole.parse().map_or_else(|_| whole.to_string(), crate::report::numbers::count);
    fraction.map_or_else(|| format!("{sign}{whole}"), |fraction| format!("{sign}{whole}.{fraction}"))
}

/// A value by itself: four digits that matter.
pub(super) fn show(value: f64) -> String {
    if value == 0.0 {
        return "0".to_string();
    }
    let scale = value.abs();
    if !(1e-3..1e15).contains(&scale) {
        return format!("{value:.3e}");
    }
    if value.fract() == 0.0 {
        return group(&format!("{value:.0}"));
    }
    let mut n_decimals: usize = 3;
    let mut limit = 10.0;
    while scale >= limit && n_decimals > 0 {
        n_decimals -= 1;
        limit *= 10.0;
    }
    let n_decimals = if scale < 1.0 { 4 } else { n_decimals };
    group(&format!("{value:.n_decimals$}"))
}

/// At most `n_max` points with the same outline: of each stretch of x the lowest and the highest, and both ends.
pub(super) fn thin(points: &[(f64, f64)], n_max: usize) -> Vec<(f64, f64)> {
    if points.len() <= n_max || n_max < 4 {
        return points.to_vec();
    }
    let inner = &points[1..points.len() - 1];
    let n_stretches = (n_max - 2) / 2;
    let mut kept = vec![points[0]];
    for stretch in 0..n_stretches {
        let (from, to) = (stretch * inner.len() / n_stretches, (stretch + 1) * inner.len() / n_stretches);
        let indices = from..to;
        let low = indices.clone().min_by(|&a, &b| inner[a].1.total_cmp(&inner[b].1));
        let high = indices.max_by(|&a, &b| inner[a].1.total_cmp(&inner[b].1));
        let (Some(low), Some(high)) = (low, high) else { continue };
        kept.push(inner[low.min(high)]);
        if low != high {
            kept.push(inner[low.max(high)]);
        }
    }
    kept.push(points[points.len() - 1]);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> String {
        axis.ticks().into_iter().map(|(_, label)| label).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ticks_are_round_and_few() {
        let table = [
            ((0.0, 1024.0), "0 500 1,000 1,500"),
            ((1.93, 4.71), "1 2 3 4 5"),
            ((0.0, 2e-4), "0 5e-5 1e-4 1.5e-4 2e-4"),
            ((0.0, 0.0123), "0 0.005 0.010 0.015"),
            ((-3.0, 3.0), "\u{2212}4 \u{2212}2 0 2 4"),
            ((0.0, 7_400_000.0), "0 2 M 4 M 6 M 8 M"),
            ((5.0, 5.0), "4.6 4.8 5.0 5.2 5.4"),
        ];
        for ((low, high), expected) in table {
            assert_eq!(labels(&Axis::round(low, high, 4)), expected, "{low}..{high}");
        }
        assert_eq!(labels(&Axis::exact(1.0, 103.0, 5)), "50 100");
    }

    #[test]
    fn a_value_by_itself() {
        let table = [
            (0.0, "0"),
            (2.3131, "2.313"),
            (0.00021, "2.100e-4"),
            (1234567.0, "1,234,567"),
            (45.678, "45.68"),
            (-0.5, "\u{2212}0.5000"),
        ];
        for (value, expected) in table {
            assert_eq!(show(value), expected);
        }
    }

    #[test]
    fn thinning_keeps_the_ends_and_every_extreme() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|n| (f64::from(n), f64::from(n % 7))).collect();
        points[5_432].1 = 99.0;
        points[7_001].1 = -99.0;
        let thin = thin(&points, 400);
        assert!(thin.len() <= 400, "{}", thin.len());
        assert!(thin.windows(2).all(|pair| pair[0].0 < pair[1].0), "x rises");
        for kept in [points[0], points[9_999], points[5_432], points[7_001]] {
            assert!(thin.contains(&kept), "{kept:?}");
        }
    }
}
