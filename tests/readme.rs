//! What the README shows is true.

use std::path::{Path, PathBuf};

use downshift_scheduler::Config;
use downshift_scheduler::config::HfCache;

use crate::support::Folder;

fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn readme() -> String {
    std::fs::read_to_string(top().join("README.md")).expect("README.md")
}

/// The fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut rest = text;
    let mut found = Vec::new();
    while let Some((_, after)) = rest.split_once(&format!("```{language}\n")) {
        let (block, after) = after.split_once("```").expect("an end of the block");
        found.push(block.to_owned());
        rest = after;
    }
    found
}

#[test]
fn its_models_toml_is_read() {
    let examples = blocks(&readme(), "toml");
    assert!(!examples.is_empty());
    for example in examples {
        let config = Config::from_text(&example, Path::new(""), &HfCache { hub: "".into() });
        assert!(config.is_ok_and(|config| config.models().len() > 1), "{example}");
    }
}

#[test]
fn it_names_every_command() {
    let readme = readme();
    let help = Folder::new().run(&["--help"]).stdout;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    for command in commands.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        assert!(readme.contains(&format!("downshift {command}")), "{command} is not in the README");
    }
}

#[test]
fn its_tutorial_is_the_code_of_the_example() {
    let readme = readme();
    let tutorial =
        readme.split_once("<!-- tutorial -->").and_then(|(_, rest)| rest.split_once("<!-- /tutorial -->")).expect("a tutorial").0;
    let example = std::fs::read_to_string(top().join("crates/downshift/examples/fallbacks.rs")).expect("the example");
    let lines: Vec<&str> = example.lines().map(str::trim).collect();
    let shown = blocks(tutorial, "rust");
    assert_eq!(shown.len(), 6);
    for line in shown.iter().flat_map(|block| block.lines()).map(str::trim) {
        assert!(lines.contains(&line), "the example has no line `{line}`");
    }
}

#[test]
fn ci_runs_the_test_command_of_the_readme() {
    let marked = blocks(&readme(), "sh").into_iter().filter(|block| block.contains("cargo test")).collect::<Vec<_>>();
    assert_eq!(marked.len(), 1, "one block holds the test command");
    let ci = std::fs::read_to_string(top().join(".ci/run")).expect(".ci/run");
    assert!(ci.contains("README.md"), "the command is taken from the README");
    assert!(!ci.contains("cargo test"), "and not written twice");
}
