//! Durations as a user writes them, in `--time-limit 2h` and `timeout: 30m`.
//!
//! ```text
//! 90s   30m   2h   1h30m   1d12h        whole numbers with a unit each, larger units first
//! ```
//!
//! A bare number is refused: Slurm reads it as minutes, GNU timeout as seconds.

use std::time::Duration;

/// Units with their seconds, larger ones first.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// What to write, for the help of a diagnostic.
pub const DURATION_FORM: &str = "write `90s`, `30m`, `2h` or `1h30m`";

/// `None` for what is not a duration, or none of at least a second.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut seconds: u64 = 0;
    let mut units = UNITS.iter();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..end].parse().ok()?;
        let unit = rest[end..].chars().next()?;
        let (_, unit_seconds) = units.find(|(name, _)| *name == unit)?;
        seconds = seconds.checked_add(number.checked_mul(*unit_seconds)?)?;
        rest = &rest[end + unit.len_utf8()..];
    }
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        let seconds = |text: &str| parse_duration(text).map(|duration| duration.as_secs());
        for (text, expected) in [("90s", 90), ("30m", 1_800), ("2h", 7_200), ("1h30m", 5_400), ("1d12h", 129_600)] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in ["", "2", "h", "0s", "2 h", "1.5h", "-1h", "30m1h", "1h2h", "2x", "9999999999999999999d", "1hé"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
