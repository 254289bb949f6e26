//! How much memory the machine, or the container, lets the process have: what the default size of the node cache is taken from.
//!
//! A quarter of it, as PostgreSQL's manual advises for shared_buffers, because the other shares have their own limits: statements (`--memory-mb`), RocksDB's
//! blocks (`--block-cache-mb`), and the rest is the system's for files.

use std::fs;

/// The cache of a machine that says nothing of its memory, and the smallest one, in MiB.
const UNKNOWN_MB: usize = 256;
const LEAST_MB: usize = 64;
/// Which part of the memory the cache takes.
const SHARE: u64 = 4;

/// The node cache's default size in MiB.
pub fn default_cache_mb() -> usize {
    let limits = [
        read("/proc/meminfo").as_deref().and_then(total_of_meminfo),
        read("/sys/fs/cgroup/memory.max").as_deref().and_then(limit_of_group),
        read("/sys/fs/cgroup/memory/memory.limit_in_bytes").as_deref().and_then(limit_of_group),
    ];
    share(limits.into_iter().flatten().min())
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// MemTotal, in bytes.
fn total_of_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// A control group's limit in bytes; None for `max`.
fn limit_of_group(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

fn share(bytes: Option<u64>) -> usize {
    bytes.map_or(UNKNOWN_MB, |bytes| usize::try_from((bytes / SHARE) >> 20).unwrap_or(usize::MAX >> 20).max(LEAST_MB))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_what_there_is() {
        assert_eq!(
            total_of_meminfo("Other: 1 kB\nMemTotal:       24689324 kB\nMemFree: 5 kB\n"),
            Some(24_689_324 << 10)
        );
        assert_eq!(total_of_meminfo("MemFree: 5 kB\n"), None);
        assert_eq!((limit_of_group("max\n"), limit_of_group("1073741824\n")), (None, Some(1 << 30)));
        assert_eq!((share(Some(1 << 30)), share(Some(16 << 30))), (256, 4096));
        assert_eq!((share(Some(100 << 20)), share(None)), (LEAST_MB, UNKNOWN_MB));
        assert!(default_cache_mb() >= LEAST_MB);
    }
}
