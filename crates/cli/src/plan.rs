//! `downshift plan`: what models would take, what there is, and who would answer now.

use std::io::{Write, stdout};
use std::process::ExitCode;

use anyhow::Result;
use downshift::{Config, Failure};
use downshift_scheduler::Forecast;
use downshift_scheduler::plan::Plan;
use downshift_scheduler::room::Limit;
use indicatif::BinaryBytes;
use serde_json::{Value, json};

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
    let forecasts: Vec<(&str, Result<Forecast, Failure>)> = config
        .chain(first)
        .into_iter()
        .map(|index| config.models()[index].name())
        .map(|name| (name, setup.engine.scheduler().plan(name, args.context)))
        .collect();
    let fits = |forecast: &Forecast| !matches!(forecast.plan, Plan::DoesNotFit(_));
    let answers = forecasts.iter().find(|(_, forecast)| forecast.as_ref().is_ok_and(fits)).map(|(name, _)| *name);
    if args.json {
        writeln!(stdout().lock(), "{}", report(config, &forecasts, answers))?;
    } else {
        write_text(&mut anstream::stdout().lock(), &forecasts, answers)?;
    }
    Ok(if answers.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write_text(out: &mut impl Write, forecasts: &[(&str, Result<Forecast, Failure>)], answers: Option<&str>) -> Result<()> {
    if let Some(forecast) = forecasts.iter().find_map(|(_, forecast)| forecast.as_ref().ok()) {
        write_room(out, forecast)?;
    }
    for (name, forecast) in forecasts {
        match forecast {
            Ok(forecast) => write_forecast(out, name, forecast)?,
            Err(failure) => writeln!(out, "{BAD}{name}{BAD:#}: {failure} ({})", failure.kind.as_str())?,
        }
    }
    match answers {
        Some(name) => writeln!(out, "{GOOD}{name} would answer now{GOOD:#}")?,
        None => writeln!(out, "{BAD}no model would answer now{BAD:#}")?,
    }
    Ok(())
}

fn write_room(out: &mut impl Write, forecast: &Forecast) -> Result<()> {
    for limit in forecast.ledger.limits.iter().chain(&forecast.ledger.address_space) {
        writeln!(out, "room     {} of {} free, by {}", BinaryBytes(limit.free_bytes()), BinaryBytes(limit.limit_bytes), limit.source)?;
    }
    writeln!(out, "margin   {} stay free", BinaryBytes(forecast.ledger.margin_bytes))?;
    Ok(())
}

/// Positions it would be loaded with, or those it does not fit with.
fn context(forecast: &Forecast) -> u32 {
    match &forecast.plan {
        Plan::Fits { context, .. } => *context,
        Plan::Wait | Plan::DoesNotFit(_) => forecast.need.context,
    }
}

fn write_forecast(out: &mut impl Write, name: &str, forecast: &Forecast) -> Result<()> {
    let (verdict, style) = match &forecast.plan {
        Plan::Fits { device, evict, .. } if evict.is_empty() => (format!("fits on {device}"), GOOD),
        Plan::Fits { device, evict, .. } => (format!("fits on {device} once {} idle models have left", evict.len()), GOOD),
        Plan::Wait => ("fits once a model that is leaving has left".to_owned(), GOOD),
        Plan::DoesNotFit(reason) => (reason.clone(), BAD),
    };
    let (context, need) = (context(forecast), &forecast.need);
    let footprint = &need.footprint;
    writeln!(out, "{style}{name}{style:#}: {verdict}")?;
    let mut row = |what: &str, bytes: u64, note: &str| {
        let line = format!("  {what:<8} {:>11}  {note}", BinaryBytes(bytes).to_string());
        writeln!(out, "{}", line.trim_end())
    };
    row("weights", footprint.weights_bytes, "mapped from the file")?;
    row("program", footprint.program_bytes, "shared by all models")?;
    row("kv", kv_bytes(forecast), &format!("for {context} positions"))?;
    row("scratch", footprint.scratch_bytes, "")?;
    row("fixed", footprint.fixed_bytes.saturating_add(need.extra_bytes), "")?;
    Ok(())
}

fn kv_bytes(forecast: &Forecast) -> u64 {
    forecast.need.footprint.kv_bytes_per_position.saturating_mul(u64::from(context(forecast)))
}

fn report(config: &Config, forecasts: &[(&str, Result<Forecast, Failure>)], answers: Option<&str>) -> Value {
    let ledger = forecasts.iter().find_map(|(_, forecast)| forecast.as_ref().ok()).map(|forecast| &forecast.ledger);
    let limit = |limit: &Limit| json!({"source": limit.source, "limit_bytes": limit.limit_bytes, "free_bytes": limit.free_bytes()});
    let limits = ledger.iter().flat_map(|ledger| ledger.limits.iter().chain(&ledger.address_space));
    let model = |(name, forecast): &(&str, Result<Forecast, Failure>)| match forecast {
        Ok(forecast) => model_report(config, name, forecast),
        Err(failure) => json!({"name": name, "verdict": failure.kind.as_str(), "message": failure.message}),
    };
    json!({
        "room": limits.map(limit).collect::<Vec<_>>(),
        "margin_bytes": ledger.map(|ledger| ledger.margin_bytes),
        "models": forecasts.iter().map(model).collect::<Vec<_>>(),
        "answers": answers,
    })
}

fn model_report(config: &Config, name: &str, forecast: &Forecast) -> Value {
    let (need, context) = (&forecast.need, context(forecast));
    let footprint = &need.footprint;
    let (verdict, message, device, evict) = match &forecast.plan {
        Plan::Fits { device, evict, .. } => ("fits", None, Some(*device), evict.as_slice()),
        Plan::Wait => ("waits", None, None, &[][..]),
        Plan::DoesNotFit(reason) => ("does_not_fit", Some(reason), None, &[][..]),
    };
    json!({
        "name": name,
        "verdict": verdict,
        "message": message,
        "device": device,
        "context": context,
        "evict": evict.iter().map(|&index| config.models()[index].name()).collect::<Vec<_>>(),
        "soft_bytes": footprint.soft_bytes(),
        "weights_bytes": footprint.weights_bytes,
        "program_bytes": footprint.program_bytes,
        "hard_bytes": need.hard_bytes(context),
        "kv_bytes": kv_bytes(forecast),
        "scratch_bytes": footprint.scratch_bytes,
        "fixed_bytes": footprint.fixed_bytes.saturating_add(need.extra_bytes),
    })
}
