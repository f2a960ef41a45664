//! What this machine has to grant.

use std::fs;

use crate::schedule::Slots;

/// The slots of a run with `n_threads`: `memory_limit` or all memory of the machine, and its GPUs if this build can use them, or
/// `pretended_gpus`.
pub fn machine_slots(n_threads: usize, memory_limit: Option<u64>, pretended_gpus: Option<usize>) -> Slots {
    Slots {
        threads: n_threads.max(1),
        memory_bytes: memory_limit.unwrap_or_else(machine_memory_bytes),
        gpus: pretended_gpus.unwrap_or_else(n_gpus),
        pools: Vec::new(),
    }
}

/// All memory of this machine, from `/proc/meminfo`; without limit where there is none.
pub fn machine_memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    parse_memory_total(&text).unwrap_or(u64::MAX)
}

/// `MemTotal:  16384000 kB`, where kB are KiB.
fn parse_memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The NVIDIA driver lists a folder for each GPU.
fn n_gpus() -> usize {
    if cfg!(feature = "cuda") { fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, Iterator::count) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(parse_memory_total("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert_eq!(parse_memory_total("MemFree: 1 kB\n"), None);
    }
}
