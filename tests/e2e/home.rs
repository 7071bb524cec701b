//! The device at its home hotspot.

use roamgate::backend::message::MacVersion;
use roamgate::demo::device::RxWindow;
use roamgate::demo::federation::HOME;

use crate::federation::Street;

pub async fn a_1_0_2_device_joins_twice_and_talks() {
    joins_twice_and_talks(MacVersion::V1_0_2, None).await;
}

pub async fn a_1_0_3_device_joins_twice_and_talks() {
    joins_twice_and_talks(MacVersion::V1_0_3, None).await;
}

/// It counts its DevNonces up; the older ones draw theirs.
pub async fn a_1_0_4_device_joins_twice_and_talks() {
    joins_twice_and_talks(MacVersion::V1_0_4, Some([1, 7])).await;
}

async fn joins_twice_and_talks(version: MacVersion, nonces: Option<[u16; 2]>) {
    let mut street = Street::open().await;
    let mut walker = street.device(version, HOME).await;
    let mut addresses = Vec::new();
    for round in 0..2 {
        if let Some(nonces) = nonces {
            walker.device.set_dev_nonce(nonces[round]);
        }
        let join = street.join(&mut walker, HOME).await;
        addresses.push(join.dev_addr.unwrap());
        assert_eq!(addresses[round].net_id(), Some(HOME.net_id), "an address of the home network");
        let quiet = walker.send(b"21.5", false).await;
        assert_eq!((quiet.acked, quiet.downlink_start), (false, None), "nobody asked for an answer");
        let answered = walker.send(b"22", true).await;
        assert_eq!((answered.acked, answered.window), (true, Some(RxWindow::Rx1)));
        assert_eq!(answered.fcnt_up, quiet.fcnt_up + 1);
        street.settle().await;
        let delivered = street.delivered(&walker).split_off(2 * round);
        assert_eq!(delivered, [(quiet.fcnt_up, b"21.5".to_vec()), (answered.fcnt_up, b"22".to_vec())]);
    }
    assert_ne!(addresses[0], addresses[1]);
    let view = street.view(&walker).await;
    assert_eq!((view.dev_addr, view.last_via), (Some(addresses[1]), None));
    assert_eq!(
        street.asked(HOME, "HomeNSReq") + street.asked(HOME, "PRStartReq"),
        0,
        "nothing left the house"
    );
    street.close().await;
}

pub async fn downlinks_come_in_order_and_a_confirmed_one_waits_for_its_acknowledgement() {
    let mut street = Street::open().await;
    let mut walker = street.device(MacVersion::V1_0_3, HOME).await;
    street.join(&mut walker, HOME).await;
    let long: Vec<u8> = (0..200).collect();
    street.queue(&walker, b"first", false).await;
    street.queue(&walker, b"second, confirmed", true).await;
    street.queue(&walker, &long, false).await;

    let sent = walker.send(b"1", false).await;
    assert_eq!((sent.acked, sent.downlinks), (false, vec![(7, b"first".to_vec())]));
    street.settle().await;
    assert_eq!(street.waiting(&walker).await, 2);
    let sent = walker.send(b"2", true).await;
    assert_eq!((sent.acked, sent.downlinks), (true, vec![(7, b"second, confirmed".to_vec())]));
    street.settle().await;
    assert_eq!(street.waiting(&walker).await, 2, "sent, but not acknowledged yet");
    // the next uplink carries the acknowledgement, and may bring the next one along
    let uplink: Vec<u8> = (0..222).map(|n| n as u8).collect();
    let sent = walker.send(&uplink, false).await;
    assert_eq!(sent.downlinks, [(7, long)]);
    street.settle().await;
    assert_eq!(street.waiting(&walker).await, 0);
    let told: Vec<Vec<u8>> = street.delivered(&walker).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(told, [b"1".to_vec(), b"2".to_vec(), uplink]);
    street.close().await;
}
