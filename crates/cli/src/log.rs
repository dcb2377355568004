//! The program's events on stderr, as text or as JSON; those of worker processes are among them.
//!
//! Does not own what is told to a person beside an answer: that is `terminal`.

use std::env;
use std::io::{IsTerminal, stderr};

use anyhow::{Result, bail};
use clap::ValueEnum;
use downshift_scheduler::ATTEMPTS;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry};

use crate::args::{Args, Command, LogFormat, LogLevel};

/// Names the level where `--log-level` does not; workers get theirs by it.
pub const VARIABLE: &str = "DOWNSHIFT_LOG";

/// Starts to write events.
///
/// # Errors
/// The variable names no level.
pub fn start(args: &Args) -> Result<()> {
    let chosen = args.log.log_level.map_or_else(from_variable, |level| Ok(Some(level)))?;
    let filter = chosen.map_or_else(|| usual(&args.command), |level| Targets::new().with_default(LevelFilter::from(level)));
    // What a worker writes is read by its parent, which writes it in the format that was asked for.
    let is_json = args.log.log_format == LogFormat::Json || matches!(args.command, Command::Worker);
    let lines = fmt::layer().with_writer(stderr).with_ansi(!is_json && stderr().is_terminal());
    let layer = if is_json { lines.json().boxed() } else { lines.boxed() };
    registry().with(layer.with_filter(filter)).init();
    Ok(())
}

/// What is written where nobody has chosen a level.
fn usual(command: &Command) -> Targets {
    match command {
        Command::Serve(_) => Targets::new().with_default(LevelFilter::INFO),
        // These tell of their attempts themselves.
        _ => Targets::new().with_default(LevelFilter::WARN).with_target(ATTEMPTS, LevelFilter::OFF),
    }
}

fn from_variable() -> Result<Option<LogLevel>> {
    let Some(name) = env::var_os(VARIABLE).filter(|name| !name.is_empty()) else { return Ok(None) };
    if let Some(level) = name.to_str().and_then(|name| LogLevel::from_str(name, true).ok()) {
        return Ok(Some(level));
    }
    bail!("{VARIABLE} is `{}`, and the levels are off, error, warn, info, debug and trace", name.display())
}

/// The level that is in force, as workers are told it.
pub fn level() -> String {
    LevelFilter::current().to_string()
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::OFF,
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}
