//! What a program asks: a conversation or a text, and how it is to be answered.

use std::time::Duration;

use downshift_scheduler::{Options, Submission};
use downshift_worker::{Input, Message, Prompt, Request, RequestId, ResponseFormat, SamplingParams, ToolChoice};
use serde_json::{Map, Value};

/// A question with its options. See [`Chat`] and [`Completion`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ask<I> {
    input: I,
    models: Vec<String>,
    options: Options,
    sampling: SamplingParams,
    max_tokens: Option<u32>,
    stop: Vec<String>,
    logprobs: Option<u8>,
    format: ResponseFormat,
}

/// A conversation to be answered through the model's chat template. A `&str` becomes one turn of the user.
///
/// ```
/// use downshift::{Chat, Message};
/// let chat = Chat::new().system("Answer in one word.").user("Capital of France?").model("chat").temperature(0.0).max_tokens(8);
/// let same: Chat = vec![Message::system("Answer in one word."), Message::user("Capital of France?")].into();
/// # assert_ne!(chat, same);
/// ```
pub type Chat = Ask<Conversation>;

/// A text to be continued as it is. A `&str` becomes one.
///
/// ```
/// use downshift::Completion;
/// let completion = Completion::text("Once upon a time").stop("\n").max_tokens(40);
/// ```
pub type Completion = Ask<Text>;

/// Texts to be turned into vectors. A `&str`, a `Vec<String>` or an array of `&str` becomes one.
///
/// ```
/// use downshift::Embed;
/// let embed = Embed::texts(["a cat", "a kitten"]).model("embed");
/// ```
pub type Embed = Ask<Texts>;

/// The texts of an [`Embed`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Texts(Vec<Prompt>);

/// The turns of a [`Chat`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    messages: Vec<Message>,
    tools: Vec<Value>,
    tool_choice: ToolChoice,
    variables: Map<String, Value>,
}

/// The prompt of a [`Completion`].
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    prompt: Prompt,
    suffix: Option<String>,
}

impl Default for Text {
    fn default() -> Self {
        Prompt::Text(String::new()).into()
    }
}

impl From<Prompt> for Text {
    fn from(prompt: Prompt) -> Self {
        Self { prompt, suffix: None }
    }
}

impl From<Conversation> for Input {
    fn from(conversation: Conversation) -> Self {
        let Conversation { messages, tools, tool_choice, variables } = conversation;
        Self::Chat { messages, tools, tool_choice, variables }
    }
}

impl From<Text> for Input {
    fn from(text: Text) -> Self {
        match text {
            Text { prompt, suffix: None } => Self::Completion(prompt),
            Text { prompt: prefix, suffix: Some(suffix) } => Self::Infill { prefix, suffix },
        }
    }
}

impl Chat {
    /// An empty conversation.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what the model is told before the conversation.
    pub fn system(self, content: impl Into<String>) -> Self {
        self.message(Message::system(content))
    }

    /// Adds what the user says.
    pub fn user(self, content: impl Into<String>) -> Self {
        self.message(Message::user(content))
    }

    /// Adds what the model said.
    pub fn assistant(self, content: impl Into<String>) -> Self {
        self.message(Message::assistant(content))
    }

    /// Adds a turn.
    pub fn message(mut self, message: Message) -> Self {
        self.input.messages.push(message);
        self
    }

    /// Offers tools, in OpenAI's JSON form.
    pub fn tools(mut self, tools: impl IntoIterator<Item = Value>) -> Self {
        self.input.tools = tools.into_iter().collect();
        self
    }

    /// Whether the model calls one of the tools; by default as it likes.
    pub fn tool_choice(mut self, choice: ToolChoice) -> Self {
        self.input.tool_choice = choice;
        self
    }

    /// Sets a variable of the chat template, such as `enable_thinking`.
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.input.variables.insert(name.into(), value.into());
        self
    }
}

impl Completion {
    /// Continues a text; spellings of special tokens in it are plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { input: Prompt::Text(text.into()).into(), ..Self::default() }
    }

    /// Continues tokens of the model's own vocabulary; models with another one are skipped.
    pub fn tokens(token_ids: impl Into<Vec<u32>>) -> Self {
        Self { input: Prompt::Tokens(token_ids.into()).into(), ..Self::default() }
    }

    /// What is missing before this text is asked for; models whose vocabulary has no fill-in-the-middle tokens are skipped.
    ///
    /// ```
    /// use downshift::Completion;
    /// let completion = Completion::text("fn double(x: u32) -> u32 {\n    ").suffix("\n}\n").max_tokens(40);
    /// ```
    pub fn suffix(mut self, suffix: impl Into<String>) -> Self {
        self.input.suffix = Some(suffix.into());
        self
    }
}

impl Embed {
    /// Asks for one vector per text.
    pub fn texts<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self { input: Texts(texts.into_iter().map(|text| Prompt::Text(text.into())).collect()), ..Self::default() }
    }

    /// Asks for one vector per list of token ids of the model's own vocabulary, which are read as they are; other models are
    /// skipped.
    pub fn tokens<T: Into<Vec<u32>>>(inputs: impl IntoIterator<Item = T>) -> Self {
        Self { input: Texts(inputs.into_iter().map(|token_ids| Prompt::Tokens(token_ids.into())).collect()), ..Self::default() }
    }

    pub(crate) fn into_parts(self) -> (Vec<Prompt>, Vec<String>, Options) {
        (self.input.0, self.models, self.options)
    }
}

impl<I> Ask<I> {
    /// The model to ask, by name or alias.
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.models = vec![name.into()];
        self
    }

    /// The models to ask, in this order: the first is primary, the rest replace its fallbacks.
    pub fn models<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.models = names.into_iter().map(Into::into).collect();
        self
    }

    /// Replaces the fallbacks of the model for this request.
    pub fn fallbacks<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.options.fallbacks = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Asks no other model than the first.
    pub fn disable_fallbacks(mut self) -> Self {
        self.options.disable_fallbacks = true;
        self
    }

    /// How often the same model may be tried again.
    pub fn num_retries(mut self, retries: u32) -> Self {
        self.options.num_retries = Some(retries);
        self
    }

    /// Time for the whole request, all attempts; zero means none.
    pub fn timeout(mut self, time: Duration) -> Self {
        self.options.timeout = Some(time);
        self
    }

    /// Lets the first model fail on purpose, to see the fallback at work.
    pub fn mock_testing_fallbacks(mut self) -> Self {
        self.options.mock_testing_fallbacks = true;
        self
    }

    /// Most tokens to generate.
    pub fn max_tokens(mut self, tokens: u32) -> Self {
        self.max_tokens = Some(tokens);
        self
    }

    /// Ends the answer before this string; several may be given. They are looked for in the content, not in thoughts or calls.
    pub fn stop(mut self, text: impl Into<String>) -> Self {
        self.stop.push(text.into());
        self
    }

    /// 0 takes the most likely token.
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.sampling.temperature = Some(temperature);
        self
    }

    /// Makes the answer repeatable.
    pub fn seed(mut self, seed: u64) -> Self {
        self.sampling.seed = Some(seed);
        self
    }

    /// All sampling parameters; what is open is taken from models.toml, then from the defaults.
    pub fn sampling(mut self, sampling: SamplingParams) -> Self {
        self.sampling = sampling;
        self
    }

    /// What the answer must look like: JSON, JSON under a schema, a sentence of a grammar. Tokens that would break it are never
    /// drawn; an answer that `max_tokens` cuts short is the beginning of one. A model that thinks does so freely before.
    ///
    /// ```
    /// use downshift::{Chat, ResponseFormat};
    /// let schema = serde_json::json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    /// let chat = Chat::from("Where is the Louvre?").format(ResponseFormat::JsonSchema(schema));
    /// ```
    pub fn format(mut self, format: ResponseFormat) -> Self {
        self.format = format;
        self
    }

    /// Reports the log-probability of each token, with this many alternatives.
    pub fn logprobs(mut self, alternatives: u8) -> Self {
        self.logprobs = Some(alternatives);
        self
    }
}

impl<I: Into<Input>> Ask<I> {
    pub(crate) fn submission(self, id: RequestId, stream: bool) -> Submission {
        let Self { input, models, options, sampling, max_tokens, stop, logprobs, format } = self;
        let request = Request { sampling, max_tokens, stop, logprobs, format, ..Request::new(id, input.into()) };
        Submission { request, models, options: Options { stream, ..options } }
    }
}

impl From<&str> for Chat {
    fn from(question: &str) -> Self {
        Self::new().user(question)
    }
}

impl From<String> for Chat {
    fn from(question: String) -> Self {
        Self::new().user(question)
    }
}

impl From<Vec<Message>> for Chat {
    fn from(messages: Vec<Message>) -> Self {
        messages.into_iter().fold(Self::new(), Self::message)
    }
}

impl From<&str> for Completion {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Completion {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<&str> for Embed {
    fn from(text: &str) -> Self {
        Self::texts([text])
    }
}

impl From<Vec<String>> for Embed {
    fn from(texts: Vec<String>) -> Self {
        Self::texts(texts)
    }
}

impl<const N: usize> From<[&str; N]> for Embed {
    fn from(texts: [&str; N]) -> Self {
        Self::texts(texts)
    }
}
