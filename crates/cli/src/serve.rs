//! `downshift serve`: the HTTP server over the models of models.toml, or over one file.

use std::env;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use downshift_scheduler::Scheduler;
use downshift_server::{ApiKey, ServeOptions, Server};

use crate::setup::{self, Overrides};
use crate::{args, terminal};

const KEY_VARIABLE: &str = "DOWNSHIFT_API_KEY";
/// As a shell has it for Ctrl-C.
const INTERRUPTED: u8 = 130;

pub fn run(args: &args::Serve) -> Result<ExitCode> {
    let overrides =
        Overrides { context: args.context, device: args.device, parallel: args.parallel, in_process: args.isolation.in_process };
    let setup = setup::engine(args.model.as_deref(), &args.config, overrides)?;
    if let Some(model) = setup.model.as_deref().filter(|model| setup.engine.config().index_of(model).is_none()) {
        return Err(setup::no_such_model(model, setup.engine.config()));
    }
    let scheduler = setup.engine.share_scheduler();
    let options = ServeOptions {
        host: args.host.clone(),
        port: args.port,
        api_key: api_key(args)?,
        cors_origins: args.cors_origin.clone(),
        model: setup.model.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..ServeOptions::default()
    };
    let has_key = options.api_key.is_some();
    let server = Server::bind(scheduler.clone(), options).with_context(|| cannot_listen(args))?;
    server.stop_on_signals().context("signals cannot be heard")?;
    let chain = chain(&scheduler, setup.model.as_deref());
    greet(&server, &chain, has_key);
    load_first(scheduler, chain)?;
    Ok(if server.run() { ExitCode::SUCCESS } else { ExitCode::from(INTERRUPTED) })
}

/// The key that clients must send, from whichever place names one.
fn api_key(args: &args::Serve) -> Result<Option<ApiKey>> {
    /// Longer ones do not fit a header.
    const LONGEST_KEY: u64 = 4096;
    let (key, from) = if let Some(key) = &args.api_key {
        (key.clone(), "--api-key".to_owned())
    } else if let Some(file) = &args.api_key_file {
        (terminal::read_file(file, LONGEST_KEY)?, file.display().to_string())
    } else {
        match env::var(KEY_VARIABLE) {
            Ok(key) => (key, KEY_VARIABLE.to_owned()),
            Err(env::VarError::NotPresent) => return Ok(None),
            Err(env::VarError::NotUnicode(_)) => bail!("{KEY_VARIABLE} is not text"),
        }
    };
    let key = ApiKey::new(key.trim()).with_context(|| format!("the API key of {from} is empty; leave it out to need none"))?;
    Ok(Some(key))
}

/// The models that answer requests which name none, in order.
fn chain(scheduler: &Scheduler, model: Option<&str>) -> Vec<String> {
    let config = scheduler.config();
    let first = model.and_then(|model| config.index_of(model)).unwrap_or(config.default_index());
    config.chain(first).into_iter().map(|index| config.models()[index].name().to_owned()).collect()
}

fn greet(server: &Server, chain: &[String], has_key: bool) {
    let address = server.address();
    terminal::say(&format!("listening on http://{address}"));
    terminal::say(&format!("  API     http://{address}/v1{}", if has_key { "  (with the API key)" } else { "" }));
    terminal::say(&format!("  page    http://{address}/"));
    terminal::say(&format!("  models  {}", chain.join(" > ")));
    if !address.ip().is_loopback() && !has_key {
        terminal::note("Everyone who reaches this address can use it; --api-key keeps strangers out.");
    }
}

/// Loads the first model of the chain that can be, so that the first request need not wait for it.
fn load_first(scheduler: Arc<Scheduler>, chain: Vec<String>) -> Result<()> {
    let load = move || {
        for model in chain {
            match scheduler.with_worker(&model, |_| ()) {
                Ok(()) => {
                    tracing::info!(%model, "ready");
                    return;
                }
                Err(failure) => tracing::warn!(%model, kind = failure.kind.as_str(), "cannot be loaded: {failure}"),
            }
        }
    };
    std::thread::Builder::new().name("first load".to_owned()).spawn(load).context("a thread cannot be started")?;
    Ok(())
}

fn cannot_listen(args: &args::Serve) -> String {
    format!("cannot listen on {}:{}; --port takes another one, and --port 0 any that is free", args.host, args.port)
}
