//! What a person is told of a request, the log has too: one event for each attempt, as text or as JSON.

use serde_json::Value;

use crate::support::Folder;

const MODELS: &str = "[models.first]\npath = \"first.gguf\"\n\n[models.second]\npath = \"second.gguf\"\n";
const ASK: [&str; 6] = ["chat", "--temperature", "0", "--max-tokens", "8", "hello world"];

/// The events on stderr whose target is `target`.
fn events(stderr: &str, target: &str) -> Vec<Value> {
    let events = stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["target"] == target).collect()
}

fn folder() -> Folder {
    Folder::new().with("models.toml", MODELS).with_model("second.gguf", 2)
}

#[test]
fn a_drop_of_gear_is_two_events_of_one_request() {
    let ran = folder().run(&[&ASK[..], &["--log-format", "json", "--log-level", "info"]].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let events = events(&ran.stderr, "downshift::attempt");
    assert_eq!(events.len(), 2, "{ran:?}");
    let field = |event: usize, name: &str| events[event]["fields"][name].clone();
    assert_eq!(events[0]["level"], "WARN");
    assert_eq!([field(0, "model"), field(0, "stage"), field(0, "kind")], ["first", "load", "missing"], "{ran:?}");
    assert!(field(0, "ms").is_u64() && field(0, "message").as_str().is_some_and(|text| text.contains("first.gguf")), "{ran:?}");
    assert_eq!(events[1]["level"], "INFO");
    assert_eq!([field(1, "model"), field(1, "message")], ["second", "answered"], "{ran:?}");
    assert_eq!((field(1, "device"), field(1, "failed")), ("cpu".into(), 1.into()), "{ran:?}");
    assert!(field(1, "ms").is_u64(), "{ran:?}");
    let ids = [field(0, "request"), field(1, "request")];
    assert!(ids[0].as_str().is_some_and(|id| !id.is_empty()) && ids[0] == ids[1], "{ran:?}");
}

#[test]
fn retries_and_continuations_are_events_of_their_own() {
    let folder = folder().with_model("first.gguf", 1);
    let mut command = folder.command(&[&ASK[..], &["--log-format", "json", "--log-level", "info"]].concat());
    let output = command.env("DOWNSHIFT_FAULT", "first@token=3:segv").output().expect("the program starts");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    let told: Vec<Value> = events(&stderr, "downshift::attempt").iter().map(|event| event["fields"].clone()).collect();
    let row = |event: &Value| [event["model"].clone(), event["kind"].clone(), event["retry"].clone(), event["continues"].clone()];
    assert_eq!(told.len(), 2, "{stderr}");
    assert_eq!(row(&told[0]), ["first".into(), "crashed".into(), Value::from(0), false.into()], "{stderr}");
    assert_eq!(row(&told[1]), ["first".into(), Value::Null, Value::from(1), true.into()], "{stderr}");
}

#[test]
fn what_a_worker_says_names_its_model_and_request() {
    let folder = folder().with_model("first.gguf", 1);
    let mut command = folder.command(&[&ASK[..], &["--log-format", "json", "--log-level", "debug"]].concat());
    let output = command.env("DOWNSHIFT_FAULT", "first@token=3:panic").output().expect("the program starts");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    let request = events(&stderr, "downshift::attempt")[0]["fields"]["request"].clone();
    let said = events(&stderr, "downshift::worker");
    let panic = said.iter().find(|event| event["fields"]["message"].as_str().is_some_and(|text| text.contains("panicked")));
    let panic = panic.unwrap_or_else(|| panic!("no panic in {stderr}"));
    assert_eq!((&panic["fields"]["model"], &panic["fields"]["request"]), (&"first".into(), &request), "{stderr}");
}

#[test]
fn the_level_comes_from_the_flag_then_from_the_variable() {
    let folder = folder();
    let lines = |args: &[&str], variable: &str| {
        let mut command = folder.command(&[&ASK[..], args].concat());
        let output = command.env("DOWNSHIFT_LOG", variable).output().expect("the program starts");
        (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
    };
    let (_, usual) = lines(&[], "");
    assert_eq!(usual.lines().count(), 1, "the one line that chat says: {usual}");
    let (_, text) = lines(&[], "warn");
    assert!(text.lines().any(|line| line.contains("WARN downshift::attempt: ") && line.contains("kind=\"missing\"")), "{text}");
    let (_, silent) = lines(&["--log-level", "off"], "trace");
    assert_eq!(silent.lines().count(), 1, "{silent}");
    let (code, wrong) = lines(&[], "loud");
    assert_eq!(code, Some(1));
    assert!(wrong.contains("DOWNSHIFT_LOG") && wrong.contains("loud"), "{wrong}");
}
