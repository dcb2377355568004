//! What a request must be to get in: the Host and Origin against foreign web pages, the content type against forms, the key.
//!
//! A page that some browser shows must not reach a server on this machine behind its user's back: neither through a name that
//! was made to resolve to it (Host), nor from another origin (Origin, and no `Access-Control-*` unless asked for).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use downshift_worker::RequestId;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer, ExposeHeaders};

use crate::app::App;
use crate::disclosure::{REQUEST_ID, request_id};
use crate::error::ApiError;

/// Routes that need no key: the page asks for it, and whoever watches a server need not know it.
const WITHOUT_KEY: [&str; 3] = ["/", "/health", "/ready"];

/// Whether a path is answered with the API key only, where there is one.
pub(crate) fn needs_key(path: &str) -> bool {
    !(WITHOUT_KEY.contains(&path) || path.starts_with("/page/"))
}

/// The id of an HTTP request: that of the first submission it makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Id(pub RequestId);

/// Lets a request through, or refuses it; the answer gets its id either way.
pub(crate) async fn check(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let id = app.scheduler.next_request_id();
    let began = Instant::now();
    request.extensions_mut().insert(Id(id));
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let mut response = match admit(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    response.headers_mut().insert(REQUEST_ID, request_id(id));
    let status = response.status();
    app.metrics.request(&route, status.as_u16());
    let ms = began.elapsed().as_millis() as u64;
    tracing::info!(request = %id, %method, route, status = status.as_u16(), ms, "answered");
    response
}

fn admit(app: &App, request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    let host = host(request.uri(), headers)?;
    if app.on_loopback && !is_loopback(host_name(&host)) {
        let message = format!("this server answers on this machine only, and not as `{}`", host_name(&host));
        return Err(forbidden("host_not_allowed", message));
    }
    check_origin(&app.options.cors_origins, headers, &host)?;
    if request.method() == Method::POST && !is_json(headers) {
        let message = "the Content-Type of a POST must be application/json";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", Some("unsupported_media_type"), message));
    }
    match &app.options.api_key {
        Some(key) if needs_key(request.uri().path()) => {
            let offered = offered_key(headers);
            if offered.is_some_and(|offered| key.is(offered)) {
                return Ok(());
            }
            let message =
                if offered.is_some() { "the API key is wrong" } else { "this server needs an API key, as `Authorization: Bearer KEY`" };
            Err(ApiError::new(StatusCode::UNAUTHORIZED, "authentication_error", Some("invalid_api_key"), message))
        }
        _ => Ok(()),
    }
}

/// The one host that the request is for, with its port.
fn host(uri: &Uri, headers: &HeaderMap) -> Result<String, ApiError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(ApiError::invalid("the request has two Host headers"));
    }
    // A whole URL in the request line counts more than the header; both are held to the same rule.
    let named = uri.authority().map(|authority| authority.as_str().to_owned());
    let said = first.map(|host| host.to_str().map(str::to_owned)).transpose();
    let said = said.map_err(|_| ApiError::invalid("the Host header is not text"))?;
    match (named, said) {
        (Some(named), Some(said)) if named != said => Err(ApiError::invalid("the request line and the Host header differ")),
        (named, said) => named.or(said).ok_or_else(|| ApiError::invalid("the request has no Host header")),
    }
}

/// `host` without its port.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

fn is_loopback(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// No Origin, this server's own, or one that was allowed.
fn check_origin(allowed: &[String], headers: &HeaderMap, host: &str) -> Result<(), ApiError> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or("null");
    let own = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
    if own || allowed.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin)) {
        return Ok(());
    }
    let message = format!("pages of `{origin}` may not use this server; start it with --cors-origin {origin} to let them");
    Err(forbidden("origin_not_allowed", message))
}

fn forbidden(code: &'static str, message: String) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "permission_error", Some(code), message)
}

/// Whether the body is JSON. Some clients do not say; a browser, which would send what a foreign page wants, says that it is one.
fn is_json(headers: &HeaderMap) -> bool {
    if !headers.contains_key(header::CONTENT_TYPE) {
        return !headers.contains_key(header::ORIGIN) && !headers.contains_key("sec-fetch-site");
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn offered_key(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        return scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii());
    }
    headers.get("x-api-key").map(HeaderValue::as_bytes)
}

/// Tells browsers that pages of `origins` may read the answers; none of it if there are none.
pub(crate) fn with_cors<S: Clone + Send + Sync + 'static>(routes: Router<S>, origins: &[String]) -> Router<S> {
    if origins.is_empty() {
        return routes;
    }
    let allow = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    let told = ["x-request-id", "x-model", "x-model-requested", "x-attempted-fallbacks", "x-attempted-retries", "x-fallback-reason"];
    let names = told.iter().chain(&["x-device", "retry-after"]).filter_map(|name| name.parse().ok()).collect::<Vec<_>>();
    routes.layer(
        CorsLayer::new()
            .allow_origin(allow)
            .allow_methods([Method::GET, Method::POST])
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(ExposeHeaders::list(names))
            .max_age(std::time::Duration::from_secs(600)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_this_machine() {
        for name in ["localhost", "LOCALHOST:8080", "a.localhost:1", "127.0.0.1", "127.9.9.9:80", "[::1]:8080", "[::1]", "localhost.:8080"]
        {
            assert!(is_loopback(host_name(name)), "{name}");
        }
        for name in ["", "evil.com", "localhost.evil.com", "10.0.0.1:8080", "[::2]:8080", "0.0.0.0", "notlocalhost", "127.0.0.1.evil.com"] {
            assert!(!is_loopback(host_name(name)), "{name}");
        }
    }

    #[test]
    fn an_origin_must_be_this_server_or_allowed() {
        let check = |origin: &'static str, allowed: &[&str]| {
            let headers = HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static(origin))]);
            let allowed: Vec<_> = allowed.iter().map(|origin| (*origin).to_owned()).collect();
            check_origin(&allowed, &headers, "127.0.0.1:8080").is_ok()
        };
        assert!(check("http://127.0.0.1:8080", &[]));
        assert!(!check("http://127.0.0.1:3000", &[]));
        assert!(!check("null", &[]));
        assert!(!check("http://evil.com", &["http://a.com"]));
        assert!(check("http://a.com", &["http://b.com", "http://a.com"]));
        assert!(check("null", &["*"]));
        assert!(check_origin(&[], &HeaderMap::new(), "x").is_ok());
    }
}
