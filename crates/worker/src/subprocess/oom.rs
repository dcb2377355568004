//! How often the kernel has killed a process for memory, near this one.
//!
//! A worker is in the control group of its parent, and the group's counter counts its members whatever limit was hit, so the
//! group is looked at first and the whole system only where there is none. An ancestor would add the deaths of strangers.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter of the kernel, and how much of it is explained.
#[derive(Debug)]
pub(crate) struct OomKills {
    counter: Option<Counter>,
    /// Deaths that were put down to this counter.
    explained: AtomicU64,
}

#[derive(Debug)]
struct Counter {
    file: PathBuf,
    key: &'static str,
}

/// The counter at some moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    count: u64,
    explained: u64,
}

impl OomKills {
    pub fn of_this_process() -> Self {
        Self::under(Path::new("/"))
    }

    /// As seen by a process whose file system starts at `root`.
    fn under(root: &Path) -> Self {
        let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let mut found =
            groups.lines().flat_map(|line| candidates(root, line)).chain([Counter { file: root.join("proc/vmstat"), key: "oom_kill" }]);
        Self { counter: found.find(|counter| counter.read().is_some()), explained: AtomicU64::new(0) }
    }

    /// The state before a child starts.
    pub fn mark(&self) -> Mark {
        Mark { count: self.read(), explained: self.explained.load(Ordering::Relaxed) }
    }

    /// Whether a death since `mark` is one the kernel counted, and no other death is put down to that count.
    pub fn explain_death_since(&self, mark: Mark) -> bool {
        let counted = self.read().saturating_sub(mark.count);
        let explain = |explained: u64| (counted > explained.saturating_sub(mark.explained)).then(|| explained + 1);
        self.explained.fetch_update(Ordering::Relaxed, Ordering::Relaxed, explain).is_ok()
    }

    fn read(&self) -> u64 {
        self.counter.as_ref().and_then(Counter::read).unwrap_or(0)
    }
}

impl Counter {
    fn read(&self) -> Option<u64> {
        let text = fs::read_to_string(&self.file).ok()?;
        text.lines().find_map(|line| line.strip_prefix(self.key)?.strip_prefix(' ')?.trim().parse().ok())
    }
}

/// Where the counter of one line of `/proc/self/cgroup` may be. A container may see its own group as the root of the mount.
fn candidates(root: &Path, line: &str) -> Vec<Counter> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { return Vec::new() };
    let group = group.trim_start_matches('/');
    let at = |mount: &str, file: &str| {
        let mount = root.join("sys/fs/cgroup").join(mount);
        [mount.join(group).join(file), mount.join(file)].map(|file| Counter { file, key: "oom_kill" })
    };
    match controllers {
        "" => at("", "memory.events").into_iter().chain(at("unified", "memory.events")).collect(),
        controllers if controllers.split(',').any(|name| name == "memory") => at("memory", "memory.oom_control").into(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_counter_is_found_in_every_layout() {
        let check = |files: &[(&str, &str)], expected: u64| {
            let root = root(files);
            assert_eq!(OomKills::under(root.path()).read(), expected, "{files:?}");
        };
        let v2 = ("proc/self/cgroup", "0::/user.slice/app.scope\n");
        let v1 = ("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/docker/abc\n0::/\n");
        let vmstat = ("proc/vmstat", "pgfault 7\noom_kill 5\noom_kill_disable 8\n");
        let events = "low 0\noom 9\noom_kill 3\noom_group_kill 1\n";
        check(&[v2, vmstat, ("sys/fs/cgroup/user.slice/app.scope/memory.events", events)], 3);
        check(&[v2, vmstat, ("sys/fs/cgroup/memory.events", events)], 3);
        check(&[v1, vmstat, ("sys/fs/cgroup/memory/docker/abc/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")], 2);
        check(&[v1, vmstat, ("sys/fs/cgroup/memory/memory.oom_control", "oom_kill_disable 0\noom_kill 4\n")], 4);
        check(&[v1, vmstat], 5);
        check(&[vmstat], 5);
        check(&[], 0);
    }

    #[test]
    fn one_count_explains_one_death() {
        let events = "sys/fs/cgroup/memory.events";
        let root = root(&[("proc/self/cgroup", "0::/\n"), (events, "oom_kill 1\n")]);
        let kills = OomKills::under(root.path());
        let (first, second) = (kills.mark(), kills.mark());
        assert!(!kills.explain_death_since(first), "the counter stands where it stood");
        fs::write(root.path().join(events), "oom_kill 2\n").unwrap();
        assert!(kills.explain_death_since(first));
        assert!(!kills.explain_death_since(second), "that count is used up");
        let third = kills.mark();
        fs::write(root.path().join(events), "oom_kill 3\n").unwrap();
        assert!(kills.explain_death_since(third));
    }
}
