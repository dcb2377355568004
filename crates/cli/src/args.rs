//! The command line, as clap reads it. Every command has an example in its help.

use std::path::PathBuf;

use clap::{ArgGroup, Parser, Subcommand, ValueEnum};
use downshift_bench::Format;
use downshift_engine::chat_template::WallClock;
use downshift_worker::{Device, DeviceChoice};

/// Reads the command line; ends the process for `--help`, `--version` and what cannot be understood.
pub fn parse() -> Args {
    Args::parse()
}

/// Local models that change down a gear instead of stalling.
///
/// downshift answers with the best model on disk that can answer now, and drops to the next one when loading, memory or
/// generation fails. The models are named in models.toml; `-m FILE` works without one.
#[derive(Debug, Parser)]
#[command(name = "downshift", version, max_term_width = 120)]
#[command(after_help = "Example:\n  downshift chat \"What is 17 + 25?\"\n\nEvery command has a --help of its own, with examples.")]
pub struct Args {
    #[command(flatten)]
    pub log: Log,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, clap::Args)]
pub struct Log {
    /// How events are written on stderr
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// The least important events that are written; otherwise $DOWNSHIFT_LOG, or info for serve, else warnings
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people
    Text,
    /// A line of JSON
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Chat(Chat),
    Serve(Serve),
    Models(Models),
    Plan(Plan),
    Check(Check),
    Verify(Verify),
    /// Measure what a model computes
    #[command(subcommand)]
    Eval(Eval),
    Bench(Bench),
    Tokenize(Tokenize),
    Template(Template),
    Embed(Embed),
    Doctor(Doctor),
    /// The child process that runs one model; frames on stdin and stdout
    #[command(hide = true)]
    Worker,
}

/// Ask a model
///
/// With a prompt (argument, or stdin where that is no terminal) there is one answer; without one, a conversation with history
/// and /commands. When another model answers than the one that was asked, one line on stderr says which and why.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  downshift chat \"What is 17 + 25?\"
  downshift chat -m Qwen3-0.6B-Q8_0.gguf --system \"Answer in one word.\" \"Capital of France?\"
  git diff | downshift chat --system \"Summarize this change.\"
  downshift chat --json --temperature 0 \"Hello\" | jq .model
  downshift chat --json-schema '{\"enum\": [\"yes\", \"no\"]}' \"Is water wet?\"
  echo '[{\"role\": \"user\", \"content\": \"Hi\"}]' | downshift chat --messages
  downshift chat")]
pub struct Chat {
    /// The question; without it, stdin or a conversation
    pub prompt: Option<String>,
    /// Name or alias from models.toml, or a GGUF file
    #[arg(short, long, value_name = "NAME|FILE")]
    pub model: Option<String>,
    /// What the model is told before the conversation
    #[arg(short, long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Most tokens to generate
    #[arg(short = 'n', long, value_name = "N")]
    pub max_tokens: Option<u32>,
    /// 0 takes the most likely token
    #[arg(short, long, value_name = "T", value_parser = temperature)]
    pub temperature: Option<f32>,
    /// Makes the answer repeatable
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Let the answer be one JSON object
    #[arg(long, conflicts_with = "json_schema")]
    pub json_object: bool,
    /// Let the answer be JSON that is valid under this schema
    #[arg(long, value_name = "FILE|JSON")]
    pub json_schema: Option<String>,
    /// Print one line: {model, content, finish_reason, usage, timings, fallback}
    #[arg(long)]
    pub json: bool,
    /// Read a whole conversation from stdin, as a JSON list of {role, content}, and answer its last message
    #[arg(long, conflicts_with_all = ["prompt", "system"])]
    pub messages: bool,
    /// Positions of the context, for every model asked
    #[arg(short, long, value_name = "N", value_parser = positive())]
    pub context: Option<u32>,
    /// auto, cpu, cuda, cuda:N or metal, for every model asked
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    #[command(flatten)]
    pub config: Config,
    #[command(flatten)]
    pub isolation: Isolation,
}

/// Serve an OpenAI-compatible API, and a page to chat on
///
/// Answers on this machine only, unless --host says otherwise. The first Ctrl-C lets running answers end, the second does not.
/// What happens is told on stderr; DOWNSHIFT_LOG=debug tells more, warn less.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  downshift serve
  downshift serve -m Qwen3-0.6B-Q8_0.gguf --port 9000 --parallel 4
  DOWNSHIFT_API_KEY=secret downshift serve --host 0.0.0.0
  curl localhost:8080/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"What is 17 + 25?\"}]}'")]
pub struct Serve {
    /// Address to listen on; 0.0.0.0 is all of this machine's, for which an API key is wise
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(short, long, value_name = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// The model for requests that name none: a name or alias from models.toml; or a GGUF file, which is then the only model
    #[arg(short, long, value_name = "NAME|FILE")]
    pub model: Option<String>,
    /// What clients must send as `Authorization: Bearer KEY`; $DOWNSHIFT_API_KEY keeps it out of the list of processes
    #[arg(long, value_name = "KEY")]
    pub api_key: Option<String>,
    /// Read the API key from this file
    #[arg(long, value_name = "FILE", conflicts_with = "api_key")]
    pub api_key_file: Option<PathBuf>,
    /// Let web pages of this origin use the server, such as http://localhost:3000; may be repeated, `*` is all of them
    #[arg(long, value_name = "ORIGIN")]
    pub cors_origin: Vec<String>,
    /// Requests that each model answers side by side, sharing its context
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub parallel: Option<u32>,
    /// Positions of the context, for every model
    #[arg(short, long, value_name = "N", value_parser = positive())]
    pub context: Option<u32>,
    /// auto, cpu, cuda, cuda:N or metal, for every model
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    #[command(flatten)]
    pub config: Config,
    #[command(flatten)]
    pub isolation: Isolation,
}

/// List the models of models.toml
///
/// Shows of each its state, size, what its header says, context and device.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  downshift models\n  downshift models --json | jq '.[] | select(.verdict != \"ok\")'")]
pub struct Models {
    /// Print a JSON list
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub config: Config,
}

/// Predict what models would take, and who would answer now
///
/// Bytes of each component for every model of a chain, the memory there is and what limits it. Nothing is loaded. Exits with 1
/// where no model of the chain would answer.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  downshift plan\n  downshift plan chat --context 32768\n  downshift plan Qwen3-0.6B-Q8_0.gguf")]
pub struct Plan {
    /// Name or alias from models.toml, or a GGUF file; by default the default model
    #[arg(value_name = "NAME|FILE")]
    pub model: Option<String>,
    /// Positions of the context, for every model of the chain
    #[arg(short, long, value_name = "N", value_parser = positive())]
    pub context: Option<u32>,
    /// Print one line: {room, margin_bytes, models, answers}
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub config: Config,
}

/// Check models.toml, its chains and the headers of its models
///
/// Exits with 1 where something in the file is wrong, or where a model and all its fallbacks cannot be loaded.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  downshift check --config models.toml")]
pub struct Check {
    #[command(flatten)]
    pub config: Config,
}

/// Check one GGUF file
///
/// Reads all of it: structure, limits, hash, tokenizer, template, and numbers that are not finite. Exits with 1 where
/// something is wrong with it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  downshift verify Qwen3-0.6B-Q8_0.gguf")]
pub struct Verify {
    /// The file, of a split one the first part; or a name from models.toml
    #[arg(value_name = "FILE")]
    pub file: String,
    /// Positions of the context whose memory is told
    #[arg(short, long, value_name = "N", value_parser = positive())]
    pub context: Option<u32>,
    #[command(flatten)]
    pub config: Config,
    #[command(flatten)]
    pub isolation: Isolation,
}

#[derive(Debug, Subcommand)]
pub enum Eval {
    Logits(Logits),
}

/// Write the logits of given tokens
///
/// Row-major little-endian f32 [n_positions, n_vocab], through the same session and kernels as chat.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  echo '[1, 15043, 3186]' > ids.json
  downshift eval logits -m model.gguf --tokens ids.json -o logits.f32 --chunk 2")]
pub struct Logits {
    /// A GGUF file, or a name from models.toml
    #[arg(short, long, value_name = "FILE|NAME")]
    pub model: String,
    /// A JSON list of token ids
    #[arg(long, value_name = "FILE")]
    pub tokens: PathBuf,
    /// Where the logits go
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Tokens fed at a time
    #[arg(long, value_name = "N", default_value = "512", value_parser = positive())]
    pub chunk: u32,
    /// First position whose logits are written
    #[arg(long, value_name = "POS", default_value_t = 0)]
    pub from: usize,
    /// cpu, cuda, cuda:N or metal
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Cpu)]
    pub device: Device,
    /// Positions of the context; by default as many as there are tokens
    #[arg(short, long, value_name = "N", value_parser = positive())]
    pub context: Option<u32>,
    #[command(flatten)]
    pub config: Config,
    #[command(flatten)]
    pub isolation: Isolation,
}

/// Measure prefill and decode of a model
///
/// Tests, names and meanings are llama-bench's: random tokens, an empty cache before each repetition, one repetition to warm
/// up, forward passes alone on the clock. Lists are separated by commas.
///
/// With --failover it measures how long an answer pauses when its worker is killed, or its model cannot be loaded, until the next
/// token is shown.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  downshift bench -m Qwen3-0.6B-Q8_0.gguf
  downshift bench -m chat -p 512,2048 -n 64 -d 0,4096 -r 3 -o jsonl
  downshift bench -m chat -p 0 -n 64 --parallel 1,4,8
  downshift bench -m chat -p 512 -n 64 --breakdown
  downshift bench --failover --runs 100")]
pub struct Bench {
    /// A GGUF file, or a name from models.toml; with --failover the default model unless one is named
    #[arg(short, long, value_name = "FILE|NAME", required_unless_present = "failover")]
    pub model: Option<String>,
    /// Measure failovers: of the model and the one after it in its chain
    #[arg(long, conflicts_with_all = ["n_prompt", "n_gen", "n_depth", "repetitions"])]
    pub failover: bool,
    /// Failovers of each kind
    #[arg(long, value_name = "N", default_value = "100", value_parser = positive(), requires = "failover")]
    pub runs: u32,
    /// Prompt tokens; 0 leaves the test out
    #[arg(short = 'p', long, value_name = "N", value_delimiter = ',', default_value = "512")]
    pub n_prompt: Vec<usize>,
    /// Generated tokens; 0 leaves the test out
    #[arg(short = 'n', long, value_name = "N", value_delimiter = ',', default_value = "128")]
    pub n_gen: Vec<usize>,
    /// Positions filled before each test
    #[arg(short = 'd', long, value_name = "N", value_delimiter = ',', default_value = "0")]
    pub n_depth: Vec<usize>,
    /// Sequences that run each test side by side
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub parallel: Vec<u16>,
    /// Workers; by default all cores this process may use
    #[arg(short, long, value_name = "N", value_parser = positive())]
    pub threads: Option<u32>,
    /// Repetitions of each test
    #[arg(short, long, value_name = "N", default_value = "5", value_parser = positive())]
    pub repetitions: u32,
    /// Tell where the time goes, and what share it is of what this machine can read and multiply (md, json, jsonl)
    #[arg(long, conflicts_with = "failover")]
    pub breakdown: bool,
    /// md, csv, json, jsonl or sql
    #[arg(short, long, value_name = "FORMAT", default_value = "md", value_parser = str::parse::<Format>)]
    pub output: Format,
    /// cpu, cuda, cuda:N or metal
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Cpu)]
    pub device: Device,
    #[command(flatten)]
    pub config: Config,
}

/// Turn text into token ids
///
/// Reads text from stdin and prints a JSON list of ids.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  echo -n 'Hello world' | downshift tokenize -m model.gguf
  echo -n '<|im_start|>user' | downshift tokenize -m model.gguf --special")]
pub struct Tokenize {
    /// A GGUF file; one with a vocabulary only will do
    #[arg(short, long, value_name = "FILE")]
    pub model: PathBuf,
    /// Spellings of special tokens become those tokens, and the model's begin and end tokens are added
    #[arg(long)]
    pub special: bool,
}

/// Render a chat template
///
/// Reads {"messages": [..], "tools": [..], "add_generation_prompt": true, any other variable} from stdin and prints the prompt.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("source").required(true).args(["model", "template"]))]
#[command(after_help = "Example:
  echo '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"add_generation_prompt\": true}' |
    downshift template -m model.gguf")]
pub struct Template {
    /// The template of this GGUF file
    #[arg(short, long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// This template
    #[arg(long, value_name = "FILE")]
    pub template: Option<PathBuf>,
    /// What the template takes for the time, as in 2026-01-31T12:00:00Z
    #[arg(long, value_name = "RFC3339", value_parser = wall_clock)]
    pub now: Option<WallClock>,
}

/// Turn texts into vectors
///
/// Reads texts from stdin, one a line, and prints a vector for each: as a line {"index", "embedding"}, as one object in the form
/// of OpenAI's API, or as raw little-endian f32, row by row. A text that is longer than the model's limit is cut there, as
/// sentence-transformers does. When another model answers than the one that was asked, one line on stderr says which and why.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  downshift embed -m all-MiniLM-L6-v2/ < lines.txt > vectors.jsonl
  echo 'a cat' | downshift embed -m embed --format json | jq '.data[0].embedding | length'
  downshift embed -m embed --format raw < lines.txt > vectors.f32")]
pub struct Embed {
    /// Name or alias from models.toml, or a folder with config.json, tokenizer.json, modules.json and *.safetensors
    #[arg(short, long, value_name = "NAME|FOLDER")]
    pub model: String,
    /// What is printed
    #[arg(short, long, value_name = "FORMAT", default_value = "jsonl")]
    pub format: VectorFormat,
    /// auto, cpu, cuda, cuda:N or metal, for every model asked
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    #[command(flatten)]
    pub config: Config,
    #[command(flatten)]
    pub isolation: Isolation,
}

/// How vectors are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum VectorFormat {
    /// A line {"index", "embedding"} each
    Jsonl,
    /// One object, as OpenAI's API answers
    Json,
    /// Little-endian f32, row by row
    Raw,
}

/// Show what downshift finds on this machine
///
/// Instruction set, threads, memory and what limits it, devices, and which models.toml is used.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  downshift doctor")]
pub struct Doctor {
    #[command(flatten)]
    pub config: Config,
}

#[derive(Debug, clap::Args)]
pub struct Config {
    /// This models.toml; otherwise $DOWNSHIFT_CONFIG, ./models.toml, or that of the user's configuration folder
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct Isolation {
    /// Run the model in this process instead of one of its own
    #[arg(long)]
    pub in_process: bool,
}

fn positive() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

fn temperature(text: &str) -> Result<f32, String> {
    let found = text.parse().ok().filter(|t: &f32| t.is_finite() && *t >= 0.0);
    found.ok_or_else(|| "expected a number that is not negative".to_owned())
}

fn wall_clock(text: &str) -> Result<WallClock, String> {
    WallClock::parse_rfc3339(text).ok_or_else(|| "expected a time such as 2026-01-31T12:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Args::command().debug_assert();
    }
}
