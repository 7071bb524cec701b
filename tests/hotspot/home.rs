//! A hotspot of one's own: devices added, joined, heard, spoken to, across restarts.

use std::os::unix::fs::PermissionsExt;

use roamgate::clock::Clock;
use roamgate::demo::device::Stands;
use roamgate::lorawan::region::SubBands;
use roamgate::lorawan::{GatewayEui, Modulation, Region};
use roamgate::radio::simulated::Air;
use serde_json::{Value, json};

use crate::bridge::Bridge;
use crate::program::{Place, free_port, request};
use crate::{Delivered, joins, talks};

const GATEWAY: GatewayEui = GatewayEui::from_msb([0xAA, 0x55, 0x5A, 0, 0, 0, 1, 1]);
const JOIN_EUI: &str = "70B3D57ED0000001";

fn listed<'a>(devices: &'a Value, device: &Delivered) -> &'a Value {
    let all = devices.as_array().expect("a list of devices");
    all.iter().find(|one| one["dev_eui"] == device.dev_eui()).expect("the device is listed")
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_added_join_talk_and_go_on_after_a_restart() {
    let listen = free_port();
    let place = Place::with_config(&format!(
        "[network]\nnet_ids = [\"C00ABC\"]\n[store]\nurl = \"sqlite:@/data/roamgate.db\"\n\
         [[radio]]\nkind = \"semtech-udp\"\nlisten = \"{listen}\"\n"
    ));
    let (clock, early, late) = (Clock::system(), Delivered::new(1, JOIN_EUI), Delivered::new(2, JOIN_EUI));
    let air = Air::new(clock.clone(), 1);
    let bridge = Bridge::start(&air, &clock, GATEWAY, listen).await.unwrap();

    // one device before the daemon runs, on the store itself
    let (eui, key) = (early.dev_eui(), early.key());
    let add =
        ["device", "add", "--dev-eui", &eui, "--join-eui", JOIN_EUI, "--app-key", &key, "--name", "early"];
    let said = place.does(&[&add[..], &["--mac-version", "1.0.3"]].concat()).await;
    assert!(said.contains("when `roamgate run` runs"), "{said}");

    let daemon = place.runs().await;
    assert!(daemon.out.text().contains("1 device is at home here"), "{}", daemon.out.text());
    let tail = place.starts(&["tail", "--json"]);
    daemon.log.wait(0, &["radio head online"]).await;

    // another one while it runs, its key on standard input
    let eui = late.dev_eui();
    let add = [
        "device",
        "add",
        "--dev-eui",
        &eui,
        "--join-eui",
        JOIN_EUI,
        "--app-key",
        "-",
        "--mac-version",
        "1.0.3",
    ];
    let done = place.types_into(&add, Some(&format!("{}\n", late.key()))).await;
    assert!(done.code == Some(0) && done.out.contains("It can join now"), "{done:#?}");
    let again = place.types_into(&add, Some(&format!("{}\n", late.key()))).await;
    assert!(again.code == Some(1) && again.err.contains("is here already"), "{again:#?}");

    let mut first = early.switched_on(&air, &clock, &[GATEWAY]);
    let mut second = late.switched_on(&air, &clock, &[GATEWAY]);
    let joined = joins(&mut first).await;
    joins(&mut second).await;
    talks(&mut first, b"one").await;
    let sent =
        place.tells(&["device", "send", &early.dev_eui(), "--port", "7", "--text", "down", "--json"]).await;
    assert_eq!((&sent["f_port"], &sent["payload"]), (&json!(7), &json!("646F776E")));
    let report = talks(&mut first, b"two").await;
    assert_eq!(report.downlinks, [(7, b"down".to_vec())]);
    talks(&mut second, b"three").await;

    // what a person sees of it
    for words in [
        ["frames collected", "JoinRequest"],
        ["Join-accept handed to the radio", "RX1"],
        ["uplink accepted", &early.dev_eui()],
        ["payload delivered", &hex::encode("two")],
        ["downlink handed to the radio", &GATEWAY.to_string()],
        ["\"target\":\"roamgate::door\"", "PRStartReq"],
    ] {
        let line = tail.out.wait(0, &words).await;
        let record: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(record["node"], "C00ABC", "{line}");
    }
    assert!(!tail.out.text().contains(&key) && !daemon.log.text().contains(&key), "a key was told");
    let devices = place.tells(&["device", "list", "--json"]).await;
    let seen = listed(&devices, &early);
    assert_eq!(
        (&seen["name"], &seen["waiting"], &seen["last_via"]),
        (&json!("early"), &json!(0), &Value::Null)
    );
    assert_eq!(seen["dev_addr"], joined.dev_addr.unwrap().to_string());
    assert_eq!(seen["fcnt_up"], report.fcnt_up);
    let last_seen: jiff::Timestamp = seen["last_seen"].as_str().unwrap().parse().unwrap();
    assert!((clock.wall().as_second() - last_seen.as_second()).abs() < 60, "{last_seen}");
    let (status, node) = request(&place.at("data/control.sock"), "GET", "/v1/status", None).await;
    assert_eq!((status, &node["devices"], &node["heads"]), (200, &json!(2), &json!(1)), "{node:#}");

    // stopped: it ends well, whoever followed it as well, and nothing of its socket is left
    assert_eq!(daemon.stops().await.code(), Some(0));
    assert_eq!(tail.ended().await.code(), Some(0));
    assert!(!place.at("data/control.sock").exists());
    let waits = ["device", "send", &early.dev_eui(), "--port", "8", "--payload", "0A0B", "--confirmed"];
    place.does(&waits).await;
    let stored = place.tells(&["device", "list", "--json"]).await;
    assert_eq!(listed(&stored, &early)["fcnt_up"], report.fcnt_up);
    assert_eq!(listed(&stored, &early)["waiting"], 1);

    // started again: the session goes on
    let daemon = place.runs().await;
    daemon.log.wait(0, &["radio head online"]).await;
    let after = talks(&mut first, b"four").await;
    assert!(after.fcnt_up > report.fcnt_up);
    assert_eq!(after.downlinks, [(8, vec![0x0A, 0x0B])]);
    assert_eq!(first.dev_addr(), joined.dev_addr);
    // a confirmed downlink waits until the device has acknowledged it
    talks(&mut first, b"five").await;
    daemon.log.wait(0, &["downlink acknowledged", &early.dev_eui()]).await;
    talks(&mut second, b"six").await;
    let join_requests = bridge.heard().iter().filter(|heard| heard.phy[0] == 0).count();
    let join_accepts = bridge.answers().iter().filter(|answer| answer.phy[0] == 0x20).count();
    assert_eq!(join_accepts, 2, "of {join_requests} Join-requests");
    assert!(daemon.stops().await.success());
}

/// The channels, data rates and windows of another region, as packet forwarders have them.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_us915_talks_through_a_packet_forwarder_of_sub_band_2() {
    let listen = free_port();
    let place = Place::with_config(&format!(
        "[network]\nnet_ids = [\"C00ABC\"]\nregion = \"US915\"\nsub_bands = [2]\n\
         [store]\nurl = \"sqlite:@/data/roamgate.db\"\n\
         [[radio]]\nkind = \"semtech-udp\"\nlisten = \"{listen}\"\n"
    ));
    let (clock, device) = (Clock::system(), Delivered::new(31, JOIN_EUI));
    let air = Air::new(clock.clone(), 3);
    let bridge = Bridge::start(&air, &clock, GATEWAY, listen).await.unwrap();
    let region = "US915".parse::<Region>().unwrap().with_sub_bands(SubBands::only(2));
    air.tune(GATEWAY, &region);
    let daemon = place.runs().await;
    assert!(daemon.out.text().contains("US915 sub-bands 2"), "{}", daemon.out.text());
    daemon.log.wait(0, &["radio head online"]).await;
    let (dev_eui, key) = (device.dev_eui(), device.key());
    let add = ["device", "add", "--dev-eui", &dev_eui, "--join-eui", JOIN_EUI, "--app-key", &key];
    place.does(&[&add[..], &["--mac-version", "1.0.3"]].concat()).await;
    let mut on = device.switched_on_for(Stands::Us915 { sub_band: 2 }, &air, &clock, &[GATEWAY]);
    joins(&mut on).await;
    place.tells(&["device", "send", &dev_eui, "--port", "7", "--text", "down", "--json"]).await;
    let report = talks(&mut on, b"up").await;
    assert_eq!(report.downlinks, [(7, b"down".to_vec())]);
    assert_eq!(region.sub_band(report.frequency), Some(2));
    let rates: Vec<_> = air.handovers(GATEWAY).iter().map(|handover| handover.tx.modulation).collect();
    assert!(
        rates.iter().all(|rate| matches!(rate, Modulation::Lora { bandwidth: 500_000, .. })),
        "{rates:?}"
    );
    assert!(!bridge.answers().is_empty());
    assert!(daemon.stops().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_configuration_an_empty_folder_becomes_a_hotspot() {
    let (listen, mut place) = (free_port(), Place::empty());
    // a port that is free on this machine; everything else as it comes
    place.set("ROAMGATE__RADIO", format!("[{{ kind = \"semtech-udp\", listen = \"{listen}\" }}]"));
    let daemon = place.runs().await;
    let said = daemon.out.text();
    assert!(said.contains("no configuration file") && said.contains("roaming  off"), "{said}");
    assert!(said.contains("roamgate device add"), "{said}");
    let data = place.at("roamgate-data");
    for (name, mode) in
        [("", 0o700), ("roamgate.db", 0o600), ("roamgate.db.key", 0o600), ("control.sock", 0o600)]
    {
        let found = std::fs::metadata(data.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found.permissions().mode() & 0o777, mode, "{name}");
    }

    let (clock, device) = (Clock::system(), Delivered::new(3, "0011223344556677"));
    let air = Air::new(clock.clone(), 2);
    let _bridge = Bridge::start(&air, &clock, GATEWAY, listen).await.unwrap();
    daemon.log.wait(0, &["radio head online"]).await;
    let (dev_eui, join_eui, key) = (device.dev_eui(), device.join_eui.to_string(), device.key());
    // nothing is said of its version: 1.0.4, whose DevNonces count
    place.does(&["device", "add", "--dev-eui", &dev_eui, "--join-eui", &join_eui, "--app-key", &key]).await;
    let mut on = device.switched_on(&air, &clock, &[GATEWAY]);
    for dev_nonce in 0..4 {
        on.set_dev_nonce(dev_nonce);
        if on.join().await.ok {
            break;
        }
    }
    talks(&mut on, b"hello").await;
    daemon.log.wait(0, &["payload delivered", &hex::encode("hello")]).await;
    assert_eq!(daemon.stops().await.code(), Some(0));
}
