//! How much memory this process can have at most, as far as the system tells: its own limits (getrlimit(2)), those of its
//! control groups (cgroups(7)), and the machine.

use std::fs;
use std::path::Path;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

/// A limit, and what sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimit {
    /// In bytes.
    pub bytes: u64,
    /// What the log calls it.
    pub name: &'static str,
}

impl MemoryLimit {
    /// The smallest of all limits; `None` if there is none that can be found.
    pub fn find() -> Option<Self> {
        let own = [
            (Resource::RLIMIT_AS, "the limit on address space"),
            (Resource::RLIMIT_DATA, "the limit on data"),
        ];
        let own = own.into_iter().filter_map(|(resource, name)| {
            let (bytes, _) = getrlimit(resource).ok()?;
            (bytes != RLIM_INFINITY).then_some(Self { bytes, name })
        });
        let others = Self::of_system(Path::new("/"));
        own.chain(others).min_by_key(|limit| limit.bytes)
    }

    /// The limits that files below `root` tell.
    fn of_system(root: &Path) -> impl Iterator<Item = Self> {
        let groups = read(root, "proc/self/cgroup").unwrap_or_default();
        let limits: Vec<u64> = groups
            .lines()
            .flat_map(|line| group_limits(root, line))
            .collect();
        let of_group = limits.into_iter().map(|bytes| Self {
            bytes,
            name: "the memory limit of the control group",
        });
        let machine = read(root, "proc/meminfo").and_then(|text| total_memory(&text));
        of_group.chain(machine.map(|bytes| Self {
            bytes,
            name: "the memory of the machine",
        }))
    }
}

fn read(root: &Path, path: &str) -> Option<String> {
    fs::read_to_string(root.join(path)).ok()
}

/// The limits of a control group and of those that it is in. `line` is one of `/proc/self/cgroup`: a number, the
/// controllers (none in version 2), and the path.
fn group_limits(root: &Path, line: &str) -> Vec<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
        return Vec::new();
    };
    let (top, file) = if controllers.is_empty() {
        ("sys/fs/cgroup", "memory.max")
    } else if controllers.split(',').any(|name| name == "memory") {
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
    } else {
        return Vec::new();
    };
    // In a container the path may be the host's. Then only the top of what is mounted is there, which is its own.
    let group = Path::new(path.trim_start_matches('/'));
    let folders = group.ancestors().map(|group| root.join(top).join(group));
    let limits = folders.filter_map(|folder| fs::read_to_string(folder.join(file)).ok());
    // "max" is not a number.
    limits.filter_map(|text| text.trim().parse().ok()).collect()
}

/// The machine's memory, as `/proc/meminfo` tells it.
fn total_memory(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::{env, process};

    use super::*;

    /// The smallest limit that these files tell.
    fn smallest(name: &str, files: &[(&str, &str)]) -> Option<(u64, &'static str)> {
        let root = env::temp_dir().join(format!("mcp-tcp-proxy-memory-{}-{name}", process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let limit = MemoryLimit::of_system(&root).min_by_key(|limit| limit.bytes);
        let _ = fs::remove_dir_all(&root);
        limit.map(|limit| (limit.bytes, limit.name))
    }

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:        4000 kB\nMemFree: 1 kB\n");

    #[test]
    fn the_smallest_limit_of_all_groups_around_counts() {
        let group = "the memory limit of the control group";
        let files = [
            MACHINE,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.max", "1000000\n"),
            ("sys/fs/cgroup/memory.max", "2000000\n"),
        ];
        assert_eq!(smallest("v2", &files), Some((1_000_000, group)));
        let files = [
            MACHINE,
            ("proc/self/cgroup", "3:cpu:/x\n2:hugetlb,memory:/of/host\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "500000\n"),
        ];
        assert_eq!(smallest("v1", &files), Some((500_000, group)));
    }

    #[test]
    fn without_a_group_the_machine_counts_and_without_that_nothing() {
        let machine = "the memory of the machine";
        let files = [MACHINE, ("proc/self/cgroup", "0::/a\n3:cpu:/\nx\n")];
        assert_eq!(smallest("none", &files), Some((4_096_000, machine)));
        assert_eq!(
            smallest("nothing", &[("proc/meminfo", "MemTotal: x")]),
            None
        );
        assert!(MemoryLimit::find().is_some());
    }
}
