//! The driver on the model: other boards than the recorded ones, and everything that can go wrong.

use sx1302::bus::{Recorder, Transcript};
use sx1302::config::*;
use sx1302::counter::Count;
use sx1302::firmware::{Firmware, Image};
use sx1302::model::{Faults, Model, Trigger};
use sx1302::packet::CrcStatus;
use sx1302::rx::{self, RawPacket};
use sx1302::tx::{Modulation, Status, Transmission, When};
use sx1302::{Cause, Concentrator};

fn start(model: Model, config: Config) -> Concentrator<Model> {
    let mut radio = Concentrator::new(model, config, Firmware::synthetic()).unwrap();
    radio.start().unwrap_or_else(|error| panic!("{error}"));
    radio
}

fn sf(number: u8) -> SpreadingFactor {
    SpreadingFactor::new(number).unwrap()
}

fn downlink(when: When) -> Transmission {
    Transmission {
        chain: Chain::A,
        freq_hz: 868_100_000,
        power_dbm: 14,
        when,
        modulation: Modulation::Lora {
            sf: sf(9),
            bandwidth: Bandwidth::Khz125,
            coding_rate: CodingRate::new(1).unwrap(),
            preamble: 8,
            inverted: true,
            crc: false,
            header: true,
        },
        payload: vec![0x60, 1, 2, 3],
    }
}

fn uplink(stamp: u32) -> RawPacket {
    let payload = vec![0x40, 5, 6, 7, 8];
    RawPacket {
        channel: 3,
        crc_present: true,
        coding_rate: 1,
        sf: 7,
        modem: 4,
        freq_offset: 100,
        crc_error: false,
        sync_error: false,
        header_error: false,
        timing_set: false,
        snr: 20,
        rssi_channel: 110,
        rssi_signal: 108,
        stamp,
        crc16: rx::payload_crc(&payload),
        metrics: Vec::new(),
        payload,
    }
}

/// The CN490 reference board: two SX1255, sending and receiving at once.
fn full_duplex() -> Config {
    let mut config = Config::new();
    config.full_duplex = true;
    let gain = |rf_power, dac, mixer| Gain { rf_power, pa: 2, power_index: 0, digital: 0, dac, mixer };
    for (chain, freq_hz) in [(Chain::A, 470_600_000), (Chain::B, 475_000_000)] {
        let tx_enable = chain == Chain::A;
        let gains = vec![gain(10, 3, 8), gain(14, 3, 12), gain(20, 3, 12)];
        let radio = Radio { enable: true, freq_hz, tx_enable, gains, ..Radio::off(RadioKind::Sx1255) };
        config.set_radio(chain, radio).unwrap();
    }
    config.set_multi_sf(0, Some(Channel { chain: Chain::A, if_hz: 200_000 })).unwrap();
    config
}

mod what_works {
    use super::*;

    #[test]
    fn a_timed_downlink_leaves_at_its_moment() {
        let mut radio = start(Model::new(), Config::example_eu868());
        radio.send(&downlink(When::At(Count(44_098_803)))).unwrap();
        assert_eq!(radio.tx_status(Chain::A).unwrap(), Status::Scheduled);
        let sent = radio.bus_mut().take_sent();
        assert_eq!(sent.len(), 1);
        let Trigger::At(ticks) = sent[0].trigger else { panic!("{:?}", sent[0].trigger) };
        // 1.5 ms before, less what radio, filter and modem need
        let early = 44_098_803u32.wrapping_mul(32).wrapping_sub(ticks);
        assert!((46_000..=48_000).contains(&early), "{early}");
        assert_eq!(sent[0].payload, [0x60, 1, 2, 3]);
        radio.bus_mut().tx_done(Chain::A);
        assert_eq!(radio.tx_status(Chain::A).unwrap(), Status::Free);
        radio.stop().unwrap();
        assert_eq!(radio.tx_status(Chain::A).unwrap(), Status::Off);
    }

    #[test]
    fn the_three_triggers_and_three_modulations_are_understood() {
        let mut radio = start(Model::new(), Config::example_eu868());
        radio.send(&downlink(When::Now)).unwrap();
        assert_eq!(radio.tx_status(Chain::A).unwrap(), Status::Emitting);
        radio.abort(Chain::A).unwrap();
        radio.send(&downlink(When::OnPps)).unwrap();
        assert_eq!(radio.tx_status(Chain::A).unwrap(), Status::Scheduled);
        radio.abort(Chain::A).unwrap();
        let fsk = Modulation::Fsk {
            bitrate: 50_000,
            deviation_hz: 25_000,
            preamble: 0,
            crc: true,
            bandwidth: Some(Bandwidth::Khz125),
        };
        radio.send(&Transmission { modulation: fsk, ..downlink(When::Now) }).unwrap();
        radio.abort(Chain::A).unwrap();
        let carrier = Modulation::Carrier { offset_khz: -13, bandwidth: Some(Bandwidth::Khz125) };
        radio
            .send(&Transmission { modulation: carrier, payload: Vec::new(), ..downlink(When::Now) })
            .unwrap();
        let sent = radio.bus_mut().take_sent();
        let triggers: Vec<Trigger> = sent.iter().map(|sent| sent.trigger).collect();
        assert_eq!(triggers, [Trigger::Immediate, Trigger::Pps, Trigger::Immediate, Trigger::Immediate]);
        // FSK has its length in front
        assert_eq!(sent[2].payload, [4, 0x60, 1, 2, 3]);
        // −13 kHz of 20 kHz, in 64ths
        assert_eq!(sent[3].registers[0x2a] as i8, -41);
    }

    #[test]
    fn packets_that_do_not_fit_into_the_answer_come_with_the_next() {
        let mut radio = start(Model::new(), Config::example_eu868());
        for stamp in 1..=5 {
            radio.bus_mut().hear(&uplink(stamp * 3200));
        }
        radio.bus_mut().set_inst(1_000_000);
        assert_eq!(radio.waiting().unwrap(), 5 * 28);
        assert_eq!(radio.receive(3).unwrap().packets.len(), 3);
        assert_eq!(radio.waiting().unwrap(), 0);
        assert_eq!(radio.receive(3).unwrap().packets.len(), 2);
        assert_eq!(radio.receive(3).unwrap().packets.len(), 0);
    }

    #[test]
    fn a_damaged_packet_costs_itself_only() {
        let mut radio = start(Model::new(), Config::example_eu868());
        radio.bus_mut().set_inst(1_000_000);
        let mut damaged = rx::encode(&uplink(6400));
        damaged[12] ^= 0x40;
        radio.bus_mut().hear(&uplink(3200));
        radio.bus_mut().push_fifo(&damaged);
        radio.bus_mut().hear(&RawPacket { crc16: 1, ..uplink(6400) });
        radio.bus_mut().hear(&RawPacket { crc_error: true, ..uplink(6400) });
        radio.bus_mut().hear(&uplink(9600));
        let received = radio.receive(16).unwrap();
        let status: Vec<CrcStatus> = received.packets.iter().map(|packet| packet.crc).collect();
        assert_eq!(status, [CrcStatus::Good, CrcStatus::Bad, CrcStatus::Good]);
        assert_eq!((received.damage.checksum, received.damage.payload), (1, 1));
        assert_eq!(radio.damage(), received.damage);
    }

    #[test]
    fn old_radios_are_calibrated_and_full_duplex_sets_its_amplifier() {
        let mut radio = start(Model::new(), full_duplex());
        // the better of three runs: amplitude 6, phase −2 for A; −3 and 8 for B, in six bits
        let coefficients = [0x5709, 0x570a, 0x5716, 0x5717].map(|address| radio.bus_mut().peek(address));
        assert_eq!(coefficients, [6, 0x3e, 0x3d, 8]);
        let tx = Transmission { freq_hz: 470_300_000, ..downlink(When::Now) };
        radio.send(&tx).unwrap();
        let sent = radio.bus_mut().take_sent();
        // the second pair of gains of the table: I 13, Q −8
        assert_eq!((sent[0].registers[0x23] as i8, sent[0].registers[0x24] as i8), (13, -8));
        assert_eq!(sent[0].registers[0x0d], 2 << 6 | 3 << 4 | 12);
    }

    #[test]
    fn who_listens_first_sends_only_into_a_free_channel() {
        let mut config = Config::example_eu868();
        let channel =
            |freq_hz| LbtChannel { freq_hz, bandwidth: Bandwidth::Khz125, scan_us: 5000, transmit_ms: 400 };
        let lbt = Lbt { rssi_target: -80, channels: vec![channel(868_100_000)] };
        config.set_sx1261(Some(Sx1261 { rssi_offset: 0, lbt: Some(lbt) })).unwrap();
        let mut radio = start(Model::new(), config);
        radio.send(&downlink(When::Now)).unwrap();
        radio.abort(Chain::A).unwrap();
        assert_eq!(radio.bus_mut().take_sent().len(), 1);
        radio.bus_mut().channel_busy = true;
        assert_eq!(radio.send(&downlink(When::Now)).unwrap_err().cause, Cause::Busy);
        assert_eq!(radio.bus_mut().take_sent().len(), 0);
        radio.bus_mut().channel_busy = false;
        let elsewhere = Transmission { freq_hz: 868_300_000, ..downlink(When::Now) };
        let error = radio.send(&elsewhere).unwrap_err().cause;
        assert!(matches!(error, Cause::Config(ConfigError::NoLbtChannel { .. })), "{error:?}");
        radio.send(&downlink(When::Now)).unwrap();
        radio.start_scan(868_100_000, 2000).unwrap();
        assert_eq!(radio.scan_status().unwrap(), sx1302::sx1261::Scan::Done);
        assert_eq!(radio.scan_results().unwrap()[32].0, -124);
    }

    #[test]
    fn fine_time_stamps_merge_the_copies_of_a_packet() {
        let mut config = Config::example_eu868();
        config.fine_stamps = Some(FineStamps::AllSf);
        let mut radio = start(Model::sx1303(), config);
        for second in 0..18u32 {
            radio.bus_mut().set_pps(second * 32_000_000);
            radio.bus_mut().set_inst(second * 32_000_000 + 320_000);
            radio.receive(1).unwrap();
        }
        radio.bus_mut().set_inst(17 * 32_000_000 + 31_000_000);
        let stamp = 17 * 32_000_000 + 16_000_000;
        radio.bus_mut().hear(&uplink(stamp + 100));
        radio.bus_mut().hear(&RawPacket { timing_set: true, metrics: vec![0; 64], ..uplink(stamp) });
        let received = radio.receive(16).unwrap();
        assert_eq!(received.packets.len(), 1);
        let ns = received.packets[0].fine_ns.unwrap();
        // the preamble ended 12.6 ms before the header did
        assert!((487_000_000..488_000_000).contains(&ns), "{ns}");
    }

    #[test]
    fn a_recording_of_a_start_starts_the_driver_again() {
        let firmware = Firmware::synthetic;
        let recorder = Recorder::new(Model::new());
        let mut radio = Concentrator::new(recorder, Config::example_eu868(), firmware()).unwrap();
        radio.start().unwrap();
        let lines: Vec<String> = radio.bus_mut().lines().collect();
        let transcript = Transcript::of_lines(lines.iter().map(String::as_str));
        let mut again = Concentrator::new(transcript, Config::example_eu868(), firmware()).unwrap();
        again.start().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(again.bus_mut().left(), 0);
    }
}

mod what_goes_wrong {
    use super::*;

    /// The error of a start, and how long the driver slept until then.
    fn failing(config: Config, faults: Faults) -> (Cause, u64) {
        let mut model = Model::new();
        model.faults = faults;
        let mut radio = Concentrator::new(model, config, Firmware::synthetic()).unwrap();
        let error = radio.start().unwrap_err();
        assert!(!radio.is_running());
        (error.cause, radio.slept_us())
    }

    type Expected = fn(&Cause) -> bool;

    #[test]
    fn every_fault_ends_in_an_error_that_says_what_it_is_within_three_seconds() {
        let faults: Vec<(Faults, Expected)> = vec![
            (Faults { dead: true, ..Faults::default() }, |cause| matches!(cause, Cause::NoChip(0xff))),
            (Faults { spi_fails_from: Some(100), ..Faults::default() }, |cause| {
                matches!(cause, Cause::Bus(_))
            }),
            (Faults { agc_stuck_at: Some(4), ..Faults::default() }, |cause| {
                matches!(cause, Cause::TimeOut { last: 4, .. })
            }),
            (Faults { arb_stuck: true, ..Faults::default() }, |cause| matches!(cause, Cause::TimeOut { .. })),
            (Faults { agc_parity: true, ..Faults::default() }, |cause| {
                *cause == Cause::Parity(Image::AgcSx1250)
            }),
            (Faults { agc_version: Some(9), ..Faults::default() }, |cause| {
                matches!(cause, Cause::FirmwareVersion { wanted: 10, found: 9, .. })
            }),
            (Faults { image_fails: true, ..Faults::default() }, |cause| {
                matches!(cause, Cause::Unexpected { found: 0x10, .. })
            }),
            (Faults { radio_busy: true, ..Faults::default() }, |cause| {
                matches!(cause, Cause::Unexpected { .. } | Cause::TimeOut { .. })
            }),
            (Faults { memory_bit: Some(0x1234), ..Faults::default() }, |cause| {
                *cause == Cause::ReadBack { image: Image::AgcSx1250, at: 0x1234 }
            }),
        ];
        for (faults, expected) in faults {
            let (cause, slept) = failing(Config::example_eu868(), faults.clone());
            assert!(expected(&cause), "{faults:?}: {cause:?}");
            assert!(slept < 3_000_000, "{faults:?}: {slept} us");
        }
    }

    #[test]
    fn wherever_the_bus_fails_the_start_ends_and_the_next_one_succeeds() {
        for from in (0..370).step_by(7) {
            let mut model = Model::new();
            model.faults.spi_fails_from = Some(from);
            let mut radio = Concentrator::new(model, Config::example_eu868(), Firmware::synthetic()).unwrap();
            let error = radio.start().unwrap_err();
            assert!(matches!(error.cause, Cause::Bus(_)), "{from}: {error}");
            assert!(!error.trail.is_empty());
            *radio.bus_mut() = Model::new();
            radio.start().unwrap();
        }
    }

    #[test]
    fn a_transmitter_that_does_not_stop_is_told_within_a_second() {
        let mut radio = start(Model::new(), Config::example_eu868());
        radio.send(&downlink(When::Now)).unwrap();
        radio.bus_mut().faults.tx_stuck = true;
        let before = radio.slept_us();
        let error = radio.abort(Chain::A).unwrap_err();
        assert!(matches!(error.cause, Cause::TimeOut { last: 0x60, .. }), "{error}");
        assert!(radio.slept_us() - before <= 1_000_000);
    }

    #[test]
    fn a_missing_sensor_costs_the_compensation_only() {
        let mut model = Model::new();
        model.faults.no_sensor = true;
        let mut radio = start(model, Config::example_eu868());
        assert_eq!(radio.celsius().unwrap(), None);
        radio.bus_mut().hear(&uplink(3200));
        assert_eq!(radio.receive(1).unwrap().packets[0].rssi_channel, 110.0 - 215.4);
    }

    #[test]
    fn a_sensor_that_falls_silent_costs_no_packet() {
        let mut radio = start(Model::new(), Config::example_eu868());
        radio.bus_mut().faults.no_sensor = true;
        radio.bus_mut().hear(&uplink(3200));
        assert_eq!(radio.receive(1).unwrap().packets.len(), 1);
    }

    #[test]
    fn what_cannot_be_is_refused_before_the_radio_is_touched() {
        let no = |change: fn(&mut Transmission)| {
            let mut radio = start(Model::new(), Config::example_eu868());
            let before = radio.bus_mut().transactions();
            let mut tx = downlink(When::Now);
            change(&mut tx);
            let error = radio.send(&tx).unwrap_err();
            assert!(matches!(error.cause, Cause::Config(_)), "{error}");
            assert_eq!(radio.bus_mut().transactions(), before);
        };
        no(|tx| tx.chain = Chain::B);
        no(|tx| tx.payload = vec![0; 256]);
        no(|tx| {
            tx.modulation = Modulation::Fsk {
                bitrate: 50_000,
                deviation_hz: 999,
                preamble: 5,
                crc: true,
                bandwidth: None,
            }
        });
    }

    #[test]
    fn fine_time_stamps_need_an_sx1303_and_full_duplex_older_radios() {
        let mut config = Config::example_eu868();
        config.fine_stamps = Some(FineStamps::HighCapacity);
        assert_eq!(failing(config, Faults::default()).0, Cause::NotAnSx1303(2));
        let mut config = Config::example_eu868();
        config.full_duplex = true;
        let (cause, _) = failing(config, Faults::default());
        assert!(matches!(cause, Cause::Unexpected { expected: 1, found: 0, .. }), "{cause:?}");
    }

    #[test]
    fn a_missing_image_is_told_before_anything_is_switched_on() {
        let firmware = Firmware { arbiter: None, ..Firmware::synthetic() };
        let mut radio = Concentrator::new(Model::new(), Config::example_eu868(), firmware).unwrap();
        let error = radio.start().unwrap_err();
        assert!(error.to_string().starts_with("the arbiter firmware is missing"), "{error}");
        assert_eq!(radio.bus_mut().transactions(), 0);
    }

    #[test]
    fn an_error_shows_the_last_events_of_the_bus() {
        let mut model = Model::new();
        model.faults.dead = true;
        let mut radio = Concentrator::new(model, Config::example_eu868(), Firmware::synthetic()).unwrap();
        let text = radio.start().unwrap_err().to_string();
        assert!(text.contains("spi out 0056060000 in ffffffffff"), "{text}");
    }
}
