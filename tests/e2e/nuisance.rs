//! Somebody with a radio of his own: frames replayed and forged, at home and away.

use roamgate::backend::message::MacVersion;
use roamgate::demo::federation::{HOME, Site, VISITED};

use crate::federation::{Street, Walker};

pub async fn replayed_and_forged_frames_at_home_change_nothing() {
    replayed_and_forged_frames(HOME, MacVersion::V1_0_4).await;
}

pub async fn replayed_and_forged_frames_away_change_nothing() {
    replayed_and_forged_frames(VISITED, MacVersion::V1_0_3).await;
}

async fn replayed_and_forged_frames(at: Site, version: MacVersion) {
    let mut street = Street::open().await;
    let mut walker = street.device(version, at).await;
    walker.device.set_dev_nonce(1);
    street.join(&mut walker, at).await;
    let request = walker.last_uplink();
    let why = street.radiate_in_vain(&mut walker, &request, at).await;
    assert!(why.contains("DevNonce"), "{why}");
    let why = street.radiate_in_vain(&mut walker, &forged(&request), at).await;
    assert!(why.contains("MIC"), "{why}");

    // neither the replay nor the forgery took the session away
    assert!(walker.send(b"one", true).await.acked);
    let one = walker.last_uplink();
    assert_eq!(walker.send(b"two", false).await.downlink_start, None);
    let two = walker.last_uplink();
    street.queue(&walker, b"for the device alone", false).await;
    street.forget_copies().await;
    let why = street.radiate_in_vain(&mut walker, &one, at).await;
    assert!(!why.is_empty());
    // the last one may be a repetition by the device, and gets no more than the first time
    street.radiate_in_vain(&mut walker, &two, at).await;
    // the counter of the next uplink, and a MIC that nobody can make
    let mut three = two.clone();
    three[6] += 1;
    street.radiate_in_vain(&mut walker, &three, at).await;
    street.radiate_in_vain(&mut walker, &forged(&two), at).await;
    assert_eq!(payloads(&mut street, &walker), [b"one", b"two"]);
    assert_eq!(street.waiting(&walker).await, 1, "nobody took the downlink away");

    // and the device is heard as if nothing had been
    let sent = walker.send(b"six", true).await;
    assert_eq!((sent.acked, sent.downlinks), (true, vec![(7, b"for the device alone".to_vec())]));
    street.settle().await;
    assert_eq!(payloads(&mut street, &walker), [b"one", b"two", b"six"]);

    // nor did a wrong Join-request use up a DevNonce or put the device on a list
    walker.device.set_dev_nonce(2);
    street.join(&mut walker, at).await;
    assert!(walker.send(b"new", true).await.acked);
    street.close().await;
}

fn forged(phy: &[u8]) -> Vec<u8> {
    let mut forged = phy.to_vec();
    *forged.last_mut().unwrap() ^= 0x40;
    forged
}

fn payloads(street: &mut Street, walker: &Walker) -> Vec<Vec<u8>> {
    street.delivered(walker).into_iter().map(|(_, payload)| payload).collect()
}
