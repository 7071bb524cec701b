//! A join server for other networks: the keys of their devices are here, their frames never are.

use std::collections::BTreeMap;

use roamgate::backend::keywrap::{Kek, KeyEnvelope};
use roamgate::backend::message::MacVersion;
use roamgate::control::{NewDevice, Operator};
use roamgate::demo::device::Device;
use roamgate::demo::federation::{HOME, VISITED};
use roamgate::hns::QueueItem;
use roamgate::lorawan::crypto::{self, SessionKeys};
use roamgate::lorawan::frame::{JoinAccept, JoinRequest};
use roamgate::lorawan::{DevEui, JoinEui, Key, NetId};
use roamgate::radio::simulated::Link;
use serde_json::{Value, json};

use crate::federation::{Street, names};
use crate::partner::{DEVICE, Partner, code};

const APP_KEY: Key = Key::new([0x2B; 16]);
const AS_ID: &str = "as.another.example";

/// The Join-request of a device, as a network server passes it on that says no more than it must.
fn join_req(dev_eui: DevEui, dev_nonce: u16) -> Value {
    let mut phy = vec![0];
    phy.extend(VISITED.join_eui.to_air());
    phy.extend(dev_eui.to_air());
    phy.extend(dev_nonce.to_le_bytes());
    let mic = crypto::join_mic(&APP_KEY, &phy);
    phy.extend(mic);
    json!({
        "MessageType": "JoinReq", "ReceiverID": VISITED.join_eui.to_string(), "TransactionID": 0,
        "MACVersion": "1.0.3", "PHYPayload": hex::encode_upper(phy), "DevEUI": dev_eui.to_string(),
        "DevAddr": "04000001", "DLSettings": "00", "RxDelay": 1,
    })
}

fn opened(envelope: &Value, label: &str, digit: u8) -> Key {
    let kek = Kek::new(label, [digit; 16]).unwrap();
    let key = hex::decode(envelope["AESKey"].as_str().expect("an envelope")).unwrap();
    let label = envelope["KEKLabel"].as_str().map(String::from);
    kek.unwrap(&KeyEnvelope { label, key }).expect("the key that was agreed opens it")
}

pub async fn a_network_of_another_make_gets_its_join_and_its_application_the_key() {
    let mut street = Street::open().await;
    let (net_id, join_eui) = (NetId::from_msb([0, 0, 2]), JoinEui::from_msb([0, 0, 0, 0, 0, 0, 0, 2]));
    let [identity, _] = names(net_id, join_eui);
    let change = format!(
        "[[roaming.partner]]\nnet_id = \"{net_id}\"\npassive = {{ activation = true }}\nkek = {{ label = \"ns-js\", key = \"{}\" }}\n\
         [[join_server.application]]\nas_id = \"{AS_ID}\"\nidentity = \"{identity}\"\ndev_euis = [\"{DEVICE}\"]\n\
         kek = {{ label = \"as-js\", key = \"{}\" }}",
        "5A".repeat(16),
        "6B".repeat(16)
    );
    let change: BTreeMap<String, toml::Table> = toml::from_str(&change).unwrap();
    let apply = |config: &mut toml::Table| {
        for (section, entries) in change {
            let section = config.entry(section).or_insert_with(|| toml::Table::new().into());
            section.as_table_mut().unwrap().extend(entries);
        }
    };
    street.restart(VISITED, apply).await;
    let mut partner = Partner::enter(&street, net_id, join_eui).await;
    let operator = street.hotspot(VISITED).node().unwrap().operator();
    let new = NewDevice {
        dev_eui: DEVICE,
        join_eui: VISITED.join_eui,
        app_key: Some(APP_KEY),
        nwk_key: None,
        name: "of a neighbour".into(),
        mac_version: MacVersion::V1_0_3,
        roaming: true,
        home: Some(net_id),
    };
    let unbound = DevEui::from_msb([0x11; 8]);
    for dev_eui in [DEVICE, unbound] {
        operator.add_device(NewDevice { dev_eui, ..new.clone() }).await.expect("the device is new");
    }

    let home_ns = json!({
        "MessageType": "HomeNSReq", "ReceiverID": VISITED.join_eui.to_string(), "DevEUI": DEVICE.to_string(),
    });
    let answer = partner.ask(home_ns).await;
    assert_eq!((code(&answer), &answer["HNetID"]), ("Success", &json!(net_id.to_string())));

    let answer = partner.ask(join_req(DEVICE, 7)).await;
    assert_eq!(code(&answer), "Success", "{answer}");
    let mut accept = hex::decode(answer["PHYPayload"].as_str().unwrap()).unwrap();
    crypto::decrypt_join_accept(&APP_KEY, &mut accept[1..]);
    assert_eq!((&accept[1..4], &accept[4..7]), (&[1, 0, 0][..], &net_id.to_air()[..]));
    let SessionKeys { nwk_s_key, app_s_key } = crypto::session_keys(&APP_KEY, 1, net_id, 7);
    assert!(opened(&answer["NwkSKey"], "ns-js", 0x5A) == nwk_s_key);
    // passed on unopened, or asked for later: it is the same
    assert!(opened(&answer["AppSKey"], "as-js", 0x6B) == app_s_key);
    let asks = json!({
        "MessageType": "AppSKeyReq", "SenderID": AS_ID, "ReceiverID": VISITED.join_eui.to_string(),
        "DevEUI": DEVICE.to_string(), "SessionKeyID": answer["SessionKeyID"],
    });
    let answer = partner.ask(asks).await;
    assert_eq!(code(&answer), "Success", "{answer}");
    assert!(opened(&answer["AppSKey"], "as-js", 0x6B) == app_s_key);

    let mut replayed = join_req(DEVICE, 7);
    replayed["TransactionID"] = json!(1);
    assert_eq!(code(&partner.ask(replayed).await), "JoinReqFailed", "the DevNonce was used");
    // where no application server has a key for it, the AppSKey stays here
    let answer = partner.ask(join_req(unbound, 7)).await;
    assert_eq!((code(&answer), &answer["AppSKey"]), ("Success", &Value::Null), "{answer}");
    assert!(answer["SessionKeyID"].is_string(), "{answer}");
    // heard here, it is a visitor like any other
    let (air, clock) = (&street.federation.air, street.clock.clone());
    let mut device = Device::new(air, clock, DEVICE, VISITED.join_eui, &APP_KEY, 3);
    device.move_to(&[(VISITED.gateway, Link::NEAR)]);
    let refused = async { partner.next("PRStartReq").await.refuse("JoinReqFailed") };
    let (join, ()) = tokio::join!(device.join(), refused);
    assert!(!join.ok);
    // it is nobody's device here
    let item = QueueItem {
        id: "x".into(),
        f_port: 1,
        payload: vec![1],
        confirmed: false,
        sent_as: None,
        attempts: 0,
        expires: None,
    };
    let error = operator.enqueue(DEVICE, item).await.unwrap_err().to_string();
    assert!(error.contains("is of NetID 000002"), "{error}");
    street.close().await;
}

pub async fn a_network_that_gets_another_net_id_keeps_its_devices() {
    let mut street = Street::open().await;
    let mut walker = street.device(MacVersion::V1_0_3, HOME).await;
    street.join(&mut walker, HOME).await;
    let ours = |config: &mut toml::Table| {
        let net_ids = toml::Value::Array(vec!["C00ABC".into(), HOME.net_id.to_string().into()]);
        config["network"].as_table_mut().unwrap().insert("net_ids".into(), net_ids);
    };
    street.restart(HOME, ours).await;
    // its session goes on, and a new one is of the new network
    assert!(walker.send(b"still here", true).await.acked);
    street.join(&mut walker, HOME).await;
    let sent = walker.send(b"again", true).await;
    assert!(sent.acked);
    street.settle().await;
    let told = street.delivered(&walker);
    assert_eq!(
        told.iter().map(|(_, payload)| &payload[..]).collect::<Vec<_>>(),
        [&b"still here"[..], b"again"]
    );
    street.close().await;
}

/// The keys of a device are at a join server of others: ours is asked for nothing, and its application asks that one.
pub async fn a_join_server_of_another_make_keeps_the_keys_of_our_device() {
    let mut street = Street::open().await;
    let (net_id, join_eui) = (NetId::from_msb([0, 0, 2]), JoinEui::from_msb([0, 0, 0, 0, 0, 0, 0, 2]));
    let entry = format!(
        "[[elsewhere]]\njoin_euis = [\"{join_eui}\"]\nas_id = \"{AS_ID}\"\n\
         kek = {{ label = \"ns-js\", key = \"{}\" }}\nas_kek = {{ label = \"as-js\", key = \"{}\" }}",
        "5A".repeat(16),
        "6B".repeat(16)
    );
    let entry: toml::Table = entry.parse().unwrap();
    street.restart(HOME, |config| config["join_server"].as_table_mut().unwrap().extend(entry)).await;
    let mut js = Partner::enter(&street, net_id, join_eui).await;
    let operator = street.home().node().unwrap().operator();
    let new = NewDevice {
        dev_eui: DEVICE,
        join_eui,
        app_key: None,
        nwk_key: None,
        name: "from a shop".into(),
        mac_version: MacVersion::V1_0_3,
        roaming: true,
        home: None,
    };
    let with_key = NewDevice { app_key: Some(APP_KEY), ..new.clone() };
    let error = operator.add_device(with_key).await.unwrap_err().to_string();
    assert!(error.contains("that join server has the keys"), "{error}");
    let without = NewDevice { join_eui: HOME.join_eui, ..new.clone() };
    assert!(operator.add_device(without).await.unwrap_err().to_string().contains("app_key is missing"));
    operator.add_device(new).await.expect("the device is new");

    let (air, clock) = (&street.federation.air, street.clock.clone());
    let mut device = Device::new(air, clock, DEVICE, join_eui, &APP_KEY, 3);
    device.move_to(&[(HOME.gateway, Link::NEAR)]);
    let wrap = |label: &str, digit: u8, key: &Key| {
        let envelope = Kek::new(label, [digit; 16]).unwrap().wrap(key);
        json!({ "KEKLabel": label, "AESKey": hex::encode_upper(&envelope.key) })
    };
    let script = async {
        let asked = js.next("JoinReq").await;
        assert_eq!((&asked.body["SenderID"], &asked.body["MACVersion"]), (&json!("000001"), &json!("1.0.3")));
        let phy = asked.phy();
        let join = JoinRequest::parse(&phy).unwrap().verify(&APP_KEY).expect("the device's own MIC");
        let keys = crypto::session_keys(&APP_KEY, 1, HOME.net_id, join.dev_nonce());
        let text = |name: &str| asked.body[name].as_str().unwrap().to_owned();
        let accept = JoinAccept {
            join_nonce: 1,
            net_id: HOME.net_id,
            dev_addr: text("DevAddr").parse().unwrap(),
            dl_settings: u8::from_str_radix(&text("DLSettings"), 16).unwrap(),
            rx_delay: 1,
            cf_list: None,
        };
        let answer = json!({
            "PHYPayload": hex::encode_upper(accept.build(&APP_KEY)), "Lifetime": 0,
            "NwkSKey": wrap("ns-js", 0x5A, &keys.nwk_s_key), "SessionKeyID": "0A0B",
        });
        asked.agree(answer);
        keys
    };
    let (join, keys) = tokio::join!(device.join(), script);
    assert!(join.ok, "{:?}", street.whys(HOME));

    // the join server is away for a moment: what the device says waits
    let script = async {
        let asked = js.next("AppSKeyReq").await;
        assert_eq!((&asked.body["SenderID"], &asked.body["SessionKeyID"]), (&json!(AS_ID), &json!("0A0B")));
        drop(asked);
    };
    tokio::join!(device.send(b"first", 2, false), script).0.unwrap();
    street.settle().await;
    assert!(street.delivered(&DEVICE).is_empty());
    let script = async {
        js.next("AppSKeyReq").await.agree(json!({
            "DevEUI": DEVICE.to_string(), "SessionKeyID": "0A0B", "AppSKey": wrap("as-js", 0x6B, &keys.app_s_key),
        }));
    };
    tokio::join!(device.send(b"second", 2, true), script).0.unwrap();
    street.settle().await;
    // and is asked no more, not even after a restart
    street.restart(HOME, |_| ()).await;
    street.queue(&DEVICE, b"down", false).await;
    let sent = device.send(b"third", 2, true).await.unwrap();
    assert_eq!((sent.acked, sent.downlinks), (true, vec![(7, b"down".to_vec())]));
    street.settle().await;
    let told: Vec<Vec<u8>> = street.delivered(&DEVICE).into_iter().map(|(_, payload)| payload).collect();
    for payload in [&b"first"[..], b"second", b"third"] {
        assert_eq!(told.iter().filter(|told| *told == payload).count(), 1, "{told:?}");
    }
    street.close().await;
}
