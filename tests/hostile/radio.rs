//! What partners may order of the radio, and what strangers on the air may cost. Paused time, no sockets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use roamgate::backend::door::{Boxed, Caller, Deadline, PeerError, Peers, StoreError};
use roamgate::backend::message::*;
use roamgate::clock::Clock;
use roamgate::fns::contexts::{Context, ContextId, Contexts};
use roamgate::fns::parked::{Parked, Parking, Place};
use roamgate::fns::{Air, AirError, Count, Fns, Heard, Learned, Parts, Seal, Sent, Tx};
use roamgate::lorawan::{DevAddr, DevEui, GatewayEui, Modulation, NetId, Region};

use crate::log::Log;

const ME: NetId = NetId::from_msb([0, 0, 1]);
const PARTNER: NetId = NetId::from_msb([0, 0, 2]);
const GATEWAY: GatewayEui = GatewayEui::from_msb([9; 8]);
const MS: Duration = Duration::from_millis(1);

/// Nobody knows any device; what was asked is counted, and the last token of each partner kept.
#[derive(Default)]
struct World {
    asked: Mutex<Vec<(Party, &'static str)>>,
    token: Mutex<Option<Vec<u8>>>,
    sent: Mutex<Vec<Tx>>,
    /// How often the federation's list of networks was asked for.
    lists: AtomicUsize,
}

impl Peers for World {
    fn networks(&self, _: DevAddr, _: Deadline) -> Boxed<'_, Vec<NetId>> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(Vec::new()))
    }
    fn send(&self, to: Party, request: Request, _: Deadline) -> Boxed<'_, Result<Answer, PeerError>> {
        self.asked.lock().unwrap().push((to.clone(), request.message_type()));
        let answer = match &request {
            Request::PrStart(req) if to == Party::Ns(PARTNER) => {
                *self.token.lock().unwrap() = req.ul.fns_ul_token.clone();
                Ok(Answer::PrStart(PrStartAns::default()))
            }
            Request::PrStart(req) if req.ul.dev_addr.is_some() => Err(ResultCode::MicFailed),
            Request::HomeNs(_) => Err(ResultCode::UnknownDevEui),
            _ => Err(ResultCode::UnknownDevEui),
        };
        let refused = |code| PeerError::Refused { to, refusal: Refusal::new(code, "nobody here") };
        Box::pin(std::future::ready(answer.map_err(refused)))
    }
}

impl Air for World {
    fn transmit(&self, tx: Tx, _: Deadline) -> Boxed<'_, Result<Sent, AirError>> {
        self.sent.lock().unwrap().push(tx);
        Box::pin(std::future::ready(Ok(Sent { power: None })))
    }
    fn heads(&self) -> usize {
        1
    }
    fn online(&self, _: GatewayEui) -> bool {
        true
    }
}

impl Learned for World {
    fn net_ids(&self) -> Vec<NetId> {
        Vec::new()
    }
    fn learn(&self, _: NetId) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Contexts for World {
    fn page(&self, _: Option<ContextId>, _: usize) -> Boxed<'_, Result<Vec<ContextId>, StoreError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
    fn with_addr(&self, _: DevAddr) -> Boxed<'_, Result<Vec<Context>, StoreError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
    fn of_device(&self, _: NetId, _: DevEui) -> Boxed<'_, Result<Vec<Context>, StoreError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
    fn over(&self, _: u64, _: usize) -> Boxed<'_, Result<Vec<ContextId>, StoreError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
    fn keep(&self, _: Context) -> Boxed<'_, Result<bool, StoreError>> {
        Box::pin(std::future::ready(Ok(true)))
    }
    fn forget(&self, _: Vec<ContextId>) -> Boxed<'_, Result<Vec<(ContextId, bool)>, StoreError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

impl Parking for World {
    fn is_full(&self) -> bool {
        false
    }
    fn places(&self) -> Boxed<'_, Result<Vec<Place>, StoreError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
    fn park(&self, _: Parked) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn parked(&self, _: u64) -> Boxed<'_, Result<Option<Parked>, StoreError>> {
        Box::pin(std::future::ready(Ok(None)))
    }
    fn unpark(&self, _: Vec<u64>) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

struct Hotspot {
    fns: Fns,
    world: Arc<World>,
    clock: Clock,
    heard: u64,
}

impl Hotspot {
    fn new(region: Region) -> Hotspot {
        let clock = Clock::following("2026-11-20T10:00:00Z".parse().unwrap());
        let world = Arc::new(World::default());
        let partners = "[default]\npassive = { start = true, activation = true }\n\
                        [[partner]]\nnet_id = \"000002\"\npassive = { start = true }";
        let fns = Fns::new(Parts {
            me: ME,
            ours: vec![ME],
            region,
            partners: Arc::new(toml::from_str(partners).unwrap()),
            downlink_in_answer: false,
            seal: Seal::new(&[7; 32], clock.now()),
            peers: world.clone(),
            air: world.clone(),
            learned: world.clone(),
            limits: Arc::new(()),
            contexts: world.clone(),
            parking: world.clone(),
            usage: Arc::new(()),
            clock: clock.clone(),
        });
        Hotspot { fns, world, clock, heard: 0 }
    }

    async fn hear(&mut self, phy: Vec<u8>) {
        self.heard += 1;
        let now = self.clock.now();
        let heard = Heard {
            phy,
            gateway: GATEWAY,
            session: 1,
            frequency: 868_300_000,
            modulation: Modulation::Lora { sf: 12, bandwidth: 125_000 },
            rssi: -80,
            snr: 9.0,
            tmst: Count((self.heard as u32).wrapping_mul(1_000_000)),
            at: now,
            time: self.clock.wall(),
            location: None,
            fine_time: None,
        };
        self.fns.uplink(heard).await;
    }

    /// An uplink of the partner's device, and the token that the partner got for it.
    async fn token(&mut self) -> Vec<u8> {
        self.hear(data(device(), self.heard as u16 + 1)).await;
        self.world.token.lock().unwrap().take().expect("the partner was asked")
    }

    /// The partner's downlink for a hearing.
    async fn order(
        &self,
        token: Vec<u8>,
        size: usize,
        rx1: (u32, u8),
        rx2: (u32, u8),
    ) -> Result<XmitAns, Refusal> {
        let mut phy = vec![0x60];
        phy.extend(device().to_air());
        phy.resize(size, 0);
        let dl = DlMeta {
            dl_freq1: Some(rx1.0),
            data_rate1: Some(rx1.1),
            dl_freq2: Some(rx2.0),
            data_rate2: Some(rx2.1),
            rx_delay1: Some(1),
            class_mode: Some(ClassMode::A),
            fns_ul_token: Some(token),
            ..DlMeta::default()
        };
        self.fns.downlink(partner(&self.clock), XmitDown { phy_payload: phy, dl, account: None }).await
    }

    fn sent(&self) -> usize {
        self.world.sent.lock().unwrap().len()
    }
    fn asked(&self, message: &str, to: &Party) -> usize {
        let asked = self.world.asked.lock().unwrap();
        asked.iter().filter(|(party, name)| party == to && *name == message).count()
    }
}

fn partner(clock: &Clock) -> Caller {
    let by = Deadline(clock.now() + Duration::from_secs(5));
    Caller { party: Party::Ns(PARTNER), receiver: Party::Ns(ME), ours: false, by }
}

fn device() -> DevAddr {
    PARTNER.dev_addr(0x17)
}

fn data(addr: DevAddr, fcnt: u16) -> Vec<u8> {
    let mut phy = vec![0x40];
    phy.extend(addr.to_air());
    phy.push(0);
    phy.extend(fcnt.to_le_bytes());
    phy.extend([1, 2, 3, 4, 5, 6]);
    phy
}

fn join(join_eui: u64, dev_eui: u64) -> Vec<u8> {
    let mut phy = vec![0];
    phy.extend(join_eui.to_le_bytes());
    phy.extend(dev_eui.to_le_bytes());
    phy.extend([1, 0, 1, 2, 3, 4]);
    phy
}

const RX1: (u32, u8) = (868_300_000, 0);
const RX2: (u32, u8) = (869_525_000, 0);

#[tokio::test(start_paused = true)]
async fn a_downlink_outside_the_regions_rules_is_refused_by_the_rule() {
    let log = Log::listen();
    let mut hotspot = Hotspot::new(Region::eu868());
    for (rx1, rx2, size, rules) in [
        (
            (868_650_000, 0),
            (915_000_000, 0),
            20,
            ["RX1: not a downlink frequency", "RX2: not a downlink frequency"],
        ),
        (
            (868_300_000, 15),
            (869_525_000, 8),
            20,
            ["RX1: DR15 is no downlink data rate", "RX2: DR8 is no downlink data rate"],
        ),
        (
            (868_300_000, 0),
            (869_525_000, 3),
            200,
            ["RX1: 200 bytes are more than the 64 of DR0", "RX2: 200 bytes are more than the 128 of DR3"],
        ),
    ] {
        let token = hotspot.token().await;
        let refused = hotspot.order(token, size, rx1, rx2).await.unwrap_err();
        assert_eq!(refused.code, ResultCode::XmitFailed);
        for rule in rules {
            assert!(refused.description.contains(rule), "{refused}");
        }
        log.says(&["WARN", "downlink not sent", rules[0], "remedy="]);
    }
    assert_eq!(hotspot.sent(), 0);
    // where one window is within the rules, it is taken; and what was refused cost the hearing nothing
    let token = hotspot.token().await;
    let answer = hotspot.order(token, 64, (868_650_000, 0), RX2).await.unwrap();
    assert_eq!((answer.dl_freq2, hotspot.sent()), (Some(RX2.0), 1));
}

#[tokio::test(start_paused = true)]
async fn a_region_without_duty_cycle_has_frequencies_and_data_rates_all_the_same() {
    let mut hotspot = Hotspot::new("US915".parse().unwrap());
    let token = hotspot.token().await;
    let refused = hotspot.order(token.clone(), 20, (902_300_000, 10), (923_300_000, 3)).await.unwrap_err();
    assert!(refused.description.contains("RX1: not a downlink frequency"), "{refused}");
    assert!(refused.description.contains("RX2: DR3 is no downlink data rate of US915"), "{refused}");
    hotspot.order(token, 20, (923_300_000, 10), (923_300_000, 8)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_partner_that_spends_the_duty_cycle_hears_the_rule_and_until_when() {
    let log = Log::listen();
    let mut hotspot = Hotspot::new(Region::eu868());
    let (mut went, mut refusals) = (0, Vec::new());
    // 64 bytes at SF12 are 2.8 s on the air; of 868.0 to 868.6 MHz an hour gives 36 s
    for _ in 0..30 {
        let token = hotspot.token().await;
        match hotspot.order(token, 64, RX1, (868_500_000, 0)).await {
            Ok(_) => went += 1,
            Err(refused) => refusals.push(refused),
        }
        hotspot.clock.sleep(Duration::from_secs(8)).await;
    }
    assert_eq!((went, hotspot.sent()), (12, 12));
    let refused = &refusals[0];
    assert_eq!(refused.code, ResultCode::XmitFailed);
    let why = &refused.description;
    assert!(
        why.contains("RX1: duty cycle 1 % of 868-868.6 MHz") && why.contains("of 36.0 s per hour are used"),
        "{why}"
    );
    assert!(why.contains("; possible in 35") && why.contains(", at 2026-11-20T11:0"), "{why}");
    println!("{why}");
    // told once a minute, and then how often it was left out
    let told = log.lines(&["WARN", "downlink not sent", "duty cycle"]);
    assert!((2..=4).contains(&told.len()), "{told:#?}");
    assert!(told[1].contains("left_out=7"), "{told:#?}");
    // another sub-band is free, and an hour later so is this one
    let token = hotspot.token().await;
    hotspot.order(token, 64, RX1, RX2).await.unwrap();
    hotspot.clock.sleep(Duration::from_secs(3600)).await;
    let token = hotspot.token().await;
    assert_eq!(hotspot.order(token, 64, RX1, RX2).await.unwrap().dl_freq1, Some(RX1.0));
}

#[tokio::test(start_paused = true)]
async fn a_token_ends_with_its_windows_and_pays_once() {
    let mut hotspot = Hotspot::new(Region::eu868());
    let token = hotspot.token().await;
    hotspot.order(token.clone(), 20, RX1, RX2).await.unwrap();
    let twice = hotspot.order(token, 20, RX1, RX2).await.unwrap_err();
    assert!(twice.description.contains("answered already"), "{twice}");
    for late in [2000 * MS, 25_000 * MS, Duration::from_secs(3600 * 72)] {
        let token = hotspot.token().await;
        hotspot.clock.sleep(late).await;
        let expired = hotspot.order(token, 20, RX1, RX2).await.unwrap_err();
        assert_eq!(expired.code, ResultCode::XmitFailed);
        assert!(
            expired.description.contains("RX1: too late") && expired.description.contains("RX2: too late"),
            "{expired}"
        );
    }
    assert_eq!(hotspot.sent(), 1);
    // a hotspot that was restarted has another epoch; one whose key rotated knows no old token
    let token = hotspot.token().await;
    let other = Hotspot { fns: Hotspot::new(Region::eu868()).fns, ..hotspot };
    let mut foreign = token.clone();
    foreign[20] ^= 1;
    let refused = other.order(foreign, 20, RX1, RX2).await.unwrap_err();
    assert!(refused.description.contains("not made here for this partner"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_join_flood_of_strangers_costs_few_lookups_and_bounded_memory() {
    let log = Log::listen();
    let mut hotspot = Hotspot::new(Region::eu868());
    // one maker of devices, then everybody: 20,000 Join-requests in 20 s
    for n in 0..2_000 {
        hotspot.hear(join(1, n)).await;
        hotspot.clock.sleep(MS).await;
    }
    let lookups = |hotspot: &Hotspot| {
        let asked = hotspot.world.asked.lock().unwrap();
        asked.iter().filter(|(_, name)| *name == "HomeNSReq").count()
    };
    assert_eq!(lookups(&hotspot), 5, "of one JoinEUI through one head");
    for n in 0..18_000 {
        hotspot.hear(join(n + 2, n + 10_000)).await;
        hotspot.clock.sleep(MS).await;
    }
    assert!(lookups(&hotspot) <= 5 + 50 + 5 * 18 + 1, "{} lookups", lookups(&hotspot));
    let counters = hotspot.fns.counters();
    assert_eq!(counters.heard.get(), 20_000);
    assert_eq!(counters.throttled.get() + lookups(&hotspot) as u64, 20_000);
    let remembered = hotspot.fns.remembered();
    assert!(remembered.iter().sum::<usize>() <= 2 * 200, "{remembered:?}");
    // the log says it, and is not flooded
    let told = log.lines(&["no answer to the device", "too many unknown devices"]);
    assert_eq!(told.len(), 1, "{told:#?}");
    // besides the two lines that every frame has
    let more = log.lines(&[]).len() - 2 * 20_000;
    assert!(more < 10, "{more} lines");
    // an honest stranger is heard when the flood is over
    hotspot.clock.sleep(Duration::from_secs(11)).await;
    let before = lookups(&hotspot);
    hotspot.hear(join(1, 77_777)).await;
    assert_eq!(lookups(&hotspot), before + 1);
}

#[tokio::test(start_paused = true)]
async fn a_data_flood_of_strangers_asks_little_of_a_network_and_does_not_silence_its_visitors() {
    let log = Log::listen();
    let mut hotspot = Hotspot::new(Region::eu868());
    hotspot.token().await;
    let before = hotspot.world.asked.lock().unwrap().len();
    // addresses that nobody can have had yet, of one network, 5,000 in 5 s
    let other = NetId::from_msb([0, 0, 0x25]);
    for n in 0..5_000 {
        hotspot.hear(data(other.dev_addr(n), n as u16)).await;
        hotspot.clock.sleep(MS).await;
    }
    let abroad = hotspot.asked("PRStartReq", &Party::Ns(other));
    assert!((200..=200 + 5 * 20 + 1).contains(&abroad), "{abroad} messages");
    assert_eq!(hotspot.world.asked.lock().unwrap().len() - before, 5_000 + abroad, "nobody else was asked");
    assert_eq!(hotspot.fns.counters().throttled.get() + abroad as u64, 5_000);
    let remembered = hotspot.fns.remembered();
    assert!(remembered[1] <= abroad + 1 && remembered[3] <= 2, "{remembered:?}");
    let told = log.lines(&["no answer to the device", "too many data frames of unknown devices"]);
    assert_eq!(told.len(), 1, "{told:#?}");
    // in the name of a network with visitors: they are heard all the same
    for n in 0..1_000 {
        hotspot.hear(data(PARTNER.dev_addr(0x1000 + n), n as u16)).await;
    }
    let token = hotspot.token().await;
    hotspot.order(token, 20, RX1, RX2).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn addresses_of_networks_that_do_not_roam_here_ask_nobody() {
    let mut hotspot = Hotspot::new(Region::eu868());
    for n in 0..500_u32 {
        // type 7: no address says which network of the federation it is
        hotspot.hear(data(DevAddr::new(0xFE00_0000 + n), n as u16)).await;
    }
    let mine = hotspot.asked("PRStartReq", &Party::Ns(ME));
    assert_eq!((hotspot.world.asked.lock().unwrap().len(), mine), (500, 500));
    assert_eq!(hotspot.fns.counters().unknown.get(), 500);
    // the federation's list of networks is asked no oftener than one network is, and one bucket remembers that
    let lists = hotspot.world.lists.load(Ordering::Relaxed);
    assert!((200..=400).contains(&lists), "{lists} questions");
    assert_eq!(hotspot.fns.remembered(), [0, 0, 0, 1]);
}
