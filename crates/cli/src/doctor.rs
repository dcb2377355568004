//! `downshift doctor`: what downshift finds on this machine.

use std::env;
use std::io::{Write, stdout};
use std::process::ExitCode;

use anyhow::Result;
use downshift_engine::{Isa, LoadOptions, available_devices};
use downshift_scheduler::config::locate;
use downshift_scheduler::room::{Probe, Room};
use indicatif::BinaryBytes;

use crate::{args, setup};

pub fn run(args: &args::Doctor) -> Result<ExitCode> {
    let mut out = stdout().lock();
    writeln!(out, "downshift     {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "system        {} {}", env::consts::OS, env::consts::ARCH)?;
    let available: Vec<&str> = Isa::available().iter().map(|isa| isa.name()).collect();
    writeln!(out, "instructions  {} (available: {}; DOWNSHIFT_ISA chooses)", Isa::from_env().name(), available.join(", "))?;
    writeln!(out, "threads       {}", LoadOptions::default().threads)?;
    write_memory(&mut out, &Probe::system().read())?;
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

fn write_memory(out: &mut impl Write, room: &Room) -> Result<()> {
    match room.tightest() {
        Some(limit) => {
            let (free, all) = (BinaryBytes(limit.free_bytes()), BinaryBytes(limit.limit_bytes));
            writeln!(out, "memory        {free} of {all} free, by {}", limit.source)?;
        }
        None => writeln!(out, "memory        unknown on this system; memory_limit in models.toml sets one")?,
    }
    if let Some(limit) = &room.address_space {
        writeln!(out, "memory        {} of address space left, by {}", BinaryBytes(limit.free_bytes()), limit.source)?;
    }
    Ok(())
}
