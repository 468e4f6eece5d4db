//! CPU seconds and memory of processes, from /proc.

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
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
