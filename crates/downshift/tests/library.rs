//! Promises of the library, over scripted models: the same facts whichever way a reply is taken.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::pin;
use std::task::{Context, Waker};

use downshift::testing::{Scripted, block_on};
use downshift::{Chat, Completion, Downshift, Embed, Error, FailureKind, FinishReason, Message, RefusedClass, Update};

fn engine(models: Scripted) -> Downshift {
    Downshift::builder().model("chat", "chat.gguf").model("tiny", "tiny.gguf").launcher(models).build().unwrap()
}

fn broken_primary() -> Downshift {
    engine(Scripted::new().fails("chat", FailureKind::Corrupt).answers("tiny", "one two three"))
}

#[test]
fn blocking_callback_future_and_stream_give_the_same_reply() {
    let engine = broken_primary();
    let blocking = engine.chat("Hi").unwrap();
    assert_eq!((blocking.model.as_str(), blocking.content.as_str()), ("tiny", "one two three"));
    let mut pieces = Vec::new();
    let mut take = |piece: downshift::Piece| {
        pieces.push(format!("{}:{}", piece.model, piece.text));
        ControlFlow::Continue(())
    };
    let called = engine.chat_with("Hi", &mut take).unwrap();
    assert_eq!(pieces, ["tiny:one ", "tiny:two ", "tiny:three"]);
    let awaited = block_on(engine.chat_async("Hi")).unwrap();
    let mut streamed = Vec::new();
    let mut stream = engine.chat_stream("Hi");
    let end = block_on(async {
        loop {
            match stream.next().await.expect("an end before the stream ends").unwrap() {
                Update::Piece(piece) => streamed.push(format!("{}:{}", piece.model, piece.text)),
                Update::End(reply) => break reply,
            }
        }
    });
    assert_eq!(block_on(stream.next()), None);
    assert_eq!(streamed, pieces);
    for reply in [&called, &awaited, &end] {
        assert_eq!((&reply.content, &reply.model, &reply.usage), (&blocking.content, &blocking.model, &blocking.usage));
    }
    assert_eq!(blocking.fallback.unwrap().attempts[0].kind, FailureKind::Corrupt);
}

#[test]
fn completions_answer_in_all_four_ways_too() {
    let engine = broken_primary();
    let text = || Completion::text("Once").max_tokens(2);
    assert_eq!(engine.completion("Once").unwrap().content, "one two three");
    let reply = engine.completion_with(text(), |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((reply.content.as_str(), reply.finish_reason), ("one two ", FinishReason::Length));
    assert_eq!(block_on(engine.completion_async(text())).unwrap().content, "one two ");
    let mut stream = engine.completion_stream(text());
    assert!(matches!(block_on(stream.next()), Some(Ok(Update::Piece(piece))) if piece.text == "one "));
}

#[test]
fn when_nobody_answers_the_error_lists_every_attempt_in_every_way() {
    let engine = engine(Scripted::new().fails("chat", FailureKind::Missing).fails("tiny", FailureKind::UnsupportedType));
    let errors = [
        engine.chat("Hi").unwrap_err(),
        engine.chat_with("Hi", |_| ControlFlow::Continue(())).unwrap_err(),
        block_on(engine.chat_async("Hi")).unwrap_err(),
        block_on(engine.chat_stream("Hi").next()).unwrap().unwrap_err(),
    ];
    for error in errors {
        let kinds: Vec<_> = error.attempts().iter().map(|attempt| (attempt.model.as_str(), attempt.kind)).collect();
        assert_eq!(kinds, [("chat", FailureKind::Missing), ("tiny", FailureKind::UnsupportedType)]);
        assert!(error.to_string().contains("chat.gguf: missing"), "{error}");
    }
}

#[test]
fn a_model_that_breaks_off_is_replaced_before_anything_is_shown() {
    let engine = engine(Scripted::new().breaks_off("chat", "half an ", FailureKind::NonFinite).answers("tiny", "whole"));
    let reply = engine.chat("Hi").unwrap();
    assert_eq!((reply.content.as_str(), reply.model.as_str()), ("whole", "tiny"));
}

#[test]
fn a_stream_that_breaks_off_is_continued_and_says_so_once() {
    let engine = engine(Scripted::new().breaks_off("chat", "one two ", FailureKind::NonFinite).answers("tiny", "1 2 three four"));
    let mut pieces = Vec::new();
    let reply = engine
        .chat_with("Count.", |piece| {
            pieces.push((piece.text, piece.model.to_string(), piece.continued.map(|continued| (continued.from, continued.reason))));
            ControlFlow::Continue(())
        })
        .unwrap();
    let notice = Some(("chat".to_owned(), "non_finite"));
    let piece = |text: &str, model: &str, continued: Option<(String, &'static str)>| (text.to_owned(), model.to_owned(), continued);
    assert_eq!(
        pieces,
        [piece("one ", "chat", None), piece("two ", "chat", None), piece("three ", "tiny", notice), piece("four", "tiny", None)]
    );
    assert_eq!((reply.content.as_str(), reply.model.as_str()), ("one two three four", "tiny"));
}

#[test]
fn break_stops_the_answer() {
    let engine = engine(Scripted::new().answers("chat", "a b c d"));
    let mut shown = String::new();
    let stopped = engine.chat_with("Hi", |piece| {
        shown.push_str(&piece.text);
        if shown.len() >= 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let Err(Error::Refused(refused)) = stopped else { panic!("{stopped:?}") };
    assert_eq!((refused.class(), shown.as_str()), (RefusedClass::Cancelled, "a b "));
}

#[test]
fn a_dropped_stream_frees_its_model() {
    let engine = engine(Scripted::new().answers("chat", &"word ".repeat(10_000)));
    let mut stream = engine.chat_stream("Hi");
    block_on(stream.next());
    drop(stream);
    assert_eq!(engine.chat(Chat::from("Hi").max_tokens(1)).unwrap().content, "word ");
    let unpolled = engine.chat_async("Hi");
    drop(unpolled);
    assert_eq!(engine.chat(Chat::from("Hi").max_tokens(1)).unwrap().content, "word ");
}

#[test]
fn a_future_is_pending_until_the_reply_is_there() {
    let engine = engine(Scripted::new());
    let mut future = pin!(engine.chat_async("Hi"));
    let mut context = Context::from_waker(Waker::noop());
    let first = future.as_mut().poll(&mut context);
    let reply = match first {
        std::task::Poll::Ready(reply) => reply,
        std::task::Poll::Pending => block_on(future),
    };
    assert_eq!(reply.unwrap().content, "chat");
}

#[test]
fn a_request_chooses_models_fallbacks_and_retries() {
    let engine = engine(Scripted::new());
    let mocked = engine.chat(Chat::from("Hi").mock_testing_fallbacks()).unwrap();
    assert_eq!(mocked.model, "tiny");
    assert_eq!(engine.chat(Chat::from("Hi").models(["tiny", "chat"])).unwrap().model, "tiny");
    assert_eq!(engine.chat(Chat::from("Hi").model("tiny").fallbacks(["chat"]).mock_testing_fallbacks()).unwrap().model, "chat");
    let alone = engine.chat(Chat::from("Hi").disable_fallbacks().mock_testing_fallbacks()).unwrap_err();
    assert_eq!(alone.attempts().len(), 1);
    let Err(Error::Refused(unknown)) = engine.chat(Chat::from(vec![Message::user("Hi")]).model("huge")) else { panic!("no such model") };
    assert_eq!(unknown.class(), RefusedClass::NotFound);
}

#[test]
fn a_models_toml_is_read_and_its_mistakes_name_line_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("models.toml");
    std::fs::write(&path, "[models.chat]\npath = \"chat.gguf\"\nfallback = []\n").unwrap();
    let Err(Error::Config(error)) = Downshift::from_file(&path) else { panic!("an unknown key") };
    assert_eq!((error.line, error.remedy.as_str()), (Some(3), "did you mean `fallbacks`?"));
    std::fs::write(&path, "[models.chat]\npath = \"chat.gguf\"\n").unwrap();
    assert_eq!(Downshift::from_file(&path).unwrap().config().models()[0].spec.path, folder.path().join("chat.gguf"));
    let built = downshift::Builder::file(&path).unwrap().launcher(Scripted::new()).build().unwrap();
    assert_eq!(built.chat("Hi").unwrap().model, "chat");
    assert!(Downshift::builder().build().is_err());
}

#[test]
fn models_are_isolated_where_the_host_names_a_worker_program_and_models_toml_does_not_forbid_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("models.toml");
    let failure = |isolate: &str, program: Option<&str>| {
        std::fs::write(&path, format!("[settings]\n{isolate}\n[models.chat]\npath = \"no such file.gguf\"\n")).unwrap();
        let builder = downshift::Builder::file(&path).unwrap();
        let engine = program.map_or_else(|| Downshift::from_file(&path), |program| builder.worker_program(program).build()).unwrap();
        engine.chat("Hi").unwrap_err().attempts()[0].kind
    };
    // A program that is not there cannot be started; in process the file is looked at.
    let nowhere = Some("no such program");
    assert_eq!(failure("", None), FailureKind::Missing);
    assert_eq!(failure("isolate = true", None), FailureKind::Missing);
    assert_eq!(failure("", nowhere), FailureKind::Crashed);
    assert_eq!(failure("isolate = true", nowhere), FailureKind::Crashed);
    assert_eq!(failure("isolate = false", nowhere), FailureKind::Missing);
}

#[test]
fn a_reply_serializes_without_a_fallback_when_nothing_failed() {
    let engine = engine(Scripted::new().answers("chat", "ok"));
    let json = serde_json::to_value(engine.chat("Hi").unwrap()).unwrap();
    assert_eq!(
        (json["model"].as_str(), json["content"].as_str(), json["finish_reason"].as_str()),
        (Some("chat"), Some("ok"), Some("stop"))
    );
    assert!(json.get("fallback").is_none());
    let json = serde_json::to_value(broken_primary().chat("Hi").unwrap()).unwrap();
    assert_eq!(json["fallback"]["requested"], "chat");
    assert_eq!(json["fallback"]["attempts"][0]["kind"], "corrupt");
}

#[test]
fn clones_are_the_same_engine_on_any_thread() {
    fn shared<T: Send + Sync + Clone>(engine: &T) -> T {
        engine.clone()
    }
    let engine = engine(Scripted::new());
    let other = shared(&engine);
    std::thread::spawn(move || other.chat("Hi").unwrap()).join().unwrap();
    assert_eq!(engine.scheduler().counters().load_total.values().sum::<u64>(), 1);
}

#[test]
fn vectors_come_blocking_and_async_from_models_of_one_space() {
    let entry = |name: &str| {
        let mut entry = downshift::ModelEntry::new(downshift::ModelSpec::from_path(format!("{name}.gguf")));
        entry.embedding_space = Some("e".to_owned());
        entry
    };
    let models = Scripted::new().fails("first", FailureKind::Missing).embeds("second").embeds("other");
    let engine = Downshift::builder().entry(entry("first")).entry(entry("second")).model("other", "o").launcher(models).build().unwrap();
    let found = engine.embed(["a", "abc"]).unwrap();
    assert_eq!((found.model.as_str(), found.vectors.as_slice()), ("second", &[vec![1.0, 1.0], vec![3.0, 1.0]][..]));
    assert_eq!((found.usage.prompt_tokens, found.fallback.unwrap().attempts.len()), (4, 1));
    assert_eq!(block_on(engine.embed_async("abc")).unwrap().vectors, [[3.0, 1.0]]);
    let refused = engine.embed(Embed::texts(["a"]).models(["first", "other"])).unwrap_err();
    assert_eq!(refused.attempts()[1].kind, FailureKind::CannotDo);
}
