//! What is wrong in models.toml is named with its line, its key and a remedy.

use crate::support::Folder;

/// `text` is refused, and the error has all of `expected`.
fn check(text: &str, expected: &[&str]) {
    let folder = Folder::new().with("models.toml", text);
    for command in [&["chat", "Hi"][..], &["check"], &["models"]] {
        let ran = folder.run(command);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{command:?} of {text}: {ran:?}");
        for part in expected {
            assert!(ran.stderr.contains(part), "{command:?} lacks {part:?}: {}", ran.stderr);
        }
    }
}

#[test]
fn problems_are_named_with_line_key_and_remedy() {
    check("[models.a]\npath = \"a.gguf\"\nfalbacks = []\n", &["models.toml:3", "models.a.falbacks", "`fallbacks`"]);
    check("[models.a]\npath = \"a.gguf\"\nfallbacks = [\"b\"]\n", &["models.toml:3", "models.a.fallbacks", "no model `b`"]);
    check("[models.a]\npath = \"a.gguf\"\nfallbacks = [\"a\"]\n", &["models.toml:3", "own fallback", "remove `a`"]);
    check("[models.a]\ncontext = 512\n", &["models.toml:1", "models.a", "add path"]);
    check("[settings]\nstall_timeout = \"soon\"\n[models.a]\npath = \"a\"\n", &["models.toml:2", "settings.stall_timeout", "soon"]);
    check("[models.a\npath = \"a.gguf\"\n", &["models.toml:1"]);
    check("", &["models.toml", "path"]);
}

#[test]
fn a_models_toml_that_is_not_there_is_named_with_what_to_do() {
    let folder = Folder::new();
    let ran = folder.run(&["chat", "Hi"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("there is no models.toml") && ran.stderr.contains("-m FILE"), "{ran:?}");
    let ran = folder.run(&["chat", "--config", "typo.toml", "Hi"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("typo.toml") && ran.stderr.contains("there is no such file, but --config"), "{ran:?}");
    std::fs::create_dir(folder.path("dir")).expect("a folder");
    let ran = folder.run(&["chat", "--config", "dir", "Hi"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("--config names a folder, not a file"), "{ran:?}");
}

#[test]
fn an_unknown_name_is_answered_with_those_there_are() {
    let folder = Folder::new().with("models.toml", "[models.a]\npath = \"a.gguf\"\n[models.b]\npath = \"b.gguf\"\n");
    let ran = folder.run(&["chat", "-m", "c", "Hi"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("no model `c`") && ran.stderr.contains("a, b"), "{ran:?}");
}

#[test]
fn the_flag_comes_before_the_variable_and_that_before_the_folder() {
    let entry = |name: &str| format!("[models.{name}]\npath = \"m.gguf\"\n");
    let folder = Folder::new().with_model("m.gguf", 1);
    let folder = folder.with("models.toml", entry("here")).with("v.toml", entry("variable")).with("f.toml", entry("flag"));
    let first = |args: &[&str], variable: Option<&str>| {
        let mut command = folder.command(args);
        let output = command.envs(variable.map(|file| ("DOWNSHIFT_CONFIG", file))).output().expect("the program starts");
        let models: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a list");
        models[0]["name"].as_str().expect("a name").to_owned()
    };
    assert_eq!(first(&["models", "--json"], None), "here");
    assert_eq!(first(&["models", "--json"], Some("v.toml")), "variable");
    assert_eq!(first(&["models", "--json", "--config", "f.toml"], Some("v.toml")), "flag");
}
