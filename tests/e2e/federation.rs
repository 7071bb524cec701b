//! What every story stands on: the demo's federation with roaming on, devices, and what people would see.
//!
//! Only public surfaces are touched: configuration files, the air, the operator's hands, the records of `tail`.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use roamgate::backend::message::MacVersion;
use roamgate::clock::Clock;
use roamgate::control::{DeviceView, NewDevice, Operator};
use roamgate::demo::device::{Device, JoinReport, RxWindow, SendReport, Stands};
use roamgate::demo::federation::{Federation, HOME, Hotspot, Site, Unplug, VISITED, suffixes};
use roamgate::discovery::name::{join_eui_name, net_id_name};
use roamgate::hns::QueueItem;
use roamgate::jit;
use roamgate::lorawan::crypto::Direction;
use roamgate::lorawan::{DevEui, JoinEui, Key, Modulation, NetId};
use roamgate::pki::make::{Authority, Identity, IntermediateSpec, LeafSpec};
use roamgate::radio::simulated::Handover;
use roamgate::sns::Session;
use roamgate::telemetry::{Record, Tap};
use tokio::sync::broadcast::{Receiver, error::TryRecvError};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::SubscriberExt;

/// What the device speaks: DR5.
pub const SF7: Modulation = Modulation::Lora { sf: 7, bandwidth: 125_000 };
/// How far a device's time may be from what airtimes and windows say.
const TOLERANCE: Duration = Duration::from_millis(20);

/// A federation of one story, and the records of what happens in it.
pub struct Street {
    pub clock: Clock,
    pub federation: Federation,
    records: Receiver<Arc<Record>>,
    seen: Vec<Arc<Record>>,
    // the story's own subscriber, for as long as the story lasts
    _records: DefaultGuard,
}

/// A device and what its home knows of it.
pub struct Walker {
    pub device: Device,
    pub dev_eui: DevEui,
}

/// A device that a home knows.
pub trait Known {
    fn dev_eui(&self) -> DevEui;
}

impl Known for DevEui {
    fn dev_eui(&self) -> DevEui {
        *self
    }
}

impl Known for Walker {
    fn dev_eui(&self) -> DevEui {
        self.dev_eui
    }
}

impl Street {
    /// Two hotspots; the visited one roams.
    pub async fn open() -> Street {
        Street::without(None).await
    }

    /// The same with something missing.
    pub async fn without(unplug: Option<Unplug>) -> Street {
        let clock = Clock::system();
        let tap = Tap::new(clock.clone());
        let records = tap.subscribe();
        // every story has a thread of its own, so what is said here is heard by nobody else
        let subscriber = tracing_subscriber::registry().with(tap.layer());
        let guard = tracing::subscriber::set_default(subscriber);
        let federation = Federation::start(&clock, true, unplug).await.expect("the federation starts");
        Street { clock, federation, records, seen: Vec::new(), _records: guard }
    }

    /// A new device whose home is our home, standing at a hotspot.
    pub async fn device(&self, mac_version: MacVersion, at: Site) -> Walker {
        self.device_with(mac_version, at, u64::from_be_bytes(self.clock.random())).await
    }

    /// A device whose channels and DevNonces are known before.
    pub async fn device_with(&self, mac_version: MacVersion, at: Site, seed: u64) -> Walker {
        self.device_for(mac_version, at, seed, Stands::Eu868).await
    }

    /// A device for another region.
    pub async fn device_for(&self, mac_version: MacVersion, at: Site, seed: u64, stands: Stands) -> Walker {
        let (dev_eui, app_key) = (DevEui::from_msb(self.clock.random()), Key::new(self.clock.random()));
        let new = NewDevice {
            dev_eui,
            join_eui: HOME.join_eui,
            app_key: Some(app_key.clone()),
            nwk_key: None,
            name: format!("a {mac_version} device"),
            mac_version,
            roaming: true,
            home: None,
        };
        self.home().node().unwrap().operator().add_device(new).await.expect("the device is new");
        let air = &self.federation.air;
        let device =
            Device::in_region(air, self.clock.clone(), dev_eui, HOME.join_eui, &app_key, seed, stands);
        let mut walker = Walker { device, dev_eui };
        walker.carry(at);
        walker
    }

    pub fn home(&self) -> &Hotspot {
        &self.federation.home
    }

    /// Roaming contexts that the visited hotspot holds.
    pub fn contexts(&self) -> usize {
        self.federation.visited.node().unwrap().house().fns.contexts()
    }

    pub fn hotspot(&mut self, site: Site) -> &mut Hotspot {
        if site == HOME { &mut self.federation.home } else { &mut self.federation.visited }
    }

    /// Stop a hotspot and start it again on the same files, some of which may change in between.
    pub async fn restart(&mut self, site: Site, change: impl FnOnce(&mut toml::Table)) {
        let (air, clock) = (self.federation.air.clone(), self.clock.clone());
        let hotspot = self.hotspot(site);
        let file = hotspot.config();
        let mut table: toml::Table = std::fs::read_to_string(&file).unwrap().parse().unwrap();
        change(&mut table);
        std::fs::write(&file, table.to_string()).unwrap();
        hotspot.restart(&air, &clock).await.expect("the node starts again");
    }

    /// Stop a hotspot; `restart` brings it back.
    pub async fn stop(&mut self, site: Site) {
        self.hotspot(site).stop().await.expect("the node stops");
    }

    /// Start a hotspot again for another region.
    pub async fn resettle(&mut self, site: Site, region: &str, sub_bands: &[u8]) {
        let bands: Vec<toml::Value> = sub_bands.iter().map(|number| i64::from(*number).into()).collect();
        let change = |config: &mut toml::Table| {
            let network = config["network"].as_table_mut().unwrap();
            network.insert("region".into(), region.into());
            network.insert("sub_bands".into(), bands.into());
        };
        self.restart(site, change).await;
    }

    /// The session of a device that its home has in use.
    pub async fn session(&self, of: &impl Known) -> Session {
        let mut sessions = self.home().node().unwrap().store().sessions_of(of.dev_eui()).await.unwrap();
        assert_eq!(sessions.len(), 1, "{sessions:?}");
        sessions.remove(0)
    }

    /// Give a hotspot another certificate and start it again.
    pub async fn certify(&mut self, site: Site, root: &Authority, leaf: impl FnOnce(&mut LeafSpec)) {
        let made = identity(root, &names(site.net_id, site.join_eui), &self.clock, leaf);
        let folder = self.federation.folder.path.clone();
        std::fs::write(folder.join(format!("{}-chain.pem", site.name)), &made.chain_pem).unwrap();
        std::fs::write(folder.join(format!("{}-key.pem", site.name)), &*made.key_pem).unwrap();
        self.restart(site, |_| ()).await;
    }

    /// Put a downlink into a device's queue at home.
    pub async fn queue(&self, of: &impl Known, payload: &[u8], confirmed: bool) {
        let item = QueueItem {
            id: hex::encode(self.clock.random::<8>()),
            f_port: 7,
            payload: payload.to_vec(),
            confirmed,
            sent_as: None,
            attempts: 0,
            expires: None,
        };
        self.home().node().unwrap().operator().enqueue(of.dev_eui(), item).await.expect("it is queued");
    }

    /// A device away sends and is acknowledged, and hears what waits for it.
    pub async fn both_ways(&mut self, walker: &mut Walker, up: &[u8], down: &[u8]) {
        self.queue(walker, down, false).await;
        let sent = walker.send(up, true).await;
        let expected = (true, vec![(7, down.to_vec())]);
        assert_eq!((sent.acked, sent.downlinks), expected, "{:?}", self.whys(VISITED));
    }

    /// What an operator sees of a device.
    pub async fn view(&self, of: &impl Known) -> DeviceView {
        let device = self.home().node().unwrap().operator().device(of.dev_eui()).await;
        DeviceView::from(&device.expect("the device is known"))
    }

    /// Downlinks that wait for a device.
    pub async fn waiting(&self, of: &impl Known) -> usize {
        self.view(of).await.waiting
    }

    /// Doors close and the application is told a moment after the device has its answer.
    pub async fn settle(&self) {
        self.clock.sleep(Duration::from_millis(100)).await;
    }

    /// Everything that was recorded so far.
    pub fn records(&mut self) -> &[Arc<Record>] {
        loop {
            match self.records.try_recv() {
                Ok(record) => self.seen.push(record),
                Err(TryRecvError::Lagged(lost)) => panic!("{lost} records were lost"),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return &self.seen,
            }
        }
    }

    fn milestones(&mut self, milestone: &str, field: (&str, &str)) -> Vec<Arc<Record>> {
        let of = |record: &&Arc<Record>| {
            record.milestone.as_deref() == Some(milestone)
                && (field.0.is_empty() || record.fields.get(field.0).is_some_and(|value| value == field.1))
        };
        self.records().iter().filter(of).cloned().collect()
    }

    /// FCntUp and clear text of every uplink that a device's application was given, in order.
    pub fn delivered(&mut self, of: &impl Known) -> Vec<(u32, Vec<u8>)> {
        let told = self.milestones("payload delivered", ("DevEUI", &of.dev_eui().to_string()));
        let read = |record: &Arc<Record>| {
            (record.fields["FCntUp"].parse().unwrap(), hex::decode(&record.fields["payload"]).unwrap())
        };
        told.iter().map(read).collect()
    }

    /// Why frames that a hotspot heard stayed without an answer, in its own words.
    pub fn whys(&mut self, site: Site) -> Vec<String> {
        let node = site.net_id.to_string();
        let told = self.milestones("no answer to the device", ("", ""));
        told.iter().filter(|record| record.node == node).map(|record| record.fields["why"].clone()).collect()
    }

    /// Notifications that came: from whom, what.
    pub fn notifications(&mut self) -> Vec<(String, String)> {
        let told = self.milestones("notification", ("", ""));
        let read = |record: &Arc<Record>| {
            let field = |name: &str| record.fields[name].clone();
            (field("peer"), format!("{} {}", field("MessageType"), field("result")))
        };
        told.iter().map(read).collect()
    }

    /// How often a message went from one hotspot to a partner.
    pub fn asked(&mut self, site: Site, message: &str) -> usize {
        let node = site.net_id.to_string();
        let asked = self.records().iter().filter(|record| {
            let field = |name: &str| record.fields.get(name).map_or("", String::as_str);
            record.took.is_some()
                && record.node == node
                && field("SenderID") == node
                && field("MessageType") == message
                && field("local") == "false"
        });
        asked.count()
    }

    /// What was handed to a hotspot's radio head, refused frames included.
    pub fn handed(&self, site: Site) -> Vec<Handover> {
        self.federation.air.handovers(site.gateway)
    }

    /// A join that must succeed in RX1, with the device's time as it must be.
    pub async fn join(&mut self, walker: &mut Walker, at: Site) -> JoinReport {
        let before = self.handed(at).len();
        let join = walker.device.join().await;
        self.settle().await;
        assert!(join.ok, "no join: {:?}", self.whys(at));
        assert_eq!(join.window, Some(RxWindow::Rx1));
        let airtime = |size, direction| jit::airtime(SF7, size, direction);
        let expected = airtime(23, Direction::Up) + Duration::from_secs(5) + airtime(33, Direction::Down);
        assert!(join.took.abs_diff(expected) <= TOLERANCE, "{:?} is not {expected:?}", join.took);
        let handed = &self.handed(at)[before..];
        assert_eq!(handed.len(), 1, "one Join-request, one Join-accept: {handed:?}");
        // at once, not just before its slot: the rest is a busy machine's
        assert!(handed[0].lead() >= Duration::from_secs(1), "{:?} before its slot", handed[0].lead());
        join
    }

    /// Radiate bytes that nobody may answer. The reason for that, as the hotspot gives it.
    pub async fn radiate_in_vain(&mut self, walker: &mut Walker, phy: &[u8], at: Site) -> String {
        let (handed, whys) = (self.handed(at).len(), self.whys(at).len());
        walker.device.radiate(phy, 868_300_000, SF7).await;
        let until = self.clock.now() + Duration::from_secs(3);
        while self.whys(at).len() == whys && self.clock.now() < until {
            self.clock.sleep(Duration::from_millis(10)).await;
        }
        self.settle().await;
        let answers = self.handed(at).split_off(handed);
        assert!(answers.is_empty(), "answered: {answers:?}");
        self.whys(at).split_off(whys).concat()
    }

    /// A join that must find both windows empty, and why it did.
    pub async fn join_in_vain(&mut self, walker: &mut Walker, at: Site) -> String {
        let (handed, whys) = (self.handed(at).len(), self.whys(at).len());
        let join = walker.device.join().await;
        self.settle().await;
        assert!(!join.ok);
        assert_eq!(self.handed(at).len(), handed, "something was sent");
        let whys = self.whys(at).split_off(whys);
        assert_eq!(whys.len(), 1, "one Join-request, one reason: {whys:?}");
        whys.concat()
    }

    /// Copies and repetitions of a frame are told from new frames for two seconds.
    pub async fn forget_copies(&self) {
        self.clock.sleep(Duration::from_millis(2100)).await;
    }

    pub async fn close(self) {
        self.federation.stop().await.expect("both nodes stop");
    }

    /// Some days before now.
    pub fn days_ago(&self, days: i64) -> jiff::Timestamp {
        self.clock.wall() - SignedDuration::from_hours(24 * days)
    }
}

impl Walker {
    /// Stand where only this hotspot hears the device.
    pub fn carry(&mut self, to: Site) {
        self.device.move_to(&[(to.gateway, roamgate::radio::simulated::Link::NEAR)]);
    }

    /// Send on FPort 2.
    pub async fn send(&mut self, payload: &[u8], confirmed: bool) -> SendReport {
        self.device.send(payload, 2, confirmed).await.expect("the device has a session")
    }

    pub fn last_uplink(&self) -> Vec<u8> {
        self.device.last_uplink().expect("it has sent something")
    }
}

/// What the zone and certificates call a network and its join server.
pub fn names(net_id: NetId, join_eui: JoinEui) -> [String; 2] {
    let (join_euis, net_ids) = suffixes().unwrap();
    [net_id_name(net_id, &net_ids), join_eui_name(join_eui, &join_euis)]
}

/// A certificate of a new institution below `root`.
pub fn identity(
    root: &Authority,
    names: &[String],
    clock: &Clock,
    change: impl FnOnce(&mut LeafSpec),
) -> Identity {
    let member = root.intermediate(&IntermediateSpec::new("An institution", names), clock).unwrap();
    let mut leaf = LeafSpec::new("node", names);
    change(&mut leaf);
    member.issue(&leaf, clock).unwrap()
}
