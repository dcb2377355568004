//! Fallbacks between local models: an ordered list at construction, sync and async chat, completion, embeddings, a stream that
//! survives, and reports that tell why.
//!
//! ```sh
//! cargo run -p downshift --example fallbacks                                   # scripted models, no files
//! cargo run -p downshift --example fallbacks -- large.gguf small.gguf          # yours, in this order
//! ```

use std::io::Write;
use std::ops::ControlFlow;
use std::time::Duration;

use downshift::testing::{Scripted, block_on};
use downshift::{Chat, Completion, Downshift, Embed, Error, FailureKind, ModelEntry, ModelSpec, Reply, Update};

fn main() -> Result<(), Error> {
    let engine = build()?;
    let mut out = std::io::stdout().lock();
    let mut say = |line: String| {
        // A closed terminal is no reason to stop.
        let _ = writeln!(out, "{line}");
    };

    say("1. The first model that can, answers:".to_owned());
    let reply = engine.chat(Chat::new().system("Be brief.").user("Why is the sky blue?").max_tokens(32))?;
    report(&reply, &mut say);

    say("2. A stream, as it comes; another model goes on where one breaks off:".to_owned());
    let mut stream = engine.chat_stream(Chat::from("Count to five.").max_tokens(24));
    block_on(async {
        while let Some(update) = stream.next().await {
            match update? {
                Update::Piece(piece) => {
                    if let Some(continued) = &piece.continued {
                        say(format!("   -- {} broke off ({}), {} goes on", continued.from, continued.reason, piece.model));
                    }
                    say(format!("   {}: {:?}", piece.model, piece.text));
                }
                Update::End(reply) => report(&reply, &mut say),
            }
        }
        Ok::<(), Error>(())
    })?;

    say("3. Async, with a time for all attempts:".to_owned());
    let pending = engine.chat_async(Chat::from("Name a colour.").max_tokens(16).timeout(Duration::from_secs(60)));
    report(&block_on(pending)?, &mut say);

    say("4. A text to be continued:".to_owned());
    report(&engine.completion(Completion::text("Once upon a time").max_tokens(16))?, &mut say);

    say("5. To see a fallback at work, the first model fails on purpose:".to_owned());
    report(&engine.chat(Chat::from("Hello!").max_tokens(16).mock_testing_fallbacks())?, &mut say);

    say("6. With the fallbacks switched off, the error lists what was tried:".to_owned());
    let refused = engine.chat_with(Chat::from("Hi").disable_fallbacks().mock_testing_fallbacks(), |_| ControlFlow::Continue(()));
    if let Err(error) = refused {
        error.attempts().iter().for_each(|attempt| say(format!("   {attempt}")));
    }

    say("7. Vectors fall back too, but only to a model of the same embedding_space:".to_owned());
    let embedders = build_embedders()?;
    let found = embedders.embed(Embed::texts(["a cat", "a kitten"]))?;
    say(format!(
        "   {} made {} vectors of {} from {} tokens",
        found.model,
        found.vectors.len(),
        found.vectors[0].len(),
        found.usage.prompt_tokens
    ));
    for attempt in found.fallback.iter().flat_map(|fallback| &fallback.attempts) {
        say(format!("   before: {attempt}"));
    }
    Ok(())
}

/// Two scripted embedders whose vectors can be compared: one that is missing, and one that answers. Yours are folders such as
/// all-MiniLM-L6-v2, and models.toml declares the same `embedding_space` for both.
fn build_embedders() -> Result<Downshift, Error> {
    let entry = |name: &str| ModelEntry { embedding_space: Some("demo".to_owned()), ..ModelEntry::new(ModelSpec::from_path(name)) };
    let models = Scripted::new().fails("embed", FailureKind::Missing).embeds("embed-q8");
    Downshift::builder().entry(entry("embed")).entry(entry("embed-q8")).launcher(models).build()
}

/// Models named on the command line, or scripted ones: one that is missing, one that breaks off, one that answers.
fn build() -> Result<Downshift, Error> {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    if paths.is_empty() {
        let models = Scripted::new()
            .fails("large", FailureKind::Missing)
            .breaks_off("medium", "one two three ", FailureKind::NonFinite)
            .answers("small", "one two three four five");
        let builder = Downshift::builder().model("large", "large.gguf").model("medium", "medium.gguf").model("small", "small.gguf");
        return builder.launcher(models).build();
    }
    let builder =
        paths.iter().enumerate().fold(Downshift::builder(), |builder, (at, path)| builder.model(format!("model-{}", at + 1), path));
    builder.build()
}

fn report(reply: &Reply, say: &mut impl FnMut(String)) {
    say(format!("   {} on {}: {:?}", reply.model, reply.device, reply.content));
    for attempt in reply.fallback.iter().flat_map(|fallback| &fallback.attempts) {
        say(format!("   before: {attempt}"));
    }
}
