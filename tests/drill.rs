//! The demo models under settings of a test's making, and the processes that come of a run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::support::Folder;

/// A question that `large` answers at temperature 0 with `5, 6, 7` and so on: 37 tokens.
pub const COUNT: &str = "Count from 5 to 15.";

/// The environment variable that marks a run and all processes that come of it.
const MARK: &str = "DOWNSHIFT_TEST_RUN";

/// A folder with a models.toml of the demo models `names`, each with those after it as fallbacks, under these settings.
pub fn demo(settings: &str, names: &[&str]) -> Folder {
    let models = |name: &&str| format!("[models.{name}]\npath = \"demo-{name}.gguf\"\n");
    let list: String = names.iter().map(models).collect();
    Folder::new().with("models.toml", format!("[settings]\nmodels_dir = '{}'\n{settings}\n{list}", demo_models().display()))
}

/// Where the demo models are.
pub fn demo_models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models")
}

/// A mark that no other run carries.
pub struct Mark(String);

impl Mark {
    /// Of a new run.
    pub fn new() -> Self {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        Self(format!("{}-{}.", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed)))
    }

    /// Marks what `command` starts.
    pub fn put_on(&self, command: &mut Command) {
        command.env(MARK, &self.0);
    }

    /// The processes of the run that live now; none where the system does not tell.
    pub fn processes(&self) -> Vec<u32> {
        let mark = format!("{MARK}={}", self.0).into_bytes();
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        let carries = |pid: &u32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark)
        };
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(carries).collect()
    }

    /// Fails if a process of the run outlives it: the kernel is given a moment to end those whose parent has just ended.
    pub fn is_gone(&self, what: &str) {
        eventually(&format!("{what}: no process is left"), || self.processes().is_empty());
    }
}

/// Waits until `happens`, and fails if it takes a minute.
pub fn eventually(what: &str, mut happens: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !happens() {
        assert!(Instant::now() < deadline, "{what}: not within a minute");
        std::thread::yield_now();
    }
}
