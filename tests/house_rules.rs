//! Rules of the house that the compiler does not know: who may ask a clock, where a foreign crate is named, what the
//! repository never says. Directions between rooms are in `architecture.rs`.

mod source;

use std::collections::{BTreeMap, BTreeSet};

use source::{File, Word, files, paths, test_files, without_tests, words};

/// Longer than this, a file is two rooms.
const LONGEST: usize = 900;

/// A path that may be named in few places: what it ends or begins with, where it is at home, and why.
struct Kept {
    path: &'static str,
    only_in: &'static [&'static str],
    why: &'static str,
}

const KEPT: &[Kept] = &[
    Kept { path: "Instant::now", only_in: &["src/clock.rs"], why: "ask Clock::now" },
    Kept { path: "SystemTime::now", only_in: &["src/clock.rs"], why: "ask Clock::wall" },
    Kept { path: "Timestamp::now", only_in: &["src/clock.rs"], why: "ask Clock::wall" },
    Kept { path: "Zoned::now", only_in: &["src/clock.rs"], why: "ask Clock::wall" },
    Kept { path: "rand::rng", only_in: &["src/clock.rs"], why: "ask Clock::rng" },
    Kept { path: "rand::random", only_in: &["src/clock.rs"], why: "ask Clock::rng" },
    Kept { path: "rand::thread_rng", only_in: &["src/clock.rs"], why: "ask Clock::rng" },
    Kept { path: "rngs::SysRng", only_in: &["src/clock.rs"], why: "ask Clock::random" },
    Kept {
        path: "lrwn",
        only_in: &["src/lorawan/region.rs"],
        why: "its keys print themselves; wrap what is needed",
    },
    Kept {
        path: "systemd",
        only_in: &["src/systemd.rs"],
        why: "without the feature only one room does nothing",
    },
];

/// Rooms whose procedures must not hold a lock across a door.
const ROLES: [&str; 4] = ["src/fns/", "src/sns/", "src/hns/", "src/js/"];

/// Words that stand nowhere in the program, and why.
const NEVER: &[(&str, &str)] = &[
    ("unsafe", "no unsafe code"),
    ("todo", "what is not there yet answers so, or is left out"),
    ("unimplemented", "what is not there yet answers so, or is left out"),
    ("dbg", "use tracing"),
];

/// Everything written in Rust here, tests too.
fn rust() -> Vec<File> {
    let folders = ["src", "tests", "hal/src", "hal/tests", "hal/examples"];
    folders.iter().flat_map(|folder| files(folder, ".rs")).collect()
}

/// The program's own files and those of the radio driver, without what only tests see.
fn program() -> Vec<(File, Vec<Word>)> {
    let all: Vec<(File, Vec<Word>)> = ["src", "hal/src"]
        .into_iter()
        .flat_map(|folder| files(folder, ".rs"))
        .map(|file| {
            let words = words(&file.text);
            (file, words)
        })
        .collect();
    let tests: Vec<Vec<String>> = all
        .iter()
        .flat_map(|(file, words)| {
            test_files(words).into_iter().map(|name| [file.module(), vec![name]].concat())
        })
        .collect();
    all.into_iter()
        .filter(|(file, _)| !tests.contains(&file.module()))
        .map(|(file, words)| (file, without_tests(words)))
        .collect()
}

fn misplaced(file: &File, words: &[Word]) -> Vec<String> {
    let mut faults = Vec::new();
    // Given without a module, `crate::` and `super::` fall away and what is left is the path as written.
    let all = paths(words, &[]);
    for named in &all {
        let place = format!("{}:{}", file.path, named.line);
        for kept in KEPT.iter().filter(|kept| !kept.only_in.contains(&file.path.as_str())) {
            let wanted: Vec<&str> = kept.path.split("::").collect();
            let matches = if let [one] = wanted[..] {
                // A room of ours may have the same name, and have been brought by a `use`.
                let brought = all
                    .iter()
                    .any(|other| other.ours && other.segments.last().is_some_and(|last| last == one));
                !named.ours && !brought && named.segments.first().is_some_and(|first| first == one)
            } else {
                named.segments.windows(wanted.len()).any(|window| window == wanted)
            };
            if matches {
                faults.push(format!(
                    "{place}: {} is for {} only: {}",
                    kept.path,
                    kept.only_in.join(", "),
                    kept.why
                ));
            }
        }
        let lock = ["tokio", "sync", "Mutex"];
        let in_role = ROLES.iter().any(|role| file.path.starts_with(role));
        if in_role && (named.segments == lock || named.segments == ["sync", "Mutex"] && !named.ours) {
            faults.push(format!(
                "{place}: tokio::sync::Mutex is banned in roles: no lock is held across a door"
            ));
        }
    }
    for word in words {
        if let Some((_, why)) = NEVER.iter().find(|(never, _)| *never == word.text) {
            faults.push(format!("{}:{}: {}: {why}", file.path, word.line, word.text));
        }
    }
    faults
}

#[test]
fn clocks_chance_and_foreign_crates_are_named_where_they_live() {
    let faults: Vec<String> = program().iter().flat_map(|(file, words)| misplaced(file, words)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn lints_are_not_silenced_where_they_matter() {
    for file in rust() {
        let text: String = source::blank(&file.text).split_whitespace().collect();
        assert!(!text.contains("allow(unsafe_code"), "{} allows unsafe code", file.path);
        // Tests may ask; clippy reads the program without them as well.
        let text = text.replace("#![cfg_attr(test,allow(clippy::disallowed_methods))]", "");
        let clocks = text.contains("allow(clippy::disallowed_methods");
        assert!(
            !clocks || file.path == "src/clock.rs" || file.path.starts_with("tests/"),
            "{} asks a clock behind the house's back",
            file.path
        );
    }
}

#[test]
fn no_file_grows_past_what_a_person_reads() {
    let lines = rust().into_iter().map(|file| (file.text.lines().count(), file.path));
    let long: Vec<(usize, String)> = lines.filter(|(lines, _)| *lines > LONGEST).collect();
    assert!(long.is_empty(), "more than {LONGEST} lines is two rooms: {long:?}");
}

#[test]
fn every_room_says_what_it_is() {
    for (file, _) in program() {
        let said = file.path == "src/main.rs" || file.text.starts_with("//!");
        assert!(said, "{} does not begin with what it owns and who may knock", file.path);
    }
}

/// The repository speaks of itself alone, and builds wherever it is put.
#[test]
fn no_file_names_a_machine_or_a_registry() {
    // Written in two halves, so that this file may be read too.
    let halves = [
        ["/wo", "rk/"],
        ["/ro", "ot/"],
        ["crates", ".io"],
        ["deb.", "debian.org"],
        ["pypi", ".org"],
        ["npmjs", ".org"],
        ["DESIGN", ".md"],
        ["DESIGN", " "],
    ];
    let needles: Vec<String> = halves.iter().map(|half| half.concat()).collect();
    let mut faults = Vec::new();
    for file in files(".", "").iter().filter(|file| !file.path.ends_with("Cargo.lock")) {
        for (number, line) in file.text.lines().enumerate() {
            let named = needles.iter().filter(|needle| line.contains(needle.as_str()));
            faults.extend(named.map(|needle| format!("{}:{} says {needle}", file.path, number + 1)));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_direct_dependency_has_its_line() {
    let root = env!("CARGO_MANIFEST_DIR");
    let lines = std::fs::read_to_string(format!("{root}/docs/dependencies.md")).unwrap();
    let mut direct = BTreeSet::new();
    for manifest in ["Cargo.toml", "hal/Cargo.toml"] {
        let manifest: toml::Table =
            std::fs::read_to_string(format!("{root}/{manifest}")).unwrap().parse().unwrap();
        // What only some systems need is named like the rest.
        let targets =
            manifest.get("target").and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::values);
        for table in std::iter::once(&manifest).chain(targets.filter_map(toml::Value::as_table)) {
            for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
                let section = table.get(section).and_then(toml::Value::as_table);
                direct.extend(section.into_iter().flat_map(toml::Table::keys).cloned());
            }
        }
    }
    assert!(direct.len() > 20, "the manifest was not read");
    for name in &direct {
        assert!(lines.contains(&format!("| `{name}` |")), "docs/dependencies.md has no line for {name}");
    }
    let listed = lines.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    for name in listed {
        assert!(direct.contains(name), "docs/dependencies.md lists {name}: nobody uses it");
    }
}

/// What is fuzzed is what is shipped: the fuzz targets are no member of the workspace and have a lock file of their own.
#[test]
fn the_fuzz_targets_are_built_on_the_same_versions() {
    let versions = |path: &str| {
        let lock = std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let lock: toml::Table = lock.parse().unwrap();
        let mut versions = BTreeMap::<String, BTreeSet<String>>::new();
        for package in lock["package"].as_array().unwrap() {
            let text = |key: &str| package[key].as_str().unwrap().to_owned();
            versions.entry(text("name")).or_default().insert(text("version"));
        }
        versions
    };
    let (shipped, fuzzed) = (versions("Cargo.lock"), versions("fuzz/Cargo.lock"));
    assert!(fuzzed.contains_key("roamgate"), "the lock file was not read");
    for (name, fuzzed) in fuzzed {
        let Some(shipped) = shipped.get(&name) else { continue };
        assert!(
            fuzzed.is_subset(shipped),
            "{name} is {shipped:?} in Cargo.lock and {fuzzed:?} in fuzz/Cargo.lock: \
             copy Cargo.lock there and run `cargo metadata` in fuzz"
        );
    }
}

#[test]
fn the_readmes_configuration_is_one_that_starts() {
    let readme = include_str!("../README.md");
    let (_, rest) = readme.split_once("```toml\n").expect("the README shows a configuration");
    let (text, _) = rest.split_once("```").expect("and ends it");
    let loaded = roamgate::config::parse(None, text.to_owned(), std::iter::empty());
    let loaded = loaded.unwrap_or_else(|error| panic!("{error}"));
    let refusals = loaded.config.check();
    assert!(refusals.is_empty(), "{refusals:?}");
}

mod the_checker_itself {
    use super::*;

    fn check(path: &str, text: &str) -> usize {
        let file = File { path: path.to_owned(), text: text.to_owned() };
        misplaced(&file, &without_tests(words(text))).len()
    }

    #[test]
    fn sees_clocks_and_chance_outside_the_clock() {
        assert_eq!(check("src/fns/mod.rs", "let a = Instant::now();"), 1);
        assert_eq!(check("src/fns/mod.rs", "let a = std::time::SystemTime::now();"), 1);
        assert_eq!(check("src/fns/mod.rs", "use rand::{rng, Rng};"), 1);
        assert_eq!(check("src/clock.rs", "let a = Instant::now(); let b = SystemTime::now();"), 0);
        assert_eq!(check("src/fns/mod.rs", "// Instant::now()\nlet a = clock.now();"), 0);
    }

    #[test]
    fn sees_the_wrapped_crate_outside_its_wrapper() {
        assert_eq!(check("src/sns/mod.rs", "use lrwn::MType;"), 1);
        assert_eq!(check("src/sns/mod.rs", "fn f(x: lrwn::MType) {}"), 1);
        assert_eq!(check("src/lorawan/region.rs", "use lrwn::region;"), 0);
        assert_eq!(check("src/app.rs", "use crate::systemd; systemd::ready(); crate::systemd::ready();"), 0);
        assert_eq!(check("src/app.rs", "fn f() { systemd::daemon::notify(); }"), 1);
    }

    #[test]
    fn sees_locks_in_roles_and_words_that_never_stand() {
        assert_eq!(check("src/sns/mod.rs", "use tokio::sync::{mpsc, Mutex};"), 1);
        assert_eq!(check("src/sns/mod.rs", "struct A(tokio::sync::Mutex<()>);"), 1);
        assert_eq!(check("src/sns/mod.rs", "use std::sync::Mutex;"), 0);
        assert_eq!(check("src/store/mod.rs", "use tokio::sync::Mutex;"), 0);
        assert_eq!(check("src/js/mod.rs", "fn f() { todo!() } unsafe fn g() {}"), 2);
    }
}
