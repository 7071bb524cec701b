//! Events as JSON, and the JSON of a downlink command, in the form of ChirpStack 4 (its protobuf messages, JSON mapping).
//!
//! Owns every name in that JSON. Of the event itself all fields are there, defaults too; of the nested radio objects
//! only what is known.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::outbox::{Event, Kind};
use crate::backend::message::{GwInfo, UlMeta, XmitAns};
use crate::hns::{Activation, Device, QueueItem};
use crate::lorawan::{DevEui, Modulation, Region};

/// A UUID of nobody: what has no counterpart here.
const NIL: &str = "00000000-0000-0000-0000-000000000000";
/// The longest FRMPayload of any region and data rate, in bytes.
const PAYLOAD_LIMIT: usize = 242;

/// Writes events.
#[derive(Debug, Clone)]
pub struct Events {
    /// UUID, in small letters.
    pub application_id: String,
    /// The operator's word for it.
    pub application_name: String,
    /// Of the home network.
    pub region: Region,
}

/// How much a log event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Level {
    Warning,
    Error,
}

impl Events {
    /// `up`: the decrypted payload of an uplink.
    pub fn up(&self, device: &Device, activation: &Activation, ul: &UlMeta, payload: &[u8]) -> Event {
        let id = uplink_id("up", device.dev_eui, activation, ul);
        let uplink_number = u32::from_be_bytes([id[0], id[1], id[2], id[3]]);
        let region = self.region_of(ul);
        let config_id = region.to_string().to_ascii_lowercase();
        let rx_info = |(at, gw): (usize, &GwInfo)| {
            rx_info(gw, uplink_number.wrapping_add(at as u32), ul.recv_time, &config_id, &region)
        };
        let body = json!({
            "deduplicationId": uuid(id),
            "time": ul.recv_time.to_string(),
            "deviceInfo": self.device_info(device),
            "devAddr": activation.dev_addr.to_string().to_ascii_lowercase(),
            "adr": ul.adr,
            "dr": ul.data_rate.unwrap_or_default(),
            "fCnt": ul.fcnt_up.unwrap_or_default(),
            "fPort": ul.f_port.unwrap_or_default(),
            "confirmed": ul.confirmed,
            "data": BASE64.encode(payload),
            "object": null,
            "rxInfo": ul.gw_info.iter().enumerate().map(rx_info).collect::<Vec<_>>(),
            "txInfo": tx_info(ul.ul_freq, ul.data_rate.and_then(|rate| region.modulation(rate))),
            "relayRxInfo": null,
            "joinServerContext": null,
            "regionConfigId": config_id,
        });
        event(device, Kind::Up, &body)
    }

    /// `join`: told with the first uplink of a session, when it is known that the device has heard the Join-accept.
    pub fn join(&self, device: &Device, activation: &Activation, ul: &UlMeta) -> Event {
        let body = json!({
            "deduplicationId": uuid(uplink_id("join", device.dev_eui, activation, ul)),
            "time": ul.recv_time.to_string(),
            "deviceInfo": self.device_info(device),
            "devAddr": activation.dev_addr.to_string().to_ascii_lowercase(),
            "relayRxInfo": null,
            "joinServerContext": null,
            "regionConfigId": self.region_of(ul).to_string().to_ascii_lowercase(),
        });
        event(device, Kind::Join, &body)
    }

    /// `ack`: the device has acknowledged a confirmed downlink, or we have given it up.
    pub fn ack(
        &self,
        device: &Device,
        item: &str,
        fcnt_down: u32,
        acknowledged: bool,
        at: Timestamp,
    ) -> Event {
        let place = format!("ack {} {item} {fcnt_down} {acknowledged}", device.dev_eui);
        let body = json!({
            "deduplicationId": derived(place.as_bytes()),
            "time": at.to_string(),
            "deviceInfo": self.device_info(device),
            "queueItemId": item,
            "acknowledged": acknowledged,
            "fCntDown": fcnt_down,
        });
        event(device, Kind::Ack, &body)
    }

    /// `txack`: a network has taken the downlink for its radio.
    pub fn tx_ack(
        &self,
        device: &Device,
        item: &str,
        fcnt_down: u32,
        taken: &XmitAns,
        at: Timestamp,
    ) -> Event {
        let number = digest(format!("txack {} {item} {fcnt_down}", device.dev_eui).as_bytes());
        let body = json!({
            "downlinkId": u32::from_be_bytes([number[0], number[1], number[2], number[3]]),
            "time": at.to_string(),
            "deviceInfo": self.device_info(device),
            "queueItemId": item,
            "fCntDown": fcnt_down,
            // another network that transmits names no gateway to the home network
            "gatewayId": taken.radiated.as_ref().map(|by| by.gateway.to_string().to_ascii_lowercase()).unwrap_or_default(),
            "txInfo": down_info(taken),
        });
        event(device, Kind::TxAck, &body)
    }

    /// `log`: something that the owner of the application should know.
    /// `item`: the downlink that it is about.
    pub fn log(
        &self,
        device: &Device,
        level: Level,
        code: &str,
        description: &str,
        item: Option<&str>,
        at: Timestamp,
    ) -> Event {
        let context = item.map_or_else(|| json!({}), |item| json!({ "queue_item_id": item }));
        let body = json!({
            "time": at.to_string(),
            "deviceInfo": self.device_info(device),
            "level": match level { Level::Warning => "WARNING", Level::Error => "ERROR" },
            "code": code,
            "description": description,
            "context": context,
        });
        event(device, Kind::Log, &body)
    }

    /// Where an event is published.
    pub fn topic(&self, event: &Event) -> String {
        let eui = event.dev_eui.to_string().to_ascii_lowercase();
        format!("application/{}/device/{eui}/event/{}", self.application_id, event.kind)
    }

    /// Where commands for all devices come in.
    pub fn command_filter(&self) -> String {
        format!("application/{}/device/+/command/down", self.application_id)
    }

    /// The device that a command's topic names.
    pub fn device_of(&self, topic: &str) -> Option<DevEui> {
        let rest = topic.strip_prefix("application/")?.strip_prefix(self.application_id.as_str())?;
        rest.strip_prefix("/device/")?.strip_suffix("/command/down")?.parse().ok()
    }

    fn device_info(&self, device: &Device) -> Value {
        let dev_eui = device.dev_eui.to_string().to_ascii_lowercase();
        let name = if device.name.is_empty() { dev_eui.as_str() } else { device.name.as_str() };
        json!({
            "tenantId": NIL,
            "tenantName": "roamgate",
            "applicationId": self.application_id,
            "applicationName": self.application_name,
            "deviceProfileId": NIL,
            "deviceProfileName": format!("LoRaWAN {}", device.mac_version),
            "deviceName": name,
            "devEui": dev_eui,
            "deviceClassEnabled": "CLASS_A",
            "tags": {},
        })
    }

    /// The plan in which an uplink was heard: a visitor's may be another.
    fn region_of(&self, ul: &UlMeta) -> Region {
        let named = ul.rf_region.as_deref().and_then(|name| name.parse().ok());
        named.unwrap_or_else(|| self.region.clone())
    }
}

fn event(device: &Device, kind: Kind, body: &Value) -> Event {
    Event { dev_eui: device.dev_eui, kind, body: body.to_string() }
}

fn rx_info(gw: &GwInfo, uplink: u32, at: Timestamp, config_id: &str, region: &Region) -> Value {
    let mut info = Map::new();
    let id = gw.id.as_deref().map(hex::encode).unwrap_or_default();
    info.insert("gatewayId".into(), format!("{id:0>16}").into());
    info.insert("uplinkId".into(), uplink.into());
    info.insert("nsTime".into(), at.to_string().into());
    if let Some(rssi) = gw.rssi.filter(|rssi| *rssi != 0) {
        info.insert("rssi".into(), rssi.into());
    }
    if let Some(snr) = gw.snr.filter(|snr| *snr != 0.0) {
        info.insert("snr".into(), snr.into());
    }
    if let (Some(lat), Some(lon)) = (gw.lat, gw.lon) {
        info.insert("location".into(), json!({ "latitude": lat, "longitude": lon }));
    }
    let metadata = json!({ "region_config_id": config_id, "region_common_name": region.to_string() });
    info.insert("metadata".into(), metadata);
    info.insert("crcStatus".into(), "CRC_OK".into());
    info.into()
}

fn tx_info(frequency: Option<u32>, modulation: Option<Modulation>) -> Value {
    let mut info = Map::new();
    if let Some(frequency) = frequency {
        info.insert("frequency".into(), frequency.into());
    }
    let modulation = modulation.map(|modulation| match modulation {
        Modulation::Lora { sf, bandwidth } => json!({
            "lora": { "bandwidth": bandwidth, "spreadingFactor": sf, "codeRate": "CR_4_5" }
        }),
        Modulation::Fsk { bitrate } => {
            json!({ "fsk": { "frequencyDeviation": 25_000, "datarate": bitrate } })
        }
    });
    info.extend(modulation.map(|modulation| ("modulation".to_string(), modulation)));
    info.into()
}

/// How a downlink goes out.
fn down_info(taken: &XmitAns) -> Value {
    let Some(by) = &taken.radiated else { return tx_info(taken.dl_freq1.or(taken.dl_freq2), None) };
    let mut info = tx_info(Some(by.frequency), Some(by.modulation));
    if let Some(lora) = info.pointer_mut("/modulation/lora") {
        // so that devices hear it and other gateways do not
        lora["polarizationInversion"] = true.into();
    }
    if let Some(power) = by.power.filter(|power| *power != 0) {
        info["power"] = power.into();
    }
    info
}

/// The same for every delivery of the same uplink, so that a reader knows a repetition.
fn uplink_id(what: &str, dev_eui: DevEui, activation: &Activation, ul: &UlMeta) -> [u8; 16] {
    let session = hex::encode(activation.session_key_id.as_deref().unwrap_or_default());
    let (addr, created) = (activation.dev_addr, activation.created);
    digest(format!("{what} {dev_eui} {addr} {session} {created} {:?}", ul.fcnt_up).as_bytes())
}

fn digest(bytes: &[u8]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&Sha256::digest(bytes)[..16]);
    half
}

/// A UUID of our own making (RFC 9562 version 8) that follows from these bytes.
pub fn derived(bytes: &[u8]) -> String {
    uuid(digest(bytes))
}

fn uuid(bytes: [u8; 16]) -> String {
    written(bytes, 0x80)
}

/// A random UUID (RFC 9562 version 4) from fresh random bytes.
fn random_uuid(bytes: [u8; 16]) -> String {
    written(bytes, 0x40)
}

fn written(mut bytes: [u8; 16], version: u8) -> String {
    bytes[6] = bytes[6] & 0x0F | version;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let text = hex::encode(bytes);
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

/// Whether this is a UUID as people write it.
pub fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    lengths == [8, 4, 4, 4, 12] && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A command that is not obeyed: the application's move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No JSON, or not of this form.
    #[error("the command cannot be read: {0}")]
    Form(String),
    /// Topic and body contradict each other.
    #[error("the command names devEui {0:?}, its topic another device")]
    OtherDevice(String),
    /// 0 is the network's own, 224 and above are not for applications.
    #[error("fPort {0} is not for applications: use 1 to 223")]
    Port(u32),
    /// Standard base64.
    #[error("data is not base64: {0}")]
    Data(String),
    /// More than any data rate carries.
    #[error("{0} bytes are more than any data rate carries ({PAYLOAD_LIMIT})")]
    Size(usize),
    /// Only the codec of the device could.
    #[error("object cannot be encoded, there is no codec: send data")]
    Object,
    /// An id that could not come back as queueItemId.
    #[error("id is no UUID")]
    Id,
    /// RFC 3339.
    #[error("expiresAt is no time as 2026-11-20T10:00:00Z: {0:?}")]
    Expires(String),
    /// Sent after its time it might do harm.
    #[error("the command came after its time: expiresAt is {0}")]
    Expired(Timestamp),
}

impl CommandError {
    /// The code of the `log` event.
    pub fn code(&self) -> &'static str {
        match self {
            CommandError::Size(_) => "DOWNLINK_PAYLOAD_SIZE",
            CommandError::Object => "DOWNLINK_CODEC",
            CommandError::Expired(_) => "EXPIRED",
            _ => "UNKNOWN",
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Command {
    #[serde(alias = "dev_eui")]
    dev_eui: String,
    #[serde(default)]
    confirmed: bool,
    #[serde(default, alias = "f_port")]
    f_port: u32,
    data: Option<String>,
    object: Option<Value>,
    #[serde(default)]
    id: Option<String>,
    #[serde(alias = "expires_at")]
    expires_at: Option<String>,
}

/// Read a downlink command for this device, that came at `now`. `random` names it where it has no name.
pub fn command(
    dev_eui: DevEui,
    body: &[u8],
    now: Timestamp,
    random: [u8; 16],
) -> Result<QueueItem, CommandError> {
    let command: Command =
        serde_json::from_slice(body).map_err(|error| CommandError::Form(error.to_string()))?;
    if command.dev_eui.parse() != Ok(dev_eui) {
        return Err(CommandError::OtherDevice(command.dev_eui.chars().take(40).collect()));
    }
    let expires = command.expires_at.as_deref().map(|text| expiry(text, now)).transpose()?;
    let port = u8::try_from(command.f_port).ok().filter(|port| (1..=223).contains(port));
    let f_port = port.ok_or(CommandError::Port(command.f_port))?;
    let payload = match (command.data, command.object) {
        (None, Some(_)) => return Err(CommandError::Object),
        (data, _) => BASE64.decode(data.unwrap_or_default().trim()),
    };
    let payload = payload.map_err(|error| CommandError::Data(error.to_string()))?;
    if payload.len() > PAYLOAD_LIMIT {
        return Err(CommandError::Size(payload.len()));
    }
    let id = match command.id.filter(|id| !id.is_empty()) {
        Some(id) if is_uuid(&id) => id.to_ascii_lowercase(),
        Some(_) => return Err(CommandError::Id),
        None => random_uuid(random),
    };
    Ok(QueueItem { id, f_port, payload, confirmed: command.confirmed, sent_as: None, attempts: 0, expires })
}

/// Whole seconds since 1970: rather a moment early than late.
fn expiry(text: &str, now: Timestamp) -> Result<u64, CommandError> {
    let wrong = || CommandError::Expires(text.chars().take(40).collect());
    let at: Timestamp = text.trim().parse().map_err(|_| wrong())?;
    match u64::try_from(at.as_second()) {
        Ok(seconds) if at > now => Ok(seconds),
        _ => Err(CommandError::Expired(at)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::application::testing::{activation, device};
    use crate::backend::message::Radiated;
    use crate::lorawan::GatewayEui;

    const EUI: DevEui = DevEui::from_msb([1, 2, 3, 4, 5, 6, 7, 0xAB]);

    fn events() -> Events {
        Events { application_id: derived(b"test"), application_name: "attic".into(), region: Region::eu868() }
    }

    fn now() -> Timestamp {
        "2026-11-20T10:00:00Z".parse().unwrap()
    }

    fn heard() -> UlMeta {
        UlMeta {
            f_port: Some(2),
            fcnt_up: Some(70_000),
            confirmed: true,
            adr: true,
            data_rate: Some(5),
            ul_freq: Some(868_100_000),
            rf_region: Some("EU868".into()),
            gw_info: vec![GwInfo {
                id: Some(vec![0xAA, 0x55, 0x5A, 0, 0xAA, 0xBB, 0, 1]),
                rssi: Some(-97),
                snr: Some(7.5),
                ..GwInfo::default()
            }],
            ..UlMeta::at("2026-11-20T10:00:00.25Z".parse().unwrap())
        }
    }

    fn body(event: &Event) -> Value {
        serde_json::from_str(&event.body).unwrap()
    }

    #[test]
    fn an_uplink_is_told_with_every_field_that_a_flow_may_look_for() {
        let event = events().up(&device(EUI), &activation(), &heard(), b"hello");
        let topic = events().topic(&event);
        assert_eq!(topic, format!("application/{}/device/01020304050607ab/event/up", derived(b"test")));
        let body = body(&event);
        for (pointer, value) in [
            ("/time", json!("2026-11-20T10:00:00.25Z")),
            ("/deviceInfo/devEui", json!("01020304050607ab")),
            ("/deviceInfo/deviceName", json!("barometer")),
            ("/deviceInfo/applicationName", json!("attic")),
            ("/deviceInfo/deviceClassEnabled", json!("CLASS_A")),
            ("/devAddr", json!("02000001")),
            ("/adr", json!(true)),
            ("/dr", json!(5)),
            ("/fCnt", json!(70_000)),
            ("/fPort", json!(2)),
            ("/confirmed", json!(true)),
            ("/data", json!("aGVsbG8=")),
            ("/object", Value::Null),
            ("/rxInfo/0/gatewayId", json!("aa555a00aabb0001")),
            ("/rxInfo/0/rssi", json!(-97)),
            ("/rxInfo/0/snr", json!(7.5)),
            ("/rxInfo/0/metadata/region_config_id", json!("eu868")),
            ("/rxInfo/0/crcStatus", json!("CRC_OK")),
            ("/txInfo/frequency", json!(868_100_000)),
            (
                "/txInfo/modulation/lora",
                json!({ "bandwidth": 125_000, "spreadingFactor": 7, "codeRate": "CR_4_5" }),
            ),
            ("/regionConfigId", json!("eu868")),
        ] {
            assert_eq!(body.pointer(pointer), Some(&value), "{pointer} of {body:#}");
        }
        assert!(is_uuid(body["deduplicationId"].as_str().unwrap()));
        assert_eq!(event, events().up(&device(EUI), &activation(), &heard(), b"hello"), "told again");
        let next =
            events().up(&device(EUI), &activation(), &UlMeta { fcnt_up: Some(70_001), ..heard() }, b"");
        assert_ne!(body["deduplicationId"], self::body(&next)["deduplicationId"]);
    }

    #[test]
    fn an_acknowledgement_names_the_command_that_it_settles() {
        let at = "2026-11-20T10:00:00Z".parse().unwrap();
        let ack = body(&events().ack(&device(EUI), "some-id", 0, false, at));
        assert_eq!((&ack["queueItemId"], &ack["acknowledged"]), (&json!("some-id"), &json!(false)));
        assert_eq!(ack["fCntDown"], 0, "defaults of the event itself are there");
    }

    #[test]
    fn a_transmission_names_its_gateway_and_how_it_goes_out_where_the_gateway_is_ours() {
        let by = Radiated {
            gateway: GatewayEui::from_msb([0xAA; 8]),
            frequency: 869_525_000,
            modulation: Modulation::Lora { sf: 12, bandwidth: 125_000 },
            power: Some(27),
        };
        let taken = XmitAns { dl_freq2: Some(869_525_000), radiated: Some(by), ..XmitAns::default() };
        let told = body(&events().tx_ack(&device(EUI), "some-id", 7, &taken, now()));
        assert_eq!((&told["gatewayId"], &told["fCntDown"]), (&json!("aaaaaaaaaaaaaaaa"), &json!(7)));
        let lora = json!({ "bandwidth": 125_000, "spreadingFactor": 12, "codeRate": "CR_4_5", "polarizationInversion": true });
        let info = json!({ "frequency": 869_525_000, "power": 27, "modulation": { "lora": lora } });
        assert_eq!(told["txInfo"], info);
        let taken = XmitAns { dl_freq1: Some(868_100_000), ..XmitAns::default() };
        let told = body(&events().tx_ack(&device(EUI), "some-id", 7, &taken, now()));
        assert_eq!((&told["gatewayId"], &told["txInfo"]), (&json!(""), &json!({ "frequency": 868_100_000 })));
    }

    #[test]
    fn another_networks_gateway_is_told_by_what_that_network_says() {
        let gw_info = vec![GwInfo { id: Some(vec![0xAA, 0xBB, 0, 1]), ..GwInfo::default() }];
        let up = events().up(&device(EUI), &activation(), &UlMeta { gw_info, ..heard() }, b"");
        assert_eq!(body(&up)["rxInfo"][0]["gatewayId"], "00000000aabb0001");
    }

    #[test]
    fn a_command_becomes_a_queue_item() {
        let id = "d1f5a5c0-0b0e-4c9a-8a74-0123456789ab";
        let text = format!(
            r#"{{"devEui":"01020304050607ab","confirmed":true,"fPort":10,"data":"AQI=","id":"{id}"}}"#
        );
        let item = command(EUI, text.as_bytes(), now(), [0; 16]).unwrap();
        assert_eq!((item.f_port, item.confirmed, item.payload, item.id), (10, true, vec![1, 2], id.into()));
        let item = command(EUI, br#"{"devEui":"01020304050607AB","fPort":1}"#, now(), [7; 16]).unwrap();
        assert!(item.payload.is_empty() && !item.confirmed && is_uuid(&item.id));
        assert_eq!(item.expires, None);
        let text = r#"{"devEui":"01020304050607ab","fPort":1,"expiresAt":"2026-11-20T12:00:00.9+01:00"}"#;
        assert_eq!(command(EUI, text.as_bytes(), now(), [0; 16]).unwrap().expires, Some(1_795_172_400));
    }

    #[test]
    fn a_command_that_cannot_be_obeyed_says_why() {
        let with = |rest: &str| {
            let text = format!(r#"{{"devEui":"01020304050607ab"{rest}}}"#);
            command(EUI, text.as_bytes(), now(), [0; 16]).unwrap_err()
        };
        assert_eq!(with(""), CommandError::Port(0));
        assert_eq!(with(r#","fPort":256"#), CommandError::Port(256));
        assert_eq!(with(r#","fPort":2,"object":{}"#), CommandError::Object);
        assert_eq!(with(r#","fPort":2,"id":"x""#), CommandError::Id);
        assert_eq!(with(r#","fPort":2,"expiresAt":"tomorrow""#), CommandError::Expires("tomorrow".into()));
        assert_eq!(with(r#","fPort":2,"expiresAt":"2026-11-20T10:00:00Z""#), CommandError::Expired(now()));
        assert_eq!(with(r#","fPort":2,"expiresAt":"2026-11-20T10:00:00Z""#).code(), "EXPIRED");
        assert!(matches!(with(r#","fPort":2,"data":"%""#), CommandError::Data(_)));
        assert!(matches!(with(r#","fPort":-2"#), CommandError::Form(_)));
        let long = BASE64.encode([0; 243]);
        assert_eq!(with(&format!(r#","fPort":2,"data":"{long}""#)), CommandError::Size(243));
        let other = command(DevEui::from_msb([9; 8]), br#"{"devEui":"01020304050607ab"}"#, now(), [0; 16]);
        assert!(matches!(other, Err(CommandError::OtherDevice(_))));
    }

    #[test]
    fn a_commands_topic_names_its_device_and_our_application() {
        let events = events();
        let topic = events.command_filter().replace('+', "01020304050607ab");
        assert_eq!(events.device_of(&topic), Some(EUI));
        assert_eq!(events.device_of(&topic.replace("application/", "application/0")), None);
        assert_eq!(events.device_of("application//device//command/down"), None);
    }

    proptest! {
        #[test]
        fn a_strangers_command_never_panics(body in prop::collection::vec(any::<u8>(), 0..200), topic in ".*") {
            let _ = command(EUI, &body, now(), [0; 16]);
            let _ = events().device_of(&topic);
        }

        #[test]
        fn a_command_of_any_values_is_taken_or_refused(port in any::<i64>(), data in "[A-Za-z0-9+/=]{0,12}") {
            let text = format!(r#"{{"devEui":"01020304050607ab","fPort":{port},"data":"{data}"}}"#);
            if let Ok(item) = command(EUI, text.as_bytes(), now(), [0; 16]) {
                prop_assert!(i64::from(item.f_port) == port && (1..=223).contains(&port));
            }
        }
    }
}
