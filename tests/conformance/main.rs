//! What TS002 asks for and what shows it: `lines.toml` is the statement for machines, `docs/conformance.md` the same for people, and every
//! test that is named there exists.
//!
//! `ROAMGATE_WRITE=1 cargo test --test conformance` writes the page anew.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    section: Vec<Section>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    title: String,
    line: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    at: String,
    what: String,
    #[serde(default)]
    state: State,
    #[serde(default)]
    tests: Vec<String>,
    #[serde(default)]
    note: String,
}

#[derive(Default, Deserialize, PartialEq, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum State {
    #[default]
    Kept,
    Deviates,
    Open,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn statement() -> Statement {
    let text = std::fs::read_to_string(root().join("tests/conformance/lines.toml")).unwrap();
    toml::from_str(&text).unwrap()
}

/// Names of functions that are told to be tests: by an attribute, or in the list of stories.
fn tests(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let is_stories = path.ends_with("tests/e2e/main.rs");
            let mut told = false;
            for line in text.lines().map(str::trim) {
                let name = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "));
                if let (true, Some(name)) = (told, name) {
                    found.insert(name.split('(').next().unwrap().to_owned());
                } else if is_stories {
                    found.insert(line.trim_end_matches(';').to_owned());
                }
                told = line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            }
        }
    }
}

fn page(statement: &Statement) -> String {
    let all: Vec<&Line> = statement.section.iter().flat_map(|section| &section.line).collect();
    let count = |state| all.iter().filter(|line| line.state == state).count();
    let mut page = format!(
        "# Conformance\n\n\
         What LoRaWAN Backend Interfaces (TS002) asks for, and the tests that show that it is kept. Section numbers are those of the\n\
         engineering reference that this project is built on; a test is named by its function. Made by `tests/conformance` from its\n\
         `lines.toml`, which is the same for machines.\n\n\
         {} lines are kept, {} deviate, {} are open.\n",
        count(State::Kept),
        count(State::Deviates),
        count(State::Open)
    );
    for section in &statement.section {
        write!(
            page,
            "\n## {}\n\n| at | what | state | shown by |\n| --- | --- | --- | --- |\n",
            section.title
        )
        .unwrap();
        for line in &section.line {
            let state = match line.state {
                State::Kept => "kept",
                State::Deviates => "deviates",
                State::Open => "**open**",
            };
            let mut shown: Vec<String> = line.tests.iter().map(|test| format!("`{test}`")).collect();
            shown.extend((!line.note.is_empty()).then(|| line.note.clone()));
            writeln!(page, "| {} | {} | {state} | {} |", line.at, line.what, shown.join("; ")).unwrap();
        }
    }
    page
}

#[test]
fn what_is_said_to_be_kept_is_shown_by_tests_that_exist() {
    let mut found = BTreeSet::new();
    tests(&root().join("src"), &mut found);
    tests(&root().join("tests"), &mut found);
    for line in statement().section.iter().flat_map(|section| &section.line) {
        let at = format!("{} {}", line.at, line.what);
        match line.state {
            State::Kept => assert!(!line.tests.is_empty(), "nothing shows {at}"),
            State::Deviates | State::Open => assert!(!line.note.is_empty(), "nobody says why: {at}"),
        }
        for test in &line.tests {
            assert!(found.contains(test), "there is no test {test}, which is to show {at}");
        }
    }
}

#[test]
fn the_page_is_made_of_the_statement() {
    let (path, made) = (root().join("docs/conformance.md"), page(&statement()));
    if std::env::var_os("ROAMGATE_WRITE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "docs/conformance.md is older: ROAMGATE_WRITE=1 cargo test --test conformance");
}
