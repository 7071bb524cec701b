//! A device that always listens: downlinks need no uplink.

use std::time::Duration;

use roamgate::backend::message::MacVersion;
use roamgate::control::{ChangeDevice, Class, Operator};
use roamgate::demo::federation::{HOME, VISITED};

use crate::federation::{Street, Walker};

/// Longer than a downlink at SF12 needs, from the queue to its last symbol.
const SOON: Duration = Duration::from_secs(5);
/// Longer than a confirmed downlink, the time in which an acknowledgement may come, and a downlink after it.
const LATER: Duration = Duration::from_secs(16);

impl Street {
    /// A device of class C that has joined at home and been heard.
    async fn lamp(&mut self) -> Walker {
        let mut walker = self.device(MacVersion::V1_0_3, HOME).await;
        let change = ChangeDevice { class: Some(Class::C), ..ChangeDevice::default() };
        self.home().node().unwrap().operator().change_device(walker.dev_eui, change).await.unwrap();
        walker.device.become_class_c();
        self.join(&mut walker, HOME).await;
        assert!(walker.send(b"here", true).await.acked);
        self.settle().await;
        walker
    }
}

impl Walker {
    /// Listen until something comes.
    async fn next(&mut self) -> Vec<(u8, Vec<u8>)> {
        for _ in 0..LATER.as_secs() {
            let came = self.device.listen(Duration::from_secs(1)).await;
            if !came.is_empty() {
                return came;
            }
        }
        Vec::new()
    }
}

pub async fn a_downlink_needs_no_uplink_not_even_after_a_restart() {
    let mut street = Street::open().await;
    let mut lamp = street.lamp().await;
    street.queue(&lamp, b"on", false).await;
    assert_eq!(lamp.device.listen(SOON).await, [(7, b"on".to_vec())]);
    assert_eq!(street.waiting(&lamp).await, 0);
    street.restart(HOME, |_| ()).await;
    street.queue(&lamp, b"off", false).await;
    assert_eq!(lamp.device.listen(SOON).await, [(7, b"off".to_vec())]);
    // what waited while the node was away goes when it is back
    street.federation.air.set_online(HOME.gateway, false);
    street.queue(&lamp, b"dim", false).await;
    street.settle().await;
    assert_eq!(street.waiting(&lamp).await, 1);
    street.restart(HOME, |_| ()).await;
    street.federation.air.set_online(HOME.gateway, true);
    assert_eq!(lamp.next().await, [(7, b"dim".to_vec())]);
    // a window that is open comes first
    street.queue(&lamp, b"in between", false).await;
    assert_eq!(lamp.device.listen(SOON).await.len(), 1);
    assert!(lamp.send(b"still here", true).await.acked);
    street.close().await;
}

pub async fn a_confirmed_downlink_whose_acknowledgement_is_lost_comes_again() {
    let mut street = Street::open().await;
    let mut lamp = street.lamp().await;
    street.queue(&lamp, b"on", true).await;
    street.queue(&lamp, b"then", false).await;
    assert_eq!(lamp.device.listen(SOON).await, [(7, b"on".to_vec())]);
    // nobody hears its acknowledgement
    lamp.device.move_to(&[]);
    assert!(!lamp.send(b"heard it", false).await.acked);
    lamp.carry(HOME);
    assert_eq!(street.waiting(&lamp).await, 2, "the next one waits for it");
    assert_eq!(lamp.next().await, [(7, b"on".to_vec())], "once more");
    let mut came = lamp.send(b"heard it again", false).await.downlinks;
    came.extend(lamp.device.listen(SOON).await);
    assert_eq!(came, [(7, b"then".to_vec())]);
    assert_eq!(street.waiting(&lamp).await, 0);
    street.close().await;
}

pub async fn a_downlink_that_meets_an_uplink_in_the_air_arrives() {
    let mut street = Street::open().await;
    let mut lamp = street.lamp().await;
    let dev_eui = lamp.dev_eui;
    let (sent, ()) = tokio::join!(lamp.send(b"busy", true), street.queue(&dev_eui, b"on", true));
    // one of them drowns the other, or makes the device deaf
    let came = if sent.downlinks.is_empty() { lamp.next().await } else { sent.downlinks };
    assert_eq!(came, [(7, b"on".to_vec())]);
    street.close().await;
}

pub async fn away_from_home_a_downlink_needs_no_uplink_either() {
    let mut street = Street::open().await;
    let mut lamp = street.lamp().await;
    lamp.carry(VISITED);
    assert!(lamp.send(b"away", true).await.acked);
    street.settle().await;
    // both hotspots may have been restarted since it was heard
    for site in [None, Some(VISITED), Some(HOME)] {
        if let Some(site) = site {
            street.restart(site, |_| ()).await;
        }
        let (handed, asked) = (street.handed(VISITED).len(), street.asked(HOME, "XmitDataReq"));
        street.queue(&lamp, b"on", false).await;
        assert_eq!(lamp.device.listen(SOON).await, [(7, b"on".to_vec())], "after a restart of {site:?}");
        street.settle().await;
        let took = (street.handed(VISITED).len() - handed, street.asked(HOME, "XmitDataReq") - asked);
        assert_eq!((took, street.waiting(&lamp).await), ((1, 1), 0));
    }
    // a confirmed one, acknowledged through there
    street.queue(&lamp, b"dim", true).await;
    assert_eq!(lamp.device.listen(SOON).await, [(7, b"dim".to_vec())]);
    lamp.send(b"heard it", false).await;
    street.settle().await;
    assert_eq!(street.waiting(&lamp).await, 0);
    // what it was sent is on record at the network that carried it
    let month = roamgate::store::usage::month(street.clock.unix());
    let records = street.hotspot(VISITED).node().unwrap().store().usage(month).await.unwrap();
    let [_, _, downlinks, _] = records.traffic[0].numbers();
    assert!(downlinks >= 4, "{records:?}");
    street.close().await;
}
