//! `kill -9` while two hundred devices' joins are under way, again and again, on one store: what the air
//! has heard stays true.
//!
//! A hundred devices of crate `lorawan-device` join twice each and talk in between, through twenty heads,
//! so that their frames rarely meet. The daemon is killed at random moments and started again at
//! once. Nearly every join spans a kill: five seconds lie between the Join-accept's way to the radio and
//! its way to the device. Everything is judged from outside, by what the heads were given and by what
//! the daemon's log says it accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use roamgate::clock::{Clock, Instant};
use roamgate::demo::device::Device;
use roamgate::lorawan::crypto::{self, Direction, SessionKeys};
use roamgate::lorawan::frame::{JoinRequest, Uplink};
use roamgate::lorawan::{DevAddr, DevEui, GatewayEui, Key, NetId};
use roamgate::radio::simulated::Air;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Delivered;
use crate::bridge::{Answer, Bridge};
use crate::forwarder::{Forwarder, rxpk};
use crate::program::{Lines, Place, Running, free_port, request};

const JOIN_EUI: &str = "70B3D57ED0000001";
/// 25 bits of its DevAddrs are free: no two sessions share one.
const NET_ID: NetId = NetId::from_msb([0, 0, 0x13]);
const HEADS: u8 = 20;
const DEVICES: u16 = 100;
const JOINS: u16 = 2;
const KILLS: usize = 9;
/// A device that is not answered so often in a row will never be.
const TRIES: u32 = 12;
/// What was committed so shortly before a kill is asked for again right after it.
const FRESH: Duration = Duration::from_secs(4);

/// An uplink that the device knows to be acknowledged.
#[derive(Clone)]
struct Acked {
    dev_eui: DevEui,
    dev_addr: DevAddr,
    fcnt_up: u32,
    phy: Vec<u8>,
    at: Instant,
    /// It was the first of its session.
    first: bool,
}

type Acknowledged = Arc<Mutex<Vec<Acked>>>;

/// Join, talk, join again. A device of LoRaWAN 1.0.4 counts its DevNonces, an older one throws dice.
async fn live(mut device: Device, counts: bool, clock: Clock, acked: Acknowledged, mut rng: StdRng) {
    let dev_eui = device.dev_eui();
    let mut dev_nonce = 0;
    for _ in 0..JOINS {
        sleep(Duration::from_millis(rng.random_range(0..1500))).await;
        let mut tries = 0;
        loop {
            if counts {
                device.set_dev_nonce(dev_nonce);
                dev_nonce += 1;
            }
            if device.join().await.ok {
                break;
            }
            tries += 1;
            assert!(tries < TRIES, "{dev_eui} does not join");
            sleep(Duration::from_millis(rng.random_range(0..700))).await;
        }
        let mut tries = 0;
        for talk in 0..2 {
            sleep(Duration::from_millis(rng.random_range(0..300))).await;
            loop {
                let report = device.send(&rng.random::<[u8; 8]>(), 10, true).await.unwrap();
                if report.acked {
                    let (dev_addr, phy) = (device.dev_addr().unwrap(), device.last_uplink().unwrap());
                    let (fcnt_up, at, first) = (report.fcnt_up, clock.now(), talk == 0);
                    acked.lock().unwrap().push(Acked { dev_eui, dev_addr, fcnt_up, phy, at, first });
                    break;
                }
                tries += 1;
                // a session that the store does not have would never be acknowledged
                assert!(tries < TRIES, "{dev_eui} joined as {:?} and is not heard", device.dev_addr());
                sleep(Duration::from_millis(rng.random_range(0..500))).await;
            }
        }
    }
}

/// Frames of others, sent again by a gateway of its own. What comes back is kept.
struct Replayer {
    gateway: Forwarder,
    answers: Vec<Vec<u8>>,
}

impl Replayer {
    /// Send frames again; waits until every one has been received.
    async fn sends(&mut self, frames: impl Iterator<Item = Vec<u8>>) -> usize {
        let mut count = 0;
        for phy in frames {
            let packet = rxpk(self.gateway.tmst(), &phy, 868_100_000, "SF7BW125");
            count += usize::from(self.gateway.push(&json!({ "rxpk": [packet] })).await);
        }
        count
    }

    /// Take what comes within this time.
    async fn listens(&mut self, time: Duration) {
        while let Some(downlink) = self.gateway.take_downlink(time).await {
            self.answers.push(downlink.phy);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_joins_survive_kill_9_at_random_moments() {
    let clock = Clock::system();
    let seed = std::env::var("ROAMGATE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from_be_bytes(clock.random()));
    println!("ROAMGATE_TEST_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);

    let listen = free_port();
    let mut place = Place::with_config(&format!(
        "[network]\nnet_ids = [\"{NET_ID}\"]\n[store]\nurl = \"sqlite:@/data/roamgate.db\"\n\
         [[radio]]\nkind = \"semtech-udp\"\nlisten = \"{listen}\"\n"
    ));
    let air = Air::new(clock.clone(), seed);
    let head = |n: u8| GatewayEui::from_msb([0xAA, 0x55, 0x5A, 0, 0, 0, 0, n]);
    let mut bridges = Vec::new();
    for n in 0..HEADS {
        bridges.push(Bridge::start(&air, &clock, head(n), listen).await.unwrap());
    }
    // the log tells a cause once a minute; whoever follows frames gets every one
    place.set("RUST_LOG", "info,roamgate::frame=debug".into());
    let daemon = place.runs().await;
    let owned: Vec<Delivered> = (0..DEVICES).map(|n| Delivered::new(n, JOIN_EUI)).collect();
    let counts = |n: usize| n % 2 == 1;
    for (n, device) in owned.iter().enumerate() {
        let body = json!({
            "dev_eui": device.dev_eui, "join_eui": device.join_eui, "app_key": device.key(),
            "mac_version": if counts(n) { "1.0.4" } else { "1.0.3" },
        });
        let answer = request(&place.at("data/control.sock"), "POST", "/v1/devices", Some(&body)).await;
        assert_eq!(answer.0, 201, "{answer:?}");
    }

    let (acked, mut living) = (Acknowledged::default(), JoinSet::new());
    let begun = clock.now();
    for (n, device) in owned.iter().enumerate() {
        let on = device.switched_on(&air, &clock, &[head(n as u8 % HEADS)]);
        let rng = StdRng::seed_from_u64(rng.random());
        living.spawn(live(on, counts(n), clock.clone(), acked.clone(), rng));
    }
    let air_said = || bridges.iter().flat_map(Bridge::answers).collect::<Vec<_>>();
    let mut house = Killed { place: &place, listen, clock: &clock, logs: Vec::new(), kills: Vec::new() };
    let daemon = house.kill_again_and_again(daemon, &air_said, &acked, &mut rng).await;
    while let Some(done) = living.join_next().await {
        done.unwrap();
    }
    let (acked, lived) = (acked.lock().unwrap().clone(), begun.elapsed());

    // everything that was ever accepted, once more
    let answers = air_said();
    let requests: Vec<Vec<u8>> =
        accepted_requests(&answers).into_iter().map(|answer| answer.uplink.clone()).collect();
    let mut replayer = house.replayer(0xFFFF).await;
    let told = daemon.log.count();
    let again = replayer.sends(requests.iter().cloned()).await;
    assert_eq!(again, requests.len(), "the daemon does not read what it is sent");
    let refused = || daemon.log.all().iter().skip(told).filter(|line| line.contains("DevNonce")).count();
    for _ in 0..100 {
        if refused() < again {
            sleep(Duration::from_millis(100)).await;
        }
    }
    assert!(refused() >= again, "{} of {again} old Join-requests were looked at and refused", refused());
    replayer.sends(acked.iter().map(|acked| acked.phy.clone())).await;
    replayer.listens(Duration::from_secs(2)).await;
    let entered = |replayer: &Replayer| replayer.answers.iter().filter(|phy| phy[0] == 0x20).count();
    assert_eq!(entered(&replayer), 0, "a DevNonce was accepted again");
    // the same way is open for a new Join-request
    replayer.sends(std::iter::once(join_request(&owned[0], &mut rng))).await;
    replayer.listens(Duration::from_secs(2)).await;
    assert_eq!(entered(&replayer), 1, "a new Join-request is answered");
    house.logs.push(daemon.log.clone());
    assert!(daemon.stops().await.success());

    // what stands
    let sessions = check_joins(&owned, &answers);
    let downlinks = check_downlinks(&sessions, &answers, &replayer.answers);
    check_uplinks(&acked, &house.logs);
    let spanned = acked.iter().filter(|acked| acked.first && house.spans_a_kill(&sessions, acked)).count();
    println!(
        "{} Join-accepts, {} acknowledged uplinks, {downlinks} downlinks, {} kills in {lived:.1?}; {spanned} sessions \
         were given before a kill and first used after it; {again} Join-requests replayed",
        sessions.len(),
        acked.len(),
        house.kills.len(),
    );
    assert!(sessions.len() >= usize::from(DEVICES * JOINS), "{} Join-accepts", sessions.len());
    assert_eq!(acked.len(), usize::from(2 * DEVICES * JOINS));
    assert!(house.kills.len() >= KILLS && spanned > 10, "too gentle to prove anything");
}

struct Killed<'a> {
    place: &'a Place,
    listen: SocketAddr,
    clock: &'a Clock,
    /// Of every daemon, the last one's last.
    logs: Vec<Lines>,
    kills: Vec<Instant>,
}

impl Killed<'_> {
    async fn replayer(&self, n: u16) -> Replayer {
        let gateway = Forwarder::connect(self.listen, &format!("AA555AFF0000{n:04X}")).await.unwrap();
        Replayer { gateway, answers: Vec::new() }
    }

    /// The daemon that is left.
    async fn kill_again_and_again(
        &mut self,
        mut daemon: Running,
        air_said: &impl Fn() -> Vec<Answer>,
        acked: &Acknowledged,
        rng: &mut StdRng,
    ) -> Running {
        for kill in 0..KILLS {
            sleep(Duration::from_millis(rng.random_range(800..3300))).await;
            self.logs.push(daemon.log.clone());
            daemon.dies().await;
            let now = self.clock.now();
            self.kills.push(now);
            // some are killed while they start
            while rng.random_range(0..3) == 0 {
                let starting = self.place.starts(&["run"]);
                sleep(Duration::from_millis(rng.random_range(0..250))).await;
                self.logs.push(starting.log.clone());
                starting.dies().await;
                self.kills.push(self.clock.now());
            }
            daemon = self.place.runs().await;

            // what had just been committed must be known
            let is_fresh = |at: Instant| now.saturating_duration_since(at) < FRESH;
            let said: Vec<Answer> =
                air_said().into_iter().filter(|answer| answer.at < now && is_fresh(answer.at)).collect();
            let joins: Vec<Vec<u8>> =
                accepted_requests(&said).into_iter().map(|answer| answer.uplink.clone()).collect();
            let data: Vec<Vec<u8>> = acked
                .lock()
                .unwrap()
                .iter()
                .filter(|acked| is_fresh(acked.at))
                .map(|acked| acked.phy.clone())
                .collect();
            let mut replayer = self.replayer(kill as u16).await;
            replayer.sends(joins.into_iter().chain(data)).await;
            replayer.listens(Duration::from_millis(200)).await;
            let entered = replayer.answers.iter().filter(|phy| phy[0] == 0x20).count();
            assert_eq!(entered, 0, "a DevNonce was accepted again after kill {kill}");
        }
        daemon
    }

    fn spans_a_kill(&self, sessions: &[Session<'_>], acked: &Acked) -> bool {
        let given = sessions
            .iter()
            .find(|session| session.dev_addr == acked.dev_addr)
            .map(|session| session.answer.at);
        self.kills.iter().any(|kill| given.is_some_and(|given| given < *kill) && *kill < acked.at)
    }
}

/// A Join-request with a DevNonce that its device has hardly used.
fn join_request(device: &Delivered, rng: &mut StdRng) -> Vec<u8> {
    let mut phy = vec![0];
    phy.extend(device.join_eui.to_air());
    phy.extend(device.dev_eui.to_air());
    phy.extend(rng.random::<u16>().to_le_bytes());
    let mic = crypto::join_mic(&device.app_key, &phy);
    phy.extend(mic);
    phy
}

/// Join-accepts that a head took.
fn accepted_requests(answers: &[Answer]) -> Vec<&Answer> {
    answers.iter().filter(|answer| answer.phy[0] == 0x20 && answer.outcome.is_ok()).collect()
}

/// What one Join-accept gave.
struct Session<'a> {
    answer: &'a Answer,
    dev_eui: DevEui,
    dev_addr: DevAddr,
    nwk_s_key: Key,
}

/// No JoinNonce was given out twice, and no DevNonce served twice. Of all Join-accepts, those that a
/// head refused as well.
fn check_joins<'a>(owned: &[Delivered], answers: &'a [Answer]) -> Vec<Session<'a>> {
    let devices: BTreeMap<DevEui, &Delivered> = owned.iter().map(|device| (device.dev_eui, device)).collect();
    let (mut join_nonces, mut dev_nonces) = (BTreeMap::new(), BTreeMap::new());
    let mut sessions = Vec::new();
    for answer in answers.iter().filter(|answer| answer.phy[0] == 0x20) {
        let request = JoinRequest::parse(&answer.uplink).unwrap();
        let (dev_eui, dev_nonce) = (request.dev_eui(), request.dev_nonce());
        let app_key = &devices[&dev_eui].app_key;
        let mut clear = answer.phy.clone();
        crypto::decrypt_join_accept(app_key, &mut clear[1..]);
        assert!(crypto::join_mic_matches(app_key, &clear), "{dev_eui}: a Join-accept for somebody else");
        assert!(answer.delay == 5 || answer.delay == 6, "{answer:?}");
        let join_nonce = u32::from_le_bytes([clear[1], clear[2], clear[3], 0]);
        assert_eq!(clear[4..7], NET_ID.to_air());
        let dev_addr = DevAddr::from_air([clear[7], clear[8], clear[9], clear[10]]);
        // the second window may be asked for when the first was refused: the same bytes then
        for (what, nonce, given) in
            [("JoinNonce", join_nonce, &mut join_nonces), ("DevNonce", dev_nonce.into(), &mut dev_nonces)]
        {
            let before = given.insert((dev_eui, nonce), &answer.phy);
            assert!(
                before.is_none_or(|before| *before == answer.phy),
                "{dev_eui}: {what} {nonce} served twice"
            );
        }
        if answer.outcome.is_ok() {
            let SessionKeys { nwk_s_key, .. } = crypto::session_keys(app_key, join_nonce, NET_ID, dev_nonce);
            sessions.push(Session { answer, dev_eui, dev_addr, nwk_s_key });
        }
    }
    sessions
}

/// Every data downlink is of a session that was given on the air, and no FCntDown was used for two
/// frames. How many there were.
fn check_downlinks(sessions: &[Session<'_>], answers: &[Answer], replies: &[Vec<u8>]) -> usize {
    let mut taken: BTreeMap<(DevEui, DevAddr, u16), &Vec<u8>> = BTreeMap::new();
    let on_air = answers.iter().filter(|answer| answer.outcome.is_ok()).map(|answer| &answer.phy);
    for phy in on_air.chain(replies).filter(|phy| phy[0] != 0x20) {
        let dev_addr = DevAddr::from_air([phy[1], phy[2], phy[3], phy[4]]);
        let fcnt = u16::from_le_bytes([phy[6], phy[7]]);
        let of = sessions.iter().find(|session| {
            session.dev_addr == dev_addr
                && crypto::data_mic_matches(&session.nwk_s_key, Direction::Down, dev_addr, fcnt.into(), phy)
        });
        let of =
            of.unwrap_or_else(|| panic!("a downlink of no session that was given: {}", hex::encode(phy)));
        let before = taken.insert((of.dev_eui, dev_addr, fcnt), phy);
        assert_eq!(before, None, "{}: FCntDown {fcnt} of {dev_addr} was used twice", of.dev_eui);
    }
    taken.len()
}

/// Every acknowledged uplink was accepted as new once, whatever was killed and replayed since.
fn check_uplinks(acked: &[Acked], logs: &[Lines]) {
    let mut accepted: BTreeMap<(String, String, String), usize> = BTreeMap::new();
    for line in logs.iter().flat_map(Lines::all) {
        let Some((_, fields)) = line.split_once("milestone=\"uplink accepted\"") else { continue };
        let field = |name: &str| {
            let mut words = fields.split_whitespace();
            words.find_map(|word| word.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default().to_owned()
        };
        if field("repeated") == "false" {
            *accepted.entry((field("DevEUI"), field("DevAddr"), field("FCntUp"))).or_default() += 1;
        }
    }
    let mut different = BTreeSet::new();
    for Acked { dev_eui, dev_addr, fcnt_up, phy, .. } in acked {
        assert!(matches!(Uplink::parse(phy), Ok(Uplink::Data(frame)) if frame.is_confirmed()));
        assert!(different.insert(phy));
        let key = (dev_eui.to_string(), dev_addr.to_string(), fcnt_up.to_string());
        let times = accepted.get(&key).copied().unwrap_or_default();
        assert_eq!(times, 1, "{dev_eui}: FCntUp {fcnt_up} of {dev_addr} was acknowledged");
    }
}
