//! The whole way through driver and chip model, in real time.

#[path = "../../../tests/support/receiver.rs"]
mod receiver;

use super::model::{Faults, Frame, Radiated};
use super::*;
use crate::clock::Instant;
use crate::fns::{Count, Heard};
use crate::lorawan::beacon::{self, Beacon};
use crate::lorawan::{Modulation, Region};

const SF9: Modulation = Modulation::Lora { sf: 9, bandwidth: 125_000 };
const MS: Duration = Duration::from_millis(1);
/// What a slow machine may need for anything at all.
const LONG: Duration = Duration::from_secs(60);

struct Bench {
    radio: Radio,
    model: Modelled,
    clock: Clock,
    _folder: tempfile::TempDir,
}

async fn bench(config: Config) -> Bench {
    let (clock, folder) = (Clock::system(), tempfile::tempdir().unwrap());
    let model = Modelled::new(clock.clone());
    let around = Surroundings { region: Region::eu868(), state: folder.path().into() };
    let config = Config { model: true, ..config };
    let radio = open_with(&config, &around, &clock, Some(model.clone())).await.unwrap();
    Bench { radio, model, clock, _folder: folder }
}

impl Bench {
    fn frame(&self, phy: &[u8], frequency: u32, modulation: Modulation) -> Frame {
        let end = self.clock.now() + 20 * MS;
        Frame { phy: phy.to_vec(), frequency, modulation, rssi: -57, snr: 9.5, end, broken: false }
    }

    async fn hears(&mut self, phy: &[u8], frequency: u32, modulation: Modulation) -> (Heard, Instant) {
        let frame = self.frame(phy, frequency, modulation);
        let end = frame.end;
        self.model.hear(frame);
        let heard = tokio::time::timeout(LONG, self.radio.heard.recv()).await.unwrap().unwrap();
        (heard, end)
    }

    async fn send(&self, tx: Tx) -> Result<Sent, AirError> {
        self.radio.heads.transmit(tx, Deadline(self.clock.now() + LONG)).await
    }

    /// The transmissions, when there are so many.
    async fn radiated(&self, count: usize) -> Vec<Radiated> {
        let until = self.clock.now() + LONG;
        loop {
            let radiated = self.model.radiated();
            if radiated.len() >= count {
                return radiated;
            }
            assert!(self.clock.now() < until, "{} of {count} transmissions: {radiated:?}", radiated.len());
            self.clock.sleep(5 * MS).await;
        }
    }

    async fn until(&self, online: bool) {
        let until = self.clock.now() + LONG;
        while (self.radio.heads.heads() == 1) != online {
            assert!(self.clock.now() < until, "online is not {online}: {:?}", self.radio.heads.counters());
            self.clock.sleep(5 * MS).await;
        }
    }

    fn counter(&self, name: &str) -> u64 {
        let counters = self.radio.heads.counters();
        counters.iter().find(|(known, _)| *known == name).unwrap().1
    }
}

fn answer(heard: &Heard, after: Duration, phy: &[u8]) -> Tx {
    crate::radio::answer(heard, after, 14, phy)
}

/// The counter as the chip's timer has it.
fn modulo(count: Count) -> u32 {
    count.0 % (1 << 27)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_heard_is_answered_at_the_microsecond() {
    let mut bench = bench(Config { antenna_gain: 2, ..Config::default() }).await;
    let (heard, end) = bench.hears(&[0x40, 1, 2, 3], 868_100_000, SF9).await;
    assert_eq!(
        (heard.phy.as_slice(), heard.frequency, heard.modulation),
        (&[0x40, 1, 2, 3][..], 868_100_000, SF9)
    );
    assert_eq!(heard.gateway.to_string(), "0016C001F0A1B2C3", "the chip's own number");
    // the board is warm, and its level is corrected for it
    assert!((-58..=-55).contains(&heard.rssi) && heard.snr == 9.5, "{} {}", heard.rssi, heard.snr);
    // the host can only be late
    let off = heard.at.saturating_duration_since(end);
    assert!(heard.at + MS > end && off < LONG, "{off:?}");

    let tx = answer(&heard, 1000 * MS, &[0x60, 9, 8, 7]);
    assert_eq!(bench.send(tx.clone()).await, Ok(Sent { power: Some(14) }));
    assert_eq!(bench.send(tx.clone()).await, Err(AirError::CollisionPacket));
    let radiated = bench.radiated(1).await.remove(0);
    assert_eq!(radiated.phy, [0x60, 9, 8, 7]);
    assert_eq!((radiated.frequency, radiated.modulation), (868_100_000, Some(SF9)));
    assert_eq!(radiated.count.map(|count| count.0), Some(modulo(heard.tmst.plus(1000 * MS))));
    assert!(radiated.inverted && !radiated.crc && radiated.preamble == 8);
    // and that is a second after the device's last symbol, give or take the microsecond of the stamp
    let after = radiated.start - end;
    assert!(after.abs_diff(1000 * MS) < Duration::from_micros(20), "{after:?}");
    assert!(radiated.handed < radiated.start);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_modem_hears_and_a_broken_frame_is_counted() {
    let mut bench = bench(Config::default()).await;
    let wide = Modulation::Lora { sf: 7, bandwidth: 250_000 };
    let fsk = Modulation::Fsk { bitrate: 50_000 };
    for (frequency, modulation) in [(867_900_000, SF9), (868_300_000, wide), (868_800_000, fsk)] {
        let (heard, _) = bench.hears(&[1; 30], frequency, modulation).await;
        assert_eq!((heard.frequency, heard.modulation), (frequency, modulation));
    }
    bench.model.hear(Frame { broken: true, ..bench.frame(&[2; 9], 868_100_000, SF9) });
    // nobody listens there
    bench.model.hear(bench.frame(&[3; 9], 865_100_000, SF9));
    let (heard, _) = bench.hears(&[4; 9], 868_500_000, SF9).await;
    assert_eq!(heard.phy, [4; 9]);
    let status = bench.radio.heads.status().remove(0);
    assert_eq!((status.rx_ok, status.rx_bad, status.online), (4, 1, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_their_names_and_class_c_goes_at_once() {
    let mut bench = bench(Config::default()).await;
    let (heard, _) = bench.hears(&[1; 12], 868_100_000, SF9).await;
    let tx = answer(&heard, 5000 * MS, &[2; 12]);
    assert_eq!(bench.send(Tx { session: !tx.session, ..tx.clone() }).await, Err(AirError::Gone(tx.gateway)));
    assert_eq!(bench.send(Tx { frequency: 915_000_000, ..tx.clone() }).await, Err(AirError::Frequency));
    assert_eq!(bench.send(Tx { power: 11, ..tx.clone() }).await, Err(AirError::Power));
    assert_eq!(bench.send(answer(&heard, 600_000 * MS, &[2])).await, Err(AirError::TooEarly));
    assert_eq!(bench.send(answer(&heard, MS, &[2])).await, Err(AirError::TooLate));
    let stranger = GatewayEui::from_msb([9; 8]);
    assert_eq!(bench.send(Tx { gateway: stranger, ..tx.clone() }).await, Err(AirError::Gone(stranger)));
    // louder than any entry: as loud as there is
    let loud = Tx { power: 30, frequency: 869_525_000, at: None, session: 0, ..tx };
    assert_eq!(bench.send(loud).await, Ok(Sent { power: Some(27) }));
    let radiated = bench.radiated(1).await.remove(0);
    assert_eq!(radiated.frequency, 869_525_000);
    assert_eq!(bench.radio.heads.status()[0].tx_ok, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chip_in_trouble_is_cured_and_then_hears_again() {
    let mut bench = bench(Config::default()).await;
    let (before, _) = bench.hears(&[1; 12], 868_100_000, SF9).await;
    // dead until it is reset: loading the firmware again does not help
    bench.model.fail(Faults { dead: true, ..Faults::default() });
    bench.until(false).await;
    let late = answer(&before, 1000 * MS, &[5; 12]);
    assert_eq!(bench.send(late.clone()).await, Err(AirError::Gone(before.gateway)));
    bench.until(true).await;
    assert_eq!(bench.model.resets(), [2, 0], "one to begin with");
    assert_eq!((bench.counter("radio_reloads"), bench.counter("radio_resets")), (1, 1));
    let (after, _) = bench.hears(&[2; 12], 868_100_000, SF9).await;
    assert_ne!(before.session, after.session);
    assert_eq!(bench.send(late).await, Err(AirError::Gone(before.gateway)), "a frame of the session before");
    bench.send(answer(&after, 1000 * MS, &[6; 12])).await.unwrap();
    assert_eq!(bench.radiated(1).await[0].phy, [6; 12]);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_memory_is_found_by_looking_and_cured_by_a_reset() {
    let mut bench = bench(Config::default()).await;
    bench.hears(&[1; 12], 868_100_000, SF9).await;
    bench.model.fail(Faults { agc_parity: true, ..Faults::default() });
    bench.until(false).await;
    bench.until(true).await;
    assert_eq!((bench.counter("radio_reloads"), bench.counter("radio_resets")), (1, 1));
    bench.hears(&[2; 12], 868_100_000, SF9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transmitter_that_does_not_end_is_cured() {
    let mut bench = bench(Config::default()).await;
    let (heard, _) = bench.hears(&[1; 12], 868_100_000, SF9).await;
    bench.model.fail(Faults { tx_stuck: true, ..Faults::default() });
    bench.send(Tx { at: None, ..answer(&heard, MS, &[2; 12]) }).await.unwrap();
    bench.radiated(1).await;
    bench.send(Tx { at: None, ..answer(&heard, MS, &[3; 12]) }).await.unwrap();
    bench.until(false).await;
    bench.until(true).await;
    assert_eq!(bench.counter("tx_lost"), 2, "the one before, and the one that was due");
    let (heard, _) = bench.hears(&[4; 12], 868_100_000, SF9).await;
    bench.send(answer(&heard, 1000 * MS, &[5; 12])).await.unwrap();
    assert_eq!(bench.radiated(2).await[1].phy, [5; 12]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chip_that_nothing_cures_is_given_up_with_a_reason() {
    let mut bench = bench(Config::default()).await;
    bench.model.fail_for_good(Faults { dead: true, ..Faults::default() });
    let why = tokio::time::timeout(LONG, bench.radio.heads.failed()).await.unwrap();
    assert!(why.starts_with("no concentrator answers (version reads 0xff)"), "{why}");
    let steps = ["radio_reloads", "radio_resets", "radio_power_cycles"].map(|step| bench.counter(step));
    assert_eq!(steps, [1, 2, 3]);
    assert_eq!((bench.model.resets(), bench.radio.heads.heads()), ([3, 3], 0));
    assert_eq!(bench.radio.heard.recv().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_sensor_is_no_trouble_and_the_thread_ends_with_its_listener() {
    let mut bench = bench(Config::default()).await;
    bench.model.fail(Faults { no_sensor: true, ..Faults::default() });
    bench.hears(&[1; 12], 868_100_000, SF9).await;
    assert_eq!(bench.counter("radio_reloads"), 0);
    let dropped = bench.model.clone();
    drop(bench);
    // the thread ends with its listener, and the chip rests
    let until = Clock::system().now() + LONG;
    let mut transactions = dropped.transactions();
    loop {
        tokio::time::sleep(100 * MS).await;
        if dropped.transactions() == transactions {
            break;
        }
        transactions = dropped.transactions();
        assert!(Clock::system().now() < until);
    }
}

/// GPS time of the first pulse that the receiver tells of.
const FIRST: u64 = beacon::PERIOD * 11_000_000 - 6;

/// A receiver on the other side of a serial line: after each pulse it says which second that was.
struct Receiver {
    port: tokio_serial::SerialStream,
    model: Modelled,
}

impl Receiver {
    /// The receiver, and the port to open.
    fn new(model: &Modelled) -> (Receiver, PathBuf) {
        let (port, other) = tokio_serial::SerialStream::pair().unwrap();
        let name = tokio_serial::SerialPort::name(&other).unwrap();
        (Receiver { port, model: model.clone() }, name.into())
    }

    /// Tells the first pulse's moment, and then speaks for ever.
    async fn speak(mut self, first: oneshot::Sender<Instant>) {
        let clock = Clock::system();
        let begin = self.model.next_pulse();
        first.send(begin).unwrap();
        for n in 0.. {
            clock.sleep_until(begin + n * Duration::from_secs(1) + 50 * MS).await;
            let said = receiver::says(FIRST + u64::from(n));
            tokio::io::AsyncWriteExt::write_all(&mut self.port, &said).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_gps_the_time_is_exact_and_beacons_go_with_the_pulse() {
    // a machine that sleeps through the moment skips a beacon, as it should; the next one of the same chip is far away
    for _ in 0..4 {
        if a_beacon_is_sent().await {
            return;
        }
    }
    panic!("four beacons were skipped");
}

async fn a_beacon_is_sent() -> bool {
    let (clock, folder) = (Clock::system(), tempfile::tempdir().unwrap());
    clock.set_trusted(false);
    let model = Modelled::new(clock.clone());
    let (receiver, port) = Receiver::new(&model);
    let around = Surroundings { region: Region::eu868(), state: folder.path().into() };
    let chrony = folder.path().join("chrony.sock");
    let listening = tokio::net::UnixDatagram::bind(&chrony).unwrap();
    let config =
        Config { model: true, gps: Some(port), beacon: true, chrony: Some(chrony), ..Config::default() };
    let radio = open_with(&config, &around, &clock, Some(model.clone())).await.unwrap();
    let (first, begun) = oneshot::channel();
    let receiver = tokio::spawn(receiver.speak(first));
    let first = begun.await.unwrap();
    let mut bench = Bench { radio, model, clock, _folder: folder };
    while bench.counter("gps_pulses") == 0 {
        assert!(bench.clock.now() - first < LONG, "{:?}", bench.radio.heads.counters());
        bench.clock.sleep(20 * MS).await;
    }
    let utc = |at: Instant| {
        let since = jiff::SignedDuration::try_from(at - first).unwrap();
        jiff::Timestamp::from_second(FIRST as i64 + receiver::EPOCH).unwrap() + since
    };
    // the first pulses are not believed yet, and whoever listens gets the first that is
    let mut sample = [0; 64];
    let length = listening.recv(&mut sample).await.unwrap();
    let number = |at: usize| i64::from_ne_bytes(sample[at..at + 8].try_into().unwrap());
    let told = jiff::Timestamp::new(number(0), number(8) as i32 * 1000).unwrap();
    let behind = jiff::SignedDuration::from_secs_f64(f64::from_bits(number(16) as u64));
    let now = bench.clock.now();
    let off = (told + behind).duration_since(utc(now)) - told.duration_since(bench.clock.machine());
    assert!(off.abs() < jiff::SignedDuration::from_millis(20), "{off}");
    assert_eq!(
        (length, &sample[24..36], &sample[36..40]),
        (40, &[0; 12][..], &0x534f_434b_u32.to_ne_bytes()[..])
    );
    let (heard, end) = bench.hears(&[7; 12], 868_100_000, SF9).await;
    let off = heard.time.duration_since(utc(end)).abs();
    assert!(off < jiff::SignedDuration::from_micros(20), "{off}");
    let (latitude, longitude) = heard.location.unwrap();
    assert!((latitude - 48.208_333).abs() < 1e-5 && (longitude - 16.4).abs() < 1e-5);
    assert_eq!(bench.radio.heads.status()[0].location, heard.location);
    // a clock that nobody trusted follows GPS; it is years ahead of ours
    assert!(bench.clock.is_trusted());
    let wall = bench.clock.wall().duration_since(utc(bench.clock.now())).abs();
    assert!(wall < jiff::SignedDuration::from_secs(2), "{wall}");
    assert!(bench.radio.heads.sends_beacons());
    // an answer of class A may be on the air almost until the beacon, which waits for its end
    let beacon_at = first + 6 * Duration::from_secs(1);
    let airtime = crate::jit::airtime(SF9, 12, crate::lorawan::crypto::Direction::Down);
    let before = beacon_at - airtime - 15 * MS;
    bench.send(answer(&heard, before - end, &[9; 12])).await.unwrap();
    while bench.counter("beacons") == 0 {
        assert!(bench.clock.now() - beacon_at < LONG, "{:?}", bench.radio.heads.counters());
        if bench.counter("beacons_skipped") > 0 {
            return false;
        }
        bench.clock.sleep(20 * MS).await;
    }
    let mut all = bench.radiated(2).await;
    let (radiated, answered) = (all.remove(1), all.remove(0));
    assert_eq!(answered.phy, [9; 12]);
    let beacon = Beacon::of(&around.region).unwrap();
    assert_eq!(radiated.phy, beacon.payload(FIRST + 6, (latitude, longitude)));
    let about = |at: u32| at.abs_diff(869_525_000) < 20;
    assert!(about(radiated.frequency / 1000 * 1000) || about(radiated.frequency), "{}", radiated.frequency);
    assert_eq!((radiated.modulation, radiated.count), (Some(SF9), None));
    assert!(!radiated.inverted && !radiated.crc && radiated.preamble == 10);
    let start = radiated.start - beacon_at;
    assert!(start.abs_diff(Duration::from_micros(1500)) < Duration::from_micros(20), "{start:?}");
    let counted = ["beacons", "beacons_skipped", "tx_lost"].map(|name| bench.counter(name));
    assert_eq!(counted, [1, 0, 0]);
    receiver.abort();
    true
}

#[test]
fn a_configuration_is_read_and_a_wrong_one_is_named() {
    let read = |text: &str| toml::from_str::<crate::radio::Config>(text).map_err(|error| error.to_string());
    let crate::radio::Config::Sx1302(config) = read(
        "kind = \"sx1302\"\nboard = \"rak5146\"\nreset = { line = 17 }\nlocation = [48.2, 16.4]\nantenna_gain = 3\n",
    )
    .unwrap() else {
        panic!()
    };
    assert_eq!(config.summary(), "SX1302 on board rak5146 at /dev/spidev0.0");
    assert_eq!(config.reset, Some(GpioLine { chip: "/dev/gpiochip0".into(), line: 17 }));
    assert_eq!(config.firmware(Path::new("/var/lib/x")), PathBuf::from("/var/lib/x/firmware"));
    let written = toml::to_string(&crate::radio::Config::Sx1302(config.clone())).unwrap();
    assert_eq!(read(&written), Ok(crate::radio::Config::Sx1302(config)));
    let no_board = read("kind = \"sx1302\"\nboard = \"rak9999\"\n").unwrap_err();
    assert!(no_board.contains("no board of ours; there are ") && no_board.contains("wm1302"), "{no_board}");
    assert!(
        read("kind = \"sx1302\"\nlocation = [91.0, 0.0]\n").unwrap_err().contains("no [latitude, longitude]")
    );
    let usb = read("kind = \"sx1302\"\nboard = \"gwc-02\"\n").unwrap_err();
    assert!(usb.contains("behind a USB bridge") && usb.contains("semtech-udp"), "{usb}");
    assert!(read("kind = \"sx1302\"\nspeed = 5\n").unwrap_err().contains("unknown field `speed`"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_board_that_nobody_knows_is_written_down() {
    let text = "kind = \"sx1302\"\nradios = \"sx1257\"\nfull_duplex = true\nsingle_input = [false, false]\n\
                rssi_offset = -196.0\ngains = [{ dbm = 12, pa = 1, mixer = 9 }, { dbm = 20, pa = 2, dac = 2, mixer = 11 }]\n";
    let crate::radio::Config::Sx1302(config) = toml::from_str(text).unwrap() else { panic!() };
    let written = toml::to_string(&crate::radio::Config::Sx1302(config.clone())).unwrap();
    assert_eq!(
        toml::from_str::<crate::radio::Config>(&written).unwrap(),
        crate::radio::Config::Sx1302(config.clone())
    );
    let mut bench = bench(*config).await;
    let (heard, _) = bench.hears(&[1; 12], 868_100_000, SF9).await;
    // no curve for the temperature, another offset than the model's air has
    assert!((-39..=-37).contains(&heard.rssi), "{}", heard.rssi);
    assert_eq!(bench.send(answer(&heard, 1000 * MS, &[2; 12])).await, Ok(Sent { power: Some(12) }));
    assert_eq!(bench.radiated(1).await[0].phy, [2; 12]);

    let around = Surroundings { region: Region::eu868(), state: "/nowhere".into() };
    let wrong = toml::from_str(&text.replace("mixer = 9", "mixer = 16")).unwrap();
    let crate::radio::Config::Sx1302(wrong) = wrong else { panic!() };
    let refused = open(&Config { model: true, ..*wrong }, &around, &Clock::system()).await.err().unwrap();
    let RadioError::Card { source, .. } = refused else { panic!() };
    assert!(source.to_string().starts_with("no such gain"), "{source}");
}

#[tokio::test]
async fn without_firmware_or_device_it_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let around = Surroundings { region: Region::eu868(), state: folder.path().into() };
    let refused = |config: Config| {
        let around = around.clone();
        async move { open(&config, &around, &Clock::system()).await.err().expect("no radio") }
    };
    let spi = folder.path().join("spidev9.9");
    let config = Config { spi: Some(spi.clone()), ..Config::default() };
    let RadioError::Card { source, .. } = refused(config.clone()).await else { panic!() };
    assert!(source.to_string().starts_with("the AGC firmware for SX1250 is not in "), "{source}");
    assert!(source.remedy().contains("roamgate radio firmware import"));
    for image in ["agc-sx1250", "arbiter"] {
        let kind = if image == "arbiter" {
            ::sx1302::firmware::Image::Arbiter
        } else {
            ::sx1302::firmware::Image::AgcSx1250
        };
        let path = folder.path().join(format!("{image}.bin"));
        std::fs::write(&path, ::sx1302::firmware::Program::synthetic(kind).bytes()).unwrap();
        firmware::import(&[path], &config.firmware(folder.path())).unwrap();
    }
    let RadioError::Card { source, .. } = refused(config.clone()).await else { panic!() };
    assert!(matches!(*source, CardError::Open { .. }), "{source}");
    std::fs::write(&spi, "").unwrap();
    let other = std::fs::File::open(&spi).unwrap();
    other.try_lock().unwrap();
    let RadioError::Card { source, .. } = refused(config).await else { panic!() };
    assert!(source.to_string().ends_with("spidev9.9 is in use by another program"), "{source}");
    let blind = Config { model: true, beacon: true, ..Config::default() };
    let RadioError::Card { source, .. } = refused(blind).await else { panic!() };
    assert_eq!(source.to_string(), "beacons want the time of a GPS receiver");
    let us = Surroundings { region: "US915".parse().unwrap(), ..around.clone() };
    let RadioError::Card { source, .. } =
        open(&Config { model: true, ..Config::default() }, &us, &Clock::system()).await.err().unwrap()
    else {
        panic!()
    };
    assert!(source.to_string().contains("name one sub-band"), "{source}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_region_starts_on_the_model() {
    let (clock, folder) = (Clock::system(), tempfile::tempdir().unwrap());
    // each sleeps for a second, all at once
    let opened = Region::all().into_iter().filter(|region| region.to_string() != "ISM2400").map(|region| {
        let region = region.with_sub_bands(crate::lorawan::region::SubBands::only(1));
        let around = Surroundings { region: region.clone(), state: folder.path().into() };
        let clock = clock.clone();
        async move { (region, open(&Config { model: true, ..Config::default() }, &around, &clock).await) }
    });
    for (region, opened) in futures_util::future::join_all(opened).await {
        assert!(opened.is_ok(), "{region}: {:?}", opened.err());
    }
}
