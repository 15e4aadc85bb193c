//! How much memory this process can have at most, as far as the system tells: its own limits (getrlimit(2)), those of its
//! control groups (cgroups(7)), and the machine.

use std::fs;
use std::path::{Path, PathBuf};

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
    let groups = groups(root, line);
    groups.filter_map(|group| group.limit()).collect()
}

/// A control group, and how its files are called.
struct Group {
    folder: PathBuf,
    limit: &'static str,
    usage: &'static str,
    unused: &'static str,
}

/// The control groups that are meant by a line of `/proc/self/cgroup`.
fn groups(root: &Path, line: &str) -> impl Iterator<Item = Group> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next(), fields.next());
    let is_memory = |all: &str| all.split(',').any(|name| name == "memory");
    let names = match controllers {
        Some("") => Some((
            "sys/fs/cgroup",
            "memory.max",
            "memory.current",
            "inactive_file",
        )),
        Some(all) if is_memory(all) => Some((
            "sys/fs/cgroup/memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        )),
        _ => None,
    };
    names.zip(path).into_iter().flat_map(move |(names, path)| {
        let (top, limit, usage, unused) = names;
        // In a container the path may be the host's. Then only the top of what is mounted is there, which is its own.
        let group = Path::new(path.trim_start_matches('/'));
        let folders = group.ancestors().map(|group| root.join(top).join(group));
        let groups = folders.map(|folder| Group {
            folder,
            limit,
            usage,
            unused,
        });
        groups.collect::<Vec<_>>()
    })
}

impl Group {
    /// "max" is not a number.
    fn limit(&self) -> Option<u64> {
        number(&read(&self.folder, self.limit)?)
    }

    /// How much is left of it. What files have of it is given back when it is needed.
    fn free(&self) -> Option<u64> {
        let used = number(&read(&self.folder, self.usage)?)?;
        let statistics = read(&self.folder, "memory.stat").unwrap_or_default();
        let mut lines = statistics.lines();
        let unused = lines.find_map(|line| number(line.strip_prefix(self.unused)?));
        let used = used.saturating_sub(unused.unwrap_or(0));
        Some(self.limit()?.saturating_sub(used))
    }
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// How much memory is left in the control groups of this process; `None` if they have no limit.
pub fn free_in_groups() -> Option<u64> {
    free_below(Path::new("/"))
}

fn free_below(root: &Path) -> Option<u64> {
    let lines = read(root, "proc/self/cgroup")?;
    let groups = lines.lines().flat_map(|line| groups(root, line));
    groups.filter_map(|group| group.free()).min()
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
        let limit = below(name, files, |root| {
            MemoryLimit::of_system(root).min_by_key(|limit| limit.bytes)
        });
        limit.map(|limit| (limit.bytes, limit.name))
    }

    fn below<T>(name: &str, files: &[(&str, &str)], look: impl FnOnce(&Path) -> T) -> T {
        let root = env::temp_dir().join(format!("mcp-tcp-proxy-memory-{}-{name}", process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = look(&root);
        let _ = fs::remove_dir_all(&root);
        found
    }

    #[test]
    fn what_files_have_of_a_group_is_free() {
        let files = [
            ("proc/self/cgroup", "0::/a\n"),
            ("sys/fs/cgroup/a/memory.max", "1000\n"),
            ("sys/fs/cgroup/a/memory.current", "900\n"),
            (
                "sys/fs/cgroup/a/memory.stat",
                "anon 300\ninactive_file 500\n",
            ),
            ("sys/fs/cgroup/memory.max", "5000\n"),
            ("sys/fs/cgroup/memory.current", "4600\n"),
        ];
        assert_eq!(below("free", &files, free_below), Some(400));
        assert_eq!(below("free-v2", &files[..5], free_below), Some(600));
        let unlimited = [files[0], ("sys/fs/cgroup/a/memory.max", "max\n"), files[2]];
        assert_eq!(below("free-max", &unlimited, free_below), None);
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
