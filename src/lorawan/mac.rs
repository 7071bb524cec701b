//! MAC commands (TS001 5). Decode only after the MIC was found right.
//!
//! Uplink commands are walked by their lengths, because an unknown one ends the list: nobody can
//! know how long it is. Our own decoding, since `lrwn` panics on a DevStatusAns with reserved bits.

/// A command from the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UplinkCommand {
    /// LinkCheckReq: how well am I heard?
    LinkCheckReq,
    /// DeviceTimeReq: what time is it at the end of this uplink?
    DeviceTimeReq,
    /// DevStatusAns.
    DevStatusAns {
        /// 0 external power, 1 to 254 level, 255 unknown.
        battery: u8,
        /// -32 to 31 dB.
        margin: i8,
    },
    /// LinkADRAns.
    LinkAdrAns {
        /// ChannelMaskACK, DataRateACK, PowerACK from the lowest bit.
        status: u8,
    },
    /// TxParamSetupAns.
    TxParamSetupAns,
    /// ResetInd, of personalised 1.1 devices: what commands had set is as it was at first.
    ResetInd {
        /// Minor LoRaWAN version of the device.
        minor: u8,
    },
    /// RekeyInd, of 1.1 devices that joined: the new keys are in use.
    RekeyInd {
        /// Minor LoRaWAN version of the device.
        minor: u8,
    },
    /// DeviceModeInd, of 1.1 devices: the class it has now.
    DeviceModeInd {
        /// 0 class A, 2 class C.
        class: u8,
    },
    /// Another command of 1.0.x or 1.1, recognised by its length and not acted on.
    Other(u8),
}

/// Walk the commands of FOpts or of an FPort 0 payload; stops at the first unknown or cut one.
pub fn uplink_commands(mut bytes: &[u8]) -> Vec<UplinkCommand> {
    let mut commands = Vec::new();
    while let [cid, rest @ ..] = bytes {
        let length = match cid {
            0x02 | 0x04 | 0x08 | 0x09 | 0x0C | 0x0D | 0x12 => 0,
            0x01 | 0x03 | 0x05 | 0x07 | 0x0A | 0x0B | 0x0F | 0x10 | 0x11 | 0x13 | 0x20 => 1,
            0x06 => 2,
            _ => break,
        };
        let Some((arguments, next)) = rest.split_at_checked(length) else { break };
        commands.push(match (cid, arguments) {
            (0x02, _) => UplinkCommand::LinkCheckReq,
            (0x0D, _) => UplinkCommand::DeviceTimeReq,
            (0x03, &[status]) => UplinkCommand::LinkAdrAns { status },
            (0x09, _) => UplinkCommand::TxParamSetupAns,
            // the minor version has four bits, the others are reserved
            (0x01, &[version]) => UplinkCommand::ResetInd { minor: version & 0x0F },
            (0x0B, &[version]) => UplinkCommand::RekeyInd { minor: version & 0x0F },
            (0x20, &[class]) => UplinkCommand::DeviceModeInd { class },
            (0x06, &[battery, margin]) => UplinkCommand::DevStatusAns {
                battery,
                // six bits, signed; the two reserved bits are ignored
                margin: (margin << 2) as i8 >> 2,
            },
            _ => UplinkCommand::Other(*cid),
        });
        bytes = next;
    }
    commands
}

/// LinkCheckAns: demodulation margin in dB (0 to 254) and number of gateways.
pub fn link_check_ans(margin: u8, gateways: u8) -> [u8; 3] {
    [0x02, margin.min(254), gateways]
}

/// DeviceTimeAns: GPS time at the end of the uplink, seconds and 1/256 s.
pub fn device_time_ans(gps_seconds: u32, fraction_256: u8) -> [u8; 6] {
    let s = gps_seconds.to_le_bytes();
    [0x0D, s[0], s[1], s[2], s[3], fraction_256]
}

/// The minor version that we speak with devices of 1.1 and above.
const MINOR: u8 = 1;

/// ResetConf: LoRaWAN 1.1 is spoken.
pub fn reset_conf() -> [u8; 2] {
    [0x01, MINOR]
}

/// RekeyConf: LoRaWAN 1.1 is spoken.
pub fn rekey_conf() -> [u8; 2] {
    [0x0B, MINOR]
}

/// DeviceModeConf: the class as the device said it.
pub fn device_mode_conf(class: u8) -> [u8; 2] {
    [0x20, class]
}

/// ForceRejoinReq (TS001 1.1, 5.13): a Rejoin-request of type 0 or 2 at this data rate, and again after 32 s, 64 s .. until it
/// is answered.
pub fn force_rejoin_req(kind: u8, data_rate: u8) -> [u8; 3] {
    // Period in bits 13 to 11, Max_Retries in 10 to 8
    const RETRIES: u16 = 0b111 << 8;
    let bits = RETRIES | u16::from(kind & 0b111) << 4 | u16::from(data_rate & 0b1111);
    [0x0E, bits as u8, (bits >> 8) as u8]
}

/// GPS time of a UTC instant: whole seconds since 1980-01-06 and 1/256 s.
pub fn gps_time(utc: jiff::Timestamp) -> (u32, u8) {
    /// UTC second from which GPS is ahead by so many seconds (IERS Bulletin C). Earlier rows are
    /// older than any device that asks.
    const AHEAD: [(i64, i64); 3] = [(1_341_100_800, 16), (1_435_708_800, 17), (1_483_228_800, 18)];
    const GPS_EPOCH: i64 = 315_964_800;
    let second = utc.as_second();
    let ahead = AHEAD.iter().rev().find(|(from, _)| second >= *from).map_or(15, |(_, ahead)| *ahead);
    let fraction = utc.subsec_nanosecond().clamp(0, 999_999_999) / 3_906_250;
    // 32 bits of GPS seconds last until 2116
    ((second - GPS_EPOCH + ahead).max(0) as u32, fraction as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_device_is_told_to_rejoin_with_its_type_at_its_data_rate() {
        // seven retries, the shortest period, type 2, DR5
        assert_eq!(force_rejoin_req(2, 5), [0x0E, 0x25, 0x07]);
        assert_eq!(force_rejoin_req(0, 0), [0x0E, 0x00, 0x07]);
    }

    #[test]
    fn commands_are_walked_by_length_and_stop_at_an_unknown_one() {
        let walked = uplink_commands(&[0x03, 0x07, 0x02, 0x06, 0xFF, 0xE0, 0x0D, 0x7F, 0x02]);
        let margin = UplinkCommand::DevStatusAns { battery: 255, margin: -32 };
        use UplinkCommand::*;
        assert_eq!(walked, [LinkAdrAns { status: 7 }, LinkCheckReq, margin, DeviceTimeReq]);
    }

    #[test]
    fn commands_of_1_1_have_their_lengths() {
        use UplinkCommand::*;
        let indications = [0x0B, 0xF1, 0x0C, 0x0F, 0x03, 0x01, 0x01, 0x20, 0x02, 0x12, 0x02];
        let expected = [
            RekeyInd { minor: 1 },
            Other(0x0C),
            Other(0x0F),
            ResetInd { minor: 1 },
            DeviceModeInd { class: 2 },
            Other(0x12),
            LinkCheckReq,
        ];
        assert_eq!(uplink_commands(&indications), expected);
        for cut in [0x01, 0x0B, 0x0F, 0x20] {
            assert_eq!(uplink_commands(&[0x02, cut]), [LinkCheckReq]);
        }
        // ForceRejoinReq has no answer, so nobody knows how long one would be
        assert_eq!(uplink_commands(&[0x02, 0x0E, 0x02]), [LinkCheckReq]);
    }

    #[test]
    fn gps_time_is_ahead_of_utc_by_the_leap_seconds_of_its_year() {
        let at = |text: &str| gps_time(text.parse().unwrap());
        assert_eq!(at("2016-12-31T23:59:59Z"), (1_167_264_016, 0));
        assert_eq!(at("2017-01-01T00:00:00Z"), (1_167_264_018, 0));
        assert_eq!(at("2026-11-20T10:15:42.5Z").1, 128);
    }

    #[test]
    fn a_cut_command_is_dropped() {
        assert_eq!(uplink_commands(&[0x02, 0x06, 0x01]), [UplinkCommand::LinkCheckReq]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_to_their_end_or_to_the_first_unknown(bytes in proptest::collection::vec(any::<u8>(), 0..250)) {
            let walked = uplink_commands(&bytes);
            prop_assert!(walked.len() <= bytes.len());
            for command in walked {
                if let UplinkCommand::DevStatusAns { margin, .. } = command {
                    prop_assert!((-32..=31).contains(&margin));
                }
            }
        }
    }
}
