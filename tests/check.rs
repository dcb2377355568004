//! `check` and `models` tell which models can answer, without loading them.

use crate::support::Folder;

const MODELS: &str =
    "[models.good]\npath = \"good.gguf\"\ncontext = 100\n[models.bad]\npath = \"bad.gguf\"\n[models.gone]\npath = \"gone.gguf\"\n";

fn folder(text: &str) -> Folder {
    Folder::new().with("models.toml", text).with_model("good.gguf", 1).with("bad.gguf", "GGUF")
}

#[test]
fn a_chain_with_nobody_alive_fails_the_check() {
    let ran = folder(MODELS).run(&["check"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("good > bad > gone: good answers"), "{ran:?}");
    assert!(ran.stdout.contains("bad > gone: nobody answers"), "{ran:?}");
}

#[test]
fn broken_models_with_a_live_fallback_pass_the_check() {
    let ran = folder(&format!("[settings]\ndefault_fallbacks = [\"good\"]\n{MODELS}")).run(&["check"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for line in ["bad > good: good answers", "gone > good: good answers"] {
        assert!(ran.stdout.contains(line), "{ran:?}");
    }
    assert!(ran.stdout.contains("(missing)") && ran.stdout.contains("(truncated)"), "{ran:?}");
}

#[test]
fn models_are_listed_with_state_size_verdict_context_and_device() {
    let folder = folder(MODELS);
    let list = folder.run(&["models", "--json"]).json();
    let column = |key: &str| -> Vec<String> { list.as_array().expect("a list").iter().map(|row| row[key].to_string()).collect() };
    assert_eq!(column("name"), ["\"good\"", "\"bad\"", "\"gone\""]);
    assert_eq!(column("state"), ["\"unloaded\""; 3]);
    assert_eq!(column("verdict"), ["\"ok\"", "\"truncated\"", "\"missing\""]);
    assert_eq!(column("context"), ["100", "null", "null"]);
    assert_eq!(column("size_bytes")[1..], ["4", "null"]);
    assert_eq!(column("device"), ["\"auto\""; 3]);
    assert_eq!(list[0]["info"]["architecture"], "llama");

    let table = folder.run(&["models"]);
    assert_eq!(table.code, Some(0));
    assert!(!table.stdout.contains('\u{1b}'), "colours where there is no terminal: {table:?}");
    assert!(table.stdout.lines().any(|line| line.starts_with("gone ") && line.contains("missing")), "{table:?}");
}
