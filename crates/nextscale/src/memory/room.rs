//! How much memory there is for a run: on a GPU, or in the machine beside everything else that runs there.

use super::Need;
use crate::Result;
use nextscale_tensor::Device;
use nextscale_tensor::cuda::gib;

/// What a run can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that this process can have, what it has already among them.
    pub bytes: usize,
    /// What they are a part of, in words.
    whole: String,
}

impl Room {
    /// Of a device; `None` where the system does not tell.
    ///
    /// # Errors
    /// When a GPU's driver refuses.
    pub fn of(device: Device) -> Result<Option<Self>> {
        let Some(gpu) = device.gpu()? else {
            return Ok(machine::room());
        };
        let info = gpu.info();
        Ok(Some(Self {
            bytes: gpu.free_memory()? + gpu.usage().used,
            whole: format!(
                "the {} of GPU {} ({})",
                gib(info.memory),
                info.ordinal,
                info.name
            ),
        }))
    }

    #[cfg(test)]
    pub(crate) fn test(bytes: usize) -> Self {
        let whole = format!("the {} of this machine", gib(bytes));
        Self { bytes, whole }
    }

    /// What `batch` images at a time need and what there is, in words.
    pub fn shortage(&self, batch: usize, need: Need) -> String {
        let s = if batch == 1 { "s" } else { "" };
        let images = if batch == 1 { "image" } else { "images" };
        format!(
            "{batch} {images} at a time need{s} {} of memory, and of {} {} can be had",
            gib(need.bytes()),
            self.whole,
            gib(self.bytes)
        )
    }
}

/// What can be had, and of what.
impl std::fmt::Display for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} can be had of {}", gib(self.bytes), self.whole)
    }
}

#[cfg(not(target_os = "linux"))]
mod machine {
    /// Not known here.
    pub(super) fn room() -> Option<super::Room> {
        None
    }
}

/// What Linux tells of the machine's memory. Crates that tell it too look at the outermost control group only and count cached
/// files as taken.
#[cfg(any(target_os = "linux", test))]
mod machine {
    use super::{Room, gib};
    use std::fs::read_to_string;
    use std::path::{Path, PathBuf};

    /// Memory that this process can have: what the machine has free, and what the limits on it leave.
    pub(super) fn room() -> Option<Room> {
        room_in(Path::new("/"))
    }

    /// The same with files as they lie under `root`.
    pub(super) fn room_in(root: &Path) -> Option<Room> {
        let meminfo = read_to_string(root.join("proc/meminfo")).ok()?;
        let own = resident(root);
        let total = kib(&meminfo, "MemTotal:")?;
        let available = kib(&meminfo, "MemAvailable:")?;
        let mut room = Room {
            // What it has already is its own to use.
            bytes: available.saturating_add(own).min(total),
            whole: format!("the {} of this machine", gib(total)),
        };
        let groups = groups(root).into_iter().map(|g| {
            let words = format!(
                "the {} that this machine gives the program's control group",
                gib(g.limit)
            );
            (g.left().saturating_add(own).min(g.limit), words)
        });
        let limits = limits(root, own).into_iter().map(|(limit, left)| {
            let words = format!("the {} that ulimit gives the program", gib(limit));
            (left, words)
        });
        for (bytes, whole) in groups.chain(limits) {
            if bytes < room.bytes {
                room = Room { bytes, whole };
            }
        }
        Some(room)
    }

    /// The number of KiB behind a name, in bytes.
    fn kib(text: &str, name: &str) -> Option<usize> {
        let rest = text.lines().find_map(|l| l.strip_prefix(name))?;
        let number: usize = rest.split_whitespace().next()?.parse().ok()?;
        number.checked_mul(1024)
    }

    /// Memory that this process has in use.
    fn resident(root: &Path) -> usize {
        let status = read_to_string(root.join("proc/self/status")).unwrap_or_default();
        kib(&status, "RssAnon:").unwrap_or(0)
    }

    /// A control group with a limit.
    struct Group {
        limit: usize,
        used: usize,
        /// Of what is used: cached files, which make room when memory is wanted.
        cached: usize,
    }

    impl Group {
        fn left(&self) -> usize {
            let used = self.used.saturating_sub(self.cached);
            self.limit.saturating_sub(used)
        }

        fn read(folder: &Path, [limit, used, cached]: [&str; 3]) -> Option<Self> {
            let number = |name: &str| -> Option<usize> {
                let text = read_to_string(folder.join(name)).ok()?;
                text.trim().parse().ok()
            };
            let stat = read_to_string(folder.join("memory.stat")).unwrap_or_default();
            let files = stat.lines().find_map(|l| {
                let (name, n) = l.split_once(' ')?;
                (name == cached).then(|| n.trim().parse().ok())?
            });
            Some(Self {
                // `max` where there is no limit.
                limit: number(limit)?,
                used: number(used)?,
                cached: files.unwrap_or(0),
            })
        }
    }

    /// The control groups that this process is in, of either version, from its own to the outermost.
    fn groups(root: &Path) -> Vec<Group> {
        const V2: [&str; 3] = ["memory.max", "memory.current", "inactive_file"];
        const V1: [&str; 3] = [
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ];
        let text = read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let mut found = Vec::new();
        for line in text.lines() {
            let mut words = line.splitn(3, ':').skip(1);
            let (Some(kinds), Some(path)) = (words.next(), words.next()) else {
                continue;
            };
            let (mount, files) = match kinds {
                "" => ("sys/fs/cgroup", V2),
                kinds if kinds.split(',').any(|k| k == "memory") => ("sys/fs/cgroup/memory", V1),
                _ => continue,
            };
            // In a container the outermost group that is seen is its own, whatever the path says.
            let mut at: PathBuf = path.trim_start_matches('/').into();
            loop {
                found.extend(Group::read(&root.join(mount).join(&at), files));
                if !at.pop() {
                    break;
                }
            }
        }
        found
    }

    /// The limits on address space and data, and what they leave; `own` bytes are in use.
    fn limits(root: &Path, own: usize) -> Vec<(usize, usize)> {
        let limits = read_to_string(root.join("proc/self/limits")).unwrap_or_default();
        let status = read_to_string(root.join("proc/self/status")).unwrap_or_default();
        let taken = |name: &str| kib(&status, name).unwrap_or(0);
        [
            ("Max address space", "VmSize:"),
            ("Max data size", "VmData:"),
        ]
        .iter()
        .filter_map(|(limit, name)| {
            let rest = limits.lines().find_map(|l| l.strip_prefix(limit))?;
            let limit: usize = rest.split_whitespace().next()?.parse().ok()?;
            let left = limit.saturating_sub(taken(name));
            Some((limit, left.saturating_add(own).min(limit)))
        })
        .collect()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// A root folder with these files.
        fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in files {
                let path = dir.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            dir
        }

        const MEMINFO: (&str, &str) = (
            "proc/meminfo",
            "MemTotal:       16777216 kB\nMemFree:         1000000 kB\nMemAvailable:    8388608 kB\n",
        );
        const STATUS: (&str, &str) = (
            "proc/self/status",
            "VmSize:\t 2097152 kB\nRssAnon:\t 1048576 kB\nVmData:\t 1572864 kB\n",
        );
        const GIB: usize = 1 << 30;

        #[test]
        fn a_machine_without_limits_gives_what_is_available_and_what_one_has() {
            let r = room_in(
                root(&[
                    MEMINFO,
                    STATUS,
                    (
                        "proc/self/limits",
                        "Max address space         unlimited            unlimited            bytes\n",
                    ),
                    ("proc/self/cgroup", "0::/user.slice\n"),
                    ("sys/fs/cgroup/user.slice/memory.max", "max\n"),
                    ("sys/fs/cgroup/user.slice/memory.current", "123\n"),
                ])
                .path(),
            );
            assert_eq!(
                r.unwrap(),
                Room {
                    bytes: 9 * GIB,
                    whole: "the 16.0 GiB of this machine".into()
                }
            );
            assert!(room_in(root(&[STATUS]).path()).is_none());
        }

        #[test]
        fn control_groups_of_both_versions_count_from_within_to_without() {
            let limited = |limit: usize| Room {
                bytes: 3 * GIB + GIB,
                whole: format!(
                    "the {} that this machine gives the program's control group",
                    gib(limit)
                ),
            };
            // 6 GiB for the outer group, of which 5 are used, 2 of them cached files.
            let (limit, used) = ((6 * GIB).to_string(), (5 * GIB).to_string());
            let r = room_in(
                root(&[
                    MEMINFO,
                    STATUS,
                    ("proc/self/cgroup", "1:name=systemd:/x\n0::/a.slice/run\n"),
                    ("sys/fs/cgroup/a.slice/run/memory.max", "max\n"),
                    ("sys/fs/cgroup/a.slice/run/memory.current", "1\n"),
                    ("sys/fs/cgroup/a.slice/memory.max", &limit),
                    ("sys/fs/cgroup/a.slice/memory.current", &used),
                    (
                        "sys/fs/cgroup/a.slice/memory.stat",
                        "anon 1\ninactive_file 2147483648\n",
                    ),
                ])
                .path(),
            );
            assert_eq!(r.unwrap(), limited(6 * GIB));
            // As a container sees the first version: its own group at the root of the mount.
            let r = room_in(
                root(&[
                    MEMINFO,
                    STATUS,
                    (
                        "proc/self/cgroup",
                        "5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n",
                    ),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", &limit),
                    ("sys/fs/cgroup/memory/memory.usage_in_bytes", &used),
                    (
                        "sys/fs/cgroup/memory/memory.stat",
                        "inactive_file 1\ntotal_inactive_file 2147483648\n",
                    ),
                ])
                .path(),
            );
            assert_eq!(r.unwrap(), limited(6 * GIB));
        }

        #[test]
        fn a_limit_of_the_shell_counts() {
            let text = format!(
                "Limit  Soft Limit  Hard Limit  Units\nMax data size             unlimited  unlimited  bytes\nMax address space         {}  unlimited  bytes\n",
                5 * GIB
            );
            let r = room_in(root(&[MEMINFO, STATUS, ("proc/self/limits", &text)]).path()).unwrap();
            assert_eq!(r.bytes, 4 * GIB);
            assert_eq!(
                r.to_string(),
                "4.0 GiB can be had of the 5.0 GiB that ulimit gives the program"
            );
        }

        #[cfg(target_os = "linux")]
        #[test]
        fn this_machine_has_some() {
            let r = room().unwrap();
            assert!(r.bytes > 64 << 20, "{r:?}");
        }
    }
}
