//! What the socket survives: each time, the next good request is answered.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use downshift_server::{ApiKey, Limits, ServeOptions};
use serde_json::{Value, json};

use crate::support::*;

fn hi() -> Value {
    json!({"messages": [{"role": "user", "content": "hi"}]})
}

fn assert_serves(server: &TestServer, after: &str) {
    let reply = server.post("/v1/chat/completions", &hi());
    assert_eq!(reply.status, 200, "after {after}: {reply:?}");
}

#[test]
fn bytes_that_are_no_good_request_are_refused() {
    let limits = Limits {
        head_timeout: Duration::from_millis(300),
        body_timeout: Duration::from_millis(300),
        body_bytes: 1 << 20,
        ..Limits::default()
    };
    let server = serve("", [], ServeOptions { limits, ..ServeOptions::default() });
    let host = server.address;
    let body = hi().to_string();
    let length = body.len();
    let json_type = "Content-Type: application/json\r\nConnection: close";
    let headers = |number: usize| (0..number).map(|at| format!("X-{at}: y\r\n")).collect::<String>();
    // Status 0: closed without a word, which is an answer too.
    let rows: Vec<(&str, String, &[u16])> = vec![
        ("a foreign host", "GET /health HTTP/1.1\r\nHost: evil.com\r\nConnection: close\r\n\r\n".to_owned(), &[403]),
        ("a name made to look local", "GET /health HTTP/1.1\r\nHost: localhost.evil.com\r\nConnection: close\r\n\r\n".to_owned(), &[403]),
        ("no host", "GET /health HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(), &[400]),
        ("two hosts", format!("GET /health HTTP/1.1\r\nHost: {host}\r\nHost: evil.com\r\nConnection: close\r\n\r\n"), &[400]),
        ("a URL of another host", format!("GET http://evil.com/health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"), &[400, 403]),
        (
            "a foreign origin",
            format!(
                "POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nOrigin: http://evil.com\r\n{json_type}\r\nContent-Length: {length}\r\n\r\n{body}"
            ),
            &[403],
        ),
        (
            "no origin",
            format!(
                "POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nOrigin: null\r\n{json_type}\r\nContent-Length: {length}\r\n\r\n{body}"
            ),
            &[403],
        ),
        (
            "text",
            format!(
                "POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            ),
            &[415],
        ),
        (
            "no type from a browser",
            format!(
                "POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Site: same-site\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            ),
            &[415],
        ),
        (
            "no type from a program",
            format!("POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"),
            &[200],
        ),
        (
            "a form",
            format!(
                "POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-www-form-urlencoded\r\nConnection: close\r\nContent-Length: 3\r\n\r\na=b"
            ),
            &[415],
        ),
        (
            "a preflight",
            format!(
                "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nAccess-Control-Request-Method: POST\r\nConnection: close\r\n\r\n"
            ),
            &[405],
        ),
        (
            "a length that is too large",
            format!("POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n{json_type}\r\nContent-Length: 1000000000\r\n\r\n{body}"),
            &[413],
        ),
        (
            "a length beyond numbers",
            format!(
                "POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n{json_type}\r\nContent-Length: 99999999999999999999\r\n\r\n{body}"
            ),
            &[400],
        ),
        (
            "two lengths",
            format!(
                "POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n{json_type}\r\nContent-Length: {length}\r\nContent-Length: 1\r\n\r\n{body}"
            ),
            &[400],
        ),
        (
            "a body too long in chunks",
            format!(
                "POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n{json_type}\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n{}\r\n0\r\n\r\n",
                " ".repeat(0x20_0000)
            ),
            &[413],
        ),
        (
            "a chunk that is none",
            format!("POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n{json_type}\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{body}"),
            &[400, 0],
        ),
        (
            "a length and chunks",
            format!(
                "POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n{json_type}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
            ),
            &[400, 200],
        ),
        (
            "an unknown encoding",
            format!("POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n{json_type}\r\nTransfer-Encoding: x\r\n\r\n{body}"),
            &[400, 501],
        ),
        ("too many headers", format!("GET /health HTTP/1.1\r\nHost: {host}\r\n{}\r\n", headers(100_000)), &[431, 400, 0]),
        ("a line too long", format!("GET /{} HTTP/1.1\r\nHost: {host}\r\n\r\n", "x".repeat(70_000)), &[414, 431, 400, 0]),
        ("a head without an end", format!("GET /health HTTP/1.1\r\nHost: {host}\r\nX-Slow: "), &[408, 0]),
        (
            "a body that does not come",
            format!("POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n{json_type}\r\nContent-Length: {length}\r\n\r\n"),
            &[408],
        ),
        ("no HTTP", "\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), &[400, 0]),
        ("another protocol", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), &[400, 505, 0]),
    ];
    for (what, request, expected) in rows {
        let mut socket = TcpStream::connect(server.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // The server may have had enough before all is written.
        let _ = socket.write_all(request.as_bytes());
        let reply = Reply::read(socket);
        assert!(expected.contains(&reply.status), "{what}: {reply:?}");
        assert!(!reply.headers.keys().any(|name| name.starts_with("access-control-")), "{what}: {reply:?}");
        assert_serves(&server, what);
    }
}

#[test]
fn a_half_closed_socket_does_no_harm() {
    let server = abc([]);
    let socket = server.send("POST /v1/chat/completions HTTP/1.1\r\n");
    socket.shutdown(Shutdown::Write).unwrap();
    assert!(Reply::read(socket).status != 200);
    assert_serves(&server, "a half-closed socket");
}

#[test]
fn connections_that_idle_make_room_for_new_ones() {
    let limits = Limits { connections: 8, ..Limits::default() };
    let server = serve("", [("a", Script::Waits(words("x ")))], ServeOptions { limits, ..ServeOptions::default() });
    let busy = server.send(server.request("/v1/chat/completions", &hi().to_string()));
    server.fake.wait_for_running(1);
    let idle: Vec<_> = (0..100).map(|_| server.send("")).collect();
    assert_eq!(server.get("/health").status, 200);
    server.fake.open();
    assert_eq!(Reply::read(busy).status, 200, "a busy connection is not closed");
    drop(idle);
}

#[test]
fn idle_connections_are_closed_in_time() {
    let limits = Limits { head_timeout: Duration::from_millis(100), ..Limits::default() };
    let server = serve("", [], ServeOptions { limits, ..ServeOptions::default() });
    let mut fresh = server.send("");
    let mut kept = server.send(format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", server.address));
    let mut bytes = Vec::new();
    kept.read_to_end(&mut bytes).expect("closed by the server");
    assert_eq!(Reply::parse(&bytes).status, 200);
    fresh.read_to_end(&mut bytes).expect("closed by the server");
}

#[test]
fn a_key_opens_what_needs_one() {
    let options = ServeOptions { api_key: ApiKey::new("s3cret"), ..ServeOptions::default() };
    let server = serve("", [], options);
    let with =
        |header: &str| server.exchange(format!("GET /v1/models HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{header}\r\n", server.address));
    for header in ["Authorization: Bearer s3cret\r\n", "authorization: bearer s3cret\r\n", "x-api-key: s3cret\r\n"] {
        assert_eq!(with(header).status, 200, "{header}");
    }
    for header in [
        "",
        "Authorization: Bearer s3cre\r\n",
        "Authorization: Bearer s3cret2\r\n",
        "Authorization: Basic s3cret\r\n",
        "Authorization: x\r\n",
        "x-api-key: \r\n",
    ] {
        let reply = with(header);
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (401, &json!("invalid_api_key")), "{header}");
        assert!(!reply.body.contains("s3cre"), "a key is not repeated");
    }
    for path in ["/", "/health", "/ready"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    assert_eq!(server.get("/metrics").status, 401);
    assert!(!format!("{:?}", ApiKey::new("s3cret")).contains("s3cret"));
}

#[test]
fn an_allowed_origin_is_told_so_and_no_other() {
    let options = ServeOptions { cors_origins: vec!["http://a.com".to_owned()], ..ServeOptions::default() };
    let server = serve("", [], options);
    let preflight = |origin: &str| {
        let head = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,content-type\r\nConnection: close";
        server.exchange(format!("OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: {}\r\nOrigin: {origin}\r\n{head}\r\n\r\n", server.address))
    };
    let allowed = preflight("http://a.com");
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (200, "http://a.com"));
    assert!(allowed.header("access-control-allow-headers").contains("authorization"));
    assert_eq!(preflight("http://evil.com").header("access-control-allow-origin"), "");
    let get = |origin: &str| {
        server.exchange(format!("GET /v1/models HTTP/1.1\r\nHost: {}\r\nOrigin: {origin}\r\nConnection: close\r\n\r\n", server.address))
    };
    let reply = get("http://a.com");
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, "http://a.com"));
    assert_eq!(get("http://evil.com").status, 403);
}

#[test]
fn many_at_once_are_all_answered_or_told_to_come_back() {
    let server = abc([]);
    let request = server.request("/v1/chat/completions", &hi().to_string());
    let address = server.address;
    let threads: Vec<_> = (0..200)
        .map(|_| {
            let request = request.clone();
            std::thread::spawn(move || {
                let mut socket = TcpStream::connect(address).unwrap();
                socket.write_all(request.as_bytes()).unwrap();
                Reply::read(socket).status
            })
        })
        .collect();
    let statuses: Vec<u16> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&200));
    assert_serves(&server, "many at once");
}
