//! `downshift verify`: everything that can be known of one GGUF file by reading it, and what is wrong with it.

use std::collections::BTreeSet;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use downshift_engine::verify::{Report, verify};
use downshift_engine::weights::gguf::TensorInfo;
use downshift_engine::{Error, Model, PromptBuilder};
use downshift_worker::{KvType, ModelSpec};
use indicatif::{BinaryBytes, HumanCount};

use crate::terminal::{BAD, DIM, GOOD, Progress};
use crate::{args, setup};

pub fn run(args: &args::Verify) -> Result<ExitCode> {
    let file = setup::model_file(&args.file, &args.config)?;
    let mut progress = Progress::new("reading");
    let report = verify(&file, |done, total| {
        progress.update(done, total);
        ControlFlow::Continue(())
    });
    drop(progress);
    let Some(report) = report? else { return Ok(ExitCode::FAILURE) };

    let mut findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    let mut out = anstream::stdout().lock();
    write_structure(&mut out, &report)?;
    write_words(&mut out, &report, &mut findings)?;
    write_model(&mut out, &file, args.context, &report, &mut findings)?;
    for finding in &findings {
        writeln!(out, "{BAD}wrong{BAD:#}         {finding}")?;
    }
    if findings.is_empty() {
        writeln!(out, "{GOOD}nothing wrong was found{GOOD:#}")?;
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write_structure(out: &mut impl Write, report: &Report) -> Result<()> {
    for (shard, sha256) in report.header.shards().iter().zip(&report.sha256) {
        let hash: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(out, "file          {} (GGUF v{}, {})", shard.path.display(), shard.version, BinaryBytes(shard.len_bytes))?;
        writeln!(out, "sha256        {hash}")?;
    }
    for ty in &report.types {
        let name = ty.name.map_or_else(|| format!("type {}", ty.ggml_type), str::to_owned);
        let (elements, size) = (HumanCount(ty.n_elements), BinaryBytes(ty.size_bytes));
        writeln!(out, "tensors       {} of {name}, {elements} elements, {size}", ty.n_tensors)?;
    }
    if let Some(warning) = mixed_parts(report) {
        writeln!(out, "{DIM}              {warning}{DIM:#}")?;
    }
    Ok(())
}

/// Parts of a split file are told apart by number alone: one of another quantization fits too. It shows where the layers in one
/// part have no type in common with those in another, which can also be meant.
fn mixed_parts(report: &Report) -> Option<String> {
    let types = |part: usize| -> BTreeSet<&str> {
        let of_layers = |tensor: &&TensorInfo| tensor.shard() == part && tensor.dims.len() > 1 && tensor.name.starts_with("blk.");
        report.header.tensors().filter(of_layers).filter_map(|tensor| Some(tensor.layout()?.name)).collect()
    };
    let listed = |types: &BTreeSet<&str>| types.iter().copied().collect::<Vec<_>>().join(", ");
    let first = types(0);
    (1..report.header.shards().len()).find_map(|part| {
        let other = types(part);
        let apart = !first.is_empty() && !other.is_empty() && first.is_disjoint(&other);
        apart.then(|| format!("part 1 has {} and part {} {}: are they of one quantization?", listed(&first), part + 1, listed(&other)))
    })
}

fn write_words(out: &mut impl Write, report: &Report, findings: &mut Vec<String>) -> Result<()> {
    match PromptBuilder::from_metadata(report.header.metadata(), None) {
        Ok(prompts) => {
            let tokenizer = prompts.tokenizer();
            writeln!(out, "tokenizer     {} tokens", tokenizer.n_vocab())?;
            for warning in tokenizer.warnings() {
                writeln!(out, "{DIM}              {warning}{DIM:#}")?;
            }
            let template = if prompts.has_own_template() { "renders" } else { "none; chat uses a default" };
            writeln!(out, "template      {template}")?;
        }
        Err(error) => findings.push(error.to_string()),
    }
    Ok(())
}

fn write_model(out: &mut impl Write, file: &Path, context: Option<u32>, report: &Report, findings: &mut Vec<String>) -> Result<()> {
    if report.types.is_empty() {
        writeln!(out, "model         none: a vocabulary without tensors")?;
        return Ok(());
    }
    match Model::open(file) {
        Ok(model) => {
            let config = model.config();
            let (name, layers, trained) = (config.architecture.name, config.n_layers, config.context_train);
            writeln!(out, "model         {name}, {layers} layers, context {trained}")?;
            let context = context.unwrap_or(trained.min(ModelSpec::DEFAULT_CONTEXT));
            let footprint = model.footprint(KvType::F16);
            let (weights, rest) = (BinaryBytes(footprint.weights_bytes), BinaryBytes(footprint.hard_bytes(context)));
            writeln!(out, "memory        {weights} of weights and {rest} for a context of {context}")?;
            if let Err(error) = model.prompts(None)
                && let Error::Key { .. } = error
            {
                findings.push(error.to_string());
            }
        }
        Err(error @ (Error::UnsupportedArchitecture { .. } | Error::UnsupportedType { .. })) => {
            writeln!(out, "model         not one that downshift runs")?;
            findings.push(error.to_string());
        }
        Err(error) => findings.push(error.to_string()),
    }
    Ok(())
}
