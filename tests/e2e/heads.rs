//! Several radio heads at one hotspot.

use std::time::Duration;

use roamgate::backend::message::MacVersion;
use roamgate::demo::device::RxWindow;
use roamgate::demo::federation::{HOME, Site, VISITED};
use roamgate::fns::AirError;
use roamgate::lorawan::GatewayEui;
use roamgate::radio::simulated::Link;

use crate::federation::{Street, Walker};

/// A second head, out in the field.
const FIELD: GatewayEui = GatewayEui::from_msb([0x02, 0, 0, 0xFF, 0xFE, 0, 0, 0x77]);
const WEAK: Link = Link { rssi: -110, snr: -4.0, loss: 0.0 };

/// A hotspot with two heads, and a device that both hear, the second one better.
async fn two_heads(at: Site) -> (Street, Walker) {
    let mut street = Street::open().await;
    let hotspot = if at == HOME { &mut street.federation.home } else { &mut street.federation.visited };
    hotspot.further.push(FIELD);
    street.restart(at, |_| ()).await;
    let mut walker = street.device(MacVersion::V1_0_3, at).await;
    walker.device.move_to(&[(at.gateway, WEAK), (FIELD, Link::NEAR)]);
    assert!(walker.device.join().await.ok);
    street.settle().await;
    assert_eq!(sent(&street, at), [0, 1], "one Join-accept, from the head with the better SNR");
    (street, walker)
}

/// Frames that each of the two heads took.
fn sent(street: &Street, at: Site) -> [usize; 2] {
    [at.gateway, FIELD].map(|gateway| {
        street.federation.air.handovers(gateway).iter().filter(|handed| handed.outcome.is_ok()).count()
    })
}

pub async fn the_head_with_the_better_snr_carries_the_downlink() {
    for at in [HOME, VISITED] {
        let (mut street, mut walker) = two_heads(at).await;
        let answered = walker.send(b"1", true).await;
        assert_eq!((answered.acked, answered.window), (true, Some(RxWindow::Rx1)));
        assert_eq!(sent(&street, at), [0, 2]);
        // carried to the other side of the house
        walker.device.move_to(&[(at.gateway, Link::NEAR), (FIELD, WEAK)]);
        let answered = walker.send(b"2", true).await;
        assert_eq!((answered.acked, answered.window), (true, Some(RxWindow::Rx1)));
        assert_eq!(sent(&street, at), [1, 2]);
        street.settle().await;
        let told: Vec<Vec<u8>> = street.delivered(&walker).into_iter().map(|(_, payload)| payload).collect();
        assert_eq!(told, [b"1", b"2"], "delivered once");
        street.close().await;
    }
}

pub async fn a_head_that_dies_between_uplink_and_downlink_leaves_it_to_the_other() {
    for at in [HOME, VISITED] {
        let (mut street, mut walker) = two_heads(at).await;
        let air = street.federation.air.clone();
        let [near, field] = sent(&street, at);
        // it heard the uplink and has no power any more when the answer is there
        air.refuse_next(FIELD, AirError::Gone(FIELD));
        let answered = walker.send(b"1", true).await;
        assert_eq!((answered.acked, answered.window), (true, Some(RxWindow::Rx1)));
        assert_eq!(sent(&street, at), [near + 1, field]);
        // and stays away
        air.set_online(FIELD, false);
        assert!(walker.send(b"2", true).await.acked);
        assert_eq!(sent(&street, at), [near + 2, field]);
        air.set_online(FIELD, true);
        assert!(walker.send(b"3", true).await.acked);
        assert_eq!(sent(&street, at), [near + 2, field + 1], "back, and the best again");
        street.settle().await;
        assert_eq!(street.delivered(&walker).len(), 3);
        street.close().await;
    }
}

/// Two Join-accepts for nearly the same moment, and both devices are nearest to the same head.
pub async fn the_nearest_head_is_busy_so_the_other_one_sends() {
    let (street, mut one) = two_heads(HOME).await;
    let mut other = street.device_with(MacVersion::V1_0_3, HOME, 2).await;
    let before = sent(&street, HOME);
    other.device.move_to(&[(HOME.gateway, WEAK), (FIELD, Link::NEAR)]);
    let later = async {
        // neither requests nor accepts overlap on the air, but one head needs a longer pause
        street.clock.sleep(Duration::from_millis(90)).await;
        other.device.join().await
    };
    let (first, second) = tokio::join!(one.device.join(), later);
    assert!(first.ok && second.ok, "{:?}", street.handed(HOME));
    assert_eq!((first.window, second.window), (Some(RxWindow::Rx1), Some(RxWindow::Rx1)));
    assert_eq!(sent(&street, HOME), [before[0] + 1, before[1] + 1], "one each, and both in RX1");
    street.close().await;
}
