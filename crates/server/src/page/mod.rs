//! The page at `/`: its files as they are written, embedded in the binary. There is no build step and no outside resource.
//!
//! Owns the files and what the browser may do with them. Does not own data: the page asks for it over the same routes as
//! every other client. The files are served to everybody, also where an API key is set; what they ask for then is not.

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// Scripts and styles come from the page's own files only, it talks to this server only, and nothing embeds it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const INDEX: &str = include_str!("index.html");

macro_rules! files {
    ($($name:literal),* $(,)?) => { &[$(($name, include_str!($name))),*] };
}

const FILES: &[(&str, &str)] = files![
    "answer.js",
    "api.js",
    "app.js",
    "colours.css",
    "composer.js",
    "dialogs.js",
    "element.js",
    "gears.js",
    "highlight.js",
    "inline.js",
    "markdown.js",
    "notes.js",
    "page.css",
    "prose.css",
    "sidebar.js",
    "sse.js",
    "store.js",
    "theme.js",
    "thread.js",
    "voice.js",
    "watch.js",
    "welcome.js",
    "wording.js",
];

/// `GET /` and `GET /page/{file}`. They need no API key.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/", get(|| async { serve("text/html; charset=utf-8", INDEX) })).route("/page/{file}", get(file))
}

async fn file(Path(name): Path<String>) -> Response {
    let Some((name, text)) = FILES.iter().find(|(known, _)| *known == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let kind = if name.ends_with(".css") { "text/css; charset=utf-8" } else { "text/javascript; charset=utf-8" };
    serve(kind, text)
}

fn serve(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // A new version of the program brings its own files: the browser asks again each time, on the same machine.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}
