//! `downshift serve`, over real models in processes of their own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use downshift_engine::testing::{Stored, TinyModel};
use serde_json::{Value, json};

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

    fn post(&self, path: &str, body: &str) -> String {
        let head = "Host: localhost\r\nContent-Type: application/json\r\nConnection: close";
        self.exchange(&format!("POST {path} HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    }

    fn chat(&self, extra: &str) -> String {
        let body = format!("{{\"messages\": [{{\"role\": \"user\", \"content\": \"Hi\"}}], \"max_tokens\": 4{extra}}}");
        self.post("/v1/chat/completions", &body)
    }

    fn complete(&self, body: &Value) -> Value {
        let reply = self.post("/v1/completions", &body.to_string());
        let (_, body) = reply.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {reply}"))
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

#[test]
fn an_echoed_prompt_has_the_log_probabilities_that_eval_logits_gives() {
    let token_ids: Vec<usize> = (0..60).map(|at| (at * at * 31 + at * 7) % 256).collect();
    let folder = folder().with("ids.json", json!(token_ids).to_string());
    let ran = folder.run(&["eval", "logits", "-m", "small.gguf", "--tokens", "ids.json", "-o", "out.f32"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let bytes = std::fs::read(folder.path("out.f32")).expect("the logits");
    let logits: Vec<f64> = bytes.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect();
    let rows: Vec<&[f64]> = logits.chunks(logits.len() / token_ids.len()).collect();
    let log_softmax = |row: &[f64], id: usize| row[id] - row.iter().map(|logit| logit.exp()).sum::<f64>().ln();
    let expected: Vec<f64> = (1..token_ids.len()).map(|at| log_softmax(rows[at - 1], token_ids[at])).collect();

    let serving = Serving::start(&folder, &["-m", "small.gguf"]);
    let body = json!({"prompt": token_ids, "echo": true, "logprobs": 1, "max_tokens": 1, "temperature": 0});
    // The second time the cache holds all of it.
    for _ in 0..2 {
        let reply = serving.complete(&body);
        let told = &reply["choices"][0]["logprobs"];
        let found = told["token_logprobs"].as_array().expect("a list");
        assert_eq!((found.len(), &found[0]), (token_ids.len() + 1, &Value::Null));
        let off = |by: usize| {
            let distance = |(at, expected): (usize, &f64)| (found[at + by].as_f64().expect("a number") - expected).abs();
            expected.iter().enumerate().map(distance).fold(0.0, f64::max)
        };
        assert!(off(1) < 1e-3 && off(2) > 0.3, "{} in place, {} beside it", off(1), off(2));
        let likeliest = told["top_logprobs"][60].as_object().expect("one").values().next().expect("a value").as_f64();
        let most = rows[59].iter().copied().fold(f64::MIN, f64::max);
        let expected = most - rows[59].iter().map(|logit| logit.exp()).sum::<f64>().ln();
        assert!((likeliest.expect("a number") - expected).abs() < 0.05, "{likeliest:?}, {expected}");
        assert_eq!(found[60].as_f64(), likeliest, "the answer's token is drawn from the last row");
    }
    let alone = serving.complete(&json!({"prompt": token_ids, "echo": true, "logprobs": 0, "max_tokens": 0}));
    let told = alone["choices"][0]["logprobs"]["token_logprobs"].as_array().expect("a list").len();
    assert_eq!((told, &alone["usage"]["completion_tokens"]), (token_ids.len(), &json!(0)));
}

#[test]
fn a_gap_is_filled_by_the_first_model_that_has_the_tokens_for_it() {
    let with_tokens = TinyModel {
        added_tokens: vec![("<|fim_prefix|>", 3), ("<|fim_suffix|>", 3), ("<|fim_middle|>", 3)],
        ..TinyModel::of("llama", 2, Stored::F32)
    };
    let models = "[models.plain]\npath = \"plain.gguf\"\n[models.fills]\npath = \"fills.gguf\"\n";
    let folder = Folder::new().with_model("plain.gguf", 1).with("fills.gguf", with_tokens.writer().finish()).with("models.toml", models);
    let serving = Serving::start(&folder, &[]);
    let gap = json!({"prompt": "the world", "suffix": "and hello", "max_tokens": 8, "temperature": 0});
    let filled = serving.complete(&gap);
    assert_eq!((&filled["model"], &filled["fallback"]["attempts"][0]["kind"]), (&json!("fills"), &json!("cannot_do")));
    let ids = |text: &str| {
        let reply = serving.post("/tokenize", &json!({"model": "fills", "content": text, "add_special": true}).to_string());
        let body: Value = serde_json::from_str(reply.split_once("\r\n\r\n").expect("a body").1).expect("JSON");
        body["tokens"].clone()
    };
    let written = ids("<|fim_prefix|>the world<|fim_suffix|>and hello<|fim_middle|>");
    let same = serving.complete(&json!({"model": "fills", "prompt": &written, "max_tokens": 8, "temperature": 0}));
    assert_eq!((&filled["choices"], &filled["usage"]["prompt_tokens"]), (&same["choices"], &json!(written.as_array().map(Vec::len))));
    let refused =
        serving.post("/v1/completions", &json!({"model": "plain", "disable_fallbacks": true, "prompt": "a", "suffix": "b"}).to_string());
    assert!(refused.starts_with("HTTP/1.1 400 ") && refused.contains("\"param\":\"suffix\""), "{refused}");
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
