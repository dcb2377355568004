//! `downshift bench`: prefill and decode figures of one model, as llama-bench takes them; and how long a failover takes.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use downshift_bench::{Breakdown, Failover, Format, Host, PAUSES_HEAD, Plan, Report, measure};
use downshift_engine::{Ceilings, LoadOptions, Model};
use downshift_worker::{Device, KvType, Subprocess};

use crate::{args, setup, terminal};

pub fn run(args: &args::Bench) -> Result<ExitCode> {
    let Some(name) = args.model.as_deref().filter(|_| !args.failover) else { return failover(args) };
    if args.breakdown && (matches!(args.output, Format::Csv | Format::Sql) || args.device != Device::Cpu) {
        bail!("--breakdown tells of the CPU, and prints md, json or jsonl");
    }
    let plan = Plan {
        n_prompt: args.n_prompt.clone(),
        n_gen: args.n_gen.clone(),
        n_depth: args.n_depth.clone(),
        n_parallel: args.parallel.iter().map(|&n| usize::from(n)).collect(),
        repetitions: args.repetitions as usize,
    };
    let path = setup::model_file(name, &args.config)?;
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
        let ceilings = || args.breakdown.then(|| Ceilings::measure(options.threads));
        let before = ceilings();
        let measurement = measure(&mut session, test, plan.repetitions, told)?;
        if watched {
            eprint!("\r\x1b[K");
        }
        let best = before.zip(ceilings()).map(|(before, after)| before.max(after));
        let breakdown = best.map(|best| Breakdown::new(&measurement, &model.traffic(options.kv_type), session.max_rows(), best));
        write!(out, "{}", report.row(args.output, idx, &measurement, breakdown.as_ref()))?;
        out.flush()?;
    }
    write!(out, "{}", report.tail(args.output))?;
    Ok(ExitCode::SUCCESS)
}

/// Kills workers of a model, lets it fail to load, and tells how long its answers pause.
fn failover(args: &args::Bench) -> Result<ExitCode> {
    if !matches!(args.output, Format::Markdown | Format::Json) {
        bail!("--failover prints md or json");
    }
    let setup::Chain { settings, first, next } = setup::chain(args.model.as_deref(), &args.config)?;
    Subprocess::this_program().context("worker processes cannot be started")?;
    // It is the same program every time, and was found above.
    let workers = || Subprocess::this_program().unwrap_or_else(|_| Subprocess::new("downshift")).arg("worker");
    let bench = Failover { settings, first, next, workers: &workers };
    let mut out = stdout().lock();
    if args.output == Format::Markdown {
        write!(out, "{PAUSES_HEAD}")?;
    }
    let watched = stderr().is_terminal();
    let mut found = Vec::new();
    for case in bench.cases() {
        let told = &mut |run: usize| {
            if watched {
                eprint!("\r\x1b[K{}: {run} of {}", case.name(), args.runs);
            }
        };
        let pauses = bench.run(case, args.runs as usize, told)?;
        if watched {
            eprint!("\r\x1b[K");
        }
        if args.output == Format::Markdown {
            write!(out, "{}", pauses.row())?;
            out.flush()?;
        }
        found.push(pauses.json());
    }
    if args.output == Format::Json {
        writeln!(out, "{}", serde_json::to_string_pretty(&found)?)?;
    }
    Ok(ExitCode::SUCCESS)
}
