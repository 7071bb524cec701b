//! The receive buffer: from bytes to packets, pure.
//!
//! A damaged packet costs itself only: the good ones of a fetch are returned, the others are counted.

/// A packet starts so.
pub const SYNC: [u8; 2] = [0xa5, 0xc0];
/// Bytes of the shortest packet.
pub const SHORTEST: usize = 23;
const HEAD: usize = 9;

/// A packet as the chip stored it: shape, checksum and ranges are right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawPacket {
    /// IF chain, 0 to 9.
    pub channel: u8,
    /// Whether the packet says that it has a CRC.
    pub crc_present: bool,
    /// Coding rate, 1 to 4 where the header had a meaningful one.
    pub coding_rate: u8,
    /// Spreading factor; 5 to 12 for LoRa.
    pub sf: u8,
    /// 0 to 15 multi-SF, 16 service, 17 FSK.
    pub modem: u8,
    /// In units of the modem.
    pub freq_offset: i32,
    /// Payload CRC does not fit.
    pub crc_error: bool,
    /// Sync word was doubtful.
    pub sync_error: bool,
    /// Header was wrong.
    pub header_error: bool,
    /// Came from the demodulator that is tuned for time stamps.
    pub timing_set: bool,
    /// Quarters of a dB.
    pub snr: i8,
    /// Without offset.
    pub rssi_channel: u8,
    /// Without offset.
    pub rssi_signal: u8,
    /// Ticks of 32 MHz.
    pub stamp: u32,
    /// As received.
    pub crc16: u16,
    /// Differences of fine positions, two for each metric.
    pub metrics: Vec<i8>,
    /// What was sent.
    pub payload: Vec<u8>,
}

/// Modem of FSK packets.
pub const FSK_MODEM: u8 = 17;

/// What was wrong in one or many fetches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Damage {
    /// The checksum over a packet was wrong.
    pub checksum: u32,
    /// A packet was longer than what was left.
    pub truncated: u32,
    /// A packet had an impossible channel, modem or spreading factor.
    pub range: u32,
    /// The chip called a payload good whose CRC is wrong.
    pub payload: u32,
    /// Bytes that belong to no packet.
    pub skipped_bytes: u32,
}

impl Damage {
    /// Whether everything was right.
    pub fn is_none(&self) -> bool {
        *self == Damage::default()
    }

    /// Adds what another fetch had.
    pub fn add(&mut self, other: Damage) {
        self.checksum = self.checksum.saturating_add(other.checksum);
        self.truncated = self.truncated.saturating_add(other.truncated);
        self.range = self.range.saturating_add(other.range);
        self.payload = self.payload.saturating_add(other.payload);
        self.skipped_bytes = self.skipped_bytes.saturating_add(other.skipped_bytes);
    }
}

/// What a fetch held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The good ones, in their order.
    pub packets: Vec<RawPacket>,
    /// The rest.
    pub damage: Damage,
}

enum Bad {
    Checksum,
    Truncated,
    Range,
}

/// Takes a fetch apart.
pub fn parse(mut bytes: &[u8]) -> Batch {
    let mut batch = Batch::default();
    loop {
        let start = bytes.windows(2).position(|pair| pair == SYNC).unwrap_or(bytes.len());
        batch.damage.skipped_bytes += start as u32;
        bytes = &bytes[start..];
        if bytes.is_empty() {
            return batch;
        }
        let skip = match packet(bytes) {
            Ok((packet, length)) => {
                batch.packets.push(packet);
                length
            }
            // Its length was right: the next one begins behind it.
            Err((Bad::Range, length)) => {
                batch.damage.range += 1;
                length
            }
            // Its length may be what is wrong: look for the next start inside.
            Err((bad, _)) => {
                match bad {
                    Bad::Checksum => batch.damage.checksum += 1,
                    _ => batch.damage.truncated += 1,
                }
                let next = bytes[2..].windows(2).position(|pair| pair == SYNC);
                next.map_or(bytes.len(), |next| next + 2)
            }
        };
        bytes = bytes.get(skip..).unwrap_or(&[]);
    }
}

/// The packet at the start of `bytes`, and how long it is.
fn packet(bytes: &[u8]) -> Result<(RawPacket, usize), (Bad, usize)> {
    let at = |index: usize| bytes.get(index).copied().ok_or((Bad::Truncated, 0));
    let size = usize::from(at(2)?);
    let tail = HEAD + size;
    let metrics = 2 * usize::from(at(tail + 12)?);
    let end = tail + 13 + metrics;
    let checksum = at(end)?;
    let sum = bytes[..end].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    if sum != checksum {
        return Err((Bad::Checksum, 0));
    }
    let flags = bytes[tail];
    let packet = RawPacket {
        channel: bytes[3],
        crc_present: bytes[4] & 1 != 0,
        coding_rate: bytes[4] >> 1 & 7,
        sf: bytes[4] >> 4,
        modem: bytes[5],
        freq_offset: {
            let raw = i32::from(bytes[6]) | i32::from(bytes[7]) << 8 | i32::from(bytes[8] & 0x0f) << 16;
            if raw >= 1 << 19 { raw - (1 << 20) } else { raw }
        },
        crc_error: flags & 1 != 0,
        sync_error: flags & 4 != 0,
        header_error: flags & 8 != 0,
        timing_set: flags & 16 != 0,
        snr: bytes[tail + 1] as i8,
        rssi_channel: bytes[tail + 2],
        rssi_signal: bytes[tail + 3],
        stamp: u32::from_le_bytes([bytes[tail + 6], bytes[tail + 7], bytes[tail + 8], bytes[tail + 9]]),
        crc16: u16::from_le_bytes([bytes[tail + 10], bytes[tail + 11]]),
        metrics: bytes[tail + 13..end].iter().map(|byte| *byte as i8).collect(),
        payload: bytes[HEAD..tail].to_vec(),
    };
    let lora = packet.modem < FSK_MODEM;
    let possible =
        packet.modem <= FSK_MODEM && packet.channel <= 9 && (!lora || (5..=12).contains(&packet.sf));
    if possible { Ok((packet, end + 1)) } else { Err((Bad::Range, end + 1)) }
}

impl RawPacket {
    /// A sound LoRa packet of SF7 on channel 0; for examples and measurements.
    pub fn example(payload: Vec<u8>) -> RawPacket {
        RawPacket {
            crc_present: true,
            coding_rate: 1,
            sf: 7,
            modem: 1,
            snr: 30,
            rssi_channel: 110,
            rssi_signal: 110,
            crc16: payload_crc(&payload),
            payload,
            ..RawPacket::default()
        }
    }
}

/// Writes a packet as the chip does: the other direction, for the model and for tests.
pub fn encode(packet: &RawPacket) -> Vec<u8> {
    let raw = packet.freq_offset as u32;
    let mut bytes = vec![
        SYNC[0],
        SYNC[1],
        packet.payload.len() as u8,
        packet.channel,
        u8::from(packet.crc_present) | packet.coding_rate << 1 | packet.sf << 4,
        packet.modem,
        raw as u8,
        (raw >> 8) as u8,
        (raw >> 16) as u8 & 0x0f,
    ];
    bytes.extend(&packet.payload);
    bytes.push(
        u8::from(packet.crc_error)
            | u8::from(packet.sync_error) << 2
            | u8::from(packet.header_error) << 3
            | u8::from(packet.timing_set) << 4,
    );
    bytes.extend([packet.snr as u8, packet.rssi_channel, packet.rssi_signal, 0, 0]);
    bytes.extend(packet.stamp.to_le_bytes());
    bytes.extend(packet.crc16.to_le_bytes());
    bytes.push((packet.metrics.len() / 2) as u8);
    bytes.extend(packet.metrics.iter().map(|metric| *metric as u8));
    bytes.push(bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
    bytes
}

/// CRC of a LoRa payload: CCITT over all but the last two bytes, which are XORed in.
pub fn payload_crc(payload: &[u8]) -> u16 {
    payload.iter().fold(0, |crc: u16, byte| {
        let shifted = (0..8).fold(crc, |crc, _| if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 });
        shifted ^ u16::from(*byte)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn any_packet()(
            (channel, modem) in (0..=9u8, 0..=17u8),
            (crc_present, crc_error, sync_error, header_error, timing_set) in any::<(bool, bool, bool, bool, bool)>(),
            (coding_rate, sf) in (0..=7u8, 5..=12u8),
            freq_offset in -(1i32 << 19)..(1i32 << 19),
            (snr, rssi_channel, rssi_signal) in any::<(i8, u8, u8)>(),
            (stamp, crc16) in any::<(u32, u16)>(),
            metrics in proptest::collection::vec(any::<(i8, i8)>(), 0..40),
            payload in proptest::collection::vec(any::<u8>(), 0..=255),
        ) -> RawPacket {
            RawPacket {
                channel, crc_present, coding_rate, sf, modem, freq_offset, crc_error, sync_error, header_error,
                timing_set, snr, rssi_channel, rssi_signal, stamp, crc16,
                metrics: metrics.into_iter().flat_map(|(a, b)| [a, b]).collect(),
                payload,
            }
        }
    }

    #[test]
    fn the_crc_of_one_byte_is_the_byte() {
        assert_eq!(payload_crc(&[]), 0);
        assert_eq!(payload_crc(&[0xa7]), 0xa7);
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(packets in proptest::collection::vec(any_packet(), 0..6)) {
            let bytes: Vec<u8> = packets.iter().flat_map(encode).collect();
            prop_assert_eq!(parse(&bytes), Batch { packets, damage: Damage::default() });
        }

        #[test]
        fn foreign_bytes_are_no_trouble(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let batch = parse(&bytes);
            prop_assert!(batch.damage.skipped_bytes as usize <= bytes.len());
        }

        #[test]
        fn foreign_bytes_with_starts_are_no_trouble(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let bytes: Vec<u8> = parts.into_iter().flat_map(|part| [&SYNC[..], &part].concat()).collect();
            let _ = parse(&bytes);
        }

        #[test]
        fn one_damaged_byte_costs_one_packet_at_most(
            before in any_packet(), hit in any_packet(), after in any_packet(), at in any::<prop::sample::Index>(), flip in 1..=255u8,
        ) {
            // Without a false start inside: only the damaged packet may go.
            prop_assume!([&before, &hit, &after].iter().all(|packet| !encode(packet)[1..].windows(2).any(|pair| pair == SYNC)));
            let mut damaged = encode(&hit);
            let at = at.index(damaged.len());
            damaged[at] ^= flip;
            prop_assume!(!damaged[1..].windows(2).any(|pair| pair == SYNC));
            // A damaged length can fit the eight bits of the checksum by chance: then nobody sees that it is damaged.
            let seen = packet(&[damaged.clone(), encode(&after)].concat());
            let fooled = matches!(seen, Ok((_, length)) | Err((Bad::Range, length)) if length != damaged.len());
            prop_assume!(!fooled);
            let bytes = [encode(&before), damaged, encode(&after)].concat();
            let batch = parse(&bytes);
            prop_assert!(batch.packets.contains(&before) && batch.packets.contains(&after));
        }

        #[test]
        fn a_cut_fetch_keeps_what_is_whole(packets in proptest::collection::vec(any_packet(), 1..4), cut in 1..300usize) {
            let bytes: Vec<u8> = packets.iter().flat_map(encode).collect();
            let last = encode(packets.last().unwrap()).len();
            let batch = parse(&bytes[..bytes.len() - cut.min(last)]);
            prop_assert!(batch.packets.len() >= packets.len() - 1);
            prop_assert_eq!(&batch.packets[..packets.len() - 1], &packets[..packets.len() - 1]);
        }
    }
}
