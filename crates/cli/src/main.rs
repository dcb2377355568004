//! The `downshift` command: reads what was asked, and hands it to the parts.
//!
//! One file per subcommand. Does not own models, files or decisions: those are in the crates it composes.

mod args;
mod bench;
mod chat;
mod check;
mod doctor;
mod embed;
mod eval;
mod log;
mod models;
mod plan;
mod repl;
mod serve;
mod setup;
mod template;
mod terminal;
mod tokenize;
mod verify;

use std::io::ErrorKind;
use std::process::ExitCode;

use args::{Args, Command, Eval};
use downshift_worker::Faulty;

fn main() -> ExitCode {
    match run(args::parse()) {
        Ok(code) => code,
        Err(error) if reader_left(&error) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<ExitCode> {
    log::start(&args)?;
    setup::check_isa()?;
    match args.command {
        Command::Chat(args) => chat::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Eval(Eval::Logits(args)) => eval::logits(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Template(args) => template::run(&args),
        Command::Embed(args) => embed::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Worker => Ok(downshift_worker::serve(Faulty::from_env(downshift_engine::InProcess)?)),
    }
}

/// Whether whoever read the output has left, as `head` does: no failure of ours.
fn reader_left(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == ErrorKind::BrokenPipe)
}
