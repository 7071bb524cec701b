//! The windows of `balanced`, measured: from one run's journal the power is cut at many moments, each time with all that
//! was not synced gone, and what is missing of the uplinks that were accepted by then is counted.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use roamgate::clock::Clock;
use roamgate::lorawan::DevAddr;
use tokio::time::sleep;

use crate::disk::{self, Disk, Image, Record, What};
use crate::house::{Crash, House, Mode, act, look, tells_lost};
use crate::world::Lost;

/// Moments at which the power is cut.
const CUTS: usize = 120;
/// `balanced` promises no more than so much.
const FRAMES: usize = 1024;
const COUNTERS: Duration = Duration::from_secs(30);
const UNDELIVERED: Duration = Duration::from_secs(1);

/// Unconfirmed uplinks that want nothing, so that nothing is written but what they are.
pub struct Traffic {
    /// Between two uplinks of a device.
    pub pause: Duration,
    pub time: Duration,
    /// There is an application, and it is away.
    pub sink_is_away: bool,
}

/// Runs the traffic once and answers the worst that a cut could take.
pub async fn measured(name: &str, traffic: Traffic) -> Worst {
    let mut house = House::new(Mode::Balanced, Crash::Cut).await;
    house.world().next_round();
    house.is_away(traffic.sink_is_away);
    let before = house.image();
    let mut running = house.starts(traffic.sink_is_away);
    house.is_ready(&mut running).await;
    let (clock, devices) = (Clock::system(), house.world().devices.len());
    for n in 0..devices {
        let mut rng = StdRng::seed_from_u64(clock.rng().random());
        while house.world().session_of(n).is_none() {
            let action = house.world().joins(n, &mut rng);
            act(action, &running.to).await;
        }
    }
    let until = clock.now() + traffic.time;
    let talk = (0..devices).map(|n| {
        let (world, to, clock) = (house.world.clone(), running.to.clone(), clock.clone());
        tokio::spawn(async move {
            while clock.now() < until {
                let action = {
                    let mut world = crate::house::lock(&world);
                    let session = world.session_of(n).expect("it has joined");
                    world.sends_this(session, false, false, Some(vec![n as u8; 12]))
                };
                act(action, &to).await;
                sleep(traffic.pause).await;
            }
        })
    });
    for talking in talk.collect::<Vec<_>>() {
        talking.await.unwrap();
    }
    house.dies(running).await;
    house.must_be_innocent();
    let records = disk::read(&house.journal());
    let lost = house.cuts(&before, &records, traffic.sink_is_away).await;
    let accepted = house.world().counts.accepted;
    println!("{name}: {accepted} uplinks in {:?}, {} cuts", traffic.time, lost.len());
    tells_lost(&lost);
    let most = |of: fn(&Lost) -> u64| lost.iter().map(of).max().unwrap_or_default();
    let worst = Worst {
        counters: most(|lost| lost.counters as u64) as usize,
        counters_age: Duration::from_nanos(most(|lost| lost.counters_age)),
        undelivered: most(|lost| lost.undelivered as u64) as usize,
        undelivered_age: Duration::from_nanos(most(|lost| lost.undelivered_age)),
    };
    assert!(worst.counters <= FRAMES && worst.counters_age <= COUNTERS, "{worst:?}");
    assert!(worst.undelivered <= FRAMES && worst.undelivered_age <= UNDELIVERED, "{worst:?}");
    worst
}

/// The most that any of the cuts took.
#[derive(Debug)]
pub struct Worst {
    pub counters: usize,
    pub counters_age: Duration,
    pub undelivered: usize,
    pub undelivered_age: Duration,
}

impl House {
    /// Cut the power at many moments of a journal. `told`: there is an application, so what is not with it must wait for it.
    async fn cuts(&self, before: &Image, records: &[Record], told: bool) -> Vec<Lost> {
        let mut disk = Disk::holding(before);
        disk.next_journal();
        let mut accepted: BTreeMap<(DevAddr, u32), u64> = BTreeMap::new();
        let mut lost = Vec::new();
        // From the first uplink on, and again and again just before a sync is done: never is more at stake.
        let first = records.iter().position(|record| of_uplink(record).is_some()).unwrap_or(0);
        let every = ((records.len() - first) / CUTS).max(1);
        let mut wanted = false;
        for (at, record) in records.iter().enumerate() {
            wanted |= at >= first && (at - first) % every == every - 1;
            let worst = matches!(record.what, What::SyncBegun(..)) && lost.len() < 2 * CUTS;
            if at >= first && (worst || wanted) {
                wanted = false;
                lost.push(self.cut(&disk, &accepted, told, record.time).await);
            }
            disk.tell(record);
            if let Some(uplink) = of_uplink(record) {
                accepted.insert(uplink, record.time);
            }
        }
        lost
    }

    async fn cut(&self, disk: &Disk, accepted: &BTreeMap<(DevAddr, u32), u64>, told: bool, now: u64) -> Lost {
        let found = look(&disk.durable(), &self.copy(), &self.world, &Clock::system()).await.unwrap();
        let sessions: BTreeMap<_, _> =
            found.devices.values().flat_map(|device| device.sessions.clone()).collect();
        let mut lost = Lost::default();
        for ((addr, fcnt), at) in accepted {
            let age = now.saturating_sub(*at);
            if sessions[addr].0.is_none_or(|last| last < *fcnt) {
                lost.counters += 1;
                lost.counters_age = lost.counters_age.max(age);
            }
            if told && !found.waiting.contains_key(&(*addr, *fcnt)) {
                lost.undelivered += 1;
                lost.undelivered_age = lost.undelivered_age.max(age);
            }
        }
        lost
    }
}

/// The uplink that a record says was accepted.
fn of_uplink(record: &Record) -> Option<(DevAddr, u32)> {
    let What::Said(line) = &record.what else { return None };
    let mut words = line.split_whitespace();
    if words.next()? != "accepted" {
        return None;
    }
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}
