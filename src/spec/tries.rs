//! `timeout: 30m` and `retries: 3` of a stage: how long a try may take, and how many more there are after a failure.
//!
//! ```text
//! retries: 3                           the same as { max: 3, delay: 1s }
//! retries: { max: 5, delay: 10s }      waits 10 s, 20 s, 40 s, 80 s, 160 s
//! ```
//!
//! Neither is in a key: the bytes of a stage do not depend on how often it was tried.

use std::time::Duration;

use super::duration::{DURATION_FORM, parse_duration};
use super::findings::Findings;
use super::keys::{self, Keys};
use super::node::{Body, Entry, Node, Scalar};
use super::resources::count;
use super::{Timeout, Tries};

const RETRIES_KEYS: &[&str] = &["max", "delay"];

/// Enough for a hiccup of a network or a disk, and hardly noticed.
const DELAY_DEFAULT: Duration = Duration::from_secs(1);

/// A remote that was gone for five minutes is worth asking that often, and no less.
const DELAY_MAX: Duration = Duration::from_secs(300);

impl Tries {
    /// How long to wait after so many failures before the next try; `None` where there is no further one.
    pub fn delay_after(&self, n_failures: usize) -> Option<Duration> {
        if n_failures == 0 || n_failures > self.n_retries {
            return None;
        }
        let n_doublings = u32::try_from(n_failures - 1).unwrap_or(u32::MAX);
        let doubled = 2_u32.checked_pow(n_doublings).and_then(|factor| self.delay.checked_mul(factor));
        // Who asks for a longer first delay gets it, and then the same again.
        Some(doubled.unwrap_or(DELAY_MAX).min(DELAY_MAX.max(self.delay)))
    }
}

/// Reads both keys of the stage called `stage`.
pub(super) fn read(timeout: Option<Entry>, retries: Option<Entry>, stage: &str, findings: &mut Findings) -> Tries {
    let what = format!("`timeout` of stage `{stage}`");
    let timeout = timeout.and_then(|entry| duration(&entry.value, &what, findings));
    let timeout = timeout.map(|(text, limit)| Timeout { text, limit });
    let (n_retries, delay) = retries.map_or((0, None), |entry| read_retries(entry.value, stage, findings));
    Tries { timeout, n_retries, delay: delay.unwrap_or(DELAY_DEFAULT) }
}

fn read_retries(node: Node, stage: &str, findings: &mut Findings) -> (usize, Option<Duration>) {
    let owner = format!("`retries` of stage `{stage}`");
    if !matches!(node.body, Body::Mapping(_)) {
        return (count(&node, &owner, 0, findings).unwrap_or(0), None);
    }
    let span = node.span;
    let Some(mut keys) = Keys::new(node, owner.clone(), RETRIES_KEYS, findings) else { return (0, None) };
    let max = keys.take("max");
    if max.is_none() {
        findings.error("missing-key", span, format!("{owner} has no `max`")).help =
            Some("`max` is how many further tries there are after a failure, `{ max: 3, delay: 10s }`".into());
    }
    let max = max.and_then(|entry| count(&entry.value, &format!("`max` in {owner}"), 0, findings));
    let delay = keys.take("delay").and_then(|entry| duration(&entry.value, &format!("`delay` in {owner}"), findings));
    keys.finish(findings);
    (max.unwrap_or(0), delay.map(|(_, delay)| delay))
}

/// As written, and what it is; `None` for nothing, and for what is reported.
fn duration(node: &Node, what: &str, findings: &mut Findings) -> Option<(String, Duration)> {
    let text = match &node.body {
        Body::Scalar(Scalar::Null) | Body::Unknown => return None,
        Body::Scalar(Scalar::String(text)) => text.clone(),
        Body::Scalar(Scalar::Number(number)) => {
            findings.error_at_value("wrong-type", node, format!("{what} is `{number}` without a unit")).help =
                Some(DURATION_FORM.into());
            return None;
        }
        _ => {
            keys::wrong_type(node, what, "a duration like `30m`", findings);
            return None;
        }
    };
    let found = parse_duration(&text);
    if found.is_none() {
        let message = format!("{what} is `{text}`, but must be a duration of at least a second");
        findings.error_at_value("out-of-range", node, message).help = Some(DURATION_FORM.into());
    }
    found.map(|duration| (text, duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_five_minutes() {
        let delays = |n_retries, delay_s| -> Vec<u64> {
            let tries = Tries { timeout: None, n_retries, delay: Duration::from_secs(delay_s) };
            (1..).map_while(|n| tries.delay_after(n)).map(|delay| delay.as_secs()).collect()
        };
        assert_eq!(delays(0, 1), [] as [u64; 0]);
        assert_eq!(delays(4, 1), [1, 2, 4, 8]);
        assert_eq!(delays(5, 100), [100, 200, 300, 300, 300]);
        assert_eq!(delays(3, 3_600), [3_600, 3_600, 3_600], "who asks for more gets it");
        assert_eq!(delays(4_096, 1).last(), Some(&300), "no overflow");
    }
}
