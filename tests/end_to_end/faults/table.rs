//! `docs/faults.md` says of each fault which test shows what comes of it: those tests are there.

use std::collections::BTreeSet;
use std::fs::{read_dir, read_to_string};
use std::path::Path;

use sightline_testkit::repository;

/// The names of all functions of the repository's Rust code.
fn functions(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in read_dir(dir).expect("a folder").flatten() {
        let path = entry.path();
        let skipped = ["target", ".git", "node_modules"].map(|name| path.ends_with(name));
        if path.is_dir() && !skipped.contains(&true) {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = read_to_string(&path).expect("readable");
            let names = text
                .split("fn ")
                .skip(1)
                .filter_map(|rest| rest.split('(').next());
            found.extend(names.map(ToOwned::to_owned));
        }
    }
}

#[test]
fn every_fault_has_its_tests_or_says_why_not() {
    let text = read_to_string(repository().join("docs/faults.md")).expect("the page");
    let mut known = BTreeSet::new();
    functions(&repository(), &mut known);
    let rows = text.lines().filter(|line| line.starts_with("| "));
    // Without the tables' heads.
    let rows: Vec<&str> = rows.filter(|row| !row.starts_with("| fault |")).collect();
    assert!(rows.len() > 30, "{} rows", rows.len());
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [_, _, shown] = cells[..] else {
            panic!("{row} has three cells");
        };
        let names = shown.split('`').skip(1).step_by(2);
        let names: Vec<&str> = names.collect();
        assert!(
            !names.is_empty() || shown.starts_with("Not here: "),
            "{row} names no test and does not say why"
        );
        for name in names {
            assert!(known.contains(name), "there is no test {name}");
        }
    }
}
