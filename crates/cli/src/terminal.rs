//! What a person sees beside the answer: errors, notes and progress, all on stderr, with colours only where they help.

use std::io::{IsTerminal, Read, Write, stderr, stdin};
use std::path::Path;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result, bail};
use downshift_engine::ModelConfig;
use indicatif::{ProgressBar, ProgressStyle};

/// Style of what is said in passing.
pub const DIM: Style = Style::new().dimmed();
/// Style of what is good.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Style of what is wrong.
pub const BAD: Style = AnsiColor::Red.on_default().bold();

/// Loading shows once it takes this long.
const PATIENCE: Duration = Duration::from_millis(500);

/// Says why there is no result, with the causes that are not in the sentence already.
pub fn error(error: &anyhow::Error) {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    say(&format!("{BAD}error:{BAD:#} {text}"));
}

/// An error about `file`, which names it.
pub fn about(file: &Path, error: impl std::error::Error + Send + Sync + 'static) -> anyhow::Error {
    let file = file.display().to_string();
    if error.to_string().contains(&file) { error.into() } else { anyhow::Error::new(error).context(file) }
}

/// Says that a model is run over more positions than it was trained for.
pub fn note_if_untrained(positions: usize, config: &ModelConfig) {
    if positions > config.context_train as usize {
        note(&format!("{positions} positions are more than the {} that the model was trained for", config.context_train));
    }
}

/// One line in passing.
pub fn note(text: &str) {
    say(&format!("{DIM}{text}{DIM:#}"));
}

/// One line on stderr; styles are dropped where it is no terminal or colours are not wanted.
pub fn say(line: &str) {
    // Nobody is left to be told if stderr is gone.
    let _ = writeln!(anstream::stderr(), "{line}");
}

/// All of stdin, at most `limit` bytes of UTF-8.
pub fn read_stdin(what: &str, limit: u64) -> Result<String> {
    let mut bytes = Vec::new();
    stdin().lock().take(limit + 1).read_to_end(&mut bytes).context("cannot read stdin")?;
    if bytes.len() as u64 > limit {
        bail!("{what} on stdin is longer than {limit} bytes");
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        anyhow::anyhow!("{what} on stdin is not UTF-8: byte {at} does not belong to a character; convert it first, as with iconv")
    })
}

/// Reads a file that must be regular and not longer than `limit` bytes.
pub fn read_file(path: &Path, limit: u64) -> Result<String> {
    let failed = || format!("cannot read {}", path.display());
    let found = std::fs::metadata(path).with_context(failed)?;
    if !found.is_file() {
        bail!("{} is no regular file", path.display());
    }
    if found.len() > limit {
        bail!("{} has {} bytes, and may have {limit}", path.display(), found.len());
    }
    std::fs::read_to_string(path).with_context(failed)
}

/// A bar on stderr that appears when something takes long, and only on a terminal.
pub struct Progress {
    started: Instant,
    what: String,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Nothing is shown yet.
    pub fn new(what: impl Into<String>) -> Self {
        Self { started: Instant::now(), what: what.into(), bar: None }
    }

    /// Bytes done and in all; 0 while that is unknown.
    pub fn update(&mut self, done_bytes: u64, total_bytes: u64) {
        if self.bar.is_none() && self.started.elapsed() >= PATIENCE && stderr().is_terminal() {
            self.bar = Some(bar(&self.what));
        }
        if let Some(bar) = &self.bar {
            bar.set_length(total_bytes);
            bar.set_position(done_bytes);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style).with_message(what.to_owned())
}
