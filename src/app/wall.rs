//! Whether the machine's clock may be believed.
//!
//! A board without a clock of its own starts in the past, and stays there until somebody sets it: systemd-timesyncd, chrony,
//! our own GPS receiver, a person. Until then nothing is judged by the date: nobody roams, and the home network runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::clock::{Clock, Instant};

/// The program is no older than this, 2026-11-30. Moved forward with each release.
const RELEASED: i64 = 1_796_000_000;
/// Folders that are there while somebody means to set the clock, and the file in it that says that it was done: of
/// systemd-timesyncd, and of our image for chrony.
const SETTERS: [&str; 2] = ["run/systemd/timesync", "run/roamgate-clock"];
const DONE: &str = "synchronized";
/// Says that the kernel has taken the time from a clock with a battery.
const BATTERY: &str = "sys/class/rtc/rtc0/hctosys";
/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// A clock that is slewed does not go as far in one look.
const STEP: SignedDuration = SignedDuration::from_secs(2);
/// A clock that is behind by less was put right by those who keep it, or judges nothing wrong.
const SLACK: SignedDuration = SignedDuration::from_mins(10);

/// Watches over a [`Clock`].
#[derive(Debug)]
pub struct Judge {
    clock: Clock,
    /// It was later than this already.
    floor: Timestamp,
    /// What says that the clock was set.
    marks: Vec<PathBuf>,
    /// What the machine said when.
    last: (Instant, Timestamp),
}

/// When a database was written last, as far as its files know.
pub fn written(database: &Path) -> Option<Timestamp> {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    let when = |file: &Path| std::fs::metadata(file).and_then(|found| found.modified()).ok();
    let latest = [database, Path::new(&log)].into_iter().filter_map(when).max()?;
    Timestamp::try_from(latest).ok()
}

impl Judge {
    /// Judge the clock as it stands. `known`: when something of ours was written last. `root`: `/`, elsewhere in tests.
    pub fn new(clock: Clock, known: Option<Timestamp>, root: &Path) -> Judge {
        let setters = SETTERS.map(|folder| root.join(folder));
        let marks = setters.iter().filter(|folder| folder.is_dir()).map(|folder| folder.join(DONE)).collect();
        let last = (clock.now(), clock.machine());
        let floor = known.map_or(released(), |known| released().max(known));
        let judge = Judge { clock, floor, marks, last };
        let (clock, machine) = (&judge.clock, judge.last.1);
        if judge.is_marked() && is_possible(machine) {
            return judge;
        }
        let battery = std::fs::read_to_string(root.join(BATTERY)).is_ok_and(|text| text.trim() == "1");
        if !is_possible(machine) || floor.duration_since(machine) > SLACK {
            clock.set_trusted(false);
            // what is written from now on does not come before what there is
            clock.move_wall(floor.duration_since(machine) + SignedDuration::from_secs(1));
            tracing::warn!(%machine, at_least = %floor, "the clock is behind: nobody roams until GPS, NTP or a person sets it");
        } else if !judge.marks.is_empty() && !battery {
            clock.set_trusted(false);
            tracing::info!(%machine, "nobody has set the clock since the start: nobody roams until GPS, NTP or a person does");
        }
        judge
    }

    /// Look again and again.
    pub async fn watch(mut self) {
        loop {
            self.clock.sleep(LOOK).await;
            self.look();
        }
    }

    fn look(&mut self) {
        let (now, machine) = (self.clock.now(), self.clock.machine());
        let (then, said) = self.last;
        self.last = (now, machine);
        let gone =
            SignedDuration::try_from(now.saturating_duration_since(then)).unwrap_or(SignedDuration::MAX);
        let step = machine.duration_since(said) - gone;
        if step.abs() > STEP {
            if is_possible(machine) {
                self.believe("the machine's clock was set");
            } else {
                // whoever it was knows less than we do
                self.clock.move_wall(-step);
                tracing::warn!(%machine, "the machine's clock was set to a time before this program was made: not followed");
            }
        } else if !self.clock.is_trusted() {
            if self.is_marked() && is_possible(machine) {
                self.believe("the machine's clock is synchronised");
            } else if self.marks.is_empty() && machine >= self.floor {
                // nothing speaks against it any more
                self.believe("the machine's clock has caught up");
            }
        }
    }

    fn believe(&self, why: &str) {
        self.clock.follow_machine();
        self.clock.set_trusted(true);
        tracing::info!(now = %self.clock.wall(), "{why}");
    }

    fn is_marked(&self) -> bool {
        self.marks.iter().any(|mark| mark.exists())
    }
}

fn released() -> Timestamp {
    Timestamp::constant(RELEASED, 0)
}

fn is_possible(machine: Timestamp) -> bool {
    machine >= released()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    /// A machine that is so far ahead of our release, and its clock.
    fn machine(ahead: SignedDuration) -> (TempDir, Clock) {
        (TempDir::new().unwrap(), Clock::following(released() + ahead))
    }
    fn judged(folder: &TempDir, clock: &Clock, known: Option<Timestamp>) -> Judge {
        Judge::new(clock.clone(), known, folder.path())
    }
    fn setter(folder: &TempDir, number: usize, done: bool) {
        let folder = folder.path().join(SETTERS[number]);
        std::fs::create_dir_all(&folder).unwrap();
        if done {
            std::fs::write(folder.join(DONE), "").unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_nobody_speaks_against_is_believed() {
        let (folder, clock) = machine(HOUR);
        let mut judge = judged(&folder, &clock, Some(released()));
        assert!(clock.is_trusted());
        clock.sleep(LOOK).await;
        judge.look();
        assert!(clock.is_trusted());
        assert_eq!(clock.wall(), clock.machine());
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_behind_what_was_written_is_moved_there_and_not_believed_until_it_is_set() {
        for (ahead, known) in [(HOUR, Some(released() + HOUR * 5)), (-HOUR * 24 * 365 * 50, None)] {
            let (folder, clock) = machine(ahead);
            let mut judge = judged(&folder, &clock, known);
            let floor = known.unwrap_or(released());
            assert!(!clock.is_trusted());
            assert!(clock.wall() > floor && clock.wall() < floor + HOUR, "{}", clock.wall());
            // time goes on, and is slewed a little
            clock.sleep(LOOK).await;
            clock.set_machine(SignedDuration::from_secs(1));
            judge.look();
            assert!(!clock.is_trusted());
            // nobody believes a step that leads nowhere, and ours does not take it
            let before = clock.wall();
            clock.set_machine(-HOUR * 24 * 365);
            judge.look();
            assert!(!clock.is_trusted());
            assert_eq!(clock.wall(), before);
            // NTP
            let right = released() + HOUR * 9;
            clock.set_machine(right.duration_since(clock.machine()));
            judge.look();
            assert!(clock.is_trusted());
            assert_eq!(clock.wall(), right);
        }
    }

    /// A time zone that was taken for UTC once has left its mark, and whoever keeps the clock need not step it.
    #[tokio::test(start_paused = true)]
    async fn a_clock_is_believed_that_is_hardly_behind_or_has_caught_up() {
        let (folder, clock) = machine(HOUR);
        judged(&folder, &clock, Some(released() + HOUR + SLACK));
        assert!(clock.is_trusted());
        assert_eq!(clock.wall(), clock.machine());
        let mut judge = judged(&folder, &clock, Some(released() + HOUR * 3));
        for _ in 0..2 * 3600 / LOOK.as_secs() {
            assert!(!clock.is_trusted());
            clock.sleep(LOOK).await;
            judge.look();
        }
        assert!(clock.is_trusted());
        assert_eq!(clock.wall(), clock.machine());
    }

    /// A clock that was years ahead once has left its mark in the store: the right time is believed all the same.
    #[tokio::test(start_paused = true)]
    async fn what_was_written_in_a_wrong_future_does_not_bind_who_knows_better() {
        let (folder, clock) = machine(HOUR);
        setter(&folder, 0, true);
        judged(&folder, &clock, Some(released() + HOUR * 24 * 365 * 70));
        assert!(clock.is_trusted());
        assert_eq!(clock.wall(), released() + HOUR);
    }

    #[tokio::test(start_paused = true)]
    async fn where_somebody_means_to_set_the_clock_it_is_waited_for() {
        for number in 0..SETTERS.len() {
            let (folder, clock) = machine(HOUR);
            setter(&folder, number, false);
            let mut judge = judged(&folder, &clock, None);
            assert!(!clock.is_trusted());
            clock.sleep(LOOK).await;
            judge.look();
            assert!(!clock.is_trusted());
            setter(&folder, number, true);
            judge.look();
            assert!(clock.is_trusted());
        }
        // but not where the board has a clock
        let (folder, clock) = machine(HOUR);
        setter(&folder, 0, false);
        let battery = folder.path().join(BATTERY);
        std::fs::create_dir_all(battery.parent().unwrap()).unwrap();
        std::fs::write(battery, "1\n").unwrap();
        judged(&folder, &clock, None);
        assert!(clock.is_trusted());
    }

    #[tokio::test(start_paused = true)]
    async fn what_gps_has_set_is_not_set_twice() {
        let (folder, clock) = machine(-HOUR * 24 * 365);
        let mut judge = judged(&folder, &clock, None);
        let right = released() + HOUR * 7;
        clock.move_wall(right.duration_since(clock.wall()));
        clock.set_trusted(true);
        // chrony comes to the same with the same receiver
        clock.set_machine(right.duration_since(clock.machine()));
        judge.look();
        assert!(clock.is_trusted());
        assert_eq!(clock.wall(), right);
    }
}
