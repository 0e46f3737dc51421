//! The pages hold together: each link leads to an existing file and heading, each path that a page names exists, and
//! README.md stays short.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dsql_view::definitions::collisions::collisions;
use dsql_view::definitions::file;

const LONGEST_README: usize = 150;

/// A text in backticks is a path if it begins with one of these.
const FOLDERS: [&str; 11] =
    [".cargo", ".ci", "benches", "docs", "events", "examples", "fuzz", "scripts", "src", "tests", "tools"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pages by file, each without its code blocks.
fn pages() -> BTreeMap<PathBuf, String> {
    let names = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"].map(|name| root().join(name));
    let docs = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let docs = docs.filter(|file| file.extension().is_some_and(|extension| extension == "md"));
    let prose = |file: PathBuf| {
        let page = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let prose = page.split("```").step_by(2).collect();
        (file.canonicalize().unwrap(), prose)
    };
    names.into_iter().chain(docs).map(prose).collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(prose: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    for heading in prose.lines().filter(|line| line.starts_with('#')) {
        let heading = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        let anchor: String = heading.chars().filter(|next| next.is_alphanumeric() || "-_".contains(*next)).collect();
        let before = anchors.iter().filter(|other| **other == anchor).count();
        anchors.push(if before == 0 { anchor } else { format!("{anchor}-{before}") });
    }
    anchors
}

/// The texts between `begin` and `end`.
fn between<'a>(prose: &'a str, begin: &str, end: char) -> impl Iterator<Item = &'a str> {
    prose.split(begin).skip(1).map(move |rest| rest.split(end).next().unwrap())
}

#[test]
fn each_link_leads_to_a_file_and_a_heading_that_exist() {
    let pages = pages();
    let leads_somewhere = |page: &Path, link: &str| {
        let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
        let file = if file.is_empty() { page.to_owned() } else { page.parent().unwrap().join(file) };
        let Ok(file) = file.canonicalize() else { return false };
        anchor.is_none_or(|anchor| pages.get(&file).is_some_and(|prose| anchors(prose).iter().any(|a| a == anchor)))
    };
    let mut broken = Vec::new();
    for (page, prose) in &pages {
        let links = between(prose, "](", ')').filter(|link| !link.starts_with("https://"));
        broken.extend(
            links.filter(|link| !leads_somewhere(page, link)).map(|link| format!("{}: {link}", page.display())),
        );
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn each_path_that_a_page_names_exists() {
    let mut missing = Vec::new();
    // The changelog names files as they once were.
    for (page, prose) in pages().iter().filter(|(page, _)| !page.ends_with("CHANGELOG.md")) {
        for code in prose.split('`').skip(1).step_by(2) {
            let is_path = code.split_once('/').is_some_and(|(folder, _)| FOLDERS.contains(&folder))
                || [".md", ".toml", ".yaml"].iter().any(|ending| code.ends_with(ending)) && !code.contains('/');
            // For a pattern such as events/source/*.json, check the folder.
            let path = code.split(['*', '…', '<']).next().unwrap();
            // The user's own file.
            let is_there =
                path == "views.toml" || root().join(path).exists() || page.parent().unwrap().join(path).exists();
            if is_path && !code.contains(char::is_whitespace) && !is_there {
                missing.push(format!("{}: {code}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "paths that do not exist:\n{}", missing.join("\n"));
}

#[test]
fn the_readme_is_short() {
    let lines = std::fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines <= LONGEST_README, "README.md has {lines} lines");
}

#[test]
fn each_definitions_file_of_the_pages_loads_without_a_fault_or_a_warning() {
    let docs = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages: Vec<PathBuf> = docs.filter(|file| file.extension().is_some_and(|extension| extension == "md")).collect();
    let mut files: Vec<(String, String)> = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        let blocks = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        // Others are parts of a file.
        let whole = blocks.filter(|block| block.starts_with("version = 1"));
        files.extend(whole.map(|block| (page.display().to_string(), block.to_owned())));
    }
    assert!(files.len() > 3, "{files:?}");
    for file in ["views.toml.example", "examples/demo/views.toml"] {
        files.push((file.to_owned(), std::fs::read_to_string(root().join(file)).unwrap()));
    }
    for (name, text) in files {
        let definitions = file::read(&name, text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
        assert!(definitions.warnings.is_empty(), "{name}: {:?}", definitions.warnings);
        let collisions = collisions(&definitions.tables);
        assert!(collisions.is_empty(), "{name}: {collisions:?}");
    }
}
