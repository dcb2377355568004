//! `docs/api.md` names the routes that the server has.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Source files below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The paths of all routes, as the code has them.
fn routes() -> BTreeSet<String> {
    let mut files = Vec::new();
    sources(&repository().join("crates/server/src"), &mut files);
    let texts = files.iter().map(|file| std::fs::read_to_string(file).expect("a source file"));
    let paths = |text: String| {
        let found = text.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next().map(|path| path.replace("{*", "{")));
        found.collect::<Vec<_>>()
    };
    texts.flat_map(paths).collect()
}

#[test]
fn the_page_of_the_api_lists_every_route_and_no_other() {
    let page = std::fs::read_to_string(repository().join("docs/api.md")).expect("docs/api.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let listed: BTreeSet<String> = rows.filter_map(|row| row.split_once(" /")).map(|(_, path)| format!("/{path}")).collect();
    let routes = routes();
    assert!(routes.len() > 20, "{routes:?}");
    assert_eq!(listed, routes);
}
