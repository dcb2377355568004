//! Every command explains itself with an example.

use crate::support::Folder;

/// The commands that a help text lists.
fn listed(help: &str) -> Vec<String> {
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| line.starts_with("  "));
    let names = commands.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_command_has_help_with_an_example() {
    let folder = Folder::new();
    let mut left = vec![Vec::new()];
    let mut n_commands = 0;
    while let Some(command) = left.pop() {
        let args: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let ran = folder.run(&args);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{command:?}");
        let inner = listed(&ran.stdout);
        if inner.is_empty() {
            n_commands += 1;
        }
        assert!(!inner.is_empty() && !command.is_empty() || ran.stdout.contains("Example"), "{command:?} has no example: {}", ran.stdout);
        left.extend(inner.into_iter().map(|name| [command.clone(), vec![name]].concat()));
    }
    assert!(n_commands >= 8, "only {n_commands} commands were found");
}

#[test]
fn a_wrong_command_line_names_the_remedy() {
    let ran = Folder::new().run(&["chta"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("chat"), "{ran:?}");
    let ran = Folder::new().run(&["chat", "--temperature", "-1", "Hi"]);
    assert_eq!(ran.code, Some(2));
}

#[test]
fn doctor_names_instruction_set_threads_memory_and_models_toml() {
    let folder = Folder::new().with("models.toml", "");
    let ran = folder.run(&["doctor"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for line in ["instructions  ", "threads       ", "memory        ", "devices       "] {
        assert!(ran.stdout.lines().any(|found| found.starts_with(line)), "{line}: {ran:?}");
    }
    assert!(ran.stdout.contains("models.toml (current folder): used"), "{ran:?}");
}
