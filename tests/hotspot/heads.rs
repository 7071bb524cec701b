//! Two packet forwarders at one daemon, whose datagrams take different ways.

use std::time::Duration;

use roamgate::clock::Clock;
use roamgate::lorawan::GatewayEui;
use roamgate::lorawan::Modulation;
use roamgate::radio::simulated::{Air, Link};

use crate::bridge::Bridge;
use crate::program::{Place, free_port};
use crate::{Delivered, joins, talks};

const NEAR: GatewayEui = GatewayEui::from_msb([0xAA, 0x55, 0x5A, 0, 0, 0, 2, 1]);
const FAR: GatewayEui = GatewayEui::from_msb([0xAA, 0x55, 0x5A, 0, 0, 0, 2, 2]);

#[tokio::test(flavor = "multi_thread")]
async fn the_better_of_two_forwarders_answers_and_a_repetition_is_no_copy() {
    let listen = free_port();
    let place = Place::with_config(&format!(
        "[network]\nnet_ids = [\"C00ABC\"]\n[store]\nurl = \"sqlite:@/data/roamgate.db\"\n\
         [[radio]]\nkind = \"semtech-udp\"\nlisten = \"{listen}\"\n"
    ));
    let (clock, device) = (Clock::system(), Delivered::new(21, "70B3D57ED0000001"));
    let air = Air::new(clock.clone(), 3);
    // the one with the better antenna has the slower backhaul
    let near = Bridge::start(&air, &clock, NEAR, listen).await.unwrap();
    let far = Bridge::far_away(&air, &clock, FAR, listen, Duration::from_millis(120)).await.unwrap();
    let daemon = place.runs().await;
    for gateway in [NEAR, FAR] {
        daemon.log.wait(0, &["radio head online", &gateway.to_string()]).await;
    }
    let (dev_eui, key) = (device.dev_eui(), device.key());
    let add = ["device", "add", "--dev-eui", &dev_eui, "--join-eui", "70B3D57ED0000001", "--app-key", &key];
    place.does(&[&add[..], &["--mac-version", "1.0.3"]].concat()).await;
    let mut on = device.switched_on(&air, &clock, &[]);
    on.move_to(&[(NEAR, Link { rssi: -105, snr: -2.0, loss: 0.0 }), (FAR, Link::NEAR)]);

    joins(&mut on).await;
    talks(&mut on, b"one").await;
    talks(&mut on, b"two").await;
    let answers = |bridge: &Bridge| bridge.answers().iter().filter(|answer| answer.outcome.is_ok()).count();
    let before = [answers(&near), answers(&far)];
    // that they hear the same device shows with its first frame, whose answer waited for nobody
    assert_eq!(before[0], 1, "the slower one heard better: {:?}", near.answers());
    assert!(before[1] >= 2);

    // the device sends its last frame once more, as if it had not heard the answer
    let frame = on.last_uplink().unwrap();
    clock.sleep(Duration::from_millis(1500)).await;
    on.radiate(&frame, 868_300_000, Modulation::Lora { sf: 7, bandwidth: 125_000 }).await;
    clock.sleep(Duration::from_millis(1500)).await;
    let after = [answers(&near), answers(&far)];
    assert_eq!(after, [1, before[1] + 1], "an acknowledgement of its own, and only one");
    // each transmission was heard by both
    assert_eq!(near.heard().len(), far.heard().len());

    // the better one is unplugged: soon the other one answers, long before it counts as offline
    drop(far);
    talks(&mut on, b"three").await;
    assert!(answers(&near) >= 2);
    assert!(daemon.stops().await.success());
}
