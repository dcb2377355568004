//! `downshift tokenize`: text on stdin, token ids on stdout. Needs a vocabulary and no weights.

use std::io::{Write, stdout};
use std::process::ExitCode;

use anyhow::Result;
use downshift_engine::tokenizer::{Special, Tokenizer};
use downshift_engine::weights::Gguf;

use crate::{args, terminal};

/// Longer texts are a mistake.
const MAX_TEXT_BYTES: u64 = 1 << 30;

pub fn run(args: &args::Tokenize) -> Result<ExitCode> {
    let tokenizer = open(args)?;
    let text = terminal::read_stdin("the text", MAX_TEXT_BYTES)?;
    let mut ids = Vec::new();
    if args.special {
        ids.extend(tokenizer.begin());
        tokenizer.encode(&text, Special::Parse, &mut ids);
        ids.extend(tokenizer.end());
    } else {
        tokenizer.encode(&text, Special::Plain, &mut ids);
    }
    writeln!(stdout().lock(), "{}", serde_json::to_string(&ids)?)?;
    Ok(ExitCode::SUCCESS)
}

fn open(args: &args::Tokenize) -> Result<Tokenizer> {
    let gguf = Gguf::open(&args.model)?;
    let tokenizer = Tokenizer::from_metadata(gguf.metadata()).map_err(|error| terminal::about(&args.model, error))?;
    for warning in tokenizer.warnings() {
        terminal::note(&format!("{}: {warning}", args.model.display()));
    }
    Ok(tokenizer)
}
