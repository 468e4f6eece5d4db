//! What a process used: CPU time and the most memory it had, as the kernel counts them.

use std::fs;

/// CPU seconds and megabytes.
#[derive(Debug, Clone, Copy, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Usage {
    pub(crate) cpu_s: f64,
    pub(crate) rss_mb: f64,
}

/// Returns what this process used so far.
pub(crate) fn own() -> Usage {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15, user and system, in hundredths of a second; counted behind the name's parenthesis.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = most.and_then(|m| m.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0);
    Usage { cpu_s: (ticks(11) + ticks(12)) / 100.0, rss_mb: kib * 1024.0 / 1e6 }
}
