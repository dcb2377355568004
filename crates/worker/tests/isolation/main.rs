//! Worker processes: the contract holds over the pipe as it does in memory, and whatever happens to a child, every caller gets a
//! whole answer or one honest failure, and nothing is left behind.

mod contract;
#[cfg(target_os = "linux")]
mod deaths;
mod fake;
mod faults;
mod hostile;

use std::sync::Arc;

use downshift_worker::{Device, Launcher, Placement, Subprocess, Worker};

const PLACEMENT: Placement = Placement { device: Device::Cpu, context: 512, threads: 2 };

/// Workers that run the fake.
fn isolated() -> Subprocess {
    Subprocess::new(env!("CARGO_BIN_EXE_downshift-fake-worker"))
}

fn start(launcher: &dyn Launcher, name: &str) -> Arc<dyn Worker> {
    launcher.launch(&fake::spec(name), &PLACEMENT, &|_, _| {}).expect("the fake loads")
}

/// Waits until `happens`, and fails if it takes a minute.
fn eventually(what: &str, happens: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !happens() {
        assert!(std::time::Instant::now() < deadline, "{what}: not within a minute");
        std::thread::yield_now();
    }
}
