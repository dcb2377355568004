//! What the figures were taken on.

use serde::Serialize;

/// The machine and the way it was used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Host {
    /// The processor, as it calls itself.
    pub cpu_info: String,
    /// Instruction set of the kernels.
    pub isa: String,
    /// Workers.
    pub n_threads: usize,
}

impl Host {
    /// This machine with `n_threads` workers.
    pub fn detect(n_threads: usize) -> Self {
        Self { cpu_info: cpu_name(), isa: downshift_engine::Isa::from_env().name().to_owned(), n_threads }
    }
}

/// Linux tells it in /proc/cpuinfo; elsewhere the architecture has to do.
fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")).and_then(|rest| rest.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}
