//! From a request to its grammar: the format asked for, the calls that are forced or possible, and when each begins.

use downshift_worker::{Input, Request, ResponseFormat, ToolChoice};
use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use serde_json::{Map, Value, json};

use super::guide::{Begin, Found};
use super::{Guide, limits, with_white_space};
use crate::error::Error;
use crate::output::{Dialect, Thought, ToolForm};
use crate::prompt::PromptBuilder;
use crate::tokenizer::{TokenKind, Tokenizer};

const FORMAT: &str = "response_format";
const TOOLS: &str = "tools";
const CHOICE: &str = "tool_choice";

/// A function that may be called.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tool {
    pub name: String,
    /// The schema of its arguments.
    parameters: Value,
}

/// The functions that the model may call, in OpenAI's form or bare.
pub(crate) fn offered(input: &Input) -> Vec<Tool> {
    let Input::Chat { tools, tool_choice, .. } = input else { return Vec::new() };
    if *tool_choice == ToolChoice::None {
        return Vec::new();
    }
    let tool = |tool: &Value| {
        let function = tool.get("function").unwrap_or(tool);
        let name = function["name"].as_str().filter(|name| !name.is_empty())?;
        let parameters = function.get("parameters").filter(|found| found.is_object()).cloned().unwrap_or_else(|| json!({}));
        Some(Tool { name: name.to_owned(), parameters })
    };
    tools.iter().filter_map(tool).collect()
}

/// The grammar of a request's answer, at its start; `None` where it is free.
///
/// # Errors
/// [`Error::Format`] for a schema, grammar or choice that cannot be met.
pub(crate) fn guide(request: &Request, prompts: &PromptBuilder, thought: Thought) -> Result<Option<Guide>, Error> {
    let tools = offered(&request.input);
    let choice = match &request.input {
        Input::Chat { tool_choice, .. } => tool_choice,
        Input::Completion(_) | Input::Infill { .. } => &ToolChoice::None,
    };
    let format = named_format(&request.format)?;
    let form = prompts.dialect().form();
    let wanted = match choice {
        ToolChoice::Required => {
            if tools.is_empty() {
                return Err(Error::Format { what: CHOICE, reason: "a call is required and no tool is offered".into() });
            }
            Wanted::bound(TOOLS, calls(prompts.tokenizer(), form, &tools, Whole::Several)?)
        }
        ToolChoice::Function(name) => {
            let tool: Vec<Tool> = tools.iter().filter(|tool| tool.name == *name).take(1).cloned().collect();
            if tool.is_empty() {
                let reason = format!("names `{name}`, which is none of the tools offered");
                return Err(Error::Format { what: CHOICE, reason });
            }
            Wanted::bound(TOOLS, calls(prompts.tokenizer(), form, &tool, Whole::One)?)
        }
        ToolChoice::Auto if !tools.is_empty() => match format {
            Some(format) => Wanted::bound(FORMAT, either(format, calls(prompts.tokenizer(), form, &tools, Whole::Several)?)),
            None => match triggered(prompts, form, &tools, thought) {
                Some(guide) => return Ok(Some(guide)),
                None => return Ok(None),
            },
        },
        _ => match format {
            Some(format) => Wanted::bound(FORMAT, TopLevelGrammar::from_grammar(format)),
            None => return Ok(None),
        },
    };
    build(prompts, wanted, thought).map(Some)
}

/// A grammar, and which part of the request it comes from.
struct Wanted {
    what: &'static str,
    grammar: TopLevelGrammar,
    trigger: Option<Found>,
}

impl Wanted {
    fn bound(what: &'static str, grammar: TopLevelGrammar) -> Self {
        Self { what, grammar, trigger: None }
    }
}

fn build(prompts: &PromptBuilder, wanted: Wanted, thought: Thought) -> Result<Guide, Error> {
    let Dialect { thinking, .. } = prompts.dialect();
    let begin = Begin {
        thought: thinking.as_ref().filter(|_| thought == Thought::Open).and_then(|tags| tags.open.token),
        is_thinking: thought == Thought::Begun,
        close: thinking.as_ref().map(|tags| Found::of(&tags.close)),
        trigger: wanted.trigger,
    };
    let matcher = prompts.grammars().compile(prompts.tokenizer(), wanted.what, wanted.grammar)?;
    let env = matcher.tok_env().map_err(|error| Error::CannotDo { reason: error.to_string() })?;
    Ok(Guide::new(matcher, env, begin))
}

/// The grammar of one call, in force once the model has begun one by itself. A call whose schema is too much for a grammar is
/// left to the model: nobody asked for more.
fn triggered(prompts: &PromptBuilder, form: ToolForm, tools: &[Tool], thought: Thought) -> Option<Guide> {
    let marker = prompts.dialect().call_marker.as_ref()?;
    let grammar = calls(prompts.tokenizer(), form, tools, Whole::AfterMarker).ok()?;
    build(prompts, Wanted { what: TOOLS, grammar, trigger: Some(Found::of(marker)) }, thought).ok()
}

fn named_format(format: &ResponseFormat) -> Result<Option<GrammarWithLexer>, Error> {
    let schema = match format {
        ResponseFormat::Text => return Ok(None),
        ResponseFormat::JsonObject => json!({ "type": "object" }),
        ResponseFormat::JsonSchema(schema) => {
            limits::check_schema(FORMAT, schema)?;
            schema.clone()
        }
        ResponseFormat::Grammar(lark) => {
            limits::check_lark(FORMAT, lark)?;
            return Ok(Some(GrammarWithLexer { name: Some("format".into()), ..GrammarWithLexer::from_lark(lark.clone()) }));
        }
    };
    let grammar = GrammarWithLexer::from_json_schema(with_white_space(schema));
    Ok(Some(GrammarWithLexer { name: Some("format".into()), ..grammar }))
}

/// How much of the calls a grammar describes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    /// One call.
    One,
    /// One or more, where the form has more.
    Several,
    /// One, or a list of them, after what begins it.
    AfterMarker,
}

/// The answer in the format, or calls.
fn either(format: GrammarWithLexer, mut calls: TopLevelGrammar) -> TopLevelGrammar {
    let start = &mut calls.grammars[0];
    let rules = start.lark_grammar.take().unwrap_or_default().replacen("start:", "calls:", 1);
    start.lark_grammar = Some(format!("start: @format | calls\n{rules}"));
    calls.grammars.push(format);
    calls
}

/// The grammar of calls in a model's form. Keys and their order are those that templates show; arguments are free JSON under
/// the tool's schema.
fn calls(tokenizer: &Tokenizer, form: ToolForm, tools: &[Tool], whole: Whole) -> Result<TopLevelGrammar, Error> {
    let mut schemas = Vec::with_capacity(tools.len());
    let mut values = 0;
    for (i, tool) in tools.iter().enumerate() {
        limits::check_schema(TOOLS, &tool.parameters)?;
        values += tool.parameters.to_string().len();
        let schema = with_white_space(object_schema(&tool.parameters));
        schemas.push(GrammarWithLexer { name: Some(format!("arguments_{i}")), ..GrammarWithLexer::from_json_schema(schema) });
    }
    if values > limits::MAX_BYTES {
        return Err(Error::Format { what: TOOLS, reason: format!("the schemas are longer than {} bytes together", limits::MAX_BYTES) });
    }
    let literal = |marker: &str| match tokenizer.token_id(marker) {
        Some(id) if tokenizer.kind(id) == Some(TokenKind::Control) => format!("<[{id}]>"),
        _ => quoted(marker),
    };
    let key = if form == ToolForm::Llama { "parameters" } else { "arguments" };
    let call = |(i, tool): (usize, &Tool)| match form {
        ToolForm::MistralNamed => format!("{} {} @arguments_{i}", quoted(&tool.name), literal("[ARGS]")),
        _ => {
            let head = format!("{{\"name\": {}, \"{key}\": ", Value::from(tool.name.as_str()));
            format!("{} @arguments_{i} \"}}\"", quoted(&head))
        }
    };
    let call = tools.iter().enumerate().map(call).collect::<Vec<_>>().join("\n  | ");
    let marker = form.marker().map(literal).unwrap_or_default();
    let start = match (form, whole) {
        (ToolForm::Hermes, Whole::AfterMarker) => "start: WS call WS \"</tool_call>\"\nWS: /[ \\n]{0,4}/".to_owned(),
        (ToolForm::Hermes, Whole::One) => format!("start: whole\nwhole: {marker} \"\\n\" call \"\\n</tool_call>\""),
        (ToolForm::Hermes, Whole::Several) => {
            format!("start: whole (\"\\n\" whole)*\nwhole: {marker} \"\\n\" call \"\\n</tool_call>\"")
        }
        (ToolForm::Llama, _) => "start: call".to_owned(),
        (ToolForm::MistralList, Whole::One) => format!("start: {marker} \"[\" call \"]\""),
        (ToolForm::MistralList, Whole::Several) => format!("start: {marker} \"[\" call (\", \" call)* \"]\""),
        (ToolForm::MistralList, Whole::AfterMarker) => "start: \"[\" call (\", \" call)* \"]\"".to_owned(),
        (ToolForm::MistralNamed, Whole::One) => format!("start: {marker} call"),
        (ToolForm::MistralNamed, Whole::Several) => format!("start: ({marker} call)+"),
        (ToolForm::MistralNamed, Whole::AfterMarker) => "start: call".to_owned(),
    };
    let grammar = GrammarWithLexer::from_lark(format!("{start}\ncall: {call}\n"));
    let mut grammars = vec![grammar];
    grammars.extend(schemas);
    Ok(TopLevelGrammar { grammars, max_tokens: None })
}

/// Arguments are an object, even where the schema does not say so.
fn object_schema(parameters: &Value) -> Value {
    let mut fields: Map<String, Value> = parameters.as_object().cloned().unwrap_or_default();
    let says_more = ["type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"].iter().any(|key| fields.contains_key(*key));
    if !says_more {
        fields.insert("type".into(), "object".into());
    }
    Value::Object(fields)
}

/// A literal of Lark.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
