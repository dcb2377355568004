//! Vocabularies and templates of real models, from the folder that `DOWNSHIFT_TEST_DATA` names. Skipped without it.

use std::path::{Path, PathBuf};

use downshift_engine::chat_template::{ChatTemplate, Specials, TemplateError, WallClock};
use downshift_engine::tokenizer::{Special, Tokenizer};
use downshift_engine::weights::Gguf;
use serde_json::{Map, Value};

fn folder(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("DOWNSHIFT_TEST_DATA").map(|data| PathBuf::from(data).join(name));
    if folder.is_none() {
        eprintln!("skipped: DOWNSHIFT_TEST_DATA names no folder");
    }
    folder
}

/// The files of a folder with this extension, in order.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    assert!(!files.is_empty(), "no .{extension} in {}", folder.display());
    files
}

fn json(file: &Path) -> Value {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[test]
fn real_vocabularies_split_their_test_strings_as_llama_cpp_does() {
    let Some(folder) = folder("vocab") else { return };
    for file in files(&folder, "gguf") {
        let gguf = Gguf::open(&file).expect("a readable file");
        let tokenizer = Tokenizer::from_metadata(gguf.metadata()).expect("a tokenizer");
        let read = |extension| std::fs::read_to_string(file.with_extension(extension)).expect("its test strings");
        let (strings, expected) = (read("inp"), read("out"));
        for (string, line) in strings.split("\n__ggml_vocab_test__\n").zip(expected.lines()) {
            let expected: Vec<u32> = line.split_whitespace().map(|id| id.parse().expect("an id")).collect();
            let mut found = Vec::new();
            tokenizer.encode(string, Special::Plain, &mut found);
            assert_eq!(found, expected, "{}: {string:?}", file.display());
        }
    }
}

#[test]
fn real_templates_render_as_jinja2_does() {
    let Some(folder) = folder("templates") else { return };
    let given = json(&folder.join("cases.json"));
    let text = |key: &str| given[key].as_str().map(str::to_owned);
    let now = text("now").and_then(|now| WallClock::parse_rfc3339(&format!("{now}Z"))).expect("a time");
    for file in files(&folder, "jinja") {
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let expected = json(&folder.join(format!("{name}.expected.json")));
        let source = std::fs::read_to_string(&file).expect("a template");
        let specials = Specials { bos_token: text("bos_token"), eos_token: text("eos_token"), control: Vec::new() };
        let template = ChatTemplate::parse(&source, specials).expect("a template that compiles");
        for (case, variables) in given["cases"].as_object().expect("cases") {
            let variables: &Map<String, Value> = variables.as_object().expect("variables");
            let rendered = template.render(variables, &now);
            let expected = &expected[case];
            match (expected["text"].as_str(), rendered) {
                (Some(text), Ok(prompt)) => assert_eq!(prompt.text().trim_end_matches('\n'), text.trim_end_matches('\n'), "{name}: {case}"),
                (Some(_), Err(error)) => panic!("{name}: {case}: {error}"),
                (None, Ok(prompt)) => panic!("{name}: {case} rendered {:?}", prompt.text()),
                (None, Err(error)) => {
                    let said = expected["raised"].as_str().unwrap_or_default();
                    assert!(
                        matches!(&error, TemplateError::Raised(text) if text.contains(said)) || said.is_empty(),
                        "{name}: {case}: {error}"
                    );
                }
            }
        }
    }
}
