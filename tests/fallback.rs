//! A model that cannot answer is replaced by the next one, which is said; when none is left, all attempts are listed.

mod matrix;

use downshift_engine::testing::{poison, value_at};
use serde_json::json;

use crate::support::{Folder, Ran, model};

const MODELS: &str = "[models.first]\npath = \"first.gguf\"\n\n[models.second]\npath = \"second.gguf\"\n";
const ASK: [&str; 6] = ["chat", "--temperature", "0", "--max-tokens", "12", "hello world"];

/// Asks for a model whose file is `first`, or not there, with a sound one after it.
fn check(first: Option<Vec<u8>>, kind: &str, stage: &str) {
    let folder = Folder::new().with("models.toml", MODELS).with_model("second.gguf", 2);
    let folder = match first {
        Some(file) => folder.with("first.gguf", file),
        None => folder,
    };
    answered_by_second(&folder, kind, stage);
    let folder = folder.with("second.gguf", "no model at all");
    nobody_answers(&folder, kind, stage);
}

fn answered_by_second(folder: &Folder, kind: &str, stage: &str) {
    let alone = folder.run(&[&["chat", "-m", "second.gguf"], &ASK[1..]].concat());
    assert_eq!((alone.code, alone.stderr.as_str()), (Some(0), ""), "{kind}: {alone:?}");

    let plain = folder.run(&ASK);
    assert_eq!(plain.code, Some(0), "{kind}: {plain:?}");
    assert_eq!(plain.stdout, alone.stdout, "{kind}");
    assert_eq!(plain.stderr.lines().count(), 1, "{kind}: {plain:?}");
    assert!(plain.stderr.starts_with("second answers instead: first: "), "{kind}: {plain:?}");
    assert!(plain.stderr.contains(&format!("({kind} at {stage}")), "{kind}: {plain:?}");

    let reply = folder.run(&[&ASK[..], &["--json"]].concat());
    assert_eq!(reply.code, Some(0), "{kind}: {reply:?}");
    let reply = reply.json();
    assert_eq!(reply["model"], "second", "{kind}: {reply}");
    assert_eq!(reply["content"].as_str().map(str::trim_end), Some(alone.stdout.trim_end()), "{kind}");
    assert_eq!(reply["fallback"]["requested"], "first", "{kind}: {reply}");
    let attempts = reply["fallback"]["attempts"].as_array().expect("a list");
    assert_eq!(attempts.len(), 1, "{kind}: {reply}");
    let attempt = &attempts[0];
    let named = [&attempt["model"], &attempt["kind"], &attempt["stage"]].map(|field| field.as_str());
    assert_eq!(named, [Some("first"), Some(kind), Some(stage)], "{reply}");
    assert!(attempt["message"].as_str().is_some_and(|message| !message.is_empty()) && attempt["ms"].is_u64(), "{kind}: {reply}");
    assert!(attempt.get("device").is_some(), "{kind}: {reply}");
}

fn nobody_answers(folder: &Folder, kind: &str, stage: &str) {
    for flags in [&[][..], &["--json"]] {
        let ran: Ran = folder.run(&[&ASK[..], flags].concat());
        assert_eq!(ran.code, Some(1), "{kind}: {ran:?}");
        let attempts: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("  ")).collect();
        assert_eq!(attempts.len(), 2, "{kind}: {ran:?}");
        assert!(attempts[0].starts_with("  first: ") && attempts[0].contains(&format!("({kind} at {stage}")), "{kind}: {ran:?}");
        assert!(attempts[1].starts_with("  second: ") && attempts[1].contains("(corrupt at load"), "{kind}: {ran:?}");
        if flags.is_empty() {
            assert_eq!(ran.stdout, "", "{kind}");
        } else {
            assert_eq!(ran.json()["error"]["attempts"].as_array().map(Vec::len), Some(2), "{kind}: {ran:?}");
        }
    }
}

#[test]
fn a_missing_model_is_replaced() {
    check(None, "missing", "load");
}

#[test]
fn a_model_cut_at_half_is_replaced() {
    let mut file = model(1);
    file.truncate(file.len() / 2);
    check(Some(file), "truncated", "load");
}

#[test]
fn a_model_of_an_unknown_architecture_is_replaced() {
    let mut file = model(1);
    let text = value_at(&file, "general.architecture") + 8;
    file[text..text + 5].copy_from_slice(b"alpha");
    check(Some(file), "unsupported_architecture", "load");
}

#[test]
fn a_model_with_a_broken_template_is_replaced() {
    let mut file = model(1);
    let text = value_at(&file, "tokenizer.chat_template") + 8;
    file[text..text + 6].copy_from_slice(b"{% fro");
    check(Some(file), "broken_template", "load");
}

#[test]
fn a_model_with_a_broken_tokenizer_is_replaced() {
    let mut file = model(1);
    let text = value_at(&file, "tokenizer.ggml.model") + 8;
    file[text..text + 4].copy_from_slice(b"gpt9");
    check(Some(file), "broken_tokenizer", "load");
}

#[test]
fn a_model_with_weights_that_are_not_numbers_is_replaced() {
    let mut file = model(1);
    poison(&mut file, "blk.1.ffn_down.weight", 0);
    check(Some(file), "non_finite", "prefill");
}

#[test]
fn a_model_whose_process_dies_is_replaced_and_one_that_recovers_is_not() {
    let folder = Folder::new().with("models.toml", MODELS).with_model("first.gguf", 1).with_model("second.gguf", 2);
    let reply = |fault: &str| {
        let output = folder.command(&[&ASK[..], &["--json"]].concat()).env("DOWNSHIFT_FAULT", fault).output().expect("the program starts");
        assert!(output.status.success(), "{fault}: {output:?}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("one line of JSON")
    };
    let first = reply("");
    for fault in ["first@load:abort!", "first@prefill:segv!", "first@token=3:abort!"] {
        let reply = reply(fault);
        assert_eq!(reply["model"], "second", "{fault}: {reply}");
        assert_eq!(reply["fallback"]["attempts"][0]["kind"], "crashed", "{fault}: {reply}");
    }
    // Fires once: the same model, loaded again, says what it would have said.
    let again = reply("first@token=3:segv");
    assert_eq!((&again["model"], &again["content"]), (&first["model"], &first["content"]), "{again}");
    assert_eq!(again["fallback"]["attempts"][0]["kind"], "crashed", "{again}");
}

#[test]
fn a_reply_without_failures_has_no_fallback() {
    let folder = Folder::new().with("models.toml", MODELS).with_model("first.gguf", 1).with_model("second.gguf", 2);
    let ran = folder.run(&[&ASK[..], &["--json"]].concat());
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    let reply = ran.json();
    let keys: Vec<&str> = reply.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["model", "content", "finish_reason", "usage", "timings"]);
    assert_eq!(reply["model"], "first");
    assert_eq!(reply["finish_reason"], "length");
    assert_eq!(reply["usage"]["completion_tokens"], json!(12));
}

#[test]
fn a_model_without_fallbacks_fails_alone() {
    let text = MODELS.replace("first.gguf\"", "first.gguf\"\nfallbacks = []");
    let folder = Folder::new().with("models.toml", text).with_model("second.gguf", 2);
    let ran = folder.run(&ASK);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(!ran.stderr.contains("second"), "{ran:?}");
}

#[test]
fn a_conversation_that_a_template_refuses_goes_to_a_model_whose_template_takes_it() {
    let text = MODELS.replace("first.gguf\"", "first.gguf\"\nchat_template = \"strict.jinja\"");
    let strict = "{% if messages | length > 1 %}{{ raise_exception('one message\\nonly') }}{% endif %}{{ messages[0].content }}";
    let folder = Folder::new().with("models.toml", text).with("strict.jinja", strict);
    let folder = folder.with_model("first.gguf", 1).with_model("second.gguf", 2);
    let ask = |args: &[&str]| folder.run(&[&ASK[..], &["--json"], args].concat());
    assert_eq!(ask(&[]).json()["model"], "first");
    let reply = ask(&["--system", "Be brief."]).json();
    assert_eq!(reply["model"], "second", "{reply}");
    let attempt = &reply["fallback"]["attempts"][0];
    assert_eq!((&attempt["kind"], &attempt["stage"]), (&json!("cannot_do"), &json!("admission")), "{reply}");
    assert_eq!(attempt["message"], "the chat template refuses the messages: one message only", "{reply}");

    std::fs::remove_file(folder.path("second.gguf")).expect("the second model");
    let refused = ask(&["--system", "Be brief."]);
    assert!(refused.stderr.contains("  first: the chat template refuses"), "{refused:?}");
}

#[test]
fn an_architecture_that_breaks_lines_does_not_break_the_message() {
    let mut file = model(1);
    let text = value_at(&file, "general.architecture") + 8;
    file[text..text + 5].copy_from_slice(b"a\nb\x1b[");
    let folder = Folder::new().with("models.toml", MODELS).with("first.gguf", file).with_model("second.gguf", 2);
    let ran = folder.run(&ASK);
    assert_eq!((ran.code, ran.stderr.lines().count()), (Some(0), 1), "{ran:?}");
    assert!(ran.stderr.contains(r"architecture `a\nb\u{1b}[` is not supported"), "{ran:?}");
}
