//! The invariants of ARCHITECTURE.md that the build itself can show: who depends on whom, and who may call what.

use std::collections::BTreeMap;
use std::path::Path;

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// Our crates by name, each with the names of what it is built from (not of what it is tested with).
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let metadata = MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .exec()
        .expect("cargo metadata");
    let normal = |package: &Package| {
        let normal = package
            .dependencies
            .iter()
            .filter(|d| d.kind == DependencyKind::Normal);
        normal.map(|d| d.name.clone()).collect()
    };
    metadata
        .packages
        .iter()
        .map(|package| (package.name.to_string(), normal(package)))
        .collect()
}

const ROLES: [&str; 6] = [
    "sightline-gateway",
    "sightline-embeddings",
    "sightline-alerts",
    "sightline-ingest",
    "sightline-caption",
    "sightline-transcribe",
];

/// Only `allowed` are built from a crate whose name is one of, or begins with one of, `crates`.
fn only(allowed: &[&str], crates: &[&str]) {
    for (name, dependencies) in dependencies() {
        let found: Vec<_> = dependencies
            .iter()
            .filter(|d| crates.iter().any(|c| d.starts_with(c)))
            .collect();
        assert!(
            found.is_empty() || allowed.contains(&name.as_str()),
            "{name} depends on {found:?}, which is for {allowed:?}"
        );
    }
}

#[test]
fn the_gateway_holds_no_media_no_model_and_no_vectors() {
    let all = dependencies();
    for forbidden in [
        "sightline-media",
        "sightline-inference",
        "sightline-vectors",
    ] {
        assert!(
            !all["sightline-gateway"].iter().any(|d| d == forbidden),
            "the gateway depends on {forbidden}"
        );
    }
}

#[test]
fn roles_never_depend_on_each_other() {
    let all = dependencies();
    for role in ROLES {
        let others: Vec<_> = all[role]
            .iter()
            .filter(|d| ROLES.contains(&d.as_str()))
            .collect();
        assert!(others.is_empty(), "{role} depends on {others:?}");
    }
}

#[test]
fn each_heavy_library_has_one_home() {
    only(&["sightline-media", "sightline-testkit"], &["gstreamer"]);
    only(&["sightline-media", "sightline-ingest"], &["earshot"]);
    only(
        &["sightline-inference"],
        &["ort", "whisper-rs", "fastembed", "tokenizers"],
    );
    only(&["sightline-vectors"], &["qdrant"]);
    only(&["sightline-egress"], &["hyper-rustls", "ureq"]);
    // The object store's client: it talks to the operator's store and to nobody that a user names.
    only(&["sightline-recordings"], &["object_store", "reqwest"]);
    // Sinks of alerts are where the operator says: not the bus, nor where users say.
    only(
        &["sightline-bus", "sightline-catalog", "sightline-alerts"],
        &["async-nats"],
    );
    only(&["sightline-alerts"], &["lettre", "rumqttc"]);
}

/// Files of the product's Rust code, without tests of their own.
fn sources(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        let skipped = ["target", "tests", ".git", "node_modules"]
            .iter()
            .any(|name| path.ends_with(name));
        if path.is_dir() && !skipped {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// `words` stand in no source file outside `home`.
fn nowhere_but(home: &[&str], words: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the repository");
    let mut files = Vec::new();
    for part in ["crates", "services", "workers", "cli", "proto"] {
        sources(&root.join(part), &mut files);
    }
    assert!(files.len() > 50, "the sources were found");
    for file in files {
        let name = file.strip_prefix(root).expect("below it");
        if home.iter().any(|h| name.starts_with(h)) {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("readable");
        for word in words {
            assert!(
                !text.contains(word),
                "{} has {word}, which is for {home:?}",
                name.display()
            );
        }
    }
}

#[test]
fn only_the_bus_acknowledges() {
    nowhere_but(&["crates/bus"], &["ack_with(", ".double_ack(", "AckKind"]);
}

#[test]
fn nothing_is_unbounded_ignored_or_left_for_later() {
    let words = [
        "unbounded_channel",
        "unbounded()",
        concat!("#[", "ignore"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
    ];
    nowhere_but(&[], &words);
}
