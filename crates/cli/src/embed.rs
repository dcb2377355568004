//! `downshift embed`: texts on stdin, one a line; their vectors on stdout.

use std::io::{self, BufRead, IsTerminal, Read, Write, stdin, stdout};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use downshift::{Embed, Embeddings, Error, Fallback};
use serde::Serialize;

use crate::args::{self, VectorFormat};
use crate::setup::{self, Overrides};
use crate::{chat, terminal};

/// A longer line is a file that has none.
const MAX_LINE_BYTES: u64 = 16 << 20;
/// A request ends with the line that reaches one of these.
const REQUEST_LINES: usize = 256;
const REQUEST_BYTES: usize = 1 << 20;

pub fn run(args: &args::Embed) -> Result<ExitCode> {
    let overrides = Overrides { device: args.device, in_process: args.isolation.in_process, ..Overrides::default() };
    let setup = setup::engine(Some(&args.model), &args.config, overrides)?;
    if args.format == VectorFormat::Raw && stdout().is_terminal() {
        bail!("raw vectors are no text; write them to a file, or take another --format");
    }
    if stdin().is_terminal() {
        terminal::note("Texts, one a line; Ctrl-D ends them.");
    }
    let mut input = stdin().lock();
    let mut writer = Writer::new(args.format, stdout().lock());
    let mut told = None;
    loop {
        let texts = read_texts(&mut input, writer.n_written)?;
        if texts.is_empty() {
            break;
        }
        let ask = Embed::texts(texts);
        match setup.engine.embed(setup.model.iter().fold(ask, |ask, model| ask.model(model))) {
            Ok(found) => {
                announce(&found, &mut told);
                writer.write(found)?;
            }
            Err(Error::Refused(refused)) => {
                chat::refusal(&refused);
                return Ok(ExitCode::FAILURE);
            }
            Err(error) => return Err(error.into()),
        }
    }
    if writer.n_written == 0 {
        bail!("there are no texts on stdin; give one a line");
    }
    writer.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// The texts of the next request; none at the end of the input.
fn read_texts(input: &mut impl BufRead, n_before: usize) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    let mut size = 0;
    while texts.len() < REQUEST_LINES && size < REQUEST_BYTES {
        let number = n_before + texts.len() + 1;
        let mut line = Vec::new();
        input.by_ref().take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line).context("cannot read stdin")?;
        if line.is_empty() {
            break;
        }
        if line.len() as u64 > MAX_LINE_BYTES {
            bail!("line {number} on stdin is longer than {MAX_LINE_BYTES} bytes");
        }
        size += line.len();
        let text = String::from_utf8(line).map_err(|_| anyhow::anyhow!("line {number} on stdin is not UTF-8"))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        texts.push(text.strip_suffix('\r').unwrap_or(text).to_owned());
    }
    Ok(texts)
}

/// One line where a gear was dropped, unless the same model answered so before.
fn announce(found: &Embeddings, told: &mut Option<String>) {
    let Some(fallback) = &found.fallback else { return };
    if told.as_ref() != Some(&found.model) {
        let reasons: Vec<String> = fallback.attempts.iter().map(ToString::to_string).collect();
        terminal::note(&format!("{} answers instead: {}", found.model, reasons.join("; ")));
        *told = Some(found.model.clone());
    }
}

/// Writes vectors as they come, but for the form that is one object.
struct Writer<W> {
    format: VectorFormat,
    out: W,
    n_written: usize,
    reply: Option<Reply>,
}

#[derive(Serialize)]
struct Row {
    index: usize,
    embedding: Vec<f32>,
}

/// What OpenAI's API answers, and the fallback.
#[derive(Serialize)]
struct Reply {
    object: &'static str,
    data: Vec<Object>,
    model: String,
    usage: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<Fallback>,
}

#[derive(Serialize)]
struct Object {
    object: &'static str,
    #[serde(flatten)]
    row: Row,
}

#[derive(Default, Serialize)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

impl<W: Write> Writer<W> {
    fn new(format: VectorFormat, out: W) -> Self {
        Self { format, out, n_written: 0, reply: None }
    }

    fn write(&mut self, found: Embeddings) -> io::Result<()> {
        let first = self.n_written;
        self.n_written += found.vectors.len();
        let rows = found.vectors.into_iter().zip(first..).map(|(embedding, index)| Row { index, embedding });
        match self.format {
            VectorFormat::Jsonl => {
                for row in rows {
                    serde_json::to_writer(&mut self.out, &row)?;
                    writeln!(self.out)?;
                }
            }
            VectorFormat::Raw => {
                for row in rows {
                    let bytes: Vec<u8> = row.embedding.iter().flat_map(|x| x.to_le_bytes()).collect();
                    self.out.write_all(&bytes)?;
                }
            }
            VectorFormat::Json => {
                let reply = self.reply.get_or_insert_with(|| Reply {
                    object: "list",
                    data: Vec::new(),
                    model: String::new(),
                    usage: Usage::default(),
                    fallback: None,
                });
                reply.model = found.model;
                reply.usage.prompt_tokens += u64::from(found.usage.prompt_tokens);
                reply.usage.total_tokens = reply.usage.prompt_tokens;
                reply.fallback = found.fallback.or(reply.fallback.take());
                reply.data.extend(rows.map(|row| Object { object: "embedding", row }));
            }
        }
        self.out.flush()
    }

    fn finish(mut self) -> io::Result<()> {
        if let Some(reply) = &self.reply {
            serde_json::to_writer(&mut self.out, reply)?;
            writeln!(self.out)?;
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_text_and_requests_have_a_limit() {
        let read = |input: &str, n_before| read_texts(&mut input.as_bytes(), n_before).unwrap();
        assert_eq!(read("a\r\n\nlast", 0), ["a", "", "last"]);
        assert!(read("", 0).is_empty());
        assert_eq!(read(&"x\n".repeat(REQUEST_LINES + 1), 0).len(), REQUEST_LINES);
        assert_eq!(read(&format!("{}\nb\n", "y".repeat(REQUEST_BYTES)), 0).len(), 1);
        let error = read_texts(&mut &b"ok\n\xff\n"[..], 10).unwrap_err();
        assert!(error.to_string().contains("line 12"), "{error}");
    }
}
