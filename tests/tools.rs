//! `tokenize`, `template` and `eval logits`: what other programs compare with.

use downshift_engine::testing::GgufWriter;
use serde_json::{Value, json};

use crate::support::Folder;

#[test]
fn tokenize_reads_special_spellings_only_when_told() {
    let folder = Folder::new().with_model("m.gguf", 1);
    let ids = |args: &[&str], text: &str| folder.run_with(&[&["tokenize", "-m", "m.gguf"], args].concat(), text).json();
    // The vocabulary: 256 bytes, 24 merges, three special tokens.
    assert_eq!(ids(&[], "hello world"), json!([264, 268]));
    assert_eq!(ids(&["--special"], "<|im_start|>hello"), json!([281, 264]));
    let plain = ids(&[], "<|im_start|>hello");
    assert!(plain.as_array().is_some_and(|ids| ids.len() > 2 && !ids.contains(&json!(281))), "{plain}");
    assert_eq!(ids(&[], ""), json!([]));
}

#[test]
fn tokenize_needs_a_vocabulary_and_no_weights() {
    let vocabulary = GgufWriter::new("llama")
        .string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", "gpt-2")
        .strings("tokenizer.ggml.tokens", &["a", "b", "ab", "<s>", "</s>"])
        .i32s("tokenizer.ggml.token_type", &[1, 1, 1, 3, 3])
        .strings("tokenizer.ggml.merges", &["a b"])
        .u32("tokenizer.ggml.bos_token_id", 3)
        .u32("tokenizer.ggml.eos_token_id", 4)
        .boolean("tokenizer.ggml.add_bos_token", true)
        .boolean("tokenizer.ggml.add_eos_token", true);
    let folder = Folder::new().with("v.gguf", vocabulary.finish());
    assert_eq!(folder.run_with(&["tokenize", "-m", "v.gguf"], "aab").json(), json!([0, 2]));
    assert_eq!(folder.run_with(&["tokenize", "-m", "v.gguf", "--special"], "aab").json(), json!([3, 0, 2, 4]));
}

#[test]
fn text_that_is_not_utf8_is_refused_with_its_place() {
    let ran = Folder::new().with_model("m.gguf", 1).run_with(&["tokenize", "-m", "m.gguf"], b"ab\xff");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert!(ran.stderr.contains("not UTF-8: byte 2"), "{ran:?}");
}

#[test]
fn template_renders_that_of_a_model_or_of_a_file() {
    let folder = Folder::new().with_model("m.gguf", 1).with("t.jinja", "{{ strftime_now('%d %B %Y') }}: {{ messages[0].content }}{{ x }}");
    let case = r#"{"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": true, "x": 5}"#;
    let own = folder.run_with(&["template", "-m", "m.gguf"], case);
    assert_eq!(own.stdout, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "{own:?}");
    let file = folder.run_with(&["template", "--template", "t.jinja", "--now", "2026-01-31T12:00:00Z"], case);
    assert_eq!(file.stdout, "31 January 2026: Hi5", "{file:?}");
}

#[test]
fn template_errors_are_told_in_the_templates_own_words() {
    let check = |template: &str, case: &str, expected: &str| {
        let folder = Folder::new().with("t.jinja", template);
        let ran = folder.run_with(&["template", "--template", "t.jinja"], case);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{template}");
        assert!(ran.stderr.contains(expected), "{template}: {ran:?}");
    };
    check("{{ raise_exception('only users here') }}", "{}", "only users here");
    check("a\n{% if %}", "{}", "line 2");
    check("{% for i in range(10 ** 12) %}{{ i }}{% endfor %}", "{}", "range too big");
    check("x", "[]", "must be a JSON object");
    check("x", "{", "must be a JSON object");
}

#[test]
fn logits_are_the_same_however_the_tokens_are_fed() {
    let token_ids: Vec<u32> = (0..40).map(|i| (i * 37) % 280).collect();
    let folder = Folder::new().with_model("m.gguf", 1).with("ids.json", json!(token_ids).to_string());
    let logits = |args: &[&str]| {
        let ran = folder.run(&[&["eval", "logits", "-m", "m.gguf", "--tokens", "ids.json", "-o", "out.f32"], args].concat());
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let bytes = std::fs::read(folder.path("out.f32")).expect("the output");
        let rows: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        (ran.json(), rows)
    };
    let distance = |a: &[f32], b: &[f32]| {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    const N_VOCAB: usize = 283;
    let (told, whole) = logits(&[]);
    assert_eq!(told, json!({"positions": 40, "vocab": N_VOCAB}));
    assert_eq!(whole.len(), 40 * N_VOCAB);
    let spread = whole.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
    assert!(spread > 0.5 && spread.is_finite(), "{spread}");
    // Prefill and decode round activations to other grids: 8 bits for a few rows, bfloat16 for many.
    for chunk in ["1", "7"] {
        let far = distance(&whole, &logits(&["--chunk", chunk]).1);
        assert!(far < 0.1 * spread, "fed by {chunk}: {far} of {spread}");
    }
    // Logits are computed sixteen positions at a time, so that the last eight of 40 are a group of their own either way.
    let (told, tail) = logits(&["--from", "32"]);
    assert_eq!(told["positions"], 8);
    assert_eq!(distance(&whole[32 * N_VOCAB..], &tail), 0.0);
    let far = distance(&whole, &logits(&["--device", "candle-cpu"]).1);
    assert!(far < 0.1 * spread, "candle: {far} of {spread}");
}

#[test]
fn token_ids_that_cannot_be_fed_are_refused() {
    let check = |ids: &str, args: &[&str], expected: &str| {
        let folder = Folder::new().with_model("m.gguf", 1).with("ids.json", ids);
        let ran = folder.run(&[&["eval", "logits", "-m", "m.gguf", "--tokens", "ids.json", "-o", "out.f32"], args].concat());
        assert_eq!(ran.code, Some(1), "{ids}: {ran:?}");
        assert!(ran.stderr.contains(expected), "{ids}: {ran:?}");
    };
    check("[]", &[], "no token ids");
    check("[1, -1]", &[], "JSON list of token ids");
    check("[1, 283]", &[], "outside the vocabulary of 283");
    check("[1, 2]", &["--from", "2"], "past the last of the 2 tokens");
    check(&json!(vec![1; 65]).to_string(), &["--context", "64"], "the context of 64 positions is full");
    check("[1, 2, 3]", &["--context", "2"], "the context of 2 positions is full");
}

#[test]
fn positions_beyond_those_a_model_was_trained_for_are_told() {
    let folder = Folder::new().with_model("m.gguf", 1).with("ids.json", json!(vec![1; 513]).to_string());
    let eval = ["eval", "logits", "-m", "m.gguf", "--tokens", "ids.json", "--from", "512", "-o", "out.f32"];
    for args in [&eval[..], &["bench", "-m", "m.gguf", "-p", "513", "-n", "0", "-r", "1"]] {
        let ran = folder.run(args);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(ran.stderr, "513 positions are more than the 512 that the model was trained for\n", "{ran:?}");
    }
    assert_eq!(folder.run(&["bench", "-m", "m.gguf", "-p", "512", "-n", "0", "-r", "1"]).stderr, "");
}

#[test]
fn a_breakdown_tells_where_the_time_of_a_test_went() {
    let folder = Folder::new().with_model("m.gguf", 1);
    let ran = folder.run(&["bench", "-m", "m.gguf", "-p", "16", "-n", "4", "-r", "1", "--breakdown", "-o", "jsonl"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let rows: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    assert_eq!(rows.len(), 2, "{ran:?}");
    for (row, passes) in rows.iter().zip([1.0, 4.0]) {
        let parts = row["breakdown"]["parts"].as_array().expect("parts");
        let sum = |field: &str| parts.iter().map(|part| part[field].as_f64().expect("a number")).sum::<f64>();
        assert!((sum("share") - 1.0).abs() < 1e-9, "{row}");
        // The parts are all of the forward passes, and little of a test is anything else.
        let whole_ms = row["avg_ns"].as_f64().expect("a number") / 1e6;
        let parts_ms = sum("ms") * passes;
        assert!(parts_ms <= whole_ms && parts_ms > 0.1 * whole_ms, "{parts_ms} of {whole_ms} ms: {row}");
        assert!(row["breakdown"]["read_ceiling_gbs"].as_f64().is_some_and(|ceiling| ceiling > 0.01), "{row}");
    }
    let refused = folder.run(&["bench", "-m", "m.gguf", "--breakdown", "-o", "csv"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("prints md, json or jsonl"), "{refused:?}");
}
