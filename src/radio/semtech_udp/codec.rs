//! Bytes of the protocol: datagrams in, acknowledgements and PULL_RESP out.
//!
//! Header: version (1 or 2), token (2 bytes), type, then in what a gateway sends its EUI; the rest
//! is JSON, which may be padded with zero bytes and may carry keys that nobody here knows.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::fns::{AirError, Count, Sent, Tx};
use crate::lorawan::{GatewayEui, Modulation};

const PUSH_DATA: u8 = 0;
const PUSH_ACK: u8 = 1;
const PULL_DATA: u8 = 2;
const PULL_RESP: u8 = 3;
const PULL_ACK: u8 = 4;
const TX_ACK: u8 = 5;

/// Some forwarders leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A datagram that is not one of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Shorter than a header with an EUI.
    #[error("{0} bytes are too short")]
    Short(usize),
    /// Neither version 1 nor 2.
    #[error("protocol version {0}")]
    Version(u8),
    /// A type that no gateway sends.
    #[error("message type {0}")]
    Type(u8),
    /// The JSON is none, or has another shape.
    #[error("JSON: {0}")]
    Json(String),
}

/// A header, and the body as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// 1 or 2.
    pub version: u8,
    /// Chosen by the sender, echoed in the acknowledgement.
    pub token: [u8; 2],
    /// Which message.
    pub kind: Kind,
    /// Who sends.
    pub gateway: GatewayEui,
    /// JSON, or nothing.
    pub body: &'a [u8],
}

/// What gateways send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Frames heard and statistics.
    PushData,
    /// Keep-alive, and the way back for PULL_RESP.
    PullData,
    /// What came of a PULL_RESP.
    TxAck,
}

impl<'a> Datagram<'a> {
    /// Read the header; the body is looked at later, when the acknowledgement is out.
    pub fn parse(bytes: &'a [u8]) -> Result<Datagram<'a>, CodecError> {
        let Some((&[version, t0, t1, kind, ref eui @ ..], body)) = bytes.split_first_chunk::<12>() else {
            return Err(CodecError::Short(bytes.len()));
        };
        if !(1..=2).contains(&version) {
            return Err(CodecError::Version(version));
        }
        let kind = match kind {
            PUSH_DATA => Kind::PushData,
            PULL_DATA => Kind::PullData,
            TX_ACK => Kind::TxAck,
            other => return Err(CodecError::Type(other)),
        };
        Ok(Datagram { version, token: [t0, t1], kind, gateway: GatewayEui::from_msb(*eui), body })
    }

    /// The acknowledgement; a TX_ACK gets none.
    pub fn ack(&self) -> Option<[u8; 4]> {
        let kind = match self.kind {
            Kind::PushData => PUSH_ACK,
            Kind::PullData => PULL_ACK,
            Kind::TxAck => return None,
        };
        let [t0, t1] = self.token;
        Some([self.version, t0, t1, kind])
    }
}

/// Body of a PUSH_DATA.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Push {
    /// Frames, CRC good or none.
    pub frames: Vec<Frame>,
    /// Frames with a bad CRC.
    pub bad_crc: u64,
    /// Elements that are no frame of LoRaWAN (another modulation, a key missing, a wrong size).
    pub unreadable: u64,
    /// Degrees latitude, longitude.
    pub location: Option<(f64, f64)>,
}

/// One frame of `rxpk`.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The frame.
    pub phy: Vec<u8>,
    /// Hertz.
    pub frequency: u32,
    /// How it was modulated.
    pub modulation: Modulation,
    /// dBm.
    pub rssi: i32,
    /// dB.
    pub snr: f64,
    /// The counter at the end of the frame.
    pub tmst: Count,
    /// Nanoseconds since the last pulse of GPS.
    pub fine_time: Option<u32>,
}

/// An element that may have any shape: one that we cannot read must not cost its neighbours.
#[derive(Deserialize)]
#[serde(untagged)]
enum Lenient<T> {
    Good(T),
    Bad(IgnoredAny),
}

#[derive(Deserialize)]
struct PushJson {
    #[serde(default)]
    rxpk: Vec<Lenient<RxPk>>,
    #[serde(default)]
    stat: Option<Lenient<Stat>>,
}

#[derive(Deserialize)]
struct RxPk {
    tmst: u32,
    freq: f64,
    #[serde(default)]
    stat: Option<i8>,
    #[serde(default)]
    modu: Option<String>,
    datr: Datr,
    rssi: f64,
    #[serde(default)]
    lsnr: Option<f64>,
    #[serde(default)]
    ftime: Option<Lenient<u32>>,
    #[serde(default)]
    size: Option<usize>,
    data: String,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Datr {
    Text(String),
    Number(u32),
}

#[derive(Deserialize)]
struct Stat {
    #[serde(default)]
    lati: Option<f64>,
    #[serde(default)]
    long: Option<f64>,
}

impl Push {
    /// Read the body of a PUSH_DATA.
    pub fn parse(body: &[u8]) -> Result<Push, CodecError> {
        let json: PushJson = from_json(body)?;
        let mut push = Push::default();
        for element in json.rxpk {
            match element {
                Lenient::Good(rxpk) if rxpk.stat == Some(-1) => push.bad_crc += 1,
                Lenient::Good(rxpk) => match frame(&rxpk) {
                    Some(frame) => push.frames.push(frame),
                    None => push.unreadable += 1,
                },
                Lenient::Bad(_) => push.unreadable += 1,
            }
        }
        if let Some(Lenient::Good(Stat { lati: Some(lati), long: Some(long) })) = json.stat {
            let on_earth = (-90.0..=90.0).contains(&lati) && (-180.0..=180.0).contains(&long);
            // forwarders without a position say 0, 0
            push.location = (on_earth && (lati, long) != (0.0, 0.0)).then_some((lati, long));
        }
        Ok(push)
    }
}

fn frame(rxpk: &RxPk) -> Option<Frame> {
    let phy = BASE64.decode(&rxpk.data).ok()?;
    if !(1..=255).contains(&phy.len()) || rxpk.size.is_some_and(|size| size != phy.len()) {
        return None;
    }
    let modulation = match (rxpk.modu.as_deref(), &rxpk.datr) {
        (Some("LORA") | None, Datr::Text(text)) => {
            text.parse().ok().filter(|modulation| matches!(modulation, Modulation::Lora { .. }))?
        }
        (Some("FSK"), Datr::Number(bitrate)) => Modulation::Fsk { bitrate: *bitrate },
        (Some("FSK"), Datr::Text(text)) => Modulation::Fsk { bitrate: text.parse().ok()? },
        _ => return None,
    };
    let hertz = (rxpk.freq * 1e6).round();
    if !(1e6..=f64::from(u32::MAX)).contains(&hertz) {
        return None;
    }
    Some(Frame {
        phy,
        frequency: hertz as u32,
        modulation,
        rssi: rxpk.rssi.round() as i32,
        snr: rxpk.lsnr.unwrap_or(0.0),
        tmst: Count(rxpk.tmst),
        fine_time: match rxpk.ftime {
            Some(Lenient::Good(time @ 0..1_000_000_000)) => Some(time),
            _ => None,
        },
    })
}

/// `SF7BW125`.
#[derive(Deserialize)]
struct TxAckJson {
    txpk_ack: Option<TxPkAck>,
}

#[derive(Deserialize)]
struct TxPkAck {
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    warn: Option<String>,
    #[serde(default)]
    value: Option<f64>,
}

/// Read the body of a TX_ACK: what came of the frame. Nothing at all is success.
pub fn tx_ack(body: &[u8]) -> Result<Result<Sent, AirError>, CodecError> {
    if trimmed(body).is_empty() {
        return Ok(Ok(Sent { power: None }));
    }
    let json: TxAckJson = from_json(body)?;
    let Some(ack) = json.txpk_ack else { return Ok(Ok(Sent { power: None })) };
    Ok(match ack.error.as_deref() {
        None | Some("NONE" | "") => {
            let power = ack.value.filter(|_| ack.warn.as_deref() == Some("TX_POWER"));
            // `as` saturates
            Ok(Sent { power: power.map(|dbm| dbm.floor() as i8) })
        }
        Some("TOO_LATE") => Err(AirError::TooLate),
        Some("TOO_EARLY") => Err(AirError::TooEarly),
        Some("COLLISION_BEACON") => Err(AirError::CollisionBeacon),
        Some("TX_FREQ") => Err(AirError::Frequency),
        Some("TX_POWER") => Err(AirError::Power),
        Some("GPS_UNLOCKED") => Err(AirError::GpsUnlocked),
        // COLLISION_PACKET, and what this version does not know: the slot is refused, another may do
        Some(_) => Err(AirError::CollisionPacket),
    })
}

/// `brd` and `ant` stay out: some firmwares refuse the value 0.
#[derive(Serialize)]
struct TxPk {
    imme: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tmst: Option<u32>,
    freq: f64,
    rfch: u8,
    powe: i8,
    modu: &'static str,
    datr: Datr,
    #[serde(skip_serializing_if = "Option::is_none")]
    codr: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fdev: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipol: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ncrc: Option<bool>,
    size: usize,
    data: String,
}

#[derive(Serialize)]
struct PullResp {
    txpk: TxPk,
}

/// A PULL_RESP: a downlink to a device.
pub fn pull_resp(version: u8, token: [u8; 2], tx: &Tx) -> Vec<u8> {
    let lora = matches!(tx.modulation, Modulation::Lora { .. });
    let txpk = TxPk {
        imme: tx.at.is_none(),
        tmst: tx.at.map(|at| at.0),
        freq: f64::from(tx.frequency) / 1e6,
        rfch: 0,
        powe: tx.power,
        modu: if lora { "LORA" } else { "FSK" },
        datr: match tx.modulation {
            Modulation::Fsk { bitrate } => Datr::Number(bitrate),
            lora => Datr::Text(lora.to_string()),
        },
        codr: lora.then_some("4/5"),
        // RP002: 50 kbit/s with a deviation of 25 kHz
        fdev: (!lora).then_some(25_000),
        ipol: lora.then_some(true),
        // a LoRa downlink carries no payload CRC; an FSK frame always does
        ncrc: lora.then_some(true),
        size: tx.phy.len(),
        data: BASE64.encode(&tx.phy),
    };
    let [t0, t1] = token;
    let mut bytes = vec![version, t0, t1, PULL_RESP];
    // plain numbers and text: it cannot fail, and if it did the head would say nothing to a bare header
    bytes.extend(serde_json::to_vec(&PullResp { txpk }).unwrap_or_default());
    bytes
}

fn from_json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, CodecError> {
    serde_json::from_slice(trimmed(body)).map_err(|error| CodecError::Json(error.to_string()))
}

/// Without the zero bytes that pad it.
fn trimmed(body: &[u8]) -> &[u8] {
    let end = body.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    body.get(..end).unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Instant;
    use hex_literal::hex;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const GW: GatewayEui = GatewayEui::from_msb(hex!("AA555A0000000101"));

    fn fixture(name: &str) -> Vec<u8> {
        let path = format!("{}/tests/fixtures/semtech_udp/{name}.json", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).unwrap()
    }

    fn tx(modulation: Modulation) -> Tx {
        Tx {
            gateway: GW,
            session: 1,
            phy: hex!("60040302010000000102030405").to_vec(),
            frequency: 868_100_000,
            modulation,
            power: 14,
            at: Some(Count(3_512_348_611)),
            start: Instant::now(),
        }
    }

    #[test]
    fn a_header_is_read_and_acknowledged_with_its_token_and_version() {
        let bytes = hex!("02 1234 02 AA555A0000000101");
        let datagram = Datagram::parse(&bytes).unwrap();
        assert_eq!((datagram.kind, datagram.gateway), (Kind::PullData, GW));
        assert_eq!(datagram.ack(), Some(hex!("02 1234 04")));
        let bytes = hex!("01 FFFE 00 AA555A0000000101 7B7D");
        let datagram = Datagram::parse(&bytes).unwrap();
        assert_eq!(datagram.body, b"{}");
        assert_eq!(datagram.ack(), Some(hex!("01 FFFE 01")));
        assert_eq!(Datagram::parse(&hex!("02 1234 05 AA555A0000000101")).unwrap().ack(), None);
        assert_eq!(Datagram::parse(&hex!("03 1234 02 AA555A0000000101")), Err(CodecError::Version(3)));
        assert_eq!(Datagram::parse(&hex!("02 1234 03 AA555A0000000101")), Err(CodecError::Type(3)));
        assert_eq!(Datagram::parse(&hex!("02 1234 02 AA555A00000001")), Err(CodecError::Short(11)));
    }

    #[test]
    fn frames_are_read_as_the_reference_forwarder_writes_them() {
        let push = Push::parse(&fixture("push_reference")).unwrap();
        let [lora, fsk] = &push.frames[..] else { panic!("{push:?}") };
        assert_eq!(lora.frequency, 868_300_000);
        assert_eq!(lora.modulation, Modulation::Lora { sf: 7, bandwidth: 125_000 });
        assert_eq!((lora.rssi, lora.snr, lora.tmst), (-35, 9.5, Count(3_512_348_611)));
        assert_eq!(lora.phy, hex!("40DA1B01268001000102030405060708"));
        assert_eq!(fsk.modulation, Modulation::Fsk { bitrate: 50_000 });
        assert_eq!((push.bad_crc, push.unreadable), (1, 0));
        assert_eq!(push.location, Some((46.24, 3.2523)));
    }

    #[test]
    fn what_other_makes_send_is_read_too_and_a_bad_frame_costs_only_itself() {
        let mut body = fixture("push_odd");
        body.extend([0; 7]);
        let push = Push::parse(&body).unwrap();
        assert_eq!(push.frames.len(), 2, "{push:?}");
        assert_eq!(push.frames[0].phy, [1, 2, 3, 4], "without padding");
        assert_eq!(push.frames[1].frequency, 867_100_000);
        assert_eq!(push.unreadable, 8);
        assert_eq!(push.location, None);
        assert_eq!(Push::parse(br#"{"stat":{"lati":0,"long":0,"rxnb":2}}"#).unwrap(), Push::default());
        assert!(matches!(Push::parse(b"{\"rxpk\":["), Err(CodecError::Json(_))));
        assert!(Push::parse(b"").is_err());
    }

    #[test]
    fn a_downlink_has_the_keys_that_devices_and_forwarders_need() {
        let bytes = pull_resp(2, [0xAB, 0xCD], &tx(Modulation::Lora { sf: 9, bandwidth: 125_000 }));
        assert_eq!(bytes[..4], hex!("02 ABCD 03"));
        let json: Value = serde_json::from_slice(&bytes[4..]).unwrap();
        let expected = json!({"txpk": {
            "imme": false, "tmst": 3_512_348_611_u32, "freq": 868.1, "rfch": 0, "powe": 14,
            "modu": "LORA", "datr": "SF9BW125", "codr": "4/5", "ipol": true, "ncrc": true,
            "size": 13, "data": "YAQDAgEAAAABAgMEBQ==",
        }});
        assert_eq!(json, expected);

        let bytes = pull_resp(1, [0, 0], &tx(Modulation::Fsk { bitrate: 50_000 }));
        let json: Value = serde_json::from_slice(&bytes[4..]).unwrap();
        assert_eq!(json["txpk"]["datr"], 50_000);
        assert_eq!(json["txpk"]["fdev"], 25_000);
        assert_eq!(json["txpk"]["modu"], "FSK");
        assert!(json["txpk"].get("codr").is_none() && json["txpk"].get("ncrc").is_none());

        // class C: at once, whatever the head's counter is
        let now = Tx { at: None, ..tx(Modulation::Lora { sf: 9, bandwidth: 125_000 }) };
        let json: Value = serde_json::from_slice(&pull_resp(2, [0, 0], &now)[4..]).unwrap();
        assert_eq!((&json["txpk"]["imme"], json["txpk"].get("tmst")), (&json!(true), None));
    }

    #[test]
    fn what_came_of_a_downlink_is_read() {
        let taken = Ok(Sent { power: None });
        for success in [
            "",
            "\0\0\0",
            "{}",
            r#"{"txpk_ack":{"error":"NONE"}}"#,
            r#"{"txpk_ack":{}}"#,
            "{\"txpk_ack\":null}\0",
        ] {
            assert_eq!(tx_ack(success.as_bytes()), Ok(taken.clone()), "{success}");
        }
        let warned = br#"{"txpk_ack":{"warn":"TX_POWER","value":20}}"#;
        assert_eq!(tx_ack(warned), Ok(Ok(Sent { power: Some(20) })));
        for error in [
            AirError::TooLate,
            AirError::TooEarly,
            AirError::CollisionPacket,
            AirError::CollisionBeacon,
            AirError::Frequency,
            AirError::Power,
            AirError::GpsUnlocked,
        ] {
            let body = json!({"txpk_ack": {"error": error.to_string()}}).to_string();
            assert_eq!(tx_ack(body.as_bytes()), Ok(Err(error)));
        }
        assert_eq!(tx_ack(br#"{"txpk_ack":{"error":"NEW"}}"#), Ok(Err(AirError::CollisionPacket)));
        assert!(tx_ack(b"rubbish").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(datagram) = Datagram::parse(&bytes) {
                datagram.ack();
            }
            let _ = Push::parse(&bytes);
            let _ = tx_ack(&bytes);
        }

        #[test]
        fn no_json_makes_it_panic(
            tmst in any::<i64>(), freq in any::<f64>(), stat in any::<i16>(), rssi in any::<f64>(),
            lsnr in any::<f64>(), size in any::<i16>(), datr in "(SF|BW|[0-9]|\\PC){0,8}", data in "[A-Za-z0-9+/=_-]{0,400}",
            value in any::<f64>(),
        ) {
            let rxpk = json!({"tmst": tmst, "freq": freq, "stat": stat, "rssi": rssi, "lsnr": lsnr,
                "size": size, "datr": datr, "data": data});
            let body = json!({"rxpk": [rxpk, {}, null, 5], "stat": {"lati": lsnr, "long": rssi}}).to_string();
            let push = Push::parse(body.as_bytes()).unwrap();
            prop_assert!(push.frames.len() as u64 + push.bad_crc + push.unreadable == 4);
            let _ = tx_ack(json!({"txpk_ack": {"warn": "TX_POWER", "value": value}}).to_string().as_bytes());
        }

        #[test]
        fn a_frame_survives_the_way_through_json(
            phy in proptest::collection::vec(any::<u8>(), 1..=255), tmst in any::<u32>(),
            frequency in 100_000_000_u32..2_500_000_000, sf in 7_u8..=12,
        ) {
            let body = json!({"rxpk": [{"tmst": tmst, "freq": f64::from(frequency) / 1e6, "stat": 1, "modu": "LORA",
                "datr": format!("SF{sf}BW125"), "codr": "4/5", "rssi": -80, "lsnr": -7.5, "size": phy.len(),
                "data": BASE64.encode(&phy)}]});
            let push = Push::parse(body.to_string().as_bytes()).unwrap();
            let modulation = Modulation::Lora { sf, bandwidth: 125_000 };
            let frame = Frame { phy, frequency, modulation, rssi: -80, snr: -7.5, tmst: Count(tmst), fine_time: None };
            prop_assert_eq!(push.frames, vec![frame]);
        }
    }
}
