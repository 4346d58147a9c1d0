//! Where this program's own file and its stack lie in memory.
//!
//! Code and constants are pages of the file, shared with the page cache: the process may let go of them at any time. And
//! of what its stack had grown to.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    ops::Range,
    sync::OnceLock,
};

/// The address ranges of our binary's code and constants: readable, never writable, with no page that differs from
/// the file (relocated pointers, made read-only since, do).
///
/// # Errors
/// As reading `/proc/self`.
pub(super) fn of_own_binary() -> io::Result<&'static [Range<usize>]> {
    // They stay as long as the process; looked up once, since cutting them into pieces makes the list long.
    static KNOWN: OnceLock<Vec<Range<usize>>> = OnceLock::new();
    match KNOWN.get() {
        Some(known) => Ok(known),
        None => look().map(|found| KNOWN.get_or_init(|| found).as_slice()),
    }
}

fn look() -> io::Result<Vec<Range<usize>>> {
    let binary = fs::read_link("/proc/self/exe")?;
    let mut ranges = Vec::new();
    let mut mapping = None;
    // proc_pid_smaps(5): a line with start-end, permissions, offset, device, inode and path, then lines about it.
    for line in BufReader::new(File::open("/proc/self/smaps")?).lines() {
        let line = line?;
        let (first, rest) = line.split_once(' ').unwrap_or((&line, ""));
        if let Some((start, end)) = first.split_once('-') {
            let ours = rest.starts_with("r-") && rest.ends_with(&*binary.to_string_lossy());
            mapping = address(start).zip(address(end)).filter(|_| ours);
        } else if let (Some((start, end)), "Anonymous:", "0 kB") = (mapping, first, rest.trim()) {
            ranges.push(start..end);
        }
    }
    Ok(ranges)
}

/// The main thread's stack, as far as it has ever grown.
///
/// # Errors
/// As reading `/proc/self`.
pub(super) fn of_stack() -> io::Result<Option<Range<usize>>> {
    // proc_pid_maps(5): start-end, …, and what it is.
    for line in BufReader::new(File::open("/proc/self/maps")?).lines() {
        let line = line?;
        if let Some((start, rest)) = line.split_once('-').filter(|_| line.ends_with("[stack]")) {
            let end = rest.split(' ').next().and_then(address);
            return Ok(address(start).zip(end).map(|(start, end)| start..end));
        }
    }
    Ok(None)
}

fn address(text: &str) -> Option<usize> {
    usize::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_code_lies_in_one_of_the_ranges() {
        let here = of_own_binary as *const () as usize;
        assert!(of_own_binary().expect("/proc is there").iter().any(|range| range.contains(&here)));
    }
}
