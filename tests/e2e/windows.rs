//! The second window, for what the first cannot carry.

use roamgate::backend::message::MacVersion;
use roamgate::demo::device::RxWindow;
use roamgate::demo::federation::{HOME, VISITED};
use roamgate::fns::AirError;

use crate::federation::Street;

pub async fn what_rx1_cannot_carry_goes_in_rx2() {
    let mut street = Street::open().await;
    let mut walker = street.device(MacVersion::V1_0_3, VISITED).await;
    let gateway = VISITED.gateway;
    street.federation.air.refuse_next(gateway, AirError::TooLate);
    let join = walker.device.join().await;
    assert_eq!((join.ok, join.window), (true, Some(RxWindow::Rx2)));
    street.queue(&walker, b"late, but here", false).await;
    street.federation.air.refuse_next(gateway, AirError::CollisionPacket);
    let sent = walker.send(b"1", true).await;
    assert_eq!((sent.acked, sent.window), (true, Some(RxWindow::Rx2)));
    assert_eq!(sent.downlinks, [(7, b"late, but here".to_vec())]);
    // where the head takes neither, nothing is sent, and the device's next uplink is answered
    street.federation.air.refuse_next(gateway, AirError::CollisionPacket);
    street.federation.air.refuse_next(gateway, AirError::TooLate);
    let sent = walker.send(b"2", true).await;
    assert_eq!((sent.acked, sent.window), (false, None));
    street.settle().await;
    let why = street.whys(VISITED).concat();
    assert!(why.contains("RX1: COLLISION_PACKET") && why.contains("RX2: TOO_LATE"), "{why}");
    assert!(walker.send(b"3", true).await.acked);
    street.close().await;
}

pub async fn a_downlink_that_no_window_took_waits_for_the_next_uplink() {
    let mut street = Street::open().await;
    let mut walker = street.device(MacVersion::V1_0_3, HOME).await;
    street.join(&mut walker, HOME).await;
    for confirmed in [false, true] {
        street.queue(&walker, b"patience", confirmed).await;
        street.federation.air.refuse_next(HOME.gateway, AirError::CollisionPacket);
        street.federation.air.refuse_next(HOME.gateway, AirError::TooLate);
        let sent = walker.send(b"1", true).await;
        assert_eq!((sent.acked, sent.downlinks), (false, vec![]));
        street.settle().await;
        assert_eq!(street.waiting(&walker).await, 1);
        let sent = walker.send(b"2", true).await;
        assert_eq!((sent.acked, sent.downlinks), (true, vec![(7, b"patience".to_vec())]));
    }
    street.close().await;
}

/// One transmitter, two Join-accepts for the same moment.
pub async fn two_devices_at_once_get_one_window_each() {
    let street = Street::open().await;
    // seeds with which the two choose different channels
    let mut one = street.device_with(MacVersion::V1_0_3, HOME, 1).await;
    let mut other = street.device_with(MacVersion::V1_0_3, HOME, 2).await;
    let (first, second) = tokio::join!(one.device.join(), other.device.join());
    assert_ne!(first.frequency, second.frequency, "choose other seeds");
    assert!(first.ok && second.ok, "{:?}", street.handed(HOME));
    assert_eq!((first.window, second.window), (Some(RxWindow::Rx1), Some(RxWindow::Rx2)));
    street.close().await;
}
