//! Numbers as people read them.

use std::time::Duration;

/// `8 ms`, `0.4 s`, `12.3 s`, `2 min 03 s`, `1 h 02 min`.
pub fn duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let seconds = duration.as_secs();
    match ms {
        0..100 => format!("{ms} ms"),
        100..59_950 => format!("{:.1} s", duration.as_secs_f64()),
        59_950..3_600_000 => {
            let seconds = seconds.max(60);
            format!("{} min {:02} s", seconds / 60, seconds % 60)
        }
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// With a comma between thousands: `2,999`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// In powers of 1000 with one decimal: `17 B`, `24.0 MB`.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if number < 1000 {
        return format!("{number} B");
    }
    let mut value = number as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1 stage`, `7 stages`.
pub fn plural(number: usize, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{} {word}s", count(number as u64)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_or_three_digits_that_matter() {
        let table = [
            (0, "0 ms"),
            (99, "99 ms"),
            (100, "0.1 s"),
            (12_345, "12.3 s"),
            (59_949, "59.9 s"),
            (59_999, "1 min 00 s"),
            (123_000, "2 min 03 s"),
            (3_599_999, "59 min 59 s"),
            (3_720_000, "1 h 02 min"),
        ];
        for (ms, text) in table {
            assert_eq!(duration(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn counts_and_bytes() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0, 999, 1000, 999_949, 999_950, 24_000_000].map(bytes),
            ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "24.0 MB"]
        );
        assert_eq!([0, 1, 2].map(|n| plural(n, "stage")), ["0 stages", "1 stage", "2 stages"]);
    }
}
