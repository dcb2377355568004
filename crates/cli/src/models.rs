//! `downshift models`: every model of models.toml, as a table or as JSON.

use std::io::{Write, stdout};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use downshift::{Config, Downshift, Failure, ModelEntry, ModelInfo, ModelSpec, ModelState};
use indicatif::BinaryBytes;
use serde_json::{Value, json};

use crate::args;
use crate::setup::{self, Overrides};
use crate::terminal::{BAD, DIM, GOOD};

pub fn run(args: &args::Models) -> Result<ExitCode> {
    let engine = setup::engine(None, &args.config, Overrides::default())?.engine;
    let rows: Vec<Row<'_>> = rows(&engine);
    if args.json {
        let list: Vec<Value> = rows.iter().map(Row::json).collect();
        writeln!(stdout().lock(), "{}", Value::Array(list))?;
    } else {
        write_table(&rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Row<'a> {
    entry: &'a ModelEntry,
    is_default: bool,
    state: &'static str,
    header: Result<Arc<ModelInfo>, Failure>,
}

fn rows(engine: &Downshift) -> Vec<Row<'_>> {
    let config: &Config = engine.config();
    let entries = config.models().iter().zip(engine.scheduler().models()).enumerate();
    let row = |(index, (entry, status)): (usize, (_, downshift::ModelStatus))| {
        let header = engine.scheduler().inspect(&status.name);
        Row { entry, is_default: index == config.default_index(), state: state(status.state), header }
    };
    entries.map(row).collect()
}

fn state(state: ModelState) -> &'static str {
    match state {
        ModelState::Unloaded => "unloaded",
        ModelState::Loading => "loading",
        ModelState::Ready => "ready",
        ModelState::Draining => "draining",
    }
}

impl Row<'_> {
    fn verdict(&self) -> &'static str {
        self.header.as_ref().map_or_else(|failure| failure.kind.as_str(), |_| "ok")
    }

    /// Bytes of the weights as they are mapped; else the length of the file, or of the weights in the folder.
    fn size_bytes(&self) -> Option<u64> {
        let mapped = self.header.as_ref().map_or(0, |info| info.footprint.weights_bytes);
        if mapped > 0 {
            return Some(mapped);
        }
        let path = &self.entry.spec.path;
        if !path.is_dir() {
            return std::fs::metadata(path).ok().map(|file| file.len());
        }
        let files =
            std::fs::read_dir(path).ok()?.flatten().filter(|file| file.path().extension().is_some_and(|kind| kind == "safetensors"));
        Some(files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum())
    }

    /// Positions it would be loaded with.
    fn context(&self) -> Option<u32> {
        let usual = || self.header.as_ref().ok().map(|info| info.context_train.min(ModelSpec::DEFAULT_CONTEXT));
        self.entry.spec.context.or_else(usual)
    }

    fn json(&self) -> Value {
        let mut row = json!({
            "name": self.entry.name(),
            "aliases": self.entry.aliases,
            "default": self.is_default,
            "path": self.entry.spec.path,
            "state": self.state,
            "verdict": self.verdict(),
            "size_bytes": self.size_bytes(),
            "context": self.context(),
            "device": self.entry.spec.device,
        });
        match &self.header {
            Ok(info) => row["info"] = json!(**info),
            Err(failure) => row["message"] = json!(failure.message),
        }
        row
    }
}

fn write_table(rows: &[Row<'_>]) -> Result<()> {
    const HEAD: [&str; 6] = ["NAME", "STATE", "SIZE", "VERDICT", "CONTEXT", "DEVICE"];
    let unknown = || "-".to_owned();
    let cells: Vec<[String; 6]> = rows
        .iter()
        .map(|row| {
            let name = if row.is_default { format!("{} *", row.entry.name()) } else { row.entry.name().to_owned() };
            let size = row.size_bytes().map_or_else(unknown, |bytes| BinaryBytes(bytes).to_string());
            let context = row.context().map_or_else(unknown, |positions| positions.to_string());
            [name, row.state.to_owned(), size, row.verdict().to_owned(), context, row.entry.spec.device.to_string()]
        })
        .collect();
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).chain([HEAD[column].len()]).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut out = anstream::stdout().lock();
    for (head, width) in HEAD.iter().zip(widths) {
        write!(out, "{DIM}{head:<width$}{DIM:#}  ")?;
    }
    writeln!(out)?;
    for (row, cells) in rows.iter().zip(&cells) {
        for ((cell, width), head) in cells.iter().zip(widths).zip(HEAD) {
            match head {
                "VERDICT" if row.header.is_ok() => write!(out, "{GOOD}{cell:<width$}{GOOD:#}  ")?,
                "VERDICT" => write!(out, "{BAD}{cell:<width$}{BAD:#}  ")?,
                _ => write!(out, "{cell:<width$}  ")?,
            }
        }
        writeln!(out)?;
        if let Err(failure) = &row.header {
            writeln!(out, "{DIM}  {failure}{DIM:#}")?;
        }
    }
    Ok(())
}
