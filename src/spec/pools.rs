//! `pools: { hub: 2 }` at the top of a file, and `resources: { pools: { hub: 1 } }` of a stage: something that the file names,
//! of which there is so much, and of which a running stage holds some.
//!
//! A wish for more than there is could never be granted, so unlike one for threads or GPUs it is an error: both numbers stand in
//! the same file.

use super::Pool;
use super::findings::{Findings, nearest_or_list};
use super::keys;
use super::node::{Node, Span};
use super::resources::count;

/// The pools of a file.
#[derive(Default)]
pub(super) struct DeclaredPools {
    /// With the place of the name. A size that is reported as wrong is `None`: whatever a stage asks for is not.
    pools: Vec<(String, Span, Option<usize>)>,
}

impl DeclaredPools {
    /// Reads the block at the top of the file.
    pub(super) fn read(node: Node, findings: &mut Findings) -> Self {
        let mut pools = Vec::new();
        for entry in keys::mapping(node, "`pools`", findings).unwrap_or_default() {
            keys::name(&entry.key, "pool", entry.key_span, findings);
            let what = format!("the size of pool `{}`", entry.key);
            if entry.value.is_null() {
                keys::wrong_type(&entry.value, &what, "a whole number", findings);
            }
            let size = count(&entry.value, &what, 1, findings);
            pools.push((entry.key, entry.key_span, size));
        }
        DeclaredPools { pools }
    }

    /// Reads what the stage called `stage` asks for.
    pub(super) fn wishes(&self, node: Node, stage: &str, findings: &mut Findings) -> Vec<(usize, usize)> {
        let what = format!("`pools` in `resources` of stage `{stage}`");
        let mut wishes = Vec::new();
        for entry in keys::mapping(node, &what, findings).unwrap_or_default() {
            let Some(position) = self.pools.iter().position(|(name, ..)| *name == entry.key) else {
                self.report_unknown(stage, &entry.key, entry.key_span, findings);
                continue;
            };
            let what = format!("`{}` in {what}", entry.key);
            let n = count(&entry.value, &what, 0, findings).unwrap_or(0);
            let (name, span, size) = &self.pools[position];
            if let Some(size) = size.filter(|&size| n > size) {
                let message = format!("stage `{stage}` asks for {n} of pool `{name}`, which has {size}");
                let declared = findings.place(*span);
                findings.error_at_value("out-of-range", &entry.value, message).help =
                    Some(format!("ask for less, or enlarge the pool (declared at {declared})"));
            }
            if n > 0 {
                wishes.push((position, n));
            }
        }
        wishes
    }

    fn report_unknown(&self, stage: &str, name: &str, span: Span, findings: &mut Findings) {
        let names: Vec<&str> = self.pools.iter().map(|(name, ..)| name.as_str()).collect();
        let help = if names.is_empty() {
            format!("declare it at the top of the file: `pools: {{ {name}: 1 }}`")
        } else {
            nearest_or_list(name, &names, "pools")
        };
        let message = format!("stage `{stage}` asks for pool `{name}`, but the file declares no such pool");
        findings.error("unknown-pool", span, message).help = Some(help);
    }

    /// Once nothing is reported.
    pub(super) fn into_pools(self) -> Vec<Pool> {
        let pool = |(name, _, size): (String, Span, Option<usize>)| Pool { name, size: size.unwrap_or(1) };
        self.pools.into_iter().map(pool).collect()
    }
}
