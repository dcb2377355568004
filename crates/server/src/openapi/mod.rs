//! `GET /openapi.json`: what this server takes and gives, for programs that read OpenAPI 3.1.
//!
//! Owns the description, and no behaviour: a table of routes and the schemas of bodies, which tests hold against the router, the
//! types that requests are read into, the checks of numbers and real answers. Fields of the dialects that are accepted and have
//! no effect are not listed, nor those that are always refused.

mod anthropic;
mod ollama;
mod openai;
mod responses;
mod routes;
mod schema;
mod server;
mod streams;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use self::routes::{Dialect, Gives, ROUTES, Route};
use self::schema::{described, merged, reference};
use crate::app::App;
use crate::error::json_response;
use crate::guard::needs_key;
use crate::options::ServeOptions;

const ABOUT: &str = "Text from models of this machine. In requests, fields that are not known are passed over, and null is as if the \
                     field were absent. A model that cannot answer gives way to the next one of its chain. A stream that breaks off \
                     ends with one error, and without what ends a whole one.";

pub(crate) async fn show(State(app): State<Arc<App>>) -> Response {
    json_response(StatusCode::OK, &document(&app.options))
}

fn document(options: &ServeOptions) -> Value {
    let has_key = options.api_key.is_some();
    let paths: Map<String, Value> =
        ROUTES.iter().map(|route| (route.path.to_owned(), json!({route.method: operation(route, has_key)}))).collect();
    let schemas = [openai::schemas(), responses::schemas(), anthropic::schemas(), ollama::schemas(), server::schemas(), streams::schemas()];
    json!({
        "openapi": "3.1.0",
        "info": {"title": "downshift", "version": options.version, "description": ABOUT},
        "tags": Dialect::ALL.map(|dialect| json!({"name": dialect.tag(), "description": dialect.description()})),
        "paths": paths,
        "components": {
            "schemas": merged(&schemas),
            "headers": HEADERS.iter().map(|header| (header.name.to_owned(), header.description())).collect::<Map<_, _>>(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    })
}

fn operation(route: &Route, has_key: bool) -> Value {
    let words = format!("{} {}", route.method, route.path).replace(|of: char| !of.is_ascii_alphanumeric(), " ");
    let mut operation = json!({
        "tags": [route.dialect().tag()],
        "summary": route.summary,
        "operationId": words.split_whitespace().collect::<Vec<_>>().join("_"),
    });
    let names: Vec<&str> = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
    if !names.is_empty() {
        let parameter = |name: &&str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
        operation["parameters"] = names.iter().map(parameter).collect();
    }
    if let Some(name) = route.takes {
        operation["requestBody"] = json!({"required": true, "content": json_of(name)});
    }
    let asks_for_key = has_key && needs_key(route.path);
    if asks_for_key {
        // Either of them is enough.
        operation["security"] = json!([{"bearer": []}, {"x-api-key": []}]);
    }
    let mut responses = Map::from_iter([("200".to_owned(), good(route))]);
    let of_method: &[u16] = if route.takes.is_some() { &[400, 403, 408, 413, 415, 503] } else { &[400, 403] };
    let key: &[u16] = if asks_for_key { &[401] } else { &[] };
    let refusals: BTreeSet<u16> = [of_method, key, route.refusals].concat().into_iter().collect();
    responses.extend(refusals.into_iter().map(|status| (status.to_string(), refusal(route, status))));
    operation["responses"] = Value::Object(responses);
    operation
}

fn good(route: &Route) -> Value {
    let (words, mut content) = match route.gives {
        Gives::Json(name) => ("The answer.", json_of(name)),
        Gives::Text(kinds) => ("The text.", kinds.iter().map(|kind| ((*kind).to_owned(), json!({"schema": {"type": "string"}}))).collect()),
    };
    let words = if route.streams.is_some() {
        "The whole answer; or, where it is streamed, events or lines of this schema each. OpenAI's events end with `[DONE]`."
    } else {
        words
    };
    if let Some((kind, name)) = route.streams {
        content[kind] = json!({"schema": reference(name)});
    }
    let told = |header: &&Header| match header.place {
        Place::Everywhere => true,
        Place::Answer | Place::Attempts => route.is_answered_by_a_model,
        Place::Status(_) => false,
    };
    json!({"description": words, "headers": headers(told), "content": content})
}

fn refusal(route: &Route, status: u16) -> Value {
    let words = match status {
        400 if route.takes.is_some() => "A field is wrong, or the body is no JSON object, or the prompt is longer than every context.",
        400 => "The Host header is wrong.",
        401 => "The API key is missing or wrong.",
        403 => "The Host or the Origin may not use this server.",
        404 if route.path.starts_with("/page/") => "There is no such file.",
        404 => "There is no such model.",
        408 => "The body did not come in time.",
        413 => "The body is too long.",
        415 => "The Content-Type is not application/json.",
        503 => "Not now: too much is asked, or no model can answer.",
        504 => "The time for the request is used up.",
        _ => "Every model that may answer failed.",
    };
    let tried = route.is_answered_by_a_model && matches!(status, 400 | 404 | 500..);
    let told = |header: &&Header| match header.place {
        Place::Everywhere => true,
        Place::Answer => false,
        Place::Attempts => tried,
        Place::Status(of) => of.contains(&status),
    };
    let content = match route.gives {
        // A file that is missing is told without words.
        Gives::Text(_) if status == 404 => json!({}),
        _ => json_of(route.dialect().error()),
    };
    json!({"description": words, "headers": headers(told), "content": content})
}

fn json_of(name: &str) -> Value {
    json!({"application/json": {"schema": reference(name)}})
}

/// A header of answers.
struct Header {
    name: &'static str,
    /// Type in JSON Schema.
    kind: &'static str,
    words: &'static str,
    place: Place,
}

/// Which answers have a header.
#[derive(Clone, Copy)]
enum Place {
    Everywhere,
    /// Those that a model gave.
    Answer,
    /// Those, and refusals after models were asked.
    Attempts,
    /// Refusals of these statuses.
    Status(&'static [u16]),
}

impl Header {
    const fn new(name: &'static str, kind: &'static str, place: Place, words: &'static str) -> Self {
        Self { name, kind, words, place }
    }

    fn description(&self) -> Value {
        described(json!({"schema": {"type": self.kind}}), self.words)
    }
}

const HEADERS: &[Header] = &[
    Header::new("x-request-id", "string", Place::Everywhere, "The id that the log has."),
    Header::new("x-model", "string", Place::Answer, "The model that answers; absent if headers were sent before that was known."),
    Header::new("x-device", "string", Place::Answer, "Where it runs, such as cpu or cuda:0."),
    Header::new("x-model-requested", "string", Place::Attempts, "The model that was asked for."),
    Header::new("x-attempted-fallbacks", "integer", Place::Attempts, "Other models tried."),
    Header::new("x-attempted-retries", "integer", Place::Attempts, "Times the answering model had been tried before."),
    Header::new(
        "x-fallback-reason",
        "string",
        Place::Attempts,
        "Why the model that was asked for did not answer at once; absent if it did.",
    ),
    Header::new("retry-after", "integer", Place::Status(&[503]), "Seconds; present where waiting may help."),
    Header::new("x-should-retry", "string", Place::Status(&[500, 503]), "false where waiting does not help."),
    Header::new("www-authenticate", "string", Place::Status(&[401]), "Bearer."),
];

fn headers(told: impl Fn(&&Header) -> bool) -> Map<String, Value> {
    let named = |header: &Header| (header.name.to_owned(), json!({"$ref": format!("#/components/headers/{}", header.name)}));
    HEADERS.iter().filter(told).map(named).collect()
}
