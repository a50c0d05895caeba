//! The memory of the machine, and the part of it that this process may use.

use std::fs;
use std::path::Path;

/// Folder in which Linux shows its control groups.
const GROUPS: &str = "/sys/fs/cgroup";

/// Bytes of memory that the machine has; 0 where the system does not say.
pub(crate) fn memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    kilobytes
        .and_then(|text| text.trim().parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

/// Bytes of memory that this process may use: those of the machine, or of its control group if that has fewer, as in a
/// container. 0 where the system does not say.
pub(crate) fn usable_bytes() -> u64 {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of_machine = memory_bytes();
    match limit_of_groups(Path::new(GROUPS), &groups) {
        Some(limit) if limit < of_machine => limit,
        _ => of_machine,
    }
}

/// The lowest limit of a process's control groups and those around them. `groups` has a line `number:controllers:path` for each.
/// The second version of control groups has one hierarchy, under the number 0; in the first one, memory has its own.
fn limit_of_groups(root: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        if number == "0" && controllers.is_empty() {
            lowest_limit(root, path, "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            lowest_limit(&root.join("memory"), path, "memory.limit_in_bytes")
        } else {
            None
        }
    });
    limits.min()
}

/// The lowest limit of a group and those around it. A container may see its own group at the root, whatever its path is.
fn lowest_limit(root: &Path, path: &str, file: &str) -> Option<u64> {
    let folder = root.join(path.trim_start_matches('/'));
    let folders = folder.ancestors().filter(|folder| folder.starts_with(root));
    folders
        .filter_map(|folder| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok())
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_lowest_limit_of_the_groups_counts() {
        let root = folder(&[
            ("a/memory.max", "8000\n"),
            ("a/b/memory.max", "max\n"),
            ("a/b/c/memory.max", "9000\n"),
            ("other/memory.max", "10\n"),
        ]);
        let limit = |groups| limit_of_groups(root.path(), groups);
        assert_eq!(limit("0::/a/b/c\n"), Some(8000));
        assert_eq!(limit("0::/other\n"), Some(10));
        assert_eq!(limit("0::/missing\n"), None);
        assert_eq!(limit("0::/\n"), None);
    }

    #[test]
    fn groups_of_the_first_version_have_a_folder_for_memory() {
        let root = folder(&[
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/docker/x/memory.limit_in_bytes", "5000\n"),
        ]);
        let limit = |groups| limit_of_groups(root.path(), groups);
        assert_eq!(limit("12:cpu:/\n7:hugetlb,memory:/docker/x\n"), Some(5000));
        // A container that sees its own group at the root.
        assert_eq!(limit("7:memory:/docker/y\n"), Some(9_223_372_036_854_771_712));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_has_memory() {
        assert!(usable_bytes() > 1 << 20);
        assert!(usable_bytes() <= memory_bytes());
    }
}
