//! Regions beyond EU868: other channels, other windows, other ways to tell a device.

use roamgate::backend::message::MacVersion;
use roamgate::demo::device::{JoinReport, RxWindow, Stands};
use roamgate::demo::federation::{HOME, Site, VISITED};
use roamgate::fns::AirError;
use roamgate::lorawan::Modulation;
use roamgate::lorawan::region::SubBands;
use roamgate::sns::plan::Told;

use crate::federation::{Street, Walker};

const SUB_BAND_2: Stands = Stands::Us915 { sub_band: 2 };
/// The 125 kHz channels of sub-band 2, hertz.
const CHANNELS: std::ops::RangeInclusive<u32> = 903_900_000..=905_300_000;
/// The rates of RX1 after DR0 and after DR3, and of RX2.
const DR10: Modulation = Modulation::Lora { sf: 10, bandwidth: 500_000 };
const DR13: Modulation = Modulation::Lora { sf: 7, bandwidth: 500_000 };
const DR8: Modulation = Modulation::Lora { sf: 12, bandwidth: 500_000 };

pub async fn us915_at_home_in_one_sub_band() {
    let mut street = Street::open().await;
    street.resettle(HOME, "US915", &[2]).await;
    let mut walker = street.device_for(MacVersion::V1_0_3, HOME, 1, SUB_BAND_2).await;
    joins(&mut street, &mut walker, HOME, DR10).await;
    // the Join-accept has named the channels, so every uplink is heard and nothing is asked of the device
    for payload in [&b"one"[..], b"two", b"three"] {
        let sent = walker.send(payload, false).await;
        assert!(CHANNELS.contains(&sent.frequency), "{}", sent.frequency);
        assert_eq!(sent.downlink_start, None);
    }
    answers_in_both_windows(&mut street, &mut walker, HOME).await;
    let session = street.session(&walker).await;
    assert_eq!((session.plan.sub_bands, session.plan.told), (SubBands::only(2), Told::Agreed));
    assert_eq!(street.delivered(&walker).len(), 5);
    street.close().await;
}

/// It does not read channel masks in a Join-accept, so it would use all 64 channels.
pub async fn an_old_device_is_told_its_sub_band_by_command() {
    let mut street = Street::open().await;
    street.resettle(HOME, "US915", &[2]).await;
    let mut walker = street.device_for(MacVersion::V1_0_2, HOME, 2, SUB_BAND_2).await;
    joins(&mut street, &mut walker, HOME, DR10).await;
    let told = walker.send(b"one", false).await;
    assert_eq!((told.window, told.acked), (Some(RxWindow::Rx1), false), "{:?}", street.whys(HOME));
    assert!(matches!(street.session(&walker).await.plan.told, Told::Left(_)));
    // a restart between request and answer changes nothing
    street.restart(HOME, |_| ()).await;
    for payload in [&b"three"[..], b"four", b"five"] {
        let sent = walker.send(payload, false).await;
        assert!(CHANNELS.contains(&sent.frequency), "{}", sent.frequency);
        assert_eq!(sent.downlink_start, None, "it was told once");
        assert_eq!(street.session(&walker).await.plan.told, Told::Agreed);
    }
    street.close().await;
}

pub async fn us915_away_from_home() {
    let mut street = Street::open().await;
    street.resettle(HOME, "US915", &[]).await;
    street.resettle(VISITED, "US915", &[2]).await;
    let mut walker = street.device_for(MacVersion::V1_0_4, VISITED, 3, SUB_BAND_2).await;
    walker.device.set_dev_nonce(1);
    joins(&mut street, &mut walker, VISITED, DR10).await;
    for payload in [&b"one"[..], b"two", b"three"] {
        let sent = walker.send(payload, false).await;
        assert!(CHANNELS.contains(&sent.frequency), "it stays where it was heard");
    }
    answers_in_both_windows(&mut street, &mut walker, VISITED).await;
    assert_eq!(street.delivered(&walker).len(), 5);
    // its home hears every channel
    walker.carry(HOME);
    assert!(walker.send(b"home", true).await.acked);
    street.close().await;
}

pub async fn a_device_of_an_eu868_home_roams_in_us915() {
    let mut street = Street::open().await;
    street.resettle(VISITED, "US915", &[2]).await;
    let mut walker = street.device_for(MacVersion::V1_0_3, VISITED, 4, SUB_BAND_2).await;
    joins(&mut street, &mut walker, VISITED, DR10).await;
    let sent = walker.send(b"one", false).await;
    assert!(CHANNELS.contains(&sent.frequency));
    // what the home knows of the region outlives it
    street.restart(HOME, |_| ()).await;
    answers_in_both_windows(&mut street, &mut walker, VISITED).await;
    let session = street.session(&walker).await;
    assert_eq!(session.plan.region.map(|region| region.to_string()), Some("US915".into()));
    assert_eq!((session.rx2_frequency, session.rx2_data_rate), (923_300_000, 8));
    assert_eq!(street.delivered(&walker).len(), 3);
    assert!(street.handed(HOME).is_empty());
    street.close().await;
}

pub async fn au915_at_home() {
    let down = |sf| Modulation::Lora { sf, bandwidth: 500_000 };
    let stands = Stands::Au915 { sub_band: 2 };
    talks(
        "AU915",
        &[2],
        stands,
        [(down(12), 923_300_000..=927_500_000), (down(7), 923_300_000..=927_500_000)],
    )
    .await;
}

pub async fn in865_at_home() {
    let sf7 = Modulation::Lora { sf: 7, bandwidth: 125_000 };
    talks("IN865", &[], Stands::In865, [(sf7, 865_062_500..=865_985_000), (sf7, 865_062_500..=865_985_000)])
        .await;
}

/// Join, talk and be answered at home, where RX1 of both is as it must be.
async fn talks(
    region: &str,
    sub_bands: &[u8],
    stands: Stands,
    rx1: [(Modulation, std::ops::RangeInclusive<u32>); 2],
) {
    let mut street = Street::open().await;
    street.resettle(HOME, region, sub_bands).await;
    let mut walker = street.device_for(MacVersion::V1_0_3, HOME, 5, stands).await;
    let join = walker.device.join().await;
    assert_eq!((join.ok, join.window), (true, Some(RxWindow::Rx1)), "{:?}", street.whys(HOME));
    street.queue(&walker, b"down", false).await;
    let sent = walker.send(b"up", true).await;
    assert_eq!((sent.acked, sent.downlinks), (true, vec![(7, b"down".to_vec())]));
    let handed: Vec<_> =
        street.handed(HOME).iter().map(|handed| (handed.tx.modulation, handed.tx.frequency)).collect();
    for ((modulation, frequency), (expected, channels)) in handed.iter().zip(&rx1) {
        assert!(modulation == expected && channels.contains(frequency), "{region}: {handed:?}");
    }
    street.close().await;
}

async fn joins(street: &mut Street, walker: &mut Walker, at: Site, rx1: Modulation) -> JoinReport {
    let join = walker.device.join().await;
    street.settle().await;
    assert_eq!((join.ok, join.window), (true, Some(RxWindow::Rx1)), "{:?}", street.whys(at));
    assert!(CHANNELS.contains(&join.frequency));
    let handed = street.handed(at);
    let tx = &handed.last().unwrap().tx;
    // RX1 of channel n is downlink channel n modulo 8
    let expected = 923_300_000 + (join.frequency - CHANNELS.start()) / 200_000 * 600_000;
    assert_eq!((tx.modulation, tx.frequency), (rx1, expected));
    join
}

/// Two uplinks: one is answered in RX1, one in RX2.
async fn answers_in_both_windows(street: &mut Street, walker: &mut Walker, at: Site) {
    street.queue(walker, b"first", false).await;
    let sent = walker.send(b"four", true).await;
    assert_eq!((sent.acked, sent.window), (true, Some(RxWindow::Rx1)), "{:?}", street.whys(at));
    assert_eq!(sent.downlinks, [(7, b"first".to_vec())]);
    street.queue(walker, b"second", false).await;
    street.federation.air.refuse_next(at.gateway, AirError::CollisionPacket);
    let sent = walker.send(b"five", true).await;
    assert_eq!((sent.acked, sent.window), (true, Some(RxWindow::Rx2)), "{:?}", street.whys(at));
    assert_eq!(sent.downlinks, [(7, b"second".to_vec())]);
    street.settle().await;
    let handed = street.handed(at);
    let [.., first, _, second] = handed.as_slice() else { panic!("{handed:?}") };
    assert_eq!(first.tx.modulation, DR13);
    assert_eq!((second.tx.modulation, second.tx.frequency), (DR8, 923_300_000));
}
