//! Devices that talk for years, and devices that forget everything.

use roamgate::backend::message::MacVersion;
use roamgate::control::{ChangeDevice, Operator};
use roamgate::demo::federation::{HOME, VISITED};
use roamgate::lorawan::DevEui;
use roamgate::sns::{Session, Sessions, Write};

use crate::federation::{Street, Walker};

pub async fn an_uplink_counter_goes_past_16_bits_at_home_and_away() {
    let mut street = Street::open().await;
    let mut walker = street.device(MacVersion::V1_0_3, HOME).await;
    street.join(&mut walker, HOME).await;
    assert!(walker.send(b"young", true).await.acked);
    age(&street, walker.dev_eui, 65_529).await;
    walker.device.set_fcnt_up(65_530);
    talk(&mut street, &mut walker, 65_530..65_535).await;
    // the last counter of 16 bits is on disk, the next one comes after a start
    street.restart(HOME, |_| ()).await;
    talk(&mut street, &mut walker, 65_535..65_537).await;
    walker.carry(VISITED);
    talk(&mut street, &mut walker, 65_537..65_539).await;
    street.restart(HOME, |_| ()).await;
    talk(&mut street, &mut walker, 65_539..65_541).await;
    walker.carry(HOME);
    talk(&mut street, &mut walker, 65_541..65_543).await;
    assert_eq!(street.session(&walker).await.fcnt_up, Some(65_542));
    let counters: Vec<u32> = street.delivered(&walker).into_iter().skip(1).map(|(fcnt, _)| fcnt).collect();
    assert_eq!(counters, (65_530..65_543).collect::<Vec<_>>(), "each once, in order");
    street.close().await;
}

async fn talk(street: &mut Street, walker: &mut Walker, counters: std::ops::Range<u32>) {
    for fcnt in counters {
        let sent = walker.send(&fcnt.to_be_bytes(), true).await;
        assert_eq!((sent.fcnt_up, sent.acked), (fcnt, true), "{:?}", street.whys(VISITED));
    }
    street.settle().await;
}

/// The home has heard this counter.
async fn age(street: &Street, dev_eui: DevEui, fcnt_up: u32) {
    let decide = move |sessions: &mut Vec<Session>| {
        sessions.iter_mut().for_each(|session| session.fcnt_up = Some(fcnt_up));
        Write::sessions(roamgate::backend::door::Commit::Durable)
    };
    let store = street.home().node().unwrap().store();
    Sessions::with_device(store, dev_eui, Box::new(decide)).await.unwrap();
}

/// It draws its DevNonces, so nobody has to know that it forgot.
pub async fn a_1_0_3_device_that_lost_its_state_joins_again_at_once() {
    let mut street = Street::open().await;
    let mut walker = street.device(MacVersion::V1_0_3, HOME).await;
    let mut addresses = Vec::new();
    for (round, at) in [HOME, HOME, VISITED].into_iter().enumerate() {
        walker.carry(at);
        let join = street.join(&mut walker, at).await;
        addresses.push(join.dev_addr.unwrap());
        let sent = walker.send(&[round as u8], true).await;
        assert!((sent.fcnt_up, sent.acked) == (0, true), "{sent:?}");
        street.settle().await;
        assert_eq!(street.session(&walker).await.dev_addr, addresses[round], "the older session has ended");
    }
    addresses.dedup();
    assert_eq!(addresses.len(), 3);
    street.close().await;
}

/// It counts, and whoever counts from the beginning looks like somebody who plays back old requests.
pub async fn a_1_0_4_device_that_lost_its_state_is_forgiven_by_name() {
    let mut street = Street::open().await;
    let mut walker = street.device(MacVersion::V1_0_4, HOME).await;
    walker.device.set_dev_nonce(17);
    street.join(&mut walker, HOME).await;
    assert!(walker.send(b"before", true).await.acked);
    street.settle().await;
    let keys = street.session(&walker).await.keys;
    // a new battery
    let remedy = format!("roamgate device set {} --forget-nonces", walker.dev_eui);
    for at in [HOME, VISITED] {
        walker.carry(at);
        walker.device.set_dev_nonce(0);
        let why = street.join_in_vain(&mut walker, at).await;
        assert!(why.contains("DevNonce 0 is not above 17") && why.contains(&remedy), "{why}");
    }
    let operator = street.home().node().unwrap().operator();
    let forget = || ChangeDevice { forget_nonces: true, ..ChangeDevice::default() };
    operator.change_device(walker.dev_eui, forget()).await.expect("it is forgiven");
    assert!(operator.change_device(DevEui::from_msb([9; 8]), forget()).await.is_err());
    walker.device.set_dev_nonce(0);
    street.join(&mut walker, VISITED).await;
    assert!(walker.send(b"after", true).await.acked);
    street.settle().await;
    let after = street.session(&walker).await.keys;
    assert_ne!(after, keys, "the JoinNonce went on, so the keys are new");
    // and it counts again
    walker.device.set_dev_nonce(0);
    assert!(street.join_in_vain(&mut walker, VISITED).await.contains("DevNonce 0 is not above 0"));
    street.close().await;
}
