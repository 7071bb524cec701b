//! Reads the program's own source as text, for the tests that keep the house in order.
//!
//! This is no Rust parser: comments and literals are blanked, test code is cut out, and what is left is split into
//! words. That is enough to see who names whom.

use std::fs;
use std::path::{Path, PathBuf};

/// One file of the repository.
pub struct File {
    /// From the root of the repository, with forward slashes.
    pub path: String,
    /// As it stands on disk.
    pub text: String,
}

impl File {
    /// The module path of a file under `src`: `src/sns/uplink.rs` is `["sns", "uplink"]`.
    pub fn module(&self) -> Vec<String> {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let mut module: Vec<String> = inner.split('/').map(str::to_owned).collect();
        if module.last().is_some_and(|last| last == "mod" || last == "lib") {
            module.pop();
        }
        module
    }
}

/// Every file under `folder` whose name ends with `ending`, in the order of their paths.
pub fn files(folder: &str, ending: &str) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join(folder), &mut found);
    found.sort();
    let read = |path: PathBuf| {
        // Pictures and other binary files have no words to look at.
        let text = String::from_utf8(fs::read(&path).expect("a file of the repository can be read")).ok()?;
        let path = path.strip_prefix(root).expect("it lies under the root").to_str()?.replace('\\', "/");
        Some(File { path, text })
    };
    found.into_iter().filter(|path| path.to_string_lossy().ends_with(ending)).filter_map(read).collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let entry = entry.expect("a folder of the repository can be listed");
        let (path, name) = (entry.path(), entry.file_name());
        // made here, and in no clone
        let made = ["target", ".git", "roamgate-data", "corpus", "artifacts", "roamgate-crates.inc"];
        if made.iter().any(|made| name == *made) || name == "build" && path.is_dir() {
            continue;
        }
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

/// The text with comments, strings and characters blanked. Line breaks stay, so line numbers hold.
pub fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skip(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` itself where none begins.
fn skip(chars: &[char], at: usize) -> usize {
    let next = |n: usize| chars.get(at + n).copied().unwrap_or('\0');
    let word_before = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match (chars[at], next(1)) {
        ('/', '/') => (at..chars.len()).find(|i| chars[*i] == '\n').unwrap_or(chars.len()),
        ('/', '*') => {
            let (mut i, mut depth) = (at + 2, 1);
            while i < chars.len() && depth > 0 {
                match (chars[i], chars.get(i + 1)) {
                    ('/', Some('*')) => (i, depth) = (i + 2, depth + 1),
                    ('*', Some('/')) => (i, depth) = (i + 2, depth - 1),
                    _ => i += 1,
                }
            }
            i
        }
        ('"', _) => quoted(chars, at + 1, '"'),
        ('r', '"' | '#') if !word_before => raw(chars, at + 1).unwrap_or(at),
        ('b' | 'c', 'r') if !word_before => raw(chars, at + 2).unwrap_or(at),
        // A character, and not a lifetime: 'a' ends two places on, '\n' has a backslash.
        ('\'', '\\') => quoted(chars, at + 1, '\''),
        ('\'', _) if next(2) == '\'' => at + 3,
        _ => at,
    }
}

fn quoted(chars: &[char], from: usize, end: char) -> usize {
    let mut i = from;
    while i < chars.len() && chars[i] != end {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

fn raw(chars: &[char], from: usize) -> Option<usize> {
    let marks = chars[from..].iter().take_while(|c| **c == '#').count();
    if chars.get(from + marks) != Some(&'"') {
        return None;
    }
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', marks)).collect();
    let body = from + marks + 1;
    let end = (body..chars.len()).find(|i| chars[*i..].starts_with(&close));
    Some(end.map_or(chars.len(), |i| i + close.len()))
}

/// A word of the source, or one mark; `::` is one mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The word itself.
    pub text: String,
    /// Counted from 1.
    pub line: usize,
}

/// Splits source text into words and marks, comments and literals left out.
pub fn words(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    for (number, line) in blank(text).lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = if first.is_alphanumeric() || first == '_' {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (word, tail) = rest.split_at(length);
            words.push(Word { text: word.to_owned(), line: number + 1 });
            rest = tail.trim_start();
        }
    }
    words
}

/// The words without what only tests see: every item behind `#[cfg(test)]`.
pub fn without_tests(words: Vec<Word>) -> Vec<Word> {
    let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    let mut keep = vec![true; words.len()];
    let mut at = 0;
    while at < texts.len() {
        if texts[at..].starts_with(&["#", "[", "cfg", "(", "test", ")", "]"]) {
            let end = item_end(&texts, at);
            keep[at..end].fill(false);
            at = end;
        } else {
            at += 1;
        }
    }
    words.into_iter().zip(keep).filter_map(|(word, keep)| keep.then_some(word)).collect()
}

/// Modules that are declared behind `#[cfg(test)]` and live in files of their own.
pub fn test_files(words: &[Word]) -> Vec<String> {
    let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    let declared = |window: &[&str]| match window {
        ["#", "[", "cfg", "(", "test", ")", "]", "mod", name, ";"] => Some((*name).to_owned()),
        _ => None,
    };
    texts.windows(10).filter_map(declared).collect()
}

/// Where the item behind the attributes at `at` ends: after its closing brace or its semicolon.
fn item_end(texts: &[&str], at: usize) -> usize {
    const ITEMS: [&str; 14] = [
        "mod",
        "use",
        "fn",
        "impl",
        "struct",
        "enum",
        "trait",
        "const",
        "static",
        "type",
        "async",
        "pub",
        "extern",
        "macro_rules",
    ];
    let mut i = at;
    while texts.get(i) == Some(&"#") {
        i = closing(texts, i + 1);
    }
    if !texts.get(i).is_some_and(|word| ITEMS.contains(word)) {
        return i;
    }
    while let Some(word) = texts.get(i) {
        match *word {
            "{" => return closing(texts, i),
            ";" => return i + 1,
            "(" | "[" => i = closing(texts, i),
            _ => i += 1,
        }
    }
    i
}

/// The place after the bracket that closes the one at `at`.
fn closing(texts: &[&str], at: usize) -> usize {
    let mut depth = 0_usize;
    for (i, word) in texts.iter().enumerate().skip(at) {
        match *word {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    texts.len()
}

/// A path as written somewhere in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its segments; `crate`, `super` and `self` are resolved away where `module` was given.
    pub segments: Vec<String>,
    /// Whether it begins in this program, and not in another crate or in what a `use` brought.
    pub ours: bool,
    /// Counted from 1.
    pub line: usize,
}

/// Every path of two segments or more in the words of the file `module`, `use` trees taken apart.
pub fn paths(words: &[Word], module: &[String]) -> Vec<Named> {
    let text = |i: usize| words.get(i).map_or("", |word: &Word| word.text.as_str());
    let children: Vec<&str> = words
        .windows(3)
        .filter(|w| w[0].text == "mod" && w[2].text == ";")
        .map(|w| w[1].text.as_str())
        .collect();
    // Modules written inside the file move `super` and `self`.
    let (mut inner, mut depth): (Vec<(String, usize)>, usize) = (Vec::new(), 0);
    let mut found = Vec::new();
    let mut at = 0;
    while at < words.len() {
        match text(at) {
            "mod" if text(at + 2) == "{" => inner.push((text(at + 1).to_owned(), depth)),
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                inner.retain(|(_, opened)| *opened < depth);
            }
            _ => {}
        }
        let begins = is_word(text(at)) && text(at + 1) == "::" && (at == 0 || text(at - 1) != "::");
        if !begins && text(at) != "use" {
            at += 1;
            continue;
        }
        let from = if begins { at } else { at + 1 + usize::from(text(at + 1) == "::") };
        let mut trees = Vec::new();
        at = tree(words, from, Vec::new(), &mut trees).max(at + 1);
        let here: Vec<String> =
            module.iter().cloned().chain(inner.iter().map(|(name, _)| name.clone())).collect();
        found.extend(trees.into_iter().map(|(segments, line)| {
            let child = inner.is_empty() && children.contains(&segments[0].as_str());
            let (segments, ours) = resolve(segments, &here, child);
            Named { segments, ours, line }
        }));
    }
    found
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Takes one path or `use` tree apart from `at` on; returns the place behind it.
fn tree(words: &[Word], at: usize, before: Vec<String>, found: &mut Vec<(Vec<String>, usize)>) -> usize {
    let text = |i: usize| words.get(i).map_or("", |word: &Word| word.text.as_str());
    let (mut i, mut path) = (at, before);
    let line = words.get(at).map_or(0, |word| word.line);
    loop {
        if text(i) == "{" {
            i += 1;
            while i < words.len() && text(i) != "}" {
                i = if text(i) == "," { i + 1 } else { tree(words, i, path.clone(), found).max(i + 1) };
            }
            return i + 1;
        }
        if !is_word(text(i)) && text(i) != "*" {
            break;
        }
        path.push(text(i).to_owned());
        i += 1;
        if text(i) != "::" || !(is_word(text(i + 1)) || ["{", "*"].contains(&text(i + 1))) {
            break;
        }
        i += 1;
    }
    if !path.is_empty() {
        found.push((path, line));
    }
    if text(i) == "as" { i + 2 } else { i }
}

fn resolve(segments: Vec<String>, here: &[String], child: bool) -> (Vec<String>, bool) {
    let mut base = here.to_vec();
    let mut ours = child;
    let mut rest = segments.into_iter().peekable();
    while let Some(segment) = rest.peek() {
        match segment.as_str() {
            "crate" | "roamgate" if !ours => base.clear(),
            "super" => drop(base.pop()),
            "self" => {}
            _ => break,
        }
        ours = true;
        rest.next();
    }
    if ours { (base.into_iter().chain(rest).collect(), true) } else { (rest.collect(), false) }
}
