//! Which crate may use which, as crates/README.md draws it: read from the Cargo.toml files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Our crates that each crate may use.
const ARROWS: [(&str, &[&str]); 8] = [
    ("kernels", &[]),
    ("worker", &[]),
    ("engine", &["kernels", "worker"]),
    ("scheduler", &["worker"]),
    ("downshift", &["engine", "scheduler", "worker"]),
    ("server", &["scheduler", "worker"]),
    ("bench", &["downshift", "engine"]),
    ("cli", &["bench", "downshift", "engine", "scheduler", "server", "worker"]),
];

/// The only crates that know these libraries.
const KEPT_INSIDE: [(&str, &[&str]); 8] = [
    ("candle-core", &["engine"]),
    ("candle-nn", &["engine"]),
    ("candle-transformers", &["engine"]),
    ("memmap2", &["engine"]),
    ("axum", &["server"]),
    ("tokio", &["server", "cli"]),
    ("anyhow", &["cli"]),
    ("clap", &["cli"]),
];

fn crates() -> BTreeMap<String, toml::Table> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let entries = std::fs::read_dir(&folder).expect("the crates").map(|entry| entry.expect("an entry").path());
    let with_manifest = entries.filter(|path| path.join("Cargo.toml").is_file());
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    with_manifest.map(|path| (name(&path), read(&path.join("Cargo.toml")).parse().expect("valid TOML"))).collect()
}

/// What the crate needs to be built, tests aside: those of every target too.
fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    let table = |table: &toml::Table, key: &str| table.get(key).and_then(toml::Value::as_table).cloned().unwrap_or_default();
    let targets = table(manifest, "target");
    let places = std::iter::once(manifest).chain(targets.values().filter_map(toml::Value::as_table));
    let kinds = ["dependencies", "build-dependencies"];
    places.flat_map(|place| kinds.map(|kind| table(place, kind))).flat_map(|kind| kind.keys().cloned().collect::<Vec<_>>()).collect()
}

#[test]
fn crates_use_each_other_only_along_the_arrows() {
    let arrows = BTreeMap::from(ARROWS);
    for (name, manifest) in crates() {
        let allowed = arrows.get(name.as_str()).unwrap_or_else(|| panic!("{name} is new: add it to the picture and to the table above"));
        for dependency in dependencies(&manifest) {
            let ours = if dependency == "downshift" { Some("downshift") } else { dependency.strip_prefix("downshift-") };
            if let Some(ours) = ours {
                assert!(allowed.contains(&ours), "{name} must not use {ours}");
            }
        }
    }
}

#[test]
fn libraries_stay_in_the_crates_that_know_them() {
    for (name, manifest) in crates() {
        let dependencies = dependencies(&manifest);
        for (library, homes) in KEPT_INSIDE {
            assert!(!dependencies.contains(library) || homes.contains(&name.as_str()), "{name} must not use {library}");
        }
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for (name, manifest) in crates() {
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
        assert_eq!(lints, Some(true), "{name}");
    }
}
