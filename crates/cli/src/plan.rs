//! `downshift plan`: what models would take, what there is, and who would answer now.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use downshift_scheduler::Forecast;
use downshift_scheduler::plan::Plan;
use indicatif::BinaryBytes;

use crate::args;
use crate::setup::{self, Overrides};
use crate::terminal::{BAD, GOOD};

pub fn run(args: &args::Plan) -> Result<ExitCode> {
    let setup = setup::engine(args.model.as_deref(), &args.config, Overrides::default())?;
    let config = setup.engine.config();
    let first = match &setup.model {
        Some(name) => config.index_of(name).ok_or_else(|| setup::no_such_model(name, config))?,
        None => config.default_index(),
    };
    let mut out = anstream::stdout().lock();
    let (mut answers, mut room_shown) = (None, false);
    for &index in &config.chain(first) {
        let name = config.models()[index].name();
        match setup.engine.scheduler().plan(name, args.context) {
            Ok(forecast) => {
                if !std::mem::replace(&mut room_shown, true) {
                    write_room(&mut out, &forecast)?;
                }
                if write_forecast(&mut out, name, &forecast)? {
                    answers.get_or_insert(name);
                }
            }
            Err(failure) => writeln!(out, "{BAD}{name}{BAD:#}: {failure} ({})", failure.kind.as_str())?,
        }
    }
    match answers {
        Some(name) => {
            writeln!(out, "{GOOD}{name} would answer now{GOOD:#}")?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            writeln!(out, "{BAD}no model would answer now{BAD:#}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn write_room(out: &mut impl Write, forecast: &Forecast) -> Result<()> {
    for limit in forecast.ledger.limits.iter().chain(&forecast.ledger.address_space) {
        writeln!(out, "room    {} of {} free, by {}", BinaryBytes(limit.free_bytes()), BinaryBytes(limit.limit_bytes), limit.source)?;
    }
    writeln!(out, "margin  {} stay free", BinaryBytes(forecast.ledger.margin_bytes))?;
    Ok(())
}

/// One model; whether it would load.
fn write_forecast(out: &mut impl Write, name: &str, forecast: &Forecast) -> Result<bool> {
    let (verdict, context, fits) = match &forecast.plan {
        Plan::Fits { device, context, evict } if evict.is_empty() => (format!("fits on {device}"), *context, true),
        Plan::Fits { device, context, evict } => (format!("fits on {device} once {} idle models have left", evict.len()), *context, true),
        Plan::Wait => ("fits once a model that is leaving has left".to_owned(), forecast.need.context, true),
        Plan::DoesNotFit(reason) => (reason.clone(), forecast.need.context, false),
    };
    let style = if fits { GOOD } else { BAD };
    let footprint = &forecast.need.footprint;
    let kv_bytes = footprint.kv_bytes_per_position.saturating_mul(u64::from(context));
    writeln!(out, "{style}{name}{style:#}: {verdict}")?;
    writeln!(out, "  weights  {:>11}  mapped from the file", BinaryBytes(footprint.weights_bytes).to_string())?;
    writeln!(out, "  kv       {:>11}  for {context} positions", BinaryBytes(kv_bytes).to_string())?;
    writeln!(out, "  scratch  {:>11}", BinaryBytes(footprint.scratch_bytes).to_string())?;
    writeln!(out, "  fixed    {:>11}", BinaryBytes(footprint.fixed_bytes.saturating_add(forecast.need.extra_bytes)).to_string())?;
    Ok(fits)
}
