//! `downshift check`: whether models.toml is right, and whether somebody answers for each model in it.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use downshift::Config;

use crate::args;
use crate::setup::{self, Overrides};
use crate::terminal::{BAD, GOOD};

pub fn run(args: &args::Check) -> Result<ExitCode> {
    let file = setup::find(&args.config)?;
    let config = Config::from_file(&file)?;
    let engine = setup::engine(None, &args.config, Overrides::default())?.engine;
    let mut out = anstream::stdout().lock();
    writeln!(out, "{}: {} models", file.display(), config.models().len())?;

    let mut kinds = Vec::new();
    for entry in config.models() {
        let header = engine.scheduler().inspect(entry.name());
        match &header {
            Ok(info) => {
                let vectors = info.dimension.map(|dimension| format!(", vectors of {dimension}")).unwrap_or_default();
                writeln!(out, "{GOOD}ok{GOOD:#}      {}: {} {}{vectors}", entry.name(), info.architecture, info.dtype)?;
            }
            Err(failure) => writeln!(out, "{BAD}broken{BAD:#}  {}: {failure} ({})", entry.name(), failure.kind.as_str())?,
        }
        kinds.push(header.ok().map(|info| info.kind));
    }
    let lists = config.check_kinds(&kinds);
    if let Err(error) = &lists {
        writeln!(out, "{BAD}wrong{BAD:#}   {error}")?;
    }
    let mut all_live = true;
    for (index, entry) in config.models().iter().enumerate() {
        let chain = config.chain(index);
        let alive = chain.iter().find(|&&member| kinds[member].is_some() && (kinds[index].is_none() || kinds[member] == kinds[index]));
        all_live &= alive.is_some();
        let names = names(&config, &chain);
        match alive {
            Some(&first) => writeln!(out, "chain   {names}: {} answers", config.models()[first].name())?,
            None => {
                writeln!(out, "{BAD}chain{BAD:#}   {names}: nobody answers for {}; repair one, or name another fallback", entry.name())?
            }
        }
    }
    Ok(if all_live && lists.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn names(config: &Config, chain: &[usize]) -> String {
    let names: Vec<&str> = chain.iter().map(|&index| config.models()[index].name()).collect();
    names.join(" > ")
}
