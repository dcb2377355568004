//! An answer bound to a schema stays so through worker processes, their deaths and other models.

use serde_json::Value;

use crate::support::Folder;

const SCHEMA: &str = r#"{"type": "object", "properties": {"colour": {"enum": ["red", "green", "blue"]}, "sizes": {"type": "array",
    "items": {"type": "integer", "minimum": 10, "maximum": 99}, "minItems": 3, "maxItems": 3}}, "required": ["colour", "sizes"],
    "additionalProperties": false}"#;

const MODELS: &str = "[models.first]\npath = \"first.gguf\"\n[models.second]\npath = \"second.gguf\"\n";

fn folder() -> Folder {
    Folder::new().with("models.toml", MODELS).with("schema.json", SCHEMA).with_model("first.gguf", 1).with_model("second.gguf", 2)
}

fn check(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let sizes = value["sizes"].as_array().expect("sizes");
    assert!(sizes.len() == 3 && sizes.iter().all(|size| (10..100).contains(&size.as_u64().expect("a number"))), "{text}");
    assert!(["red", "green", "blue"].contains(&value["colour"].as_str().expect("a colour")), "{text}");
}

#[test]
fn a_schema_as_text_or_file_binds_the_answer() {
    let folder = folder();
    for seed in ["1", "2", "3"] {
        let ask = |schema: &str| folder.run(&["chat", "--temperature", "1", "--seed", seed, "--json-schema", schema, "Hello"]);
        let (text, file) = (ask(SCHEMA), ask("schema.json"));
        assert_eq!(text.code, Some(0), "{text:?}");
        check(&text.stdout);
        assert_eq!(text.stdout, file.stdout);
    }
}

#[test]
fn an_answer_that_breaks_off_goes_on_as_valid_json() {
    let folder = folder();
    let ask = ["chat", "--temperature", "0", "--json-schema", "schema.json", "Hello"];
    let reply = |fault: &str| {
        let output = folder.command(&ask).env("DOWNSHIFT_FAULT", fault).output().expect("the program starts");
        assert!(output.status.success(), "{fault}: {output:?}");
        (String::from_utf8(output.stdout).expect("text"), String::from_utf8(output.stderr).expect("text"))
    };
    let (whole, quiet) = reply("");
    check(&whole);
    assert_eq!(quiet, "");
    for token in [1, 4, 9, 14] {
        let (again, told) = reply(&format!("first@token={token}:segv"));
        assert_eq!(again, whole, "the same model after token {token}");
        assert!(told.contains("first goes on where first broke off"), "{told}");
        let (joined, told) = reply(&format!("first@token={token}:nan!"));
        check(&joined);
        assert!(told.contains("second goes on where first broke off"), "{told}");
    }
}

#[test]
fn a_schema_that_cannot_be_kept_is_refused_with_its_reason() {
    let folder = folder();
    let remote = folder.run(&["chat", "--json-schema", r#"{"$ref": "https://example.com/s.json"}"#, "Hello"]);
    assert_eq!(remote.code, Some(1));
    assert!(remote.stderr.contains("nothing is fetched"), "{remote:?}");
    let broken = folder.run(&["chat", "--json-schema", "{", "Hello"]);
    assert!(broken.stderr.contains("--json-schema is not valid JSON"), "{broken:?}");
    let missing = folder.run(&["chat", "--json-schema", "none.json", "Hello"]);
    assert!(missing.stderr.contains("cannot read none.json"), "{missing:?}");
}
