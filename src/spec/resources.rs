//! `resources: { cpu: 4, memory: 4GiB, gpu: 1, pools: { hub: 1 } }`: what a stage wishes for.

use super::Resources;
use super::findings::Findings;
use super::keys::{self, Keys};
use super::node::{Body, Node, Scalar};
use super::pools::DeclaredPools;

pub(crate) const KEYS: &[&str] = &["cpu", "memory", "gpu", "pools"];

/// More threads or GPUs than any one machine has: beyond it, it is a typing error.
pub(crate) const COUNT_MAX: u64 = 4096;

/// Units of memory and their bytes.
pub(crate) const UNITS: &[(&str, u64)] = &[
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Reads the block of the stage called `stage`.
pub(super) fn read(node: Node, stage: &str, pools: &DeclaredPools, findings: &mut Findings) -> Resources {
    let owner = format!("`resources` of stage `{stage}`");
    let Some(mut keys) = Keys::new(node, owner.clone(), KEYS, findings) else { return Resources::default() };
    let mut resources = Resources::default();
    if let Some(entry) = keys.take("cpu") {
        resources.cpu = count(&entry.value, &format!("`cpu` in {owner}"), 1, findings);
    }
    if let Some(entry) = keys.take("gpu") {
        resources.gpu = count(&entry.value, &format!("`gpu` in {owner}"), 0, findings).unwrap_or(0);
    }
    if let Some(entry) = keys.take("memory") {
        resources.memory_bytes = memory(&entry.value, &format!("`memory` in {owner}"), findings);
    }
    if let Some(entry) = keys.take("pools") {
        resources.pools = pools.wishes(entry.value, stage, findings);
    }
    keys.finish(findings);
    resources
}

/// A whole number from `min` on; `None` for nothing, and for what is reported.
pub(super) fn count(node: &Node, what: &str, min: u64, findings: &mut Findings) -> Option<usize> {
    match &node.body {
        Body::Scalar(Scalar::Null) | Body::Unknown => None,
        Body::Scalar(Scalar::Number(number)) => {
            let count = number.as_u64().filter(|count| (min..=COUNT_MAX).contains(count));
            if count.is_none() {
                let message = format!("{what} is `{number}`, but must be a whole number from {min} to {COUNT_MAX}");
                findings.error_at_value("out-of-range", node, message);
            }
            count.map(|count| usize::try_from(count).expect("at most 4096"))
        }
        _ => {
            keys::wrong_type(node, what, "a whole number", findings);
            None
        }
    }
}

fn memory(node: &Node, what: &str, findings: &mut Findings) -> Option<u64> {
    let text = match &node.body {
        Body::Scalar(Scalar::Null) | Body::Unknown => return None,
        Body::Scalar(Scalar::String(text)) => text,
        Body::Scalar(Scalar::Number(number)) => {
            findings.error_at_value("wrong-type", node, format!("{what} is `{number}` without a unit")).help =
                Some(format!("give one: `{number}GiB`; the units are KiB, MiB, GiB, TiB, KB, MB, GB, TB"));
            return None;
        }
        _ => {
            keys::wrong_type(node, what, "a size like `4GiB`", findings);
            return None;
        }
    };
    let bytes = parse_memory(text);
    if bytes.is_none() {
        findings
            .error_at_value(
                "out-of-range",
                node,
                format!("{what} is `{text}`, but must be a size like `4GiB` or `1.5GB`"),
            )
            .help = Some("the units are KiB, MiB, GiB, TiB, KB, MB, GB, TB".into());
    }
    bytes
}

/// Bytes of `4GiB`, `1.5 GB`; at least one, rounded down.
pub fn parse_memory(text: &str) -> Option<u64> {
    let (number, unit_bytes) =
        UNITS.iter().find_map(|(unit, bytes)| text.strip_suffix(unit).map(|number| (number.trim_end(), *bytes)))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_decimal = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !is_decimal(whole) || !is_decimal(fraction) || fraction.len() > 9 || number.ends_with('.') {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).expect("at most 9"));
    let value = u128::from(whole.parse::<u64>().ok()?) * scale + fraction.parse::<u128>().unwrap_or(0);
    u64::try_from(value * u128::from(unit_bytes) / scale).ok().filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_number_and_a_unit() {
        for (text, bytes) in [
            ("4GiB", Some(4 << 30)),
            ("1KiB", Some(1024)),
            ("1KB", Some(1000)),
            ("512 MiB", Some(512 << 20)),
            ("1.5GB", Some(1_500_000_000)),
            ("0.5MB", Some(500_000)),
            ("2TiB", Some(2 << 40)),
            ("0GiB", None),
            ("4", None),
            ("GiB", None),
            ("-4GiB", None),
            ("4gib", None),
            ("4.GiB", None),
            ("1e3MB", None),
            ("99999999999999999999GiB", None),
            ("18446744073709551615TiB", None),
        ] {
            assert_eq!(parse_memory(text), bytes, "{text}");
        }
    }
}
