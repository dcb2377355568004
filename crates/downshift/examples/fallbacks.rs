//! Fallbacks between local models, from the list to the log: run it at the top of the repository, where the demo models are.
//!
//! ```sh
//! cargo run --release -p downshift --example fallbacks
//! DOWNSHIFT_FAULT="large@token=20:nan" cargo run --release -p downshift --example fallbacks     # large breaks off mid-stream
//! ```

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};

use downshift::testing::block_on;
use downshift::{Chat, Completion, Downshift, Error, Reply, Update};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, span};

fn main() -> Result<(), Error> {
    tracing::subscriber::set_global_default(Log::default()).expect("the first subscriber");

    // An ordered list: the first model is the primary, the next one is tried when it fails.
    let engine = Downshift::builder()
        .model("best", "models/not-here-yet.gguf")
        .model("large", "models/demo-large.gguf")
        .model("small", "models/demo-small.gguf")
        .build()?;

    // Sync.
    say("chat");
    let reply = engine.chat(Chat::from("What is 17 + 25?").temperature(0.0))?;
    show(&reply);

    // Async, on any runtime.
    say("async chat");
    let reply = block_on(async { engine.chat_async(Chat::from("What is the capital of France?").temperature(0.0)).await })?;
    show(&reply);

    // A stream; where a model breaks off, another one goes on with the text.
    say("stream");
    let mut stream = engine.chat_stream(Chat::from("Count from 1 to 10.").temperature(0.0));
    block_on(async {
        while let Some(update) = stream.next().await {
            match update? {
                Update::Piece(piece) => {
                    if let Some(broke_off) = piece.continued {
                        print(&format!("[{} broke off: {}; {} goes on]", broke_off.from, broke_off.reason, piece.model));
                    }
                    print(&piece.text);
                }
                Update::End(reply) => print(&format!("\n{} tokens, ended by {}\n", reply.usage.completion_tokens, reply.model)),
            }
        }
        Ok::<(), Error>(())
    })?;

    // The same for a text that is to be continued.
    say("completion");
    let reply = engine.completion(Completion::text("5, 6, 7,").temperature(0.0).max_tokens(6))?;
    show(&reply);

    // When nobody answers, the error lists every attempt.
    say("no model left");
    let refused = engine.chat(Chat::from("Hello").model("best").disable_fallbacks());
    print(&format!("error: {}\n", refused.expect_err("there is no such file")));
    Ok(())
}

/// Who answered, what failed before, and why.
fn show(reply: &Reply) {
    print(&format!("{}: {}\n", reply.model, reply.content.trim()));
    for attempt in reply.fallback.iter().flat_map(|fallback| &fallback.attempts) {
        print(&format!("  not {attempt}\n"));
    }
}

fn say(title: &str) {
    print(&format!("\n== {title}\n"));
}

/// A closed terminal is no reason to stop.
fn print(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints what the library logs to stderr. A program would use `tracing-subscriber`, which is a line.
#[derive(Default)]
struct Log {
    spans: AtomicU64,
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        eprintln!("{:>5} {}{}", event.metadata().level().as_str(), line.message, line.fields);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1 + self.spans.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// One event: its sentence, and its fields.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.fields += &format!(" {name}={value:?}"),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields += &format!(" {}={value}", field.name());
    }
}
