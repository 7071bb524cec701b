//! What an image is made with, as far as it can be seen without building one.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn yocto(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("yocto").join(name)
}

fn crates(lock: &Path) -> Output {
    Command::new(yocto("crates")).arg(lock).output().unwrap()
}

/// The packages of a lock file that have to be downloaded: name, version, checksum.
fn packages(lock: &str) -> BTreeSet<(String, String, String)> {
    let lock: toml::Table = lock.parse().unwrap();
    let packages = lock["package"].as_array().unwrap();
    let text = |package: &toml::Value, key: &str| package[key].as_str().unwrap().to_owned();
    let foreign = packages.iter().filter(|package| package.get("source").is_some());
    foreign
        .map(|package| (text(package, "name"), text(package, "version"), text(package, "checksum")))
        .collect()
}

#[test]
fn the_list_of_crates_is_the_lock_file() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    let listed = crates(&lock);
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut addresses = BTreeSet::new();
    let mut sums = BTreeSet::new();
    for line in listed.lines() {
        if let Some((_, address)) = line.split_once("crate://") {
            let parts: Vec<&str> = address.trim_end_matches([' ', '\\', '"']).split('/').collect();
            let [_, name, version] = parts[..] else { panic!("{line}") };
            assert!(addresses.insert(format!("{name}-{version}")), "twice: {line}");
        }
        if let Some((name, sum)) =
            line.strip_prefix("SRC_URI[").and_then(|line| line.split_once(".sha256sum] = "))
        {
            assert!(sums.insert((name.to_owned(), sum.trim_matches('"').to_owned())), "twice: {line}");
        }
    }
    let wanted = packages(&std::fs::read_to_string(&lock).unwrap());
    assert!(wanted.len() > 100, "{}", wanted.len());
    let names: BTreeSet<String> =
        wanted.iter().map(|(name, version, _)| format!("{name}-{version}")).collect();
    assert_eq!(addresses, names);
    let of_wanted =
        |(name, version, sum): &(String, String, String)| (format!("{name}-{version}"), sum.clone());
    assert_eq!(sums, wanted.iter().map(of_wanted).collect());
    // bitbake reads one value that goes over many lines
    assert!(listed.contains("SRC_URI += \"crate://"), "{listed}");
    assert_eq!(listed.lines().filter(|line| line.ends_with(" \\")).count(), addresses.len() - 1);
}

#[test]
fn what_cannot_be_checked_is_not_listed() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |text: &str, why: &str| {
        let lock = folder.path().join("Cargo.lock");
        std::fs::write(&lock, text).unwrap();
        let done = crates(&lock);
        assert!(!done.status.success(), "{text}");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(said.contains(why), "{said}");
        assert!(!String::from_utf8_lossy(&done.stdout).contains("crate://"), "half a list");
    };
    let package = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n";
    let registry = "source = \"registry+https://registry.example/index\"\n";
    refused(
        &format!("version = 4\n\n{package}source = \"git+https://x.example/a\"\n"),
        "not from a registry",
    );
    refused(&format!("version = 4\n\n{package}{registry}"), "no checksum");
    refused(&format!("version = 4\n\n{package}"), "no package from a registry");
}

/// A machine to every board, and to each of them layers that are pinned.
#[test]
fn each_board_has_a_file_for_kas() {
    let mut boards = BTreeSet::new();
    for file in std::fs::read_dir(yocto("kas")).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let pinned = text
            .lines()
            .filter(|line| line.trim_start().starts_with("commit: "))
            .all(|line| line.rsplit(' ').next().is_some_and(|commit| commit.len() == 40));
        assert!(pinned, "{name}");
        assert_eq!(text.matches("url: ").count(), text.matches("commit: ").count(), "{name}");
        if name != "base" {
            assert!(text.contains(&format!("machine: {name}\n")), "{name}");
            boards.insert(name);
        }
    }
    let known = ["qemuarm64", "raspberrypi0-2w-64", "raspberrypi3-64", "raspberrypi4-64", "raspberrypi5"];
    assert_eq!(boards, known.map(str::to_owned).into());
}

/// The version of the recipe is in its name, and the licences' sums are in it.
#[test]
fn the_recipe_is_of_this_version() {
    let recipe =
        yocto(&format!("meta-roamgate/recipes-roamgate/roamgate/roamgate_{}.bb", env!("CARGO_PKG_VERSION")));
    let text =
        std::fs::read_to_string(&recipe).unwrap_or_else(|error| panic!("{}: {error}", recipe.display()));
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        let sum =
            Command::new("md5sum").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).output().unwrap();
        let sum = String::from_utf8(sum.stdout).unwrap();
        assert!(text.contains(&format!("file://{name};md5={}", &sum[..32])), "{name}: {sum}");
    }
}

/// A card's start partition and its data, and a system that runs from one slot.
struct Card {
    folder: tempfile::TempDir,
}

impl Card {
    fn new() -> Card {
        let card = Card { folder: tempfile::tempdir().unwrap() };
        for name in ["start", "data", "cut"] {
            std::fs::create_dir(card.at(name)).unwrap();
        }
        let autoboot = yocto("meta-roamgate/recipes-roamgate/first-boot/roamgate-first-boot/autoboot.txt");
        std::fs::copy(autoboot, card.at("start/autoboot.txt")).unwrap();
        card.runs('A');
        card
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn runs(&self, slot: char) {
        std::fs::write(self.at("cmdline"), format!("console=tty1 rauc.slot={slot} rootwait\n")).unwrap();
    }

    /// The script, with these arguments; whatever it calls is found in `path`.
    fn slots(&self, path: &Path, arguments: &str) -> Output {
        Command::new(yocto("meta-roamgate/recipes-roamgate/slots/roamgate-slots/roamgate-slots"))
            .args(arguments.split(' '))
            .env("ROAMGATE_START", self.at("start"))
            .env("ROAMGATE_UPDATE", self.at("data"))
            .env("ROAMGATE_CMDLINE", self.at("cmdline"))
            .env("ROAMGATE_REBOOT_ARGUMENT", self.at("argument"))
            .env("PATH", format!("{}:{}", path.display(), std::env::var("PATH").unwrap()))
            // of its own, which can be killed as a whole
            .process_group(0)
            .output()
            .unwrap()
    }

    fn does(&self, arguments: &str) -> String {
        let done = self.slots(&self.at("none"), arguments);
        assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// What the firmware would start: by autoboot.txt and the flag of `reboot`, which is gone then.
    fn starts(&self) -> char {
        let trial = std::fs::read_to_string(self.at("argument")).is_ok_and(|text| text.trim() == "0 tryboot");
        let _ = std::fs::remove_file(self.at("argument"));
        let text = std::fs::read_to_string(self.at("start/autoboot.txt")).unwrap();
        let (all, tried) = text.split_once("[tryboot]").unwrap();
        assert!(all.starts_with("[all]\ntryboot_a_b=1\n"), "{text}");
        let partition = if trial { tried } else { all }.split("boot_partition=").nth(1).unwrap().trim();
        let slot = match partition {
            "2" => 'A',
            "3" => 'B',
            other => panic!("partition {other}"),
        };
        self.runs(slot);
        slot
    }
}

#[test]
fn an_update_is_tried_once_and_stays_when_it_is_good() {
    let card = Card::new();
    // as RAUC does it
    assert_eq!(card.does("get-primary"), "A");
    card.does("set-state B bad");
    assert_eq!([card.does("get-state A"), card.does("get-state B")], ["good", "bad"]);
    card.does("set-primary B");
    assert_eq!([card.does("get-primary"), card.does("committed")], ["B", "A"]);
    assert_eq!(card.starts(), 'B');
    assert_eq!([card.does("get-current"), card.does("committed")], ["B", "A"]);
    card.does("set-state B good");
    assert_eq!([card.does("get-primary"), card.does("committed"), card.does("pending")], ["B", "B", ""]);
    assert_eq!([card.starts(), card.starts()], ['B', 'B']);
}

#[test]
fn an_update_that_does_not_come_up_is_left() {
    let card = Card::new();
    card.does("set-primary B");
    assert_eq!(card.starts(), 'B');
    // it hangs, and somebody pulls the plug
    assert_eq!(card.starts(), 'A');
    let mut chances = 0;
    while card.slots(&card.at("none"), "try").status.success() {
        assert_eq!([card.starts(), card.starts()], ['B', 'A']);
        chances += 1;
    }
    assert_eq!(chances, 2);
    card.does("settle");
    assert_eq!([card.does("get-primary"), card.does("get-state B"), card.does("pending")], ["A", "bad", ""]);
}

#[test]
fn words_that_are_none_change_nothing() {
    let card = Card::new();
    let before = std::fs::read(card.at("start/autoboot.txt")).unwrap();
    for wrong in ["set-primary C", "set-state C good", "set-state B perhaps", "get-state", "flash", ""] {
        assert!(!card.slots(&card.at("none"), wrong).status.success(), "{wrong}");
    }
    assert_eq!(std::fs::read(card.at("start/autoboot.txt")).unwrap(), before);
    assert_eq!(card.does("pending"), "");
}

#[test]
fn a_file_that_cannot_be_read_is_written_anew_for_what_runs() {
    let card = Card::new();
    card.runs('B');
    std::fs::write(card.at("start/autoboot.txt"), [0xff; 80]).unwrap();
    assert_eq!(card.does("committed"), "B");
}

/// The power goes before and after each program that the script calls: the board starts, in a slot that is whole, and the other one
/// is started only where somebody meant it.
#[test]
fn a_power_cut_at_any_step_leaves_a_slot_that_starts() {
    use std::os::unix::fs::PermissionsExt;

    let shim = |card: &Card, cut: usize, after: bool| {
        let folder = card.at("cut");
        for program in ["dd", "mv", "rm", "sync", "mkdir", "cat"] {
            let real =
                String::from_utf8(Command::new("which").arg(program).output().unwrap().stdout).unwrap();
            let (real, count) = (real.trim(), folder.join("count"));
            let stop = "kill -9 0";
            let (first, last) = if after { ("", stop) } else { (stop, "") };
            let text = format!(
                "#!/bin/sh\necho >>'{count}'\nif [ \"$(wc -l <'{count}')\" -eq {cut} ]; then\n{first}\n'{real}' \"$@\"\n{last}\nfi\nexec '{real}' \"$@\"\n",
                count = count.display()
            );
            std::fs::write(folder.join(program), text).unwrap();
            std::fs::set_permissions(folder.join(program), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        folder
    };
    // what happens before, what is cut, and in which slot the board may be found after it
    let cases: [(&[&str], &str, &str); 5] = [
        (&[], "set-primary B", "A"),
        (&["set-primary B", "START"], "set-state B good", "AB"),
        (&["set-primary B", "START", "START"], "try", "A"),
        (&["set-primary B", "START", "START"], "settle", "A"),
        // the slot that starts did not, and is about to be written
        (&["set-primary B", "START", "set-state B good", "A RUNS"], "set-state B bad", "AB"),
    ];
    for (before, step, may_start) in cases {
        let mut cuts = 0;
        for cut in 1.. {
            let mut finished = 0;
            for after in [false, true] {
                let card = Card::new();
                for one in before {
                    match *one {
                        "START" => _ = card.starts(),
                        "A RUNS" => card.runs('A'),
                        step => _ = card.does(step),
                    }
                }
                let done = card.slots(&shim(&card, cut, after), step);
                finished += usize::from(done.status.success());
                let whole = card.does("get-current").chars().next().unwrap();
                // without power the flag is gone
                let _ = std::fs::remove_file(card.at("argument"));
                let started = card.starts();
                assert!(may_start.contains(started), "{step}, cut {cut}: {started}");
                let committed = card.does("committed").chars().next().unwrap();
                assert!(committed == started, "{step}, cut {cut}");
                // what is said is always something that RAUC understands
                assert!(["A", "B"].contains(&&*card.does("get-primary")), "{step}, cut {cut}");
                // and the next update goes through
                let other = if started == 'A' { 'B' } else { 'A' };
                card.does(&format!("set-state {other} bad"));
                card.does(&format!("set-primary {other}"));
                assert_eq!(card.starts(), other, "{step}, cut {cut}");
                card.does(&format!("set-state {other} good"));
                assert_eq!(card.starts(), other, "{step}, cut {cut}, running {whole}");
            }
            if finished == 2 {
                break;
            }
            cuts += 1;
            assert!(cuts < 100, "{step} does not end");
        }
        assert!(cuts > 0, "{step}: nothing was cut");
    }
}
