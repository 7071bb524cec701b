//! The device at a hotspot that has never heard of it.

use roamgate::backend::message::MacVersion;
use roamgate::demo::device::RxWindow;
use roamgate::demo::federation::{HOME, Unplug, VISITED};
use roamgate::radio::simulated::Link;

use crate::federation::{Street, Walker};

pub async fn a_device_joins_and_downlinks_ride_in_the_answers() {
    let mut street = Street::open().await;
    let mut walker = street.device(MacVersion::V1_0_4, VISITED).await;
    walker.device.set_dev_nonce(3);
    joins_and_talks(&mut street, &mut walker).await;
    assert_eq!(street.asked(HOME, "XmitDataReq"), 0, "every downlink rode in an answer");
    assert_eq!(street.asked(VISITED, "PRStartReq"), 5, "the Join-request and each uplink");
    assert_eq!(street.asked(VISITED, "HomeNSReq"), 1);
    street.close().await;
}

pub async fn a_device_joins_and_downlinks_come_by_xmitdatareq() {
    let mut street = Street::open().await;
    let answers = |config: &mut toml::Table| {
        config["backend"].as_table_mut().unwrap().insert("downlink_in_answer".into(), false.into());
    };
    street.restart(VISITED, answers).await;
    let mut walker = street.device(MacVersion::V1_0_3, VISITED).await;
    joins_and_talks(&mut street, &mut walker).await;
    assert_eq!(street.asked(HOME, "XmitDataReq"), 3, "each downlink by a request of its own");
    street.close().await;
}

/// It opens no port: all that it says and hears goes through connections that it began.
pub async fn a_visited_node_that_nobody_can_reach_serves_a_visitor() {
    let mut street = Street::open().await;
    let close = |config: &mut toml::Table| {
        config["backend"].as_table_mut().unwrap().remove("listen");
    };
    street.restart(VISITED, close).await;
    let visited = street.federation.visited.node().unwrap();
    assert_eq!(visited.listening(), None);
    let address = (VISITED.address, street.federation.port);
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "somebody listens at {address:?}");
    let mut walker = street.device(MacVersion::V1_0_3, VISITED).await;
    joins_and_talks(&mut street, &mut walker).await;
    street.close().await;
}

/// A cold join, then uplinks and downlinks of both kinds.
async fn joins_and_talks(street: &mut Street, walker: &mut Walker) {
    let join = street.join(walker, VISITED).await;
    assert_eq!(join.dev_addr.unwrap().net_id(), Some(HOME.net_id), "an address of its home");
    let quiet = walker.send(b"hello", false).await;
    assert_eq!((quiet.acked, quiet.downlink_start), (false, None));
    let answered = walker.send(b"are you there?", true).await;
    assert_eq!((answered.acked, answered.window), (true, Some(RxWindow::Rx1)));
    street.queue(walker, b"confirm this", true).await;
    let answered = walker.send(b"3", true).await;
    assert_eq!((answered.acked, answered.downlinks), (true, vec![(7, b"confirm this".to_vec())]));
    street.settle().await;
    assert_eq!(street.waiting(walker).await, 1);
    street.queue(walker, b"and this", false).await;
    let answered = walker.send(b"4", false).await;
    assert_eq!((answered.acked, answered.downlinks), (false, vec![(7, b"and this".to_vec())]));
    street.settle().await;
    assert_eq!(street.waiting(walker).await, 0);
    let told: Vec<Vec<u8>> = street.delivered(walker).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(told, [&b"hello"[..], b"are you there?", b"3", b"4"]);
    assert!(street.handed(HOME).is_empty(), "the home's own radio stayed silent");
}

/// Nothing was agreed before, and nothing is warm: the address alone says whose device it is.
pub async fn a_device_that_joined_at_home_talks_away_at_once() {
    let mut street = Street::open().await;
    let mut walker = street.device(MacVersion::V1_0_3, HOME).await;
    street.join(&mut walker, HOME).await;
    walker.carry(VISITED);
    street.queue(&walker, b"wherever you are", false).await;
    let sent = walker.send(b"from far away", true).await;
    assert_eq!((sent.acked, sent.window), (true, Some(RxWindow::Rx1)), "{:?}", street.whys(VISITED));
    assert_eq!(sent.downlinks, [(7, b"wherever you are".to_vec())]);
    street.settle().await;
    assert_eq!(street.delivered(&walker), [(sent.fcnt_up, b"from far away".to_vec())]);
    assert_eq!(street.view(&walker).await.last_via, Some(VISITED.net_id));
    assert_eq!(street.asked(VISITED, "HomeNSReq"), 0);
    street.close().await;
}

/// Between the two places both hotspots hear it, and one of them answers.
pub async fn a_device_that_both_hotspots_hear_is_one_device() {
    let mut street = Street::open().await;
    let mut walker = street.device(MacVersion::V1_0_3, HOME).await;
    walker.device.move_to(&[HOME, VISITED].map(|site| (site.gateway, Link::NEAR)));
    let sent = |street: &Street| street.handed(HOME).len() + street.handed(VISITED).len();
    assert!(walker.device.join().await.ok);
    street.settle().await;
    assert_eq!(sent(&street), 1, "one Join-accept");
    for round in 0..2 {
        let payload = [round; 3];
        assert!(walker.send(&payload, true).await.acked);
        street.settle().await;
        assert_eq!(sent(&street), 2 + usize::from(round), "one answer to each uplink");
        assert_eq!(street.delivered(&walker).len(), 1 + usize::from(round), "delivered once");
    }
    street.close().await;
}

pub async fn without_the_homes_join_server_nobody_joins_and_the_visited_node_says_why() {
    let mut street = Street::without(Some(Unplug::HomeJs)).await;
    let mut walker = street.device(MacVersion::V1_0_3, VISITED).await;
    let why = street.join_in_vain(&mut walker, VISITED).await;
    assert!(why.contains("cannot reach") && why.contains(&HOME.join_eui.to_string()), "{why}");
    assert_eq!(street.asked(VISITED, "PRStartReq"), 0);
    street.close().await;
}
