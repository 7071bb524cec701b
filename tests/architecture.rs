//! Who may name whom: the house of `docs/architecture.md`, enforced on the text of `src`.
//!
//! Read the table from the top: a room may name the rooms of every line below its own. It never names a line above,
//! and inside a line nobody names anybody, except where `>` stands (what is left of it may name what is right of it),
//! except that the front of a folder (`mod.rs`) shows its own files, and except what [`ALLOWED`] lists with its reason. A file that belongs to no room of the table fails.

mod source;

use source::{files, paths, test_files, without_tests, words};

/// A room that is a folder brings its files with it, unless one of them is listed by itself: then each is.
const HOUSE: &str = "
    top       main > cli > demo > app > config
    pages     registry  control > web
    state     store
    shell     front > backend::tunnel > radio  backend::mapping  backend::client  backend::server  application
    adapters  backup  update  discovery  discovery::resolve  discovery::cache  pki  pki::enrol  pki::folder > pki::make > pki::request > tls
    roles     fns  sns  hns  js
    rules     jit  partners  usage  discovery::name  discovery::publish  discovery::bucket  pki::check  pki::dane  pki::revoke  pki::name
    words     backend  backend::door > backend::pending > backend::tokens > backend::manners > backend::message > backend::keywrap > lorawan
    leaves    clock  limits  systemd  telemetry
";

/// Arrows inside a line, and why each is there.
const ALLOWED: &[(&str, &str, &str)] = &[
    (
        "discovery::resolve",
        "discovery::cache",
        "what was resolved is kept, and what is kept is not asked again",
    ),
    ("discovery::publish", "discovery::name", "what is published stands at names"),
    ("partners", "discovery::name", "a partner is called by the name of its NetID"),
    ("partners", "pki::dane", "an entry says whose word counts for a certificate"),
    ("pki::dane", "pki::check", "a record is of a certificate's key"),
    ("pki::revoke", "pki::check", "what is struck off is told by what its certificate says"),
    ("limits", "clock", "how often is a matter of time, which comes as an argument"),
    ("telemetry", "systemd", "lines go to the journal with their fields, and only systemd knows it"),
    ("telemetry", "clock", "what is told carries the moment, and only the clock knows it"),
];

/// Crates that one room alone may name.
const KEPT: &[(&str, &str)] = &[("sx1302", "radio"), ("hal", "radio")];

/// A room and its height: the line, then the place between the `>` of the line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Room {
    name: String,
    line: usize,
    step: usize,
}

struct House(Vec<Room>);

impl House {
    fn read(table: &str) -> House {
        let mut rooms = Vec::new();
        for (line, text) in table.trim().lines().enumerate() {
            let (_, rest) = text.trim().split_once(' ').expect("a line has a name and rooms");
            for (step, group) in rest.split('>').enumerate() {
                let names = group.split_whitespace();
                rooms.extend(names.map(|name| Room { name: name.to_owned(), line, step }));
            }
        }
        House(rooms)
    }

    fn room(&self, name: &str) -> Option<&Room> {
        self.0.iter().find(|room| room.name == name)
    }

    /// The room that a path leads into. `None`: it leads into no room of the table.
    fn of(&self, path: &[String]) -> Option<&Room> {
        let first = path.first()?;
        let inside = path.get(1).and_then(|second| self.room(&format!("{first}::{second}")));
        inside.or_else(|| self.room(first))
    }

    /// The room that a file belongs to: where a folder's files are listed one by one, this one must be.
    fn of_file(&self, module: &[String]) -> Option<&Room> {
        let (room, first) = (self.of(module)?, module.first()?);
        let split = self.0.iter().any(|room| room.name.starts_with(&format!("{first}::")));
        (!split || module.len() == 1 || room.name.contains("::")).then_some(room)
    }

    /// Whether the arrow may be drawn without an entry in the list. The front of a folder may show its own files.
    fn points_down(from: &Room, to: &Room) -> bool {
        let front = from.line == to.line && to.name.starts_with(&format!("{}::", from.name));
        from.name == to.name || from.line < to.line || (from.line == to.line && from.step < to.step) || front
    }
}

/// What is wrong with one file, a sentence each; `used` collects the entries of `allowed` that were needed.
fn faults(
    house: &House,
    allowed: &[(&str, &str, &str)],
    file: &source::File,
    used: &mut Vec<usize>,
) -> Vec<String> {
    let module = file.module();
    // lib.rs only lists the rooms.
    if module.is_empty() {
        return Vec::new();
    }
    let Some(from) = house.of_file(&module) else {
        return vec![format!("{} belongs to no room of the table in tests/architecture.rs", file.path)];
    };
    let mut faults = Vec::new();
    for named in paths(&without_tests(words(&file.text)), &module) {
        let place = format!("{}:{}", file.path, named.line);
        let kept = KEPT.iter().find(|(name, _)| named.segments.first().is_some_and(|first| first == name));
        match kept {
            Some((name, room)) if !named.ours && *room != from.name => {
                faults.push(format!("{place}: {name} is for {room} only"));
            }
            _ => {}
        }
        if !named.ours || named.segments.is_empty() {
            continue;
        }
        let written = named.segments.join("::");
        let Some(to) = house.of(&named.segments) else {
            faults.push(format!("{place}: crate::{written} leads into no room of the table"));
            continue;
        };
        if House::points_down(from, to) {
            continue;
        }
        match allowed.iter().position(|(a, b, _)| *a == from.name && *b == to.name) {
            Some(entry) if from.line == to.line => used.push(entry),
            _ => faults.push(format!("{place}: {} may not name {} (crate::{written})", from.name, to.name)),
        }
    }
    faults
}

#[test]
fn no_room_names_a_room_above_it() {
    let house = House::read(HOUSE);
    let all = files("src", ".rs");
    let tests: Vec<Vec<String>> = all
        .iter()
        .flat_map(|file| {
            let module = file.module();
            test_files(&words(&file.text)).into_iter().map(move |name| [module.clone(), vec![name]].concat())
        })
        .collect();
    let mut used = Vec::new();
    let faults: Vec<String> = all
        .iter()
        // and what is below a module of tests
        .filter(|file| !tests.iter().any(|test| file.module().starts_with(test)))
        .flat_map(|file| faults(&house, ALLOWED, file, &mut used))
        .collect();
    assert!(all.len() > 20, "the source was not found");
    assert!(faults.is_empty(), "{} forbidden arrows:\n{}", faults.len(), faults.join("\n"));
    for (entry, (from, to, _)) in ALLOWED.iter().enumerate() {
        assert!(used.contains(&entry), "nobody draws the allowed arrow {from} to {to} any more: take it out");
    }
}

#[test]
fn every_room_of_the_table_exists_and_is_explained() {
    let page = include_str!("../docs/architecture.md");
    let modules: Vec<String> = files("src", ".rs").iter().map(|file| file.module().join("::")).collect();
    for room in House::read(HOUSE).0 {
        let folder = format!("{}::", room.name);
        assert!(
            modules.iter().any(|module| *module == room.name || module.starts_with(&folder)),
            "the table has a room {} that src has not",
            room.name
        );
        // The front of a folder is explained by its files.
        let front = page.contains(&format!("`{folder}"));
        assert!(
            front || page.contains(&format!("`{}`", room.name)),
            "docs/architecture.md has no line for {}",
            room.name
        );
    }
}

mod the_checker_itself {
    use super::*;

    fn check(path: &str, text: &str) -> Vec<String> {
        let file = source::File { path: path.to_owned(), text: text.to_owned() };
        faults(&House::read(HOUSE), ALLOWED, &file, &mut Vec::new())
    }

    #[track_caller]
    fn refuses(path: &str, text: &str) {
        assert_eq!(check(path, text).len(), 1, "{:?}", check(path, text));
    }

    #[track_caller]
    fn accepts(path: &str, text: &str) {
        assert_eq!(check(path, text), Vec::<String>::new());
    }

    #[test]
    fn refuses_an_arrow_upward_however_it_is_written() {
        refuses("src/lorawan/frame.rs", "use crate::store::Store;");
        refuses("src/fns/mod.rs", "use crate::{clock::Clock, backend::{door, client::Client}};");
        refuses("src/fns/token.rs", "fn f() { crate::backend::server::serve() }");
        refuses("src/fns/token.rs", "use super::super::store::Store;");
        refuses("src/discovery/name.rs", "use super::resolve::Resolver;");
        refuses("src/backend/mod.rs", "pub mod client;\npub use client::Client;");
        refuses("src/jit/mod.rs", "mod inside { use super::super::fns::Tx; }");
        refuses("src/store/mod.rs", "#[cfg(feature = \"x\")]\nuse crate::app::Node;");
        refuses("src/store/mod.rs", "pub(crate) use crate::control as door;");
        refuses("src/cli/run.rs", "use roamgate::store;\nmod x { fn f() { crate::main::go() } }");
    }

    #[test]
    fn refuses_an_arrow_inside_a_line_that_nobody_explained() {
        refuses("src/fns/mod.rs", "use crate::sns::Session;");
        refuses("src/tls.rs", "use crate::pki::make;");
        refuses("src/config.rs", "use crate::app::Node;");
        accepts("src/app.rs", "use crate::config::Config;");
        accepts("src/backend/door.rs", "use crate::backend::message::Request; use super::message::Answer;");
        refuses("src/backend/message/mod.rs", "use crate::backend::door::Deadline;");
        accepts("src/discovery/mod.rs", "pub mod resolve; pub use resolve::Resolver;");
        refuses("src/discovery/resolve.rs", "use super::Resolver;");
    }

    #[test]
    fn accepts_arrows_downward_and_within_a_room() {
        accepts("src/fns/token.rs", "use super::Heard; use crate::fns::Air; use crate::lorawan::NetId;");
        accepts(
            "src/backend/client.rs",
            "use super::door::Peers; use crate::discovery::name; use crate::tls;",
        );
        accepts("src/main.rs", "fn main() -> ExitCode { roamgate::cli::main() }");
        accepts("src/sns/mod.rs", "mod uplink; pub use uplink::accept;");
    }

    #[test]
    fn looks_through_comments_strings_and_tests() {
        accepts(
            "src/lorawan/key.rs",
            "// crate::store\n/* use crate::app; /* twice */ */ //! [`crate::sns`]",
        );
        accepts(
            "src/lorawan/key.rs",
            r##"const A: &str = "crate::store"; const B: &str = r#"" crate::app "#;"##,
        );
        accepts(
            "src/lorawan/key.rs",
            "#[cfg(test)]\nmod tests { use crate::store::Store; fn a() { if b {} } }",
        );
        accepts("src/lorawan/key.rs", "#[cfg(test)]\n#[allow(dead_code)]\nuse crate::store::Store;");
        refuses("src/lorawan/key.rs", "#[cfg(test)]\nmod tests { fn a() {} }\nuse crate::store::Store;");
        refuses(
            "src/lorawan/key.rs",
            "const QUOTE: char = '\"'; use crate::store::A; const Q: char = '\\'';",
        );
        refuses("src/lorawan/key.rs", "fn f<'a>(x: &'a str) {} use crate::store::A;");
    }

    #[test]
    fn refuses_a_file_without_a_room_and_a_path_into_none() {
        refuses("src/surprise.rs", "");
        refuses("src/surprise/mod.rs", "");
        refuses("src/backend/surprise.rs", "");
        refuses("src/app.rs", "use crate::surprise::Thing;");
        accepts("src/sns/surprise.rs", "");
    }

    #[test]
    fn keeps_the_driver_in_the_radio_room() {
        refuses("src/fns/mod.rs", "use sx1302::Board;");
        accepts("src/radio/concentrator.rs", "use sx1302::Board;");
    }
}
