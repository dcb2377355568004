//! From what a caller asks to token ids: the chat template and the tokenizer of one model, without its weights.

use std::path::Path;

use downshift_worker::{Input, Message, Prompt, Role, ToolChoice};
use serde_json::{Map, Value};

use crate::chat_template::{self, ChatTemplate, Piece, Specials, TemplateError, WallClock};
use crate::error::Error;
use crate::grammar::Grammars;
use crate::output::{Dialect, Thought};
use crate::tokenizer::{Special, Tokenizer};
use crate::tools_in_words;
use crate::weights::Metadata;

/// A chat template is text that people write; more is an attack.
const MAX_TEMPLATE_BYTES: u64 = 1 << 20;

/// Builds prompts for one model.
pub struct PromptBuilder {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    has_own_template: bool,
    dialect: Dialect,
    grammars: Grammars,
}

/// A prompt, and how the answer stands at its end.
pub(crate) struct Prepared {
    /// The prompt.
    pub token_ids: Vec<u32>,
    /// Whether the answer begins within a thought.
    pub thought: Thought,
}

impl PromptBuilder {
    /// The tokenizer and template of a file; `chat_template` replaces the latter. A file without a template gets ChatML if its
    /// vocabulary has the markers, else plain roles. Both are tried once, so that a broken file is known before it is asked.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], [`Error::Template`]; [`Error::Read`] for the replacing file.
    pub fn from_metadata(metadata: &Metadata, chat_template: Option<&Path>) -> Result<Self, Error> {
        let tokenizer = Tokenizer::from_metadata(metadata)?;
        let piece = |id: Option<u32>| id.and_then(|id| tokenizer.piece(id)).map(str::to_owned);
        let specials = Specials {
            bos_token: piece(tokenizer.bos()),
            eos_token: piece(tokenizer.eos()),
            control: tokenizer.control_spellings().map(str::to_owned).collect(),
        };
        let source = match chat_template {
            Some(path) => Some(read_template(path)?),
            None => metadata.string("tokenizer.chat_template")?.map(str::to_owned),
        };
        let has_own_template = source.is_some();
        let dialect = Dialect::of(source.as_deref().unwrap_or_default(), &tokenizer);
        let template = match source {
            Some(source) => ChatTemplate::parse(&source, specials)?,
            None if tokenizer.token_id("<|im_start|>").is_some() && tokenizer.token_id("<|im_end|>").is_some() => {
                ChatTemplate::chatml(specials)
            }
            None => ChatTemplate::plain_roles(specials),
        };
        let builder = Self { tokenizer, template, has_own_template, dialect, grammars: Grammars::default() };
        if builder.encode(&Input::chat(vec![Message::user("Hello")]))?.is_empty() {
            return Err(TemplateError::Render { line: 1, message: "it makes an empty prompt of a greeting".into() }.into());
        }
        Ok(builder)
    }

    /// Whether the template came with the model rather than from the defaults.
    pub fn has_own_template(&self) -> bool {
        self.has_own_template
    }

    /// Whether the template hears of tools. Where it does not, the model is told in words.
    pub fn calls_tools(&self) -> bool {
        self.dialect.tools.is_some()
    }

    /// Whether the model fills gaps: see [`Tokenizer::infill`].
    pub fn infills(&self) -> bool {
        self.tokenizer.infill().is_some()
    }

    /// The forms in which the model writes thoughts and calls.
    pub(crate) fn dialect(&self) -> &Dialect {
        &self.dialect
    }

    /// Grammars over the vocabulary.
    pub(crate) fn grammars(&self) -> &Grammars {
        &self.grammars
    }

    /// The template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Ids of a prompt, the sequence's begin token included where the model wants one.
    ///
    /// # Errors
    /// [`Error::Template`] where the template refuses the messages; [`Error::TokenId`] for an id outside the vocabulary;
    /// [`Error::CannotDo`] for a gap where the vocabulary has no tokens that ask for its filling.
    pub fn encode(&self, input: &Input) -> Result<Vec<u32>, Error> {
        Ok(self.prepare(input)?.token_ids)
    }

    /// As [`PromptBuilder::encode`], with what the prompt's end means for the answer.
    ///
    /// # Errors
    /// As [`PromptBuilder::encode`].
    pub(crate) fn prepare(&self, input: &Input) -> Result<Prepared, Error> {
        let mut ids = Vec::new();
        let mut thought = Thought::Over;
        match input {
            Input::Completion(Prompt::Tokens(tokens)) => ids.extend(self.checked(tokens)?),
            Input::Completion(Prompt::Text(text)) => {
                ids.extend(self.tokenizer.bos().filter(|_| self.tokenizer.add_bos()));
                self.tokenizer.encode(text, Special::Plain, &mut ids);
            }
            Input::Infill { prefix, suffix } => {
                let tokens = self.tokenizer.infill().ok_or_else(|| Error::CannotDo { reason: Input::NO_INFILL.into() })?;
                ids.extend(self.tokenizer.begin());
                ids.push(tokens.prefix);
                match prefix {
                    Prompt::Text(text) => self.tokenizer.encode(text, Special::Plain, &mut ids),
                    Prompt::Tokens(tokens) => ids.extend(self.checked(tokens)?),
                }
                ids.push(tokens.suffix);
                self.tokenizer.encode_within(suffix, &mut ids);
                ids.push(tokens.middle);
            }
            Input::Chat { messages, tools, tool_choice, variables } => {
                let prompt = self.rendered(messages, offered(tools, tool_choice), variables)?;
                ids.extend(self.tokenizer.bos().filter(|_| self.tokenizer.add_bos()));
                thought = self.dialect.thought(&prompt.text());
                let bos = ids.len();
                for piece in &prompt.pieces {
                    match piece {
                        Piece::Template(text) => self.tokenizer.encode(text, Special::Parse, &mut ids),
                        Piece::User(text) => self.tokenizer.encode(text, Special::Plain, &mut ids),
                    }
                }
                // Templates that write the begin token themselves must not get it twice.
                if bos == 1 && ids.get(1) == ids.first() {
                    ids.remove(0);
                }
            }
        }
        Ok(Prepared { token_ids: ids, thought })
    }

    fn rendered(&self, messages: &[Message], tools: &[Value], variables: &Map<String, Value>) -> Result<chat_template::Prompt, Error> {
        let variables = chat_variables(messages, tools, variables, !self.calls_tools())?;
        Ok(self.template.render(&variables, &WallClock::now())?)
    }

    /// Ids of text; with `special`, spellings of special tokens become those tokens.
    pub fn tokenize(&self, text: &str, special: bool) -> Vec<u32> {
        let mut ids = Vec::new();
        self.tokenizer.encode(text, if special { Special::Parse } else { Special::Plain }, &mut ids);
        ids
    }

    /// What another model has written to fill a gap.
    pub(crate) fn filled(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        self.tokenizer.encode_within(text, &mut ids);
        ids
    }

    /// What another model has written, as this one would have written it: its thought, then its answer. A thought without an
    /// answer goes on. A model that does not think, or was told not to, continues the answer alone.
    pub(crate) fn continued(&self, reasoning: &str, text: &str, thought: Thought) -> Vec<u32> {
        let Some(tags) = self.dialect.thinking.as_ref().filter(|_| thought != Thought::Over && !reasoning.is_empty()) else {
            return self.tokenize(text, false);
        };
        let mut ids = Vec::new();
        if thought == Thought::Open {
            self.tokenizer.encode(tags.open.text, Special::Parse, &mut ids);
            self.tokenizer.encode("\n", Special::Plain, &mut ids);
        }
        self.tokenizer.encode(reasoning, Special::Plain, &mut ids);
        if !text.is_empty() {
            self.tokenizer.encode("\n", Special::Plain, &mut ids);
            self.tokenizer.encode(tags.close.text, Special::Parse, &mut ids);
            self.tokenizer.encode(&format!("\n\n{text}"), Special::Plain, &mut ids);
        }
        ids
    }

    /// Text of ids.
    ///
    /// # Errors
    /// [`Error::TokenId`] for an id outside the vocabulary.
    pub fn detokenize(&self, ids: &[u32]) -> Result<String, Error> {
        Ok(self.text(self.checked(ids)?))
    }

    /// `ids`, all of the vocabulary.
    fn checked<'i>(&self, ids: &'i [u32]) -> Result<&'i [u32], Error> {
        let n_vocab = self.tokenizer.n_vocab();
        match ids.iter().find(|&&id| id as usize >= n_vocab) {
            Some(&id) => Err(Error::TokenId { id, n_vocab }),
            None => Ok(ids),
        }
    }

    fn text(&self, ids: &[u32]) -> String {
        String::from_utf8_lossy(&self.tokenizer.decode(ids, false)).into_owned()
    }

    /// The text that the template makes of a conversation; of a completion its own text; of a gap that of the whole prompt.
    ///
    /// # Errors
    /// As [`PromptBuilder::encode`].
    pub fn render(&self, input: &Input) -> Result<String, Error> {
        Ok(match input {
            Input::Chat { messages, tools, tool_choice, variables } => {
                self.rendered(messages, offered(tools, tool_choice), variables)?.text()
            }
            Input::Completion(Prompt::Text(text)) => text.clone(),
            Input::Completion(Prompt::Tokens(ids)) => self.text(ids),
            Input::Infill { .. } => self.text(&self.encode(input)?),
        })
    }
}

/// The tools that the template hears of.
fn offered<'a>(tools: &'a [Value], choice: &ToolChoice) -> &'a [Value] {
    if *choice == ToolChoice::None { &[] } else { tools }
}

fn read_template(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Read { path: path.display().to_string(), source };
    let found = std::fs::metadata(path).map_err(failed)?;
    if !found.is_file() {
        return Err(failed(std::io::Error::other("it is no regular file")));
    }
    if found.len() > MAX_TEMPLATE_BYTES {
        let length = found.len();
        return Err(failed(std::io::Error::other(format!("{length} bytes, where a template may have {MAX_TEMPLATE_BYTES}"))));
    }
    std::fs::read_to_string(path).map_err(failed)
}

fn chat_variables(
    messages: &[Message],
    tools: &[Value],
    variables: &Map<String, Value>,
    in_words: bool,
) -> Result<Map<String, Value>, Error> {
    let mut all = variables.clone();
    let turns = messages.iter().map(message_value).collect::<Result<Vec<_>, _>>()?;
    all.insert("messages".into(), Value::Array(if in_words { tools_in_words::told(turns, tools) } else { turns }));
    if !tools.is_empty() && !in_words {
        all.insert("tools".into(), Value::Array(tools.to_vec()));
    }
    // An open assistant turn is continued, not begun again.
    let open = messages.last().is_some_and(|message| message.role == Role::Assistant);
    all.entry("add_generation_prompt").or_insert(Value::Bool(!open));
    Ok(all)
}

fn message_value(message: &Message) -> Result<Value, Error> {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let mut fields = Map::new();
    fields.insert("role".into(), role.into());
    fields.insert("content".into(), plain_content(&message.content)?);
    fields.extend(message.extra.clone());
    if let Some(calls) = fields.get_mut("tool_calls").and_then(Value::as_array_mut) {
        calls.iter_mut().for_each(read_arguments);
    }
    Ok(Value::Object(fields))
}

/// Callers send the arguments of earlier calls as a text of JSON; templates write them as the object that they are.
fn read_arguments(call: &mut Value) {
    let function = if call.get("function").is_some() { &mut call["function"] } else { call };
    let Some(Value::String(text)) = function.get("arguments") else { return };
    if let Ok(arguments @ Value::Object(_)) = serde_json::from_str(text) {
        function["arguments"] = arguments;
    }
}

/// Content in parts as one text, a line each: templates print what they get. Parts that are no text are for other models.
fn plain_content(content: &Value) -> Result<Value, Error> {
    let Value::Array(parts) = content else { return Ok(content.clone()) };
    let text = |part: &Value| match part["type"].as_str() {
        Some("text") => Ok(part["text"].as_str().unwrap_or_default().to_owned()),
        other => Err(Error::Content { found: other.unwrap_or("no type").to_owned() }),
    };
    Ok(Value::String(parts.iter().map(text).collect::<Result<Vec<_>, _>>()?.join("\n")))
}
