//! `downshift doctor`: what downshift finds on this machine.

use std::env;
use std::io::{Write, stdout};
use std::process::ExitCode;

use anyhow::Result;
use downshift_engine::{Isa, LoadOptions, available_devices};
use downshift_scheduler::config::locate;

use crate::{args, setup};

pub fn run(args: &args::Doctor) -> Result<ExitCode> {
    let mut out = stdout().lock();
    writeln!(out, "downshift     {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "system        {} {}", env::consts::OS, env::consts::ARCH)?;
    let available: Vec<&str> = Isa::available().iter().map(|isa| isa.name()).collect();
    writeln!(out, "instructions  {} (available: {}; DOWNSHIFT_ISA chooses)", Isa::from_env().name(), available.join(", "))?;
    writeln!(out, "threads       {}", LoadOptions::default().threads)?;
    let devices: Vec<String> = available_devices().iter().map(|memory| memory.device.to_string()).collect();
    writeln!(out, "devices       {}", devices.join(", "))?;

    let candidates = setup::candidates(&args.config)?;
    let used = locate(&candidates);
    for candidate in &candidates {
        let is_used = used.as_ref().is_ok_and(|used| *used == Some(candidate));
        let state = match (is_used, candidate.path.is_file()) {
            (true, _) => "used",
            (false, true) => "hidden by the one above",
            (false, false) => "not there",
        };
        writeln!(out, "models.toml   {} ({}): {state}", candidate.path.display(), candidate.source)?;
    }
    used?;
    Ok(ExitCode::SUCCESS)
}
