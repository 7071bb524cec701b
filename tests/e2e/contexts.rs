//! Visitors with a context: their home grants a Lifetime, and is not asked anew until that ends.

use jiff::SignedDuration;
use roamgate::backend::message::MacVersion;
use roamgate::control::{ChangeDevice, Operator};
use roamgate::demo::device::{Device, RxWindow};
use roamgate::demo::federation::{HOME, VISITED};
use roamgate::lorawan::crypto::{self, Direction};
use roamgate::lorawan::frame::Downlink;
use roamgate::lorawan::{JoinEui, Key, NetId};
use roamgate::radio::simulated::Link;
use roamgate::sns::Visits;
use serde_json::json;

use crate::federation::{Street, Walker};
use crate::partner::{DEVICE, Partner, code, let_in_with};

/// One more rule of `[roaming.default]` passive.
fn rule(name: &'static str, value: impl Into<toml::Value>) -> impl FnOnce(&mut toml::Table) {
    move |config| {
        let passive = config["roaming"]["default"]["passive"].as_table_mut().unwrap();
        passive.insert(name.into(), value.into());
    }
}

impl Street {
    async fn stateful() -> Street {
        let mut street = Street::open().await;
        street.restart(HOME, rule("lifetime", "1h")).await;
        street
    }

    /// PRStartReq and XmitDataReq that the visited hotspot has sent.
    fn starts_and_data(&mut self) -> (usize, usize) {
        (self.asked(VISITED, "PRStartReq"), self.asked(VISITED, "XmitDataReq"))
    }

    async fn minutes(&self, minutes: i64) {
        self.clock.move_wall(SignedDuration::from_mins(minutes));
    }

    /// A confirmed uplink that must be answered, and delivered.
    async fn talks(&mut self, walker: &mut Walker, text: &[u8]) {
        let sent = walker.send(text, true).await;
        assert_eq!((sent.acked, sent.window), (true, Some(RxWindow::Rx1)), "{:?}", self.whys(VISITED));
        self.settle().await;
        let told = self.delivered(walker);
        assert_eq!(told.last(), Some(&(sent.fcnt_up, text.to_vec())));
        assert_eq!(told.iter().filter(|(fcnt_up, _)| *fcnt_up == sent.fcnt_up).count(), 1, "once");
    }
}

pub async fn a_visitor_is_forwarded_by_its_context_until_that_ends() {
    let mut street = Street::stateful().await;
    let mut walker = street.device(MacVersion::V1_0_4, VISITED).await;
    walker.device.set_dev_nonce(3);
    street.join(&mut walker, VISITED).await;
    street.settle().await;
    assert_eq!((street.starts_and_data(), street.contexts()), ((1, 0), 1));
    street.queue(&walker, b"by its context", true).await;
    let sent = walker.send(b"1", true).await;
    assert_eq!((sent.acked, sent.downlinks), (true, vec![(7, b"by its context".to_vec())]));
    street.talks(&mut walker, b"2").await;
    assert_eq!(street.starts_and_data(), (1, 2));
    // the last tenth: with an uplink the hour begins again
    street.minutes(55).await;
    street.talks(&mut walker, b"3").await;
    assert_eq!(street.starts_and_data(), (2, 2));
    street.minutes(50).await;
    street.talks(&mut walker, b"4").await;
    assert_eq!(street.starts_and_data(), (2, 3));
    // and after an hour of silence nobody knows it any more
    street.minutes(61).await;
    street.talks(&mut walker, b"5").await;
    assert_eq!((street.starts_and_data(), street.asked(HOME, "PRStopReq")), ((3, 3), 0));
    street.close().await;
}

pub async fn a_context_outlives_restarts_and_a_home_that_forgot_it_is_asked_anew() {
    let mut street = Street::stateful().await;
    let mut walker = street.device(MacVersion::V1_0_3, VISITED).await;
    street.join(&mut walker, VISITED).await;
    street.restart(VISITED, |_| ()).await;
    street.talks(&mut walker, b"the visited node has restarted").await;
    street.restart(HOME, |_| ()).await;
    street.talks(&mut walker, b"and its home").await;
    assert_eq!(street.starts_and_data(), (1, 2));
    let store = street.home().node().unwrap().store().clone();
    let visits = store.visits_of(walker.dev_eui).await.unwrap();
    assert_eq!(visits.len(), 1);
    store.end_visits(visits.iter().map(|visit| (visit.session, visit.net_id)).collect()).await.unwrap();
    street.restart(HOME, |_| ()).await;
    street.talks(&mut walker, b"not lost").await;
    assert_eq!(street.starts_and_data(), (2, 3), "the same frame, by both messages");
    street.talks(&mut walker, b"and by a context again").await;
    assert_eq!(street.starts_and_data(), (2, 4));
    street.close().await;
}

pub async fn a_context_that_begins_with_data_carries_downlinks_by_xmitdatareq() {
    let mut street = Street::stateful().await;
    let apart = |config: &mut toml::Table| {
        config["backend"].as_table_mut().unwrap().insert("downlink_in_answer".into(), false.into());
    };
    street.restart(VISITED, apart).await;
    let mut walker = street.device(MacVersion::V1_0_2, HOME).await;
    street.join(&mut walker, HOME).await;
    walker.carry(VISITED);
    street.talks(&mut walker, b"1").await;
    assert_eq!((street.starts_and_data(), street.contexts()), ((1, 0), 1));
    street.talks(&mut walker, b"2").await;
    assert_eq!((street.starts_and_data(), street.asked(HOME, "XmitDataReq")), ((1, 1), 2));
    // at home it is at home
    walker.carry(HOME);
    street.forget_copies().await;
    assert!(walker.send(b"3", true).await.acked);
    assert_eq!(street.starts_and_data(), (1, 1));
    street.close().await;
}

pub async fn a_device_that_its_home_removes_or_calls_back_is_forwarded_no_longer() {
    for remove in [true, false] {
        let mut street = Street::stateful().await;
        let mut walker = street.device(MacVersion::V1_0_3, VISITED).await;
        street.join(&mut walker, VISITED).await;
        street.talks(&mut walker, b"1").await;
        let operator = street.home().node().unwrap().operator();
        if remove {
            operator.remove_device(walker.dev_eui).await.unwrap();
        } else {
            let stay = ChangeDevice { roaming: Some(false), ..ChangeDevice::default() };
            operator.change_device(walker.dev_eui, stay).await.unwrap();
        }
        // the home has to find the other network first, and nobody waits for it
        for _ in 0..50 {
            if street.contexts() == 0 {
                break;
            }
            street.settle().await;
        }
        assert_eq!((street.asked(HOME, "PRStopReq"), street.contexts()), (1, 0));
        assert!(!walker.send(b"2", true).await.acked);
        assert_eq!(street.starts_and_data().1, 1, "no context, no XmitDataReq");
        street.close().await;
    }
}

/// An entry for the other network, with MICs checked under this key.
fn entry(net_id: NetId, key: &'static str) -> impl FnOnce(&mut toml::Table) {
    move |config| {
        let text = format!(
            "net_id = \"{net_id}\"\npassive = {{ start = true, activation = true, lifetime = \"1h\", mic_check = true }}\n\
             kek = {{ label = \"home-visited\", key = \"{key}\" }}"
        );
        let entry: toml::Table = text.parse().unwrap();
        config["roaming"]
            .as_table_mut()
            .unwrap()
            .insert("partner".into(), toml::Value::Array(vec![entry.into()]));
    }
}

pub async fn a_forged_frame_does_not_leave_the_house_and_keks_that_differ_end_the_join() {
    const KEK: &str = "00112233445566778899AABBCCDDEEFF";
    let mut street = Street::open().await;
    street.restart(HOME, entry(VISITED.net_id, KEK)).await;
    street.restart(VISITED, entry(HOME.net_id, KEK)).await;
    let mut walker = street.device(MacVersion::V1_0_3, VISITED).await;
    street.join(&mut walker, VISITED).await;
    street.talks(&mut walker, b"mine").await;
    let asked = street.starts_and_data();
    assert_eq!(asked, (1, 1));
    let mut forged = walker.last_uplink();
    // another counter under the same MIC
    forged[6] = forged[6].wrapping_add(1);
    let why = street.radiate_in_vain(&mut walker, &forged, VISITED).await;
    assert!(why.contains("MIC"), "{why}");
    assert_eq!(street.starts_and_data(), asked, "it left the house");
    street.talks(&mut walker, b"mine again").await;
    street.restart(VISITED, |_| ()).await;
    street.talks(&mut walker, b"with the key from the disk").await;
    assert_eq!(street.starts_and_data(), (1, 3));
    // two ends that do not agree on the key: the answer is unusable, and no key is taken for a clear one
    street.restart(VISITED, entry(HOME.net_id, "FFEEDDCCBBAA99887766554433221100")).await;
    let why = street.join_in_vain(&mut walker, VISITED).await;
    assert!(why.contains("NwkSKey cannot be opened"), "{why}");
    street.close().await;
}

/// Stateful as ChirpStack is: no word about the frame that came with the question, a key in clear that nobody asked for,
/// downlinks by messages of their own.
pub async fn a_home_of_another_make_has_its_context_and_keeps_it_from_others() {
    let street = Street::open().await;
    let (net_id, join_eui) = (NetId::from_msb([0, 0, 2]), JoinEui::from_msb([0, 0, 0, 0, 0, 0, 0, 2]));
    let stranger =
        Partner::enter(&street, NetId::from_msb([0, 0, 3]), JoinEui::from_msb([0, 0, 0, 0, 0, 0, 0, 3]))
            .await;
    let mut partner = Partner::enter(&street, net_id, join_eui).await;
    let app_key = Key::new(street.clock.random());
    let mut device = Device::new(&street.federation.air, street.clock.clone(), DEVICE, join_eui, &app_key, 3);
    device.move_to(&[(VISITED.gateway, Link::NEAR)]);
    let dev_addr = net_id.dev_addr(0x17);
    let stateful = json!({
        "DevEUI": DEVICE.to_string(), "DevAddr": dev_addr.to_string(), "Lifetime": 3600, "FCntUp": 0,
        "NwkSKey": { "KEKLabel": "", "AESKey": "00112233445566778899aabbccddeeff" },
    });
    let (join, keys) = tokio::join!(device.join(), let_in_with(&mut partner, &app_key, dev_addr, stateful));
    assert!(join.ok, "{join:?}");
    street.settle().await;
    assert_eq!(street.contexts(), 1);
    let down = |fcnt: u32, text: &[u8]| {
        let mut payload = text.to_vec();
        crypto::crypt_payload(&keys.app_s_key, Direction::Down, dev_addr, fcnt, &mut payload);
        let down = Downlink { ack: true, payload: Some((9, &payload)), ..Downlink::default() };
        down.build(&keys.nwk_s_key, dev_addr, fcnt)
    };
    let script = async {
        let up = partner.next("XmitDataReq").await;
        assert_eq!(up.body["ULMetaData"]["DevEUI"], DEVICE.to_string());
        assert_eq!(up.body["ULMetaData"]["DevAddr"], dev_addr.to_string());
        let answer = partner.send_down(&up.body, &down(0, b"by token"), &up.token()).await;
        assert_eq!(code(&answer), "Success", "{answer}");
        up.agree(json!({}));
    };
    let (sent, ()) = tokio::join!(device.send(b"1", 2, true), script);
    assert_eq!(sent.unwrap().downlinks, [(9, b"by token".to_vec())]);
    // another partner stops nothing
    let stop = || json!({ "MessageType": "PRStopReq", "DevEUI": DEVICE.to_string(), "Lifetime": 3600 });
    assert_eq!(code(&stranger.ask(stop()).await), "UnknownDevEUI");
    assert_eq!(street.contexts(), 1);
    // the home has lost it: the same frame begins anew, and comes by both messages, as such homes want it
    let script = async {
        let up = partner.next("XmitDataReq").await;
        let phy = up.phy();
        up.refuse("UnknownDevAddr");
        let start = partner.next("PRStartReq").await;
        assert_eq!(start.phy(), phy);
        start.agree(json!({ "DevEUI": DEVICE.to_string(), "Lifetime": 3600, "FCntUp": 2 }));
        let again = partner.next("XmitDataReq").await;
        assert_eq!(again.phy(), phy);
        let answer = partner.send_down(&again.body, &down(1, b"at last"), &again.token()).await;
        assert_eq!(code(&answer), "Success", "{answer}");
        again.agree(json!({}));
    };
    let (sent, ()) = tokio::join!(device.send(b"2", 2, true), script);
    assert_eq!(sent.unwrap().downlinks, [(9, b"at last".to_vec())]);
    // its own home may
    let stop =
        json!({ "MessageType": "PRStopReq", "DevEUI": DEVICE.to_string(), "DevAddr": dev_addr.to_string() });
    assert_eq!(code(&partner.ask(stop.clone()).await), "Success");
    assert_eq!(code(&partner.ask(stop).await), "UnknownDevEUI");
    assert_eq!(street.contexts(), 0);
    street.close().await;
}

pub async fn an_address_of_ours_or_of_somebody_else_makes_no_context() {
    let street = Street::open().await;
    let (net_id, join_eui) = (NetId::from_msb([0, 0, 2]), JoinEui::from_msb([0, 0, 0, 0, 0, 0, 0, 2]));
    let mut partner = Partner::enter(&street, net_id, join_eui).await;
    for claimed in [VISITED.net_id.dev_addr(0x17), HOME.net_id.dev_addr(0x17)] {
        let app_key = Key::new(street.clock.random());
        let mut device =
            Device::new(&street.federation.air, street.clock.clone(), DEVICE, join_eui, &app_key, 3);
        device.move_to(&[(VISITED.gateway, Link::NEAR)]);
        let answer =
            json!({ "DevEUI": DEVICE.to_string(), "DevAddr": claimed.to_string(), "Lifetime": 3600 });
        let known = claimed != VISITED.net_id.dev_addr(0x17);
        let script = async {
            // the join server is asked once an hour
            if !known {
                partner.next("HomeNSReq").await.agree(json!({ "HNetID": net_id.to_string() }));
            }
            crate::partner::accept(&mut partner, &app_key, net_id.dev_addr(0x17), answer).await
        };
        let (join, _) = tokio::join!(device.join(), script);
        assert!(join.ok, "the Join-accept is its home's business: {join:?}");
        street.settle().await;
        assert_eq!(street.contexts(), 0, "{claimed}");
        let script = async { partner.next("PRStartReq").await.agree(json!({ "Lifetime": 0 })) };
        let (sent, ()) = tokio::join!(device.send(b"1", 2, false), script);
        sent.unwrap();
    }
    street.close().await;
}
