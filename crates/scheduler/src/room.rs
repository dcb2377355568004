//! How much memory there is, and what says so: cgroups (v1, v2, both at once, with all ancestors), MemAvailable, RLIMIT_AS.
//!
//! Reads Linux's /proc and /sys under a root that tests replace. Elsewhere nothing is found, and only `memory_limit` limits.
//! Does not know models: what they have reserved is `plan`'s business.

use std::fs;
use std::path::{Path, PathBuf};

/// Reads the memory of this machine.
#[derive(Clone, Debug)]
pub struct Probe {
    root: PathBuf,
}

/// One limit on the memory of this process and its children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Who sets it: a file, or a name from models.toml.
    pub source: String,
    /// Bytes there may be in all.
    pub limit_bytes: u64,
    /// Bytes in use that cannot be reclaimed; page cache is not among them.
    pub fixed_bytes: u64,
}

impl Limit {
    /// Bytes that could still be taken.
    pub fn free_bytes(&self) -> u64 {
        self.limit_bytes.saturating_sub(self.fixed_bytes)
    }
}

/// One reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// All limits found; the least free one counts.
    pub limits: Vec<Limit>,
    /// Bytes of the machine.
    pub total_bytes: Option<u64>,
    /// Anonymous bytes of this process that are resident.
    pub own_anon_bytes: u64,
    /// Bytes of address space that are left, where that is limited: there, mapped weights count as taken.
    pub address_space: Option<Limit>,
}

impl Room {
    /// The limit with the least free.
    pub fn tightest(&self) -> Option<&Limit> {
        self.limits.iter().min_by_key(|limit| limit.free_bytes())
    }
}

impl Probe {
    /// Of this machine.
    pub fn system() -> Self {
        Self::at("/")
    }

    /// Of the machine whose `/proc` and `/sys` lie under `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Reads all limits now.
    pub fn read(&self) -> Room {
        let meminfo = self.text("proc/meminfo");
        let status = self.text("proc/self/status");
        let mut limits = self.cgroup_limits();
        let total_bytes = kib(&meminfo, "MemTotal:");
        if let (Some(total), Some(available)) = (total_bytes, kib(&meminfo, "MemAvailable:")) {
            let fixed_bytes = total.saturating_sub(available);
            limits.push(Limit { source: "MemAvailable".to_owned(), limit_bytes: total, fixed_bytes });
        }
        let address_space = address_space_limit(&self.text("proc/self/limits")).map(|limit_bytes| Limit {
            source: "RLIMIT_AS".to_owned(),
            limit_bytes,
            fixed_bytes: kib(&status, "VmSize:").unwrap_or(0).saturating_sub(reserved_bytes(&self.text("proc/self/maps"))),
        });
        Room { limits, total_bytes, own_anon_bytes: kib(&status, "RssAnon:").unwrap_or(0), address_space }
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap_or_default()
    }

    fn cgroup_limits(&self) -> Vec<Limit> {
        let mounts = self.text("proc/self/mountinfo");
        let mut limits = Vec::new();
        for line in self.text("proc/self/cgroup").lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(id), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
            let version = match (id, controllers) {
                ("0", "") => &V2,
                (_, list) if list.split(',').any(|name| name == "memory") => &V1,
                _ => continue,
            };
            if let Some((mount, below)) = mount_of(&mounts, version, path) {
                let mount = self.root.join(mount.trim_start_matches('/'));
                limits.extend(version.limits_along(&self.root, &mount, below));
            }
        }
        limits
    }
}

/// The files of one cgroup version.
struct Version {
    file_system: &'static str,
    limits: &'static [&'static str],
    usage: &'static str,
    /// Lines of memory.stat that can be reclaimed.
    reclaimable: &'static [&'static str],
}

const V2: Version = Version {
    file_system: "cgroup2",
    limits: &["memory.max", "memory.high"],
    usage: "memory.current",
    reclaimable: &["active_file", "inactive_file", "slab_reclaimable"],
};

const V1: Version = Version {
    file_system: "cgroup",
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    reclaimable: &["total_active_file", "total_inactive_file"],
};

impl Version {
    /// The limits of the group `below` the mount point and of all its ancestors up to it.
    fn limits_along(&self, root: &Path, mount: &Path, below: &str) -> Vec<Limit> {
        let group = mount.join(below.trim_start_matches('/'));
        let groups = group.ancestors().take_while(|folder| folder.starts_with(mount));
        groups.flat_map(|folder| self.limits_of(root, folder)).collect()
    }

    fn limits_of(&self, root: &Path, folder: &Path) -> Vec<Limit> {
        let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let reclaimable: u64 = self.reclaimable.iter().filter_map(|key| field(&stat, key)).sum();
        let fixed_bytes = number(self.usage).unwrap_or(0).saturating_sub(reclaimable);
        // cgroup v1 says "no limit" with a number near 2^63.
        let set = self.limits.iter().filter_map(|name| Some((name, number(name).filter(|limit| *limit < 1 << 60)?)));
        let shown = Path::new("/").join(folder.strip_prefix(root).unwrap_or(folder));
        set.map(|(name, limit_bytes)| Limit { source: shown.join(name).display().to_string(), limit_bytes, fixed_bytes }).collect()
    }
}

/// Where the hierarchy that holds `path` is mounted, and what of the path lies below the mount's own root.
fn mount_of<'m>(mounts: &'m str, version: &Version, path: &'m str) -> Option<(&'m str, &'m str)> {
    let mut found: Option<(&str, &str)> = None;
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut right = right.split(' ');
        let is_kind = right.next() == Some(version.file_system);
        let has_memory =
            version.file_system == "cgroup2" || right.nth(1).is_some_and(|options| options.split(',').any(|option| option == "memory"));
        let mut left = left.split(' ').skip(3);
        let (Some(root), Some(point)) = (left.next(), left.next()) else { continue };
        if !is_kind || !has_memory {
            continue;
        }
        // A container may see the mount's root only; a path outside of it (`/..`) means that the mount point itself is our group.
        let below = if root == "/" { Some(path) } else { path.strip_prefix(root) };
        let below = below.filter(|below| !below.split('/').any(|part| part == "..")).unwrap_or("");
        if found.is_none_or(|(_, known)| below.len() > known.len()) {
            found = Some((point, below));
        }
    }
    found
}

/// The bytes of a line such as `MemTotal:  123 kB`.
fn kib(text: &str, key: &str) -> Option<u64> {
    field(text, key)?.checked_mul(1024)
}

/// The number after a key at the start of a line.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(key)).then(|| words.next()?.parse().ok()).flatten()
    })
}

/// The soft limit of `Max address space  1000  2000  bytes`.
fn address_space_limit(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("Max address space")?.split_whitespace().next()?.parse().ok())
}

/// Address space that is set aside and not used: glibc does so by 64 MiB for every thread that allocates, and does without where
/// it may not.
fn reserved_bytes(maps: &str) -> u64 {
    let size = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let bytes = u64::from_str_radix(to, 16).ok()?.checked_sub(u64::from_str_radix(from, 16).ok()?)?;
        rest.starts_with("---p").then_some(bytes)
    };
    maps.lines().filter_map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn found(files: &[(&str, &str)]) -> Vec<(String, u64, u64)> {
        let root = machine(files);
        let limits = Probe::at(root.path()).read().limits;
        limits.into_iter().map(|limit| (limit.source, limit.limit_bytes, limit.fixed_bytes)).collect()
    }

    const V2_MOUNT: (&str, &str) = ("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    const V1_MOUNT: (&str, &str) = (
        "proc/self/mountinfo",
        "31 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n32 23 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
    );

    #[test]
    fn v2_reads_the_group_and_its_ancestors_without_page_cache() {
        let limits = found(&[
            V2_MOUNT,
            ("proc/self/cgroup", "0::/user/app\n"),
            ("sys/fs/cgroup/user/app/memory.max", "max\n"),
            ("sys/fs/cgroup/user/app/memory.high", "900\n"),
            ("sys/fs/cgroup/user/app/memory.current", "500\n"),
            ("sys/fs/cgroup/user/app/memory.stat", "anon 100\nactive_file 200\ninactive_file 50\nslab_reclaimable 10\n"),
            ("sys/fs/cgroup/user/memory.max", "1000\n"),
            ("sys/fs/cgroup/user/memory.current", "800\n"),
        ]);
        assert_eq!(
            limits,
            [("/sys/fs/cgroup/user/app/memory.high".to_owned(), 900, 240), ("/sys/fs/cgroup/user/memory.max".to_owned(), 1000, 800)]
        );
    }

    #[test]
    fn v1_reads_the_memory_controller_and_takes_its_huge_number_for_no_limit() {
        let limits = found(&[
            V1_MOUNT,
            ("proc/self/cgroup", "5:cpu:/other\n4:memory:/box\n"),
            ("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "2000\n"),
            ("sys/fs/cgroup/memory/box/memory.usage_in_bytes", "700\n"),
            ("sys/fs/cgroup/memory/box/memory.stat", "active_file 1\ntotal_active_file 150\ntotal_inactive_file 50\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "5000\n"),
        ]);
        assert_eq!(limits, [("/sys/fs/cgroup/memory/box/memory.limit_in_bytes".to_owned(), 2000, 500)]);
    }

    #[test]
    fn hybrid_machines_have_the_memory_controller_in_v1() {
        let mounts = format!("{}33 23 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n", V1_MOUNT.1);
        let limits = found(&[
            ("proc/self/mountinfo", &mounts),
            ("proc/self/cgroup", "4:memory:/box\n0::/box\n"),
            ("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "2000\n"),
            ("sys/fs/cgroup/unified/box/cgroup.procs", "1\n"),
        ]);
        assert_eq!(limits, [("/sys/fs/cgroup/memory/box/memory.limit_in_bytes".to_owned(), 2000, 0)]);
    }

    #[test]
    fn a_container_that_sees_its_own_group_as_the_root_is_found() {
        for path in ["/docker/abc", "/", "/../other"] {
            let limits = found(&[
                ("proc/self/mountinfo", "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n"),
                ("proc/self/cgroup", &format!("0::{path}\n")),
                ("sys/fs/cgroup/memory.max", "4096\n"),
                ("sys/fs/cgroup/memory.current", "96\n"),
            ]);
            assert_eq!(limits, [("/sys/fs/cgroup/memory.max".to_owned(), 4096, 96)], "{path}");
        }
    }

    #[test]
    fn the_machine_and_the_address_space_limit_too() {
        let root = machine(&[
            ("proc/meminfo", "MemTotal:  1000 kB\nMemFree: 10 kB\nMemAvailable:  400 kB\n"),
            ("proc/self/status", "VmSize:  30 kB\nRssAnon:  7 kB\n"),
            ("proc/self/maps", "1000-2000 r-xp 0 0:0 1 /bin/it\n2000-4000 ---p 0 0:0 0\n4000-6000 rw-p 0 0:0 0\n"),
            ("proc/self/limits", "Limit   Soft Limit  Hard Limit  Units\nMax address space         102400      unlimited  bytes\n"),
        ]);
        let room = Probe::at(root.path()).read();
        assert_eq!(room.tightest().map(Limit::free_bytes), Some(400 * 1024));
        assert_eq!((room.total_bytes, room.own_anon_bytes), (Some(1000 * 1024), 7 * 1024));
        assert_eq!(room.address_space.map(|limit| limit.free_bytes()), Some(102_400 - (30 - 8) * 1024));
    }

    #[test]
    fn a_machine_that_tells_nothing_has_no_limits() {
        assert_eq!(Probe::at("no such folder").read(), Room::default());
    }
}
