//! The table of routes: what each takes and gives, and how it may refuse.

/// A route and what it is for.
pub(super) struct Route {
    pub method: &'static str,
    pub path: &'static str,
    pub summary: &'static str,
    /// Schema of the body.
    pub takes: Option<&'static str>,
    pub gives: Gives,
    /// Content type of a stream, and schema of its pieces.
    pub streams: Option<(&'static str, &'static str)>,
    /// Whether a model answers, or one of its chain, which the headers then tell.
    pub is_answered_by_a_model: bool,
    /// Statuses of refusals beside those that every route of its method has.
    pub refusals: &'static [u16],
}

/// What a route gives.
#[derive(Clone, Copy)]
pub(super) enum Gives {
    /// JSON of this schema.
    Json(&'static str),
    /// Text of one of these content types.
    Text(&'static [&'static str]),
}

/// Whose words a route speaks.
#[derive(Clone, Copy)]
pub(super) enum Dialect {
    OpenAi,
    Anthropic,
    Ollama,
    /// This server's own routes, whose errors are worded as OpenAI's.
    Own,
}

impl Dialect {
    pub const ALL: [Self; 4] = [Self::OpenAi, Self::Anthropic, Self::Ollama, Self::Own];

    pub fn tag(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Ollama => "ollama",
            Self::Own => "server",
        }
    }

    pub fn description(self) -> &'static str {
        match self {
            Self::OpenAi => "OpenAI's API. Nothing is kept between requests.",
            Self::Anthropic => "Anthropic's API.",
            Self::Ollama => "Ollama's API.",
            Self::Own => "How the server and its models stand, and tokens.",
        }
    }

    /// Schema of a refusal.
    pub fn error(self) -> &'static str {
        match self {
            Self::OpenAi | Self::Own => "Error",
            Self::Anthropic => "AnthropicError",
            Self::Ollama => "OllamaError",
        }
    }
}

impl Route {
    const fn get(path: &'static str, summary: &'static str, gives: Gives) -> Self {
        Self { method: "get", path, summary, takes: None, gives, streams: None, is_answered_by_a_model: false, refusals: &[] }
    }

    const fn post(path: &'static str, summary: &'static str, takes: &'static str, gives: &'static str) -> Self {
        Self { method: "post", takes: Some(takes), ..Self::get(path, summary, Gives::Json(gives)) }
    }

    /// A model answers, or the next one of its chain.
    const fn by_models(self) -> Self {
        Self { is_answered_by_a_model: true, refusals: &[404, 500, 504], ..self }
    }

    const fn streams(self, kind: &'static str, pieces: &'static str) -> Self {
        Self { streams: Some((kind, pieces)), ..self }
    }

    const fn refuses(self, refusals: &'static [u16]) -> Self {
        Self { refusals, ..self }
    }

    pub fn dialect(&self) -> Dialect {
        match self.path {
            path if path.starts_with("/v1/messages") => Dialect::Anthropic,
            path if path.starts_with("/v1/") => Dialect::OpenAi,
            path if path.starts_with("/api/") => Dialect::Ollama,
            _ => Dialect::Own,
        }
    }
}

const EVENTS: &str = "text/event-stream";
const LINES: &str = "application/x-ndjson";

pub(super) const ROUTES: &[Route] = &[
    Route::post("/v1/chat/completions", "Answers a conversation", "ChatRequest", "ChatCompletion").by_models().streams(EVENTS, "ChatChunk"),
    Route::post("/v1/completions", "Continues texts or tokens as they are", "CompletionRequest", "Completion")
        .by_models()
        .streams(EVENTS, "CompletionChunk"),
    Route::post("/v1/embeddings", "Turns texts into vectors", "EmbeddingRequest", "Embeddings").by_models(),
    Route::post("/v1/responses", "Answers items", "ResponseRequest", "Response").by_models().streams(EVENTS, "ResponseEvent"),
    Route::post("/v1/responses/input_tokens", "Counts the tokens of an input", "ResponseCountRequest", "ResponseCount")
        .refuses(&[404, 500]),
    Route::get("/v1/models", "Every model, and how it stands", Gives::Json("Models")),
    Route::get("/v1/models/{id}", "One model, by its name or alias", Gives::Json("Model")).refuses(&[404]),
    Route::post("/v1/messages", "Answers a conversation", "MessageRequest", "Message").by_models().streams(EVENTS, "MessageEvent"),
    Route::post("/v1/messages/count_tokens", "Counts the tokens of a conversation", "MessageCountRequest", "MessageCount")
        .refuses(&[404, 500]),
    Route::post("/api/chat", "Answers a conversation; loads the model where there is none", "OllamaChatRequest", "OllamaChat")
        .by_models()
        .streams(LINES, "OllamaChatLine"),
    Route::post("/api/generate", "Answers a prompt; loads the model where there is none", "OllamaGenerateRequest", "OllamaGenerated")
        .by_models()
        .streams(LINES, "OllamaGeneratedLine"),
    Route::post("/api/embed", "Turns texts into vectors", "OllamaEmbedRequest", "OllamaEmbedded").by_models(),
    Route::post("/api/embeddings", "Turns one text into a vector", "OllamaEmbeddingRequest", "OllamaEmbedding").by_models(),
    Route::get("/api/tags", "Every model whose header can be read", Gives::Json("OllamaModels")),
    Route::post("/api/show", "One model", "OllamaShowRequest", "OllamaModel").refuses(&[404]),
    Route::get("/api/ps", "The models in memory", Gives::Json("OllamaModels")),
    Route::get("/api/version", "The version", Gives::Json("OllamaVersion")),
    Route::post("/tokenize", "Text to token ids", "TokenizeRequest", "Tokens").refuses(&[404, 500]),
    Route::post("/detokenize", "Token ids to text", "DetokenizeRequest", "Detokenized").refuses(&[404, 500]),
    Route::post("/apply-template", "A conversation as the prompt that the model reads", "TemplateRequest", "Prompt").refuses(&[404, 500]),
    Route::get("/health", "Whether the server lives", Gives::Json("Health")),
    Route::get("/ready", "Which models of the default one's chain can answer", Gives::Json("Ready")).refuses(&[503]),
    Route::get("/metrics", "Counts for Prometheus", Gives::Text(&["text/plain"])),
    Route::get("/props", "The machine and the settings", Gives::Json("Props")),
    Route::get("/openapi.json", "This description", Gives::Json("Description")),
    Route::get("/", "The page to chat on", Gives::Text(&["text/html"])),
    Route::get("/page/{file}", "A file of the page", Gives::Text(&["text/css", "text/javascript"])).refuses(&[404]),
];
