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

/// All routes as the code has them, such as `GET /health`.
fn routes() -> BTreeSet<String> {
    let mut files = Vec::new();
    sources(&repository().join("crates/server/src"), &mut files);
    let texts = files.iter().map(|file| std::fs::read_to_string(file).expect("a source file"));
    let route = |rest: &str| {
        let (path, rest) = rest.split_once("\", ").expect("a path");
        let (method, _) = rest.split_once('(').expect("a method");
        format!("{} {}", method.to_uppercase(), path.replace("{*", "{"))
    };
    texts.flat_map(|text| text.split(".route(\"").skip(1).map(route).collect::<Vec<_>>()).collect()
}

#[test]
fn the_page_of_the_api_lists_every_route_and_no_other() {
    let page = std::fs::read_to_string(repository().join("docs/api.md")).expect("docs/api.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let listed: BTreeSet<String> = rows.filter(|row| row.contains(" /")).map(str::to_owned).collect();
    let routes = routes();
    assert!(routes.len() > 20, "{routes:?}");
    assert_eq!(listed, routes);
}
