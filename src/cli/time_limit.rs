//! `--time-limit 2h`: how long a run may take before it is stopped as by Ctrl-C.

use std::time::Instant;

use super::failure::CliError;
use crate::diagnostic::Diagnostic;
use crate::execute::TimeLimit;
use crate::spec::{DURATION_FORM, parse_duration};

/// The limit that `text` asks for, counted from `begin`.
pub(super) fn read(text: &str, begin: Instant) -> Result<TimeLimit, CliError> {
    let end = parse_duration(text).and_then(|limit| begin.checked_add(limit));
    match end {
        Some(end) => Ok(TimeLimit { text: text.to_string(), end }),
        None => {
            let message = format!("--time-limit is `{text}`, but must be a duration of at least a second");
            Err(Diagnostic::new("bad-time-limit", message).help(DURATION_FORM).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_beyond_what_a_clock_can_count_is_refused() {
        assert!(read("1h", Instant::now()).is_ok());
        assert!(read("18446744073709551615s", Instant::now()).is_err());
    }
}
