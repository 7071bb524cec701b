//! TS002 1.1 and 1.0: a hotspot with an NSID begins with the newer one, and goes on with what its partner understands.

use roamgate::backend::message::MacVersion;
use roamgate::demo::device::Device;
use roamgate::demo::federation::{HOME, Site, VISITED};
use roamgate::lorawan::{JoinEui, Key, NetId};
use roamgate::radio::simulated::Link;
use serde_json::{Value, json};

use crate::federation::{Street, names};
use crate::partner::{DEVICE, Partner, accept};

const NS_ID: &str = "70B3D57ED0000A02";
const OTHER_NS_ID: &str = "70B3D57ED0000A01";

/// Start a hotspot again with an NSID.
async fn newer(street: &mut Street, site: Site, ns_id: &str) {
    let change = |config: &mut toml::Table| {
        config["network"].as_table_mut().unwrap().insert("ns_id".into(), ns_id.into());
    };
    street.restart(site, change).await;
}

fn is_1_1(body: &Value) -> bool {
    let (version, nsid) = (&body["ProtocolVersion"], &body["SenderNSID"]);
    assert_eq!(nsid.is_null(), version == "1.0", "{body}");
    assert!(nsid.is_null() || nsid == NS_ID);
    version == "1.1"
}

pub async fn a_partner_is_asked_in_1_1_until_it_does_not_understand() {
    let mut street = Street::open().await;
    newer(&mut street, VISITED, NS_ID).await;
    let (net_id, join_eui) = (NetId::from_msb([0, 0, 2]), JoinEui::from_msb([0, 0, 0, 0, 0, 0, 0, 2]));
    let mut partner = Partner::enter(&street, net_id, join_eui).await;
    let app_key = Key::new(street.clock.random());
    let mut device = Device::new(&street.federation.air, street.clock.clone(), DEVICE, join_eui, &app_key, 3);
    device.move_to(&[(VISITED.gateway, Link::NEAR)]);
    let dev_addr = net_id.dev_addr(0x17);

    // its join server speaks 1.0 only, its network server both
    let script = async {
        let first = partner.next("HomeNSReq").await;
        assert!(is_1_1(&first.body));
        first.refuse("InvalidProtocolVersion");
        let again = partner.next("HomeNSReq").await;
        assert!(!is_1_1(&again.body));
        again.agree(json!({ "HNetID": net_id.to_string(), "HNSID": OTHER_NS_ID }));
        accept(&mut partner, &app_key, dev_addr, json!({ "Lifetime": 0 })).await;
        let notif = partner.next("PRStartNotif").await;
        assert!(is_1_1(&notif.body));
        assert_eq!(notif.body["Result"], json!({ "ResultCode": "Success" }));
        notif.body["TransactionID"].clone()
    };
    let (join, transaction) = tokio::join!(device.join(), script);
    assert!(join.ok && transaction.is_u64(), "{join:?}");

    // an error outside an answer is one to the request with its TransactionID
    let script = async {
        let start = partner.next("PRStartReq").await;
        assert!(is_1_1(&start.body) && start.body["ReceiverNSID"].is_null(), "{}", start.body);
        assert_eq!(start.body["DedupWindowSize"], 0);
        start.fail("MICFailed");
    };
    tokio::join!(device.send(b"1", 2, false), script).0.unwrap();
    street.settle().await;
    let why = street.whys(VISITED).pop().unwrap();
    assert!(why.contains("000002 refused: MicFailed"), "{why}");
    street.close().await;
}

pub async fn what_is_set_for_a_partner_stands() {
    let mut street = Street::open().await;
    newer(&mut street, VISITED, NS_ID).await;
    let older = |config: &mut toml::Table| {
        let entry = "net_id = \"000002\"\npassive = { start = true, activation = true }\nversion = \"1.0\"\n\
                     quirks = [\"lower-hex\"]";
        let entry: toml::Table = entry.parse().unwrap();
        config["roaming"].as_table_mut().unwrap().insert("partner".into(), vec![entry].into());
    };
    street.restart(VISITED, older).await;
    let (net_id, join_eui) = (NetId::from_msb([0, 0, 2]), JoinEui::from_msb([0, 0, 0, 0, 0, 0, 0, 2]));
    let mut partner = Partner::enter(&street, net_id, join_eui).await;
    let app_key = Key::new(street.clock.random());
    let mut device = Device::new(&street.federation.air, street.clock.clone(), DEVICE, join_eui, &app_key, 3);
    device.move_to(&[(VISITED.gateway, Link::NEAR)]);
    let script = async {
        // the join server of the same people is no network, and is asked as everybody
        let home = partner.next("HomeNSReq").await;
        assert!(is_1_1(&home.body) && home.body["DevEUI"] == DEVICE.to_string());
        home.agree(json!({ "HNetID": net_id.to_string() }));
        let start = partner.next("PRStartReq").await;
        assert!(!is_1_1(&start.body));
        let phy = start.body["PHYPayload"].as_str().unwrap();
        assert_eq!(phy, phy.to_lowercase(), "small letters");
        start.refuse("UnknownDevEUI");
    };
    let (join, ()) = tokio::join!(device.join(), script);
    assert!(!join.ok);
    street.close().await;
}

pub async fn two_hotspots_with_nsids_speak_1_1() {
    let mut street = Street::open().await;
    newer(&mut street, HOME, OTHER_NS_ID).await;
    newer(&mut street, VISITED, NS_ID).await;
    let mut walker = street.device(MacVersion::V1_0_3, VISITED).await;
    street.join(&mut walker, VISITED).await;
    street.both_ways(&mut walker, b"one", b"down").await;
    street.settle().await;
    // the home heard what became of its Join-accept
    let [away, _] = names(VISITED.net_id, VISITED.join_eui);
    let told = street.notifications();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].0.contains(&away) && told[0].1 == "PRStartNotif Success", "{told:?}");
    street.close().await;
}
