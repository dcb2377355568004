//! `downshift eval logits`: the logits of given tokens, through the session that chat uses.

use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use downshift_engine::{Feed, LoadOptions, Model, Sequence, Session};

use crate::terminal::Progress;
use crate::{args, setup, terminal};

pub fn logits(args: &args::Logits) -> Result<ExitCode> {
    let token_ids = read_ids(&args.tokens)?;
    if args.from >= token_ids.len() {
        bail!("--from {} is past the last of the {} tokens", args.from, token_ids.len());
    }
    let mut session = load(args, token_ids.len())?;
    let failed = || format!("cannot write {}", args.output.display());
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&args.output).with_context(failed)?);
    let chunk = (args.chunk as usize).min(session.max_rows());
    let mut sequence = Sequence::default();
    for token_ids in token_ids.chunks(chunk) {
        let logits_from = args.from.saturating_sub(sequence.len()).min(token_ids.len());
        let mut written = Ok(());
        let feed = Feed { sequence: &mut sequence, token_ids, logits_from };
        session.step(&mut [feed], &mut |_, logits| {
            if written.is_ok() {
                written = write_row(&mut out, logits);
            }
        })?;
        written.with_context(failed)?;
    }
    out.flush().with_context(failed)?;
    writeln!(stdout().lock(), "{}", serde_json::json!({"positions": token_ids.len() - args.from, "vocab": session.n_vocab()}))?;
    Ok(ExitCode::SUCCESS)
}

/// Room for the ids of the longest context there is.
const MAX_IDS_BYTES: u64 = 64 << 20;

fn read_ids(path: &Path) -> Result<Vec<u32>> {
    let text = terminal::read_file(path, MAX_IDS_BYTES)?;
    let ids: Vec<u32> =
        serde_json::from_str(&text).with_context(|| format!("{} must be a JSON list of token ids such as [1, 15043]", path.display()))?;
    if ids.is_empty() {
        bail!("{} has no token ids", path.display());
    }
    Ok(ids)
}

fn load(args: &args::Logits, n_tokens: usize) -> Result<Session> {
    let file = setup::model_file(&args.model, &args.config)?;
    let model = Model::open(&file).map_err(|error| terminal::about(&file, error))?;
    let context = match args.context {
        Some(context) => context,
        None => u32::try_from(n_tokens).context("more tokens than any context has")?,
    };
    if n_tokens > context as usize {
        bail!("the context of {context} positions is full: there are {n_tokens} tokens");
    }
    terminal::note_if_untrained(n_tokens, model.config());
    let options = LoadOptions { device: args.device, context, ..LoadOptions::default() };
    let progress = Mutex::new(Progress::new(format!("loading {}", file.display())));
    let told = |done, total| {
        // A poisoned bar is no reason to stop.
        if let Ok(mut progress) = progress.lock() {
            progress.update(done, total);
        }
    };
    model.load(&options, &told).map_err(|error| terminal::about(&file, error))
}

fn write_row(out: &mut impl Write, logits: &[f32]) -> std::io::Result<()> {
    logits.iter().try_for_each(|logit| out.write_all(&logit.to_le_bytes()))
}
