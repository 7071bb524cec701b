//! What a power cut leaves of a folder: the journal that `shim.c` wrote, and the disk that it tells of.
//!
//! The model is harsher than a disk: until a sync is done, each sector (512 bytes) of a file may hold any version that it
//! ever had since the last one, a file any of its lengths, and a name may be missing, still there, or lead to what it led to before.
//! A sync of a file makes durable what was written before it began; names are durable by a sync of the folder alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use rand::RngExt;
use rand::rngs::StdRng;

const SECTOR: usize = 512;
const HEADER: usize = 32;
/// The number of the folder among the files.
const FOLDER: u32 = 1;
/// The number of a file that was made at the very end.
const LAST: u32 = 0xffff;
/// The files that were there before the journal began get numbers from here.
const BEFORE: u32 = 1 << 30;

/// The library, built once in a run of the tests. The linker's own folder keeps it.
static SHIM: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (made, library) = (folder.join(format!("crash-{}.so", std::process::id())), folder.join("crash.so"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/shim.c");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-pthread", "-o"]);
    let done = cc.arg(&made).arg(source).status().expect("a C compiler (cc)");
    assert!(done.success(), "cc does not build the shim");
    // At once, for whoever else builds it.
    std::fs::rename(made, &library).unwrap();
    library
});

/// Have a command's doings under `folder` written down in `journal`.
pub fn observe(command: &mut tokio::process::Command, folder: &Path, journal: &Path) {
    command.env("LD_PRELOAD", &*SHIM).env("CRASH_ROOT", folder).env("CRASH_JOURNAL", journal);
    command.env("CRASH_SYNC_US", "400");
}

/// One record of the journal.
#[derive(Debug)]
pub struct Record {
    /// Nanoseconds since 1970.
    pub time: u64,
    pub what: What,
}

#[derive(Debug, Clone)]
pub enum What {
    Opened(u32, String),
    Made(u32, String),
    Written(u32, u64, Vec<u8>),
    Truncated(u32, u64),
    SyncBegun(u64),
    SyncDone(u32, u64),
    Removed(String),
    Renamed(String, String),
    Said(String),
}

/// The journal, but for a last record that was not finished.
pub fn read(journal: &Path) -> Vec<Record> {
    let bytes = std::fs::read(journal).unwrap_or_default();
    let mut rest = &bytes[..];
    let mut records = Vec::new();
    while let Some((header, after)) = rest.split_first_chunk::<HEADER>() {
        let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_ne_bytes(header[at..at + 8].try_into().unwrap());
        let (kind, file, time, offset, length) = (word(0), word(4), long(8), long(16), word(24) as usize);
        let Some((bytes, after)) = after.split_at_checked(length) else { break };
        rest = after;
        let text = || String::from_utf8(bytes.to_vec()).unwrap();
        let what = match kind {
            1 => What::Opened(file, text()),
            2 => What::Made(file, text()),
            3 => What::Written(file, offset, bytes.to_vec()),
            4 => What::Truncated(file, offset),
            5 => What::SyncBegun(offset),
            6 => What::SyncDone(file, offset),
            7 => What::Removed(text()),
            8 => {
                let both = text();
                let (old, new) = both.split_once('\0').unwrap();
                What::Renamed(old.into(), new.into())
            }
            9 => What::Said(text()),
            other => panic!("a record of kind {other}"),
        };
        records.push(Record { time, what });
    }
    records
}

/// A folder's files, by name.
pub type Image = BTreeMap<String, Vec<u8>>;

/// Read a folder.
pub fn image(folder: &Path) -> Image {
    let mut image = Image::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        image.insert(entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap());
    }
    image
}

/// Make a folder hold exactly this.
pub fn lay(image: &Image, folder: &Path) {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder).unwrap();
    for (name, bytes) in image {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Write(offset, new) => {
                let end = offset + new.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(new);
            }
            Change::Length(length) => bytes.resize(*length, 0),
        }
    }
}

#[derive(Debug, Clone)]
enum Naming {
    Link(String, u32),
    Unlink(String),
}

/// Something that is not durable yet, with its place in the order of all such things.
type Unsynced<T> = Vec<(u64, T)>;

#[derive(Debug, Default, Clone)]
struct File {
    durable: Vec<u8>,
    unsynced: Unsynced<Change>,
}

impl File {
    fn now(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        self.unsynced.iter().for_each(|(_, change)| change.apply(&mut bytes));
        bytes
    }
}

/// The disk as far as the journal has been told.
#[derive(Debug, Default, Clone)]
pub struct Disk {
    names: BTreeMap<String, u32>,
    renamings: Unsynced<Naming>,
    files: BTreeMap<u32, File>,
    /// The journal's numbers of files that were there before it.
    known: BTreeMap<u32, u32>,
    /// Journals before this one.
    journals: u32,
    /// Syncs under way: number, and where they began.
    syncs: BTreeMap<u64, u64>,
    order: u64,
    /// A disk that takes no sync seriously: every harness must see what that costs.
    pub forgetful: bool,
}

impl Disk {
    /// With these files on it, all durable.
    pub fn holding(image: &Image) -> Disk {
        let mut disk = Disk::default();
        for (number, (name, bytes)) in (BEFORE..).zip(image) {
            disk.names.insert(name.clone(), number);
            disk.files.insert(number, File { durable: bytes.clone(), unsynced: Vec::new() });
        }
        disk
    }

    /// Another process goes on, with a journal of its own.
    pub fn next_journal(&mut self) {
        self.journals += 1;
        self.known.clear();
        self.syncs.clear();
    }

    /// Our number of a file, by the journal's.
    fn number(&self, number: u32) -> u32 {
        self.known.get(&number).copied().unwrap_or(self.journals << 16 | number)
    }

    fn file(&mut self, number: u32) -> &mut File {
        let number = self.number(number);
        self.files.entry(number).or_default()
    }

    /// What every name leads to now.
    fn names_now(&self) -> BTreeMap<String, u32> {
        let mut names = self.names.clone();
        self.renamings.iter().for_each(|(_, naming)| rename(&mut names, naming));
        names
    }

    /// The next record of the journal.
    pub fn tell(&mut self, record: &Record) {
        self.order += 1;
        let order = self.order;
        match &record.what {
            What::Opened(number, name) => {
                if let Some(before) = self.names_now().get(name) {
                    self.known.insert(*number, *before);
                }
            }
            What::Made(number, name) => {
                let number = self.number(*number);
                self.files.entry(number).or_default();
                self.renamings.push((order, Naming::Link(name.clone(), number)));
            }
            What::Written(number, offset, bytes) => {
                let change = Change::Write(*offset as usize, bytes.clone());
                self.file(*number).unsynced.push((order, change));
            }
            What::Truncated(number, length) => {
                self.file(*number).unsynced.push((order, Change::Length(*length as usize)));
            }
            What::Removed(name) => self.renamings.push((order, Naming::Unlink(name.clone()))),
            What::Renamed(old, new) => {
                if let Some(number) = self.names_now().get(old).copied() {
                    self.renamings.push((order, Naming::Link(new.clone(), number)));
                    self.renamings.push((order, Naming::Unlink(old.clone())));
                }
            }
            What::SyncBegun(number) => _ = self.syncs.insert(*number, order),
            What::SyncDone(_, _) if self.forgetful => {}
            What::SyncDone(FOLDER, number) => {
                let begun = self.syncs.remove(number).unwrap_or(0);
                let after = self.renamings.partition_point(|(at, _)| *at < begun);
                for (_, naming) in self.renamings.drain(..after) {
                    rename(&mut self.names, &naming);
                }
            }
            What::SyncDone(file, number) => {
                let begun = self.syncs.remove(number).unwrap_or(0);
                let file = self.file(*file);
                let after = file.unsynced.partition_point(|(at, _)| *at < begun);
                for (_, change) in file.unsynced.drain(..after) {
                    change.apply(&mut file.durable);
                }
            }
            What::Said(_) => {}
        }
    }

    /// The whole journal of a process that was killed, and the folder as it left it. A write is told before it is done: of
    /// one that is the last word goes in what was done of it. A name is told when it has been changed: the change of one may
    /// be missing. False if the folder still is not what was told.
    pub fn ends(&mut self, records: &[Record], real: &Image) -> bool {
        if let Some((last, before)) = records.split_last() {
            before.iter().for_each(|record| self.tell(record));
            if let Some(what) = self.done(&last.what, real) {
                self.tell(&Record { time: last.time, what });
            }
        }
        let told = self.now();
        let of_one = |one: &Image, other: &Image| {
            one.keys().filter(|name| !other.contains_key(*name)).cloned().collect::<Vec<_>>()
        };
        let (gone, new) = (of_one(&told, real), of_one(real, &told));
        let replaced = || real.iter().find(|(name, bytes)| told.get(*name) != Some(bytes));
        let untold = match (&gone[..], &new[..]) {
            ([], [new]) => Some(What::Made(LAST, new.clone())),
            ([old], [new]) => Some(What::Renamed(old.clone(), new.clone())),
            ([old], []) => Some(match replaced() {
                Some((new, _)) => What::Renamed(old.clone(), new.clone()),
                None => What::Removed(old.clone()),
            }),
            _ => None,
        };
        if let Some(what) = untold {
            self.tell(&Record { time: 0, what });
        }
        self.now() == *real
    }

    /// What was done of the last thing that was told.
    fn done(&self, what: &What, real: &Image) -> Option<What> {
        let there = |number: &u32| {
            let number = self.number(*number);
            real.get(self.names_now().iter().find(|(_, of)| **of == number)?.0)
        };
        Some(match what {
            What::Written(number, offset, bytes) => {
                let after = there(number).map(|real| real.get(*offset as usize..).unwrap_or_default());
                let done = after
                    .map(|after| after.iter().zip(bytes).take_while(|(one, other)| one == other).count());
                match done {
                    Some(0) => return None,
                    Some(done) => What::Written(*number, *offset, bytes[..done].to_vec()),
                    None => What::Written(*number, *offset, bytes.clone()),
                }
            }
            What::Truncated(number, length) => {
                there(number).is_none_or(|real| real.len() as u64 == *length).then_some(())?;
                What::Truncated(*number, *length)
            }
            other => other.clone(),
        })
    }

    /// Without a cut: what the process itself would read.
    pub fn now(&self) -> Image {
        let bytes = |number: &u32| self.files.get(number).map(File::now).unwrap_or_default();
        self.names_now().iter().map(|(name, number)| (name.clone(), bytes(number))).collect()
    }

    /// All that was not synced is gone.
    pub fn durable(&self) -> Image {
        let bytes =
            |number: &u32| self.files.get(number).map(|file| file.durable.clone()).unwrap_or_default();
        self.names.iter().map(|(name, number)| (name.clone(), bytes(number))).collect()
    }

    /// Things that a cut may take.
    pub fn unsynced(&self) -> usize {
        self.renamings.len() + self.files.values().map(|file| file.unsynced.len()).sum::<usize>()
    }

    /// The power fails: what is there when it comes back.
    pub fn cut(&self, rng: &mut StdRng) -> Image {
        let style = match rng.random_range(0..100) {
            0..30 => Style::Nothing,
            30..36 => Style::Everything,
            36..60 => Style::Beginning,
            60..80 => Style::Some,
            _ => Style::Anything,
        };
        let mut names = self.names.clone();
        match style {
            Style::Nothing => {}
            Style::Everything => names = self.names_now(),
            // A file system that keeps a journal of its own goes on in order.
            Style::Beginning => {
                let until = rng.random_range(0..=self.renamings.len());
                self.renamings[..until].iter().for_each(|(_, naming)| rename(&mut names, naming));
            }
            // Every name for itself, up to some moment.
            Style::Some | Style::Anything => {
                let touched: BTreeSet<&str> =
                    self.renamings.iter().map(|(_, naming)| naming.name()).collect();
                for name in touched {
                    let of_name: Vec<&Naming> = self
                        .renamings
                        .iter()
                        .map(|(_, naming)| naming)
                        .filter(|naming| naming.name() == name)
                        .collect();
                    let until = rng.random_range(0..=of_name.len());
                    of_name[..until].iter().for_each(|naming| rename(&mut names, naming));
                }
            }
        }
        let nothing = File::default();
        let mut left = Image::new();
        for (name, number) in names {
            left.insert(name, survives(self.files.get(&number).unwrap_or(&nothing), style, rng));
        }
        left
    }
}

impl Naming {
    fn name(&self) -> &str {
        match self {
            Naming::Link(name, _) | Naming::Unlink(name) => name,
        }
    }
}

fn rename(names: &mut BTreeMap<String, u32>, naming: &Naming) {
    match naming {
        Naming::Link(name, number) => _ = names.insert(name.clone(), *number),
        Naming::Unlink(name) => _ = names.remove(name),
    }
}

/// Which of the unsynced writes of a file survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Nothing,
    Everything,
    /// The first so many; of the last of them some sectors.
    Beginning,
    /// Some of them, in their order, some torn.
    Some,
    /// Of each sector any version.
    Anything,
}

fn survives(file: &File, style: Style, rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = file.durable.clone();
    let changes = &file.unsynced;
    match style {
        Style::Nothing => {}
        Style::Everything => bytes = file.now(),
        Style::Beginning => {
            let until = rng.random_range(0..=changes.len());
            changes[..until].iter().for_each(|(_, change)| change.apply(&mut bytes));
            if let Some((_, change)) = changes.get(until) {
                torn(change, &mut bytes, rng);
            }
        }
        Style::Some => {
            let kept = rng.random_range(0.0..1.0);
            for (_, change) in changes {
                match rng.random_range(0.0..1.0) < kept {
                    true if rng.random_range(0..8) == 0 => torn(change, &mut bytes, rng),
                    true => change.apply(&mut bytes),
                    false => {}
                }
            }
        }
        Style::Anything => bytes = any_version(file, rng),
    }
    bytes
}

/// Some sectors of a write.
fn torn(change: &Change, bytes: &mut Vec<u8>, rng: &mut StdRng) {
    let Change::Write(offset, new) = change else { return };
    let mut at = 0;
    while at < new.len() {
        // up to the next border between two sectors
        let length = (SECTOR - (offset + at) % SECTOR).min(new.len() - at);
        if rng.random() {
            Change::Write(offset + at, new[at..at + length].to_vec()).apply(bytes);
        }
        at += length;
    }
}

fn any_version(file: &File, rng: &mut StdRng) -> Vec<u8> {
    let mut now = file.durable.clone();
    let mut lengths = vec![now.len()];
    let mut versions: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
    let sector = |bytes: &[u8], number: usize| {
        let mut sector = bytes.iter().skip(number * SECTOR).take(SECTOR).copied().collect::<Vec<u8>>();
        sector.resize(SECTOR, 0);
        sector
    };
    for (_, change) in &file.unsynced {
        let before = now.len();
        let touched = match change {
            Change::Write(offset, new) => offset / SECTOR..(offset + new.len()).div_ceil(SECTOR),
            Change::Length(length) => length.min(&before) / SECTOR..before.max(*length).div_ceil(SECTOR),
        };
        for number in touched.clone() {
            versions.entry(number).or_insert_with(|| vec![sector(&now, number)]);
        }
        change.apply(&mut now);
        for number in touched {
            if let Some(versions) = versions.get_mut(&number) {
                versions.push(sector(&now, number));
            }
        }
        lengths.push(now.len());
    }
    let length = lengths[rng.random_range(0..lengths.len())];
    let mut bytes = file.durable.clone();
    for (number, versions) in versions {
        let chosen = versions[rng.random_range(0..versions.len())].clone();
        Change::Write(number * SECTOR, chosen).apply(&mut bytes);
    }
    bytes.resize(length, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn told(disk: &mut Disk, what: What) {
        disk.tell(&Record { time: 0, what });
    }

    #[test]
    fn what_was_told_and_not_done_is_no_longer_there() {
        let record = |what| Record { time: 0, what };
        let image = |files: &[(&str, &[u8])]| {
            files.iter().map(|(name, bytes)| (name.to_string(), bytes.to_vec())).collect::<Image>()
        };
        let opened = || record(What::Opened(2, "a".into()));
        let written = || record(What::Written(2, 2, vec![2, 3]));
        for (records, real, explained) in [
            (vec![opened(), written()], image(&[("a", &[1, 1])]), true),
            (vec![opened(), written()], image(&[("a", &[1, 1, 2])]), true),
            (vec![opened(), written()], image(&[("a", &[1, 1, 2, 3])]), true),
            (vec![opened(), written()], image(&[("a", &[1, 1, 4])]), false),
            (vec![opened(), written(), record(What::SyncBegun(1))], image(&[("a", &[1, 1])]), false),
            (vec![opened(), record(What::Truncated(2, 1))], image(&[("a", &[1, 1])]), true),
            (vec![opened(), record(What::Truncated(2, 1))], image(&[("a", &[1])]), true),
            (vec![opened()], image(&[("b", &[1, 1])]), true),
            (vec![opened()], image(&[]), true),
            (vec![opened()], image(&[("a", &[1, 1]), ("b", &[])]), true),
            (vec![opened()], image(&[("a", &[1, 1]), ("b", &[]), ("c", &[])]), false),
        ] {
            let mut disk = Disk::holding(&image(&[("a", &[1, 1])]));
            disk.next_journal();
            assert_eq!(disk.ends(&records, &real), explained, "{records:?} {real:?}");
            // The next process goes on from there.
            disk.next_journal();
            assert_eq!(disk.ends(&[], &real), explained, "{records:?} {real:?}");
        }
    }

    #[test]
    fn what_was_synced_survives_and_what_was_not_may_go() {
        let mut disk = Disk::holding(&Image::from([("old".into(), vec![1; 2000])]));
        told(&mut disk, What::Opened(2, "old".into()));
        told(&mut disk, What::Written(2, 0, vec![2; 700]));
        told(&mut disk, What::SyncBegun(1));
        told(&mut disk, What::Written(2, 1000, vec![3; 1500]));
        told(&mut disk, What::SyncDone(2, 1));
        told(&mut disk, What::Made(3, "new".into()));
        told(&mut disk, What::Written(3, 0, vec![4; 10]));
        told(&mut disk, What::SyncBegun(2));
        told(&mut disk, What::SyncDone(3, 2));
        let mut rng = StdRng::seed_from_u64(1);
        let (mut lengths, mut names, mut thirds) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for _ in 0..500 {
            let left = disk.cut(&mut rng);
            let old = &left["old"];
            assert_eq!(old[..700], [2; 700]);
            assert_eq!(old[700..1000], [1; 300]);
            lengths.insert(old.len());
            thirds.extend([old[1000], old[1100], old[1600]]);
            names.insert(left.len());
            assert!(left.get("new").is_none_or(|new| *new == [4; 10]));
        }
        assert_eq!((lengths.len() > 1, names.len(), thirds), (true, 2, BTreeSet::from([1, 3])));
        assert_eq!(disk.now()["old"][1000..], [3; 1500]);
        told(&mut disk, What::SyncBegun(3));
        told(&mut disk, What::SyncDone(FOLDER, 3));
        assert!((0..100).all(|_| disk.cut(&mut rng)["new"] == [4; 10]));
        told(&mut disk, What::Removed("new".into()));
        let left: BTreeSet<bool> = (0..100).map(|_| disk.cut(&mut rng).contains_key("new")).collect();
        assert_eq!(left.len(), 2);
    }
}
