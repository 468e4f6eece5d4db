//! CPU seconds and memory of processes, from /proc; CPU time of one thread, from the system.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What a process has used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// User and system time, seconds.
    pub cpu: f64,
}

impl Usage {
    /// Reads what a process has used so far; nothing if it is gone.
    pub fn of(pid: u32) -> Self {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name may hold anything, but no field after it holds a parenthesis.
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
        // Fields 14 and 15 of stat, in ticks of 1/100 s on Linux.
        Self { cpu: (ticks(11) + ticks(12)) / 100.0 }
    }

    /// Returns what was used since `earlier`.
    pub fn since(self, earlier: Self) -> f64 {
        self.cpu - earlier.cpu
    }
}

/// Returns a process's resident memory in KiB.
pub fn resident_kib(pid: u32) -> u64 {
    status_kib(pid, "VmRSS:")
}

/// Returns the most that a process's resident memory has been, in KiB; begun anew with each program that it becomes.
pub(super) fn most_resident_kib(pid: u32) -> u64 {
    status_kib(pid, "VmHWM:")
}

fn status_kib(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// Returns the CPU time of the calling thread: what others do on the machine is not in it, apart from what they leave
/// in its caches.
pub(super) fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(now.tv_sec).expect("a thread has not run for less than nothing");
    Duration::new(seconds, u32::try_from(now.tv_nsec).expect("nanoseconds of a second"))
}

/// Repeats `step`, which does `count` things, until it has used `seconds`; returns the seconds of one thing.
pub(super) fn cost(seconds: f64, count: u64, mut step: impl FnMut()) -> f64 {
    step();
    let (began, mut done) = (thread_cpu(), 0u64);
    loop {
        step();
        done += count;
        let used = (thread_cpu() - began).as_secs_f64();
        if used >= seconds {
            return used / done as f64;
        }
    }
}

/// Returns the median.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
