//! Nodes that stop and start again on the same files, with a device that notices nothing.

use roamgate::backend::message::MacVersion;
use roamgate::demo::federation::{HOME, VISITED};

use crate::federation::Street;

pub async fn the_home_restarts_between_join_and_data() {
    let mut street = Street::open().await;
    let mut walker = street.device(MacVersion::V1_0_4, HOME).await;
    walker.device.set_dev_nonce(5);
    street.join(&mut walker, HOME).await;
    let request = walker.last_uplink();
    street.queue(&walker, b"waits for two uplinks", true).await;
    street.restart(HOME, |_| ()).await;

    let first = walker.send(b"one", true).await;
    assert_eq!((first.acked, first.downlinks), (true, vec![(7, b"waits for two uplinks".to_vec())]));
    let one = walker.last_uplink();
    street.settle().await;
    street.restart(HOME, |_| ()).await;
    assert_eq!(street.waiting(&walker).await, 1, "sent, but not acknowledged yet");
    // the device takes no FCntDown twice: that it accepts the answer says that none was repeated
    let second = walker.send(b"two", true).await;
    assert!(second.acked);
    street.settle().await;
    assert_eq!(street.waiting(&walker).await, 0, "the uplink acknowledged what was sent before the restart");
    street.restart(HOME, |_| ()).await;
    // an uplink and a Join-request from before are known after it
    street.radiate_in_vain(&mut walker, &one, HOME).await;
    let why = street.radiate_in_vain(&mut walker, &request, HOME).await;
    assert!(why.contains("DevNonce"), "{why}");
    let third = walker.send(b"three", true).await;
    assert!(third.acked);
    street.settle().await;
    let expected = [
        (first.fcnt_up, b"one".to_vec()),
        (second.fcnt_up, b"two".to_vec()),
        (third.fcnt_up, b"three".to_vec()),
    ];
    assert_eq!(street.delivered(&walker), expected);
    street.close().await;
}

pub async fn the_visited_node_restarts_between_join_and_data() {
    let mut street = Street::open().await;
    let mut walker = street.device(MacVersion::V1_0_3, VISITED).await;
    street.join(&mut walker, VISITED).await;
    street.restart(VISITED, |_| ()).await;
    assert!(walker.send(b"one", true).await.acked, "{:?}", street.whys(VISITED));
    // the home goes down and comes back at the same address, under the visited node's warm connections
    street.restart(HOME, |_| ()).await;
    street.both_ways(&mut walker, b"two", b"two").await;
    // and the device goes home
    walker.carry(HOME);
    assert!(walker.send(b"three", true).await.acked);
    street.settle().await;
    let told: Vec<Vec<u8>> = street.delivered(&walker).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(told, [&b"one"[..], b"two", b"three"]);
    street.close().await;
}

pub async fn frames_wait_for_a_home_that_is_away() {
    let mut street = Street::open().await;
    let mut walker = street.device(MacVersion::V1_0_3, VISITED).await;
    street.join(&mut walker, VISITED).await;
    assert!(walker.send(b"one", true).await.acked, "{:?}", street.whys(VISITED));
    street.stop(HOME).await;
    walker.send(b"two", false).await;
    walker.send(b"three", false).await;
    street.restart(VISITED, |_| ()).await;
    walker.send(b"four", false).await;
    let parked = |street: &mut Street| street.hotspot(VISITED).node().unwrap().house().fns.parked();
    assert_eq!(parked(&mut street), 3, "{:?}", street.whys(VISITED));
    street.restart(HOME, |_| ()).await;
    let clock = roamgate::clock::Clock::system();
    let until = clock.now() + std::time::Duration::from_secs(90);
    while parked(&mut street) > 0 && clock.now() < until {
        clock.sleep(std::time::Duration::from_millis(50)).await;
    }
    street.settle().await;
    let told: Vec<Vec<u8>> = street.delivered(&walker).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(told, [&b"one"[..], b"two", b"three", b"four"]);
    assert!(walker.send(b"five", true).await.acked, "{:?}", street.whys(VISITED));
    street.settle().await;
    // all of it is on record at the hotspot that carried it
    let month = roamgate::store::usage::month(street.clock.unix());
    let records = street.hotspot(VISITED).node().unwrap().store().usage(month).await.unwrap();
    let traffic = &records.traffic[0];
    assert_eq!((traffic.net_id, traffic.numbers()), (HOME.net_id, [5, 3 + 3 + 5 + 4 + 4, 0, 0]));
    assert_eq!(records.activations[0].dev_eui, Some(walker.dev_eui));
    // and so it is at home
    let month = roamgate::store::usage::month(street.clock.unix());
    let at_home = street.home().node().unwrap().store().usage(month).await.unwrap();
    assert_eq!((at_home.for_us[0].net_id, at_home.for_us[0].numbers()), (VISITED.net_id, traffic.numbers()));
    street.close().await;
}
