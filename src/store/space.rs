//! How much room is left on the disk, and what is given up for it, in which order.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Store;
use crate::clock::{Clock, Instant};

/// The file system is asked so often at most; its answer is in memory.
const AGAIN: Duration = Duration::from_secs(10);
/// Where there is hardly any room, an application that is away has so many events kept for it.
const FEW: u32 = 64;

/// From ample to hardly any. What is shed at one is shed at those behind it as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Nothing is shed.
    Ample,
    /// Less than `[store] reserve_mb`: no snapshots and no backups on this disk.
    Low,
    /// Less than half of it: nothing more is kept for partners that are away, and only the newest events for applications.
    Tight,
    /// Less than a quarter: visitors are turned away. What is left is for the devices at home.
    Last,
}

impl Room {
    /// By what is free, in bytes.
    fn of(free: u64, reserve: u64) -> Room {
        match free {
            _ if free >= reserve => Room::Ample,
            _ if free >= reserve / 2 => Room::Low,
            _ if free >= reserve / 4 => Room::Tight,
            _ => Room::Last,
        }
    }

    /// What is not done, for people.
    fn shed(self) -> &'static str {
        match self {
            Room::Ample => "nothing is shed any more",
            Room::Low => "no snapshots and no backups are kept on it",
            Room::Tight => {
                "nothing more is kept for partners that are away, and 64 events for each application"
            }
            Room::Last => "visitors are turned away",
        }
    }
}

/// The disk of a store.
#[derive(Debug)]
pub(super) struct Space {
    folder: PathBuf,
    reserve: u64,
    clock: Clock,
    seen: Mutex<Option<(Room, Instant)>>,
}

impl Space {
    pub fn new(folder: PathBuf, reserve: u64, clock: Clock) -> Space {
        let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
        Space { folder, reserve, clock, seen: Mutex::new(None) }
    }

    fn room(&self) -> Room {
        let now = self.clock.now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match *seen {
            Some((room, at)) if now < at + AGAIN => return room,
            before => before.map_or(Room::Ample, |(room, _)| room),
        };
        // a file system that does not answer fails where it is written
        let Ok(disk) = rustix::fs::statvfs(&self.folder) else { return before };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let room = Room::of(free, self.reserve);
        *seen = Some((room, now));
        let megabytes = free >> 20;
        let place = self.folder.display();
        match room.cmp(&before) {
            std::cmp::Ordering::Greater => {
                tracing::error!(free_mb = megabytes, "the disk at {place} is nearly full: {}", room.shed());
            }
            std::cmp::Ordering::Less => {
                tracing::info!(free_mb = megabytes, "there is more room at {place}: {}", room.shed());
            }
            std::cmp::Ordering::Equal => {}
        }
        room
    }
}

impl Store {
    /// How much room there is now.
    pub fn room(&self) -> Room {
        self.space.room()
    }

    /// How many events an application may have waiting, of the `most` that it wants.
    pub(super) fn may_wait(&self, most: u32) -> u32 {
        if self.room() >= Room::Tight { most.min(FEW) } else { most }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_room_sheds_more() {
        let free = [200, 100, 99, 50, 49, 25, 24, 0].map(|free| Room::of(free, 100));
        use Room::*;
        assert_eq!(free, [Ample, Ample, Low, Low, Tight, Tight, Last, Last]);
        // whoever wants no reserve gets none
        assert_eq!(Room::of(0, 0), Ample);
    }

    #[test]
    fn a_disk_is_asked_and_what_it_said_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let space = |reserve| Space::new(folder.path().into(), reserve, Clock::system());
        assert_eq!(space(1).room(), Room::Ample);
        let full = space(u64::MAX);
        assert_eq!([full.room(), full.room()], [Room::Last; 2]);
        // what cannot be asked is not full
        let gone = Space::new(folder.path().join("gone"), u64::MAX, Clock::system());
        assert_eq!(gone.room(), Room::Ample);
    }
}
