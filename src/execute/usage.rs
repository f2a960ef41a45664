//! What the process uses, as the system tells: on Linux, from `/proc/self`.
//!
//! It deliberately measures the process and not a stage: stages that run together share its memory.

use std::fs;

/// Linux counts processor time for programs in hundredths of a second, whatever its own clock is.
const TICK_MS: u64 = 10;

/// Memory and processor time of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Resident now, in bytes.
    pub memory_bytes: u64,
    /// The largest it ever was, in bytes.
    pub peak_memory_bytes: u64,
    /// Time on all processors since the process began, in milliseconds.
    pub cpu_ms: u64,
}

impl Usage {
    /// Of now; `None` where the system does not tell.
    pub fn now() -> Option<Self> {
        let read = |name| fs::read_to_string(format!("/proc/self/{name}")).ok();
        Usage::parse(&read("status")?, &read("stat")?)
    }

    fn parse(status: &str, stat: &str) -> Option<Self> {
        let kibibytes = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix("kB")?.trim().parse().ok()
        };
        // The second field is the program's name in brackets, which may hold anything.
        let mut after_name = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let mut ticks = || after_name.next()?.parse::<u64>().ok();
        Some(Usage {
            memory_bytes: kibibytes("VmRSS:")? * 1024,
            peak_memory_bytes: kibibytes("VmHWM:")? * 1024,
            cpu_ms: (ticks()? + ticks()?) * TICK_MS,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let status = "Name:\tpipe\nVmPeak:\t 9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let stat = "7 (a) b (c) R 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 99\n";
        let expected = Usage { memory_bytes: 1 << 20, peak_memory_bytes: 2 << 20, cpu_ms: 3000 };
        assert_eq!(Usage::parse(status, stat), Some(expected));
        assert_eq!(Usage::parse("", stat), None);
        assert_eq!(Usage::parse(status, "7 (pipe"), None);
    }
}
