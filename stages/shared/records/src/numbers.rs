//! Numbers as text for people: 12345 becomes `12,345`.
//!
//! It deliberately knows no language but English, so that facts and pictures read the same everywhere.

/// `12,345`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `817 B`, `24.2 MB`: powers of 1,000, as the hub's pages have them.
pub fn bytes(size_bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let mut size = size_bytes as f64;
    let mut unit = "B";
    for larger in UNITS {
        if size < 1000.0 {
            break;
        }
        size /= 1000.0;
        unit = larger;
    }
    if unit == "B" { format!("{size_bytes} B") } else { format!("{size:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let shown: Vec<String> = [0, 999, 1000, 52_002, 7_400_000].into_iter().map(thousands).collect();
        assert_eq!(shown, ["0", "999", "1,000", "52,002", "7,400,000"]);
        assert_eq!([bytes(999), bytes(1000), bytes(24_246_638)], ["999 B", "1.0 kB", "24.2 MB"]);
    }
}
