//! `downshift serve`, over real models in processes of their own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use crate::support::{Folder, model};

/// A server that is ended with the test, whatever becomes of it.
struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn start(folder: &Folder, args: &[&str]) -> Self {
        let mut command = folder.command(&[&["serve", "--port", "0"], args].concat());
        let mut child = command.env_remove("DOWNSHIFT_API_KEY").stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut lines = BufReader::new(child.stderr.take().expect("its stderr")).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| line.strip_prefix("listening on http://").map(str::to_owned));
        let serving = Self { child, address: address.expect("where it listens") };
        // A pipe that nobody reads would fill up.
        std::thread::spawn(move || lines.for_each(drop));
        serving
    }

    fn exchange(&self, request: &str) -> String {
        let mut socket = TcpStream::connect(&self.address).expect("it listens");
        socket.write_all(request.as_bytes()).expect("it reads");
        let mut reply = String::new();
        socket.read_to_string(&mut reply).expect("it answers");
        reply
    }

    fn chat(&self, extra: &str) -> String {
        let body = format!("{{\"messages\": [{{\"role\": \"user\", \"content\": \"Hi\"}}], \"max_tokens\": 4{extra}}}");
        let head = "Host: localhost\r\nContent-Type: application/json\r\nConnection: close";
        self.exchange(&format!("POST /v1/chat/completions HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It has ended already in tests that end it themselves.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folder() -> Folder {
    let models = "[models.big]\npath = \"big.gguf\"\n[models.small]\npath = \"small.gguf\"\n";
    let cut = &model(1)[..4000];
    Folder::new().with("big.gguf", cut).with_model("small.gguf", 2).with("models.toml", models)
}

#[test]
fn a_model_that_cannot_be_loaded_is_replaced_and_named() {
    let folder = folder();
    let serving = Serving::start(&folder, &[]);
    let reply = serving.chat("");
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    for told in ["x-model-requested: big\r\n", "x-model: small\r\n", "x-fallback-reason: truncated\r\n", "\"requested\":\"big\""] {
        assert!(reply.contains(told), "{told} is missing from {reply}");
    }
    let stream = serving.chat(", \"stream\": true");
    assert!(stream.contains("\"finish_reason\":\"length\"") && stream.contains("data: [DONE]\n\n"), "{stream}");
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_it() {
    let folder = folder();
    let serving = Serving::start(&folder, &[]);
    let port = serving.address.rsplit_once(':').expect("a port").1;
    let ran = folder.run(&["serve", "--port", port]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains(&format!("cannot listen on 127.0.0.1:{port}; --port takes another one")), "{}", ran.stderr);
}

#[test]
fn a_key_and_a_model_come_from_the_command_line() {
    let folder = folder().with("key", "s3cret\n");
    let serving = Serving::start(&folder, &["-m", "small.gguf", "--api-key-file", "key"]);
    let get = |header: &str| serving.exchange(&format!("GET /v1/models HTTP/1.1\r\nHost: localhost\r\n{header}Connection: close\r\n\r\n"));
    assert!(get("").starts_with("HTTP/1.1 401 "));
    let models = get("Authorization: Bearer s3cret\r\n");
    assert!(models.starts_with("HTTP/1.1 200 ") && models.contains("\"id\":\"small\"") && !models.contains("\"big\""), "{models}");
    let empty = folder.run(&["serve", "--port", "0", "--api-key", ""]);
    assert!(empty.stderr.contains("the API key of --api-key is empty"), "{}", empty.stderr);
}

#[cfg(unix)]
#[test]
fn sigterm_ends_it_with_success() {
    let folder = folder();
    let mut serving = Serving::start(&folder, &[]);
    serving.chat("");
    let pid = serving.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
    assert_eq!(serving.child.wait().expect("it ends").code(), Some(0));
}
