//! Round numbers on an axis, and how they are written.
//!
//! ```text
//! 0 to 0.0002, at most 5    0   5e-5   1e-4   1.5e-4   2e-4
//! 0 to 2,900, at most 6     0   500   1,000   1,500   2,000   2,500
//! ```
//!
//! A tick is a whole number times a power of ten, so its text is exact, and nothing here needs a logarithm.

/// `mantissa * 10^exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick {
    pub(crate) mantissa: i64,
    pub(crate) exponent: i32,
}

/// From here on, and below [`SMALL`], numbers are written with an exponent.
const LARGE: f64 = 1e7;
/// See [`LARGE`].
const SMALL: f64 = 1e-3;

impl Tick {
    /// The nearest `f64`.
    pub(crate) fn value(self) -> f64 {
        format!("{}e{}", self.mantissa, self.exponent).parse().unwrap_or(0.0)
    }
}

/// At most `n_max` (at least 2) round numbers from `low` to `high`, whose distance is 1, 2 or 5 times a power of ten. `low` is
/// below `high`, both finite. `are_whole`: only whole numbers have a meaning here.
pub(crate) fn ticks(low: f64, high: f64, n_max: usize, are_whole: bool) -> Vec<Tick> {
    let (mut factor, mut exponent) = round_up((high - low) / n_max.max(2) as f64);
    if are_whole && exponent < 0 {
        (factor, exponent) = (1, 0);
    }
    let step = Tick { mantissa: factor, exponent }.value();
    let first = (low / step).ceil();
    let n = ((high / step).floor() - first).max(-1.0) as usize + 1;
    // Beyond 2^53 steps from zero a step is below what an `f64` resolves; an axis never asks for it.
    let first = first as i64;
    (0..n.min(2 * n_max.max(2)) as i64)
        .map(|i| Tick { mantissa: first.saturating_add(i).saturating_mul(factor), exponent })
        .collect()
}

/// The least of 1, 2 and 5 times a power of ten that is not below `number`, as factor and exponent.
fn round_up(number: f64) -> (i64, i32) {
    // `2.5e-3`: Rust writes the shortest digits that mean the number, so this is exact.
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or(("1", "0"));
    let (digits, exponent) = (digits.parse().unwrap_or(1.0), exponent.parse().unwrap_or(0));
    match digits {
        ..=1.0 => (1, exponent),
        ..=2.0 => (2, exponent),
        ..=5.0 => (5, exponent),
        _ => (1, exponent + 1),
    }
}

/// The ticks of one axis as text, all in the same notation.
pub(crate) fn labels(ticks: &[Tick]) -> Vec<String> {
    let largest = ticks.iter().map(|tick| tick.value().abs()).fold(0.0, f64::max);
    let has_exponent = largest != 0.0 && !(SMALL..LARGE).contains(&largest);
    ticks.iter().map(|tick| if has_exponent { scientific(*tick) } else { decimal(*tick) }).collect()
}

/// `1.5e-4`.
fn scientific(tick: Tick) -> String {
    if tick.mantissa == 0 {
        return "0".to_string();
    }
    let digits = tick.mantissa.unsigned_abs().to_string();
    let exponent = tick.exponent + digits.len() as i32 - 1;
    let rest = digits[1..].trim_end_matches('0');
    let (sign, point) = (sign(tick), if rest.is_empty() { "" } else { "." });
    format!("{sign}{}{point}{rest}e{exponent}", &digits[..1])
}

/// `1,234.5`.
fn decimal(tick: Tick) -> String {
    let mut digits = tick.mantissa.unsigned_abs().to_string();
    if tick.exponent > 0 && tick.mantissa != 0 {
        digits.push_str(&"0".repeat(tick.exponent as usize));
    }
    let n_decimals = tick.exponent.min(0).unsigned_abs() as usize;
    let digits = format!("{digits:0>width$}", width = n_decimals + 1);
    let (whole, decimals) = digits.split_at(digits.len() - n_decimals);
    let point = if decimals.is_empty() { "" } else { "." };
    format!("{}{}{point}{decimals}", sign(tick), thousands(whole))
}

/// The sign that print has, which is as wide as a digit.
fn sign(tick: Tick) -> &'static str {
    if tick.mantissa < 0 { "\u{2212}" } else { "" }
}

fn thousands(digits: &str) -> String {
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_written_alike() {
        for (low, high, n_max, are_whole, expected) in [
            (0.0, 2e-4, 5, false, &["0", "5e-5", "1e-4", "1.5e-4", "2e-4"][..]),
            (0.0, 2900.0, 6, true, &["0", "500", "1,000", "1,500", "2,000", "2,500"]),
            (2.04, 2.33, 6, false, &["2.05", "2.10", "2.15", "2.20", "2.25", "2.30"]),
            (-1.0, 1.0, 4, false, &["\u{2212}1.0", "\u{2212}0.5", "0.0", "0.5", "1.0"]),
            (0.0, 3.0, 10, true, &["0", "1", "2", "3"]),
            (0.0, 4e7, 4, true, &["0", "1e7", "2e7", "3e7", "4e7"]),
            (0.001, 0.0042, 4, false, &["0.001", "0.002", "0.003", "0.004"]),
            (-2.5e-9, 0.0, 3, false, &["\u{2212}2e-9", "\u{2212}1e-9", "0"]),
        ] {
            assert_eq!(labels(&ticks(low, high, n_max, are_whole)), expected, "{low} to {high}");
        }
    }

    #[test]
    fn any_range_has_a_few_ticks_within_it() {
        for low in [-1e300_f64, -17.0, -1e-300, 0.0, 3e-9, 0.1, 1234.5, 9e15] {
            for width in [1e-290, 1e-7, 0.3, 1.0, 1000.0, 7e20, 1e299] {
                let high = low + width;
                if high - low <= high.abs().max(low.abs()) * 1e-9 {
                    continue; // An axis widens such a range first.
                }
                let found = ticks(low, high, 8, false);
                assert!((2..=9).contains(&found.len()), "{low} to {high}: {found:?}");
                assert!(found.iter().all(|tick| tick.value() >= low && tick.value() <= high), "{found:?}");
                assert!(labels(&found).iter().all(|label| label.len() < 24), "{:?}", labels(&found));
            }
        }
    }
}
