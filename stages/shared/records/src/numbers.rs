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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let shown: Vec<String> = [0, 999, 1000, 52_002, 7_400_000].into_iter().map(thousands).collect();
        assert_eq!(shown, ["0", "999", "1,000", "52,002", "7,400,000"]);
    }
}
