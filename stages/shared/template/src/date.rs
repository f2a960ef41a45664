//! A date that a setting names, formatted as Python's `strftime` does in the C locale.

use std::fmt::Write as _;

use crate::TemplateError;

/// A day. Its time is midnight: what a stage writes depends on no clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// 1 to 9999.
    year: u32,
    /// 1 to 12.
    month: u32,
    /// 1 to 31.
    day: u32,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

impl Date {
    /// Reads `2026-07-26`.
    ///
    /// # Errors
    /// `BadDate` for anything else, and for a day that does not exist.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let bad = || TemplateError::BadDate { text: text.to_string() };
        let parts: Vec<&str> = text.split('-').collect();
        let [year, month, day] = parts.as_slice() else { return Err(bad()) };
        let number = |digits: &str, n_digits: usize| {
            let is_number = digits.len() == n_digits && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse::<u32>().ok().filter(|number| is_number && *number > 0).ok_or_else(bad)
        };
        let date = Date { year: number(year, 4)?, month: number(month, 2)?, day: number(day, 2)? };
        let exists = date.month <= 12 && date.day <= days_in_month(date.year, date.month);
        if exists { Ok(date) } else { Err(bad()) }
    }

    /// `format` with its directives replaced, or the first directive that is not known.
    pub(crate) fn strftime(self, format: &str) -> Result<String, String> {
        let mut text = String::new();
        let mut characters = format.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                text.push(character);
                continue;
            }
            let mut directive = characters.next().map_or_else(String::new, String::from);
            if directive == "-" {
                directive.extend(characters.next());
            }
            self.write(&mut text, &directive).ok_or_else(|| format!("%{directive}"))?;
        }
        Ok(text)
    }

    fn write(self, text: &mut String, directive: &str) -> Option<()> {
        let (month, weekday) = (MONTHS[self.month as usize - 1], WEEKDAYS[self.weekday()]);
        let year_of_century = self.year % 100;
        let written = match directive {
            "Y" => write!(text, "{}", self.year),
            "y" => write!(text, "{year_of_century:02}"),
            "m" => write!(text, "{:02}", self.month),
            "-m" => write!(text, "{}", self.month),
            "d" => write!(text, "{:02}", self.day),
            "-d" => write!(text, "{}", self.day),
            "e" => write!(text, "{:2}", self.day),
            "j" => write!(text, "{:03}", self.day_of_year()),
            "B" => write!(text, "{month}"),
            "b" | "h" => write!(text, "{}", &month[..3]),
            "A" => write!(text, "{weekday}"),
            "a" => write!(text, "{}", &weekday[..3]),
            "F" => write!(text, "{}-{:02}-{:02}", self.year, self.month, self.day),
            "D" | "x" => write!(text, "{:02}/{:02}/{year_of_century:02}", self.month, self.day),
            "H" | "M" | "S" => write!(text, "00"),
            "I" => write!(text, "12"),
            "p" => write!(text, "AM"),
            "T" | "X" => write!(text, "00:00:00"),
            "R" => write!(text, "00:00"),
            "%" => write!(text, "%"),
            _ => return None,
        };
        written.ok()
    }

    fn day_of_year(self) -> u32 {
        (1..self.month).map(|month| days_in_month(self.year, month)).sum::<u32>() + self.day
    }

    /// 0 is Monday. The first day of year 1 was one, in the calendar as Python extends it.
    fn weekday(self) -> usize {
        let past = self.year - 1;
        let n_days = past * 365 + past / 4 - past / 100 + past / 400 + self.day_of_year() - 1;
        (n_days % 7) as usize
    }
}

fn days_in_month(year: u32, month: u32) -> u32 {
    let is_leap = (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_written_as_python_writes_it() {
        let date = Date::parse("2024-07-26").unwrap();
        assert_eq!(
            date.strftime("%d %b %Y|%B %-d, %y|%A %a|%j|%F %H:%M|100%%").unwrap(),
            "26 Jul 2024|July 26, 24|Friday Fri|208|2024-07-26 00:00|100%"
        );
        assert_eq!(Date::parse("2026-11-28").unwrap().strftime("%A").unwrap(), "Saturday");
        assert_eq!(Date::parse("2000-02-29").unwrap().strftime("%A %j").unwrap(), "Tuesday 060");
        assert_eq!(date.strftime("%Q"), Err("%Q".to_string()));
    }

    #[test]
    fn what_is_no_day_is_refused() {
        for text in
            ["2026-02-29", "2026-13-01", "2026-1-01", "26-01-01", "2026-00-10", "today", "2026-01-01-1", "+026-01-01"]
        {
            assert!(Date::parse(text).is_err(), "{text}");
        }
    }
}
