//! What this machine is called and how big it is.

use crate::model::limits::NAME_BYTES_MAX;
use std::{fs, thread};

/// What the machine is called (proc(5), `/proc/sys/kernel/hostname`).
pub fn name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().filter(char::is_ascii_graphic).take(NAME_BYTES_MAX).collect();
    if name.is_empty() { "node".into() } else { name }
}

/// Processors this process may use.
pub fn cpus() -> u32 {
    thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// Memory in bytes; 0 if the kernel does not say (proc_meminfo(5), `MemTotal`).
pub fn memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_a_size() {
        assert!(cpus() >= 1);
        assert!(memory() > 1 << 20);
    }
}
