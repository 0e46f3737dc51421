//! The folders of `src` have an order, and each uses only those before it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use regex::Regex;

/// The order, from the foundation to the start of the functions.
const ORDER: [&str; 17] = [
    "hash",
    "lock",
    "deadline",
    "aws",
    "bucket",
    "definitions",
    "record",
    "item",
    "batch",
    "write",
    "quarantine",
    "observe",
    "config",
    "split_changes",
    "handler",
    "redrive",
    "lambda",
];

/// The shells, which are built from the settings.
const USE_THE_SETTINGS: [&str; 3] = ["handler", "lambda::start", "redrive"];

/// Each module's code without its tests, by its path.
fn modules() -> BTreeMap<String, String> {
    fn read(folder: &Path, path: &str, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            let module = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}::{name}") };
            if entry.path().is_dir() {
                read(&entry.path(), &module(&name), found);
            } else if let Some(name) = name.strip_suffix(".rs") {
                let code = fs::read_to_string(entry.path()).unwrap();
                let code = code.lines().take_while(|line| *line != "#[cfg(test)]");
                let code = code.filter(|line| !line.trim_start().starts_with("//"));
                found.insert(module(name), code.collect::<Vec<_>>().join("\n"));
            }
        }
    }
    let mut found = BTreeMap::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut found);
    found.retain(|module, _| !["lib", "main"].contains(&module.as_str()) && !module.starts_with("bin"));
    found
}

/// The modules that each module uses.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let modules = modules();
    let used = Regex::new(r"(?-u)\b(crate|super|self)(::\w+(?:::\w+)*)?(?:::\{([\w:, \n]*)\})?").unwrap();
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, code) in &modules {
        for found in used.captures_iter(code) {
            let base = match &found[1] {
                "crate" => "",
                "self" => module.as_str(),
                _ => module.rsplit_once("::").map_or("", |(parent, _)| parent),
            };
            let (path, group) = (found.get(2), found.get(3));
            // No path follows, for example in pub(super).
            if path.or(group).is_none() {
                continue;
            }
            let (path, group) = (path.map_or("", |path| path.as_str()), group.map_or("", |group| group.as_str()));
            for name in group.split(',') {
                let path = format!("{base}{path}::{}", name.trim());
                let mut path = path.trim_start_matches("::").trim_end_matches(':');
                while !path.is_empty() && !modules.contains_key(path) {
                    path = path.rsplit_once("::").map_or("", |(parent, _)| parent);
                }
                if !path.is_empty() && path != module {
                    arrows.entry(module.clone()).or_default().insert(path.to_owned());
                }
            }
        }
    }
    arrows
}

#[test]
fn each_folder_uses_only_those_before_it() {
    let place = |module: &str| {
        let folder = module.split("::").next().unwrap();
        ORDER.iter().position(|known| *known == folder).unwrap_or_else(|| panic!("{module} has no place in the order"))
    };
    let arrows = arrows();
    let all = arrows.iter().flat_map(|(from, to)| to.iter().map(move |to| (from.as_str(), to.as_str())));
    let against: Vec<_> = all.filter(|(from, to)| place(to) > place(from)).collect();
    assert_eq!(against, [], "against the order");
    let settings = |to: &BTreeSet<String>| to.contains("config");
    let using: Vec<_> = arrows.iter().filter(|(_, to)| settings(to)).map(|(from, _)| from.as_str()).collect();
    assert_eq!(using, USE_THE_SETTINGS);
}

#[test]
fn no_modules_use_each_other_in_a_circle() {
    let mut arrows = arrows();
    // A module that uses none of the remaining modules is on no circle: remove it, until nothing changes.
    loop {
        let before = arrows.len();
        let left: BTreeSet<String> = arrows.keys().cloned().collect();
        arrows.retain(|_, to| to.iter().any(|to| left.contains(to)));
        if arrows.len() == before {
            break;
        }
    }
    assert!(arrows.is_empty(), "these use each other: {arrows:#?}");
}
