//! Every region, at home and as a visitor of a home in EU868: windows, channel lists, commands.

use super::*;
use crate::lorawan::region::SubBands;
use crate::sns::plan::Told;

const S: Duration = Duration::from_secs(1);

fn lora(sf: u8, khz: u32) -> Modulation {
    Modulation::Lora { sf, bandwidth: khz * 1000 }
}

/// Hertz and modulation.
type On = (u32, Modulation);

/// Region, an uplink, its RX1, RX2. From RP002, not from the tables that are tested.
#[rustfmt::skip]
fn table() -> Vec<(&'static str, On, On, On)> {
    vec![
        ("EU868", (868_500_000, lora(9, 125)), (868_500_000, lora(9, 125)), (869_525_000, lora(12, 125))),
        ("EU868", (867_900_000, lora(7, 125)), (867_900_000, lora(7, 125)), (869_525_000, lora(12, 125))),
        ("US915", (902_300_000, lora(10, 125)), (923_300_000, lora(10, 500)), (923_300_000, lora(12, 500))),
        ("US915", (914_900_000, lora(7, 125)), (927_500_000, lora(7, 500)), (923_300_000, lora(12, 500))),
        ("US915", (914_200_000, lora(8, 500)), (927_500_000, lora(7, 500)), (923_300_000, lora(12, 500))),
        ("AU915", (915_200_000, lora(10, 125)), (923_300_000, lora(10, 500)), (923_300_000, lora(12, 500))),
        ("AU915", (927_100_000, lora(8, 500)), (927_500_000, lora(7, 500)), (923_300_000, lora(12, 500))),
        ("AS923-1", (923_200_000, lora(10, 125)), (923_200_000, lora(10, 125)), (923_200_000, lora(10, 125))),
        ("AS923-2", (921_600_000, lora(9, 125)), (921_600_000, lora(9, 125)), (921_400_000, lora(10, 125))),
        ("AS923-3", (916_600_000, lora(8, 125)), (916_600_000, lora(8, 125)), (916_600_000, lora(10, 125))),
        ("AS923-4", (917_500_000, lora(7, 125)), (917_500_000, lora(7, 125)), (917_300_000, lora(10, 125))),
        ("KR920", (922_500_000, lora(12, 125)), (922_500_000, lora(12, 125)), (921_900_000, lora(12, 125))),
        ("IN865", (865_985_000, lora(11, 125)), (865_985_000, lora(11, 125)), (866_550_000, lora(10, 125))),
        ("CN470", (470_300_000, lora(12, 125)), (500_300_000, lora(12, 125)), (505_300_000, lora(12, 125))),
        ("CN470", (480_100_000, lora(7, 125)), (500_500_000, lora(7, 125)), (505_300_000, lora(12, 125))),
        ("CN779", (779_700_000, lora(10, 125)), (779_700_000, lora(10, 125)), (786_000_000, lora(12, 125))),
        ("EU433", (433_375_000, lora(8, 125)), (433_375_000, lora(8, 125)), (434_665_000, lora(12, 125))),
        ("RU864", (869_100_000, lora(7, 125)), (869_100_000, lora(7, 125)), (869_100_000, lora(12, 125))),
    ]
}

impl Hotspot {
    async fn hears_on(&self, phy: &[u8], (frequency, modulation): On) {
        let heard = self.heard(phy, ATTIC, 8.0);
        self.house.fns.uplink(Heard { frequency, modulation, ..heard }).await;
    }

    fn settles(&self, mac_version: MacVersion) {
        self.memory.devices.lock().unwrap().get_mut(&DEV).unwrap().mac_version = mac_version;
        self.memory.root_keys.lock().unwrap().get_mut(&DEV).unwrap().mac_version = mac_version;
    }

    fn session(&self) -> sns::Session {
        self.memory.sessions.lock().unwrap().last().unwrap().clone()
    }
}

fn region(name: &str, sub_bands: &[u8]) -> Region {
    name.parse::<Region>().unwrap().with_sub_bands(SubBands::of(sub_bands))
}

/// A home there, and a device.
fn home_in(region: Region, version: MacVersion) -> (Hotspot, Device) {
    let home = hotspot_in(&Arc::default(), HOME, ROAMING, true, region);
    let device = Device::new();
    home.add(&device);
    home.settles(version);
    (home, device)
}

/// Join and talk, through both windows.
async fn walk(hotspot: &mut Hotspot, home: Option<&Hotspot>, device: &mut Device, row: usize) {
    let (name, uplink, rx1, rx2) = table()[row];
    for (refused, window, delay) in [(false, rx1, 5), (true, rx2, 6)] {
        hotspot.ether.refuse.lock().unwrap().extend(refused.then_some(AirError::CollisionPacket));
        let from = Instant::now();
        hotspot.hears_on(&device.join_request(), uplink).await;
        let (tx, _) = hotspot.transmitted().unwrap_or_else(|| panic!("{name}: a Join-accept"));
        assert_eq!((tx.start - from, (tx.frequency, tx.modulation)), (delay * S, window), "{name}");
        device.joined(&tx.phy);
        tokio::time::sleep(7 * S).await;
    }
    for (refused, window, delay) in [(false, rx1, 1), (true, rx2, 2)] {
        home.unwrap_or(hotspot).queue(b"down", false);
        hotspot.ether.refuse.lock().unwrap().extend(refused.then_some(AirError::CollisionPacket));
        let from = Instant::now();
        hotspot.hears_on(&device.up(true, false, &[], b"up"), uplink).await;
        let (tx, _) = hotspot.transmitted().unwrap_or_else(|| panic!("{name}: an acknowledgement"));
        assert_eq!((tx.start - from, (tx.frequency, tx.modulation)), (delay * S, window), "{name}");
        let (_, acked, payload) = device.hears(&tx.phy);
        assert_eq!((acked, payload), (true, Some((9, b"down".to_vec()))), "{name}");
        tokio::time::sleep(3 * S).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_region_at_home() {
    for (row, (name, ..)) in table().into_iter().enumerate() {
        let (mut home, mut device) = home_in(region(name, &[]), MacVersion::V1_0_3);
        walk(&mut home, None, &mut device, row).await;
        assert_eq!(home.session().plan.region, Some(region(name, &[])));
    }
}

#[tokio::test(start_paused = true)]
async fn every_region_away_from_a_home_in_eu868() {
    for rides in [true, false] {
        for (row, (name, ..)) in table().into_iter().enumerate() {
            let street = Arc::new(Street::default());
            let mut away = hotspot_in(&street, AWAY, ROAMING, rides, region(name, &[]));
            let home = hotspot(&street, HOME, ROAMING, rides).await;
            let mut device = Device::new();
            home.add(&device);
            walk(&mut away, Some(&home), &mut device, row).await;
            let plan = home.session().plan;
            assert_eq!(plan.region, Some(region(name, &[])), "the session is of where it was made");
            // fixed plans: the device stays in the sub-band where the visited network has heard it
            let number = region(name, &[]).sub_band(table()[row].1.0);
            assert_eq!(plan.sub_bands, number.map_or(SubBands::ALL, SubBands::only), "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_join_is_heard_on_each_of_the_72_channels() {
    let (mut home, mut device) = home_in(region("US915", &[2]), MacVersion::V1_0_3);
    for (channel, frequency) in region("US915", &[]).uplink_frequencies().into_iter().enumerate() {
        let (sent, answered) =
            if channel < 64 { (lora(10, 125), lora(10, 500)) } else { (lora(8, 500), lora(7, 500)) };
        home.hears_on(&device.join_request(), (frequency, sent)).await;
        let (tx, _) = home.transmitted().expect("a Join-accept");
        let rx1 = 923_300_000 + channel as u32 % 8 * 600_000;
        assert_eq!((tx.frequency, tx.modulation), (rx1, answered), "channel {channel}");
        device.joined(&tx.phy);
        assert_eq!(hex::encode(&device.cf_list), "00ff0000000000000200000000000001");
        tokio::time::sleep(7 * S).await;
    }
}

#[tokio::test(start_paused = true)]
async fn channel_lists_are_of_the_region_and_masks_are_not_for_old_devices() {
    for (name, sub_bands, version, expected) in [
        ("EU868", &[][..], MacVersion::V1_0_2, Some(0)),
        ("US915", &[], MacVersion::V1_0_4, None),
        ("US915", &[2], MacVersion::V1_0_2, None),
        ("US915", &[2], MacVersion::V1_0_3, Some(1)),
        ("AU915", &[1, 2], MacVersion::V1_0_4, Some(1)),
        ("CN470", &[11], MacVersion::V1_0_4, Some(1)),
        ("AS923", &[], MacVersion::V1_0_4, None),
    ] {
        let (mut home, mut device) = home_in(region(name, sub_bands), version);
        let (_, uplink, ..) =
            table().into_iter().find(|row| region(row.0, &[]) == region(name, &[])).unwrap();
        home.hears_on(&device.join_request(), uplink).await;
        device.joined(&home.transmitted().expect("a Join-accept").0.phy);
        assert_eq!(device.cf_list.last().copied(), expected, "{name} {version}");
    }
}

const IN_2: On = (904_100_000, Modulation::Lora { sf: 8, bandwidth: 125_000 });
/// All 125 kHz channels off and channel 65 on, then channels 8 to 15 on, at DR2.
const ONLY_2: [u8; 10] = [0x03, 0x20, 0x02, 0x00, 0x70, 0x03, 0x20, 0x00, 0xFF, 0x00];

#[tokio::test(start_paused = true)]
async fn an_old_device_is_told_beside_its_payload_until_it_accepts() {
    let (mut home, mut device) = home_in(region("US915", &[2]), MacVersion::V1_0_2);
    home.hears_on(&device.join_request(), IN_2).await;
    device.joined(&home.transmitted().expect("a Join-accept").0.phy);
    tokio::time::sleep(7 * S).await;
    // nobody asked for an answer: it comes on port 0
    home.hears_on(&device.up(false, false, &[], b"1"), IN_2).await;
    let (tx, _) = home.transmitted().expect("commands");
    assert_eq!(device.hears(&tx.phy), (0, false, Some((0, ONLY_2.to_vec()))));
    tokio::time::sleep(3 * S).await;
    // it did not hear that; a payload goes first, with the commands beside it
    home.queue(b"open", false);
    home.hears_on(&device.up(false, false, &[], b"2"), IN_2).await;
    let (tx, _) = home.transmitted().expect("payload and commands");
    assert_eq!((&tx.phy[8..18], tx.phy[5] & 15), (&ONLY_2[..], 10));
    assert_eq!(device.hears(&tx.phy), (1, false, Some((9, b"open".to_vec()))));
    tokio::time::sleep(3 * S).await;
    // one that fills the frame leaves no room for them
    home.queue(&[7; 240], false);
    home.hears_on(&device.up(false, false, &[], b"3"), IN_2).await;
    let (tx, _) = home.transmitted().expect("the payload");
    assert_eq!((tx.phy[5] & 15, device.hears(&tx.phy).2), (0, Some((9, vec![7; 240]))));
    tokio::time::sleep(3 * S).await;
    home.hears_on(&device.up(false, false, &[0x03, 0x07, 0x03, 0x07], b"4"), IN_2).await;
    assert!(home.transmitted().is_none(), "agreed");
    assert_eq!(home.session().plan.told, Told::Agreed);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_went_back_to_all_channels_is_told_again() {
    let (mut home, mut device) = home_in(region("US915", &[2]), MacVersion::V1_0_4);
    home.hears_on(&device.join_request(), IN_2).await;
    device.joined(&home.transmitted().expect("a Join-accept").0.phy);
    tokio::time::sleep(7 * S).await;
    home.hears_on(&device.up(false, false, &[], b"1"), IN_2).await;
    assert!(home.transmitted().is_none(), "the Join-accept has told it");
    // another hotspot of ours hears all channels, and the device uses one that it should not
    home.hears_on(&device.up(false, false, &[], b"2"), (902_300_000, IN_2.1)).await;
    let (tx, _) = home.transmitted().expect("commands");
    assert_eq!(device.hears(&tx.phy).2, Some((0, ONLY_2.to_vec())));
}

#[tokio::test(start_paused = true)]
async fn a_personalised_device_is_told_with_its_first_uplink() {
    let (mut home, mut device) = home_in(region("US915", &[2]), MacVersion::V1_0_4);
    home.hears_on(&device.join_request(), IN_2).await;
    device.joined(&home.transmitted().expect("a Join-accept").0.phy);
    {
        let mut sessions = home.memory.sessions.lock().unwrap();
        let session = sessions.last_mut().unwrap();
        (session.personalised, session.pending, session.plan) = (true, false, Default::default());
    }
    tokio::time::sleep(7 * S).await;
    home.hears_on(&device.up(false, false, &[], b"1"), IN_2).await;
    assert_eq!(device.hears(&home.transmitted().expect("commands").0.phy).2, Some((0, ONLY_2.to_vec())));
    tokio::time::sleep(3 * S).await;
    home.hears_on(&device.up(false, false, &[0x03, 0x07, 0x03, 0x07], b"2"), IN_2).await;
    assert!(home.transmitted().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_lifted_dwell_time_is_told_where_devices_begin_with_one() {
    let lifted = region("AS923", &[]).with_dwell(false);
    let (mut home, mut device) = home_in(lifted, MacVersion::V1_0_4);
    let uplink = (923_400_000, lora(10, 125));
    home.hears_on(&device.join_request(), uplink).await;
    device.joined(&home.transmitted().expect("a Join-accept").0.phy);
    tokio::time::sleep(7 * S).await;
    home.hears_on(&device.up(false, false, &[], b"1"), uplink).await;
    assert_eq!(device.hears(&home.transmitted().unwrap().0.phy).2, Some((0, vec![0x09, 5])));
    tokio::time::sleep(3 * S).await;
    home.hears_on(&device.up(false, false, &[0x09], b"2"), uplink).await;
    assert!(home.transmitted().is_none());
    // where it stands, nothing longer than 400 ms goes out
    let (mut home, mut device) = home_in(region("AS923", &[]), MacVersion::V1_0_4);
    home.hears_on(&device.join_request(), uplink).await;
    let (tx, _) = home.transmitted().expect("a Join-accept of 330 ms");
    device.joined(&tx.phy);
    tokio::time::sleep(7 * S).await;
    home.queue(&[7; 20], false);
    home.hears_on(&device.up(true, false, &[], b"1"), uplink).await;
    let (tx, _) = home.transmitted().expect("an acknowledgement");
    assert_eq!(device.hears(&tx.phy), (0, true, None), "20 bytes wait for a faster data rate");
    tokio::time::sleep(3 * S).await;
    home.hears_on(&device.up(true, false, &[], b"2"), (923_400_000, lora(7, 125))).await;
    assert_eq!(device.hears(&home.transmitted().unwrap().0.phy).2, Some((9, vec![7; 20])));
}
