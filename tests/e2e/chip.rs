//! The whole program on the driver of the concentrator: a device that nobody here wrote, the air, the model of the chip
//! behind its bus, the driver's thread, and a node with its store.

use std::time::Duration;

use roamgate::app::Node;
use roamgate::backend::message::MacVersion;
use roamgate::clock::{Clock, Instant};
use roamgate::config;
use roamgate::control::{NewDevice, Operator};
use roamgate::demo::device::{Device, RxWindow, Stands};
use roamgate::hns::QueueItem;
use roamgate::lorawan::{DevEui, GatewayEui, JoinEui, Key};
use roamgate::radio::Radio;
use roamgate::radio::simulated::{Air, Link};
use roamgate::radio::sx1302;
use roamgate::radio::sx1302::model::{Frame, Modelled};

const GATEWAY: GatewayEui = GatewayEui::from_msb([2, 0, 0, 0, 0, 0, 13, 2]);
const JOIN_EUI: JoinEui = JoinEui::from_msb([0x70, 0xb3, 0xd5, 0x7e, 0xd0, 0, 0, 1]);
/// How far the air may be from what was asked.
const CLOSE: Duration = Duration::from_micros(20);

/// A hotspot whose radio is a chip model under an antenna on the simulated air.
struct Attic {
    clock: Clock,
    air: Air,
    model: Modelled,
    node: Node,
    antenna: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Attic {
    async fn open(network: &str) -> Attic {
        let (clock, folder) = (Clock::system(), tempfile::tempdir().unwrap());
        let store = folder.path().join("roamgate.db");
        let text = format!(
            "[network]\n{network}\n[store]\nurl = {:?}\n[[radio]]\nkind = \"sx1302\"\nmodel = true\ngateway = \"{GATEWAY}\"\n",
            format!("sqlite:{}", store.display())
        );
        let config = config::parse(None, text, std::iter::empty()).unwrap().checked().unwrap().config;
        let roamgate::radio::Config::Sx1302(entry) = &config.radio[0] else { panic!() };
        let model = Modelled::new(clock.clone());
        let radio =
            sx1302::open_with(entry, &config.surroundings(), &clock, Some(model.clone())).await.unwrap();
        assert!(radio.heads.has(GATEWAY));
        let air = Air::new(clock.clone(), 7);
        let head = air.head(GATEWAY, "antenna");
        air.tune(GATEWAY, &config.network.plan());
        let antenna = tokio::spawn(antenna(head, air.clone(), model.clone(), clock.clone()));
        let node = Node::start(config, clock.clone(), vec![radio]).await.unwrap();
        Attic { clock, air, model, node, antenna, _folder: folder }
    }

    async fn device(&self, stands: Stands) -> (Device, DevEui) {
        let (dev_eui, app_key) = (DevEui::from_msb(self.clock.random()), Key::new(self.clock.random()));
        let new = NewDevice {
            dev_eui,
            join_eui: JOIN_EUI,
            app_key: Some(app_key.clone()),
            nwk_key: None,
            name: "under the roof".into(),
            mac_version: MacVersion::V1_0_3,
            roaming: false,
            home: None,
        };
        self.node.operator().add_device(new).await.unwrap();
        let seed = u64::from_be_bytes(self.clock.random());
        let mut device =
            Device::in_region(&self.air, self.clock.clone(), dev_eui, JOIN_EUI, &app_key, seed, stands);
        device.move_to(&[(GATEWAY, Link::NEAR)]);
        (device, dev_eui)
    }

    async fn close(self) {
        self.antenna.abort();
        self.node.shutdown().await.unwrap();
    }
}

/// What the air brings goes into the chip, and what the chip sends goes on the air.
async fn antenna(mut head: Radio, air: Air, model: Modelled, clock: Clock) {
    let mut radiated = 0;
    loop {
        tokio::select! {
            heard = head.heard.recv() => {
                let Some(heard) = heard else { return };
                model.hear(Frame {
                    phy: heard.phy,
                    frequency: heard.frequency,
                    modulation: heard.modulation,
                    rssi: heard.rssi,
                    snr: heard.snr,
                    end: heard.at,
                    broken: false,
                });
            }
            () = clock.sleep(Duration::from_millis(2)) => {
                let (sent, all) = model.radiated_after(radiated);
                radiated = all;
                for sent in sent {
                    assert!(sent.inverted && !sent.crc, "no downlink: {sent:?}");
                    air.radiate(GATEWAY, &sent.phy, sent.frequency, sent.modulation.unwrap(), sent.start);
                }
            }
        }
    }
}

/// RX1 of an uplink, as the air had it, is where it must be.
fn on_time(uplink_end: Instant, downlink_start: Option<Instant>, delay: Duration) {
    let after = downlink_start.expect("a downlink") - uplink_end;
    assert!(after.abs_diff(delay) <= CLOSE, "{after:?} is not {delay:?}");
}

pub async fn a_device_joins_and_talks_through_the_driver() {
    let attic = Attic::open("region = \"EU868\"").await;
    let (device, dev_eui) = attic.device(Stands::Eu868).await;
    joins_and_talks(&attic, device, dev_eui).await;
    // every trigger was programmed ahead of its moment
    for sent in attic.model.radiated() {
        assert!(sent.handed < sent.start && sent.count.is_some(), "{sent:?}");
    }
    attic.close().await;
}

pub async fn in_us915_too() {
    let attic = Attic::open("region = \"US915\"\nsub_bands = [2]").await;
    let (device, dev_eui) = attic.device(Stands::Us915 { sub_band: 2 }).await;
    joins_and_talks(&attic, device, dev_eui).await;
    attic.close().await;
}

async fn joins_and_talks(attic: &Attic, mut device: Device, dev_eui: DevEui) {
    let join = device.join().await;
    assert!(join.ok, "{join:?}");
    on_time(join.uplink_end, join.downlink_start, Duration::from_secs(5));
    let item = QueueItem {
        id: "1".into(),
        f_port: 7,
        payload: b"to you".to_vec(),
        confirmed: false,
        sent_as: None,
        attempts: 0,
        expires: None,
    };
    attic.node.operator().enqueue(dev_eui, item).await.unwrap();
    let sent = device.send(b"21.5", 2, true).await.unwrap();
    assert_eq!((sent.acked, sent.window), (true, Some(RxWindow::Rx1)));
    assert_eq!(sent.downlinks, [(7, b"to you".to_vec())]);
    on_time(sent.uplink_end, sent.downlink_start, Duration::from_secs(1));
    let quiet = device.send(b"22", 2, false).await.unwrap();
    assert_eq!(quiet.downlink_start, None);
    let status = attic.node.operator().status().await.unwrap();
    assert_eq!(status.heads, 1);
}
