//! `POST /api/chat` and `/api/generate`: streamed unless told otherwise, a line of JSON each.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use downshift_scheduler::Answer;
use downshift_worker::{Delta, FinishReason, Input, Message, Prompt, ToolChoice};
use serde::Deserialize;
use serde_json::{Map, Number, Value, json};

use super::{model_name, nanoseconds, now};
use crate::app::App;
use crate::body::Payload;
use crate::chat::{check_tools, conversation};
use crate::error::{ApiError, json_response};
use crate::gather::{Gathered, gather};
use crate::generation::{self, Generation};
use crate::guard::Id;
use crate::narration::{Frame, Narrator, narrate};
use crate::openai::{ChatMessage, CommonFields, NamedSchema, Object, ResponseFormat, Texts};
use crate::sse::Framing;
use crate::text::with_model;
use crate::token_names::NamedLogprob;

/// What both routes know.
#[derive(Debug, Deserialize)]
struct Fields {
    model: String,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    format: Option<Value>,
    #[serde(default)]
    options: Option<Object<Options>>,
    #[serde(default)]
    think: Option<Value>,
    #[serde(default)]
    keep_alive: Option<Value>,
}

/// Ollama's names of what is asked beside the prompt. Those that shape a model's load are passed over: models.toml has them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Options {
    num_predict: Option<i64>,
    temperature: Option<f64>,
    top_k: Option<i64>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    seed: Option<Number>,
    stop: Option<Texts>,
    repeat_penalty: Option<f64>,
    repeat_last_n: Option<i64>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct ChatBody {
    #[serde(default)]
    messages: Option<Vec<Object<Turn>>>,
    #[serde(default)]
    tools: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
struct Turn {
    #[serde(flatten)]
    message: ChatMessage,
    #[serde(default)]
    thinking: Option<String>,
    #[serde(default)]
    tool_name: Option<String>,
    #[serde(default)]
    images: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
struct GenerateBody {
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default)]
    system: Option<String>,
    #[serde(default)]
    suffix: Option<String>,
    #[serde(default)]
    raw: Option<bool>,
    #[serde(default)]
    images: Option<Vec<Value>>,
}

pub(crate) async fn chat(State(app): State<Arc<App>>, Extension(Id(id)): Extension<Id>, payload: Payload) -> Result<Response, ApiError> {
    let fields: Fields = payload.parse()?;
    let ChatBody { messages, tools } = payload.parse()?;
    drop(payload);
    let messages = messages.unwrap_or_default();
    if messages.is_empty() {
        return load_or_unload(&app, fields, Shape::Chat).await;
    }
    let messages = messages.into_iter().enumerate().map(turn).collect::<Result<Vec<_>, _>>()?;
    let tools = tools.unwrap_or_default();
    check_tools(&tools)?;
    let variables = variables(fields.think.as_ref());
    let input = Input::Chat { messages: conversation(messages)?, tools, tool_choice: ToolChoice::Auto, variables };
    answer(&app, id, fields, input, Shape::Chat).await
}

pub(crate) async fn generate(
    State(app): State<Arc<App>>,
    Extension(Id(id)): Extension<Id>,
    payload: Payload,
) -> Result<Response, ApiError> {
    let fields: Fields = payload.parse()?;
    let GenerateBody { prompt, system, suffix, raw, images } = payload.parse()?;
    drop(payload);
    let suffix = generation::suffix(suffix)?;
    no_images("images", images.as_deref())?;
    let prompt = prompt.unwrap_or_default();
    if prompt.is_empty() && suffix.is_none() {
        return load_or_unload(&app, fields, Shape::Generate).await;
    }
    let input = if let Some(suffix) = suffix {
        Input::Infill { prefix: Prompt::Text(prompt), suffix }
    } else if raw.unwrap_or(false) {
        Input::Completion(Prompt::Text(prompt))
    } else {
        let system = system.filter(|system| !system.is_empty()).map(Message::system);
        let messages = system.into_iter().chain([Message::user(prompt)]).collect();
        Input::Chat { messages, tools: Vec::new(), tool_choice: ToolChoice::Auto, variables: variables(fields.think.as_ref()) }
    };
    answer(&app, id, fields, input, Shape::Generate).await
}

fn turn((at, Object(turn)): (usize, Object<Turn>)) -> Result<Object<ChatMessage>, ApiError> {
    let Turn { mut message, thinking, tool_name, images } = turn;
    no_images(&format!("messages[{at}].images"), images.as_deref())?;
    message.reasoning_content = message.reasoning_content.or(thinking);
    message.name = message.name.or(tool_name);
    Ok(Object(message))
}

fn no_images(param: &str, images: Option<&[Value]>) -> Result<(), ApiError> {
    match images {
        Some([_, ..]) => Err(ApiError::param(param, "the models of this server read text, and no images")),
        _ => Ok(()),
    }
}

fn variables(think: Option<&Value>) -> Map<String, Value> {
    let think = match think {
        Some(Value::Bool(think)) => Some(*think),
        // A level, as some models know it.
        Some(Value::String(_)) => Some(true),
        _ => None,
    };
    think.map(|think| ("enable_thinking".to_owned(), Value::Bool(think))).into_iter().collect()
}

fn generation(app: &App, fields: Fields) -> Result<Generation, ApiError> {
    let Fields { model, stream, format, options, .. } = fields;
    let options = options.unwrap_or_default().0;
    let as_openai = |kind: &str, schema: Option<Value>| {
        let json_schema = schema.map(|schema| Object(NamedSchema { schema: Some(schema) }));
        Object(ResponseFormat { kind: kind.to_owned(), json_schema })
    };
    let response_format = match format_of(format) {
        Asked::Anything => None,
        Asked::Json => Some(as_openai("json_object", None)),
        Asked::Schema(schema) => Some(as_openai("json_schema", Some(schema))),
        Asked::Unknown => return Err(ApiError::param("format", "`format` can be \"json\" or a JSON schema")),
    };
    Generation::from_fields(
        app,
        CommonFields {
            model: Some(Texts(vec![model_name(app, model)])),
            stream: Some(stream.unwrap_or(true)),
            stop: options.stop,
            seed: options.seed,
            // Negative numbers mean no limit of one's own.
            max_tokens: options.num_predict.filter(|tokens| *tokens >= 0),
            temperature: options.temperature,
            top_p: options.top_p,
            top_k: options.top_k,
            min_p: options.min_p,
            repeat_penalty: options.repeat_penalty,
            penalty_last_n: options.repeat_last_n,
            frequency_penalty: options.frequency_penalty,
            presence_penalty: options.presence_penalty,
            response_format,
            ..CommonFields::default()
        },
    )
}

/// What `format` asks for.
enum Asked {
    Anything,
    Json,
    Schema(Value),
    Unknown,
}

fn format_of(format: Option<Value>) -> Asked {
    match format {
        None | Some(Value::Null) => Asked::Anything,
        Some(Value::String(word)) if word.is_empty() => Asked::Anything,
        Some(Value::String(word)) if word == "json" => Asked::Json,
        Some(schema @ Value::Object(_)) => Asked::Schema(schema),
        Some(_) => Asked::Unknown,
    }
}

async fn answer(app: &Arc<App>, id: downshift_worker::RequestId, fields: Fields, input: Input, shape: Shape) -> Result<Response, ApiError> {
    let generation = generation(app, fields)?;
    let began = Instant::now();
    let answers = app.ask(generation.submissions(app, id, vec![input]))?;
    let mut lines = Lines { shape, model: answers.requested().to_owned(), began, gathered: Gathered::default(), notice: None };
    if generation.options.stream {
        return narrate(answers, app, lines).await;
    }
    let whole = gather(answers, app, 1, false).await?;
    let fallback = whole.told.fallback.as_ref().map(|fallback| json!(fallback));
    let gathered = whole.gathered.into_iter().next().unwrap_or_default();
    lines.model = whole.told.model;
    let Some(answer) = &gathered.answer else { return Err(ApiError::internal("the answer has no end")) };
    let mut body = lines.last(answer);
    shape.put(&mut body, &gathered.text, &gathered.reasoning, tool_calls(&gathered));
    if let Some(fallback) = fallback {
        body["fallback"] = fallback;
    }
    let mut response = json_response(StatusCode::OK, &body);
    whole.told.disclosure.write(response.headers_mut());
    Ok(response)
}

/// Without a prompt a model is loaded, or unloaded where it is to be kept for no time.
async fn load_or_unload(app: &Arc<App>, fields: Fields, shape: Shape) -> Result<Response, ApiError> {
    let name = model_name(app, fields.model);
    let unloads = fields.keep_alive.as_ref().is_some_and(|time| *time == json!(0) || *time == json!("0") || *time == json!("0s"));
    if unloads {
        if !app.scheduler.unload(&name) {
            return Err(ApiError::no_model(format!("there is no model `{name}`")));
        }
    } else {
        with_model(app, Some(name.clone()), |_| Ok(())).await?;
    }
    let mut body = json!({"model": name, "created_at": now(), "done": true, "done_reason": if unloads { "unload" } else { "load" }});
    shape.put(&mut body, "", "", Vec::new());
    Ok(json_response(StatusCode::OK, &body))
}

/// Where the text stands in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Chat,
    Generate,
}

impl Shape {
    fn put(self, line: &mut Value, text: &str, thinking: &str, calls: Vec<Value>) {
        let mut place = json!({});
        if !thinking.is_empty() {
            place["thinking"] = json!(thinking);
        }
        if !calls.is_empty() {
            place["tool_calls"] = json!(calls);
        }
        match self {
            Self::Chat => {
                place["role"] = json!("assistant");
                place["content"] = json!(text);
                line["message"] = place;
            }
            Self::Generate => {
                line["response"] = json!(text);
                if let Some(thinking) = place.get("thinking") {
                    line["thinking"] = thinking.clone();
                }
            }
        }
    }
}

/// Calls as Ollama has them: the arguments are an object.
fn tool_calls(gathered: &Gathered) -> Vec<Value> {
    let call = |call: &crate::openai::ToolCall| {
        // Arguments that were cut short stay the text they are.
        let arguments = serde_json::from_str(&call.function.arguments).unwrap_or_else(|_| json!(call.function.arguments));
        json!({"id": call.id, "function": {"name": call.function.name, "arguments": arguments}})
    };
    gathered.calls.iter().map(call).collect()
}

/// Tells an answer in lines.
pub(super) struct Lines {
    pub shape: Shape,
    /// The model that writes.
    pub model: String,
    pub began: Instant,
    /// The tool calls so far, which are told whole.
    pub gathered: Gathered,
    pub notice: Option<Value>,
}

impl Lines {
    fn line(&mut self, text: &str, thinking: &str) -> Frame {
        let mut line = json!({"model": self.model, "created_at": now(), "done": false});
        self.shape.put(&mut line, text, thinking, Vec::new());
        if let Some(notice) = self.notice.take() {
            line["fallback"] = notice;
        }
        Frame::Line(line)
    }

    fn last(&self, answer: &Answer) -> Value {
        let timings = &answer.output.timings;
        let total = self.began.elapsed().as_secs_f64() * 1e3;
        let reason = match answer.output.finish_reason {
            FinishReason::Length => "length",
            FinishReason::Stop | FinishReason::ToolCalls => "stop",
        };
        json!({
            "model": self.model,
            "created_at": now(),
            "done": true,
            "done_reason": reason,
            "total_duration": nanoseconds(total),
            "load_duration": nanoseconds(total - timings.prompt_ms - timings.predicted_ms),
            "prompt_eval_count": answer.output.usage.prompt_tokens,
            "prompt_eval_duration": nanoseconds(timings.prompt_ms),
            "eval_count": answer.output.usage.completion_tokens,
            "eval_duration": nanoseconds(timings.predicted_ms),
        })
    }
}

impl Narrator for Lines {
    const FRAMING: Framing = Framing::Lines;

    fn begin(&mut self, model: &str, notice: Option<Value>) -> Vec<Frame> {
        model.clone_into(&mut self.model);
        self.notice = notice;
        Vec::new()
    }

    fn piece(&mut self, delta: Delta, logprobs: Vec<NamedLogprob>) -> Vec<Frame> {
        let Delta { text, reasoning, .. } = &delta;
        let line = (!text.is_empty() || !reasoning.is_empty()).then(|| self.line(text, reasoning));
        self.gathered.take(Delta { text: String::new(), reasoning: String::new(), ..delta }, logprobs, false);
        line.into_iter().collect()
    }

    fn continued(&mut self, model: &str, notice: Value) -> Vec<Frame> {
        model.clone_into(&mut self.model);
        self.notice = Some(notice);
        Vec::new()
    }

    fn end(&mut self, answer: &Answer) -> Vec<Frame> {
        let calls = tool_calls(&self.gathered);
        let mut frames = Vec::new();
        if !calls.is_empty() {
            let mut line = json!({"model": self.model, "created_at": now(), "done": false});
            self.shape.put(&mut line, "", "", calls);
            frames.push(Frame::Line(line));
        }
        let mut last = self.last(answer);
        self.shape.put(&mut last, "", "", Vec::new());
        if let Some(notice) = self.notice.take() {
            last["fallback"] = notice;
        }
        frames.push(Frame::Line(last));
        frames
    }

    fn broken(&mut self, error: &ApiError) -> Vec<Frame> {
        vec![Frame::Line(super::error_body(error))]
    }

    fn silence(&mut self, _what: &str) -> Option<Frame> {
        // A line of JSON cannot say nothing.
        None
    }
}
