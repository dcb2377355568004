//! Turns messages into the prompt that a model was trained on, with the template of its file.
//!
//! Text from the caller never becomes a control token: the interpreter marks which bytes of the prompt came
//! from the caller, and every control-token spelling that touches them is handed over as plain text. Marking
//! was chosen over replacing the spellings beforehand because templates look into messages (`split`, `in`,
//! `length`, `tojson`), and should see what was written.
//! Does not own the tokenizer, nor which messages there are.

mod clock;
mod jinja;

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use serde_json::{Map, Value};

pub use clock::WallClock;
pub use jinja::Limit;
use jinja::{Fault, Template, Variable};

/// The special tokens of a model, as text.
#[derive(Clone, Debug, Default)]
pub struct Specials {
    /// What `bos_token` is in the template.
    pub bos_token: Option<String>,
    /// What `eos_token` is in the template.
    pub eos_token: Option<String>,
    /// The spelling of every CONTROL token (not of USER_DEFINED ones such as `<think>`).
    pub control: Vec<String>,
}

/// A template, ready to render.
pub struct ChatTemplate {
    source: String,
    template: Template,
    specials: Specials,
    control: Spellings,
}

/// A rendered prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// In order; neighbours differ in kind unless two spellings by the caller touch.
    pub pieces: Vec<Piece>,
}

/// A part of a prompt, to be tokenized on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Special tokens in it are tokens.
    Template(String),
    /// A control token's spelling that came from the caller: plain text.
    User(String),
}

/// Why there is no prompt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template is not valid Jinja2.
    #[error("chat template, line {line}: {message}")]
    Syntax {
        /// 1-based line of the source.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The template refused the messages with `raise_exception`; this is its own sentence.
    #[error("the chat template refuses the messages: {0}")]
    Raised(String),
    /// An operation failed, as it would in Python.
    #[error("chat template, line {line}: {message}")]
    Render {
        /// 1-based line of the statement.
        line: usize,
        /// What failed.
        message: String,
    },
    /// The template or its input is larger, deeper or slower than allowed.
    #[error("chat template exceeds its limit of {limit}")]
    Limit {
        /// Of what.
        limit: Limit,
    },
}

const CHATML: &str = "{%- for message in messages %}{{ '<|im_start|>' ~ message.role ~ '\n' }}\
{%- if message.content is string %}{{ message.content }}\
{%- else %}{% for part in message.content or [] %}{{ part.text }}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}\
{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

const PLAIN_ROLES: &str = "{%- for message in messages %}{{ message.role | capitalize ~ ': ' }}\
{%- if message.content is string %}{{ message.content }}\
{%- else %}{% for part in message.content or [] %}{{ part.text }}{% endfor %}{% endif %}{{ '\n' }}\
{%- endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}";

impl ChatTemplate {
    /// Compiles `source`.
    ///
    /// # Errors
    /// `Syntax` if it is not Jinja2, `Limit` if it is too long or too deeply nested.
    pub fn parse(source: &str, specials: Specials) -> Result<Self, TemplateError> {
        let template = Template::parse(source).map_err(|fault| match fault.into() {
            TemplateError::Render { line, message } => TemplateError::Syntax { line, message },
            other => other,
        })?;
        let control = Spellings::new(&specials.control);
        Ok(Self { source: source.into(), template, specials, control })
    }

    /// The ChatML format, for files without a template whose vocabulary has its tokens.
    pub fn chatml(specials: Specials) -> Self {
        Self::built_in(CHATML, specials)
    }

    /// `Role: text` lines, for files without a template or ChatML's tokens.
    pub fn plain_roles(specials: Specials) -> Self {
        Self::built_in(PLAIN_ROLES, specials)
    }

    fn built_in(source: &str, specials: Specials) -> Self {
        Self::parse(source, specials).unwrap_or_else(|error| unreachable!("built-in template: {error}"))
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt for `vars`: `messages`, `tools`, `add_generation_prompt` and whatever else the template
    /// knows. All text in them is the caller's, except that of `bos_token` and `eos_token`, which replace the
    /// model's. `now` is what `strftime_now` tells.
    ///
    /// # Errors
    /// `Raised` if the template refuses the messages, `Render` if an operation fails, `Limit` if it takes too
    /// much.
    pub fn render(&self, vars: &Map<String, Value>, now: &WallClock) -> Result<Prompt, TemplateError> {
        let own: Vec<(&str, Value)> = [("bos_token", &self.specials.bos_token), ("eos_token", &self.specials.eos_token)]
            .into_iter()
            .filter_map(|(name, token)| token.as_ref().map(|t| (name, Value::from(t.as_str()))))
            .collect();
        let mut variables: Vec<Variable<'_>> = own.iter().map(|(name, value)| Variable { name, value, trusted: true }).collect();
        variables.extend(vars.iter().map(|(name, value)| Variable {
            name,
            value,
            trusted: matches!(name.as_str(), "bos_token" | "eos_token"),
        }));
        let (text, from_caller) = self.template.render(&variables, &|format| now.strftime(format))?;
        Ok(self.control.cut(&text, &from_caller))
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Prompt {
    /// The whole prompt as text.
    pub fn text(&self) -> String {
        self.pieces
            .iter()
            .map(|piece| match piece {
                Piece::Template(text) | Piece::User(text) => text.as_str(),
            })
            .collect()
    }
}

impl From<Fault> for TemplateError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Raised(message) => Self::Raised(message),
            Fault::Error { message, line } => Self::Render { line: line.unwrap_or(1), message },
            Fault::Limit(limit) => Self::Limit { limit },
        }
    }
}

/// The control tokens' spellings, to be found in text.
struct Spellings {
    spellings: HashSet<String>,
    /// The lengths that occur, longest first.
    lens: Vec<usize>,
    first_bytes: [bool; 256],
}

impl Spellings {
    fn new(control: &[String]) -> Self {
        let spellings: HashSet<String> = control.iter().filter(|s| !s.is_empty()).cloned().collect();
        let mut lens: Vec<usize> = spellings.iter().map(String::len).collect();
        lens.sort_unstable_by(|a, b| b.cmp(a));
        lens.dedup();
        let mut first_bytes = [false; 256];
        for spelling in &spellings {
            first_bytes[usize::from(spelling.as_bytes()[0])] = true;
        }
        Self { spellings, lens, first_bytes }
    }

    /// The longest spelling at `at`.
    fn longest_at(&self, text: &str, at: usize) -> Option<usize> {
        self.lens.iter().copied().find(|len| text.get(at..at + len).is_some_and(|s| self.spellings.contains(s)))
    }

    /// Cuts out the spellings that touch the ranges `from_caller`, which are ascending and disjoint.
    fn cut(&self, text: &str, from_caller: &[(u32, u32)]) -> Prompt {
        let mut pieces = Vec::new();
        let (mut at, mut kept, mut range) = (0, 0, 0);
        while at < text.len() {
            let found = if self.first_bytes[usize::from(text.as_bytes()[at])] { self.longest_at(text, at) } else { None };
            let Some(len) = found else {
                at += 1;
                continue;
            };
            while from_caller.get(range).is_some_and(|r| r.1 as usize <= at) {
                range += 1;
            }
            if from_caller.get(range).is_some_and(|r| (r.0 as usize) < at + len) {
                if kept < at {
                    pieces.push(Piece::Template(text[kept..at].into()));
                }
                pieces.push(Piece::User(text[at..at + len].into()));
                kept = at + len;
            }
            at += len;
        }
        if kept < text.len() {
            pieces.push(Piece::Template(text[kept..].into()));
        }
        Prompt { pieces }
    }
}
