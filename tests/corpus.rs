//! What fuzzing has kept, through the parsers once more: `fuzz/run` looks for new inputs, this sees that the known ones do no harm.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[path = "../fuzz/targets/mod.rs"]
mod targets;

use targets::{TARGETS, Target};

/// The names in a folder of `fuzz/corpus`.
fn names(folder: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    assert_eq!(names(""), TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect());
    for (target, _) in TARGETS {
        assert!(!names(target).is_empty(), "{target} starts from nothing");
    }
}

#[test]
fn what_fuzzing_has_kept_does_no_harm() {
    let replay = |name: &'static str, target: Target| {
        for input in names(name) {
            let path = format!("{}/fuzz/corpus/{name}/{input}", env!("CARGO_MANIFEST_DIR"));
            let bytes = fs::read(&path).unwrap();
            std::panic::catch_unwind(|| target(&bytes)).map_err(|_| path)?;
        }
        Ok::<_, String>(())
    };
    let running: Vec<_> =
        TARGETS.iter().map(|(name, target)| std::thread::spawn(move || replay(name, *target))).collect();
    let harmful: Vec<String> =
        running.into_iter().filter_map(|thread| thread.join().unwrap().err()).collect();
    assert_eq!(harmful, [""; 0], "cargo test --test corpus says above what each did");
}
