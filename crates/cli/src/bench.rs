//! `downshift bench`: prefill and decode figures of one model, as llama-bench takes them.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::process::ExitCode;

use anyhow::{Context, Result};
use downshift_bench::{Host, Plan, Report, measure};
use downshift_engine::{LoadOptions, Model};
use downshift_worker::KvType;

use crate::{args, setup, terminal};

pub fn run(args: &args::Bench) -> Result<ExitCode> {
    let plan = Plan {
        n_prompt: args.n_prompt.clone(),
        n_gen: args.n_gen.clone(),
        n_depth: args.n_depth.clone(),
        repetitions: args.repetitions as usize,
    };
    let path = setup::model_file(&args.model, &args.config)?;
    let model = Model::open(&path).map_err(|error| terminal::about(&path, error))?;
    terminal::note_if_untrained(plan.context(), model.config());
    let options = LoadOptions {
        device: args.device,
        context: u32::try_from(plan.context().max(1)).context("more tokens than any context has")?,
        threads: args.threads.map_or_else(|| LoadOptions::default().threads, |threads| threads as usize),
        kv_type: KvType::F16,
    };
    let mut session = model.load(&options, &|_, _| {}).map_err(|error| terminal::about(&path, error))?;
    let info = model.info(options.kv_type)?;
    let report = Report {
        engine: "downshift",
        model_filename: path.display().to_string(),
        model_type: format!("{} {}", info.architecture, info.dtype),
        model_size: info.footprint.weights_bytes,
        model_n_params: info.parameters,
        device: args.device.to_string(),
        host: Host::detect(options.threads),
    };
    let mut out = stdout().lock();
    write!(out, "{}", report.head(args.output))?;
    let watched = stderr().is_terminal();
    for (idx, test) in plan.tests().into_iter().enumerate() {
        let told = &mut |repetition: usize| {
            if watched {
                eprint!("\r\x1b[K{}: {repetition} of {}", test.name(), plan.repetitions);
            }
        };
        let measurement = measure(&mut session, test, plan.repetitions, told)?;
        if watched {
            eprint!("\r\x1b[K");
        }
        write!(out, "{}", report.row(args.output, idx, &measurement))?;
        out.flush()?;
    }
    write!(out, "{}", report.tail(args.output))?;
    Ok(ExitCode::SUCCESS)
}
