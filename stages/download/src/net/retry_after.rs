//! How long a server asks to wait.
//!
//! ```text
//! Retry-After: 7                                   7 s
//! Retry-After: Wed, 21 Oct 2015 07:28:00 GMT       until then, by the server's own clock
//! RateLimit: "api";r=0;t=30                        30 s, where there is no Retry-After
//! ```

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ureq::http::HeaderMap;

use super::header;

/// The pause that an answer asks for, if it does.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let Some(text) = header(headers, "retry-after") else {
        let parts = header(headers, "ratelimit")?.split(';');
        let seconds = parts.filter_map(|part| part.trim().strip_prefix("t=")).next()?;
        return Some(Duration::from_secs(seconds.parse().ok()?));
    };
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let now = header(headers, "date").and_then(unix_time).or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        i64::try_from(now.as_secs()).ok()
    })?;
    Some(Duration::from_secs(u64::try_from(unix_time(text)? - now).unwrap_or(0)))
}

/// Seconds since 1970 of `Wed, 21 Oct 2015 07:28:00 GMT` (RFC 9110, section 5.6.7).
fn unix_time(text: &str) -> Option<i64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let mut parts = text.split_ascii_whitespace().skip(1);
    let day: i64 = parts.next()?.parse().ok()?;
    let month = i64::try_from(MONTHS.find(parts.next()?)? / 3 + 1).ok()?;
    let year: i64 = parts.next()?.parse().ok().filter(|year| (1900..10_000).contains(year))?;
    let mut clock = parts.next()?.split(':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    Some(((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days of the proleptic Gregorian calendar: years that begin in March put the leap day last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_http() {
        assert_eq!(unix_time("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(unix_time("Wed, 21 Oct 2015 07:28:00 GMT"), Some(1_445_412_480));
        assert_eq!(unix_time("Thu, 29 Feb 2024 12:00:00 GMT"), Some(1_709_208_000));
        assert_eq!(unix_time("soon"), None);
    }

    #[test]
    fn a_pause_is_asked_for_in_three_forms() {
        let of = |pairs: &[(&'static str, &str)]| {
            let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            retry_after(&headers.collect::<HeaderMap>()).map(|pause| pause.as_secs())
        };
        let date = ("date", "Wed, 21 Oct 2015 07:28:00 GMT");
        assert_eq!(of(&[("retry-after", "7")]), Some(7));
        assert_eq!(of(&[("retry-after", "Wed, 21 Oct 2015 07:28:03 GMT"), date]), Some(3));
        assert_eq!(of(&[("retry-after", "Wed, 21 Oct 2015 07:27:03 GMT"), date]), Some(0), "a date that has passed");
        assert_eq!(of(&[("ratelimit", "\"api\";r=0;t=30")]), Some(30));
        assert_eq!(of(&[]), None);
    }
}
