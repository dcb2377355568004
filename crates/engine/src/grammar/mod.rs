//! What an answer must look like, as a mask over the vocabulary: JSON, JSON under a schema, a Lark grammar, a call of a tool.
//!
//! Owns the limits of what callers may ask, the vocabulary as a trie, and the state of one answer ([`Guide`]). The parsing
//! itself is llguidance's. Does not own how a model spells calls and thoughts ([`crate::output`]), nor the drawing of tokens.
//! Nothing is ever fetched: a reference that leaves its schema is refused.

mod guide;
mod limits;
mod plan;
mod vocabulary;

use std::sync::OnceLock;
use std::thread;

use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;

pub(crate) use guide::Guide;
pub(crate) use plan::{guide, offered};

use crate::error::Error;
use crate::tokenizer::Tokenizer;

/// Reading a schema is recursive; this much stack suffices for everything within the limits.
const COMPILER_STACK_BYTES: usize = 64 << 20;

/// Most states of a grammar's lexer, of about 2 KiB each.
const MAX_LEXER_STATES: usize = 20_000;

/// White space between two tokens of JSON: a space, or a new line with its indentation. Models that have nothing to say would
/// write it without end.
const WHITE_SPACE: &str = r"[\x20]|\x0A[\x20\x09]{0,20}";

/// Compiles grammars for one model. Its vocabulary is read when the first one is asked for.
#[derive(Default)]
pub(crate) struct Grammars {
    factory: OnceLock<Result<ParserFactory, String>>,
}

impl Grammars {
    fn factory(&self, tokenizer: &Tokenizer) -> Result<&ParserFactory, Error> {
        let factory = self.factory.get_or_init(|| vocabulary::factory(tokenizer));
        factory.as_ref().map_err(|reason| Error::CannotDo { reason: reason.clone() })
    }

    /// The parser of a grammar, at its start. `what` names its part of the request.
    ///
    /// # Errors
    /// [`Error::Format`] with the reason where it is no grammar, is too large, or nothing satisfies it;
    /// [`Error::CannotDo`] where the vocabulary is not fit for grammars.
    fn compile(&self, tokenizer: &Tokenizer, what: &'static str, grammar: TopLevelGrammar) -> Result<Matcher, Error> {
        let factory = self.factory(tokenizer)?;
        let compile = || {
            let mut matcher = Matcher::new(factory.create_parser(grammar));
            match matcher.get_error() {
                Some(reason) => Err(reason),
                None => matcher.compute_mask().map(|_| matcher).map_err(|error| error.to_string()),
            }
        };
        let compiled = thread::scope(|scope| {
            let compiler = thread::Builder::new().name("grammar".into()).stack_size(COMPILER_STACK_BYTES);
            let thread = compiler.spawn_scoped(scope, compile).map_err(|error| error.to_string())?;
            thread.join().unwrap_or_else(|_| Err("the compiler panicked".into()))
        });
        compiled.map_err(|reason| Error::Format { what, reason: readable(&reason) })
    }
}

/// What llguidance says, as one line, without what only its authors can use.
fn readable(reason: &str) -> String {
    const MAX_LINES: usize = 6;
    const MAX_LINE_BYTES: usize = 100;
    if reason.contains("NoExtensionBias") {
        return "nothing satisfies it".into();
    }
    let lines = reason.lines().map(str::trim).filter(|line| !line.is_empty() && *line != "<non-verbose/>");
    let short = |line: &str| match line.len() > MAX_LINE_BYTES {
        true => format!("{} ..", &line[..line.floor_char_boundary(MAX_LINE_BYTES)]),
        false => line.to_owned(),
    };
    lines.take(MAX_LINES).map(short).collect::<Vec<_>>().join("; ")
}

/// A schema with the white space that is allowed in its JSON.
fn with_white_space(mut schema: Value) -> Value {
    if let Value::Object(fields) = &mut schema {
        fields.insert("x-guidance".into(), serde_json::json!({ "whitespace_pattern": WHITE_SPACE }));
    }
    schema
}
