//! Prompts come from arguments or stdin, answers go to stdout and nothing else does.

use std::process::Stdio;

use crate::support::Folder;

const ASK: [&str; 7] = ["chat", "-m", "m.gguf", "--temperature", "0", "--max-tokens", "8"];

fn folder() -> Folder {
    Folder::new().with_model("m.gguf", 7)
}

#[test]
fn stdin_is_the_prompt_where_there_is_no_argument() {
    let folder = folder();
    let argument = folder.run(&[&ASK[..], &["hello world"]].concat());
    let stdin = folder.run_with(&ASK, "hello world");
    assert_eq!(argument.code, Some(0), "{argument:?}");
    assert!(!argument.stdout.trim().is_empty());
    assert_eq!(argument.stdout, stdin.stdout);
    assert_eq!((argument.stderr.as_str(), stdin.stderr.as_str()), ("", ""));
}

#[test]
fn an_empty_prompt_and_one_that_is_not_utf8_are_refused() {
    let folder = folder();
    let empty = folder.run_with(&ASK, "\n");
    assert_eq!(empty.code, Some(1));
    assert!(empty.stderr.contains("the prompt is empty"), "{empty:?}");
    let latin = folder.run_with(&ASK, b"caf\xe9 au lait");
    assert_eq!(latin.code, Some(1));
    assert!(latin.stderr.contains("not UTF-8") && latin.stderr.contains("byte 3"), "{latin:?}");
}

#[test]
fn a_system_message_changes_the_prompt_and_a_seed_repeats_the_answer() {
    let folder = folder();
    let usage = |args: &[&str]| folder.run(&[&ASK[..], &["--json", "hello"], args].concat()).json()["usage"]["prompt_tokens"].clone();
    assert!(usage(&["--system", "Answer in one word."]).as_u64() > usage(&[]).as_u64());
    let drawn = |seed: &str| folder.run(&["chat", "-m", "m.gguf", "-n", "16", "--temperature", "2", "--seed", seed, "hello"]).stdout;
    assert_eq!(drawn("1"), drawn("1"));
    assert_ne!(drawn("1"), drawn("2"));
}

#[test]
fn a_worker_process_says_what_this_process_says() {
    let folder = folder();
    let apart = folder.run(&[&ASK[..], &["hello world"]].concat());
    let within = folder.run(&[&ASK[..], &["--in-process", "hello world"]].concat());
    assert_eq!((apart.code, within.code), (Some(0), Some(0)), "{apart:?}");
    assert_eq!(apart.stdout, within.stdout);
}

#[test]
fn a_reader_that_leaves_ends_the_answer_quietly() {
    let folder = folder();
    let args = ["chat", "-m", "m.gguf", "--temperature", "0", "--max-tokens", "400", "hello"];
    let mut child = folder.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the program ends");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn a_prompt_longer_than_the_context_says_so() {
    let ran = folder().run(&["chat", "-m", "m.gguf", "--context", "16", "one two three four five six seven eight nine ten"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("exceeds the available context size of 16"), "{ran:?}");
}

#[test]
fn a_file_without_a_models_toml_that_is_not_there_is_named() {
    let ran = Folder::new().run(&["chat", "-m", "gone.gguf", "Hi"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("gone.gguf: no such file"), "{ran:?}");
    for path in ["./gone", "../gone", "/gone"] {
        let ran = Folder::new().run(&["chat", "-m", path, "Hi"]);
        assert_eq!(ran.code, Some(1));
        assert!(ran.stderr.contains(&format!("{path}: no such file")), "{ran:?}");
    }
    let ran = Folder::new().run(&["chat", "-m", "gone", "Hi"]);
    assert!(ran.stderr.contains("there is no file `gone`: there is no models.toml"), "{ran:?}");
}

#[test]
fn a_variable_that_means_nothing_is_an_error_and_not_another_meaning() {
    let folder = Folder::new().with_model("tiny.gguf", 1);
    for (name, value) in [("DOWNSHIFT_ISA", "avx9"), ("DOWNSHIFT_FAULT", "nonsense")] {
        let mut command = folder.command(&["chat", "-m", "tiny.gguf", "Hi"]);
        let ran = command.env(name, value).output().expect("the program starts");
        let stderr = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(name) && stderr.contains(value), "{stderr}");
    }
}
