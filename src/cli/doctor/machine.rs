//! Processors, memory and GPUs.

use std::fs;

use super::Check;
use crate::cli::session::Session;
use crate::execute::machine_memory_bytes;
use crate::registry;
use crate::report::numbers::{bytes, plural};

/// Less does not hold the smallest model that is worth training, with its state.
const MEMORY_MIN_BYTES: u64 = 2_000_000_000;

pub(super) fn checks(session: &Session<'_>) -> Vec<Check> {
    let mut checks = vec![threads(session)];
    if session.registry.get("train").is_some()
        && let Some(instruction_set) = registry::instruction_set()
    {
        checks.push(kernels(&instruction_set));
    }
    checks.push(memory());
    checks.push(gpu());
    checks
}

fn threads(session: &Session<'_>) -> Check {
    match session.n_threads(None) {
        Ok(n_threads) => {
            let n_processors = std::thread::available_parallelism().map_or(1, usize::from);
            Check::ok("threads", format!("{n_threads} for a run, {} here", plural(n_processors, "processor")))
        }
        Err(_) => {
            let text = session.io.environment.threads.clone().unwrap_or_default();
            let help = "set it to a whole number from 1 to 4096, or remove it";
            Check::problem("threads", format!("PIPE_THREADS is `{text}`"), help)
        }
    }
}

fn kernels(instruction_set: &str) -> Check {
    match instruction_set {
        "baseline" => {
            let help =
                "training gives the same bytes, several times slower than on a processor with AVX2 and FMA, or NEON";
            Check::warning("kernels", "no vector instructions that they know", help)
        }
        name => Check::ok("kernels", name),
    }
}

fn memory() -> Check {
    let total = machine_memory_bytes();
    if total == u64::MAX {
        return Check::ok("memory", "the system does not tell");
    }
    let limit = group_limit_bytes().filter(|limit| *limit < total);
    let usable = limit.unwrap_or(total);
    let found = match limit {
        Some(limit) => format!("{} of {}, by the limit of the control group", bytes(limit), bytes(total)),
        None => bytes(total),
    };
    if usable < MEMORY_MIN_BYTES {
        return Check::warning(
            "memory",
            found,
            "small models alone can be trained here; `--memory` says how much a run may take",
        );
    }
    Check::ok("memory", found)
}

/// Of a control group, version 2 or 1, as a container sees it.
fn group_limit_bytes() -> Option<u64> {
    let files = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    files.iter().find_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
}

/// Whether this build can use a GPU.
pub(super) const HAS_CUDA: bool = cfg!(feature = "cuda");

/// Whether the machine has a driver for NVIDIA GPUs.
pub(super) fn n_driver_gpus() -> Option<usize> {
    fs::read_dir("/proc/driver/nvidia/gpus").ok().map(Iterator::count)
}

fn gpu() -> Check {
    match (HAS_CUDA, n_driver_gpus()) {
        (false, None) => Check::ok("gpu", "none, and this build uses none"),
        (false, Some(n)) => {
            let found = format!("{}, which this build cannot use", plural(n, "GPU"));
            Check::warning("gpu", found, "build it with `--features cuda` to train on it")
        }
        (true, Some(n @ 1..)) => Check::ok("gpu", plural(n, "GPU")),
        (true, _) => Check::problem(
            "gpu",
            "this build is for GPUs, but there is none",
            "install the driver, or use a build without `cuda`",
        ),
    }
}
