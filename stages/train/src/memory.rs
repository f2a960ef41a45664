//! Memory of a training run: forecast before its first optimizer step, made to fit, and measured on the way.
//!
//! ```text
//! limit (`resources: { memory: .. }`, `--memory`), or what is free   --> how to run --> forecast --> peak
//! ```
//!
//! Forecast and peak are of the whole process, as the system counts it: what was resident before, pages of mapped weights too.

use pipe_contract::{Context, StageError};
use pipe_llm::engine::native::{Forecast, PackShape};
use pipe_llm::trainer::{Trained, Trainer};
use pipe_llm::{Engine, LlmError};

/// Of what is free, this share may be taken: the rest is for the page cache and other programs.
const SHARE_OF_FREE: f64 = 0.9;

/// The memory of a run in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// What the process will take at most; `None` where the engine does not say.
    forecast: Option<u64>,
    /// What it took at most when it was looked at.
    peak: u64,
}

impl Memory {
    /// Makes `trainer` run so that it fits into `limit`, or into what is free, and says so in `log`.
    ///
    /// # Errors
    /// When no way to run fits.
    pub(crate) fn plan(
        trainer: &mut Trainer,
        shape: PackShape,
        limit: Option<u64>,
        log: &mut dyn FnMut(String),
    ) -> Result<Self, LlmError> {
        let before = status_bytes("VmRSS:").unwrap_or(0);
        let adapter = match &trainer.trained {
            Trained::Adapter(adapter) => Some(adapter),
            Trained::Weights => None,
        };
        let Engine::Native(engine) = &mut trainer.engine else {
            return Ok(Memory { forecast: None, peak: before });
        };
        let budget = match limit {
            Some(limit) => Some(limit.saturating_sub(before)),
            None => free_bytes().map(|free| (free as f64 * SHARE_OF_FREE) as u64),
        };
        let forecast = engine.plan(adapter, shape, budget)?;
        let execution = engine.execution();
        let total = before + forecast.total();
        log(format!(
            "memory: {} forecast ({}); {}, {}",
            gib(total),
            describe(before, &forecast),
            match execution.n_packs_per_pass {
                1 => "a pack at a time".to_string(),
                n => format!("{n} packs at a time"),
            },
            match execution.n_recomputed {
                0 => "nothing recomputed".to_string(),
                n => format!("{n} of {} parts of layers recomputed", engine.n_segments()),
            }
        ));
        Ok(Memory { forecast: Some(total), peak: before })
    }

    /// Looks at what the process takes now.
    pub(crate) fn look(&mut self) {
        self.peak = self.peak.max(status_bytes("VmRSS:").unwrap_or(0));
    }

    /// Into the run's summary and events.
    pub(crate) fn tell(&self, ctx: &Context<'_>) {
        if self.peak == 0 {
            return;
        }
        let forecast = self.forecast.map_or_else(String::new, |forecast| format!(", {} forecast", gib(forecast)));
        ctx.fact("peak memory", format!("{}{forecast}", gib(self.peak)));
    }
}

/// What a stage is told of its memory before it starts.
///
/// # Errors
/// As [`Memory::plan`].
pub(crate) fn plan(ctx: &Context<'_>, trainer: &mut Trainer, shape: PackShape) -> Result<Memory, StageError> {
    Ok(Memory::plan(trainer, shape, ctx.memory_bytes, &mut |line| ctx.log(line))?)
}

fn describe(before: u64, forecast: &Forecast) -> String {
    let parts = [
        ("weights", forecast.mapped),
        ("trained", forecast.trained),
        ("values", forecast.values),
        ("buffers", forecast.buffers),
        ("before", before),
    ];
    parts.map(|(name, size_bytes)| format!("{name} {}", gib(size_bytes))).join(", ")
}

fn gib(size_bytes: u64) -> String {
    format!("{:.2} GiB", size_bytes as f64 / (1u64 << 30) as f64)
}

/// A line of the process's status in bytes, where the system tells: `VmRSS:`, resident now; `VmHWM:`, the largest so far.
pub(crate) fn status_bytes(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    kibibytes(&status, name)
}

/// Memory that can be had without pushing others out: of the machine, or of the group of processes that this one is limited with.
fn free_bytes() -> Option<u64> {
    let machine = kibibytes(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    Some(machine.min(group_free_bytes().unwrap_or(u64::MAX)))
}

/// Of a control group, version 2 or 1; `None` where there is no limit.
fn group_free_bytes() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().filter_map(group_of_line).min()
}

/// `0::/user.slice` (version 2) or `4:memory:/path` (version 1).
fn group_of_line(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let (root, limit, used) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max", "memory.current"),
        "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
        _ => return None,
    };
    // In a container the group's own folder is what is mounted.
    [format!("{root}{path}"), root.to_string()].iter().find_map(|folder| {
        let number = |file: &str| std::fs::read_to_string(format!("{folder}/{file}")).ok()?.trim().parse::<u64>().ok();
        Some(number(limit)?.saturating_sub(number(used)?))
    })
}

/// `NAME  123 kB`, where kB are KiB.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_bytes() {
        let status = "Name:\tpipe\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n";
        assert_eq!(kibibytes(status, "VmRSS:"), Some(1 << 20));
        assert_eq!(kibibytes(status, "VmHWM:"), Some(2 << 20));
        assert_eq!(kibibytes(status, "VmSwap:"), None);
    }

    #[test]
    fn lines_of_other_controllers_say_nothing() {
        assert_eq!(group_of_line("8:pids:/"), None);
        assert_eq!(group_of_line("nonsense"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn something_is_free_and_something_is_taken() {
        let (free, taken) = (free_bytes().expect("Linux tells"), status_bytes("VmRSS:").expect("Linux tells"));
        assert!(free > 1 << 20 && taken > 1 << 20, "{free} free, {taken} taken");
    }
}
