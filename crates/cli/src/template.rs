//! `downshift template`: variables of a chat template on stdin, the prompt on stdout.

use std::io::{Write, stdout};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use downshift_engine::PromptBuilder;
use downshift_engine::chat_template::{ChatTemplate, Specials, WallClock};
use downshift_engine::weights::Gguf;
use serde_json::{Map, Value};

use crate::{args, terminal};

/// Longer conversations are a mistake.
const MAX_CASE_BYTES: u64 = 64 << 20;
/// As much as the engine takes from a model file.
const MAX_TEMPLATE_BYTES: u64 = 1 << 20;

pub fn run(args: &args::Template) -> Result<ExitCode> {
    let now = args.now.unwrap_or_else(WallClock::now);
    let prompt = match (&args.template, &args.model) {
        (Some(file), _) => {
            ChatTemplate::parse(&terminal::read_file(file, MAX_TEMPLATE_BYTES)?, Specials::default())?.render(&variables()?, &now)?
        }
        (None, Some(file)) => of_model(file)?.template().render(&variables()?, &now)?,
        (None, None) => bail!("name a model with -m FILE or a template with --template FILE"),
    };
    let mut out = stdout().lock();
    out.write_all(prompt.text().as_bytes())?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn of_model(file: &Path) -> Result<PromptBuilder> {
    let gguf = Gguf::open(file)?;
    let prompts = PromptBuilder::from_metadata(gguf.metadata(), None).map_err(|error| terminal::about(file, error))?;
    if !prompts.has_own_template() {
        terminal::note(&format!("{} has no chat template; this is the one that chat uses instead", file.display()));
    }
    Ok(prompts)
}

fn variables() -> Result<Map<String, Value>> {
    let text = terminal::read_stdin("the case", MAX_CASE_BYTES)?;
    let remedy = "stdin must be a JSON object such as {\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}";
    match serde_json::from_str(&text).context(remedy)? {
        Value::Object(variables) => Ok(variables),
        _ => bail!("{remedy}"),
    }
}
