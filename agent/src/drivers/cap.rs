//! What the kernel allows this process, and what it holds of that: the control groups (v2) it is in.
//!
//! Outside rule (kernel, Documentation/admin-guide/cgroup-v2.rst, "Memory"): `memory.max` of every group up to the root
//! counts and may change at any time, and `memory.current` includes the page cache, which the kernel takes back before
//! it kills anybody.

use super::runtime::process::cgroup;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The groups that this process is in, and whose caps it shares.
#[derive(Clone, Debug)]
pub struct Caps(Vec<PathBuf>);

impl Caps {
    /// `None`: there is no v2 hierarchy with memory in it, so nothing can be known.
    pub fn find() -> Option<Caps> {
        let own = cgroup::own()?;
        let groups: Vec<PathBuf> = own.ancestors().filter(|group| group.join("memory.max").exists()).map(Path::to_owned).collect();
        (!groups.is_empty()).then_some(Caps(groups))
    }

    /// Of the group nearest to its cap: bytes that the kernel could not take back, and the cap. `None`: nothing is capped.
    pub fn nearest(&self) -> Option<(u64, u64)> {
        let look = |group: &PathBuf| {
            let max = number(group, "memory.max")?;
            let stat = fs::read_to_string(group.join("memory.stat")).ok()?;
            Some((number(group, "memory.current")?.saturating_sub(reclaimable(&stat)), max))
        };
        let left = |(used, max): &(u64, u64)| u128::from(*used) * 1_000_000 / u128::from((*max).max(1));
        self.0.iter().filter_map(look).max_by_key(left)
    }
}

/// `max` is no number.
fn number(group: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(group.join(file)).ok()?.trim().parse().ok()
}

fn reclaimable(stat: &str) -> u64 {
    let fields = stat.lines().filter_map(|line| line.split_once(' '));
    let takes = |name: &str| matches!(name, "active_file" | "inactive_file" | "slab_reclaimable");
    fields.filter(|(name, _)| takes(name)).filter_map(|(_, bytes)| bytes.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_cache_is_not_in_the_way() {
        let stat = "anon 5000000\nfile 3000000\ninactive_file 2000000\nactive_file 900000\nslab_reclaimable 70\nslab 100\n";
        assert_eq!(reclaimable(stat), 2_900_070);
        assert_eq!(reclaimable("nonsense\nactive_file x\n"), 0);
    }

    #[test]
    fn the_group_nearest_to_its_cap_counts_and_one_without_a_cap_does_not() {
        let top = tempfile::tempdir().expect("there is room");
        let group = |name: &str, max: &str, current: &str, stat: &str| {
            let group = top.path().join(name);
            fs::create_dir(&group).expect("it is ours");
            for (file, text) in [("memory.max", max), ("memory.current", current), ("memory.stat", stat)] {
                fs::write(group.join(file), text).expect("it is ours");
            }
            group
        };
        let free = group("free", "max\n", "900\n", "anon 900\n");
        let wide = group("wide", "1000\n", "600\n", "active_file 500\n");
        let narrow = group("narrow", "400\n", "100\n", "anon 100\n");
        assert_eq!(Caps(vec![free.clone(), wide, narrow]).nearest(), Some((100, 400)));
        assert_eq!(Caps(vec![free]).nearest(), None);
    }
}
